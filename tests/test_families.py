"""A table of all kinds of models: each gets maps of all its spatial layers, however it is nested.

Every family of `keras.applications` stands in it as it is and nested, one in every way of nesting.
Then come models that are built otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.errors import ModelError
from audit.explain.explanations import _SCORE_TOLERANCE
from audit.explain.maps import BatchMaps, Explainer
from audit.predict.inference import Predictor
from audit.predict.model import AuditedModel, wrap_model
from audit.predict.tracing import all_layers, computes_in_half

A = keras.applications
L = keras.layers
FAMILIES = {  # constructor and side of the images; of a family of several sizes, the smallest
    "ConvNeXtTiny": (A.ConvNeXtTiny, 64),
    "DenseNet121": (A.DenseNet121, 64),
    "EfficientNetB0": (A.EfficientNetB0, 64),
    "EfficientNetV2B0": (A.EfficientNetV2B0, 64),
    "InceptionResNetV2": (A.InceptionResNetV2, 96),
    "InceptionV3": (A.InceptionV3, 96),
    "MobileNet": (A.MobileNet, 96),
    "MobileNetV2": (A.MobileNetV2, 96),
    "MobileNetV3Small": (A.MobileNetV3Small, 96),
    "NASNetMobile": (A.NASNetMobile, 64),
    "ResNet50": (A.ResNet50, 64),
    "ResNet50V2": (A.ResNet50V2, 64),
    "VGG16": (A.VGG16, 64),
    "VGG19": (A.VGG19, 64),
    "Xception": (A.Xception, 96),
}


def in_sequential(backbone: keras.Model, last: keras.Layer) -> keras.Model:
    shape = backbone.input_shape[1:]
    return keras.Sequential(
        [keras.Input(shape), backbone, L.GlobalAveragePooling2D(), L.Dropout(0.2), last]
    )


def in_functional(backbone: keras.Model, last: keras.Layer) -> keras.Model:
    inputs = keras.Input(backbone.input_shape[1:])
    x = backbone(L.Rescaling(1 / 127.5, -1)(inputs), training=False)
    return keras.Model(inputs, last(L.GlobalMaxPooling2D()(x)))


def two_levels_deep(backbone: keras.Model, last: keras.Layer) -> keras.Model:
    shape = backbone.input_shape[1:]
    augment = keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1)], name="augment")
    inputs = keras.Input(shape)
    features = keras.Model(inputs, backbone(L.Rescaling(1 / 127.5, -1)(inputs)), name="features")
    return keras.Sequential(
        [keras.Input(shape), augment, features, L.GlobalAveragePooling2D(), L.Dense(8), last]
    )


NESTINGS = {"sequential": in_sequential, "functional": in_functional, "two levels": two_levels_deep}
HEADS = {"sigmoid": (1, "sigmoid"), "softmax": (3, "softmax"), "logits": (3, None)}
NESTED = [  # every family once, ways and heads in turn; one family in every way
    *[
        (family, list(NESTINGS)[turn % 3], list(HEADS)[turn // 3 % 3])
        for turn, family in enumerate(FAMILIES)
    ],
    *[
        ("MobileNetV2", nesting, head)
        for nesting, head in zip(NESTINGS, ["logits", "sigmoid", "softmax"], strict=True)
    ],
]


@pytest.fixture(autouse=True)
def afresh():
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


def draw(shape: tuple[int, int, int], n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (n, *shape)).astype(np.float32)


def explain(audited: AuditedModel) -> tuple[Explainer, BatchMaps]:
    """Explain two images and check what holds of every model."""
    explainer = Explainer(audited)
    n_classes = audited.head.n_classes
    pixels = draw((*audited.input_size, audited.channels))
    maps = explainer.explain(tf.constant(pixels), np.array([[0, 1], [n_classes - 1] * 2]))

    kept = [layer for layer in explainer.layers if layer.kept]
    assert len({layer.layer for layer in explainer.layers}) == len(explainer.layers)
    assert all(layer.height * layer.width > 1 and layer.channels > 0 for layer in kept)
    assert [layer.order for layer in explainer.layers] == list(range(len(explainer.layers)))
    assert all(bool(layer.reason) != layer.kept for layer in explainer.layers)

    peaks = np.concatenate([group.peaks for group in maps.groups], axis=1)
    assert peaks.shape == (2, len(kept) + 1, 2)
    assert np.isfinite(peaks).all()  # Below 0 where a map is the same everywhere.
    assert (peaks > 0).mean() > 0.3
    np.testing.assert_array_equal(peaks[1, :, 0], peaks[1, :, 1])  # the same class twice
    return explainer, maps


def assert_all_convolutions_are_kept(model: keras.Model, explainer: Explainer) -> None:
    convolutions = [layer for layer in all_layers(model) if isinstance(layer, L.Conv2D)]
    wide = {layer.name for layer in convolutions if np.prod(layer.output.shape[1:3]) > 1}
    assert wide
    assert wide <= {layer.layer.rpartition("/")[2] for layer in explainer.layers if layer.kept}


def test_no_family_is_missing():
    constructors = {
        name: value
        for name, value in vars(A).items()
        if callable(value) and name[0].isupper() and not isinstance(value, type)
    }
    modules = {value.__module__ for value in constructors.values()}
    assert modules == {family.__module__ for family, _ in FAMILIES.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_explained_over_all_its_layers(name):
    family, side = FAMILIES[name]
    model = family(weights=None, input_shape=(side, side, 3), classes=3)
    audited = wrap_model(model)
    assert (audited.head.kind, audited.head.logits_from) == ("softmax", "before the activation")
    explainer, maps = explain(audited)
    assert_all_convolutions_are_kept(model, explainer)
    np.testing.assert_allclose(maps.scores, model(draw((side, side, 3))), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "nesting", "head"), NESTED)
def test_a_nested_family_is_explained_over_all_its_layers(name, nesting, head):
    family, side = FAMILIES[name]
    units, activation = HEADS[head]
    backbone = family(weights=None, input_shape=(side, side, 3), include_top=False)
    model = NESTINGS[nesting](backbone, L.Dense(units, activation))
    audited = wrap_model(model)
    assert (audited.head.kind, audited.head.n_classes) == (head, max(units, 2))
    explainer, _ = explain(audited)
    assert_all_convolutions_are_kept(backbone, explainer)
    where = "features/" if nesting == "two levels" else ""
    inner = [layer for layer in explainer.layers if layer.kept]
    assert all(layer.layer.startswith(f"{where}{backbone.name}/") for layer in inner)
    skipped = {layer.reason for layer in explainer.layers if not layer.kept}
    assert skipped <= {
        "1 × 1: it has no place",
        "preprocessing: the image itself, no features",
    }


# Models that are built otherwise


class Subclassed(keras.Model):
    """A model that Keras knows no graph of, with layers in a list and raw operations between."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.steps = [L.Conv2D(4, 3, name=f"conv_{i}", padding="same") for i in range(3)]
        self.last = L.Dense(3, name="last")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = images / 255
        for step in self.steps:
            x = tf.nn.relu(step(x)) + 0.1
        return self.last(tf.reduce_mean(x, axis=(1, 2)))


class CompiledBlock(L.Layer):
    """A layer whose call is a `tf.function`."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.first = L.Conv2D(4, 3, name="first")
        self.second = L.Conv2D(4, 3, name="second")

    @tf.function
    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.second(tf.nn.relu(self.first(images)))


class ClassToken(L.Layer):
    """Puts a class token before the tokens of the patches."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        token = tf.repeat(tf.cast(self.token, patches.dtype), tf.shape(patches)[0], axis=0)
        return tf.concat([token, patches], axis=1)


def subclassed() -> keras.Model:
    return Subclassed()


def shared_layer() -> keras.Model:
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    inputs = keras.Input((32, 32, 3))
    x = L.GlobalAveragePooling2D()(shared(L.MaxPooling2D(name="pool")(shared(inputs))))
    return keras.Model(inputs, L.Dense(2, "softmax")(x))


def several_outputs() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = L.Conv2D(4, 3, name="trunk")(inputs)
    for_cat, for_dog = L.Conv2D(4, 3, name="cat_conv")(x), L.Conv2D(4, 3, name="dog_conv")(x)
    cat = L.Dense(2, "softmax", name="cat")(L.GlobalAveragePooling2D()(for_cat))
    dog = L.Dense(3, "softmax", name="dog")(L.GlobalAveragePooling2D()(for_dog))
    return keras.Model(inputs, {"cat": cat, "dog": dog})


def compiled_layer() -> keras.Model:
    head = [L.GlobalAveragePooling2D(), L.Dense(1, "sigmoid")]
    return keras.Sequential([keras.Input((32, 32, 3)), CompiledBlock(), *head])


def vision_transformer() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = L.Conv2D(16, 8, 8, name="patches")(L.Rescaling(1 / 255)(inputs))
    x = ClassToken(name="tokens")(L.Reshape((16, 16), name="flat")(x))
    for block in range(2):
        y = L.LayerNormalization(name=f"norm_{block}")(x)
        x = L.Add(name=f"add_{block}")([x, L.MultiHeadAttention(2, 8, name=f"att_{block}")(y, y)])
        y = L.Dense(16, name=f"narrow_{block}")(L.Dense(32, "gelu", name=f"wide_{block}")(x))
        x = L.Add(name=f"out_{block}")([x, y])
    return keras.Model(inputs, L.Dense(3, "softmax")(L.LayerNormalization(name="norm")(x)[:, 0]))


def nested_vision_transformer() -> keras.Model:
    inner = vision_transformer()
    inputs = keras.Input((32, 32, 3))
    features = keras.Model(inner.inputs, inner.layers[-1].input, name="inner")
    return keras.Model(inputs, L.Dense(1)(features(inputs)))


def conv_and_attention() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = L.Conv2D(8, 3, strides=4, padding="same", name="conv")(inputs)
    y = L.Reshape((64, 8), name="flat")(x)
    y = L.MultiHeadAttention(2, 4, name="att")(y, y)
    x = L.Conv2D(4, 3, name="last")(L.Reshape((8, 8, 8), name="grid")(y))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


@dataclass(frozen=True)
class Row:
    """A model of the table, and what has to come of it."""

    build: Callable[[], keras.Model]
    kept: list[str]
    skipped: dict[str, str]
    options: dict[str, Any]


IDLE = "only its leading tokens reach the score"
PREPROCESSING = "preprocessing: the image itself, no features"
UNREACHED = "does not reach the score"
TOKENS = ["patches", "flat", "tokens", "norm_0", "att_0", "add_0", "wide_0", "narrow_0", "out_0"]
LAST_TOKENS = ["att_1", "add_1", "wide_1", "narrow_1", "out_1", "norm"]
TABLE = {
    "a subclassed model": Row(
        subclassed, ["conv_0", "conv_1", "conv_2"], {}, {"input_shape": (32, 32, 3)}
    ),
    "a shared layer": Row(shared_layer, ["shared", "pool", "shared#2"], {}, {}),
    "the first of two outputs": Row(
        several_outputs, ["trunk", "cat_conv"], {"dog_conv": UNREACHED}, {"output": "cat"}
    ),
    "the second of two outputs": Row(
        several_outputs, ["trunk", "dog_conv"], {"cat_conv": UNREACHED}, {"output": "1"}
    ),
    "a compiled layer": Row(compiled_layer, ["block/first", "block/second"], {}, {}),
    "a vision transformer": Row(
        vision_transformer,
        [*TOKENS, "norm_1"],
        {"rescaling": PREPROCESSING, **dict.fromkeys(LAST_TOKENS, IDLE)},
        {},
    ),
    "a nested vision transformer": Row(
        nested_vision_transformer,
        [f"inner/{name}" for name in [*TOKENS, "norm_1"]],
        {
            "inner/rescaling": PREPROCESSING,
            **{f"inner/{name}": IDLE for name in LAST_TOKENS},
        },
        {},
    ),
    "attention on a map": Row(conv_and_attention, ["conv", "flat", "att", "grid", "last"], {}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_a_model_is_explained_over_all_its_layers(name):
    row = TABLE[name]
    audited = wrap_model(row.build(), **row.options)
    explainer, _ = explain(audited)
    assert [layer.layer for layer in explainer.layers if layer.kept] == row.kept
    skipped = {x.layer: x.reason for x in explainer.layers if not x.kept}
    assert {k: v for k, v in skipped.items() if v != "inside attention"} == row.skipped
    Predictor(audited, "none").predict(tf.constant(draw((32, 32, 3))))


# Precision


def random_weights(model: keras.Model) -> keras.Model:
    """Fill a model with weights that leave no layer idle; variances stay positive."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            weight.assign(rng.normal(0, 0.1, shape))
        else:
            weight.assign(rng.normal(0, (1 / np.prod(shape[:-1])) ** 0.5, shape))
    return model


def zero_maps(maps: BatchMaps) -> int:
    """Count layers of which an image has no map at all, for either class."""
    peaks = np.concatenate([group.peaks for group in maps.groups], axis=1)
    return int((peaks[0] == 0).all(axis=-1).sum())  # the image with two different classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "nesting"),
    [
        ("mixed_float16", "functional"),
        ("mixed_bfloat16", "sequential"),
        ("float16", "two levels"),
        ("bfloat16", "functional"),
    ],
)
def test_half_precision_is_explained_in_float32_and_predicted_as_saved(policy, nesting):
    def build(policy: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        try:
            backbone = A.MobileNetV2((64, 64, 3), 0.35, weights=None, include_top=False)
            return random_weights(NESTINGS[nesting](backbone, L.Dense(1, "sigmoid")))
        finally:
            keras.config.set_dtype_policy("float32")

    model, single = build(policy), build("float32")
    single.set_weights([tf.cast(w.value, tf.float32).numpy() for w in model.weights])
    pixels = draw((64, 64, 3))
    policies = [layer.dtype_policy for layer in all_layers(model)]
    before = model(pixels, training=False)
    audited = wrap_model(model)
    predicted = Predictor(audited, "none").predict(tf.constant(pixels))[0].numpy()
    explainer, maps = explain(audited)

    # Maps and their scores are those of the same model in float32.
    other, wanted = explain(wrap_model(single))
    assert len(explainer.layers) == len(other.layers) > 100
    np.testing.assert_allclose(maps.scores, wanted.scores, atol=1e-5)
    for group, reference in zip(maps.groups, wanted.groups, strict=True):
        np.testing.assert_allclose(group.peaks, reference.peaks, rtol=1e-2, atol=1e-9)
    assert zero_maps(maps) == zero_maps(wanted) == 0

    # The model itself, and what it predicts, are as they were.
    assert all(a.dtype_policy is b for a, b in zip(all_layers(model), policies, strict=True))
    after = model(pixels, training=False)
    assert after.dtype == before.dtype == policy.removeprefix("mixed_")
    assert after.numpy().tobytes() == before.numpy().tobytes()
    again = Predictor(audited, "none").predict(tf.constant(pixels))[0].numpy()
    assert again.tobytes() == predicted.tobytes()
    np.testing.assert_allclose(
        predicted, maps.scores, atol=_SCORE_TOLERANCE[computes_in_half(model)]
    )


# Channels first


@pytest.mark.slow
def test_a_family_with_channels_first_is_explained_like_its_twin():
    height, width = 64, 96

    def build(data_format: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        keras.config.set_image_data_format(data_format)
        first = data_format == "channels_first"
        shape = (3, height, width) if first else (height, width, 3)
        try:
            model = A.MobileNetV2(shape, alpha=0.35, weights=None, classes=3)
        finally:
            keras.config.set_image_data_format("channels_last")
        return model

    last, first = build("channels_last"), build("channels_first")
    first.set_weights(last.get_weights())
    (of_last, wanted), (of_first, found) = explain(wrap_model(last)), explain(wrap_model(first))
    for a, b in zip(of_first.layers, of_last.layers, strict=True):
        assert (a.layer, a.height, a.width, a.channels) == (b.layer, b.height, b.width, b.channels)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    for a, b in zip(found.groups, wanted.groups, strict=True):
        np.testing.assert_allclose(a.peaks, b.peaks, rtol=1e-2, atol=1e-7)
    pixels = tf.constant(draw((height, width, 3)))
    scores = Predictor(wrap_model(first), "none").predict(pixels)[0]
    np.testing.assert_allclose(scores, found.scores, atol=1e-5)


def test_a_model_without_spatial_layers_is_refused_with_the_reason():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(2)], name="flat")
    with pytest.raises(ModelError, match="inner outputs have no height and width"):
        Explainer(wrap_model(model))
