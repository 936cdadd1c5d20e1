"""Metrics agree with scikit-learn to 1e-9, on paper and on random cases with ties and gaps."""

import json
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from audit.errors import ModelError
from audit.predict import calibration, confusion, intervals, ranking
from audit.predict.metrics import Metrics, compute_metrics, threshold_sweep
from audit.run_folder import RunFolder

NEAR = 1e-9


def compute(y_true: Any, y_pred: Any, scores: Any, **options: Any) -> Metrics:
    scores = np.asarray(scores, np.float32)
    names = [f"class {index}" for index in range(scores.shape[1])]
    options = {"positive": None, "threshold": 0.5, **options}
    return compute_metrics(np.asarray(y_true), np.asarray(y_pred), scores, names, **options)


def compute_values(*args: Any, **options: Any) -> Metrics:
    """Compute without resampling: quick, for tests of the values alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "WORK_BUDGET", 0)
        return compute(*args, **options)


def random_case(n: int, n_classes: int, seed: int, ties: bool) -> tuple[np.ndarray, ...]:
    """Draw labels, decisions and probabilities, with errors; small n leave classes absent."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, n_classes, n)
    scores = rng.random((n, n_classes)) + 0.4 * (np.arange(n_classes) == y_true[:, None])
    if ties:
        scores = np.ceil(scores * 3)
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return y_true, scores.argmax(axis=1), scores


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 100)


cases = given(
    n=st.integers(1, 40),
    n_classes=st.integers(2, 8),
    seed=st.integers(0, 2**32 - 1),
    ties=st.booleans(),
)


@cases
@settings(deadline=None)
def test_counts_and_averages_agree_with_scikit_learn(
    n: int, n_classes: int, seed: int, ties: bool
) -> None:
    y_true, y_pred, scores = random_case(n, n_classes, seed, ties)
    result = compute_values(y_true, y_pred, scores)
    labels = range(n_classes)
    options: dict[str, Any] = {"labels": labels, "zero_division": np.nan}
    summary, classes = result.summary, result.classes
    matrix = sk.confusion_matrix(y_true, y_pred, labels=labels)
    np.testing.assert_array_equal(
        result.confusion["count"].to_numpy().reshape(matrix.shape), matrix
    )
    expected = sk.precision_recall_fscore_support(y_true, y_pred, **options)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(classes[name], values, atol=NEAR)
    assert summary["accuracy"]["value"] == pytest.approx(
        sk.accuracy_score(y_true, y_pred), abs=NEAR
    )
    averages = {
        "macro_precision": sk.precision_score(y_true, y_pred, average="macro", **options),
        "macro_recall": sk.recall_score(y_true, y_pred, average="macro", **options),
        "macro_f1": sk.f1_score(y_true, y_pred, average="macro", **options),
        "weighted_f1": sk.f1_score(y_true, y_pred, average="weighted", **options),
        "balanced_accuracy": balanced_accuracy(y_true, y_pred),
    }
    for name, value in averages.items():
        assert summary[name]["value"] == pytest.approx(value, abs=NEAR), name


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    with warnings.catch_warnings():
        # It warns when a class is predicted that no image has, and leaves it out as we do.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        return float(sk.balanced_accuracy_score(y_true, y_pred))


@cases
@settings(deadline=None)
def test_ranking_agrees_with_scikit_learn(n: int, n_classes: int, seed: int, ties: bool) -> None:
    y_true, y_pred, scores = random_case(n, n_classes, seed, ties)
    result = compute_values(y_true, y_pred, scores)
    roc, ap = [], []
    for index in range(n_classes):
        is_class, p = y_true == index, scores[:, index]
        roc.append(sk.roc_auc_score(is_class, p) if 0 < is_class.sum() < n else np.nan)
        ap.append(sk.average_precision_score(is_class, p) if is_class.any() else np.nan)
    np.testing.assert_allclose(result.classes["roc_auc"], roc, atol=NEAR)
    np.testing.assert_allclose(result.classes["average_precision"], ap, atol=NEAR)
    if not np.isnan(ap).all():
        expected = pytest.approx(np.nanmean(ap), abs=NEAR)
        assert result.summary["macro_average_precision"]["value"] == expected
    expected_roc = None if np.isnan(roc).all() else pytest.approx(np.nanmean(roc), abs=NEAR)
    assert result.summary["macro_roc_auc"]["value"] == expected_roc


def test_macro_ranking_is_scikit_learns_one_versus_rest() -> None:
    y_true, y_pred, scores = random_case(300, 4, 0, ties=False)
    summary = compute_values(y_true, y_pred, scores).summary
    scores = scores.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(y_true, scores, multi_class="ovr", average="macro")
    assert summary["macro_roc_auc"]["value"] == pytest.approx(expected, abs=1e-6)
    one_hot = np.eye(4)[y_true]
    expected = sk.average_precision_score(one_hot, scores, average="macro")
    assert summary["macro_average_precision"]["value"] == pytest.approx(expected, abs=1e-6)


@cases
@settings(deadline=None)
def test_weighted_ranking_agrees_with_scikit_learns_sample_weight(
    n: int, n_classes: int, seed: int, ties: bool
) -> None:
    y_true, _, scores = random_case(n + 1, n_classes, seed, ties)
    is_class, p = y_true == 0, scores[:, 0]
    weights = np.concatenate(list(intervals.image_weights(n + 1, 5, np.random.default_rng(seed))))
    roc, ap = ranking.roc_auc_and_average_precision(is_class, p, weights)
    for row, weight in enumerate(weights):
        has_class, has_others = weight[is_class].sum() > 0, weight[~is_class].sum() > 0
        if has_class and has_others:
            expected = sk.roc_auc_score(is_class, p, sample_weight=weight)
            assert roc[row] == pytest.approx(expected, abs=NEAR)
        else:
            assert np.isnan(roc[row])
        if has_class:
            expected = sk.average_precision_score(is_class, p, sample_weight=weight)
            assert ap[row] == pytest.approx(expected, abs=NEAR)
        else:
            assert np.isnan(ap[row])


@cases
@settings(deadline=None)
def test_losses_agree_with_scikit_learn(n: int, n_classes: int, seed: int, ties: bool) -> None:
    y_true, y_pred, scores = random_case(n, n_classes, seed, ties)
    positive = 1 if n_classes == 2 else None
    summary = compute_values(y_true, y_pred, scores, positive=positive).summary
    # scikit-learn computes in the type of the scores; 1e-9 needs float64, clipped as float32.
    epsilon = np.finfo(np.float32).eps
    clipped = np.clip(scores, epsilon, 1 - epsilon).astype(np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The y_prob values do not sum to one")
        expected = sk.log_loss(y_true, y_proba=clipped, labels=range(n_classes))
        assert summary["log_loss"]["value"] == pytest.approx(expected, abs=NEAR)
        in_float32 = sk.log_loss(y_true, y_proba=scores, labels=range(n_classes))
        assert summary["log_loss"]["value"] == pytest.approx(in_float32, rel=1e-5, abs=1e-6)
        exact = scores.astype(np.float64)
        if positive is not None:
            expected = sk.brier_score_loss(y_true == 1, exact[:, 1], pos_label=True)
        else:
            expected = sk.brier_score_loss(
                y_true, exact, labels=range(n_classes), scale_by_half=False
            )
    assert summary["brier"]["value"] == pytest.approx(expected, abs=NEAR)


@given(
    n=st.integers(1, 60),
    n_classes=st.integers(6, 9),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
)
@settings(deadline=None)
def test_top_k_agrees_with_scikit_learn(n: int, n_classes: int, seed: int, ties: bool) -> None:
    y_true, y_pred, scores = random_case(n, n_classes, seed, ties)
    top_k = compute_values(y_true, y_pred, scores).summary["top_k"]
    expected = sk.top_k_accuracy_score(y_true, scores, k=5, labels=range(n_classes))
    assert top_k["value"] == pytest.approx(expected, abs=NEAR)
    assert (top_k["k"], top_k["method"]) == (5, "wilson")


def test_log_loss_is_clipped_at_the_precision_of_the_scores() -> None:
    losses = calibration.log_losses(np.array([0, 0]), np.array([[0, 1], [1, 0]], np.float32))
    np.testing.assert_allclose(losses, [-np.log(2.0**-23), 2.0**-23], rtol=1e-6)


def test_expected_calibration_error_on_paper() -> None:
    # Confidence 0.75 is in bin 11 of 0 to 14: 3 of 4 are right, the gap is 0.
    # Confidence 0.625 is in bin 9: 0 of 2 are right, the gap is 0.625.
    scores = [[0.75, 0.25]] * 4 + [[0.625, 0.375]] * 2
    result = compute_values([0, 0, 0, 1, 1, 1], [0] * 6, scores, positive=1)
    assert result.summary["ece"]["value"] == pytest.approx(2 / 6 * 0.625, abs=NEAR)
    assert result.summary["ece_equal_mass"]["value"] == pytest.approx(2 / 6 * 0.625, abs=NEAR)
    width = result.summary["reliability"]["equal_width"]
    assert [row["n"] for row in width] == [0] * 9 + [2, 0, 4, 0, 0, 0]
    assert width[0] == {
        "low": 0.0,
        "high": pytest.approx(1 / 15),
        "n": 0,
        **dict.fromkeys(["confidence", "accuracy", "accuracy_low", "accuracy_high"]),
    }
    assert (width[11]["confidence"], width[11]["accuracy"]) == (0.75, 0.75)
    mass = result.summary["reliability"]["equal_mass"]
    assert [(row["low"], row["high"], row["n"]) for row in mass] == [
        (0.625, 0.625, 2),
        (0.75, 0.75, 4),
    ]


@given(st.integers(1, 200), st.integers(0, 10**6), st.booleans())
@settings(deadline=None)
def test_expected_calibration_error_agrees_with_a_plain_loop(n: int, seed: int, ties: bool) -> None:
    y_true, y_pred, scores = random_case(n, 3, seed, ties)
    confidence = scores.max(axis=1).astype(np.float64)
    rng = np.random.default_rng(0)
    result = calibration.compute_calibration(y_true, y_pred, scores, None, rng)
    for name, kind in (("ece", "equal_width"), ("ece_equal_mass", "equal_mass")):
        rows = result["reliability"][kind]
        gaps = [row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["n"]]
        assert result[name]["value"] == pytest.approx(sum(gaps) / n, abs=NEAR)
        assert sum(row["n"] for row in rows) == n
    expected = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = (y_true == y_pred)[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    if not ties:  # Ties lie on the edges, where index / 15 and linspace may round apart.
        assert result["ece"]["value"] == pytest.approx(expected, abs=NEAR)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    index = calibration.equal_mass_bins(np.random.default_rng(0).permutation(1000) / 1000)
    counts = np.bincount(index)
    assert len(counts) == 15
    assert counts.max() - counts.min() <= 1


def test_confidences_on_an_edge_belong_to_the_lower_bin() -> None:
    edges = np.linspace(0, 1, 16)
    np.testing.assert_array_equal(calibration.equal_width_bins(edges), [0, *range(15)])


def test_binary_counts_on_paper(few_resamples: None) -> None:
    # Positive class 1. Decisions at 0.5: tp 0.9 0.8, fn 0.3, fp 0.5 (on the threshold), tn 0.1 0.2.
    p = np.array([0.9, 0.8, 0.3, 0.5, 0.1, 0.2], np.float32)
    y_true = np.array([1, 1, 1, 0, 0, 0])
    scores = np.column_stack([1 - p, p])
    result = compute(y_true, (p >= 0.5).astype(int), scores, positive=1)
    binary = result.summary["binary"]
    assert [binary[name] for name in ("tp", "fp", "tn", "fn")] == [2, 1, 2, 1]
    assert (binary["positive_class"], binary["negative_class"]) == ("class 1", "class 0")
    two_thirds = ["precision", "recall", "specificity", "f1"]
    assert [binary[name]["value"] for name in two_thirds] == [pytest.approx(2 / 3)] * 4
    assert binary["false_positive_rate"]["value"] == pytest.approx(1 / 3)
    # 8 of the 9 pairs are in order (0.3 against 0.5 is not).
    assert binary["roc_auc"]["value"] == pytest.approx(8 / 9)
    # Recall rises by 1/3 each at precision 1, 1 and 3/4.
    assert binary["average_precision"]["value"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    json.dumps(result.summary, allow_nan=False)


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_block_equals_the_row_of_the_positive_class(positive: int) -> None:
    y_true, y_pred, scores = random_case(200, 2, 5, ties=True)
    result = compute(y_true, y_pred, scores, positive=positive)
    row, binary = result.classes.loc[positive], result.summary["binary"]
    for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
        assert binary[name]["value"] == row[name]
        assert (binary[name]["low"], binary[name]["high"]) == (
            row[f"{name}_low"],
            row[f"{name}_high"],
        )
    assert binary["tp"] + binary["fp"] + binary["tn"] + binary["fn"] == 200
    np.testing.assert_array_equal(
        [binary["tp"], binary["fp"], binary["fn"]], row[["tp", "fp", "fn"]]
    )


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.123456])
def test_sweep_row_in_use_equals_the_decisions(threshold: float) -> None:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 101, 500).astype(np.float32) / np.float32(100)
    y_true = (rng.random(500) < p).astype(int)
    y_pred = (p >= threshold).astype(int)
    result = compute_values(
        y_true, y_pred, np.column_stack([1 - p, p]), positive=1, threshold=threshold
    )
    binary = result.summary["binary"]
    rows = [row for row in binary["sweep"] if row["threshold"] == threshold]
    assert len(rows) == 1
    assert len(binary["sweep"]) == (99 if threshold in (0.5, 0.3) else 100)
    counts = ("tp", "fp", "tn", "fn")
    assert [rows[0][name] for name in counts] == [binary[name] for name in counts]


def test_sweep_agrees_with_scikit_learn() -> None:
    y_true, _, scores = random_case(150, 2, 3, ties=False)
    for row in threshold_sweep(y_true == 1, scores[:, 1], 0.5):
        y_pred = (scores[:, 1] >= row["threshold"]).astype(int)
        tn, fp, fn, tp = sk.confusion_matrix(y_true, y_pred, labels=[0, 1]).ravel()
        assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
        precision = sk.precision_score(y_true, y_pred, zero_division=np.nan)
        if np.isnan(precision):
            assert row["precision"] is None
        else:
            assert row["precision"] == pytest.approx(precision, abs=NEAR)
        assert row["recall"] == pytest.approx(sk.recall_score(y_true, y_pred), abs=NEAR)
        assert row["f1"] == pytest.approx(sk.f1_score(y_true, y_pred), abs=NEAR)
        assert row["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred), abs=NEAR)


@cases
@settings(deadline=None)
def test_rows_of_the_confusion_matrix_sum_to_support(
    n: int, n_classes: int, seed: int, ties: bool
) -> None:
    y_true, y_pred, scores = random_case(n, n_classes, seed, ties)
    result = compute_values(y_true, y_pred, scores)
    rows = result.confusion.groupby("y_true")["count"].sum()
    np.testing.assert_array_equal(rows, result.classes["support"])
    shares = result.confusion.groupby("y_true")["share"].sum(min_count=1)
    np.testing.assert_allclose(shares, np.where(result.classes["support"] > 0, 1.0, np.nan))


def test_confused_pairs_are_ordered_and_have_shares() -> None:
    y_true = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    y_pred = [0, 2, 2, 1, 0, 1, 0, 0, 2]
    pairs = compute_values(y_true, y_pred, np.full((9, 3), 1 / 3)).summary["confused_pairs"]
    found = [(pair["y_true"], pair["y_pred"], pair["count"]) for pair in pairs]
    assert found == [(0, 2, 2), (2, 0, 2), (0, 1, 1), (1, 0, 1)]
    assert pairs[0]["share"] == intervals.wilson_estimate(2, 4)


def test_many_classes_list_only_cells_with_images_and_fifty_pairs() -> None:
    y_true, _, scores = random_case(400, 101, 0, ties=False)
    y_pred = np.random.default_rng(1).integers(0, 101, 400)
    result = compute_values(y_true, y_pred, scores)
    assert (result.confusion["count"] > 0).all()
    assert result.confusion["count"].sum() == 400
    assert len(result.summary["confused_pairs"]) == confusion.MAX_CONFUSED_PAIRS
    cells = sorted({(int(true), int(pred)) for true, pred in zip(y_true, y_pred, strict=True)})
    found = result.confusion[["y_true", "y_pred"]].itertuples(index=False, name=None)
    assert list(found) == cells


def test_shuffled_images_give_the_same_values_and_the_seed_the_same_intervals() -> None:
    y_true, y_pred, scores = random_case(120, 3, 7, ties=True)
    first, again = (compute(y_true, y_pred, scores, seed=4) for _ in range(2))
    assert first.summary == again.summary
    assert first.classes.equals(again.classes)
    order = np.random.default_rng(0).permutation(120)
    shuffled = compute(y_true[order], y_pred[order], scores[order], seed=4)
    assert shuffled.confusion.equals(first.confusion)
    for name in ("ece", "ece_equal_mass", "log_loss", "brier", "macro_roc_auc", "macro_f1"):
        value = shuffled.summary[name]["value"]
        assert value == pytest.approx(first.summary[name]["value"], abs=1e-12)
    other = compute(y_true, y_pred, scores, seed=5)
    assert other.summary["log_loss"]["low"] != first.summary["log_loss"]["low"]


def test_intervals_of_counts_equal_intervals_from_resampled_images() -> None:
    y_true, _, scores = random_case(500, 4, 2, ties=False)
    y_pred = np.where(np.random.default_rng(0).random(500) < 0.7, y_true, 3)
    summary = compute(y_true, y_pred, scores).summary
    rng = np.random.default_rng(9)
    plain = []
    for _ in range(600):
        images = rng.integers(0, 500, 500)
        plain.append(sk.f1_score(y_true[images], y_pred[images], average="macro"))
    low, high = np.quantile(plain, [0.025, 0.975])
    width = high - low
    assert summary["macro_f1"]["low"] == pytest.approx(low, abs=0.15 * width)
    assert summary["macro_f1"]["high"] == pytest.approx(high, abs=0.15 * width)


def test_intervals_of_ranking_equal_a_plain_bootstrap() -> None:
    y_true, y_pred, scores = random_case(300, 2, 2, ties=True)
    row = compute(y_true, y_pred, scores, positive=1).classes.loc[1]
    rng = np.random.default_rng(9)
    plain = []
    for _ in range(600):
        images = rng.integers(0, 300, 300)
        plain.append(sk.roc_auc_score(y_true[images] == 1, scores[images, 1]))
    low, high = np.quantile(plain, [0.025, 0.975])
    assert row["roc_auc_low"] == pytest.approx(low, abs=0.15 * (high - low))
    assert row["roc_auc_high"] == pytest.approx(high, abs=0.15 * (high - low))


def test_estimates_lie_within_their_intervals() -> None:
    y_true, y_pred, scores = random_case(400, 7, 1, ties=False)
    y_pred = np.where(np.random.default_rng(0).random(400) < 0.8, y_pred, 0)
    summary = compute(y_true, y_pred, scores).summary
    estimates = [value for value in summary.values() if isinstance(value, dict) and "low" in value]
    assert len(estimates) == 13
    for estimate in estimates:
        assert estimate["low"] <= estimate["value"] <= estimate["high"]


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong_work(few_resamples: None, right: bool) -> None:
    y_true = np.array([0, 1] * 20)
    y_pred = y_true if right else 1 - y_true
    scores = np.eye(2)[y_pred]
    result = compute(y_true, y_pred, scores, positive=1)
    summary = result.summary
    assert summary["n_errors"] == (0 if right else 40)
    assert summary["accuracy"]["value"] == summary["macro_f1"]["value"] == float(right)
    assert summary["binary"]["roc_auc"]["value"] == float(right)
    # A bootstrap of equal values is no interval; Wilson's is.
    assert summary["macro_f1"]["low"] is None
    assert summary["accuracy"]["low" if right else "high"] == pytest.approx(
        0.912 if right else 0.088, abs=1e-3
    )
    assert any("no error" in note for note in summary["notes"]) == right


def test_one_image_works(few_resamples: None) -> None:
    result = compute([1], [0], [[0.75, 0.25]], positive=1)
    assert result.summary["n_images"] == result.summary["n_errors"] == 1
    assert result.summary["macro_roc_auc"]["value"] is None
    json.dumps(result.summary, allow_nan=False)


def test_notes_name_absent_unpredicted_and_small_classes(few_resamples: None) -> None:
    y_true, y_pred = np.array([0] * 20 + [1] * 3), np.zeros(23, int)
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 23)
    result = compute(y_true, y_pred, scores)
    notes = " ".join(result.summary["notes"])
    assert "No image is of `class 2`" in notes
    assert "Nothing was predicted as `class 1`" in notes
    row = result.classes.set_index("class")
    assert np.isnan(row.loc[2, ["precision", "recall", "f1", "roc_auc"]].to_numpy(float)).all()
    assert "fewer than 5 images of `class 0` and `class 1`" in notes
    assert np.isnan(row.loc[1, "roc_auc_low"])
    assert row.loc[1, "f1"] == 0
    assert result.summary["macro_recall"]["value"] == 0.5


def test_many_names_are_cut_short() -> None:
    notes = compute_values([0] * 9, [0] * 9, np.full((9, 9), 1 / 9)).summary["notes"]
    assert "`class 1`, `class 2`, `class 3`, `class 4`, `class 5` and 3 more classes" in notes[0]


def test_size_reduces_resamples_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # 60 images × 3 classes × 100 resamples need 18,000 elements; 60 images alone allow 250.
    monkeypatch.setattr(intervals, "WORK_BUDGET", 15_000)
    y_true, y_pred, scores = random_case(60, 3, 0, ties=False)
    result = compute(y_true, y_pred, scores)
    assert result.summary["macro_roc_auc"]["resamples"] == 0
    assert result.summary["macro_roc_auc"]["low"] is None
    assert result.classes["roc_auc_low"].isna().all()
    assert result.summary["log_loss"]["resamples"] == 250
    notes = " ".join(result.summary["notes"])
    assert "ROC AUC and average precision have no bootstrap intervals: 60 images" in notes
    assert "Log loss, Brier score and ECE have intervals from 250 instead of 1000" in notes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = np.full((4, 2), 0.5, np.float32)
    scores[2, 1] = bad
    with pytest.raises(ModelError, match="NaN or infinity for 1 of 4 images"):
        compute([0, 1, 0, 1], [0, 0, 0, 0], scores)


def test_result_survives_the_run_folder(tmp_path: Any, few_resamples: None) -> None:
    y_true, y_pred, scores = random_case(30, 3, 0, ties=False)
    names = ["</script><b>", "ü`\n", "'; --"]
    result = compute_metrics(y_true, y_pred, scores, names, positive=None, threshold=0.5)
    run = RunFolder(tmp_path)
    run.write_metrics(result.summary)
    run.write_table("class_metrics", result.classes)
    run.write_table("confusion", result.confusion)
    assert run.read_metrics() == result.summary
    assert run.read_table("class_metrics")["name"].tolist() == names
    assert run.read_table("confusion").equals(result.confusion)


def test_metrics_do_not_load_tensorflow() -> None:
    code = "import audit.predict.metrics, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
