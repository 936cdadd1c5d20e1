"""The focus patterns: what `patterns.html` and the page of each pattern show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit.report.run_data import RunData, as_records, records
from audit.report.views.parts import (
    ErrorThumb,
    Estimate,
    Pair,
    Site,
    defined,
    error_thumbs,
    gallery_href,
    make_site,
    plain_estimate,
)

MAX_OTHERS = 120
"""So many members beside the exemplars are shown on a pattern's page; the gallery has them all."""


@dataclass(frozen=True)
class PatternView:
    """A focus pattern. `others` are members beside the exemplars; `has_all`: none is missing."""

    number: int
    name: str
    href: str
    gallery_href: str
    picture: str | None
    n_errors: int
    share_of_errors: float
    n_controls: int
    control_share: float | None
    lift: Estimate
    stability: float | None
    comparison: str
    verdict: str
    confusions: tuple[Pair, ...]
    exemplars: tuple[ErrorThumb, ...]
    others: tuple[ErrorThumb, ...]
    has_all: bool


@dataclass(frozen=True)
class PatternsPage:
    """All focus patterns."""

    site: Site
    patterns: tuple[PatternView, ...]
    n_outside_patterns: int
    is_explained: bool


@dataclass(frozen=True)
class PatternPage:
    """One focus pattern, with links to its neighbours."""

    site: Site
    pattern: PatternView
    previous: PatternView | None
    next: PatternView | None


def patterns_page(data: RunData, patterns: Sequence[PatternView]) -> PatternsPage:
    """Return the page that lists the patterns."""
    outside = int((data.errors["pattern"] == 0).sum())
    return PatternsPage(make_site(data), tuple(patterns), outside, data.is_explained)


def pattern_pages(data: RunData, patterns: Sequence[PatternView]) -> list[PatternPage]:
    """Return a page per pattern, in order."""
    site = make_site(data)
    around = [None, *patterns, None]
    return [
        PatternPage(site, pattern, around[n], around[n + 2]) for n, pattern in enumerate(patterns)
    ]


def pattern_views(data: RunData) -> tuple[PatternView, ...]:
    """Return the focus patterns, largest first, with their exemplars and members."""
    by_id = data.errors.set_index("image_id", drop=False)
    result = []
    for row in records(data.patterns):
        number = int(row["pattern"])
        exemplars = [i for i in row["exemplars"] if i in by_id.index]
        members = data.errors[data.errors["pattern"] == number]
        others = members[~members["image_id"].isin(exemplars)]
        view = PatternView(
            number=number,
            name=str(row["name"]),
            href=f"pattern-{number}.html",
            gallery_href=gallery_href(pattern=number),
            picture=f"images/pattern-{number}.jpg",
            n_errors=int(row["n_errors"]),
            share_of_errors=float(row["share_of_errors"]),
            n_controls=int(row["n_controls"]),
            control_share=defined(row["control_share"]),
            lift=plain_estimate(row["lift"], row["lift_low"], row["lift_high"]),
            stability=defined(row["stability"]),
            comparison=comparison(row["lift_low"], row["lift_high"]),
            verdict=str(row["verdict"]),
            confusions=_pattern_confusions(data, row["confusions"], number),
            exemplars=tuple(error_thumbs(data, by_id.loc[exemplars])),
            others=tuple(error_thumbs(data, others.head(MAX_OTHERS))),
            has_all=len(others) <= MAX_OTHERS,
        )
        result.append(view)
    return tuple(result)


def comparison(lift_low: float, lift_high: float) -> str:
    """Say in words what the interval of the lift allows to say."""
    if lift_low > 1:
        return "more often than correct images"
    if lift_high < 1:
        return "less often than correct images"
    return "no clear difference from correct images"


def _pattern_confusions(data: RunData, stored: Any, number: int) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            true_name=data.class_names[int(item["y_true"])],
            predicted_name=data.class_names[int(item["y_pred"])],
            count=int(item["count"]),
            share=Estimate(None, None, None),
            href=gallery_href(
                true=int(item["y_true"]), predicted=int(item["y_pred"]), pattern=number
            ),
        )
        for item in as_records(stored)
    )
