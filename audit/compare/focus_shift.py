"""Where the focus went: maps of the same image for the same class, before and after.

In: the fused maps of two runs, patterns of the earlier one. Out: how alike the maps are, and how
much of them lies where a pattern looked. A map is taken as shares of its own sum, so that the
models' scales do not matter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from audit.compare.paired import Change, resampled_change
from audit.predict.intervals import (
    affordable_resamples,
    number_or_none,
    percentile_interval,
    resampled_means,
)

if TYPE_CHECKING:
    from audit.compare.object_shift import ObjectShift

HOTTEST = 0.1
"""The share of the pixels whose overlap is measured."""
SIDE = 14
"""Maps are brought to so many pixels a side for the earth mover's distance."""
DIRECTIONS = 32
PLACE = 0.2
"""The share of the pixels that a place has; of it an even map would have as much."""

Maps = Mapping[tuple[int, int], np.ndarray]
"""Maps by (position among the matched images, class), uint8 of shape (height, width)."""


@dataclass(frozen=True)
class Likeness:
    """How alike maps are, the mean over images with its 95 % bootstrap interval.

    Attributes:
        mean: over images, of the mean over the classes that an image is explained for.
        chance: the mean when each map is set against that of another image for the same class.
        low, high: `None` where nothing varies.
    """

    mean: float
    low: float | None
    high: float | None
    chance: float | None


@dataclass(frozen=True)
class PlaceShift:
    """How much of the focus of an earlier pattern's errors lies where it lay before.

    Attributes:
        is_shared: whether the place is the same for all: the hottest fifth of the pattern's mean
            map. Else each error has its own, the hottest fifth of its own map before.
        n_images: errors of the pattern with a map in both runs, for the class they were taken for.
        n_left_out: its other errors.
        before, after: mean share of the focus in the place, 0.2 for an even map.
        change: after − before, with a paired bootstrap interval. The place was drawn from the maps
            before, so that some of a fall is regression to the mean.
    """

    pattern: int
    is_shared: bool
    n_images: int
    n_left_out: int
    before: float | None
    after: float | None
    change: Change


@dataclass(frozen=True)
class FocusShift:
    """How the focus of two runs compares, over images that both explained for the same class.

    Attributes:
        n_maps, n_images: with a map in both runs.
        n_before_only, n_after_only: maps that the other run lacks; they are left out.
        overlap: of the hottest tenth of the pixels, intersection over union, 0 to 1.
        correlation: Pearson's, -1 to 1.
        distance: see `sliced_distance`, in sides of the image, from 0.
        n_computed: of `n_maps`, those of which one side was computed for the comparison.
        objects: how much of the focus lies inside the object, `None` if nothing is known of it.
    """

    n_maps: int
    n_images: int
    n_before_only: int
    n_after_only: int
    overlap: Likeness | None
    correlation: Likeness | None
    distance: Likeness | None
    places: tuple[PlaceShift, ...]
    n_computed: int = 0
    objects: "ObjectShift | None" = None


def compare_focus(
    before: Maps, after: Maps, places: Sequence[PlaceShift] = (), *, seed: int = 0
) -> FocusShift:
    """Compare the maps that both runs have.

    Args:
        before, after: usable maps, none of them empty.
        places: from `shift_in_place`, kept as they are.
        seed: of the bootstrap.
    """
    both = sorted(before.keys() & after.keys())
    measured = _measure([(before[key], after[key]) for key in both])
    strangers = _measure([(before[one], after[other]) for one, other in _strangers(both)])
    rng = np.random.default_rng(seed)
    images = np.array([image for image, _ in both], np.int64)
    overlap, likeness, distance = (
        _likeness(values, images, by_chance, rng)
        for values, by_chance in zip(measured.T, strangers.T, strict=True)
    )
    return FocusShift(
        n_maps=len(both),
        n_images=len({image for image, _ in both}),
        n_before_only=len(before.keys() - after.keys()),
        n_after_only=len(after.keys() - before.keys()),
        overlap=overlap,
        correlation=likeness,
        distance=distance,
        places=tuple(places),
    )


def shift_in_place(
    pattern: int,
    mean_map: np.ndarray | None,
    errors: Sequence[tuple[int, int]],
    before: Maps,
    after: Maps,
    *,
    seed: int = 0,
) -> PlaceShift:
    """Say how much of the focus of a pattern's errors is where it was.

    Args:
        pattern: its number.
        mean_map: uint8 of shape (height, width), whose hottest fifth is the place of all errors;
            `None` if each has a place of its own, the hottest fifth of its map before.
        errors: (position, class they were taken for) of the pattern's errors.
        before, after: maps of both runs.
        seed: of the bootstrap.
    """
    known = [key for key in errors if key in before and key in after]
    shared = None if mean_map is None else hottest(mean_map, PLACE)
    shares = np.empty((len(known), 2))
    for row, key in enumerate(known):
        place = hottest(before[key], PLACE) if shared is None else shared
        shares[row] = [share_inside(maps[key], place) for maps in (before, after)]
    change = Change(None, None, None)
    mean_before, mean_after = math.nan, math.nan
    if known:
        mean_before, mean_after = (float(mean) for mean in shares.mean(axis=0))
        differences = shares[:, 1] - shares[:, 0]
        resampled = _resampled(differences, np.random.default_rng([seed, pattern]))
        change = resampled_change(float(differences.mean()), resampled)[0]
    return PlaceShift(
        pattern=pattern,
        is_shared=shared is not None,
        n_images=len(known),
        n_left_out=len(errors) - len(known),
        before=number_or_none(mean_before),
        after=number_or_none(mean_after),
        change=change,
    )


def hottest(cam: np.ndarray, share: float) -> np.ndarray:
    """Return which pixels are the hottest of a map, bool of the same shape.

    They are so many of the highest values as make `share` of the pixels, rounded up; among equal
    values the first in reading order.
    """
    chosen = np.zeros(cam.size, bool)
    chosen[np.argsort(-_values(cam), kind="stable")[: math.ceil(share * cam.size)]] = True
    return chosen.reshape(cam.shape)


def share_inside(cam: np.ndarray, place: np.ndarray) -> float:
    """Return the share of a map's sum that lies in a place, 0 to 1.

    Args:
        cam: of shape (height, width), >= 0, not all 0.
        place: bool of any shape; it is stretched to that of the map.
    """
    height, width = cam.shape
    mask = place.astype(np.float32)
    if mask.shape != cam.shape:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    values = cam.astype(np.float64)
    return float((values * mask).sum() / values.sum())


def overlap_of_hottest(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of the hottest tenths of two maps of one shape."""
    masks = hottest(one, HOTTEST), hottest(other, HOTTEST)
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation over the pixels of two maps of one shape; NaN if one is even."""
    centred = [_values(cam) - _values(cam).mean() for cam in (one, other)]
    norm = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else math.nan


def sliced_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far the mass of one map must be moved to give the other, about.

    Both maps are brought to 14 × 14 pixels with a sum of 1. For each of 32 directions the earth
    mover's distance of the masses projected on it is exact; its mean over directions, times π/2, is
    returned. To 0.1 %, for the directions are finite, it is the earth mover's distance if all the
    mass that moves goes the same way, and less than that otherwise: the mean projection of a way is
    2/π of its length, and each projection may find a shorter plan than the plane has.

    Args:
        one, other: of shape (height, width), >= 0, not all 0.

    Returns:
        The distance in sides of the image, 0 for the same map.

    Source: Rabin et al. 2011, doi:10.1007/978-3-642-24785-9_37.
    """
    return float(_sliced_distances((_small(one) - _small(other))[None])[0])


def _sliced_distances(differences: np.ndarray) -> np.ndarray:
    """Return the distance for each difference of two small maps, of shape (n, SIDE * SIDE)."""
    centres = (np.arange(SIDE) + 0.5) / SIDE
    y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    total = np.zeros(len(differences))
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        along = x * np.cos(angle) + y * np.sin(angle)
        order = np.argsort(along, kind="stable")
        moved = np.abs(np.cumsum(differences[:, order], axis=1)[:, :-1])
        total += (moved * np.diff(along[order])).sum(axis=1)
    return total / DIRECTIONS * np.pi / 2


def _values(cam: np.ndarray) -> np.ndarray:
    return cam.ravel().astype(np.float64)


def _small(cam: np.ndarray) -> np.ndarray:
    small = cv2.resize(cam.astype(np.float64), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small / small.sum()).ravel()


def _measure(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return overlap, correlation and distance of pairs of maps, float64 of shape (n, 3)."""
    rows, moved = [], np.empty((len(pairs), SIDE * SIDE))
    for row, (one, other) in enumerate(pairs):
        height, width = np.minimum(one.shape, other.shape).tolist()
        small, likewise = (
            cam
            if cam.shape == (height, width)
            else cv2.resize(cam.astype(np.float64), (width, height), interpolation=cv2.INTER_AREA)
            for cam in (one, other)
        )
        rows.append((overlap_of_hottest(small, likewise), correlation(small, likewise)))
        moved[row] = _small(one) - _small(other)
    measured = np.array(rows, np.float64).reshape(-1, 2)
    return np.column_stack([measured, _sliced_distances(moved)])


def _strangers(keys: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Set each image against the next one that is explained for the same class."""
    by_class: dict[int, list[tuple[int, int]]] = {}
    for key in keys:
        by_class.setdefault(key[1], []).append(key)
    return [
        pair
        for same in by_class.values()
        if len(same) > 1
        for pair in zip(same, [*same[1:], same[0]], strict=True)
    ]


def _likeness(
    values: np.ndarray, images: np.ndarray, by_chance: np.ndarray, rng: np.random.Generator
) -> Likeness | None:
    """Average over images; those with maps for several classes count once, with their mean."""
    is_known = ~np.isnan(values)
    _, row = np.unique(images[is_known], return_inverse=True)
    if not len(row):
        return None
    means = np.bincount(row, values[is_known]) / np.bincount(row)
    low, high = (float(bound) for bound in percentile_interval(_resampled(means, rng)))
    by_chance = by_chance[~np.isnan(by_chance)]
    return Likeness(
        float(means.mean()),
        number_or_none(low),
        number_or_none(high),
        float(by_chance.mean()) if len(by_chance) else None,
    )


def _resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return resampled_means(values[:, None], affordable_resamples(len(values)), rng)[:, 0]
