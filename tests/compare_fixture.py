"""Run folders written by hand, for tests of comparisons: no model, no images, no TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from audit.predict.properties import MEASURES
from audit.predict.properties import SCHEMA as PROPERTIES
from audit.run_folder import FORMAT_VERSION, FUSED_LAYER, Receipt, RunFolder, fixed_list, to_arrow
from audit.schemas import SCHEMAS, predictions_schema

NAMES = ("cats", "dogs")
SIDE = 8


def write_run(
    path: Path,
    y_true: Sequence[int],
    scores: np.ndarray,
    *,
    class_names: Sequence[str] = NAMES,
    paths: Sequence[str] | None = None,
    contents: Sequence[int] | None = None,
    metadata: Mapping[str, Sequence[Any]] | None = None,
    patterns: Mapping[int, Sequence[int]] | None = None,
    kind: str = "place",
    maps: Mapping[tuple[int, int], np.ndarray] | None = None,
    repaired: Mapping[int, bool] | None = None,
    slices: Sequence[Mapping[str, Any]] = (),
    pictures: Sequence[int] = (),
    **manifest: Any,
) -> Path:
    """Write a finished run.

    Args:
        scores: of shape (n, n_classes); the highest is the prediction.
        contents: a number for what each image shows, by default its position; without any, no
            properties are written.
        metadata: columns of the user's own.
        patterns: the errors of each pattern, by number; all of one `kind`.
        maps: fused maps, uint8, by image and class.
        repaired: errors that were painted out, and whether they turned right.
        slices: rows of `slices.parquet` with name, kind, conditions and confirmed.
        pictures: images of which what the model saw is kept.
        manifest: entries to be changed.
    """
    folder, n = RunFolder(path), len(y_true)
    folder.write_manifest(
        {
            "format_version": FORMAT_VERSION,
            "status": "done",
            "class_names": list(class_names),
            "positive_class": class_names[1] if len(class_names) == 2 else None,
            "model": {"name": f"{path.name}.keras"},
            "config": {"seed": 0, "method": "gradcam"},
            "input": {"height": SIDE, "width": SIDE, "channels": 3},
        }
        | manifest
    )
    y_true, y_pred = np.asarray(y_true), np.asarray(scores).argmax(axis=1)
    names = [f"{i:04d}.png" for i in range(n)] if paths is None else list(paths)
    images = pd.DataFrame({"image_id": range(n), "path": names, "y_true": y_true.astype(np.int32)})
    folder.write_table("images", images.assign(**(metadata or {})))
    _write_predictions(folder, y_true, y_pred, np.asarray(scores, np.float32))
    if contents is None:
        contents = range(n)
    if len(contents):
        _write_properties(folder, contents)
    _write_patterns(folder, y_true, y_pred, patterns or {}, kind)
    _write_maps(folder, maps or {})
    _write_pictures(folder, pictures)
    _write_causes(folder, y_true, y_pred, repaired or {})
    columns = ["name", "kind", "conditions", "confirmed"]
    folder.write_table("slices", pd.DataFrame(list(slices), columns=columns))
    return path


def binary_scores(p_dogs: Sequence[float]) -> np.ndarray:
    """Return float32 of shape (n, 2) for the probabilities of the second class."""
    p = np.asarray(p_dogs, np.float32)
    return np.stack([1 - p, p], axis=1)


def condition(column: str, **bounds: Any) -> dict[str, Any]:
    """Return a condition of a slice."""
    return {"column": column, "low": None, "high": None, "value": None} | bounds


def _write_predictions(
    folder: RunFolder, y_true: np.ndarray, y_pred: np.ndarray, scores: np.ndarray
) -> None:
    n, n_classes = scores.shape
    rows = np.arange(n)
    ordered = np.sort(scores, axis=1)
    columns = [
        pa.array(rows, pa.int64()),
        pa.array(y_pred, pa.int32()),
        pa.array(scores[rows, y_true]),
        pa.array(scores[rows, y_pred]),
        pa.array(ordered[:, -1] - ordered[:, -2]),
        fixed_list(scores),
    ]
    table = pa.table(columns, schema=predictions_schema(n_classes))
    folder.write_shard("predictions", 0, table, Receipt("predictions", 0, n))


def _write_properties(folder: RunFolder, contents: Sequence[int]) -> None:
    looks = [np.random.default_rng(content) for content in contents]
    frame = pd.DataFrame(
        {
            "image_id": range(len(contents)),
            "width": 40,
            "height": 30,
            "file_size": [1000 + content for content in contents],
            **{name: [float(look.random()) for look in looks] for name in MEASURES},
            "hash": [look.integers(0, 2**64, dtype=np.uint64) for look in looks],
        }
    )
    receipt = Receipt("properties", 0, len(contents))
    folder.write_shard("properties", 0, to_arrow(frame, PROPERTIES), receipt)


def _write_patterns(
    folder: RunFolder,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    patterns: Mapping[int, Sequence[int]],
    kind: str,
) -> None:
    pattern_of = {image: number for number, errors in patterns.items() for image in errors}
    ids = np.flatnonzero(y_true != y_pred).tolist()
    focus = pd.DataFrame(
        {
            "image_id": ids,
            "role": "error",
            "is_predicted": True,
            "pattern": [pattern_of.get(image, -1) for image in ids],
        }
    ).astype({"image_id": np.int64, "is_predicted": bool, "pattern": np.int32})
    folder.write_table("focus", focus)
    mean_map = np.zeros((SIDE, SIDE), np.uint8)
    mean_map[:, :2] = 255  # The left quarter.
    rows = [
        (
            number,
            f"pattern {number}",
            kind,
            len(errors),
            "not tested",
            SIDE,
            SIDE,
            mean_map.tobytes(),
        )
        for number, errors in patterns.items()
    ]
    columns = ["pattern", "name", "kind", "n_errors", "verdict"]
    columns += ["mean_height", "mean_width", "mean_map"]
    folder.write_table("patterns", pd.DataFrame(rows, columns=columns))


def _write_maps(folder: RunFolder, maps: Mapping[tuple[int, int], np.ndarray]) -> None:
    rows = [
        (image, explained, FUSED_LAYER, *cam.shape, float(cam.max()) / 255, cam.tobytes())
        for (image, explained), cam in maps.items()
    ]
    schema = SCHEMAS["explanations"]
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    table = pa.table(arrays, schema=schema)
    folder.write_shard("explanations", 0, table, Receipt("explanations", 0, len(rows)))


def picture(image: int) -> bytes:
    """Return a JPEG of 24 × 24 pixels that is brighter to the right and differs by image."""
    ramp = np.linspace(40, 220, 24).astype(np.uint8)
    drawn = np.repeat(np.tile(ramp, (24, 1))[..., None], 3, axis=2)
    drawn[: 4 + image % 16, :4] = (200, 60, 30)
    _, encoded = cv2.imencode(".jpg", drawn)
    return bytes(encoded)


def _write_pictures(folder: RunFolder, images: Sequence[int]) -> None:
    """Write what the model saw, in shards of ten images."""
    for shard, start in enumerate(range(0, len(images), 10)):
        ids = list(images[start : start + 10])
        columns = [ids, [24] * len(ids), [24] * len(ids), [picture(image) for image in ids]]
        schema = SCHEMAS["thumbnails"]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
        table = pa.table(arrays, schema=schema)
        folder.write_shard("thumbnails", shard, table, Receipt("thumbnails", shard, len(ids)))


def _write_causes(
    folder: RunFolder, y_true: np.ndarray, y_pred: np.ndarray, repaired: Mapping[int, bool]
) -> None:
    rows = [
        (image, treatment, area, y_true[image] if turns and area == 0.3 else y_pred[image])
        for image, turns in repaired.items()
        for treatment in ("focus", "elsewhere")
        for area in (0.1, 0.3)
    ]
    frame = pd.DataFrame(rows, columns=["image_id", "treatment", "area", "y_pred"])
    # A shape elsewhere changes nothing.
    frame.loc[frame["treatment"] == "elsewhere", "y_pred"] = y_pred[
        frame.loc[frame["treatment"] == "elsewhere", "image_id"].to_numpy(np.int64)
    ]
    if len(frame):
        folder.write_shard("causes", 0, to_arrow(frame, None), Receipt("causes", 0, len(repaired)))
