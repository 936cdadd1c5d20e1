"""Cards: each says what the frames say, and names files by integers only."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from report_fixture import HOSTILE_NAMES, HOSTILE_PATH, Sizes, write_run

from audit.report.run_data import read_run
from audit.report.views import thumbs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a run whose errors are replaced by two, worked out by hand."""
    run = read_run(write_run(tmp_path_factory.mktemp("run"), sizes=Sizes(12, 4, 2)))
    errors = pd.DataFrame(
        {
            "image_id": [5, 0],
            "path": ["a/five.png", HOSTILE_PATH],
            "y_true": np.array([0, 2], np.int32),
            "y_pred": np.array([1, 0], np.int32),
            "p_pred": np.array([0.9, 0.1], np.float32),
            "p_true": np.array([0.05, 0.05], np.float32),
            "margin": np.array([0.8, 0.1], np.float32),
            "pattern": [2, 0],
        }
    )
    issues = pd.DataFrame({"image_id": [5], "kind": ["suspected label"]})
    return dataclasses.replace(
        run,
        errors=errors,
        pictures={5: (48, 64), 3: (10, 20)},
        peaks={(5, 1): 0.5, (5, 0): 0.0, (0, 0): 3.0},
        diagnosis=dataclasses.replace(run.diagnosis, label_issues=issues),
    )


def test_a_card_says_what_the_frame_says(data):
    (card,) = thumbs.error_thumbs(data, [0])
    assert card == thumbs.ErrorThumb(
        image_id=5,
        href="errors/5.html",
        photo="images/5.jpg",
        heat="images/5-predicted.png",
        width=64,
        height=48,
        true_name=HOSTILE_NAMES[0],
        predicted_name=HOSTILE_NAMES[1],
        confidence=0.9,
        path="a/five.png",
        pattern=2,
        pattern_name="lower right corner, small",
        flag="Its label is suspected to be wrong.",
    )


def test_a_card_without_a_picture_has_no_heat_either(data):
    (card,) = thumbs.error_thumbs(data, [1])
    assert (card.photo, card.heat, card.width, card.height) == (None, None, 1, 1)
    assert (card.pattern, card.pattern_name, card.flag) == (0, "", "")
    assert card.path == HOSTILE_PATH


def test_a_map_in_which_nothing_speaks_is_no_heat(data):
    silent = dataclasses.replace(data, peaks={(5, 1): 0.0, (5, 0): 9.0})
    (card,) = thumbs.error_thumbs(silent, [0])
    assert card.photo is not None and card.heat is None


def test_cards_come_in_the_order_asked_for(data):
    assert [card.image_id for card in thumbs.error_thumbs(data, [1, 0])] == [0, 5]
    assert [card.image_id for card in thumbs.thumbs_of_errors(data, [0, 99, 5])] == [0, 5]


def test_any_image_has_a_card_and_an_error_a_link(data):
    error, right = thumbs.image_thumb(data, 5), thumbs.image_thumb(data, 3)
    assert (error.href, error.heat) == ("errors/5.html", "images/5-predicted.png")
    assert thumbs.image_thumb(data, 5, heat=False).heat is None
    assert (right.href, right.heat, right.predicted_name) == (None, None, None)
    assert (right.photo, right.width, right.height) == ("images/3.jpg", 20, 10)
    assert right.label_name == HOSTILE_NAMES[int(data.images["y_true"][3])]
    assert thumbs.image_thumb(data, 7).photo is None


def test_a_file_that_could_not_be_read_is_a_card_without_anything(data):
    card = thumbs.file_thumb(HOSTILE_PATH)
    assert (card.image_id, card.href, card.photo, card.label_name) == (-1, None, None, "")
    assert card.path == HOSTILE_PATH


def test_names_of_files_are_made_of_integers(data):
    cards = [*thumbs.error_thumbs(data, [0, 1]), thumbs.image_thumb(data, 3)]
    names = [name for card in cards for name in (card.href, card.photo, card.heat) if name]
    assert len(names) == 5
    assert all(
        re.fullmatch(r"(errors|images)/\d+(-[a-z]+)?\.(html|jpg|png)", name) for name in names
    )


def test_no_class_has_no_name():
    assert thumbs.class_name(("cats",), 0) == "cats"
    assert thumbs.class_name(("cats",), -1) == ""


@pytest.mark.parametrize("value", [0.1, 0.9, 1 / 3, 0.99999994, 1.0, 0.0])
def test_a_confidence_is_the_shortest_decimal_of_its_float32(value):
    shown = thumbs.single(np.float32(value))
    assert np.float32(shown) == np.float32(value)
    assert len(str(shown)) <= 12
