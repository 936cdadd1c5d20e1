"""Every layer's map of an image, made small and packed into one string for its page.

In: shards of `explanations` and the table of layers. Out: arrays for overlays and, per image, text
that the browser unpacks, colours and enlarges, so that no further image file is needed.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.formats import legible
from audit.run_folder import FUSED_LAYER, OCCLUSION, RunFolder
from audit.schemas import records

LAYER_DETAIL = 14
"""Pixels on the longer side of a layer's map on a page; the fused and the last map stay whole."""

STEPS = 63
"""Small maps are rounded to so many steps of heat above none, which saves a quarter of a page."""


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


@dataclass(frozen=True)
class ShardMaps:
    """The maps of one shard, small as on pages.

    `peaks` is float32 of shape (n_rows, n_layers), 0 where nothing speaks for the class; `values`
    is uint8 of shape (n_rows, n_bytes), the maps of all layers one after the other, row-major. A
    map's true value is `value / 255 × peak`. `rows`: (image_id, explained_class) → its row.
    """

    layers: Sequence[MapLayer]
    rows: dict[tuple[int, int], int]
    peaks: NDArray[np.float32]
    values: NDArray[np.uint8]

    def cam(self, row: int, layer: int) -> NDArray[np.uint8]:
        """Return one map as uint8 of shape (height, width)."""
        start = sum(item.height * item.width for item in self.layers[:layer])
        height, width = self.layers[layer].height, self.layers[layer].width
        return self.values[row, start : start + height * width].reshape(height, width)

    def pack(self, rows: Sequence[int]) -> str:
        """Return base64 of a zlib stream: every row's peaks (float32, little-endian), then maps."""
        chosen = list(rows)
        content = self.peaks[chosen].astype("<f4").tobytes() + self.values[chosen].tobytes()
        return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def map_layers(layers: pd.DataFrame, detail: int = LAYER_DETAIL) -> tuple[MapLayer, ...]:
    """Return the kept layers in the model's order, the fused map last, with their size on pages.

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


def iter_shard_maps(
    folder: RunFolder, layers: Sequence[MapLayer], image_ids: set[int]
) -> Iterator[ShardMaps]:
    """Yield the maps of the given images, one shard in memory at a time."""
    for frame in folder.iter_shards("explanations"):
        yield shard_maps(frame[frame["image_id"].isin(image_ids)], layers)


def shard_maps(frame: pd.DataFrame, layers: Sequence[MapLayer]) -> ShardMaps:
    """Make the maps of a shard small.

    Args:
        frame: rows of `explanations`; a layer that is not in `layers` is passed over.
        layers: what pages show, in order.
    """
    keys = frame[["image_id", "explained_class"]].drop_duplicates()
    keys = keys.sort_values(["image_id", "explained_class"])
    rows = {(int(i), int(c)): n for n, (i, c) in enumerate(keys.itertuples(index=False, name=None))}
    peaks = np.zeros((len(rows), len(layers)), np.float32)
    values = np.zeros((len(rows), sum(x.height * x.width for x in layers)), np.uint8)
    by_layer = dict(iter(frame.groupby("layer", sort=False)))
    start = 0
    for column, layer in enumerate(layers):
        stop = start + layer.height * layer.width
        if layer.name in by_layer:
            found = by_layer[layer.name]
            pairs = zip(found["image_id"], found["explained_class"], strict=True)
            where = [rows[int(i), int(c)] for i, c in pairs]
            stored = _stack(found, layer)
            small, peak = shrink(stored, found["peak"].to_numpy(), layer.height, layer.width)
            if not layer.is_whole:
                small = round_heat(small)
            peaks[where, column] = peak
            values[where, start:stop] = small.reshape(len(where), -1)
        start = stop
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
    speaks = np.isfinite(peaks) & (peaks > 0) & (cams.max(axis=(1, 2), initial=0) > 0)
    peaks = np.where(speaks, peaks, 0).astype(np.float32)
    cams = np.where(speaks[:, None, None], cams, 0).astype(np.uint8)
    if cams.shape[1:] == (height, width):
        return cams, peaks
    rows, columns = _area_weights(cams.shape[1], height), _area_weights(cams.shape[2], width)
    averages = rows @ cams.astype(np.float32) @ columns.T
    largest = averages.max(axis=(1, 2), initial=0)
    scale = 255 / np.where(largest > 0, largest, 1)
    small = np.rint(averages * scale[:, None, None]).astype(np.uint8)
    return small, (peaks * largest / 255).astype(np.float32)


def round_heat(cams: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Round heats of 0..255 to the nearest of `STEPS` + 1 even steps; 0 and 255 stay."""
    table = np.rint(np.rint(np.arange(256) * (STEPS / 255)) * (255 / STEPS)).astype(np.uint8)
    return table[cams]


def pack_layers(layers: Sequence[MapLayer]) -> str:
    """Return base64 of a zlib stream of JSON: per layer its name, kind, stage and four sizes."""
    table = [
        [legible(x.name), legible(x.kind), x.stage, x.height, x.width, x.own_height, x.own_width]
        for x in layers
    ]
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode("ascii")


def _small_size(height: int, width: int, detail: int) -> tuple[int, int]:
    scale = min(1.0, detail / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _stack(found: pd.DataFrame, layer: MapLayer) -> NDArray[np.uint8]:
    content = np.frombuffer(b"".join(found["cam"]), np.uint8)
    return content.reshape(len(found), layer.stored_height, layer.stored_width)


def _area_weights(size: int, smaller: int) -> NDArray[np.float32]:
    """Return (smaller, size): how much each old pixel counts in each new one; rows sum to 1."""
    edges = np.linspace(0, size, smaller + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * smaller / size).astype(np.float32)
