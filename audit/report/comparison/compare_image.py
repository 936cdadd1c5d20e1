"""The page of one image: what every run says of it, and where each looked.

In: the images that a comparison shows. Out: a small frozen dataclass with the maps packed into one
string, which the browser unpacks, colours and enlarges.

The string is base64 of a zlib stream: the maps that `classes` lists, one after the other, a byte
per pixel, row-major. A pixel is the heat as a share of the map's own peak, 255 for all of it. Kept
is what it has more than its neighbour on the left, or in the first column than the one above,
modulo 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from audit.report.comparison.compare_overview import CompareSite, gallery_href
from audit.report.comparison.compared_images import (
    OUTCOMES,
    ComparedImages,
    Side,
    gif_name,
    page_name,
)
from audit.report.comparison.compared_pictures import StoredMap
from audit.report.formats import legible
from audit.report.images import HALF_PEAK, Pixels, data_address
from audit.report.packing import THOROUGH, pack

MASK_SIDE = 112
"""Pixels on the longer side of the mask that stands in without a script."""
COVER = 235
"""How much a mask covers what lies below the threshold, of 255; as in `maps.js`."""
MOST_ROWS = 6
"""Classes whose probabilities are shown."""


@dataclass(frozen=True)
class ScoreRow:
    """The probability of a class in every run. `said_by` are the runs that predict it."""

    name: str
    is_true: bool
    values: tuple[float, ...]
    said_by: tuple[int, ...]

    @property
    def bars(self) -> tuple[float, ...]:
        """How long the bar of each value is, 0 to 100."""
        return tuple(round(100 * value, 2) for value in self.values)


@dataclass(frozen=True)
class ExplainedClass:
    """The overlays of one class; `shares` has `None` for runs without a map."""

    index: int
    name: str
    is_true: bool
    shares: tuple[float | None, ...]

    @property
    def n_maps(self) -> int:
        return sum(share is not None for share in self.shares)


@dataclass(frozen=True)
class Segment:
    """What lies above half of a map's peak: a mask to lay over the picture, and its share."""

    mask: str
    share: float


@dataclass(frozen=True)
class ImagePage:
    """One image over the runs.

    Attributes:
        outcome: from the first run to the last.
        sides: of every run, for the first of `explained`.
        segments: of every run, for the same class, `None` without a map.
        patterns: (label of the run, number and name of the pattern, link to its images).
        maps: packed; what is in it and how is in `data`.
        gif: the file of the animation, `None` without one.
        same_scale: whether the overlays of a class share one scale.
    """

    site: CompareSite
    position: int
    number: int
    path: str
    true_name: str
    outcome: str
    outcome_href: str
    sides: tuple[Side, ...]
    explained: tuple[ExplainedClass, ...]
    segments: tuple[Segment | None, ...]
    scores: tuple[ScoreRow, ...]
    patterns: tuple[tuple[str, int, str, str], ...]
    same_scale: bool
    data: dict[str, Any] | None
    gif: str | None
    size: tuple[int, int]
    previous: str | None
    next: str | None

    @property
    def n_maps(self) -> int:
        """How many runs have a map for the class of the overlays."""
        return self.explained[0].n_maps


def image_page(
    site: CompareSite,
    shown: ComparedImages,
    place: int,
    patterns: Sequence[tuple[int, int, str]],
    *,
    size: tuple[int, int],
    has_gif: bool,
) -> ImagePage:
    """Return the page of an image.

    Args:
        site: what every page carries.
        shown: the images.
        place: of the image in `shown.order`.
        patterns: that it is in: the run that found one, its number and name.
        size: (height, width) of its picture.
        has_gif: whether there is an animation.
    """
    images, row = shown.images, int(shown.order[place])
    position, last = int(shown.positions[row]), len(site.labels) - 1
    y_true = int(images.y_true[position])
    runs = range(len(site.labels))
    explained = tuple(
        ExplainedClass(
            index, images.class_names[index], index == y_true, shown.shares(position, index)
        )
        for index in shown.classes(position)
    )
    explained = tuple(x for x in explained if x.n_maps) or explained[:1]
    main = explained[0]
    maps = [shown.pictures.map(position, run, main.index) for run in runs]
    outcome = int(shown.outcomes(last)[row])
    neighbours = [
        page_name(int(shown.positions[shown.order[other]])) if 0 <= other < len(shown) else None
        for other in (place - 1, place + 1)
    ]
    return ImagePage(
        site=site,
        position=position,
        number=place + 1,
        path=str(images.paths[position]),
        true_name=images.class_names[y_true],
        outcome=OUTCOMES[outcome],
        outcome_href=gallery_href(step=last, outcome=outcome),
        sides=tuple(shown.side(row, run, main.index, main.shares[run] or 1.0) for run in runs),
        explained=explained,
        segments=tuple(None if found is None else _segment(found, size) for found in maps),
        scores=_scores(shown, position),
        patterns=tuple(
            (site.labels[run], number, name, gallery_href(step=last, pattern=f"{run}-{number}"))
            for run, number, name in patterns
        ),
        same_scale=shown.pictures.same_method,
        data=_data(shown, position, explained),
        gif=gif_name(position) if has_gif else None,
        size=size,
        previous=neighbours[0],
        next=neighbours[1],
    )


def pack_maps(maps: Sequence[Pixels]) -> str:
    """Return maps as a page holds them, see above."""
    return pack(b"".join(_differences(cam).tobytes() for cam in maps), THOROUGH)


def _differences(cam: Pixels) -> Pixels:
    result = cam.copy()
    result[:, 1:] -= cam[:, :-1]
    result[1:, 0] -= cam[:-1, 0]
    return result


def _data(
    shown: ComparedImages, position: int, explained: Sequence[ExplainedClass]
) -> dict[str, Any] | None:
    """Return the maps of a page and what is in them; `None` without any."""
    maps, classes = [], []
    for found in explained:
        sizes: list[tuple[int, int, float] | None] = []
        for run, share in enumerate(found.shares):
            stored = shown.pictures.map(position, run, found.index)
            if stored is None or share is None:
                sizes.append(None)
                continue
            maps.append(stored.cam)
            height, width = stored.cam.shape
            sizes.append((height, width, share))
        classes.append({"name": legible(found.name), "runs": sizes})
    if not maps:
        return None
    return {"classes": classes, "maps": pack_maps(maps)}


def _scores(shown: ComparedImages, position: int) -> tuple[ScoreRow, ...]:
    """Return the classes that any run predicts, the true one first, then the most probable."""
    images = shown.images
    y_true = int(images.y_true[position])
    of_image = images.scores[:, position]
    said = [int(index) for index in images.y_pred[:, position]]
    by_score = np.argsort(-of_image.max(axis=0), kind="stable").tolist()
    first = dict.fromkeys([y_true, *said])
    chosen = list(dict.fromkeys([*first, *by_score]))[: max(MOST_ROWS, len(first))]
    return tuple(
        ScoreRow(
            name=images.class_names[index],
            is_true=index == y_true,
            values=tuple(float(str(value)) for value in of_image[:, index]),
            said_by=tuple(run for run, predicted in enumerate(said) if predicted == index),
        )
        for index in chosen
    )


def _segment(found: StoredMap, size: tuple[int, int]) -> Segment:
    """Cover what lies below half of a map's own peak, at the picture's proportions."""
    scale = MASK_SIDE / max(size)
    height, width = (max(1, round(length * scale)) for length in size)
    large = cv2.resize(
        found.cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    inside = large >= HALF_PEAK
    mask = np.zeros((height, width, 4), np.uint8)
    mask[..., 3] = np.where(inside, 0, COVER)
    _, png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return Segment(data_address(bytes(png)), float(inside.mean()))
