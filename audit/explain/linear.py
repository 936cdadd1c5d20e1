"""Grad-CAM of many layers with as few passes over activations and gradients as their graph allows.

To read every activation and every gradient once more costs about as much as the network itself.
Yet many layers are linear in others: a 1 × 1 convolution, a batch normalisation in inference mode,
an addition, a concatenation. Where the traced graph says so, the mean gradient of a layer follows
from that of another one (a few numbers per channel), and its map from weighted sums of channels of
other ones. Only what is left is read, each tensor once, for all the maps that need it.

In: the tensors of a traced forward and backward pass. Out: mean gradients and signed maps, equal to
those computed layer by layer but for rounding. An operation that is not known here is read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from audit.explain.gradcam import spatial_mean

_MOST_TERMS = 8
"""A map that would be a sum over more tensors than this is read from its own layer instead."""


class MeanGradients:
    """Means over height and width of gradients, each worked out once: Grad-CAM's channel weights.

    Args:
        gradients: of shape (n, height, width, channels); only they are ever read.
        products: where channel weights are multiplied.

    Source: Selvaraju et al. 2017, eq. 1. https://arxiv.org/abs/1610.02391
    """

    def __init__(self, gradients: Sequence[tf.Tensor], products: "WeightProducts") -> None:
        self._gradients = list(gradients)
        self._readable = {id(gradient) for gradient in gradients}
        self._products = products
        self._known: dict[int, tuple[tf.Tensor, tf.Tensor | None]] = {}

    def means(self) -> list[tf.Tensor]:
        """Return the mean of each gradient, shape (n, channels)."""
        # From the last layer on, so that most of what a mean follows from is known already.
        return [self._mean(gradient) for gradient in reversed(self._gradients)][::-1]

    def _mean(self, gradient: tf.Tensor) -> tf.Tensor | None:
        """Return a mean, or `None` where only a tensor that must not be read would give it."""
        if id(gradient) not in self._known:
            mean = self._derive(gradient)
            if mean is None and id(gradient) in self._readable:
                mean = spatial_mean(gradient)
            self._known[id(gradient)] = (gradient, mean)
        return self._known[id(gradient)][1]

    def _derive(self, gradient: tf.Tensor) -> tf.Tensor | None:
        if not _has_size(gradient):
            return None
        kind, inputs = gradient.op.type, gradient.op.inputs
        same = _passed_on(gradient)
        if same is not None:
            return self._mean(same)
        scaled = _factor_per_channel(gradient)
        if scaled is not None:
            varying, factor = scaled
            mean = self._mean(varying)
            return None if mean is None else self._products.scale(mean, factor)
        if kind in ("AddN", "AddV2") and all(_same_size(term, gradient) for term in inputs):
            means = [self._mean(term) for term in inputs]
            return None if any(mean is None for mean in means) else tf.add_n(means)
        if kind == "Conv2DBackpropInput" and _is_pointwise(gradient.op, inputs[1], gradient):
            mean = self._mean(inputs[2])
            if mean is None:
                return None
            before = self._products.back_through(mean, inputs[1])
            share = _n_places(inputs[2]) / _n_places(gradient)  # below 1 where it strides
            return before if share == 1 else before * tf.cast(share, before.dtype)
        if kind == "Slice":  # of a concatenation
            whole, begin, _ = inputs
            mean = self._mean(whole) if whole.shape[1:3] == gradient.shape[1:3] else None
            return None if mean is None else _slice(mean, begin, gradient.shape[3])
        if kind == "RealDiv" and inputs[1].shape.rank == 0:
            mean = self._mean(inputs[0])
            return None if mean is None else mean / inputs[1]
        if kind == "BroadcastTo":  # of a mean over all places
            return _spread_value(gradient)
        return None


class ChannelSums:
    """Weighted sums of the channels of activations.

    Args:
        activations: of shape (n, height, width, channels); only they are ever read.
        products: where channel weights are multiplied.

    Source: Selvaraju et al. 2017, eq. 2, before the ReLU.
    """

    def __init__(self, activations: Sequence[tf.Tensor], products: "WeightProducts") -> None:
        self._activations = list(activations)
        self._readable = {id(tensor) for tensor in activations}
        self._products = products
        self._splits: dict[int, tuple[tf.Tensor, _Split | None, int | None]] = {}
        for tensor in self._activations:
            self._count_terms(tensor)

    def maps(self, weights: Sequence[Sequence[tf.Tensor | None]]) -> list[list[tf.Tensor | None]]:
        """Return signed maps of shape (n, height, width).

        Args:
            weights: for each explained class and each of the activations, shape (n, channels), or
                `None` where no map is asked for.

        Returns:
            For each class, a map for each of the activations, or `None`.
        """
        sums = [
            [
                ([], None) if w is None else self._expand(tensor, w)
                for tensor, w in zip(self._activations, one, strict=True)
            ]
            for one in weights
        ]
        columns = _read([term for one in sums for terms, _ in one for term in terms])
        return [
            [_add_up(terms, offset, columns) if terms else None for terms, offset in one]
            for one in sums
        ]

    def _count_terms(self, tensor: tf.Tensor) -> int | None:
        """Decide whether a tensor is read; say over how many tensors its sum goes.

        `None` where only a tensor that must not be read would give it.
        """
        if id(tensor) not in self._splits:
            split = self._split(tensor)
            counts = [self._count_terms(part) for part in split.parts] if split else [None]
            n_terms = None if None in counts else sum(count or 0 for count in counts)
            if id(tensor) in self._readable and (n_terms is None or n_terms > _MOST_TERMS):
                split, n_terms = None, 1
            self._splits[id(tensor)] = (tensor, split, n_terms)
        return self._splits[id(tensor)][2]

    def _split(self, tensor: tf.Tensor) -> "_Split | None":
        """Say how a tensor is linear in others, or `None` if it is not."""
        if not _has_size(tensor):
            return None
        kind, inputs = tensor.op.type, tensor.op.inputs
        if kind == "Identity":
            return _Split((inputs[0],))
        scaled = _factor_per_channel(tensor)
        if scaled is not None:
            varying, factor = scaled
            return _Split((varying,), lambda weights: [self._products.scale(weights, factor)])
        if kind in ("AddV2", "BiasAdd") and inputs[0].shape.rank is not None:
            whole = [term for term in inputs if _same_size(term, tensor)]
            if len(whole) == 2:
                return _Split(tuple(whole))
            shift = inputs[1] if whole and whole[0] is inputs[0] else inputs[0]
            if whole and _is_per_channel(shift, tensor):
                return _Split((whole[0],), shift=shift)
        if kind == "Conv2D" and _is_pointwise(tensor.op, inputs[1], inputs[0]):
            if inputs[0].shape[1:3] != tensor.shape[1:3]:  # It strides.
                return None
            kernel = inputs[1]
            return _Split((inputs[0],), lambda w: [self._products.back_through(w, kernel)])
        if kind == "ConcatV2" and tf.get_static_value(inputs[-1]) in (3, -1):
            if not all(_has_size(part) for part in inputs[:-1]):
                return None
            sizes = tuple(part.shape[3] for part in inputs[:-1])
            return _Split(tuple(inputs[:-1]), lambda weights: tf.split(weights, sizes, axis=1))
        return None

    def _expand(
        self, tensor: tf.Tensor, weights: tf.Tensor
    ) -> tuple[list[tuple[tf.Tensor, tf.Tensor]], tf.Tensor | None]:
        """Return the sum as pairs of a tensor to read and its weights, and an offset (n,)."""
        _, split, _ = self._splits[id(tensor)]
        if split is None:
            return [(tensor, weights)], None
        terms, offsets = [], []
        if split.shift is not None:
            offsets.append(tf.reduce_sum(weights * _by_channel(split.shift), axis=1))
        turned = split.turn(weights) if split.turn else [weights] * len(split.parts)
        for part, weights_of_part in zip(split.parts, turned, strict=True):
            inner, offset = self._expand(part, weights_of_part)
            terms += inner
            offsets += [] if offset is None else [offset]
        return terms, tf.add_n(offsets) if offsets else None


@dataclass(frozen=True)
class _Split:
    """A tensor as the sum of others plus a shift.

    Attributes:
        turn: from the channel weights of the whole to those of each part; without it, the same.
    """

    parts: tuple[tf.Tensor, ...]
    turn: Callable[[tf.Tensor], Sequence[tf.Tensor]] | None = None
    shift: tf.Tensor | None = None


class WeightProducts:
    """Products of channel weights of shape (n, channels), each built once.

    So a map that is the same as another one but for its offset costs no column of its own.
    """

    def __init__(self) -> None:
        self._built: dict[tuple[int, int], tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = {}

    def scale(self, weights: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """Multiply by a factor that is the same at every place of an image."""
        return self._once(weights, factor, lambda: weights * _by_channel(factor))

    def back_through(self, weights: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Turn weights of the filters of a 1 × 1 convolution into weights of its channels."""
        flat = (kernel.shape[2], kernel.shape[3])
        return self._once(
            weights,
            kernel,
            lambda: tf.matmul(weights, tf.reshape(kernel, flat), transpose_b=True),
        )

    def _once(self, a: tf.Tensor, b: tf.Tensor, build: Callable[[], tf.Tensor]) -> tf.Tensor:
        key = id(a), id(b)
        if key not in self._built:
            self._built[key] = (a, b, build())  # The first two are kept: their ids stay theirs.
        return self._built[key][2]


def _read(
    terms: Iterable[tuple[tf.Tensor, tf.Tensor]],
) -> dict[tuple[int, int], tf.Tensor]:
    """Sum the channels of each tensor once for all its weights.

    Returns:
        By the ids of tensor and weights, shape (n, height, width).
    """
    wanted: dict[int, tuple[tf.Tensor, dict[int, tf.Tensor]]] = {}
    for tensor, weights in terms:
        wanted.setdefault(id(tensor), (tensor, {}))[1][id(weights)] = weights
    columns: dict[tuple[int, int], tf.Tensor] = {}
    for key, (tensor, by_id) in wanted.items():
        _, height, width, channels = tensor.shape
        pixels = tf.reshape(tensor, (-1, height * width, channels))
        # Each map comes out in one piece, so that what follows copies no single numbers.
        sums = tf.matmul(tf.stack(list(by_id.values()), axis=1), pixels, transpose_b=True)
        maps = tf.unstack(tf.reshape(sums, (-1, len(by_id), height, width)), axis=1)
        columns |= {(key, weights_id): one for weights_id, one in zip(by_id, maps, strict=True)}
    return columns


def _add_up(
    terms: Sequence[tuple[tf.Tensor, tf.Tensor]],
    offset: tf.Tensor | None,
    columns: dict[tuple[int, int], tf.Tensor],
) -> tf.Tensor:
    found = [columns[id(tensor), id(weights)] for tensor, weights in terms]
    total = found[0] if len(found) == 1 else tf.add_n(found)
    return total if offset is None else total + tf.reshape(offset, (-1, 1, 1))


def _slice(mean: tf.Tensor, begin: tf.Tensor, size: int) -> tf.Tensor:
    """Cut a mean as its gradient is cut at `begin`, of which only the last number is not 0."""
    part = tf.slice(mean, begin[2:], (-1, size))
    return tf.ensure_shape(part, (None, size))


def _passed_on(tensor: tf.Tensor) -> tf.Tensor | None:
    """Return the tensor that an operation passes on unchanged, if it does."""
    operation = tensor.op
    if operation.type == "Identity":
        return operation.inputs[0]
    if operation.type == "Reshape" and operation.inputs[0].op.type == "Sum":
        # The gradient of an addition is summed over what was broadcast. Here that is nothing.
        whole, axes = operation.inputs[0].op.inputs
        if axes.op.type == "BroadcastGradientArgs" and _same_size(whole, tensor):
            return whole
    return None


def _factor_per_channel(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Return (what varies, factor) of a product by a factor that is the same at every place."""
    if tensor.op.type != "Mul":
        return None
    first, second = tensor.op.inputs
    for varying, factor in ((first, second), (second, first)):
        if _same_size(varying, tensor) and _is_per_channel(factor, tensor):
            return varying, factor
    return None


def _spread_value(gradient: tf.Tensor) -> tf.Tensor | None:
    """Return the value of shape (n, channels) that a gradient has at every place, if it has one."""
    spread = gradient.op.inputs[0]
    channels = gradient.shape[3]
    candidates = [spread, *(spread.op.inputs[:1] if spread.op.type == "Reshape" else ())]
    for value in candidates:  # The shape of what is reshaped is often known better.
        if value.shape.rank in (2, 4) and value.shape[1:].num_elements() == channels:
            return tf.reshape(value, (-1, channels))
    return None


def _has_size(tensor: tf.Tensor) -> bool:
    return tensor.shape.rank == 4 and tensor.shape[1:].is_fully_defined()


def _same_size(tensor: tf.Tensor, other: tf.Tensor) -> bool:
    return _has_size(tensor) and tensor.shape[1:] == other.shape[1:]


def _n_places(tensor: tf.Tensor) -> int:
    return int(tensor.shape[1] * tensor.shape[2])


def _is_per_channel(factor: tf.Tensor, whole: tf.Tensor) -> bool:
    """Tell whether a factor of `whole` has no place: one number, or one per channel."""
    shape = factor.shape
    if shape.rank is None or shape.rank > 4 or _n_places(whole) == 1:
        return False
    return shape.rank == 0 or (
        shape[-1] in (1, whole.shape[3])
        and all(side == 1 for side in (shape[1:-1] if shape.rank == 4 else shape[:-1]))
    )


def _by_channel(factor: tf.Tensor) -> tf.Tensor:
    """Bring a factor that has no place to a shape that broadcasts with (n, channels)."""
    return factor if factor.shape.rank < 2 else tf.reshape(factor, (-1, factor.shape[-1]))


def _is_pointwise(operation: tf.Operation, kernel: tf.Tensor, before: tf.Tensor) -> bool:
    """Tell whether a convolution of `before` looks at one place at a time."""
    return bool(
        operation.get_attr("data_format") == b"NHWC"
        and operation.get_attr("padding") != b"EXPLICIT"
        and kernel.shape.rank == 4
        and kernel.shape.is_fully_defined()
        and kernel.shape[:2] == (1, 1)
        and _has_size(before)
        and kernel.shape[2] == before.shape[3]  # else it is split into groups
    )
