"""Maps must depend on what the model has learnt: they collapse as its weights are replaced.

Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps": cascading randomisation from the top
layer down. https://arxiv.org/abs/1810.03292
"""

from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from audit.config import Method
from audit.explain.explainers import make_explainer
from audit.predict.model import AuditedModel, wrap_model
from audit.run_folder import FUSED_LAYER

SIDE, PATCH, N_EXPLAINED = 32, 14, 12


def draw_stripes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a patch of upright or lying stripes at a random place.

    The noise around it is as bright and as contrasted: only what has been learnt tells them apart.
    """
    rng = np.random.default_rng(seed)
    images = rng.choice([-1.0, 1.0], (n, SIDE, SIDE, 1)).astype(np.float32)
    labels = rng.integers(0, 2, n)
    stripes = np.where(np.arange(PATCH) % 4 < 2, 1.0, -1.0) * np.ones((PATCH, 1))
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, SIDE - PATCH + 1, 2)
        patch = stripes if label else stripes.T
        image[top : top + PATCH, left : left + PATCH, 0] = patch
    return images, labels


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="low"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="middle"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="high"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="head"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = draw_stripes(1024, seed=2)
    model.fit(images, labels, batch_size=32, epochs=6, verbose=0)
    held_out, truth = draw_stripes(256, seed=3)
    accuracy = (model.predict(held_out, verbose=0).argmax(axis=1) == truth).mean()
    assert accuracy > 0.95, "nothing was learnt, which proves nothing"
    return model


def randomised(model: keras.Model, names: tuple[str, ...], seed: int) -> keras.Model:
    """Return a copy in which the weights of some layers are shuffled, their values kept."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    rng = np.random.default_rng(seed)
    for name in names:
        layer = copy.get_layer(name)
        layer.set_weights([rng.permuted(w.ravel()).reshape(w.shape) for w in layer.get_weights()])
    return copy


def fused_maps(model: AuditedModel, method: Method) -> np.ndarray:
    """Return the fused maps of held-out images for their true class, each as a row."""
    images, labels = draw_stripes(N_EXPLAINED, seed=4)
    explainer = make_explainer(model, method=method)
    maps = explainer.explain(tf.constant(images), np.stack([labels, labels], axis=1))
    found = [
        {layer: cam for layer, _, cam in maps.of_image(index, 0)}[FUSED_LAYER]
        for index in range(N_EXPLAINED)
    ]
    return np.stack(found).reshape(N_EXPLAINED, -1).astype(float)


def similarity(maps: np.ndarray, others: np.ndarray) -> float:
    """Return the mean rank correlation of pairs of maps; a map without contrast counts as 0."""
    values = [
        spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0
        for a, b in zip(maps, others, strict=True)
    ]
    return float(np.mean(values))


CASCADE = ("head", "high", "middle", "low")


@pytest.mark.parametrize("method", get_args(Method))
def test_maps_collapse_as_weights_are_randomised_from_the_top(trained: keras.Model, method: Method):
    maps = fused_maps(wrap_model(trained), method)
    copied = fused_maps(wrap_model(randomised(trained, (), 0)), method)
    assert similarity(maps, copied) > 0.999  # The same weights give the same maps.
    by_depth = [
        np.mean(
            [
                similarity(maps, fused_maps(wrap_model(randomised(trained, names, seed)), method))
                for seed in range(3)
            ]
        )
        for names in (CASCADE[:2], CASCADE)
    ]
    assert by_depth[-1] < 0.5, by_depth
