"""Does a group have more errors than the others, if only images of the same class are compared?

In: who is in the group, who is wrong, and classes. Out: a score for searching, and for what was
found an exact p-value and a risk ratio. Comparing within classes keeps a group from standing out
only because it holds many images of a class that is hard anyway.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import hypergeom, norm

_MOST_EXACT = 10_000
_Z95 = 1.959963984540054


class Counts(NamedTuple):
    """Images and errors of a group and of all, by class; int64 of shape (n_classes,) each."""

    inside: np.ndarray
    wrong_inside: np.ndarray
    total: np.ndarray
    wrong: np.ndarray


class Scores(NamedTuple):
    """How far groups stand out, in standard deviations above what chance gives.

    Attributes:
        pairs: float64 of shape (n_groups, n_groups), images in both of two groups; the diagonal
            holds the groups themselves. Compared within classes, over all classes.
        by_class: float64 of shape (n_classes, n_groups): groups, among the images of a class.
    """

    pairs: np.ndarray
    by_class: np.ndarray


def count_by_class(inside: np.ndarray, wrong: np.ndarray, classes: np.ndarray) -> Counts:
    """Count images and errors by class.

    Args:
        inside, wrong: bool of shape (n,).
        classes: int of shape (n,), 0 or more.
    """
    n_classes = int(classes.max(initial=0)) + 1
    parts = (inside, inside & wrong, np.ones_like(inside), wrong)
    return Counts(*(np.bincount(classes[part], minlength=n_classes) for part in parts))


def p_value(counts: Counts) -> float:
    """Return how likely so many errors in the group are by chance, one-sided.

    Given the sizes of group and class and the errors of each class, the errors in the group are a
    sum of hypergeometric numbers. With one class this is Fisher's exact test. Beyond 10,000 errors
    the sum is taken to be normal, with a correction for continuity.

    Source: the exact form of Cochran 1954 and Mantel & Haenszel 1959; Agresti 2013, section 7.3.
    """
    inside, wrong_inside, total, wrong = counts
    observed = int(wrong_inside.sum())
    if np.minimum(inside, wrong).sum() > _MOST_EXACT:
        expected, variance = _moments(inside, total, wrong)
        return float(norm.sf((observed - 0.5 - expected.sum()) / np.sqrt(variance.sum())))
    distribution, least = np.ones(1), 0
    for n_inside, n_total, n_wrong in zip(inside, total, wrong, strict=True):
        low, high = max(0, n_inside + n_wrong - n_total), min(n_inside, n_wrong)
        if high > 0:
            chances = hypergeom.pmf(np.arange(low, high + 1), n_total, n_wrong, n_inside)
            distribution, least = np.convolve(distribution, chances), least + low
    return float(min(1.0, distribution[max(0, observed - least) :].sum()))


def risk_ratio(counts: Counts) -> tuple[float, float, float]:
    """Return how many times as often the group is wrong as others of the same classes, with 95 %.

    If the group or the others have no error, the classes are put together, and 0.5 is added to the
    right and the wrong images of both (Haldane 1956), so that ratio and limits stay finite.

    Returns:
        ratio, lower and upper limit; NaN if there is nothing to compare with.

    Source: Mantel & Haenszel's risk ratio with the variance of Greenland & Robins 1985,
    doi:10.2307/2530643.
    """
    a, n, size = (x.astype(np.float64) for x in (counts.wrong_inside, counts.inside, counts.total))
    b, m = counts.wrong - a, size - n
    both = (n > 0) & (m > 0)
    a, b, n, m, size = (x[both] for x in (a, b, n, m, size))
    inside, outside = (a * m / size).sum(), (b * n / size).sum()
    if len(size) == 0:
        return np.nan, np.nan, np.nan
    if inside == 0 or outside == 0:
        together = (n.sum() + 1, a.sum() + 0.5, size.sum() + 2, (a + b).sum() + 1)
        return risk_ratio(Counts(*(np.array([part]) for part in together)))
    variance = (((a + b) * n * m - a * b * size) / size**2).sum() / (inside * outside)
    ratio, factor = inside / outside, np.exp(_Z95 * np.sqrt(variance))
    return float(ratio), float(ratio / factor), float(ratio * factor)


def rate_of_others(counts: Counts) -> float:
    """Return the error rate outside the group, weighted by the group's mix of classes.

    A class that lies wholly in the group counts with the error rate of all that are outside.
    """
    n, b, m = counts.inside, counts.wrong - counts.wrong_inside, counts.total - counts.inside
    if n.sum() == 0 or m.sum() == 0:
        return float("nan")
    rates = np.where(m > 0, b / np.maximum(m, 1), b.sum() / m.sum())
    return float((n * rates).sum() / n.sum())


def score_groups(
    groups: np.ndarray, wrong: np.ndarray, classes: np.ndarray, *, fewest: int, fewest_wrong: int
) -> Scores:
    """Score all groups and what any two of them have in common, at once.

    The score is that of Cochran, Mantel and Haenszel without a correction for continuity.

    Args:
        groups: bool of shape (n, n_groups).
        wrong: bool of shape (n,).
        classes: int of shape (n,), 0 or more.
        fewest, fewest_wrong: what has fewer images or fewer errors gets -inf.
    """
    n_groups, n_classes = groups.shape[1], int(classes.max(initial=0)) + 1
    n_inside, n_wrong, excess, variance = np.zeros((4, n_groups, n_groups))
    by_class = np.full((n_classes, n_groups), -np.inf)
    for y in np.unique(classes):
        rows = np.flatnonzero(classes == y)
        members = groups[rows].astype(np.float32)  # Counts are exact up to 16 million.
        inside = (members.T @ members).astype(np.float64)
        wrong_inside = (members.T @ (members * wrong[rows, None])).astype(np.float64)
        expected, spread = _moments(inside, len(rows), wrong[rows].sum())
        n_inside, n_wrong = n_inside + inside, n_wrong + wrong_inside
        excess, variance = excess + wrong_inside - expected, variance + spread
        by_class[y] = np.diag(
            _scores(wrong_inside - expected, spread, inside, wrong_inside, fewest, fewest_wrong)
        )
    return Scores(_scores(excess, variance, n_inside, n_wrong, fewest, fewest_wrong), by_class)


def score_classes(
    classes: np.ndarray, wrong: np.ndarray, *, fewest: int, fewest_wrong: int
) -> np.ndarray:
    """Return float64 of shape (n_classes,): how far each class stands out from all the others."""
    n_inside = np.bincount(classes)
    n_wrong = np.bincount(classes[wrong], minlength=len(n_inside))
    expected, variance = _moments(n_inside, len(classes), wrong.sum())
    return _scores(n_wrong - expected, variance, n_inside, n_wrong, fewest, fewest_wrong)


def _moments(inside: Any, total: Any, wrong: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the errors in a group of a class, by chance."""
    inside, total = np.asarray(inside, np.float64), np.maximum(np.asarray(total, np.float64), 1)
    expected = inside * wrong / total
    left_over = (total - inside) * (total - wrong) / (total * np.maximum(total - 1, 1))
    return expected, expected * left_over


def _scores(
    excess: np.ndarray,
    variance: np.ndarray,
    n_inside: np.ndarray,
    n_wrong: np.ndarray,
    fewest: int,
    fewest_wrong: int,
) -> np.ndarray:
    usable = (variance > 0) & (n_inside >= fewest) & (n_wrong >= fewest_wrong)
    return np.where(usable, excess / np.sqrt(np.where(usable, variance, 1)), -np.inf)
