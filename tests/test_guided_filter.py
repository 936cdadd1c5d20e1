"""The guided filter against its definition, window by window, and where it must change nothing."""

import numpy as np
import tensorflow as tf

from audit.explain.guided_filter import follow_edges


def filter_by_definition(values, guide, radius, smoothness):
    """Eq. 5, 6 and 8 of the paper, one window at a time, in float64."""
    height, width = values.shape
    guide = (guide - guide.mean()) / guide.std()

    def window(y, x):
        rows = slice(max(0, y - radius), y + radius + 1)
        return rows, slice(max(0, x - radius), x + radius + 1)

    slopes, offsets = np.empty((height, width)), np.empty((height, width))
    for y in range(height):
        for x in range(width):
            i, p = guide[window(y, x)], values[window(y, x)]
            slope = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + smoothness)
            slopes[y, x], offsets[y, x] = slope, p.mean() - slope * i.mean()
    smooth = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            w = window(y, x)
            smooth[y, x] = slopes[w].mean() * guide[y, x] + offsets[w].mean()
    return smooth


def test_it_is_the_filter_of_the_paper_for_each_class_and_image():
    rng = np.random.default_rng(0)
    maps = rng.uniform(size=(2, 3, 56, 40)).astype(np.float32)
    images = rng.uniform(0, 255, (2, 56, 40, 3)).astype(np.float32)
    filtered = follow_edges(tf.constant(maps), tf.constant(images)).numpy()
    for image in range(2):
        for column in range(3):
            grey = images[image].mean(axis=-1, dtype=np.float64)
            expected = filter_by_definition(maps[image, column].astype(np.float64), grey, 2, 0.02)
            np.testing.assert_allclose(filtered[image, column], expected, atol=2e-4)


def test_a_map_without_any_change_stays_as_it_is():
    images = np.random.default_rng(0).uniform(size=(1, 28, 28, 1)).astype(np.float32)
    filtered = follow_edges(tf.fill((1, 1, 28, 28), 0.7), tf.constant(images))
    np.testing.assert_allclose(filtered, 0.7, rtol=1e-5)


def test_a_blurred_edge_moves_to_where_the_image_has_one():
    steps = np.where(np.arange(28) < 14, 0.0, 1.0)
    image = np.broadcast_to(steps, (28, 28)).astype(np.float32)[None, :, :, None]
    blurred = np.clip((np.arange(28) - 11) / 5, 0, 1)
    maps = np.broadcast_to(blurred, (28, 28)).astype(np.float32)[None, None]
    row = follow_edges(tf.constant(maps), tf.constant(image)).numpy()[0, 0, 14]
    assert row[14] - row[13] > 1.9 * (blurred[14] - blurred[13])


def test_the_unit_of_the_image_does_not_matter():
    rng = np.random.default_rng(1)
    maps = tf.constant(rng.uniform(size=(1, 1, 28, 28)).astype(np.float32))
    images = rng.uniform(size=(1, 28, 28, 3)).astype(np.float32)
    first = follow_edges(maps, tf.constant(images))
    np.testing.assert_allclose(follow_edges(maps, tf.constant(images * 255)), first, atol=1e-4)
    even = follow_edges(maps, tf.ones((1, 28, 28, 3)))  # Nothing to follow: only smoothed.
    assert np.isfinite(even).all() and float(np.std(even)) < float(np.std(maps))
