"""Exact p-values, risk ratios and scores within classes, against enumeration and SciPy."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from scipy.stats.contingency import relative_risk

from audit.diagnose import stratified
from audit.diagnose.stratified import (
    Counts,
    count_by_class,
    p_value,
    rate_of_others,
    risk_ratio,
    score_classes,
    score_groups,
)

EVERYTHING = {"fewest": 1, "fewest_wrong": 1}


def counts(*classes: tuple[int, int, int, int]) -> Counts:
    """(inside, wrong inside, total, wrong) of each class."""
    return Counts(*np.array(classes, np.int64).reshape(-1, 4).T)


@st.composite
def tables(draw: st.DrawFn, most_classes: int = 3, most_images: int = 7) -> Counts:
    rows = []
    for _ in range(draw(st.integers(1, most_classes))):
        total = draw(st.integers(0, most_images))
        inside = draw(st.integers(0, total))
        wrong = draw(st.integers(0, total))
        low, high = max(0, inside + wrong - total), min(inside, wrong)
        rows.append((inside, draw(st.integers(low, high)), total, wrong))
    return counts(*rows)


def test_counts_by_hand():
    inside = np.array([True, True, False, True, False])
    wrong = np.array([True, False, True, True, False])
    got = count_by_class(inside, wrong, np.array([0, 0, 0, 2, 2]))
    assert [part.tolist() for part in got] == [[2, 0, 1], [1, 0, 1], [3, 0, 2], [2, 0, 1]]


# The exact test


def test_p_values_on_paper():
    # Two of four are inside and both errors are: one of the C(4, 2) ways to place the errors.
    one = (2, 2, 4, 2)
    assert p_value(counts(one)) == pytest.approx(1 / 6)
    assert p_value(counts(one, one)) == pytest.approx(1 / 36)
    # One error less: 2 + 1, 1 + 2 or 2 + 2 of them inside, of 36 ways: 4 + 4 + 1.
    assert p_value(counts(one, (2, 1, 4, 2))) == pytest.approx(9 / 36)
    assert p_value(counts((2, 0, 4, 2))) == pytest.approx(1)


def test_nothing_to_compare_gives_one():
    assert p_value(counts()) == 1
    assert p_value(counts((0, 0, 9, 3))) == 1
    assert p_value(counts((9, 3, 9, 3))) == 1
    assert p_value(counts((4, 0, 9, 0))) == 1
    assert p_value(counts((4, 4, 9, 9))) == 1


@settings(deadline=None)
@given(tables(most_classes=1, most_images=60))
def test_with_one_class_it_is_fishers_test(table):
    (n,), (a,), (total,), (wrong,) = table
    cells = [[a, n - a], [wrong - a, total - n - wrong + a]]
    want = fisher_exact(cells, alternative="greater").pvalue
    assert p_value(table) == pytest.approx(want, rel=1e-9)


@settings(deadline=None)
@given(tables())
def test_it_counts_the_ways_to_place_the_errors(table):
    ways = [
        [comb(n, a) * comb(total - n, wrong - a) for a in range(wrong + 1)]
        for n, _, total, wrong in zip(*table, strict=True)
    ]
    observed = table.wrong_inside.sum()
    tail = sum(
        np.prod([by_class[a] for by_class, a in zip(ways, placed, strict=True)])
        for placed in product(*(range(len(by_class)) for by_class in ways))
        if sum(placed) >= observed
    )
    everything = np.prod([sum(by_class) for by_class in ways])
    assert p_value(table) == pytest.approx(tail / everything, rel=1e-9)


@pytest.mark.parametrize("extra", [0, 6, 12, 18])
def test_large_counts_are_taken_to_be_normal(monkeypatch, extra):
    table = counts((1000, 100 + extra, 5000, 500), (700, 70 + extra // 2, 2000, 200))
    exact = p_value(table)
    monkeypatch.setattr(stratified, "_MOST_EXACT", 0)
    assert p_value(table) != exact
    assert p_value(table) == pytest.approx(exact, rel=0.1)


# The risk ratio


def test_a_ratio_that_is_all_due_to_the_mix_of_classes_is_one():
    # The hard class is wrong in 50 %, the easy one in 10 %, inside and outside the group alike.
    table = counts((80, 40, 100, 50), (20, 2, 100, 10))
    crude = (42 / 100) / (18 / 100)
    assert crude > 2
    ratio, low, high = risk_ratio(table)
    assert ratio == pytest.approx(1)
    assert low < 1 < high
    assert p_value(table) > 0.4


def test_with_one_class_it_is_the_usual_ratio_and_interval():
    want = relative_risk(12, 40, 18, 160)
    limits = want.confidence_interval(0.95)
    got = risk_ratio(counts((40, 12, 200, 30)))
    assert got == pytest.approx((want.relative_risk, limits.low, limits.high))


def test_without_errors_on_a_side_the_ratio_stays_finite():
    ratio, low, high = risk_ratio(counts((10, 4, 30, 4)))
    assert ratio == pytest.approx((4.5 / 11) / (0.5 / 21))
    assert low < ratio < high < np.inf
    # Inside 0 of 15 are wrong, outside 5 of 24.
    ratio, low, high = risk_ratio(counts((10, 0, 30, 4), (5, 0, 9, 1)))
    assert ratio == pytest.approx((0.5 / 16) / (5.5 / 25))
    assert 0 < low < ratio < high
    assert all(np.isfinite(risk_ratio(counts((10, 0, 30, 0)))))


def test_without_others_there_is_no_ratio():
    assert np.isnan(risk_ratio(counts((10, 4, 10, 4)))).all()
    assert np.isnan(risk_ratio(counts())).all()


def test_the_interval_covers_the_truth_in_nineteen_of_twenty_cases():
    rng = np.random.default_rng(0)
    inside, total, rates = np.array([60, 100]), np.array([200, 400]), np.array([0.3, 0.1])
    covered = []
    for _ in range(1000):
        a = rng.binomial(inside, 2 * rates)
        b = rng.binomial(total - inside, rates)
        _, low, high = risk_ratio(Counts(inside, a, total, a + b))
        covered.append(low <= 2 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


# The rate of the others


def test_the_rate_of_the_others_has_the_mix_of_the_group():
    # Outside, the classes are wrong in 10 of 20 and 8 of 80; the group is 80 to 20.
    table = counts((80, 40, 100, 50), (20, 2, 100, 10))
    assert rate_of_others(table) == pytest.approx(0.8 * 0.5 + 0.2 * 0.1)


def test_a_class_wholly_inside_counts_with_all_others():
    assert rate_of_others(counts((10, 5, 10, 5), (10, 0, 30, 4))) == pytest.approx(0.2)
    assert np.isnan(rate_of_others(counts((10, 5, 10, 5))))
    assert np.isnan(rate_of_others(counts()))


# Scores


def score_of(table: Counts) -> float:
    """Cochran, Mantel and Haenszel, term by term."""
    excess = variance = 0.0
    for n, a, total, wrong in zip(*(part.tolist() for part in table), strict=True):
        if total > 1:
            excess += a - n * wrong / total
            variance += n * (total - n) * wrong * (total - wrong) / (total**2 * (total - 1))
    return excess / variance**0.5 if variance else -np.inf


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_scores_of_groups_and_pairs_are_those_of_each_alone(seed):
    rng = np.random.default_rng(seed)
    groups = rng.random((80, 5)) < 0.5
    wrong, classes = rng.random(80) < 0.4, rng.integers(0, 4, 80)
    got = score_groups(groups, wrong, classes, **EVERYTHING)
    for i, j in product(range(5), range(5)):
        both = groups[:, i] & groups[:, j]
        want = score_of(count_by_class(both, wrong, classes))
        assert got.pairs[i, j] == pytest.approx(want if (both & wrong).any() else -np.inf)
    for y, i in product(range(4), range(5)):
        rows = classes == y
        alone = count_by_class(groups[rows, i], wrong[rows], np.zeros(rows.sum(), int))
        want = score_of(alone) if alone.wrong_inside.any() else -np.inf
        assert got.by_class[y, i] == pytest.approx(want)


def test_small_groups_are_not_scored():
    groups = np.array([[True], [True], [True], [False], [False]])
    wrong, classes = np.array([True, True, False, False, False]), np.zeros(5, int)
    for fewest, fewest_wrong, is_scored in ((3, 2, True), (4, 2, False), (3, 3, False)):
        got = score_groups(groups, wrong, classes, fewest=fewest, fewest_wrong=fewest_wrong)
        assert np.isfinite(got.pairs[0, 0]) == np.isfinite(got.by_class[0, 0]) == is_scored


def test_a_class_without_errors_says_nothing():
    groups, wrong = np.array([[True], [False]] * 3), np.zeros(6, bool)
    got = score_groups(groups, wrong, np.zeros(6, int), fewest=1, fewest_wrong=0)
    assert np.isneginf(got.pairs).all() and np.isneginf(got.by_class).all()


def test_scores_of_classes_compare_each_with_all_others():
    rng = np.random.default_rng(0)
    classes, wrong = rng.integers(0, 3, 90), rng.random(90) < 0.3
    got = score_classes(classes, wrong, **EVERYTHING)
    together = np.zeros(90, int)
    want = [score_of(count_by_class(classes == y, wrong, together)) for y in range(3)]
    np.testing.assert_allclose(got, want)
