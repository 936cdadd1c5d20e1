"""How good a heat-map is: where it points, and what happens to the score as it says.

In: maps, masks, pictures. Out: one number per map, and means over images with bootstrap intervals.
A map that says nothing (constant) scores as chance does in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.metrics import average_precision_score

PAINTING_SIDE = 112
"""In-painting is done at this size, for speed, and enlarged."""
_RADIUS = 3
_RESAMPLES = 2000


def enlarge(heat: np.ndarray, side: int) -> np.ndarray:
    """Resize a map bilinearly to float32 of shape (side, side)."""
    return cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def pixel_ap(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the average precision of a map's values as scores for "this pixel is in the mask".

    Args:
        heat: of shape (h, w); mask: bool of the same shape, with at least one pixel.

    Returns:
        In (0, 1]; the mask's share of the area is chance.
    """
    return float(average_precision_score(mask.ravel(), heat.ravel()))


def energy_ratio(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the mask's share of a map's positive energy ÷ its share of the area; 1 is chance."""
    energy = np.maximum(heat, 0).astype(np.float64)
    if not energy.any():
        return 1.0
    return float(energy[mask].sum() / energy.sum() / mask.mean())


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return 1 where the peak lies in the mask, else 0; the share of the peaks where it is tied.

    Source: Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop" (pointing game),
    without its tolerance of 15 pixels.
    """
    return float(mask[heat == heat.max()].mean())


def removal_rank(heat: np.ndarray) -> np.ndarray:
    """Return for each pixel when it is removed, hottest first: ints of the map's shape from 0 on.

    Ties are broken by a fixed shuffle, so that a map cannot gain by the order of rows.
    """
    shuffled = np.random.default_rng(0).permutation(heat.size)
    order = np.lexsort((shuffled, -heat.ravel()))
    rank = np.empty(heat.size, int)
    rank[order] = np.arange(heat.size)
    return rank.reshape(heat.shape)


def deletion_series(picture: np.ndarray, heat: np.ndarray, steps: int) -> np.ndarray:
    """Paint out the hottest 0, 1/steps, … (steps - 1)/steps of a picture.

    Args:
        picture: float32 of shape (side, side, 3), 0 to 255; heat: of any square shape.

    Returns:
        float32 of shape (steps, side, side, 3).
    """
    return _series(picture, heat, np.arange(steps) / steps, hottest=True)


def insertion_series(picture: np.ndarray, heat: np.ndarray, steps: int) -> np.ndarray:
    """Show only the hottest 1/steps, 2/steps, … 1 of a picture, the rest painted over from them.

    Args and returns as in `deletion_series`.
    """
    return _series(picture, heat, np.arange(steps - 1, -1, -1) / steps, hottest=False)


def _series(picture: np.ndarray, heat: np.ndarray, shares: np.ndarray, hottest: bool) -> np.ndarray:
    small_side = min(PAINTING_SIDE, len(picture))
    small_heat = enlarge(heat, small_side)
    rank = removal_rank(small_heat if hottest else -small_heat)
    shrunk = cv2.resize(picture, (small_side, small_side), interpolation=cv2.INTER_AREA)
    small = np.clip(shrunk.round(), 0, 255).astype(np.uint8)
    series = []
    for share in shares:
        hidden = (rank < round(share * rank.size)).astype(np.uint8)
        painted = cv2.inpaint(small, hidden, _RADIUS, cv2.INPAINT_TELEA).astype(np.float32)
        size = picture.shape[1::-1]
        painted = cv2.resize(painted, size, interpolation=cv2.INTER_LINEAR)
        hidden = cv2.resize(hidden, size, interpolation=cv2.INTER_NEAREST)
        series.append(np.where(hidden[..., None] > 0, painted, picture))
    return np.stack(series).astype(np.float32)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(sets: Sequence[np.ndarray], seed: int) -> Interval:
    """Return the mean over sets of the mean over images; images are drawn again within each set.

    Args:
        sets: for each set one value per image.
    """
    return _interval(_mean_over_sets(sets), _resampled(sets, seed))


def bootstrap_ratio(
    sets: Sequence[np.ndarray], references: Sequence[np.ndarray], seed: int
) -> Interval:
    """Return the ratio of two such means; the same images are drawn for both."""
    ratio = _mean_over_sets(sets) / _mean_over_sets(references)
    return _interval(ratio, _resampled(sets, seed) / _resampled(references, seed))


def _mean_over_sets(sets: Sequence[np.ndarray]) -> float:
    return float(np.mean([values.mean() for values in sets]))


def _resampled(sets: Sequence[np.ndarray], seed: int) -> np.ndarray:
    means = []
    for position, values in enumerate(sets):
        rng = np.random.default_rng([seed, position])
        chosen = rng.integers(len(values), size=(_RESAMPLES, len(values)))
        means.append(values[chosen].mean(axis=1))
    return np.mean(means, axis=0)


def _interval(mean: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(mean, float(low), float(high))
