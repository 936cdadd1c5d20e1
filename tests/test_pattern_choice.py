"""Which groups are special to errors: exact chances, honest tests, one group for each map."""

import math

import numpy as np
import pytest
from scipy.stats import hypergeom, nchypergeom_fisher

from audit.diagnose.look_groups import Groups
from audit.diagnose.pattern_choice import (
    ODDS_OF_CONTENT,
    Evidence,
    Units,
    choose_groups,
    upper_tail,
)

CATS, DOGS = 0, 1


def make_units(n_errors: int, n_own: int, n_rivals: int) -> Units:
    """Cats called dogs; dogs called dogs; cats called cats, explained for dogs."""
    n = n_errors + n_own + n_rivals
    position = np.arange(n)
    is_own = (position >= n_errors) & (position < n_errors + n_own)
    return Units(
        is_error=position < n_errors,
        is_rival=position >= n_errors + n_own,
        explained=np.full(n, DOGS),
        y_true=np.where(is_own, DOGS, CATS),
    )


def members(units: Units, n_errors: int, n_own: int, n_rivals: int) -> np.ndarray:
    """Return a group of so many of the first of each kind."""
    chosen = np.zeros(len(units.is_error), bool)
    for kind, count in (
        (units.is_error, n_errors),
        (units.is_own, n_own),
        (units.is_rival, n_rivals),
    ):
        chosen[np.flatnonzero(kind)[:count]] = True
    return chosen


def make_groups(*groups: np.ndarray, distinctness: float = 0.5, stability: float = 0.9) -> Groups:
    n = len(groups)
    return Groups(np.array(groups), np.full(n, distinctness), np.full(n, stability))


def test_the_chance_of_so_many_errors_by_hand():
    # Of 4 maps 2 are errors, and 2 are in the group: 0, 1 or 2 of these are errors in 1, 4 and 1 of
    # 6 ways.
    assert upper_tail([(4, 2, 2)], 2, 1.0) == pytest.approx(1 / 6)
    assert upper_tail([(4, 2, 2)], 1, 1.0) == pytest.approx(5 / 6)
    assert upper_tail([(4, 2, 2)], 0, 1.0) == pytest.approx(1)
    # With odds of 2 the ways count 1, 8 and 4.
    assert upper_tail([(4, 2, 2)], 2, 2.0) == pytest.approx(4 / 13)


def test_the_chance_over_two_strata_by_hand():
    # As above, twice: 4 errors in both groups in 1/36 of the ways; 3 in 8/36.
    assert upper_tail([(4, 2, 2)] * 2, 4, 1.0) == pytest.approx(1 / 36)
    assert upper_tail([(4, 2, 2)] * 2, 3, 1.0) == pytest.approx(9 / 36)


@pytest.mark.parametrize("odds", [1.0, 2.0])
@pytest.mark.parametrize(("n", "n_errors", "n_members"), [(90, 30, 25), (50, 45, 20), (7, 7, 3)])
def test_the_chance_agrees_with_scipy(n: int, n_errors: int, n_members: int, odds: float):
    for observed in range(max(0, n_members + n_errors - n), min(n_members, n_errors) + 1):
        ours = upper_tail([(n, n_errors, n_members)], observed, odds)
        if odds == 1:
            theirs = hypergeom.sf(observed - 1, n, n_errors, n_members)
        else:
            theirs = nchypergeom_fisher.sf(observed - 1, n, n_errors, n_members, odds)
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)


def test_both_comparisons_have_to_hold():
    units = make_units(20, 30, 25)
    evidence = Evidence(units)
    free = np.ones(75, bool)
    group = members(units, 15, 3, 2)
    by_predicted = hypergeom.sf(14, 50, 20, 18)
    by_true = nchypergeom_fisher.sf(14, 45, 20, 17, ODDS_OF_CONTENT)
    assert evidence.p_value(group, free) == pytest.approx(max(by_predicted, by_true), rel=1e-6)
    # A part of a cat is never seen in dogs, but as often in cats that are not mistaken.
    part_of_a_cat = members(units, 15, 0, 19)
    assert evidence.p_value(part_of_a_cat, free) > 0.5
    # A part of a dog speaks for dogs in errors, and in dogs.
    part_of_a_dog = members(units, 15, 22, 0)
    assert evidence.p_value(part_of_a_dog, free) > 0.4
    scores = evidence.scores(np.array([group, part_of_a_cat, part_of_a_dog]), free)
    assert scores[0] > 3 and scores[1] < 0.5 and scores[2] < 0.5


def test_a_score_by_hand():
    # 15 of 20 errors and 3 of 30 others: 18 × 20/50 = 7.2 expected, with a variance of
    # 18 × 32 × 0.4 × 0.6 / 49. And 2 of 25: 17 × 20/45 = 7.56, 17 × 28 × 20/45 × 25/45 / 44.
    units = make_units(20, 30, 25)
    found = Evidence(units).scores(members(units, 15, 3, 2)[None], np.ones(75, bool))
    first = 7.8 / math.sqrt(18 * 32 * 0.24 / 49)
    second = (15 - 17 * 20 / 45) / math.sqrt(17 * 28 * 20 * 25 / 45**2 / 44)
    assert found[0] == pytest.approx(min(first, second))


@pytest.mark.parametrize(("n_own", "n_rivals"), [(0, 10), (10, 0), (0, 0)])
def test_without_controls_of_one_kind_nothing_is_claimed(n_own: int, n_rivals: int):
    units = make_units(10, n_own, n_rivals)
    free = np.ones(len(units.is_error), bool)
    group = members(units, 10, 0, 0)
    assert math.isnan(Evidence(units).p_value(group, free))
    (choice,) = choose_groups(units, make_groups(group, distinctness=0.3))
    assert math.isnan(choice.p_value) and math.isnan(choice.q_value)


def test_errors_are_compared_within_their_class():
    # Errors are mostly taken for class 1, and class 1 is where the group is: nothing special.
    rng = np.random.default_rng(0)
    explained = np.r_[np.ones(40), np.zeros(10), np.ones(30), np.zeros(30)].astype(int)
    explained = np.r_[explained, explained[:50], explained[50:]]
    kind = np.r_[np.zeros(50), np.ones(60), np.full(110, 2)].astype(int)
    y_true = np.where(kind == 1, explained, 1 - explained)
    units = Units(kind == 0, kind == 2, explained, y_true)
    group = (explained == 1) & (rng.random(len(explained)) < 0.6)
    assert Evidence(units).p_value(group, np.ones(len(explained), bool)) > 0.05


def test_special_groups_come_first_and_do_not_overlap():
    units = make_units(40, 50, 50)
    special = members(units, 25, 3, 1)
    inner = members(units, 10, 1, 1)
    other = np.zeros(140, bool)
    other[28:40] = other[44:46] = True  # The last 12 errors, and two dogs.
    common = np.zeros(140, bool)
    common[60:140] = True
    choices = choose_groups(units, make_groups(common, inner, other, special))
    assert [choice.group for choice in choices] == [3, 2]
    assert not (choices[0].members & choices[1].members).any()
    assert all(choice.q_value < 0.05 for choice in choices)
    assert choices[0].q_value == pytest.approx(min(1, 4 * choices[0].p_value))


def test_what_is_set_aside_cannot_hide_the_next_one():
    # Two artefacts, 40 and 12 errors of 52. The second is as rare among all errors as it is among
    # controls of the predicted class (12 of 52 against 10 of 50), but not among the rest of them.
    units = make_units(52, 50, 50)
    first = members(units, 40, 20, 1)
    second = np.zeros(152, bool)
    second[40:52] = second[82:92] = True
    everything = np.ones(152, bool)
    assert Evidence(units).p_value(second, everything) > 0.05
    choices = choose_groups(units, make_groups(first, second))
    assert [choice.group for choice in choices] == [0, 1]
    assert choices[1].q_value < 0.05


def test_the_part_that_says_it_all_is_taken():
    units = make_units(40, 50, 50)
    part = members(units, 18, 1, 0)
    whole = members(units, 24, 14, 14)
    (choice, *_) = choose_groups(units, make_groups(whole, part))
    assert choice.group == 1
    # If the rest is just as special, the whole is one thing.
    whole = members(units, 36, 2, 0)
    (choice, *_) = choose_groups(units, make_groups(whole, part))
    assert choice.group == 0


def test_common_groups_are_kept_only_if_they_are_very_distinct():
    units = make_units(40, 50, 50)
    usual = members(units, 20, 24, 24)
    assert choose_groups(units, make_groups(usual, distinctness=0.5)) == []
    (choice,) = choose_groups(units, make_groups(usual, distinctness=0.9))
    assert choice.q_value > 0.05
    rare = members(units, 8, 40, 40)
    assert choose_groups(units, make_groups(rare, distinctness=0.9)) == []


def test_a_group_needs_five_errors():
    units = make_units(40, 50, 50)
    assert choose_groups(units, make_groups(members(units, 4, 0, 0), distinctness=0.9)) == []
    assert len(choose_groups(units, make_groups(members(units, 5, 0, 0), distinctness=0.9))) == 1


def test_maps_that_are_taken_already_are_left_alone():
    units = make_units(40, 50, 50)
    group = members(units, 20, 0, 0)
    free = np.ones(140, bool)
    free[:8] = False
    (choice,) = choose_groups(units, make_groups(group), free)
    np.testing.assert_array_equal(choice.members, group & free)
    assert free[8:].all(), "the mask must not be changed"
    free[:16] = False  # Less than half of it is left.
    assert choose_groups(units, make_groups(group), free) == []


def test_the_same_groups_are_weighed_whoever_is_an_error():
    """Errors and controls swap roles: what is weighed is the same, and who is in it."""
    rng = np.random.default_rng(0)
    candidates = make_groups(*(rng.random((6, 120)) < 0.2))
    before = candidates.members.copy()
    units = make_units(40, 40, 40)
    swapped = Units(units.is_own, units.is_rival, units.explained, 1 - units.y_true)
    for roles in (units, swapped):
        for choice in choose_groups(roles, candidates):
            assert not (choice.members & ~before[choice.group]).any()
    np.testing.assert_array_equal(candidates.members, before)


def test_where_errors_are_no_different_few_groups_are_called_special():
    """40 groups of all sizes, and errors drawn at random: a first q below 0.05 in few of 100."""
    n_false = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = 150
        groups = make_groups(*(rng.random((40, n)) < rng.uniform(0.05, 0.5, (40, 1))))
        kind = rng.permutation(np.repeat([0, 1, 2], n // 3))
        y_true = np.where(kind == 1, DOGS, CATS)
        units = Units(kind == 0, kind == 2, np.full(n, DOGS), y_true)
        choices = choose_groups(units, groups)
        n_false += bool(choices) and choices[0].q_value < 0.05
    assert n_false <= 5


def test_a_planted_group_is_found_among_many_others():
    n_found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = 150
        kind = rng.permutation(np.repeat([0, 1, 2], n // 3))
        planted = rng.random(n) < np.where(kind == 0, 0.5, 0.06)
        others = rng.random((40, n)) < rng.uniform(0.05, 0.5, (40, 1))
        groups = make_groups(*others, planted)
        units = Units(kind == 0, kind == 2, np.full(n, DOGS), np.where(kind == 1, DOGS, CATS))
        choices = choose_groups(units, groups)
        n_found += any(choice.group == 40 and choice.q_value < 0.05 for choice in choices)
    assert n_found >= 16
