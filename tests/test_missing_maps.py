"""Maps that only one of two runs has, made with the other's model: the same as its own would be."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from drawn_set import N_ERRORS

from audit.cli import main
from audit.compare.comparison import compare_runs
from audit.compare.matching import match_runs, open_compared
from audit.compare.stored import lacking, read_maps
from audit.errors import ConfigError, DatasetError, ModelError
from audit.missing_maps import compute_missing
from audit.run_folder import RunFolder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def matched(*runs: Path) -> Any:
    return match_runs([open_compared(run, f"run {n}") for n, run in enumerate(runs)])


def without_maps(run: Path, image_ids: set[int]) -> Path:
    """Take the maps of some images out of a run."""
    folder = RunFolder(run)
    for index in folder.shard_indices("explanations"):
        path = folder.shard_path("explanations", index)
        table = pq.read_table(path)
        kept = [image_id not in image_ids for image_id in table["image_id"].to_pylist()]
        pq.write_table(table.filter(np.array(kept)), path)
    return run


@pytest.fixture
def runs(drawn_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run, and the same without the maps of a third of its images."""
    ids = RunFolder(drawn_run).read_fused()["image_id"].unique().tolist()
    later = without_maps(shutil.copytree(drawn_run, tmp_path / "later"), set(ids[::3]))
    return drawn_run, later


def test_they_are_what_the_run_itself_made(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    images = matched(*runs)
    wanted = lacking(images, 1, 0)
    assert wanted
    assert lacking(images, 0, 1) == []
    found = compute_missing(
        images, (None, drawn_model), drawn_data, tmp_path / "out", progress=False
    )
    computed = found.runs[1].computed
    assert computed is not None
    assert computed.n_wanted == len(computed.maps) == len(wanted)
    assert computed.left_out == ()
    assert found.runs[0].computed is None
    own, made = read_maps(images, 0), read_maps(found, 1)
    assert own.keys() == made.keys()
    for key, cam in own.items():
        difference = np.abs(cam.astype(int) - made[key].astype(int))
        assert difference.max() <= 1, key


def test_a_second_call_makes_nothing_again(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    out, model = tmp_path / "out", ("--model-b", drawn_model, "--data", drawn_data)
    first = call(*runs, "--out", out, *model)
    assert first.exit_code == 0, first.output
    files = {path: path.stat().st_mtime_ns for path in (out / "maps").rglob("*.parquet")}
    assert files
    second = call(*runs, "--out", out, *model)
    assert second.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in (out / "maps").rglob("*.parquet")} == files
    lines = first.stdout.splitlines()
    n = len(lacking(matched(*runs), 1, 0))
    assert any(f"{n} of {n} that only the other run has computed" in text for text in lines)
    assert any(text.startswith("focus") and f"({n} computed)" in text for text in lines)


def test_a_second_call_needs_no_tensorflow(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    out = tmp_path / "out"
    arguments = [*runs, "--out", out, "--model-b", drawn_model, "--data", drawn_data]
    assert call(*arguments).exit_code == 0
    code = (
        "import sys; from audit.cli import main\n"
        f"main({['compare', *map(str, arguments)]!r}, standalone_mode=False)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_torn_file_is_made_again_and_other_maps_replace_all(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    out = tmp_path / "out"

    def compute(*pair: Path) -> Any:
        found = compute_missing(
            matched(*pair), (None, drawn_model), drawn_data, out, progress=False
        )
        return found.runs[1].computed

    first = compute(*runs)
    shards = sorted((out / "maps/run-2/explanations").iterdir())
    shards[0].write_bytes(shards[0].read_bytes()[:100])
    assert compute(*runs).maps.astype(str).equals(first.maps.astype(str))
    ids = RunFolder(runs[0]).read_fused()["image_id"].unique().tolist()
    fewer = without_maps(shutil.copytree(runs[0], tmp_path / "fewer"), {ids[0]})
    assert compute(runs[0], fewer).maps["image_id"].unique().tolist() == [ids[0]]


def test_images_that_are_gone_or_others_are_left_out_and_counted(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    images = matched(*runs)
    data = shutil.copytree(drawn_data, tmp_path / "val")
    wanted = list(dict.fromkeys(image_id for image_id, _ in lacking(images, 1, 0)))
    paths = images.runs[1].predictions.set_index("image_id")["path"]
    gone, changed = paths[wanted[0]], paths[wanted[1]]
    (data / gone).unlink()
    is_left = changed.startswith("left")
    other = next(path for path in paths if path.startswith("right/plain" if is_left else "left/p"))
    shutil.copy(data / other, data / changed)
    out = tmp_path / "out"
    computed = compute_missing(images, (None, drawn_model), data, out, progress=False).runs[1]
    assert computed.computed is not None
    left_out = dict(computed.computed.left_out)
    assert left_out == {
        gone: "it is gone, or a link to nothing",
        changed: "the model no longer gives it the score that was predicted: it is another image",
    }
    assert set(computed.computed.maps["image_id"]) == set(wanted[2:])
    counts = (
        compare_runs(
            runs,
            compute=lambda found: compute_missing(
                found, (None, drawn_model), data, out, progress=False
            ),
        )
        .runs[1]
        .computed
    )
    assert counts is not None
    assert (counts.n_left_out, counts.n_maps) == (2, len(computed.computed.maps))
    # With the images back, it is tried again.
    again = compute_missing(images, (None, drawn_model), drawn_data, out, progress=False).runs[1]
    assert again.computed is not None
    assert again.computed.left_out == ()


def test_both_models_at_once(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    ids = RunFolder(runs[0]).read_fused()["image_id"].unique().tolist()
    earlier = without_maps(shutil.copytree(runs[0], tmp_path / "earlier"), set(ids[1::3]))
    models = (drawn_model, drawn_model)
    comparison = compare_runs(
        [earlier, runs[1]],
        compute=lambda found: compute_missing(
            found, models, drawn_data, tmp_path / "out", progress=False
        ),
    )
    focus = comparison.steps[0].focus
    assert (focus.n_before_only, focus.n_after_only) == (0, 0)
    assert focus.n_maps == len(read_maps(matched(*runs), 0))
    assert focus.n_computed > 0
    assert focus.overlap is not None
    assert focus.overlap.mean == pytest.approx(1, abs=0.02)  # It is one and the same model.
    assert focus.n_images >= N_ERRORS


def test_what_cannot_be_used_is_refused(
    runs: tuple[Path, Path], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    images, out = matched(*runs), tmp_path / "out"
    other = keras.models.load_model(drawn_model)
    other.layers[-1].set_weights([weights + 1 for weights in other.layers[-1].get_weights()])
    other.save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match=r"`--model-b .*other.keras` is not the model of"):
        compute_missing(images, (None, tmp_path / "other.keras"), drawn_data, out)
    with pytest.raises(ModelError, match="There is no model at"):
        compute_missing(images, (None, tmp_path / "gone.keras"), drawn_data, out)
    with pytest.raises(ConfigError, match=r"need the images. Received: no `--data`"):
        compute_missing(images, (None, drawn_model), None, out)
    with pytest.raises(ConfigError, match="is of use with a model only"):
        compute_missing(images, (None, None), drawn_data, out)
    with pytest.raises(ConfigError, match=r"need two runs\. Received: 3"):
        compute_missing(matched(*runs, runs[0]), (None, drawn_model), drawn_data, out)
    with pytest.raises(DatasetError, match="There are no images at `--data"):
        compute_missing(images, (None, drawn_model), tmp_path / "gone", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"None of the .* images can be explained"):
        compute_missing(images, (None, drawn_model), tmp_path / "empty", out, progress=False)
    images.runs[1].manifest["data"]["kind"] = "dataset"
    with pytest.raises(DatasetError, match="whose images are in no file"):
        compute_missing(images, (None, drawn_model), drawn_data, out)


def test_an_empty_map_of_the_runs_own_is_not_missing(runs: tuple[Path, Path], tmp_path: Path):
    later = shutil.copytree(runs[0], tmp_path / "empty")
    folder = RunFolder(later)
    for index in folder.shard_indices("explanations"):
        path = folder.shard_path("explanations", index)
        table = pq.read_table(path)
        zeros = pc.multiply(table["peak"], 0).cast("float32")
        pq.write_table(table.set_column(table.column_names.index("peak"), "peak", zeros), path)
    images = matched(runs[0], later)
    assert read_maps(images, 1) == {}
    assert lacking(images, 1, 0) == []


def test_nothing_missing_loads_nothing(
    drawn_run: Path, drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    images = matched(drawn_run, drawn_run)
    found = compute_missing(images, (drawn_model, None), drawn_data, tmp_path / "out")
    assert found.runs[0].computed is not None
    assert found.runs[0].computed.n_wanted == 0
    assert not (tmp_path / "out").exists()
