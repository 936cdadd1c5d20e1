"""One forward and one backward pass, against gradients taken one class at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.errors import ModelError, NoSpatialLayerError
from audit.explain.differentiate import BYTES_PER_BYTE, Differentiated, differentiate
from audit.predict.model import AuditedModel, wrap_model
from audit.predict.scaling import pixel_scaling


def flat_model(n_outputs: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(n_outputs, name="dense"),
        ]
    )


def run(model: AuditedModel, pixels, classes, choice="all") -> tuple[Differentiated, list]:
    """Trace a pass and return it, with its values instead of its tensors."""
    traced = []

    @tf.function(autograph=False)
    def once(pixels, classes):
        traced.append(differentiate(model, pixel_scaling("none", 1), choice, pixels, classes))
        one = traced[-1]
        return one.scores, one.logits, one.activations, one.gradients, one.signs

    values = once(tf.constant(pixels), tf.constant(classes, tf.int32))
    return traced[-1], tf.nest.map_structure(lambda tensor: tensor.numpy(), values)


def test_of_several_outputs_each_class_has_a_gradient_of_its_own():
    model = flat_model(3)
    pixels = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
    found, (_, logits, activations, gradients, signs) = run(
        wrap_model(model), pixels, [[0, 2], [1, 1]]
    )
    kernel = model.get_layer("dense").kernel.numpy().reshape(4, 4, 2, 3)
    np.testing.assert_allclose(activations[0], model.layers[0](pixels), atol=1e-6)
    np.testing.assert_allclose(logits, model(pixels), atol=1e-5)
    np.testing.assert_allclose(gradients[0][0], kernel[..., [0, 1]].transpose(3, 0, 1, 2))
    np.testing.assert_allclose(gradients[1][0], kernel[..., [2, 1]].transpose(3, 0, 1, 2))
    assert np.stack(signs).tolist() == [[1, 1], [1, 1]]
    assert [layer.layer for layer in found.kept] == ["conv"]
    assert found.image_bytes == int(4 * 4 * 2 * 4 * BYTES_PER_BYTE)


def test_one_output_gives_one_gradient_and_a_sign_for_each_class():
    model = flat_model(1)
    pixels = np.ones((2, 6, 6, 1), np.float32)
    found, (scores, _, _, gradients, signs) = run(wrap_model(model), pixels, [[0, 1], [1, 1]])
    kernel = model.get_layer("dense").kernel.numpy().reshape(4, 4, 2)
    np.testing.assert_allclose(gradients[0][0], np.stack([kernel, kernel]))
    assert np.stack(signs).tolist() == [[-1, 1], [1, 1]]
    assert found.gradients[0] is found.gradients[1]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_what_cannot_be_explained_is_refused():
    pixels = np.ones((1, 6, 6, 1), np.float32)
    with pytest.raises(ModelError, match="--layers pool` leaves no layer"):
        run(wrap_model(flat_model(3)), pixels, [[0, 1]], choice="pool")
    dense = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    with pytest.raises(NoSpatialLayerError, match="no spatial layer"):
        run(wrap_model(dense), pixels, [[0, 1]])
