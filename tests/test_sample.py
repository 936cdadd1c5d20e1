"""What is taken from a sample, against a tape for one layer at a time; and the map made of it."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audit.errors import ModelError
from audit.explain import consensus as consensus_module
from audit.explain.consensus import OWN_WEIGHT, fuse_by_consensus
from audit.explain.maps import Explainer
from audit.explain.sample import Sampler, learn_from_images
from audit.predict.model import wrap_model

SIDE = 12


def small_model(n_outputs: int) -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="a"),
            layers.MaxPooling2D(name="p"),
            layers.Conv2D(5, 3, padding="same", activation="relu", name="b"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(n_outputs),
        ]
    )


def draw_sample(n: int, n_classes: int):
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(n, SIDE, SIDE, 3)).astype(np.float32)
    classes = rng.integers(0, n_classes, (n, 2))
    return pixels, classes, classes[:, 0] != classes[:, 1]


def by_tape(model: keras.Model, pixels: np.ndarray, explained: np.ndarray) -> dict:
    """Return by layer (activations, gradients of the explained logit), one tape a layer."""
    found = {}
    for stop in range(len(model.layers)):
        if model.layers[stop].name not in ("a", "p", "b"):
            continue
        values = tf.constant(pixels)
        for layer in model.layers[: stop + 1]:
            values = layer(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = values
            for layer in model.layers[stop + 1 :]:
                logits = layer(logits)
            if logits.shape[1] == 1:
                logits = tf.concat([-logits, logits], axis=1)
            score = tf.reduce_sum(tf.gather(logits, explained, axis=1, batch_dims=1))
        found[model.layers[stop].name] = values.numpy(), tape.gradient(score, values).numpy()
    return found


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_means_over_all_places_are_those_of_one_layer_at_a_time(n_outputs):
    model = small_model(n_outputs)
    pixels, classes, is_error = draw_sample(7, max(n_outputs, 2))
    sampler = Sampler(wrap_model(model))
    parts = [slice(0, 4), slice(4, 7)]
    found = sampler.statistics((pixels[p], classes[p], is_error[p]) for p in parts)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_array_equal(found.is_error, is_error)
    outputs = model(pixels).numpy()
    logits = outputs if n_outputs > 1 else np.concatenate([-outputs, outputs], axis=1)
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    names = [layer.layer for layer in sampler.layers if layer.kept]
    assert names == ["a", "p", "b"]
    for column in range(2):
        exact = by_tape(model, pixels, classes[:, column])
        for position, name in enumerate(names):
            activations, gradients = exact[name]
            np.testing.assert_allclose(
                found.activations[position], activations.mean(axis=(1, 2)), atol=1e-5
            )
            np.testing.assert_allclose(
                found.gradients[position][:, column], gradients.mean(axis=(1, 2)), atol=1e-6
            )
    assert sampler.image_bytes > 0


class DrawnSource:
    """Gives pictures by number; fails for batches that are too large for it."""

    def __init__(self, pixels: np.ndarray, largest: int) -> None:
        self.pixels, self.largest, self.asked = pixels, largest, []

    def batches(self, image_ids, batch_size):
        self.asked.append(batch_size)
        for start in range(0, len(image_ids), batch_size):
            ids = np.array(image_ids[start : start + batch_size])
            if len(ids) > self.largest:
                raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
            yield ids, tf.constant(self.pixels[ids])


def learn(model, pixels, classes, is_error, largest=8):
    table = pd.DataFrame(
        {
            "image_id": range(len(pixels)),
            "is_error": is_error,
            "y_pred": classes[:, 0],
            "y_true": classes[:, 1],
        }
    )
    source = DrawnSource(pixels, largest)
    return learn_from_images(Sampler(wrap_model(model)), source, table, 8), source


def test_running_out_of_memory_halves_the_batch_and_learns_the_same():
    sample = draw_sample(16, 3)
    whole, _ = learn(small_model(3), *sample)
    halved, source = learn(small_model(3), *sample, largest=3)
    assert source.asked == [8, 4, 2]
    np.testing.assert_allclose(halved.reliability, whole.reliability, atol=1e-5)
    with pytest.raises(ModelError, match="not enough memory to explain one image"):
        learn(small_model(3), *sample, largest=0)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_fused_map_is_made_of_what_the_sample_agrees_on(n_outputs, monkeypatch):
    monkeypatch.setattr(consensus_module, "_IGNORED", -2.0)  # Every layer has a say.
    monkeypatch.setattr(consensus_module, "_BELIEVED", -1.5)
    model = small_model(n_outputs)
    pixels, classes, is_error = draw_sample(16, max(n_outputs, 2))
    consensus, _ = learn(model, pixels, classes, is_error)
    assert consensus.shares().min() == 1
    explainer = Explainer(wrap_model(model), consensus=consensus)
    assert explainer.fusion == "consensus"
    found = explainer.explain(tf.constant(pixels), classes).groups[-1]

    kept = [layer for layer in explainer.layers if layer.kept]
    maps = []
    for column in range(2):
        exact = by_tape(model, pixels, classes[:, column])
        maps.append([])
        for position, layer in enumerate(kept):
            activations, gradients = exact[layer.layer]
            own = gradients.mean(axis=(1, 2))
            rows = [consensus.classes.index(c) for c in classes[:, column]]
            counts = consensus.n_images[rows][:, None]
            shared = consensus.gradients[position][rows]
            weights = (counts * shared + OWN_WEIGHT * own) / (counts + OWN_WEIGHT)
            from_mean = activations - consensus.activations[position]
            values = np.einsum("nhwc,nc->nhw", from_mean, weights)
            maps[-1].append(tf.constant(values, tf.float32))
    expected = fuse_by_consensus(
        consensus, kept, maps, tf.constant(classes), tf.constant(pixels), explainer.fused_size
    ).numpy()
    peaks = expected.max(axis=(2, 3), keepdims=True)
    scaled = np.divide(expected, peaks, out=np.zeros_like(expected), where=peaks > 0) * 255
    cams = found.cams[:, :, :, 0].transpose(0, 3, 1, 2).astype(float)
    assert np.abs(cams - scaled).max() <= 1.01
    assert cams.max() == 255
