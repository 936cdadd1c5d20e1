"""How layers are joined, on paper and against the article's own code; which maps take no part."""

from typing import get_args

import cv2
import numpy as np
import pytest
import tensorflow as tf

from audit.config import Method
from audit.explain.capture import Layer
from audit.explain.fusion import (
    FUSIONS,
    MapStack,
    article_mean_over_layers,
    default_fusion,
    mean_over_layers,
    stack_maps,
)


def stack(maps: list[list[list[float]]], method: Method = "gradcam") -> MapStack:
    """Stack maps, each given as rows of pixels, of one image and class."""
    layers = [Layer(f"l{n}", "", "", 0, 0, 1, 0, n, True, "") for n in range(len(maps))]
    return stack_maps(layers, [[tf.constant([rows], tf.float32) for rows in maps]], method)


def test_the_mean_is_over_layers_of_all_sizes():
    # Two layers of 1 × 2: (1, 0) and (0, 1); one of 1 × 4: (1, 0, 0, 0). Resized to 1 × 4:
    # (1, 0) becomes 1, 0.75, 0.25, 0 and (0, 1) becomes 0, 0.25, 0.75, 1: together 1 everywhere.
    # With the third: (2, 1, 1, 1) / 3. Each map counts by its own peak: 5 and 0.1 change nothing.
    halves, quarters = stack([[[5, 0]], [[0, 0.1]]]), stack([[[1, 0, 0, 0]]])
    fused = mean_over_layers([halves, quarters], (9, 9), (1, 4))
    assert fused.shape == (1, 1, 1, 4)
    np.testing.assert_allclose(fused[0, 0], [[2 / 3, 1 / 3, 1 / 3, 1 / 3]], atol=1e-6)


def test_images_and_classes_are_fused_separately():
    maps = np.zeros((2, 2, 3, 2, 2), np.float32)  # image, class, layer
    maps[0, 0, :, 0, 0], maps[1, 1, :2, 1, 1] = 1, 1  # the latter in two of three layers
    layers = [Layer(f"l{n}", "", "", 2, 2, 1, 0, n, True, "") for n in range(3)]
    columns = [[tf.constant(maps[:, k, n]) for n in range(3)] for k in range(2)]
    stacked = stack_maps(layers, columns, "gradcam")
    np.testing.assert_array_equal(stacked.signed, maps)
    fused = mean_over_layers([stacked], (2, 2), (2, 2)).numpy()
    np.testing.assert_allclose(fused[0, 0], [[1, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(fused[1, 1], [[0, 0], [0, 2 / 3]], atol=1e-6)
    assert not fused[0, 1].any() and not fused[1, 0].any()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rows", "method", "peak"),
    [
        ([[0, 1], [2, 4]], "gradcam", 4),
        ([[0, -1], [-2, 0]], "gradcam", 0),  # nothing speaks for the class
        ([[0, 0], [0, 0]], "article", 0),
        ([[3, 3], [3, 3]], "gradcam", -3),  # the same everywhere
        ([[3, 3], [3, 3]], "article", -3),
        ([[-2, -2], [-2, -2]], "article", -2),
        ([[3, 3], [3, 3.00001]], "gradcam", 3.00001),
        ([[-1, 2], [0, 3]], "article", 4),  # from the least value
        ([[NAN, 1], [2, 4]], "gradcam", NAN),
        ([[INF, 1], [2, 4]], "article", NAN),
        ([[-INF, 1], [2, 4]], "gradcam", NAN),
    ],
)
def test_the_peak_says_whether_a_map_shows_a_place(
    rows: list[list[float]], method: Method, peak: float
):
    stacked = stack([rows], method)
    np.testing.assert_allclose(stacked.peaks[0, 0, 0], peak, rtol=1e-6)
    assert np.isfinite(stacked.positive).all()
    assert not np.signbit(stacked.peaks[0, 0, 0].numpy()) or peak < 0


@pytest.mark.parametrize("method", ["gradcam", "article"])
def test_a_map_that_is_not_finite_or_flat_does_not_spoil_the_others(method: Method):
    good = [[0.0, 2.0], [1.0, 0.0]]
    fuse = FUSIONS[default_fusion(method)]
    alone = fuse([stack([good], method)], (2, 2), (2, 2)).numpy()
    with_nan = fuse([stack([good, [[NAN, 0], [9, 9]]], method)], (2, 2), (2, 2)).numpy()
    np.testing.assert_array_equal(with_nan, alone)  # the mean is over the finite ones
    with_flat = fuse([stack([good, [[7, 7], [7, 7]]], method)], (2, 2), (2, 2)).numpy()
    np.testing.assert_array_equal(with_flat, alone / 2)  # it adds nothing anywhere


@pytest.mark.parametrize("fuse", FUSIONS.values(), ids=FUSIONS)
def test_no_finite_map_at_all_gives_zeros(fuse: object):
    fused = fuse([stack([[[NAN, 1], [2, 3]]])], (2, 2), (2, 2))
    np.testing.assert_array_equal(fused, np.zeros((1, 1, 2, 2)))


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
    stacks = [stack([cam.tolist()], "article") for cam in cams]
    fused = article_mean_over_layers(stacks, (56, 56), (56, 56))
    assert fused.shape == (1, 1, 56, 56)
    np.testing.assert_allclose(fused[0, 0], expected, atol=3e-6)


def test_every_method_has_a_fusion():
    assert {default_fusion(method) for method in get_args(Method)} == {"mean", "article"}
