"""Conditions on properties, on the user's columns whatever they hold, on classes and duplicates."""

import datetime

import numpy as np
import pandas as pd
import pytest

from audit.diagnose.conditions import (
    MIN_IMAGES,
    OBJECT,
    PROPERTIES,
    Condition,
    class_condition,
    is_met,
    list_conditions,
    make_table,
)
from audit.predict.properties import MEASURES, SCHEMA

CLASSES = ("cats", "dogs")
NO_DUPLICATES = pd.DataFrame(columns=["image_id", "group", "other_id", "bits"], dtype=np.int64)


def predictions_of(n: int) -> pd.DataFrame:
    y_true = np.arange(n) % 2
    return pd.DataFrame({"image_id": range(n), "y_true": y_true, "y_pred": 0 * y_true})


def properties_of(n: int, **columns: object) -> pd.DataFrame:
    constant = dict.fromkeys(SCHEMA.names, 1.0) | {"image_id": range(n)}
    return pd.DataFrame(constant | columns)


def table_of(n: int, metadata: dict[str, object] | None = None, **columns: object) -> pd.DataFrame:
    brought = pd.DataFrame({"image_id": range(n), **(metadata or {})})
    return make_table(
        predictions_of(n), properties_of(n, **columns), brought, NO_DUPLICATES, CLASSES
    )


def conditions_of(table: pd.DataFrame, column: str) -> list[Condition]:
    return [condition for condition in list_conditions(table) if condition.column == column]


# The table


def test_the_table_by_hand():
    predictions = pd.DataFrame({"image_id": [4, 2], "y_true": [1, 0], "y_pred": [1, 1]})
    properties = properties_of(6, width=[0, 0, 8, 0, 6, 0], height=[1, 1, 2, 1, 3, 1])
    metadata = pd.DataFrame(
        {"image_id": range(6), "path": "x", "y_true": 0, "sharpness": list("abcdef")}
    )
    duplicates = pd.DataFrame({"image_id": [4], "group": [1], "other_id": [5], "bits": [0]})
    table = make_table(predictions, properties, metadata, duplicates, CLASSES)
    assert list(table.columns) == [
        *("image_id", "is_error", *PROPERTIES, "near_duplicates", "y_true", "y_pred"),
        "metadata.sharpness",
    ]
    assert table["image_id"].tolist() == [2, 4]
    assert table["is_error"].tolist() == [True, False]
    assert table["y_true"].tolist() == ["cats", "dogs"]
    assert table["y_pred"].tolist() == ["dogs", "dogs"]
    assert table["size"].tolist() == [16, 18]
    assert table["aspect_ratio"].tolist() == [4, 2]
    assert table["near_duplicates"].tolist() == ["no", "yes"]
    assert table["metadata.sharpness"].tolist() == ["c", "e"]
    assert table["sharpness"].tolist() == [1, 1]


# Numbers


def test_tails_by_hand():
    table = table_of(100, sharpness=np.arange(100.0))
    got = {(c.low, c.high): c.name for c in conditions_of(table, "sharpness")}
    assert got == {
        (None, 20.0): "blurred (sharpness in the lowest 20 %)",
        (None, 30.0): "blurred (sharpness in the lowest 30 %)",
        (None, 40.0): "blurred (sharpness in the lowest 40 %)",
        (None, 50.0): "blurred (sharpness in the lowest 50 %)",
        (80.0, None): "very sharp (sharpness in the highest 20 %)",
        (70.0, None): "very sharp (sharpness in the highest 30 %)",
        (60.0, None): "very sharp (sharpness in the highest 40 %)",
        (50.0, None): "very sharp (sharpness in the highest 50 %)",
    }  # 5 and 10 % are fewer than 20 images
    lowest = conditions_of(table, "sharpness")[0]
    assert np.flatnonzero(is_met(lowest, table)).tolist() == list(range(20))


def test_equal_values_stay_together_and_no_tail_comes_twice():
    # 45 zeros, 45 ones, 10 twos: every low tail up to 40 % is the zeros; the ones belong to both.
    table = table_of(100, noise=np.repeat([0.0, 1, 2], [45, 45, 10]))
    got = {(c.low, c.high): c.name for c in conditions_of(table, "noise")}
    assert got == {
        (None, 1.0): "smooth (noise in the lowest 45 %)",
        (1.0, None): "noisy (noise in the highest 55 %)",
    }


def test_unknown_numbers_meet_no_condition():
    width = np.where(np.arange(200) < 100, np.nan, np.arange(200.0))
    table = table_of(200, width=width)
    conditions = conditions_of(table, "size")
    assert conditions
    for condition in conditions:
        assert not is_met(condition, table)[:100].any()
    assert {c.name for c in conditions} >= {"small (number of pixels in the lowest 50 %)"}


def test_columns_that_say_nothing_give_no_condition():
    assert list_conditions(table_of(100)) == []
    assert list_conditions(table_of(100, width=np.nan, height=None)) == []
    assert list_conditions(table_of(0)) == []
    assert conditions_of(table_of(MIN_IMAGES - 1, noise=np.arange(MIN_IMAGES - 1.0)), "noise") == []


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_has_words_for_both_sides(name):
    values = np.random.default_rng(0).random(100)
    column = {"size": "width", "aspect_ratio": "width"}.get(name, name)
    names = [c.name for c in conditions_of(table_of(100, **{column: values}), name)]
    assert len(names) == len(set(names)) == 8
    assert {*MEASURES, "file_size"} <= set(PROPERTIES)


# The user's columns


def test_levels_of_a_column():
    cameras = ["A"] * 30 + ["B"] * 25 + ["C"] * 19 + [None] * 26
    table = table_of(100, {"camera": cameras})
    got = conditions_of(table, "metadata.camera")
    assert [(c.value, c.name) for c in got] == [
        ("A", "camera: A"),
        ("", "camera is missing"),
        ("B", "camera: B"),
    ]
    assert all((c.low, c.high) == (None, None) for c in got)
    assert np.flatnonzero(is_met(got[1], table)).tolist() == list(range(74, 100))


def test_many_numbers_are_numeric_and_few_are_levels():
    table = table_of(
        100, {"age": np.arange(100), "batch": np.arange(100) % 4, "flag": np.arange(100) % 2 == 0}
    )
    assert table["metadata.age"].dtype == np.float64
    assert next(c.name for c in conditions_of(table, "metadata.age")) == "age in the lowest 20 %"
    assert [c.value for c in conditions_of(table, "metadata.batch")] == ["0", "1", "2", "3"]
    assert [c.name for c in conditions_of(table, "metadata.flag")] == ["flag: False", "flag: True"]


def test_the_fifty_most_common_levels_are_tried():
    sites = [f"site {number:03}" for number in range(60) for _ in range(20 + number)]
    got = conditions_of(table_of(len(sites), {"site": sites}), "metadata.site")
    assert [c.value for c in got] == [f"site {number:03}" for number in range(59, 9, -1)]


HOSTILE = {
    "lists": [[1, 2]] * 50 + [[3]] * 50,
    "dicts": [{"a": 1}] * 50 + [None] * 50,
    "arrays": [np.array([1, 2])] * 50 + [np.array([])] * 50,
    "mixed": ["x", 1, 2.5, None, float("nan"), pd.NA, pd.NaT, b"x", (1,), object] * 10,
    "dates": [datetime.datetime(2024, 1, 1 + day % 2) for day in range(100)],
    "infinite": [np.inf, -np.inf] * 10 + list(range(80)),
    "complex": [1j * number for number in range(100)],
    "nullable": pd.array([1, None] * 20 + list(range(60)), "Int64"),
    "category": pd.Categorical(["p"] * 50 + ["q"] * 50),
    "nothing": [None] * 100,
    "unique": [f"id {number}" for number in range(100)],
    "<script>\n\u202e": ["</script>\x00\u202e"] * 50 + ["a" * 5000] * 50,
    "size": ["S"] * 50 + ["L"] * 50,
    "near_duplicates": ["yes"] * 100,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_column_holds_it_does_no_harm(name):
    table = table_of(100, {name: HOSTILE[name]})
    conditions = list_conditions(table)
    for condition in conditions:
        assert condition.column == f"metadata.{name}"
        assert MIN_IMAGES <= is_met(condition, table).sum() <= 60
        assert condition.name.isprintable() and len(condition.name) < 120
    if name in ("lists", "dicts", "arrays", "dates", "category", "<script>\n\u202e", "size"):
        assert len(conditions) == 2
    if name in ("nothing", "unique", "near_duplicates", "complex"):
        assert conditions == []


def test_missing_values_of_every_kind_are_one_level():
    table = table_of(100, {"mixed": HOSTILE["mixed"]})
    (missing,) = conditions_of(table, "metadata.mixed")
    assert missing.value == "" and is_met(missing, table).sum() == 40


def test_all_columns_at_once_and_other_dtypes_of_strings():
    metadata: dict[str, object] = {**HOSTILE}
    table = table_of(100, metadata)
    assert len(table.columns) == 5 + len(PROPERTIES) + len(HOSTILE)
    for dtype in ("string", "str", object):
        camera = pd.Series(["A", "B"] * 50, dtype=dtype)
        assert len(list_conditions(table_of(100, {"camera": camera}))) == 2


# Classes and duplicates


def test_the_condition_on_a_class():
    table = table_of(6)
    dogs = class_condition("y_true", "dogs")
    assert dogs == Condition("y_true", None, None, "dogs", "class dogs")
    assert is_met(dogs, table).tolist() == [False, True] * 3
    assert class_condition("y_pred", "do\u202egs\n").name == "called do gs"


def test_only_having_a_duplicate_is_a_condition():
    duplicates = NO_DUPLICATES.reindex(range(40)).assign(image_id=range(40))
    table = make_table(
        predictions_of(100),
        properties_of(100),
        pd.DataFrame({"image_id": range(100)}),
        duplicates,
        CLASSES,
    )
    (condition,) = list_conditions(table)
    assert (condition.column, condition.value) == ("near_duplicates", "yes")
    assert condition.name == "with a near-duplicate"
    assert np.flatnonzero(is_met(condition, table)).tolist() == list(range(40))


# Objects


def test_the_share_of_the_object_is_a_condition():
    table = table_of(100, object_share=np.arange(100) / 100)
    found = {condition.name: condition for condition in conditions_of(table, OBJECT)}
    small = found["small object (its share of the image in the lowest 20 %)"]
    assert is_met(small, table).tolist() == [True] * 20 + [False] * 80
    large = found["large object (its share of the image in the highest 30 %)"]
    assert is_met(large, table).tolist() == [False] * 70 + [True] * 30


@pytest.mark.parametrize(
    ("n_known", "is_tried"), [(100, True), (90, True), (89, False), (0, False)]
)
def test_objects_of_some_images_only_are_no_condition(n_known: int, is_tried: bool):
    """Images with masks may have been chosen for what makes them wrong."""
    shares = np.where(np.arange(100) < n_known, np.arange(100) / 100, np.nan)
    table = table_of(100, object_share=shares)
    assert (OBJECT in table) == is_tried
    if n_known == 90:
        assert not any(is_met(c, table)[90:].any() for c in conditions_of(table, OBJECT))
