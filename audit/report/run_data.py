"""Read once what every page needs from a run folder.

In: a run folder whose metrics are done; what comes after may still be missing. Out: frames in a
fixed order. Nothing is computed here but joins, and maps and pictures are left on disk. What there
is for each error is kept in arrays, as objects of Python would take many times their memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from audit.errors import RunFolderError
from audit.report.columns import ByKey, Rows
from audit.report.evidence import Diagnosis, read_diagnosis, table_or_empty
from audit.run_folder import FUSED_LAYER, RunFolder
from audit.schemas import INSIDE

PATTERN_COLUMNS = (
    *("pattern", "name", "kind", "n_errors", "share_of_errors", "stability", "confusions"),
    *("n_controls", "control_share", "n_true_controls", "true_control_share"),
    *("lift", "lift_low", "lift_high", "q_value", "exemplars"),
    *("mean_height", "mean_width", "mean_map", "verdict"),
)
CAUSE_COLUMNS = (
    *("n_tested", "best_area", "repaired", "repaired_low", "repaired_high", "elsewhere"),
    *("logit_fall", "logit_fall_low", "logit_fall_high", "blur_repaired", "blur_elsewhere"),
    *("causal_p", "causal_q", "areas", "n_pasted", "pasted_wrong", "pasted_elsewhere_wrong"),
)
"""Columns of `patterns.parquet` that only a run whose patterns were painted out has."""


@dataclass(frozen=True)
class RunData:
    """What a run found. `errors` is ordered by falling confidence, then `image_id`.

    `metadata` holds the columns the user brought, one row per error in the same order. `images` has
    `path` and `y_true` of all images, by image id. `pictures` gives height and width of what the
    model saw, for images that have it; `peaks` the peak of the fused map by (image_id,
    explained_class), 0 where nothing speaks for the class; `inside` the object's share of the
    pixels, the share of that map inside it, and whether its hottest pixel is, for maps of errors.
    """

    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    class_names: tuple[str, ...]
    classes: pd.DataFrame
    confusion: pd.DataFrame
    images: pd.DataFrame
    errors: pd.DataFrame
    metadata: pd.DataFrame
    patterns: pd.DataFrame
    layers: pd.DataFrame
    unreadable: pd.DataFrame
    pictures: Mapping[int, tuple[int, int]]
    peaks: Mapping[tuple[int, int], float]
    diagnosis: Diagnosis
    inside: Mapping[tuple[int, int], tuple[float, float, float]] = field(default_factory=dict)

    @property
    def is_explained(self) -> bool:
        """Whether there are heat-maps; a run that stopped early has none."""
        return not self.layers.empty

    @cached_property
    def error_rows(self) -> dict[int, int]:
        """The row of each error in `errors`, by image id."""
        return {int(image_id): row for row, image_id in enumerate(self.errors["image_id"])}

    @cached_property
    def error_records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of `errors` by column name."""
        return Rows(self.errors)

    @cached_property
    def pattern_names(self) -> dict[int, str]:
        """The name of each pattern, by its number."""
        pairs = zip(self.patterns["pattern"], self.patterns["name"], strict=True)
        return {int(number): str(name) for number, name in pairs}


def read_run(folder: RunFolder) -> RunData:
    """Read the tables of a run.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    if not (folder.path / "metrics.json").is_file():
        raise RunFolderError(
            f"`{folder.path}` has no metrics yet. Received: a run that stopped before they were"
            " computed. Start the same `gradcam-audit run` again; it goes on where it stopped."
        )
    manifest = folder.read_manifest()
    images = folder.read_table("images").set_index("image_id")
    errors = _read_errors(folder)
    return RunData(
        manifest=manifest,
        metrics=folder.read_metrics(),
        class_names=tuple(str(name) for name in manifest["class_names"]),
        classes=folder.read_table("class_metrics"),
        confusion=folder.read_table("confusion"),
        images=images[["path", "y_true"]],
        errors=errors,
        metadata=images.drop(columns=["path", "y_true"]).loc[errors["image_id"]],
        patterns=_read_patterns(folder),
        layers=table_or_empty(folder, "layers", ("layer", "kept", "order")),
        unreadable=table_or_empty(folder, "unreadable", ("path", "kind", "reason")),
        pictures=_read_picture_sizes(folder),
        peaks=_read_fused_peaks(folder),
        diagnosis=read_diagnosis(folder),
        inside=_read_inside(folder),
    )


def read_top_scores(
    folder: RunFolder, image_ids: set[int], n_top: int
) -> Mapping[int, tuple[tuple[int, float], ...]]:
    """Return the classes with the highest scores of some images, one shard in memory at a time.

    Returns:
        For each image id up to `n_top` pairs (class, score), highest first, ties by class.
    """
    wanted = np.fromiter(image_ids, np.int64)
    all_ids, all_classes, all_scores = [], [], []
    for index in folder.shard_indices("predictions"):
        shard = folder.read_shard_table("predictions", index, ("image_id", "scores"))
        ids = shard["image_id"].to_numpy()
        chosen = np.flatnonzero(np.isin(ids, wanted))
        column = shard["scores"].combine_chunks()
        width = column.type.list_size
        scores = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)[chosen]
        classes = _highest(scores, min(n_top, width))
        all_ids.append(ids[chosen])
        all_classes.append(classes.astype(np.int32))
        all_scores.append(np.take_along_axis(scores, classes, axis=1))
    if not all_ids:
        return {}
    ids, classes, scores = map(np.concatenate, (all_ids, all_classes, all_scores))
    order = np.argsort(ids, kind="stable")
    ids, classes, scores = ids[order], classes[order], scores[order]

    def pairs(row: int) -> tuple[tuple[int, float], ...]:
        return tuple(zip(classes[row].tolist(), scores[row].tolist(), strict=True))

    return ByKey(ids, pairs)


def _highest(scores: np.ndarray, n_top: int) -> np.ndarray:
    """Return int64 of shape (n, n_top): the columns of the highest scores, ties by column."""
    # The n-th highest score of each row is found first, so that few columns are left to sort. More
    # than `n_top` columns may reach it; those are taken from the left.
    least = np.partition(scores, -n_top, axis=1)[:, -n_top, None]
    n_above = (scores > least).sum(axis=1, keepdims=True)
    level = scores == least
    keeps = (scores > least) | (level & (level.cumsum(axis=1) <= n_top - n_above))
    columns = np.nonzero(keeps)[1].reshape(len(scores), n_top)
    kept = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-kept, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _read_errors(folder: RunFolder) -> pd.DataFrame:
    """Return the misclassified images with their pattern; pattern 0 means "in none"."""
    predictions = folder.read_predictions()
    errors = predictions[predictions["y_pred"] != predictions["y_true"]].copy()
    errors["pattern"] = errors["image_id"].map(_error_patterns(folder)).fillna(0).astype(int)
    return errors.sort_values(["p_pred", "image_id"], ascending=[False, True], ignore_index=True)


def _error_patterns(folder: RunFolder) -> dict[int, int]:
    focus = table_or_empty(folder, "focus", ("image_id", "role", "is_predicted", "pattern"))
    chosen = focus[(focus["role"] == "error") & focus["is_predicted"].astype(bool)]
    chosen = chosen[chosen["pattern"] > 0]
    pairs = zip(chosen["image_id"], chosen["pattern"], strict=True)
    return {int(image_id): int(pattern) for image_id, pattern in pairs}


def _read_picture_sizes(folder: RunFolder) -> Mapping[int, tuple[int, int]]:
    columns = ("image_id", "height", "width")
    ids, heights, widths = _read_columns(folder, "thumbnails", columns)
    return ByKey(ids, lambda row: (int(heights[row]), int(widths[row])))


def _read_fused_peaks(folder: RunFolder) -> Mapping[tuple[int, int], float]:
    columns = ("image_id", "explained_class", "peak")
    ids, classes, peaks = _read_columns(folder, "explanations", columns, FUSED_LAYER)
    peaks = np.where(np.isfinite(peaks) & (peaks > 0), peaks, 0)
    # An image and a class together make one number.
    n_classes = int(classes.max(initial=0)) + 1
    keys = ids * n_classes + classes
    order = np.argsort(keys, kind="stable")
    keys, peaks = keys[order], peaks[order]

    def number(key: tuple[int, int]) -> int:
        return key[0] * n_classes + key[1] if 0 <= key[1] < n_classes else -1

    return ByKey(keys, lambda row: float(peaks[row]), number, lambda key: divmod(key, n_classes))


def _read_inside(folder: RunFolder) -> Mapping[tuple[int, int], tuple[float, float, float]]:
    """Return what is known of the maps of errors; nothing without masks and boxes."""
    focus = table_or_empty(folder, "focus", ("role", *INSIDE))
    if not set(INSIDE) <= set(focus.columns):
        return {}
    known = focus[(focus["role"] == "error") & focus["energy_inside"].notna()]
    rows = known.reindex(columns=["image_id", "explained_class", *INSIDE])
    return {
        (int(image_id), int(explained)): (float(share), float(energy), float(hit))
        for image_id, explained, share, energy, hit in rows.itertuples(index=False)
    }


def _read_columns(
    folder: RunFolder, stage: str, columns: tuple[str, ...], layer: str | None = None
) -> list[np.ndarray]:
    """Return columns of all shards of a stage, or of one layer in them, in order of the image."""
    parts: list[list[np.ndarray]] = [[np.zeros(0, np.int64) for _ in columns]]
    for index in folder.shard_indices(stage):
        names = columns if layer is None else (*columns, "layer")
        shard = folder.read_shard_table(stage, index, names)
        if layer is not None:
            shard = shard.filter(pc.equal(shard["layer"], layer))
        parts.append([shard[name].to_numpy() for name in columns])
    whole = [np.concatenate(blocks) for blocks in zip(*parts, strict=True)]
    order = np.argsort(whole[0], kind="stable")
    return [column[order] for column in whole]


def _read_patterns(folder: RunFolder) -> pd.DataFrame:
    """Return the patterns; what no test has told yet is not defined."""
    patterns = table_or_empty(folder, "patterns", PATTERN_COLUMNS)
    untold = [name for name in (*PATTERN_COLUMNS, *CAUSE_COLUMNS) if name not in patterns]
    return patterns.assign(**dict.fromkeys(untold)).sort_values("pattern", ignore_index=True)


def as_records(value: Any) -> list[dict[str, Any]]:
    """Return a stored list of small records, kept as a list column or as JSON text."""
    if isinstance(value, str):
        value = json.loads(value)
    return [dict(item) for item in value]
