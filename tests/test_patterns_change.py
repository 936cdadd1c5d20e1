"""What became of patterns: by hand, and how often chance alone is taken for a change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from audit.compare.patterns_change import (
    GONE,
    NEW,
    SMALLER,
    UNCHANGED,
    FoundPattern,
    PatternChange,
    Share,
    compare_patterns,
)


def found(errors: np.ndarray, *, number: int = 1, is_later: bool = False) -> FoundPattern:
    return FoundPattern(
        number, f"pattern {number}", "place", "causal", is_later, len(errors), np.asarray(errors)
    )


def compare(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    *patterns: FoundPattern,
    repaired: np.ndarray | None = None,
) -> tuple[PatternChange, ...]:
    if repaired is None:
        repaired = np.full(y_pred.shape, np.nan)
    return compare_patterns(patterns, y_true, y_pred, repaired)


def planted(n_fixed: int, n_left: int, n_broken: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and predictions of a pattern of cats called dogs, and its errors."""
    n_errors = n_fixed + n_left
    y_true = np.zeros(n_errors + n_broken + 20, np.int64)
    y_pred = np.zeros((2, len(y_true)), np.int64)
    y_pred[0, :n_errors] = 1
    y_pred[1, n_fixed : n_errors + n_broken] = 1
    return y_true, y_pred, np.arange(n_errors)


def test_a_pattern_that_is_fixed_is_gone():
    y_true, y_pred, errors = planted(n_fixed=19, n_left=1, n_broken=2)
    (change,) = compare(y_true, y_pred, found(errors))
    assert (change.n_errors, change.n_matched) == (20, 20)
    assert (change.n_right, change.n_same_way, change.n_another_way) == (19, 1, 0)
    assert change.n_against == 2
    assert change.change.value == pytest.approx((19 - 2) / 20)
    assert change.p_value == pytest.approx(binomtest(19, 21).pvalue)
    assert change.change.low > 0
    assert change.verdict == GONE
    assert change.right.tolist() == list(range(19))
    assert change.same_way.tolist() == [19]


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((18, 2, 0), GONE),  # A tenth is left.
        ((17, 3, 0), SMALLER),
        ((6, 14, 0), SMALLER),  # 2 / 64
        ((5, 15, 0), UNCHANGED),  # 2 / 32
        ((20, 0, 20), UNCHANGED),  # As many others broke.
        ((0, 20, 20), UNCHANGED),  # Worse, but not this pattern's errors.
        ((0, 20, 0), UNCHANGED),
    ],
)
def test_verdicts_on_an_earlier_pattern(counts: tuple[int, int, int], verdict: str):
    y_true, y_pred, errors = planted(*counts)
    assert compare(y_true, y_pred, found(errors))[0].verdict == verdict


def test_a_later_pattern_is_new_if_its_images_were_right():
    y_true, y_pred, errors = planted(n_fixed=19, n_left=1, n_broken=2)
    (change,) = compare(y_true, y_pred[::-1], found(errors, is_later=True))
    assert change.verdict == NEW
    assert (change.n_right, change.n_same_way, change.n_against) == (19, 1, 2)
    y_true, y_pred, errors = planted(n_fixed=1, n_left=19, n_broken=0)
    (change,) = compare(y_true, y_pred[::-1], found(errors, is_later=True))
    assert change.verdict == UNCHANGED


def test_only_images_of_the_same_confusions_count_against():
    # A pattern of 0 → 1, all fixed. Broken: 0 → 1 once, 0 → 2 twice, 1 → 0 once.
    y_true = np.array([0] * 8 + [0, 0, 0, 1])
    y_pred = np.array([[1] * 8 + [0, 0, 0, 1], [0] * 8 + [1, 2, 2, 0]])
    (change,) = compare(y_true, y_pred, found(np.arange(8)))
    assert change.n_against == 1


def test_wrong_in_another_way_is_not_fixed():
    y_true, y_pred = np.zeros(10, np.int64), np.ones((2, 10), np.int64)
    y_pred[1, :4] = 2
    y_pred[1, 4:6] = 0
    (change,) = compare(y_true, y_pred, found(np.arange(10)))
    assert (change.n_right, change.n_another_way, change.n_same_way) == (2, 4, 4)


def test_the_causal_share_is_of_errors_that_were_painted_out():
    y_true, y_pred, errors = planted(n_fixed=2, n_left=4, n_broken=0)
    repaired = np.full(y_pred.shape, np.nan)
    repaired[0, :5] = [1, 1, 1, 0, 1]
    repaired[1, [0, 2, 3]] = [1, 0, 1]  # The first is no error any more.
    (change,) = compare(y_true, y_pred, found(errors), repaired=repaired)
    before, after = change.causal_before, change.causal_after
    assert (before.n, before.of, before.value) == (4, 5, 0.8)
    assert before.low < 0.8 < before.high
    assert (after.n, after.of, after.value) == (1, 2, 0.5)
    (nothing,) = compare(y_true, y_pred, found(errors))
    assert nothing.causal_before == Share(0, 0, None, None, None)


def test_of_a_later_pattern_before_is_still_before():
    y_true, y_pred, errors = planted(n_fixed=2, n_left=4, n_broken=0)
    repaired = np.full(y_pred.shape, np.nan)
    repaired[0, :6] = 1
    (change,) = compare(y_true, y_pred[::-1], found(errors, is_later=True), repaired=repaired[::-1])
    assert change.causal_after.of == 6
    assert change.causal_before.of == 0


def test_patterns_are_corrected_together():
    y_true, y_pred, errors = planted(n_fixed=6, n_left=0, n_broken=0)
    left = np.zeros(30, np.int64)
    y_true = np.concatenate([y_true, left])
    y_pred = np.concatenate([y_pred, np.stack([left + 1, left + 1])], axis=1)
    others = [found(np.arange(26 + 5 * k, 31 + 5 * k), number=k + 2) for k in range(3)]
    (alone,) = compare(y_true, y_pred, found(errors))
    together = compare(y_true, y_pred, found(errors), *others)
    assert alone.q_value == alone.p_value == pytest.approx(2 / 64)
    assert together[0].q_value == pytest.approx(4 * 2 / 64)
    assert (alone.verdict, together[0].verdict) == (GONE, UNCHANGED)


def test_a_pattern_none_of_whose_images_is_in_the_other_run():
    y_true, y_pred, _ = planted(3, 3, 3)
    (change,) = compare(y_true, y_pred, found(np.empty(0, np.int64)))
    assert (change.n_matched, change.change.value, change.verdict) == (0, None, UNCHANGED)
    assert compare(y_true, y_pred) == ()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_a_run_against_itself_changes_no_pattern(seed: int):
    rng = np.random.default_rng(seed)
    y_true, y_pred = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    errors = np.flatnonzero(y_true != y_pred)
    patterns = [found(errors[::2]), found(errors[1::2], number=2, is_later=True)]
    for change in compare(y_true, np.stack([y_pred, y_pred]), *patterns):
        assert (change.p_value, change.verdict) == (1, UNCHANGED)
        assert change.n_same_way == change.n_matched


def test_chance_alone_rarely_makes_a_pattern_gone_or_new():
    """Two models of equal skill; patterns are chosen from their errors, the worst choice too."""
    rng = np.random.default_rng(2026)
    claims, n_trials, n = 0, 400, 300
    for _ in range(n_trials):
        y_true = rng.integers(0, 2, n)
        risk = rng.beta(0.4, 2.0, n)
        wrong = rng.random((2, n)) < risk
        y_pred = np.where(wrong, 1 - y_true, y_true)
        patterns = []
        for run in (0, 1):
            errors = np.flatnonzero(wrong[run])
            # The errors least likely to come again, as a pattern that is a whim of one run has.
            fleeting = errors[np.argsort(risk[errors])][: len(errors) // 2]
            of_dogs = errors[y_true[errors] == 1]
            patterns += [
                found(np.sort(chosen), number=k, is_later=bool(run))
                for k, chosen in enumerate((errors, fleeting, of_dogs), start=1)
            ]
        claims += any(change.verdict != UNCHANGED for change in compare(y_true, y_pred, *patterns))
    assert claims <= 0.05 * n_trials, claims


def test_a_planted_fix_is_found_beside_what_comes_and_goes():
    rng = np.random.default_rng(7)
    n_found = 0
    for _ in range(50):
        y_true = np.zeros(400, np.int64)
        wrong = rng.random((2, 400)) < 0.04  # About 14 images break.
        wrong[0, :40] = True  # The shortcut, which the second run has lost.
        (change,) = compare(y_true, wrong.astype(np.int64), found(np.arange(40)))
        n_found += change.verdict in (GONE, SMALLER)
    assert n_found >= 40
