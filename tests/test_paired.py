"""Paired tests and intervals: by hand, then against SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from audit.compare.paired import ALPHA, Change, adjust, mcnemar_p, net_change, resampled_change

counts = st.integers(0, 60)


def test_mcnemar_by_hand():
    # Five changed, all fixed: both tails of five coins, 2 / 32.
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    # Four fixed, one broken: P(0, 1, 4 or 5 of 5) = (1 + 5 + 5 + 1) / 32.
    assert mcnemar_p(4, 1) == pytest.approx(12 / 32)
    assert mcnemar_p(3, 3) == 1
    assert mcnemar_p(0, 0) == 1


@given(counts, counts)
def test_mcnemar_is_twice_the_smaller_tail(n_fixed: int, n_broken: int):
    n = n_fixed + n_broken
    tail = binom.cdf(min(n_fixed, n_broken), n, 0.5)
    assert mcnemar_p(n_fixed, n_broken) == pytest.approx(min(1.0, 2 * tail), abs=1e-12)
    assert mcnemar_p(n_fixed, n_broken) == mcnemar_p(n_broken, n_fixed)


def test_net_change_by_hand():
    # 10 images, 5 fixed, none broken: between (2 · 0.025^(1/5) − 1) / 2 and 5 / 10.
    change = net_change(5, 0, 10)
    assert change.value == 0.5
    assert change.low == pytest.approx((2 * 0.025 ** (1 / 5) - 1) / 2)
    assert change.high == 0.5
    assert net_change(0, 0, 10) == Change(0.0, None, None)
    assert net_change(0, 0, 0) == Change(None, None, None)


@given(counts, counts, counts)
def test_the_interval_and_the_test_say_the_same(n_fixed: int, n_broken: int, others: int):
    n_changed = n_fixed + n_broken
    n_images = n_changed + others
    change = net_change(n_fixed, n_broken, n_images)
    if n_changed == 0:
        assert change.low is None
        assert change.high is None
        return
    low = beta.ppf(0.025, n_fixed, n_broken + 1) if n_fixed else 0.0
    high = beta.ppf(0.975, n_fixed + 1, n_broken) if n_broken else 1.0
    scale = n_changed / n_images
    assert change.low == pytest.approx((2 * low - 1) * scale, abs=1e-9)
    assert change.high == pytest.approx((2 * high - 1) * scale, abs=1e-9)
    excludes = change.low > 1e-12 or change.high < -1e-12
    assert excludes == (mcnemar_p(n_fixed, n_broken) < ALPHA)
    assert change.low <= change.value <= change.high


def test_resampled_change_by_hand():
    resampled = np.arange(-1, 9) / 10  # One below 0, one at 0: two of ten are not above.
    change, p_value = resampled_change(0.35, resampled)
    assert change.value == 0.35
    assert change.low == pytest.approx(np.quantile(resampled, 0.025))
    assert change.high == pytest.approx(np.quantile(resampled, 0.975))
    assert p_value == pytest.approx(2 * (2 + 1) / (10 + 1))
    assert resampled_change(0.35, resampled + 1)[1] == pytest.approx(2 / 11)


def test_nothing_resampled_or_nothing_different_claims_nothing():
    assert resampled_change(0.1, np.empty(0)) == (Change(0.1, None, None), 1.0)
    assert resampled_change(np.nan, np.zeros(9)) == (Change(None, None, None), 1.0)
    assert resampled_change(0.0, np.zeros(9)) == (Change(0.0, None, None), 1.0)
    with_gaps = np.array([np.nan, 0.1, 0.2, np.nan])
    assert resampled_change(0.1, with_gaps)[1] == pytest.approx(2 / 3)


def test_q_values_by_hand():
    # Sorted 0.01, 0.02, 0.9 of three: 0.03, 0.03, 0.9.
    assert adjust([0.02, 0.9, 0.01]) == pytest.approx([0.03, 0.9, 0.03])
    assert adjust([]) == []
