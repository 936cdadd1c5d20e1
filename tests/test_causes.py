"""Verdicts on hand-made frames: exact tests, false discoveries, shares, and what is too few."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from audit.diagnose.causes import FIELDS, judge_patterns, overall_effect, signed_rank_p
from audit.explain.painting import AREAS, BLUR, BLUR_ELSEWHERE, ELSEWHERE, FOCUS
from audit.predict.intervals import wilson_interval
from audit.run_folder import RunFolder

RIGHT, WRONG = 0, 1
"""Every error here is of class 0 and taken for 1."""
COLUMNS = ("image_id", "treatment", "area", "trial", "overlap", "logit_fall", "p_true", "y_pred")


def painted(
    image_id: int, treatment: str, fall: float, y_pred: int, area: float = 0.3, trial: int = 0
) -> tuple[Any, ...]:
    return image_id, treatment, area, trial, 0.0, fall, 0.5, y_pred


def causes_of(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=COLUMNS)
    return frame.astype({"logit_fall": np.float32, "area": np.float64, "image_id": np.int64})


def falls(differences: Mapping[int, float], turns: bool = True) -> list[tuple[Any, ...]]:
    """Return rows of errors whose logit falls so much more without the focus than elsewhere.

    So at every area; at all of them, or at none, they turn right, and nowhere else.
    """
    rows = []
    for image_id, difference in differences.items():
        for area in AREAS:
            y_pred = RIGHT if turns else WRONG
            rows.append(painted(image_id, FOCUS, 1 + difference, y_pred, area))
            rows.append(painted(image_id, ELSEWHERE, 1.5, WRONG, area))
            rows.append(painted(image_id, ELSEWHERE, 0.5, WRONG, area, trial=1))
    return rows


def focus_of(members: Mapping[int, int], controls: Mapping[int, int] | None = None) -> pd.DataFrame:
    """Return rows of the focus table: the pattern of errors and of controls, by image_id."""
    rows = []
    for image_id, pattern in members.items():
        rows.append((image_id, "error", True, RIGHT, WRONG, pattern))
        rows.append((image_id, "error", False, RIGHT, WRONG, -1))
    for image_id, pattern in (controls or {}).items():
        rows.append((image_id, "control", True, WRONG, WRONG, pattern))
    columns = ["image_id", "role", "is_predicted", "y_true", "y_pred", "pattern"]
    return pd.DataFrame(rows, columns=columns)


def patterns_of(*q_values: float) -> pd.DataFrame:
    numbers = range(1, len(q_values) + 1)
    return pd.DataFrame(
        {
            "pattern": np.array(numbers, np.int32),
            "name": [f"pattern {n}" for n in numbers],
            "q_value": q_values,
            "verdict": "not tested",
        }
    )


def pastes_of(rows: Iterable[tuple[Any, ...]] = ()) -> pd.DataFrame:
    columns = ["pattern", "source", "control", "kind", "y_pred_before", "y_pred_after"]
    return pd.DataFrame(list(rows), columns=columns)


NO_PASTES = pastes_of()


def judge_one(
    rows: Iterable[tuple[Any, ...]], members: Iterable[int], q_value: float = 0.01
) -> pd.Series:
    causes, focus = causes_of(rows), focus_of(dict.fromkeys(members, 1))
    return judge_patterns(patterns_of(q_value), focus, causes, NO_PASTES).iloc[0]


# The test


def test_signed_ranks_by_hand():
    # Ranks 1 and 2 are positive, 3 is negative. Of the eight sums of {1, 2, 3} five are >= 3.
    assert signed_rank_p(np.array([1.0, 2.0, -3.0])) == 5 / 8
    # Ties share rank 2; two or three of three positive: 4 of 8.
    assert signed_rank_p(np.array([1.0, 1.0, -1.0])) == 4 / 8
    assert signed_rank_p(np.array([4.0, 1.0, 3.0, 2.0, 5.0])) == 1 / 32
    assert signed_rank_p(-np.array([4.0, 1.0, 3.0, 2.0, 5.0])) == 1
    # Zeros say nothing.
    assert signed_rank_p(np.array([0.0, 2.0, 0.0, 1.0])) == 1 / 4
    assert signed_rank_p(np.zeros(9)) == signed_rank_p(np.empty(0)) == 1


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_ranks_agree_with_all_choices_of_signs(values: list[int]):
    differences = np.array([value for value in values if value], float)
    if not len(differences):
        return
    ranks = pd.Series(np.abs(differences)).rank().to_numpy()
    observed = ranks[differences > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(ranks))]
    expected = np.mean([total >= observed for total in sums])
    assert signed_rank_p(np.array(values, float)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [6, 30, 200])
def test_signed_ranks_agree_with_scipy(n: int):
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    expected = wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)


def test_many_differences_have_nearly_the_exact_p_value():
    differences = np.random.default_rng(1).normal(0.1, 1, 260)
    expected = wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert 0.001 < expected < 0.5
    assert signed_rank_p(differences) == pytest.approx(expected, rel=0.02)


def test_differences_by_chance_are_rarely_called_more():
    rng = np.random.default_rng(0)
    false = np.mean([signed_rank_p(rng.standard_t(2, 8)) < 0.05 for _ in range(2000)])
    assert 0.02 < false < 0.06


# Figures


def test_shares_falls_and_areas_by_hand():
    # Without the focus 2 of 5 errors turn right at 10 and 20 %, and 4 at 30 %; there, one of ten
    # moves turns an error right, and the falls are 3 to 7, elsewhere 0.
    rows = []
    for image_id in range(5):
        rows.append(painted(image_id, FOCUS, 3.0 + image_id, RIGHT if image_id < 4 else WRONG))
        rows.append(painted(image_id, ELSEWHERE, 0.5, RIGHT if image_id == 2 else WRONG))
        rows.append(painted(image_id, ELSEWHERE, -0.5, WRONG, trial=1))
        rows.append(painted(image_id, BLUR, 1.0, RIGHT if image_id < 3 else WRONG))
        rows.append(painted(image_id, BLUR_ELSEWHERE, 0.0, WRONG))
        for area, gain in ((0.1, 1.0), (0.2, 2.0)):
            rows.append(painted(image_id, FOCUS, gain, RIGHT if image_id < 2 else WRONG, area))
            rows.append(painted(image_id, ELSEWHERE, 0.0, WRONG, area))
    row = judge_one(rows, range(5))
    assert row["n_tested"] == 5
    assert row["best_area"] == 0.3
    assert row["repaired"] == 0.8
    assert (row["repaired_low"], row["repaired_high"]) == tuple(wilson_interval(4, 5))
    assert row["elsewhere"] == pytest.approx(0.1)
    assert row["necessity"] == pytest.approx(0.7)
    assert row["sufficiency"] == 0
    assert row["logit_fall"] == pytest.approx(5)
    assert 3 <= row["logit_fall_low"] < 5 < row["logit_fall_high"] <= 7
    assert (row["blur_repaired"], row["blur_elsewhere"]) == (0.6, 0.0)
    assert row["causal_p"] == row["causal_q"] == 1 / 32
    assert [area["area"] for area in row["areas"]] == list(AREAS)
    assert [area["repaired"] for area in row["areas"]] == [0.4, 0.4, 0.8]
    assert [area["elsewhere"] for area in row["areas"]] == pytest.approx([0, 0, 0.1])
    assert [area["logit_fall"] for area in row["areas"]] == pytest.approx([1, 2, 5])
    assert row["verdict"] == "causal"


def test_only_a_pattern_s_own_errors_count():
    causes = causes_of([*falls(dict.fromkeys(range(5), 1.0)), *falls({7: -50.0, 8: -50.0}, False)])
    focus = focus_of({**dict.fromkeys(range(5), 1), 7: -1, 8: 2}, {20: 1, 21: 1})
    judged = judge_patterns(patterns_of(0.01, 0.01), focus, causes, NO_PASTES)
    assert judged["n_tested"].tolist() == [5, 1]
    assert judged["repaired"].tolist() == [1.0, 0.0]


def test_errors_that_were_not_tested_or_have_no_finite_logit_are_left_out():
    rows = falls(dict.fromkeys(range(6), 1.0))
    rows[0] = painted(0, FOCUS, np.nan, -1)
    rows.append((6, "not tested", np.nan, 0, np.nan, np.nan, np.nan, WRONG))
    row = judge_one(rows, range(8))
    assert row["n_tested"] == 5
    assert row["repaired"] == 1.0
    # One place elsewhere that is not finite leaves the other; an area that is not takes it all.
    rows[10] = painted(1, ELSEWHERE, np.nan, -1, 0.1)
    assert judge_one(rows, range(8))["n_tested"] == 5
    rows[11] = painted(1, ELSEWHERE, np.nan, -1, 0.1, trial=1)
    assert judge_one(rows, range(8))["n_tested"] == 4


# Verdicts


@pytest.mark.parametrize(
    ("differences", "q_value", "verdict"),
    [
        ([1, 2, 3, 4, 5], 0.049, "causal"),
        ([1, 2, 3, 4, 5], 0.05, "not shown"),  # Correct images look there too.
        ([1, 2, 3, 4, 5], np.nan, "not shown"),  # Nothing to compare with.
        ([-1, 2, 3, 4, 5], 0.001, "not shown"),  # p = 2 ÷ 32: it acts no more than elsewhere.
        ([0, 0, 0, 0, 0], 0.001, "not shown"),
        ([1, 2, 3, 4], 0.001, "too few"),
        ([], 0.001, "not tested"),
    ],
)
def test_a_cause_must_act_and_be_special(differences: list[float], q_value: float, verdict: str):
    row = judge_one(falls(dict(enumerate(differences))), range(9), q_value)
    assert row["verdict"] == verdict


def test_false_discoveries_are_controlled_over_patterns_by_hand():
    # p = 1/32, 1/64, 2/32 with five, six and five errors; four errors are too few to be counted.
    # Benjamini–Hochberg: sorted 1/64 · 3/1 = 3/64, 1/32 · 3/2 = 3/64, 2/32 · 3/3 = 4/64.
    sets = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [-1, 2, 3, 4, 5], [1, 2, 3, 4]]
    members, rows = {}, []
    for number, differences in enumerate(sets, start=1):
        ids = {100 * number + place: value for place, value in enumerate(differences)}
        members |= dict.fromkeys(ids, number)
        rows += falls(ids)
    q_values = (0.01, 0.01, 0.01, 0.01)
    judged = judge_patterns(patterns_of(*q_values), focus_of(members), causes_of(rows), NO_PASTES)
    assert judged["causal_p"].tolist() == [1 / 32, 1 / 64, 2 / 32, 1 / 16]
    assert judged["causal_q"][:3].tolist() == pytest.approx([3 / 64, 3 / 64, 4 / 64])
    assert np.isnan(judged["causal_q"][3])
    assert judged["verdict"].tolist() == ["causal", "causal", "not shown", "too few"]


@pytest.mark.parametrize(
    ("n_repaired", "n_turned", "verdict"),
    [
        (7, 0, "causal"),
        (6, 0, "not shown"),
        (4, 3, "causal"),
        (4, 2, "not shown"),
        (0, 6, "not shown"),
        (0, 7, "causal"),
    ],
)
def test_a_cause_must_be_needed_or_enough(n_repaired: int, n_turned: int, verdict: str):
    rows = [*falls({i: 1.0 + i for i in range(n_repaired)})]
    rows += falls({i: 1.0 + i for i in range(n_repaired, 10)}, turns=False)
    pastes = pastes_of(
        (1, 0, 50 + i, kind, 0, WRONG if kind == FOCUS and i < n_turned else RIGHT)
        for i in range(10)
        for kind in (FOCUS, ELSEWHERE)
    )
    focus = focus_of(dict.fromkeys(range(10), 1))
    row = judge_patterns(patterns_of(0.01), focus, causes_of(rows), pastes).iloc[0]
    assert (row["necessity"], row["sufficiency"]) == (n_repaired / 10, n_turned / 10)
    assert row["verdict"] == verdict


# Pastes


def test_pastes_count_that_become_what_the_exemplar_was_taken_for():
    focus = focus_of({0: 1, 1: 1, 2: 2})
    focus.loc[focus["image_id"] == 2, "y_pred"] = 2
    pastes = pastes_of(
        [
            *((1, 0, 10, FOCUS, 0, 1), (1, 0, 10, ELSEWHERE, 0, 0)),
            *((1, 0, 11, FOCUS, 0, 1), (1, 0, 11, ELSEWHERE, 0, 1)),
            *((1, 1, 12, FOCUS, 0, 2), (1, 1, 12, ELSEWHERE, 0, 0)),  # wrong, but not so
            *((1, 1, 13, FOCUS, 0, -1), (1, 1, 13, ELSEWHERE, 0, 0)),
            *((2, 2, 14, FOCUS, 0, 2), (2, 2, 14, ELSEWHERE, 0, 1)),
        ]
    )
    judged = judge_patterns(patterns_of(0.5, 0.5, 0.5), focus, causes_of([]), pastes)
    assert judged["n_pasted"].tolist() == [4, 1, 0]
    assert judged["pasted_wrong"][:2].tolist() == [0.5, 1.0]
    assert judged["pasted_elsewhere_wrong"][:2].tolist() == [0.25, 0.0]
    assert judged["pasted_wrong"].isna()[2]
    assert judged["sufficiency"].tolist() == [0.25, 1.0, 0.0]


# Frames


def test_where_nothing_was_painted_out_the_columns_are_there(tmp_path):
    for patterns in (patterns_of(0.01, 0.2), patterns_of()):
        judged = judge_patterns(patterns, focus_of({0: 1}), causes_of([]), NO_PASTES)
        assert list(judged)[:3] == ["pattern", "name", "q_value"]
        assert list(judged)[3:] == [field.name for field in FIELDS]
        assert (judged["verdict"] == "not tested").all()
        assert (judged["n_tested"] == 0).all() and judged["repaired"].isna().all()
        folder = RunFolder(tmp_path)
        folder.write_table("patterns", judged)
        schema = pa.parquet.read_schema(folder.table_path("patterns"))
        for field in FIELDS[:-1]:
            assert schema.field(field.name).type == field.type
        assert pa.types.is_large_string(schema.field("verdict").type)  # As pandas has it.


def test_judged_patterns_survive_being_stored(tmp_path):
    causes, focus = (
        causes_of(falls({i: i + 1.0 for i in range(6)})),
        focus_of(dict.fromkeys(range(6), 1)),
    )
    patterns = patterns_of(0.01).set_axis([7])
    judged = judge_patterns(patterns, focus, causes, NO_PASTES)
    again = judge_patterns(judged, focus, causes, NO_PASTES)
    pd.testing.assert_frame_equal(judged, again)
    folder = RunFolder(tmp_path)
    folder.write_table("patterns", judged)
    stored = folder.read_table("patterns").iloc[0]
    assert stored["verdict"] == "causal" and stored["repaired"] == 1.0
    assert [area["area"] for area in stored["areas"]] == list(AREAS)


# All errors together


def test_over_all_errors_by_hand():
    rows = [*falls({0: 1.0, 1: 2.0, 2: 3.0}), *falls({5: -1.0}, turns=False)]
    rows.append((6, "not tested", np.nan, 0, np.nan, np.nan, np.nan, WRONG))
    y_true = pd.Series(RIGHT, index=range(9))
    effect = overall_effect(causes_of(rows), y_true)
    assert (effect["n_tested"], effect["n_not_tested"], effect["n_repaired"]) == (4, 1, 3)
    assert effect["best_area"] == 0.3
    assert effect["repaired"]["value"] == 0.75
    assert effect["elsewhere"]["value"] == 0.0
    assert effect["logit_fall"]["value"] == pytest.approx(1.25)
    assert effect["logit_fall"]["low"] < 1.25 < effect["logit_fall"]["high"]
    # Ranks 1.5, 3, 4 are positive and 1.5 is not: sums of {1.5, 1.5, 3, 4} >= 8.5 are 8.5 twice and
    # 10: three of 16.
    assert effect["p_value"] == 3 / 16
    assert overall_effect(causes_of([]), y_true) is None
    assert overall_effect(causes_of(rows[-1:]), y_true) is None
