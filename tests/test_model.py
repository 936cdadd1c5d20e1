"""What a model's outputs are, where its logits come from, and which models are refused."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.layers import Activation, Dense, Dropout, Lambda, Reshape, Softmax

from audit.errors import ModelError
from audit.predict.model import load_model, wrap_model

BEFORE, OUTPUTS, LOG_ODDS = (
    "before the activation",
    "the outputs",
    "log-odds of the probability",
)
SIZE = 8


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def features(channels=3):
    """Return an input and two-layer features; weights are small so that nothing saturates."""
    inputs = keras.Input((SIZE, SIZE, channels))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    return inputs, layers.GlobalAveragePooling2D(name="pool")(x)


def model_of(*heads, channels=3):
    inputs, x = features(channels)
    for head in heads:
        x = head(x)
    return keras.Model(inputs, x, name="small")


def images(n=6, channels=3, size=SIZE):
    rng = np.random.default_rng(1)
    return tf.constant(rng.uniform(0, 255, (n, size, size, channels)), tf.float32)


def softmax_op(x):
    return keras.ops.exp(x) / keras.ops.sum(keras.ops.exp(x), axis=-1, keepdims=True)


HEADS = {
    "dense sigmoid": (lambda: [Dense(1, "sigmoid")], "sigmoid", 2, BEFORE),
    "dense linear 1": (lambda: [Dense(1)], "logit", 2, OUTPUTS),
    "dense softmax": (lambda: [Dense(3, "softmax")], "softmax", 3, BEFORE),
    "dense softmax 2": (lambda: [Dense(2, "softmax")], "softmax", 2, BEFORE),
    "dense linear 3": (lambda: [Dense(3)], "logits", 3, OUTPUTS),
    "activation sigmoid": (lambda: [Dense(1), Activation("sigmoid")], "sigmoid", 2, BEFORE),
    "activation softmax": (lambda: [Dense(3), Activation("softmax")], "softmax", 3, BEFORE),
    "activation linear": (lambda: [Dense(3), Activation("linear")], "logits", 3, OUTPUTS),
    "softmax layer": (lambda: [Dense(3), Softmax()], "softmax", 3, BEFORE),
    "dropout after softmax": (lambda: [Dense(3, "softmax"), Dropout(0.5)], "softmax", 3, BEFORE),
    "dropout after linear": (lambda: [Dense(3), Dropout(0.5)], "logits", 3, OUTPUTS),
    "softmax operation": (lambda: [Dense(3), keras.ops.softmax], "softmax", 3, BEFORE),
    "softmax by hand": (lambda: [Dense(3), softmax_op], "softmax", 3, LOG_ODDS),
    "softmax in a Lambda": (lambda: [Dense(3), Lambda(tf.nn.softmax)], "softmax", 3, LOG_ODDS),
    "reshape after softmax": (lambda: [Dense(3, "softmax"), Reshape((3,))], "softmax", 3, LOG_ODDS),
    "hard sigmoid": (lambda: [Dense(1, "hard_sigmoid")], "sigmoid", 2, LOG_ODDS),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_out(name):
    heads, kind, n_classes, logits_from = HEADS[name]
    audited = wrap_model(model_of(*heads()))
    head = audited.head
    assert (head.kind, head.n_classes, head.logits_from) == (kind, n_classes, logits_from)
    assert not head.forced
    outputs = audited.call(images())
    assert outputs.scores.shape == outputs.logits.shape == (6, n_classes)
    assert outputs.scores.dtype == outputs.logits.dtype == outputs.embedding.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(outputs.scores, -1), 1, atol=1e-6)
    assert outputs.embedding.shape == (6, 4)


@pytest.mark.parametrize("name", ["dense sigmoid", "activation sigmoid"])
def test_sigmoid_logits_are_those_of_a_model_cut_before_the_activation(name):
    model = model_of(*HEADS[name][0]())
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    dense.kernel.assign(300 * dense.kernel)  # far into saturation
    pool = model.get_layer("pool").output
    cut = keras.Model(model.input, pool @ dense.kernel.numpy() + dense.bias.numpy())
    pixels = images()
    outputs = wrap_model(model).call(pixels)
    want = cut(pixels).numpy()
    assert np.abs(want).max() > 20
    np.testing.assert_allclose(outputs.logits, np.hstack([-want, want]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs.scores[:, 1:], model(pixels), rtol=0, atol=0)


def test_the_logit_tells_apart_what_the_probability_cannot():
    model = model_of(layers.Dense(1, "sigmoid", name="head"))
    model.get_layer("conv").kernel.assign(tf.ones((3, 3, 3, 4)) * 0.1)
    model.get_layer("head").kernel.assign(tf.ones((4, 1)) * 30)
    pixels = tf.constant(np.full((2, SIZE, SIZE, 3), [[[[200]]], [[[250]]]]), tf.float32)
    outputs = wrap_model(model).call(pixels)
    assert outputs.scores[:, 1].numpy().tolist() == [1.0, 1.0]
    # 27 weights of 0.1 on pixels of 200/255 and 250/255, four channels, weight 30
    want = [4 * 30 * 2.7 * 200 / 255, 4 * 30 * 2.7 * 250 / 255]
    np.testing.assert_allclose(outputs.logits[:, 1], want, rtol=1e-5)


def test_softmax_logits_and_scores_are_those_of_the_model():
    model = model_of(layers.Dense(3, "softmax", name="head"))
    dense = model.get_layer("head")
    pixels = images()
    outputs = wrap_model(model).call(pixels)
    pooled = keras.Model(model.input, model.get_layer("pool").output)(pixels).numpy()
    want = pooled @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(outputs.logits, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs.scores, model(pixels))
    np.testing.assert_allclose(outputs.embedding, pooled, rtol=1e-6)


def test_raw_logits_become_probabilities():
    one, many = model_of(layers.Dense(1)), model_of(layers.Dense(3))
    pixels = images()
    z = one(pixels).numpy()
    outputs = wrap_model(one).call(pixels)
    np.testing.assert_allclose(outputs.scores[:, 1:], 1 / (1 + np.exp(-z)), rtol=1e-6)
    np.testing.assert_array_equal(outputs.logits, np.hstack([-z, z]))
    outputs = wrap_model(many).call(pixels)
    np.testing.assert_array_equal(outputs.logits, many(pixels))
    np.testing.assert_allclose(outputs.scores, tf.nn.softmax(many(pixels)), rtol=1e-6)


def test_log_odds_stand_in_where_there_is_no_logit():
    audited = wrap_model(model_of(layers.Dense(2), layers.Lambda(tf.nn.softmax)))
    outputs = audited.call(images())
    p = outputs.scores.numpy().astype(np.float64)
    np.testing.assert_allclose(outputs.logits, np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    assert "log-odds worked out from the probability" in audited.head.explained


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_log_odds_of_certainty_are_finite(p):
    step = layers.Lambda(lambda x: tf.stack([0 * x[:, 0] + p, 0 * x[:, 0] + 1 - p], -1))
    outputs = wrap_model(model_of(step)).call(images())
    assert np.isfinite(outputs.logits).all()
    assert (np.sign(outputs.logits[:, 0]) == (1 if p else -1)).all()


def test_a_sigmoid_per_class_is_refused_unless_said_to_be_one_label():
    model = model_of(layers.Dense(3, "sigmoid"))
    with pytest.raises(ModelError) as caught:
        wrap_model(model)
    assert str(caught.value) == (
        "`small` has a sigmoid per class, as models for several labels per image do. Received: 3"
        " outputs that do not add up to 1. If one label per image is meant, say `--head softmax`."
    )
    audited = wrap_model(model, head="softmax")
    outputs = audited.call(images())
    raw = model(images()).numpy()
    np.testing.assert_allclose(outputs.scores, raw / raw.sum(axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(outputs.logits, np.log(raw / (1 - raw)), atol=1e-5)
    assert audited.head.forced


@pytest.mark.parametrize(
    ("choice", "last"), [("sigmoid", 3), ("logit", 3), ("softmax", 1), ("logits", 1)]
)
def test_a_head_that_does_not_fit_the_number_of_outputs_is_refused(choice, last):
    with pytest.raises(ModelError) as caught:
        wrap_model(model_of(layers.Dense(last)), head=choice)
    outputs = "1 output" if last == 1 else "3 outputs"
    text = f"`--head {choice}` does not fit `small`. Received: a model with {outputs}. Use sigmoid"
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("choice", "units", "activation"),
    [
        ("logit", 1, None),
        ("sigmoid", 1, "sigmoid"),
        ("logits", 3, None),
        ("softmax", 3, "softmax"),
    ],
)
def test_a_head_that_is_said_rightly_changes_nothing(choice, units, activation):
    model = model_of(layers.Dense(units, activation))
    said, found = wrap_model(model, head=choice), wrap_model(model)
    assert said.head.forced and said.head.kind == found.head.kind == choice
    for name, tensor in vars(found.call(images())).items():
        np.testing.assert_allclose(vars(said.call(images()))[name], tensor, rtol=1e-6)


# Models as people build them


def transfer_model(kind, size=32, last=None):
    backbone = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), alpha=0.35, include_top=False, weights=None
    )
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), last or layers.Dense(1)]
    if kind == "sequential":
        return keras.Sequential(
            [keras.Input((size, size, 3)), layers.Rescaling(1 / 127.5, -1), backbone, *head]
        )
    inputs = keras.Input((size, size, 3))
    x = backbone(layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    for layer in head:
        x = layer(x)
    model = keras.Model(inputs, x)
    if kind == "nested twice":
        outer = keras.Input((size, size, 3))
        model = keras.Model(outer, model(outer))
    return model


@pytest.mark.parametrize("kind", ["sequential", "functional", "nested twice"])
def test_nested_backbones(kind):
    model = transfer_model(kind, last=layers.Dense(2, "softmax"))
    audited = wrap_model(model)
    assert audited.input_size == (32, 32) and audited.channels == 3
    assert (audited.head.kind, audited.head.logits_from) == ("softmax", BEFORE)
    outputs = audited.call(images(size=32))
    np.testing.assert_allclose(outputs.scores, tf.nn.softmax(outputs.logits), atol=1e-6)
    assert outputs.embedding.shape == (6, 1280)
    assert audited.n_parameters == model.count_params()


def test_a_saved_model_gives_the_same_outputs(tmp_path):
    model = transfer_model("functional", size=64, last=layers.Dense(1, "sigmoid"))
    pixels = images(size=64)
    want = wrap_model(model).call(pixels)
    for suffix in ("keras", "h5"):
        path = tmp_path / f"m.{suffix}"
        save(model, path)
        audited = load_model(path)
        assert audited.name == path.name and len(audited.fingerprint) == 64
        got = audited.call(pixels)
        for a, b in zip(vars(got).values(), vars(want).values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def save(model, path):
    """Save quietly: Keras logs that HDF5 is a legacy format."""
    model.save(path)


def test_a_classifier_without_dense_layer_is_embedded_by_its_last_spatial_output():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.Conv2D(2, 1)(x)
    model = keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))
    outputs = wrap_model(model).call(images())
    assert outputs.embedding.shape == (6, 2)


def test_a_wide_flatten_is_embedded_by_pooling():
    inputs = keras.Input((40, 40, 3))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    assert wrap_model(model).call(images(size=40)).embedding.shape == (6, 8)


def test_grey_models():
    audited = wrap_model(model_of(layers.Dense(2, "softmax"), channels=1))
    assert audited.channels == 1
    assert audited.call(images(channels=1)).scores.shape == (6, 2)


class Subclassed(keras.Model):
    def __init__(self, body, head):
        super().__init__(name="subclassed")
        self.body, self.head = body, head

    def call(self, x):
        x = tf.reduce_mean(self.body(inputs=x), axis=(1, 2))
        return self.head(inputs=x)


def test_a_subclassed_model_takes_its_input_size_from_the_images():
    model = Subclassed(layers.Conv2D(4, 3), layers.Dense(2, "softmax"))
    audited = wrap_model(model, input_shape=(SIZE, SIZE, 3))
    assert audited.input_size == (SIZE, SIZE)
    assert (audited.head.kind, audited.head.logits_from) == ("softmax", BEFORE)
    assert audited.call(images()).embedding.shape == (6, 4)
    other = Subclassed(layers.Conv2D(4, 3), layers.Dense(2, "softmax"))
    other(images())
    assert wrap_model(other, input_shape=(SIZE, SIZE, 3)).fingerprint != audited.fingerprint


def test_mixed_precision_scores_are_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_of(layers.Dense(3, "softmax"))
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = wrap_model(model).call(images())
    assert {t.dtype for t in vars(outputs).values()} == {tf.float32}


def test_the_model_is_not_changed_and_runs_in_inference_mode():
    model = model_of(layers.BatchNormalization(), layers.Dropout(0.9), layers.Dense(1))
    before = [w.numpy().copy() for w in model.weights]
    audited = wrap_model(model)
    first = audited.call(images()).logits.numpy()
    np.testing.assert_array_equal(audited.call(images()).logits, first)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert audited.model is model


def test_the_fingerprint_of_a_live_model_follows_its_weights():
    model = model_of(layers.Dense(1, name="head"))
    before = wrap_model(model).fingerprint
    assert wrap_model(model).fingerprint == before
    model.get_layer("head").bias.assign([0.5])
    assert wrap_model(model).fingerprint != before


# Refusals


def refusal(model, **options):
    with pytest.raises(ModelError) as caught:
        wrap_model(model, **options)
    assert " Received: " in str(caught.value)
    return str(caught.value)


def test_several_inputs_are_refused():
    a, b = keras.Input((SIZE, SIZE, 3), name="a"), keras.Input((4,), name="b")
    pooled = layers.GlobalAveragePooling2D()(a)
    model = keras.Model([a, b], layers.Dense(1)(layers.Concatenate()([pooled, b])), name="two")
    assert "`two` has several inputs. Received: input shapes" in refusal(model)
    named = keras.Model({"a": a, "b": b}, model([a, b]), name="named")
    assert "`named` has several inputs" in refusal(named)


# Keras says so at each call of a model whose only input is in a dict.
@pytest.mark.filterwarnings("ignore:.*structure of `inputs` doesn't match:UserWarning")
def test_one_input_in_a_list_or_dict_is_fine():
    inputs, x = features()
    for given in ([inputs], {inputs.name: inputs}):
        model = keras.Model(given, layers.Dense(1)(x))
        assert wrap_model(model).input_size == (SIZE, SIZE)


def test_several_outputs_are_refused():
    inputs, x = features()
    model = keras.Model(inputs, [layers.Dense(1)(x), layers.Dense(3)(x)], name="two")
    assert "`two` has 2 outputs. Received: shapes [(" in refusal(model)


def test_an_input_that_is_no_image_is_refused():
    model = keras.Sequential([keras.Input((7,)), layers.Dense(2)], name="flat")
    text = refusal(model)
    assert "not a classifier of images. Received: an input of shape (7,), which is not" in text


@pytest.mark.parametrize("channels", [2, 4, None])
def test_other_channels_are_refused(channels):
    inputs = keras.Input((SIZE, SIZE, channels))
    pooled = layers.Lambda(lambda x: tf.reduce_mean(x, axis=(1, 2, 3))[:, None])(inputs)
    model = keras.Model(inputs, layers.Dense(1)(pooled), name="odd")
    assert f"`odd` takes images with {channels} channels." in refusal(model)


def test_an_open_size_is_refused_unless_the_images_say_it():
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(1)(x), name="open")
    assert "leaves the size of its images open. Received: an input of shape" in refusal(model)
    assert wrap_model(model, input_shape=(SIZE, SIZE, 3)).input_size == (SIZE, SIZE)


def test_open_sizes_of_the_images_are_filled_in_from_the_model():
    model = model_of(layers.Dense(1))
    assert wrap_model(model, input_shape=(None, None, 3)).input_size == (SIZE, SIZE)


def test_images_of_another_size_than_the_model_takes_are_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs)), name="fixed")
    assert "`fixed` cannot be run on an image. Received: " in refusal(model, input_shape=(5, 5, 3))


def test_outputs_that_are_no_numbers_say_nothing_of_the_head():
    some = layers.Lambda(lambda x: tf.where(tf.range(tf.shape(x)[0])[:, None] > 2, x, float("nan")))
    head = wrap_model(model_of(some, layers.Dense(3, "softmax"))).head
    assert (head.kind, head.logits_from) == ("softmax", BEFORE)


def test_a_segmentation_model_is_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(inputs), name="segments")
    assert "`segments` is not a classifier. Received: an output of shape" in refusal(model)


# Loading


def load_refusal(path, **options):
    with pytest.raises(ModelError) as caught:
        load_model(path, **options)
    assert " Received: " in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "x.keras").write_text("text")
    assert "is not a model" in load_refusal(tmp_path / "x.keras")
    assert "There is no model" in load_refusal(tmp_path / "nothing.keras")
    assert "is a folder" in load_refusal(tmp_path)


def test_weights_only_and_dense_only_files_are_refused(tmp_path):
    model = model_of(layers.Dense(1))
    model.save_weights(tmp_path / "m.weights.h5")
    assert "holds weights only" in load_refusal(tmp_path / "m.weights.h5")
    dense = keras.Sequential([keras.Input((7,)), layers.Dense(2)])
    save(dense, tmp_path / "dense.keras")
    text = load_refusal(tmp_path / "dense.keras")
    assert "`dense.keras` is not a classifier of images" in text


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_in_the_file_is_not_run_unless_trusted(tmp_path, suffix):
    target = tmp_path / "planted"
    planted = f"__import__('pathlib').Path({str(target)!r}).write_text('run')"
    code = eval(f"lambda x: x if {planted} else x")  # its own source: no closure to lose
    inputs, x = features()
    model = keras.Model(inputs, layers.Dense(1)(layers.Lambda(code, output_shape=(4,))(x)))
    path = tmp_path / f"m.{suffix}"
    save(model, path)
    target.unlink(missing_ok=True)
    text = load_refusal(path)
    assert not target.exists()
    assert "brings code of its own, which has not been run. Received: a model with a Lambda" in text
    assert text.endswith("add `--trust-model-code`.")
    audited = load_model(path, trust_model_code=True)
    assert audited.head.kind == "logit"
    assert target.exists()


def test_a_layer_that_keras_does_not_know_is_refused(tmp_path):
    class Mine(layers.Layer):
        def call(self, x):
            return x

    inputs, x = features()
    path = tmp_path / "m.keras"
    save(keras.Model(inputs, layers.Dense(1)(Mine()(x))), path)
    text = load_refusal(path)
    assert text.startswith(f"Keras {keras.__version__} cannot load `{path}`. Received: ")
    assert "Mine" in text


def test_another_archive_is_refused(tmp_path):
    import zipfile

    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("document.xml", "x")
    assert f"cannot load `{path}`" in load_refusal(path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("MaksMshn_small.h5", "not a classifier of images"),
        ("MaksMshn.h5", "holds weights only"),
        ("lfs_pointer_anriabb.h5", "Git LFS pointer"),
    ],
)
def test_models_of_strangers_that_cannot_be_audited(shared_data, name, part):
    path: Path = shared_data / "legacy_models" / name
    text = load_refusal(path)
    assert part in text and name in text
    assert len(text) < 700


@pytest.mark.parametrize(
    ("name", "size", "channels", "kind", "n_classes"),
    [
        ("JeanXL.h5", 112, 1, "logits", 2),
        ("YusufDilekci.h5", 150, 3, "sigmoid", 2),
        ("ReshmaAyaan.h5", 150, 3, "sigmoid", 2),
        ("tm_11Maximus11_converted.keras", 224, 3, "softmax", 2),
        ("tm_11Maximus11.h5", 224, 3, "softmax", 2),
        ("akhil-sharma.h5", 128, 3, "sigmoid", 2),
        ("FishMaarten.h5", 128, 3, "softmax", 2),
    ],
)
def test_models_of_strangers(shared_data, name, size, channels, kind, n_classes):
    audited = load_model(shared_data / "legacy_models" / name)
    assert (audited.input_size, audited.channels) == ((size, size), channels)
    assert (audited.head.kind, audited.head.n_classes) == (kind, n_classes)
