"""Which images a target is about: rows for a CSV or JSON file that people and scripts read.

In: image ids and the tables. Out: frames with the columns of `COLUMNS`, most typical images first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.tables import Tables

COLUMNS = (
    "target",
    "kind",
    "image_id",
    "path",
    "y_true",
    "y_pred",
    "role",
    "true_class",
    "predicted_class",
    "suggested_class",
    "suspected_label",
)
"""Columns of `targets.csv` and of each target's file.

`image_id`, `y_true` and `y_pred` are empty for a file that could not be read; the classes by name
are safe to print; `suggested_class` is what the label may have to be; `suspected_label` marks every
image whose label is suspected to be wrong, in whatever target it is.
"""

ERROR, CONTROL, REFERENCE = "error", "control", "reference"
"""An error; a correct image that shows the same, of the errors' classes or, of a slice, of any; one
of the class that the errors are taken for."""

MOST_CONTROLS = 100

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = ("image_id", "y_true", "y_pred")


def manifest_rows(
    tables: Tables,
    image_ids: Iterable[int],
    role: str,
    suggested: Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each image, in the order given.

    Args:
        suggested: the class that an image's label may have to be, by image; -1 says nothing.
    """
    suggested = suggested or {}
    chosen = tables.images.loc[list(image_ids), ["path", "y_true", "y_pred"]]
    return [
        {
            "image_id": image_id,
            "path": path,
            "y_true": y_true,
            "y_pred": y_pred,
            "role": role,
            "true_class": tables.name(y_true),
            "predicted_class": tables.name(y_pred),
            "suggested_class": tables.name(y) if (y := suggested.get(image_id, -1)) >= 0 else "",
            "suspected_label": image_id in tables.suspected,
        }
        for image_id, path, y_true, y_pred in zip(
            chosen.index.tolist(), *(chosen[name].tolist() for name in chosen), strict=True
        )
    ]


def file_rows(paths: Iterable[str], role: str) -> list[dict[str, Any]]:
    """Return a row for each file that is no image of the run."""
    return [
        {
            **dict.fromkeys(_NUMBERS),
            "path": path,
            "role": role,
            **dict.fromkeys(("true_class", "predicted_class", "suggested_class"), ""),
            "suspected_label": False,
        }
        for path in paths
    ]


def manifest_frame(target: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the manifest of one target; an image that comes twice keeps its first row."""
    unique = {(row["image_id"], row["path"]): row for row in reversed(rows)}
    ordered = [unique.pop(key) for row in rows if (key := (row["image_id"], row["path"])) in unique]
    columns: dict[str, Any] = {name: [row[name] for row in ordered] for name in COLUMNS[2:]}
    columns |= {name: pd.array(columns[name], dtype="Int64") for name in _NUMBERS}
    columns["suspected_label"] = np.array(columns["suspected_label"], bool)
    named = {"target": [target] * len(ordered), "kind": [kind] * len(ordered)}
    return pd.DataFrame(named | columns)


def join_manifests(manifests: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return what `targets.csv` holds: the manifests of all targets, in order."""
    if not manifests:
        return manifest_frame("", "", [])
    return pd.concat(manifests, ignore_index=True)


def manifest_csv(frame: pd.DataFrame) -> bytes:
    """Return a manifest as CSV, UTF-8, one line an image.

    A cell that a spreadsheet would take for a formula is made harmless: a path by `./` in front,
    which leaves it the same path, a class name by an apostrophe.
    """
    safe = frame.assign(
        path=[harmless(path, "./") for path in frame["path"]],
        **{
            name: [harmless(cell, "'") for cell in frame[name]]
            for name in ("true_class", "predicted_class", "suggested_class")
        },
    )
    return safe.to_csv(index=False, lineterminator="\n").encode()


def manifest_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a manifest as plain values for JSON; what is empty is `None` or ""."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def harmless(cell: str, prefix: str) -> str:
    """Put something in front of a text that a spreadsheet would take for a formula."""
    return prefix + cell if cell.startswith(_FORMULA) else cell
