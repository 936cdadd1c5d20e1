"""Read once what every page needs from a run folder.

In: a run folder whose metrics are done; what comes after may still be missing. Out: frames in a
fixed order. Nothing is computed here but joins, and maps and pictures are left on disk.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from audit.errors import RunFolderError
from audit.report.evidence import Diagnosis, read_diagnosis, table_or_empty
from audit.run_folder import FUSED_LAYER, RunFolder
from audit.schemas import records

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
    explained_class), 0 where nothing speaks for the class.
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

    @property
    def is_explained(self) -> bool:
        """Whether there are heat-maps; a run that stopped early has none."""
        return not self.layers.empty

    @cached_property
    def error_rows(self) -> dict[int, int]:
        """The row of each error in `errors`, by image id."""
        return {int(image_id): row for row, image_id in enumerate(self.errors["image_id"])}

    @cached_property
    def error_records(self) -> list[dict[str, Any]]:
        """The rows of `errors` by column name."""
        return records(self.errors)

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
    )


def read_top_scores(
    folder: RunFolder, image_ids: set[int], n_top: int
) -> dict[int, tuple[tuple[int, float], ...]]:
    """Return the classes with the highest scores of some images, one shard in memory at a time.

    Returns:
        For each image id up to `n_top` pairs (class, score), highest first, ties by class.
    """
    top: dict[int, tuple[tuple[int, float], ...]] = {}
    for shard in folder.iter_shards("predictions", ["image_id", "scores"]):
        chosen = shard[shard["image_id"].isin(image_ids)]
        for image_id, scores in zip(chosen["image_id"], chosen["scores"], strict=True):
            order = np.argsort(-np.asarray(scores), kind="stable")[:n_top]
            top[int(image_id)] = tuple((int(c), float(scores[c])) for c in order)
    return top


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


def _read_picture_sizes(folder: RunFolder) -> dict[int, tuple[int, int]]:
    sizes = {}
    for shard in folder.iter_shards("thumbnails", ["image_id", "height", "width"]):
        for image_id, height, width in shard.itertuples(index=False, name=None):
            sizes[int(image_id)] = (int(height), int(width))
    return sizes


def _read_fused_peaks(folder: RunFolder) -> dict[tuple[int, int], float]:
    peaks = {}
    for shard in folder.iter_shards(
        "explanations", ["image_id", "explained_class", "layer", "peak"]
    ):
        for row in records(shard[shard["layer"] == FUSED_LAYER]):
            speaks = np.isfinite(row["peak"]) and row["peak"] > 0
            key = int(row["image_id"]), int(row["explained_class"])
            peaks[key] = float(row["peak"]) if speaks else 0.0
    return peaks


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
