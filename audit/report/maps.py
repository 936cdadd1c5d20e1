"""Every layer's map of an image, made small and packed into one string for its page.

In: shards of `explanations` and the table of layers. Out: arrays for overlays and, per image, text
that the browser unpacks, colours and enlarges, so that no further image file is needed.

There are two texts, packed as `audit.report.packing` says:

- the layers, in `static/layers.js`: UTF-8 JSON, a list with one row per layer in the order of the
  maps: `[name, kind, stage, height, width, own_height, own_width, steps]`;
- the maps, in the page: for each explained class, one after the other, the peaks of all layers as
  float32, little-endian; then for each class the maps of all layers, row-major. Those of 15 steps
  come first, two pixels a byte, the earlier in the lower half; what follows has a byte per pixel.

A pixel is `q` of 0..`steps`, which is 255 for the fused and the last layer's map and 15 for the
others: `q / steps` is the heat as a share of the map's own peak, and times the peak its true value.
A peak of 0 means that nothing speaks for the class. Kept are differences, which are smaller, all
modulo `steps + 1`: what a pixel has more than the same pixel of the layer before, if that layer has
the same height, width and steps, else `q` itself; and of that what it has more than its neighbour
on the left, or in the first column than the one above, or else that itself.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from audit.report.formats import legible
from audit.report.packing import pack, pack_json
from audit.run_folder import FUSED_LAYER, OCCLUSION
from audit.schemas import records

LAYER_DETAIL = 14
"""Pixels on the longer side of a layer's map on a page; the fused and the last map stay whole."""

WHOLE_STEPS, STEPS = 255, 15
"""Steps of heat above none, of maps that stay whole and of the others, which halves a page.

One more than each is a power of two, so that a difference is cut to its last bits.
"""

BLOCK = 512
"""So many maps are made small at a time: they stay in the processor's cache."""


@dataclass(frozen=True)
class MapLayer:
    """A layer as pages show it. `height` and `width` are those of the packed map.

    The map is `own_height` × `own_width` in the model and was stored at `stored_…`. The fused and
    the last layer's map are `is_whole`: neither made smaller nor rounded.
    """

    name: str
    path: str
    kind: str
    stage: int
    height: int
    width: int
    stored_height: int
    stored_width: int
    own_height: int
    own_width: int
    is_whole: bool

    @property
    def is_fused(self) -> bool:
        return self.name == FUSED_LAYER

    @property
    def steps(self) -> int:
        """The value of a packed map's peak."""
        return WHOLE_STEPS if self.is_whole else STEPS


@dataclass(frozen=True)
class ShardMaps:
    """The maps of one shard, small as on pages.

    `peaks` is float32 of shape (n_rows, n_layers), 0 where nothing speaks for the class; `values`
    is uint8 of shape (n_rows, n_bytes), the maps of all layers one after the other, row-major. A
    map's true value is `value / layer.steps × peak`. `rows`: (image_id, explained_class) → its row.
    """

    layers: Sequence[MapLayer]
    rows: dict[tuple[int, int], int]
    peaks: NDArray[np.float32]
    values: NDArray[np.uint8]

    @cached_property
    def _ends(self) -> list[int]:
        return _ends_of(self.layers)

    @cached_property
    def _packed(self) -> NDArray[np.uint8]:
        """Each row's maps as a page holds them, uint8 of shape (n_rows, n_packed_bytes)."""
        differences = self._differences()
        n_small = self._ends[sum(not layer.is_whole for layer in self.layers)]
        small = differences[:, :n_small]
        pairs = np.zeros((len(small), -(-n_small // 2)), np.uint8)
        pairs[:, : n_small // 2] = small[:, 1::2] << 4
        pairs |= small[:, ::2]
        return np.concatenate([pairs, differences[:, n_small:]], axis=1)

    def _differences(self) -> NDArray[np.uint8]:
        """Return what each pixel has more than those before it, in the shape of `values`."""
        result = self.values.copy()
        start = 0
        for key, group in groupby(self.layers, lambda x: (x.height, x.width, x.steps)):
            height, width, steps = key
            shape = (len(result), len(list(group)), height, width)
            stop = start + shape[1] * height * width
            # All pixels of a row at once; the first column, which begins anew, is put right after.
            part = result[:, start:stop]
            n_pixels = height * width
            part[:, n_pixels:] -= self.values[:, start : stop - n_pixels]
            above = part.copy()
            part[:, 1:] -= above[:, :-1]
            first, first_above = (x.reshape(shape)[..., 0] for x in (part, above))
            first[...] = first_above
            first[..., 1:] -= first_above[..., :-1]
            part &= np.uint8(steps)
            start = stop
        return result

    def cam(self, row: int, layer: int) -> NDArray[np.uint8]:
        """Return one map as uint8 of shape (height, width), 0..`steps` of its layer."""
        height, width = self.layers[layer].height, self.layers[layer].width
        first, last = self._ends[layer : layer + 2]
        return self.values[row, first:last].reshape(height, width)

    def pack(self, rows: Sequence[int]) -> str:
        """Return base64 of a zlib stream: every row's peaks (float32, little-endian), then maps."""
        chosen = list(rows)
        peaks = self.peaks[chosen].astype("<f4")
        # Runs are all that repeats in differences; looking for no more saves a third of the time.
        content = peaks.tobytes() + self._packed[chosen].tobytes()
        return pack(content, level=1, strategy=zlib.Z_RLE)


def map_layers(layers: pd.DataFrame, detail: int = LAYER_DETAIL) -> tuple[MapLayer, ...]:
    """Return the kept layers in the model's order, the fused map last, with their size on pages.

    Those that stay whole come after all others: the last layer and the fused map.

    An occlusion map is shown once, as the fused map: they are the same. A run that stored only the
    fused map has no other layer.
    """
    shown = layers["kept"] & (layers["stored_height"] > 0) & (layers["kind"] != OCCLUSION)
    kept = layers[shown].sort_values("order")
    is_fused = kept["layer"] == FUSED_LAYER
    kept = pd.concat([kept[~is_fused], kept[is_fused]])
    last = kept.loc[~is_fused, "layer"].iloc[-1] if (~is_fused).any() else None
    result = []
    for row in records(kept):
        height, width = int(row["stored_height"]), int(row["stored_width"])
        whole = row["layer"] in (FUSED_LAYER, last)
        small = (height, width) if whole else _small_size(height, width, detail)
        own = (int(row["height"]), int(row["width"]))
        text = (str(row["layer"]), str(row["path"]), str(row["kind"]))
        result.append(MapLayer(*text, int(row["stage"]), *small, height, width, *own, whole))
    return tuple(result)


def shard_maps(
    shard: pa.Table, layers: Sequence[MapLayer], image_ids: Iterable[int] | None = None
) -> ShardMaps:
    """Make the maps of a shard small.

    Args:
        shard: of `explanations`; a layer that is not in `layers` is passed over.
        layers: what pages show, in order.
        image_ids: the images that are wanted, all if `None`.
    """
    pairs, found = _find_rows(shard, layers, image_ids)
    rows = {(int(image_id), int(index)): n for n, (image_id, index) in enumerate(pairs)}
    content, starts = _bytes_of(shard["cam"])
    stored_peaks = shard["peak"].to_numpy().astype(np.float32, copy=False)
    ends = _ends_of(layers)
    peaks = np.zeros((len(rows), len(layers)), np.float32)
    values = np.zeros((len(rows), ends[-1]), np.uint8)
    for columns in _alike(layers, max(1, BLOCK // max(1, len(rows)))):
        layer = layers[columns[0]]
        column, row = np.nonzero(found[:, columns].T >= 0)
        if not len(row):
            continue
        chosen = found[row, np.take(columns, column)]
        # Each row of this view is what begins at one byte of the column; only chosen ones are read.
        windows = sliding_window_view(content, layer.stored_height * layer.stored_width)
        cams = windows[starts[chosen]].reshape(-1, layer.stored_height, layer.stored_width)
        small, peak = shrink(cams, stored_peaks[chosen], layer.height, layer.width)
        if not layer.is_whole:
            small = to_steps(small)
        small = small.reshape(len(small), -1)
        bounds = np.searchsorted(column, np.arange(len(columns) + 1))
        for position, first, last in zip(columns, bounds[:-1], bounds[1:], strict=True):
            rows_here = row[first:last]
            values[rows_here, ends[position] : ends[position + 1]] = small[first:last]
            peaks[rows_here, position] = peak[first:last]
    return ShardMaps(layers, rows, peaks, values)


def shrink(
    cams: NDArray[np.uint8], peaks: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Average maps over the areas of a coarser grid and let 255 be the new peak.

    Args:
        cams: uint8 of shape (n, h, w), 255 = the map's peak.
        peaks: float32 of shape (n,); 0 or NaN where the map is empty.
        height: rows of the coarser grid, at most `h`.
        width: columns of the coarser grid, at most `w`.

    Returns:
        uint8 of shape (n, height, width) and the new peaks, float32 of shape (n,): the stored peak
        times the largest average ÷ 255. Both are 0 for an empty map. Maps that have the wanted size
        already come back as they are.
    """
    speaks = np.isfinite(peaks) & (peaks > 0)
    if not speaks.all():
        peaks = np.where(speaks, peaks, 0).astype(np.float32)
        cams = np.where(speaks[:, None, None], cams, 0).astype(np.uint8)
    if cams.shape[1:] == (height, width):
        return cams, np.where(cams.any(axis=(1, 2)), peaks, np.float32(0))
    rows, columns = _area_weights(cams.shape[1], height), _area_weights(cams.shape[2], width)
    averages = rows @ cams.astype(np.float32) @ np.ascontiguousarray(columns.T)
    largest = averages.max(axis=(1, 2), initial=0)
    scale = 255 / np.where(largest > 0, largest, np.float32(1))
    averages *= scale[:, None, None]
    return np.rint(averages, out=averages).astype(np.uint8), peaks * largest / np.float32(255)


def to_steps(cams: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Round heats of 0..255 to the nearest of 0..`STEPS`; 255 becomes `STEPS`."""
    # In whole numbers, as that is several times as fast; no heat lies halfway between two steps.
    rounded = (cams.astype(np.uint16) * STEPS + WHOLE_STEPS // 2) // WHOLE_STEPS
    return rounded.astype(np.uint8)


def pack_layers(layers: Sequence[MapLayer]) -> str:
    """Return the table of layers as a page holds it, see above."""
    table = [
        [
            *(legible(x.name), legible(x.kind), x.stage),
            *(x.height, x.width, x.own_height, x.own_width, x.steps),
        ]
        for x in layers
    ]
    return pack_json(table)


def _small_size(height: int, width: int, detail: int) -> tuple[int, int]:
    scale = min(1.0, detail / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _find_rows(
    shard: pa.Table, layers: Sequence[MapLayer], image_ids: Iterable[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (image, class) pairs in order, and (n_pairs, n_layers): where each map is, or -1."""
    ids = shard["image_id"].to_numpy()
    classes = shard["explained_class"].to_numpy().astype(np.int64)
    names = shard["layer"].combine_chunks().dictionary_encode()
    order = {layer.name: n for n, layer in enumerate(layers)}
    columns = np.array([order.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)
    column = columns[names.indices.to_numpy()] if len(columns) else np.zeros(0, np.int64)
    wanted = column >= 0
    if image_ids is not None:
        wanted &= np.isin(ids, np.fromiter(image_ids, np.int64))
    chosen = np.flatnonzero(wanted)
    n_classes = classes.max(initial=0) + 1
    pairs, row = np.unique(ids[chosen] * n_classes + classes[chosen], return_inverse=True)
    found = np.full((len(pairs), len(layers)), -1, np.int64)
    found[row, column[chosen]] = chosen
    return np.stack(np.divmod(pairs, n_classes), axis=1), found


def _bytes_of(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of a binary column, one value after the other, and where each begins."""
    whole = column.combine_chunks()
    _, offsets, content = whole.buffers()
    starts = np.frombuffer(offsets, np.int32)[whole.offset : whole.offset + len(whole)]
    return np.frombuffer(content or b"", np.uint8), starts.astype(np.int64)


def _ends_of(layers: Sequence[MapLayer]) -> list[int]:
    """Return where each layer's map begins among the bytes of a row, and where the last ends."""
    return list(accumulate((layer.height * layer.width for layer in layers), initial=0))


def _alike(layers: Sequence[MapLayer], at_most: int) -> list[list[int]]:
    """Return the positions of layers that are made small in the same way, some at a time."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for n, x in enumerate(layers):
        key = (x.stored_height, x.stored_width, x.height, x.width, x.is_whole)
        groups.setdefault(key, []).append(n)
    return [x[n : n + at_most] for x in groups.values() for n in range(0, len(x), at_most)]


def _area_weights(size: int, smaller: int) -> NDArray[np.float32]:
    """Return (smaller, size): how much each old pixel counts in each new one; rows sum to 1."""
    edges = np.linspace(0, size, smaller + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * smaller / size).astype(np.float32)
