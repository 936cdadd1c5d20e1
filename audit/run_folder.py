"""The folder that joins the stages: every file name, every column, atomic writes, the manifest.

In: frames and small values from a stage. Out: the same for the next stage, the report and the user.
A reader sees either a whole file or none. A torn shard is recognised by its footer and row count
and redone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.errors import RunFolderError
from audit.files import (
    parquet_source,
    read_footer,
    read_json,
    write_bytes,
    write_json,
    write_parquet,
)
from audit.places import Place, place
from audit.schemas import SCHEMAS

FORMAT_VERSION = 1
FUSED_LAYER = "fused"
"""The `layer` of the map that joins all layers; it has a row of its own in `layers.parquet`."""
OCCLUSION = "occlusion"
"""The `layer` of a map that looks at no layer, its kind, and the method that makes it."""


@dataclass(frozen=True)
class ShardSpec:
    """One unit of heavy work: which stage, which shard of it, which images."""

    stage: str
    index: int
    image_ids: tuple[int, ...]


@dataclass(frozen=True)
class Receipt:
    """What came of a shard: how many images are in it and which had to be left out, and why."""

    stage: str
    index: int
    n_done: int
    left_out: tuple[tuple[int, str], ...] = ()


def check_format(path: Place, content: Mapping[str, Any], known: int) -> None:
    """Refuse a folder whose files mean something else to this program.

    Args:
        path: the folder.
        content: what its JSON file holds.
        known: the version of the format that this program reads.

    Raises:
        RunFolderError: if it has another one.
    """
    version = content.get("format_version")
    if version != known:
        raise RunFolderError(
            f"`{path}` has another format. Received: format_version {version}, this program reads"
            f" {known}. Use the version of gradcam-audit that made it, or a new folder."
        )


class RunFolder:
    """An open run folder. Reading never changes it.

    Attributes:
        writer: a name of its own for each of several processes that write shards at once.
        check_owner: called before the manifest or a shard is written; raises if the folder, which
            this process held, is somebody else's by now.
    """

    def __init__(self, path: Place | str, writer: str = "") -> None:
        self.path = place(path)
        self.writer = writer
        self.check_owner: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, path: Place | str) -> "RunFolder":
        """Open a folder that holds a run.

        Raises:
            RunFolderError: if it is missing, is not a run, or has another format version.
        """
        folder = cls(path)
        if not folder.manifest_path.is_file():
            raise RunFolderError(
                f"`{folder.path}` is not a run folder. Received: a path without a manifest.json."
                " Give the folder that was passed to `gradcam-audit run … --out`."
            )
        check_format(folder.path, folder.read_manifest(), FORMAT_VERSION)
        return folder

    # Paths

    @property
    def manifest_path(self) -> Place:
        return self.path / "manifest.json"

    @property
    def log_path(self) -> Place:
        return self.path / "logs" / "run.log"

    @property
    def report_path(self) -> Place:
        """The page that a reader opens first."""
        return self.path / "report" / "index.html"

    def table_path(self, name: str) -> Place:
        """Return where a table lives: `images`, `layers`, `focus`, `class_metrics`, …"""
        return self.path / f"{name}.parquet"

    def shard_path(self, stage: str, index: int) -> Place:
        """Return where a shard of `predictions`, `embeddings`, `explanations`, `thumbnails` is."""
        return self.path / stage / f"shard-{index:06d}.parquet"

    # Manifest and JSON

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            RunFolderError: if it is not JSON.
        """
        return read_json(self.manifest_path)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.check_owner()
        write_json(self.manifest_path, manifest)

    def read_metrics(self) -> dict[str, Any]:
        return read_json(self.path / "metrics.json")

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        write_json(self.path / "metrics.json", metrics)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file: `findings`, `targets`, …

        Raises:
            RunFolderError: if it is missing or no JSON.
        """
        return read_json(self.path / f"{name}.json")

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self.path / f"{name}.json", value)

    def write_file(self, name: str, content: bytes) -> None:
        """Write a small file; `name` is its path in the folder, made of fixed words and numbers."""
        write_bytes(self.path / name, content)

    # Tables

    def read_table(self, name: str) -> pd.DataFrame:
        """Return a whole table; binary and list columns hold bytes and NumPy arrays."""
        return pq.read_table(parquet_source(self.table_path(name))).to_pandas()

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        write_parquet(self.table_path(name), to_arrow(frame, SCHEMAS.get(name)))

    # Shards

    def shard_indices(self, stage: str) -> list[int]:
        """Return the indices of the shards on disk, in order; torn ones are not checked for."""
        names = sorted(file.stem for file in (self.path / stage).glob("shard-*.parquet"))
        return [int(name.removeprefix("shard-")) for name in names]

    def write_shard(self, stage: str, index: int, table: pa.Table, receipt: Receipt) -> None:
        """Write one shard with its receipt inside, so that both are there or neither."""
        metadata = {"receipt": json.dumps([receipt.n_done, receipt.left_out])}
        path = self.shard_path(stage, index)
        self.check_owner()
        write_parquet(path, table.replace_schema_metadata(metadata), self.writer)

    def read_receipt(self, spec: ShardSpec) -> Receipt | None:
        """Return the receipt of a finished shard, or `None` if the shard is missing or torn."""
        try:
            metadata = read_footer(self.shard_path(spec.stage, spec.index))
        except (OSError, pa.ArrowInvalid):
            return None
        raw = (metadata.metadata or {}).get(b"receipt")
        if raw is None:
            return None
        n_done, left_out = json.loads(raw)
        receipt = Receipt(spec.stage, spec.index, n_done, tuple((i, why) for i, why in left_out))
        complete = n_done + len(left_out) == len(spec.image_ids)
        return receipt if complete else None

    def read_shard(
        self, stage: str, index: int, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Return one shard as a frame."""
        source = parquet_source(self.shard_path(stage, index))
        return pq.read_table(source, columns=columns).to_pandas()

    def read_shard_table(self, stage: str, index: int, columns: Sequence[str]) -> pa.Table:
        """Return one shard as Arrow has it; names of layers are stored once and referred to."""
        source = parquet_source(self.shard_path(stage, index))
        # Without threads: of the columns that are read at a time, one is nearly all there is.
        with pq.ParquetFile(
            source, read_dictionary=["layer"] if "layer" in columns else []
        ) as shard:
            return shard.read(list(columns), use_threads=False)

    def iter_shards(
        self, stage: str, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the shards of a stage in order, one in memory at a time."""
        for index in self.shard_indices(stage):
            yield self.read_shard(stage, index, columns)

    def read_predictions(self, scores: bool = False) -> pd.DataFrame:
        """Return every prediction joined with `path` and `y_true`, ordered by `image_id`.

        Args:
            scores: whether to bring the column `scores` along (float32 arrays of length n_classes).
        """
        columns = [
            "image_id",
            "y_pred",
            "p_true",
            "p_pred",
            "margin",
            *(["scores"] if scores else []),
        ]
        shards = list(self.iter_shards("predictions", columns))
        predictions = (
            pd.concat(shards, ignore_index=True) if shards else pd.DataFrame(columns=columns)
        )
        images = self.read_table("images")[["image_id", "path", "y_true"]]
        return images.merge(predictions, on="image_id").sort_values("image_id", ignore_index=True)

    def read_scores(self) -> np.ndarray:
        """Return float32 of shape (n_predicted, n_classes), rows ordered by `image_id`."""
        return self._read_list_column("predictions", "scores")

    def read_embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return image ids of shape (n,) and float32 embeddings of shape (n, width), in order."""
        ids = np.concatenate(
            [frame["image_id"] for frame in self.iter_shards("embeddings", ["image_id"])]
        )
        return ids, self._read_list_column("embeddings", "embedding")

    def read_fused(self) -> pd.DataFrame:
        """Return the fused maps of all explained images: image_id, explained_class, peak, cam.

        `cam` holds uint8 arrays of shape (height, width), 255 at the map's own peak.
        """
        columns = ["image_id", "explained_class", "height", "width", "peak", "cam"]
        frames = [
            pq.read_table(
                parquet_source(self.shard_path("explanations", index)),
                columns=columns,
                filters=[("layer", "=", FUSED_LAYER)],
            ).to_pandas()
            for index in self.shard_indices("explanations")
        ]
        if not frames:
            return pd.DataFrame(columns=["image_id", "explained_class", "peak", "cam"])
        fused = pd.concat(frames, ignore_index=True)
        fused["cam"] = [
            decode_cam(*row) for row in zip(fused.cam, fused.height, fused.width, strict=True)
        ]
        fused = fused.drop(columns=["height", "width"])
        return fused.sort_values(["image_id", "explained_class"], ignore_index=True)

    def _read_list_column(self, stage: str, column: str) -> np.ndarray:
        blocks = []
        for index in self.shard_indices(stage):
            source = parquet_source(self.shard_path(stage, index))
            chunked = pq.read_table(source, columns=[column])[column]
            width = chunked.type.list_size
            flat = chunked.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            blocks.append(flat.reshape(-1, width))
        return np.concatenate(blocks)


def decode_cam(cam: bytes, height: int, width: int) -> np.ndarray:
    """Return a stored map as uint8 of shape (height, width); 255 is the map's own peak."""
    return np.frombuffer(cam, np.uint8).reshape(height, width)


def fixed_list(values: np.ndarray) -> pa.FixedSizeListArray:
    """Turn float32 of shape (n, width) into an Arrow column of n lists."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def to_arrow(frame: pd.DataFrame, schema: pa.Schema | None) -> pa.Table:
    """Turn a frame into an Arrow table without pandas' own metadata, which names versions."""
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    return table.replace_schema_metadata(None)
