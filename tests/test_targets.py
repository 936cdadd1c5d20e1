"""Targets of a whole run: order, numbers, and the first one naming the cause."""

import json
from dataclasses import replace

import finding_tables
import numpy as np
import pandas as pd
from finding_tables import pattern, slice_row, tables

from audit.diagnose.findings import find_findings
from audit.diagnose.tables import Tables
from audit.diagnose.targets import Target, rank_targets, targets_json, targets_table

KINDS = {"collect", "augment", "relabel", "review", "rebalance", "threshold"}


def targets_of(given: Tables) -> list[Target]:
    return rank_targets(find_findings(given), given)


def test_targets_follow_the_findings_and_are_numbered():
    full = finding_tables.full_tables()
    targets = targets_of(full)
    assert [target.id for target in targets] == [f"T{n + 1}" for n in range(len(targets))]
    assert [target.kind for target in targets] == [
        *("collect", "augment"),  # the cause
        *("augment", "collect"),  # the slice
        *("threshold", "review", "relabel", "review"),
    ]
    assert targets[0].manifest == "targets/T1.csv"
    ids = {finding.id for finding in find_findings(full)}
    for target in targets:
        assert target.findings
        assert set(target.findings) <= ids
        assert target.refuted_by
        assert target.gain.low <= target.gain.value <= target.gain.high
        assert (target.recipe is not None) == (target.kind == "augment")
        assert bool(target.cost_curve) == (target.kind == "threshold")
        assert len(target.images) > 0
    assert {target.kind for target in [*targets, *targets_of(tables())]} == KINDS


def test_the_first_target_is_the_planted_bars():
    # The bars make edges, the barred cats are suspected of being dogs, and cats are the worse
    # class: all of it follows from the bars.
    edges = [{"column": "edge_density", "low": 0.3, "high": None, "value": None}]
    busy = slice_row(
        name="edge density above 0.3",
        conditions=edges,
        error_ids=list(range(55)),
        n_errors=55,
        excess_errors=45.0,
    )
    bars = tables(
        focus=finding_tables.focus(),
        patterns=pd.DataFrame([pattern()]),
        slices=pd.DataFrame([busy]),
        label_issues=finding_tables.label_issues(
            [(i, "suspected label", 1, -1) for i in range(40)]
        ),
    )
    first, *others = targets_of(bars)
    assert (
        first.title
        == "Collect more cats: vertical stripes, either side; also edge density above 0.3"
    )
    assert first.images["image_id"].head(10).isin(range(57)).all()
    # The slice is evidence for the same thing, not a target of its own.
    assert len(first.findings) == 2
    assert "collect" not in {target.kind for target in others}


def test_the_first_target_is_the_planted_blur():
    # Errors look at the centre, not shown to be the cause; the softest 40 are the blurred ones.
    blurred = tables(
        focus=finding_tables.focus(),
        patterns=pd.DataFrame([pattern(name="centre, wide", verdict="not shown")]),
        slices=pd.DataFrame([slice_row()]),
        properties=finding_tables.properties(),
        probes=finding_tables.probes(blur=60),
    )
    first = targets_of(blurred)[0]
    assert first.title == "Augment with blur: sharpness below 12"
    assert first.images["image_id"].head(10).tolist() == list(range(83, 73, -1))
    without_probes = replace(blurred, probes=pd.DataFrame())
    assert targets_of(without_probes)[0].title == "Collect more cats: sharpness below 12"


def test_a_null_run_has_no_target_that_names_a_cause():
    rng = np.random.default_rng(0)
    predictions = finding_tables.predictions()
    predictions["y_pred"] = rng.integers(0, 2, 600)
    predictions["p_pred"] = 0.5 + rng.random(600) / 2
    assert targets_of(tables(predictions=predictions)) == []


def test_a_cause_inside_a_larger_slice_keeps_its_target():
    large = slice_row(error_ids=list(range(84)), n_errors=84, excess_errors=84.0)
    both = tables(
        focus=finding_tables.focus(),
        patterns=pd.DataFrame([pattern()]),
        slices=pd.DataFrame([large]),
        positive=None,
    )
    assert [target.title for target in targets_of(both)] == [
        "Collect more cats: sharpness below 12",
        "Collect more cats: vertical stripes, either side; also sharpness below 12",
    ]


def test_a_pattern_inside_a_better_finding_is_evidence_for_it():
    second = pattern(pattern=2, verdict="not shown", q_value=0.001)
    focus = finding_tables.focus()
    nested = tables(
        focus=focus,
        patterns=pd.DataFrame([pattern(), second | {"exemplars": list(range(40, 75))}]),
        positive=None,
    )
    findings = [finding for finding in find_findings(nested) if finding.kind == "pattern"]
    assert len(findings) == 2
    covered = replace(findings[1], images=tuple(range(10)))
    (target,) = rank_targets([findings[0], covered], nested)
    assert target.findings == (findings[0].id, covered.id)


def test_json_is_plain_and_complete():
    full = finding_tables.full_tables()
    stored = targets_json(targets_of(full))
    assert json.loads(json.dumps(stored)) == stored
    first = stored["targets"][0]
    assert list(first) == [
        *("id", "kind", "title", "text", "findings", "n_images", "gain", "refuted_by"),
        *("recipe", "cost_curve", "manifest"),
    ]
    assert first["n_images"] == 101
    assert first["gain"].keys() == {"value", "low", "high", "what"}
    (threshold,) = [t for t in stored["targets"] if t["kind"] == "threshold"]
    assert threshold["cost_curve"][0].keys() == {"threshold", "fp", "fn"}


def test_the_table_holds_every_manifest():
    targets = targets_of(finding_tables.full_tables())
    table = targets_table(targets)
    assert table["target"].unique().tolist() == [target.id for target in targets]
    assert len(table) == sum(len(target.images) for target in targets)
    for target in targets:
        stored = target.manifest_json()
        assert json.loads(json.dumps(stored)) == stored
        assert len(stored["images"]) == len(target.images)
    assert targets_table([]).empty


def test_targets_stay_the_same():
    first, again = (targets_of(finding_tables.full_tables()) for _ in range(2))
    assert json.dumps(targets_json(first)) == json.dumps(targets_json(again))
    pd.testing.assert_frame_equal(targets_table(first), targets_table(again))


def test_hostile_names_stay_text():
    rude = replace(
        finding_tables.full_tables(), class_names=("</script>\u202e\n", "{{ 7 * 7 }}" + "x" * 300)
    )
    for target in targets_of(rude):
        for text in (target.title, target.text, target.refuted_by):
            assert text.isprintable()
            assert len(text) < 700
        if target.recipe:
            compile(target.recipe, "recipe.py", "exec")
