"""Who is taken for whom: the confusion matrix, and what follows from its counts alone.

In: labels and predictions. Out: cells, counts and averages per class, the same resampled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from audit.predict.intervals import (
    affordable_resamples,
    mean_of_defined,
    ratio,
    resampled_counts,
    wilson_estimate,
    wilson_interval,
)

MAX_CONFUSED_PAIRS = 50
MAX_CLASSES_FOR_ALL_CELLS = 100
"""Up to here `confusion` lists every cell, beyond it only those with images."""


@dataclass(frozen=True)
class ResampledCounts:
    """Values over resamples of the confusion counts; `f1` is of shape (n_resamples, n_classes)."""

    f1: np.ndarray
    averages: dict[str, np.ndarray]


def count_cells(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> pd.DataFrame:
    """Count the images in each cell of the confusion matrix.

    Args:
        y_true: int64 of shape (n,).
        y_pred: int64 of shape (n,).
        n_classes: classes are 0 to `n_classes - 1`.

    Returns:
        Columns y_true, y_pred, count; only cells with images, ordered by y_true, then y_pred.
    """
    codes, counts = np.unique(y_true * n_classes + y_pred, return_counts=True)
    return pd.DataFrame(
        {"y_true": codes // n_classes, "y_pred": codes % n_classes, "count": counts}
    )


def marginals(
    cells: pd.DataFrame, counts: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tp, support, predicted of shape (…, n_classes) from counts of shape (…, n_cells)."""
    rows, ones = np.arange(len(cells)), np.ones(len(cells))
    y_true, y_pred = cells["y_true"].to_numpy(), cells["y_pred"].to_numpy()
    shape = (len(cells), n_classes)
    hit = (y_true == y_pred).astype(np.float64)
    tp = counts @ csr_array((hit, (rows, y_true)), shape=shape)
    support = counts @ csr_array((ones, (rows, y_true)), shape=shape)
    predicted = counts @ csr_array((ones, (rows, y_pred)), shape=shape)
    return tp, support, predicted


def averages_of(
    tp: np.ndarray, support: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """Return balanced accuracy and the averages of precision, recall and F1 over classes.

    An average leaves out the classes where its quantity is undefined.

    Args:
        tp: correctly classified images per class, of shape (…, n_classes).
        support: images per class, same shape.
        predicted: predictions per class, same shape.

    Returns:
        float64 of shape (…), by the names of `metrics.json`.
    """
    recall, precision = ratio(tp, support), ratio(tp, predicted)
    f1 = ratio(2 * tp, support + predicted)
    return {
        "balanced_accuracy": mean_of_defined(recall),
        "macro_precision": mean_of_defined(precision),
        "macro_recall": mean_of_defined(recall),
        "macro_f1": mean_of_defined(f1),
        "weighted_f1": np.nansum(f1 * support, axis=-1) / support.sum(axis=-1),
    }


def resample_cells(
    cells: pd.DataFrame, n_classes: int, rng: np.random.Generator
) -> ResampledCounts:
    """Compute F1 per class and the averages of `averages_of` over resamples of the counts."""
    f1, averages = [np.empty((0, n_classes))], []
    resamples = affordable_resamples(len(cells) + n_classes)
    for counts in resampled_counts(cells["count"].to_numpy(), resamples, rng):
        tp, support, predicted = marginals(cells, counts, n_classes)
        f1.append(ratio(2 * tp, support + predicted))
        averages.append(averages_of(tp, support, predicted))
    names = averages[0] if averages else ()
    joined = {name: np.concatenate([chunk[name] for chunk in averages]) for name in names}
    return ResampledCounts(np.concatenate(f1), joined)


def confusion_table(cells: pd.DataFrame, n_classes: int) -> pd.DataFrame:
    """Return `confusion.parquet`: the cells with their share of the true class's images.

    Returns:
        Columns y_true, y_pred, count, share, share_low, share_high (Wilson); the shares are NaN for
        a class without images. Every cell up to `MAX_CLASSES_FOR_ALL_CELLS` classes.
    """
    support = np.bincount(cells["y_true"], cells["count"], minlength=n_classes).astype(np.int64)
    table = cells
    if n_classes <= MAX_CLASSES_FOR_ALL_CELLS:
        count = np.zeros((n_classes, n_classes), np.int64)
        count[cells["y_true"], cells["y_pred"]] = cells["count"]
        y_true, y_pred = np.indices(count.shape)
        table = pd.DataFrame(
            {"y_true": y_true.ravel(), "y_pred": y_pred.ravel(), "count": count.ravel()}
        )
    trials = support[table["y_true"]]
    low, high = wilson_interval(table["count"], trials)
    return table.assign(share=ratio(table["count"], trials), share_low=low, share_high=high)


def confused_pairs(confusion: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the most frequent errors, at most 50: y_true, y_pred, count, share of the true class.

    Equal counts are ordered by y_true, then y_pred.
    """
    support = confusion.groupby("y_true")["count"].sum()
    pairs = confusion[(confusion["y_true"] != confusion["y_pred"]) & (confusion["count"] > 0)]
    pairs = pairs.sort_values(["count", "y_true", "y_pred"], ascending=[False, True, True])
    columns = pairs[["y_true", "y_pred", "count"]].head(MAX_CONFUSED_PAIRS)
    return [
        {
            "y_true": int(y_true),
            "y_pred": int(y_pred),
            "count": int(count),
            "share": wilson_estimate(int(count), int(support[y_true])),
        }
        for y_true, y_pred, count in columns.itertuples(index=False)
    ]
