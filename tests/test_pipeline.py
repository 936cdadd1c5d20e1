"""The whole audit on drawn images: files, columns, going on, refusing, the same bytes again."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import drawn_set
import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import audit
from audit import files, pipeline
from audit.errors import AuditError, ConfigError, DatasetError, ResourceError, RunFolderError
from audit.manifest import STAGES
from audit.run_folder import RunFolder

FOCUS_COLUMNS = (
    "image_id explained_class role y_true y_pred is_predicted is_empty empty_because centre_x"
    " centre_y spread_x spread_y area border_share border_lift entropy concentration"
    " elongation orientation n_blobs agreement layer_agreement pattern"
)
SHARE = "{0} {0}_low {0}_high"
COLUMNS = {
    "images.parquet": "image_id path y_true",
    "unreadable.parquet": "path kind reason",
    "predictions/shard-000000.parquet": "image_id y_pred p_true p_pred margin scores",
    "embeddings/shard-000000.parquet": "image_id embedding",
    "class_metrics.parquet": "class name support predicted tp fp fn "
    + " ".join(
        SHARE.format(n) for n in ("precision", "recall", "f1", "roc_auc", "average_precision")
    ),
    "explanations/shard-000000.parquet": "image_id explained_class layer height width peak cam",
    "thumbnails/shard-000000.parquet": "image_id height width jpeg",
    "layers.parquet": "layer path kind height width channels stored_height stored_width stage order"
    " kept reason",
    "focus.parquet": FOCUS_COLUMNS,
    "focus_embeddings/shard-000000.parquet": "image_id explained_class layer_agreement embedding"
    " elsewhere",
    "properties/shard-000000.parquet": "image_id width height file_size brightness contrast"
    " sharpness noise saturation red_green blue_yellow edge_density hash",
    "causes/shard-000000.parquet": "image_id treatment area trial overlap logit_fall p_true y_pred",
    "pastes.parquet": "pattern source control kind y_pred_before y_pred_after logit_after",
    "duplicates.parquet": "image_id group other_id bits",
    "label_quality.parquet": "image_id y_true suggested score lead",
    "label_issues.parquet": "image_id kind y_true suggested score other_id is_error rank",
    "slices.parquet": "slice name kind conditions n_images n_errors error_rate error_rate_low"
    " error_rate_high other_error_rate lift lift_low lift_high n_images_confirm n_errors_confirm"
    " p_value q_value confirmed error_ids excess_errors",
    "probes.parquet": "transformation strength parameter n_images n_right fall fall_low fall_high"
    " p_value q_value recipe",
}
TIMED = {"manifest.json", "logs/run.log", "logs/times.js"}
"""The files that tell when a run was made and how long it took."""


def run_drawn(model: Any, data: Any, out: Path, **options: Any) -> audit.Run:
    return audit.run(model, data, out, progress=False, **(drawn_set.SHARDS | options))


def all_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pretend_stopped(run: Path, first_open: str) -> None:
    """Make a finished run look as if it had been killed inside a stage."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"status": "running", "finished": None}
    for number, name in enumerate(STAGES[STAGES.index(first_open) :]):
        manifest["stages"][name] = {"state": "waiting" if number else "running", "seconds": None}
    (run / "manifest.json").write_text(json.dumps(manifest))


# What is there


def test_every_file_has_its_columns(drawn_run: Path):
    found = {name: " ".join(pq.read_schema(drawn_run / name).names) for name in COLUMNS}
    assert found == COLUMNS
    for name in ("findings.json", "targets.json", "targets.csv", "causes.json"):
        assert (drawn_run / name).is_file()
    assert (drawn_run / "logs" / "run.log").is_file()
    assert (drawn_run / "report" / "index.html").is_file()
    assert not list(drawn_run.rglob("*.tmp")), "a temporary file was left behind"


def test_images_are_numbered_in_the_order_of_their_paths(drawn_run: Path):
    _, labels, paths = drawn_set.draw_set()
    images = RunFolder(drawn_run).read_table("images")
    assert images["image_id"].tolist() == list(range(drawn_set.N_IMAGES))
    assert images["path"].tolist() == paths
    assert images["y_true"].tolist() == labels.tolist()


def test_shards_hold_every_image_once(drawn_run: Path):
    folder = RunFolder(drawn_run)
    assert folder.shard_indices("predictions") == [0, 1, 2]
    predicted = pd.concat(folder.iter_shards("predictions"))
    assert predicted["image_id"].tolist() == list(range(drawn_set.N_IMAGES))
    ids, embeddings = folder.read_embeddings()
    assert ids.tolist() == list(range(drawn_set.N_IMAGES))
    assert embeddings.shape == (drawn_set.N_IMAGES, 2)  # what the pooling hands to the answer
    explained = pd.concat(folder.iter_shards("explanations"))
    thumbnails = pd.concat(folder.iter_shards("thumbnails"))
    assert thumbnails["image_id"].tolist() == sorted(explained["image_id"].unique())
    assert len(thumbnails) == drawn_set.N_IMAGES  # all 46 correct ones are controls: fewer than 100
    assert not explained.duplicated(["image_id", "explained_class", "layer"]).any()


def test_the_errors_are_the_images_that_were_drawn_to_fool(drawn_run: Path):
    errors = audit.Run(drawn_run).errors
    assert len(errors) == drawn_set.N_ERRORS
    assert errors["path"].str.contains("fooled").all()
    assert (errors["y_pred"] == 1).sum() == drawn_set.N_FALSE_POSITIVES


def test_the_predictions_are_the_models(drawn_run: Path, drawn_model: Path):
    images, labels, _ = drawn_set.draw_set()
    z = keras.saving.load_model(drawn_model)(images.astype(np.float32)).numpy()[:, 0]
    p = 1 / (1 + np.exp(-z))
    predictions = audit.Run(drawn_run).predictions
    np.testing.assert_allclose(np.stack(predictions["scores"])[:, 1], p, atol=1e-6)
    np.testing.assert_array_equal(predictions["y_pred"], p >= 0.5)
    np.testing.assert_allclose(predictions["p_true"], np.where(labels == 1, p, 1 - p), atol=1e-6)
    np.testing.assert_allclose(predictions["p_pred"], np.maximum(p, 1 - p), atol=1e-6)
    np.testing.assert_allclose(predictions["margin"], np.abs(2 * p - 1), atol=1e-6)


def test_the_manifest_says_what_was_done(drawn_run: Path, drawn_model: Path):
    manifest = json.loads((drawn_run / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["status"] == "done"
    assert manifest["class_names"] == ["left", "right"]
    assert manifest["positive_class"] == "right"
    assert manifest["input"] == {
        "height": 32,
        "width": 32,
        "channels": 3,
        "scaling": "none",
        "aspect": "stretch",
        "interpolation": "bilinear",
    }
    assert manifest["head"]["kind"] == "logit"
    assert manifest["config"]["shard_size"] == drawn_set.SHARDS["shard_size"]
    assert manifest["data"] == {
        "name": "val",
        "kind": "folders",
        "n_images": drawn_set.N_IMAGES,
        "n_undefined": 0,
        "n_skipped": 1,
        "n_unreadable": 0,
    }
    assert list(manifest["stages"]) == list(STAGES)
    for stage in manifest["stages"].values():
        assert stage["state"] == "done"
        assert stage["seconds"] >= 0
    assert {"python", "tensorflow", "keras"} <= set(manifest["versions"])
    assert len(manifest["fingerprints"]["model"]) == 64
    assert str(drawn_run.parent) not in json.dumps(manifest), "no path of this machine"


def test_the_log_tells_the_stages(drawn_run: Path):
    log = (drawn_run / "logs" / "run.log").read_text()
    for number, name in enumerate(STAGES, start=1):
        assert f"stage {number} of {len(STAGES)}: {name}" in log


# Ways to say the same


def test_a_live_model_and_dataset_give_the_same_numbers(
    drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    dataset = keras.utils.image_dataset_from_directory(
        drawn_data, image_size=(32, 32), batch_size=7, shuffle=False, verbose=False
    )
    live = run_drawn(keras.saving.load_model(drawn_model), dataset, tmp_path / "live")
    from_files = audit.Run(drawn_run)
    columns = ["image_id", "y_true", "y_pred", "p_true", "p_pred", "margin"]
    pd.testing.assert_frame_equal(live.predictions[columns], from_files.predictions[columns])
    pd.testing.assert_frame_equal(live.class_metrics, from_files.class_metrics)
    pd.testing.assert_frame_equal(live.focus, from_files.focus)
    assert live.metrics == from_files.metrics
    file_names = RunFolder(live.path).read_table("images")["file"].tolist()
    assert file_names == [Path(path).name for path in from_files.predictions["path"]]
    differing = {
        name
        for name, content in all_files(drawn_run / "explanations").items()
        if all_files(live.path / "explanations")[name] != content
    }
    assert not differing
    ours, theirs = live.summary(), from_files.summary()
    for name in ("n_images", "n_errors", "accuracy", "confusion", "class_names", "n_patterns"):
        assert ours[name] == theirs[name]


def test_options_can_come_from_a_file(drawn_data: Path, drawn_model: Path, tmp_path: Path):
    toml = tmp_path / "audit.toml"
    toml.write_text('positive = "left"\nshard-size = 25\nexplain_shard_size = 10\ncontrols = 3\n')
    run = audit.run(
        drawn_model, drawn_data, tmp_path / "run", config=toml, progress=False, controls=0
    )
    config = run.manifest["config"]
    assert (config["positive"], config["shard_size"], config["controls"]) == ("left", 25, 0)
    assert run.summary()["false_positives"] == drawn_set.N_FALSE_NEGATIVES
    assert (run.focus["role"] == "error").all()


@pytest.mark.parametrize(("head", "n_classes"), [("sigmoid", 2), ("softmax", 2), ("logits", 3)])
def test_other_heads_make_the_same_errors(
    head: str, n_classes: int, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    model = drawn_set.corner_model(head, n_classes)
    classes = "left,right,never" if n_classes == 3 else None
    run = run_drawn(model, drawn_data, tmp_path / "run", classes=classes)
    assert run.manifest["head"]["kind"] == head
    assert run.errors["path"].tolist() == audit.Run(drawn_run).errors["path"].tolist()
    p_pred = audit.Run(drawn_run).errors["p_pred"]
    np.testing.assert_allclose(run.errors["p_pred"], p_pred, atol=1e-5)
    assert run.manifest["positive_class"] == (None if n_classes == 3 else "right")
    assert run.report_path.is_file()


def test_a_model_without_errors_finishes(drawn_model: Path, tmp_path: Path):
    run = run_drawn(drawn_model, save_plain_images(tmp_path / "val", 8), tmp_path / "run")
    summary = run.summary()
    assert (summary["n_errors"], summary["accuracy"], summary["patterns"]) == (0, 1.0, [])
    assert (summary["n_explained_errors"], summary["n_layers"]) == (0, 4)
    assert run.focus.empty
    assert run.report_path.is_file()


def test_two_runs_write_the_same_bytes(
    drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    run_drawn(drawn_model, drawn_data, tmp_path / "run")
    first, second = all_files(drawn_run), all_files(tmp_path / "run")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= TIMED


# Going on


def test_a_finished_run_is_not_touched(drawn_run: Path, drawn_data: Path, drawn_model: Path):
    before = {path: path.stat().st_mtime_ns for path in drawn_run.rglob("*")}
    run = run_drawn(drawn_model, drawn_data, drawn_run)
    assert {path: path.stat().st_mtime_ns for path in drawn_run.rglob("*")} == before
    assert run.summary()["status"] == "done"


@pytest.mark.parametrize("how", ["api", "cli"])
def test_a_finished_run_needs_no_tensorflow(
    how: str, drawn_run: Path, drawn_data: Path, drawn_model: Path
):
    options = drawn_set.SHARDS
    if how == "api":
        call = (
            f"audit.run({str(drawn_model)!r}, {str(drawn_data)!r}, {str(drawn_run)!r}, **{options})"
        )
    else:
        given = [str(x) for k, v in options.items() for x in (f"--{k.replace('_', '-')}", v)]
        arguments = ["run", str(drawn_model), str(drawn_data), "--out", str(drawn_run), *given]
        call = f"audit.cli.main({arguments}, standalone_mode=False)"
    code = f"import sys, audit, audit.cli; {call}; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stage", ["predict", "metrics", "explain", "patterns", "report"])
def test_a_run_goes_on_where_it_stopped(
    stage: str, drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    pretend_stopped(run, stage)
    gone = {
        "predict": ["predictions/shard-000001.parquet", "metrics.json", "explanations"],
        "metrics": ["metrics.json", "confusion.parquet", "explanations"],
        "explain": ["explanations/shard-000002.parquet", "focus.parquet"],
        "patterns": ["patterns.parquet", "report"],
        "report": ["report/index.html"],
    }[stage]
    for name in gone:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = run_drawn(drawn_model, drawn_data, run).summary()
    assert again | {"report": None} == audit.Run(drawn_run).summary() | {"report": None}
    first, second = all_files(drawn_run), all_files(run)
    assert {name for name in first if first[name] != second.get(name)} <= TIMED


@pytest.mark.parametrize("spoil", ["cut", "emptied", "of another size"])
def test_a_torn_shard_is_done_again(
    spoil: str, drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    pretend_stopped(run, "explain")
    shard = run / "explanations" / "shard-000001.parquet"
    whole = shard.read_bytes()
    if spoil == "of another size":
        shutil.copy(run / "explanations" / "shard-000007.parquet", shard)  # the last has fewer
    else:
        shard.write_bytes(whole[: len(whole) // 2] if spoil == "cut" else b"")
    untouched = (run / "explanations" / "shard-000000.parquet").stat().st_mtime_ns
    run_drawn(drawn_model, drawn_data, run)
    assert shard.read_bytes() == whole
    assert (run / "explanations" / "shard-000000.parquet").stat().st_mtime_ns == untouched


def test_a_run_that_stopped_at_the_model_goes_on_with_another_option(
    drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    with pytest.raises(AuditError, match="does not fit"):
        run_drawn(drawn_model, drawn_data, tmp_path / "run", head="softmax")
    assert run_drawn(drawn_model, drawn_data, tmp_path / "run").summary()["status"] == "done"


def test_a_run_that_stopped_at_an_option_goes_on_with_another(
    drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    with pytest.raises(ConfigError, match="--positive"):
        run_drawn(drawn_model, drawn_data, tmp_path / "run", positive="middle")
    run = run_drawn(drawn_model, drawn_data, tmp_path / "run", positive="left")
    assert run.manifest["positive_class"] == "left"


@pytest.mark.parametrize("state", ["done", "running"])
def test_a_report_that_is_gone_is_rendered_again(
    state: str, drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    if state == "running":
        pretend_stopped(run, "report")
    (run / "report").rename(run / "report.old")  # as if killed between two renamings
    (run / "report.tmp").mkdir()
    assert run_drawn(drawn_model, drawn_data, run).report_path.is_file()
    first, second = all_files(drawn_run), all_files(run)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= TIMED


def test_a_full_disk_is_one_sentence_and_afterwards_the_run_goes_on(
    drawn_run: Path,
    drawn_data: Path,
    drawn_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    flush, left = files._flush, 0

    def fill(path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(files, "_flush", fill)
    for left in (0, 3, 25, 40):  # noqa: B007
        with pytest.raises(ResourceError, match="There is no room for") as caught:
            run_drawn(drawn_model, drawn_data, tmp_path / "run")
        assert "Nothing that is done is lost" in str(caught.value)
        assert not list((tmp_path / "run").rglob(".*.tmp"))
    monkeypatch.undo()
    assert "stopped: ResourceError" in (tmp_path / "run" / "logs" / "run.log").read_text()
    run_drawn(drawn_model, drawn_data, tmp_path / "run")
    first, second = all_files(drawn_run), all_files(tmp_path / "run")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= TIMED


def test_memory_that_runs_out_in_a_stage_is_one_sentence(
    drawn_run: Path,
    drawn_data: Path,
    drawn_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def need_too_much(context: object) -> None:
        np.empty(1 << 60, np.uint8)

    run = shutil.copytree(drawn_run, tmp_path / "run")
    pretend_stopped(run, "metrics")
    with monkeypatch.context() as patch:
        patch.setitem(pipeline.DO, "metrics", need_too_much)
        for _ in range(2):
            with pytest.raises(
                ResourceError, match=r"memory for the stage `metrics`\. Received: U"
            ):
                run_drawn(drawn_model, drawn_data, run)
    entry = audit.Run(run).manifest["stages"]["metrics"]
    assert entry["state"] == "running"
    assert entry["seconds"] is not None, "what an attempt took that failed counts as well"
    assert run_drawn(drawn_model, drawn_data, run).summary()["status"] == "done"


def test_a_clock_that_goes_backwards_does_no_harm(
    drawn_run: Path,
    drawn_data: Path,
    drawn_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    pretend_stopped(run, "findings")
    monkeypatch.setattr(pipeline, "now", lambda: "2001-01-01T00:00:00+00:00")
    manifest = run_drawn(drawn_model, drawn_data, run).manifest
    assert manifest["finished"] < manifest["started"]
    assert all(stage["seconds"] >= 0 for stage in manifest["stages"].values() if stage["seconds"])
    first, second = all_files(drawn_run), all_files(run)
    assert {name for name in first if first[name] != second[name]} <= TIMED


# Refusing


def test_another_option_is_refused_by_name(drawn_run: Path, drawn_data: Path, drawn_model: Path):
    with pytest.raises(RunFolderError) as caught:
        run_drawn(drawn_model, drawn_data, drawn_run, scaling="0-1", threshold=0.4)
    assert "--scaling ('none' before, '0-1' now)" in str(caught.value)
    assert "--threshold (0.5 before, 0.4 now)" in str(caught.value)
    assert "the model" not in str(caught.value)


def test_another_model_is_refused(drawn_run: Path, drawn_data: Path, tmp_path: Path):
    other = drawn_set.save_model(tmp_path / "other.keras", head="sigmoid")
    with pytest.raises(RunFolderError, match=r"another value of the model\."):
        run_drawn(other, drawn_data, drawn_run)


@pytest.mark.parametrize("change", ["added", "removed", "rewritten", "relabelled"])
def test_other_data_is_refused(change: str, drawn_run: Path, drawn_model: Path, tmp_path: Path):
    data = drawn_set.save_set(tmp_path / "val")
    (data / "notes.txt").write_text("not an image")
    first = data / "left" / "fooled-00.png"
    if change == "added":
        shutil.copy(first, data / "left" / "more.png")
    elif change == "removed":
        first.unlink()
    elif change == "rewritten":
        first.write_bytes(first.read_bytes() + b" ")
    else:
        first.rename(data / "right" / "fooled-99.png")
    with pytest.raises(RunFolderError, match=r"another value of the data\."):
        run_drawn(drawn_model, data, drawn_run)


def test_a_refused_run_is_left_as_it_was(drawn_run: Path, drawn_data: Path, drawn_model: Path):
    before = all_files(drawn_run)
    with pytest.raises(RunFolderError):
        run_drawn(drawn_model, drawn_data, drawn_run, seed=5)
    after = all_files(drawn_run)
    assert {name for name in before if before[name] != after[name]} <= {"logs/run.log"}
    assert before.keys() == after.keys()


def test_a_shuffled_dataset_is_refused(drawn_data: Path, drawn_model: Path, tmp_path: Path):
    dataset = keras.utils.image_dataset_from_directory(
        drawn_data, image_size=(32, 32), batch_size=7, shuffle=True, seed=3, verbose=False
    )
    with pytest.raises(DatasetError, match="shuffle=False"):
        run_drawn(keras.saving.load_model(drawn_model), dataset, tmp_path / "run")


def test_a_folder_of_the_users_own_is_not_written_to(
    drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and not a run folder"):
        run_drawn(drawn_model, drawn_data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# Warnings, and what was left out


def test_unreadable_images_are_listed_and_the_rest_is_audited(drawn_model: Path, tmp_path: Path):
    data = drawn_set.save_set(tmp_path / "val")
    (data / "left" / "fooled-00.png").write_bytes(b"")
    (data / "right" / "plain-20.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    (data / "right" / "link.png").symlink_to("nowhere.png")
    (data / "right" / "photo.webp").write_bytes(b"RIFF")
    run = run_drawn(drawn_model, data, tmp_path / "run")
    assert run.manifest["data"]["n_unreadable"] == 3
    assert run.manifest["data"]["n_skipped"] == 1
    table = run.unreadable.set_index("path")
    assert table["kind"].to_dict() == {
        "left/fooled-00.png": "unreadable",
        "right/link.png": "unreadable",
        "right/photo.webp": "skipped",
        "right/plain-20.png": "unreadable",
    }
    assert (table["reason"].str.len() > 0).all()
    assert not table["reason"].str.contains(str(tmp_path), regex=False).any()
    assert len(run.predictions) == drawn_set.N_IMAGES - 2  # the link is one more file
    assert run.summary()["n_errors"] == drawn_set.N_ERRORS - 1


def save_plain_images(folder: Path, n_per_class: int) -> Path:
    """Write images that fool nobody."""
    for name in drawn_set.CLASS_NAMES:
        for number in range(n_per_class):
            image = drawn_set.draw_image(name, fooled=False, number=number)
            drawn_set.save_image(folder / name / f"{number:02d}.png", image)
    return folder


def test_the_wrong_scaling_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = save_plain_images(tmp_path / "val", 16)
    model = drawn_set.corner_model()
    kernel, _ = model.get_layer("answer").get_weights()
    model.get_layer("answer").set_weights([kernel, np.ones(1)])  # dark images are "right"
    run = audit.run(model, data, tmp_path / "run", scaling="0-1")
    (warning,) = (w for w in run.manifest["warnings"] if w["kind"] == "scaling")
    assert "on 32 images, `--scaling 0-1` is right for 50%" in warning["text"]
    assert "`--scaling none` for 100%" in warning["text"]
    assert warning["text"] in run.summary()["warnings"]
    assert f"WARNING: {warning['text']}" in capsys.readouterr().err
    assert run.manifest["scaling_check"]["suggested"] == "none"


def test_the_right_scaling_raises_no_warning(drawn_run: Path):
    manifest = audit.Run(drawn_run).manifest
    assert manifest["warnings"] == []
    assert manifest["scaling_check"]["suggested"] is None


def test_the_wrong_class_order_is_noticed(drawn_data: Path, drawn_model: Path, tmp_path: Path):
    run = run_drawn(drawn_model, drawn_data, tmp_path / "run", classes="right,left")
    (warning,) = (w for w in run.manifest["warnings"] if w["kind"] == "class order")
    assert "worse than guessing" in warning["text"]


def test_an_image_that_vanishes_between_two_stages_is_reported(
    drawn_model: Path, drawn_run: Path, tmp_path: Path
):
    data = drawn_set.save_set(tmp_path / "val")
    (data / "notes.txt").write_text("not an image")
    run = shutil.copytree(drawn_run, tmp_path / "run")
    pretend_stopped(run, "explain")
    shutil.rmtree(run / "explanations")
    gone = data / "left" / "fooled-00.png"
    size = gone.stat().st_size
    gone.write_bytes(b"x" * size)  # of the same size, so that the listing does not notice
    again = run_drawn(drawn_model, data, run)
    (warning,) = (w for w in again.manifest["warnings"] if w["kind"] == "unexplained")
    assert warning["text"].startswith("1 images were predicted but could not be read again")
    assert again.summary()["n_explained_errors"] == drawn_set.N_ERRORS - 1


def test_progress_goes_to_stderr_and_can_be_silenced(
    drawn_data: Path, drawn_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    audit.run(drawn_model, drawn_data, tmp_path / "loud")
    loud = capsys.readouterr()
    assert loud.out == ""
    assert f"predict (stage 2 of {len(STAGES)})" in loud.err
    assert "images/s" in loud.err
    audit.run(drawn_model, drawn_data, tmp_path / "quiet", progress=False)
    quiet = capsys.readouterr()
    assert (quiet.out, quiet.err) == ("", "")
