"""Targets: what to do next, with the images it is about and what would refute it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report import charts
from audit.report.run_data import RunData
from audit.report.views.findings import (
    FindingView,
    StatedEstimate,
    finding_views,
    number_of,
    stated_estimate,
    target_href,
)
from audit.report.views.parts import Site, make_site
from audit.report.views.thumbs import ImageThumb, file_thumb, image_thumb
from audit.schemas import records

MAX_IMAGES = 60
"""So many images of a target are shown; its manifest has them all."""

MAX_COVER = 4
"""So many of them stand on its card."""

KINDS = {
    "collect": "Collect",
    "augment": "Augment",
    "relabel": "Relabel",
    "review": "Review",
    "rebalance": "Rebalance",
    "threshold": "Move the threshold",
}


ROLES = {
    "error": "error",
    "control": "right, same class and focus",
    "reference": "right, of the predicted class",
}
"""What an image is to a target; other roles speak for themselves."""


@dataclass(frozen=True)
class TargetImage:
    """An image of a target and its part in it."""

    thumb: ImageThumb
    role: str


@dataclass(frozen=True)
class TargetView:
    """An action proposed. `cover` are its first images that have a picture."""

    number: int
    id: str
    kind: str
    title: str
    text: str
    href: str
    n_images: int
    gain: StatedEstimate
    refuted_by: str
    recipe: str | None
    cover: tuple[ImageThumb, ...]


@dataclass(frozen=True)
class TargetsPage:
    """All targets, in order."""

    site: Site
    targets: tuple[TargetView, ...]
    is_missing: bool

    def image_ids(self) -> set[int]:
        """Return the images that the page shows."""
        return {thumb.image_id for target in self.targets for thumb in target.cover}


@dataclass(frozen=True)
class TargetPage:
    """One target with its reasons and images; `files` are its manifests, paths in the report."""

    site: Site
    target: TargetView
    previous: TargetView | None
    next: TargetView | None
    findings: tuple[FindingView, ...]
    images: tuple[TargetImage, ...]
    chart: charts.Chart | None
    files: tuple[str, ...]

    def image_ids(self) -> set[int]:
        """Return the images that the page shows."""
        return {item.thumb.image_id for item in self.images}


def targets_page(data: RunData) -> TargetsPage:
    """Return the page that lists the targets."""
    return TargetsPage(make_site(data), target_views(data), "targets" in data.diagnosis.missing)


def target_pages(data: RunData) -> list[TargetPage]:
    """Return a page per target, in order."""
    site, views = make_site(data), target_views(data)
    findings = {finding.id: finding for finding in finding_views(data)}
    around = [None, *views, None]
    return [
        TargetPage(
            site=site,
            target=view,
            previous=around[n],
            next=around[n + 2],
            findings=tuple(findings[key] for key in target["findings"]),
            images=tuple(_images(data, target, MAX_IMAGES)),
            chart=_cost_chart(data, target.get("cost_curve")),
            files=_list_files(view.number),
        )
        for n, (view, target) in enumerate(zip(views, data.diagnosis.targets, strict=True))
    ]


def target_views(data: RunData) -> tuple[TargetView, ...]:
    """Return the targets in order."""
    return tuple(_target_view(data, target) for target in data.diagnosis.targets)


def list_files(data: RunData) -> tuple[str, ...]:
    """Return the lists of images of all targets, by their path in run folder and report alike."""
    return tuple(
        name for target in data.diagnosis.targets for name in _list_files(number_of(target["id"]))
    )


def _list_files(number: int) -> tuple[str, str]:
    return f"targets/T{number}.csv", f"targets/T{number}.json"


def _target_view(data: RunData, target: Mapping[str, Any]) -> TargetView:
    number = number_of(target["id"])
    first = [item.thumb for item in _images(data, target, 3 * MAX_COVER)]
    return TargetView(
        number=number,
        id=str(target["id"]),
        kind=KINDS.get(str(target["kind"]), str(target["kind"])),
        title=str(target["title"]),
        text=str(target["text"]),
        href=target_href(number),
        n_images=int(target["n_images"]),
        gain=stated_estimate(target["gain"]),
        refuted_by=str(target["refuted_by"]),
        recipe=target["recipe"],
        cover=tuple(thumb for thumb in first if thumb.photo)[:MAX_COVER],
    )


def _images(data: RunData, target: Mapping[str, Any], most: int) -> list[TargetImage]:
    """Return the first images of a target, as its list has them.

    Where labels are to be judged, pictures bear no heat.
    """
    rows = data.diagnosis.target_images
    chosen = rows[rows["target"] == target["id"]].head(most)
    heat = target["kind"] not in ("relabel", "review")
    return [
        TargetImage(
            thumb=file_thumb(row["path"])
            if pd.isna(row["image_id"])
            else image_thumb(data, int(row["image_id"]), heat=heat),
            role=ROLES.get(row["role"], str(row["role"])),
        )
        for row in records(chosen)
    ]


def _cost_chart(data: RunData, curve: Sequence[Mapping[str, Any]] | None) -> charts.Chart | None:
    if not curve:
        return None
    rows = [{**point, "all": point["fp"] + point["fn"]} for point in curve]
    lines = {"fp": "False positives", "fn": "False negatives", "all": "Both"}
    threshold = float(data.metrics["binary"]["threshold"])
    return charts.threshold_chart(rows, lines, threshold, "Images", "Errors by threshold.")
