"""From the images to explain to their maps: one file of maps and one of thumbnails per shard.

In: a `ShardSpec` of errors and controls. Out: `thumbnails/` and `explanations/` shards, a receipt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from audit.errors import DatasetError
from audit.explain.capture import Layer
from audit.explain.maps import STORED_SIDE, BatchMaps, Explainer, fit_into
from audit.predict.dataset import ImageSource
from audit.run_folder import FUSED_LAYER, SCHEMAS, Receipt, RunFolder, ShardSpec

THUMBNAIL_SIDE = 320
"""Longest side of a thumbnail in pixels; smaller inputs are kept as they are."""
_JPEG_QUALITY = 88
_SCORE_TOLERANCE = 0.02


@dataclass(frozen=True)
class ExplainWorker:
    """All that a shard of explanations needs; lives as long as its process.

    Attributes:
        explained: columns y_true, y_pred and p_pred, indexed by image_id.
    """

    folder: RunFolder
    source: ImageSource
    explainer: Explainer
    explained: pd.DataFrame
    batch_size: int
    on_images: Callable[[int], None] = field(default=lambda n: None)


def explain_shard(spec: ShardSpec, worker: ExplainWorker) -> Receipt:
    """Explain the images of a shard and write its two files, the receipt in the last one.

    Raises:
        DatasetError: if an image is not the one that was predicted.
    """
    rows: list[tuple[int, int, str, int, int, float, bytes]] = []
    thumbnails: list[tuple[int, int, int, bytes]] = []
    done: list[int] = []
    for ids, pixels in worker.source.batches(spec.image_ids, worker.batch_size):
        stored = worker.explained.loc[ids]
        classes = stored[["y_pred", "y_true"]].to_numpy()
        maps = worker.explainer.explain(pixels, classes)
        _check_same_images(ids, maps.scores, stored)
        for index, image_id in enumerate(ids.tolist()):
            rows += _image_rows(image_id, classes[index], maps, index)
        host = pixels.numpy()
        thumbnails += [
            (image_id, *encode_thumbnail(image, worker.source.pixel_range))
            for image_id, image in zip(ids.tolist(), host, strict=True)
        ]
        done += ids.tolist()
        worker.on_images(len(ids))
    missing = sorted(set(spec.image_ids) - set(done))
    reasons = [worker.source.why_unreadable(image_id) or "unknown" for image_id in missing]
    receipt = Receipt(spec.stage, spec.index, len(done), tuple(zip(missing, reasons, strict=True)))
    folder = worker.folder
    folder.write_shard("thumbnails", spec.index, _table(thumbnails, "thumbnails"), receipt)
    folder.write_shard(spec.stage, spec.index, _table(rows, "explanations"), receipt)
    return receipt


def layers_table(layers: tuple[Layer, ...], fused_size: tuple[int, int]) -> pd.DataFrame:
    """Return the rows of `layers.parquet`: every spatial layer, and the fused map as the last."""
    table = pd.DataFrame(
        [vars(layer) for layer in layers],
        columns=[name for name in SCHEMAS["layers"].names if not name.startswith("stored_")],
    )
    sizes = [
        fit_into((layer.height, layer.width), STORED_SIDE) if layer.kept else (0, 0)
        for layer in layers
    ]
    table["stored_height"], table["stored_width"] = zip(*sizes, strict=True)
    height, width = fused_size
    table.loc[len(table)] = {
        "layer": FUSED_LAYER,
        "path": FUSED_LAYER,
        "kind": "fusion",
        "height": height,
        "width": width,
        "channels": 1,
        "stored_height": height,
        "stored_width": width,
        "stage": table["stage"].max() + 1,
        "order": len(table),
        "kept": True,
        "reason": "",
    }
    return table[SCHEMAS["layers"].names]


def encode_thumbnail(
    pixels: np.ndarray, pixel_range: tuple[float, float] = (0.0, 255.0)
) -> tuple[int, int, bytes]:
    """Return height, width and JPEG bytes of what the model saw.

    Args:
        pixels: float32 of shape (height, width, 1 or 3), RGB.
        pixel_range: the values that stand for black and white.
    """
    low, high = pixel_range
    image = np.clip((pixels - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    height, width = fit_into(image.shape[:2], THUMBNAIL_SIDE)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return height, width, jpeg.tobytes()


def _image_rows(
    image_id: int, classes: np.ndarray, maps: BatchMaps, index: int
) -> list[tuple[int, int, str, int, int, float, bytes]]:
    columns = [0] if classes[0] == classes[1] else [0, 1]
    return [
        (image_id, int(classes[column]), layer, *cam.shape, peak, cam.tobytes())
        for column in columns
        for layer, peak, cam in maps.of_image(index, column)
    ]


def _check_same_images(ids: np.ndarray, scores: np.ndarray, stored: pd.DataFrame) -> None:
    """Refuse images whose score differs from the one predicted: they are not the same images."""
    p_pred = scores[np.arange(len(ids)), stored["y_pred"].to_numpy()]
    differs = ~(np.abs(p_pred - stored["p_pred"].to_numpy()) <= _SCORE_TOLERANCE)
    if differs.any():
        first = int(differs.argmax())
        raise DatasetError(
            f"Image {int(ids[first])} is not the one that was predicted. Received: a score of"
            f" {p_pred[first]:.3f}, predicted {stored['p_pred'].iloc[first]:.3f}. Build the dataset"
            " with `shuffle=False` and without random augmentation, leave the files unchanged"
            " during an audit, and start again in a new folder."
        )


def _table(rows: Sequence[tuple[object, ...]], name: str) -> pa.Table:
    schema = SCHEMAS[name]
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
