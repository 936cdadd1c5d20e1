"""What each run found, by position among the matched images."""

from pathlib import Path

import numpy as np
import pytest
from compare_fixture import SIDE, binary_scores, condition, write_run

from audit.compare.matching import MatchedRuns, match_runs, open_compared
from audit.compare.stored import (
    read_maps,
    read_mean_maps,
    read_patterns,
    read_repaired,
    read_slices,
)

HOT = np.full((SIDE, SIDE), 255, np.uint8)


def two_runs(tmp_path: Path, **second: object) -> MatchedRuns:
    """Match a run with one that has its images in another order, without the first."""
    a = write_run(tmp_path / "a", [0, 0, 1, 1], binary_scores([0.9, 0.9, 0.1, 0.9]))
    b = write_run(
        tmp_path / "b",
        [1, 1, 0],
        binary_scores([0.2, 0.3, 0.7]),
        paths=["0003.png", "0002.png", "0001.png"],
        contents=[3, 2, 1],
        **second,
    )
    # Positions: 0001, 0002, 0003; in the second run they are images 2, 1 and 0.
    return match_runs([open_compared(a, "a"), open_compared(b, "b")])


def test_patterns_have_the_errors_that_both_runs_know(tmp_path: Path):
    a = write_run(
        tmp_path / "a", [0] * 4, binary_scores([0.9] * 4), patterns={1: [0, 1, 3]}, kind="look"
    )
    b = write_run(tmp_path / "b", [0] * 3, binary_scores([0.1] * 3), contents=[0, 1, 2])
    images = match_runs([open_compared(path, path.name) for path in (a, b)])
    (pattern,) = read_patterns(images, 0, is_later=False)
    assert (pattern.number, pattern.kind, pattern.n_errors) == (1, "look", 3)
    assert pattern.errors.tolist() == [0, 1]
    assert not pattern.is_later
    assert read_patterns(images, 1, is_later=True) == []


def test_positions_are_those_of_the_matched_images(tmp_path: Path):
    images = two_runs(tmp_path, patterns={3: [0, 2]}, repaired={0: True, 2: False})
    (pattern,) = read_patterns(images, 1, is_later=True)
    assert pattern.errors.tolist() == [0, 2]
    assert np.array_equal(read_repaired(images, 1), [0, np.nan, 1], equal_nan=True)
    assert np.isnan(read_repaired(images, 0)).all()


def test_maps_are_by_position(tmp_path: Path):
    images = two_runs(tmp_path, maps={(0, 0): HOT, (2, 1): HOT // 2})
    maps = read_maps(images, 1)
    assert list(maps) == [(2, 0), (0, 1)]
    assert maps[2, 0].tolist() == HOT.tolist()
    assert maps[0, 1].tolist() == (HOT // 2).tolist()


def test_mean_maps_are_by_number(tmp_path: Path):
    run = write_run(tmp_path / "a", [0, 0], binary_scores([0.9, 0.9]), patterns={2: [0, 1]})
    ((number, mean_map),) = read_mean_maps(open_compared(run, "a")).items()
    assert number == 2
    assert mean_map.shape == (SIDE, SIDE)
    assert mean_map[:, :2].min() == 255
    assert mean_map[:, 2:].max() == 0


def test_confirmed_slices_become_groups(tmp_path: Path):
    slices = [
        {
            "name": "north",
            "kind": "metadata",
            "conditions": [condition("metadata.camera", value="north")],
            "confirmed": True,
        },
        {
            "name": "not confirmed",
            "kind": "metadata",
            "conditions": [condition("metadata.camera", value="south")],
            "confirmed": False,
        },
        {
            "name": "dogs",
            "kind": "class",
            "conditions": [condition("y_true", value="dogs")],
            "confirmed": True,
        },
        {
            "name": "called dogs in the north",
            "kind": "pair",
            "conditions": [
                condition("metadata.camera", value="north"),
                condition("y_pred", value="dogs"),
            ],
            "confirmed": True,
        },
        {
            "name": "cats in the north",
            "kind": "pair",
            "conditions": [
                condition("metadata.camera", value="north"),
                condition("y_true", value="cats"),
            ],
            "confirmed": True,
        },
    ]
    # Forty images; every other one is from the north, every fourth is a dog, all are called dogs.
    n = 40
    y_true, scores = [int(i % 4 == 3) for i in range(n)], binary_scores([0.9] * n)
    camera = {"camera": ["north", "south"] * (n // 2)}
    a = write_run(tmp_path / "a", y_true, scores, metadata=camera, slices=slices)
    names = [f"{i:04d}.png" for i in range(1, n)]
    b = write_run(tmp_path / "b", y_true[1:], scores[1:], paths=names, contents=range(1, n))
    images = match_runs([open_compared(a, "before"), open_compared(b, "after")])
    north, cats = read_slices(images, 0)
    assert (north.kind, north.name, north.found_in) == ("slice", "north", "before")
    # The order of a seed, cut in two within cats (all wrong) and dogs, says what was searched.
    order = np.random.default_rng(0).permutation(n)
    order = sorted(order, key=lambda i: (y_true[i], y_true[i] == 0))
    kept_back = {int(i) for i in order[1::2]}
    expected = [i in kept_back and i % 2 == 0 for i in range(1, n)]
    assert north.members.tolist() == expected
    assert 5 <= sum(expected) <= 15
    assert cats.name == "cats in the north"
    assert cats.members.tolist() == expected  # In the north there are no dogs.
    assert read_slices(images, 1) == []


def test_a_run_that_made_no_maps_and_no_tables_gives_none(tmp_path: Path):
    images = two_runs(tmp_path)
    folder = images.runs[1].folder
    for name in ("focus", "patterns", "slices"):
        folder.table_path(name).unlink()
    folder.shard_path("explanations", 0).unlink()
    assert read_patterns(images, 1, is_later=True) == []
    assert read_slices(images, 1) == []
    assert read_maps(images, 1) == {}
    assert read_mean_maps(images.runs[1]) == {}


@pytest.mark.parametrize("reordered", [False, True])
def test_maps_that_show_no_place_are_left_out(tmp_path: Path, reordered: bool):
    names, turn = (
        (("dogs", "cats"), slice(None, None, -1)) if reordered else (("cats", "dogs"), slice(None))
    )
    dogs = names.index("dogs")
    a = write_run(tmp_path / "a", [0, 1], binary_scores([0.9, 0.9]))
    b = write_run(
        tmp_path / "b",
        [1 - dogs, dogs],
        binary_scores([0.9, 0.8])[:, turn],
        class_names=names,
        maps={(0, dogs): HOT, (1, dogs): np.zeros((SIDE, SIDE), np.uint8)},
    )
    images = match_runs([open_compared(path, path.name) for path in (a, b)])
    assert list(read_maps(images, 1)) == [(0, 1)]
