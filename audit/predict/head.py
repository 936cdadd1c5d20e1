"""The outputs of a model: which one is the classifier's, what it means, and what feeds it.

In: what a model's call returned, and its operations as `audit.predict.tracing` reports them. Out:
one tensor of outputs, a `Head` that says how to read it, an embedding.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import keras
import numpy as np
import tensorflow as tf

from audit.errors import ModelError
from audit.predict.axes import REARRANGED, AxisOrders, to_channels_last
from audit.predict.tracing import HALF_PRECISION

HeadKind = Literal["sigmoid", "logit", "softmax", "logits"]
LogitsFrom = Literal["before the activation", "the outputs", "log-odds of the probability"]

_WIDEST_EMBEDDING = 4096
_PER_CLASS = "a sigmoid per class"
_LONGEST_NAME = 60


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


# Which output


def choose_output(called: Any, wanted: str | None, model: keras.Model, name: str) -> tf.Tensor:
    """Return the one output of a model that holds the class scores.

    Args:
        called: what the model returned: a tensor, or tensors in a list, tuple or dict.
        wanted: name or index of the output; `None` where there is only one.
        model: says the names of its outputs, unless a dict does.
        name: of the model, for errors.

    Returns:
        A tensor of shape (n, outputs).

    Raises:
        ModelError: if there is no such output, none was chosen of several, or it is no vector.
    """
    outputs = _name_outputs(called, model)
    if wanted is None and len(outputs) > 1:
        last = _shown(outputs[-1][0]) or str(len(outputs) - 1)
        raise ModelError(
            f"`{name}` has {len(outputs)} outputs. Received: {_list_outputs(outputs)}. Say which of"
            f" them holds the class scores, by name or number, for instance `--output {last}`."
        )
    chosen = [tensor for own_name, tensor in outputs if wanted in (None, own_name)]
    if not chosen and wanted is not None and wanted.isdecimal() and int(wanted) < len(outputs):
        chosen = [outputs[int(wanted)][1]]
    if len(chosen) != 1:
        raise ModelError(
            f"`--output {wanted}` does not name one output of `{name}`. Received: a model with"
            f" {_list_outputs(outputs)}. Give one of these names or numbers."
        )
    output = chosen[0]
    if not isinstance(output, tf.Tensor) or output.shape.rank != 2 or not output.shape[-1]:
        raise ModelError(
            f"`{name}` is not a classifier. Received: an output of {_shape(output)}, not of shape"
            " (batch, classes). Give a model with one score, or a vector of scores, per image."
        )
    return output


def _name_outputs(called: Any, model: keras.Model) -> list[tuple[str, Any]]:
    """Return name and tensor of each output; the name is "" where nothing says one."""
    with_paths = keras.tree.flatten_with_path(called)
    named = getattr(model, "output_names", None) or []
    outputs = []
    for index, (path, tensor) in enumerate(with_paths):
        if any(isinstance(part, str) for part in path):
            outputs.append(("/".join(str(part) for part in path), tensor))
        else:
            outputs.append((named[index] if len(named) == len(with_paths) else "", tensor))
    return outputs


def _list_outputs(outputs: list[tuple[str, Any]]) -> str:
    return "; ".join(
        f"output {index}{f' `{_shown(name)}`' if name else ''} of {_shape(tensor)}"
        for index, (name, tensor) in enumerate(outputs)
    )


def _shown(name: str) -> str:
    """Return a name as a terminal may show it: names come from files of strangers."""
    text = "".join(sign if sign.isprintable() else "?" for sign in name)
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _shape(value: Any) -> str:
    if not isinstance(value, tf.Tensor):
        return f"type {type(value).__name__}"
    if not value.shape.rank:
        return "a single number" if value.shape.rank == 0 else "unknown shape"
    return f"shape ({', '.join(['batch', *map(str, value.shape[1:])])})"


# What feeds it


class EmbeddingRecorder:
    """Remembers, while a model is traced, what may serve as the embedding of an image."""

    def __init__(self) -> None:
        self._orders = AxisOrders()
        self._dense: list[tuple[tf.Tensor, tf.Tensor]] = []
        self._spatial: list[tuple[tf.Tensor, str]] = []

    def __call__(
        self, path: tuple[str, ...], operation: keras.Operation, first_input: Any, output: Any
    ) -> None:
        if not isinstance(output, tf.Tensor) or not output.dtype.is_floating:
            return
        if output.shape.rank == 4:
            self._spatial.append((output, self._orders.order(operation, first_input, output)))
        if isinstance(operation, keras.layers.Dense) and first_input.shape.rank == 2:
            self._dense.append((first_input, output))

    def embedding(self, raw: tf.Tensor) -> tf.Tensor:
        """Return the input of the last Dense layer before the scores, or a pooled spatial output.

        Args:
            raw: the scores, in the same graph. What feeds only other outputs is passed over.

        Returns:
            Shape (n, width).

        Raises:
            ModelError: if neither is on the way to the scores.
        """
        on_the_way = _operations_before(raw)
        dense = [given for given, made in self._dense if _is_among(made, on_the_way)]
        spatial = [
            to_channels_last(tensor, order)
            for tensor, order in self._spatial
            if order != REARRANGED and _is_among(tensor, on_the_way)
        ][-1:]
        if dense and (dense[-1].shape[-1] <= _WIDEST_EMBEDDING or not spatial):
            return dense[-1]
        if spatial:
            return tf.reduce_mean(spatial[0], axis=(1, 2))
        raise ModelError(
            "The model has no classifier head to take embeddings from. Received: neither a Dense"
            " layer nor a spatial layer. Give a classifier of images."
        )


def _operations_before(tensor: tf.Tensor) -> tuple[tf.Graph, set[str]]:
    """Return the graph of a tensor and the names of all operations that it is worked out from."""
    found = {tensor.op.name}
    waiting = [tensor.op]
    while waiting:
        for given in waiting.pop().inputs:
            if given.op.name not in found:
                found.add(given.op.name)
                waiting.append(given.op)
    return tensor.graph, found


def _is_among(tensor: tf.Tensor, operations: tuple[tf.Graph, set[str]]) -> bool:
    graph, names = operations
    return tensor.graph is graph and tensor.op.name in names


# What it means


class ActivationNames:
    """Remembers, while a model is called, by which activation Dense layers made their outputs."""

    def __init__(self) -> None:
        self._activated: list[tuple[tf.Tensor, str]] = []

    def __call__(
        self, path: tuple[str, ...], operation: keras.Operation, first_input: Any, output: Any
    ) -> None:
        if isinstance(operation, keras.layers.Dense | keras.layers.Activation):
            name = getattr(operation.activation, "__name__", type(operation.activation).__name__)
            self._activated.append((output, name))

    def of(self, output: tf.Tensor) -> str | None:
        """Return the name of the activation that made a tensor, or `None` if no Dense layer did."""
        return next((name for tensor, name in self._activated if tensor is output), None)


def detect_head(raw: tf.Tensor, activation: str | None, choice: str, name: str) -> Head:
    """Find out what outputs mean: ask the layer that made them, or else the values.

    Args:
        raw: what the model returned for some images, of shape (n, outputs).
        activation: the name of the activation that made it, if known.
        choice: what the user says that it is, or "auto".
        name: of the model, for errors.

    Raises:
        ModelError: if the choice does not fit, or the outputs are no classifier's.
    """
    outputs = tf.cast(raw, tf.float32).numpy()
    has_logits = hasattr(raw, "_keras_logits")
    exact = raw.dtype.name not in HALF_PRECISION
    kind = choice if choice != "auto" else _head_kind(outputs, has_logits, activation, exact)
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


def _head_kind(outputs: np.ndarray, has_logits: bool, activation: str | None, exact: bool) -> str:
    n_outputs = outputs.shape[1]
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    bounded = bool((outputs >= 0).all() and (outputs <= 1).all())
    if not has_logits and activation == "linear":
        return "logit" if n_outputs == 1 else "logits"
    if n_outputs == 1:
        return "sigmoid" if has_logits or bounded else "logit"
    sums_to_one = bool(np.allclose(outputs.sum(axis=1), 1, atol=1e-3 if exact else 0.03))
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


def scores_and_logits(raw: tf.Tensor, head: Head) -> tuple[tf.Tensor, tf.Tensor]:
    """Return probabilities and logits in class order, float32 of shape (n, n_classes).

    All probabilities of an image are NaN if one of its outputs is not a finite number.

    Args:
        raw: the model's own outputs, of shape (n, outputs), as its call returned them: Keras keeps
            the logits as an attribute of that very tensor.
    """
    logits = getattr(raw, "_keras_logits", None)
    raw = tf.cast(raw, tf.float32)
    if head.kind in ("logit", "logits"):
        logits = raw
    elif logits is None or head.logits_from == "log-odds of the probability":
        tiny = 1e-7
        clipped = tf.clip_by_value(raw, tiny, 1 - tiny)
        logits = tf.math.log(clipped) - tf.math.log1p(-clipped)
    logits = tf.cast(logits, tf.float32)
    scores = raw
    if head.kind in ("sigmoid", "logit"):
        positive = tf.sigmoid(logits) if head.kind == "logit" else raw
        scores = tf.concat([1 - positive, positive], -1)
        logits = tf.concat([-logits, logits], -1)
    elif head.kind == "logits":
        scores = tf.nn.softmax(logits)
    elif head.forced:  # A sigmoid per class, read as one label per image: let them add up to 1.
        scores = raw / tf.reduce_sum(raw, axis=-1, keepdims=True)
    is_finite = tf.reduce_all(tf.math.is_finite(raw), axis=-1, keepdims=True)
    return tf.where(is_finite, scores, float("nan")), logits
