"""The first page of a comparison, and the page of each step of a series, as values.

In: a comparison and the images it shows. Out: small frozen dataclasses, no HTML, no files. Names of
classes, runs and patterns are passed on as they are, for the templates to escape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import audit
from audit.compare.changes import BETTER, WORSE, GroupChange, MetricChange
from audit.compare.comparison import Calibration, Comparison, RunInSeries, Step
from audit.compare.focus_shift import PlaceShift
from audit.compare.patterns_change import GONE, NEW, SMALLER, PatternChange, Share
from audit.diagnose.pattern_search import LOOK
from audit.report.comparison.compare_focus import FocusView, focus_view
from audit.report.comparison.compared_images import OUTCOMES, ComparedImages, ImageCard
from audit.report.comparison.mean_maps import MeanMap, MeanMaps
from audit.report.views.parts import Estimate, Whisker, whisker
from audit.report.views.patterns import KINDS

METRIC_NAMES = {
    "accuracy": ("Accuracy", "share"),
    "balanced_accuracy": ("Balanced accuracy", "share"),
    "macro_f1": ("Macro F1", "share"),
    "macro_roc_auc": ("Macro ROC AUC", "number"),
    "log_loss": ("Log loss", "number"),
    "brier": ("Brier score", "number"),
    "ece": ("Calibration error (ECE)", "number"),
}
"""What readers call a metric, and how it is written."""
LOWER = ("log_loss", "brier", "ece")
MOST_CARDS = 8
"""Images of a kind on the first page; all are in the gallery."""
MOST_EXAMPLES = 4
"""Errors of a pattern on its card."""
IMAGES_PAGE = "images.html"


@dataclass(frozen=True)
class CompareSite:
    """What every page carries. `model_name` is what titles end with: the first and last label."""

    program: str
    model_name: str
    labels: tuple[str, ...]
    n_images: int
    n_shown: int

    @property
    def is_series(self) -> bool:
        return len(self.labels) > 2


@dataclass(frozen=True)
class RunRow:
    """A run of the comparison; `accuracy_at` is on an axis that all runs share."""

    about: RunInSeries
    accuracy: Estimate
    accuracy_at: Whisker | None
    href: str | None


@dataclass(frozen=True)
class MetricRow:
    """A metric before and after. `kind` is "share" or "number"."""

    label: str
    kind: str
    is_lower_better: bool
    found: MetricChange


@dataclass(frozen=True)
class OutcomeTile:
    """How many images came out one way; `n_shown` of them are in the gallery."""

    name: str
    count: int
    n_shown: int
    href: str | None


@dataclass(frozen=True)
class GroupRow:
    """A class or a slice; `href` leads to the images of a class."""

    found: GroupChange
    href: str | None


@dataclass(frozen=True)
class MeanPicture:
    """The mean map of a pattern's errors in one run; without `picture` it holds none of them."""

    label: str
    picture: str | None
    mean: MeanMap


@dataclass(frozen=True)
class PatternRow:
    """A pattern and what became of it.

    Attributes:
        kind: what its errors were grouped by, in words.
        is_anywhere: whether they look at a thing that may be anywhere, so that there is no place.
        place: of an earlier pattern, how much of the focus is still where it was.
        examples: errors of it that have maps of both runs, if any, those that changed most first.
    """

    found: PatternChange
    found_in: str
    href: str
    kind: str
    is_anywhere: bool
    before: MeanPicture
    after: MeanPicture
    place: PlaceShift | None
    causal: tuple[Share, Share]
    examples: tuple[ImageCard, ...]


@dataclass(frozen=True)
class StepView:
    """All that changed from the first run to a later one.

    `leading` is the pattern that the headline names: of those that are gone, smaller or new the one
    with most errors, else the largest of all.
    """

    position: int
    before: str
    after: str
    p_value: float
    n_another_way: int
    accuracy: tuple[float, float]
    direction: str
    metrics: tuple[MetricRow, ...]
    outcomes: tuple[OutcomeTile, ...]
    calibration: Calibration
    classes: tuple[GroupRow, ...]
    slices: tuple[GroupRow, ...]
    patterns: tuple[PatternRow, ...]
    leading: PatternRow | None
    focus: FocusView
    fixed: tuple[ImageCard, ...]
    broken: tuple[ImageCard, ...]
    gallery_href: str

    @property
    def shown_patterns(self) -> tuple[PatternRow, ...]:
        """The earlier run's patterns, and those of the later one that are new."""
        return tuple(x for x in self.patterns if not x.found.is_later or x.found.verdict == NEW)

    @property
    def other_patterns(self) -> tuple[PatternRow, ...]:
        """The later run's patterns that are not shown to be new."""
        return tuple(x for x in self.patterns if x.found.is_later and x.found.verdict != NEW)

    @property
    def gaps(self) -> tuple[tuple[float, str], ...]:
        """How far confidence and accuracy are apart, in points, and which is the larger."""
        found = self.calibration
        return tuple(
            (abs(100 * gap), "surer than right" if gap > 0 else "less sure than right")
            for gap in (found.gap_before, found.gap_after)
        )

    @property
    def counts(self) -> dict[str, int]:
        return {tile.name: tile.count for tile in self.outcomes}


@dataclass(frozen=True)
class StepPage:
    """The page of one step of a series."""

    site: CompareSite
    step: StepView
    previous: str | None
    next: str | None


def make_site(comparison: Comparison, n_shown: int) -> CompareSite:
    labels = comparison.labels
    return CompareSite(
        program=f"gradcam-audit {audit.__version__}",
        model_name=f"{labels[0]} → {labels[-1]}",
        labels=labels,
        n_images=comparison.n_images,
        n_shown=n_shown,
    )


def step_name(position: int) -> str:
    """Return the file of the page of a step of a series."""
    return f"steps/{position}.html"


def mean_name(run: int, number: int, shown: int) -> str:
    """Return the file of the mean map of a pattern's errors in a run."""
    return f"images/mean-{run + 1}-{number}-{shown + 1}.jpg"


def run_rows(comparison: Comparison) -> tuple[RunRow, ...]:
    """Return the runs in order."""
    found = [
        Estimate(run.accuracy["value"], run.accuracy["low"], run.accuracy["high"])
        for run in comparison.runs
    ]
    lows = [estimate.low for estimate in found if estimate.low is not None]
    axis_low = np.floor(10 * min(lows, default=0.0)) / 10
    is_series = len(comparison.runs) > 2
    return tuple(
        RunRow(
            run,
            accuracy,
            whisker(accuracy, float(min(0.9, axis_low))),
            step_name(position) if is_series and position else None,
        )
        for position, (run, accuracy) in enumerate(zip(comparison.runs, found, strict=True))
    )


def step_view(
    comparison: Comparison, step: Step, shown: ComparedImages, means: MeanMaps
) -> StepView:
    """Return what changed in a step."""
    outcomes, last = step.outcomes, step.position
    patterns = tuple(_pattern(shown, step, found, means) for found in step.patterns)
    accuracy = [comparison.runs[run].accuracy["value"] for run in (0, last)]
    return StepView(
        position=last,
        before=comparison.labels[0],
        after=comparison.labels[last],
        p_value=outcomes.p_value,
        n_another_way=len(outcomes.another_way),
        accuracy=(accuracy[0], accuracy[1]),
        direction=_direction(step),
        metrics=tuple(
            MetricRow(*METRIC_NAMES[metric.name], metric.name in LOWER, metric)
            for metric in step.metrics
        ),
        outcomes=_outcomes(step, shown),
        calibration=step.calibration,
        classes=_groups(comparison, step, step.classes),
        slices=_groups(comparison, step, step.slices),
        patterns=patterns,
        leading=_leading(patterns),
        focus=focus_view(step.focus),
        fixed=_cards_of(shown, last, "fixed"),
        broken=_cards_of(shown, last, "broken"),
        gallery_href=gallery_href(step=last),
    )


def gallery_href(**filters: object) -> str:
    """Return a link into the gallery; without JavaScript it leads to all images."""
    return f"{IMAGES_PAGE}#" + "&".join(
        f"{key}={str(value).replace(' ', '+')}" for key, value in filters.items()
    )


def _direction(step: Step) -> str:
    """Return what may be said of the accuracy: `BETTER`, `WORSE`, or "" for neither."""
    outcomes = step.outcomes
    if outcomes.p_value >= 0.05:
        return ""
    return BETTER if len(outcomes.fixed) > len(outcomes.broken) else WORSE


def _outcomes(step: Step, shown: ComparedImages) -> tuple[OutcomeTile, ...]:
    outcomes = step.outcomes
    arrays = (outcomes.fixed, outcomes.broken, outcomes.still_wrong, outcomes.still_right)
    n_shown = np.bincount(shown.outcomes(step.position), minlength=len(OUTCOMES))
    return tuple(
        OutcomeTile(
            name,
            len(found),
            int(n),
            gallery_href(step=step.position, outcome=number) if n else None,
        )
        for number, (name, found, n) in enumerate(zip(OUTCOMES, arrays, n_shown, strict=True))
    )


def _groups(
    comparison: Comparison, step: Step, groups: Sequence[GroupChange]
) -> tuple[GroupRow, ...]:
    """Return classes or slices, the surest change first where they are many."""
    index = {name: number for number, name in enumerate(comparison.images.class_names)}
    rows = [
        GroupRow(
            group,
            gallery_href(step=step.position, true=index[group.name])
            if group.kind == "class"
            else None,
        )
        for group in groups
    ]
    if len(rows) > 30:
        rows.sort(key=lambda row: row.found.q_value)
    return tuple(rows)


def _pattern(
    shown: ComparedImages, step: Step, found: PatternChange, means: MeanMaps
) -> PatternRow:
    comparison = shown.comparison
    errors = np.searchsorted(shown.positions, np.union1d(found.right, found.same_way))
    run, places = step.position if found.is_later else 0, step.focus.places
    place = next((x for x in places if x.pattern == found.number and not found.is_later), None)
    return PatternRow(
        found=found,
        found_in=comparison.labels[run],
        href=gallery_href(step=step.position, pattern=f"{run}-{found.number}"),
        kind=KINDS.get(found.kind, ""),
        is_anywhere=found.kind == LOOK,
        before=_mean_picture(comparison, run, found.number, 0, means),
        after=_mean_picture(comparison, run, found.number, step.position, means),
        place=place,
        causal=(found.causal_before, found.causal_after),
        examples=_cards(shown, step.position, errors, MOST_EXAMPLES),
    )


def _mean_picture(
    comparison: Comparison, run: int, number: int, shown: int, means: MeanMaps
) -> MeanPicture:
    mean = means.mean(run, number, shown)
    picture = None if mean.cam is None else mean_name(run, number, shown)
    return MeanPicture(comparison.labels[shown], picture, mean)


def _leading(patterns: Sequence[PatternRow]) -> PatternRow | None:
    changed = [row for row in patterns if row.found.verdict in (GONE, SMALLER, NEW)]
    return max(changed or patterns, key=lambda row: row.found.n_matched, default=None)


def _cards_of(shown: ComparedImages, run: int, outcome: str) -> tuple[ImageCard, ...]:
    rows = np.flatnonzero(shown.outcomes(run) == OUTCOMES.index(outcome))
    return _cards(shown, run, rows, MOST_CARDS)


def _cards(shown: ComparedImages, run: int, rows: np.ndarray, n_most: int) -> tuple[ImageCard, ...]:
    """Return cards of images with maps of both runs first, then those that changed most."""
    n_maps = np.array([shown.n_maps(row, (0, run)) for row in rows.tolist()], np.int64)
    order = np.lexsort((rows, -np.abs(shown.gains(run)[rows]), -n_maps))
    return tuple(shown.card(row, (0, run)) for row in rows[order][:n_most].tolist())
