"""What got worse, in words."""

from pathlib import Path

from compare_fixture import binary_scores, write_run

from audit.compare.comparison import compare_runs
from audit.compare.regressions import find_regressions
from audit.compare_command import KINDS

NAMES = ("cats", "\u202edogs")


def found(tmp_path: Path, before: list[float], after: list[float]) -> dict[str, list[str]]:
    y_true = [0] * 20 + [1] * 20
    wrong = [row for row in range(20) if after[row] > 0.5]
    a = write_run(tmp_path / "a", y_true, binary_scores(before), class_names=NAMES)
    patterns = {1: wrong} if wrong else {}
    b = write_run(
        tmp_path / "b", y_true, binary_scores(after), class_names=NAMES, patterns=patterns
    )
    comparison = compare_runs([a, b])
    return find_regressions(comparison, comparison.steps[0])


def test_a_worse_model_is_a_regression_of_each_kind(tmp_path: Path):
    good = [0.1] * 20 + [0.9] * 20
    worse = found(tmp_path, good, [0.8] * 10 + good[10:])
    assert tuple(worse) == KINDS
    assert worse["accuracy"] == ["10 of 40 images broke and 0 were fixed (p = 0.002)"]
    assert worse["class"] == ["class cats: 10 of 20 images broke and 0 were fixed (q = 0.004)"]
    assert worse["pattern"] == [
        "new pattern 1: pattern 1; 10 of its 10 errors were right before (q = 0.002)"
    ]


def test_chance_and_gains_are_none(tmp_path: Path):
    good = [0.1] * 20 + [0.9] * 20
    bad = [0.8] * 10 + good[10:]
    nothing = {kind: [] for kind in KINDS}
    assert found(tmp_path / "gain", bad, good) == nothing
    assert found(tmp_path / "same", bad, bad) == nothing
    assert found(tmp_path / "chance", good, [0.8] * 3 + good[3:]) == nothing
