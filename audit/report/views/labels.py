"""Labels in doubt: suspected label errors and near-duplicates, apart from errors of the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from audit.report.run_data import RunData
from audit.report.views.parts import Site, make_site
from audit.report.views.thumbs import ImageThumb, class_name, image_thumb
from audit.schemas import OTHER_LABEL, SUSPECTED, records

MAX_SHOWN = 100
"""So many of each kind are shown; `label_issues.parquet` has them all."""


@dataclass(frozen=True)
class SuspectedLabel:
    """An image whose label is suspected; `score` runs from 0, most suspicious, to 1."""

    thumb: ImageThumb
    suggested: str
    score: float
    is_error: bool


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that look nearly the same."""

    first: ImageThumb
    second: ImageThumb


@dataclass(frozen=True)
class LabelsPage:
    """Labels in doubt. Counts are of all, shown or not; a pair counts once."""

    site: Site
    suspected: tuple[SuspectedLabel, ...]
    n_suspected: int
    n_suspected_errors: int
    other_label: tuple[DuplicatePair, ...]
    n_other_label: int
    same_label: tuple[DuplicatePair, ...]
    n_same_label: int
    is_missing: bool

    def image_ids(self) -> set[int]:
        """Return the images that the page shows."""
        pairs = (*self.other_label, *self.same_label)
        return {
            *(item.thumb.image_id for item in self.suspected),
            *(thumb.image_id for pair in pairs for thumb in (pair.first, pair.second)),
        }


def labels_page(data: RunData) -> LabelsPage:
    """Return the page on labels, the most suspicious first."""
    issues = records(data.diagnosis.label_issues)
    suspected = [row for row in issues if row["kind"] == SUSPECTED]
    other_label = _pairs(row for row in issues if row["kind"] == OTHER_LABEL)
    same_label = _pairs(row for row in issues if row["kind"] not in (SUSPECTED, OTHER_LABEL))
    return LabelsPage(
        site=make_site(data),
        suspected=tuple(_suspected(data, row) for row in suspected[:MAX_SHOWN]),
        n_suspected=len(suspected),
        n_suspected_errors=sum(bool(row["is_error"]) for row in suspected),
        other_label=_pair_views(data, other_label),
        n_other_label=len(other_label),
        same_label=_pair_views(data, same_label),
        n_same_label=len(same_label),
        is_missing="label_issues" in data.diagnosis.missing,
    )


def _suspected(data: RunData, row: Mapping[str, Any]) -> SuspectedLabel:
    return SuspectedLabel(
        thumb=image_thumb(data, int(row["image_id"]), heat=False),
        suggested=class_name(data.class_names, int(row["suggested"])),
        score=float(row["score"]),
        is_error=bool(row["is_error"]),
    )


def _pairs(issues: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return pairs of images in order of rank; the second image of a pair may be listed too."""
    pairs = ((int(row["image_id"]), int(row["other_id"])) for row in issues)
    return list({tuple(sorted(pair)): pair for pair in reversed(list(pairs))}.values())[::-1]


def _pair_views(data: RunData, pairs: list[tuple[int, int]]) -> tuple[DuplicatePair, ...]:
    return tuple(
        DuplicatePair(image_thumb(data, first, heat=False), image_thumb(data, second, heat=False))
        for first, second in pairs[:MAX_SHOWN]
    )
