"""Load a Keras model and find out what it is: input size, meaning of its outputs, its logits.

In: a path or a live model. Out: an `AuditedModel`, which turns pixels into scores, logits and
embeddings. A model that cannot be audited is refused with the reason.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import keras
import numpy as np
import tensorflow as tf

from audit.errors import ModelError
from audit.predict.legacy_h5 import load_legacy_h5
from audit.predict.model_file import check_model_file, fingerprint_model_file
from audit.predict.tracing import observe_operations

HeadKind = Literal["sigmoid", "logit", "softmax", "logits"]
LogitsFrom = Literal["before the activation", "the outputs", "log-odds of the probability"]

_PROBE_IMAGES = 8
_WIDEST_EMBEDDING = 4096
_PER_CLASS = "a sigmoid per class"


@dataclass(frozen=True)
class Head:
    """What a model's outputs are.

    Attributes:
        kind: one sigmoid, one raw logit, softmax, or raw logits.
        n_classes: two for a single output.
        logits_from: where the logit comes from that the heat-maps explain.
        forced: whether the user said so instead of it being detected.
    """

    kind: HeadKind
    n_classes: int
    logits_from: LogitsFrom
    forced: bool = False

    @property
    def explained(self) -> str:
        """One sentence on the score that the heat-maps explain."""
        source = {
            "before the activation": f"the value before the {self.kind}",
            "the outputs": "the raw output",
            "log-odds of the probability": "log-odds worked out from the probability, because the"
            " value before the activation is not to be had; where the probability is exactly 0 or 1"
            " the maps can be empty",
        }[self.logits_from]
        sign = "; the first class is explained by the negative of the only output"
        return (
            f"The logit of the class: {source}{sign if self.kind in ('sigmoid', 'logit') else ''}."
        )


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch, as symbolic or real tensors.

    Attributes:
        scores: float32 of shape (n, n_classes), probabilities in class order.
        logits: float32 of shape (n, n_classes); what heat-maps explain.
        embedding: float32 of shape (n, width), the input of the classifier head.
    """

    scores: tf.Tensor
    logits: tf.Tensor
    embedding: tf.Tensor


class AuditedModel:
    """A Keras model with what an audit needs to know of it.

    Attributes:
        model: the Keras model; never changed.
        name: for the report: the file name, or the model's own name.
        input_size: (height, width) in pixels.
        channels: 1 or 3.
        head: what the outputs are.
        fingerprint: SHA-256 of the file, or of architecture and weights.
    """

    def __init__(
        self,
        model: keras.Model,
        name: str,
        fingerprint: str,
        *,
        head: str = "auto",
        input_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.fingerprint = fingerprint
        height, width, self.channels = _check_input(model, name, input_shape)
        self.input_size = (height, width)
        self.head = _detect_head(model, (height, width, self.channels), name, head)

    @property
    def n_parameters(self) -> int:
        return int(self.model.count_params())

    def call(self, pixels: tf.Tensor) -> Outputs:
        """Run the model in inference mode on scaled pixels of shape (n, height, width, channels).

        Meant to be traced inside a `tf.function`.
        """
        return self.interpret(*_call_recorded(self.model, pixels))

    def interpret(self, raw: tf.Tensor, embedding: tf.Tensor) -> Outputs:
        """Turn the model's own outputs into scores and logits in class order."""
        return Outputs(*_scores_and_logits(raw, self.head), tf.cast(embedding, tf.float32))


def load_model(path: Path, *, head: str = "auto", trust_model_code: bool = False) -> AuditedModel:
    """Load a `.keras` or `.h5` file that holds a whole image classifier.

    Args:
        path: the file.
        head: what the outputs are, or "auto".
        trust_model_code: whether code in the file, such as a Lambda layer's, may run.

    Raises:
        ModelError: if it is missing, not a model, or not a classifier of images.
    """
    check_model_file(path)
    with warnings.catch_warnings():  # about how the file was written, long ago and elsewhere
        warnings.simplefilter("ignore", UserWarning)
        model = _load_any(path, trust_model_code)
    return AuditedModel(model, path.name, fingerprint_model_file(path), head=head)


def _load_any(path: Path, trust_model_code: bool) -> keras.Model:
    """Load a model as Keras does, or else as an earlier Keras would have read it."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not trust_model_code)
    except Exception as exc:  # Keras raises whatever a layer raises: all of it is "not loadable".
        message = _explain_load_failure(path, exc)
        if not h5py.is_hdf5(path):
            raise ModelError(message) from exc
    try:
        return load_legacy_h5(path)
    except Exception as exc:
        raise ModelError(message) from exc


def wrap_model(
    model: keras.Model, *, head: str = "auto", input_shape: tuple[int | None, ...] | None = None
) -> AuditedModel:
    """Prepare a live model for an audit.

    Args:
        input_shape: (height, width, channels) of the images, where the model leaves them open.

    Raises:
        ModelError: if it is not a classifier of images.
    """
    audited = AuditedModel(model, model.name, "", head=head, input_shape=input_shape)
    audited.fingerprint = _fingerprint_live_model(model)  # its weights exist once it has run
    return audited


def _fingerprint_live_model(model: keras.Model) -> str:
    try:
        architecture = model.to_json()
    except (NotImplementedError, TypeError, ValueError):  # a class of the user's that says nothing
        architecture = repr([(weight.path, tuple(weight.shape)) for weight in model.weights])
    digest = hashlib.sha256(architecture.encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def _explain_load_failure(path: Path, exc: Exception) -> str:
    text = str(exc).strip()
    if "safe_mode" in text or "unsafe" in text.lower():
        return (
            f"`{path}` brings code of its own, which has not been run. Received: a model with a"
            " Lambda layer. If you trust where the file comes from, add `--trust-model-code`."
        )
    cause = _first_line(text.rpartition("Exception encountered: ")[2])  # after the configuration
    return (
        f"Keras {keras.__version__} cannot load `{path}`. Received: {type(exc).__name__}: {cause}."
        " Save the model again with a current Keras, as `model.save('model.keras')`."
    )


def _first_line(text: str) -> str:
    """Return the first line that says something, cut to a length that a terminal shows."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), "no message")[:300].rstrip(".")


def _cause(exc: Exception) -> str:
    """Return what a layer said, without Keras's heading and the escape codes around it."""
    text = str(exc).partition("Exception encountered when calling ")[2].partition("\n")[2]
    return (text or str(exc)).replace("\x1b[1m", "").replace("\x1b[0m", "")


def _check_input(
    model: keras.Model, name: str, given: tuple[int | None, ...] | None
) -> tuple[int, int, int]:
    own = _own_input_shape(model, name)
    shape = given or own
    if given and own and len(given) == len(own):
        shape = tuple(side or own[axis] for axis, side in enumerate(given))
    if shape is None or len(shape) != 3:
        raise ModelError(
            f"`{name}` is not a classifier of images. Received: an input of shape {shape}, which is"
            " not height × width × channels. Give a model that takes images."
        )
    height, width, channels = shape
    if channels not in (1, 3):
        raise ModelError(
            f"`{name}` takes images with {channels} channels. Received: an input of shape {shape}."
            " Only grey-scale (1) and colour (3, channels last) can be audited."
        )
    if height is None or width is None:
        raise ModelError(
            f"`{name}` leaves the size of its images open. Received: an input of shape {shape}."
            " Give it a fixed size, as `keras.Input((224, 224, 3))` before the model does, and save"
            " it again; or call `audit.run` with a dataset whose images have the right size."
        )
    return int(height), int(width), int(channels)


def _own_input_shape(model: keras.Model, name: str) -> tuple[int | None, ...] | None:
    """Return what the model says of its input, without the batch, or `None` if it says nothing."""
    inputs = getattr(model, "input_shape", None)
    if isinstance(inputs, (list, dict)):
        if len(inputs) != 1:
            raise ModelError(
                f"`{name}` has several inputs. Received: input shapes {inputs}. Only models with"
                " one image as input can be audited."
            )
        inputs = next(iter(inputs.values() if isinstance(inputs, dict) else inputs))
    return tuple(inputs)[1:] if inputs is not None else None


def _call_recorded(model: keras.Model, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the model's output tensor and the input of its classifier head."""
    recorder = HeadRecorder()
    with observe_operations(recorder):
        raw = model(pixels, training=False)
    return _single_output(raw, model.name), recorder.embedding()


class HeadRecorder:
    """Remembers what may serve as embedding: the last Dense input and the last spatial output."""

    def __init__(self) -> None:
        self.dense_input: tf.Tensor | None = None
        self.spatial: tf.Tensor | None = None
        self.activated: list[tuple[tf.Tensor, str]] = []

    def __call__(
        self, path: tuple[str, ...], operation: keras.Operation, first_input: Any, output: Any
    ) -> None:
        if not isinstance(output, tf.Tensor) or not output.dtype.is_floating:
            return
        if output.shape.rank == 4:
            self.spatial = output
        if isinstance(operation, keras.layers.Dense) and first_input.shape.rank == 2:
            self.dense_input = first_input
        if isinstance(operation, keras.layers.Dense | keras.layers.Activation):
            name = getattr(operation.activation, "__name__", type(operation.activation).__name__)
            self.activated.append((output, name))

    def activation_of(self, output: tf.Tensor) -> str | None:
        """Return the name of the activation that made a tensor, or `None` if no Dense layer did."""
        return next((name for tensor, name in self.activated if tensor is output), None)

    def embedding(self) -> tf.Tensor:
        """Return the input of the last Dense layer, or the pooled last spatial output."""
        dense = self.dense_input
        if dense is not None and dense.shape[-1] <= _WIDEST_EMBEDDING:
            return dense
        if self.spatial is not None:
            return tf.reduce_mean(self.spatial, axis=(1, 2))
        if dense is not None:
            return dense
        raise ModelError(
            "The model has no classifier head to take embeddings from. Received: neither a Dense"
            " layer nor a spatial layer. Give a classifier of images."
        )


def _single_output(raw: Any, name: str) -> tf.Tensor:
    outputs = tf.nest.flatten(raw)
    if len(outputs) != 1:
        raise ModelError(
            f"`{name}` has {len(outputs)} outputs. Received: shapes"
            f" {[tuple(output.shape) for output in outputs]}. Only models with one output, the"
            " class scores, can be audited."
        )
    output = outputs[0]
    if output.shape.rank != 2 or output.shape[-1] is None:
        raise ModelError(
            f"`{name}` is not a classifier. Received: an output of shape {tuple(output.shape)}, not"
            " (batch, classes). Give a model with one score, or a vector of scores, per image."
        )
    return output


def _detect_head(model: keras.Model, shape: tuple[int, int, int], name: str, choice: str) -> Head:
    """Call the model on noise; ask the layer that made the output, or else the values."""
    recorder = HeadRecorder()
    noise = np.random.default_rng(0).uniform(0, 255, (_PROBE_IMAGES, *shape)).astype(np.float32)
    try:
        with observe_operations(recorder):
            called = model(tf.constant(noise), training=False)
    except Exception as exc:  # Whatever the model's own layers raise on an image of its shape.
        raise ModelError(
            f"`{name}` cannot be run on an image. Received: {type(exc).__name__}:"
            f" {_first_line(_cause(exc))}. Check that `model.predict` works on it."
        ) from exc
    raw = _single_output(called, name)
    outputs = tf.cast(raw, tf.float32).numpy()
    has_logits = hasattr(raw, "_keras_logits")
    activation = recorder.activation_of(raw)
    kind = choice if choice != "auto" else _head_kind(outputs, has_logits, activation)
    n_outputs = outputs.shape[1]
    if kind == _PER_CLASS or (kind in ("sigmoid", "logit")) != (n_outputs == 1):
        raise ModelError(_wrong_head(name, kind, n_outputs))
    if kind in ("sigmoid", "softmax") and ((outputs < 0) | (outputs > 1)).any():
        raise ModelError(
            f"`--head {kind}` does not fit `{name}`. Received: outputs from {outputs.min():.3g} to"
            f" {outputs.max():.3g}, which are not probabilities. Use"
            f" {'logit' if n_outputs == 1 else 'logits'}, or auto."
        )
    if kind in ("logit", "logits"):
        source: LogitsFrom = "the outputs"
    else:
        source = "before the activation" if has_logits else "log-odds of the probability"
    return Head(cast(HeadKind, kind), max(n_outputs, 2), source, forced=choice != "auto")


def _head_kind(outputs: np.ndarray, has_logits: bool, activation: str | None) -> str:
    n_outputs = outputs.shape[1]
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    bounded = bool((outputs >= 0).all() and (outputs <= 1).all())
    if not has_logits and activation == "linear":
        return "logit" if n_outputs == 1 else "logits"
    if n_outputs == 1:
        return "sigmoid" if has_logits or bounded else "logit"
    sums_to_one = bool(np.allclose(outputs.sum(axis=1), 1, atol=1e-3))
    if bounded and sums_to_one and activation != "sigmoid":
        return "softmax"
    return _PER_CLASS if has_logits else "logits"


def _wrong_head(name: str, kind: str, n_outputs: int) -> str:
    if kind == _PER_CLASS:
        return (
            f"`{name}` has a sigmoid per class, as models for several labels per image do."
            f" Received: {n_outputs} outputs that do not add up to 1. If one label per image is"
            " meant, say `--head softmax`."
        )
    return (
        f"`--head {kind}` does not fit `{name}`. Received: a model with {n_outputs} output"
        f"{'' if n_outputs == 1 else 's'}. Use sigmoid or logit for one output, softmax or logits"
        " for more."
    )


def _scores_and_logits(raw: tf.Tensor, head: Head) -> tuple[tf.Tensor, tf.Tensor]:
    """Return probabilities and logits, float32 of shape (n, n_classes), from the raw outputs."""
    logits = getattr(raw, "_keras_logits", None)
    raw = tf.cast(raw, tf.float32)
    if head.kind in ("logit", "logits"):
        logits = raw
    elif logits is None or head.logits_from == "log-odds of the probability":
        tiny = 1e-7
        clipped = tf.clip_by_value(raw, tiny, 1 - tiny)
        logits = tf.math.log(clipped) - tf.math.log1p(-clipped)
    logits = tf.cast(logits, tf.float32)
    if head.kind in ("sigmoid", "logit"):
        positive = tf.sigmoid(logits) if head.kind == "logit" else raw
        return tf.concat([1 - positive, positive], -1), tf.concat([-logits, logits], -1)
    if head.kind == "logits":
        return tf.nn.softmax(logits), logits
    if head.forced:  # A sigmoid per class, read as one label per image: let the scores add up to 1.
        raw = raw / tf.reduce_sum(raw, axis=-1, keepdims=True)
    return raw, logits
