"""Record every spatial activation of a model while it is traced; say which were left out and why.

In: operations as `audit.predict.tracing` reports them. Out: the tensors to differentiate by, in the
order in which data takes them, and a `Layer` for each spatial output of the model.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from audit.predict.tracing import enclosing_operations

_PREPROCESSING_MODULE = "layers.preprocessing"


@dataclass(frozen=True)
class Layer:
    """One spatial output of a model.

    Attributes:
        layer: unique key: the path without the model's own name; a second call ends in "#2".
        path: names from the model down to the layer, joined by "/".
        kind: class of the layer.
        height, width, channels: of its output.
        stage: counts from 0 and grows where the area of the output halves or doubles; the border
            that a padding layer adds starts no new stage.
        order: position in the order in which data takes the layers.
        kept: whether it gets a map.
        reason: why it does not, or "".
    """

    layer: str
    path: str
    kind: str
    height: int
    width: int
    channels: int
    stage: int
    order: int
    kept: bool
    reason: str


class ActivationRecorder:
    """Collects spatial activations; hand it to `observe_operations` while a model is traced.

    Args:
        watch: called with each kept tensor as soon as it exists, for instance `tape.watch`.
    """

    def __init__(self, watch: Callable[[tf.Tensor], None]) -> None:
        self._watch = watch
        self._graph = tf.compat.v1.get_default_graph()
        self._seen: dict[int, tf.Tensor] = {}
        self._calls: dict[str, int] = {}
        self._preprocessing_weights: set[int] = set()
        self._past_preprocessing = False
        self.layers: list[Layer] = []
        self.activations: list[tf.Tensor] = []
        """One tensor of shape (n, height, width, channels) for each kept layer."""

    def __call__(
        self, path: tuple[str, ...], operation: keras.Operation, first_input: Any, output: Any
    ) -> None:
        if isinstance(operation, keras.Layer):
            weights = {id(weight) for weight in operation.weights}
            if _preprocesses(operation):
                self._preprocessing_weights |= weights
            elif weights - self._preprocessing_weights:  # A container has those of its layers.
                self._past_preprocessing = True
        elif any(not isinstance(outer, keras.Model) for outer in enclosing_operations()):
            return  # An operation inside a layer: the layer itself is recorded.
        for tensor in tf.nest.flatten(output):
            if (
                isinstance(tensor, tf.Tensor)
                and tensor.dtype.is_floating
                and tensor.shape.rank == 4
            ):
                self._record(path, operation, tensor)

    def _record(self, path: tuple[str, ...], operation: keras.Operation, tensor: tf.Tensor) -> None:
        if id(tensor) in self._seen:  # A container, or a layer that passes its input on.
            return
        self._seen[id(tensor)] = tensor
        reason = self._why_skipped(operation, tensor)
        height, width, channels = (int(side or 0) for side in tensor.shape[1:])
        layer = Layer(
            layer=self._key(path),
            path="/".join(path),
            kind=type(operation).__name__,
            height=height,
            width=width,
            channels=channels,
            stage=self._next_stage(height, width, bool(reason)),
            order=len(self.layers),
            kept=not reason,
            reason=reason,
        )
        self.layers.append(layer)
        if layer.kept:
            self.activations.append(tensor)
            self._watch(tensor)

    def drop_unreached(self, per_class: list[list[tf.Tensor | None]]) -> list[list[tf.Tensor]]:
        """Mark the layers that reach no score as skipped.

        Args:
            per_class: for each differentiated score, the gradient of each kept layer, or `None`.

        Returns:
            The same for the layers that are left; zeros where a layer reaches only other scores.
        """
        reaches = [
            any(gradient is not None for gradient in g) for g in zip(*per_class, strict=True)
        ]
        positions = [position for position, layer in enumerate(self.layers) if layer.kept]
        for position, does in zip(positions, reaches, strict=True):
            if not does:
                reason = "does not reach the score"
                self.layers[position] = replace(self.layers[position], kept=False, reason=reason)
        self.activations = [a for a, does in zip(self.activations, reaches, strict=True) if does]
        return [
            [
                tf.zeros_like(activations) if gradient is None else gradient
                for activations, gradient in zip(
                    self.activations,
                    (g for g, does in zip(gradients, reaches, strict=True) if does),
                    strict=True,
                )
            ]
            for gradients in per_class
        ]

    def choose(self, choice: str) -> None:
        """Keep only the layers that the user asked for.

        Args:
            choice: "all", "conv", "stages" (the last kept layer of each stage), or a regular
                expression that is searched for in the path.
        """
        if choice == "all":
            return
        kept = [layer for layer in self.layers if layer.kept]
        if choice == "conv":
            chosen = {layer.order for layer in kept if "Conv" in layer.kind}
        elif choice == "stages":
            chosen = set({layer.stage: layer.order for layer in kept}.values())
        else:
            chosen = {layer.order for layer in kept if re.search(choice, layer.path)}
        pairs = zip(kept, self.activations, strict=True)
        self.activations = [tensor for layer, tensor in pairs if layer.order in chosen]
        for layer in kept:
            if layer.order not in chosen:
                reason = "not chosen by --layers"
                self.layers[layer.order] = replace(layer, kept=False, reason=reason)

    def _why_skipped(self, operation: keras.Operation, tensor: tf.Tensor) -> str:
        if tensor.graph is not self._graph:
            return "inside a loop or a branch"
        if None in tensor.shape[1:]:
            return "its size is not fixed"
        if tensor.shape[1] * tensor.shape[2] <= 1:
            return "1 × 1: it has no place"
        if any(_attends(outer) for outer in enclosing_operations()):
            return "inside attention"
        if not self._past_preprocessing or _preprocesses(operation):
            return "preprocessing: the image itself, no features"
        return ""

    def _key(self, path: tuple[str, ...]) -> str:
        name = "/".join(path[1:]) or path[0]
        self._calls[name] = self._calls.get(name, 0) + 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"

    def _next_stage(self, height: int, width: int, skipped: bool) -> int:
        kept = [layer for layer in self.layers if layer.kept]
        if not kept:
            return 0
        ratio = max(height, 1) * max(width, 1) / (kept[-1].height * kept[-1].width)
        return kept[-1].stage + (0 if skipped or 0.5 < ratio < 2 else 1)


def _preprocesses(operation: keras.Operation) -> bool:
    return _PREPROCESSING_MODULE in type(operation).__module__


def _attends(operation: keras.Operation) -> bool:
    return isinstance(
        operation,
        keras.layers.MultiHeadAttention
        | keras.layers.GroupQueryAttention
        | keras.layers.Attention
        | keras.layers.AdditiveAttention,
    )
