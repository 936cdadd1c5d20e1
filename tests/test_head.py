"""Which output is the classifier's, what it means, where its logits and embeddings come from."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.layers import Activation, Dense, Dropout, Lambda, Reshape, Softmax
from small_models import SIZE, features, images, model_of

from audit.errors import ModelError
from audit.predict.model import wrap_model

BEFORE, OUTPUTS, LOG_ODDS = (
    "before the activation",
    "the outputs",
    "log-odds of the probability",
)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def refusal(model, **options):
    with pytest.raises(ModelError) as caught:
        wrap_model(model, **options)
    assert " Received: " in str(caught.value)
    return str(caught.value)


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


def test_outputs_that_are_no_numbers_say_nothing_of_the_head():
    some = layers.Lambda(lambda x: tf.where(tf.range(tf.shape(x)[0])[:, None] > 2, x, float("nan")))
    head = wrap_model(model_of(some, layers.Dense(3, "softmax"))).head
    assert (head.kind, head.logits_from) == ("softmax", BEFORE)


def test_a_segmentation_model_is_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(inputs), name="segments")
    assert "`segments` is not a classifier. Received: an output of shape" in refusal(model)


@pytest.mark.parametrize(
    ("units", "shape"), [(3, "(batch, 8, 8, 3)"), (1, "(batch, 8, 8, 1)"), (0, "(batch)")]
)
def test_an_output_that_is_no_vector_is_refused(units, shape):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(units, 1)(inputs) if units else keras.ops.mean(inputs, axis=(1, 2, 3))
    text = refusal(keras.Model(inputs, x, name="odd"))
    assert f"`odd` is not a classifier. Received: an output of shape {shape}, not of" in text


# Several outputs


def two_heads(shape_of="list", *, first=1, second=3):
    """Return a model with a head for `cat` and one for `dog`, each on features of its own."""
    inputs, x = features()
    for_cat = Dense(5, activation="tanh", name="cat_features")(x)
    for_dog = Dense(6, activation="tanh", name="dog_features")(x)
    cat = Dense(first, "sigmoid" if first == 1 else "softmax", name="cat")(for_cat)
    dog = Dense(second, "softmax", name="dog")(for_dog)
    outputs = {
        "list": [cat, dog],
        "tuple": (cat, dog),
        "dict": {"feline": cat, "canine": dog},
        "nested": {"pets": [cat, dog]},
    }[shape_of]
    return keras.Model(inputs, outputs, name="two")


@pytest.mark.parametrize(
    ("shape_of", "listed"),
    [
        ("list", "output 0 `cat` of shape (batch, 1); output 1 `dog` of shape (batch, 3)"),
        ("tuple", "output 0 `cat` of shape (batch, 1); output 1 `dog` of shape (batch, 3)"),
        ("dict", "output 0 `canine` of shape (batch, 3); output 1 `feline` of shape (batch, 1)"),
        ("nested", "output 0 `pets/0` of shape (batch, 1); output 1 `pets/1` of shape (batch, 3)"),
    ],
)
def test_several_outputs_are_listed_and_asked_for(shape_of, listed):
    text = refusal(two_heads(shape_of))
    last = listed.rpartition("output 1 `")[2].partition("`")[0]
    assert text == (
        f"`two` has 2 outputs. Received: {listed}. Say which of them holds the class scores, by"
        f" name or number, for instance `--output {last}`."
    )


def test_several_outputs_are_asked_for_even_if_one_only_is_a_vector():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, name="map")(inputs)
    scores = Dense(2, "softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, [x, scores], name="both")
    text = refusal(model)
    assert "output 0 `map` of shape (batch, 6, 6, 4); output 1 `scores` of shape (batch, 2)" in text
    assert wrap_model(model, output="scores").head.kind == "softmax"
    assert "`both` is not a classifier. Received: an output of" in refusal(model, output="map")


@pytest.mark.parametrize(
    ("shape_of", "cat", "dog"),
    [
        ("list", ["cat", "0"], ["dog", "1"]),
        ("tuple", ["cat", "0"], ["dog", "1"]),
        ("dict", ["feline", "1"], ["canine", "0"]),  # dictionaries are in the order of their keys
        ("nested", ["pets/0", "0"], ["pets/1", "1"]),
    ],
)
def test_an_output_is_chosen_by_name_or_number(shape_of, cat, dog):
    model = two_heads(shape_of)
    layer = model.get_layer
    pooled = keras.Model(model.input, layer("pool").output)(images())
    for names, head, kind, n_classes in ((cat, "cat", "sigmoid", 2), (dog, "dog", "softmax", 3)):
        inner = layer(f"{head}_features")(pooled)
        scores = layer(head)(inner).numpy()
        for name in names:
            audited = wrap_model(model, output=name)
            assert (audited.head.kind, audited.head.n_classes) == (kind, n_classes)
            assert audited.head.logits_from == BEFORE
            outputs = audited.call(images())
            np.testing.assert_allclose(outputs.scores[:, -scores.shape[1] :], scores, rtol=1e-5)
            # The embedding is what this very head is fed with.
            np.testing.assert_allclose(outputs.embedding, inner, rtol=1e-5, atol=1e-6)


def test_a_name_goes_before_a_number():
    inputs, x = features()
    model = keras.Model(inputs, {"1": Dense(2)(x), "0": Dense(3)(x), "a": Dense(4)(x)})
    assert wrap_model(model, output="1").head.n_classes == 2
    assert wrap_model(model, output="0").head.n_classes == 3
    assert wrap_model(model, output="2").head.n_classes == 4  # no such name: the last one


@pytest.mark.parametrize("wanted", ["bird", "2", "-1", "", "1.0", "²"])
def test_an_output_that_is_not_there_is_refused(wanted):
    text = refusal(two_heads(), output=wanted)
    assert text.startswith(
        f"`--output {wanted}` does not name one output of `two`. Received: a model with output 0"
        " `cat` of shape (batch, 1); output 1 `dog`"
    )


def test_outputs_of_one_name_are_told_apart_by_number():
    inner = two_heads()
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, inner(inputs), name="outer")
    assert "output 0 `two` of shape (batch, 1); output 1 `two`" in refusal(model)
    assert "does not name one output" in refusal(model, output="two")
    assert wrap_model(model, output="1").call(images()).embedding.shape == (6, 6)


def test_outputs_without_names():
    class Both(keras.Model):
        def __init__(self):
            super().__init__(name="both")
            self.conv, self.pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
            self.first, self.second = Dense(2, "softmax"), Dense(3)

        def call(self, x):
            x = self.pool(self.conv(x))
            return self.first(x), self.second(x)

    shape = (SIZE, SIZE, 3)
    text = refusal(Both(), input_shape=shape)
    assert "output 0 of shape (batch, 2); output 1 of shape (batch, 3)" in text
    assert text.endswith("for instance `--output 1`.")
    assert wrap_model(Both(), output="1", input_shape=shape).head.kind == "logits"


def test_names_of_outputs_cannot_drive_the_terminal():
    inputs, x = features()
    wild = "\x1b[2J\nfree `text`" + 80 * "x"
    model = keras.Model(inputs, {wild: Dense(2)(x), "b": Dense(3)(x)})
    text = refusal(model)
    assert text.isprintable()
    assert len(text) < 400
    assert wrap_model(model, output=wild).head.n_classes == 2


def test_a_single_output_may_be_named():
    model = model_of(Dense(3, "softmax", name="scores"))
    for output in ("scores", "0"):
        assert wrap_model(model, output=output).head.n_classes == 3
    assert "`--output 1` does not name one output of `small`" in refusal(model, output="1")


def test_the_embedding_passes_over_maps_of_other_outputs():
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()
    scored = layers.Conv2D(3, 3, name="scored")(inputs)
    other = layers.Conv2D(5, 3, name="other")(inputs)
    model = keras.Model(inputs, [layers.Softmax()(pooled(scored)), pooled(other)])
    outputs = wrap_model(model, output="0").call(images())
    want = pooled(model.get_layer("scored")(images()))
    np.testing.assert_allclose(outputs.embedding, want, rtol=1e-5, atol=1e-5)


# Precision


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("last", [["softmax"], [None, "softmax layer"], ["sigmoid"]])
def test_heads_of_half_precision(policy, last):
    units = 1 if last == ["sigmoid"] else 50
    heads = [Dense(units, last[0], dtype=policy)]
    heads += [Softmax(dtype=policy)] if len(last) == 2 else []
    audited = wrap_model(model_of(*heads))
    assert audited.head.kind == ("sigmoid" if units == 1 else "softmax")
    assert audited.head.logits_from == BEFORE
    outputs = audited.call(images())
    assert {t.dtype for t in vars(outputs).values()} == {tf.float32}
