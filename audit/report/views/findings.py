"""Findings: claims with their evidence, ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.report.run_data import RunData
from audit.report.views.parts import Estimate, Site, defined, make_site, plain_estimate
from audit.report.views.slices import slice_href
from audit.report.views.thumbs import ImageThumb, image_thumb

MAX_IMAGES = 8
"""So many images of a finding are shown; its evidence shows more."""

KINDS = {
    "pattern": "focus pattern",
    "slice": "slice",
    "label": "labels",
    "probe": "robustness",
    "threshold": "threshold",
    "imbalance": "balance of classes",
    "duplicates": "near-duplicates",
    "unreadable": "unreadable files",
}

SHARE, TIMES = "share ", "times "
"""How an estimate is printed follows from how the words for it begin; others are counts."""

PAGES = {
    "slices": "slices.html",
    "label_issues": "labels.html",
    "probes": "robustness.html",
    "patterns": "patterns.html",
    "unreadable": "run.html#left-out",
    "predictions": "metrics.html#h-sweep",
    "class_metrics": "metrics.html#classes",
}
"""Where the evidence of a table is shown; that of all others is among the metrics."""


@dataclass(frozen=True)
class StatedEstimate:
    """An estimate with what it is; `kind` is "percent", "ratio" or "count"."""

    estimate: Estimate
    kind: str
    what: str


@dataclass(frozen=True)
class FindingView:
    """A claim with its test. `anchor` is its place on `findings.html`."""

    id: str
    anchor: str
    kind: str
    text: str
    n_errors: int
    share_of_errors: float | None
    estimate: StatedEstimate
    q_value: float | None
    confirmed_by: str
    evidence_href: str
    thumbs: tuple[ImageThumb, ...]
    n_images: int


@dataclass(frozen=True)
class FindingsPage:
    """All findings, in order."""

    site: Site
    findings: tuple[FindingView, ...]
    targets_of: Mapping[str, tuple[tuple[str, str], ...]]
    is_missing: bool

    def image_ids(self) -> set[int]:
        """Return the images that the page shows."""
        return {thumb.image_id for finding in self.findings for thumb in finding.thumbs}


def findings_page(data: RunData) -> FindingsPage:
    """Return the page of all findings, each with the targets that rest on it."""
    targets_of: dict[str, list[tuple[str, str]]] = {}
    for target in data.diagnosis.targets:
        for finding in target["findings"]:
            link = (str(target["title"]), target_href(number_of(target["id"])))
            targets_of.setdefault(str(finding), []).append(link)
    return FindingsPage(
        site=make_site(data),
        findings=finding_views(data),
        targets_of={finding: tuple(links) for finding, links in targets_of.items()},
        is_missing="findings" in data.diagnosis.missing,
    )


def finding_views(data: RunData) -> tuple[FindingView, ...]:
    """Return the findings in order."""
    return tuple(_finding_view(data, finding) for finding in data.diagnosis.findings)


def number_of(identifier: str) -> int:
    """Return the number in "F1" or "T1", so that names of files are made of numbers only."""
    return int(identifier[1:])


def target_href(number: int) -> str:
    """Return the page of a target."""
    return f"targets/T{number}.html"


def stated_estimate(stored: Mapping[str, Any]) -> StatedEstimate:
    """Return an estimate of `findings.json` or `targets.json`; its words say how to print it."""
    what, low, high = str(stored["what"]), stored["low"], stored["high"]
    if low == high:
        low = high = None  # counted, not estimated
    found = plain_estimate(stored["value"], low, high)
    if what.startswith(TIMES):
        return StatedEstimate(found, "ratio", what.removeprefix(TIMES))
    return StatedEstimate(found, "percent" if what.startswith(SHARE) else "count", what)


def evidence_href(table: str, key: Any) -> str:
    """Return the page that shows a row of a table."""
    if table == "patterns" and isinstance(key, int):
        return f"pattern-{key}.html"
    if table == "slices" and isinstance(key, int):
        return slice_href(key)
    return PAGES.get(table, "metrics.html")


def _finding_view(data: RunData, finding: Mapping[str, Any]) -> FindingView:
    evidence, heat = finding["evidence"], finding["kind"] not in ("label", "duplicates")
    images: Sequence[int] = finding["images"]
    return FindingView(
        id=str(finding["id"]),
        anchor=f"finding-{number_of(finding['id'])}",
        kind=KINDS.get(str(finding["kind"]), str(finding["kind"])),
        text=str(finding["text"]),
        n_errors=int(finding["n_errors"]),
        share_of_errors=defined(finding["share_of_errors"]),
        estimate=stated_estimate(finding["estimate"]),
        q_value=defined(finding["q_value"]),
        confirmed_by=str(finding["confirmed_by"]),
        evidence_href=evidence_href(str(evidence["table"]), evidence["key"]),
        thumbs=tuple(image_thumb(data, int(i), heat=heat) for i in images[:MAX_IMAGES]),
        n_images=len(images),
    )
