"""Every error, and controls in the errors' proportions."""

import numpy as np
import pandas as pd
import pytest

from audit.explain.selection import MOST_CONTROLS, select_explained


def predict(cells: dict[tuple[int, int], int]) -> pd.DataFrame:
    """Return predictions with so many images of each (true, predicted) class."""
    pairs = [pair for pair, count in cells.items() for _ in range(count)]
    y_true, y_pred = zip(*pairs, strict=True)
    ids = np.random.default_rng(0).permutation(len(pairs))
    frame = pd.DataFrame({"image_id": ids, "y_true": y_true, "y_pred": y_pred, "p_pred": 0.9})
    return frame.sort_values("image_id", ignore_index=True)


def count_controls(explained: pd.DataFrame) -> dict[int, int]:
    controls = explained[explained["role"] == "control"]
    assert (controls["y_true"] == controls["y_pred"]).all()
    return controls["y_pred"].value_counts().to_dict()


def test_every_error_is_explained_and_controls_match_the_predicted_classes():
    # 6 errors are predicted as 1 and 2 as 0, so 8 controls are 6 of class 1 and 2 of class 0.
    predictions = predict({(0, 0): 40, (1, 1): 40, (0, 1): 6, (1, 0): 2})
    explained = select_explained(predictions)
    errors = explained[explained["role"] == "error"]
    wrong = predictions["y_true"] != predictions["y_pred"]
    assert errors["image_id"].tolist() == predictions["image_id"][wrong].tolist()
    assert count_controls(explained) == {1: 6, 0: 2}
    assert list(explained) == ["image_id", "role", "y_true", "y_pred"]
    assert explained["image_id"].is_monotonic_increasing
    assert explained["image_id"].is_unique
    assert explained.index.tolist() == list(range(16))


def test_the_largest_remainder_gets_what_is_left_over():
    # 5 controls for 3 : 3 : 1 errors: 2.14, 2.14, 0.71. The fractions .71, .14, .14 give 2, 2, 1.
    cells = {(0, 0): 9, (1, 1): 9, (2, 2): 9, (1, 0): 3, (2, 1): 3, (0, 2): 1}
    explained = select_explained(predict(cells), n_controls=5)
    assert count_controls(explained) == {0: 2, 1: 2, 2: 1}


def test_equal_remainders_go_to_the_lower_class():
    explained = select_explained(
        predict({(0, 0): 9, (1, 1): 9, (0, 1): 1, (1, 0): 1}), n_controls=3
    )
    assert count_controls(explained) == {0: 2, 1: 1}


def test_a_class_without_enough_correct_images_gives_what_it_has():
    explained = select_explained(predict({(0, 0): 50, (1, 1): 2, (0, 1): 6, (1, 0): 4}))
    assert count_controls(explained) == {0: 4, 1: 2}


def test_a_class_that_is_never_right_gives_none():
    explained = select_explained(predict({(0, 0): 5, (0, 1): 3}))
    assert count_controls(explained) == {}
    assert len(explained) == 3


def test_no_controls_can_be_asked_for():
    explained = select_explained(predict({(0, 0): 5, (1, 1): 5, (0, 1): 3}), n_controls=0)
    assert explained["role"].tolist() == ["error"] * 3


@pytest.mark.parametrize("n_controls", [None, 0, 7])
def test_a_model_without_errors_has_nothing_to_explain(n_controls: int | None):
    explained = select_explained(predict({(0, 0): 5, (1, 1): 5}), n_controls=n_controls)
    assert explained.empty
    assert list(explained) == ["image_id", "role", "y_true", "y_pred"]


def test_the_seed_decides_which_controls():
    predictions = predict({(0, 0): 400, (1, 1): 400, (0, 1): 9, (1, 0): 9})
    first, again, other = (select_explained(predictions, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert first["image_id"].tolist() != other["image_id"].tolist()


def test_there_are_at_most_a_thousand_controls_unless_asked_for():
    cells = {(0, 0): 3000, (1, 1): 3000, (0, 1): 900, (1, 0): 600}
    assert MOST_CONTROLS == 1000
    assert count_controls(select_explained(predict(cells))) == {1: 600, 0: 400}
    assert count_controls(select_explained(predict(cells), n_controls=2000)) == {1: 1200, 0: 800}
