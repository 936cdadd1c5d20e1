"""How scores trade one kind of error for the other: ROC and precision–recall curves.

In: labels and scores, and each class's average precision. Out: what `metrics.json` holds as
`curves`, thinned to what an eye can tell apart.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

MAX_CURVES = 6
"""So many classes have curves: those with the lowest average precision."""

MAX_POINTS = 200
"""So many points are kept of a curve."""

_DECIMALS = 6

Floats = NDArray[np.float64]


def compute_curves(
    y_true: np.ndarray,
    scores: np.ndarray,
    average_precision: np.ndarray,
    *,
    positive: int | None,
) -> list[dict[str, Any]]:
    """Return the curves of the positive class, or of the classes that are ranked worst.

    Args:
        y_true: int of shape (n,).
        scores: float of shape (n, n_classes), higher for the likelier class.
        average_precision: float64 of shape (n_classes,), NaN where undefined.
        positive: the positive class of a binary model, which then has the only curves, or `None`.

    Returns:
        A record per class, one class against the rest, the lowest average precision first, equal
        ones by class: `class`; `roc` with `false_positive_rate` and `recall`; `precision_recall`
        with `recall` and `precision`. Each is a list of at most `MAX_POINTS` floats, rounded to six
        decimals, in order of falling threshold. The area under the first is the ROC AUC. The second
        is a staircase, at each recall the precision that the step reaches, so that the area under
        it is the average precision. Classes of no image, or of all images, have no curves.

    Source: Davis & Goadrich 2006, why precision must not be interpolated on a straight line,
    https://doi.org/10.1145/1143844.1143874
    """
    if positive is None:
        order = np.argsort(average_precision, kind="stable")
    else:
        order = np.array([positive])
    result = []
    for index in order:
        is_class = y_true == index
        if np.isfinite(average_precision[index]) and not is_class.all():
            result.append({"class": int(index), **_curves(is_class, scores[:, index])})
        if len(result) == MAX_CURVES:
            break
    return result


def thin_curve(x: Floats, y: Floats, most: int = MAX_POINTS) -> NDArray[np.int64]:
    """Choose the points that the shape of a line needs: its ends, then its sharpest corners.

    The point that lies farthest from the line drawn so far joins it, until `most` are chosen or
    none is missed.

    Args:
        x: float64 of shape (n,), n >= 2.
        y: same shape.
        most: how many points at most, 2 or more.

    Returns:
        int64 of shape (m,), the chosen points in order; the first and the last are always among
        them. The same line gives the same points.

    Source: Ramer 1972 and Douglas & Peucker 1973, taking the largest deviation first.
    """
    chosen = [0, len(x) - 1]
    queue: list[tuple[float, int, int, int]] = []

    def look(start: int, stop: int) -> None:
        if stop - start < 2:
            return
        away = _distances(x[start : stop + 1], y[start : stop + 1])
        farthest = int(away.argmax())
        if away[farthest] > 1e-12:
            heapq.heappush(queue, (-float(away[farthest]), start, start + farthest, stop))

    look(0, len(x) - 1)
    while queue and len(chosen) < most:
        _, start, point, stop = heapq.heappop(queue)
        chosen.append(point)
        look(start, point)
        look(point, stop)
    return np.sort(np.array(chosen, np.int64))


def _curves(is_class: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    false_positive_rate, recall, _ = roc_curve(is_class, scores)
    precision, recall_of_precision, _ = precision_recall_curve(is_class, scores)
    stairs_recall, stairs_precision = _staircase(recall_of_precision[::-1], precision[::-1])
    return {
        "roc": _thinned(false_positive_rate=false_positive_rate, recall=recall),
        "precision_recall": _thinned(recall=stairs_recall, precision=stairs_precision),
    }


def _staircase(recall: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Hold each precision over the gain in recall that it stands for, from left to right."""
    return np.repeat(recall, 2)[1:-1], np.repeat(precision, 2)[2:]


def _thinned(**columns: Floats) -> dict[str, list[float]]:
    x, y = columns.values()
    kept = thin_curve(x, y)
    return {name: np.round(values[kept], _DECIMALS).tolist() for name, values in columns.items()}


def _distances(x: Floats, y: Floats) -> Floats:
    """Return how far each point is from the straight line between the first and the last."""
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    length = np.hypot(dx, dy)
    if length == 0:
        return np.asarray(np.hypot(x - x[0], y - y[0]))
    return np.asarray(np.abs(dx * (y - y[0]) - dy * (x - x[0])) / length)
