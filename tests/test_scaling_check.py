"""The right scaling is suggested, and nothing where the sample does not prove it."""

from pathlib import Path
from typing import Any

import keras
import pytest
from hand_set import SIZE, hand_set_model, write_images
from keras import layers

from audit.predict.dataset import FileSource
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.listing import list_images
from audit.predict.model import wrap_model
from audit.predict.scaling_check import check_scaling


def scaling_source(tmp_path: Path, n: int = 80) -> FileSource:
    return FileSource(list_images(write_images(tmp_path / "val", n)), (SIZE, SIZE), 3)


def check(model: keras.Model, source: Any, scaling: str, n_images: int = 64) -> Any:
    predictor = Predictor(wrap_model(model), scaling)
    return check_scaling(predictor, source, DecisionRule(1), n_images=n_images, seed=0)


@pytest.mark.parametrize("used", ["none", "-1-1"])
def test_the_right_scaling_is_suggested(tmp_path, used):
    # Made for pixels of 0 to 1: unscaled every image is "light", from -1 to 1 most are "dark".
    result = check(hand_set_model(40, -20), scaling_source(tmp_path), used)
    assert result.suggested == "0-1"
    assert result.accuracies["0-1"] == 1
    assert result.n_images == 64


def test_nothing_is_suggested_if_the_scaling_is_right(tmp_path):
    result = check(hand_set_model(40, -20), scaling_source(tmp_path), "0-1")
    assert result.suggested is None
    assert result.accuracies["0-1"] == 1
    assert result.accuracies["none"] < 0.7
    assert result.n_images == 64  # ImageNet's scalings are as good, so all were tried
    assert list(result.accuracies) == ["none", "0-1", "-1-1", "imagenet-caffe", "imagenet-torch"]


def test_nothing_is_suggested_if_the_scaling_does_not_matter(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(2, 1, name="conv")(layers.Normalization(mean=0.0, variance=1.0)(inputs))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(1, "sigmoid", kernel_initializer="zeros")(x))
    result = check(model, scaling_source(tmp_path), "none")
    assert result.suggested is None
    assert len(set(result.accuracies.values())) == 1


def test_few_images_prove_nothing(tmp_path):
    result = check(hand_set_model(40, -20), scaling_source(tmp_path, 12), "none")
    assert result.n_images == 12
    assert result.suggested is None


def test_the_check_is_the_same_every_time(tmp_path):
    source = scaling_source(tmp_path)
    model = hand_set_model(40, -20)
    assert check(model, source, "none") == check(model, source, "none")


def test_a_model_for_pixels_around_zero(tmp_path):
    result = check(hand_set_model(20, 0), scaling_source(tmp_path), "none")
    assert result.suggested == "-1-1"


def test_grey_models_are_checked_with_three_scalings(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(inputs))
    source = FileSource(list_images(write_images(tmp_path / "val", 20)), (SIZE, SIZE), 1)
    result = check(keras.Model(inputs, layers.Dense(1, "sigmoid")(x)), source, "none", 16)
    assert list(result.accuracies) == ["none", "0-1", "-1-1"]


def test_images_that_cannot_be_read_do_not_count(tmp_path):
    source = scaling_source(tmp_path)
    for path in sorted(source.listing.root.glob("*/*.png"))[:40]:
        path.write_bytes(b"")
    assert check(hand_set_model(40, -20), source, "-1-1", 80).n_images == 40
    for path in source.listing.root.glob("*/*.png"):
        path.write_bytes(b"")
    nothing = check(hand_set_model(40, -20), source, "none", 80)
    assert nothing.n_images == 0 and nothing.suggested is None


def test_a_scaling_that_gives_one_class_to_all_is_not_suggested(tmp_path):
    source = scaling_source(tmp_path)
    dark = source.listing.images["y_true"] == 0
    source.listing.images.loc[dark.index, "y_true"] = 1  # all are called "light" when unscaled
    result = check(hand_set_model(40, -20), source, "0-1")
    assert result.accuracies["none"] > 0.9 > 0.6 > result.accuracies["0-1"]
    assert result.suggested is None
