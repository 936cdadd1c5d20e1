"""Claims about the data."""

import finding_tables
import pandas as pd
import pytest
from finding_tables import label_issues, tables
from scipy.stats import binom

from audit.diagnose import data_claims

NOTHING: frozenset[int] = frozenset()
SUSPECTED = [(60, "suspected label", 1, -1), (0, "suspected label", 1, -1)]
CORRECT = [(500 + i, "suspected label", 0, -1) for i in range(8)]


def test_suspected_labels_are_worded_as_suspected():
    suspected = tables(label_issues=label_issues([*SUSPECTED, *CORRECT]))
    (finding,) = data_claims.claim_labels(suspected, NOTHING)
    # 10 flags at 51 %: binomial, 2.5 % of the time below 2 and above 8
    assert finding.text == (
        "10 images, 2 of them errors, may have a wrong label; people confirmed 51 % of such flags"
        " in ten public test sets, so expect 5 [2, 8]."
    )
    assert finding.q_value is None
    assert finding.confirmed_by.startswith("only suspected")
    assert finding.images[:3] == (60, 0, 500)
    assert (finding.n_errors, finding.share_of_errors) == (2, 2 / 96)
    assert finding.score == pytest.approx(0.51 * 2 * 0.25)


def test_an_error_that_is_explained_otherwise_does_not_speak_for_its_label():
    suspected = tables(label_issues=label_issues([*SUSPECTED, *CORRECT]))
    (finding,) = data_claims.claim_labels(suspected, frozenset([0]))
    assert finding.n_errors == 2
    assert finding.score == pytest.approx(0.51 * 1 * 0.25)


@pytest.mark.parametrize("n_flagged", [1, 23, 400])
def test_the_expected_number_has_the_binomial_interval(n_flagged: int):
    expected = data_claims.expected_wrong_labels(n_flagged, "labels")
    assert expected.value == pytest.approx(0.51 * n_flagged)
    assert binom.cdf(expected.low - 1, n_flagged, 0.51) < 0.025
    assert binom.sf(expected.high, n_flagged, 0.51) < 0.025
    assert 0 <= expected.low <= expected.value <= expected.high <= n_flagged


def test_duplicates_with_another_label_are_counted_as_images_not_as_rows():
    both_ways = [
        (70, "duplicate with another label", -1, 520),
        (520, "duplicate with another label", -1, 70),
        (80, "duplicate with another label", -1, 530),
    ]
    (finding,) = data_claims.claim_duplicates(tables(label_issues=label_issues(both_ways)))
    assert finding.text == (
        "4 images, 2 of them errors, look almost the same as one with another label: one of the two"
        " labels is wrong, unless a detail decides."
    )
    assert finding.images == (70, 520, 80, 530)
    assert finding.estimate.low == finding.estimate.value == finding.estimate.high == 4
    assert finding.score == 2 * 0.5


def test_a_few_duplicates_with_the_same_label_are_no_news():
    few = [(100 + i, "duplicate", -1, 200 + i) for i in range(4)]
    assert data_claims.claim_duplicates(tables(label_issues=label_issues(few))) == []
    many = [(100 + i, "duplicate", -1, 200 + i) for i in range(30)]
    (finding,) = data_claims.claim_duplicates(tables(label_issues=label_issues(many)))
    assert finding.text.startswith("60 of 600 images (10 % [8, 13]) have a near-duplicate")
    assert finding.score == 0


def test_unreadable_files_are_counted_and_skipped_ones_are_not():
    unreadable = pd.DataFrame(
        {"path": ["a", "b", "c"], "kind": ["unreadable", "skipped", "unreadable"], "reason": "?"}
    )
    (finding,) = data_claims.claim_unreadable(tables(unreadable=unreadable))
    assert finding.text == (
        "2 of 602 image files could not be read (<1 % [<1, 1]) and count nowhere."
    )
    assert finding.estimate.value == 2 / 602
    skipped = unreadable[unreadable["kind"] == "skipped"]
    assert data_claims.claim_unreadable(tables(unreadable=skipped)) == []


def test_a_clean_data_set_gives_no_claims():
    bare = tables()
    assert data_claims.claim_labels(bare, NOTHING) == []
    assert data_claims.claim_duplicates(bare) == []
    assert data_claims.claim_unreadable(bare) == []


def test_a_run_without_errors_may_have_suspected_labels():
    right = finding_tables.predictions().query("y_true == y_pred")
    flags = label_issues(CORRECT)
    clean = tables(predictions=right, label_issues=flags)
    (finding,) = data_claims.claim_labels(clean, NOTHING)
    assert "none of them an error" in finding.text
    assert finding.share_of_errors == 0
