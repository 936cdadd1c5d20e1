"""All numbers with their intervals, and the charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.report import charts
from audit.report.formats import number, shorten
from audit.report.run_data import RunData
from audit.report.views.parts import (
    ClassTable,
    Measure,
    Site,
    class_table,
    make_site,
    measure,
)

MAX_LEGEND = 20
"""So many letters of a class's name stand in the legend of a chart."""


@dataclass(frozen=True)
class CountRow:
    """TP, FP, TN or FN."""

    short: str
    label: str
    count: int
    note: str


@dataclass(frozen=True)
class SweepRow:
    """The decisions at one threshold."""

    threshold: float
    tp: int
    fp: int
    tn: int
    fn: int
    precision: float | None
    recall: float | None
    f1: float | None
    accuracy: float | None
    in_use: bool

    @property
    def digits(self) -> int:
        """How many digits tell the threshold from the others; the one in use may be any."""
        return 2 if round(self.threshold, 2) == self.threshold else 4


@dataclass(frozen=True)
class MetricsPage:
    """All numbers, with charts."""

    site: Site
    measures: tuple[Measure, ...]
    counts: tuple[CountRow, ...]
    positive_name: str | None
    in_use: SweepRow | None
    sweep: tuple[SweepRow, ...]
    sweep_charts: tuple[charts.Chart, ...]
    curves: tuple[tuple[str, charts.Chart], ...]
    n_curves: int
    reliability: tuple[tuple[str, charts.Chart, tuple[Mapping[str, Any], ...]], ...]
    class_table: ClassTable
    notes: tuple[str, ...]
    level: float
    resamples: int


def metrics_page(data: RunData) -> MetricsPage:
    """Return the page with all numbers, charts drawn."""
    metrics, binary = data.metrics, data.metrics["binary"]
    sweep = _sweep_rows(binary)
    return MetricsPage(
        site=make_site(data),
        measures=_all_measures(data),
        counts=_binary_counts(binary),
        positive_name=str(binary["positive_class"]) if binary else None,
        in_use=next((row for row in sweep if row.in_use), None),
        sweep=sweep,
        sweep_charts=_sweep_charts(binary),
        curves=_curve_charts(data),
        n_curves=len(metrics.get("curves", ())),
        reliability=_reliability(metrics["reliability"]),
        class_table=class_table(data, None),
        notes=tuple(str(note) for note in metrics["notes"]),
        level=float(metrics["level"]),
        resamples=int(metrics["bootstrap"]["resamples"]),
    )


def _all_measures(data: RunData) -> tuple[Measure, ...]:
    metrics, binary = data.metrics, data.metrics["binary"]
    top = metrics["top_k"]
    rows = [
        (metrics, "accuracy", "Accuracy", "percent", "Right answers ÷ images."),
        (
            metrics,
            "balanced_accuracy",
            "Balanced accuracy",
            "percent",
            "Mean of the classes' recalls.",
        ),
    ]
    if top is not None:
        note = f"The true class is among the {top['k']} highest scores."
        rows.append((metrics, "top_k", f"Top-{top['k']} accuracy", "percent", note))
    if binary is not None:
        rows += [
            (binary, "precision", "Precision", "percent", "TP ÷ (TP + FP)."),
            (binary, "recall", "Recall", "percent", "TP ÷ (TP + FN)."),
            (binary, "specificity", "Specificity", "percent", "TN ÷ (TN + FP)."),
            (binary, "false_positive_rate", "False positive rate", "percent", "FP ÷ (FP + TN)."),
            (binary, "f1", "F1", "percent", "Harmonic mean of precision and recall."),
            (
                binary,
                "roc_auc",
                "ROC AUC",
                "number",
                "A positive is ranked above a negative so often.",
            ),
            (
                binary,
                "average_precision",
                "Average precision",
                "number",
                "Area under precision–recall.",
            ),
        ]
    else:
        each = "each class against the rest"
        rows += [
            (metrics, "macro_precision", "Macro precision", "percent", "Mean over the classes."),
            (metrics, "macro_recall", "Macro recall", "percent", "Mean over the classes."),
            (metrics, "macro_f1", "Macro F1", "percent", "Mean over the classes."),
            (metrics, "weighted_f1", "Weighted F1", "percent", "Mean weighted by support."),
            (metrics, "macro_roc_auc", "ROC AUC", "number", f"Mean, {each}."),
            (metrics, "macro_average_precision", "Average precision", "number", f"Mean, {each}."),
        ]
    rows += [
        (metrics, "log_loss", "Loss", "number", "Cross-entropy in nats; lower is better."),
        (
            metrics,
            "brier",
            "Brier score",
            "number",
            "Squared error of the scores; lower is better.",
        ),
        (metrics, "ece", "Calibration error", "percent", "Expected, 15 bins of equal width."),
        (
            metrics,
            "ece_equal_mass",
            "Calibration error, equal mass",
            "percent",
            "Bins of equal size.",
        ),
    ]
    return tuple(measure(*row) for row in rows)


def _binary_counts(binary: Mapping[str, Any] | None) -> tuple[CountRow, ...]:
    if binary is None:
        return ()
    rows = (
        ("TP", "True positives", "tp", "positive, and called so"),
        ("FP", "False positives", "fp", "negative, but called positive"),
        ("TN", "True negatives", "tn", "negative, and called so"),
        ("FN", "False negatives", "fn", "positive, but called negative"),
    )
    return tuple(CountRow(short, label, int(binary[key]), note) for short, label, key, note in rows)


def _sweep_rows(binary: Mapping[str, Any] | None) -> tuple[SweepRow, ...]:
    if binary is None:
        return ()
    return tuple(
        SweepRow(**row, in_use=row["threshold"] == binary["threshold"]) for row in binary["sweep"]
    )


def _sweep_charts(binary: Mapping[str, Any] | None) -> tuple[charts.Chart, ...]:
    if binary is None:
        return ()
    rows, threshold = binary["sweep"], float(binary["threshold"])
    shares = {"precision": "Precision", "recall": "Recall", "f1": "F1", "accuracy": "Accuracy"}
    counts = {"fp": "False positives", "fn": "False negatives"}
    return (
        charts.threshold_chart(
            rows, shares, threshold, "Share", "Precision, recall, F1 and accuracy by threshold."
        ),
        charts.threshold_chart(
            rows, counts, threshold, "Images", "False positives and false negatives by threshold."
        ),
    )


def _curve_charts(data: RunData) -> tuple[tuple[str, charts.Chart], ...]:
    """Return ROC and precision–recall curves with their captions; older runs have none stored."""
    curves, binary = data.metrics.get("curves", ()), data.metrics["binary"]
    if not curves:
        return ()
    names = _distinct_names(data, [curve["class"] for curve in curves])
    at_roc = at_precision = None
    if binary is not None:
        recall = binary["recall"]["value"]
        at_roc = _both(binary["false_positive_rate"]["value"], recall)
        at_precision = _both(recall, binary["precision"]["value"])
    roc, trade_off = [], []
    for name, curve in zip(names, curves, strict=True):
        points, stairs = curve["roc"], curve["precision_recall"]
        roc.append(charts.Line(name, points["false_positive_rate"], points["recall"], at_roc))
        trade_off.append(charts.Line(name, stairs["recall"], stairs["precision"], at_precision))
    areas = {}
    for key in ("roc_auc", "average_precision"):
        stored = dict(zip(data.classes["class"], data.classes[key], strict=True))
        values = (number(stored[curve["class"]]) for curve in curves)
        areas[key] = ", ".join(map(" ".join, zip(names, values, strict=True)))
    return (
        (
            "ROC",
            charts.curve_chart(
                roc,
                "False positive rate",
                "Recall",
                f"Recall against false positive rate. ROC AUC: {areas['roc_auc']}.",
                diagonal=True,
            ),
        ),
        (
            "Precision and recall",
            charts.curve_chart(
                trade_off,
                "Recall",
                "Precision",
                f"Precision against recall. Average precision: {areas['average_precision']}.",
            ),
        ),
    )


def _both(x: float | None, y: float | None) -> tuple[float, float] | None:
    return None if x is None or y is None else (x, y)


def _distinct_names(data: RunData, classes: Sequence[int]) -> list[str]:
    """Return short names for a legend; of names that come out alike, all bear their number."""
    short = [shorten(data.class_names[index], MAX_LEGEND) for index in classes]
    return [
        f"{name} ({index})" if short.count(name) > 1 else name
        for name, index in zip(short, classes, strict=True)
    ]


def _reliability(
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[tuple[str, charts.Chart, tuple[Mapping[str, Any], ...]], ...]:
    titles = {"equal_width": "Bins of equal width", "equal_mass": "Bins of equal size"}
    result = []
    for key, title in titles.items():
        rows = tuple(tables[key])
        label = f"Accuracy against mean confidence. {title}."
        result.append((title, charts.reliability_chart(rows, label), rows))
    return tuple(result)
