"""Means and maps that follow from others equal those that are read, and little is read."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.explain import linear
from audit.explain.linear import ChannelSums, MeanGradients, WeightProducts

Model = Callable[[tf.Tensor], tuple[list[tf.Tensor], tf.Tensor]]
"""From an image to all its tensors that need a map, and a score."""


def maps_both_ways(
    build: Model, channels: int = 3
) -> tuple[list[np.ndarray], list[np.ndarray], int, int]:
    """Return maps as the module makes them and read one by one; tensors read, of both kinds."""
    reads = {"means": 0, "sums": 0}

    @tf.function(autograph=False)
    def run(pixels: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            tensors, score = build(pixels)
        gradients = tape.gradient(score, tensors)
        products = WeightProducts()
        before = len(tf.compat.v1.get_default_graph().get_operations())
        means = MeanGradients(gradients, products).means()
        maps = ChannelSums(tensors, products).maps([means])[0]
        added = tf.compat.v1.get_default_graph().get_operations()[before:]
        reads["means"] = sum(operation.type == "AvgPool" for operation in added)
        reads["sums"] = sum(operation.type == "BatchMatMulV2" for operation in added)
        one_by_one = [
            tf.einsum("nhwc,nc->nhw", a, tf.reduce_mean(g, axis=(1, 2)))
            for a, g in zip(tensors, gradients, strict=True)
        ]
        return maps, one_by_one

    spec = tf.TensorSpec((None, 6, 6, channels), tf.float64)
    traced = run.get_concrete_function(spec)
    pixels = np.random.default_rng(0).normal(size=(3, 6, 6, channels))
    found, expected = traced(tf.constant(pixels))
    return (
        [x.numpy() for x in found],
        [x.numpy() for x in expected],
        reads["means"],
        reads["sums"],
    )


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape))


def curve(x: tf.Tensor) -> tf.Tensor:
    """End a model in something that is not linear."""
    return tf.reduce_sum(tf.tanh(x) ** 2)


def bottleneck(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    first = tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME")
    relu = tf.nn.relu(first)
    point = tf.nn.conv2d(relu, normal(1, 1, 4, 5), 1, "SAME")
    normed = point * normal(5) + normal(5)
    return [first, relu, point, normed], curve(normed)


def residual(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    start = tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME")
    branch = tf.nn.bias_add(tf.nn.conv2d(tf.tanh(start), normal(3, 3, 4, 4), 1, "SAME"), normal(4))
    joined = start + branch
    return [start, branch, joined], curve(joined)


def dense_block(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    tensors = [tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME")]
    joined = tensors[0]
    for _ in range(3):
        more = tf.nn.conv2d(tf.tanh(joined), normal(3, 3, joined.shape[3], 2), 1, "SAME")
        joined = tf.concat([joined, more], -1)
        tensors += [more, joined]
    return tensors, curve(joined)


def squeeze(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    start = tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME")
    gate = tf.sigmoid(tf.reduce_mean(start, (1, 2), keepdims=True) @ normal(4, 4))
    scaled = start * gate
    return [start, scaled], curve(scaled)


def strided(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    start = tf.tanh(tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME"))
    point = tf.nn.conv2d(start, normal(1, 1, 4, 5), 2, "VALID")
    return [start, point], curve(point)


def grouped(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    start = tf.tanh(tf.nn.conv2d(x, normal(3, 3, 3, 4), 1, "SAME"))
    depth = tf.nn.depthwise_conv2d(start, normal(1, 1, 4, 1), [1, 1, 1, 1], "SAME")
    padded = tf.pad(depth, [[0, 0], [0, 1], [1, 0], [0, 0]])
    pooled = tf.nn.max_pool2d(padded, 2, 2, "SAME")
    return [start, depth, padded, pooled], curve(pooled)


@pytest.mark.parametrize(
    ("build", "n_means", "n_sums"),
    [
        # Means: that of `normed` is read; `point` is it scaled, `relu` goes back through the
        # kernel, `first` is cut off by the ReLU. Maps: `point` and `normed` are sums of `relu`.
        (bottleneck, 2, 2),
        # Means: `joined` is read and passed on to `branch`; `start` has a share through tanh, which
        # is not linear. Maps: `joined` is the sum of the two others.
        (residual, 2, 2),
        # Means: the last `joined` is read, its parts are slices; the other two `joined` and the
        # start have a share of their own. Maps: what is concatenated is read once.
        (dense_block, 4, 4),
        # Means: `scaled` is read; `start` is it times the gate, plus what comes through the gate.
        (squeeze, 1, 1),
        (strided, 1, 2),  # the map of a layer that leaves pixels out is read
        (grouped, 4, 4),
    ],
)
def test_what_follows_from_others_equals_what_is_read(build: Model, n_means: int, n_sums: int):
    found, expected, means_read, sums_read = maps_both_ways(build)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())
    assert (means_read, sums_read) == (n_means, n_sums)


def test_long_sums_are_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear, "_MOST_TERMS", 2)
    found, expected, _, sums_read = maps_both_ways(dense_block)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())
    assert sums_read == 5  # The second `joined` would have three terms: it is read itself.


def test_normalisation_in_inference_mode_is_followed():
    layers = [
        keras.layers.Conv2D(4, 1, dtype="float64"),
        keras.layers.BatchNormalization(dtype="float64"),
    ]

    def build(x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        start = tf.tanh(x)
        tensors = [start]
        for layer in layers:
            tensors.append(layer(tensors[-1], training=False))
        return tensors, curve(tensors[-1])

    for layer in layers:
        layer.build((None, 6, 6, 3 if layer is layers[0] else 4))
    layers[1].set_weights([np.arange(1.0, 5) / d for d in (1, 2, 3, 4)])
    found, expected, means_read, sums_read = maps_both_ways(build)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())
    assert (means_read, sums_read) == (1, 1)
