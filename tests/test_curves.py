"""Curves are scikit-learn's, thinned so that their ends, corners and areas stay."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from audit.predict.curves import MAX_CURVES, MAX_POINTS, compute_curves, thin_curve
from audit.predict.metrics import compute_metrics

NEAR = 2e-6  # stored values are rounded to six decimals


def draw(n: int, n_classes: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, n_classes, n)
    scores = rng.random((n, n_classes)) + 0.4 * (np.arange(n_classes) == y_true[:, None])
    if ties:
        scores = np.ceil(scores * 3)
    return y_true, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def of_class(y_true: Any, p: Any) -> dict[str, Any]:
    """Return the curves of a binary model's positive class, which is 1."""
    p = np.asarray(p, np.float32)
    scores = np.column_stack([1 - p, p])
    (curve,) = compute_curves(np.asarray(y_true), scores, np.array([0.5, 0.5]), positive=1)
    return curve


def points(curve: dict[str, list[float]]) -> list[tuple[float, ...]]:
    return list(zip(*curve.values(), strict=True))


def test_four_images_by_hand() -> None:
    # By falling score: hit, miss, hit, miss. Recall rises at the 1st and the 3rd image.
    curve = of_class([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert curve["class"] == 1
    assert points(curve["roc"]) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    third = pytest.approx(0.666667)
    # Precision 1 up to recall 1/2, then 2/3 up to 1, where it falls on to 1/2: all are called.
    assert points(curve["precision_recall"]) == [
        (0, 1),
        (0.5, 1),
        (0.5, 0.5),
        (0.5, third),
        (1, third),
        (1, 0.5),
    ]


@given(n=st.integers(2, 60), seed=st.integers(0, 2**32 - 1), ties=st.booleans())
@settings(deadline=None)
def test_points_and_areas_are_scikit_learns(n: int, seed: int, ties: bool) -> None:
    y_true, scores = draw(n, 2, seed, ties)
    y_true[:2] = 0, 1
    curve = of_class(y_true, scores[:, 1])
    p = scores[:, 1]
    rates, recalls, _ = sk.roc_curve(y_true, p, drop_intermediate=False)
    for rate, recall in points(curve["roc"]):
        assert np.hypot(rates - rate, recalls - recall).min() < NEAR
    assert (curve["roc"]["false_positive_rate"][0], curve["roc"]["recall"][0]) == (0, 0)
    assert (curve["roc"]["false_positive_rate"][-1], curve["roc"]["recall"][-1]) == (1, 1)
    precisions, recalls, _ = sk.precision_recall_curve(y_true, p)
    stairs = curve["precision_recall"]
    assert all(np.abs(precisions - x).min() < NEAR for x in stairs["precision"])
    assert all(np.abs(recalls - x).min() < NEAR for x in stairs["recall"])
    area = np.trapezoid(curve["roc"]["recall"], curve["roc"]["false_positive_rate"])
    assert area == pytest.approx(sk.roc_auc_score(y_true, p), abs=1e-4)
    area = np.trapezoid(stairs["precision"], stairs["recall"])
    assert area == pytest.approx(sk.average_precision_score(y_true, p), abs=1e-4)


@pytest.mark.parametrize("ties", [False, True])
def test_a_long_curve_is_thinned_and_keeps_its_areas(ties: bool) -> None:
    y_true, scores = draw(20_000, 2, 1, ties)
    curve = of_class(y_true, scores[:, 1])
    for columns in (curve["roc"], curve["precision_recall"]):
        assert all(2 <= len(values) <= MAX_POINTS for values in columns.values())
    area = np.trapezoid(curve["roc"]["recall"], curve["roc"]["false_positive_rate"])
    assert area == pytest.approx(sk.roc_auc_score(y_true, scores[:, 1]), abs=2e-4)
    stairs = curve["precision_recall"]
    area = np.trapezoid(stairs["precision"], stairs["recall"])
    assert area == pytest.approx(sk.average_precision_score(y_true, scores[:, 1]), abs=1e-3)
    assert np.diff(stairs["recall"]).min() >= 0
    assert (stairs["recall"][0], stairs["recall"][-1]) == (0, 1)
    assert stairs["precision"][-1] == pytest.approx(y_true.mean(), abs=NEAR)


def test_thinning_keeps_ends_and_corners() -> None:
    # A square step of 1,001 points: its two corners are all that it needs beside the ends.
    x = np.concatenate([np.zeros(500), np.linspace(0, 1, 501)])
    y = np.concatenate([np.linspace(0, 0.8, 500), np.full(501, 0.8)])
    y[-1] = 1.0
    kept = thin_curve(x, y)
    assert [(x[n], y[n]) for n in kept] == [(0, 0), (0, 0.8), (x[-2], 0.8), (1, 1)]
    assert thin_curve(x, y, most=3).tolist() == [0, kept[1], 1000]
    assert thin_curve(x, y, most=2).tolist() == [0, 1000]


def test_thinning_takes_a_closed_line_and_a_straight_one() -> None:
    assert thin_curve(np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0])).tolist() == [0, 1, 2]
    line = np.linspace(0, 1, 50)
    assert thin_curve(line, line / 2).tolist() == [0, 49]


def test_thinning_stays_near_the_whole_curve() -> None:
    rng = np.random.default_rng(2)
    x, y = np.sort(rng.random(5000)), np.sort(rng.random(5000))
    kept = thin_curve(x, y)
    assert len(kept) == MAX_POINTS
    assert np.abs(np.interp(x, x[kept], y[kept]) - y).max() < 0.01


def test_many_classes_have_the_curves_of_those_ranked_worst() -> None:
    y_true, scores = draw(600, 9, 4)
    scores[:, 5] = scores[:, 5].max() - scores[:, 5]  # ranked upside down: the worst
    present = y_true != 7  # no image is of class 7
    y_true, scores = y_true[present], scores[present]
    summary = compute_metrics(
        y_true,
        scores.argmax(axis=1),
        scores,
        [str(n) for n in range(9)],
        positive=None,
        threshold=0.5,
    ).summary
    quality = [
        np.nan if n == 7 else sk.average_precision_score(y_true == n, scores[:, n])
        for n in range(9)
    ]
    expected = np.argsort(quality)[:MAX_CURVES].tolist()
    assert [curve["class"] for curve in summary["curves"]] == expected
    assert expected[0] == 5
    assert json.loads(json.dumps(summary["curves"], allow_nan=False)) == summary["curves"]


def test_a_class_of_all_images_or_of_none_has_no_curve() -> None:
    p = np.array([0.2, 0.7, 0.4], np.float32)
    scores = np.column_stack([1 - p, p])
    for label, quality in ((1, [np.nan, 1.0]), (0, [1.0, np.nan])):
        labels = np.full(3, label)
        assert compute_curves(labels, scores, np.array(quality), positive=1) == []
        assert compute_curves(labels, scores, np.array(quality), positive=None) == []


def test_the_same_scores_give_the_same_curves() -> None:
    y_true, scores = draw(3000, 3, 5)
    quality = np.array([0.3, 0.2, 0.1])
    first = compute_curves(y_true, scores, quality, positive=None)
    order = np.random.default_rng(0).permutation(3000)
    shuffled = compute_curves(y_true[order], scores[order], quality, positive=None)
    assert first == shuffled
    assert [curve["class"] for curve in first] == [2, 1, 0]
