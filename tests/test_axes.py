"""Height, width and channels are told apart, wherever a model puts them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from audit.predict.axes import REARRANGED, AxisOrders, format_of, size_in, to_channels_last
from audit.predict.tracing import observe_operations

FIRST = {"data_format": "channels_first"}


def orders(model: keras.Model, shape: tuple[int, ...]) -> dict[str, str]:
    """Return the order of the axes of each output of rank 4, by the name of what made it."""
    tracker, found = AxisOrders(), {}

    def watch(path, operation, first_input, output):
        if isinstance(output, tf.Tensor) and output.shape.rank == 4:
            found.setdefault(path[-1], tracker.order(operation, first_input, output))

    with observe_operations(watch):
        model(tf.zeros((2, *shape)))
    return found


def chain(*steps: keras.Layer, shape: tuple[int, ...] = (3, 12, 10)) -> dict[str, str]:
    model = keras.Sequential([keras.Input(shape), *steps], name="net")
    found = orders(model, shape)
    return {step.name: found[step.name] for step in steps if step.name in found}


def test_layers_say_their_format_and_the_others_pass_it_on():
    found = chain(
        layers.Rescaling(1.0, name="scale"),
        layers.Conv2D(4, 3, name="conv", **FIRST),
        layers.BatchNormalization(axis=1, name="norm"),
        layers.ReLU(name="relu"),
        layers.MaxPooling2D(name="pool", **FIRST),
        layers.Activation("tanh", name="tanh"),
    )
    assert set(found) == {"scale", "conv", "norm", "relu", "pool", "tanh"}
    assert set(found.values()) == {"nchw"}


def test_channels_last_is_what_nobody_says():
    assert chain(layers.ReLU(name="relu"), shape=(8, 8, 3)) == {"relu": "nhwc"}
    assert chain(layers.Conv2D(2, 3, name="a"), layers.ReLU(name="b"), shape=(8, 8, 3)) == {
        "a": "nhwc",
        "b": "nhwc",
    }


def test_a_permutation_is_followed():
    found = chain(
        layers.Conv2D(4, 3, name="first", **FIRST),
        layers.Permute((2, 3, 1), name="to_last"),  # n c h w: its axes 2 3 1 are h w c
        layers.ReLU(name="last"),
        layers.Permute((2, 1, 3), name="turn"),  # h and w change places
        layers.ReLU(name="turned"),
    )
    assert list(found.values()) == ["nchw", "nhwc", "nhwc", "nwhc", "nwhc"]


def test_a_transposition_of_keras_is_followed():
    inputs = keras.Input((3, 12, 10))
    x = layers.Conv2D(4, 3, name="conv", **FIRST)(inputs)
    y = keras.ops.transpose(x, (0, 2, 3, 1))
    z = keras.ops.transpose(y, (1, 0, 2, 3))  # the batch is no longer first
    model = keras.Model(inputs, [layers.ReLU(name="a")(y), layers.ReLU(name="b")(z)])
    found = orders(model, (3, 12, 10))
    assert (found["conv"], found["a"], found["b"]) == ("nchw", "nhwc", REARRANGED)


def test_a_transposition_that_is_no_operation_of_keras_is_told_by_the_sides():
    found = chain(
        layers.Conv2D(4, 3, name="first", **FIRST),
        layers.Lambda(lambda x: tf.transpose(x, (0, 2, 3, 1)), name="lambda"),
        layers.ReLU(name="relu"),
        layers.Lambda(lambda x: tf.transpose(x, (0, 3, 1, 2)), name="back"),
    )
    assert list(found.values()) == ["nchw", "nhwc", "nhwc", "nchw"]


class _WithRawOperations(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="raw")
        self.conv = layers.Conv2D(4, 3, name="conv", **FIRST)
        self.norm = layers.BatchNormalization(axis=1, name="norm")
        self.drop = layers.ReLU(name="relu")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.drop(tf.nn.relu(self.norm(self.conv(x) * 2)) + 1)


def test_operations_between_layers_do_not_lose_the_axes():
    assert set(orders(_WithRawOperations(), (3, 12, 10)).values()) == {"nchw"}


def test_sides_that_are_reshaped_are_the_images_only_if_they_were_before():
    found = chain(
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.Reshape((4, 24, 4), name="unfold"),  # as MobileViT does
        layers.LayerNormalization(name="norm"),
        layers.Reshape((8, 12, 4), name="fold"),
        layers.ReLU(name="relu"),
        shape=(8, 12, 3),
    )
    assert list(found.values()) == ["nhwc", REARRANGED, REARRANGED, "nhwc", "nhwc"]


def test_a_convolution_after_a_reshape_knows_its_axes():
    found = chain(
        layers.Flatten(name="flat"),
        layers.Dense(32, name="dense"),
        layers.Reshape((4, 4, 2), name="grid"),
        layers.Reshape((2, 8, 2), name="odd"),
        layers.Conv2D(2, 1, name="conv"),
        shape=(8, 12, 3),
    )
    assert found == {"grid": "nhwc", "odd": REARRANGED, "conv": "nhwc"}


def test_several_inputs_share_the_axes_of_the_first():
    inputs = keras.Input((3, 12, 10))
    x = layers.Conv2D(4, 3, name="conv", **FIRST)(inputs)
    x = layers.Concatenate(axis=1, name="join")([x, layers.ReLU(name="relu")(x)])
    assert orders(keras.Model(inputs, x), (3, 12, 10))["join"] == "nchw"


@pytest.mark.parametrize("order", ["nhwc", "nchw", "nwhc", "ncwh"])
def test_tensors_are_brought_to_channels_last(order):
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # n h w c
    turned = tf.constant(values.transpose(["nhwc".index(axis) for axis in order]))
    assert size_in(turned, order) == (3, 4)
    np.testing.assert_array_equal(to_channels_last(turned, order), values)


def test_the_format_of_a_layer():
    assert format_of(layers.Conv2D(2, 3, **FIRST)) == "nchw"
    assert format_of(layers.MaxPooling2D()) == "nhwc"
    assert format_of(layers.ReLU()) is None
