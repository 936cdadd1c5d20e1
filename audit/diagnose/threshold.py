"""Would another threshold make fewer errors? Chosen on one half, counted on the other.

In: truth and probability of the positive class of a binary model. Out: the threshold, what it would
save with an interval, and the cost curve. TensorFlow is not needed.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from audit.predict.intervals import RESAMPLES, percentile_interval, resampled_counts

N_CANDIDATES = 200
"""Thresholds that are compared, between quantiles of the probabilities, beside the one in use."""


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold that makes fewer errors than the one in use.

    Attributes:
        threshold: the best one on all images; of equally good ones the nearest in rank to the one
            in use.
        threshold_low, threshold_high: bounds of 95 % of the best thresholds of resamples.
        gain: errors saved, each counted on the half that the threshold was not chosen on.
        gain_low, gain_high: 95 % bounds of that, from resamples of the images.
        n_fixed, n_broken: images that turn right and that turn wrong.
        p_value: of an exact McNemar test of these two, one-sided.
        fixed: positions of the errors that `threshold` puts right, the surest first.
        curve: (threshold, false positives, false negatives) over all images, in rising order.
    """

    threshold: float
    threshold_low: float
    threshold_high: float
    gain: int
    gain_low: float
    gain_high: float
    n_fixed: int
    n_broken: int
    p_value: float
    fixed: tuple[int, ...]
    curve: tuple[tuple[float, int, int], ...]


def choose_threshold(
    is_positive: np.ndarray, p_positive: np.ndarray, threshold: float, *, seed: int = 0
) -> ThresholdChoice | None:
    """Look for a threshold with fewer errors; false positives and false negatives cost the same.

    The images of each class are halved at random. The threshold with the fewest errors on one half
    is judged on the other, and the other way round, so that no image judges its own choice.

    Args:
        is_positive: bool of shape (n,), the truth.
        p_positive: float of shape (n,). An image is called positive if `p_positive >= threshold`,
            compared in the precision of `p_positive`.
        threshold: the threshold in use, above 0 and below 1.
        seed: of the halves and the resamples.

    Returns:
        The choice, or `None` if the interval of its gain does not exclude 0, or the test does not
        (p >= 0.05).

    Source: McNemar 1947 for the test; Efron & Tibshirani 1993, chapter 13, for the intervals.
    """
    if len(np.unique(is_positive)) < 2:
        return None
    rng = np.random.default_rng([seed, 29])
    candidates = _candidates(p_positive, threshold)
    current = int(np.flatnonzero(candidates == threshold)[0])
    called = _cells(p_positive, candidates)
    half = _halve(is_positive, rng)
    change = np.zeros(len(is_positive), np.int64)
    for judged in (half, ~half):
        errors = _errors(called[~judged], is_positive[~judged], len(candidates))
        chosen = int(_best(errors, current)[0])
        wrong_now = (called[judged] > current) != is_positive[judged]
        wrong_then = (called[judged] > chosen) != is_positive[judged]
        change[judged] = wrong_now.astype(np.int64) - wrong_then
    n_fixed, n_broken = int((change > 0).sum()), int((change < 0).sum())
    if n_fixed <= n_broken:
        return None
    gain_low, gain_high = _gain_interval(n_fixed, n_broken, len(change), rng)
    p_value = binomtest(n_fixed, n_fixed + n_broken, alternative="greater").pvalue
    best = int(_best(_errors(called, is_positive, len(candidates)), current)[0])
    if not gain_low > 0 or p_value >= 0.05 or best == current:
        return None
    low, high = _threshold_interval(called, is_positive, candidates, current, rng)
    return ThresholdChoice(
        threshold=float(candidates[best]),
        threshold_low=min(low, float(candidates[best])),
        threshold_high=max(high, float(candidates[best])),
        gain=n_fixed - n_broken,
        gain_low=gain_low,
        gain_high=gain_high,
        n_fixed=n_fixed,
        n_broken=n_broken,
        p_value=float(p_value),
        fixed=_fixed(called, is_positive, p_positive, current, best),
        curve=_curve(called, is_positive, candidates),
    )


def _candidates(p_positive: np.ndarray, threshold: float) -> np.ndarray:
    """Return thresholds half-way between quantiles, and the one in use: float64, rising."""
    shares = np.linspace(0, 1, N_CANDIDATES + 1)
    values = np.unique(np.quantile(p_positive, shares, method="inverted_cdf").astype(np.float64))
    between = (values[1:] + values[:-1]) / 2
    return np.unique([*between[(between > 0) & (between < 1)], threshold])


def _cells(p_positive: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return how many thresholds an image reaches; it is positive at threshold j if that is > j."""
    return np.searchsorted(candidates.astype(p_positive.dtype), p_positive, side="right")


def _halve(is_positive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bool of shape (n,) that is true for a random half of each class."""
    half = np.zeros(len(is_positive), bool)
    for label in (False, True):
        members = rng.permutation(np.flatnonzero(is_positive == label))
        half[members[: len(members) // 2]] = True
    return half


def _errors(called: np.ndarray, is_positive: np.ndarray, n_candidates: int) -> np.ndarray:
    """Return the errors at each threshold, int64 of shape (1, n_candidates)."""
    return _errors_of_cells(_count_cells(called, is_positive, n_candidates)[None])


def _count_cells(called: np.ndarray, is_positive: np.ndarray, n_candidates: int) -> np.ndarray:
    """Count images by class and by how many thresholds they reach, negatives first."""
    cells = called + is_positive * (n_candidates + 1)
    return np.bincount(cells, minlength=2 * (n_candidates + 1))


def _errors_of_cells(cells: np.ndarray) -> np.ndarray:
    """Add up errors from counts of images by reached thresholds, negatives before positives.

    Args:
        cells: integers of shape (m, 2 * (n_candidates + 1)).

    Returns:
        Integers of shape (m, n_candidates).
    """
    negatives, positives = np.split(cells, 2, axis=1)
    missed = np.cumsum(positives, axis=1)[:, :-1]
    alarms = negatives.sum(axis=1, keepdims=True) - np.cumsum(negatives, axis=1)[:, :-1]
    return missed + alarms


def _best(errors: np.ndarray, current: int) -> np.ndarray:
    """Return the threshold with the fewest errors, of equal ones the nearest to `current`.

    Args:
        errors: of shape (m, n_candidates).

    Returns:
        Integers of shape (m,).
    """
    distance = np.abs(np.arange(errors.shape[1]) - current)
    is_best = errors == errors.min(axis=1, keepdims=True)
    return np.where(is_best, distance, errors.shape[1]).argmin(axis=1)


def _gain_interval(
    n_fixed: int, n_broken: int, n_images: int, rng: np.random.Generator
) -> tuple[float, float]:
    counts = np.array([n_fixed, n_broken, n_images - n_fixed - n_broken])
    resampled = np.concatenate(list(resampled_counts(counts, RESAMPLES, rng)))
    low, high = percentile_interval(resampled[:, 0] - resampled[:, 1])
    return float(low), float(high)


def _threshold_interval(
    called: np.ndarray,
    is_positive: np.ndarray,
    candidates: np.ndarray,
    current: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    cells = _count_cells(called, is_positive, len(candidates))
    best = [
        _best(_errors_of_cells(chunk), current) for chunk in resampled_counts(cells, RESAMPLES, rng)
    ]
    quantiles = [0.025, 0.975]
    low, high = np.quantile(candidates[np.concatenate(best)], quantiles, method="inverted_cdf")
    return float(low), float(high)


def _fixed(
    called: np.ndarray, is_positive: np.ndarray, p_positive: np.ndarray, current: int, best: int
) -> tuple[int, ...]:
    """Return the errors that the new threshold puts right, those furthest on its side first."""
    fixed = np.flatnonzero(((called > current) != is_positive) & ((called > best) == is_positive))
    distance = np.where(best > current, p_positive[fixed], -p_positive[fixed])
    return tuple(int(position) for position in fixed[np.argsort(distance, kind="stable")])


def _curve(
    called: np.ndarray, is_positive: np.ndarray, candidates: np.ndarray
) -> tuple[tuple[float, int, int], ...]:
    n_candidates = len(candidates)
    missed = np.cumsum(np.bincount(called[is_positive], minlength=n_candidates + 1))[:-1]
    negatives = np.bincount(called[~is_positive], minlength=n_candidates + 1)
    alarms = negatives.sum() - np.cumsum(negatives)[:-1]
    rows = zip(candidates, alarms, missed, strict=True)
    return tuple((float(t), int(fp), int(fn)) for t, fp, fn in rows)
