"""From the maps of all layers to one: how layers are joined, by name.

In: stacks of maps, one for each size of maps. Out: the fused map, not yet scaled to its peak. All
functions work on tensors of float32, on any device, and copy nothing to the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from audit.config import Method
from audit.explain.capture import Layer
from audit.explain.gradcam import divide_by_peak, positive_part, resize_maps

_FLAT = 1e-6


@dataclass(frozen=True)
class MapStack:
    """The maps of all layers of one size, for k explained classes.

    Attributes:
        layers: in the model's order.
        signed: float32 of shape (n, k, layers, height, width); zeros where a map is not finite.
        positive: the same, >= 0, 0 where nothing speaks for the class.
        peaks: float32 of shape (n, k, layers): the largest value; 0 where nothing speaks for the
            class; below 0 where a map is the same everywhere, its value negated; NaN where it is
            not finite. Only a map with a peak above 0 says where the model looks.
    """

    layers: tuple[Layer, ...]
    signed: tf.Tensor
    positive: tf.Tensor
    peaks: tf.Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        _, _, _, height, width = self.signed.shape
        return height, width

    @property
    def is_finite(self) -> tf.Tensor:
        """Bool of shape (n, k, layers)."""
        return tf.math.is_finite(self.peaks)


FusionRule = Callable[[Sequence[MapStack], tuple[int, int], tuple[int, int]], tf.Tensor]
"""A way to join layers, called with the stacks, (height, width) of the image and of the result.

It returns float32 of shape (n, k, height, width), >= 0. Maps that are not finite or the same
everywhere take no part.
"""


def stack_maps(
    layers: Sequence[Layer],
    maps: Sequence[Sequence[tf.Tensor]],
    method: Method,
    signs: tf.Tensor | None = None,
) -> MapStack:
    """Stack the maps of layers of one size and find out which of them mean something.

    Args:
        maps: for each class and layer, signed, of shape (n, height, width).
        signs: float32 of shape (n, k), with maps of one class: those of each of the k classes are
            these times its sign.
    """
    signed = tf.stack([tf.stack(one, axis=1) for one in maps], axis=1)
    if signs is not None:
        signed = signed * signs[:, :, None, None, None]
    is_finite = tf.math.is_finite(tf.reduce_sum(signed, axis=(3, 4)))
    signed = tf.cond(  # Hardly ever: a pass over all maps that nearly every batch is spared.
        tf.reduce_all(is_finite),
        lambda: signed,
        lambda: tf.where(is_finite[..., None, None], signed, tf.zeros_like(signed)),
    )
    positive = positive_part(signed, method)
    peaks = tf.reduce_max(positive, axis=(3, 4))
    whole = signed if method == "article" else positive  # The article's least value is always 0.
    highest, lowest = tf.reduce_max(whole, axis=(3, 4)), tf.reduce_min(whole, axis=(3, 4))
    size = tf.maximum(tf.abs(highest), tf.abs(lowest))
    peaks = tf.where(highest - lowest <= _FLAT * size, 0 - size, peaks)
    peaks = tf.where(is_finite, peaks, tf.fill(tf.shape(peaks), float("nan")))
    return MapStack(tuple(layers), signed, positive, peaks)


def mean_over_layers(
    stacks: Sequence[MapStack], image_size: tuple[int, int], size: tuple[int, int]
) -> tf.Tensor:
    """Divide each map by its own peak and take the mean over layers.

    Enlarged bilinearly or reduced by area means, after layers of one size have been summed.
    """
    total, n_layers = tf.zeros(()), tf.zeros(())
    for stack in stacks:
        total = total + resize_maps(sum_of_layers(stack), size)
        n_layers = n_layers + tf.math.count_nonzero(stack.is_finite, axis=2, dtype=tf.float32)
    return tf.math.divide_no_nan(total, n_layers[..., None, None])


def sum_of_layers(stack: MapStack) -> tf.Tensor:
    """Divide each map by its own peak and sum: float32 of shape (n, k, height, width)."""
    height, width = stack.size
    share = tf.math.divide_no_nan(tf.cast(stack.peaks > 0, tf.float32), stack.peaks)
    share = tf.where(stack.peaks > 0, share, tf.zeros_like(share))
    flat = tf.reshape(stack.positive, (-1, *stack.positive.shape[1:3], height * width))
    return tf.reshape(tf.matmul(share[:, :, None, :], flat), (-1, flat.shape[1], height, width))


def article_mean_over_layers(
    stacks: Sequence[MapStack], image_size: tuple[int, int], size: tuple[int, int]
) -> tf.Tensor:
    """Fuse as the article does: resize to the image, scale from the least to the largest value
    to [0, 1], take the mean.

    Source: D. Reiff, "Understanding your Algorithm with Grad-CAM", 2021.
    """
    total, n_layers = tf.zeros(()), tf.zeros(())
    for stack in stacks:
        for position in range(len(stack.layers)):
            large = resize_maps(stack.signed[:, :, position], image_size)
            scaled, _ = divide_by_peak(positive_part(large, "article"))
            speaks = tf.cast(stack.peaks[:, :, position] > 0, tf.float32)
            total = total + scaled * speaks[..., None, None]
        n_layers = n_layers + tf.math.count_nonzero(stack.is_finite, axis=2, dtype=tf.float32)
    return resize_maps(tf.math.divide_no_nan(total, n_layers[..., None, None]), size)


FUSIONS: dict[str, FusionRule] = {
    "mean": mean_over_layers,
    "article": article_mean_over_layers,
}
"""The ways to fuse layers, by name."""


def default_fusion(method: Method) -> str:
    """Return the name of the fusion that belongs to a method."""
    return "article" if method == "article" else "mean"
