"""Let a coarse map follow the edges of the image it belongs to."""

import tensorflow as tf

_RADIUS = 1 / 28
"""Half the width of the window, as a share of the map's longest side."""
_SMOOTHNESS = 0.02
"""Variance below which a window counts as even; the image's own variance is 1."""


def follow_edges(maps: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Within each small window, replace a map by the linear function of the image closest to it.

    Args:
        maps: float32 of shape (n, k, height, width).
        images: float of shape (n, any height, any width, channels), in any unit: each is reduced
            to its brightness at the map's size and scaled to a variance of 1.

    Returns:
        Same shape as `maps`; values can leave its range a little.

    Source: He, Sun and Tang 2013, "Guided Image Filtering", eq. 5, 6 and 8.
    https://doi.org/10.1109/TPAMI.2012.213
    """
    _, n_classes, height, width = maps.shape
    radius = max(1, round(max(height, width) * _RADIUS))
    values = tf.transpose(maps, (0, 2, 3, 1))
    guide = tf.reduce_mean(tf.cast(images, tf.float32), axis=3, keepdims=True)
    guide = tf.image.resize(guide, (height, width), method="area")
    guide -= tf.reduce_mean(guide, axis=(1, 2), keepdims=True)
    variance = tf.reduce_mean(guide**2, axis=(1, 2), keepdims=True)
    guide = tf.math.divide_no_nan(guide, tf.sqrt(variance))

    moments = _window_means(tf.concat([guide, guide**2, values, guide * values], axis=3), radius)
    mean, square, of_values, joint = tf.split(moments, [1, 1, n_classes, n_classes], axis=3)
    slope = (joint - mean * of_values) / (square - mean**2 + _SMOOTHNESS)
    offset = of_values - slope * mean
    slope, offset = tf.split(_window_means(tf.concat([slope, offset], axis=3), radius), 2, axis=3)
    return tf.transpose(slope * guide + offset, (0, 3, 1, 2))


def _window_means(values: tf.Tensor, radius: int) -> tf.Tensor:
    """Take the mean over a square window; at the border over the part inside the image."""
    return tf.nn.avg_pool2d(values, 2 * radius + 1, 1, "SAME")
