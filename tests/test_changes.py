"""What changed in the predictions: by hand, against scikit-learn, and where nothing changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
)

from audit.compare.changes import (
    BETTER,
    METRICS,
    NOT_SHOWN,
    WORSE,
    Group,
    compare_groups,
    compare_metrics,
    confidence_gap,
    sort_outcomes,
    verdict,
)
from audit.compare.paired import Change


def draw(rng: np.random.Generator, n: int, n_classes: int, skill: float) -> np.ndarray:
    """Return scores of two runs of equal skill, float32 of shape (2, n, n_classes)."""
    y_true = np.arange(n) % n_classes
    difficulty = rng.normal(0, 1, (n, n_classes))
    logits = rng.normal(0, 1, (2, n, n_classes)) + difficulty
    logits[:, np.arange(n), y_true] += skill
    exp = np.exp(logits)
    return (exp / exp.sum(axis=2, keepdims=True)).astype(np.float32)


def test_outcomes_by_hand():
    y_true = np.array([0, 0, 1, 1, 2, 2])
    y_pred = np.array([[0, 1, 0, 1, 0, 0], [0, 0, 1, 2, 1, 0]])
    outcomes = sort_outcomes(y_true, y_pred)
    assert outcomes.still_right.tolist() == [0]
    assert outcomes.fixed.tolist() == [1, 2]
    assert outcomes.broken.tolist() == [3]
    assert outcomes.still_wrong.tolist() == [4, 5]
    assert outcomes.another_way.tolist() == [4]
    assert outcomes.p_value == 1  # Two against one.


def test_metrics_by_hand():
    # Four images, right on two before and on all after.
    y_true = np.array([0, 0, 1, 1])
    before, after = np.array([0.2, 0.6, 0.4, 0.8]), np.array([0.2, 0.4, 0.6, 0.8])
    scores = np.stack([np.stack([1 - p, p], axis=1) for p in (before, after)]).astype(np.float32)
    changes = compare_metrics(y_true, scores.argmax(axis=2), scores, positive=1)
    found = {c.name: (c.before, c.after, c.change.value) for c in changes}
    assert found["accuracy"] == (0.5, 1.0, 0.5)
    assert found["balanced_accuracy"] == (0.5, 1.0, 0.5)
    assert found["macro_f1"] == pytest.approx((0.5, 1.0, 0.5))
    # Before, three of the four pairs of a dog and a cat are in order.
    assert found["macro_roc_auc"] == pytest.approx((0.75, 1.0, 0.25))
    assert found["brier"] == pytest.approx((0.2, 0.1, -0.1), abs=1e-6)
    assert found["log_loss"][0] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2, abs=1e-6)
    # 0.8 right twice and 0.6 wrong twice; then 0.8 right twice and 0.6 right twice.
    assert found["ece"] == pytest.approx((0.4, 0.3, -0.1), abs=1e-6)
    assert changes[0].p_value == 0.5  # Two fixed, none broken.
    assert [c.name for c in changes] == list(METRICS)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_metrics_agree_with_scikit_learn(n_classes: int):
    scores = draw(np.random.default_rng(3), 300, n_classes, 1.5)
    y_true, y_pred = np.arange(300) % n_classes, scores.argmax(axis=2)
    positive = 1 if n_classes == 2 else None
    changes = compare_metrics(y_true, y_pred, scores, positive=positive)
    by_name = {change.name: change for change in changes}
    for side, value in enumerate(("before", "after")):
        own = scores[side].astype(np.float64)
        one_hot = np.eye(n_classes)[y_true]
        expected = {
            "accuracy": accuracy_score(y_true, y_pred[side]),
            "balanced_accuracy": balanced_accuracy_score(y_true, y_pred[side]),
            "macro_f1": f1_score(y_true, y_pred[side], average="macro"),
            "macro_roc_auc": roc_auc_score(one_hot, own, average="macro"),
            "log_loss": log_loss(y_true, own / own.sum(axis=1, keepdims=True)),
            "brier": brier_score_loss(y_true, own[:, 1])
            if n_classes == 2
            else np.square(own - one_hot).sum(axis=1).mean(),
        }
        for name, number in expected.items():
            assert getattr(by_name[name], value) == pytest.approx(number, abs=1e-6), name
    for change in changes:
        assert change.change.low < change.change.value < change.change.high
    before, after = y_pred == y_true
    n_fixed, n_broken = (~before & after).sum(), (before & ~after).sum()
    assert by_name["accuracy"].p_value == binomtest(int(n_fixed), int(n_fixed + n_broken)).pvalue
    q_values = false_discovery_control([change.p_value for change in changes])
    assert [change.q_value for change in changes] == pytest.approx(q_values.tolist())


def test_the_bootstrap_agrees_with_one_written_out():
    scores = draw(np.random.default_rng(4), 200, 3, 1.0)
    y_true, y_pred = np.arange(200) % 3, scores.argmax(axis=2)
    rng = np.random.default_rng(11)
    drawn = []
    for trial in range(500):
        rows = rng.integers(0, 200, 200)
        drawn.append(
            [
                metric(y_true[rows], y_pred[1, rows]) - metric(y_true[rows], y_pred[0, rows])
                for metric in (accuracy_score, balanced_accuracy_score)
            ]
            + [
                roc_auc_score(np.eye(3)[y_true[rows]], scores[1, rows])
                - roc_auc_score(np.eye(3)[y_true[rows]], scores[0, rows])
                if trial < 200
                else np.nan
            ]
        )
    deviations = np.nanstd(drawn, axis=0)
    changes = {c.name: c for c in compare_metrics(y_true, y_pred, scores, positive=None)}
    for name, deviation in zip(
        ("accuracy", "balanced_accuracy", "macro_roc_auc"), deviations, strict=True
    ):
        width = changes[name].change.high - changes[name].change.low
        assert width == pytest.approx(2 * 1.96 * deviation, rel=0.15), name


def test_a_real_gain_is_shown_and_in_the_right_direction():
    scores = draw(np.random.default_rng(5), 600, 2, 1.0)
    better = scores.copy()
    better[1] = draw(np.random.default_rng(6), 600, 2, 4.0)[1]
    y_true = np.arange(600) % 2
    for given_scores, expected in ((better, BETTER), (better[::-1], WORSE)):
        y_pred = given_scores.argmax(axis=2)
        changes = compare_metrics(y_true, y_pred, given_scores, positive=1)
        assert {c.name: c.verdict for c in changes if c.name != "ece"} == dict.fromkeys(
            [name for name in METRICS if name != "ece"], expected
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 40))
def test_a_run_against_itself_changes_nothing(seed: int, n_classes: int, n: int):
    scores = draw(np.random.default_rng(seed), n, n_classes, 1.0)[[0, 0]]
    y_true, y_pred = np.arange(n) % n_classes, scores.argmax(axis=2)
    for change in compare_metrics(y_true, y_pred, scores, positive=None):
        assert change.change.value in (0.0, None)
        assert change.p_value == 1
        assert change.verdict == NOT_SHOWN
    outcomes = sort_outcomes(y_true, y_pred)
    assert not len(outcomes.fixed)
    assert not len(outcomes.broken)
    assert outcomes.p_value == 1
    assert confidence_gap(y_true, y_pred, scores)[2] == Change(0.0, None, None)


def test_the_same_arguments_give_the_same_numbers():
    scores = draw(np.random.default_rng(8), 100, 3, 1.0)
    y_true, y_pred = np.arange(100) % 3, scores.argmax(axis=2)
    first, again, other = (
        compare_metrics(y_true, y_pred, scores, positive=None, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_the_gap_of_confidence_by_hand():
    y_true = np.array([0, 0])
    scores = np.array([[[0.75, 0.25], [0.25, 0.75]], [[0.75, 0.25], [0.5, 0.5]]], np.float32)
    before, after, change = confidence_gap(y_true, scores.argmax(axis=2), scores)
    assert before == 0.25  # 0.75 sure, half right.
    assert after == -0.375  # 0.625 sure, all right.
    assert change.value == -0.625


def test_groups_by_hand():
    # Class 0: six images, all wrong before and right after; class 1: two broken of four.
    y_true = np.array([0] * 6 + [1] * 4)
    y_pred = np.array([[1] * 10, [0] * 6 + [0, 0, 1, 1]])
    groups = [Group("class", str(k), y_true == k) for k in range(3)]
    first, second = compare_groups(groups, y_true, y_pred)
    assert (first.n_images, first.n_wrong_before, first.n_wrong_after) == (6, 6, 0)
    assert (first.n_fixed, first.n_broken) == (6, 0)
    assert first.p_value == 2 / 64
    assert first.q_value == pytest.approx(min(2 * first.p_value, 0.5))  # p is 0.5 for the other.
    assert first.change.value == 1
    assert first.verdict == NOT_SHOWN  # 0.0625 after correction for two classes
    assert (second.n_fixed, second.n_broken, second.p_value) == (0, 2, 0.5)
    assert second.change.value == -0.5
    alone = compare_groups(groups[:1], y_true, y_pred)[0]
    assert alone.verdict == BETTER
    assert compare_groups(groups[:1], y_true, y_pred[::-1])[0].verdict == WORSE
    assert compare_groups([], y_true, y_pred) == ()


def test_verdicts():
    up, nothing = Change(0.1, 0.05, 0.2), Change(0.0, None, None)
    assert verdict(up, 0.01) == BETTER
    assert verdict(up, 0.01, lower_is_better=True) == WORSE
    assert verdict(up, 0.05) == NOT_SHOWN
    assert verdict(nothing, 0.0) == NOT_SHOWN


@pytest.mark.slow
def test_null_comparisons_rarely_claim_a_change():
    rng = np.random.default_rng(2026)
    claims = {"metrics": 0, "classes": 0}
    n_trials, n, n_classes = 60, 300, 3
    y_true = np.arange(n) % n_classes
    groups = [Group("class", str(k), y_true == k) for k in range(n_classes)]
    for trial in range(n_trials):
        scores = draw(rng, n, n_classes, 1.5)
        y_pred = scores.argmax(axis=2)
        metrics = compare_metrics(y_true, y_pred, scores, positive=None, seed=trial)
        claims["metrics"] += any(change.verdict != NOT_SHOWN for change in metrics)
        classes = compare_groups(groups, y_true, y_pred)
        claims["classes"] += any(change.verdict != NOT_SHOWN for change in classes)
    # 5 % of 60 are 3. If the rate were 20 %, so few as 5 would come in one of 100 seeds.
    assert claims["metrics"] <= 5, claims
    assert claims["classes"] <= 5, claims
