"""Which axis of a tensor is its height, its width, its channels.

In: operations as `audit.predict.tracing` reports them. Out: for each tensor of rank 4 its axes in
order, "nhwc" for channels last, "nchw" for channels first. Layers that have a `data_format` say it;
the others pass on what came in; what turns axes is followed.
"""

from typing import Any

import keras
import tensorflow as tf

CHANNELS_LAST = "nhwc"
CHANNELS_FIRST = "nchw"
REARRANGED = ""
"""The order of a tensor whose sides are not those of the image."""

_FORMATS = {"channels_last": CHANNELS_LAST, "channels_first": CHANNELS_FIRST}


def format_of(operation: keras.Operation) -> str | None:
    """Return the order of the axes that a layer works in, or `None` if it works in any."""
    return _FORMATS.get(getattr(operation, "data_format", None) or "")


class AxisOrders:
    """Remembers the order of the axes of every tensor of rank 4 that it is told of."""

    def __init__(self) -> None:
        self._orders: dict[int, tuple[tf.Tensor, str]] = {}
        self._last: tuple[tf.Tensor, str] | None = None
        self._sizes: set[tuple[int, ...]] = set()

    def order(self, operation: keras.Operation, first_input: Any, output: tf.Tensor) -> str:
        """Return the order of the axes of an output of rank 4, such as "nhwc".

        Args:
            operation: what made the output; inner operations before those that contain them.
            first_input: a tensor, or several.
            output: of rank 4.

        Returns:
            Four letters, `n` for the batch; or `REARRANGED`.
        """
        known = self._orders.get(id(output))
        if known is not None:
            return known[1]
        order = self._find_order(operation, _first_tensor(first_input), output)
        self._orders[id(output)] = self._last = output, order  # Kept, so that no id comes again.
        if order:
            self._sizes.add(size_in(output, order))
        return order

    def _find_order(
        self, operation: keras.Operation, source: tf.Tensor | None, output: tf.Tensor
    ) -> str:
        own = format_of(operation)
        if own:
            return own
        before = self._order_of_input(operation, source)
        kind = type(operation).__name__
        if source is None or source.shape.rank != 4:
            return before or CHANNELS_LAST
        if kind == "Reshape" and source.shape[1:] != output.shape[1:]:
            is_back = size_in(output, CHANNELS_LAST) in self._sizes
            return CHANNELS_LAST if is_back else REARRANGED
        if before == REARRANGED:
            return REARRANGED
        if kind == "Permute":
            return "n" + "".join(before[axis] for axis in operation.dims)
        if kind == "Transpose":
            axes = operation.axes or (3, 2, 1, 0)
            turned = "".join(before[axis] for axis in axes)
            return turned if turned[0] == "n" else REARRANGED
        return _turned_unseen(before, source, output)

    def _order_of_input(self, operation: keras.Operation, source: tf.Tensor | None) -> str:
        if source is not None and source.shape.rank == 4:
            known = self._orders.get(id(source))
            if known is not None:
                return known[1]
            if isinstance(operation, keras.layers.BatchNormalization):
                return CHANNELS_FIRST if operation.axis == 1 else CHANNELS_LAST
            # It comes from something that is no operation of Keras, most likely one that
            # works on every number by itself.
            if self._last is None:  # the images
                first = source.shape[1] in (1, 3) and source.shape[3] not in (1, 3)
                return CHANNELS_FIRST if first else CHANNELS_LAST
            return self._last[1] if self._last[0].shape[1:] == source.shape[1:] else CHANNELS_LAST
        return CHANNELS_FIRST if self._last and self._last[1] == CHANNELS_FIRST else CHANNELS_LAST


def size_in(tensor: tf.Tensor, order: str) -> tuple[int, int]:
    """Return (height, width) of a tensor of rank 4, 0 where a side is not fixed."""
    return tensor.shape[order.index("h")] or 0, tensor.shape[order.index("w")] or 0


def to_channels_last(tensor: tf.Tensor, order: str) -> tf.Tensor:
    """Turn a tensor of rank 4 into shape (n, height, width, channels)."""
    if order == CHANNELS_LAST:
        return tensor
    return tf.transpose(tensor, [order.index(axis) for axis in CHANNELS_LAST])


def _first_tensor(inputs: Any) -> tf.Tensor | None:
    return next((x for x in tf.nest.flatten(inputs) if isinstance(x, tf.Tensor)), None)


def _turned_unseen(before: str, source: tf.Tensor, output: tf.Tensor) -> str:
    """Return the other format if the output has just the input's sides, turned into it."""
    other = {CHANNELS_LAST: CHANNELS_FIRST, CHANNELS_FIRST: CHANNELS_LAST}.get(before)
    sides = dict(zip(before, source.shape, strict=True))
    if other is None or source.shape[1:] == output.shape[1:]:
        return before
    return other if [sides[axis] for axis in other[1:]] == list(output.shape[1:]) else before
