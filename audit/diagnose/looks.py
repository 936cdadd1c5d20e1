"""What the errors look at: features of the model under each map, and colours and edges under it.

In: the shards of `focus_embeddings/` and `thumbnails/`, and the fused maps. Out: for each map a
vector of the focus, one of all the rest, and measures of colour and texture that have plain names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from audit.run_folder import RunFolder
from audit.schemas import FOCUS_STAGE

SIDE = 80
"""Longest side at which colours and edges are measured, in pixels."""

COLOURS = (
    "black",
    "grey",
    "white",
    "red",
    "orange",
    "brown",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "purple",
    "pink",
)
EDGES = ("flat", "rising", "upright", "falling")
"""Directions in which an edge may run: 0, 45, 90 and 135 degrees, anticlockwise from the right."""
TEXTURE = ("lightness", "lightness_spread", "colourfulness", "sharpness")
MEASURES = (*COLOURS, *EDGES, *TEXTURE)
"""The columns of `Looks.measures`. `measure_look` says what each of them means."""

_HUES = ((8, "red"), (20, "orange"), (33, "yellow"), (80, "green"), (98, "turquoise"))
_MORE_HUES = ((128, "blue"), (150, "purple"), (171, "pink"), (181, "red"))
_DARK, _PALE, _LIGHT = 55, 48, 195
_BROWN_BELOW = 165


@dataclass(frozen=True)
class Looks:
    """What is known of n maps, ordered by image and class.

    Attributes:
        image_ids, classes: int64 of shape (n,): the image, and the class that is explained.
        vectors: float32 of shape (n, width): what is under the map; zeros where it is not known.
        elsewhere: float32 of the same shape: what is where the map is low.
        of_model: whether the vectors are features of the model; else colours and edges.
        layer_agreement: float32 of shape (n,): see `audit.explain.pooling`; NaN where not known.
        measures: float32 of shape (n, len(MEASURES)) of what is under the map; NaN where there is
            no picture.
    """

    image_ids: np.ndarray
    classes: np.ndarray
    vectors: np.ndarray
    elsewhere: np.ndarray
    of_model: bool
    layer_agreement: np.ndarray
    measures: np.ndarray

    def rows_of(self, image_ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the row of each map, int64; -1 where nothing is known of it."""
        known = pd.MultiIndex.from_arrays([self.image_ids, self.classes])
        return np.asarray(known.get_indexer(pd.MultiIndex.from_arrays([image_ids, classes])))


def read_looks(folder: RunFolder, fused: pd.DataFrame) -> Looks:
    """Read the vectors that the model gave, measure colours and edges.

    Args:
        folder: with `thumbnails/` and, if the model can be looked into, `focus_embeddings/`.
        fused: `image_id`, `explained_class` and `cam` (uint8 of shape (height, width)).
    """
    table = fused.sort_values(["image_id", "explained_class"], kind="stable", ignore_index=True)
    ids = table["image_id"].to_numpy(np.int64)
    classes = table["explained_class"].to_numpy(np.int64)
    of_focus, of_rest = _measure_all(folder, ids, list(table["cam"]))
    agreement = np.full(len(table), np.nan, np.float32)
    stored = _read_vectors(folder)
    if stored is None:
        vectors, elsewhere = _picture_vectors(of_focus), _picture_vectors(of_rest)
    else:
        keys, values, rest, agreements = stored
        rows = keys.get_indexer(pd.MultiIndex.from_arrays([ids, classes]))
        known = rows >= 0
        vectors = np.zeros((len(table), values.shape[1]), np.float32)
        elsewhere = np.zeros_like(vectors)
        vectors[known], elsewhere[known] = values[rows[known]], rest[rows[known]]
        agreement[known] = agreements[rows[known]]
    return Looks(ids, classes, vectors, elsewhere, stored is not None, agreement, of_focus)


def measure_look(image: np.ndarray, cams: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Measure colours and edges under maps of an image, and where they are low.

    Each pixel counts by the map's value at it; for the rest, by what that lacks to its peak.

    Args:
        image: uint8 of shape (height, width) or (height, width, 3), BGR.
        cams: maps of any size, >= 0.

    Returns:
        Two float32 arrays of shape (len(cams), len(MEASURES)), NaN for a map without a peak (and,
        of the rest, where nothing is left):

        - for each name in `COLOURS` the share of the pixels of that colour.
        - for each name in `EDGES` how strong edges in that direction are: mean gradient of the
          lightness, in units of 1/255 a pixel.
        - `lightness` and `lightness_spread`, 0 to 1; `colourfulness`, the mean distance from grey
          in CIELAB; `sharpness`, the mean absolute Laplacian.
    """
    planes = _planes(image)
    height, width = image.shape[:2]
    flat = planes.reshape(-1, planes.shape[2])
    measures = []
    for cam in cams:
        weights = cv2.resize(cam.astype(np.float32), (width, height)).reshape(-1)
        peak = weights.max(initial=0)
        weights = weights / peak if peak > 0 else weights
        measures.append([_weighted(flat, w if peak > 0 else 0 * w) for w in (weights, 1 - weights)])
    both = np.array(measures, np.float32).reshape(len(cams), 2, len(MEASURES))
    return both[:, 0], both[:, 1]


def _planes(image: np.ndarray) -> np.ndarray:
    """Return what is averaged: float32 of shape (height, width, len(MEASURES))."""
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    lightness = np.ascontiguousarray(lab[..., 0]) / 100
    grey = 255 * lightness
    across = cv2.Scharr(grey, cv2.CV_32F, 1, 0) / 32
    down = cv2.Scharr(grey, cv2.CV_32F, 0, 1) / 32
    strength = np.hypot(across, down)
    # The gradient stands across its edge, and rows are counted downwards.
    direction = np.degrees(np.arctan2(-down, across)) + 90
    edge = np.round(direction / 45).astype(np.int32) % len(EDGES)
    planes = np.zeros((*image.shape[:2], len(MEASURES)), np.float32)
    colour = _colour_numbers(image)
    for number in range(len(COLOURS)):
        planes[..., number] = colour == number
    for number in range(len(EDGES)):
        planes[..., len(COLOURS) + number] = strength * (edge == number)
    planes[..., -4] = lightness
    planes[..., -3] = lightness**2
    planes[..., -2] = np.hypot(lab[..., 1], lab[..., 2])
    planes[..., -1] = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    return planes


def _weighted(planes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = float(weights.sum())
    if total <= 1e-6 * len(weights):
        return np.full(planes.shape[1], np.nan)
    means = weights @ planes / total
    means[-3] = np.sqrt(max(means[-3] - means[-4] ** 2, 0))
    return np.asarray(means)


def _colour_numbers(image: np.ndarray) -> np.ndarray:
    """Return for each pixel its position in `COLOURS`."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    table = np.zeros(256, np.int32)
    for last, name in reversed((*_HUES, *_MORE_HUES)):
        table[: last + 1] = COLOURS.index(name)
    numbers = table[hue]
    is_warm = (numbers == COLOURS.index("orange")) | (numbers == COLOURS.index("yellow"))
    numbers = np.where(is_warm & (value < _BROWN_BELOW), COLOURS.index("brown"), numbers)
    # What is dark needs more saturation for its hue to be seen.
    is_pale = saturation.astype(np.float32) * value < _PALE * 255.0
    numbers = np.where(is_pale, COLOURS.index("grey"), numbers)
    numbers = np.where(is_pale & (value >= _LIGHT), COLOURS.index("white"), numbers)
    return np.where(value < _DARK, COLOURS.index("black"), numbers)


def _measure_all(
    folder: RunFolder, ids: np.ndarray, cams: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the maps of all images that have a picture; ids are in order."""
    of_focus = np.full((len(ids), len(MEASURES)), np.nan, np.float32)
    of_rest = of_focus.copy()
    for image_id, image in _iter_pictures(folder):
        first, last = np.searchsorted(ids, [image_id, image_id + 1])
        of_focus[first:last], of_rest[first:last] = measure_look(image, cams[first:last])
    return of_focus, of_rest


def _iter_pictures(folder: RunFolder) -> Iterator[tuple[int, np.ndarray]]:
    for shard in folder.iter_shards("thumbnails", ["image_id", "jpeg"]):
        for image_id, jpeg in zip(shard["image_id"].tolist(), shard["jpeg"], strict=True):
            image: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
            scale = SIDE / max(image.shape[:2])
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            yield image_id, image


def _read_vectors(
    folder: RunFolder,
) -> tuple[pd.MultiIndex, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return keys, vectors of the focus and of the rest, and how far layers agree; if stored."""
    shards = [shard for shard in folder.iter_shards(FOCUS_STAGE) if len(shard)]
    if not shards:
        return None
    table = pd.concat(shards, ignore_index=True)
    keys = pd.MultiIndex.from_arrays([table["image_id"], table["explained_class"]])
    return (
        keys,
        np.stack(table["embedding"].to_list()),
        np.stack(table["elsewhere"].to_list()),
        table["layer_agreement"].to_numpy(np.float32),
    )


def _picture_vectors(measures: np.ndarray) -> np.ndarray:
    """Turn measures into vectors whose distances say how far looks differ; zeros where NaN.

    Roots of shares, so that a distance is Hellinger's; roots of edges and of sharpness, which are
    about as spread for weak as for strong ones.
    """
    n_shares = len(COLOURS)
    vectors = np.empty_like(measures)
    vectors[:, :n_shares] = np.sqrt(measures[:, :n_shares])
    vectors[:, n_shares:-4] = np.sqrt(measures[:, n_shares:-4]) / 5
    vectors[:, -4:-2] = measures[:, -4:-2]
    vectors[:, -2] = np.sqrt(measures[:, -2]) / 10
    vectors[:, -1] = np.sqrt(measures[:, -1]) / 10
    return np.nan_to_num(vectors, nan=0.0)
