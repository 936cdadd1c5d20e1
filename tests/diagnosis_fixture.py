"""What the diagnosis of the drawn run found, for tests of the report; texts are hostile on purpose.

Numbers are made up but agree with one another: shares are counts over counts, findings and targets
name images that exist.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.files import write_json
from audit.report.evidence import COLUMNS
from audit.run_folder import Receipt, RunFolder

HOSTILE_SLICE = '</table><script>document.title="stolen"</script> & brightness \u202ebelow 0.3'
HOSTILE_TEXT = (
    "57 errors look at <img src=x onerror=alert(1)> {{ 7 * 7 }} \u202ebars\u202c; 41 % turn right."
)
HOSTILE_RECIPE = 'import keras\n\n# </code></pre><script>alert(1)</script>\naugment = "a < b"\n'
AREAS = (0.1, 0.2, 0.3)
TRANSFORMATIONS = ("contrast", "blur <b>", "flip")
PER_PATTERN = (
    *("n_tested", "best_area", "repaired", "repaired_low", "repaired_high", "elsewhere"),
    *("logit_fall", "logit_fall_low", "logit_fall_high", "blur_repaired", "blur_elsewhere"),
    *("causal_p", "causal_q", "areas", "n_pasted", "pasted_wrong", "pasted_elsewhere_wrong"),
)


def write_diagnosis(folder: RunFolder, y_true: np.ndarray, y_pred: np.ndarray) -> None:
    """Write what comes after the patterns of a run."""
    errors = np.flatnonzero(y_true != y_pred)
    if not len(errors):
        write_nothing_found(folder)
        return
    write_causes(folder, errors, y_true, y_pred)
    folder.write_table("slices", _slices(errors, len(y_true)))
    folder.write_table("label_issues", _label_issues(errors, y_true, y_pred))
    folder.write_table("probes", _probes())
    findings = _findings(folder, errors)
    targets = _targets(folder, findings, errors, y_true, y_pred)
    write_json(folder.path / "findings.json", {"findings": findings})
    write_json(folder.path / "targets.json", {"targets": targets})


def write_nothing_found(folder: RunFolder) -> None:
    """Write the tables of a run in which there was nothing to find."""
    folder.write_table("slices", pd.DataFrame(columns=list(COLUMNS["slices"])))
    folder.write_table("label_issues", pd.DataFrame(columns=list(COLUMNS["label_issues"])))
    folder.write_table("probes", _probes())
    write_json(folder.path / "findings.json", {"findings": []})
    write_json(folder.path / "targets.json", {"targets": []})


def write_causes(
    folder: RunFolder, errors: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray
) -> None:
    """Paint out every error: odd ones turn right with the focus gone, every ninth elsewhere too."""
    rows = []
    for image_id in errors.tolist():
        for area in AREAS:
            treatments = [("focus", 0), ("elsewhere", 0), ("elsewhere", 1)]
            for treatment, trial in treatments + [("blur", 0)] * (area == AREAS[2]):
                turned = image_id % 2 == 1 if treatment != "elsewhere" else image_id % 9 == trial
                now = y_true[image_id] if turned and area > AREAS[0] else y_pred[image_id]
                fall = 2.5 * turned + area + 0.01 * (image_id % 7)
                p_true = 0.8 if now == y_true[image_id] else 0.2
                rows.append((image_id, treatment, area, trial, fall, p_true, now))
    frame = pd.DataFrame(
        rows,
        columns=["image_id", "treatment", "area", "trial", "logit_fall", "p_true", "y_pred"],
    ).astype({"logit_fall": np.float32, "p_true": np.float32})
    half = len(errors) // 2
    for index, part in enumerate((errors[:half], errors[half:])):
        chosen = frame[frame["image_id"].isin(part)]
        table = pa.Table.from_pandas(chosen, preserve_index=False)
        folder.write_shard("causes", index, table, Receipt("causes", index, len(part)))


def tested_pattern(members: np.ndarray, number: int) -> dict[str, Any]:
    """Return what the tests say of a pattern: the first is causal, the second is not shown."""
    n_tested = len(members)
    repaired = int((members % 2 == 1).sum()) / max(n_tested, 1)
    causal = number == 1
    return {
        "n_tested": n_tested,
        "best_area": AREAS[2],
        "repaired": repaired,
        "repaired_low": max(0.0, repaired - 0.14),
        "repaired_high": min(1.0, repaired + 0.11),
        "elsewhere": 0.11,
        "logit_fall": 2.31 if causal else 0.02,
        "logit_fall_low": 1.87 if causal else -0.3,
        "logit_fall_high": 2.75 if causal else 0.34,
        "blur_repaired": 0.625 if causal else 0.05,
        "blur_elsewhere": 0.09,
        "causal_p": 0.0001 if causal else 0.4,
        "causal_q": 0.0002 if causal else 0.4,
        "areas": [
            {"area": area, "repaired": 2 * area, "elsewhere": area / 2, "logit_fall": 3 * area}
            for area in AREAS
        ],
        "n_pasted": 24 if causal else 0,
        "pasted_wrong": 0.375 if causal else np.nan,
        "pasted_elsewhere_wrong": 0.0417 if causal else np.nan,
        "verdict": "causal" if causal else "not shown",
    }


def _slices(errors: np.ndarray, n_images: int) -> pd.DataFrame:
    rows = []
    kinds = (
        ("property", HOSTILE_SLICE, [_condition("brightness", None, 0.31, None)]),
        (
            "metadata",
            "camera <b>north</b>",
            [_condition("metadata.camera", None, None, "<b>north</b>")],
        ),
        (
            "pair",
            "sharpness above 12 and width from 640 to 1,280",
            [_condition("sharpness", 12.0, None, None), _condition("width", 640.0, 1280.0, None)],
        ),
    )
    for number, (kind, name, conditions) in enumerate(kinds, start=1):
        chosen = errors[errors % (number + 1) == 0].tolist()
        n_in = max(4 * len(chosen), 1)
        rate, other = len(chosen) / n_in, (len(errors) - len(chosen)) / max(n_images - n_in, 1)
        rows.append(
            {
                "slice": number,
                "name": name,
                "kind": kind,
                "conditions": conditions,
                "n_images": n_in,
                "n_errors": len(chosen),
                "error_rate": rate,
                "error_rate_low": rate * 0.7,
                "error_rate_high": min(1.0, rate * 1.4),
                "other_error_rate": other,
                "lift": 3.1 - number / 2,
                "lift_low": 2.2 - number / 2,
                "lift_high": 4.4,
                "n_images_confirm": n_in // 2,
                "n_errors_confirm": len(chosen) // 2,
                "p_value": 0.0004 * number,
                "q_value": 0.0008 if number != 2 else 0.21,
                "confirmed": number != 2,
                "error_ids": chosen,
                "excess_errors": max(0.0, len(chosen) - other * n_in),
            }
        )
    return pd.DataFrame(rows)


def _condition(
    column: str, low: float | None, high: float | None, value: str | None
) -> dict[str, Any]:
    return {"column": column, "low": low, "high": high, "value": value}


def _label_issues(errors: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray) -> pd.DataFrame:
    """Suspect the first two errors, pair the third with a correct image, and two of those."""
    rows = []
    for image_id in errors[:2].tolist():
        rows.append(("suspected label", image_id, int(y_pred[image_id]), 0.01 * len(rows), -1))
    right = np.flatnonzero(y_true == y_pred)
    for image_id in errors[2:3].tolist():
        pair = (image_id, int(right[0]))
        for one, other in (pair, pair[::-1]):
            rows.append(("duplicate with another label", one, -1, 0.3, other))
    last = right[y_true[right] == y_true[right[-1]]][
        -2:
    ].tolist()  # not explained: there is no picture of them
    rows.append(("duplicate", last[0], -1, 0.9, last[1]))
    table = [
        (i, kind, int(y_true[i]), suggested, score, other, bool(y_true[i] != y_pred[i]), rank)
        for rank, (kind, i, suggested, score, other) in enumerate(rows, start=1)
    ]
    return pd.DataFrame(table, columns=list(COLUMNS["label_issues"]))


def _probes() -> pd.DataFrame:
    rows = []
    for n, name in enumerate(TRANSFORMATIONS):
        for strength in (1, 2, 3):
            n_wrong = (4, 1, 2)[n] * strength * strength
            rows.append(
                {
                    "transformation": name,
                    "strength": strength,
                    "parameter": f"by {strength * 10} </td>",
                    "n_images": 200,
                    "n_right": 200 - n_wrong,
                    "fall": n_wrong / 200,
                    "fall_low": n_wrong / 200 * 0.6,
                    "fall_high": n_wrong / 200 * 1.5,
                    "p_value": 0.001,
                    "q_value": 0.002 * (n + 1),
                    "layer": "RandomContrast",
                    "arguments": json.dumps({"factor": 0.1 * strength}),
                }
            )
    return pd.DataFrame(rows)


def _findings(folder: RunFolder, errors: np.ndarray) -> list[dict[str, Any]]:
    n_errors = len(errors)
    patterns = folder.read_table("patterns")["pattern"].tolist()
    wanted = [
        ("pattern", HOSTILE_TEXT, "patterns", int(number), "share of its errors that turn right")
        for number in patterns[:1]
    ]
    wanted += [
        ("slice", f"Errors are 2.6 times as common: {HOSTILE_SLICE}.", "slices", 1, "times more"),
        ("label", "2 images may have a wrong label.", "label_issues", "suspected label", "labels"),
        ("probe", "Contrast turns 18 % wrong.", "probes", "contrast, strength 3", "share of them"),
        ("imbalance", "Class 0 is wrong twice as often.", "class_metrics", "y_true=0", "times all"),
        ("unreadable", "1 file could not be read.", "unreadable", "unreadable", "share of files"),
    ]
    return [
        {
            "id": f"F{number}",
            "kind": kind,
            "text": text,
            "n_errors": max(0, n_errors - 3 * number),
            "share_of_errors": max(0, n_errors - 3 * number) / max(n_errors, 1),
            "estimate": {"value": 0.625, "low": 0.41, "high": 0.84, "what": what},
            "q_value": None if kind in ("label", "unreadable") else 0.0003 * number,
            "confirmed_by": "a paired test <i>with</i> false-discovery control",
            "evidence": {"table": table, "key": key},
            "images": errors[: 12 - number].tolist(),
            "score": 10.0 - number,
        }
        for number, (kind, text, table, key, what) in enumerate(wanted, start=1)
    ]


def _targets(
    folder: RunFolder,
    findings: list[dict[str, Any]],
    errors: np.ndarray,
    y_true: np.ndarray,
    y_pred: np.ndarray,
) -> list[dict[str, Any]]:
    """Write the manifests and return the targets: one with many images, one with a lost file."""
    right = np.flatnonzero(y_true == y_pred)
    paths = folder.read_table("images").set_index("image_id")["path"]
    tables = []
    targets = []
    binary = folder.read_metrics()["binary"] is not None
    kinds = ("collect", "augment", "threshold" if binary else "rebalance", "review")
    for number, kind in enumerate(kinds, start=1):
        ids = [*errors[number - 1 :].tolist(), *right[: 4 * number].tolist()]
        rows = [
            {
                "target": f"T{number}",
                "kind": kind,
                "image_id": i,
                "path": paths[i],
                "y_true": int(y_true[i]),
                "y_pred": int(y_pred[i]),
                "role": "error" if y_true[i] != y_pred[i] else "control",
            }
            for i in ids
        ]
        if kind == "review":
            lost = {"image_id": None, "y_true": None, "y_pred": None, "role": "unreadable"}
            rows = [rows[0] | lost | {"path": "broken/<b>torn</b>.jpg"}, *rows[:2]]
        table = pd.DataFrame(rows).astype(dict.fromkeys(("image_id", "y_true", "y_pred"), "Int64"))
        tables.append(table)
        title = f'{kind.title()} <b>more</b> \u202e "of these" & those'
        write_json(
            folder.path / "targets" / f"T{number}.json",
            {"target": f"T{number}", "images": json.loads(table.to_json(orient="records"))},
        )
        table.to_csv(folder.path / "targets" / f"T{number}.csv", index=False)
        targets.append(
            {
                "id": f"T{number}",
                "kind": kind,
                "title": title,
                "text": f"Do it: {HOSTILE_TEXT}",
                "findings": [finding["id"] for finding in findings[number - 1 : number + 1]],
                "n_images": len(rows),
                "gain": {
                    "value": 9.4 if number < 4 else 0,
                    "low": 6.2 if number < 4 else 0,
                    "high": 12.9 if number < 4 else 0,
                    "what": "errors that could go away, at most",
                },
                "refuted_by": "If <they> stay, it was not that.",
                "recipe": HOSTILE_RECIPE if kind == "augment" else None,
                "cost_curve": [
                    {"threshold": t / 10, "fp": 20 - 2 * t, "fn": 2 * t} for t in range(1, 10)
                ]
                if kind == "threshold"
                else None,
                "manifest": f"targets/T{number}.csv",
            }
        )
    pd.concat(tables, ignore_index=True).to_csv(folder.path / "targets.csv", index=False)
    return targets
