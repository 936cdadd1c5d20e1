"""Features under a map, worked out by hand; and the same features place by place."""

from dataclasses import replace

import drawn_set
import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.errors import NoSpatialLayerError
from audit.explain import pooling
from audit.explain.capture import Layer
from audit.explain.fusion import stack_maps
from audit.explain.maps import Explainer
from audit.explain.pooling import (
    FocusFeatures,
    agreement_of_layers,
    focus_rows,
    focus_shard,
    make_local_features,
    pool_under,
    pooled_positions,
)
from audit.predict.model import wrap_model

LAYER = Layer("conv", "m/conv", "Conv2D", 4, 4, 8, 0, 0, kept=True, reason="")


def layers(*kinds_and_stages: tuple[str, int]) -> list[Layer]:
    return [replace(LAYER, kind=kind, stage=stage) for kind, stage in kinds_and_stages]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("Conv2D", 0), ("ReLU", 0), ("Conv2D", 1), ("Conv2D", 2), ("ReLU", 2)], [2, 4]),
        ([("Conv2D", 0), ("ReLU", 0), ("ZeroPadding2D", 0), ("Conv2D", 1)], [1, 3]),
        ([("Conv2D", 3), ("ReLU", 3)], [1]),
        ([("ZeroPadding2D", 0)], [0]),
    ],
)
def test_the_last_layers_of_the_last_two_stages_are_pooled(
    found: list[tuple[str, int]], expected: list[int]
):
    assert pooled_positions(layers(*found)) == expected


def test_pooling_by_hand():
    # Two channels at 1 × 3 places: (3, 0), (0, 4), (1, 1). The map has weights 1, ½, 0.
    activations = tf.constant([[[[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]]]])
    fused = tf.constant([[[[8.0, 4.0, 0.0]]]])
    embeddings, elsewhere = pool_under([activations], fused)
    # Under it (3, 0) + ½ (0, 4) = (3, 2); elsewhere ½ (0, 4) + (1, 1) = (1, 3).
    np.testing.assert_allclose(embeddings[0, 0], np.array([3, 2]) / 13**0.5, rtol=1e-6)
    np.testing.assert_allclose(elsewhere[0, 0], np.array([1, 3]) / 10**0.5, rtol=1e-6)


def test_layers_count_alike_whatever_their_scale_and_size():
    rng = np.random.default_rng(0)
    small = tf.constant(rng.random((2, 2, 2, 3)), tf.float32)
    large = tf.constant(100 * rng.random((2, 4, 4, 5)), tf.float32)
    fused = tf.constant(rng.random((2, 1, 8, 8)), tf.float32)
    both, rest = pool_under([small, large], fused)
    assert both.shape == rest.shape == (2, 1, 8)
    for values in (both, rest):
        parts = np.linalg.norm(values[..., :3], axis=2), np.linalg.norm(values[..., 3:], axis=2)
        np.testing.assert_allclose(parts, np.sqrt(0.5), rtol=1e-5)
    alone, _ = pool_under([large], fused)
    np.testing.assert_allclose(alone / np.sqrt(2), both[..., 3:], rtol=1e-5)


def test_each_explained_class_has_a_map_of_its_own():
    activations = tf.constant([[[[1.0, 0.0], [0.0, 1.0]]]])
    fused = tf.constant([[[[1.0, 0.0]], [[0.0, 3.0]]]])
    embeddings, elsewhere = pool_under([activations], fused)
    np.testing.assert_array_equal(embeddings[0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(elsewhere[0], [[0, 1], [1, 0]])


def test_an_empty_map_has_no_focus_and_what_is_not_finite_none_at_all():
    activations = np.ones((3, 2, 2, 2), np.float32)
    activations[1, 0, 0, 0] = np.inf
    activations[2, 0, 0, 0] = np.nan
    fused = np.ones((3, 1, 2, 2), np.float32)
    fused[:, :, 0] = 0.5
    fused[0] = 0
    embeddings, elsewhere = pool_under([tf.constant(activations)], tf.constant(fused))
    assert not embeddings.numpy().any()
    np.testing.assert_allclose(elsewhere[0, 0], np.sqrt([0.5, 0.5]), rtol=1e-6)
    assert not elsewhere[1:].numpy().any()


def test_many_channels_are_projected_and_angles_about_stay(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 1, 1, 4000)) + 2 * rng.normal(size=(1, 1, 1, 4000))
    fused = tf.ones((6, 1, 1, 1))
    projected, _ = pool_under([tf.constant(values, tf.float32)], fused)
    assert projected.shape == (6, 1, pooling.WIDTH)
    monkeypatch.setattr(pooling, "WIDTH", 4000)
    whole, _ = pool_under([tf.constant(values, tf.float32)], fused)
    cosines = [v[:, 0].numpy() @ v[:, 0].numpy().T for v in (projected, whole)]
    np.testing.assert_allclose(*cosines, atol=0.15)  # About 3 / √512.


def one_stack(maps: list[np.ndarray]) -> object:
    signed = [[tf.constant(values[None], tf.float32) for values in maps]]
    found = [replace(LAYER, height=v.shape[0], width=v.shape[1]) for v in maps]
    return stack_maps(found, signed, "gradcam")


def test_layers_agree_as_far_as_they_point_at_the_same_place():
    here = np.array([[0.0, 1.0], [0.0, 2.0]])
    fused = tf.constant(here[None, None], tf.float32)
    assert agreement_of_layers([one_stack([here, 7 * here])], fused).numpy() == pytest.approx(1)
    there = 2 - here
    assert agreement_of_layers([one_stack([there])], fused).numpy() == pytest.approx(-1)
    both = agreement_of_layers([one_stack([here]), one_stack([there])], fused)
    assert both.numpy() == pytest.approx(0, abs=1e-6)


def test_layers_finer_than_the_map_have_no_part_in_the_agreement_unless_all_are():
    here = np.array([[0.0, 1.0], [0.0, 2.0]])
    fused = tf.constant(here[None, None], tf.float32)
    fine = np.kron(2 - here, np.ones((2, 2)))
    stacks = [one_stack([fine]), one_stack([here])]
    assert agreement_of_layers(stacks, fused).numpy() == pytest.approx(1)
    coarse = tf.constant([[[[0.0, 1.0]]]])
    assert agreement_of_layers(stacks[:1], coarse).numpy() < -0.8


def test_layers_that_say_nothing_have_no_part_in_the_agreement():
    here = np.array([[0.0, 1.0], [0.0, 2.0]])
    fused = tf.constant(here[None, None], tf.float32)
    empty = np.full((2, 2), -1.0)
    assert agreement_of_layers([one_stack([here, empty])], fused).numpy() == pytest.approx(1)
    assert np.isnan(agreement_of_layers([one_stack([empty])], fused).numpy()).all()


def test_the_features_of_a_place_are_those_pooled_under_a_map_of_that_place():
    model = wrap_model(drawn_set.corner_model())
    images, _, _ = drawn_set.draw_set()
    pixels = images[:3].astype(np.float32)
    places = make_local_features(model)(pixels).numpy()
    assert places.shape[:3] == (3, 16, 16)  # The grid of the finer of the two pooled layers.
    explainer = Explainer(model)
    found = explainer.explain(tf.constant(pixels), np.array([[1, 0]] * 3))
    assert found.focus.embeddings.shape == (3, 2, places.shape[3])
    # The lower right square speaks for "right": what is pooled there is most like a place in it.
    cosines = np.einsum("nhwc,nc->nhw", places, found.focus.embeddings[:, 0])
    best = [np.unravel_index(one.argmax(), one.shape) for one in cosines]
    assert all(row >= 9 and column >= 9 for row, column in best)


def test_at_one_grid_a_place_is_exactly_what_a_map_of_it_pools():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu")(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    places = make_local_features(wrap_model(model, head="linear"))(pixels).numpy()
    values = model.layers[1](pixels)
    delta = np.zeros((2, 1, 8, 8), np.float32)
    delta[:, :, 3, 6] = 1
    pooled, _ = pool_under([values], tf.constant(delta))
    np.testing.assert_allclose(places[:, 3, 6], pooled[:, 0], atol=1e-6)


def test_a_model_without_places_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    with pytest.raises(NoSpatialLayerError):
        make_local_features(wrap_model(model))


def test_rows_become_a_shard_and_no_rows_an_empty_one():
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    features = FocusFeatures(values, values + 100, np.array([[0.5, np.nan], [0.25, 1]]))
    rows = focus_rows(7, [1, 0], features, 0) + focus_rows(9, [1], features, 1)
    table = focus_shard(rows, 3).to_pandas()
    assert table["image_id"].tolist() == [7, 7, 9]
    assert table["explained_class"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(table["layer_agreement"], [0.5, np.nan, 0.25])
    np.testing.assert_array_equal(np.stack(table["embedding"]), values.reshape(4, 3)[:3])
    np.testing.assert_array_equal(np.stack(table["elsewhere"]), values.reshape(4, 3)[:3] + 100)
    empty = focus_shard([], 3)
    assert empty.num_rows == 0
    assert empty.schema.equals(focus_shard(rows, 3).schema)
