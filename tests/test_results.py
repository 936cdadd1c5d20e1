"""A finished run as an object, and the summary that scripts read."""

import json
import shutil
from pathlib import Path

import drawn_set
import numpy as np
import pytest
from finding_tables import diagnose_run

import audit
from audit.errors import RunFolderError
from audit.manifest import STAGES

KEYS = [
    "format_version",
    "status",
    "model",
    "method",
    "class_names",
    "positive_class",
    "n_images",
    "n_unreadable",
    "n_undefined",
    "n_skipped",
    "n_errors",
    "accuracy",
    "accuracy_interval",
    "false_positives",
    "false_negatives",
    "confusion",
    "n_explained_errors",
    "n_layers",
    "n_patterns",
    "patterns",
    "findings",
    "targets",
    "gates",
    "warnings",
    "report",
]


def stop_run(finished: Path, path: Path, stopped_in: str) -> Path:
    """Copy a finished run and make it look as if it had been stopped in a stage."""
    shutil.copytree(finished, path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"status": "running", "finished": None}
    for number, name in enumerate(STAGES[STAGES.index(stopped_in) :]):
        manifest["stages"][name] = {"state": "waiting" if number else "running", "seconds": None}
    if stopped_in in ("list", "predict"):
        manifest |= {"model": None, "positive_class": None}
    (path / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(path / "report")
    return path


@pytest.fixture
def run(drawn_run: Path) -> audit.Run:
    return audit.Run(drawn_run)


def test_the_summary_holds_what_scripts_need(run: audit.Run):
    summary = run.summary()
    assert list(summary) == KEYS
    assert json.loads(json.dumps(summary)) == summary  # nothing but plain values
    right = drawn_set.N_IMAGES - drawn_set.N_ERRORS
    assert summary["n_images"] == drawn_set.N_IMAGES
    assert summary["n_errors"] == drawn_set.N_ERRORS
    assert summary["accuracy"] == right / drawn_set.N_IMAGES
    low, high = summary["accuracy_interval"]
    assert low < summary["accuracy"] < high
    half = drawn_set.N_IMAGES // 2
    fp, fn = drawn_set.N_FALSE_POSITIVES, drawn_set.N_FALSE_NEGATIVES
    assert summary["confusion"] == [[half - fp, fp], [fn, half - fn]]  # rows are true
    assert (summary["false_positives"], summary["false_negatives"]) == (fp, fn)
    assert summary["n_explained_errors"] == drawn_set.N_ERRORS
    assert (summary["method"], summary["n_layers"]) == ("gradcam", 4)
    assert summary["report"] == str(run.report_path)


def test_the_patterns_of_the_summary_name_their_images(run: audit.Run):
    patterns = run.summary()["patterns"]
    assert len(patterns) == run.summary()["n_patterns"] == 2
    for pattern, (class_name, n_errors) in zip(
        patterns,
        [("left", drawn_set.N_FALSE_POSITIVES), ("right", drawn_set.N_FALSE_NEGATIVES)],
        strict=True,
    ):
        assert list(pattern) == ["id", "name", "n_errors", "images", "verdict"]
        assert pattern["n_errors"] == n_errors
        assert len(pattern["images"]) == min(n_errors, 10)
        assert all(path.startswith(f"{class_name}/fooled-") for path in pattern["images"])
    assert [pattern["id"] for pattern in patterns] == [1, 2]


def test_a_run_shows_its_tables(run: audit.Run):
    assert len(run.predictions) == drawn_set.N_IMAGES
    assert len(run.errors) == drawn_set.N_ERRORS
    assert (run.errors["y_true"] != run.errors["y_pred"]).all()
    np.testing.assert_allclose(np.stack(run.predictions["scores"]).sum(axis=1), 1, atol=1e-6)
    assert run.class_metrics["name"].tolist() == ["left", "right"]
    assert run.confusion["count"].sum() == drawn_set.N_IMAGES
    assert run.metrics["n_errors"] == drawn_set.N_ERRORS
    assert run.layers["layer"].iloc[-1] == "fused"
    assert run.unreadable["path"].tolist() == ["notes.txt"]
    is_error = run.focus["role"] == "error"
    assert is_error.sum() == 2 * drawn_set.N_ERRORS  # two maps each
    assert run.focus.loc[~is_error, "image_id"].nunique() == 60 - drawn_set.N_ERRORS
    assert run.report_path.read_text().startswith("<!")
    assert repr(run) == f"Run({str(run.path)!r})"


def test_findings_and_targets_are_in_the_summary_whole(drawn_run: Path, tmp_path: Path):
    run = audit.Run(diagnose_run(drawn_run, tmp_path / "run"))
    summary = run.summary()
    assert list(summary) == KEYS
    assert json.loads(json.dumps(summary)) == summary
    assert [finding["id"] for finding in summary["findings"]][:2] == ["F1", "F2"]
    assert summary["findings"] == run.findings
    assert [target["id"] for target in summary["targets"]][:2] == ["T1", "T2"]
    assert summary["targets"] == run.targets
    assert "keras.Sequential" in summary["targets"][1]["recipe"]


def test_a_diagnosed_run_shows_its_tables(drawn_run: Path, tmp_path: Path):
    run = audit.Run(diagnose_run(drawn_run, tmp_path / "run"))
    assert run.slices["name"].tolist() == ["sharpness below 12"]
    assert len(run.label_issues) == 5
    assert len(run.probes) == 45


def test_before_the_findings_there_are_none(drawn_run: Path, tmp_path: Path):
    path = diagnose_run(drawn_run, tmp_path / "run")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["stages"]["findings"]["state"] = "running"
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "targets.json").unlink()
    run = audit.Run(path)
    assert (run.summary()["findings"], run.summary()["targets"]) == (None, None)
    assert run.findings
    assert run.targets == []


def test_a_fused_map_can_be_looked_up(run: audit.Run):
    image_id = int(run.errors["image_id"].iloc[0])
    for explained_class in (0, 1):
        cam = run.fused_map(image_id, explained_class)
        assert cam.shape == (32, 32)
        assert cam.dtype == np.uint8
        assert cam.max() == 255
    with pytest.raises(KeyError):
        run.fused_map(10_000, 0)


@pytest.mark.parametrize("stopped_in", STAGES)
def test_a_run_that_was_stopped_has_a_summary_too(stopped_in: str, drawn_run: Path, tmp_path: Path):
    path = stop_run(drawn_run, tmp_path / "run", stopped_in)
    summary = audit.Run(path).summary()
    assert list(summary) == KEYS
    assert summary["status"] == "running"
    assert summary["report"] is None
    has_metrics = STAGES.index(stopped_in) > STAGES.index("metrics")
    has_patterns = STAGES.index(stopped_in) > STAGES.index("patterns")
    assert (summary["accuracy"] is not None) == has_metrics
    assert (summary["patterns"] is not None) == has_patterns
    assert (summary["n_layers"] is not None) == has_patterns


def test_a_matrix_of_very_many_classes_is_left_to_the_table(
    drawn_run: Path, monkeypatch: pytest.MonkeyPatch
):
    assert np.sum(audit.Run(drawn_run).summary()["confusion"]) == drawn_set.N_IMAGES
    monkeypatch.setattr("audit.results._MOST_CLASSES_IN_A_MATRIX", 1)
    assert audit.Run(drawn_run).summary()["confusion"] is None


@pytest.mark.parametrize("stopped_in", ["predict", "explain", None])
def test_a_notebook_shows_the_summary(stopped_in: str | None, drawn_run: Path, tmp_path: Path):
    path = stop_run(drawn_run, tmp_path / "run", stopped_in) if stopped_in else drawn_run
    html = audit.Run(path)._repr_html_()
    assert "corners.keras" in html or stopped_in == "predict"  # the model's name comes with it
    assert f"{drawn_set.N_IMAGES}" in html


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        audit.Run(tmp_path)
