"""From images to predictions: one forward pass per batch, one file per shard.

In: a `ShardSpec`. Out: `predictions/`, `embeddings/` and `properties/` shards and a receipt.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from audit.errors import ModelError
from audit.predict.dataset import ImageSource
from audit.predict.memory import halve_batch
from audit.predict.model import AuditedModel
from audit.predict.properties import Measured, measure_images, properties_table
from audit.predict.scaling import PixelScaling, pixel_scaling
from audit.predict.side_by_side import join, runs_python, side_by_side
from audit.run_folder import Receipt, RunFolder, ShardSpec, fixed_list
from audit.schemas import UNDEFINED_SCORES, embeddings_schema, predictions_schema

BATCH_SIZES = (32, 64, 128, 256)
"""Images a batch: the first, or on a GPU the one that is fastest."""
_WORTH_DOUBLING = 1.05
_TIMED_BATCHES = 3
_MOST_CONSTANT_BYTES = 1 << 30  # A graph holds at most 2 GiB.
_STRAY = 0.01  # Half precision strays so far from 0 and 1.
_STRAY_SUM = 0.03  # And the sum of all classes so far from 1.
UNDECIDED = -1
"""The predicted class where the model's output is not a finite number."""


@dataclass(frozen=True)
class DecisionRule:
    """How scores become a class.

    Attributes:
        positive: two classes: index of the positive class; `None` for more classes.
        threshold: two classes: the positive class is predicted from this probability on.
    """

    positive: int | None
    threshold: float = 0.5

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return int32 of shape (n,): the predicted class of scores of shape (n, n_classes).

        It is `UNDECIDED` where a score is not a finite number.
        """
        if self.positive is None:
            decided = scores.argmax(axis=1)
        else:
            is_positive = scores[:, self.positive] >= np.float32(self.threshold)
            decided = np.where(is_positive, self.positive, 1 - self.positive)
        return np.where(np.isfinite(scores).all(axis=1), decided, UNDECIDED).astype(np.int32)


class Predictor:
    """A model in inference mode, traced once for every batch size and scaling.

    Without a GPU the weights are made constants of the graph, so that TensorFlow can fold batch
    normalisation into convolutions. Scores differ from the model's own in the last digits.

    Where memory does not suffice for the images it is given, it halves how many go through the
    model at once, keeps to that, and calls `on_halved` with each smaller number. Several threads
    may ask at once, unless it calls Python.

    Attributes:
        calls_python: whether the model is, or has in it, somebody's Python code.
    """

    def __init__(self, model: AuditedModel, scaling: str) -> None:
        self.model = model
        self.scaling = scaling
        self.on_halved: Callable[[int], None] = lambda n: None
        self._most: int | None = None
        self._lock = Lock()
        spec = tf.TensorSpec((None, *model.input_size, model.channels), tf.float32)

        @tf.function(jit_compile=False, autograph=False)
        def predict(
            pixels: tf.Tensor, reverses: tf.Tensor, multiply: tf.Tensor, add: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            outputs = model.call(apply_scaling(pixels, PixelScaling(reverses, multiply, add)))
            return outputs.scores, outputs.embedding, outputs.logits

        per_channel = tf.TensorSpec((model.channels,), tf.float32)
        traced = predict.get_concrete_function(
            spec, tf.TensorSpec((), tf.bool), per_channel, per_channel
        )
        self.embedding_width = int(traced.structured_outputs[1].shape[-1])
        self.calls_python = runs_python(traced)
        self._run = with_constant_weights(traced)

    def predict(self, pixels: tf.Tensor, scaling: str | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return scores of shape (n, n_classes) and embeddings of shape (n, width), float32.

        Args:
            pixels: float32 of shape (n, height, width, channels), not scaled.
            scaling: another one than the predictor's own.

        Raises:
            ModelError: if memory does not suffice for one image.
        """

        def ask(part: slice) -> tuple[tf.Tensor, ...]:
            return self._ask(pixels[part], scaling or self.scaling)[:2]

        scores, embeddings = join(side_by_side(ask, len(pixels), calls_python=self.calls_python))
        return scores, embeddings

    def score(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return scores and logits in class order, float32 of shape (n, n_classes).

        For callers that ask from several threads: the images stay together.

        Args:
            pixels: float32 of shape (n, height, width, channels), not scaled.

        Raises:
            ModelError: if memory does not suffice for one image.
        """
        scores, _, logits = self._ask(pixels, self.scaling)
        return scores, logits

    def fastest_batch_size(self) -> int:
        """Return how many images a GPU predicts fastest at once, as timed on noise; else 32.

        More are tried for as long as each doubling is worth it and memory suffices.
        """
        best, *larger = BATCH_SIZES
        if not tf.config.list_logical_devices("GPU"):
            return best
        rate = self._images_per_second(best)
        for size in larger:
            try:
                doubled = self._images_per_second(size)
            except (tf.errors.ResourceExhaustedError, MemoryError):
                break
            if doubled < _WORTH_DOUBLING * rate:
                break
            best, rate = size, doubled
        return best

    def _images_per_second(self, n_images: int) -> float:
        """Time batches of noise, after one that warms up, and take the fastest."""
        shape = (n_images, *self.model.input_size, self.model.channels)
        noise = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        how = self._how(self.scaling)
        seconds = []
        for _ in range(_TIMED_BATCHES + 1):
            begin = time.perf_counter()
            self._run(tf.constant(noise), *how)[0].numpy()  # It waits until the device is done.
            seconds.append(time.perf_counter() - begin)
        return n_images / min(seconds[1:])

    def _how(self, scaling: str) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rule = pixel_scaling(scaling, self.model.channels)
        return tf.constant(rule.reverses), tf.constant(rule.multiply), tf.constant(rule.add)

    def _ask(self, pixels: tf.Tensor, scaling: str) -> tuple[tf.Tensor, ...]:
        how = self._how(scaling)
        parts: list[tuple[tf.Tensor, ...]] = []
        start = 0
        while start < len(pixels) or not parts:
            size = self._most or max(1, len(pixels))
            try:
                asked = tf.convert_to_tensor(pixels[start : start + size], tf.float32)
                parts.append(self._run(asked, *how))
            except (tf.errors.ResourceExhaustedError, MemoryError) as exc:
                self._halve(min(size, len(pixels) - start), exc)
                continue
            start += size
        return join(parts)

    def _halve(self, tried: int, exc: BaseException) -> None:
        with self._lock:
            if self._most is None or tried <= self._most:  # Or else another thread was first.
                self._most = halve_batch(tried, self.model, exc, doing="predict")
                self.on_halved(self._most)


def apply_scaling(pixels: tf.Tensor, scaling: PixelScaling) -> tf.Tensor:
    """Scale pixels of shape (n, height, width, channels)."""
    reverses = tf.convert_to_tensor(scaling.reverses)
    turned = tf.cond(reverses, lambda: tf.reverse(pixels, [-1]), lambda: pixels)
    return turned * scaling.multiply + scaling.add


def with_constant_weights(traced: Any) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Return a traced function whose weights are constants, or itself where that cannot be."""
    n_bytes = sum(
        variable.shape.num_elements() * variable.dtype.size for variable in traced.variables
    )
    operations = traced.graph.get_operations()
    changes_variables = any("Assign" in operation.type for operation in operations)
    compiles = any(  # Keras compiles grouped convolutions; their gradients cannot be folded.
        operation.node_def.attr["_XlaMustCompile"].b
        for operation in operations
        if operation.type.endswith("PartitionedCall")
    )
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    if n_bytes > _MOST_CONSTANT_BYTES or changes_variables or compiles or on_gpu:
        return traced
    frozen = convert_variables_to_constants_v2(traced)
    return lambda *inputs: tuple(frozen(*inputs))


@dataclass(frozen=True)
class PredictWorker:
    """All that a shard of predictions needs; lives as long as its process."""

    folder: RunFolder
    source: ImageSource
    predictor: Predictor
    rule: DecisionRule
    batch_size: int
    on_images: Callable[[int], None] = field(default=lambda n: None)


def predict_shard(spec: ShardSpec, worker: PredictWorker) -> Receipt:
    """Predict the images of a shard and write its three files, the predictions last."""
    blocks = zip(*_predict_batches(spec, worker), strict=True)
    ids, scores, embeddings, sizes, values, hashes = (np.concatenate(block) for block in blocks)
    finite = np.isfinite(scores).all(axis=1) & np.isfinite(embeddings).all(axis=1)
    _check_probabilities(scores[finite], worker.predictor.model)
    left_out = _left_out(spec, worker.source, ids, finite)
    ids, scores, embeddings = ids[finite], scores[finite], embeddings[finite]
    measured = Measured(values[finite], hashes[finite])
    receipt = Receipt(spec.stage, spec.index, len(ids), left_out)
    y_true = worker.source.listing.images["y_true"].to_numpy()[ids]
    folder = worker.folder
    folder.write_shard("embeddings", spec.index, _embeddings_table(ids, embeddings), receipt)
    folder.write_shard(
        "properties", spec.index, properties_table(ids, sizes[finite], measured), receipt
    )
    folder.write_shard(
        spec.stage, spec.index, predictions_table(ids, y_true, scores, worker.rule), receipt
    )
    return receipt


def _predict_batches(
    spec: ShardSpec, worker: PredictWorker
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield ids, scores, embeddings, sizes, values and hashes; at first of a batch of no images.

    The images are measured on another thread while the model works on them.
    """
    source, predictor = worker.source, worker.predictor
    yield (
        np.empty(0, np.int64),
        np.empty((0, predictor.model.head.n_classes), np.float32),
        np.empty((0, predictor.embedding_width), np.float32),
        np.empty((0, 3), np.int64),
        *measure_images(np.empty((0, 1, 1, 1), np.float32), (0.0, 255.0)),
    )
    with ThreadPoolExecutor(max_workers=1) as pool:
        for ids, pixels, sizes in source.sized_batches(spec.image_ids, worker.batch_size):
            measuring = pool.submit(measure_images, pixels.numpy(), source.pixel_range)
            scores, embeddings = predictor.predict(pixels)
            yield ids, scores.numpy(), embeddings.numpy(), sizes, *measuring.result()
            worker.on_images(len(ids))


def predictions_table(
    ids: np.ndarray, y_true: np.ndarray, scores: np.ndarray, rule: DecisionRule
) -> pa.Table:
    """Return the rows of a predictions shard.

    `margin` is the score of the predicted class minus the highest other score: negative where a
    threshold other than one half overrules the higher score.
    """
    rows = np.arange(len(ids))
    y_pred = rule.decide(scores)
    p_pred = scores[rows, y_pred]
    others = scores.copy()
    others[rows, y_pred] = -np.inf
    margin = p_pred - others.max(axis=1, initial=-np.inf)
    columns = [
        pa.array(ids),
        pa.array(y_pred),
        pa.array(scores[rows, y_true]),
        pa.array(p_pred),
        pa.array(margin),
        fixed_list(scores),
    ]
    return pa.table(columns, schema=predictions_schema(scores.shape[1]))


def _embeddings_table(ids: np.ndarray, embeddings: np.ndarray) -> pa.Table:
    schema = embeddings_schema(embeddings.shape[1])
    return pa.table([pa.array(ids), fixed_list(embeddings)], schema=schema)


def _check_probabilities(scores: np.ndarray, model: AuditedModel) -> None:
    """Refuse outputs that were probabilities as long as the model saw only noise."""
    if model.head.kind not in ("sigmoid", "softmax"):
        return
    lowest, highest = scores.min(axis=1), scores.max(axis=1)
    is_probability = np.logical_and(lowest > -_STRAY, highest < 1 + _STRAY)
    sums = scores.sum(axis=1)
    is_usable = np.logical_and(is_probability, np.abs(sums - 1) <= _STRAY_SUM)
    if is_usable.all():
        return
    worst = int(np.argmin(is_usable))
    what = (
        f"scores that add up to {sums[worst]:.3g}"
        if is_probability[worst]
        else f"scores from {lowest[worst]:.3g} to {highest[worst]:.3g}"
    )
    kind = "logit" if model.head.kind == "sigmoid" else "logits"
    raise ModelError(
        f"The outputs of `{model.name}` are not the probabilities that they were taken for."
        f" Received: {what}, for an image. Say what they are, with `--head {kind}`."
    )


def _left_out(
    spec: ShardSpec, source: ImageSource, ids: np.ndarray, finite: np.ndarray
) -> tuple[tuple[int, str], ...]:
    """Name each image of a shard that has no usable prediction, with the reason."""
    reasons = {int(image_id): UNDEFINED_SCORES for image_id in ids[~finite]}
    for image_id in sorted(set(spec.image_ids) - set(ids.tolist())):
        reasons[image_id] = source.why_unreadable(image_id) or "it could not be read at first"
    return tuple(sorted(reasons.items()))
