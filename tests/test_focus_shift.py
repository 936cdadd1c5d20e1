"""Where the focus went: exact small maps first, then other ways to the same number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from scipy.stats import pearsonr

from audit.compare.focus_shift import (
    SIDE,
    compare_focus,
    correlation,
    hottest,
    overlap_of_hottest,
    share_inside,
    shift_in_place,
    sliced_distance,
)

maps = arrays(np.uint8, (8, 8)).filter(lambda cam: cam.min() < cam.max())


def dot(row: int, column: int, side: int = SIDE) -> np.ndarray:
    """Return a map with one hot pixel."""
    cam = np.zeros((side, side), np.uint8)
    cam[row, column] = 255
    return cam


def earth_movers_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Solve the transport problem of two maps on the plane."""
    side = len(one)
    y, x = np.indices((side, side)).reshape(2, -1) / side
    costs = np.hypot(x[:, None] - x, y[:, None] - y)
    n = side * side
    leaves = np.kron(np.eye(n), np.ones(n))
    arrives = np.kron(np.ones(n), np.eye(n))
    masses = [cam.ravel() / cam.sum() for cam in (one, other)]
    found = linprog(costs.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=np.concatenate(masses))
    return float(found.fun)


def test_the_hottest_by_hand():
    cam = np.array([[1, 5, 5], [5, 9, 0]])
    assert hottest(cam, 0.1).tolist() == [[False] * 3, [False, True, False]]  # One of six.
    # Half of six: the 9, and the first two of the three 5s.
    assert hottest(cam, 0.5).tolist() == [[False, True, True], [False, True, False]]


def test_overlap_by_hand():
    # Ten of a hundred are hottest: the first row, and the first column. They share one pixel.
    row, column = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    row[0], column[:, 0] = 200, 100
    assert overlap_of_hottest(row, column) == pytest.approx(1 / 19)
    assert overlap_of_hottest(row, row // 2) == 1


def test_correlation_by_hand():
    cam = np.array([[0, 1], [2, 3]])
    assert correlation(cam, 2 * cam + 5) == pytest.approx(1)
    assert correlation(cam, 3 - cam) == pytest.approx(-1)
    # Deviations −1.5, −0.5, 0.5, 1.5 against −0.5, 0.5, −0.5, 0.5: 1 / (√5 · 1).
    assert correlation(cam, np.array([[0, 1], [0, 1]])) == pytest.approx(1 / math.sqrt(5))
    assert math.isnan(correlation(cam, np.ones((2, 2))))


@pytest.mark.parametrize(("down", "right"), [(0, 1), (3, 0), (5, 5), (4, 7)])
def test_the_distance_of_a_shift_is_its_length(down: int, right: int):
    length = math.hypot(down, right) / SIDE
    assert sliced_distance(dot(2, 3), dot(2 + down, 3 + right)) == pytest.approx(length, rel=1e-3)
    blob = np.zeros((SIDE, SIDE), np.uint8)
    blob[1:3, 2:5] = [[10, 40, 90], [5, 60, 20]]
    moved = np.roll(blob, (down, right), axis=(0, 1))
    assert sliced_distance(blob, moved) == pytest.approx(length, rel=1e-3)


def test_half_the_mass_counts_half():
    both = np.maximum(dot(0, 0), dot(0, 7))
    assert sliced_distance(dot(0, 0), both) == pytest.approx(0.5 * 7 / SIDE, rel=1e-3)


def test_a_larger_map_is_the_same_map():
    large = np.kron(dot(3, 4), np.ones((4, 4), np.uint8))
    assert sliced_distance(large, dot(3, 4)) == pytest.approx(0, abs=1e-9)
    assert sliced_distance(large, dot(3, 6)) == pytest.approx(2 / SIDE, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_at_most_the_earth_movers(seed: int):
    rng = np.random.default_rng(seed)
    small = rng.random((2, 7, 7)) ** 6  # A few hot places.
    one, other = (np.kron(cam, np.ones((2, 2))) for cam in small)
    # On the coarse grid each block of four pixels moves as one.
    exact = earth_movers_distance(*small)
    assert 0.4 * exact < sliced_distance(one, other) <= exact * 1.001


@settings(max_examples=30, deadline=None)
@given(maps, maps)
def test_measures_are_symmetric_and_agree_with_scipy(one: np.ndarray, other: np.ndarray):
    assert overlap_of_hottest(one, other) == overlap_of_hottest(other, one)
    assert correlation(one, other) == pytest.approx(
        pearsonr(one.ravel().astype(float), other.ravel().astype(float)).statistic, abs=1e-9
    )
    assert sliced_distance(one, other) == pytest.approx(sliced_distance(other, one), abs=1e-12)
    assert 0 <= sliced_distance(one, other) <= math.sqrt(2)


@settings(max_examples=30, deadline=None)
@given(maps, st.integers(1, 5))
def test_a_map_is_like_itself_on_any_scale(cam: np.ndarray, times: int):
    scaled = cam.astype(np.int64) * times
    assert overlap_of_hottest(cam, scaled) == 1
    assert correlation(cam, scaled) == pytest.approx(1)
    assert sliced_distance(cam, scaled) == pytest.approx(0, abs=1e-9)


def test_the_share_inside_by_hand():
    cam = np.array([[10, 20], [30, 40]])
    left = np.array([[True, False], [True, False]])
    assert share_inside(cam, left) == pytest.approx(0.4)
    assert share_inside(cam, np.ones((2, 2), bool)) == 1
    assert share_inside(np.kron(cam, np.ones((3, 3))), np.kron(left, np.ones((3, 3)) > 0)) == (
        pytest.approx(0.4)
    )


def test_only_maps_that_both_have_are_compared():
    before = {(0, 1): dot(0, 0), (0, 0): dot(1, 1), (1, 1): dot(5, 5), (2, 0): dot(3, 3)}
    after = {(0, 1): dot(0, 0), (1, 1): dot(5, 9), (3, 1): dot(2, 2)}
    shift = compare_focus(before, after)
    assert (shift.n_maps, shift.n_images) == (2, 2)
    assert (shift.n_before_only, shift.n_after_only) == (2, 1)
    assert shift.distance.mean == pytest.approx(0.5 * 4 / SIDE, rel=1e-3)
    # By chance: image 0 before with image 1 after, and the other way round.
    expected = (math.hypot(5, 9) + math.hypot(5, 5)) / 2 / SIDE
    assert shift.distance.chance == pytest.approx(expected, rel=1e-3)
    assert shift.distance.low <= shift.distance.mean <= shift.distance.high


def test_an_image_counts_once_however_many_classes_it_is_explained_for():
    before = {(0, 0): dot(0, 0), (0, 1): dot(0, 0), (1, 1): dot(0, 0)}
    after = {(0, 0): dot(0, 3), (0, 1): dot(0, 5), (1, 1): dot(0, 0)}
    shift = compare_focus(before, after)
    assert (shift.n_maps, shift.n_images) == (3, 2)
    # The first image moved by 4 of 14 on average, the second not at all.
    assert shift.distance.mean == pytest.approx(2 / SIDE, rel=1e-3)
    assert shift.distance.high == pytest.approx(4 / SIDE, rel=1e-3)


def test_without_maps_in_both_there_is_nothing_to_say():
    shift = compare_focus({(0, 1): dot(0, 0)}, {(1, 1): dot(0, 0)})
    assert (shift.n_maps, shift.overlap, shift.correlation, shift.distance) == (0, None, None, None)
    lonely = compare_focus({(0, 1): dot(0, 0)}, {(0, 1): dot(0, 0)})
    assert lonely.overlap.mean == 1
    assert lonely.overlap.chance is None


@settings(max_examples=10, deadline=None)
@given(st.lists(maps, min_size=1, max_size=5))
def test_a_run_against_itself_keeps_its_focus(cams: list[np.ndarray]):
    own = {(row, row % 2): cam for row, cam in enumerate(cams)}
    shift = compare_focus(own, own)
    assert shift.overlap.mean == 1
    assert shift.correlation.mean == pytest.approx(1)
    assert shift.distance.mean == pytest.approx(0, abs=1e-9)
    errors = list(own)
    for mean_map in (cams[0], None):
        place = shift_in_place(1, mean_map, errors, own, own)
        assert place.before == place.after
        assert place.change.value == 0
        assert place.change.low is None


def test_the_share_in_a_place_by_hand():
    # The hottest fifth of 100 pixels: the two left columns.
    mean_map = np.zeros((10, 10), np.uint8)
    mean_map[:, :2] = 9
    even = np.ones((10, 10), np.uint8)
    before = {(0, 1): mean_map, (1, 1): mean_map, (2, 1): mean_map}
    after = {(0, 1): even, (1, 1): mean_map}
    place = shift_in_place(4, mean_map, [(0, 1), (1, 1), (2, 1)], before, after)
    assert (place.pattern, place.is_shared, place.n_images, place.n_left_out) == (4, True, 2, 1)
    assert place.before == 1
    assert place.after == pytest.approx(0.6)  # A fifth of the even map, all of the other.
    assert place.change.value == pytest.approx(-0.4)
    assert place.change.low == pytest.approx(-0.8)
    assert place.change.high == pytest.approx(0)


def test_each_error_may_have_a_place_of_its_own():
    before = {(0, 1): dot(0, 0, 5), (1, 1): dot(4, 4, 5)}
    after = {(0, 1): dot(0, 0, 5), (1, 1): dot(2, 2, 5)}
    place = shift_in_place(1, None, [(0, 1), (1, 1)], before, after)
    assert not place.is_shared
    # Of the second map, five pixels in reading order fill up the place; (2, 2) is none of them.
    assert (place.before, place.after) == (1, 0.5)
    empty = shift_in_place(1, None, [(7, 1)], before, after)
    assert (empty.n_images, empty.n_left_out, empty.before, empty.after) == (0, 1, None, None)
