"""Compare finished runs: before and after, or a series. Needs no TensorFlow.

In: run folders. Out: a `Comparison`: what changed in the predictions, where the focus went, what
became of the patterns, each later run against the first on the images that all runs have.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit.compare.changes import (
    Group,
    GroupChange,
    MetricChange,
    Outcomes,
    compare_groups,
    compare_metrics,
    confidence_gap,
    sort_outcomes,
)
from audit.compare.compare_folder import FORMAT_VERSION
from audit.compare.focus_shift import FocusShift, Maps, compare_focus, shift_in_place
from audit.compare.matching import (
    ComparedRun,
    ComputedMaps,
    MatchCounts,
    MatchedRuns,
    match_runs,
    open_compared,
)
from audit.compare.object_shift import (
    ObjectShift,
    measure_maps,
    noted_inside,
    shift_in_object,
)
from audit.compare.paired import Change
from audit.compare.patterns_change import PatternChange, compare_patterns
from audit.compare.stored import (
    computed_keys,
    read_maps,
    read_mean_maps,
    read_patterns,
    read_repaired,
    read_slices,
)
from audit.diagnose.pattern_search import LOOK
from audit.errors import ConfigError
from audit.explain.objects import Objects
from audit.places import Place, place
from audit.predict.intervals import wilson_estimate

MOST_IMAGES = 100
"""Images that a list in JSON holds; the tables have them all."""

Image = dict[str, Any]


@dataclass(frozen=True)
class RunInSeries:
    """A run of the comparison; errors and accuracy are over the images that all runs have."""

    label: str
    run: str
    model: str | None
    matched: MatchCounts
    n_errors: int
    accuracy: dict[str, Any]
    computed: "ComputedCounts | None" = None


@dataclass(frozen=True)
class ComputedCounts:
    """Maps that were made with a run's model because only the other run had them.

    `n_wanted` and `n_maps` count an image and a class; `n_left_out` counts images that could not be
    read, or are no longer those that were predicted, the first because of `first_reason`.
    """

    n_wanted: int
    n_maps: int
    n_left_out: int
    first_reason: str | None


@dataclass(frozen=True)
class Calibration:
    """Mean confidence less accuracy before and after; above 0, a model is surer than it is right.

    The ECE, the Brier score and the log loss are among the metrics.
    """

    gap_before: float
    gap_after: float
    change: Change


@dataclass(frozen=True)
class Step:
    """What changed from the first run to a later one.

    Attributes:
        position: of the later run among the runs.
        metrics, outcomes, calibration: see `audit.compare.changes`.
        classes, slices: `GroupChange` of the true classes, and of the confirmed slices of both
            runs, on the half of the images that they were not searched on; slices that are
            conditions on classes alone, or on the prediction, are left out.
        patterns: of both runs, the earlier one's first.
        focus: over images that both runs explained.
    """

    position: int
    metrics: tuple[MetricChange, ...]
    outcomes: Outcomes
    calibration: Calibration
    classes: tuple[GroupChange, ...]
    slices: tuple[GroupChange, ...]
    patterns: tuple[PatternChange, ...]
    focus: FocusShift


@dataclass(frozen=True)
class Comparison:
    """Two or more runs over the same images.

    Attributes:
        runs: in the order given; the first is what the others are held against.
        n_images: that all runs have; every number but `matched` is over these.
        images: labels, predictions and scores of these images.
        steps: from the first run to each later one.
    """

    runs: tuple[RunInSeries, ...]
    n_images: int
    images: MatchedRuns
    steps: tuple[Step, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(run.label for run in self.runs)

    def changed_images(self, step: Step, chosen: np.ndarray) -> list[Image]:
        """Return what both runs say of images, by their positions, in the order given."""
        images, runs = self.images, [0, step.position]
        names = images.class_names
        return [
            {
                "path": images.paths[row],
                "true_class": names[images.y_true[row]],
                "before": names[images.y_pred[runs[0], row]],
                "after": names[images.y_pred[runs[1], row]],
                **{
                    name: float(images.scores[run, row, images.y_true[row]])
                    for name, run in zip(("p_true_before", "p_true_after"), runs, strict=True)
                },
            }
            for row in chosen.tolist()
        ]

    def summary(self) -> dict[str, Any]:
        """Return the comparison as plain values, as `comparison.json` holds it.

        Lists of images hold the first hundred.
        """
        return {
            "format_version": FORMAT_VERSION,
            "class_names": list(self.images.class_names),
            "n_images": self.n_images,
            "runs": [asdict(run) for run in self.runs],
            "steps": [self._step(step) for step in self.steps],
        }

    def _step(self, step: Step) -> dict[str, Any]:
        outcomes = step.outcomes
        lists = {
            name: self.changed_images(step, getattr(outcomes, name)[:MOST_IMAGES])
            for name in ("fixed", "broken", "still_wrong")
        }
        return {
            "before": self.labels[0],
            "after": self.labels[step.position],
            "metrics": [asdict(metric) for metric in step.metrics],
            "outcomes": {
                "n_fixed": len(outcomes.fixed),
                "n_broken": len(outcomes.broken),
                "n_still_wrong": len(outcomes.still_wrong),
                "n_still_right": len(outcomes.still_right),
                "n_wrong_another_way": len(outcomes.another_way),
                "mcnemar_p": outcomes.p_value,
                **lists,
            },
            "calibration": asdict(step.calibration),
            "classes": [asdict(group) for group in step.classes],
            "slices": [asdict(group) for group in step.slices],
            "patterns": [self._pattern(pattern) for pattern in step.patterns],
            "focus": asdict(step.focus)
            | {"places": [asdict(place) for place in step.focus.places]},
        }

    def _pattern(self, pattern: PatternChange) -> dict[str, Any]:
        paths = self.images.paths
        return asdict(pattern) | {
            name: paths[getattr(pattern, name)[:MOST_IMAGES]].tolist()
            for name in ("right", "same_way")
        }


def compare_runs(
    runs: Sequence[Place | str],
    labels: Sequence[str] | None = None,
    *,
    masks: Path | None = None,
    boxes: Path | None = None,
    compute: Callable[[MatchedRuns], MatchedRuns] = lambda images: images,
    seed: int = 0,
) -> Comparison:
    """Compare two or more finished runs.

    Args:
        runs: run folders; the later ones are each compared with the first.
        labels: what the runs are called; by default the names of their folders.
        masks, boxes: where the objects are, as for a run; by default what both runs noted of them.
        compute: gives runs the maps that they lack.
        seed: of the bootstrap. The same runs give the same comparison.

    Raises:
        DatasetError: if there are no masks or boxes where they should be.
        ConfigError: if there are fewer than two runs, or the labels do not fit.
        RunFolderError: if a folder is no finished run of this format, classes differ, or no image
            is in all of them.
    """
    names = check_labels(runs, labels)
    opened = [open_compared(path, name) for path, name in zip(runs, names, strict=True)]
    images = match_runs(opened)
    objects = Objects(images.paths.tolist(), masks, boxes) if masks or boxes else None
    images = compute(images)
    return Comparison(
        runs=tuple(_in_series(images, position) for position in range(len(opened))),
        n_images=len(images.y_true),
        images=images,
        steps=tuple(_step(images, position, objects, seed) for position in range(1, len(opened))),
    )


def check_labels(runs: Sequence[Place | str], labels: Sequence[str] | None) -> list[str]:
    """Return a label for each run, different for each.

    Raises:
        ConfigError: if there are fewer than two runs, or the labels do not fit.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"A comparison needs two runs or more. Received: {len(runs)}. Give the run before and"
            " the run after."
        )
    if labels is None:
        names = [place(run).resolve().name for run in runs]
        times = Counter(names)
        return [
            name if times[name] == 1 else f"{name} ({position})"
            for position, name in enumerate(names, start=1)
        ]
    if len(labels) != len(runs) or len(set(labels)) < len(labels) or not all(labels):
        raise ConfigError(
            f"`--labels` cannot be used: give a different label for each of the {len(runs)} runs,"
            f" with commas between them. Received: {', '.join(map(repr, labels))}."
        )
    return list(labels)


def _in_series(images: MatchedRuns, position: int) -> RunInSeries:
    run: ComparedRun = images.runs[position]
    n_right = int(images.is_right[position].sum())
    return RunInSeries(
        label=run.label,
        run=str(run.folder.path),
        model=(run.manifest["model"] or {}).get("name"),
        matched=images.counts[position],
        n_errors=len(images.y_true) - n_right,
        accuracy=wilson_estimate(n_right, len(images.y_true)),
        computed=None if run.computed is None else _counted(run.computed),
    )


def _counted(computed: ComputedMaps) -> ComputedCounts:
    reasons = [reason for _, reason in computed.left_out]
    return ComputedCounts(
        computed.n_wanted, len(computed.maps), len(reasons), reasons[0] if reasons else None
    )


def _step(images: MatchedRuns, position: int, objects: Objects | None, seed: int) -> Step:
    both = [0, position]
    y_true, y_pred, scores = images.y_true, images.y_pred[both], images.scores[both]
    classes = [
        Group("class", name, y_true == index) for index, name in enumerate(images.class_names)
    ]
    slices = [group for run in both for group in read_slices(images, run)]
    patterns = [
        pattern
        for is_later, run in enumerate(both)
        for pattern in read_patterns(images, run, is_later=bool(is_later))
    ]
    repaired = np.stack([read_repaired(images, run) for run in both])
    before, after = (read_maps(images, run) for run in both)
    mean_maps = read_mean_maps(images.runs[0])
    places = [
        shift_in_place(
            pattern.number,
            None if pattern.kind == LOOK else mean_maps[pattern.number],
            [(row, int(y_pred[0, row])) for row in pattern.errors.tolist()],
            before,
            after,
            seed=seed,
        )
        for pattern in patterns
        if not pattern.is_later
    ]
    return Step(
        position=position,
        metrics=compare_metrics(y_true, y_pred, scores, positive=images.positive, seed=seed),
        outcomes=sort_outcomes(y_true, y_pred),
        calibration=Calibration(*confidence_gap(y_true, y_pred, scores, seed=seed)),
        classes=compare_groups(classes, y_true, y_pred),
        slices=compare_groups(slices, y_true, y_pred),
        patterns=compare_patterns(patterns, y_true, y_pred, repaired),
        focus=replace(
            compare_focus(before, after, places, seed=seed),
            n_computed=len(
                (before.keys() & after.keys())
                & (computed_keys(images, 0) | computed_keys(images, position))
            ),
            objects=_shift_in_object(images, position, (before, after), objects, seed),
        ),
    )


def _shift_in_object(
    images: MatchedRuns, position: int, maps: tuple[Maps, Maps], objects: Objects | None, seed: int
) -> ObjectShift | None:
    both = set(maps[0].keys() & maps[1].keys())
    if objects is not None:
        measured = measure_maps(images, (0, position), maps, objects)
        return shift_in_object(*measured, both, seed=seed)
    before, after = noted_inside(images, 0), noted_inside(images, position)
    if before is None or after is None:
        return None
    return shift_in_object(before, after, both, seed=seed)
