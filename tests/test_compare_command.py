"""The command that compares: what it prints and writes, and how it ends."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from compare_fixture import binary_scores, write_run
from test_comparison import write_after, write_before

from audit.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_before(tmp_path / "before"), write_after(tmp_path / "after")


def test_it_prints_what_changed_and_where_it_is(runs: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "out"
    result = call(*runs, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "images      70 in all runs"
    assert lines[1].startswith("run         before: 12 errors, accuracy 82.86% [")
    assert "step        before → after" in lines
    assert ("outcomes    11 fixed, 1 broken, 1 still wrong, 57 still right (p = 0.006)") in lines
    assert any(text.startswith("metric      accuracy 0.8286 → 0.9714, +0.1429 [") for text in lines)
    assert any(
        text.startswith("slice       bars: yes: 6 → ") and " errors of 6 kept back, +" in text
        for text in lines
    )
    assert (
        "pattern     1 pattern 1: of 12 errors 11 now right, against 0 the other way: gone"
        " (q < 0.001)"
    ) in lines
    assert lines[-1] == str(out / "index.html")
    assert all(text[:12].strip() and text[12] != " " for text in lines[:-1])
    assert sorted(file.name for file in out.iterdir()) == [
        "broken.csv",
        "comparison.json",
        "fixed.csv",
        "images",
        "images.html",
        "index.html",
        "static",
    ]


def test_json_is_all_that_it_prints(runs: tuple[Path, Path], tmp_path: Path):
    result = call(*runs, "--out", tmp_path / "out", "--json", "--labels", "0 %, 100 %")
    printed = json.loads(result.stdout)
    assert printed.pop("regressions") == []
    assert printed == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [run["label"] for run in printed["runs"]] == ["0 %", "100 %"]


def test_a_regression_ends_with_code_four_if_it_is_asked_for(
    runs: tuple[Path, Path], tmp_path: Path
):
    better, worse = runs, runs[::-1]
    out = tmp_path / "out"
    for kind, code in (
        ("regression", 4),
        ("regression=accuracy", 4),
        ("regression=class", 4),
        ("regression=pattern", 4),
    ):
        result = call(*worse, "--out", out, "--fail-on", kind)
        assert result.exit_code == code, kind
        assert "REGRESSION" in result.stdout
        assert call(*better, "--out", out, "--fail-on", kind).exit_code == 0
    assert call(*worse, "--out", out).exit_code == 0
    assert call(*worse, "--out", out, "--fail-on", "better").exit_code == 2


def test_of_a_series_the_last_run_counts(runs: tuple[Path, Path], tmp_path: Path):
    fine, bad = runs[::-1]
    out = tmp_path / "out"
    assert call(fine, fine, bad, "--out", out, "--fail-on", "regression").exit_code == 4
    assert call(fine, bad, fine, "--out", out, "--fail-on", "regression").exit_code == 0


def test_one_kind_of_regression_is_not_another(tmp_path: Path):
    y_true = [0] * 20 + [1] * 20
    good = [0.1] * 20 + [0.9] * 20
    a = write_run(tmp_path / "a", y_true, binary_scores(good))
    b = write_run(tmp_path / "b", y_true, binary_scores([0.8] * 10 + good[10:]))
    out = tmp_path / "out"
    codes = [
        call(a, b, "--out", out, "--fail-on", f"regression={kind}").exit_code
        for kind in ("accuracy", "class", "pattern")
    ]
    assert codes == [4, 4, 0]


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path):
    names = ("\x1b[2Jcats", "\u202edogs\n")
    run = write_run(
        tmp_path / "a", [0, 1], binary_scores([0.9, 0.9]), class_names=names, patterns={1: [0]}
    )
    result = call(run, run, "--out", tmp_path / "out", "--labels", "\x1b[2J,\u202eb")
    assert result.exit_code == 0
    assert all(text.isprintable() for text in result.stdout.splitlines())


def test_what_cannot_be_compared_is_one_sentence(runs: tuple[Path, Path], tmp_path: Path):
    running = write_run(tmp_path / "running", [0], binary_scores([0.1]), status="running")
    out = tmp_path / "out"
    for arguments, message in (
        ((runs[0],), "needs two runs or more"),
        ((runs[0], running), "is not finished"),
        ((runs[0], tmp_path / "nothing"), "is not a run folder"),
        ((*runs, "--labels", "a"), "`--labels` cannot be used"),
    ):
        result = call(*arguments, "--out", out)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not out.exists()
    assert "not the folder of a comparison" in call(*runs, "--out", runs[0]).stderr


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


def test_it_can_be_shown_again(runs: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "out"
    printed = call(*runs, "--out", out)
    again = show(out)
    assert (again.exit_code, again.stdout) == (0, printed.stdout)
    assert json.loads(show(out, "--json").stdout) == json.loads(
        (out / "comparison.json").read_text()
    )


def test_a_comparison_of_another_version_is_not_shown(runs: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "out"
    call(*runs, "--out", out)
    found = json.loads((out / "comparison.json").read_text())
    (out / "comparison.json").write_text(json.dumps(found | {"format_version": 99}))
    result = show(out)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: `{out}` has another format. Received: format_version 99, this program reads 1. Use"
        " the version of gradcam-audit that made it, or a new folder.\n"
    )
