"""A small but complete run folder, drawn rather than audited, for tests of the report.

Every image is a square in one of the corners; the maps of an error glow on the left edge or in the
lower right corner, so that there are two focus patterns. Names are hostile on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from audit.config import AuditConfig
from audit.predict.metrics import compute_metrics
from audit.run_folder import (
    FORMAT_VERSION,
    FUSED_LAYER,
    SCHEMAS,
    Receipt,
    RunFolder,
    fixed_list,
    predictions_schema,
    to_arrow,
)

HOSTILE_NAMES = (
    '</script><script>document.title="stolen"</script>',
    "{{ 7 * 7 }} \"double\" 'single' & <i>tag</i>",
    "\u202egnp.tac\u202c " + "long name " * 30,
)
HOSTILE_PATH = "../..//<img src=x onerror=alert(1)>/\u202egpj.exe\n" + "deep/" * 40
SIDE = 96
SHARD = 40
EMPTY_ERROR = 3
"""The position among the errors whose predicted class nothing speaks for."""


@dataclass(frozen=True)
class Sizes:
    """How large the run is."""

    n_images: int = 300
    n_errors: int = 30
    n_layers: int = 20


def write_run(
    path: Path,
    class_names: Sequence[str] = HOSTILE_NAMES,
    sizes: Sizes | None = None,
    *,
    explained: bool = True,
    patterns: bool = True,
) -> RunFolder:
    """Write a run folder and return it.

    Args:
        path: where; created if missing.
        class_names: two names make a model with a positive class.
        sizes: how many images, errors and layers.
        explained: whether there are heat-maps; without, the run looks as if it had stopped early.
        patterns: whether the errors fall into patterns.
    """
    sizes = sizes or Sizes()
    folder = RunFolder(path)
    rng = np.random.default_rng(7)
    y_true, scores = _draw_scores(rng, len(class_names), sizes)
    y_pred = scores.argmax(axis=1)
    _write_images(folder, y_true)
    _write_predictions(folder, y_true, y_pred, scores)
    binary = len(class_names) == 2
    metrics = compute_metrics(
        y_true, y_pred, scores, class_names, positive=1 if binary else None, threshold=0.5
    )
    folder.write_metrics(metrics.summary)
    folder.write_table("class_metrics", metrics.classes)
    folder.write_table("confusion", metrics.confusion)
    unreadable = [
        ("broken/<b>torn</b>.jpg", "unreadable", "Unexpected end of file"),
        ("notes.txt", "skipped", "its name does not end in .bmp, .gif, .jpeg, .jpg or .png"),
        ("drawing.webp", "skipped", "its name does not end in .bmp, .gif, .jpeg, .jpg or .png"),
    ]
    folder.write_table("unreadable", pd.DataFrame(unreadable, columns=["path", "kind", "reason"]))
    if explained:
        _write_explanations(folder, rng, y_true, y_pred, sizes.n_layers)
        _write_patterns(folder, y_true, y_pred, patterns)
    _write_manifest(folder, class_names, sizes.n_images, explained)
    return folder


def _draw_scores(
    rng: np.random.Generator, n_classes: int, sizes: Sizes
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of shape (n,) and scores of shape (n, n_classes) with exactly n_errors wrong."""
    y_true = np.arange(sizes.n_images) % n_classes
    wrong = rng.choice(sizes.n_images, sizes.n_errors, replace=False)
    y_pred = y_true.copy()
    y_pred[wrong] = (y_true[wrong] + rng.integers(1, n_classes, sizes.n_errors)) % n_classes
    confidence = rng.uniform(0.55, 0.999, sizes.n_images)
    rest = rng.uniform(0.1, 1, (sizes.n_images, n_classes))
    rest[np.arange(sizes.n_images), y_pred] = 0
    rest *= (1 - confidence)[:, None] / rest.sum(axis=1, keepdims=True)
    rest[np.arange(sizes.n_images), y_pred] = confidence
    return y_true, rest.astype(np.float32)


def _write_images(folder: RunFolder, y_true: np.ndarray) -> None:
    n_images = len(y_true)
    paths = [f"class {label}/image <{n:03d}> & more.png" for n, label in enumerate(y_true)]
    paths[0] = HOSTILE_PATH
    frame = pd.DataFrame(
        {
            "image_id": np.arange(n_images),
            "path": paths,
            "y_true": y_true.astype(np.int32),
            "camera": ["<b>north</b>", "south \u202eeast"] * (n_images // 2) + ["x"] * (n_images % 2),
            "exposure </td>": np.linspace(0.1, 3, n_images),
            "y_pred": ["mine, not yours"] * n_images,
        }
    )
    folder.write_table("images", frame)


def _write_predictions(
    folder: RunFolder, y_true: np.ndarray, y_pred: np.ndarray, scores: np.ndarray
) -> None:
    ids = np.arange(len(y_true))
    highest = np.sort(scores, axis=1)
    table = pa.Table.from_arrays(
        [
            pa.array(ids),
            pa.array(y_pred.astype(np.int32)),
            pa.array(scores[ids, y_true]),
            pa.array(scores[ids, y_pred]),
            pa.array(highest[:, -1] - highest[:, -2]),
            fixed_list(scores),
        ],
        schema=predictions_schema(scores.shape[1]),
    )
    half = len(ids) // 2
    for index, part in enumerate((table.slice(0, half), table.slice(half))):
        folder.write_shard("predictions", index, part, Receipt("predictions", index, len(part)))


def _layer_table(n_layers: int) -> pd.DataFrame:
    rows = []
    for n in range(n_layers):
        stage = min(3, n * 4 // n_layers)
        side = 48 >> stage
        name = f"block_{stage}_layer_{n} <conv>"
        kind = ("Conv2D", "BatchNormalization", "ReLU")[n % 3]
        rows.append((name, f"backbone/{name}", kind, side, side, 16, min(side, 28), min(side, 28), stage, n, True, ""))
    rows.append(("pool", "backbone/pool", "AveragePooling2D", 1, 1, 64, 0, 0, 3, n_layers, False, "it has no width and height"))
    rows.append((FUSED_LAYER, FUSED_LAYER, "fusion", 32, 32, 1, 32, 32, 4, n_layers + 1, True, ""))
    return pd.DataFrame(rows, columns=SCHEMAS["layers"].names)


def _write_explanations(
    folder: RunFolder,
    rng: np.random.Generator,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    n_layers: int,
) -> None:
    layers = _layer_table(n_layers)
    folder.write_table("layers", layers)
    kept = layers[layers["kept"]]
    errors = np.flatnonzero(y_true != y_pred)
    controls = np.flatnonzero(y_true == y_pred)[: len(errors)]
    ids = np.sort(np.concatenate([errors, controls]))
    for index, start in enumerate(range(0, len(ids), SHARD)):
        part = ids[start : start + SHARD]
        rows = [
            (i, c, layer.layer, layer.stored_height, layer.stored_width, *_map(rng, i, c, layer, y_true, y_pred, errors))
            for i in part
            for c in sorted({int(y_true[i]), int(y_pred[i])})
            for layer in kept.itertuples()
        ]
        frame = pd.DataFrame(rows, columns=SCHEMAS["explanations"].names)
        receipt = Receipt("explanations", index, len(part))
        folder.write_shard("explanations", index, to_arrow(frame, SCHEMAS["explanations"]), receipt)
        pictures = [(i, SIDE, SIDE, _draw_picture(int(i), int(y_true[i]))) for i in part]
        frame = pd.DataFrame(pictures, columns=SCHEMAS["thumbnails"].names)
        folder.write_shard(
            "thumbnails", index, to_arrow(frame, SCHEMAS["thumbnails"]), Receipt("thumbnails", index, len(part))
        )


def _map(rng, image_id, explained_class, layer, y_true, y_pred, errors):
    """Return peak and cam: glowing left for odd images, lower right for even ones, noise elsewhere."""
    height, width = layer.stored_height, layer.stored_width
    is_empty = image_id == errors[EMPTY_ERROR] and explained_class == y_pred[image_id]
    if is_empty and layer.layer == FUSED_LAYER:
        return float("nan"), bytes(height * width)
    ys, xs = np.mgrid[0:height, 0:width] / max(height - 1, 1)
    bar = np.exp(-((xs - 0.12) ** 2) / 0.02)
    corner = np.exp(-((xs - 0.8) ** 2 + (ys - 0.75) ** 2) / 0.04)
    glow = bar if image_id % 2 else corner
    if explained_class == y_true[image_id]:
        glow = np.roll(glow, height // 3, axis=0)
    cam = glow + 0.25 * rng.random((height, width))
    cam = np.rint(255 * cam / cam.max()).astype(np.uint8)
    peak = (1.0 if explained_class == y_pred[image_id] else 0.6) * (1 + layer.order) * 0.1
    return np.float32(peak), cam.tobytes()


def _draw_picture(image_id: int, label: int) -> bytes:
    """Return a JPEG of a grey field with a square whose corner is the class."""
    picture = np.full((SIDE, SIDE, 3), 170, np.uint8)
    picture[:, :, 0] += np.arange(SIDE, dtype=np.uint8)[None, :] // 2
    x, y = (8 + 44 * (label % 2), 8 + 44 * (label // 2 % 2))
    cv2.rectangle(picture, (x, y), (x + 32, y + 32), (60, 90 + image_id % 100, 200), -1)
    cv2.circle(picture, (48, 48), 6 + image_id % 9, (40, 40, 40), 2)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(jpeg)


def _write_patterns(folder: RunFolder, y_true: np.ndarray, y_pred: np.ndarray, found: bool) -> None:
    errors = np.flatnonzero(y_true != y_pred)
    controls = np.flatnonzero(y_true == y_pred)[: len(errors)]
    rows = []
    for image_id in np.sort(np.concatenate([errors, controls])):
        is_error = y_true[image_id] != y_pred[image_id]
        is_empty = image_id == errors[min(EMPTY_ERROR, len(errors) - 1)]
        for explained_class in sorted({int(y_true[image_id]), int(y_pred[image_id])}):
            is_predicted = explained_class == y_pred[image_id]
            grouped = found and is_predicted and not is_empty and image_id % 7 != 0
            pattern = (1 if image_id % 2 else 2) if grouped else -1
            rows.append((image_id, explained_class, "error" if is_error else "control", y_true[image_id], y_pred[image_id], is_predicted, is_empty and is_predicted, pattern))
    columns = ["image_id", "explained_class", "role", "y_true", "y_pred", "is_predicted", "is_empty", "pattern"]
    focus = pd.DataFrame(rows, columns=columns)
    folder.write_table("focus", focus)
    numbers = (1, 2) if found else ()
    patterns = [_pattern_row(focus, number, len(errors), len(controls)) for number in numbers]
    folder.write_table("patterns", pd.DataFrame(patterns, columns=_PATTERN_COLUMNS))


_PATTERN_COLUMNS = [
    "pattern", "name", "n_errors", "share_of_errors", "n_controls", "control_share", "lift", "lift_low",
    "lift_high", "stability", "confusions", "exemplars", "mean_height", "mean_width", "mean_map",
    "centre_x", "verdict",
]  # fmt: skip


def _pattern_row(focus: pd.DataFrame, number: int, n_errors: int, n_controls: int) -> tuple:
    members = focus[(focus["role"] == "error") & (focus["pattern"] == number)]
    n_control = int(((focus["role"] == "control") & (focus["pattern"] == number)).sum())
    share, control_share = len(members) / n_errors, n_control / n_controls
    counts = members.value_counts(["y_true", "y_pred"]).sort_index().sort_values(ascending=False, kind="stable")
    confusions = [{"y_true": int(t), "y_pred": int(p), "count": int(n)} for (t, p), n in counts.items()]
    xs = np.tile(np.arange(8), (8, 1))
    mean_map = 255 - 36 * xs if number == 1 else 36 * xs * np.arange(8)[:, None] // 8
    return (
        number, "left edge, upright" if number == 1 else "lower right corner, small", len(members), share,
        n_control, control_share, share / control_share, share / control_share * 0.6,
        share / control_share * 1.7, 0.91, confusions, members["image_id"].head(10).tolist(), 8, 8,
        mean_map.astype(np.uint8).tobytes(), 0.2, "not tested",
    )  # fmt: skip


def _write_manifest(
    folder: RunFolder, class_names: Sequence[str], n_images: int, explained: bool
) -> None:
    done = {"state": "done", "seconds": 1.25}
    stages = {"list": {"state": "done", "seconds": 0.04}, "predict": done, "metrics": done}
    if explained:
        stages |= {"explain": {"state": "done", "seconds": 75.5}, "patterns": done}
    manifest = {
        "format_version": FORMAT_VERSION,
        "status": "done" if explained else "running",
        "program": {"name": "gradcam-audit", "version": "0.1.0"},
        "started": "2026-03-01T20:15:00+00:00",
        "finished": "2026-03-01T20:17:00+00:00",
        "model": {"name": "corners <model>.keras", "n_parameters": 123456},
        "data": {"name": "val & more", "kind": "folders", "n_images": n_images, "n_skipped": 2, "n_unreadable": 1},
        "config": AuditConfig().model_dump(),
        "class_names": list(class_names),
        "positive_class": class_names[1] if len(class_names) == 2 else None,
        "input": {"height": SIDE, "width": SIDE, "channels": 3, "scaling": "none", "aspect": "stretch"},
        "head": {"kind": "softmax", "explained": "The logit of the class, before the softmax."},
        "fingerprints": {"model": "ab" * 32, "data": "cd" * 32},
        "versions": {"python": "3.11.9", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.0"},
        "scaling_check": {"n_images": 64, "accuracies": {"none": 0.9, "0-1": 0.97, "-1-1": 0.5}, "suggested": "0-1"},
        "warnings": [
            {"kind": "empty", "text": "1 fused map is empty: nothing speaks for its class."},
            {"kind": "scaling", "text": "With --scaling 0-1 a sample of 64 images scores 97 % instead of 90 %."},
        ],
        "stages": stages,
    }
    folder.write_manifest(manifest)
