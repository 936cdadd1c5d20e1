"""The arithmetic of maps, worked out on paper, and against the article's own code."""

from typing import get_args

import cv2
import numpy as np
import pytest
import tensorflow as tf

from audit.config import Method
from audit.explain.gradcam import (
    CHANNEL_WEIGHTS,
    PIXEL_WEIGHTS,
    article_weights,
    divide_by_peak,
    grad_cam_plus_plus_weights,
    hires_cam,
    layer_cam,
    positive_part,
    resize_maps,
    spatial_mean,
)

# One image of 2 × 2 pixels and 2 channels.
# channel 0:  0 2     channel 1:  1 3
#             4 6                 5 7
ACTIVATIONS = tf.reshape(tf.range(8, dtype=tf.float64), (1, 2, 2, 2))
# channel 0:  4 -1    channel 1: -2 2
#             1  0                2 -4
GRADIENTS = tf.constant([[[[4, -2], [-1, 2]], [[1, 2], [0, -4]]]], tf.float64)
FOR = tf.constant([1.0], tf.float64)
AGAINST = tf.constant([-1.0], tf.float64)


def column(values: list[list[float]]) -> np.ndarray:
    """Turn rows of pixels into a map of shape (1, height, width)."""
    return np.array(values, np.float64)[None]


def test_the_mean_over_an_image_is_taken_channel_by_channel():
    # channel 0: (4 - 1 + 1 + 0) / 4 = 1;  channel 1: (-2 + 2 + 2 - 4) / 4 = -0.5
    np.testing.assert_array_equal(spatial_mean(GRADIENTS), [[1, -0.5]])


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.float16, tf.bfloat16])
def test_the_mean_agrees_with_numpy_and_mixes_no_images(dtype: tf.DType):
    values = np.random.default_rng(3).normal(size=(3, 5, 7, 4))
    mean = tf.cast(spatial_mean(tf.constant(values, dtype)), tf.float64)
    tolerance = {tf.float64: 1e-12, tf.float32: 1e-6}.get(dtype, 0.02)
    np.testing.assert_allclose(mean, values.mean(axis=(1, 2)), atol=tolerance)


def test_each_image_of_a_batch_has_its_own_sign():
    twice = [tf.repeat(tensor, 2, axis=0) for tensor in (ACTIVATIONS, GRADIENTS)]
    weights = article_weights(*twice, tf.constant([1.0, -1.0], tf.float64))
    np.testing.assert_array_equal(weights, [[0.25, 1], [0.25, 1.5]])


def test_the_article_takes_only_positive_gradients_at_positive_activations():
    # channel 0: the 4 stands at an activation of 0 and is left out, -1 is negative: (1 + 0) / 4
    # channel 1: (2 + 2) / 4
    np.testing.assert_array_equal(article_weights(ACTIVATIONS, GRADIENTS, FOR), [[0.25, 1]])


def test_the_article_takes_the_turned_gradients_for_the_other_class():
    # -gradients: channel 0: -4 1 -1 0, of which 1 counts: 1 / 4
    #             channel 1: 2 -2 -2 4, of which 2 + 4 count: 6 / 4
    np.testing.assert_array_equal(article_weights(ACTIVATIONS, GRADIENTS, AGAINST), [[0.25, 1.5]])


def test_grad_cam_plus_plus_weighs_the_positive_gradients_one_by_one():
    # weight of a pixel: g² / (2 g² + total · g³) = 1 / (2 + total · g); totals: 12 and 16
    # channel 0: 4 / (2 + 48) + 1 / (2 + 12);  channel 1: twice 2 / (2 + 32)
    weights = grad_cam_plus_plus_weights(ACTIVATIONS, GRADIENTS, FOR)
    np.testing.assert_allclose(weights, [[4 / 50 + 1 / 14, 4 / 34]], rtol=1e-12)
    # turned: channel 0: 1 / (2 + 12);  channel 1: 2 / (2 + 32) + 4 / (2 + 64)
    weights = grad_cam_plus_plus_weights(ACTIVATIONS, GRADIENTS, AGAINST)
    np.testing.assert_allclose(weights, [[1 / 14, 2 / 34 + 4 / 66]], rtol=1e-12)


def test_grad_cam_plus_plus_is_finite_without_gradients():
    weights = grad_cam_plus_plus_weights(ACTIVATIONS, tf.zeros_like(GRADIENTS), FOR)
    np.testing.assert_array_equal(weights, [[0, 0]])


def test_hires_cam_multiplies_pixel_by_pixel():
    # 0·4 - 1·2 = -2;  -2·1 + 3·2 = 4;  4·1 + 5·2 = 14;  6·0 - 7·4 = -28
    expected = np.array([[[-2, 4], [14, -28]]])
    np.testing.assert_array_equal(hires_cam(ACTIVATIONS, GRADIENTS, FOR), expected)
    np.testing.assert_array_equal(hires_cam(ACTIVATIONS, GRADIENTS, AGAINST), -expected)


def test_layer_cam_multiplies_where_the_gradient_is_positive():
    # 0·4 = 0;  3·2 = 6;  4·1 + 5·2 = 14;  nothing
    maps = layer_cam(ACTIVATIONS, GRADIENTS, FOR)
    np.testing.assert_array_equal(maps, [[[0, 6], [14, 0]]])
    # turned: 1·2 = 2;  2·1 = 2;  nothing;  7·4 = 28
    maps = layer_cam(ACTIVATIONS, GRADIENTS, AGAINST)
    np.testing.assert_array_equal(maps, [[[2, 2], [0, 28]]])


def test_every_method_has_one_rule():
    elsewhere = ["gradcam", "occlusion"]
    assert sorted([*CHANNEL_WEIGHTS, *PIXEL_WEIGHTS, *elsewhere]) == sorted(get_args(Method))


def test_grad_cam_keeps_what_speaks_for_the_class():
    maps = positive_part(tf.constant(column([[-0.5, 0.5], [1.5, 2.5]])), "gradcam")
    np.testing.assert_array_equal(maps, column([[0, 0.5], [1.5, 2.5]]))


def test_the_article_moves_the_minimum_to_zero_map_by_map():
    maps = np.concatenate([column([[-0.5, 0.5], [1.5, 2.5]]), column([[3, 3], [3, 5]])])
    moved = positive_part(tf.constant(maps), "article").numpy()
    np.testing.assert_array_equal(moved[0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(moved[1], [[0, 0], [0, 2]])


def test_a_map_is_divided_by_its_own_peak():
    maps = np.concatenate([column([[0, 1], [2, 4]]), column([[10, 5], [0, 0]])])
    scaled, peaks = divide_by_peak(tf.constant(maps))
    np.testing.assert_array_equal(peaks, [4, 10])
    np.testing.assert_array_equal(scaled[0], [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(scaled[1], [[1, 0.5], [0, 0]])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_an_empty_map_becomes_zeros(dtype: tf.DType):
    scaled, peaks = divide_by_peak(tf.zeros((2, 1, 3, 3), dtype))
    np.testing.assert_array_equal(peaks, np.zeros((2, 1)))
    np.testing.assert_array_equal(scaled, np.zeros((2, 1, 3, 3)))


def test_maps_shrink_by_area_means():
    # each pixel of the result is the mean of a square of 2 × 2: (0 + 1 + 4 + 5) / 4 = 2.5, …
    maps = tf.reshape(tf.range(16, dtype=tf.float32), (1, 4, 4))
    small = resize_maps(maps, (2, 2))
    np.testing.assert_array_equal(small, column([[2.5, 4.5], [10.5, 12.5]]))


def test_maps_grow_bilinearly_between_pixel_centres():
    # From 0 and 1 to four columns: their centres lie at -1/4, 1/4, 3/4, 5/4 of the old columns.
    large = resize_maps(tf.constant(column([[0, 1]])), (1, 4))
    np.testing.assert_allclose(large, column([[0, 0.25, 0.75, 1]]), atol=1e-7)


def test_maps_of_the_right_size_are_left_alone():
    maps = tf.constant(column([[1, 2], [3, 4]]))
    assert resize_maps(maps, (2, 2)) is maps


def test_growing_agrees_with_opencv():
    maps = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    large = resize_maps(tf.constant(maps[None]), (28, 30))[0]
    expected = cv2.resize(maps, (30, 28), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(large, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 4), (9, 13), (8, 13), (30, 31)])
def test_resizing_agrees_with_tensorflow(size: tuple[int, int]):
    maps = np.random.default_rng(4).normal(size=(2, 3, 9, 13)).astype(np.float32)
    shrinks = size[0] < 9 or size[1] < 13
    found = resize_maps(tf.constant(maps), size)
    channels_last = np.moveaxis(maps, 1, -1)
    expected = tf.image.resize(channels_last, size, method="area" if shrinks else "bilinear")
    assert found.shape == (2, 3, *size)
    np.testing.assert_allclose(found, np.moveaxis(expected.numpy(), -1, 1), atol=1e-5)
