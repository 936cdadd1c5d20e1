"""The model of a run once more: found, recognised, refused; and pixels in the run's range."""

import shutil
from pathlib import Path
from typing import Any

import drawn_set
import keras
import numpy as np
import pytest
import tensorflow as tf
from search_fixture import for_pixels_of, make_run

from audit.errors import DatasetError, ModelError
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.model_file import fingerprint_model_file
from audit.search.audited import config_of, find_pixel_range, open_model, rule_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: Any, drawn_model: Path, drawn_data: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("audited") / "run"
    return make_run(folder, drawn_model, drawn_data, threshold=0.25).read_manifest()


def test_options_and_rule_are_those_of_the_run(manifest: dict[str, Any]):
    assert config_of(manifest).shard_size == drawn_set.SHARDS["shard_size"]
    assert config_of(manifest | {"config": manifest["config"] | {"new": 1}}).threshold == 0.25
    assert rule_of(manifest) == DecisionRule(1, 0.25)
    left = manifest | {"positive_class": "left"}
    assert rule_of(left) == DecisionRule(0, 0.25)
    assert rule_of(manifest | {"positive_class": None}).positive is None


def test_the_model_is_where_it_was_or_where_it_is_now(
    manifest: dict[str, Any], drawn_model: Path, tmp_path: Path
):
    assert manifest["model"]["path"] == drawn_model.resolve().as_posix()
    assert open_model(manifest).input_size == (32, 32)
    moved = Path(shutil.copy(drawn_model, tmp_path / "moved.keras"))
    assert open_model(manifest, moved).name == "moved.keras"
    gone = manifest | {"model": {"path": str(tmp_path / "gone.keras")}}
    assert open_model(gone, str(moved)).name == "moved.keras"
    with pytest.raises(ModelError, match=r"is gone\. Received: no file at .*gone\.keras"):
        open_model(gone)
    with pytest.raises(ModelError, match=r"nothing\.keras"):
        open_model(manifest, tmp_path / "nothing.keras")


def test_another_model_is_refused(manifest: dict[str, Any], tmp_path: Path):
    other = drawn_set.save_model(tmp_path / "other.keras", head="sigmoid")
    with pytest.raises(ModelError, match=r"`other\.keras` is not the model of the run"):
        open_model(manifest, other)


def with_code(path: Path, target: Path) -> Path:
    """Save a model whose Lambda layer writes a file when it is loaded."""
    planted = f"__import__('pathlib').Path({str(target)!r}).write_text('run')"
    code = eval(f"lambda x: x if {planted} else x")
    drawn = drawn_set.corner_model()
    inputs = keras.Input((drawn_set.SIDE, drawn_set.SIDE, 3))
    keras.Model(inputs, drawn(keras.layers.Lambda(code)(inputs))).save(path)
    target.unlink()
    return path


def hostile(manifest: dict[str, Any], path: str, fingerprint: str = "") -> dict[str, Any]:
    """Return the manifest of a run that was told to trust, and names another model as its own."""
    return manifest | {
        "config": manifest["config"] | {"trust_model_code": True},
        "model": {"path": path},
        "fingerprints": manifest["fingerprints"] | {"model": fingerprint},
    }


def test_no_code_runs_because_a_run_folder_says_so(manifest: dict[str, Any], tmp_path: Path):
    target = tmp_path / "planted"
    path = with_code(tmp_path / "m.keras", target)
    sent = hostile(manifest, str(path), fingerprint_model_file(path))
    assert config_of(sent).trust_model_code
    for given in (None, path):
        with pytest.raises(ModelError, match=r"which has not been run.* add `--trust-model-code`"):
            open_model(sent, given)
    assert not target.exists()
    assert open_model(sent, trust_model_code=True).input_size == (32, 32)
    assert target.read_text() == "run", "the crafted code is real"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/m.keras", "memory://bucket/m.keras"])
def test_no_url_is_opened_because_a_run_folder_says_so(
    manifest: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
):
    def reached(*_: object) -> None:
        raise AssertionError("it was reached")

    monkeypatch.setattr("audit.places._open_store", reached)
    with pytest.raises(ModelError, match="is not opened only because a run folder names") as caught:
        open_model(hostile(manifest, url))
    assert "secret" not in str(caught.value)


def dataset(scale: float, offset: float = 0.0) -> tf.data.Dataset:
    images, labels, _ = drawn_set.draw_set()
    scaled = (images * np.float32(scale) + np.float32(offset)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((scaled, labels)).batch(8)


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [(1, 0, (0.0, 255.0)), (1 / 255, 0, (0.0, 1.0)), (2 / 255, -1, (-1.0, 1.0))],
)
def test_the_range_of_a_dataset_in_memory_is_recognised(
    scale: float, offset: float, expected: tuple[float, float], tmp_path: Path
):
    model = for_pixels_of(scale, offset)
    run = make_run(tmp_path / "run", model, dataset(scale, offset), focus=False)
    audited = open_model(run.read_manifest(), model)
    assert find_pixel_range(run, run.read_manifest(), Predictor(audited, "none")) == expected


def test_a_dataset_that_was_prepared_otherwise_is_refused(tmp_path: Path):
    model = for_pixels_of(1 / 16, -8)
    run = make_run(tmp_path / "run", model, dataset(1 / 16, -8), focus=False)
    audited = open_model(run.read_manifest(), model)
    with pytest.raises(DatasetError, match="cannot be shown to the model as those of the run"):
        find_pixel_range(run, run.read_manifest(), Predictor(audited, "none"))


def test_of_files_the_range_is_known(
    manifest: dict[str, Any], drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    run = make_run(tmp_path / "run", drawn_model, drawn_data)
    shutil.rmtree(run.path / "thumbnails")  # There is nothing to try, and nothing is tried.
    predictor = Predictor(open_model(manifest), "none")
    assert find_pixel_range(run, run.read_manifest(), predictor) == (0.0, 255.0)
