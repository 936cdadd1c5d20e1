"""The gallery of all errors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.formats import legible
from audit.report.run_data import RunData
from audit.report.views.parts import Site, make_site
from audit.report.views.slices import filtered_slices
from audit.report.views.thumbs import ErrorThumb, error_thumbs, single

PAGE_SIZE = 200


@dataclass(frozen=True)
class Choice:
    """One entry of a filter."""

    value: int
    name: str
    count: int


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery. The first carries `data`, all errors in columns, to filter."""

    site: Site
    number: int
    n_pages: int
    thumbs: tuple[ErrorThumb, ...]
    first: int
    true_classes: tuple[Choice, ...]
    predicted_classes: tuple[Choice, ...]
    patterns: tuple[Choice, ...]
    n_outside_patterns: int
    slices: tuple[Choice, ...]
    n_flagged: int
    data: Mapping[str, Any] | None

    @property
    def last(self) -> int:
        return self.first + len(self.thumbs) - 1


def gallery_pages(data: RunData) -> Iterator[GalleryPage]:
    """Yield the pages of the gallery in order; there is one even when there is no error."""
    n_pages = max(1, math.ceil(len(data.errors) / PAGE_SIZE))
    site = make_site(data)
    true_classes = _choices(data.errors["y_true"], data.class_names)
    predicted_classes = _choices(data.errors["y_pred"], data.class_names)
    in_pattern = data.errors.loc[data.errors["pattern"] > 0, "pattern"]
    slices = filtered_slices(data)
    for number in range(1, n_pages + 1):
        first = (number - 1) * PAGE_SIZE
        yield GalleryPage(
            site=site,
            number=number,
            n_pages=n_pages,
            thumbs=error_thumbs(data, range(first, min(first + PAGE_SIZE, len(data.errors)))),
            first=first + 1,
            true_classes=true_classes,
            predicted_classes=predicted_classes,
            patterns=_choices(in_pattern, data.pattern_names),
            n_outside_patterns=len(data.errors) - len(in_pattern),
            slices=tuple(Choice(n, name, len(rows)) for n, (name, rows) in slices.items()),
            n_flagged=sum(i in data.diagnosis.flags for i in data.error_rows),
            data=_gallery_data(data) if number == 1 else None,
        )


def gallery_file(number: int) -> str:
    return "errors.html" if number == 1 else f"errors-{number}.html"


def _choices(values: pd.Series, names: Mapping[int, str] | Sequence[str]) -> tuple[Choice, ...]:
    counts = values.value_counts().sort_index()
    pairs = zip(counts.index.tolist(), counts.tolist(), strict=True)
    return tuple(Choice(value, names[value], count) for value, count in pairs)


def _gallery_data(data: RunData) -> dict[str, Any]:
    """Return every error in columns, names once.

    `pictures` is 0 none, 1 picture, 2 overlay too; `flags` says by row what puts a label in doubt;
    `slices` has the rows of each slice.
    """
    errors = data.errors
    pictures = [
        int(image_id in data.pictures) + int(data.peaks.get((image_id, y_pred), 0) > 0)
        for image_id, y_pred in zip(errors["image_id"], errors["y_pred"], strict=True)
    ]
    return {
        "classes": [legible(name) for name in data.class_names],
        "patterns": {number: legible(name) for number, name in data.pattern_names.items()},
        "id": errors["image_id"].tolist(),
        "true": errors["y_true"].tolist(),
        "predicted": errors["y_pred"].tolist(),
        "confidence": [single(value) for value in errors["p_pred"]],
        "pattern": errors["pattern"].tolist(),
        "pictures": pictures,
        "flags": {
            data.error_rows[i]: why
            for i, why in data.diagnosis.flags.items()
            if i in data.error_rows
        },
        "slices": {number: rows for number, (_, rows) in filtered_slices(data).items()},
        "path": [legible(path) for path in errors["path"]],
    }
