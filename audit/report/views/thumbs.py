"""Pictures on pages: cards of errors and of other images.

In: `RunData`. Out: small frozen dataclasses. Names of files are made of integers only; names of
classes and paths are passed on as they are, for the templates to escape.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit.report.run_data import RunData


@dataclass(frozen=True)
class ErrorThumb:
    """An error as a card: picture, overlay of the predicted class, who was taken for whom.

    `flag` says what puts its label in doubt, "" if nothing does.
    """

    image_id: int
    href: str
    photo: str | None
    heat: str | None
    width: int
    height: int
    true_name: str
    predicted_name: str
    confidence: float
    path: str
    pattern: int
    pattern_name: str
    flag: str


@dataclass(frozen=True)
class ImageThumb:
    """Any image as a card: an error with a link to its page, another one without.

    `predicted_name` is `None` for an image that is right or was not predicted, `photo` without a
    stored picture. `label_name` is the class of its label, "" where there is none; so it is for a
    file that could not be read, whose `image_id` is -1.
    """

    image_id: int
    href: str | None
    photo: str | None
    heat: str | None
    width: int
    height: int
    label_name: str
    predicted_name: str | None
    path: str
    flag: str


def error_href(image_id: int) -> str:
    return f"errors/{image_id}.html"


def picture_name(image_id: int, what: str = "") -> str:
    """Return the file name of an error's picture: what the model saw, or a part of it."""
    return f"images/{image_id}-{what}.jpg" if what else f"images/{image_id}.jpg"


def heat_name(image_id: int) -> str:
    """Return the file name of the overlay of an error's predicted class."""
    return f"images/{image_id}-predicted.png"


def error_thumbs(data: RunData, rows: Iterable[int]) -> tuple[ErrorThumb, ...]:
    """Return cards for rows of `data.errors`, in the order given."""
    return tuple(_error_thumb(data, data.error_records[row]) for row in rows)


def thumbs_of_errors(data: RunData, image_ids: Iterable[int]) -> tuple[ErrorThumb, ...]:
    """Return cards for those of the images that are errors, in the order given."""
    found = (data.error_rows.get(int(image_id)) for image_id in image_ids)
    return error_thumbs(data, [row for row in found if row is not None])


def image_thumb(data: RunData, image_id: int, *, heat: bool = True) -> ImageThumb:
    """Return the card of any listed image; without `heat`, of an error too only the picture."""
    if image_id in data.error_rows:
        (error,) = thumbs_of_errors(data, [image_id])
        return ImageThumb(
            image_id=image_id,
            href=error.href,
            photo=error.photo,
            heat=error.heat if heat else None,
            width=error.width,
            height=error.height,
            label_name=error.true_name,
            predicted_name=error.predicted_name,
            path=error.path,
            flag=error.flag,
        )
    size = data.pictures.get(image_id)
    height, width = size or (1, 1)
    return ImageThumb(
        image_id=image_id,
        href=None,
        photo=picture_name(image_id) if size else None,
        heat=None,
        width=width,
        height=height,
        label_name=class_name(data.class_names, data.images["y_true"][image_id]),
        predicted_name=None,
        path=str(data.images["path"][image_id]),
        flag=data.diagnosis.flags.get(image_id, ""),
    )


def file_thumb(path: str) -> ImageThumb:
    """Return the card of a file that is no image of the run, because it could not be read."""
    return ImageThumb(
        image_id=-1,
        href=None,
        photo=None,
        heat=None,
        width=1,
        height=1,
        label_name="",
        predicted_name=None,
        path=path,
        flag="",
    )


def class_name(class_names: Sequence[str], index: int) -> str:
    """Return the name of a class, "" for -1, which stands for none."""
    return class_names[index] if index >= 0 else ""


def _error_thumb(data: RunData, row: Mapping[str, Any]) -> ErrorThumb:
    image_id, predicted, pattern = int(row["image_id"]), int(row["y_pred"]), int(row["pattern"])
    size = data.pictures.get(image_id)
    speaks = size is not None and data.peaks.get((image_id, predicted), 0) > 0
    height, width = size or (1, 1)
    return ErrorThumb(
        image_id=image_id,
        href=error_href(image_id),
        photo=picture_name(image_id) if size else None,
        heat=heat_name(image_id) if speaks else None,
        width=width,
        height=height,
        true_name=data.class_names[int(row["y_true"])],
        predicted_name=data.class_names[predicted],
        confidence=single(row["p_pred"]),
        path=str(row["path"]),
        pattern=pattern,
        pattern_name=data.pattern_names.get(pattern, ""),
        flag=data.diagnosis.flags.get(image_id, ""),
    )


def single(value: Any) -> float:
    """Return a float32 as the shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))
