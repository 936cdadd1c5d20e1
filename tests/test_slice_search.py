"""The search takes what stands out, says no more than it must, and does not say it twice."""

import numpy as np
import pandas as pd
import pytest

from audit.diagnose.conditions import Condition, class_condition
from audit.diagnose.slice_search import MOST_TRIED, Slice, search_classes, search_conditions
from audit.diagnose.stratified import p_value

N = 1000


def images(seed: int = 0, n_classes: int = 2, n: int = N) -> pd.DataFrame:
    """Return a table of right images with two independent numbers and a text."""
    rng = np.random.default_rng(seed)
    y_true = np.array([f"class {y}" for y in range(n_classes)])[np.arange(n) % n_classes]
    return pd.DataFrame(
        {
            "image_id": range(n),
            "is_error": False,
            "sharpness": rng.permutation(n) / n,
            "noise": rng.permutation(n) / n,
            "metadata.camera": rng.choice(["A", "B", "C", "D"], n),
            "y_true": y_true,
            "y_pred": y_true,
        }
    )


def wrong(table: pd.DataFrame, chosen: np.ndarray, rate: float, seed: int = 1) -> pd.DataFrame:
    """Make a share of the chosen images wrong, and 3 % of all; they become the other class."""
    rng = np.random.default_rng(seed)
    is_error = (chosen & (rng.random(len(table)) < rate)) | (rng.random(len(table)) < 0.03)
    names = np.unique(table["y_true"])
    other = names[(np.searchsorted(names, table["y_true"]) + 1) % len(names)]
    y_pred = np.where(is_error, other, table["y_true"])
    return table.assign(is_error=is_error, y_pred=y_pred)


def searched(table: pd.DataFrame) -> list[Slice]:
    return search_conditions(table, table)


def names(found: list[Slice]) -> list[str]:
    return [one.name for one in found]


def test_a_tail_is_found_at_its_size():
    table = images()
    for share in (0.05, 0.1, 0.2, 0.3):
        table = wrong(images(), images()["sharpness"].to_numpy() < share, 0.6)
        best, *rest = searched(table)
        assert best.kind == "property"
        assert best.name == f"blurred (sharpness in the lowest {share:.0%})".replace("%", " %")
        # The tails around it hold the same errors: they are not said again.
        said = best.members(table)
        for one in rest:
            assert (one.members(table) & ~said).sum() >= one.members(table).sum() / 2
            said |= one.members(table)


def test_a_tail_within_one_class_names_the_class():
    table = images()
    chosen = (table["noise"].to_numpy() >= 0.8) & (table["y_true"] == "class 1").to_numpy()
    best = searched(wrong(table, chosen, 0.6))[0]
    assert best.kind == "pair"
    assert best.name == "noisy (noise in the highest 20 %) and class class 1"
    assert best.conditions[-1] == class_condition("y_true", "class 1")
    np.testing.assert_array_equal(best.members(table), chosen)


def test_a_pair_is_found_if_neither_part_suffices():
    table = images()
    chosen = (table["sharpness"] < 0.4) & (table["metadata.camera"] == "B")
    best = searched(wrong(table, chosen.to_numpy(), 0.5))[0]
    assert best.kind == "pair"
    assert best.name == "blurred (sharpness in the lowest 40 %) and camera: B"
    np.testing.assert_array_equal(best.members(table), chosen)


def test_a_pair_that_says_no_more_than_its_part_is_not_taken():
    for seed in range(10):
        table = images(seed)
        chosen = (table["metadata.camera"] == "C").to_numpy()
        best = searched(wrong(table, chosen, 0.4, seed))[0]
        assert best.conditions[0].value == "C"
        assert all(condition.column == "y_true" for condition in best.conditions[1:])


def test_two_causes_are_both_found():
    table = images()
    blurred = (table["sharpness"] < 0.1).to_numpy()
    camera = (table["metadata.camera"] == "D").to_numpy()
    found = searched(wrong(table, blurred | camera, 0.5))
    first_two = " / ".join(names(found[:2]))
    assert "camera: D" in first_two and "sharpness in the lowest 10 %" in first_two


def test_a_class_that_is_hard_is_not_found_through_what_its_images_have_in_common():
    table = images()
    hard = (table["y_true"] == "class 0").to_numpy()
    # All images of class 0 are blurred; among them, sharpness makes no difference.
    table["sharpness"] = np.where(hard, 0, 0.5) + table["sharpness"] / 2
    found = searched(wrong(table, hard, 0.3))
    share = [one.members(table)[hard].mean() for one in found]
    assert all(part < 0.7 for part in share)
    classes = search_classes(wrong(table, hard, 0.3))
    assert names(classes)[0] == "class class 0"


def test_classes_are_found_and_said_once():
    table = images(n_classes=4)
    hard = (table["y_true"] == "class 2").to_numpy()
    found = search_classes(wrong(table, hard, 0.5))
    assert names(found)[0] == "class class 2"
    assert all(one.kind == "class" for one in found)
    # Nearly all images called class 3 wrongly are of class 2: they have been said.
    assert "called class 3" not in names(found)


def test_a_class_that_images_are_wrongly_called_is_found():
    table = images(n_classes=8)
    y_pred = np.where(np.arange(N) % 9 == 0, "class 5", table["y_true"])
    table = table.assign(y_pred=y_pred, is_error=y_pred != table["y_true"])
    assert names(search_classes(table))[0] == "called class 5"


def test_nothing_is_found_without_errors_or_without_conditions():
    assert searched(images()) == search_classes(images()) == []
    all_wrong = images().assign(is_error=True)
    assert searched(all_wrong) == search_classes(all_wrong) == []
    few = wrong(images(n=15), np.ones(15, bool), 0.5)
    assert searched(few) == []


def test_at_most_ten_are_taken():
    table = images(n_classes=100, n=6000)
    rng = np.random.default_rng(0)
    rates = rng.random(100)[np.arange(6000) % 100]
    table = table.assign(is_error=rng.random(6000) < rates)
    for number in range(30):
        table[f"metadata.{number}"] = np.where(
            table["is_error"] & (rng.random(6000) < 0.2), "x", rng.choice(list("abc"), 6000)
        )
    assert len(searched(table)) <= MOST_TRIED
    assert len(search_classes(table)) == MOST_TRIED


def test_more_conditions_than_are_kept_at_once_are_all_looked_at():
    table = images()
    rng = np.random.default_rng(2)
    for number in range(60):
        table[f"metadata.column {number:02}"] = rng.choice(list("abcd"), N)
    chosen = (table["metadata.column 57"] == "c").to_numpy()
    assert searched(wrong(table, chosen, 0.4))[0].conditions[0].column == "metadata.column 57"


@pytest.mark.parametrize("side", ["y_true", "y_pred"])
def test_a_class_is_compared_with_all_others(side):
    table = wrong(images(), (images()["sharpness"] < 0.2).to_numpy(), 0.5)
    counts = Slice((class_condition(side, "class 0"),)).compare(table)
    inside = table[side] == "class 0"
    assert [part.tolist() for part in counts] == [
        [inside.sum()],
        [(inside & table["is_error"]).sum()],
        [N],
        [table["is_error"].sum()],
    ]


def test_a_condition_is_compared_within_classes():
    table = wrong(images(), (images()["sharpness"] < 0.2).to_numpy(), 0.5)
    blurred = Condition("sharpness", None, 0.2, None, "blurred")
    counts = Slice((blurred,)).compare(table)
    assert counts.inside.sum() == 200 and counts.total.tolist() == [500, 500]
    within = Slice((blurred, class_condition("y_true", "class 1"))).compare(table)
    assert [part.tolist() for part in within] == [[part[1]] for part in counts]
    nobody = Slice((Condition("sharpness", None, -1.0, None, ""), class_condition("y_true", "")))
    assert p_value(nobody.compare(table)) == 1
