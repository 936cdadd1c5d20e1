"""What a stage is given: warnings that reach everybody once, bars that say where an audit is."""

import json
from types import SimpleNamespace

import pytest

from audit.config import AuditConfig
from audit.run_folder import RunFolder
from audit.stages.context import Context


@pytest.fixture
def context(tmp_path):
    return Context(None, RunFolder(tmp_path), AuditConfig(), True, {"warnings": []})


def test_a_warning_is_kept_once_and_said_each_time(context, capsys, caplog):
    caplog.set_level("WARNING", "audit")
    for _ in range(2):
        context.warn("scaling", "Pixels look wrong.")
    assert context.manifest["warnings"] == [{"kind": "scaling", "text": "Pixels look wrong."}]
    assert capsys.readouterr().err.count("WARNING: Pixels look wrong.") == 2
    assert [record.getMessage() for record in caplog.records] == ["Pixels look wrong."] * 2


def test_a_quiet_run_writes_nothing_on_stderr(context, capsys):
    context.progress = False
    context.warn("scaling", "Pixels look wrong.")
    with context.bar("predict", 10) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
    assert len(context.manifest["warnings"]) == 1


def test_a_bar_says_which_stage_of_how_many(context, capsys):
    with context.bar("metrics", 2, unit="tables") as bar:
        bar.update(2)
    said = capsys.readouterr().err
    assert "metrics (stage 3 of 11)" in said
    assert "2/2" in said and "tables" in said


def test_the_manifest_on_disk_is_the_one_in_hand(context):
    context.manifest["status"] = "running"
    context.save_manifest()
    assert json.loads(context.folder.manifest_path.read_text("utf-8")) == context.manifest


def test_too_little_memory_for_a_batch_of_predictions_is_said_and_kept(context, capsys):
    context.inputs = SimpleNamespace(predictor=SimpleNamespace())
    context.predictor.on_halved(8)
    (warning,) = json.loads(context.folder.manifest_path.read_text("utf-8"))["warnings"]
    assert warning["kind"] == "memory"
    assert "8 images are shown to the model at once" in warning["text"]
    assert warning["text"] in capsys.readouterr().err
