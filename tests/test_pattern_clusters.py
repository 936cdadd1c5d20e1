"""Sketches of maps, and dense groups of them."""

import numpy as np
import pytest
from drawn_maps import ANYWHERE, CENTRE, CORNER, LEFT, draw_all, planted

from audit.diagnose.pattern_clusters import (
    MIN_STABILITY,
    find_clusters,
    mean_affinity,
    resample,
    sketch_maps,
)


def test_sketch_ignores_the_level_that_is_everywhere():
    cam = np.zeros((8, 8), np.uint8)
    cam[2, 3], cam[5, 5] = 30, 90
    plain, raised = sketch_maps([cam, cam + 100])
    expected = np.zeros((8, 8))
    expected[2, 3], expected[5, 5] = np.sqrt(0.25), np.sqrt(0.75)  # shares 30 and 90 of 120
    np.testing.assert_allclose(plain.reshape(8, 8), expected, atol=1e-12)
    np.testing.assert_allclose(raised, plain, atol=1e-12)


def test_sketch_of_a_map_that_is_mostly_at_its_peak():
    cam = np.full((8, 8), 255, np.uint8)
    cam[:, 0] = 0
    flat, relief = sketch_maps([np.full((8, 8), 9, np.uint8), cam])
    assert not flat.any()
    assert np.linalg.norm(relief) == pytest.approx(1)


def test_a_map_is_placed_without_regard_to_its_neighbours():
    sketches = sketch_maps(draw_all(planted([30, 20, 20, 20])))
    clusters, _ = find_clusters(sketches, 0)
    together = clusters.assign(sketches)
    alone = [clusters.assign(one[None])[0] for one in sketches]
    np.testing.assert_array_equal(together, alone)


def test_three_places_are_three_stable_clusters():
    kinds = np.repeat([LEFT, CORNER, CENTRE], [30, 20, 25])
    clusters, stability = find_clusters(sketch_maps(draw_all(kinds)), 0)
    assert len(clusters.centres) == 3
    assert (stability >= 0.8).all() and (stability <= 1).all()
    found = clusters.assign(sketch_maps(draw_all([LEFT, CORNER, CENTRE], seed=5)))
    assert len(set(found)) == 3 and (found >= 0).all()


def test_scattered_maps_are_no_place():
    sketches = sketch_maps(draw_all([ANYWHERE] * 80, noise=0.2))
    clusters, stability = find_clusters(sketches, 0)
    assert (stability >= MIN_STABILITY).all()
    assert (clusters.assign(sketches) == -1).mean() >= 0.3


def test_mean_affinity_by_hand():
    # Pairs of (1, 0), (1, 0) and (0, 1): 1, 0 and 0.
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert mean_affinity(vectors) == pytest.approx(1 / 3)


def test_a_resample_is_four_fifths_in_order_and_at_most_five_hundred():
    rng = np.random.default_rng(0)
    rows = resample(50, rng)
    assert len(rows) == len(set(rows.tolist())) == 40
    assert (np.diff(rows) > 0).all() and rows.min() >= 0 and rows.max() < 50
    assert len(resample(5000, rng)) == 500
