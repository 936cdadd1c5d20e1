"""The focus patterns: what `patterns.html` and the page of each pattern show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.report.run_data import RunData, as_records
from audit.report.views.causes import CauseView, cause_view
from audit.report.views.objects import PatternInside, pattern_inside
from audit.report.views.parts import (
    Estimate,
    Pair,
    Site,
    defined,
    gallery_href,
    make_site,
    plain_estimate,
)
from audit.report.views.thumbs import ErrorThumb, error_thumbs, picture_name, thumbs_of_errors
from audit.schemas import NOT_TESTED, records

MAX_OTHERS = 120
"""So many members beside the exemplars are shown on a pattern's page; the gallery has them all."""

KINDS = {"place": "by place", "look": "by look", "both": "by place and look"}
"""What the members have in common."""

FEATURES = {
    "centre_x": ("Centre, from the left", "percent"),
    "centre_y": ("Centre, from the top", "percent"),
    "area": ("Area at half the peak", "percent"),
    "border_share": ("Share in the border", "percent"),
    "concentration": ("Share in the hottest tenth", "percent"),
    "elongation": ("Length over width", "number"),
    "orientation": ("Direction in degrees, 90 is upright", "number"),
    "n_blobs": ("Spots", "number"),
    "agreement": ("Agreement between layers", "number"),
}
"""What is said of the members' maps: column of `patterns.parquet`, words, kind of number."""


@dataclass(frozen=True)
class Crop:
    """What lies under the focus of an exemplar, cut out of its picture."""

    thumb: ErrorThumb
    photo: str


@dataclass(frozen=True)
class Feature:
    """A number that describes the members' focus, `kind` being "percent" or "number"."""

    label: str
    value: float
    kind: str


@dataclass(frozen=True)
class PatternView:
    """A focus pattern. `others` are members beside the exemplars; `has_all`: none is missing.

    `control_share` is that of correct images of the same predicted classes, `true_control_share`
    that of the same true ones. `inside` is `None` where no object of a member is known.
    """

    number: int
    name: str
    kind: str
    href: str
    gallery_href: str
    picture: str | None
    n_errors: int
    share_of_errors: float
    n_controls: int
    control_share: float | None
    n_true_controls: int
    true_control_share: float | None
    lift: Estimate
    q_value: float | None
    stability: float | None
    comparison: str
    cause: CauseView
    features: tuple[Feature, ...]
    crops: tuple[Crop, ...]
    confusions: tuple[Pair, ...]
    exemplars: tuple[ErrorThumb, ...]
    others: tuple[ErrorThumb, ...]
    has_all: bool
    inside: PatternInside | None = None


@dataclass(frozen=True)
class PatternsPage:
    """All focus patterns."""

    site: Site
    patterns: tuple[PatternView, ...]
    n_outside_patterns: int
    is_explained: bool
    is_tested: bool


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
    return PatternsPage(
        site=make_site(data),
        patterns=tuple(patterns),
        n_outside_patterns=outside,
        is_explained=data.is_explained,
        is_tested=any(pattern.cause.verdict != NOT_TESTED for pattern in patterns),
    )


def pattern_pages(data: RunData, patterns: Sequence[PatternView]) -> list[PatternPage]:
    """Return a page per pattern, in order."""
    site = make_site(data)
    around = [None, *patterns, None]
    return [
        PatternPage(site, pattern, around[n], around[n + 2]) for n, pattern in enumerate(patterns)
    ]


def pattern_views(data: RunData) -> tuple[PatternView, ...]:
    """Return the focus patterns, largest first, with their exemplars and members."""
    result = []
    for row in records(data.patterns):
        number = int(row["pattern"])
        exemplars = thumbs_of_errors(data, row["exemplars"])
        members = data.errors[data.errors["pattern"] == number]
        others = members[~members["image_id"].isin([thumb.image_id for thumb in exemplars])]
        view = PatternView(
            number=number,
            name=str(row["name"]),
            kind=KINDS.get(row["kind"], ""),
            href=f"pattern-{number}.html",
            gallery_href=gallery_href(pattern=number),
            picture=f"images/pattern-{number}.jpg",
            n_errors=int(row["n_errors"]),
            share_of_errors=float(row["share_of_errors"]),
            n_controls=int(row["n_controls"]),
            control_share=defined(row["control_share"]),
            n_true_controls=int(defined(row["n_true_controls"]) or 0),
            true_control_share=defined(row["true_control_share"]),
            lift=plain_estimate(row["lift"], row["lift_low"], row["lift_high"]),
            q_value=defined(row["q_value"]),
            stability=defined(row["stability"]),
            comparison=comparison(row["lift_low"], row["lift_high"]),
            cause=cause_view(row),
            features=_features(row),
            crops=tuple(Crop(x, picture_name(x.image_id, "crop")) for x in exemplars if x.heat),
            confusions=_pattern_confusions(data, row["confusions"], number),
            exemplars=exemplars,
            others=error_thumbs(data, others.index[:MAX_OTHERS]),
            has_all=len(others) <= MAX_OTHERS,
            inside=pattern_inside(row),
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


def _features(row: Mapping[str, Any]) -> tuple[Feature, ...]:
    """Return the features that the run has, in the order of `FEATURES`."""
    found = {name: defined(row.get(name)) for name in FEATURES}
    return tuple(
        Feature(words, value, kind)
        for name, (words, kind) in FEATURES.items()
        if (value := found[name]) is not None
    )


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
