"""From the images to explain to their maps: one file of maps and one of thumbnails per shard.

In: a `ShardSpec` of errors and controls. Out: `thumbnails/`, `focus_embeddings/` (where there are
layers to look into) and `explanations/` shards, a receipt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from audit.errors import DatasetError
from audit.explain.capture import Layer
from audit.explain.maps import BatchMaps, Explainer, fit_into
from audit.explain.occlusion import OcclusionExplainer
from audit.explain.pooling import Row, focus_rows, focus_shard
from audit.predict.dataset import ImageSource
from audit.predict.memory import halve_batch
from audit.predict.tracing import computes_in_half
from audit.run_folder import FUSED_LAYER, Receipt, RunFolder, ShardSpec
from audit.schemas import FOCUS_STAGE, SCHEMAS

THUMBNAIL_SIDE = 320
"""Longest side of a thumbnail in pixels; smaller inputs are kept as they are."""
_JPEG_QUALITY = 88
_ANOTHER = "the model no longer gives it the score that was predicted: it is another image"
_SCORE_TOLERANCE = {None: 0.02, "float16": 0.05, "bfloat16": 0.2}
"""By how much a score may differ from the one predicted, by the least precise type of the model.

Predictions keep a model's precision, while its maps are made in float32. On 33 photographs a
MobileNetV2 differed by up to 0.002 in float16 and 0.017 in bfloat16; deeper models differ more.
"""


@dataclass
class ExplainWorker:
    """All that a shard of explanations needs; lives as long as its process.

    Attributes:
        explained: columns y_pred, p_pred and other_class, the class that is explained beside the
            predicted one (it may be the same); indexed by image_id. With a column first_class, that
            one is explained instead of the predicted one.
        batch_size: images at once; it is halved where memory does not suffice, and stays so.
        on_images: called with the number of images of each batch that is done.
        on_halved: called with each smaller batch size.
        leaves_out_others: whether an image that is not the one that was predicted is left out,
            instead of ending all.
    """

    folder: RunFolder
    source: ImageSource
    explainer: Explainer | OcclusionExplainer
    explained: pd.DataFrame
    batch_size: int
    on_images: Callable[[int], None] = field(default=lambda n: None)
    on_halved: Callable[[int], None] = field(default=lambda n: None)
    leaves_out_others: bool = False

    def halve(self, exc: BaseException) -> None:
        """Go on with half as many images at once.

        Raises:
            ModelError: if it was one image already.
        """
        self.batch_size = halve_batch(self.batch_size, self.explainer.model, exc)
        self.on_halved(self.batch_size)


def explain_shard(spec: ShardSpec, worker: ExplainWorker) -> Receipt:
    """Explain the images of a shard and write its files, the receipt in each.

    Raises:
        DatasetError: if an image is not the one that was predicted.
    """
    others: set[int] = set()
    rows: dict[int, list[tuple[int, int, str, int, int, float, bytes]]] = {}
    thumbnails: dict[int, tuple[int, int, int, bytes]] = {}
    focus: dict[int, list[Row]] = {}
    width = 0
    tolerance = _SCORE_TOLERANCE[computes_in_half(worker.explainer.model.model)]
    for ids, pixels in _batches_of_a_kind(spec, worker):
        stored = worker.explained.loc[ids]
        classes = _classes(stored)
        for start, maps in _explain_in_parts(worker, pixels, classes):
            part = slice(start, start + len(maps.scores))
            if worker.leaves_out_others:
                is_other = differs(maps.scores, stored.iloc[part], tolerance)
                others.update(ids[part][is_other].tolist())
            else:
                check_same_images(ids[part], maps.scores, stored.iloc[part], tolerance)
            for index, image_id in enumerate(ids[part].tolist()):
                if image_id in others:
                    continue
                shown = dict.fromkeys(classes[start + index].tolist())
                rows[image_id] = _image_rows(image_id, list(shown), maps, index)
                if maps.focus is not None:
                    width = maps.focus.embeddings.shape[-1]
                    focus[image_id] = focus_rows(image_id, list(shown), maps.focus, index)
        for image_id, image in zip(ids.tolist(), pixels.numpy(), strict=True):
            thumbnails[image_id] = (image_id, *encode_thumbnail(image, worker.source.pixel_range))
        worker.on_images(len(ids))
    done = [image_id for image_id in spec.image_ids if image_id in rows]
    missing = sorted(set(spec.image_ids) - set(done))
    reasons = [
        _ANOTHER if image_id in others else worker.source.why_unreadable(image_id) or "unknown"
        for image_id in missing
    ]
    receipt = Receipt(spec.stage, spec.index, len(done), tuple(zip(missing, reasons, strict=True)))
    pictures = [thumbnails[image_id] for image_id in done]
    maps_of_all = [row for image_id in done for row in rows[image_id]]
    folder = worker.folder
    folder.write_shard("thumbnails", spec.index, _table(pictures, "thumbnails"), receipt)
    if focus:
        vectors = focus_shard([row for image_id in done for row in focus[image_id]], width)
        folder.write_shard(FOCUS_STAGE, spec.index, vectors, receipt)
    folder.write_shard(spec.stage, spec.index, _table(maps_of_all, "explanations"), receipt)
    return receipt


def _batches_of_a_kind(
    spec: ShardSpec, worker: ExplainWorker
) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """Yield batches in which all images have two classes to explain, or all have one.

    One class costs a backward pass less, but only if no image of the batch has two, and only if the
    model has more than one output.
    """
    one_kind = worker.explainer.model.has_one_output
    waiting: dict[bool, list[tuple[np.ndarray, tf.Tensor]]] = {False: [], True: []}
    for ids, pixels in worker.source.batches(spec.image_ids, worker.batch_size):
        classes = _classes(worker.explained.loc[ids])
        has_one = (classes[:, 0] == classes[:, 1]) | one_kind
        for kind, blocks in waiting.items():
            chosen = np.flatnonzero(has_one == kind)
            blocks.append((ids[chosen], tf.gather(pixels, chosen)))
            if sum(len(block) for block, _ in blocks) >= worker.batch_size:
                together = _join(blocks)
                yield together[0][: worker.batch_size], together[1][: worker.batch_size]
                rest = together[0][worker.batch_size :], together[1][worker.batch_size :]
                blocks[:] = [rest]
    for blocks in waiting.values():
        if any(len(block) for block, _ in blocks):
            yield _join(blocks)


def _classes(stored: pd.DataFrame) -> np.ndarray:
    """Return the predicted class, or what stands for it, and the other one, int of shape (n, 2)."""
    first = "first_class" if "first_class" in stored else "y_pred"
    return stored[[first, "other_class"]].to_numpy()


def _join(blocks: list[tuple[np.ndarray, tf.Tensor]]) -> tuple[np.ndarray, tf.Tensor]:
    ids, pixels = zip(*blocks, strict=True)
    return np.concatenate(ids), tf.concat(pixels, axis=0)


def _explain_in_parts(
    worker: ExplainWorker, pixels: tf.Tensor, classes: np.ndarray
) -> Iterator[tuple[int, BatchMaps]]:
    """Yield (first image, maps) of parts that fit into memory."""
    start = 0
    while start < len(classes):
        part = slice(start, start + worker.batch_size)
        try:
            maps = worker.explainer.explain(pixels[part], classes[part])
        except (tf.errors.ResourceExhaustedError, MemoryError) as exc:
            worker.halve(exc)
            continue
        yield start, maps
        start += len(maps.scores)


def layers_table(
    layers: tuple[Layer, ...], fused_size: tuple[int, int], stored_side: int
) -> pd.DataFrame:
    """Return the rows of `layers.parquet`: every spatial layer, and the fused map as the last.

    Args:
        stored_side: longest side of a stored map of a layer; 0 where only the fused map is stored.
    """
    table = pd.DataFrame(
        [vars(layer) for layer in layers],
        columns=[name for name in SCHEMAS["layers"].names if not name.startswith("stored_")],
    )
    sizes = [
        fit_into((layer.height, layer.width), stored_side) if layer.kept and stored_side else (0, 0)
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
    image_id: int, classes: Sequence[int], maps: BatchMaps, index: int
) -> list[tuple[int, int, str, int, int, float, bytes]]:
    return [
        (image_id, explained, layer, *cam.shape, peak, cam.tobytes())
        for column, explained in enumerate(classes)
        for layer, peak, cam in maps.of_image(index, column)
    ]


def check_same_images(
    ids: np.ndarray, scores: np.ndarray, stored: pd.DataFrame, tolerance: float
) -> None:
    """Refuse images whose score differs from the one predicted: they are not the same images.

    Args:
        ids: int64 of shape (n,).
        scores: of shape (n, n_classes), found now.
        stored: columns y_pred and p_pred of the same images, as they were predicted.
        tolerance: the largest difference of a score that is let pass.

    Raises:
        DatasetError: if one is not the same.
    """
    is_other = differs(scores, stored, tolerance)
    if is_other.any():
        first = int(is_other.argmax())
        p_pred = scores[np.arange(len(ids)), stored["y_pred"].to_numpy()]
        raise DatasetError(
            f"Image {int(ids[first])} is not the one that was predicted. Received: a score of"
            f" {p_pred[first]:.3f}, predicted {stored['p_pred'].iloc[first]:.3f}. Build the dataset"
            " with `shuffle=False` and without random augmentation, leave the files unchanged"
            " during an audit, and start again in a new folder."
        )


def differs(scores: np.ndarray, stored: pd.DataFrame, tolerance: float) -> np.ndarray:
    """Return bool of shape (n,): whose score is not the one predicted; see `check_same_images`."""
    p_pred = scores[np.arange(len(stored)), stored["y_pred"].to_numpy()]
    return np.asarray(~(np.abs(p_pred - stored["p_pred"].to_numpy()) <= tolerance))


def _table(rows: Sequence[tuple[object, ...]], name: str) -> pa.Table:
    schema = SCHEMAS[name]
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
