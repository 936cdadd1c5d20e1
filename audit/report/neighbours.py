"""What each error is like: the exemplars of its pattern, and the nearest images that are right.

In: shards of `embeddings/`, `focus_embeddings/` and `explanations/`, one in memory at a time. Out:
cosines. All but the exemplars and the correct images that were explained, which are few, is read
and let go, so that memory does not grow with the data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audit.files import parquet_source
from audit.report.evidence import table_or_empty
from audit.report.run_data import RunData
from audit.report.views.thumbs import single
from audit.run_folder import FUSED_LAYER, RunFolder
from audit.schemas import FOCUS_STAGE

N_NEAREST = 4
"""Correct images that are shown of an error: half of its true class, half of its predicted one."""

N_EXEMPLARS = 4
"""Exemplars of its pattern, other than itself, that an error is held against."""

_BLOCK = 1024
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """What the errors of a run are like; rows are those of `RunData.errors`.

    Attributes:
        n_right: the correct images that were explained, have a picture and can be compared.
        nearest: int64 of shape (n_errors, N_NEAREST), image ids, first those of the error's true
            class; -1 where there are no more.
        likeness: float32 of the same shape, the cosine of the features before the model's head,
            less their mean over all images: 1 the same, 0 unlike. NaN where `nearest` is -1.
        exemplars: by pattern, the image ids that its errors are held against.
        look: float32 of shape (n_errors, N_EXEMPLARS + 1), in the order of `exemplars`: the cosine
            of the features under the two maps, less their mean over all maps. NaN if not known.
        cams: fused maps of exemplars for their predicted class, float32 of length 1, by image id.
    """

    n_right: int = 0
    nearest: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, N_NEAREST), np.int64))
    likeness: Vectors = field(default_factory=lambda: np.empty((0, N_NEAREST), np.float32))
    exemplars: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    look: Vectors = field(default_factory=lambda: np.empty((0, N_EXEMPLARS + 1), np.float32))
    cams: Mapping[int, Vectors] = field(default_factory=dict)

    def shown(self) -> set[int]:
        """Return the correct images that pages show: picture and overlay must be there."""
        return set(np.unique(self.nearest[self.nearest >= 0]).tolist())

    def nearest_of(self, row: int) -> list[tuple[int, float]]:
        """Return image id and likeness of the correct images nearest to an error."""
        if not self.n_right:
            return []
        pairs = zip(self.nearest[row].tolist(), self.likeness[row], strict=True)
        return [(image_id, single(value)) for image_id, value in pairs if image_id >= 0]

    def look_of(self, row: int, pattern: int) -> dict[int, float]:
        """Return how alike an error's focus looks to that of each exemplar, where it is known."""
        if not len(self.look):
            return {}
        pairs = zip(self.exemplars.get(pattern, ()), self.look[row], strict=False)
        return {image_id: single(value) for image_id, value in pairs if np.isfinite(value)}

    def place_of(self, cam: NDArray[np.uint8], pattern: int) -> dict[int, float]:
        """Return the cosine of a fused map and that of each exemplar that has one.

        Args:
            cam: uint8 of shape (height, width), as it was stored.
            pattern: whose exemplars.
        """
        own = cam.reshape(-1).astype(np.float32)
        length = np.sqrt(own @ own)
        found = [i for i in self.exemplars.get(pattern, ()) if i in self.cams and length > 0]
        return {i: single(self.cams[i] @ own / length) for i in found}


def read_neighbours(
    folder: RunFolder, data: RunData, exemplars: Mapping[int, Sequence[int]]
) -> Neighbours:
    """Hold every error against its pattern's exemplars and against the correct images.

    Args:
        folder: the run; what it does not have stays unknown.
        data: what was read of it.
        exemplars: image ids by pattern, the most typical first.
    """
    chosen = {number: tuple(ids[: N_EXEMPLARS + 1]) for number, ids in exemplars.items()}
    n_right, nearest, likeness = _read_nearest(folder, data)
    predicted = dict(zip(data.errors["image_id"], data.errors["y_pred"], strict=True))
    wanted = {i: int(predicted[i]) for ids in chosen.values() for i in ids if i in predicted}
    look = _read_look(folder, data, chosen)
    return Neighbours(n_right, nearest, likeness, chosen, look, _read_cams(folder, wanted))


def unit_rows(vectors: Vectors) -> Vectors:
    """Return the rows divided by their length; one that is all zeros, or not finite, becomes 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.isfinite(lengths) & (lengths > 0)
    return np.where(known, vectors / np.where(known, lengths, 1), np.float32(0)).astype(np.float32)


def map_likeness(cam: NDArray[np.uint8], fused: NDArray[np.uint8]) -> float | None:
    """Return the cosine of two maps, 0 with no place in common to 1; `None` if one is empty.

    Args:
        cam: uint8 of any shape, enlarged bilinearly to that of `fused`, pixel centres aligned.
        fused: uint8 of shape (height, width).
    """
    height, width = fused.shape
    large = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    one, other = large.reshape(-1), fused.reshape(-1).astype(np.float32)
    lengths = np.sqrt((one @ one) * (other @ other))
    return single(one @ other / lengths) if lengths > 0 else None


def pick_nearest(
    cosines: Vectors, y_right: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose the columns of the highest cosines, one for each of some classes, then whatever is.

    Args:
        cosines: float32 of shape (n, m); ties go to the first column.
        y_right: of shape (m,), the class of each column.
        classes: of shape (n, k), the classes that are asked for; one asked for twice gets two.

    Returns:
        int64 of shape (n, k). Where a class has no column left, the nearest of the others takes its
        place; -1 if none is left.
    """
    left = cosines.astype(np.float32, copy=True)
    picked = np.full(classes.shape, -1, np.int64)
    for column in range(classes.shape[1]):
        fits = y_right[None, :] == classes[:, column, None]
        _take_best(np.where(fits, left, -np.inf), left, picked[:, column])
    for column in range(classes.shape[1]):
        rows = np.flatnonzero(picked[:, column] < 0)
        rest, best = left[rows], picked[rows, column]
        _take_best(rest, rest, best)
        left[rows], picked[rows, column] = rest, best
    return picked


def _take_best(scores: Vectors, left: Vectors, picked: NDArray[np.int64]) -> None:
    """Note each row's best column in `picked` and take it out of `left`, if it has one."""
    if not scores.size:
        return
    rows = np.arange(len(scores))
    best = scores.argmax(axis=1)
    found = scores[rows, best] > -np.inf
    picked[found] = best[found]
    left[rows[found], best[found]] = -np.inf


def _read_nearest(
    folder: RunFolder, data: RunData
) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
    """Return how many correct images were held against the errors, the nearest, their cosines."""
    nearest = np.full((len(data.errors), N_NEAREST), -1, np.int64)
    likeness = np.full(nearest.shape, np.nan, np.float32)
    right = _right_images(folder, data)
    ids, vectors, mean = _read_chosen(folder, "embeddings", right)
    vectors = unit_rows(vectors - mean)
    known = vectors.any(axis=1)
    ids, vectors = ids[known], vectors[known]
    if not len(ids):
        return 0, nearest, likeness
    y_right = data.images["y_true"].reindex(ids).to_numpy(np.int64)
    asked = data.errors[["y_true", "y_true", "y_pred", "y_pred"]].to_numpy(np.int64)
    for frame, block in _iter_blocks(folder, "embeddings"):
        rows = _rows_of(frame["image_id"].to_numpy(), data)
        own = unit_rows(block[rows >= 0] - mean)
        rows = rows[rows >= 0][own.any(axis=1)]
        cosines = own[own.any(axis=1)] @ vectors.T
        picked = pick_nearest(cosines, y_right, asked[rows])
        is_there = picked >= 0
        nearest[rows] = np.where(is_there, ids[picked], -1)
        values = np.take_along_axis(cosines, np.maximum(picked, 0), axis=1)
        likeness[rows] = np.where(is_there, values, np.nan)
    return len(ids), nearest, likeness


def _right_images(folder: RunFolder, data: RunData) -> set[int]:
    focus = table_or_empty(folder, "focus", ("image_id", "role", "is_predicted"))
    chosen = focus[(focus["role"] == "control") & focus["is_predicted"].astype(bool)]
    return {int(i) for i in chosen["image_id"] if int(i) in data.pictures}


def _read_look(
    folder: RunFolder, data: RunData, exemplars: Mapping[int, tuple[int, ...]]
) -> Vectors:
    """Return `Neighbours.look`."""
    look = np.full((len(data.errors), N_EXEMPLARS + 1), np.nan, np.float32)
    ids, vectors, mean = _read_chosen(
        folder, FOCUS_STAGE, {i for chosen in exemplars.values() for i in chosen}, data
    )
    held = dict(zip(ids.tolist(), unit_rows(vectors - mean), strict=True))
    if not held:
        return look
    nothing = np.zeros(vectors.shape[1], np.float32)
    of_pattern = {
        number: np.stack([held.get(i, nothing) for i in chosen])
        for number, chosen in exemplars.items()
        if chosen
    }
    patterns = data.errors["pattern"].to_numpy(np.int64)
    for frame, block in _iter_blocks(folder, FOCUS_STAGE):
        rows = _rows_of(frame["image_id"].to_numpy(), data, frame["explained_class"].to_numpy())
        is_known = (rows >= 0) & (block.any(axis=1))
        rows, own = rows[is_known], unit_rows(block[is_known] - mean)
        for number in np.unique(patterns[rows]).tolist():
            if number in of_pattern:
                chosen = patterns[rows] == number
                cosines = own[chosen] @ of_pattern[number].T
                cosines[:, ~of_pattern[number].any(axis=1)] = np.nan
                look[rows[chosen], : cosines.shape[1]] = cosines
    return look


def _read_cams(folder: RunFolder, wanted: Mapping[int, int]) -> dict[int, Vectors]:
    """Return the fused maps of these images, each for the class given, as vectors of length 1."""
    cams: dict[int, Vectors] = {}
    if not wanted:
        return cams
    filters = [("layer", "=", FUSED_LAYER), ("image_id", "in", sorted(wanted))]
    columns = ["image_id", "explained_class", "peak", "cam"]
    for index in folder.shard_indices("explanations"):
        path = folder.shard_path("explanations", index)
        table = pq.read_table(parquet_source(path), columns=columns, filters=filters)
        for row in table.to_pylist():
            if row["explained_class"] == wanted[row["image_id"]] and (row["peak"] or 0) > 0:
                cam = np.frombuffer(row["cam"], np.uint8).astype(np.float32)
                (cams[row["image_id"]],) = unit_rows(cam[None])
    return cams


def _read_chosen(
    folder: RunFolder, stage: str, wanted: set[int], data: RunData | None = None
) -> tuple[NDArray[np.int64], Vectors, Vectors]:
    """Return ids and vectors of some images in order, and the mean of all that are known.

    With `data`, those of errors only, for their predicted class.
    """
    found_ids, found, total, n_known = [], [], np.zeros(0), 0
    order = np.array(sorted(wanted), np.int64)
    for frame, block in _iter_blocks(folder, stage):
        known = np.isfinite(block).all(axis=1) & block.any(axis=1)
        total = (total if total.size else 0) + block[known].sum(axis=0, dtype=np.float64)
        n_known += int(known.sum())
        ids = frame["image_id"].to_numpy()
        fits = known & np.isin(ids, order)
        if data is not None:
            fits &= _rows_of(ids, data, frame["explained_class"].to_numpy()) >= 0
        found_ids.append(ids[fits])
        found.append(block[fits])
    if not n_known:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32), np.zeros(0, np.float32)
    ids, vectors = np.concatenate(found_ids), np.concatenate(found)
    by_id = np.argsort(ids, kind="stable")
    return ids[by_id], vectors[by_id], (total / n_known).astype(np.float32)


def _iter_blocks(folder: RunFolder, stage: str) -> Iterator[tuple[pd.DataFrame, Vectors]]:
    """Yield keys and vectors, float32 of shape (n, width), a block of a shard at a time."""
    for index in folder.shard_indices(stage):
        with pq.ParquetFile(parquet_source(folder.shard_path(stage, index))) as shard:
            keys = ["image_id", *(["explained_class"] if stage == FOCUS_STAGE else [])]
            for batch in shard.iter_batches(_BLOCK, columns=[*keys, "embedding"]):
                column = batch.column("embedding")
                flat = column.flatten().to_numpy(zero_copy_only=False)
                width = column.type.list_size
                yield batch.select(keys).to_pandas(), flat.reshape(-1, width)


def _rows_of(
    ids: NDArray[np.int64], data: RunData, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return the row of each image among the errors, -1 if it is none or of another class."""
    rows = np.array([data.error_rows.get(i, -1) for i in ids.tolist()], np.int64)
    if classes is None or not len(data.errors):
        return rows
    fits = data.errors["y_pred"].to_numpy(np.int64)[rows] == classes
    return np.where(fits, rows, -1)
