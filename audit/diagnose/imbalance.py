"""Classes whose images are wrong much more often than others', beyond what is explained.

In: true and predicted classes. Out: the uneven classes with their test. TensorFlow is not needed.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control, hypergeom

from audit.diagnose.patterns import lift_interval
from audit.diagnose.wording import ALPHA
from audit.predict.intervals import wilson_interval

STRONGLY = 2.0
"""A class is uneven if its error rate is at least this many times that of the others, surely.

Milder differences are what any confusion matrix shows.
"""


@dataclass(frozen=True)
class UnevenClass:
    """A class whose images are wrong much more often than others.

    Attributes:
        side: "y_true" for the images of the class, "y_pred" for those called it.
        y: the class.
        n_images, n_errors, rate, rate_low, rate_high: of the class; a Wilson interval.
        other_rate: the error rate of all other images.
        excess: errors beyond those that `other_rate` would give.
        lift, lift_low, lift_high: `rate` over `other_rate`; see `lift_interval`.
        q_value: of Fisher's exact test, one-sided, over all classes of both sides.
        errors: positions of its errors.
    """

    side: str
    y: int
    n_images: int
    n_errors: int
    rate: float
    rate_low: float
    rate_high: float
    other_rate: float
    excess: float
    lift: float
    lift_low: float
    lift_high: float
    q_value: float
    errors: np.ndarray


def find_uneven_classes(
    y_true: np.ndarray, y_pred: np.ndarray, explained: np.ndarray
) -> list[UnevenClass]:
    """Find the classes that are strongly uneven, and not only for errors explained otherwise.

    Without those errors the class must still be worse than the others (q < 0.05), or a cause that
    strikes one class would be reported a second time. With them, because taking errors out makes
    every other class look worse.

    Args:
        y_true: int of shape (n,).
        y_pred: int of shape (n,).
        explained: bool of shape (n,), errors that a better-founded finding explains.

    Returns:
        The classes, the one with the largest excess first. A class whose errors are mostly those of
        one before it is left out: with two classes, each error counts on both sides.
    """
    whole = _uneven(y_true, y_pred, np.arange(len(y_true)), STRONGLY)
    rest = _uneven(y_true, y_pred, np.flatnonzero(~explained), 1.0)
    still = {(one.side, one.y) for one in rest}
    kept: list[UnevenClass] = []
    for one in sorted(whole, key=lambda one: (-one.excess, one.side != "y_true", one.y)):
        known = max((np.isin(one.errors, other.errors).mean() for other in kept), default=0.0)
        if (one.side, one.y) in still and known < 0.8:
            kept.append(one)
    return kept


def _uneven(
    y_true: np.ndarray, y_pred: np.ndarray, chosen: np.ndarray, least: float
) -> list[UnevenClass]:
    """Return the classes that are surely wrong so many times as often, among the chosen images."""
    truth, said = y_true[chosen], y_pred[chosen]
    wrong = truth != said
    n_wrong, n = int(wrong.sum()), len(chosen)
    tested = []
    for side, classes in (("y_true", truth), ("y_pred", said)):
        for y in np.unique(classes):
            inside = classes == y
            n_inside, k = int(inside.sum()), int((inside & wrong).sum())
            p_value = float(hypergeom.sf(k - 1, n, n_wrong, n_inside))
            tested.append((side, int(y), n_inside, k, p_value, chosen[inside & wrong]))
    q_values = false_discovery_control([test[4] for test in tested]) if tested else []
    found = []
    for (side, y, n_inside, k, _, errors), q_value in zip(tested, q_values, strict=True):
        n_other, k_other = n - n_inside, n_wrong - k
        if q_value >= ALPHA or n_other == 0:
            continue
        lift, lift_low, lift_high = lift_interval(k, n_inside, k_other, n_other)
        if lift_low < least:
            continue
        low, high = wilson_interval(k, n_inside)
        other = k_other / n_other
        found.append(
            UnevenClass(
                side=side,
                y=y,
                n_images=n_inside,
                n_errors=k,
                rate=k / n_inside,
                rate_low=float(low),
                rate_high=float(high),
                other_rate=other,
                excess=k - n_inside * other,
                lift=lift,
                lift_low=lift_low,
                lift_high=lift_high,
                q_value=float(q_value),
                errors=errors,
            )
        )
    return found
