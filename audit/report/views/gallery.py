"""The gallery of all errors: pages that are complete without a script, and data to filter."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.explain.painting import AREAS, ELSEWHERE, FOCUS
from audit.report.formats import legible
from audit.report.packing import pack_json
from audit.report.run_data import RunData
from audit.report.views.parts import Site, make_site
from audit.report.views.slices import filtered_slices
from audit.report.views.thumbs import ErrorThumb, error_thumbs, single

PAGE_SIZE = 200

STEPS = (1, 10, 50)
"""How far from a page the pages lie that it links, beside the first and the last."""

SHORT_NAMES = 14
"""Two names of so many characters together fit on one line of a card; all cards have as many."""

BLANK = ErrorThumb(
    image_id=0,
    href="",
    photo="",
    heat="",
    width=1,
    height=1,
    true_name="",
    predicted_name="",
    confidence=0.0,
    path="",
    pattern=-1,
    pattern_name="",
    flag=" ",
)
"""A card that has every part. The script fills copies of it."""


@dataclass(frozen=True)
class Choice:
    """One entry of a filter."""

    value: int
    name: str
    count: int


@dataclass(frozen=True)
class PageLink:
    """A link of the pager. `follows` is false where pages are left out before it."""

    number: int
    href: str
    follows: bool


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery. The first carries `data`, all errors in columns, to filter.

    `n_tested` counts the errors that were painted out, `painted` is the share of the image that
    was. `is_short` says that the names of any two classes fit on one line of a card.
    """

    site: Site
    number: int
    n_pages: int
    links: tuple[PageLink, ...]
    thumbs: tuple[ErrorThumb, ...]
    blank: ErrorThumb
    first: int
    true_classes: tuple[Choice, ...]
    predicted_classes: tuple[Choice, ...]
    patterns: tuple[Choice, ...]
    n_outside_patterns: int
    slices: tuple[Choice, ...]
    n_flagged: int
    n_tested: int
    painted: float
    is_short: bool
    data: str | None

    @property
    def last(self) -> int:
        return self.first + len(self.thumbs) - 1

    @property
    def previous(self) -> str | None:
        return gallery_file(self.number - 1) if self.number > 1 else None

    @property
    def next(self) -> str | None:
        return gallery_file(self.number + 1) if self.number < self.n_pages else None


def gallery_pages(data: RunData) -> Iterator[GalleryPage]:
    """Yield the pages of the gallery in order; there is one even when there is no error."""
    errors = data.errors
    n_pages = max(1, math.ceil(len(errors) / PAGE_SIZE))
    site, falls = make_site(data), causal_falls(data.diagnosis.causes)
    in_pattern = errors.loc[errors["pattern"] > 0, "pattern"]
    true_classes = _choices(errors["y_true"], data.class_names)
    predicted_classes = _choices(errors["y_pred"], data.class_names)
    patterns = _choices(in_pattern, data.pattern_names)
    slices = tuple(Choice(n, name, len(rows)) for n, (name, rows) in filtered_slices(data).items())
    n_flagged = int(errors["image_id"].isin(list(data.diagnosis.flags)).sum())
    n_tested = int(errors["image_id"].isin(falls.index).sum())
    is_short = _longest(true_classes) + _longest(predicted_classes) <= SHORT_NAMES
    for number in range(1, n_pages + 1):
        first = (number - 1) * PAGE_SIZE
        yield GalleryPage(
            site=site,
            number=number,
            n_pages=n_pages,
            links=page_links(number, n_pages),
            thumbs=error_thumbs(data, range(first, min(first + PAGE_SIZE, len(errors)))),
            blank=BLANK,
            first=first + 1,
            true_classes=true_classes,
            predicted_classes=predicted_classes,
            patterns=patterns,
            n_outside_patterns=len(errors) - len(in_pattern),
            slices=slices,
            n_flagged=n_flagged,
            n_tested=n_tested,
            painted=AREAS[-1],
            is_short=is_short,
            data=pack_json(gallery_data(data, falls)) if number == 1 else None,
        )


def gallery_file(number: int) -> str:
    return "errors.html" if number == 1 else f"errors-{number}.html"


def page_links(
    number: int, n_pages: int, file: Callable[[int], str] = gallery_file
) -> tuple[PageLink, ...]:
    """Return links to the first and the last page, this one, its neighbours, and some farther."""
    near = {number + sign * step for step in STEPS for sign in (-1, 1)}
    shown = sorted({1, number, n_pages} | {n for n in near if 1 <= n <= n_pages})
    before = [0, *shown]
    return tuple(
        PageLink(n, file(n), follows=n == last + 1) for n, last in zip(shown, before, strict=False)
    )


def causal_falls(causes: pd.DataFrame) -> "pd.Series[float]":
    """Return how causal each error's focus is: what painting it out does beyond painting elsewhere.

    That is the fall of the logit of the predicted class, less that of the true class, with the
    focus painted out, less its mean fall with the same shape painted out elsewhere. Both are at the
    largest area, as in the verdicts on patterns, and for finite logits.

    Args:
        causes: columns image_id, treatment, area and logit_fall; may be empty.

    Returns:
        float64 by image id, in order; without the errors that were not tested.
    """
    usable = causes["area"].eq(AREAS[-1]) & np.isfinite(causes["logit_fall"].astype(np.float64))
    chosen = causes.loc[usable, ["image_id", "treatment", "logit_fall"]]
    means = {
        treatment: chosen[chosen["treatment"] == treatment]
        .astype({"image_id": np.int64, "logit_fall": np.float64})
        .groupby("image_id")["logit_fall"]
        .mean()
        for treatment in (FOCUS, ELSEWHERE)
    }
    return (means[FOCUS] - means[ELSEWHERE]).dropna().sort_index()


def gallery_data(data: RunData, falls: "pd.Series[float]") -> dict[str, Any]:
    """Return every error in columns, names once. The rows are in order of the paths.

    `pictures` is 0 none, 1 picture, 2 heat-map too. `flags` numbers what puts a label in doubt, as
    `reasons` says it, from 1; 0 is nothing. Bit n of `slices` says whether the error is in the
    slice with the n-th of `slice_numbers`. `falls` is that of `causal_falls` to a thousandth,
    `None` where an error was not tested.
    """
    errors = data.errors.sort_values("image_id")
    ids = errors["image_id"].tolist()
    peaks = [data.peaks.get(key, 0.0) for key in zip(ids, errors["y_pred"].tolist(), strict=True)]
    reasons = sorted(set(data.diagnosis.flags.values()))
    numbers = {reason: n for n, reason in enumerate(reasons, start=1)}
    flags = data.diagnosis.flags
    known = falls.reindex(ids).round(3).tolist()
    slices = filtered_slices(data)
    return {
        "classes": [legible(name) for name in data.class_names],
        "patterns": {number: legible(name) for number, name in data.pattern_names.items()},
        "reasons": reasons,
        "slice_numbers": list(slices),
        "id": ids,
        "true": errors["y_true"].tolist(),
        "predicted": errors["y_pred"].tolist(),
        "confidence": [single(value) for value in errors["p_pred"]],
        "pattern": errors["pattern"].tolist(),
        "pictures": [
            int(i in data.pictures) * (1 + (p > 0)) for i, p in zip(ids, peaks, strict=True)
        ],
        "flags": [numbers[flags[i]] if i in flags else 0 for i in ids],
        "slices": _slice_bits([rows for _, rows in slices.values()], errors.index),
        "falls": [None if math.isnan(fall) else fall for fall in known],
        "path": [legible(path) for path in errors["path"]],
    }


def _slice_bits(slices: Sequence[Sequence[int]], order: pd.Index) -> list[int]:
    """Return for each error, in this order of rows, the bits of the slices that it is in."""
    bits = np.zeros(len(order), np.int64)
    for n, rows in enumerate(slices):
        bits[rows] |= 1 << n
    found: list[int] = bits[order].tolist()
    return found


def _choices(values: pd.Series, names: Mapping[int, str] | Sequence[str]) -> tuple[Choice, ...]:
    counts = values.value_counts().sort_index()
    pairs = zip(counts.index.tolist(), counts.tolist(), strict=True)
    return tuple(Choice(value, names[value], count) for value, count in pairs)


def _longest(choices: Sequence[Choice]) -> int:
    return max((len(legible(choice.name)) for choice in choices), default=0)
