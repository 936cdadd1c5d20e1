"""Which models are explained by their layers, which by occlusion, and which not at all."""

from pathlib import Path
from typing import Any

import drawn_set
import keras
import pytest
import tensorflow as tf

from audit.errors import ModelError, NoSpatialLayerError
from audit.explain.explainers import make_explainer, make_sampler
from audit.explain.maps import Explainer
from audit.explain.occlusion import OcclusionExplainer
from audit.explain.sample import Sampler
from audit.predict.model import wrap_model


def export(model: keras.Model, path: Path) -> Path:
    model.export(path, verbose=False)
    return path


def flat(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


class Doubled(keras.layers.Layer):
    """A layer of which Keras knows nothing."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return 2 * values


def test_a_model_that_can_be_looked_into_is_explained_by_its_layers_unless_asked():
    model = wrap_model(drawn_set.corner_model())
    assert isinstance(make_explainer(model), Explainer)
    asked = make_explainer(model, method="occlusion")
    assert isinstance(asked, OcclusionExplainer)
    layer = asked.layers[0]
    assert (layer.layer, layer.kind, layer.kept) == ("occlusion", "occlusion", True)


def test_a_model_without_places_is_refused_unless_a_layer_may_hide_them(tmp_path):
    dense = wrap_model(flat(keras.layers.Flatten(), keras.layers.Dense(1)))
    with pytest.raises(NoSpatialLayerError, match="no spatial layer"):
        make_explainer(dense)
    hidden = wrap_model(flat(keras.layers.Flatten(), Doubled(), keras.layers.Dense(1)))
    assert isinstance(make_explainer(hidden), OcclusionExplainer)
    layer = keras.layers.TFSMLayer(
        str(export(drawn_set.corner_model(), tmp_path / "saved")), call_endpoint="serving_default"
    )
    inputs = keras.Input((drawn_set.SIDE, drawn_set.SIDE, 3))
    whole = wrap_model(keras.Model(inputs, layer(inputs)))
    assert isinstance(make_explainer(whole), OcclusionExplainer)


def test_a_choice_that_leaves_no_layer_is_refused_even_beside_an_unknown_layer():
    model = wrap_model(
        flat(keras.layers.Conv2D(2, 3), keras.layers.Flatten(), Doubled(), keras.layers.Dense(1))
    )
    with pytest.raises(ModelError, match="leaves no layer"):
        make_explainer(model, layers="no such layer")


def test_a_consensus_is_learnt_only_of_models_that_can_be_looked_into():
    assert isinstance(make_sampler(wrap_model(drawn_set.corner_model())), Sampler)
    pixels_to_scores = wrap_model(lambda pixels: pixels.mean(axis=(1, 2)), input_shape=(8, 8, 3))
    assert make_sampler(pixels_to_scores) is None
    hidden = wrap_model(flat(keras.layers.Flatten(), Doubled(), keras.layers.Dense(1)))
    assert make_sampler(hidden) is None
    dense = wrap_model(flat(keras.layers.Flatten(), keras.layers.Dense(1)))
    with pytest.raises(NoSpatialLayerError, match="no spatial layer"):
        make_sampler(dense)
