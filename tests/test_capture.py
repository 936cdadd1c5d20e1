"""Which layers get a map, under which name, and why the others do not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.explain.capture import ActivationRecorder, Layer
from audit.explain.maps import Explainer
from audit.predict.model import wrap_model
from audit.predict.tracing import observe_operations


def record(model: keras.Model, shape: tuple[int | None, ...] = (16, 16, 3)) -> list[Layer]:
    """Trace a model on images of a shape, differentiate its scores, and return the layers."""
    layers: list[Layer] = []

    @tf.function(autograph=False)
    def trace(pixels: tf.Tensor) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            recorder = ActivationRecorder(tape.watch)
            with observe_operations(recorder):
                score = tf.reduce_sum(model(pixels, training=False))
        found = tape.gradient(score, list(recorder.activations))
        (gradients,) = recorder.drop_unreached([found])
        assert len(gradients) == len(recorder.activations) == sum(x.kept for x in recorder.layers)
        layers[:] = recorder.layers

    model(tf.zeros((1, *(side or 16 for side in shape))))  # builds it
    trace.get_concrete_function(tf.TensorSpec((None, *shape), tf.float32))
    return layers


def reasons(layers: list[Layer]) -> dict[str, str]:
    return {layer.layer: layer.reason for layer in layers if not layer.kept}


def kept(layers: list[Layer]) -> list[str]:
    return [layer.layer for layer in layers if layer.kept]


def test_layers_come_in_the_order_of_the_data_with_their_sizes():
    layers = record(
        keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                keras.layers.Conv2D(4, 3, padding="same", name="a"),
                keras.layers.MaxPooling2D(name="b"),
                keras.layers.Conv2D(6, 3, name="c"),
                keras.layers.GlobalAveragePooling2D(name="d"),
                keras.layers.Dense(2, name="e"),
            ],
            name="net",
        )
    )
    assert layers == [
        Layer("a", "net/a", "Conv2D", 16, 16, 4, stage=0, order=0, kept=True, reason=""),
        Layer("b", "net/b", "MaxPooling2D", 8, 8, 4, stage=1, order=1, kept=True, reason=""),
        Layer("c", "net/c", "Conv2D", 6, 6, 6, stage=1, order=2, kept=True, reason=""),
    ]


def test_nested_layers_have_their_path_as_name():
    inner = keras.Sequential(
        [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.ReLU(name="relu")], name="block"
    )
    layers = record(
        keras.Sequential([keras.Input((16, 16, 3)), inner, keras.layers.Flatten()], name="net")
    )
    assert [(x.layer, x.path) for x in layers] == [
        ("block/conv", "net/block/conv"),
        ("block/relu", "net/block/relu"),
    ]


def test_a_container_and_a_layer_that_passes_its_input_on_are_not_counted_twice():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Activation("linear", name="linear")(x)
    layers = record(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    assert [layer.layer for layer in layers] == ["conv"]


def test_a_shared_layer_gets_a_key_for_each_call():
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    inputs = keras.Input((16, 16, 3))
    x = shared(shared(shared(inputs)))
    layers = record(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    assert kept(layers) == ["shared", "shared#2", "shared#3"]
    assert len({layer.path for layer in layers}) == 1


def test_equal_names_in_different_blocks_do_not_collide():
    blocks = [
        keras.Sequential([keras.layers.Conv2D(3, 3, name="conv")], name=name) for name in "ab"
    ]
    layers = record(
        keras.Sequential([keras.Input((16, 16, 3)), *blocks, keras.layers.Flatten()], name="net")
    )
    assert kept(layers) == ["a/conv", "b/conv"]


def test_a_map_of_one_pixel_is_skipped():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = keras.layers.Multiply(name="excite")([x, squeezed])
    layers = record(keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(x)))
    assert reasons(layers) == {"squeeze": "1 × 1: it has no place"}
    assert kept(layers) == ["conv", "excite"]


def test_preprocessing_is_skipped_wherever_it_is_nested():
    normalise = keras.layers.Normalization(name="normalise")
    normalise.adapt(np.zeros((1, 16, 16, 3)))  # which gives it weights
    prepare = keras.Sequential(
        [keras.layers.Rescaling(1 / 255, name="scale"), normalise], name="prepare"
    )
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            prepare,
            keras.layers.MaxPooling2D(1, 1, name="pool"),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.Flatten(),
        ],
        name="net",
    )
    layers = record(model)
    why = "preprocessing: the image itself, no features"
    assert reasons(layers) == {"prepare/scale": why, "prepare/normalise": why, "pool": why}
    assert kept(layers) == ["conv"]


def test_arithmetic_before_the_first_weights_is_preprocessing():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs / 127.5 - 1.0)
    layers = record(keras.Model(inputs, keras.layers.Flatten()(x)))
    assert kept(layers) == ["conv"]
    assert len(reasons(layers)) == 2


def test_the_inside_of_attention_is_skipped():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 4, 4, name="patches")(inputs)
    attention = keras.layers.MultiHeadAttention(1, 4, attention_axes=(1, 2), name="attention")
    x = keras.layers.Add(name="add")([x, attention(x, x)])
    layers = record(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    assert set(reasons(layers).values()) <= {"inside attention"}
    assert all(name.startswith("attention") for name in reasons(layers))
    assert {"patches", "add"} <= set(kept(layers))


class _WithLooseEnd(keras.Model):
    """A model that computes something that its score does not depend on."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.used = keras.layers.Conv2D(2, 3, name="used")
        self.loose = keras.layers.Conv2D(2, 3, name="loose")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = self.used(images)
        self.loose(x)
        return self.pool(x)


def test_a_layer_that_does_not_reach_the_score_is_skipped():
    layers = record(_WithLooseEnd())
    assert kept(layers) == ["used"]
    assert reasons(layers) == {"loose": "does not reach the score"}


class _WithLoop(keras.Model):
    """A model that calls one of its layers inside a TensorFlow loop."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.first = keras.layers.Conv2D(3, 3, padding="same", name="first")
        self.again = keras.layers.Conv2D(3, 3, padding="same", name="again")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.first.build(shape)
        self.again.build(shape)
        self.built = True

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = self.first(images)
        _, x = tf.while_loop(
            lambda i, x: i < 2, lambda i, x: (i + 1, self.again(x)), (tf.constant(0), x)
        )
        return self.pool(x)


def test_a_layer_inside_a_loop_is_skipped():
    layers = record(_WithLoop())
    assert kept(layers) == ["first"]
    assert set(reasons(layers).values()) == {"inside a loop or a branch"}


def test_a_layer_without_a_fixed_size_is_skipped():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 3, name="open"),
            keras.layers.Resizing(8, 8, name="resize"),
            keras.layers.Conv2D(2, 3, name="fixed"),
            keras.layers.Flatten(),
        ]
    )
    layers = record(model, (None, None, 3))
    assert reasons(layers)["open"] == "its size is not fixed"
    assert kept(layers) == ["fixed"]


def test_a_border_from_padding_starts_no_new_stage():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(2, 3, padding="same", name="a"),  # 256 pixels
            keras.layers.ZeroPadding2D(1, name="b"),  # 18 × 18 = 324, less than twice as many
            keras.layers.Conv2D(2, 3, strides=2, name="c"),  # 8 × 8 = 64, less than half
            keras.layers.UpSampling2D(2, name="d"),  # 16 × 16: four times as many
            keras.layers.Flatten(),
        ]
    )
    assert [layer.stage for layer in record(model)] == [0, 0, 1, 2]


def test_integers_and_vectors_are_not_recorded():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.Reshape((14 * 14, 2), name="tokens"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(3, name="dense"),
        ]
    )
    assert [layer.layer for layer in record(model)] == ["conv"]


def test_a_model_that_raises_leaves_keras_as_it_was():
    before = keras.Operation.__call__

    class Broken(keras.Layer):
        def call(self, images: tf.Tensor) -> tf.Tensor:
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        record(keras.Sequential([Broken(name="broken")]))
    assert keras.Operation.__call__ is before


def choose(choice: str) -> tuple[list[str], list[str]]:
    """Return (kept, not chosen) of a small model under a choice of layers."""
    conv, pool = keras.layers.Conv2D, keras.layers.MaxPooling2D
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            conv(2, 3, padding="same", name="conv_1"),
            keras.layers.ReLU(name="relu_1"),
            pool(name="pool_1"),
            conv(2, 3, padding="same", name="conv_2"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    explainer = Explainer(wrap_model(model), layers=choice)
    skipped = [x.layer for x in explainer.layers if x.reason == "not chosen by --layers"]
    return [x.layer for x in explainer.layers if x.kept], skipped


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", ["conv_1", "relu_1", "pool_1", "conv_2"]),
        ("conv", ["conv_1", "conv_2"]),
        ("stages", ["relu_1", "conv_2"]),
        ("_1$", ["conv_1", "relu_1", "pool_1"]),
    ],
)
def test_layers_are_kept_as_chosen(choice, expected):
    kept_layers, skipped = choose(choice)
    assert kept_layers == expected
    assert sorted(kept_layers + skipped) == ["conv_1", "conv_2", "pool_1", "relu_1"]
