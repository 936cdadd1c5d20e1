"""Classes that are wrong far more often than others."""

import finding_tables
import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact

from audit.diagnose.imbalance import find_uneven_classes


def classes() -> tuple[np.ndarray, np.ndarray]:
    """Return truth and predictions: 84 of 300 cats and 12 of 300 dogs are wrong."""
    table = finding_tables.predictions()
    return table["y_true"].to_numpy(), table["y_pred"].to_numpy()


def test_an_uneven_class_is_found_once_with_its_numbers():
    truth, said = classes()
    (found,) = find_uneven_classes(truth, said, np.zeros(600, bool))
    # Images called dogs are uneven too, but those are the same errors.
    assert (found.side, found.y, found.n_images, found.n_errors) == ("y_true", 0, 300, 84)
    assert (found.rate, found.other_rate) == (0.28, 0.04)
    assert found.excess == pytest.approx(84 - 300 * 0.04)
    # log(7) ± 1.96 · sqrt(1/84 − 1/300 + 1/12 − 1/300) = log(7) ± 0.5833
    assert found.lift == pytest.approx(7)
    assert found.lift_low == pytest.approx(7 / np.exp(0.5833), rel=1e-3)
    assert found.lift_high == pytest.approx(7 * np.exp(0.5833), rel=1e-3)
    assert found.errors.tolist() == list(range(84))


def test_q_is_that_of_fishers_test_over_all_classes_of_both_sides():
    truth, said = classes()
    tables = [  # wrong and right, of the class and of the rest
        [[84, 216], [12, 288]],
        [[12, 288], [84, 216]],
        [[12, 216], [84, 288]],  # 228 images are called cats
        [[84, 288], [12, 216]],
    ]
    p_values = [fisher_exact(table, alternative="greater").pvalue for table in tables]
    (found,) = find_uneven_classes(truth, said, np.zeros(600, bool))
    assert found.q_value == pytest.approx(false_discovery_control(p_values)[0], rel=1e-6)


def test_what_a_better_finding_explains_is_not_said_again():
    truth, said = classes()
    # Without them 14 of 230 cats and 12 of 300 dogs are wrong: that may be chance.
    assert find_uneven_classes(truth, said, np.arange(600) < 70) == []
    # A class that only looks bad once the others' errors are taken out is not uneven.
    assert find_uneven_classes(truth, said, np.arange(600) < 84) == []
    # Without the first 57, 27 of 243 cats and 12 of 300 dogs are wrong: 2.8 times [1.4, 5.4].
    (found,) = find_uneven_classes(truth, said, np.arange(600) < 57)
    assert found.n_errors == 84


def test_a_milder_difference_is_common_place():
    truth = np.repeat([0, 1], 1000)
    wrong = np.isin(np.arange(2000), [*range(58), *range(1000, 1038)])  # 5.8 % and 3.8 %
    assert find_uneven_classes(truth, np.where(wrong, 1 - truth, truth), np.zeros(2000, bool)) == []


def test_a_class_that_is_said_too_often_is_found_from_the_other_side():
    # 10 true classes of 100; 30 of each of the nine others are called 0, and nothing else is wrong.
    truth = np.repeat(np.arange(10), 100)
    said = np.where((np.arange(1000) % 100 < 30) & (truth > 0), 0, truth)
    (found,) = find_uneven_classes(truth, said, np.zeros(1000, bool))
    assert (found.side, found.y, found.n_images, found.n_errors) == ("y_pred", 0, 370, 270)


@pytest.mark.parametrize("truth", [[], [0, 0, 0], [0, 1]])
def test_with_nothing_to_compare_there_is_no_finding(truth: list[int]):
    y = np.array(truth, np.int64)
    assert find_uneven_classes(y, y, np.zeros(len(y), bool)) == []
    assert find_uneven_classes(y, 1 - y, np.zeros(len(y), bool)) == []
