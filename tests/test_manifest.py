"""A run begins, goes on, or is refused; and the folder is left as it was found."""

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


def test_how_many_files_may_be_unreadable_can_change(tmp_path):
    folder = RunFolder(tmp_path)
    begin(folder)
    with_a_shard(folder)
    assert begin(folder, max_unreadable=5)["config"]["max_unreadable"] == 5
    assert folder.read_manifest()["config"]["max_unreadable"] == 5


def test_without_predictions_there_is_nothing_to_keep(tmp_path):
    folder = RunFolder(tmp_path)
    begin(folder)
    assert begin(folder, seed=3)["config"]["seed"] == 3


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunFolderError, match="not empty"), open_log(RunFolder(tmp_path)):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_the_log_tells_why_a_run_stopped(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="the reason"), open_log(folder):
        raise ValueError("the reason")
    assert "stopped: ValueError: the reason" in folder.log_path.read_text()
