"""What changed in the predictions: metrics, images, classes and slices, each with a paired test.

In: what two runs say of the same images. Out: records of changes. Before is always the first of two
rows, after the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.compare.paired import (
    ALPHA,
    Change,
    adjust,
    mcnemar_p,
    net_change,
    resampled_change,
)
from audit.gates import LOWER_IS_BETTER
from audit.predict.calibration import N_BINS, brier_losses, equal_width_bins, log_losses
from audit.predict.confusion import averages_of, marginals
from audit.predict.intervals import (
    affordable_resamples,
    image_weights,
    mean_of_defined,
    number_or_none,
    resampled_counts,
    resampled_means,
)
from audit.predict.ranking import roc_auc_and_average_precision

BETTER, WORSE, NOT_SHOWN = "better", "worse", "no change shown"
"""The verdicts on a change. The last does not say that there is none."""

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_roc_auc",
    "log_loss",
    "brier",
    "ece",
)
"""The metrics that are compared, by their names in `metrics.json`."""


@dataclass(frozen=True)
class MetricChange:
    """One metric before and after, over the images that both runs have.

    Attributes:
        before, after: `None` where not defined.
        change: after − before, with the interval of a paired bootstrap.
        p_value: McNemar's of the accuracy, else the bootstrap's.
        q_value: with false discoveries controlled over the metrics.
        verdict: `BETTER` or `WORSE` if q < 0.05, else `NOT_SHOWN`.
    """

    name: str
    before: float | None
    after: float | None
    change: Change
    p_value: float
    q_value: float
    verdict: str


@dataclass(frozen=True)
class Outcomes:
    """The images by what became of them, each int64 of positions among the matched images.

    `still_wrong` has those that are wrong in both, `another_way` those of them that are now taken
    for another wrong class.
    """

    fixed: np.ndarray
    broken: np.ndarray
    still_wrong: np.ndarray
    still_right: np.ndarray
    another_way: np.ndarray
    p_value: float


@dataclass(frozen=True)
class Group:
    """Images to be looked at together: a true class, or a slice; `members` is bool of shape (n,).

    `kind` is "class" or "slice", `found_in` the label of the run that found the slice.
    """

    kind: str
    name: str
    members: np.ndarray
    found_in: str | None = None


@dataclass(frozen=True)
class GroupChange:
    """What became of the images of a group.

    Attributes:
        change: share of its images fixed less the share broken: the rise of its accuracy, or, of a
            class, of its recall; see `audit.compare.paired.net_change`.
        p_value: McNemar's, exact. `q_value`: with false discoveries controlled over the groups.
        verdict: `BETTER` or `WORSE` if q < 0.05, else `NOT_SHOWN`.
    """

    kind: str
    name: str
    found_in: str | None
    n_images: int
    n_wrong_before: int
    n_wrong_after: int
    n_fixed: int
    n_broken: int
    change: Change
    p_value: float
    q_value: float
    verdict: str


def sort_outcomes(y_true: np.ndarray, y_pred: np.ndarray) -> Outcomes:
    """Sort the images by what became of them.

    Args:
        y_true: int of shape (n,).
        y_pred: int of shape (2, n), before and after.
    """
    before, after = y_pred == y_true
    fixed, broken = np.flatnonzero(~before & after), np.flatnonzero(before & ~after)
    return Outcomes(
        fixed=fixed,
        broken=broken,
        still_wrong=np.flatnonzero(~before & ~after),
        still_right=np.flatnonzero(before & after),
        another_way=np.flatnonzero(~before & ~after & (y_pred[0] != y_pred[1])),
        p_value=mcnemar_p(len(fixed), len(broken)),
    )


def compare_metrics(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    scores: np.ndarray,
    *,
    positive: int | None,
    seed: int = 0,
) -> tuple[MetricChange, ...]:
    """Compare the metrics of two runs on the same images.

    The bootstrap draws images, and takes both runs' answers to each of them. The ECE is inflated on
    a resample, and more so the better calibrated a model is, so the interval of its difference lies
    too near 0 if anything: of 400 pairs of equal models, 1 % had p < 0.05. (Reflected at the
    difference, as the ECE's own interval is, it would have been 8 %.)

    Args:
        y_true: int of shape (n,), n >= 1.
        y_pred: int of shape (2, n), before and after.
        scores: float32 of shape (2, n, n_classes).
        positive: of a binary model, `None` for any other; see `brier_losses`.
        seed: of the bootstrap. The same arguments give the same numbers.

    Returns:
        One record for each of `METRICS`, in that order.
    """
    rngs = [np.random.default_rng([seed, stream]) for stream in range(3)]
    values = {
        **_compare_means(y_true, y_pred, scores, positive, rngs[0]),
        **_compare_averages(y_true, y_pred, scores.shape[-1], rngs[1]),
        "macro_roc_auc": _compare_roc_auc(y_true, scores, rngs[2]),
    }
    outcomes = sort_outcomes(y_true, y_pred)
    tested = []
    for name in METRICS:
        before, after, resampled = values[name]
        change, p_value = resampled_change(after - before, resampled)
        tested.append((before, after, change, outcomes.p_value if name == "accuracy" else p_value))
    q_values = adjust([p_value for *_, p_value in tested])
    return tuple(
        MetricChange(
            name,
            number_or_none(before),
            number_or_none(after),
            change,
            p_value,
            q_value,
            verdict(change, q_value, lower_is_better=name in LOWER_IS_BETTER),
        )
        for name, (before, after, change, p_value), q_value in zip(
            METRICS, tested, q_values, strict=True
        )
    )


def confidence_gap(
    y_true: np.ndarray, y_pred: np.ndarray, scores: np.ndarray, *, seed: int = 0
) -> tuple[float, float, Change]:
    """Return mean confidence less accuracy, before and after, and its change with an interval.

    Above 0 a model is surer than it is right. Arguments as in `compare_metrics`.
    """
    gaps = _confidence(y_pred, scores) - (y_pred == y_true)
    resampled = resampled_means(
        (gaps[1] - gaps[0])[:, None],
        affordable_resamples(len(y_true)),
        np.random.default_rng([seed, 3]),
    )[:, 0]
    before, after = (float(gap.mean()) for gap in gaps)
    return before, after, resampled_change(after - before, resampled)[0]


def compare_groups(
    groups: Sequence[Group], y_true: np.ndarray, y_pred: np.ndarray
) -> tuple[GroupChange, ...]:
    """Compare two runs on groups of images; groups without images are left out.

    Args:
        groups: all that are tested together.
        y_true: int of shape (n,).
        y_pred: int of shape (2, n), before and after.
    """
    before, after = y_pred == y_true
    groups = [group for group in groups if group.members.any()]

    def count(group: Group, chosen: np.ndarray) -> int:
        return int(np.count_nonzero(group.members & chosen))

    fixed, broken = (
        [count(group, chosen) for group in groups] for chosen in (~before & after, before & ~after)
    )
    p_values = [mcnemar_p(*changed) for changed in zip(fixed, broken, strict=True)]
    changes = []
    for group, n_fixed, n_broken, p_value, q_value in zip(
        groups, fixed, broken, p_values, adjust(p_values), strict=True
    ):
        n_images = int(np.count_nonzero(group.members))
        change = net_change(n_fixed, n_broken, n_images)
        changes.append(
            GroupChange(
                kind=group.kind,
                name=group.name,
                found_in=group.found_in,
                n_images=n_images,
                n_wrong_before=count(group, ~before),
                n_wrong_after=count(group, ~after),
                n_fixed=n_fixed,
                n_broken=n_broken,
                change=change,
                p_value=p_value,
                q_value=q_value,
                verdict=verdict(change, q_value),
            )
        )
    return tuple(changes)


def verdict(change: Change, q_value: float, *, lower_is_better: bool = False) -> str:
    """Say in a word what a change is."""
    if q_value >= ALPHA or not change.value:
        return NOT_SHOWN
    return BETTER if (change.value > 0) != lower_is_better else WORSE


_Compared = tuple[float, float, np.ndarray]
"""A value before and after, and the resampled differences."""


def _confidence(y_pred: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the probability of the predicted class, float64 of shape (2, n)."""
    return np.take_along_axis(scores, y_pred[..., None], axis=2)[..., 0].astype(np.float64)


def _compare_means(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    scores: np.ndarray,
    positive: int | None,
    rng: np.random.Generator,
) -> dict[str, _Compared]:
    """Compare what is a mean over images, and the ECE, a sum of absolute means over bins."""
    right = (y_pred == y_true).astype(np.float64)
    losses = {
        "accuracy": right,
        "log_loss": np.stack([log_losses(y_true, of_run) for of_run in scores]),
        "brier": np.stack([brier_losses(y_true, of_run, positive) for of_run in scores]),
    }
    gaps = []
    for is_right, confidence in zip(right, _confidence(y_pred, scores), strict=True):
        in_bins = np.zeros((len(y_true), N_BINS))
        in_bins[np.arange(len(y_true)), equal_width_bins(confidence)] = is_right - confidence
        gaps.append(in_bins)
    resampled = resampled_means(
        np.column_stack([*(after - before for before, after in losses.values()), *gaps]),
        affordable_resamples(len(y_true)),
        rng,
    )
    found: dict[str, _Compared] = {}
    for column, (name, (before, after)) in enumerate(losses.items()):
        found[name] = float(before.mean()), float(after.mean()), resampled[:, column]
    before, after = (float(np.abs(of_run.mean(axis=0)).sum()) for of_run in gaps)
    sums = np.abs(resampled[:, len(losses) :])
    resampled_ece = sums[:, N_BINS:].sum(axis=1) - sums[:, :N_BINS].sum(axis=1)
    found["ece"] = before, after, resampled_ece
    return found


def _compare_averages(
    y_true: np.ndarray, y_pred: np.ndarray, n_classes: int, rng: np.random.Generator
) -> dict[str, _Compared]:
    """Compare what depends on the images only through the counts of (true, before, after)."""
    names = ("balanced_accuracy", "macro_f1")
    images = pd.DataFrame({"y_true": y_true, "before": y_pred[0], "after": y_pred[1]})
    cells = images.value_counts(sort=False).reset_index(name="count")
    sides = [cells[["y_true", name]].set_axis(["y_true", "y_pred"], axis=1) for name in images][1:]
    counts = cells["count"].to_numpy()

    def averages(side: pd.DataFrame, drawn: np.ndarray) -> dict[str, np.ndarray]:
        return averages_of(*marginals(side, drawn, n_classes))

    before, after = (averages(side, counts) for side in sides)
    differences: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in names}
    resamples = affordable_resamples(2 * (len(cells) + n_classes))
    for drawn in resampled_counts(counts, resamples, rng):
        one, two = (averages(side, drawn) for side in sides)
        for name in names:
            differences[name].append(two[name] - one[name])
    return {
        name: (float(before[name]), float(after[name]), np.concatenate(differences[name]))
        for name in names
    }


def _compare_roc_auc(y_true: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> _Compared:
    """Compare the mean over classes of the area under the ROC curve, one class against the rest."""

    def areas(of_run: np.ndarray, weights: np.ndarray) -> np.ndarray:
        by_class = [
            roc_auc_and_average_precision(y_true == index, of_run[:, index], weights)[0]
            for index in range(of_run.shape[1])
        ]
        return mean_of_defined(np.stack(by_class, axis=-1))

    before, after = (float(areas(of_run, np.ones((1, len(y_true))))[0]) for of_run in scores)
    resamples = affordable_resamples(scores.size)
    differences = [
        areas(scores[1], weights) - areas(scores[0], weights)
        for weights in image_weights(len(y_true), resamples, rng)
    ]
    return before, after, np.concatenate([np.empty(0), *differences])
