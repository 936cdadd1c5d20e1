"""Models of earlier Keras versions: rebuilt with the same weights, without running their code."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from audit.predict.legacy_h5 import load_legacy_h5


def small_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.DepthwiseConv2D(3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def write_old(path: Path, model: keras.Model, config: object) -> None:
    """Save a model as HDF5 and replace its configuration with an earlier version's."""
    model.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)


def old_config(**extra: object) -> list[dict[str, object]]:
    """The same layers as Keras 2.2 wrote them: a bare list, the shape in the first layer."""
    uniform = {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}}
    depthwise = {
        "name": "depthwise",
        "batch_input_shape": [None, 8, 8, 3],
        "dtype": "float32",
        "kernel_size": [3, 3],
        "groups": 1,
        "activation": "relu",
        "depthwise_initializer": uniform,
    }
    return [
        {"class_name": "DepthwiseConv2D", "config": depthwise},
        {"class_name": "Flatten", "config": {"name": "flatten"}},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax", **extra}},
    ]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)


def test_an_old_configuration_gives_the_same_outputs(tmp_path, images):
    model = small_model()
    write_old(tmp_path / "old.h5", model, {"class_name": "Sequential", "config": old_config()})
    rebuilt = load_legacy_h5(tmp_path / "old.h5")
    assert rebuilt.input_shape == (None, 8, 8, 3)
    np.testing.assert_array_equal(rebuilt(images), model(images))


def test_the_reader_runs_no_code_of_the_file(tmp_path):
    layers = [*old_config(), {"class_name": "Lambda", "config": {"function": "anything"}}]
    write_old(tmp_path / "old.h5", small_model(), {"class_name": "Sequential", "config": layers})
    with pytest.raises(ValueError, match="Lambda"):
        load_legacy_h5(tmp_path / "old.h5")


def test_a_class_that_is_no_built_in_layer_is_not_looked_for(tmp_path):
    layers = [*old_config(), {"class_name": "Mine", "config": {}}]
    write_old(tmp_path / "old.h5", small_model(), {"class_name": "Sequential", "config": layers})
    with pytest.raises(AttributeError, match="Mine"):
        load_legacy_h5(tmp_path / "old.h5")


def test_the_rebuilt_teachable_machine_model_equals_its_converted_twin(shared_data):
    folder = shared_data / "legacy_models"
    twin = keras.saving.load_model(folder / "tm_11Maximus11_converted.keras", compile=False)
    rebuilt = load_legacy_h5(folder / "tm_11Maximus11.h5")
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(rebuilt(pixels), twin(pixels), atol=1e-5)
