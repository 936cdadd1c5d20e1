"""Likeness: cosines worked out by hand, the place that is most alike, and both in one number."""

import numpy as np
import pytest
import tensorflow as tf

from audit.search.likeness import Calibration, Comparison, calibrate, combine, smooth
from audit.search.query import Query

PLAIN = Calibration(np.zeros(2, np.float32), np.ones(2, np.float32))


def query(whole=((1.0, 0.0),), focus=((0.0, 1.0),), mean=(0.0, 0.0), deviation=(1.0, 1.0)) -> Query:
    return Query(
        {"id": "T1"},
        tuple(range(len(whole))),
        np.array(whole, np.float32),
        np.array(mean, np.float32),
        np.array(deviation, np.float32),
        None if focus is None else np.array(focus, np.float32),
    )


def test_smoothing_is_the_mean_of_a_place_and_the_neighbours_that_it_has():
    features = tf.reshape(tf.range(9.0), (1, 3, 3, 1))
    smoothed = smooth(features).numpy()[0, ..., 0]
    assert smoothed[1, 1] == 4
    assert smoothed[0, 0] == np.mean([0, 1, 3, 4])
    assert smoothed[0, 1] == np.mean([0, 1, 2, 3, 4, 5])


def test_calibration_is_mean_and_deviation_over_places_of_the_first_images():
    one = np.full((1, 4, 4, 2), (1.0, 10.0), np.float32)
    two = np.full((1, 4, 4, 2), (3.0, 10.0), np.float32)
    third = np.full((1, 4, 4, 2), 99.0, np.float32)
    batches = iter([tf.constant(one), tf.constant(np.concatenate([two, third]))])
    measured = calibrate(batches, 2)
    assert measured.mean == pytest.approx([2, 10])
    # The second channel never varies: a thousandth of the mean deviation stands in.
    assert measured.deviation == pytest.approx([1, 0.001 * 0.5])


def test_the_whole_image_counts_by_its_standardised_direction():
    # Standardised: (5, 2) → (2, 1) / √5, (3, 1) → (0, 0), which has no direction.
    of = Comparison(query([(5, 0)], None, mean=(3, 0), deviation=(1, 2)), None)
    likeness = of.compare(tf.constant([[5.0, 2.0], [1.0, 0.0], [3.0, 4.0], [3.0, 0.0]]), None)
    assert likeness.whole == pytest.approx([2 / 5**0.5, -1, 0, 0], abs=1e-6)
    assert np.isnan(likeness.place).all() and np.isnan(likeness.top).all()
    assert (likeness.combined == likeness.whole).all()


def test_the_place_is_the_most_alike_one_wherever_it_is():
    features = np.zeros((2, 8, 10, 2), np.float32)
    features[..., 0] = 1
    features[0, 5:8, 2:5] = (0, 2)  # 3 × 3 places around row 6, column 3
    features[1, 0:3, 7:10] = (1, 1)
    of = Comparison(query(), PLAIN)
    likeness = of.compare(tf.constant([[2.0, 0.0], [0.0, 1.0]]), tf.constant(features))
    assert likeness.place == pytest.approx([1, 0.5**0.5], abs=1e-6)
    assert likeness.top == pytest.approx([6.5 / 8, 1.5 / 8], abs=0.13)
    assert likeness.left[0] == pytest.approx(3.5 / 10)
    assert likeness.whole == pytest.approx([1, 0])
    assert likeness.combined == pytest.approx([1, 0.9 * 0.5**0.5])


def test_a_channel_counts_by_how_far_it_is_from_usual():
    """Usual features are (5, 0) ± (1, 0.1): (5, 1) is ten deviations off, (7, 0) two."""
    calibration = Calibration(np.array([5, 0], np.float32), np.array([1, 0.1], np.float32))
    of = Comparison(query(focus=[(5, 1)]), calibration)
    features = tf.constant(np.array([[5, 0.2], [7, 0]], np.float32).reshape(2, 1, 1, 2))
    likeness = of.compare(tf.constant([[1.0, 0.0]] * 2), features)
    assert likeness.place == pytest.approx([1, 0], abs=1e-6)


def test_images_of_a_target_count_alike_however_strong_they_are():
    of = Comparison(query(focus=[(0, 1), (100, 0)]), PLAIN)  # their common direction is (1, 1)
    features = tf.constant(np.array([[3, 3], [0, 5]], np.float32).reshape(2, 1, 1, 2))
    likeness = of.compare(tf.constant([[1.0, 0.0]] * 2), features)
    assert likeness.place == pytest.approx([1, 0.5**0.5], abs=1e-6)


def test_without_a_place_the_whole_decides():
    combined = combine(np.array([0.5, np.nan], np.float32), np.array([1.0, 0.25], np.float32))
    assert combined == pytest.approx([0.55, 0.25])
    assert combined.dtype == np.float32
