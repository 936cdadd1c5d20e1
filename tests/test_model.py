"""Which models can be audited, which are refused, and what a loaded model gives."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_models import SIZE, features, images, model_of

from audit.errors import ModelError
from audit.predict.model import load_model, wrap_model

BEFORE = "before the activation"


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_with_channels_first_gets_images_turned(channels):
    inputs = keras.Input((channels, 12, 10))
    convolution = layers.Conv2D(4, 3, data_format="channels_first", name="conv")
    x = layers.GlobalMaxPooling2D(data_format="channels_first")(convolution(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    audited = wrap_model(model)
    assert audited.channels_first
    assert (audited.input_size, audited.channels) == ((12, 10), channels)
    pixels = np.random.default_rng(0).uniform(0, 1, (6, 12, 10, channels)).astype(np.float32)
    outputs = audited.call(tf.constant(pixels))
    turned = pixels.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(outputs.logits, model(turned), rtol=1e-5, atol=1e-6)
    assert outputs.embedding.shape == (6, 4)
    assert wrap_model(model, input_shape=(12, 10, channels)).input_size == (12, 10)


def test_the_embedding_of_channels_first_is_pooled_over_the_places():
    inputs = keras.Input((3, 12, 10))
    convolution = layers.Conv2D(4, 3, data_format="channels_first")
    pool = layers.GlobalAveragePooling2D(data_format="channels_first")
    model = keras.Model(inputs, layers.Softmax()(pool(convolution(inputs))))
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 12, 10, 3)).astype(np.float32)
    embedding = wrap_model(model).call(tf.constant(pixels)).embedding
    want = convolution(pixels.transpose(0, 3, 1, 2)).numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(embedding, want, rtol=1e-5, atol=1e-6)


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


class NotHere(layers.Conv2D):
    """A layer for which the device has no program."""

    def call(self, images):
        raise tf.errors.UnimplementedError(None, None, "only supports NHWC\non this machine")


def test_a_device_that_cannot_put_channels_first_is_named():
    inputs = keras.Input((3, SIZE, SIZE))
    x = layers.Flatten()(NotHere(2, 3, data_format="channels_first")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(x), name="first")
    text = refusal(model)
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    assert text == (
        f"`first` has layers that put the channels first, which this {device} cannot run. Received:"
        " UnimplementedError: only supports NHWC. Audit it where `model.predict` works on it, or"
        " save it with channels last."
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.skipif(bool(tf.config.list_logical_devices("GPU")), reason="a GPU can run it")
def test_a_cpu_cannot_convolve_in_double_precision_with_channels_first():
    inputs = keras.Input((3, SIZE, SIZE))
    x = layers.Flatten()(layers.Conv2D(2, 3, data_format="channels_first")(inputs))
    text = refusal(keras.Model(inputs, layers.Dense(1)(x), name="first"))
    assert "channels first, which this CPU cannot run. Received: UnimplementedError: The" in text


def test_weights_that_are_no_numbers_are_named():
    model = model_of(layers.Dense(3, "softmax", name="head"))
    model.get_layer("conv").bias.assign([1, np.inf, 1, 1])
    model.get_layer("head").kernel.assign(np.full((4, 3), np.nan))
    assert refusal(model) == (
        "`small` has weights that are not finite numbers. Received: NaN or"
        " infinity in 2 of 4 weights, the first `conv/bias`. Give the model from before its"
        " training diverged."
    )


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
