"""How well scores rank the images of a class before the others: ROC AUC and average precision.

In: labels and scores. Out: both numbers per class, one class against the rest, and resampled.
"""

from dataclasses import dataclass

import numpy as np

from audit.predict.intervals import affordable_resamples, image_weights, percentile_interval, ratio

MIN_IMAGES = 5
"""With fewer images of a class, or fewer of the others, no interval is given: resampling three
images cannot show what a fourth would have been like, so it would be far too narrow."""


@dataclass(frozen=True)
class Ranking:
    """ROC AUC and average precision per class with their intervals.

    `roc_auc` and `average_precision` are float64 of shape (n_classes,), NaN for a class without
    images; an ROC AUC also where every image is of the class. `…_low` and `…_high` are alike, NaN
    where not computed. `…_resampled` are of shape (n_resamples, n_classes), n_resamples may be 0.
    """

    roc_auc: np.ndarray
    roc_auc_low: np.ndarray
    roc_auc_high: np.ndarray
    roc_auc_resampled: np.ndarray
    average_precision: np.ndarray
    average_precision_low: np.ndarray
    average_precision_high: np.ndarray
    average_precision_resampled: np.ndarray


@dataclass(frozen=True)
class _Order:
    """The images of one class's list, best score first; images of equal score form a tie."""

    images: np.ndarray
    is_class: np.ndarray
    tie_starts: np.ndarray | None


def rank_classes(y_true: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> Ranking:
    """Compute ROC AUC and average precision of every class against the rest.

    Args:
        y_true: int of shape (n_images,).
        scores: float of shape (n_images, n_classes), higher for the likelier class.
        rng: where the resamples come from; none are drawn if `WORK_BUDGET` does not allow it.
    """
    n_images, n_classes = scores.shape
    resamples = affordable_resamples(n_images * n_classes)
    points = np.full((2, 1, n_classes), np.nan)
    resampled = np.full((2, resamples, n_classes), np.nan)
    orders = []
    for index in range(n_classes):
        order = _order(y_true == index, scores[:, index])
        points[:, :, index] = _weigh(order, np.ones((1, n_images)))
        if resamples:
            orders.append(order)
    start = 0
    for weights in image_weights(n_images, resamples, rng):
        stop = start + len(weights)
        for index, order in enumerate(orders):
            resampled[:, start:stop, index] = _weigh(order, weights)
        start = stop
    support = np.bincount(y_true, minlength=n_classes)
    enough = np.minimum(support, n_images - support) >= MIN_IMAGES
    low, high = _bounds(resampled, enough)
    return Ranking(
        points[0, 0], low[0], high[0], resampled[0], points[1, 0], low[1], high[1], resampled[1]
    )


def roc_auc_and_average_precision(
    is_class: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute both for several weightings of the images at once; ties are handled exactly.

    Args:
        is_class: bool of shape (n_images,).
        scores: float of shape (n_images,).
        weights: float64 >= 0 of shape (n_weightings, n_images).

    Returns:
        ROC AUC and average precision, float64 of shape (n_weightings,). NaN where the images of the
        class, or for ROC AUC those of the others, have no weight.

    Source: the definitions of scikit-learn's `roc_auc_score` and `average_precision_score`: the
    trapezoidal area, and the sum over thresholds of (gain in recall) × precision.
    """
    return _weigh(_order(is_class, scores), weights)


def _order(is_class: np.ndarray, scores: np.ndarray) -> _Order:
    images = np.argsort(-scores)
    ordered = scores[images]
    tie_starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1])
    has_ties = len(tie_starts) < len(scores)
    return _Order(images, is_class[images].astype(np.float64), tie_starts if has_ties else None)


def _weigh(order: _Order, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = np.take(weights, order.images, axis=1)
    hits = every * order.is_class
    if order.tie_starts is not None:
        every = np.add.reduceat(every, order.tie_starts, axis=1)
        hits = np.add.reduceat(hits, order.tie_starts, axis=1)
    hits_so_far = np.cumsum(hits, axis=1)
    n_hits = hits_so_far[:, -1]
    every_so_far = np.cumsum(every, axis=1)
    n_others = every_so_far[:, -1] - n_hits
    # A tie of a hit and another image counts one half.
    area = np.einsum("rt,rt->r", every - hits, hits_so_far - hits / 2)
    precision = hits_so_far / np.maximum(every_so_far, 1)
    return ratio(area, n_hits * n_others), ratio(np.einsum("rt,rt->r", hits, precision), n_hits)


def _bounds(resampled: np.ndarray, enough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return low and high, (2, n_classes), of values of shape (2, resamples, n_classes)."""
    if resampled.shape[1] == 0:
        nothing = np.full((2, len(enough)), np.nan)
        return nothing, nothing
    low, high = percentile_interval(resampled.transpose(1, 0, 2))
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)
