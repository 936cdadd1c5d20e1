"""Whether probabilities mean what they say: log loss, Brier score, ECE, reliability tables.

In: labels and probabilities. Out: estimates and table rows as `metrics.json` holds them.
"""

from typing import Any

import numpy as np

from audit.predict.intervals import (
    affordable_resamples,
    bootstrap_estimate,
    number_or_none,
    ratio,
    reflected_estimate,
    resampled_means,
    wilson_interval,
)

N_BINS = 15

_BLOCK_ELEMENTS = 1 << 22


def compute_calibration(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    scores: np.ndarray,
    positive: int | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Compute `log_loss`, `brier`, `ece`, `ece_equal_mass` and `reliability`.

    The ECE is the mean over images of |accuracy − mean confidence| of the bin an image is in, where
    the confidence is the probability of the predicted class. `ece` has 15 bins of equal width,
    `ece_equal_mass` 15 bins of equally many images. Resampling images leaves the bins as they are.

    Args:
        y_true: int of shape (n,).
        y_pred: int of shape (n,).
        scores: float of shape (n, n_classes), probabilities.
        positive: the positive class of a binary model, or `None`.

    Source: Guo et al. 2017 for the ECE, https://arxiv.org/abs/1706.04599; Nixon et al. 2019 for
    equal mass, https://arxiv.org/abs/1904.01685
    """
    correct = (y_true == y_pred).astype(np.float64)
    confidence = scores[np.arange(len(scores)), y_pred].astype(np.float64)
    bins = {"ece": equal_width_bins(confidence), "ece_equal_mass": equal_mass_bins(confidence)}
    losses = {
        "log_loss": log_losses(y_true, scores),
        "brier": brier_losses(y_true, scores, positive),
    }
    gaps = [_spread(correct - confidence, index) for index in bins.values()]
    resampled = resampled_means(
        np.column_stack([*losses.values(), *gaps]), affordable_resamples(len(scores)), rng
    )
    result: dict[str, Any] = {}
    for column, (name, loss) in enumerate(losses.items()):
        result[name] = bootstrap_estimate(float(loss.mean()), resampled[:, column])
    for number, name in enumerate(bins):
        start = len(losses) + number * N_BINS
        resampled_ece = np.abs(resampled[:, start : start + N_BINS]).sum(axis=1)
        value = float(np.abs(gaps[number].mean(axis=0)).sum())
        result[name] = reflected_estimate(value, resampled_ece)
    width_rows = _equal_width_rows(confidence, correct, bins["ece"])
    mass_rows = _equal_mass_rows(confidence, correct, bins["ece_equal_mass"])
    result["reliability"] = {"equal_width": width_rows, "equal_mass": mass_rows}
    return result


def log_losses(y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return −ln(probability of the true class) per image, float64 of shape (n,).

    Probabilities are clipped to [ε, 1 − ε], ε the machine precision of their type, as scikit-learn
    does: 1.2e-7 for float32, so no image costs more than 15.9. The logarithms are summed in
    float64, where scikit-learn stays in float32.
    """
    epsilon = np.finfo(scores.dtype).eps
    p_true = np.clip(scores[np.arange(len(scores)), y_true], epsilon, 1 - epsilon)
    return np.asarray(-np.log(p_true.astype(np.float64)))


def brier_losses(y_true: np.ndarray, scores: np.ndarray, positive: int | None) -> np.ndarray:
    """Return the squared error of the probabilities per image, float64 of shape (n,).

    Binary models: (p(positive) − y)², from 0 to 1. Otherwise, after Brier 1950, the sum over all
    classes of (p − y)², from 0 to 2; scikit-learn calls that `scale_by_half=False`.
    """
    if positive is not None:
        difference = scores[:, positive].astype(np.float64) - (y_true == positive)
        return np.square(difference)
    losses = np.empty(len(scores))
    size = max(1, _BLOCK_ELEMENTS // scores.shape[1])
    for start in range(0, len(scores), size):
        error = scores[start : start + size].astype(np.float64)
        error[np.arange(len(error)), y_true[start : start + size]] -= 1
        losses[start : start + size] = np.einsum("ic,ic->i", error, error)
    return losses


def equal_width_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin, 0 to 14, of each confidence; a bin holds (low, high], the first also 0."""
    return np.searchsorted(_width_edges()[1:-1], confidence, side="left")


def equal_mass_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence when each of 15 bins gets as many images as the next.

    Equal confidences stay together, so the order of the images does not matter; bins are then of
    unequal size, and there may be fewer than 15.
    """
    last_of_bin = np.ceil(np.arange(1, N_BINS) * len(confidence) / N_BINS).astype(np.int64) - 1
    highs = np.unique(np.sort(confidence)[last_of_bin])
    return np.searchsorted(highs, confidence, side="left")


def _width_edges() -> np.ndarray:
    return np.linspace(0.0, 1.0, N_BINS + 1)


def _spread(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return shape (n, N_BINS): each value in the column of its bin, 0 elsewhere."""
    columns = np.zeros((len(values), N_BINS))
    columns[np.arange(len(values)), index] = values
    return columns


def _equal_width_rows(
    confidence: np.ndarray, correct: np.ndarray, index: np.ndarray
) -> list[dict[str, Any]]:
    edges = _width_edges()
    return _reliability_rows(confidence, correct, index, edges[:-1], edges[1:])


def _equal_mass_rows(
    confidence: np.ndarray, correct: np.ndarray, index: np.ndarray
) -> list[dict[str, Any]]:
    n_bins = int(index.max()) + 1
    low, high = np.full(n_bins, np.inf), np.full(n_bins, -np.inf)
    np.minimum.at(low, index, confidence)
    np.maximum.at(high, index, confidence)
    return _reliability_rows(confidence, correct, index, low, high)


def _reliability_rows(
    confidence: np.ndarray,
    correct: np.ndarray,
    index: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> list[dict[str, Any]]:
    n = np.bincount(index, minlength=len(low))
    n_correct = np.bincount(index, correct, minlength=len(low))
    columns = {
        "confidence": ratio(np.bincount(index, confidence, minlength=len(low)), n),
        "accuracy": ratio(n_correct, n),
    }
    columns["accuracy_low"], columns["accuracy_high"] = wilson_interval(n_correct, n)
    return [
        {
            "low": float(low[row]),
            "high": float(high[row]),
            "n": int(n[row]),
            **{name: number_or_none(values[row]) for name, values in columns.items()},
        }
        for row in range(len(low))
    ]
