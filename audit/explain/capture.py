"""Record every spatial activation of a model while it is traced; say which were left out and why.

In: operations as `audit.predict.tracing` reports them. Out: the tensors to differentiate by, in the
order in which data takes them, and a `Layer` for each spatial output of the model. Channels that
come first and tokens of a vision transformer are brought to height × width × channels afterwards.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from audit.explain.tokens import attended_counts, find_token_grid
from audit.predict.axes import (
    CHANNELS_LAST,
    REARRANGED,
    AxisOrders,
    format_of,
    size_in,
    to_channels_last,
)
from audit.predict.model import AuditedModel
from audit.predict.tracing import enclosing_operations, in_float32, observe_operations

_PREPROCESSING_MODULE = "layers.preprocessing"
_INSIDE_ATTENTION = "inside attention"
_REARRANGED = "rearranged: its sides are not the image's"
_PROBE_IMAGES = 2


@dataclass(frozen=True)
class Layer:
    """One spatial output of a model.

    Attributes:
        layer: unique key: the path without the model's own name; a second call ends in "#2".
        path: names from the model down to the layer, joined by "/".
        kind: class of the layer; followed by ", tokens" where these are laid out as a grid.
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


@dataclass
class _Found:
    """A tensor that may be a spatial output, and what was seen of it."""

    path: tuple[str, ...]
    operation: keras.Operation
    tensor: tf.Tensor
    order: str
    reason: str = ""


class ActivationRecorder:
    """Collects spatial activations; hand it to `observe_operations` while a model is traced.

    Afterwards call `finish`, differentiate by `sources`, hand the gradients to `drop_unreached`.

    Args:
        watch: called with each tensor that may be kept as soon as it exists, for instance
            `tape.watch`.
    """

    def __init__(self, watch: Callable[[tf.Tensor], None]) -> None:
        self._watch = watch
        self._graph = tf.compat.v1.get_default_graph()
        self._orders = AxisOrders()
        self._found: dict[int, _Found] = {}
        self._attended: set[int | None] = set()
        self._calls: dict[str, int] = {}
        self._preprocessing_weights: set[int] = set()
        self._past_preprocessing = False
        self._to_grid: list[Callable[[tf.Tensor], tf.Tensor]] = []
        self.layers: list[Layer] = []
        self.sources: list[tf.Tensor] = []
        """The tensor of each kept layer, as the model made it."""
        self.activations: list[tf.Tensor] = []
        """The same, each of shape (n, height, width, channels), once gradients are known."""

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
        if _attends(operation) and len(getattr(first_input, "shape", ())) == 3:
            self._attended.add(first_input.shape[1])
        for tensor in tf.nest.flatten(output):
            if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating:
                continue
            if tensor.shape.rank == 4:
                order = self._orders.order(operation, first_input, tensor)
                self._note(_Found(path, operation, tensor, order))
            elif tensor.shape.rank == 3:
                self._note(_Found(path, operation, tensor, ""))

    def _note(self, found: _Found) -> None:
        known = self._found.get(id(found.tensor))
        if known is not None:  # A container, or a layer that passes its input on.
            if known.reason != _INSIDE_ATTENTION or not _attends(found.operation):
                return
            del self._found[id(found.tensor)]  # What comes out of attention is no longer inside.
        found.reason = self._why_skipped(found)
        self._found[id(found.tensor)] = found
        if not found.reason:
            self._watch(found.tensor)

    def finish(self) -> None:
        """Sort out, once the whole model has been traced, what is a layer and what is kept."""
        attended = self._attended | attended_counts(self._graph.get_operations())
        tokens = [f.tensor for f in self._found.values() if f.tensor.shape.rank == 3]
        token_counts = {tensor.shape[1] for tensor in tokens} & attended
        sizes: list[tuple[int, int]] = []
        for found in self._found.values():
            if found.tensor.shape.rank == 3:
                if token_counts:
                    self._add_tokens(found, sizes, token_counts)
                continue
            size = size_in(found.tensor, found.order or CHANNELS_LAST)
            if not found.reason and not format_of(found.operation) and token_counts & set(size):
                found.reason = _INSIDE_ATTENTION  # Tokens split into heads have a rank of 4, too.
            if found.reason not in (_INSIDE_ATTENTION, _REARRANGED):
                sizes.append(size)
            to_grid = partial(to_channels_last, order=found.order)
            self._add(found, size, found.tensor.shape[found.order.find("c")], to_grid)

    def _add_tokens(
        self, found: _Found, sizes: list[tuple[int, int]], token_counts: set[int | None]
    ) -> None:
        """Add a tensor of rank 3 if it holds the tokens that take part in attention."""
        _, n_tokens, channels = found.tensor.shape
        grid = find_token_grid(n_tokens, sizes) if n_tokens else None
        if grid is None:
            if n_tokens in token_counts:
                found.reason = found.reason or "its tokens form no grid"
                self._add(found, (0, 0), channels, tf.identity)
        elif token_counts & {n_tokens, *grid.possible_counts}:
            self._add(found, (grid.height, grid.width), channels, grid.to_grid)

    def _add(
        self,
        found: _Found,
        size: tuple[int, int],
        channels: int | None,
        to_grid: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        kind = type(found.operation).__name__
        layer = Layer(
            layer=self._key(found.path),
            path="/".join(found.path),
            kind=kind if found.tensor.shape.rank == 4 else f"{kind}, tokens",
            height=size[0],
            width=size[1],
            channels=int(channels or 0),
            stage=self._next_stage(*size, bool(found.reason)),
            order=len(self.layers),
            kept=not found.reason,
            reason=found.reason,
        )
        self.layers.append(layer)
        if layer.kept:
            self.sources.append(found.tensor)
            self._to_grid.append(to_grid)

    @property
    def has_tokens(self) -> bool:
        """Whether a kept layer holds tokens: then `unfit_layers` has to be asked."""
        return any(tensor.shape.rank == 3 for tensor in self.sources)

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Mark kept layers as skipped, each by its key with a reason."""
        kept = [layer for layer in self.layers if layer.kept]
        stay = [layer.layer not in reasons for layer in kept]
        for layer in kept:
            if layer.layer in reasons:
                skipped = replace(layer, kept=False, reason=reasons[layer.layer])
                self.layers[layer.order] = skipped
        self.sources = [x for x, stays in zip(self.sources, stay, strict=True) if stays]
        self._to_grid = [x for x, stays in zip(self._to_grid, stay, strict=True) if stays]

    def drop_unreached(self, per_class: list[list[tf.Tensor | None]]) -> list[list[tf.Tensor]]:
        """Mark the layers that reach no score as skipped, and fill `activations`.

        Args:
            per_class: for each differentiated score, the gradient of each source, or `None`.

        Returns:
            The same for the layers that are left, each of shape (n, height, width, channels); zeros
            where a layer reaches only other scores.
        """
        kept = [layer for layer in self.layers if layer.kept]
        reaches = [any(g is not None for g in found) for found in zip(*per_class, strict=True)]
        unreached = [x.layer for x, does in zip(kept, reaches, strict=True) if not does]
        self.skip(dict.fromkeys(unreached, "does not reach the score"))
        self.activations = [
            to_grid(source) for source, to_grid in zip(self.sources, self._to_grid, strict=True)
        ]

        def on_grid(position: int, gradient: tf.Tensor | tf.IndexedSlices | None) -> tf.Tensor:
            if gradient is None:
                return tf.zeros_like(self.activations[position])
            return self._to_grid[position](tf.convert_to_tensor(gradient))

        return [
            [
                on_grid(position, gradient)
                for position, gradient in enumerate(
                    g for g, does in zip(gradients, reaches, strict=True) if does
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
        others = [layer.layer for layer in kept if layer.order not in chosen]
        self.skip(dict.fromkeys(others, "not chosen by --layers"))

    def _why_skipped(self, found: _Found) -> str:
        tensor = found.tensor
        if tensor.graph is not self._graph:
            return "inside a loop, a branch or a function"
        if any(_attends(outer) for outer in enclosing_operations()):
            return _INSIDE_ATTENTION
        if None in tensor.shape[1:]:
            return "its size is not fixed"
        if tensor.shape.rank == 4 and found.order == REARRANGED:
            return _REARRANGED
        if tensor.shape.rank == 4 and max(size_in(tensor, found.order)) <= 1:
            return "1 × 1: it has no place"
        if not self._past_preprocessing or _preprocesses(found.operation):
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


def unfit_layers(model: AuditedModel) -> dict[str, str]:
    """Find out by a trial which layers of a model with tokens cannot give a map of an image.

    After the last attention, a model that reads its class token only makes no use of its patches:
    their gradient is zero. And models that cut an image into windows put these in place of images.

    Returns:
        Reasons by the keys of the layers.
    """
    keys: list[str] = []

    @tf.function(autograph=False, jit_compile=False)
    def try_out(pixels: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            recorder = ActivationRecorder(tape.watch)
            with in_float32(model.model), observe_operations(recorder):
                raw = model.forward(pixels)
            logits = model.interpret(raw, tf.zeros((0, 0))).logits
            mixed = tf.reduce_sum(logits * tf.range(1.0, logits.shape[-1] + 1))  # No two cancel.
        recorder.finish()
        gradients = tape.gradient(mixed, recorder.sources)
        (on_grid,) = recorder.drop_unreached([gradients])
        keys[:] = [layer.layer for layer in recorder.layers if layer.kept]
        reaching = [tf.convert_to_tensor(g) for g in gradients if g is not None]
        return [
            (tf.shape(source)[0], tf.reduce_any(whole != 0), tf.reduce_any(patches != 0))
            for source, whole, patches in zip(recorder.sources, reaching, on_grid, strict=True)
        ]

    shape = (*model.input_size, model.channels)
    traced = try_out.get_concrete_function(tf.TensorSpec((None, *shape), tf.float32))
    noise = np.random.default_rng(0).uniform(0, 255, (_PROBE_IMAGES, *shape)).astype(np.float32)
    with tf.init_scope():  # Out of a graph that is being traced, and away from its tape.
        found = [[value.numpy() for value in row] for row in traced(tf.constant(noise))]
    reasons = {}
    for key, (n_rows, is_used, patches_are_used) in zip(keys, found, strict=True):
        if n_rows != _PROBE_IMAGES:
            reasons[key] = "of parts of images"
        elif is_used and not patches_are_used:
            reasons[key] = "only its leading tokens reach the score"
    return reasons
