"""What several pages share: dataclasses and the functions that fill them.

In: `RunData`. Out: small frozen dataclasses, no HTML, no files. Links and image names are relative
to the report's folder and made of integers only; names and paths are passed on as they are, for
the templates to escape.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.report.run_data import RunData, records
from audit.run_folder import OCCLUSION


@dataclass(frozen=True)
class Site:
    """What every page carries: whose report this is and how much is in it."""

    model_name: str
    data_name: str
    program: str
    n_images: int
    n_errors: int
    n_patterns: int
    by_occlusion: bool
    """Whether the heat-maps are occlusion maps, which look at no layer."""


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
    """A cell of the confusion matrix, `share` being that of the true class' images."""

    true_name: str
    predicted_name: str
    count: int
    share: Estimate
    href: str
    is_right: bool = False
    shade: int = 0


@dataclass(frozen=True)
class ErrorThumb:
    """An error as a card: picture, overlay of the predicted class, who was taken for whom."""

    image_id: int
    href: str
    photo: str | None
    heat: str | None
    width: int
    height: int
    true_name: str
    predicted_name: str
    confidence: float
    path: str
    pattern: int
    pattern_name: str


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
    program = data.manifest["program"]
    return Site(
        model_name=str(data.manifest["model"]["name"]),
        data_name=str(data.manifest["data"]["name"]),
        program=f"{program['name']} {program['version']}",
        n_images=int(data.metrics["n_images"]),
        n_errors=len(data.errors),
        n_patterns=len(data.patterns),
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


def single(value: float) -> float:
    """Return a float32 as the shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def defined(value: Any) -> float | None:
    """Return a stored number, `None` for NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def whisker(found: Estimate, axis_low: float) -> Whisker | None:
    """Return where an estimate lies on an axis from `axis_low` to 1, if its interval does."""
    ends = (found.low, found.value, found.high)
    if any(end is None or not math.isfinite(end) or not 0 <= end <= 1 for end in ends):
        return None
    low, value, high = (
        round(100 * max(0.0, (end - axis_low) / (1 - axis_low)), 2)
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


def error_href(image_id: int) -> str:
    return f"errors/{image_id}.html"


def picture_name(image_id: int, what: str = "") -> str:
    """Return the file name of an error's picture: what the model saw, or an overlay of it."""
    return f"images/{image_id}-{what}.jpg" if what else f"images/{image_id}.jpg"


def error_thumbs(data: RunData, errors: pd.DataFrame) -> list[ErrorThumb]:
    """Return cards for rows of `data.errors`, in their order."""
    names = pattern_names(data)
    result = []
    for row in records(errors):
        image_id, predicted, pattern = int(row["image_id"]), int(row["y_pred"]), int(row["pattern"])
        size = data.pictures.get(image_id)
        speaks = size is not None and data.peaks.get((image_id, predicted), 0) > 0
        height, width = size or (1, 1)
        thumb = ErrorThumb(
            image_id=image_id,
            href=error_href(image_id),
            photo=picture_name(image_id) if size else None,
            heat=picture_name(image_id, "predicted") if speaks else None,
            width=width,
            height=height,
            true_name=data.class_names[int(row["y_true"])],
            predicted_name=data.class_names[predicted],
            confidence=single(row["p_pred"]),
            path=str(row["path"]),
            pattern=pattern,
            pattern_name=names.get(pattern, ""),
        )
        result.append(thumb)
    return result


def pattern_names(data: RunData) -> dict[int, str]:
    pairs = zip(data.patterns["pattern"], data.patterns["name"], strict=True)
    return {int(number): str(name) for number, name in pairs}


def confused_pairs(data: RunData) -> tuple[Pair, ...]:
    """Return the most frequent confusions, as stored."""
    return tuple(
        _pair(data, int(pair["y_true"]), int(pair["y_pred"]), int(pair["count"]), pair["share"])
        for pair in data.metrics["confused_pairs"]
    )


def _pair(data: RunData, y_true: int, y_pred: int, count: int, share: Mapping[str, Any]) -> Pair:
    return Pair(
        true_name=data.class_names[y_true],
        predicted_name=data.class_names[y_pred],
        count=count,
        share=estimate(share),
        href=gallery_href(true=y_true, predicted=y_pred),
    )


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
