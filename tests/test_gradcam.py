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
    article_mean_over_layers,
    article_weights,
    divide_by_peak,
    grad_cam_plus_plus_weights,
    grad_cam_weights,
    hires_cam,
    layer_cam,
    mean_over_layers,
    positive_part,
    resize_maps,
    weigh_channels,
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
    """Turn rows of pixels into a map of shape (1, height, width, 1)."""
    return np.array(values, np.float64)[None, ..., None]


def test_grad_cam_weighs_a_channel_by_its_mean_gradient():
    # channel 0: (4 - 1 + 1 + 0) / 4 = 1;  channel 1: (-2 + 2 + 2 - 4) / 4 = -0.5
    weights = grad_cam_weights(ACTIVATIONS, GRADIENTS, FOR)
    np.testing.assert_array_equal(weights, [[1, -0.5]])


def test_grad_cam_turns_the_sign_for_the_class_that_the_score_speaks_against():
    np.testing.assert_array_equal(grad_cam_weights(ACTIVATIONS, GRADIENTS, AGAINST), [[-1, 0.5]])


def test_each_image_of_a_batch_has_its_own_sign():
    twice = [tf.repeat(tensor, 2, axis=0) for tensor in (ACTIVATIONS, GRADIENTS)]
    weights = grad_cam_weights(*twice, tf.constant([1.0, -1.0], tf.float64))
    np.testing.assert_array_equal(weights, [[1, -0.5], [-1, 0.5]])


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
    assert sorted([*CHANNEL_WEIGHTS, *PIXEL_WEIGHTS]) == sorted(get_args(Method))


def test_channels_are_summed_with_their_weights_for_each_class():
    # class 0, weights (1, -0.5): 0 - 0.5 = -0.5;  2 - 1.5 = 0.5;  4 - 2.5 = 1.5;  6 - 3.5 = 2.5
    # class 1, weights (0, 1):    channel 1 itself
    maps = weigh_channels(ACTIVATIONS, tf.constant([[[1, 0], [-0.5, 1]]], tf.float64))
    assert maps.shape == (1, 2, 2, 2)
    np.testing.assert_array_equal(maps[0, ..., 0], [[-0.5, 0.5], [1.5, 2.5]])
    np.testing.assert_array_equal(maps[0, ..., 1], [[1, 3], [5, 7]])


def test_images_of_a_batch_are_not_mixed():
    rng = np.random.default_rng(0)
    activations, weights = rng.normal(size=(3, 4, 5, 6)), rng.normal(size=(3, 6, 2))
    maps = weigh_channels(tf.constant(activations), tf.constant(weights))
    expected = np.einsum("nhwc,nck->nhwk", activations, weights)
    np.testing.assert_allclose(maps, expected, rtol=1e-12)


def test_grad_cam_keeps_what_speaks_for_the_class():
    maps = positive_part(tf.constant(column([[-0.5, 0.5], [1.5, 2.5]])), "gradcam")
    np.testing.assert_array_equal(maps, column([[0, 0.5], [1.5, 2.5]]))


def test_the_article_moves_the_minimum_to_zero_map_by_map():
    maps = np.concatenate([column([[-0.5, 0.5], [1.5, 2.5]]), column([[3, 3], [3, 5]])], axis=-1)
    moved = positive_part(tf.constant(maps), "article").numpy()
    np.testing.assert_array_equal(moved[0, ..., 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(moved[0, ..., 1], [[0, 0], [0, 2]])


def test_a_map_is_divided_by_its_own_peak():
    maps = np.concatenate([column([[0, 1], [2, 4]]), column([[10, 5], [0, 0]])], axis=-1)
    scaled, peaks = divide_by_peak(tf.constant(maps))
    np.testing.assert_array_equal(peaks, [[4, 10]])
    np.testing.assert_array_equal(scaled[0, ..., 0], [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(scaled[0, ..., 1], [[1, 0.5], [0, 0]])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_an_empty_map_becomes_zeros(dtype: tf.DType):
    scaled, peaks = divide_by_peak(tf.zeros((2, 3, 3, 1), dtype))
    np.testing.assert_array_equal(peaks, np.zeros((2, 1)))
    np.testing.assert_array_equal(scaled, np.zeros((2, 3, 3, 1)))


def test_maps_shrink_by_area_means():
    # each pixel of the result is the mean of a square of 2 × 2: (0 + 1 + 4 + 5) / 4 = 2.5, …
    maps = tf.reshape(tf.range(16, dtype=tf.float32), (1, 4, 4, 1))
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
    large = resize_maps(tf.constant(maps[None, ..., None]), (28, 30))[0, ..., 0]
    expected = cv2.resize(maps, (30, 28), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(large, expected, atol=1e-6)


def test_the_fused_map_is_the_mean_over_layers_of_all_sizes():
    # Two layers of 1 × 2: (1, 0) and (0, 1); one of 1 × 4: (1, 0, 0, 0). Resized to 1 × 4:
    # (1, 0) becomes 1, 0.75, 0.25, 0 and (0, 1) becomes 0, 0.25, 0.75, 1: together 1 everywhere.
    # With the third: (2, 1, 1, 1) / 3.
    halves = tf.constant(np.array([[[1.0, 0.0], [0.0, 1.0]]])[None, ..., None])
    quarters = tf.constant(np.array([[[1.0], [0.0], [0.0], [0.0]]])[None, ..., None])
    assert (halves.shape, quarters.shape) == ((1, 1, 2, 2, 1), (1, 1, 4, 1, 1))
    fused = mean_over_layers([halves, quarters], (1, 4))
    np.testing.assert_allclose(fused, column([[2 / 3, 1 / 3, 1 / 3, 1 / 3]]), atol=1e-6)


def test_classes_are_fused_separately():
    maps = np.zeros((1, 2, 2, 3, 2), np.float32)
    maps[0, 0, 0, :, 0], maps[0, 1, 1, :2, 1] = 1, 1  # class 1: in two of three layers
    fused = mean_over_layers([tf.constant(maps)], (2, 2)).numpy()[0]
    np.testing.assert_allclose(fused[..., 0], [[1, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(fused[..., 1], [[0, 0], [0, 2 / 3]], atol=1e-6)


def article_heatmap(cam: np.ndarray, width: int, height: int) -> np.ndarray:
    """Do what the article's code does with a `cam`, word for word (its `eps` is 1e-8)."""
    heatmap = cv2.resize(cam, (width, height))
    numer = heatmap - np.min(heatmap)
    denom = (heatmap.max() - heatmap.min()) + 1e-8
    return numer / denom


def test_the_articles_mean_agrees_with_its_own_code():
    rng = np.random.default_rng(2)
    cams = [rng.normal(size=(side, side)).astype(np.float32) for side in (14, 7, 14, 28)]
    expected = np.mean([article_heatmap(cam, 56, 56) for cam in cams], axis=0)
    maps = [tf.constant(cam[None, ..., None]) for cam in cams]
    fused = article_mean_over_layers(maps, (56, 56))
    assert fused.shape == (1, 56, 56, 1)
    np.testing.assert_allclose(fused[0, ..., 0], expected, atol=2e-6)


def test_the_articles_mean_of_a_flat_map_is_zero_and_not_nan():
    flat, slope = np.ones((1, 2, 2, 1), np.float32), column([[0, 1], [0, 1]]).astype(np.float32)
    fused = article_mean_over_layers([tf.constant(flat), tf.constant(slope)], (2, 2))
    np.testing.assert_array_equal(fused, column([[0, 0.5], [0, 0.5]]))
