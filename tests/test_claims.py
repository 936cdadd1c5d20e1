"""Claims about the model: the sentence, its numbers, and what is not claimed."""

import finding_tables
import pandas as pd
import pytest
from finding_tables import pattern, slice_row, tables

from audit.diagnose import claims
from audit.diagnose.tables import Tables

NOTHING: frozenset[int] = frozenset()


def with_pattern(**changes) -> Tables:
    return tables(focus=finding_tables.focus(), patterns=pd.DataFrame([pattern(**changes)]))


def with_slices(*rows: dict, **changes) -> Tables:
    return tables(slices=pd.DataFrame(rows), properties=finding_tables.properties(), **changes)


# Patterns


def test_a_cause_is_one_sentence_with_its_numbers():
    (finding,) = claims.claim_causes(with_pattern())
    assert finding.text == (
        "57 of 96 errors (cats → dogs) look at vertical stripes, either side; painting that out"
        " turns 84 % of them right [72, 91], the same shape elsewhere 11 % (q < 0.001)."
    )
    assert finding.confirmed_by == (
        "painted out of 57 errors against the same shape elsewhere, a paired test; and 4.0 times as"
        " common among errors as among correct images that are called the same [2.0, 8.0]; both"
        " with false-discovery control over patterns; pasted into correct images it turns 35 % of"
        " 40 tries wrong, other parts 2 %"
    )
    assert (finding.kind, finding.table, finding.key) == ("pattern", "patterns", 1)
    assert (finding.n_errors, finding.share_of_errors) == (57, 57 / 96)
    assert finding.images[0] == 7
    # 48 of 57 errors are repaired, 11 % of them by painting anywhere: 41.73 are explained
    assert finding.score == pytest.approx((48 - 57 * 0.11) * (1 - 1e-5))


def test_q_is_the_larger_of_the_two_tests():
    (finding,) = claims.claim_causes(with_pattern(q_value=0.004, causal_q=0.03))
    assert finding.q_value == 0.03
    (finding,) = claims.claim_causes(with_pattern(q_value=0.04, causal_q=0.03))
    assert finding.q_value == 0.04
    assert "(q = 0.040)" in finding.text


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "not shown"},
        {"verdict": "too few"},
        {"verdict": "not tested"},
        {"q_value": 0.2},
        {"causal_q": 0.2},
        {"causal_q": None},
        {"repaired": float("nan")},
    ],
)
def test_a_cause_needs_its_verdict_and_both_tests(changes: dict):
    assert claims.claim_causes(with_pattern(**changes)) == []


def test_a_pattern_that_is_no_cause_is_listed_only_if_errors_have_it_more_often():
    (finding,) = claims.claim_enriched(with_pattern(verdict="not shown", q_value=0.012), NOTHING)
    assert finding.text == (
        "57 of 96 errors (cats → dogs) look at vertical stripes, either side, 4.0 times as often as"
        " correct images that are called the same [2.0, 8.0] (q = 0.012); not shown to be the"
        " cause."
    )
    assert finding.score == pytest.approx(57 * 0.75 * (1 - 0.012) * 0.25)
    for changes in ({"q_value": 0.2}, {"lift_low": 0.9}, {"verdict": "causal"}, {"q_value": None}):
        without = with_pattern(**({"verdict": "not shown"} | changes))
        assert claims.claim_enriched(without, NOTHING) == []


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("not shown", "does not single it out"),
        ("too few", "too few of its errors"),
        ("not tested", "was not tested"),
    ],
)
def test_it_is_said_why_it_is_not_shown(verdict: str, words: str):
    (finding,) = claims.claim_enriched(with_pattern(verdict=verdict), NOTHING)
    assert words in finding.confirmed_by


def test_a_pattern_whose_errors_are_explained_adds_nothing():
    uncertain = with_pattern(verdict="not shown")
    assert claims.claim_enriched(uncertain, frozenset(range(46))) == []  # 11 of 57 are new
    (finding,) = claims.claim_enriched(uncertain, frozenset(range(19)))  # two thirds are
    assert finding.score == pytest.approx(57 * 0.75 * 0.25 * 2 / 3, rel=1e-4)


def test_without_the_columns_of_the_causes_a_pattern_may_still_be_enriched():
    old = {k: v for k, v in pattern(verdict="not tested").items() if not k.startswith("causal")}
    for name in ("repaired", "repaired_low", "repaired_high", "elsewhere", "n_tested"):
        del old[name]
    bare = tables(focus=finding_tables.focus(), patterns=pd.DataFrame([old]))
    assert claims.claim_causes(bare) == []
    assert len(claims.claim_enriched(bare, NOTHING)) == 1
    del old["q_value"]  # as patterns were before they had a test
    bare = tables(focus=finding_tables.focus(), patterns=pd.DataFrame([old]))
    assert claims.claim_enriched(bare, NOTHING) == []


def test_it_is_said_when_not_every_error_was_explained():
    focus = finding_tables.focus().query("image_id != 83")
    some = tables(focus=focus, patterns=pd.DataFrame([pattern()]))
    assert claims.claim_causes(some)[0].text.startswith("57 of 95 explained errors (cats → dogs)")


# Slices


def test_a_confirmed_slice_is_one_sentence_with_its_numbers():
    (finding,) = claims.claim_slices(with_slices(slice_row()))
    assert finding.text == (
        "Sharpness below 12: 40 of 100 images are wrong (40 % [31, 50]) against 10 % of comparable"
        " ones; on the half kept back 3.6 times as often [2.2, 5.9] (q < 0.001)."
    )
    assert finding.confirmed_by == (
        "found on one half of the images and confirmed on the other, against images of the same"
        " classes: 18 of 50 images wrong, false discoveries controlled over slices"
    )
    assert (finding.table, finding.key) == ("slices", 1)
    assert finding.images == tuple(range(83, 43, -1))
    assert finding.score == pytest.approx(30 * (1 - 1e-4) * 0.5)


def test_a_slice_whose_property_breaks_correct_images_weighs_more():
    probed = with_slices(slice_row(), probes=finding_tables.probes(blur=60))
    (finding,) = claims.claim_slices(probed)
    assert finding.score == pytest.approx(30 * (1 - 1e-4) * 0.75)
    assert finding.confirmed_by.endswith(
        "; blur (Gaussian blur, σ 1 % of the side) turns 40 % of correct images wrong"
    )
    other = with_slices(slice_row(), probes=finding_tables.probes(rotate=60))
    assert claims.claim_slices(other)[0].score == pytest.approx(30 * (1 - 1e-4) * 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"confirmed": False},
        {"q_value": 0.06},
        {"lift_low": 0.99},
        {"lift": float("nan")},
        # what the confusion matrix says
        {"conditions": [{"column": "y_true", "low": None, "high": None, "value": "0"}]},
        {
            "conditions": [
                {"column": "y_true", "low": None, "high": None, "value": "0"},
                {"column": "y_pred", "low": None, "high": None, "value": "1"},
            ]
        },
    ],
)
def test_no_other_slice_is_claimed(changes: dict):
    assert claims.claim_slices(with_slices(slice_row(**changes))) == []


def test_a_slice_that_says_the_same_as_a_better_one_is_left_out():
    purer = slice_row(
        slice=2, name="cats with sharpness below 12", error_ids=[*range(44, 80)], excess_errors=33.0
    )
    other = slice_row(slice=3, name="dark", error_ids=[*range(20, 46)], excess_errors=9.0)
    kept = claims.claim_slices(with_slices(slice_row(), purer, other))
    assert [finding.key for finding in kept] == [2, 3]  # 36 of the 40 are those of the purer one


def test_hostile_names_cannot_break_the_sentence():
    rude = slice_row(name="camera\u202e\n" + "x" * 300)
    (finding,) = claims.claim_slices(with_slices(rude))
    assert finding.text.isprintable()
    assert len(finding.text) < 400
    named = Tables(
        finding_tables.predictions(),
        ("</script>\n\u202e", "d" * 500),
        focus=finding_tables.focus(),
        patterns=pd.DataFrame([pattern(name="edge\x00\u2028")]),
    )
    (finding,) = claims.claim_causes(named)
    assert finding.text.isprintable()
    assert f"(</script> → {'d' * 39}…)" in finding.text


# Probes


def test_what_breaks_the_model_more_than_all_else_is_claimed_once():
    (finding,) = claims.claim_probes(tables(probes=finding_tables.probes(blur=60)))
    assert finding.text == (
        "Blur (Gaussian blur, σ 0.5 % of the side) turns 20 % of 100 correct images wrong [13, 29];"
        " the median over all transformations of that strength is 2 % (q = 0.001)."
    )
    assert (finding.table, finding.key) == ("probes", "blur, strength 1")
    assert (finding.n_errors, finding.score) == (0, 0)


def test_a_model_that_everything_breaks_has_no_probe_to_speak_of():
    everything = {name.replace(" ", "_").replace("-", "_"): 60 for name in claims_transformations()}
    assert claims.claim_probes(tables(probes=finding_tables.probes(**everything))) == []
    assert claims.claim_probes(tables(probes=finding_tables.probes())) == []


def claims_transformations() -> list[str]:
    from audit.diagnose.transformations import TRANSFORMATIONS

    return [transformation.name for transformation in TRANSFORMATIONS]


def test_the_three_largest_falls_are_enough():
    probes = finding_tables.probes(blur=60, noise=90, grey=75, rotate=45, bars=66)
    found = claims.claim_probes(tables(probes=probes))
    assert [finding.key for finding in found] == [
        "noise, strength 1",
        "grey, strength 1",
        "bars, strength 1",
    ]


# Classes and threshold


def test_an_uneven_class_is_one_sentence_with_its_numbers():
    (finding,) = claims.claim_imbalance(tables(), NOTHING)
    assert finding.text == (
        "84 of 300 images of cats are wrong (28 % [23, 33]) against 4 % of all others, 7.0 times as"
        " often [3.9, 13] (q < 0.001)."
    )
    assert (finding.kind, finding.key) == ("imbalance", "y_true=0")
    assert len(finding.images) == 84
    assert finding.images[0] == 0
    assert finding.score == pytest.approx((84 - 300 * 0.04) * 0.1, rel=1e-4)


def test_a_class_is_not_uneven_beyond_what_a_cause_explains():
    assert claims.claim_imbalance(tables(), frozenset(range(70))) == []
    (finding,) = claims.claim_imbalance(tables(), frozenset(range(21)))
    assert "also without the errors that other findings explain" in finding.text
    assert finding.score == pytest.approx((84 - 300 * 0.04) * 0.1 * 63 / 84, rel=1e-4)


def test_a_better_threshold_is_one_sentence_with_its_numbers():
    # Errors have at most 0.99 the wrong way, correct images 0.95: above 0.95, cats are right again.
    (finding,) = claims.claim_threshold(tables(), claims.threshold_choice(tables(), 0))
    assert finding.text.startswith("A threshold of 0.9")
    assert "instead of 0.5 makes" in finding.text
    assert (finding.kind, finding.table, finding.key) == ("threshold", "predictions", "threshold")
    assert finding.estimate.low > 0
    assert set(finding.images) <= set(range(84))
    assert finding.score == pytest.approx(finding.n_errors * 0.1, rel=1e-3)


def test_a_model_of_many_classes_has_no_threshold():
    assert claims.threshold_choice(tables(positive=None), 0) is None
    assert claims.claim_threshold(tables(), None) == []
