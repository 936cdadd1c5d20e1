"""Read what the diagnosis found: causes, slices, labels, probes, findings, targets.

In: a run folder. Out: frames in a fixed order, empty where a stage has not come; `missing` says
which, because an empty table and no table are two different things to say to a reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import pandas as pd

from audit.run_folder import RunFolder
from audit.schemas import OTHER_LABEL, SUSPECTED

COLUMNS = {
    "slices": (
        *("slice", "name", "kind", "conditions", "n_images", "n_errors"),
        *("error_rate", "error_rate_low", "error_rate_high", "other_error_rate"),
        *("lift", "lift_low", "lift_high", "n_images_confirm", "n_errors_confirm"),
        *("p_value", "q_value", "confirmed", "error_ids", "excess_errors"),
    ),
    "label_issues": (
        *("image_id", "kind", "y_true", "suggested", "score", "other_id", "is_error", "rank"),
    ),
    "probes": (
        *("transformation", "strength", "parameter", "n_images", "n_right"),
        *("fall", "fall_low", "fall_high", "p_value", "q_value"),
    ),
    "causes": ("image_id", "treatment", "area", "trial", "logit_fall", "p_true", "y_pred"),
    "targets": ("target", "kind", "image_id", "path", "y_true", "y_pred", "role"),
}
"""The columns of each table that pages show; a table may hold more."""

FLAGS = {
    SUSPECTED: "Its label is suspected to be wrong.",
    OTHER_LABEL: "A near-duplicate of it has another label.",
}
"""Kinds of label issues that put an error itself in doubt, and what is said of such an image."""


@dataclass(frozen=True)
class Diagnosis:
    """What stands behind the errors.

    `slices` has confirmed ones first, then by number; `label_issues` is in order of `rank`;
    `target_images` are the rows of `targets.csv` in their order. `overall_effect` is what painting
    out did to all tested errors, `None` if none was tested. `reliability` says of a layer how well
    it follows the logit, in [-1, 1], mean over the classes. `objects` is the content of
    `objects.json`, `None` without masks and boxes. `missing` names the tables that are not
    in the run folder.
    """

    findings: tuple[Mapping[str, Any], ...]
    targets: tuple[Mapping[str, Any], ...]
    target_images: pd.DataFrame
    slices: pd.DataFrame
    label_issues: pd.DataFrame
    probes: pd.DataFrame
    causes: pd.DataFrame
    overall_effect: Mapping[str, Any] | None
    reliability: Mapping[str, float]
    missing: frozenset[str]
    objects: Mapping[str, Any] | None = None

    @cached_property
    def flags(self) -> dict[int, str]:
        """What puts the label of an image in doubt, by image id."""
        result: dict[int, str] = {}
        for kind, words in FLAGS.items():
            for image_id in self.label_issues.loc[self.label_issues["kind"] == kind, "image_id"]:
                result.setdefault(int(image_id), words)
        return result


def read_diagnosis(folder: RunFolder) -> Diagnosis:
    """Read all that the run came to."""
    missing = {
        name
        for name, path in {
            **{name: folder.table_path(name) for name in ("slices", "label_issues", "probes")},
            "causes": folder.path / "causes",
            "findings": folder.path / "findings.json",
            "targets": folder.path / "targets.json",
        }.items()
        if not path.exists()
    }
    slices = _read(folder, "slices").sort_values(
        ["confirmed", "slice"], ascending=[False, True], ignore_index=True
    )
    return Diagnosis(
        findings=_read_list(folder, "findings"),
        targets=_read_list(folder, "targets"),
        target_images=_read_target_images(folder),
        slices=slices,
        label_issues=_read(folder, "label_issues").sort_values("rank", ignore_index=True),
        probes=_read(folder, "probes"),
        causes=_read_causes(folder),
        overall_effect=_read_overall_effect(folder),
        reliability=_read_reliability(folder),
        missing=frozenset(missing),
        objects=_read_objects(folder),
    )


def table_or_empty(folder: RunFolder, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a table of the run, without rows if it is not there yet."""
    if not folder.table_path(name).is_file():
        return pd.DataFrame(columns=list(columns))
    return folder.read_table(name)


def _read(folder: RunFolder, name: str) -> pd.DataFrame:
    return table_or_empty(folder, name, COLUMNS[name])


def _read_causes(folder: RunFolder) -> pd.DataFrame:
    columns = list(COLUMNS["causes"])
    shards = list(folder.iter_shards("causes", columns))
    if not shards:
        return pd.DataFrame(columns=columns)
    return pd.concat(shards, ignore_index=True)


def _read_overall_effect(folder: RunFolder) -> Mapping[str, Any] | None:
    if not (folder.path / "causes.json").is_file():
        return None
    found: Mapping[str, Any] | None = folder.read_json("causes")["overall"]
    return found


def _read_objects(folder: RunFolder) -> Mapping[str, Any] | None:
    is_there = (folder.path / "objects.json").is_file()
    return folder.read_json("objects") if is_there else None


def _read_reliability(folder: RunFolder) -> dict[str, float]:
    frame = table_or_empty(folder, "consensus", ("layer", "reliability"))
    means = frame.groupby("layer")["reliability"].mean()
    return {str(layer): float(value) for layer, value in means.items()}


def _read_list(folder: RunFolder, name: str) -> tuple[Mapping[str, Any], ...]:
    if not (folder.path / f"{name}.json").is_file():
        return ()
    return tuple(folder.read_json(name)[name])


def _read_target_images(folder: RunFolder) -> pd.DataFrame:
    """Return the rows of `targets.csv`; an image that was not predicted has an empty `y_pred`."""
    path = folder.path / "targets.csv"
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS["targets"]))
    return pd.read_csv(
        BytesIO(path.read_bytes()),
        dtype={"target": str, "kind": str, "path": str, "role": str},
        keep_default_na=False,
        na_values={name: [""] for name in ("image_id", "y_true", "y_pred")},
        encoding_errors="replace",
    )
