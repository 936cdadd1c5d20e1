"""A run begins, goes on, or is refused; and the folder is left as it was found."""

import logging

import pandas as pd
import pytest

from audit.config import make_config
from audit.errors import RunFolderError
from audit.manifest import STAGES, open_log, open_manifest
from audit.predict.listing import Listing, make_listing
from audit.run_folder import RunFolder

FINGERPRINTS = {"model": "m", "data": "d"}


def listing() -> Listing:
    labelled = pd.DataFrame({"path": ["a/1.png", "b/2.png"], "label": ["a", "b"]})
    return make_listing("folders", None, labelled, ("a", "b"), [("x.txt", "skipped", ".txt")])


def begin(folder: RunFolder, fingerprints: dict[str, str] = FINGERPRINTS, **options: object):
    config = make_config(options).model_dump(mode="json")
    return open_manifest(folder, listing(), "val", fingerprints, config)


def with_a_shard(folder: RunFolder) -> RunFolder:
    path = folder.shard_path("predictions", 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return folder


def test_a_new_run_says_what_is_known_before_the_model_is_loaded(tmp_path):
    manifest = begin(RunFolder(tmp_path))
    assert manifest["data"] == {
        "name": "val",
        "kind": "folders",
        "n_images": 2,
        "n_undefined": 0,
        "n_skipped": 1,
        "n_unreadable": 0,
    }
    assert manifest["status"] == "running" and manifest["model"] is None
    assert list(manifest["stages"]) == list(STAGES)
    assert RunFolder(tmp_path).read_manifest() == manifest


def test_a_run_with_predictions_goes_on_as_it_was(tmp_path):
    folder = RunFolder(tmp_path)
    first = begin(folder)
    with_a_shard(folder)
    assert begin(folder) == first


@pytest.mark.parametrize(
    ("fingerprints", "options", "named"),
    [
        ({"model": "other", "data": "d"}, {}, "the model"),
        ({"model": "m", "data": "other"}, {}, "the data"),
        (FINGERPRINTS, {"seed": 3}, "--seed"),
    ],
)
def test_what_changed_is_named(tmp_path, fingerprints, options, named):
    folder = RunFolder(tmp_path)
    begin(folder)
    with_a_shard(folder)
    with pytest.raises(RunFolderError, match=named):
        begin(folder, fingerprints, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_unreadable", 5), ("memory", "1GB"), ("fail_under", {"accuracy": 0.5})],
)
def test_options_that_change_no_result_can_change(tmp_path, name, value):
    folder = RunFolder(tmp_path)
    begin(folder)
    with_a_shard(folder)
    assert begin(folder, **{name: value})["config"][name] == value
    assert folder.read_manifest()["config"][name] == value


def test_without_predictions_there_is_nothing_to_keep(tmp_path):
    folder = RunFolder(tmp_path)
    begin(folder)
    assert begin(folder, seed=3)["config"]["seed"] == 3


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunFolderError, match="not empty"), open_log(RunFolder(tmp_path)):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_second_run_into_a_folder_is_refused_and_leaves_no_trace(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with open_log(folder):
        with pytest.raises(RunFolderError, match="is in use"), open_log(RunFolder(folder.path)):
            pass
        logging.getLogger("audit").info("still mine")
    assert folder.log_path.read_text().endswith("INFO still mine\n")
    with open_log(folder):
        pass


def test_a_log_that_cannot_be_written_is_silent(tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_log(RunFolder(tmp_path / "run")):
        monkeypatch.setattr("logging.StreamHandler.flush", full)
        logging.getLogger("audit").info("lost")
    assert capsys.readouterr() == ("", "")


def test_the_log_tells_why_a_run_stopped(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="the reason"), open_log(folder):
        raise ValueError("the reason")
    assert "stopped: ValueError: the reason" in folder.log_path.read_text()
