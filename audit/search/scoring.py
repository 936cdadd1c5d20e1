"""From images of a pool to how like a target they are: one file per shard.

In: a `ShardSpec`. Out: a `likeness/` shard with its receipt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import tensorflow as tf

from audit.predict.dataset import ImageSource
from audit.predict.inference import DecisionRule, Predictor
from audit.run_folder import Receipt, RunFolder, ShardSpec
from audit.search.likeness import Comparison, LocalFeatures

STAGE = "likeness"

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("y_pred", pa.int32()),
        ("p_pred", pa.float32()),
        ("place", pa.float32()),
        ("top", pa.float32()),
        ("left", pa.float32()),
        ("whole", pa.float32()),
    ]
)
"""Columns of a shard: what the model says, and the columns of `Likeness`."""

_NOT_FINITE = "what the model makes of it is not a finite number"


@dataclass(frozen=True)
class ScoringWorker:
    """All that a shard needs; lives as long as its process.

    Attributes:
        folder: the folder of the search.
        source: the pool.
        pixel_range: the values for black and white that the model is used to.
        local_features: gives them for pixels as the model gets them; `None` if it has none.
        on_images: called with the number of images of each batch that is done.
    """

    folder: RunFolder
    source: ImageSource
    pixel_range: tuple[float, float]
    predictor: Predictor
    rule: DecisionRule
    comparison: Comparison
    local_features: LocalFeatures | None
    batch_size: int
    on_images: Callable[[int], None] = field(default=lambda n: None)


def score_shard(spec: ShardSpec, worker: ScoringWorker) -> Receipt:
    """Compare the images of a shard with the target and write its file."""
    blocks = [[np.empty(0, field.type.to_pandas_dtype()) for field in SCHEMA]]
    seen: set[int] = set()
    for ids, pixels in worker.source.batches(spec.image_ids, worker.batch_size):
        blocks.append(_score(ids, in_range(pixels, worker.pixel_range), worker))
        seen.update(ids.tolist())
        worker.on_images(len(ids))
    worker.on_images(len(spec.image_ids) - len(seen))
    columns = dict(
        zip(SCHEMA.names, (np.concatenate(c) for c in zip(*blocks, strict=True)), strict=True)
    )
    finite = np.isfinite(columns["whole"]) & np.isfinite(columns["p_pred"])
    reasons = dict.fromkeys(columns["image_id"][~finite].tolist(), _NOT_FINITE)
    for image_id in spec.image_ids:
        if image_id not in seen:
            reasons[image_id] = (
                worker.source.why_unreadable(image_id) or "it could not be read at first"
            )
    table = pa.table({name: column[finite] for name, column in columns.items()}, schema=SCHEMA)
    receipt = Receipt(spec.stage, spec.index, table.num_rows, tuple(sorted(reasons.items())))
    worker.folder.write_shard(spec.stage, spec.index, table, receipt)
    return receipt


def in_range(pixels: tf.Tensor, pixel_range: tuple[float, float]) -> tf.Tensor:
    """Bring pixels of 0 to 255 to another range."""
    low, high = pixel_range
    return pixels if (low, high) == (0.0, 255.0) else pixels * ((high - low) / 255) + low


def _score(ids: np.ndarray, pixels: tf.Tensor, worker: ScoringWorker) -> list[np.ndarray]:
    """Return the columns of a batch."""
    scores, embeddings = worker.predictor.predict(pixels)
    local = None if worker.local_features is None else worker.local_features(pixels)
    likeness = worker.comparison.compare(embeddings, local)
    y_pred = worker.rule.decide(scores.numpy())
    p_pred = scores.numpy()[np.arange(len(ids)), y_pred]
    return [ids, y_pred, p_pred, likeness.place, likeness.top, likeness.left, likeness.whole]
