"""Is a change more than chance? Tests on the same images before and after.

In: counts of images whose answer changed, or resampled differences. Out: p-values, changes with
95 % intervals. Nothing here knows what is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, false_discovery_control

from audit.predict.intervals import LEVEL, number_or_none, percentile_interval

ALPHA = 0.05
"""The share of false claims that is let pass among all of a kind."""


@dataclass(frozen=True)
class Change:
    """A difference, after − before, and its 95 % interval.

    `None` stands for a difference that is not defined, and for bounds that nothing is known of: no
    image changed, or too few resamples could be afforded.
    """

    value: float | None
    low: float | None
    high: float | None


def mcnemar_p(n_fixed: int, n_broken: int) -> float:
    """Return how likely so uneven a split is if fixing and breaking an image are equally likely.

    Returns:
        The exact two-sided p-value; 1 where nothing changed.

    Source: McNemar 1947, doi:10.1007/BF02295996, with the binomial distribution.
    """
    n_changed = n_fixed + n_broken
    return float(binomtest(n_fixed, n_changed).pvalue) if n_changed else 1.0


def net_change(n_fixed: int, n_broken: int, n_images: int) -> Change:
    """Return the share of images fixed less that of images broken.

    The interval is that of the share of fixed among changed images (Clopper & Pearson 1934), times
    the share of images that changed. It leaves out 0 exactly where `mcnemar_p` is below 0.05.

    Args:
        n_images: of the group; `None` is returned without any.
    """
    if n_images == 0:
        return Change(None, None, None)
    n_changed = n_fixed + n_broken
    value = (n_fixed - n_broken) / n_images
    if n_changed == 0:
        return Change(value, None, None)
    bounds = binomtest(n_fixed, n_changed).proportion_ci(LEVEL, method="exact")
    low, high = ((2 * bound - 1) * n_changed / n_images for bound in (bounds.low, bounds.high))
    return Change(value, float(low), float(high))


def resampled_change(value: float, resampled: np.ndarray) -> tuple[Change, float]:
    """Return a difference with its percentile interval, and a two-sided p-value from the same.

    Args:
        value: the difference on all images.
        resampled: float64 of shape (n_resamples,), the difference on resamples of the images, the
            same for before and after; NaN where it is not defined.

    Returns:
        The change, and twice the share of resamples on the rarer side of 0, that share counted as
        (k + 1) / (n + 1): 1 if nothing differs or nothing could be resampled.

    Source: Efron & Tibshirani 1993, chapters 13 and 15.
    """
    defined = resampled[~np.isnan(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Change(number_or_none(value), None, None), 1.0
    low, high = percentile_interval(defined)
    rarer = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p_value = min(1.0, 2 * (rarer + 1) / (len(defined) + 1))
    return Change(float(value), number_or_none(float(low)), number_or_none(float(high))), p_value


def adjust(p_values: Sequence[float]) -> list[float]:
    """Return q-values: p-values with false discoveries controlled over all of them.

    Source: Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    return [float(q) for q in false_discovery_control(p_values)] if len(p_values) else []
