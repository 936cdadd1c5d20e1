"""Maps must depend on what the model has learnt: they collapse as its weights are replaced.

Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps": cascading randomisation from the top
layer down. https://arxiv.org/abs/1810.03292
"""

from functools import partial
from typing import Literal

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from audit.explain.consensus import learn_consensus
from audit.explain.maps import Explainer
from audit.explain.occlusion import OcclusionExplainer
from audit.explain.sample import Sampler
from audit.predict.model import wrap_model

SIDE, PATCH, N_EXPLAINED, N_SAMPLED = 32, 14, 12, 64
CASCADE = ("head", "high", "middle", "low")
Look = Literal["hidden", "bright"]


def draw_stripes(n: int, look: Look, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a patch of upright or lying stripes at a random place.

    Args:
        look: "hidden": the noise around it is as bright and as contrasted, so that only what has
            been learnt tells them apart; "bright": it is the only bright thing, which even filters
            that have learnt nothing bring out.
    """
    rng = np.random.default_rng(seed)
    if look == "hidden":
        images, levels = rng.choice([-1.0, 1.0], (n, SIDE, SIDE, 1)), (1.0, -1.0)
    else:
        images, levels = rng.uniform(0, 0.4, (n, SIDE, SIDE, 1)), (1.0, 0.5)
    images = images.astype(np.float32)
    labels = rng.integers(0, 2, n)
    stripes = np.where(np.arange(PATCH) % 4 < 2, *levels) * np.ones((PATCH, 1))
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, SIDE - PATCH + 1, 2)
        patch = stripes if label else stripes.T
        image[top : top + PATCH, left : left + PATCH, 0] = patch
    return images, labels


def train(look: Look) -> keras.Model:
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
    model.fit(*draw_stripes(1024, look, seed=2), batch_size=32, epochs=6, verbose=0)
    held_out, truth = draw_stripes(256, look, seed=3)
    accuracy = (model.predict(held_out, verbose=0).argmax(axis=1) == truth).mean()
    assert accuracy > 0.95, "nothing was learnt, which proves nothing"
    return model


class Randomised:
    """A trained model whose weights can be shuffled, and its fused maps of held-out images.

    Explainers are traced once, with weights that stay variables.
    """

    def __init__(self, look: Look) -> None:
        self.model = train(look)
        self.wrapped = wrap_model(self.model)
        self.trained = {name: self.model.get_layer(name).get_weights() for name in CASCADE}
        self.explained = draw_stripes(N_EXPLAINED, look, seed=4)
        self.sampled = draw_stripes(N_SAMPLED, look, seed=5)
        self.sampler = Sampler(self.wrapped)
        self.explainers: dict[str, Explainer] = {}
        self.of_trained: dict[str, np.ndarray] = {}

    def similarity(self, method: str, n_layers: int, seeds: tuple[int, ...] = (0, 1, 2)) -> float:
        """Return how alike maps are to the trained model's once so many top layers are shuffled.

        The mean over seeds and images of rank correlations; a map without contrast counts as 0.
        """
        if method not in self.of_trained:
            self.shuffle(0, seed=0)
            self.of_trained[method] = self.fused_maps(method)
        values = []
        for seed in seeds:
            self.shuffle(n_layers, seed)
            values += [
                spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0
                for a, b in zip(self.of_trained[method], self.fused_maps(method), strict=True)
            ]
        return float(np.mean(values))

    def shuffle(self, n_layers: int, seed: int) -> None:
        """Permute the weights of the topmost layers; give the others what they have learnt."""
        rng = np.random.default_rng(seed)
        for depth, (name, weights) in enumerate(self.trained.items()):
            is_shuffled = depth < n_layers
            self.model.get_layer(name).set_weights(
                [rng.permuted(w.ravel()).reshape(w.shape) if is_shuffled else w for w in weights]
            )

    def fused_maps(self, method: str) -> np.ndarray:
        """Return the fused maps for the true classes, each as a row."""
        images, labels = self.explained
        found = self.explainer(method).explain(
            tf.constant(images), np.stack([labels, 1 - labels], axis=1)
        )
        return found.groups[-1].cams[:, :, :, 0, 0].reshape(N_EXPLAINED, -1).astype(float)

    def explainer(self, method: str) -> Explainer | OcclusionExplainer:
        if method == "occlusion":
            return OcclusionExplainer(self.wrapped)
        if method == "consensus":
            return self.learn()
        if method not in self.explainers:
            self.explainers[method] = Explainer(self.wrapped, method=method)
        return self.explainers[method]

    def learn(self) -> Explainer:
        """Let the model as it is now, shuffled or not, agree on what a sample of images shows."""
        images, labels = self.sampled
        predicted = self.model.predict(images, verbose=0).argmax(axis=1)
        batch = (tf.constant(images), np.stack([predicted, labels], axis=1), predicted != labels)
        layers = [layer for layer in self.sampler.layers if layer.kept]
        statistics = self.sampler.statistics([batch])
        return Explainer(
            self.wrapped, consensus=learn_consensus(layers, statistics, is_binary=False)
        )


@pytest.fixture(scope="module")
def hidden() -> Randomised:
    return Randomised("hidden")


@pytest.fixture(scope="module")
def bright() -> Randomised:
    return Randomised("bright")


GRADIENT_METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "article")


@pytest.mark.parametrize("method", (*GRADIENT_METHODS, "consensus"))
def test_maps_collapse_step_by_step_from_the_top(hidden: Randomised, method: str):
    seeds = (0, 1) if method == "consensus" else (0, 1, 2)  # A consensus is learnt anew each time.
    assert hidden.similarity(method, 0, seeds[:1]) > 0.999  # The same weights, the same maps.
    by_depth = [hidden.similarity(method, n_layers, seeds) for n_layers in (1, 2, 4)]
    assert by_depth[0] < 0.95, by_depth
    assert np.all(np.diff(by_depth) < 0), by_depth
    assert by_depth[-1] < 0.5, by_depth


def test_occlusion_depends_on_the_weights_as_well(hidden: Randomised):
    assert hidden.similarity("occlusion", 0, seeds=(0,)) > 0.999
    assert hidden.similarity("occlusion", 4, seeds=(0, 1)) < 0.5


@pytest.mark.parametrize("method", ("gradcam", "hirescam", "consensus"))
def test_maps_collapse_even_where_the_object_simply_stands_out(bright: Randomised, method: str):
    seeds = (0, 1) if method == "consensus" else (0, 1, 2)
    of_depth = partial(bright.similarity, method, seeds=seeds)
    assert np.mean([of_depth(n_layers) for n_layers in (2, 4)]) < 0.5


@pytest.mark.parametrize("method", ("gradcam++", "layercam", "article"))
def test_positive_gradients_alone_keep_showing_what_stands_out(bright: Randomised, method: str):
    """They do fall, but not below what the guide warns of."""
    assert 0.7 < bright.similarity(method, 4) < 0.95
