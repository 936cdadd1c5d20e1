"""Plain words for what errors look at and where."""

import numpy as np
import pytest
from drawn_maps import CENTRE, CORNER, LEFT, RIGHT, X, Y, blob, draw_all

from audit.diagnose.looks import MEASURES, measure_look
from audit.diagnose.pattern_names import (
    name_confusion,
    name_focus,
    name_look,
    name_pattern,
    name_places,
    tell_apart,
)

SIDE = 64
ROW, COLUMN = np.mgrid[:SIDE, :SIDE]
EVEN = np.ones((8, 8), np.uint8)


def look_of(images):
    return np.concatenate([measure_look(image, [EVEN])[0] for image in images])


def grounds(n, seed=0):
    """Draw dull, grainy pictures."""
    rng = np.random.default_rng(seed)
    return [
        np.clip(rng.normal(rng.uniform(70, 150), 12, (SIDE, SIDE, 1)) + np.zeros(3), 0, 255).astype(
            np.uint8
        )
        for _ in range(n)
    ]


def striped(along, n=12):
    wave = np.where(np.sin(along / 2.5) > 0, 30, 0)[..., None]
    return [np.clip(ground + wave, 0, 255).astype(np.uint8) for ground in grounds(n, 1)]


def painted(colour, n=12):
    images = grounds(n, 2)
    for image in images:
        image[10:40, 10:40] = colour
    return images


@pytest.mark.parametrize(
    ("cam", "name"),
    [
        (blob(0.08, 0.5, 0.04, 0.3), "left edge, upright"),
        (blob(0.92, 0.5, 0.04, 0.3), "right edge, upright"),
        (blob(0.5, 0.06, 0.3, 0.04), "top edge, flat"),
        (blob(0.5, 0.94, 0.3, 0.04), "bottom edge, flat"),
        (blob(0.86, 0.86, 0.07, 0.07), "lower right corner, small and round"),
        (blob(0.3, 0.3, 0.07, 0.07), "upper left part, small and round"),
        (blob(0.5, 0.5, 0.13, 0.13), "centre, round"),
        (blob(0.5, 0.5, 0.5, 0.3), "centre, wide"),
        (blob(0.05, 0.5, 0.05, 0.2) + blob(0.95, 0.5, 0.05, 0.2), "left and right"),
        (blob(0.5, 0.05, 0.2, 0.05) + blob(0.5, 0.95, 0.2, 0.05), "top and bottom"),
        (np.maximum(abs(X - 0.5), abs(Y - 0.5)) > 0.43, "all around the border"),
        (np.ones((8, 8)), "everywhere"),
    ],
)
def test_names_say_where_and_which_shape(cam, name):
    assert name_focus(cam).startswith(name)


def test_equal_names_are_told_apart():
    names = tell_apart(
        ["left edge", "left edge", "centre, round", "left edge"],
        ["cats → dogs", "dogs → cats", "cats → dogs", "cats → dogs"],
    )
    assert names == [
        "left edge, cats → dogs (1)",
        "left edge, dogs → cats",
        "centre, round",
        "left edge, cats → dogs (2)",
    ]


def test_names_stay_different_when_a_class_looks_like_a_number():
    names = tell_apart(["left edge"] * 3, ["a → b", "a → b", "a → b (1)"])
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (striped(COLUMN), "vertical stripes"),
        (striped(ROW), "horizontal stripes"),
        (striped(ROW + COLUMN), "slanting stripes"),
        (painted((0, 130, 255)), "orange spot"),
        (painted((250, 250, 250)), "white spot"),
        ([np.full((SIDE, SIDE, 3), 110, np.uint8)] * 8, "smooth spots"),
        (grounds(12, 7), "similar spots"),
    ],
)
def test_looks_are_named_by_what_sets_them_apart(images, name):
    assert name_look(look_of(images), look_of(grounds(40)), 0.04) == name


def test_a_vivid_colour_is_bright_and_a_large_one_is_an_area():
    measures = look_of([np.full((SIDE, SIDE, 3), (0, 130, 255), np.uint8)] * 6)
    assert name_look(measures, look_of(grounds(30)), 0.3) == "bright orange area"


def test_coloured_stripes_are_both():
    wave = np.where(np.sin(COLUMN / 2.5) > -0.3, 255, 0)
    image = np.stack([0 * wave, wave // 2, wave], axis=2).astype(np.uint8)
    name = name_look(look_of([image] * 6), look_of(grounds(30)), 0.3)
    assert name == "bright orange vertical stripes"


def test_what_all_others_show_as_well_is_not_worth_a_word():
    assert name_look(
        look_of(painted((0, 130, 255))), look_of(painted((0, 130, 255), 30)), 0.04
    ) == ("similar spots")


def test_without_pictures_there_are_no_words_for_a_look():
    nothing = np.full((9, len(MEASURES)), np.nan, np.float32)
    assert name_look(nothing, nothing, 0.04) == "similar spots"
    assert name_look(nothing, look_of(grounds(5)), 0.2) == "similar areas"


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([LEFT] * 6 + [RIGHT] * 6, "either side"),
        ([CORNER] * 8 + [CENTRE] * 2, "in the corners"),
        ([CENTRE] * 8 + [LEFT] * 2, "in the middle"),
        ([LEFT] * 4 + [CORNER] * 4 + [CENTRE] * 2, "near the border"),
        ([LEFT] * 4 + [CENTRE] * 6, "at various places"),
    ],
)
def test_places_that_differ_have_a_word_for_what_they_share(kinds, words):
    if words == "at various places":
        cams = [blob(x, 0.5, 0.06, 0.06) for x in (0.15, 0.3, 0.42, 0.5, 0.6, 0.75)]
        cams += [blob(0.5, y, 0.06, 0.06) for y in (0.2, 0.3, 0.75)]
    else:
        cams = draw_all(kinds, noise=0.1)
    assert name_places(cams) == words


def test_top_and_bottom():
    cams = [blob(0.5, y, 0.2, 0.05) for y in (0.08, 0.1, 0.9, 0.92)]
    assert name_places(cams) == "top or bottom"


def test_a_pattern_is_named_by_its_kind():
    cams = draw_all([LEFT] * 6 + [RIGHT] * 6, noise=0.1)
    looks = look_of(striped(COLUMN)), look_of(grounds(30))
    mean = np.mean(cams, axis=0)
    assert name_pattern("look", mean, cams, *looks) == "vertical stripes, either side"
    assert name_pattern("place", cams[0], cams, *looks) == "left edge, upright"
    assert name_pattern("both", cams[0], cams, *looks) == "vertical stripes, left edge, upright"


def test_hostile_class_names_can_be_stored():
    hostile = ["a\x00\n\u202eb\udcff", "x" * 500]
    words = name_confusion(0, 1, hostile)
    assert words.isprintable()
    assert len(words) < 100
    assert words.encode("utf-8")
