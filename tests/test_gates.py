"""Limits of metrics: read from text, held against what was measured."""

import math
from typing import Any

import numpy as np
import pytest

from audit.gates import BINARY, LOWER_IS_BETTER, NAMES, Gate, check_limits, read_limits
from audit.predict.metrics import compute_metrics


def metrics(n_classes: int = 2) -> dict[str, Any]:
    """Return the metrics of 40 images, with every metric that there is."""
    rng = np.random.default_rng(0)
    y_true = np.arange(40) % n_classes
    scores = rng.dirichlet(np.ones(n_classes), 40).astype(np.float32)
    names = [f"class {number}" for number in range(n_classes)]
    positive = 1 if n_classes == 2 else None
    return compute_metrics(
        y_true, scores.argmax(axis=1), scores, names, positive=positive, threshold=0.5
    ).summary


def estimates(holder: dict[str, Any]) -> set[str]:
    return {name for name, value in holder.items() if isinstance(value, dict) and "value" in value}


def test_the_names_are_those_of_the_metrics():
    found = metrics()
    assert set(NAMES) == estimates(found) | estimates(found["binary"])
    assert set(BINARY) == estimates(found["binary"])
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ((), {}),
        ("accuracy=0.9", {"accuracy": 0.9}),
        (("log_loss = 2", "accuracy=1"), {"accuracy": 1.0, "log_loss": 2.0}),
        (["recall=0", "recall=.5"], {"recall": 0.5}),
        ({"macro_f1": 0.5}, {"macro_f1": 0.5}),
    ],
)
def test_limits_are_read_in_the_order_of_metrics(given: Any, limits: dict[str, float]):
    assert list(read_limits(given).items()) == list(limits.items())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("accuracy", "give a metric and its limit"),
        (5, "give a metric and its limit"),
        (None, "give a metric and its limit"),
        ([5], "give a metric and its limit"),
        ("acuracy=0.9", "there is no metric 'acuracy'; there are accuracy, balanced_accuracy, "),
        ("accuracy=90%", "a limit is a number from 0 on"),
        ("accuracy=nan", "a limit is a number from 0 on"),
        ("accuracy=-1", "a limit is a number from 0 on"),
        ({"accuracy": True}, "a limit is a number from 0 on"),
        ({"accuracy": None}, "a limit is a number from 0 on"),
        ("accuracy=90", "accuracy is a number from 0 to 1"),
    ],
)
def test_what_is_no_limit_is_refused(given: Any, says: str):
    with pytest.raises(ValueError, match=says):
        read_limits(given)


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_kept_up_to_the_value_itself(name: str):
    found = metrics()
    estimate = (found["binary"] if name in BINARY else found)[name]
    less, more = (math.nextafter(estimate["value"], end) for end in (-1, 9))
    kept = [check_limits({name: limit}, found)[0].passed for limit in (less, more)]
    assert kept == ([False, True] if name in LOWER_IS_BETTER else [True, False])
    (gate,) = check_limits({name: estimate["value"]}, found)
    assert gate == Gate(name, *(estimate[key] for key in ("value", "value", "low", "high")), True)


def test_a_metric_that_is_not_defined_misses_its_limit():
    (gate,) = check_limits({"recall": 0.0}, metrics(3))
    assert (gate.passed, gate.value) == (False, None)
    assert str(gate) == "recall is not defined here, and must be at least 0"


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        (
            Gate("accuracy", 0.9, 0.88125, 0.87, 0.892, False),
            "accuracy is 0.8812 [0.8700, 0.8920], below 0.9",
        ),
        (Gate("accuracy", 0.88, 0.9, None, None, True), "accuracy is 0.9000, at least 0.88"),
        (Gate("ece", 0.05, 0.061, 0.05, 0.07, False), "ece is 0.0610 [0.0500, 0.0700], above 0.05"),
        (Gate("ece", 0.05, 0.05, None, None, True), "ece is 0.0500, at most 0.05"),
    ],
)
def test_a_gate_says_value_interval_and_limit(gate: Gate, text: str):
    assert str(gate) == text
