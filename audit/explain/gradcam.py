"""From activations and gradients to one map per layer: the rules of the methods.

All functions work on tensors of any float type, on any device, and copy nothing to the host.
"""

import numpy as np
import tensorflow as tf

from audit.config import Method


def spatial_mean(values: tf.Tensor) -> tf.Tensor:
    """Take the mean over height and width: from (n, height, width, channels) to (n, channels).

    Pooling reads it once and two to three times as fast as `tf.reduce_mean` does on a CPU.
    """
    _, height, width, channels = values.shape
    pooled = tf.nn.avg_pool2d(values, (height, width), 1, "VALID")
    return tf.reshape(pooled, (-1, channels))


def article_weights(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each channel by its mean guided gradient: only where gradient and activation are > 0.

    Args:
        activations: shape (n, height, width, channels), the output of one layer.
        gradients: same shape, d(score) / d(activations).
        sign: shape (n,), 1 where the score speaks for the explained class, -1 where against it
            (the first class of a model with a single output).

    Returns:
        Shape (n, channels).

    Source: D. Reiff, "Understanding your Algorithm with Grad-CAM", 2021.
    """
    guided = tf.nn.relu(sign[:, None, None, None] * gradients) * tf.cast(
        activations > 0, gradients.dtype
    )
    return spatial_mean(guided)


def grad_cam_plus_plus_weights(
    activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor
) -> tf.Tensor:
    """Weigh each channel by its positive gradients, each with a weight of its own.

    Args and returns as in `article_weights`. As in the paper, the score is taken to be the
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
    "article": article_weights,
    "gradcam++": grad_cam_plus_plus_weights,
}
"""The rule that weighs the channels, by name of the method; `linear` has that of Grad-CAM."""


def hires_cam(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each pixel of each channel by its own gradient, and sum the channels.

    Args:
        activations, gradients, sign: as in `article_weights`.

    Returns:
        Shape (n, height, width), signed.

    At each place (i, j): Σₖ ∂y/∂Aₖ(i, j) · Aₖ(i, j).

    Source: Draelos and Carin 2020, the definition of HiResCAM. https://arxiv.org/abs/2011.08891
    """
    return sign[:, None, None] * tf.reduce_sum(activations * gradients, axis=-1)


def layer_cam(activations: tf.Tensor, gradients: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Weigh each pixel of each channel by its own gradient where that is positive, and sum.

    Args and returns as in `hires_cam`.

    At each place (i, j): Σₖ ReLU(∂y/∂Aₖ(i, j)) · Aₖ(i, j), before the final ReLU.

    Source: Jiang et al. 2021, the definition of LayerCAM. https://doi.org/10.1109/TIP.2021.3089943
    """
    positive = tf.nn.relu(sign[:, None, None, None] * gradients)
    return tf.reduce_sum(activations * positive, axis=-1)


PIXEL_WEIGHTS = {"hirescam": hires_cam, "layercam": layer_cam}
"""The rule that weighs each pixel of each channel, by name of the method."""


def positive_part(maps: tf.Tensor, method: Method) -> tf.Tensor:
    """Bring signed maps of shape (…, height, width) to values >= 0 in which 0 says nothing.

    Grad-CAM and its kin keep what speaks for the class (Selvaraju et al. 2017, eq. 2, ReLU). The
    article shifts each map so that its minimum is 0.
    """
    if method == "article":
        return maps - tf.reduce_min(maps, axis=(-2, -1), keepdims=True)
    return tf.nn.relu(maps)


def divide_by_peak(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale maps of shape (…, height, width), >= 0, to [0, 1].

    Returns:
        The scaled maps, all zeros where a map is empty, and the peaks of shape (…).
    """
    peaks = tf.reduce_max(maps, axis=(-2, -1))
    return tf.math.divide_no_nan(maps, peaks[..., None, None]), peaks


def resize_maps(maps: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize maps of shape (…, height, width): bilinear upwards, area means downwards.

    Both are linear in rows and in columns, so that two matrix products do it: several times as fast
    for many small maps as `tf.image.resize`, whose results they equal but for rounding.
    """
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    resample = _area_means if height > size[0] or width > size[1] else _bilinear
    rows = tf.constant(resample(height, size[0]), maps.dtype)
    columns = tf.constant(resample(width, size[1]), maps.dtype)
    flat = tf.reshape(maps, (-1, height, width))
    narrow = tf.reshape(flat, (-1, width)) @ tf.transpose(columns)
    resized = rows @ tf.reshape(narrow, (-1, height, size[1]))
    outer = [-1 if side is None else side for side in maps.shape[:-2]]
    return tf.reshape(resized, (*outer, *size))


def _area_means(length: int, shorter: int) -> np.ndarray:
    """Return (shorter, length): the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(shorter + 1) * (length / shorter)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(covered, 0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _bilinear(length: int, longer: int) -> np.ndarray:
    """Return (longer, length): the weight of each old pixel centre in each new one."""
    centres = np.clip((np.arange(longer) + 0.5) * (length / longer) - 0.5, 0, length - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(length)), 0, None))
