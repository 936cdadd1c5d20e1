"""What a finding is and how it is weighed."""

import json
from dataclasses import replace

import pytest

from audit.diagnose import finding
from audit.diagnose.finding import Estimate, Finding

FINDING = Finding(
    kind="pattern",
    text="57 of 96 errors look there.",
    n_errors=57,
    share_of_errors=57 / 96,
    estimate=Estimate(0.84, 0.72, 0.91, "share"),
    q_value=0.01,
    confirmed_by="a test",
    table="patterns",
    key=1,
    images=tuple(range(250)),
    score=40.5,
    id="F1",
)


def test_a_score_is_errors_times_confidence_times_weight():
    assert finding.score(40, 0.01, 0.5) == pytest.approx(40 * 0.99 * 0.5)
    assert finding.score(40, None, 0.5) == 20
    assert finding.score(-3, 0.01, 1) == 0
    assert finding.score(0.1 + 0.2, None, 1) == finding.score(0.3, None, 1)  # equal ones tie


def test_a_trial_weighs_more_than_an_association_and_that_more_than_a_shift():
    order = [
        finding.INTERVENED,
        finding.REPRODUCED,
        finding.HELD_BACK,
        finding.ASSOCIATED,
        finding.SHIFTED,
    ]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == len(order)


def test_json_holds_plain_values_under_the_public_names():
    stored = FINDING.to_json()
    assert json.loads(json.dumps(stored)) == stored
    assert list(stored) == [
        *("id", "kind", "text", "n_errors", "share_of_errors", "estimate", "q_value"),
        *("confirmed_by", "evidence", "images", "score"),
    ]
    assert stored["evidence"] == {"table": "patterns", "key": 1}
    assert stored["estimate"] == {"value": 0.84, "low": 0.72, "high": 0.91, "what": "share"}


def test_json_lists_the_first_hundred_images():
    assert FINDING.to_json()["images"] == list(range(100))
    assert replace(FINDING, images=(3, 1)).to_json()["images"] == [3, 1]
