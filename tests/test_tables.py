"""What findings and targets look up in the tables of a run."""

import finding_tables
import numpy as np
import pandas as pd
import pytest

from audit.diagnose import tables as tables_module
from audit.diagnose.tables import Tables


def test_a_run_with_predictions_alone_has_empty_tables():
    tables = finding_tables.tables()
    assert tables.n_errors == 96
    assert tables.suspected == frozenset()
    assert tables.issues("duplicate").empty
    assert tables.conditions["sharpness"].isna().all()
    assert tables.pattern_controls(finding_tables.pattern()).empty
    # Without a focus table, the exemplars are all that is known of a pattern's errors.
    assert tables.pattern_errors(finding_tables.pattern()) == [7, 3, 11, 2, 5, 13, 17, 19, 23, 29]


def test_errors_come_by_confidence_then_id():
    tables = finding_tables.tables()
    assert tables.errors_among([5, 0, 2, 100, 311, 310, 9999]) == [0, 2, 5, 310, 311]
    assert tables.errors_among([]) == []


def test_a_patterns_errors_begin_with_its_exemplars():
    tables = finding_tables.tables(focus=finding_tables.focus())
    errors = tables.pattern_errors(finding_tables.pattern())
    assert errors[:10] == [7, 3, 11, 2, 5, 13, 17, 19, 23, 29]
    assert errors[10:14] == [0, 1, 4, 6]  # the surest of the others
    assert sorted(errors) == list(range(57))


def test_a_patterns_controls_are_correct_images_with_its_focus():
    tables = finding_tables.tables(focus=finding_tables.focus())
    controls = tables.pattern_controls(finding_tables.pattern())
    assert controls.index.tolist() == [200, 201, 202, *range(400, 441)]
    assert not controls["is_error"].any()


def test_a_slices_errors_begin_with_the_most_extreme():
    tables = finding_tables.tables(properties=finding_tables.properties())
    row = finding_tables.slice_row()
    assert tables.slice_errors(row) == list(range(83, 43, -1))  # id 83 is the softest
    above = [{"column": "sharpness", "low": 1.0, "high": None, "value": None}]
    assert tables.slice_errors(row | {"conditions": above}) == list(range(44, 84))


def test_two_properties_count_alike():
    properties = finding_tables.property_table(
        [44, 45, 46, 47], sharpness=[1.0, 2.0, 3.0, 4.0], brightness=[0.2, 0.9, 0.8, 0.1]
    )
    conditions = [
        {"column": "sharpness", "low": None, "high": 5.0, "value": None},
        {"column": "brightness", "low": 0.05, "high": None, "value": None},
    ]
    row = finding_tables.slice_row(conditions=conditions, error_ids=[44, 45, 46, 47])
    # ranks: soft 1 2 3 4, bright 3 1 2 4; means 2, 1.5, 2.5, 4
    assert finding_tables.tables(properties=properties).slice_errors(row) == [45, 44, 46, 47]


def test_where_a_property_says_nothing_the_order_is_by_confidence():
    tables = finding_tables.tables(properties=finding_tables.properties())
    by_confidence = tables.errors_among(range(10))
    for condition in [
        {"column": "sharpness", "low": 1.0, "high": 90.0, "value": None},
        {"column": "unknown", "low": None, "high": 90.0, "value": None},
        {"column": "sharpness", "low": None, "high": None, "value": "soft"},
    ]:
        row = finding_tables.slice_row(conditions=[condition], error_ids=list(range(10)))
        assert tables.slice_errors(row) == by_confidence
    text = pd.DataFrame({"image_id": np.arange(600), "camera": ["a"] * 600})
    row = finding_tables.slice_row(
        conditions=[{"column": "metadata.camera", "low": None, "high": 1.0, "value": None}],
        error_ids=list(range(10)),
    )
    assert finding_tables.tables(metadata=text).slice_errors(row) == by_confidence


def test_unknown_values_of_a_property_come_last():
    properties = finding_tables.property_table([44, 45, 46], sharpness=[np.nan, 2.0, 1.0])
    row = finding_tables.slice_row(error_ids=[44, 45, 46])
    assert finding_tables.tables(properties=properties).slice_errors(row) == [46, 45, 44]


def test_a_slices_controls_are_the_correct_images_that_meet_its_conditions():
    tables = finding_tables.tables(properties=finding_tables.properties())
    assert tables.slice_controls(finding_tables.slice_row()) == list(range(500, 560))
    of_cats = {"column": "y_true", "low": None, "high": None, "value": "cats"}
    conditions = [*finding_tables.slice_row()["conditions"], of_cats]
    assert tables.slice_controls(finding_tables.slice_row(conditions=conditions)) == []
    for unknown in ([], [{"column": "metadata.gone", "low": None, "high": 1.0, "value": None}]):
        assert tables.slice_controls(finding_tables.slice_row(conditions=unknown)) == []


def test_a_users_column_and_near_duplicates_are_conditions_too():
    issues = [
        (310, "duplicate", -1, 320),
        (320, "duplicate", -1, 310),
        (0, "suspected label", 1, -1),
    ]
    tables = finding_tables.tables(
        metadata=pd.DataFrame({"image_id": np.arange(600), "camera": ["a", "b"] * 300}),
        label_issues=finding_tables.label_issues(issues),
    )
    camera = [{"column": "metadata.camera", "low": None, "high": None, "value": "b"}]
    assert tables.slice_controls(finding_tables.slice_row(conditions=camera))[:3] == [85, 87, 89]
    twice = [{"column": "near_duplicates", "low": None, "high": None, "value": "yes"}]
    # image 310 is an error
    assert tables.slice_controls(finding_tables.slice_row(conditions=twice)) == [320]


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (None, 3.0, -1),
        (3.0, None, 1),
        (1.0, 3.0, 0),
        (None, None, 0),
        (-np.inf, 3.0, -1),
        (3.0, np.nan, 1),
    ],
)
def test_the_side_of_a_condition_is_its_open_one(low: float, high: float, side: int):
    assert tables_module.side_of({"low": low, "high": high}) == side


def test_names_are_safe_to_print():
    tables = Tables(finding_tables.predictions(), ("\u202estac\n" + "c" * 80, "dogs"))
    assert tables.name(0) == "stac " + "c" * 34 + "…"
