"""Errors against correct images: shares inside the object, and patterns beside it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from audit.diagnose.beside import LEAST_OBJECTS, PATTERN_COLUMNS, judge_inside, summarise_inside
from audit.diagnose.pattern_names import name_beside


def maps(role: str, energies: Any, *, explained: int = 1, share: float = 0.2, **columns: Any):
    """Return rows of the focus table; the hottest pixel is inside where more than half of it is."""
    energies = np.asarray(energies, np.float32)
    rows = pd.DataFrame({"energy_inside": energies, "pointing": np.float32(energies > 0.5)})
    rows.loc[rows["energy_inside"].isna(), "pointing"] = np.nan
    rows["object_share"] = np.where(rows["energy_inside"].isna(), np.nan, np.float32(share))
    given = {"role": role, "explained_class": explained, "is_predicted": True, "pattern": -1}
    return rows.assign(**(given | columns))


def focus(*parts: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True)
    return table.assign(image_id=np.arange(len(table)))


def objects(**counts: int) -> pd.DataFrame:
    kinds = [kind.replace("_", " ") for kind, n in counts.items() for _ in range(n)]
    reasons = ["its mask is no PNG" if kind == "unusable" else "" for kind in kinds]
    return pd.DataFrame({"image_id": range(len(kinds)), "kind": kinds, "reason": reasons})


def test_figures_by_hand():
    table = focus(
        maps("error", [0.1, 0.3, np.nan]),
        maps("control", [0.8, 0.6]),
        maps("control", [0.9], explained=0),  # Nothing was taken for class 0.
        maps("error", [1.0], is_predicted=False),  # For the true class: not what was looked at.
    )
    found = summarise_inside(table, objects(mask=4, boxes=1, not_given=2, empty=1, unusable=3))
    assert found["errors"]["n"] == 2
    assert found["errors"]["n_left_out"] == 1
    assert found["errors"]["energy"]["value"] == pytest.approx(0.2)
    assert found["errors"]["lift"]["value"] == pytest.approx(1)
    assert found["errors"]["object_share"] == pytest.approx(0.2)
    assert found["errors"]["pointing"]["value"] == 0
    assert found["controls"]["n"] == 2
    assert found["controls"]["energy"]["value"] == pytest.approx(0.7)
    assert found["controls"]["pointing"]["value"] == 1
    assert found["change"]["value"] == pytest.approx(-0.5)
    assert {name: found[name] for name in found if name.startswith("n_")} == {
        "n_images": 11,
        "n_known": 5,
        "n_masks": 4,
        "n_boxes": 1,
        "n_not_given": 2,
        "n_empty": 1,
        "n_unusable": 3,
    }
    assert found["first_reason"] == "its mask is no PNG"


def test_intervals_and_the_test_of_one_class():
    rng = np.random.default_rng(0)
    errors, controls = rng.normal(0.4, 0.2, 60).clip(0, 1), rng.normal(0.6, 0.2, 80).clip(0, 1)
    found = summarise_inside(focus(maps("error", errors), maps("control", controls)), objects())
    spread = found["change"]
    standard_error = np.hypot(errors.std() / np.sqrt(60), controls.std() / np.sqrt(80))
    assert spread["low"] == pytest.approx(spread["value"] - 1.96 * standard_error, abs=0.015)
    assert spread["high"] == pytest.approx(spread["value"] + 1.96 * standard_error, abs=0.015)
    beside = [(errors <= 0.5).sum(), (controls <= 0.5).sum()]
    table = [[beside[0], 60 - beside[0]], [beside[1], 80 - beside[1]]]
    assert found["p_value"] == pytest.approx(fisher_exact(table, "greater").pvalue)
    assert found["ratio"]["value"] == pytest.approx((beside[0] / 60) / (beside[1] / 80))


def test_smaller_objects_alone_are_no_difference():
    """Both look as an even map does; the objects of errors are a tenth as large."""
    rng = np.random.default_rng(1)
    small, large = rng.normal(0.05, 0.01, 40), rng.normal(0.5, 0.01, 40)
    table = focus(maps("error", small, share=0.05), maps("control", large, share=0.5))
    found = summarise_inside(table, objects())
    assert found["change"]["low"] < 0 < found["change"]["high"]
    assert found["errors"]["lift"]["value"] == pytest.approx(1, abs=0.05)


def test_classes_are_not_mixed():
    """Within each class errors look as correct images do; together they seem to look beside."""
    table = focus(
        maps("error", [0.1] * 9, explained=0),
        maps("error", [0.9], explained=1),
        maps("control", [0.1], explained=0),
        maps("control", [0.9] * 9, explained=1),
    )
    found = summarise_inside(table, objects())
    assert found["change"]["value"] == pytest.approx(0)
    assert found["p_value"] == 1
    assert found["errors"]["energy"]["value"] < found["controls"]["energy"]["value"]


@pytest.mark.parametrize(
    "table",
    [
        focus(maps("error", [np.nan, np.nan]), maps("control", [0.5])),
        focus(maps("error", [0.5, 0.6])),
        focus(maps("error", [])),
    ],
)
def test_without_a_comparison_nothing_is_claimed(table: pd.DataFrame):
    found = summarise_inside(table, objects(mask=1))
    assert found["change"] is found["ratio"] is found["p_value"] is None
    assert found["controls"]["n"] == 0
    assert found["controls"]["energy"]["value"] is None


def test_the_same_arguments_give_the_same_numbers():
    table = focus(maps("error", np.linspace(0, 1, 20)), maps("control", np.linspace(0.2, 1, 20)))
    first, second = (summarise_inside(table, objects(mask=3), seed=5) for _ in range(2))
    assert first == second != summarise_inside(table, objects(mask=3), seed=6)


def patterns(*numbers: int) -> pd.DataFrame:
    return pd.DataFrame({"pattern": numbers, "name": [f"edge {n}" for n in numbers], "kept": 7})


def test_a_pattern_beside_the_object_is_called_so():
    table = focus(
        maps("error", np.linspace(0.02, 0.1, 8), pattern=1),
        maps("error", np.linspace(0.5, 0.9, 8), pattern=2),
        maps("error", np.linspace(0.1, 0.3, 8), pattern=3),  # As an even map: 0.2.
        maps("control", [0.6, 0.7, 0.65]),
    )
    judged = judge_inside(patterns(1, 2, 3), table)
    assert judged["name"].tolist() == [name_beside("edge 1"), "edge 2", "edge 3"]
    assert name_beside("edge 1") == "edge 1, beside the object"
    assert judged["is_beside"].tolist() == [True, False, False]
    assert judged["kept"].tolist() == [7, 7, 7]
    assert set(PATTERN_COLUMNS) < set(judged.columns)
    first = judged.iloc[0]
    assert first["n_objects"] == 8
    assert first["energy_inside"] == pytest.approx(0.06)
    assert first["energy_lift"] == pytest.approx(0.3)
    assert first["energy_change"] == pytest.approx(0.06 - 0.65)
    assert first["energy_inside_low"] < 0.06 < first["energy_inside_high"]
    assert first["pointing"] == 0
    assert judged["pointing"].tolist()[1] == pytest.approx(7 / 8)  # One of them is 0.5.


def test_too_few_objects_name_nothing():
    few = focus(maps("error", [0.01, 0.02, 0.015, 0.02], pattern=1))
    judged = judge_inside(patterns(1), few)
    assert len(few) < LEAST_OBJECTS
    assert judged["name"].tolist() == ["edge 1"]
    most_unknown = focus(maps("error", [0.01, 0.02] * 3 + [np.nan] * 7, pattern=1))
    assert not judge_inside(patterns(1), most_unknown)["is_beside"].any()
    none = judge_inside(patterns(1), focus(maps("error", [np.nan] * 9, pattern=1)))
    assert none["n_objects"].tolist() == [0]
    assert np.isnan(none["energy_inside"]).all()


def test_no_pattern_is_no_row():
    judged = judge_inside(patterns(), focus(maps("error", [0.1])))
    assert len(judged) == 0
    assert judged["energy_inside"].dtype == np.float64
