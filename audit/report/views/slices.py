"""Slices: groups of images, told by a property, a column or a class, with their error rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.formats import compact
from audit.report.run_data import RunData, as_records
from audit.report.views.parts import (
    Estimate,
    Site,
    Whisker,
    defined,
    gallery_href,
    make_site,
    plain_estimate,
    whisker,
)
from audit.report.views.thumbs import ErrorThumb, error_thumbs
from audit.schemas import records

MAX_SLICES = 100
"""So many slices have a page; `slices.parquet` has them all."""

MAX_ERRORS = 24
"""So many errors of a slice are shown on its page."""

MAX_FILTERED = 20
"""So many slices the gallery can filter by: the first confirmed ones."""

KINDS = {
    "property": "image property",
    "metadata": "column of the data",
    "class": "class",
    "pair": "two conditions",
    "duplicates": "near-duplicates",
}


COLUMN_NAMES = {
    "y_true": "true class",
    "y_pred": "predicted class",
    "near_duplicates": "has near-duplicates",
    "edge_density": "edge density",
    "red_green": "red less green",
    "blue_yellow": "blue less yellow",
    "size": "number of pixels",
    "aspect_ratio": "width by height",
    "file_size": "file size in bytes",
    "object_share": "share of the object in the image",
}
"""What columns that are not the user's are called, if their name does not say it."""

USERS = "metadata."
"""What the names of the user's columns begin with."""


@dataclass(frozen=True)
class Condition:
    """What an image of the slice has: a column, and the range or the value in it."""

    column: str
    content: str


@dataclass(frozen=True)
class SliceView:
    """A slice. Rates are over all images; lift, p and q are of the half that confirms it."""

    number: int
    name: str
    kind: str
    href: str
    gallery_href: str | None
    conditions: tuple[Condition, ...]
    n_images: int
    n_errors: int
    rate: Estimate
    rate_at: Whisker | None
    other_rate: float | None
    excess: float | None
    lift: Estimate
    n_images_confirm: int
    n_errors_confirm: int
    p_value: float | None
    q_value: float | None
    is_confirmed: bool


@dataclass(frozen=True)
class SlicesPage:
    """All slices, confirmed ones first. `n_slices` counts those that are not shown, too."""

    site: Site
    slices: tuple[SliceView, ...]
    n_slices: int
    axis_high: float
    is_missing: bool


@dataclass(frozen=True)
class SlicePage:
    """One slice with some of its errors, the most confident first."""

    site: Site
    slice: SliceView
    previous: SliceView | None
    next: SliceView | None
    thumbs: tuple[ErrorThumb, ...]


def slices_page(data: RunData) -> SlicesPage:
    """Return the page that lists the slices."""
    found = data.diagnosis
    return SlicesPage(
        site=make_site(data),
        slices=slice_views(data),
        n_slices=len(found.slices),
        axis_high=_axis_high(records(_shown(data))),
        is_missing="slices" in found.missing,
    )


def slice_pages(data: RunData) -> list[SlicePage]:
    """Return a page per slice, in order."""
    site, views = make_site(data), slice_views(data)
    around = [None, *views, None]
    rows = records(_shown(data))
    return [
        SlicePage(site, view, around[n], around[n + 2], _thumbs(data, row["error_ids"]))
        for n, (view, row) in enumerate(zip(views, rows, strict=True))
    ]


def slice_views(data: RunData) -> tuple[SliceView, ...]:
    """Return the slices that have a page, confirmed ones first."""
    rows, can_filter = records(_shown(data)), filtered_slices(data)
    axis_high = _axis_high(rows)
    return tuple(_slice_view(row, axis_high, int(row["slice"]) in can_filter) for row in rows)


def filtered_slices(data: RunData) -> dict[int, tuple[str, list[int]]]:
    """Return what the gallery can filter by: name and errors (rows of `errors`) by slice."""
    return {
        int(row["slice"]): (str(row["name"]), _error_rows(data, row["error_ids"]))
        for row in records(_shown(data).head(MAX_FILTERED))
        if row["confirmed"]
    }


def slice_href(number: int) -> str:
    return f"slices/{number}.html"


def _shown(data: RunData) -> pd.DataFrame:
    return data.diagnosis.slices.head(MAX_SLICES)


def _axis_high(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the end of the whiskers' axis: the highest bound, rounded up to a tenth."""
    highest = max((defined(row["error_rate_high"]) or 0.0 for row in rows), default=0.0)
    return min(1.0, max(0.1, math.ceil(highest * 10) / 10))


def _slice_view(row: Mapping[str, Any], axis_high: float, can_filter: bool) -> SliceView:
    number = int(row["slice"])
    rate = plain_estimate(row["error_rate"], row["error_rate_low"], row["error_rate_high"])
    return SliceView(
        number=number,
        name=str(row["name"]),
        kind=KINDS.get(str(row["kind"]), str(row["kind"])),
        href=slice_href(number),
        gallery_href=gallery_href(slice=number) if can_filter else None,
        conditions=tuple(_condition(item) for item in as_records(row["conditions"])),
        n_images=int(row["n_images"]),
        n_errors=int(row["n_errors"]),
        rate=rate,
        rate_at=whisker(rate, 0.0, axis_high),
        other_rate=defined(row["other_error_rate"]),
        excess=defined(row["excess_errors"]),
        lift=plain_estimate(row["lift"], row["lift_low"], row["lift_high"]),
        n_images_confirm=int(row["n_images_confirm"]),
        n_errors_confirm=int(row["n_errors_confirm"]),
        p_value=defined(row["p_value"]),
        q_value=defined(row["q_value"]),
        is_confirmed=bool(row["confirmed"]),
    )


def _condition(item: Mapping[str, Any]) -> Condition:
    """Put a condition into words; a value may be any text of the user's."""
    low, high = defined(item["low"]), defined(item["high"])
    if low is not None and high is not None:
        content = f"{low:.4g} to {high:.4g}"
    elif low is not None:
        content = f"{low:.4g} or more"
    elif high is not None:
        content = f"below {high:.4g}"
    else:
        content = compact(item["value"] or "nothing")
    column = str(item["column"])
    return Condition(COLUMN_NAMES.get(column, column.removeprefix(USERS)), content)


def _thumbs(data: RunData, image_ids: Iterable[int]) -> tuple[ErrorThumb, ...]:
    return error_thumbs(data, _error_rows(data, image_ids)[:MAX_ERRORS])


def _error_rows(data: RunData, image_ids: Iterable[int]) -> list[int]:
    """Return the rows of images in `errors`, the most confident first."""
    return sorted(data.error_rows[int(i)] for i in image_ids if int(i) in data.error_rows)
