"""How sure a number is: Wilson intervals for proportions, bootstrap intervals for the others.

In: counts, or values per image. Out: bounds at 95 %, or "estimates" as `metrics.json` holds them:
`{"value", "low", "high", "method"}`, and with the method "bootstrap" the number of "resamples".
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.special import ndtri

LEVEL = 0.95
"""Confidence level of every interval."""

RESAMPLES = 1000
"""Bootstrap resamples, unless so many would cost too much."""

MIN_RESAMPLES = 100
"""With fewer resamples the 2.5 % tails hold two or three values; no interval is given then."""

WORK_BUDGET = 500_000_000
"""Array elements one bootstrap may go through: 20 to 30 s on one core for ROC curves."""

CHUNK_ELEMENTS = 1 << 18
"""Elements handled at a time: 2 MB in float64, which stays in the processor's cache."""

ZERO_WIDTH = 1e-12
"""Resampled values closer than this are one value with rounding errors."""


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval of proportions, at `LEVEL`.

    Args:
        successes: integers >= 0 of any shape.
        trials: integers >= `successes`, of a shape that broadcasts with it.

    Returns:
        low and high, float64 in [0, 1]; NaN where there are no trials.

    Source: Wilson 1927, in the form of Newcombe 1998, method 3.
    """
    k = np.asarray(successes, np.float64)
    n = np.asarray(trials, np.float64)
    z = ndtri(0.5 + LEVEL / 2)
    p = ratio(k, n)
    center = (2 * n * p + z**2) / (2 * (n + z**2))
    half_width = z * np.sqrt(4 * n * p * (1 - p) + z**2) / (2 * (n + z**2))
    # At the ends the formula is exact only without rounding errors.
    low = np.where((k == 0) & (n > 0), 0.0, center - half_width)
    high = np.where((k == n) & (n > 0), 1.0, center + half_width)
    return low, high


def wilson_estimate(successes: int, trials: int) -> dict[str, Any]:
    """Return `successes / trials` with its Wilson interval; all `None` without trials."""
    low, high = wilson_interval(successes, trials)
    value = ratio(successes, trials)
    return _estimate(float(value), float(low), float(high), "wilson")


def percentile_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds between which `LEVEL` of the resampled values lie.

    Args:
        resampled: float of shape (n_resamples, ...); NaN where a resample left it undefined.

    Returns:
        low and high of shape (...), interpolated as `numpy.quantile` does, over the defined values.
        NaN where none is defined, and where all are equal: a bootstrap that never varies, as after
        an audit without errors, has nothing to say about the uncertainty.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    ordered = np.sort(resampled, axis=0)  # NaN comes last.
    n_defined = np.count_nonzero(~np.isnan(ordered), axis=0)
    low = _quantile_of_ordered(ordered, n_defined, 0.5 - LEVEL / 2)
    high = _quantile_of_ordered(ordered, n_defined, 0.5 + LEVEL / 2)
    varies = high - low > ZERO_WIDTH
    return np.where(varies, low, np.nan), np.where(varies, high, np.nan)


def bootstrap_estimate(value: float, resampled: np.ndarray) -> dict[str, Any]:
    """Return a value with the percentile interval of its resampled values of shape (n_resamples,).

    `low` and `high` are `None` where `percentile_interval` gives NaN or nothing was resampled.
    """
    if len(resampled) == 0:
        return interval_estimate(value, np.nan, np.nan, 0)
    low, high = percentile_interval(resampled)
    return interval_estimate(value, float(low), float(high), len(resampled))


def reflected_estimate(value: float, resampled: np.ndarray) -> dict[str, Any]:
    """Return a value >= 0 that resampling inflates, with its interval reflected at the value.

    A sum of absolute differences, such as the ECE, is too large on a sample and larger again on a
    resample of it, so its percentile interval lies above the truth. The reflected ("basic")
    interval runs from `2 * value - high` to `2 * value - low`. It is cut at 0 and widened to hold
    the value. It still covers less than `LEVEL` for a model that is almost perfectly calibrated.

    Source: Davison & Hinkley 1997, section 5.2.
    """
    estimate = bootstrap_estimate(value, resampled)
    if estimate["low"] is None:
        return estimate
    low = max(0.0, min(value, 2 * value - estimate["high"]))
    high = max(value, 2 * value - estimate["low"])
    return interval_estimate(value, low, high, len(resampled))


def interval_estimate(value: float, low: float, high: float, resamples: int) -> dict[str, Any]:
    """Return a bootstrap estimate whose bounds are known already; NaN becomes `None`."""
    return {**_estimate(value, low, high, "bootstrap"), "resamples": resamples}


def affordable_resamples(elements: int) -> int:
    """Return how many resamples of so many array elements fit into `WORK_BUDGET`.

    Returns:
        `RESAMPLES`, or fewer, or 0 if fewer than `MIN_RESAMPLES` could be made.
    """
    resamples = min(RESAMPLES, WORK_BUDGET // max(1, elements))
    return resamples if resamples >= MIN_RESAMPLES else 0


def image_weights(n_images: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn when n are drawn with replacement from n.

    Yields:
        float64 whole numbers of shape (chunk, n_images); a row is a resample and sums to n_images.
    """
    for size in _chunk_sizes(resamples, n_images):
        drawn = rng.integers(0, n_images, (size, n_images))
        drawn += np.arange(size)[:, None] * n_images
        weights = np.bincount(drawn.ravel(), minlength=size * n_images)
        yield weights.reshape(size, n_images).astype(np.float64)


def resampled_counts(
    counts: np.ndarray, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield counts of cells as if the images in them had been resampled.

    What depends on the images only through these counts needs no resampling of images: the counts
    are multinomial.

    Args:
        counts: integers of shape (n_cells,), at least one above 0.

    Yields:
        int64 of shape (chunk, n_cells); each row sums to `counts.sum()`.
    """
    total = counts.sum()
    for size in _chunk_sizes(resamples, len(counts)):
        yield rng.multinomial(total, counts / total, size=size)


def resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means over resamples of the images.

    Args:
        values: float64 of shape (n_images, k).

    Returns:
        float64 of shape (resamples, k).
    """
    n_images = len(values)
    # Sparse products add in one order; those of dense arrays change with the number of threads.
    columns = csr_array(values)
    means = [weights @ columns / n_images for weights in image_weights(n_images, resamples, rng)]
    return np.concatenate(means) if means else np.empty((0, values.shape[1]))


def ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """Return `part / whole` in float64, NaN where `whole` is 0."""
    whole = np.asarray(whole, np.float64)
    return np.divide(part, np.where(whole == 0, np.nan, whole))


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, leaving out NaN; NaN where nothing is left."""
    return ratio(np.nansum(values, axis=-1), np.count_nonzero(~np.isnan(values), axis=-1))


def number_or_none(value: float) -> float | None:
    """Return a Python float, or `None` for NaN, as `metrics.json` holds it."""
    return None if np.isnan(value) else float(value)


def _estimate(value: float, low: float, high: float, method: str) -> dict[str, Any]:
    bounds = {"low": number_or_none(low), "high": number_or_none(high)}
    return {"value": number_or_none(value), **bounds, "method": method}


def _chunk_sizes(resamples: int, elements: int) -> list[int]:
    size = max(1, CHUNK_ELEMENTS // elements)
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _quantile_of_ordered(ordered: np.ndarray, n_defined: np.ndarray, q: float) -> np.ndarray:
    position = q * np.maximum(n_defined - 1, 0)
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    at_below = np.take_along_axis(ordered, below[None], axis=0)[0]
    at_above = np.take_along_axis(ordered, above[None], axis=0)[0]
    return np.asarray(at_below + (position - below) * (at_above - at_below))
