"""Load a Keras model and find out what it is: its input, its outputs, whether it runs at all.

In: a path or a live model. Out: an `AuditedModel`, which turns pixels into scores, logits and
embeddings. A model that cannot be audited is refused with the reason.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from audit.errors import ModelError
from audit.places import Place
from audit.predict.axes import CHANNELS_FIRST, format_of
from audit.predict.head import (
    ActivationNames,
    EmbeddingRecorder,
    Head,
    choose_output,
    detect_head,
    scores_and_logits,
)
from audit.predict.legacy_h5 import load_legacy_h5
from audit.predict.model_file import check_model_file, fingerprint_model_file, local_model
from audit.predict.opaque import (
    OpaqueModel,
    fingerprint_scores,
    holds_opaque_layer,
    load_saved_model,
    wrap_function,
)
from audit.predict.tracing import all_layers, observe_operations

_PROBE_IMAGES = 8


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch, as symbolic or real tensors.

    Attributes:
        scores: float32 of shape (n, n_classes), probabilities in class order.
        logits: float32 of shape (n, n_classes); what heat-maps explain.
        embedding: float32 of shape (n, width), the input of the classifier head; the logits where
            an opaque model shows nothing else.
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
        channels_first: whether the model itself takes (channels, height, width).
        output: name or index of the output that is audited; `None` if there is only one.
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
        output: str | None = None,
        input_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.fingerprint = fingerprint
        self.output = output
        height, width, self.channels, self.channels_first = _check_input(model, name, input_shape)
        self.input_size = (height, width)
        self.head = self._probe(head)

    @property
    def has_one_output(self) -> bool:
        """Whether one value says all: what speaks for one class speaks against the other."""
        return self.head.kind in ("sigmoid", "logit")

    @property
    def n_parameters(self) -> int:
        return int(self.model.count_params())

    @property
    def opaque(self) -> str | None:
        """What it is if it, or a layer of it, cannot be looked into: "a function in Python"."""
        if isinstance(self.model, OpaqueModel):
            return self.model.description
        if holds_opaque_layer(self.model):
            return "a model with a layer that Keras cannot look into"
        return None

    def forward(self, pixels: tf.Tensor) -> tf.Tensor:
        """Run the model in inference mode and return the output that is audited, as it is.

        Args:
            pixels: scaled, of shape (n, height, width, channels).

        Returns:
            Shape (n, outputs).
        """
        if self.channels_first:
            pixels = tf.transpose(pixels, (0, 3, 1, 2))
        called = self.model(pixels, training=False)
        return choose_output(called, self.output, self.model, self.name)

    def call(self, pixels: tf.Tensor) -> Outputs:
        """Run the model in inference mode on scaled pixels of shape (n, height, width, channels).

        Meant to be traced inside a `tf.function`.
        """
        if tf.executing_eagerly():
            traced = tf.function(lambda x: vars(self.call(x)), autograph=False)
            return Outputs(**traced(pixels))
        recorder = EmbeddingRecorder()
        with observe_operations(recorder):
            raw = self.forward(pixels)
        try:
            embedding = recorder.embedding(raw)
        except ModelError:
            if self.opaque is None:
                raise
            _, embedding = scores_and_logits(raw, self.head)  # Nothing else is known of an image.
        return self.interpret(raw, embedding)

    def interpret(self, raw: tf.Tensor, embedding: tf.Tensor) -> Outputs:
        """Turn the model's own outputs into scores and logits in class order."""
        return Outputs(*scores_and_logits(raw, self.head), tf.cast(embedding, tf.float32))

    def _probe(self, head: str) -> Head:
        """Call the model on noise and find out what its outputs are."""
        shape = (_PROBE_IMAGES, *self.input_size, self.channels)
        noise = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        activations = ActivationNames()
        try:
            with observe_operations(activations):
                raw = self.forward(tf.constant(noise))
        except ModelError:
            raise
        except Exception as exc:  # Whatever the model's own layers raise on an image of its shape.
            raise ModelError(_why_not_run(self.model, self.name, exc)) from exc
        if not np.isfinite(tf.cast(raw, tf.float32)).any():
            _check_weights(self.model, self.name)
        return detect_head(raw, activations.of(raw), head, self.name)


def load_model(
    path: Place,
    *,
    head: str = "auto",
    output: str | None = None,
    trust_model_code: bool = False,
    input_shape: tuple[int | None, ...] | None = None,
) -> AuditedModel:
    """Load a `.keras` or `.h5` file, or a SavedModel folder, that holds an image classifier.

    Args:
        path: the file or folder, which may be behind a URL.
        head: what the outputs are, or "auto".
        output: name or index of the output with the class scores, if there are several.
        trust_model_code: whether code in the file, such as a Lambda layer's, or a SavedModel may
            run.
        input_shape: (height, width, channels) of the images, where a SavedModel leaves them open.

    Raises:
        ModelError: if it is missing, not a model, or not a classifier of images.
    """
    path = local_model(path)
    check_model_file(path)
    if path.is_dir():
        if not trust_model_code:
            raise ModelError(_untrusted(path, "a SavedModel, whose graph is a program"))
        opaque = load_saved_model(path)
        return AuditedModel(
            opaque,
            path.name,
            fingerprint_model_file(path),
            head=head,
            output=output,
            input_shape=input_shape,
        )
    with warnings.catch_warnings():  # about how the file was written, long ago and elsewhere
        warnings.simplefilter("ignore", UserWarning)
        model = _load_any(path, trust_model_code)
    return AuditedModel(model, path.name, fingerprint_model_file(path), head=head, output=output)


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
    model: "keras.Model | Callable[[Any], Any]",
    *,
    head: str = "auto",
    output: str | None = None,
    input_shape: tuple[int | None, ...] | None = None,
) -> AuditedModel:
    """Prepare a live model for an audit.

    Args:
        model: a Keras model, or a function as `audit.predict.opaque.wrap_function` takes it.
        head: what the outputs are, or "auto".
        output: name or index of the output with the class scores, if there are several.
        input_shape: (height, width, channels) of the images, where the model leaves them open.

    Raises:
        ModelError: if it is not a classifier of images.
    """
    whole = model if isinstance(model, keras.Model) else wrap_function(model, input_shape)
    audited = AuditedModel(whole, whole.name, "", head=head, output=output, input_shape=input_shape)
    if isinstance(whole, OpaqueModel):
        size = (*audited.input_size, audited.channels)
        audited.fingerprint = fingerprint_scores(audited.forward, size)
    else:
        audited.fingerprint = _fingerprint_live_model(whole)  # its weights exist once it has run
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
    if "safe_mode" in text:
        is_opaque = "TFSMLayer" in text
        kind = "TFSMLayer, which runs a SavedModel" if is_opaque else "Lambda layer"
        return _untrusted(path, f"a model with a {kind}")
    cause = _first_line(text.rpartition("Exception encountered: ")[2])  # after the configuration
    return (
        f"Keras {keras.__version__} cannot load `{path}`. Received: {type(exc).__name__}: {cause}."
        " Save the model again with a current Keras, as `model.save('model.keras')`."
    )


def _untrusted(path: Path, what: str) -> str:
    return (
        f"`{path}` brings code of its own, which has not been run. Received: {what}. If you trust"
        " where it comes from, add `--trust-model-code`."
    )


def _first_line(text: str) -> str:
    """Return the first line that says something, cut to a length that a terminal shows."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), "no message")[:300].rstrip(".")


def _cause(exc: Exception) -> str:
    """Return what a layer said, without Keras's heading and the escape codes around it."""
    text = str(exc).partition("Exception encountered when calling ")[2].partition("\n")[2]
    text = (text or str(exc)).replace("\x1b[1m", "").replace("\x1b[0m", "")
    return re.sub(r"\{\{.*?\}\} ?", "", text)  # TensorFlow's name for the place


def _why_not_run(model: keras.Model, name: str, exc: Exception) -> str:
    """Return why a model was refused that raised an exception on an image."""
    received = f"Received: {type(exc).__name__}: {_first_line(_cause(exc))}."
    first = any(format_of(layer) == CHANNELS_FIRST for layer in all_layers(model))
    if first and isinstance(exc, tf.errors.OpError):
        device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return (
            f"`{name}` has layers that put the channels first, which this {device} cannot run."
            f" {received} Audit it where `model.predict` works on it, or save it with channels"
            " last."
        )
    return f"`{name}` cannot be run on an image. {received} Check that `model.predict` works on it."


def _check_weights(model: keras.Model, name: str) -> None:
    broken = [
        weight.path
        for weight in model.weights
        if "float" in weight.dtype and not np.isfinite(tf.cast(weight.value, tf.float32)).all()
    ]
    if broken:
        raise ModelError(
            f"`{name}` has weights that are not finite numbers. Received:"
            f" NaN or infinity in {len(broken)} of {len(model.weights)} weights, the first"
            f" `{broken[0]}`. Give the model from before its training diverged."
        )


def _check_input(
    model: keras.Model, name: str, given: tuple[int | None, ...] | None
) -> tuple[int, int, int, bool]:
    """Return height, width, channels, and whether the model takes the channels first."""
    own = _own_input_shape(model, name)
    first = own is not None and len(own) == 3 and own[0] in (1, 3) and own[2] not in (1, 3)
    if first and own:
        own = (*own[1:], own[0])
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
            " Only grey-scale (1) and colour (3) can be audited."
        )
    if height is None or width is None:
        raise ModelError(
            f"`{name}` leaves the size of its images open. Received: an input of shape {shape}."
            " Give it a fixed size, as `keras.Input((224, 224, 3))` before the model does, and save"
            " it again; or call `audit.run` with a dataset whose images have the right size."
        )
    return int(height), int(width), int(channels), first


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
