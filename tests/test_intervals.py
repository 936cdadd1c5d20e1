"""Intervals agree with scipy and NumPy, and the bootstrap resamples what it says it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from audit.predict import intervals


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = binomtest(k, n).proportion_ci(method="wilson")
    low, high = intervals.wilson_interval(k, n)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_of_arrays_equals_wilson_of_each() -> None:
    k, n = np.array([[0, 3], [7, 10]]), np.array([10, 10])
    low, high = intervals.wilson_interval(k, n)
    assert low.shape == high.shape == (2, 2)
    for index, count in np.ndenumerate(k):
        assert (low[index], high[index]) == intervals.wilson_interval(count, 10)


def test_wilson_without_trials_is_undefined() -> None:
    low, high = intervals.wilson_interval([0, 1], [0, 2])
    assert np.isnan([low[0], high[0]]).all()
    assert intervals.wilson_estimate(0, 0) == {
        "value": None,
        "low": None,
        "high": None,
        "method": "wilson",
    }


@pytest.mark.parametrize("k", [0, 20])
def test_wilson_ends_are_exact(k: int) -> None:
    low, high = intervals.wilson_interval(k, 20)
    assert (low == 0.0) == (k == 0)
    assert (high == 1.0) == (k == 20)


@given(st.integers(2, 60), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_percentiles_agree_with_numpy(n: int, missing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 3, 2))
    values[rng.random(values.shape) < missing] = np.nan
    values[:2] = [[[0.0]], [[1.0]]]  # At least two different values everywhere.
    expected = np.nanquantile(values, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(intervals.percentile_interval(values), expected, atol=1e-12)


def test_percentiles_of_one_value_or_none_are_undefined() -> None:
    values = np.array([[1.0, np.nan, 0.0], [1.0, np.nan, 1.0]])
    low, high = intervals.percentile_interval(values)
    np.testing.assert_array_equal(np.isnan(low), [True, True, False])
    np.testing.assert_array_equal(np.isnan(high), [True, True, False])


def test_bootstrap_estimate_tells_how_many_resamples() -> None:
    estimate = intervals.bootstrap_estimate(0.5, np.linspace(0, 1, 201))
    assert estimate == {
        "value": 0.5,
        "low": pytest.approx(0.025),
        "high": pytest.approx(0.975),
        "method": "bootstrap",
        "resamples": 201,
    }
    nothing = intervals.bootstrap_estimate(0.5, np.empty(0))
    assert (nothing["low"], nothing["high"], nothing["resamples"]) == (None, None, 0)


def test_reflected_estimate_mirrors_the_bounds_at_the_value() -> None:
    # Resampled values from 0.30 to 0.50; their 95 % interval is 0.305 to 0.495.
    resampled = np.linspace(0.3, 0.5, 401)
    inside = intervals.reflected_estimate(0.35, resampled)
    assert (inside["low"], inside["high"]) == (pytest.approx(0.205), pytest.approx(0.395))
    below = intervals.reflected_estimate(0.1, resampled)
    assert (below["low"], below["high"]) == (0.0, 0.1)
    above = intervals.reflected_estimate(0.6, resampled)
    assert (above["low"], above["high"]) == (0.6, pytest.approx(0.895))


def test_reflected_interval_covers_the_truth_where_percentiles_do_not() -> None:
    # |mean| of 15 groups of noise: the truth is 0, every sample and resample of it is above.
    rng = np.random.default_rng(3)
    groups = np.zeros((600, 15))
    groups[np.arange(600), np.arange(600) % 15] = rng.normal(size=600)
    value = float(np.abs(groups.mean(axis=0)).sum())
    resampled = np.abs(intervals.resampled_means(groups, 500, rng)).sum(axis=1)
    assert intervals.bootstrap_estimate(value, resampled)["low"] > value / 2
    reflected = intervals.reflected_estimate(value, resampled)
    assert reflected["low"] < value / 4
    assert reflected["high"] >= value


@pytest.mark.parametrize(("elements", "expected"), [(1, 1000), (10**6, 500), (5 * 10**6, 100)])
def test_resamples_shrink_with_size(elements: int, expected: int) -> None:
    assert intervals.affordable_resamples(elements) == expected


def test_too_few_resamples_are_none() -> None:
    assert intervals.affordable_resamples(5 * 10**6 + 50_001) == 0


@pytest.mark.parametrize("chunk_elements", [1, 70, 10**6])
def test_image_weights_draw_n_of_n(monkeypatch: pytest.MonkeyPatch, chunk_elements: int) -> None:
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", chunk_elements)
    chunks = list(intervals.image_weights(7, 23, np.random.default_rng(0)))
    weights = np.concatenate(chunks)
    assert weights.shape == (23, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == np.round(weights)).all()
    # Random draws do not depend on the size of the chunks.
    again = np.concatenate(list(intervals.image_weights(7, 23, np.random.default_rng(0))))
    np.testing.assert_array_equal(weights, again)
    drawn = np.random.default_rng(0).integers(0, 7, (23, 7))
    np.testing.assert_array_equal(weights, [np.bincount(row, minlength=7) for row in drawn])


def test_resampled_counts_keep_the_total_and_the_mean() -> None:
    counts = np.array([90, 9, 1])
    resampled = np.concatenate(
        list(intervals.resampled_counts(counts, 4000, np.random.default_rng(0)))
    )
    assert (resampled.sum(axis=1) == 100).all()
    # Standard error of a mean of 4,000 is at most 0.5 / sqrt(40) = 0.08.
    np.testing.assert_allclose(resampled.mean(axis=0), counts, atol=0.25)
    expected_variance = counts * (1 - counts / 100)
    np.testing.assert_allclose(resampled.var(axis=0), expected_variance, rtol=0.15)


def test_resampled_means_have_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 2))
    means = intervals.resampled_means(values, 2000, rng)
    assert means.shape == (2000, 2)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / 20, rtol=0.1)
    assert intervals.resampled_means(values, 0, rng).shape == (0, 2)


def test_mean_of_defined_leaves_out_nan() -> None:
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(intervals.mean_of_defined(values), [2.0, np.nan])
