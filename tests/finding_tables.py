"""Tables of a run, made by hand, for tests of findings and targets.

600 photographs, 300 cats (ids 0 to 299) and 300 dogs (300 to 599). 96 errors: cats 0 to 83 are
called dogs, dogs 300 to 311 are called cats. Cats 0 to 56 have the focus pattern 1.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.findings import find_findings, findings_json
from audit.diagnose.tables import Tables
from audit.diagnose.targets import rank_targets, targets_json
from audit.diagnose.transformations import TRANSFORMATIONS
from audit.files import write_json
from audit.predict.intervals import wilson_interval
from audit.predict.properties import SCHEMA as PROPERTIES
from audit.run_folder import RunFolder

N_PATTERN, N_ERRORS = 57, 96
CATS_WRONG, DOGS_WRONG = range(84), range(300, 312)
REFERENCES = range(400, 441)
"""Correct dogs with the focus of pattern 1."""
CONTROLS = range(200, 203)
"""Correct cats with it."""


def predictions() -> pd.DataFrame:
    y_true = np.repeat([0, 1], 300)
    wrong = np.isin(np.arange(600), [*CATS_WRONG, *DOGS_WRONG])
    p_pred = np.where(wrong, 0.7, 0.95)
    p_pred[:57] = np.linspace(0.99, 0.71, 57)  # the surest error is cat 0
    return pd.DataFrame(
        {
            "image_id": np.arange(600),
            "path": [f"{'cats' if y == 0 else 'dogs'}/{i:03d}.jpg" for i, y in enumerate(y_true)],
            "y_true": y_true,
            "y_pred": np.where(wrong, 1 - y_true, y_true),
            "p_true": np.where(wrong, 1 - p_pred, p_pred).astype(np.float32),
            "p_pred": p_pred.astype(np.float32),
        }
    )


def focus() -> pd.DataFrame:
    """Return the rows of predicted classes: all errors, 96 controls, 44 of them with pattern 1."""
    errors = [*CATS_WRONG, *DOGS_WRONG]
    controls = [*CONTROLS, *range(203, 210), *REFERENCES, *range(441, 486)]
    pattern = dict.fromkeys([*range(N_PATTERN), *CONTROLS, *REFERENCES], 1)
    return pd.DataFrame(
        {
            "image_id": [*errors, *controls],
            "role": ["error"] * len(errors) + ["control"] * len(controls),
            "is_predicted": True,
            "pattern": [pattern.get(image_id, -1) for image_id in (*errors, *controls)],
        }
    )


def pattern(**changes: Any) -> dict[str, Any]:
    """Return pattern 1: causal, as in the notes on Grad-CAM, 4 times as common among errors."""
    row = {
        "pattern": 1,
        "name": "vertical stripes, either side",
        "kind": "look",
        "n_errors": N_PATTERN,
        "share_of_errors": N_PATTERN / N_ERRORS,
        "lift": 4.0,
        "lift_low": 2.0,
        "lift_high": 8.0,
        "p_value": 1e-6,
        "q_value": 1e-6,
        "confusions": [{"y_true": 0, "y_pred": 1, "count": N_PATTERN}],
        "exemplars": [7, 3, 11, 2, 5, 13, 17, 19, 23, 29],
        "n_tested": N_PATTERN,
        "repaired": 48 / 57,
        "repaired_low": 0.725,
        "repaired_high": 0.914,
        "elsewhere": 0.11,
        "causal_p": 1e-5,
        "causal_q": 1e-5,
        "n_pasted": 40,
        "pasted_wrong": 0.35,
        "pasted_elsewhere_wrong": 0.025,
        "verdict": "causal",
    }
    return row | changes


def slice_row(**changes: Any) -> dict[str, Any]:
    """Return slice 1: 40 of 100 blurred images are wrong, 8 % of the others."""
    row = {
        "slice": 1,
        "name": "sharpness below 12",
        "kind": "property",
        "conditions": [{"column": "sharpness", "low": None, "high": 12.0, "value": None}],
        "n_images": 100,
        "n_errors": 40,
        "error_rate": 0.4,
        "error_rate_low": 0.31,
        "error_rate_high": 0.5,
        "other_error_rate": 0.1,
        "lift": 3.6,
        "lift_low": 2.2,
        "lift_high": 5.9,
        "n_images_confirm": 50,
        "n_errors_confirm": 18,
        "p_value": 1e-5,
        "q_value": 1e-4,
        "confirmed": True,
        "error_ids": [*range(44, 84)],
        "excess_errors": 30.0,
    }
    return row | changes


def probes(**wrong: int) -> pd.DataFrame:
    """Return a probes table of 100 images: so many wrong at the strengths 1, 2 and 3.

    What is not named has 2, 3 and 4 wrong. Names as in `TRANSFORMATIONS`, `_` for a space.
    """
    rows = []
    for transformation in TRANSFORMATIONS:
        most = wrong.get(transformation.name.replace(" ", "_").replace("-", "_"), 4)
        for strength, value in enumerate(transformation.values, start=1):
            n_wrong = most - 3 + strength if most < 5 else most * strength // 3
            low, high = wilson_interval(n_wrong, 100)
            rows.append(
                {
                    "transformation": transformation.name,
                    "strength": strength,
                    "parameter": transformation.words(value),
                    "n_images": 100,
                    "n_right": 100 - n_wrong,
                    "fall": n_wrong / 100,
                    "fall_low": float(low),
                    "fall_high": float(high),
                    "p_value": 1e-4 if n_wrong > 10 else 0.5,
                    "q_value": 1e-3 if n_wrong > 10 else 0.5,
                    "recipe": transformation.recipe(value, 224, (0.0, 255.0)),
                }
            )
    return pd.DataFrame(rows)


def label_issues(rows: list[tuple[int, str, int, int]]) -> pd.DataFrame:
    """Return a table from (image_id, kind, suggested, other_id), the most suspicious first."""
    table = pd.DataFrame(rows, columns=["image_id", "kind", "suggested", "other_id"])
    truth = predictions().set_index("image_id")
    said = truth.loc[table["image_id"]]
    return table.assign(
        y_true=said["y_true"].to_numpy(),
        is_error=(said["y_true"] != said["y_pred"]).to_numpy(),
        score=np.linspace(0, 0.5, len(table)),
        rank=np.arange(1, len(table) + 1),
    )


def properties() -> pd.DataFrame:
    """Return properties of which only the sharpness differs: 1 for image 83, 2 for 82, …, 84.

    Of correct images, those from 500 to 559 have 10, the others 500.
    """
    ids = np.arange(600)
    sharpness = np.where(ids < 84, 84.0 - ids, np.where((ids >= 500) & (ids < 560), 10.0, 500.0))
    return property_table(ids, sharpness=sharpness)


def property_table(image_ids: Any, **values: Any) -> pd.DataFrame:
    """Return properties as they are stored; what is not given is 1 everywhere."""
    table = pd.DataFrame(1.0, index=range(len(image_ids)), columns=PROPERTIES.names)
    return table.assign(image_id=image_ids, **values)


def tables(**changes: Any) -> Tables:
    """Return tables with predictions alone, and what is given."""
    bare = Tables(predictions(), ("cats", "dogs"), positive=1, threshold=0.5)
    return replace(bare, **changes)


def full_tables() -> Tables:
    """Return tables in which every kind of finding has something to say."""
    return tables(
        focus=focus(),
        patterns=pd.DataFrame([pattern()]),
        slices=pd.DataFrame([slice_row()]),
        label_issues=label_issues(
            [
                (60, "suspected label", 1, -1),
                (0, "suspected label", 1, -1),
                (305, "suspected label", 0, -1),
                (500, "suspected label", 0, -1),
                (70, "duplicate with another label", -1, 520),
            ]
        ),
        probes=probes(blur=60, bars=45),
        properties=properties(),
        unreadable=pd.DataFrame(
            {
                "path": ["dogs/torn.jpg", "notes.txt"],
                "kind": ["unreadable", "skipped"],
                "reason": ["Unexpected end of file", "no image"],
            }
        ),
    )


def diagnose_run(finished: Path, path: Path) -> Path:
    """Copy a finished run and give it the findings and targets of tables made by hand."""
    shutil.copytree(finished, path)
    tables = full_tables()
    findings = find_findings(tables)
    targets = rank_targets(findings, tables)
    write_json(path / "findings.json", findings_json(findings))
    write_json(path / "targets.json", targets_json(targets))
    folder = RunFolder(path)
    for name in ("slices", "label_issues", "probes"):
        folder.write_table(name, getattr(tables, name))
    manifest = folder.read_manifest()
    manifest["stages"]["findings"] = {"state": "done", "seconds": 0.1}
    folder.write_manifest(manifest)
    return path
