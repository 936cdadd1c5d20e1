"""Which layers get a map, under which name, and why the others do not."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.config import Method
from audit.explain.capture import ActivationRecorder, Layer
from audit.explain.gradcam import CHANNEL_WEIGHTS, PIXEL_WEIGHTS
from audit.explain.maps import Explainer
from audit.predict.model import wrap_model
from audit.predict.tracing import observe_operations

METHODS = ("gradcam", *CHANNEL_WEIGHTS, *PIXEL_WEIGHTS)


def record(model: keras.Model, shape: tuple[int | None, ...] = (16, 16, 3)) -> list[Layer]:
    """Trace a model on images of a shape, differentiate its scores, and return the layers."""
    layers: list[Layer] = []

    @tf.function(autograph=False)
    def trace(pixels: tf.Tensor) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            recorder = ActivationRecorder(tape.watch)
            with observe_operations(recorder):
                score = tf.reduce_sum(model(pixels, training=False))
        recorder.finish()
        found = tape.gradient(score, recorder.sources)
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
    assert set(reasons(layers).values()) == {"inside a loop, a branch or a function"}


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


# Channels first


def test_channels_first_are_told_and_turned():
    first = {"data_format": "channels_first"}
    conv = keras.layers.Conv2D(5, 3, name="conv", **first)
    model = keras.Sequential(
        [
            keras.Input((3, 12, 10)),
            keras.layers.Rescaling(1 / 255, name="scale"),
            conv,
            keras.layers.BatchNormalization(axis=1, name="norm"),
            keras.layers.MaxPooling2D(name="pool", **first),
            keras.layers.Permute((2, 3, 1), name="turn"),
            keras.layers.Conv2D(4, 1, name="last"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ],
        name="net",
    )
    explainer = Explainer(wrap_model(model))
    found = [(x.layer, x.height, x.width, x.channels, x.stage) for x in explainer.layers if x.kept]
    assert found == [
        ("conv", 10, 8, 5, 0),
        ("norm", 10, 8, 5, 0),
        ("pool", 5, 4, 5, 1),
        ("turn", 5, 4, 5, 1),
        ("last", 5, 4, 4, 1),
    ]
    scale = explainer.layers[0]
    assert (scale.height, scale.width, scale.channels) == (12, 10, 3)
    assert scale.reason.startswith("preprocessing")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_channels_first_has_the_maps_of_its_twin_with_channels_last(method):
    def build(data_format: str) -> keras.Model:
        keras.utils.set_random_seed(3)
        axis = 1 if data_format == "channels_first" else 3
        shape = (3, 12, 10) if axis == 1 else (12, 10, 3)
        steps = [
            keras.layers.Conv2D(6, 3, padding="same", data_format=data_format, name="conv"),
            keras.layers.BatchNormalization(axis=axis, name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.AveragePooling2D(2, data_format=data_format, name="pool"),
            keras.layers.Conv2D(4, 3, activation="tanh", data_format=data_format, name="last"),
            keras.layers.GlobalMaxPooling2D(data_format=data_format),
            keras.layers.Dense(3, activation="softmax"),
        ]
        return keras.Sequential([keras.Input(shape), *steps], name="net")

    pixels = np.random.default_rng(0).uniform(0, 1, (3, 12, 10, 3)).astype(np.float32)
    found = []
    for data_format in ("channels_last", "channels_first"):
        explainer = Explainer(wrap_model(build(data_format)), method=method)
        found.append(signed(explainer, pixels, [[0, 1], [2, 2], [1, 0]]))
    last, first = found
    assert list(last) == list(first) == ["conv", "norm", "relu", "pool", "last"]
    for key, values in last.items():
        scale = np.abs(values).max()
        assert scale > 0
        np.testing.assert_allclose(first[key], values, rtol=0, atol=1e-5 * scale)


# Layers that are functions of TensorFlow


class _Block(keras.layers.Layer):
    """A layer whose call has a graph of its own."""

    def __init__(self, name: str, compiled: bool = True) -> None:
        super().__init__(name=name)
        self.first = keras.layers.Conv2D(4, 3, padding="same", name="first")
        self.second = keras.layers.Conv2D(3, 3, name="second")
        if compiled:
            self.call = tf.function(self.call)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.second(tf.nn.relu(self.first(x)))


class _Helped(_Block):
    """A layer that hands its work to a function of TensorFlow."""

    @tf.function
    def work(self, x: tf.Tensor) -> tf.Tensor:
        return self.second(self.first(x))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.work(x) + 1


def around(block: keras.layers.Layer) -> keras.Model:
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((12, 12, 3)), block, *head], name="net")


@pytest.mark.usefixtures("float64")
def test_a_compiled_layer_has_the_maps_of_the_same_layer_in_python():
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 12, 12, 3))
    found = []
    for compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = around(_Block("block", compiled))
        call = vars(model.layers[0]).get("call")
        found.append(signed(Explainer(wrap_model(model)), pixels, [[0, 1], [1, 0]]))
        assert vars(model.layers[0]).get("call") is call
    plain, compiled = found
    assert list(plain) == list(compiled) == ["block/first", "block/second"]
    for key, values in plain.items():
        np.testing.assert_allclose(compiled[key], values, rtol=1e-9, atol=1e-12)


def test_of_a_function_inside_a_layer_the_layers_own_output_is_kept():
    layers = record(around(_Helped("block", compiled=False)), (12, 12, 3))
    assert kept(layers) == ["block"]
    assert set(reasons(layers).values()) <= {"inside a loop, a branch or a function"}


# Tokens


class _Leading(keras.layers.Layer):
    """Puts tokens of its own before those of the patches, and adds positions."""

    def __init__(self, n_leading: int, name: str = "leading") -> None:
        super().__init__(name=name)
        self.n_leading = n_leading

    def build(self, shape: tuple[int | None, ...]) -> None:
        _, n_patches, width = shape
        self.own = self.add_weight(shape=(1, self.n_leading, width), initializer="normal")
        everywhere = (1, n_patches + self.n_leading, width)
        self.positions = self.add_weight(shape=everywhere, initializer="normal")

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        own = tf.repeat(self.own, tf.shape(patches)[0], axis=0)
        return tf.concat([own, patches], axis=1) + self.positions


class _OwnAttention(keras.layers.Layer):
    """Attention as people write it: Dense layers, heads, a softmax, no layer of Keras's own."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self.width = width
        self.qkv = [keras.layers.Dense(width, name=f"{name}_{part}") for part in "qkv"]
        self.heads = keras.layers.Reshape((-1, 2, width // 2), name=f"{name}_heads")

    def call(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        q, k, v = (tf.transpose(self.heads(part(x)), (0, 2, 1, 3)) for part in self.qkv)
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / self.width**0.5)
        mixed = tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3))
        return tf.reshape(mixed, tf.shape(x))


def small_vit(
    n_leading: int = 1, *, size: tuple[int, int] = (16, 24), width: int = 8, own: bool = False
) -> keras.Model:
    """Return a transformer of two blocks on patches of 4 × 4; it pools if nothing leads."""
    keras.utils.set_random_seed(0)
    rows, columns = size[0] // 4, size[1] // 4
    inputs = keras.Input((*size, 3))
    x = keras.layers.Conv2D(width, 4, 4, name="patches")(inputs)
    x = keras.layers.Reshape((rows * columns, width), name="flat")(x)
    x = _Leading(n_leading)(x) if n_leading else x
    for block in "ab":
        y = keras.layers.LayerNormalization(name=f"{block}_norm")(x)
        make = _OwnAttention if own else keras.layers.MultiHeadAttention
        attention = make(*(() if own else (2,)), width, name=f"{block}_attention")
        x = keras.layers.Add(name=f"{block}_add")([x, attention(y, y)])
        y = keras.layers.LayerNormalization(name=f"{block}_norm_2")(x)
        y = keras.layers.Dense(2 * width, activation="gelu", name=f"{block}_wide")(y)
        y = keras.layers.Dense(width, name=f"{block}_narrow")(y)
        x = keras.layers.Add(name=f"{block}_out")([x, y])
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = x[:, 0] if n_leading else keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(
        inputs, keras.layers.Dense(3, activation="softmax", name="head")(x), name="vit"
    )


BLOCK = ("norm", "attention", "add", "norm_2", "wide", "narrow", "out")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("n_leading", [0, 1, 2, 5])
def test_the_tokens_of_a_transformer_are_laid_out_as_a_grid(n_leading: int, own: bool):
    explainer = Explainer(wrap_model(small_vit(n_leading, own=own)))
    wanted = ["patches", "flat", *(["leading"] if n_leading else [])]
    wanted += [f"a_{name}" for name in BLOCK] + [f"b_{name}" for name in BLOCK] + ["norm"]
    found = {x.layer: x for x in explainer.layers if "/" not in x.layer}
    assert list(found) == wanted
    assert {(x.height, x.width, x.stage) for x in found.values()} == {(4, 6, 0)}
    assert found["patches"].kind == "Conv2D"
    assert found["b_norm"].kind == "LayerNormalization, tokens"
    assert found["a_wide"].channels == 16
    # With a class token, nothing of the patches reaches the score after the last attention.
    idle = [f"b_{name}" for name in BLOCK[1:]] + ["norm"] if n_leading else []
    assert [x.layer for x in found.values() if not x.kept] == idle
    for name in idle:
        assert found[name].reason == "only its leading tokens reach the score"
    inside = {x.layer.partition("/")[2]: x for x in explainer.layers if "/" in x.layer}
    if not own:
        assert {x.reason for x in inside.values()} == {"inside attention"}
        return
    # Its Dense layers work on each token by itself; of the last queries, that of the class counts.
    assert [name for name, x in inside.items() if x.reason == "inside attention"] == [
        f"{block}_attention_heads{call}" for block in "ab" for call in ("", "#2", "#3")
    ]
    dense = [f"{block}_attention_{part}" for block in "ab" for part in "qkv"]
    unused = ["b_attention_q"] if n_leading else []
    assert [name for name in dense if not inside[name].kept] == unused


@pytest.mark.parametrize(("n_leading", "last"), [(0, "norm"), (1, "b_norm")])
def test_the_last_block_s_normalised_tokens_are_the_last_that_have_a_place(n_leading, last):
    explainer = Explainer(wrap_model(small_vit(n_leading)), layers="stages")
    assert [x.layer for x in explainer.layers if x.kept] == [last]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("float64")
def test_maps_of_tokens_agree_with_one_layer_at_a_time(method: Method):
    model = small_vit()
    layer = model.get_layer
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 16, 24, 3))
    found = signed(Explainer(wrap_model(model), method=method), pixels, [[0, 2], [0, 2]])

    def block(x: tf.Tensor, name: str, y: tf.Tensor | None = None) -> tf.Tensor:
        y = layer(f"{name}_norm")(x) if y is None else y
        x = x + layer(f"{name}_attention")(y, y)
        y = layer(f"{name}_wide")(layer(f"{name}_norm_2")(x))
        return x + layer(f"{name}_narrow")(y)

    def logits(x: tf.Tensor) -> tf.Tensor:
        head = layer("head")
        return layer("norm")(x)[:, 0] @ head.kernel.value + head.bias.value

    start = layer("leading")(layer("flat")(layer("patches")(tf.constant(pixels))))
    middle = block(start, "a")
    normed = layer("b_norm")(middle)
    chain = {
        "leading": (start, lambda x: logits(block(block(x, "a"), "b"))),
        "a_out": (middle, lambda x: logits(block(x, "b"))),
        "b_norm": (normed, lambda y: logits(block(middle, "b", y))),
    }
    for key, (tokens, finish) in chain.items():
        for column, explained in enumerate((0, 2)):
            with tf.GradientTape() as tape:
                tape.watch(tokens)
                score = tf.reduce_sum(finish(tokens)[:, explained])
            # The class token goes first and has no place; then come 4 rows of 6 patches.
            gradients = tape.gradient(score, tokens)[:, 1:].numpy().reshape(2, 4, 6, 8)
            values = tokens[:, 1:].numpy().reshape(2, 4, 6, 8)
            wanted = REFERENCE[method](values, gradients)
            assert np.abs(wanted).max() > 0
            atol = 1e-9 * np.abs(wanted).max()
            np.testing.assert_allclose(found[key][..., column], wanted, rtol=0, atol=atol)


def _plus_plus(values: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    total = values.sum(axis=(1, 2), keepdims=True)
    alpha = gradients**2 / (2 * gradients**2 + total * gradients**3)
    return (alpha * np.maximum(gradients, 0)).sum(axis=(1, 2), keepdims=True) * values


REFERENCE = {
    "gradcam": lambda a, g: (a * g.mean(axis=(1, 2), keepdims=True)).sum(-1),
    "article": lambda a, g: (a * ((a > 0) * (g > 0) * g).mean(axis=(1, 2), keepdims=True)).sum(-1),
    "gradcam++": lambda a, g: _plus_plus(a, g).sum(-1),
    "hirescam": lambda a, g: (a * g).sum(-1),
    "layercam": lambda a, g: (a * np.maximum(g, 0)).sum(-1),
}


def signed(explainer: Explainer, pixels: np.ndarray, classes: list[list[int]]) -> dict[str, Any]:
    """Return the signed maps of shape (n, height, width, k) by layer."""
    keys: list[str] = []

    @tf.function(autograph=False)
    def run(pixels: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        _, layers, maps = explainer.signed_maps(pixels, classes)
        keys[:] = [layer.layer for layer in layers]
        return maps

    maps = run(tf.constant(pixels), tf.constant(classes, tf.int32))
    return dict(zip(keys, (values.numpy() for values in maps), strict=True))


def test_a_bright_patch_is_found_in_its_place():
    # Tokens are the mean brightness of their patches, attention is even, so the gradient is the
    # same everywhere and the map is the brightness.
    model = small_vit(0, width=2)
    for weight in model.weights:
        weight.assign(tf.zeros_like(weight))
    model.get_layer("patches").kernel.assign(np.full((4, 4, 3, 2), [1 / 48, 0]))
    for name in ("a_norm", "a_norm_2", "b_norm", "b_norm_2", "norm"):
        model.get_layer(name).gamma.assign([1.0, 1.0])
    model.get_layer("head").kernel.assign([[1, 0, 0], [0, 1, 0]])
    pixels = np.zeros((1, 16, 24, 3), np.float32)
    pixels[:, 8:12, 20:24] = 255  # the third row and the last column of patches
    maps = Explainer(wrap_model(model)).explain(tf.constant(pixels), np.array([[0, 1]]))
    (group, _) = maps.groups
    cam = group.cams[0, :, :, group.layers.index("norm"), 0]
    assert cam.shape == (4, 6)
    assert np.unravel_index(cam.argmax(), cam.shape) == (2, 5)
    assert cam[2, 5] == 255 and np.delete(cam.ravel(), 2 * 6 + 5).max() == 0


class _Windows(keras.Model):
    """Attention inside windows of 2 × 2 patches, which stand in place of the images."""

    def __init__(self) -> None:
        super().__init__(name="windows")
        self.patches = keras.layers.Conv2D(4, 4, 4, name="patches")
        self.norm = keras.layers.LayerNormalization(name="window_norm")
        self.attention = keras.layers.MultiHeadAttention(1, 4, name="attention")
        self.join = keras.layers.Conv2D(4, 2, 2, name="join")  # 2 × 2: as many as in a window
        self.last = keras.layers.Dense(2, name="last")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = self.patches(images)
        x = tf.reshape(x, (-1, 2, 2, 2, 2, 4))
        x = tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 4, 4))
        y = self.norm(x)
        x = x + self.attention(y, y)
        x = tf.transpose(tf.reshape(x, (-1, 2, 2, 2, 2, 4)), (0, 1, 3, 2, 4, 5))
        x = self.join(tf.reshape(x, (-1, 4, 4, 4)))
        return self.last(tf.reduce_mean(x, axis=(1, 2)))


def test_windows_are_not_taken_for_images():
    explainer = Explainer(wrap_model(_Windows(), input_shape=(16, 16, 3)))
    assert [x.layer for x in explainer.layers if x.kept] == ["patches", "join"]
    skipped = reasons(list(explainer.layers))
    assert skipped["window_norm"] == skipped["attention"] == "of parts of images"
    pixels = np.random.default_rng(0).uniform(0, 1, (3, 16, 16, 3)).astype(np.float32)
    maps = explainer.explain(tf.constant(pixels), np.array([[0, 1]] * 3))
    assert all(len(group.cams) == 3 for group in maps.groups)


def test_tokens_that_form_no_grid_are_named():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 4, 4, name="patches")(inputs)
    x = keras.layers.Reshape((16, 4), name="flat")(x)
    x = keras.layers.Cropping1D((0, 3), name="crop")(x)  # 13 are left
    x = keras.layers.MultiHeadAttention(1, 4, name="attention")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    layers = record(keras.Model(inputs, keras.layers.Dense(2)(x)))
    assert reasons(layers)["crop"] == reasons(layers)["attention"] == "its tokens form no grid"
    assert kept(layers) == ["patches"]


def test_unfolded_maps_are_not_taken_for_places():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = keras.layers.Reshape((4, 64, 4), name="unfold")(x)  # as MobileViT does
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Reshape((16, 16, 4), name="fold")(x)
    layers = record(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    why = "rearranged: its sides are not the image's"
    assert reasons(layers) == {"unfold": why, "norm": why}
    assert kept(layers) == ["conv", "fold"]
