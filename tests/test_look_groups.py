"""Groups of points in a tree: planted ones are found, noise has none that is clear."""

import numpy as np
import pytest

from audit.diagnose.look_groups import find_looks, nearest_group
from audit.diagnose.pattern_choice import STRONG_DISTINCTNESS

WIDTH = 40


def scatter(n: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.normal(size=(n, WIDTH))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def plant(sizes: list[int], n_others: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points of length 1, some around a centre of their own, and whose they are, or -1."""
    rng = np.random.default_rng(seed)
    centres = scatter(len(sizes), rng)
    truth = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(n_others, -1)])
    points = scatter(len(truth), rng)
    points[truth >= 0] = 0.5 * points[truth >= 0] + centres[truth[truth >= 0]]
    return points / np.linalg.norm(points, axis=1, keepdims=True), truth


def noise(n: int, seed: int = 9) -> np.ndarray:
    return scatter(n, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_groups_are_found_whatever_their_size(seed: int):
    points, truth = plant([60, 20, 6], 40, seed)
    groups = find_looks(points, 0, noise(len(points)))
    for number in range(3):
        planted = truth == number
        overlaps = (groups.members & planted).sum(axis=1) / (groups.members | planted).sum(axis=1)
        best = overlaps.argmax()
        assert overlaps[best] >= 0.9
        assert groups.distinctness[best] >= 0.4
        assert groups.stability[best] >= 0.8


def test_noise_has_no_clear_groups():
    for seed in range(5):
        groups = find_looks(noise(120, seed), 0, noise(120, seed + 50))
        assert len(groups) <= 5
        assert groups.distinctness.max(initial=0) < STRONG_DISTINCTNESS / 1.5


def test_what_sets_images_apart_all_over_is_no_focus():
    points, truth = plant([30], 60)
    assert len(find_looks(points, 0, points)) == 0
    # A faint trace elsewhere, as of a bar that the map does not quite cover, does no harm.
    elsewhere = noise(len(points)) + 0.2 * points
    groups = find_looks(points, 0, elsewhere)
    assert any((members == (truth == 0)).all() for members in groups.members)


def test_any_two_groups_are_nested_or_apart():
    points, _ = plant([40, 25, 12, 8], 30)
    members = find_looks(points, 0, noise(len(points))).members
    assert len(members) >= 4
    common = members.astype(int) @ members.T.astype(int)
    sizes = members.sum(axis=1)
    assert ((common == 0) | (common == np.minimum.outer(sizes, sizes))).all()


def test_the_order_of_points_does_not_matter_to_the_groups():
    points, truth = plant([40, 12], 40)
    rest = noise(len(points))
    order = np.random.default_rng(3).permutation(len(points))
    first = find_looks(points, 0, rest)
    second = find_looks(points[order], 0, rest[order])
    sets = [
        {frozenset(np.flatnonzero(m).tolist()) for m in first.members},
        {frozenset(order[m].tolist()) for m in second.members},
    ]
    for number in range(2):  # What is clearly a group is one in any order; others may come and go.
        planted = frozenset(np.flatnonzero(truth == number).tolist())
        assert all(planted in found for found in sets)


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 6])
def test_a_handful_of_points_is_no_trouble(n: int):
    groups = find_looks(noise(n), 0, noise(n, 1))
    assert groups.members.shape[1] == n


def test_equal_points_are_no_groups_of_their_own():
    assert len(find_looks(np.ones((20, 4)), 0, np.ones((20, 4)))) == 0


def test_points_are_placed_by_most_of_their_nearest_neighbours():
    known = np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0], [9.1], [9.2], [9.3], [9.4]])
    groups = np.array([0, 0, 0, -1, -1, 1, 1, -1, -1, -1])
    # Around 0 three of five are of group 0; around 9.2 two of five are of group 1.
    assert nearest_group(np.array([[0.15], [9.2]]), known, groups).tolist() == [0, -1]
    assert nearest_group(np.array([[0.0]]), known[:2], groups[:2]).tolist() == [0]
    assert nearest_group(np.zeros((0, 1)), known, groups).tolist() == []
