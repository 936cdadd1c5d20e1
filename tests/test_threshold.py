"""Another threshold: chosen on one half, counted on the other."""

import dataclasses

import numpy as np
import pytest

from audit.diagnose.threshold import choose_threshold
from audit.predict.metrics import threshold_sweep


def shifted() -> tuple[np.ndarray, np.ndarray]:
    """Return 100 negatives from 0.1 to 0.6 and 100 positives from 0.7 to 0.95."""
    p = np.concatenate([np.linspace(0.1, 0.6, 100), np.linspace(0.7, 0.95, 100)])
    return np.repeat([False, True], 100), p


def test_a_shifted_model_gets_the_threshold_between_the_classes():
    truth, p = shifted()
    choice = choose_threshold(truth, p, 0.5)
    assert choice is not None
    assert choice.threshold == pytest.approx(0.65)  # between 0.6 and 0.7
    assert choice.threshold_low <= choice.threshold <= choice.threshold_high
    # Negatives reach 0.5 from the 81st on: 0.1 + 0.5 · 80 / 99 = 0.504. 20 false positives.
    curve = {t: (fp, fn) for t, fp, fn in choice.curve}
    assert curve[0.5] == (20, 0)
    assert curve[choice.threshold] == (0, 0)
    # A half does not hold all of the highest negatives, so one or the other may be missed.
    assert 17 <= choice.gain <= 20
    assert choice.gain == choice.n_fixed - choice.n_broken
    assert choice.gain_low < choice.gain < choice.gain_high
    assert choice.n_broken == 0
    assert choice.p_value == pytest.approx(0.5**choice.n_fixed)
    assert list(choice.fixed) == list(range(80, 100))  # the furthest below the new threshold first


def test_the_curve_counts_as_the_metrics_do():
    rng = np.random.default_rng(1)
    truth = rng.random(500) < 0.4
    p = np.clip(0.35 + 0.3 * truth + 0.2 * rng.standard_normal(500), 0.001, 0.999)
    p = p.astype(np.float32)
    choice = choose_threshold(truth, p, 0.2)
    assert choice is not None
    for threshold, fp, fn in choice.curve[::7]:
        row = next(r for r in threshold_sweep(truth, p, threshold) if r["threshold"] == threshold)
        assert (row["fp"], row["fn"]) == (fp, fn)
    errors = [fp + fn for _, fp, fn in choice.curve]
    at_best = next(i for i, row in enumerate(choice.curve) if row[0] == choice.threshold)
    assert errors[at_best] == min(errors)


def test_a_model_at_its_best_threshold_is_left_alone():
    claims = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = rng.random(400)
        claims += choose_threshold(rng.random(400) < p, p, 0.5, seed=seed) is not None
    assert claims <= 3  # 5 % of 60, and the interval and the test must both agree


def test_both_errors_count_the_same():
    # Six negatives and six positives have 0.6: a threshold above it would only trade one for other.
    truth = np.repeat([False, True], 100)
    p = np.concatenate([np.full(94, 0.1), np.full(12, 0.6), np.full(94, 0.9)])
    assert choose_threshold(truth, p, 0.5) is None


@pytest.mark.parametrize("p", [[0.2, 0.9, 0.8], [0.2, 0.2, 0.2]])
def test_little_data_gives_no_choice(p: list[float]):
    assert choose_threshold(np.array([False, True, True]), np.array(p), 0.5) is None
    assert choose_threshold(np.array([True, True, True]), np.array(p), 0.5) is None


def test_the_same_arguments_give_the_same_choice_and_the_seed_matters():
    rng = np.random.default_rng(3)
    truth = rng.random(600) < 0.5
    p = np.clip(0.5 + 0.2 * truth + 0.1 * rng.standard_normal(600), 0.001, 0.999)
    first, again = (choose_threshold(truth, p, 0.5, seed=7) for _ in range(2))
    assert first is not None
    assert again is not None
    assert dataclasses.asdict(first) == dataclasses.asdict(again)
    other = choose_threshold(truth, p, 0.5, seed=8)
    assert other is not None
    assert (other.gain_low, other.gain_high, other.gain) != (
        first.gain_low,
        first.gain_high,
        first.gain,
    )


def test_a_mirror_image_gives_the_mirrored_answer():
    truth, p = shifted()
    choice = choose_threshold(~truth, 1 - p, 0.5)
    assert choice is not None
    assert choice.threshold == pytest.approx(0.35)
    assert list(choice.fixed) == list(range(80, 100))
    assert {t: (fp, fn) for t, fp, fn in choice.curve}[0.5] == (0, 20)
