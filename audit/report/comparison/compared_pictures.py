"""Pictures and maps of the same images in several runs, found when they are asked for.

In: matched runs. Out: what the models saw as JPEG, and fused maps, by position among the matched
images. Only an index is kept in memory, and the shards that were read last.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audit.compare.matching import ComparedRun, MatchedRuns
from audit.files import parquet_source
from audit.report.images import Pixels, strip_metadata
from audit.report.views.parts import maps_method
from audit.run_folder import FUSED_LAYER, RunFolder, decode_cam

SHARDS_KEPT = 3
"""Shards of pictures, and of maps, that are kept of each run."""
SHAPE = ("height", "width", "channels", "aspect", "interpolation")
"""What decides which pixels a model sees of a file."""


@dataclass(frozen=True)
class StoredMap:
    """A fused map: uint8 of shape (height, width), 255 at its own peak, which is above 0."""

    cam: Pixels
    peak: float


class RunPictures:
    """What one run holds of its images, by image id; classes are in the comparison's order.

    Maps that were computed for the comparison, and pictures that came with them, stand beside the
    run's own, which come first.

    Attributes:
        method: how its maps were made.
        view: how its model sees a file; pictures of two runs with the same view are the same.
    """

    def __init__(self, run: ComparedRun, class_order: np.ndarray) -> None:
        self.method = maps_method(run.manifest)
        self.view = tuple(run.manifest["input"].get(name) for name in SHAPE)
        self._order = class_order
        self._own = run.folder
        self._folders = [run.folder]
        self._computed: dict[tuple[int, int], StoredMap] = {}
        if run.computed is not None:
            self._folders.append(run.computed.folder)
            self._computed = self._stored(run.computed.maps.to_dict("records"))
        self._picture_shards = dict(self._index_pictures())
        self._map_shards = dict(self._index_maps())
        self._pictures_of = lru_cache(maxsize=SHARDS_KEPT)(self._read_pictures)
        self._maps_of = lru_cache(maxsize=SHARDS_KEPT)(self._read_maps)

    def has_picture(self, image_id: int) -> bool:
        return image_id in self._picture_shards

    def has_map(self, image_id: int, index: int) -> bool:
        """Say whether there is a map of an image for a class that shows a place."""
        return (image_id, index) in self._map_shards or (image_id, index) in self._computed

    def picture(self, image_id: int) -> bytes | None:
        """Return what the model saw as JPEG without metadata."""
        where = self._picture_shards.get(image_id)
        return None if where is None else strip_metadata(self._pictures_of(*where)[image_id])

    def map(self, image_id: int, index: int) -> StoredMap | None:
        shard = self._map_shards.get((image_id, index))
        if shard is None:
            return self._computed.get((image_id, index))
        return self._maps_of(shard)[image_id, index]

    def _index_pictures(self) -> Iterator[tuple[int, tuple[int, int]]]:
        for number in reversed(range(len(self._folders))):  # The run's own are said last, and stay.
            for shard in self._folders[number].shard_indices("thumbnails"):
                table = _read(self._folders[number], "thumbnails", shard, ["image_id"])
                for image_id in table["image_id"].to_pylist():
                    yield image_id, (number, shard)

    def _index_maps(self) -> Iterator[tuple[tuple[int, int], int]]:
        for shard in self._own.shard_indices("explanations"):
            rows = self._fused(shard, ["image_id", "explained_class", "peak"])
            for row in rows.to_pylist():
                if _speaks(row["peak"]):
                    yield self._key(row), shard

    def _read_pictures(self, number: int, shard: int) -> dict[int, bytes]:
        table = _read(self._folders[number], "thumbnails", shard, ["image_id", "jpeg"])
        return dict(zip(table["image_id"].to_pylist(), table["jpeg"].to_pylist(), strict=True))

    def _read_maps(self, shard: int) -> dict[tuple[int, int], StoredMap]:
        columns = ["image_id", "explained_class", "peak", "height", "width", "cam"]
        rows = self._fused(shard, columns).to_pylist()
        return self._stored(
            {**row, "cam": decode_cam(row["cam"], row["height"], row["width"])} for row in rows
        )

    def _stored(self, rows: Iterable[Mapping[Any, Any]]) -> dict[tuple[int, int], StoredMap]:
        return {
            self._key(row): StoredMap(row["cam"], float(row["peak"]))
            for row in rows
            if _speaks(row["peak"])
        }

    def _fused(self, shard: int, columns: Sequence[str]) -> pa.Table:
        return _read(self._own, "explanations", shard, columns, [("layer", "=", FUSED_LAYER)])

    def _key(self, row: Mapping[Any, Any]) -> tuple[int, int]:
        return int(row["image_id"]), int(self._order[row["explained_class"]])


class ComparedPictures:
    """Pictures and maps of all runs of a comparison, by position and run.

    Runs whose models see images in the same way share their pictures: `views` has the number of the
    view for each run, from 0. A picture of another view stands in only if it shows the same part of
    the image, so that a map lies where it belongs.
    """

    def __init__(self, images: MatchedRuns) -> None:
        self._ids = images.image_ids
        self._runs = [
            RunPictures(run, images.class_order(position))
            for position, run in enumerate(images.runs)
        ]
        known = list(dict.fromkeys(run.view for run in self._runs))
        self.views = tuple(known.index(run.view) for run in self._runs)
        self.same_method = len({run.method for run in self._runs}) == 1

    def __len__(self) -> int:
        return len(self._runs)

    def has_map(self, position: int, run: int, index: int) -> bool:
        return self._runs[run].has_map(int(self._ids[run, position]), index)

    def map(self, position: int, run: int, index: int) -> StoredMap | None:
        return self._runs[run].map(int(self._ids[run, position]), index)

    def source(self, position: int, run: int) -> int | None:
        """Return which run's picture stands for an image in a run, `None` if there is none."""
        own = self._runs[run].view
        fits = [other for other, found in enumerate(self._runs) if found.view == own]
        alike = [
            other
            for other, found in enumerate(self._runs)
            if other not in fits and _same_part(found.view, own)
        ]
        for other in (*fits, *alike):
            if self._runs[other].has_picture(int(self._ids[other, position])):
                return other
        return None

    def picture(self, position: int, run: int) -> bytes | None:
        """Return the picture that a run itself holds."""
        return self._runs[run].picture(int(self._ids[run, position]))

    def is_pictured(self, position: int) -> bool:
        """Say whether any run holds a picture of an image."""
        return any(
            run.has_picture(int(ids[position]))
            for run, ids in zip(self._runs, self._ids, strict=True)
        )


def _read(
    folder: RunFolder,
    stage: str,
    shard: int,
    columns: Sequence[str],
    filters: list[tuple[str, str, str]] | None = None,
) -> pa.Table:
    source = parquet_source(folder.shard_path(stage, shard))
    return pq.read_table(source, columns=list(columns), filters=filters)


def _same_part(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Say whether two views show the same part of a file, whatever their size."""
    first, second = (dict(zip(SHAPE, view, strict=True)) for view in (one, other))
    if first["aspect"] != second["aspect"]:
        return False
    return bool(first["height"] * second["width"] == second["height"] * first["width"])


def _speaks(peak: float | None) -> bool:
    """Say whether a map shows a place; NaN and 0 do not."""
    return peak is not None and peak > 0
