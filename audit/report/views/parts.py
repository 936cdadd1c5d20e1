"""What several pages share: dataclasses and the functions that fill them.

In: `RunData`. Out: small frozen dataclasses, no HTML, no files. Links and image names are relative
to the report's folder and made of integers only; names and paths are passed on as they are, for
the templates to escape.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.run_data import RunData
from audit.run_folder import OCCLUSION
from audit.schemas import records


@dataclass(frozen=True)
class Site:
    """What every page carries: whose report this is and how much is in it.

    Counts are `None` where the run did not come to it. `n_slices` counts confirmed ones.
    `by_occlusion`: the heat-maps are occlusion maps, which look at no layer.
    """

    model_name: str
    data_name: str
    program: str
    n_images: int
    n_errors: int
    n_patterns: int
    n_findings: int | None
    n_targets: int | None
    n_slices: int | None
    n_label_issues: int | None
    by_occlusion: bool


@dataclass(frozen=True)
class Estimate:
    """A quantity with its interval. `None` where not defined or not computed."""

    value: float | None
    low: float | None
    high: float | None
    method: str = ""


@dataclass(frozen=True)
class Whisker:
    """Where an estimate lies on an axis: percent of the axis' length, 0..100."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Measure:
    """An estimate with what it is called. `kind` is "percent" or "number"."""

    label: str
    kind: str
    estimate: Estimate
    note: str
    whisker: Whisker | None = None


@dataclass(frozen=True)
class Pair:
    """A confusion, `share` being that of the true class' images."""

    true_name: str
    predicted_name: str
    count: int
    share: Estimate
    href: str


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table."""

    index: int
    name: str
    support: int
    predicted: int
    n_false_negatives: int
    n_false_positives: int
    recall: Estimate
    precision: Estimate
    f1: Estimate
    roc_auc: Estimate
    average_precision: Estimate
    recall_at: Whisker | None
    precision_at: Whisker | None
    true_href: str
    predicted_href: str


@dataclass(frozen=True)
class ClassTable:
    """The per-class table; whiskers share an axis that begins at `axis_low` and ends at 1."""

    rows: tuple[ClassRow, ...]
    n_classes: int
    axis_low: float


def make_site(data: RunData) -> Site:
    program, found = data.manifest["program"], data.diagnosis
    return Site(
        model_name=str(data.manifest["model"]["name"]),
        data_name=str(data.manifest["data"]["name"]),
        program=f"{program['name']} {program['version']}",
        n_images=int(data.metrics["n_images"]),
        n_errors=len(data.errors),
        n_patterns=len(data.patterns),
        n_findings=None if "findings" in found.missing else len(found.findings),
        n_targets=None if "targets" in found.missing else len(found.targets),
        n_slices=None
        if "slices" in found.missing
        else int(found.slices["confirmed"].astype(bool).sum()),
        n_label_issues=None if "label_issues" in found.missing else len(found.label_issues),
        by_occlusion=maps_method(data.manifest) == OCCLUSION,
    )


def maps_method(manifest: Mapping[str, Any]) -> str:
    """Return how heat-maps were made, or will be as far as is known."""
    return str(manifest.get("method") or manifest["config"]["method"])


def estimate(record: Mapping[str, Any] | None) -> Estimate:
    """Return an estimate of `metrics.json`; a missing one is not defined."""
    if record is None:
        return Estimate(None, None, None)
    return Estimate(record["value"], record["low"], record["high"], record["method"])


def plain_estimate(value: Any, low: Any, high: Any) -> Estimate:
    return Estimate(defined(value), defined(low), defined(high))


def defined(value: Any) -> float | None:
    """Return a stored number, `None` for NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def whisker(found: Estimate, axis_low: float, axis_high: float = 1.0) -> Whisker | None:
    """Return where an estimate of a share lies on an axis, cut off at the axis' ends."""
    ends = (found.low, found.value, found.high)
    if any(end is None or not math.isfinite(end) or not -1 <= end <= 1 for end in ends):
        return None
    low, value, high = (
        round(100 * min(1.0, max(0.0, (end - axis_low) / (axis_high - axis_low))), 2)
        for end in ends
        if end is not None
    )
    return Whisker(low, value, high)


def measure(source: Mapping[str, Any], key: str, label: str, kind: str, note: str) -> Measure:
    found = estimate(source[key])
    return Measure(label, kind, found, note, whisker(found, 0.0))


def gallery_href(**filters: int) -> str:
    """Return a link into the gallery; JavaScript off, it leads to all errors."""
    return "errors.html#" + "&".join(f"{key}={value}" for key, value in filters.items())


def class_table(data: RunData, n_most: int | None) -> ClassTable:
    """Return the classes in order; with more than `n_most`, those with the lowest recall."""
    frame = data.classes
    if n_most is not None and len(frame) > n_most:
        frame = frame.sort_values(["recall", "class"], kind="stable", na_position="last").head(
            n_most
        )
    axis_low = _axis_low(frame)
    rows = tuple(_class_row(record, axis_low) for record in records(frame))
    return ClassTable(rows, len(data.classes), axis_low)


def _axis_low(frame: pd.DataFrame) -> float:
    """Return the start of the whiskers' axis: the lowest bound, rounded down to a tenth."""
    lowest = frame[["recall_low", "precision_low"]].min().min()
    if not math.isfinite(lowest):
        return 0.0
    return min(0.9, math.floor(lowest * 10) / 10)


def _class_row(record: Mapping[str, Any], axis_low: float) -> ClassRow:
    def of(name: str) -> Estimate:
        return plain_estimate(record[name], record[f"{name}_low"], record[f"{name}_high"])

    index = int(record["class"])
    return ClassRow(
        index=index,
        name=str(record["name"]),
        support=int(record["support"]),
        predicted=int(record["predicted"]),
        n_false_negatives=int(record["fn"]),
        n_false_positives=int(record["fp"]),
        recall=of("recall"),
        precision=of("precision"),
        f1=of("f1"),
        roc_auc=of("roc_auc"),
        average_precision=of("average_precision"),
        recall_at=whisker(of("recall"), axis_low),
        precision_at=whisker(of("precision"), axis_low),
        true_href=gallery_href(true=index),
        predicted_href=gallery_href(predicted=index),
    )
