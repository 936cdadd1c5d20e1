"""From activations and gradients to one map per layer, and from all layers to one map.

All functions work on tensors of any float type, on any device, and copy nothing to the host.
"""

from collections.abc import Sequence

import tensorflow as tf

from audit.config import Method


def grad_cam_weights(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each channel by its mean gradient.

    Args:
        activations: shape (n, height, width, channels), the output of one layer.
        gradients: same shape, d(score) / d(activations).
        sign: shape (n,), 1 where the score speaks for the explained class, -1 where against it
            (the first class of a model with a single output).

    Returns:
        Shape (n, channels).

    Source: Selvaraju et al. 2017, eq. 1. https://arxiv.org/abs/1610.02391
    """
    return sign[:, None] * tf.reduce_mean(gradients, axis=(1, 2))


def article_weights(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each channel by its mean guided gradient: only where gradient and activation are > 0.

    Args and returns as in `grad_cam_weights`.

    Source: D. Reiff, "Understanding your Algorithm with Grad-CAM", 2021.
    """
    guided = tf.nn.relu(sign[:, None, None, None] * gradients) * tf.cast(
        activations > 0, gradients.dtype
    )
    return tf.reduce_mean(guided, axis=(1, 2))


def grad_cam_plus_plus_weights(
    activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor
) -> tf.Tensor:
    """Weigh each channel by its positive gradients, each with a weight of its own.

    Args and returns as in `grad_cam_weights`. As in the paper, the score is taken to be the
    exponential of the logit, and activations to be >= 0: where they are not, weights can be large.

    Source: Chattopadhay et al. 2018, eq. 19 for the weight of a pixel, eq. 5 for that of a channel.
    https://arxiv.org/abs/1710.11063
    """
    gradients = sign[:, None, None, None] * gradients
    total = tf.reduce_sum(activations, axis=(1, 2), keepdims=True)
    # gradients² ÷ (2 gradients² + total · gradients³), divided through by gradients².
    denominator = tf.where(gradients == 0, tf.zeros_like(gradients), 2 + total * gradients)
    return tf.reduce_sum(tf.math.divide_no_nan(tf.nn.relu(gradients), denominator), axis=(1, 2))


CHANNEL_WEIGHTS = {
    "gradcam": grad_cam_weights,
    "article": article_weights,
    "gradcam++": grad_cam_plus_plus_weights,
}
"""The rule that weighs the channels, by name of the method."""


def hires_cam(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each pixel of each channel by its own gradient, and sum the channels.

    Args:
        activations, gradients, sign: as in `grad_cam_weights`.

    Returns:
        Shape (n, height, width), signed.

    Source: Draelos and Carin 2020. https://arxiv.org/abs/2011.08891
    """
    return sign[:, None, None] * tf.reduce_sum(activations * gradients, axis=-1)


def layer_cam(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each pixel of each channel by its own gradient where that is positive, and sum.

    Args and returns as in `hires_cam`.

    Source: Jiang et al. 2021, "LayerCAM". https://doi.org/10.1109/TIP.2021.3089943
    """
    positive = tf.nn.relu(sign[:, None, None, None] * gradients)
    return tf.reduce_sum(activations * positive, axis=-1)


PIXEL_WEIGHTS = {"hirescam": hires_cam, "layercam": layer_cam}
"""The rule that weighs each pixel of each channel, by name of the method."""


def weigh_channels(activations: tf.Tensor, channel_weights: tf.Tensor) -> tf.Tensor:
    """Sum the channels of a layer, weighted.

    Args:
        activations: shape (n, height, width, channels).
        channel_weights: shape (n, channels, k), one column for each explained class.

    Returns:
        Shape (n, height, width, k), signed.

    Source: Selvaraju et al. 2017, eq. 2, before the ReLU.
    """
    _, height, width, channels = activations.shape
    pixels = tf.reshape(activations, (-1, height * width, channels))
    maps = tf.matmul(pixels, channel_weights)
    return tf.reshape(maps, (-1, height, width, channel_weights.shape[-1]))


def positive_part(maps: tf.Tensor, method: Method) -> tf.Tensor:
    """Bring signed maps of shape (n, height, width, m) to values >= 0 in which 0 says nothing.

    Grad-CAM and its kin keep what speaks for the class (eq. 2, ReLU). The article shifts each map
    so that its minimum is 0.
    """
    if method == "article":
        return maps - tf.reduce_min(maps, axis=(1, 2), keepdims=True)
    return tf.nn.relu(maps)


def divide_by_peak(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale maps of shape (n, height, width, m), >= 0, to [0, 1].

    Returns:
        The scaled maps, all zeros where a map is empty, and the peaks of shape (n, m).
    """
    peaks = tf.reduce_max(maps, axis=(1, 2))
    return tf.math.divide_no_nan(maps, peaks[:, None, None, :]), peaks


def resize_maps(maps: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize maps of shape (n, height, width, m): bilinear upwards, area means downwards."""
    if (maps.shape[1], maps.shape[2]) == size:
        return maps
    shrinks = maps.shape[1] > size[0] or maps.shape[2] > size[1]
    resized = tf.image.resize(maps, size, method="area" if shrinks else "bilinear")
    return tf.cast(resized, maps.dtype)  # TensorFlow gives float32 whatever comes in.


def mean_over_layers(maps_by_size: Sequence[tf.Tensor], size: tuple[int, int]) -> tf.Tensor:
    """Fuse all layers: each map divided by its own peak, then the mean over layers.

    Args:
        maps_by_size: for each size of maps, shape (n, height, width, layers, k), in [0, 1].
        size: (height, width) of the result.

    Returns:
        Shape (n, *size, k), in [0, 1].
    """
    n_layers = sum(maps.shape[3] for maps in maps_by_size)
    sums = [resize_maps(tf.reduce_sum(maps, axis=3), size) for maps in maps_by_size]
    return tf.add_n(sums) / n_layers


def article_mean_over_layers(signed_maps: Sequence[tf.Tensor], size: tuple[int, int]) -> tf.Tensor:
    """Fuse all layers as the article does: resize to the image, scale to [0, 1], take the mean.

    Args:
        signed_maps: for each layer, shape (n, height, width, k).
        size: (height, width) of the image.

    Returns:
        Shape (n, *size, k), in [0, 1].
    """
    total = tf.zeros(())
    for maps in signed_maps:
        large = tf.image.resize(maps, size, method="bilinear")
        scaled, _ = divide_by_peak(positive_part(large, "article"))
        total = total + tf.cast(scaled, total.dtype)
    return total / len(signed_maps)
