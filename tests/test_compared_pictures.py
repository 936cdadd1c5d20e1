"""Pictures and maps of several runs, by position among the matched images."""

import numpy as np
import pandas as pd
from compare_fixture import SIDE, binary_scores, picture, write_run
from compared_runs import left, middle

from audit.compare.comparison import compare_runs
from audit.compare.matching import ComputedMaps
from audit.report.comparison.compared_pictures import SHAPE, ComparedPictures
from audit.report.images import strip_metadata
from audit.run_folder import RunFolder

INPUT = {"height": SIDE, "width": SIDE, "channels": 3, "aspect": "stretch"}


def pair(tmp_path, other_input=INPUT, **changes):
    first = write_run(
        tmp_path / "a",
        [0, 0, 1],
        binary_scores([0.9, 0.1, 0.9]),
        maps={(0, 1): left(), (1, 0): np.zeros((SIDE, SIDE), np.uint8)},
        pictures=[0, 1],
        input=INPUT,
    )
    # The other run has the images in another order, and the classes too.
    other = write_run(
        tmp_path / "b",
        [0, 1, 1],
        binary_scores([0.4, 0.8, 0.2]),
        class_names=("dogs", "cats"),
        paths=["0002.png", "0000.png", "0001.png"],
        contents=[2, 0, 1],
        maps={(1, 0): middle()},
        pictures=[0, 1],
        input=other_input,
        **changes,
    )
    return compare_runs([first, other]).images


def test_maps_are_found_by_position_and_class(tmp_path):
    pictures = ComparedPictures(pair(tmp_path))
    assert [pictures.has_map(0, run, 1) for run in (0, 1)] == [True, True]
    found = [pictures.map(0, run, 1) for run in (0, 1)]
    assert (found[0].cam == left()).all()
    assert (found[1].cam == middle()).all()
    assert [stored.peak for stored in found] == [1.0, 1.0]
    assert pictures.map(0, 0, 0) is None
    assert pictures.map(2, 1, 0) is None


def test_a_map_that_shows_nothing_is_none(tmp_path):
    pictures = ComparedPictures(pair(tmp_path))
    assert not pictures.has_map(1, 0, 0)
    assert pictures.map(1, 0, 0) is None


def test_runs_that_see_alike_share_pictures(tmp_path):
    pictures = ComparedPictures(pair(tmp_path))
    assert pictures.views == (0, 0)
    # Image 1 is in the first run only, image 2 in the other only, as its image 0.
    assert [pictures.source(position, 0) for position in range(3)] == [0, 0, 1]
    assert [pictures.source(position, 1) for position in range(3)] == [0, 0, 1]
    assert pictures.picture(1, 0) == strip_metadata(picture(1))
    assert pictures.picture(2, 1) == strip_metadata(picture(0))
    assert pictures.picture(1, 1) is None
    assert all(pictures.is_pictured(position) for position in range(3))


def test_a_picture_of_another_size_stands_in_and_one_of_another_part_does_not(tmp_path):
    larger = ComparedPictures(pair(tmp_path / "larger", INPUT | {"height": 16, "width": 16}))
    assert larger.views == (0, 1)
    # Its own comes first, then one that shows the same part.
    assert [larger.source(0, run) for run in (0, 1)] == [0, 1]
    assert [larger.source(1, run) for run in (0, 1)] == [0, 0]
    cropped = ComparedPictures(pair(tmp_path / "cropped", INPUT | {"aspect": "crop"}))
    assert [cropped.source(0, run) for run in (0, 1)] == [0, 1]
    assert [cropped.source(1, run) for run in (0, 1)] == [0, None]
    wide = ComparedPictures(pair(tmp_path / "wide", INPUT | {"width": 16}))
    assert wide.source(1, 1) is None
    assert "scaling" not in SHAPE  # It comes after the pixels are measured.


def test_other_ways_to_make_maps_are_noticed(tmp_path):
    assert ComparedPictures(pair(tmp_path / "same")).same_method
    other = pair(tmp_path / "other", config={"seed": 0, "method": "occlusion"})
    assert not ComparedPictures(other).same_method


def test_computed_maps_stand_beside_the_runs_own(tmp_path):
    from dataclasses import replace

    images = pair(tmp_path)
    maps = pd.DataFrame(
        {
            "image_id": [0, 1],
            "explained_class": [1, 0],
            "peak": [0.5, 0.25],
            "cam": [left(), left()],
        }
    )
    folder = RunFolder(tmp_path / "computed")
    runs = list(images.runs)
    runs[1] = replace(runs[1], computed=ComputedMaps(folder, maps, 2, ()))
    pictures = ComparedPictures(replace(images, runs=tuple(runs)))
    assert pictures.map(2, 1, 0).peak == 0.5  # Its image 0 and class 1 are "cats", class 0 here.
    assert (pictures.map(0, 1, 1).cam == middle()).all()  # The run's own.
    assert pictures.map(0, 1, 1).peak == 1.0
