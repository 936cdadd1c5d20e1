"""Findings of a whole run: their order, their honesty, and that they stay the same."""

import json
from dataclasses import replace
from pathlib import Path

import finding_tables
import numpy as np
import pandas as pd
import pytest
from finding_tables import pattern, slice_row, tables

from audit.diagnose.findings import find_findings, findings_json
from audit.diagnose.tables import Tables
from audit.diagnose.targets import rank_targets, targets_json
from audit.run_folder import RunFolder

KINDS = {
    "pattern",
    "slice",
    "label",
    "probe",
    "threshold",
    "imbalance",
    "duplicates",
    "unreadable",
}


def test_findings_come_by_score_and_are_numbered():
    findings = find_findings(finding_tables.full_tables())
    assert [finding.id for finding in findings] == [f"F{n + 1}" for n in range(len(findings))]
    scores = [finding.score for finding in findings]
    assert scores == sorted(scores, reverse=True)
    assert [finding.kind for finding in findings] == [
        "pattern",
        "slice",
        "threshold",
        "duplicates",
        "label",
        "probe",
        "probe",
        "unreadable",
    ]
    assert {finding.kind for finding in findings} <= KINDS


def test_no_finding_is_without_a_test_an_interval_or_a_count():
    findings = find_findings(finding_tables.full_tables())
    findings += find_findings(tables())  # where a class is uneven
    assert {finding.kind for finding in findings} == KINDS
    for finding in findings:
        assert finding.confirmed_by
        assert finding.text.endswith(".")
        estimate = finding.estimate
        assert estimate.low <= estimate.value <= estimate.high
        assert all(np.isfinite([estimate.low, estimate.value, estimate.high]))
        if finding.q_value is None:
            assert finding.kind in {"label", "duplicates", "unreadable"}
        else:
            assert finding.q_value < 0.05


def test_nothing_that_failed_its_test_is_found():
    failed = finding_tables.full_tables()
    failed = replace(
        failed,
        positive=None,
        patterns=pd.DataFrame([pattern(q_value=0.2), pattern(pattern=2, verdict="not shown")]),
        slices=pd.DataFrame([slice_row(q_value=0.3, confirmed=False)]),
        label_issues=pd.DataFrame(),
        probes=finding_tables.probes(),
        unreadable=pd.DataFrame(),
    )
    failed.patterns["q_value"] = 0.2
    assert [finding.kind for finding in find_findings(failed)] == ["imbalance"]


def test_missing_tables_are_fine():
    no_predictions = pd.DataFrame(columns=["image_id", "path", "y_true", "y_pred", "p_pred"])
    assert find_findings(Tables(no_predictions, ("cats", "dogs"))) == []
    right = finding_tables.predictions().query("y_true == y_pred")
    assert find_findings(tables(predictions=right)) == []
    assert [f.kind for f in find_findings(tables(positive=None))] == ["imbalance"]


def test_the_columns_alone_of_every_table_are_fine_too():
    full = finding_tables.full_tables()
    names = (
        *("focus", "patterns", "slices", "label_issues", "probes", "unreadable", "properties"),
        "metadata",
    )
    empty = replace(full, **{name: getattr(full, name).iloc[:0] for name in names})
    assert {finding.kind for finding in find_findings(empty)} == {"imbalance", "threshold"}


def test_a_cause_takes_the_wind_out_of_what_follows_from_it():
    # No focus table: the exemplars are all of its errors that are known.
    whole = pattern(exemplars=list(range(84)), n_errors=84)
    with_cause = tables(patterns=pd.DataFrame([whole]), positive=None)
    assert [finding.kind for finding in find_findings(with_cause)] == ["pattern"]
    assert [finding.kind for finding in find_findings(tables(positive=None))] == ["imbalance"]


def test_the_order_of_rows_does_not_matter():
    full = finding_tables.full_tables()
    second = pattern(pattern=2, name="centre", n_errors=12, exemplars=[300, 301])
    full = replace(full, patterns=pd.DataFrame([pattern(), second]))
    shuffled = replace(
        full,
        **{
            name: getattr(full, name).sample(frac=1, random_state=3)
            for name in ("predictions", "focus", "patterns", "label_issues", "properties")
        },
    )
    assert findings_json(find_findings(shuffled)) == findings_json(find_findings(full))


def test_tables_read_back_from_the_run_folder_say_the_same(tmp_path: Path):
    full, folder = finding_tables.full_tables(), RunFolder(tmp_path)
    stored = {}
    for name in ("patterns", "slices", "label_issues", "probes", "unreadable", "focus"):
        folder.write_table(name, getattr(full, name))
        stored[name] = folder.read_table(name)  # lists come back as arrays
    read = replace(full, **stored)
    assert findings_json(find_findings(read)) == findings_json(find_findings(full))
    targets, again = (rank_targets(find_findings(given), given) for given in (full, read))
    assert targets_json(targets) == targets_json(again)


def test_the_same_tables_give_the_same_bytes():
    first, again = (
        json.dumps(findings_json(find_findings(finding_tables.full_tables(), seed=4)))
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("n_times", [60])
def test_findings_are_quick_where_there_are_many_errors(n_times: int):
    import time

    block = finding_tables.predictions()
    many = pd.concat([block.assign(image_id=block["image_id"] + 600 * n) for n in range(n_times)])
    issues = finding_tables.label_issues([(i, "suspected label", 1, -1) for i in range(84)])
    begin = time.perf_counter()
    find_findings(tables(predictions=many, label_issues=issues))
    assert time.perf_counter() - begin < 2  # 0.1 s where nothing else runs
