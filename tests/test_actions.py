"""What is proposed about a finding: words, images, gain, and what would refute it."""

from dataclasses import replace

import finding_tables
import pandas as pd
import pytest
from finding_tables import label_issues, pattern, slice_row, tables

from audit.diagnose import actions, claims, data_claims
from audit.diagnose.finding import Finding
from audit.diagnose.tables import Tables

NOTHING: frozenset[int] = frozenset()
DUPLICATED = {"column": "near_duplicates", "low": None, "high": None, "value": "yes"}


def with_pattern(**changes) -> Tables:
    return tables(focus=finding_tables.focus(), patterns=pd.DataFrame([pattern(**changes)]))


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return replace(finding, id="F1")


def gain_of(action: actions.Action) -> tuple[float, float, float]:
    return action.gain.value, action.gain.low, action.gain.high


# Patterns


def test_a_cause_is_collected_for():
    bars = with_pattern()
    (action,) = actions.act_on_pattern(only(claims.claim_causes(bars)), bars, [], [])
    assert action.kind == "collect"
    assert action.title == "Collect more cats: vertical stripes, either side"
    assert action.text == (
        "Collect cats where the model looks at vertical stripes, either side: 57 errors, while all"
        " 41 dogs explained with the same focus are right. At most 48 errors [41, 52] could go"
        " away."
    )
    assert gain_of(action) == pytest.approx((48, 57 * 0.725, 57 * 0.914))
    assert action.refuted_by == (
        "After training on them, audit again: if more than 16 of these 57 errors stay, or painting"
        " out the focus still turns more of them right than the same shape elsewhere, such images"
        " were not what was missing."
    )
    assert (action.findings, action.recipe) == (("F1",), None)


def test_its_images_are_the_errors_then_correct_ones_with_the_same_focus():
    bars = with_pattern()
    (action,) = actions.act_on_pattern(only(claims.claim_causes(bars)), bars, [], [])
    roles = [row["role"] for row in action.rows]
    assert roles == ["error"] * 57 + ["control"] * 3 + ["reference"] * 41
    ids = [row["image_id"] for row in action.rows]
    assert ids[:10] == [7, 3, 11, 2, 5, 13, 17, 19, 23, 29]  # the most typical
    assert ids[57:60] == [200, 201, 202]  # cats
    assert ids[60:] == list(range(400, 441))  # dogs


def test_errors_of_the_other_class_with_the_same_focus_are_not_hidden():
    focus = finding_tables.focus()
    focus.loc[focus["image_id"].between(300, 304), "pattern"] = 1
    confusions = [{"y_true": 0, "y_pred": 1, "count": 57}, {"y_true": 1, "y_pred": 0, "count": 5}]
    both = tables(focus=focus, patterns=pd.DataFrame([pattern(n_errors=62, confusions=confusions)]))
    (action,) = actions.act_on_pattern(only(claims.claim_causes(both)), both, [], [])
    assert action.title == "Collect more cats: vertical stripes, either side"  # 8 % dogs are stray
    assert "while of the dogs explained with the same focus 41 are right and 5 wrong" in action.text


def test_without_controls_nothing_is_said_of_them():
    focus = finding_tables.focus().query("role == 'error'")
    alone = tables(focus=focus, patterns=pd.DataFrame([pattern()]))
    (action,) = actions.act_on_pattern(only(claims.claim_causes(alone)), alone, [], [])
    assert "either side: 57 errors. At most" in action.text
    assert {row["role"] for row in action.rows} == {"error"}


def test_a_cause_that_a_model_is_sensitive_to_is_augmented_against_too():
    bars = replace(with_pattern(), probes=finding_tables.probes(bars=45))
    probe = replace(only(claims.claim_probes(bars)), id="F2")
    collect, augment = actions.act_on_pattern(only(claims.claim_causes(bars)), bars, [], [probe])
    assert (collect.kind, augment.kind) == ("collect", "augment")
    assert augment.title == "Augment with bars: vertical stripes, either side"
    assert augment.text == (
        "Train with bars: five bars over 35 % of the area turns 45 % of 100 correct images wrong,"
        " and errors are common there: vertical stripes, either side. At most 48 errors [41, 52]"
        " could go away."
    )
    assert augment.findings == ("F1", "F2")
    assert "RandomBars(share=0.35" in augment.recipe
    assert augment.recipe.startswith("# 57 of 96 errors (cats → dogs) look at vertical stripes")


def test_what_is_not_shown_to_be_the_cause_is_looked_at_first_and_never_augmented():
    uncertain = replace(
        with_pattern(verdict="not shown"), probes=finding_tables.probes(bars=45, cut_out=60)
    )
    finding = only(claims.claim_enriched(uncertain, NOTHING))
    (action,) = actions.act_on_pattern(finding, uncertain, [], [])
    assert "not shown to be the cause: look at them first" in action.text
    # 57 · (1 − 1 / lift) for lifts of 4, 2 and 8
    assert gain_of(action) == pytest.approx((57 * 0.75, 57 * 0.5, 57 * 0.875))
    assert "painting out" not in action.refuted_by
    assert not actions.is_cause(finding, uncertain)


def test_a_slice_that_holds_a_patterns_errors_is_named_beside_it():
    soft = slice_row(error_ids=list(range(50)))
    both = replace(with_pattern(), slices=pd.DataFrame([soft]))
    beside = [replace(only(claims.claim_slices(both)), id="F2")]
    (action,) = actions.act_on_pattern(only(claims.claim_causes(both)), both, beside, [])
    assert action.title == (
        "Collect more cats: vertical stripes, either side; also sharpness below 12"
    )
    assert action.findings == ("F1", "F2")


# Slices


def with_slice(**changes) -> Tables:
    return tables(
        slices=pd.DataFrame([slice_row(**changes)]), properties=finding_tables.properties()
    )


def test_images_of_a_slice_are_collected():
    soft = with_slice()
    (action,) = actions.act_on_slice(only(claims.claim_slices(soft)), soft, [])
    assert action.kind == "collect"
    assert action.title == "Collect more cats: sharpness below 12"
    assert action.text == (
        "Collect more cats like these: sharpness below 12. 40 of 100 images are wrong, 40 %"
        " against 10 % of comparable ones. At most 30 errors [21, 40] could go away."
    )
    # 100 images at 31 % and 50 %, less the 10 % of the others
    assert gain_of(action) == pytest.approx((30, 21, 40))
    ids = [row["image_id"] for row in action.rows]
    assert ids == [*range(83, 43, -1), *range(500, 560)]
    assert [row["role"] for row in action.rows] == ["error"] * 40 + ["control"] * 60


def test_a_slice_is_augmented_against_first_where_its_property_breaks_correct_images():
    soft = replace(with_slice(), probes=finding_tables.probes(blur=60))
    probe = replace(only(claims.claim_probes(soft)), id="F2")
    augment, collect = actions.act_on_slice(only(claims.claim_slices(soft)), soft, [probe])
    assert (augment.kind, collect.kind) == ("augment", "collect")
    assert augment.title == "Augment with blur: sharpness below 12"
    assert "RandomGaussianBlur(" in augment.recipe
    assert augment.findings == ("F1", "F2")
    assert augment.rows == collect.rows


def test_a_slice_is_not_augmented_against_if_only_errors_or_only_the_model_say_so():
    assert len(act_on(with_slice())) == 1
    assert len(act_on(replace(with_slice(), probes=finding_tables.probes(noise=60)))) == 1


def act_on(soft: Tables) -> list[actions.Action]:
    return actions.act_on_slice(only(claims.claim_slices(soft)), soft, [])


def test_a_slice_of_near_duplicates_is_reviewed():
    (action,) = act_on(
        with_slice(kind="duplicates", name="has a near-duplicate", conditions=[DUPLICATED])
    )
    assert (action.kind, action.title) == ("review", "Review cats: has a near-duplicate")


def test_a_slice_with_errors_of_every_class_asks_for_images():
    (action,) = act_on(with_slice(error_ids=[*range(50, 84), *range(300, 312)]))
    assert action.title == "Collect more images: sharpness below 12"
    assert action.text.startswith("Collect more images like these: sharpness below 12.")


def test_a_gain_holds_its_value_and_is_no_loss():
    (action,) = act_on(with_slice(error_rate_low=0.05, excess_errors=41.0))
    assert gain_of(action) == pytest.approx((41, 0, 41))


# Labels and files


def test_suspected_labels_that_nothing_explains_come_first():
    issues = label_issues(
        [
            (0, "suspected label", 1, -1),
            (60, "suspected label", 1, -1),
            (500, "suspected label", 0, -1),
        ]
    )
    suspected = tables(label_issues=issues)
    finding = only(data_claims.claim_labels(suspected, NOTHING))
    (action,) = actions.act_on_labels(finding, suspected, frozenset([0]))
    assert action.kind == "relabel"
    assert [row["image_id"] for row in action.rows] == [60, 500, 0]
    assert [row["suggested_class"] for row in action.rows] == ["dogs", "cats", "dogs"]
    assert {row["role"] for row in action.rows} == {"suspected label"}
    assert action.gain.value == pytest.approx(2 * 0.51)  # a correct image cannot get better
    assert "Northcutt et al. 2021" in action.text
    assert "1 of them come last" in action.text


def test_duplicates_are_listed_pair_by_pair():
    pairs = [
        (70, "duplicate with another label", -1, 520),
        (80, "duplicate with another label", -1, 530),
    ]
    twice = tables(label_issues=label_issues(pairs))
    (action,) = actions.act_on_duplicates(only(data_claims.claim_duplicates(twice)), twice)
    assert (action.kind, gain_of(action)) == ("review", (2, 0, 2))
    assert [row["image_id"] for row in action.rows] == [70, 520, 80, 530]
    same = tables(
        label_issues=label_issues([(100 + i, "duplicate", -1, 200 + i) for i in range(30)])
    )
    (action,) = actions.act_on_duplicates(only(data_claims.claim_duplicates(same)), same)
    assert gain_of(action) == (0, 0, 0)
    assert "no error goes away" in action.text


def test_unreadable_files_are_listed_by_path():
    full = finding_tables.full_tables()
    (action,) = actions.act_on_unreadable(only(data_claims.claim_unreadable(full)), full)
    assert [row["path"] for row in action.rows] == ["dogs/torn.jpg"]
    assert action.title == "Repair or remove 1 file"


# Classes and threshold


def test_an_uneven_class_is_rebalanced():
    bare = tables()
    finding = only(claims.claim_imbalance(bare, NOTHING))
    (action,) = actions.act_on_imbalance(finding, bare)
    assert (action.kind, action.title) == ("rebalance", "Rebalance: cats")
    assert action.gain.value == pytest.approx(84 * (1 - 1 / 7))  # 72
    assert action.gain.low < 72 < action.gain.high
    assert action.text.startswith("Give cats more weight in training, or more images: 84 of 300")
    said = replace(finding, key="y_pred=1")
    (action,) = actions.act_on_imbalance(said, bare)
    assert action.title == "Rebalance: dogs is said too often"


def test_a_better_threshold_comes_with_its_cost_curve():
    bare = tables()
    choice = claims.threshold_choice(bare, 0)
    finding = only(claims.claim_threshold(bare, choice))
    (action,) = actions.act_on_threshold(finding, bare, choice)
    assert action.kind == "threshold"
    assert action.title.startswith("Move the threshold from 0.5 to 0.9")
    assert (0.5, 84, 12) in action.cost_curve
    assert action.gain.value == choice.gain
    assert actions.act_on_threshold(finding, bare, None) == []
