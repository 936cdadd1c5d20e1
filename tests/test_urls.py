"""Whole audits behind URLs: the files of a run are those of the same audit on this machine."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_set
import fsspec
import pandas as pd
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem

import audit
from audit.cli import main
from audit.compare.comparison import compare_runs
from audit.config import make_config
from audit.errors import DatasetError, ModelError, PlaceError, RunFolderError
from audit.inputs import Inputs
from audit.manifest import STAGES
from audit.places import Place, Remote
from audit.predict.listing import list_images
from audit.report.render import ReportOptions, render_report
from audit.report.share import write_zip
from audit.report.single_file import write_single_file
from audit.results import Run
from audit.run_folder import RunFolder, ShardSpec
from audit.run_lock import locked
from audit.stages.context import Context
from audit.stages.prediction import make_predict_worker
from audit.stages.remote import Recipe, site_of

TIMED = {"manifest.json", "logs/run.log", "logs/times.js"}
"""The files that tell when a run was made and how long it took."""
LOCK = {"logs/run.lock"}
"""A lock of this machine stays, one in a store is removed."""

Upload = Callable[[Path, str], Remote]


def all_files(folder: Place) -> dict[str, bytes]:
    if isinstance(folder, Remote):
        return {name: (folder / name).read_bytes() for name in folder.sizes()}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_same_run(first: Place, second: Place) -> None:
    """Two run folders hold the same files, but for times and the lock."""
    one, other = all_files(first), all_files(second)
    assert one.keys() - LOCK == other.keys() - LOCK
    assert {name for name in one if name in other and one[name] != other[name]} <= TIMED
    manifests = [json.loads(files["manifest.json"]) for files in (one, other)]
    for manifest in manifests:
        for timed in ("started", "finished", "stages"):
            del manifest[timed]
        del manifest["model"]["path"]
    assert manifests[0] == manifests[1]


def run_drawn(model: Any, data: Any, out: Any, **options: Any) -> Run:
    return audit.run(model, data, out, progress=False, **(drawn_set.SHARDS | options))


@pytest.fixture
def upload(bucket: Remote) -> Upload:
    def to_store(path: Path, name: str) -> Remote:
        place = bucket / name
        fsspec.filesystem("memory").put(str(path), place.key, recursive=path.is_dir())
        return place

    return to_store


@pytest.fixture
def stored(drawn_model: Path, drawn_data: Path, upload: Upload) -> tuple[str, str]:
    """The URLs of the drawn model and of the drawn images."""
    return str(upload(drawn_model, drawn_model.name)), str(upload(drawn_data, "val"))


def pretend_stopped(run: Remote, first_open: str) -> None:
    """Make a finished run look as if it had been killed inside a stage."""
    folder = RunFolder(run)
    manifest = folder.read_manifest() | {"status": "running", "finished": None}
    for number, name in enumerate(STAGES[STAGES.index(first_open) :]):
        manifest["stages"][name]["state"] = "waiting" if number else "running"
    folder.write_manifest(manifest)


def test_a_file_url_is_the_path_itself(
    drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    out = tmp_path / "my run"
    result = run_drawn(drawn_model.as_uri(), drawn_data.as_uri(), out.as_uri())
    assert result.path == out
    assert_same_run(drawn_run, out)
    assert Run(out.as_uri()).summary()["report"] == str(out / "report" / "index.html")


def test_an_audit_in_a_store_is_that_of_this_machine(
    stored: tuple[str, str], drawn_run: Path, bucket: Remote
):
    result = run_drawn(*stored, f"{bucket}/run")
    assert result.path == bucket / "run"
    assert result.report_path == bucket / "run/report/index.html"
    assert_same_run(drawn_run, bucket / "run")
    assert result.manifest["model"]["path"] == stored[0]
    assert not any(b"memory://" in content for content in all_files(bucket / "run/report").values())
    before = all_files(bucket / "run")
    run_drawn(*stored, f"{bucket}/run")
    after = all_files(bucket / "run")
    assert {name for name in before if before[name] != after[name]} <= {"logs/run.log"}


def test_images_in_a_store_can_be_audited_into_a_folder_here(
    stored: tuple[str, str], drawn_model: Path, drawn_run: Path, tmp_path: Path
):
    run_drawn(drawn_model, stored[1], tmp_path / "run")
    assert_same_run(drawn_run, tmp_path / "run")


@pytest.mark.parametrize(
    ("stage", "missing", "torn"),
    [
        ("predict", "predictions/shard-000001.parquet", "predictions/shard-000002.parquet"),
        ("explain", "explanations/shard-000001.parquet", "explanations/shard-000002.parquet"),
        ("report", "report/index.html", "report/run.html"),
    ],
)
def test_a_run_in_a_store_goes_on_where_it_was_stopped(
    stage: str,
    missing: str,
    torn: str,
    stored: tuple[str, str],
    drawn_run: Path,
    upload: Upload,
):
    run = upload(drawn_run, "run")
    (run / "logs/run.lock").unlink()
    pretend_stopped(run, stage)
    (run / missing).unlink()
    (run / torn).write_bytes(b"torn")
    (run / "report/old.html").write_bytes(b"of an earlier report")
    store, kept = fsspec.filesystem("memory"), run / "predictions/shard-000000.parquet"
    written = store.created(kept.key)
    run_drawn(*stored, run)
    assert_same_run(drawn_run, run)
    assert store.created(kept.key) == written
    assert "resumed" in (run / "logs/run.log").read_text("utf-8")


def test_a_store_that_is_gone_for_a_while_ends_the_run_which_then_goes_on(
    stored: tuple[str, str],
    drawn_run: Path,
    bucket: Remote,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("audit.places._WAITS", (0,))
    put_file, left = MemoryFileSystem.put_file, 0

    def fail(store: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("away")
        put_file(store, *args, **kwargs)

    for left in (0, 2, 7, 14, 40):  # noqa: B007
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "put_file", fail)
            with pytest.raises(PlaceError, match=r"cannot be reached\. Received: away\."):
                run_drawn(*stored, bucket / "run")
        assert not (bucket / "run/logs/run.lock").exists()
    run_drawn(*stored, bucket / "run")
    assert_same_run(drawn_run, bucket / "run")


def test_a_run_of_something_else_is_refused(
    stored: tuple[str, str], drawn_run: Path, upload: Upload
):
    run = upload(drawn_run, "run")
    (run / "logs/run.lock").unlink()
    with pytest.raises(RunFolderError, match="holds a run of something else"):
        run_drawn(*stored, run, seed=9)
    with pytest.raises(RunFolderError, match="is not empty and not a run folder"):
        run_drawn(*stored, upload(drawn_run / "targets", "mine"))
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        run_drawn(*stored, stored[0])


def test_what_is_not_there_is_said(stored: tuple[str, str], bucket: Remote, tmp_path: Path):
    with pytest.raises(DatasetError, match=r"There is no data at `memory://.*/nothing`"):
        run_drawn(stored[0], f"{bucket}/nothing", tmp_path / "run")
    with pytest.raises(ModelError, match=r"There is no model at `memory://.*/nothing`"):
        run_drawn(f"{bucket}/nothing", stored[1], tmp_path / "run")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Run(stored[1])


# Manifests


def test_a_manifest_in_a_store_is_that_of_this_machine(
    drawn_data: Path, upload: Upload, tmp_path: Path
):
    paths = sorted(path.relative_to(drawn_data).as_posix() for path in drawn_data.rglob("*.png"))
    rows = pd.DataFrame({"path": paths, "label": [path.partition("/")[0] for path in paths]})
    copy = shutil.copytree(drawn_data, tmp_path / "val")
    rows.to_csv(copy / "list.csv", index=False)
    rows.to_parquet(copy / "list.parquet")
    there = upload(copy, "val")
    rows["path"] = [f"{there}/{path}" for path in paths]  # As a store's own tools list them.
    (there / "urls.csv").write_bytes(rows.to_csv(index=False).encode())
    here = list_images(copy / "list.csv")
    assert len(here.images) == drawn_set.N_IMAGES
    for name in ("list.csv", "list.parquet", "urls.csv"):
        listing = list_images(there / name)
        pd.testing.assert_frame_equal(listing.images, here.images)
        assert listing.fingerprint() == here.fingerprint()


@pytest.mark.parametrize(
    "path", ["../x.png", "a/../../x.png", "/etc/x.png", "memory://other/x.png", "s3://b/x.png"]
)
def test_a_manifest_that_points_out_of_its_folder_is_refused(path: str, bucket: Remote):
    (bucket / "val/list.csv").write_bytes(f"path,label\na.png,cat\n{path},dog\n".encode())
    with pytest.raises(DatasetError, match="points outside its own folder"):
        list_images(bucket / "val/list.csv")


# The other commands


def test_the_commands_take_urls(
    stored: tuple[str, str], drawn_run: Path, bucket: Remote, upload: Upload, tmp_path: Path
):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in drawn_set.SHARDS.items()]
    url = f"{bucket}/run"

    def command(*words: str) -> str:
        done = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert command("run", *stored, "--out", url, *options).endswith(f"{url}/report/index.html\n")
    assert_same_run(drawn_run, bucket / "run")
    shown = json.loads(command("show", url, "--json"))
    assert shown == Run(drawn_run).summary() | {"report": f"{url}/report/index.html"}
    assert command("report", url) == f"{url}/report/index.html\n"
    assert_same_run(drawn_run, bucket / "run")
    command("report", url, "--zip", str(tmp_path / "there.zip"))
    write_zip(RunFolder(drawn_run), tmp_path / "here.zip")
    sizes = [(tmp_path / f"{name}.zip").stat().st_size for name in ("there", "here")]
    assert abs(sizes[0] - sizes[1]) < 2000  # Folder's name and seconds differ.
    command("compare", url, str(drawn_run), "--out", str(tmp_path / "compared"))
    assert command("inspect", stored[0]).startswith("model       corners.keras")


def test_a_redacted_report_does_not_tell_the_url(drawn_run: Path, upload: Upload, tmp_path: Path):
    run = upload(drawn_run, "run")
    folder, out = RunFolder(run), tmp_path / "report.html"
    manifest = folder.read_manifest()
    manifest["model"]["path"] = f"{run}/corners.keras"
    manifest["warnings"].append({"kind": "test", "text": f"`{run}/corners.keras` is old."})
    folder.write_manifest(manifest)
    write_single_file(folder, out, budget=10**8, options=ReportOptions(redact=True))
    assert "is old." in out.read_text()
    assert "memory:" not in out.read_text()


def test_a_comparison_of_a_run_here_with_its_copy_there(drawn_run: Path, upload: Upload):
    (step,) = compare_runs([drawn_run, upload(drawn_run, "copy")]).steps
    assert not len(step.outcomes.fixed)
    assert not len(step.outcomes.broken)


def test_images_are_found_in_a_store(
    stored: tuple[str, str],
    drawn_run: Path,
    drawn_data: Path,
    drawn_model: Path,
    upload: Upload,
    tmp_path: Path,
):
    from audit.search.find import find_images

    run = upload(drawn_run, "run")
    there = find_images(run, "T1", stored[1], model=stored[0], progress=False)
    assert str(there.csv_path) == f"{run}/find/T1/found.csv"
    here = find_images(
        drawn_run, "T1", drawn_data, model=drawn_model, out=tmp_path / "found", progress=False
    )
    pd.testing.assert_frame_equal(here.table, there.table)
    assert all_files(run / "find/T1") == all_files(tmp_path / "found")
    with pytest.raises(RunFolderError, match="would be kept in the pool"):
        find_images(run, "T1", stored[1], model=stored[0], out=f"{stored[1]}/found", progress=False)


def test_a_report_is_replaced_whole_and_only_by_the_holder(drawn_run: Path, upload: Upload):
    run = upload(drawn_run, "run")
    (run / "logs/run.lock").unlink()
    (run / "report/old.html").write_bytes(b"of an earlier report")
    folder = RunFolder(run)
    with locked(folder):
        assert render_report(folder) == run / "report/index.html"
    assert_same_run(drawn_run, run)


def test_a_worker_is_sent_urls_and_writes_the_same_bytes(
    stored: tuple[str, str], drawn_run: Path, upload: Upload
):
    from audit.predict.inference import predict_shard

    folder = RunFolder(upload(drawn_run, "run"))
    config = make_config(drawn_set.SHARDS)
    site = site_of(Context(Inputs(*stored, config), folder, config, False, folder.read_manifest()))
    assert (str(site.model), str(site.root)) == stored
    recipe = pickle.loads(pickle.dumps(Recipe(site, make_predict_worker)))
    worker = recipe(lambda kind, text: pytest.fail(text))
    path = folder.shard_path("predictions", 1)
    before = path.read_bytes()
    ids = folder.read_shard("predictions", 1)["image_id"].tolist()
    path.unlink()
    predict_shard(ShardSpec("predictions", 1, tuple(ids)), worker)
    assert path.read_bytes() == before
