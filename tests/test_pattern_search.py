"""Patterns of look and of place in drawn maps, and in maps of which only vectors are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_maps import ANYWHERE, CORNER, LEFT, RIGHT, draw_all, make_looks, make_run

from audit.diagnose import pattern_search
from audit.diagnose.pattern_search import gather_maps, search_patterns, typical_order

WIDTH = 40


def vectors_of(things: list[int], seed: int = 0) -> np.ndarray:
    """Return a vector for each map: near that of its thing, or anywhere for -1."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(things) + 1, WIDTH))
    points = rng.normal(size=(len(things), WIDTH))
    known = np.array(things) >= 0
    points[known] = 0.5 * points[known] + centres[np.array(things)[known]]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(n, WIDTH)) / WIDTH**0.5


def search(focus: pd.DataFrame, fused: pd.DataFrame, vectors: np.ndarray | None = None, seed=0):
    """Return the maps and the patterns; what is elsewhere is noise."""
    looks = None if vectors is None else make_looks(fused, vectors, noise(len(vectors)))
    maps = gather_maps(focus, fused, looks)
    return maps, search_patterns(maps, seed)


@pytest.fixture(scope="module")
def bars():
    """Errors look at bars at the left or at the right; 20 look elsewhere. Controls rarely do."""
    kinds = [LEFT] * 20 + [RIGHT] * 20 + [ANYWHERE] * 20
    own = [LEFT] * 2 + [RIGHT] * 2 + [ANYWHERE] * 46
    rivals = [LEFT] + [ANYWHERE] * 49
    focus, fused = make_run(draw_all(kinds), draw_all(own, seed=1), draw_all(rivals, seed=2))
    is_bar = np.isin(kinds + own + rivals, [LEFT, RIGHT])
    return focus, fused, is_bar, vectors_of(np.where(is_bar, 0, -1).tolist())


def test_bars_are_one_pattern_wherever_they_are(bars):
    focus, fused, is_bar, vectors = bars
    maps, (pattern, *others) = search(focus, fused, vectors)
    assert not [p for p in others if p.of_look]
    assert pattern.of_look and pattern.kind == "look"
    np.testing.assert_array_equal(pattern.members[maps.table["is_empty"].to_numpy()], False)
    found = maps.table["image_id"][pattern.members]
    assert set(found) == set(fused["image_id"][: len(is_bar)][is_bar])
    assert pattern.q_value < 1e-3
    assert pattern.stability > 0.9


def test_without_looks_the_two_sides_are_two_patterns_of_place(bars):
    focus, fused, _, _ = bars
    _, patterns = search(focus, fused)
    assert len(patterns) == 2
    assert {p.kind for p in patterns} == {"place"}
    assert not any(p.of_look for p in patterns)
    assert all(p.q_value < 0.05 for p in patterns)


def test_a_thing_that_is_always_at_one_place_is_both():
    kinds = [CORNER] * 25 + [ANYWHERE] * 25
    controls = [ANYWHERE] * 50
    focus, fused = make_run(draw_all(kinds), draw_all(controls, seed=1), draw_all(controls, seed=2))
    vectors = vectors_of([0] * 25 + [-1] * 125)
    _, (pattern, *_) = search(focus, fused, vectors)
    assert pattern.kind == "both" and pattern.of_look
    # A corner with a different thing in each image is found by its place.
    _, (pattern, *_) = search(focus, fused, vectors_of([-1] * 149 + [0]))
    assert pattern.kind == "place" and not pattern.of_look
    assert pattern.members[:25].mean() > 0.75
    assert pattern.q_value < 0.05


def test_what_changes_whole_images_is_no_pattern():
    kinds = [ANYWHERE] * 150
    focus, fused = make_run(
        draw_all(kinds[:50]), draw_all(kinds[:50], seed=1), draw_all(kinds[:50], seed=2)
    )
    vectors = vectors_of([0] * 30 + [-1] * 120)
    maps = gather_maps(focus, fused, make_looks(fused, vectors, vectors))
    assert not [p for p in search_patterns(maps, 0) if p.of_look]


def test_the_common_content_of_a_class_is_not_special():
    """Cats have faces, whether they are mistaken or not; dogs never have a cat's face."""
    kinds = [ANYWHERE] * 50
    focus, fused = make_run(draw_all(kinds), draw_all(kinds, seed=1), draw_all(kinds, seed=2))
    faces = [0] * 25 + [-1] * 25 + [-1] * 50 + [0] * 25 + [-1] * 25
    _, patterns = search(focus, fused, vectors_of(faces))
    assert all(p.q_value > 0.05 for p in patterns)


def test_members_do_not_depend_on_who_is_an_error():
    """Errors and right cats swap roles; the group that both show is found with the same members."""
    kinds = [ANYWHERE] * 40
    focus, fused = make_run(draw_all(kinds), draw_all(kinds, seed=1), draw_all(kinds, seed=2))
    shown = [0] * 15 + [-1] * 25
    vectors = vectors_of(shown * 3, seed=3)
    maps, patterns = search(focus, fused, vectors)
    units = maps.units
    is_cat = ~units.is_own
    swapped = replace(units, is_error=units.is_rival & is_cat, is_rival=units.is_error)
    swapped = replace(swapped, is_rival=swapped.is_rival | (units.is_rival & ~is_cat))
    for found in (patterns, search_patterns(replace(maps, units=swapped), 0)):
        (pattern,) = [p for p in found if p.of_look]
        members = set(maps.table["image_id"][pattern.members])
        assert members == set(fused["image_id"][:120][np.tile(shown, 3) == 0])


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_left_out(seed: int):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, 256, (56, 56), np.uint8) for _ in range(150)]
    focus, fused = make_run(maps[:50], maps[50:100], maps[100:])
    _, patterns = search(focus, fused, vectors_of([-1] * 149 + [0], seed))
    assert not patterns


def test_the_order_of_rows_does_not_matter(bars):
    focus, fused, _, vectors = bars
    looks = make_looks(fused, vectors, noise(len(vectors)))
    first = search_patterns(gather_maps(focus, fused, looks), 0)
    mixed = gather_maps(
        focus.sample(frac=1, random_state=1), fused.sample(frac=1, random_state=2), looks
    )
    again = search_patterns(mixed, 0)
    assert len(first) == len(again)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.members, other.members)
        assert (one.stability, one.p_value) == (other.stability, other.p_value)


def test_of_many_maps_a_sample_is_searched_and_the_rest_is_placed(bars, monkeypatch):
    focus, fused, is_bar, vectors = bars
    monkeypatch.setattr(pattern_search, "_SEARCH_AT_MOST", 110)
    monkeypatch.setattr(pattern_search, "_MOST_CONTROLS", 80)
    maps, patterns = search(focus, fused, vectors)
    best = max(patterns, key=lambda p: p.members.sum())
    usable = maps.sketches.any(axis=1)
    assert (best.members[usable] == is_bar).mean() > 0.97
    assert best.q_value < 0.05


def test_a_map_is_known_by_its_image_and_class(bars):
    focus, fused, _, vectors = bars
    looks = make_looks(fused, vectors)
    maps = gather_maps(focus, fused, looks)
    for row in (0, 60, 120):
        image_id, explained = maps.table[["image_id", "explained_class"]].iloc[row]
        where = (fused["image_id"] == image_id) & (fused["explained_class"] == explained)
        np.testing.assert_array_equal(maps.vectors[row], looks.vectors[np.flatnonzero(where)[0]])
    is_empty = maps.table["is_empty"].to_numpy()
    assert not maps.vectors[is_empty].any() and not maps.sketches[is_empty].any()
    assert maps.units.is_rival.sum() == 50  # The empty maps of these images are for their own.


def test_the_first_is_the_medoid_and_ties_go_by_image():
    points = np.array([[0.0], [1.0], [10.0], [1.0]])
    # Sums of squared distances: 102, 83, 262, 83; of the two ones the image 3 comes before 8.
    assert typical_order(points, [5, 8, 6, 3]).tolist() == [3, 1, 0, 2]
