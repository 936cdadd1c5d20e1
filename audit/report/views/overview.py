"""The first page: how good the model is, where it errs, where it looked, what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from audit.report.run_data import RunData
from audit.report.views.confusion import (
    Matrix,
    cell_of,
    confusion_pairs,
    sorted_confusions,
    whole_matrix,
)
from audit.report.views.findings import FindingView, finding_views
from audit.report.views.objects import ObjectsView, objects_view
from audit.report.views.parts import (
    ClassTable,
    Estimate,
    Measure,
    Pair,
    Site,
    Whisker,
    class_table,
    estimate,
    make_site,
    measure,
    whisker,
)
from audit.report.views.patterns import PatternView
from audit.report.views.targets import TargetView, target_views
from audit.report.views.thumbs import ErrorThumb, error_thumbs
from audit.schemas import CAUSAL, SKIPPED, UNDEFINED, UNREADABLE

MAX_MATRIX = 6
"""Up to so many classes the first page has the confusion matrix; its own page has larger ones."""

MAX_CLASSES = 10
MAX_PAIRS = 6
MAX_PATTERNS = 6
N_TELLING = 8
N_FINDINGS = 5
N_TARGETS = 3


@dataclass(frozen=True)
class SideOfErrors:
    """False positives or false negatives of a two-class model."""

    label: str
    pair: Pair
    support: int
    whisker: Whisker | None


@dataclass(frozen=True)
class RunWarning:
    """Something the reader must know before believing the numbers."""

    kind: str
    text: str


@dataclass(frozen=True)
class Leading:
    """The pattern worth a sentence. `share` says how it counts: "all", "most" or "some" errors."""

    pattern: PatternView
    share: str


@dataclass(frozen=True)
class LeftOut:
    """Files that are in no number: `kind` as in `unreadable.parquet`, and how many."""

    kind: str
    count: int


@dataclass(frozen=True)
class OverviewPage:
    """The first page."""

    site: Site
    accuracy: Estimate
    warnings: tuple[RunWarning, ...]
    findings: tuple[FindingView, ...]
    targets: tuple[TargetView, ...]
    is_diagnosed: bool
    measures: tuple[Measure, ...]
    sides: tuple[SideOfErrors, ...]
    matrix: Matrix | None
    pairs: tuple[Pair, ...]
    n_pairs: int
    patterns: tuple[PatternView, ...]
    leading: Leading | None
    n_outside_patterns: int
    telling: tuple[ErrorThumb, ...]
    class_table: ClassTable
    left_out: tuple[LeftOut, ...]
    is_explained: bool
    objects: ObjectsView | None = None


def overview_page(data: RunData, patterns: Sequence[PatternView]) -> OverviewPage:
    """Return the first page."""
    kinds = data.unreadable["kind"]
    in_patterns = int((data.errors["pattern"] > 0).sum())
    return OverviewPage(
        site=make_site(data),
        accuracy=estimate(data.metrics["accuracy"]),
        warnings=run_warnings(data),
        findings=finding_views(data)[:N_FINDINGS],
        targets=target_views(data)[:N_TARGETS],
        is_diagnosed="findings" not in data.diagnosis.missing,
        measures=_headline_measures(data),
        sides=_sides_of_errors(data),
        matrix=whole_matrix(data) if len(data.class_names) <= MAX_MATRIX else None,
        pairs=confusion_pairs(data, MAX_PAIRS),
        n_pairs=len(sorted_confusions(data)),
        patterns=tuple(patterns[:MAX_PATTERNS]),
        leading=_leading(data, patterns),
        n_outside_patterns=len(data.errors) - in_patterns,
        telling=error_thumbs(data, range(min(N_TELLING, len(data.errors)))),
        class_table=class_table(data, MAX_CLASSES),
        left_out=tuple(
            LeftOut(kind, int((kinds == kind).sum()))
            for kind in (UNREADABLE, UNDEFINED, SKIPPED)
            if (kinds == kind).any()
        ),
        is_explained=data.is_explained,
        objects=objects_view(data),
    )


def leading_pattern(patterns: Sequence[PatternView]) -> PatternView | None:
    """Return the pattern worth a sentence, the largest of the most telling kind.

    One that is shown to be a cause goes first, then one that errors show more than correct images.
    """
    causal = [x for x in patterns if x.cause.verdict == CAUSAL]
    marked = [x for x in patterns if x.lift.low is not None and x.lift.low > 1]
    return max(causal or marked or patterns, key=lambda x: x.n_errors, default=None)


def _leading(data: RunData, patterns: Sequence[PatternView]) -> Leading | None:
    found = leading_pattern(patterns)
    if found is None:
        return None
    n_errors = len(data.errors)
    share = "most" if 2 * found.n_errors > n_errors else "some"
    return Leading(found, "all" if found.n_errors == n_errors else share)


def run_warnings(data: RunData) -> tuple[RunWarning, ...]:
    """Return the run's warnings, those on scaling first, and our own if it is not finished."""
    found = [RunWarning(str(item["kind"]), str(item["text"])) for item in data.manifest["warnings"]]
    found.sort(key=lambda warning: warning.kind != "scaling")
    if not data.is_explained and not data.errors.empty:
        text = "The run stopped before heat-maps were made. Start it again; it goes on from there."
        found.append(RunWarning("unfinished", text))
    return tuple(found)


def _headline_measures(data: RunData) -> tuple[Measure, ...]:
    """Return the figures of the first page; with two classes each side's errors join them."""
    metrics = data.metrics
    chosen = [
        measure(metrics, "accuracy", "Accuracy", "percent", "of all images are right"),
        measure(
            metrics, "balanced_accuracy", "Balanced accuracy", "percent", "mean over the classes"
        ),
    ]
    if metrics["binary"] is None:
        chosen.append(measure(metrics, "macro_f1", "Macro F1", "percent", "mean over the classes"))
        if metrics["top_k"] is not None:
            label = f"Top {metrics['top_k']['k']}"
            note = "true class among the highest"
            chosen.append(measure(metrics, "top_k", label, "percent", note))
        chosen.append(
            measure(
                metrics, "macro_roc_auc", "ROC AUC", "number", "mean, one class against the rest"
            )
        )
    else:
        note = "ranks a positive above a negative"
        chosen.append(measure(metrics["binary"], "roc_auc", "ROC AUC", "number", note))
    chosen.append(
        measure(metrics, "ece", "Calibration error", "percent", "confidence is off by so much")
    )
    return tuple(chosen)


def _sides_of_errors(data: RunData) -> tuple[SideOfErrors, ...]:
    binary = data.metrics["binary"]
    if binary is None:
        return ()
    positive = data.class_names.index(str(binary["positive_class"]))
    support = data.classes.set_index("class")["support"]
    sides = (("False positives", 1 - positive), ("False negatives", positive))
    return tuple(
        SideOfErrors(label, pair, int(support[y_true]), whisker(pair.share, 0.0))
        for label, y_true in sides
        for pair in [cell_of(data, y_true, 1 - y_true)]
    )
