"""A small but complete run folder, drawn rather than audited, for tests of the report.

Every image is a square in one of the corners; the maps of an error glow on the left edge or in the
lower right corner, so that there are two focus patterns. Names are hostile on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from diagnosis_fixture import PER_PATTERN, tested_pattern, write_diagnosis

from audit.config import AuditConfig
from audit.predict.metrics import compute_metrics
from audit.run_folder import (
    FORMAT_VERSION,
    FUSED_LAYER,
    Receipt,
    RunFolder,
    fixed_list,
    to_arrow,
)
from audit.schemas import FOCUS_STAGE, SCHEMAS, embeddings_schema, predictions_schema

HOSTILE_NAMES = (
    '</script><script>document.title="stolen"</script>',
    "{{ 7 * 7 }} \"double\" 'single' & <i>tag</i>",
    "\u202egnp.tac\u202c " + "long name " * 30,
)
HOSTILE_PATH = "../..//<img src=x onerror=alert(1)>/\u202egpj.exe\n" + "deep/" * 40
LEFT_OUT = (
    ("broken/<b>torn</b>.jpg", "unreadable", "Unexpected end of file"),
    ("notes.txt", "skipped", "its name does not end in .bmp, .gif, .jpeg, .jpg or .png"),
    ("drawing.webp", "skipped", "its name does not end in .bmp, .gif, .jpeg, .jpg or .png"),
)
SIDE = 96
SHARD = 40
WIDTH = 8
"""Channels of the features before the drawn model's head."""
EMPTY_ERROR = 3
"""The position among the errors whose predicted class nothing speaks for."""


@dataclass(frozen=True)
class Sizes:
    """How large the run is."""

    n_images: int = 300
    n_errors: int = 30
    n_layers: int = 20


@dataclass(frozen=True)
class Labels:
    """What is true and what the model says, int arrays of shape (n_images,)."""

    y_true: np.ndarray
    y_pred: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return np.flatnonzero(self.y_true != self.y_pred)

    @property
    def controls(self) -> np.ndarray:
        """As many correct images as there are errors."""
        return np.flatnonzero(self.y_true == self.y_pred)[: len(self.errors)]

    @property
    def explained(self) -> np.ndarray:
        return np.sort(np.concatenate([self.errors, self.controls]))

    def is_empty(self, image_id: int, explained_class: int) -> bool:
        """Whether nothing speaks for this class in the fused map."""
        chosen = self.errors[EMPTY_ERROR : EMPTY_ERROR + 1]
        return image_id in chosen and explained_class == self.y_pred[image_id]


def write_run(
    path: Path,
    class_names: Sequence[str] = HOSTILE_NAMES,
    sizes: Sizes | None = None,
    *,
    explained: bool = True,
    patterns: bool = True,
    diagnosed: bool = True,
) -> RunFolder:
    """Write a run folder and return it.

    Args:
        path: where; created if missing.
        class_names: two names make a model with a positive class.
        sizes: how many images, errors and layers.
        explained: whether there are heat-maps; without, the run looks as if it had stopped early.
        patterns: whether the errors fall into patterns.
        diagnosed: whether the run came to causes, slices, labels, probes, findings and targets.
    """
    sizes = sizes or Sizes()
    folder = RunFolder(path)
    rng = np.random.default_rng(7)
    y_true, scores = _draw_scores(rng, len(class_names), sizes)
    labels = Labels(y_true, scores.argmax(axis=1))
    _write_images(folder, y_true)
    _write_predictions(folder, labels, scores)
    positive = 1 if len(class_names) == 2 else None
    metrics = compute_metrics(
        y_true, labels.y_pred, scores, class_names, positive=positive, threshold=0.5
    )
    folder.write_metrics(metrics.summary)
    folder.write_table("class_metrics", metrics.classes)
    folder.write_table("confusion", metrics.confusion)
    folder.write_table("unreadable", pd.DataFrame(LEFT_OUT, columns=["path", "kind", "reason"]))
    _write_embeddings(folder, labels)
    if explained:
        _write_explanations(folder, rng, labels, sizes.n_layers)
        _write_focus_embeddings(folder, labels)
        _write_patterns(folder, labels, patterns and len(labels.errors) > 0, diagnosed)
        if diagnosed:
            write_diagnosis(folder, labels.y_true, labels.y_pred)
    _write_manifest(folder, class_names, sizes.n_images, explained)
    return folder


def _draw_scores(
    rng: np.random.Generator, n_classes: int, sizes: Sizes
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (n,) and scores (n, n_classes), exactly `n_errors` of them wrong."""
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
            "camera": ["<b>north</b>", "south \u202eeast"] * (n_images // 2)
            + ["x"] * (n_images % 2),
            "exposure </td>": np.linspace(0.1, 3, n_images),
            "y_pred": ["mine, not yours"] * n_images,
        }
    )
    folder.write_table("images", frame)


def _write_predictions(folder: RunFolder, labels: Labels, scores: np.ndarray) -> None:
    y_true, y_pred = labels.y_true, labels.y_pred
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


def _write_embeddings(folder: RunFolder, labels: Labels) -> None:
    """Write features that lean towards the class that the model says, in shards of 120 images."""
    rng = np.random.default_rng(11)
    ids = np.arange(len(labels.y_true))
    vectors = np.abs(rng.normal(size=(len(ids), WIDTH))).astype(np.float32)
    vectors[ids, labels.y_pred % WIDTH] += 1
    for index, start in enumerate(range(0, len(ids), 3 * SHARD)):
        part = slice(start, start + 3 * SHARD)
        table = pa.Table.from_arrays(
            [pa.array(ids[part]), fixed_list(vectors[part])], schema=embeddings_schema(WIDTH)
        )
        folder.write_shard("embeddings", index, table, Receipt("embeddings", index, len(table)))


def _write_focus_embeddings(folder: RunFolder, labels: Labels) -> None:
    """Write what is under each fused map: of length 1, all zeros for an empty map."""
    rng = np.random.default_rng(13)
    for index, start in enumerate(range(0, len(labels.explained), SHARD)):
        part = labels.explained[start : start + SHARD]
        keys = [(int(i), c) for i in part for c in _classes_of(labels, i)]
        vectors = np.abs(rng.normal(size=(len(keys), 2 * WIDTH))).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[[labels.is_empty(*key) for key in keys]] = 0
        table = pa.table(
            {
                "image_id": pa.array([i for i, _ in keys], pa.int64()),
                "explained_class": pa.array([c for _, c in keys], pa.int32()),
                "layer_agreement": pa.array(np.ones(len(keys), np.float32)),
                "embedding": fixed_list(vectors),
                "elsewhere": fixed_list(vectors[::-1]),
            }
        )
        folder.write_shard(FOCUS_STAGE, index, table, Receipt(FOCUS_STAGE, index, len(part)))


def _layer_table(n_layers: int) -> pd.DataFrame:
    rows = []
    for n in range(n_layers):
        stage = min(3, n * 4 // n_layers)
        side = 48 >> stage
        name = f"block_{stage}_layer_{n} <conv>"
        kind = ("Conv2D", "BatchNormalization", "ReLU")[n % 3]
        stored = min(side, 28)
        size = (side, side, 16, stored, stored)
        rows.append((name, f"backbone/{name}", kind, *size, stage, n, True, ""))
    pool = ("pool", "backbone/pool", "AveragePooling2D", 1, 1, 64, 0, 0, 3, n_layers, False)
    rows.append((*pool, "it has no width and height"))
    fused = (FUSED_LAYER, FUSED_LAYER, "fusion", 32, 32, 1, 32, 32, 4, n_layers + 1, True, "")
    rows.append(fused)
    return pd.DataFrame(rows, columns=SCHEMAS["layers"].names)


def _write_explanations(
    folder: RunFolder, rng: np.random.Generator, labels: Labels, n_layers: int
) -> None:
    layers = _layer_table(n_layers)
    folder.write_table("layers", layers)
    kept = [*layers[layers["kept"]].itertuples()]
    for index, start in enumerate(range(0, len(labels.explained), SHARD)):
        part = labels.explained[start : start + SHARD]
        rows = [
            _explanation(rng, int(image_id), explained_class, layer, labels)
            for image_id in part
            for explained_class in _classes_of(labels, image_id)
            for layer in kept
        ]
        pictures = [
            (image_id, SIDE, SIDE, draw_picture(int(image_id), int(labels.y_true[image_id])))
            for image_id in part
        ]
        _write_shard(folder, "explanations", index, rows, len(part))
        _write_shard(folder, "thumbnails", index, pictures, len(part))


def _write_shard(folder: RunFolder, stage: str, index: int, rows: list, n_images: int) -> None:
    frame = pd.DataFrame(rows, columns=SCHEMAS[stage].names)
    table = to_arrow(frame, SCHEMAS[stage])
    folder.write_shard(stage, index, table, Receipt(stage, index, n_images))


def _classes_of(labels: Labels, image_id: int) -> list[int]:
    return sorted({int(labels.y_true[image_id]), int(labels.y_pred[image_id])})


def _explanation(
    rng: np.random.Generator, image_id: int, explained_class: int, layer: Any, labels: Labels
) -> tuple:
    """Return a row: glowing left for odd images, lower right for even ones, and some noise."""
    height, width = layer.stored_height, layer.stored_width
    key = (image_id, explained_class, layer.layer, height, width)
    if layer.layer == FUSED_LAYER and labels.is_empty(image_id, explained_class):
        return (*key, np.float32("nan"), bytes(height * width))
    ys, xs = np.mgrid[0:height, 0:width] / max(height - 1, 1)
    bar = np.exp(-((xs - 0.12) ** 2) / 0.02)
    corner = np.exp(-((xs - 0.8) ** 2 + (ys - 0.75) ** 2) / 0.04)
    glow = bar if image_id % 2 else corner
    if explained_class == labels.y_true[image_id]:
        glow = np.roll(glow, height // 3, axis=0)
    cam = glow + 0.25 * rng.random((height, width))
    cam = np.rint(255 * cam / cam.max()).astype(np.uint8)
    strength = 1.0 if explained_class == labels.y_pred[image_id] else 0.6
    return (*key, np.float32(strength * (1 + layer.order) * 0.1), cam.tobytes())


def draw_picture(image_id: int, label: int) -> bytes:
    """Return a JPEG of a grey field with a square whose corner is the class."""
    picture = np.full((SIDE, SIDE, 3), 170, np.uint8)
    picture[:, :, 0] += np.arange(SIDE, dtype=np.uint8)[None, :] // 2
    x, y = (8 + 44 * (label % 2), 8 + 44 * (label // 2 % 2))
    cv2.rectangle(picture, (x, y), (x + 32, y + 32), (60, 90 + image_id % 100, 200), -1)
    cv2.circle(picture, (48, 48), 6 + image_id % 9, (40, 40, 40), 2)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(jpeg)


def _write_patterns(folder: RunFolder, labels: Labels, found: bool, tested: bool) -> None:
    """Put odd images into pattern 1 and even ones into 2, but for every seventh and empty maps.

    Of the images that are right only every third is in a pattern.
    """
    focus = pd.DataFrame(
        [
            (int(image_id), explained_class)
            for image_id in labels.explained
            for explained_class in _classes_of(labels, image_id)
        ],
        columns=["image_id", "explained_class"],
    )
    ids = focus["image_id"].to_numpy(int)
    focus["y_true"], focus["y_pred"] = labels.y_true[ids], labels.y_pred[ids]
    focus["role"] = np.where(focus["y_true"] == focus["y_pred"], "control", "error")
    focus["is_predicted"] = focus["explained_class"] == focus["y_pred"]
    pairs = zip(ids, focus["explained_class"], strict=True)
    focus["is_empty"] = [labels.is_empty(i, c) for i, c in pairs]
    grouped = found & focus["is_predicted"] & ~focus["is_empty"] & (ids % 7 != 0)
    grouped &= (focus["role"] == "error") | (ids % 3 == 0)
    focus["pattern"] = np.where(grouped, np.where(ids % 2, 1, 2), -1)
    folder.write_table("focus", focus)
    rows = [_pattern_row(focus, number, labels, tested) for number in ((1, 2) if found else ())]
    columns = (*PATTERN_COLUMNS, *(PER_PATTERN if tested else ()))
    folder.write_table("patterns", pd.DataFrame(rows, columns=columns))


PATTERN_COLUMNS = (
    *("pattern", "name", "kind", "n_errors", "share_of_errors", "n_controls", "control_share"),
    *("n_true_controls", "true_control_share", "lift", "lift_low", "lift_high", "p_value"),
    *("q_value", "stability", "confusions", "exemplars"),
    *("mean_height", "mean_width", "mean_map", "centre_x", "n_blobs", "verdict"),
)


def _pattern_row(focus: pd.DataFrame, number: int, labels: Labels, tested: bool) -> dict[str, Any]:
    chosen = focus[focus["pattern"] == number]
    members, controls = chosen[chosen["role"] == "error"], chosen[chosen["role"] == "control"]
    share = len(members) / len(labels.errors)
    control_share = len(controls) / len(labels.controls)
    lift = share / max(control_share, 0.01)
    counts = members.value_counts(["y_true", "y_pred"]).sort_index()
    xs = np.tile(np.arange(8), (8, 1))
    mean_map = 255 - 36 * xs if number == 1 else 36 * xs * np.arange(8)[:, None] // 8
    return {
        "pattern": number,
        "name": "left edge, upright" if number == 1 else "lower right corner, small",
        "kind": "place" if number == 1 else "both",
        "n_errors": len(members),
        "share_of_errors": share,
        "n_controls": len(controls),
        "control_share": control_share,
        "n_true_controls": len(controls) // 2,
        "true_control_share": len(controls) // 2 / len(labels.controls),
        "lift": lift,
        "lift_low": lift * 0.6,
        "lift_high": lift * 1.7,
        "p_value": 0.001 * number,
        "q_value": 0.002 * number,
        "stability": 0.91,
        "confusions": [
            {"y_true": int(y_true), "y_pred": int(y_pred), "count": int(count)}
            for (y_true, y_pred), count in counts.items()
        ],
        "exemplars": members["image_id"].head(10).tolist(),
        "mean_height": 8,
        "mean_width": 8,
        "mean_map": mean_map.astype(np.uint8).tobytes(),
        "centre_x": 0.2,
        "n_blobs": 1.0,
        "verdict": "not tested",
        **(tested_pattern(members["image_id"].to_numpy(int), number) if tested else {}),
    }


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
        "data": {
            "name": "val & more",
            "kind": "folders",
            "n_images": n_images,
            "n_skipped": 2,
            "n_unreadable": 1,
        },
        "config": AuditConfig().model_dump(),
        "class_names": list(class_names),
        "positive_class": class_names[1] if len(class_names) == 2 else None,
        "input": {
            "height": SIDE,
            "width": SIDE,
            "channels": 3,
            "scaling": "none",
            "aspect": "stretch",
        },
        "head": {"kind": "softmax", "explained": "The logit of the class, before the softmax."},
        "fingerprints": {"model": "ab" * 32, "data": "cd" * 32},
        "versions": {
            "python": "3.11.9",
            "tensorflow": "2.21.0",
            "keras": "3.15.1",
            "numpy": "2.4.0",
        },
        "scaling_check": {
            "n_images": 64,
            "accuracies": {"none": 0.9, "0-1": 0.97, "-1-1": 0.5},
            "suggested": "0-1",
        },
        "warnings": [
            {"kind": "empty", "text": "1 fused map is empty: nothing speaks for its class."},
            {
                "kind": "scaling",
                "text": "With --scaling 0-1 a sample of 64 images scores 97 % instead of 90 %.",
            },
        ],
        "stages": stages,
    }
    folder.write_manifest(manifest)
