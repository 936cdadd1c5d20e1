"""The files of a comparison."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compare_fixture import binary_scores, write_run

from audit.compare.compare_folder import COLUMNS, check_out, write_comparison
from audit.compare.comparison import Comparison, compare_runs
from audit.errors import RunFolderError

HOSTILE = ("=cmd()", "dogs")


def two_steps(tmp_path: Path) -> Comparison:
    runs = [
        write_run(
            tmp_path / name,
            [0, 0, 1],
            binary_scores(p_dogs),
            class_names=HOSTILE,
            paths=["+a,b.png", 'c"\n.png', "d.png"],
        )
        for name, p_dogs in (
            ("a", [0.9, 0.9, 0.9]),
            ("b", [0.1, 0.9, 0.9]),
            ("c", [0.1, 0.2, 0.3]),
        )
    ]
    return compare_runs(runs, ["-1", "b", "c"])


def test_the_tables_have_every_changed_image(tmp_path: Path):
    comparison = two_steps(tmp_path)
    path = write_comparison(comparison, tmp_path / "out")
    assert path == tmp_path / "out" / "comparison.json"
    assert json.loads(path.read_text()) == comparison.summary()
    fixed, broken = (pd.read_csv(path.with_name(f"{name}.csv")) for name in ("fixed", "broken"))
    assert tuple(fixed.columns) == COLUMNS
    assert fixed["to_run"].tolist() == ["b", "c", "c"]
    assert fixed["path"].tolist() == ["./+a,b.png", "./+a,b.png", 'c"\n.png']
    assert fixed["from_run"].unique().tolist() == ["'-1"]
    assert fixed["true_class"].unique().tolist() == ["'=cmd()"]
    assert np.allclose(fixed["p_true_after"], [0.9, 0.9, 0.8])
    assert broken["path"].tolist() == ["d.png"]
    assert broken["after"].tolist() == ["'=cmd()"]


def test_without_changes_the_tables_have_their_columns(tmp_path: Path):
    run = write_run(tmp_path / "a", [0, 1], binary_scores([0.1, 0.9]))
    path = write_comparison(compare_runs([run, run]), tmp_path / "out")
    assert path.with_name("fixed.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_a_comparison_is_written_over_the_one_before(tmp_path: Path):
    comparison = two_steps(tmp_path)
    first = write_comparison(comparison, tmp_path / "out").read_bytes()
    assert write_comparison(comparison, tmp_path / "out").read_bytes() == first
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["broken.csv", "comparison.json", "fixed.csv"]


def test_nothing_of_the_users_is_written_over(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty")
    check_out(tmp_path / "new" / "folder")
    for path, kind in ((tmp_path, "folder with other files"), (tmp_path / "file", "file")):
        with pytest.raises(RunFolderError, match=f"Received: a {kind}"):
            check_out(path)
