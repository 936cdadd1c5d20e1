"""How a run ended: words, exit code, and a summary for scripts."""

import json
import shutil
from pathlib import Path
from typing import Any

import drawn_set
import pytest

import audit
from audit.ending import Ending, end_of, failure
from audit.errors import ModelError
from audit.stopping import Stopped

ACCURACY = 1 - drawn_set.N_ERRORS / drawn_set.N_IMAGES  # 46 of 60


def changed(finished: Path, path: Path, **changes: Any) -> audit.Run:
    """Copy a run and change its manifest: options, how many are unreadable, the warnings."""
    shutil.copytree(finished, path, ignore=shutil.ignore_patterns("report", "explanations"))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["data"]["n_unreadable"] = changes.pop("n_unreadable", 0)
    manifest["warnings"] = changes.pop("warnings", [])
    manifest["config"] |= changes
    (path / "manifest.json").write_text(json.dumps(manifest))
    return audit.Run(path)


UNEXPLAINED = [{"kind": "unexplained", "text": "2 images could not be read again."}]
UNTESTED = [{"kind": "untested", "text": "2 errors could not be read again."}]
KEPT = {"fail_under": {"accuracy": 0.7}}
MISSED = {"fail_under": {"accuracy": 0.7, "recall": 0.99}}


@pytest.mark.parametrize(
    ("changes", "exit_code", "labels"),
    [
        ({}, 0, ["finished"]),
        ({"n_unreadable": 3}, 3, ["LEFT OUT", "finished"]),
        ({"n_unreadable": 3, "max_unreadable": 3}, 0, ["finished"]),
        ({"warnings": UNEXPLAINED}, 3, ["LEFT OUT", "finished"]),
        ({"warnings": UNTESTED}, 3, ["LEFT OUT", "finished"]),
        (KEPT, 0, ["gate kept", "finished"]),
        (MISSED, 4, ["gate kept", "GATE MISSED", "finished"]),
        (
            MISSED | {"n_unreadable": 1, "warnings": UNEXPLAINED},
            4,
            ["LEFT OUT", "LEFT OUT", "gate kept", "GATE MISSED", "finished"],
        ),
    ],
)
def test_the_exit_code_says_the_worst_and_the_notes_say_all(
    changes: dict[str, Any], exit_code: int, labels: list[str], drawn_run: Path, tmp_path: Path
):
    ending = end_of(changed(drawn_run, tmp_path / "run", **changes))
    assert ending.exit_code == exit_code
    assert [label for label, _ in ending.notes] == labels
    assert (f"(exit code {exit_code})" in ending.notes[-1][1]) == (exit_code != 0)
    assert ending.summary["exit_code"] == exit_code


def test_the_words_say_what_how_many_and_which_limit(drawn_run: Path, tmp_path: Path):
    changes = {"fail_under": {"accuracy": 0.8}, "n_unreadable": 3, "max_unreadable": 1}
    ending = end_of(changed(drawn_run, tmp_path / "run", **changes))
    left_out, gate, finished = (text for _, text in ending.notes)
    assert left_out.startswith("3 files could not be read, `--max-unreadable` lets 1 pass;")
    assert gate.startswith(f"accuracy is {ACCURACY:.4f} [0.6")
    assert gate.endswith("], below 0.8")
    assert finished == "the model misses a limit of `--fail-under` (exit code 4)"


def test_the_summary_is_that_of_show_and_more(drawn_run: Path):
    run = audit.Run(drawn_run)
    more = {"status": "done", "exit_code": 0, "run": str(drawn_run), "error": None}
    assert end_of(run) == Ending(
        "done", 0, (("finished", "nothing was left out"),), run.summary() | more
    )


@pytest.mark.parametrize(
    ("exc", "status", "text"),
    [
        (ModelError("No."), "failed", "No."),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
        (Stopped(15), "stopped", "Stopped: SIGTERM"),
    ],
)
def test_a_failure_says_why_and_how_far_it_came(
    exc: BaseException, status: str, text: str, drawn_run: Path, tmp_path: Path
):
    ending = failure(exc, drawn_run, 9)
    assert (ending.status, ending.exit_code) == (status, 9)
    assert ending.summary["accuracy"] == pytest.approx(ACCURACY)
    more = {"status": status, "exit_code": 9, "run": str(tmp_path / "none"), "error": text}
    assert failure(exc, tmp_path / "none", 9).summary == more


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format_version": 1}'])
def test_a_broken_run_is_no_second_failure(content: str, tmp_path: Path):
    (tmp_path / "manifest.json").write_text(content)
    assert failure(ModelError("No."), tmp_path).summary["error"] == "No."
