"""How good the predictions are, and how sure we are of that.

In: labels, predictions and probabilities of every predicted image. Out: what `metrics.json`,
`class_metrics.parquet` and `confusion.parquet` hold. Every proportion has a Wilson interval, every
other number a bootstrap interval. TensorFlow is not needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.errors import ModelError
from audit.predict.calibration import compute_calibration
from audit.predict.confusion import (
    ResampledCounts,
    averages_of,
    confused_pairs,
    confusion_table,
    count_cells,
    marginals,
    resample_cells,
)
from audit.predict.curves import compute_curves
from audit.predict.intervals import (
    LEVEL,
    RESAMPLES,
    bootstrap_estimate,
    interval_estimate,
    mean_of_defined,
    number_or_none,
    percentile_interval,
    ratio,
    wilson_estimate,
    wilson_interval,
)
from audit.predict.ranking import MIN_IMAGES, Ranking, rank_classes

TOP_K = 5

_NAMES_IN_A_NOTE = 5
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Metrics:
    """The metrics of one model on one data set.

    Attributes:
        summary: what `metrics.json` holds; plain Python values, `None` where undefined.
        classes: one row a class: class, name, support, predicted, tp, fp, fn, and precision,
            recall, f1, roc_auc, average_precision, each also with `_low` and `_high`. NaN where
            undefined or, for the bounds, not computed; `summary["notes"]` says why.
        confusion: y_true, y_pred, count, and share (of the images of the true class) with
            `_low` and `_high`. Every cell up to 100 classes, beyond that the cells with images.
    """

    summary: dict[str, Any]
    classes: pd.DataFrame
    confusion: pd.DataFrame


def compute_metrics(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    *,
    positive: int | None,
    threshold: float,
    seed: int = 0,
) -> Metrics:
    """Compute every metric of an audit with its interval.

    Averages over classes leave out the classes where the quantity is undefined: recall of a class
    without images, precision of a class never predicted (`zero_division=nan` in scikit-learn).

    Args:
        y_true: int of shape (n,), n >= 1.
        y_pred: int of shape (n,); for a binary model the decision at `threshold`.
        scores: float32 of shape (n, n_classes), probabilities in class order.
        class_names: n_classes names.
        positive: index of the positive class of a binary model, `None` for any other.
        threshold: a binary model's image is called positive from this probability on.
        seed: of the bootstrap. The same arguments give the same numbers.

    Raises:
        ModelError: if a score is not a finite number.
    """
    _refuse_unusable_scores(scores)
    y_true, y_pred = y_true.astype(np.int64), y_pred.astype(np.int64)
    n_images, n_classes = scores.shape
    rngs = [np.random.default_rng([seed, stream]) for stream in range(3)]
    cells = count_cells(y_true, y_pred, n_classes)
    resampled = resample_cells(cells, n_classes, rngs[0])
    ranking = rank_classes(y_true, scores, rngs[1])
    calibration = compute_calibration(y_true, y_pred, scores, positive, rngs[2])
    classes = _class_table(cells, class_names, resampled, ranking)
    confusion = confusion_table(cells, n_classes)
    n_errors = int(np.count_nonzero(y_true != y_pred))
    binary = None
    if positive is not None:
        binary = _binary(classes, positive, threshold, resampled, ranking)
        binary["sweep"] = threshold_sweep(y_true == positive, scores[:, positive], threshold)
    summary = {
        "n_images": n_images,
        "n_classes": n_classes,
        "n_errors": n_errors,
        "level": LEVEL,
        "bootstrap": {"resamples": RESAMPLES, "seed": seed},
        "accuracy": wilson_estimate(n_images - n_errors, n_images),
        **_averages(classes, resampled),
        "top_k": _top_k(y_true, scores) if n_classes > TOP_K else None,
        **{name: calibration[name] for name in ("log_loss", "brier", "ece", "ece_equal_mass")},
        **_macro_ranking(ranking),
        "binary": binary,
        "reliability": calibration["reliability"],
        "curves": compute_curves(y_true, scores, ranking.average_precision, positive=positive),
        "confused_pairs": confused_pairs(confusion),
    }
    summary["notes"] = _notes(summary, classes, len(resampled.f1), ranking)
    return Metrics(summary, classes, confusion)


def threshold_sweep(
    is_positive: np.ndarray, p_positive: np.ndarray, threshold: float
) -> list[dict[str, Any]]:
    """Return what a binary model would score at thresholds 0.01 to 0.99 and at the one in use.

    Args:
        is_positive: bool of shape (n,), the truth.
        p_positive: float of shape (n,). An image is called positive if `p_positive >= threshold`,
            compared in the precision of `p_positive`.
        threshold: the threshold in use, joins the list if it is not one of the others.

    Returns:
        Rows in rising order: threshold, tp, fp, tn, fn, precision, recall, f1, accuracy. `None`
        where undefined.
    """
    thresholds = np.unique([*(step / 100 for step in range(1, 100)), threshold])
    cuts = thresholds.astype(p_positive.dtype)
    tp, fp = (
        len(group) - np.searchsorted(np.sort(group), cuts, side="left")
        for group in (p_positive[is_positive], p_positive[~is_positive])
    )
    n_positive = np.count_nonzero(is_positive)
    fn, tn = n_positive - tp, len(is_positive) - n_positive - fp
    counts = {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    shares = {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "accuracy": ratio(tp + tn, len(is_positive)),
    }
    return [
        {
            "threshold": float(thresholds[row]),
            **{name: int(values[row]) for name, values in counts.items()},
            **{name: number_or_none(values[row]) for name, values in shares.items()},
        }
        for row in range(len(thresholds))
    ]


def _refuse_unusable_scores(scores: np.ndarray) -> None:
    # The sum of a row is finite exactly if its probabilities are; no array of the full size.
    bad = np.flatnonzero(~np.isfinite(scores.sum(axis=1, dtype=np.float64)))
    if len(bad):
        raise ModelError(
            "The model's outputs are not all finite numbers. Received: NaN or infinity for"
            f" {len(bad)} of {len(scores)} images. Check the model's weights and `--scaling`."
        )


def _class_table(
    cells: pd.DataFrame, class_names: Sequence[str], resampled: ResampledCounts, ranking: Ranking
) -> pd.DataFrame:
    n_classes = len(class_names)
    counts = marginals(cells, cells["count"].to_numpy(), n_classes)
    tp, support, predicted = (values.astype(np.int64) for values in counts)
    nothing = np.full(n_classes, np.nan)
    f1_low, f1_high = percentile_interval(resampled.f1) if len(resampled.f1) else (nothing, nothing)
    precision_low, precision_high = wilson_interval(tp, predicted)
    recall_low, recall_high = wilson_interval(tp, support)
    return pd.DataFrame(
        {
            "class": np.arange(n_classes),
            "name": list(class_names),
            "support": support,
            "predicted": predicted,
            "tp": tp,
            "fp": predicted - tp,
            "fn": support - tp,
            "precision": ratio(tp, predicted),
            "precision_low": precision_low,
            "precision_high": precision_high,
            "recall": ratio(tp, support),
            "recall_low": recall_low,
            "recall_high": recall_high,
            "f1": ratio(2 * tp, support + predicted),
            "f1_low": f1_low,
            "f1_high": f1_high,
            "roc_auc": ranking.roc_auc,
            "roc_auc_low": ranking.roc_auc_low,
            "roc_auc_high": ranking.roc_auc_high,
            "average_precision": ranking.average_precision,
            "average_precision_low": ranking.average_precision_low,
            "average_precision_high": ranking.average_precision_high,
        }
    )


def _averages(classes: pd.DataFrame, resampled: ResampledCounts) -> dict[str, Any]:
    values = averages_of(*(classes[name].to_numpy() for name in ("tp", "support", "predicted")))
    nothing = np.empty(0)
    return {
        name: bootstrap_estimate(float(value), resampled.averages.get(name, nothing))
        for name, value in values.items()
    }


def _macro_ranking(ranking: Ranking) -> dict[str, Any]:
    pairs = {
        "macro_roc_auc": (ranking.roc_auc, ranking.roc_auc_resampled),
        "macro_average_precision": (
            ranking.average_precision,
            ranking.average_precision_resampled,
        ),
    }
    return {
        name: bootstrap_estimate(float(mean_of_defined(values)), mean_of_defined(resampled))
        for name, (values, resampled) in pairs.items()
    }


def _top_k(y_true: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Count how often the true class is among the k best; a tie goes to the higher class index.

    That is how scikit-learn's `top_k_accuracy_score` breaks ties.
    """
    n_hits = 0
    size = max(1, _BLOCK_ELEMENTS // scores.shape[1])
    for start in range(0, len(scores), size):
        block, labels = scores[start : start + size], y_true[start : start + size, None]
        p_true = np.take_along_axis(block, labels, axis=1)
        ahead = (block > p_true) | ((block == p_true) & (np.arange(block.shape[1]) > labels))
        n_hits += int(np.count_nonzero(ahead.sum(axis=1) < TOP_K))
    return {"k": TOP_K, **wilson_estimate(n_hits, len(scores))}


def _binary(
    classes: pd.DataFrame,
    positive: int,
    threshold: float,
    resampled: ResampledCounts,
    ranking: Ranking,
) -> dict[str, Any]:
    row = classes.to_dict("records")[positive]
    tp, fp, fn = row["tp"], row["fp"], row["fn"]
    tn = int(classes["support"].sum()) - tp - fp - fn

    def estimate(name: str, resamples: int) -> dict[str, Any]:
        return interval_estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], resamples)

    return {
        "positive_class": row["name"],
        "negative_class": classes["name"].iloc[1 - positive],
        "threshold": float(threshold),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "precision": wilson_estimate(tp, tp + fp),
        "recall": wilson_estimate(tp, tp + fn),
        "specificity": wilson_estimate(tn, tn + fp),
        "f1": estimate("f1", len(resampled.f1)),
        "false_positive_rate": wilson_estimate(fp, tn + fp),
        "roc_auc": estimate("roc_auc", len(ranking.roc_auc_resampled)),
        "average_precision": estimate(
            "average_precision", len(ranking.average_precision_resampled)
        ),
    }


def _notes(
    summary: dict[str, Any], classes: pd.DataFrame, count_resamples: int, ranking: Ranking
) -> list[str]:
    """Say in sentences what was not computed, or with fewer resamples, and why."""
    n_images = summary["n_images"]
    absent = classes["support"] == 0
    unpredicted = (classes["predicted"] == 0) & ~absent
    few = (np.minimum(classes["support"], n_images - classes["support"]) < MIN_IMAGES) & ~absent
    notes = []
    if absent.any():
        notes.append(
            f"No image is of {_list_names(classes['name'][absent])}: recall, ROC AUC and average"
            " precision are undefined there, and averages over classes leave them out."
        )
    if unpredicted.any():
        notes.append(
            f"Nothing was predicted as {_list_names(classes['name'][unpredicted])}: precision is"
            " undefined there, and macro precision leaves it out."
        )
    if summary["n_errors"] == 0:
        notes.append(
            "There is no error, so a bootstrap of balanced accuracy, precision, recall and F1 never"
            " varies and gives no interval. See the interval of the accuracy."
        )
    if few.any() and len(ranking.roc_auc_resampled):
        notes.append(
            f"There are fewer than {MIN_IMAGES} images of {_list_names(classes['name'][few])}, or"
            " of other classes: ROC AUC and average precision have no interval there."
        )
    used = {
        "ROC AUC and average precision": len(ranking.roc_auc_resampled),
        "Log loss, Brier score and ECE": summary["log_loss"]["resamples"],
        "F1 and averages over classes": count_resamples,
    }
    for names, resamples in used.items():
        if resamples == 0:
            size = f"{n_images:,} images and {summary['n_classes']:,} classes"
            notes.append(f"{names} have no bootstrap intervals: {size} are too many to resample.")
        elif resamples < RESAMPLES:
            notes.append(
                f"{names} have intervals from {resamples} instead of {RESAMPLES} resamples, because"
                " there are many images."
            )
    return notes


def _list_names(names: pd.Series) -> str:
    """Join class names, the first few by name: `a`, `b` and 7 more."""
    shown = [f"`{name}`" for name in names[:_NAMES_IN_A_NOTE]]
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown)} more classes"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
