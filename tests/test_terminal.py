"""Lines for a terminal."""

from pathlib import Path

import pytest

import audit
from audit.terminal import line, print_run


def test_a_line_is_a_label_and_a_text(capsys: pytest.CaptureFixture[str]):
    line("finished", "nothing was left out")
    line("GATE MISSED", 5)
    assert capsys.readouterr().out == "finished    nothing was left out\nGATE MISSED 5\n"


def test_a_run_without_metrics_says_how_to_go_on(
    drawn_run: Path, capsys: pytest.CaptureFixture[str]
):
    summary = audit.Run(drawn_run).summary() | {"accuracy": None, "status": "running"}
    print_run(summary)
    _, status = capsys.readouterr().out.splitlines()
    assert status == ("status      running; no metrics yet. Run the same command again to go on.")


def test_a_summary_fits_a_terminal(drawn_run: Path, capsys: pytest.CaptureFixture[str]):
    print_run(audit.Run(drawn_run).summary())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images      60 (0 unreadable, 1 skipped)"
    assert all(text[:12].strip() and text[12] != " " for text in lines)
