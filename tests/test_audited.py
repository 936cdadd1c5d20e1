"""The model of a run once more: found, recognised, refused; and pixels in the run's range."""

import shutil
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pytest
import tensorflow as tf
from search_fixture import for_pixels_of, make_run

from audit.errors import DatasetError, ModelError
from audit.predict.inference import DecisionRule, Predictor
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
