"""Every error, and controls in the errors' proportions: half by true, half by predicted class."""

import numpy as np
import pandas as pd
import pytest

from audit.explain.selection import LEAST_CONTROLS, MOST_CONTROLS, select_explained

COLUMNS = ["image_id", "role", "y_true", "y_pred", "other_class"]


def predict(cells: dict[tuple[int, int], int]) -> pd.DataFrame:
    """Return predictions with so many images of each (true, predicted) class."""
    pairs = [pair for pair, count in cells.items() for _ in range(count)]
    y_true, y_pred = zip(*pairs, strict=True)
    ids = np.random.default_rng(0).permutation(len(pairs))
    frame = pd.DataFrame({"image_id": ids, "y_true": y_true, "y_pred": y_pred, "p_pred": 0.9})
    return frame.sort_values("image_id", ignore_index=True)


def count_controls(explained: pd.DataFrame) -> dict[tuple[int, int], int]:
    """Count controls by their class and the class that they are explained for beside it."""
    controls = explained[explained["role"] == "control"]
    assert (controls["y_true"] == controls["y_pred"]).all()
    return controls.groupby(["y_true", "other_class"]).size().to_dict()


def test_every_error_is_explained_for_both_classes():
    predictions = predict({(0, 0): 80, (1, 1): 80, (0, 1): 6, (1, 0): 2})
    explained = select_explained(predictions)
    errors = explained[explained["role"] == "error"]
    wrong = predictions["y_true"] != predictions["y_pred"]
    assert errors["image_id"].tolist() == predictions["image_id"][wrong].tolist()
    assert (errors["other_class"] == errors["y_true"]).all()
    assert list(explained) == COLUMNS
    assert explained["image_id"].is_monotonic_increasing
    assert explained["image_id"].is_unique
    assert explained.index.tolist() == list(range(len(explained)))


def test_half_of_the_controls_are_of_the_true_and_half_of_the_predicted_classes():
    # Of 16 controls, 8 are of the true classes: 6 of class 0, explained for class 1, and 2 of class
    # 1, explained for 0. And 8 of the predicted ones: 6 of class 1 and 2 of class 0.
    predictions = predict({(0, 0): 40, (1, 1): 40, (0, 1): 6, (1, 0): 2})
    explained = select_explained(predictions, n_controls=16)
    assert count_controls(explained) == {(0, 1): 6, (1, 0): 2, (1, 1): 6, (0, 0): 2}


def test_of_an_odd_number_one_more_is_of_the_true_classes():
    explained = select_explained(predict({(0, 0): 9, (1, 1): 9, (0, 1): 1}), n_controls=3)
    assert count_controls(explained) == {(0, 1): 2, (1, 1): 1}


def test_each_confusion_has_its_share_and_the_largest_remainder_gets_what_is_left_over():
    # Of 5 for 3 : 3 : 1 errors: 2.14, 2.14, 0.71. The fractions .71, .14, .14 give 2, 2, 1.
    cells = {(0, 0): 9, (1, 1): 9, (2, 2): 9, (1, 0): 3, (2, 1): 3, (0, 2): 1}
    explained = select_explained(predict(cells), n_controls=10)
    by_true = {(1, 0): 2, (2, 1): 2, (0, 2): 1}
    by_predicted = {(0, 0): 2, (1, 1): 2, (2, 2): 1}
    assert count_controls(explained) == by_true | by_predicted


def test_equal_remainders_go_to_the_lower_class():
    predictions = predict({(0, 0): 9, (1, 1): 9, (0, 1): 1, (1, 0): 1})
    explained = select_explained(predictions, n_controls=6)
    assert count_controls(explained) == {(0, 1): 2, (1, 0): 1, (0, 0): 2, (1, 1): 1}


def test_a_few_errors_are_held_against_a_hundred_images_all_the_same():
    assert LEAST_CONTROLS == 100
    explained = select_explained(predict({(0, 0): 200, (1, 1): 200, (0, 1): 5}))
    assert count_controls(explained) == {(0, 1): 50, (1, 1): 50}


def test_many_errors_have_as_many_controls():
    explained = select_explained(predict({(0, 0): 400, (1, 1): 400, (0, 1): 300}))
    assert count_controls(explained) == {(0, 1): 150, (1, 1): 150}


def test_a_class_without_enough_correct_images_gives_what_it_has():
    predictions = predict({(0, 0): 200, (1, 1): 2, (0, 1): 6})
    assert count_controls(select_explained(predictions)) == {(0, 1): 50, (1, 1): 2}


def test_no_image_is_a_control_twice():
    predictions = predict({(0, 0): 30, (1, 1): 30, (0, 1): 6, (1, 0): 4})
    explained = select_explained(predictions)
    assert explained["image_id"].is_unique
    counts = count_controls(explained)
    assert sum(counts.values()) == 60
    assert counts == {(0, 1): 30, (1, 0): 20, (1, 1): 10}  # True classes are served first.


def test_a_class_that_is_never_right_gives_none():
    explained = select_explained(predict({(0, 0): 5, (0, 1): 3}), n_controls=6)
    assert count_controls(explained) == {(0, 1): 3}


def test_no_controls_can_be_asked_for():
    explained = select_explained(predict({(0, 0): 5, (1, 1): 5, (0, 1): 3}), n_controls=0)
    assert explained["role"].tolist() == ["error"] * 3


@pytest.mark.parametrize("n_controls", [None, 0, 7])
def test_a_model_without_errors_has_nothing_to_explain(n_controls: int | None):
    explained = select_explained(predict({(0, 0): 5, (1, 1): 5}), n_controls=n_controls)
    assert explained.empty
    assert list(explained) == COLUMNS


def test_the_seed_decides_which_controls():
    predictions = predict({(0, 0): 400, (1, 1): 400, (0, 1): 9, (1, 0): 9})
    first, again, other = (select_explained(predictions, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert first["image_id"].tolist() != other["image_id"].tolist()


def test_there_are_at_most_a_thousand_controls_unless_asked_for():
    cells = {(0, 0): 3000, (1, 1): 3000, (0, 1): 900, (1, 0): 600}
    assert MOST_CONTROLS == 1000
    expected = {(0, 1): 300, (1, 0): 200, (1, 1): 300, (0, 0): 200}
    assert count_controls(select_explained(predict(cells))) == expected
    doubled = {key: 2 * count for key, count in expected.items()}
    assert count_controls(select_explained(predict(cells), n_controls=2000)) == doubled
