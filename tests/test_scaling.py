"""Scalings of the pixels are those of `keras.applications`."""

import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications.imagenet_utils import preprocess_input

from audit.errors import ConfigError
from audit.predict.inference import apply_scaling
from audit.predict.scaling import pixel_scaling, scaling_names


def scale(pixels, name):
    return apply_scaling(tf.constant(pixels), pixel_scaling(name, pixels.shape[-1])).numpy()


@pytest.fixture(scope="module")
def pixels():
    values = np.arange(256, dtype=np.float32)
    channels = [values, np.roll(values, 77), values[::-1]]
    return np.stack(channels, axis=-1).reshape(1, 16, 16, 3)


@pytest.mark.parametrize(
    ("name", "mode"), [("imagenet-caffe", "caffe"), ("imagenet-torch", "torch"), ("-1-1", "tf")]
)
def test_scalings_equal_keras_applications(pixels, name, mode):
    want = preprocess_input(pixels.copy(), data_format="channels_last", mode=mode)
    np.testing.assert_allclose(
        scale(pixels, name), want, rtol=0, atol=2e-5 if "c" in mode else 1e-6
    )


def test_by_hand(pixels):
    np.testing.assert_array_equal(scale(pixels, "none"), pixels)
    np.testing.assert_allclose(scale(pixels, "0-1"), pixels / 255, rtol=2e-7)
    np.testing.assert_allclose(scale(pixels, "-1-1"), pixels / 127.5 - 1, atol=2e-7)
    red = np.array([[[[255.0, 0.0, 0.0]]]], np.float32)
    # Channels are turned round: blue, green, red.
    caffe = [0 - 103.939, 0 - 116.779, 255 - 123.68]
    np.testing.assert_allclose(scale(red, "imagenet-caffe")[0, 0, 0], caffe, rtol=1e-6)
    torch = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(scale(red, "imagenet-torch")[0, 0, 0], torch, rtol=1e-6)


@pytest.mark.parametrize("name", ["none", "0-1", "-1-1"])
def test_grey_images_are_scaled_alike(pixels, name):
    np.testing.assert_array_equal(scale(pixels[..., :1], name), scale(pixels, name)[..., :1])


@pytest.mark.parametrize("channels", [1, 3])
def test_every_name_gives_float32_of_one_entry_per_channel(channels):
    for name in scaling_names(channels):
        scaling = pixel_scaling(name, channels)
        assert scaling.reverses is (name == "imagenet-caffe")
        for values in (scaling.multiply, scaling.add):
            assert values.dtype == np.float32 and values.shape == (channels,)


def test_grey_models_have_no_imagenet_scaling():
    assert scaling_names(1) == ("none", "0-1", "-1-1")
    assert scaling_names(3) == ("none", "0-1", "-1-1", "imagenet-caffe", "imagenet-torch")


@pytest.mark.parametrize("name", ["imagenet-caffe", "imagenet-torch"])
def test_an_imagenet_scaling_of_a_grey_model_is_refused(name):
    with pytest.raises(ConfigError) as caught:
        pixel_scaling(name, 1)
    assert str(caught.value) == (
        f"`--scaling {name}` needs colour. Received: a model with 1 input channel. Use none, 0-1 or"
        " -1-1."
    )
