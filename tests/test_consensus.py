"""What the sample agrees on, worked out by hand, and the fused map that follows from it."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audit.explain.capture import Layer
from audit.explain.consensus import (
    OWN_WEIGHT,
    SAMPLE_SIZE,
    Consensus,
    SampleStatistics,
    consensus_weights,
    fuse_by_consensus,
    learn_consensus,
    sample_for_consensus,
)


def layer(name, side=4, stage=0, channels=2):
    return Layer(name, name, "Conv2D", side, side, channels, stage, 0, True, "")


def statistics(classes, is_error, logits, activations, gradients):
    return SampleStatistics(
        np.array(classes),
        np.array(is_error),
        np.array(logits, np.float32),
        tuple(np.array(a, np.float32) for a in activations),
        tuple(np.array(g, np.float32) for g in gradients),
    )


def repeat(times, rows):
    return [row for row in rows for _ in range(times)]


def test_gradients_are_averaged_over_the_errors_of_each_class():
    learnt = learn_consensus(
        [layer("a")],
        statistics(
            classes=repeat(4, [[0, 1], [1, 2], [0, 0]]),  # predicted, true; the last are correct
            is_error=repeat(4, [True, True, False]),
            logits=np.zeros((12, 3)),
            activations=[repeat(4, [[1, 2], [3, 4], [5, 9]])],
            gradients=[repeat(4, [[[1, 0], [0, 2]], [[0, 4], [8, 8]], [[7, 7], [7, 7]]])],
        ),
        is_binary=False,
    )
    assert learnt.classes == (0, 1, 2)
    assert learnt.n_images.tolist() == [4, 8, 4]
    np.testing.assert_allclose(learnt.activations[0], [3, 5])
    np.testing.assert_allclose(learnt.gradients[0], [[1, 0], [0, 3], [8, 8]])


def test_where_a_class_has_few_errors_its_correct_images_count_as_well():
    learnt = learn_consensus(
        [layer("a", channels=1)],
        statistics(
            classes=[[0, 1], [0, 1], [0, 1], [1, 1]],
            is_error=[True, True, True, False],
            logits=np.zeros((4, 2)),
            activations=[np.ones((4, 1))],
            gradients=[[[[3], [2]], [[3], [2]], [[3], [2]], [[6], [99]]]],
        ),
        is_binary=False,
    )
    assert learnt.n_images.tolist() == [3, 4]
    np.testing.assert_allclose(learnt.gradients[0], [[3], [3]])  # (2 + 2 + 2 + 6) ÷ 4


def test_with_one_output_every_error_counts_for_both_classes_with_opposite_signs():
    learnt = learn_consensus(
        [layer("a")],
        statistics(
            classes=repeat(2, [[1, 0], [0, 1], [1, 1]]),
            is_error=repeat(2, [True, True, False]),
            logits=np.zeros((6, 2)),
            activations=[np.ones((6, 2))],
            # For class 1 and its opposite; and the other way round.
            gradients=[repeat(2, [[[2, 6], [-2, -6]], [[-4, 0], [4, 0]], [[9, 9], [9, 9]]])],
        ),
        is_binary=True,
    )
    assert learnt.classes == (0, 1)
    assert learnt.n_images.tolist() == [4, 4]
    np.testing.assert_allclose(learnt.gradients[0], [[-3, -3], [3, 3]])


def make_sample(n=12, seed=0):
    """Return a sample in which the logit is the first channel of layer a, the second is noise."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    one = np.ones((n, 1))
    to_first = np.stack([one * [1, 0], one * [-1, 0]], axis=1)
    return statistics(
        classes=[[1, 0]] * n,
        is_error=[True] * n,
        logits=np.stack([-a[:, 0], a[:, 0]], axis=1),
        activations=[a, a + 5, -a, b],
        gradients=[to_first] * 4,
    )


def test_a_layer_is_believed_as_far_as_it_follows_the_logit():
    sample = make_sample()
    layers = [layer(name) for name in "abcd"]
    learnt = learn_consensus(layers, sample, is_binary=True)
    noise = np.corrcoef(sample.activations[3][:, 0], sample.logits[:, 1])[0, 1]
    np.testing.assert_allclose(learnt.reliability, [[1, 1, -1, noise]] * 2, atol=1e-6)
    assert learnt.is_new.tolist() == [True, False, True, True]
    share = min(max((noise - 0.15) / 0.2, 0), 1)
    np.testing.assert_allclose(learnt.shares(), [[1, 0, 0, share]] * 3, atol=1e-6)


def test_images_that_are_not_finite_take_no_part():
    sample = make_sample()
    spoilt = make_sample()
    spoilt.activations[3][4, 1] = np.nan
    spoilt.gradients[0][7, 0, 0] = np.inf
    rest = np.setdiff1d(np.arange(12), [4, 7])
    clean = statistics(
        sample.classes[rest],
        sample.is_error[rest],
        sample.logits[rest],
        [a[rest] for a in sample.activations],
        [g[rest] for g in sample.gradients],
    )
    layers = [layer(name) for name in "abcd"]
    left, right = (learn_consensus(layers, s, is_binary=True) for s in (spoilt, clean))
    np.testing.assert_array_equal(left.reliability, right.reliability)
    np.testing.assert_array_equal(np.stack(left.gradients), np.stack(right.gradients))
    np.testing.assert_array_equal(np.stack(left.activations), np.stack(right.activations))


def test_a_sample_too_small_to_tell_believes_every_layer():
    learnt = learn_consensus([layer(n) for n in "abcd"], make_sample(7), is_binary=True)
    assert (learnt.reliability == 1).all()


def learn_from_nothing():
    sample = make_sample()
    for gradients in sample.gradients:
        gradients[:] = np.nan
    return learn_consensus([layer(n) for n in "abcd"], sample, is_binary=True)


def test_without_any_image_all_layers_and_the_images_own_gradients_count():
    learnt = learn_from_nothing()
    assert learnt.classes == ()
    np.testing.assert_array_equal(learnt.shares(), [[1, 1, 1, 1]])
    own = tf.constant([[5.0, 6.0]])
    [weights] = consensus_weights(learnt, tf.constant([[1]]), [[own] * 4])
    np.testing.assert_allclose(weights[0], own)


def test_weights_mix_the_class_with_the_image_and_unknown_classes_keep_their_own():
    learnt = Consensus(
        layers=("a",),
        classes=(2,),
        n_images=np.array([12]),
        activations=(np.zeros(2, np.float32),),
        gradients=(np.array([[8, 0]], np.float32),),
        reliability=np.ones((1, 1), np.float32),
        is_new=np.array([True]),
    )
    own = tf.constant([[0.0, 4.0], [0.0, 4.0]])
    [weights] = consensus_weights(learnt, tf.constant([[2], [1]]), [[own]])
    assert OWN_WEIGHT == 4
    np.testing.assert_allclose(weights[0], [[6, 1], [0, 4]])


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_table_holds_all_of_it(is_binary):
    learnt = learn_consensus([layer(n) for n in "abcd"], make_sample(), is_binary=is_binary)
    read = Consensus.from_frame(learnt.to_frame())
    assert (read.layers, read.classes) == (learnt.layers, learnt.classes)
    for name in ("n_images", "reliability", "is_new"):
        np.testing.assert_array_equal(getattr(read, name), getattr(learnt, name))
    for name in ("activations", "gradients"):
        for left, right in zip(getattr(read, name), getattr(learnt, name), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_table_without_classes_can_be_read():
    learnt = learn_from_nothing()
    read = Consensus.from_frame(learnt.to_frame())
    assert read.classes == () and read.layers == tuple("abcd")
    np.testing.assert_array_equal(read.shares(), learnt.shares())


def test_the_sample_is_seeded_and_has_as_many_correct_images_as_errors():
    n = 3 * SAMPLE_SIZE
    predictions = pd.DataFrame({"image_id": range(2 * n), "y_true": [0, 1] * n, "y_pred": 1})
    sample = sample_for_consensus(predictions, seed=0)
    assert sample["is_error"].value_counts().to_dict() == {True: SAMPLE_SIZE, False: SAMPLE_SIZE}
    assert (sample["is_error"] == (sample["y_true"] != sample["y_pred"])).all()
    assert sample["image_id"].is_monotonic_increasing
    pd.testing.assert_frame_equal(sample, sample_for_consensus(predictions, seed=0))
    assert set(sample["image_id"]) != set(sample_for_consensus(predictions, seed=1)["image_id"])
    few = sample_for_consensus(predictions.head(3), seed=0)
    assert few["image_id"].tolist() == [0, 1, 2]


def fuse(consensus, layers, maps, classes=((1,),), size=(8, 8)):
    tensors = [tf.constant(np.asarray(values, np.float32)[None]) for values in maps]
    even = tf.ones((1, *size, 1))
    fused = fuse_by_consensus(consensus, layers, [tensors], tf.constant(classes), even, size)
    return fused.numpy()[0, 0]


def all_agree(n_layers, reliability=None):
    return Consensus(
        layers=tuple("abcdef"[:n_layers]),
        classes=(1,),
        n_images=np.array([5]),
        activations=(np.zeros(1, np.float32),) * n_layers,
        gradients=(np.zeros((1, 1), np.float32),) * n_layers,
        reliability=np.array([reliability or [1.0] * n_layers], np.float32),
        is_new=np.ones(n_layers, bool),
    )


def spot(y, x, side=8):
    values = np.zeros((side, side))
    values[y : y + 2, x : x + 2] = 1
    return values


def test_a_place_that_all_stages_point_at_is_hotter_than_one_that_only_one_does():
    layers = [layer("a", 16, 0), layer("b", 16, 1)]
    both = spot(2, 2, 16) + spot(10, 10, 16)
    fused = fuse(all_agree(2), layers, [both, 3 * spot(2, 2, 16)], size=(16, 16))
    # One of two stages is (1 / 2)² of what both are, before the map is squared.
    assert fused[2, 2] / fused[10, 10] == pytest.approx(16, rel=1e-3)


def test_layers_of_one_stage_are_averaged_by_their_share_before_they_are_cut():
    layers = [layer("a", 8, 0), layer("b", 8, 0)]
    against = fuse(all_agree(2), layers, [spot(1, 1), -spot(1, 1) + spot(5, 5)])
    assert against[1, 1] == 0  # They cancel each other.
    ignored = fuse(all_agree(2, [1, 0.1]), layers, [spot(1, 1), -spot(1, 1) + spot(5, 5)])
    only = fuse(all_agree(1), layers[:1], [spot(1, 1)])
    np.testing.assert_allclose(ignored, only, atol=1e-6)


def test_a_map_that_is_not_finite_is_left_out():
    layers = [layer("a", 8, 0), layer("b", 8, 1)]
    with_nan = fuse(all_agree(2), layers, [spot(1, 1), np.full((8, 8), np.nan)])
    alone = fuse(all_agree(1), layers[:1], [spot(1, 1)])
    np.testing.assert_allclose(with_nan, alone, atol=1e-6)


def test_where_nothing_speaks_for_the_class_the_fused_map_is_empty():
    fused = fuse(all_agree(1), [layer("a", 8, 0)], [-spot(1, 1)])
    np.testing.assert_array_equal(fused, 0)


def test_sizes_are_brought_together():
    layers = [layer("a", 16, 0), layer("b", 15, 0), layer("c", 4, 1)]
    maps = [spot(2, 2, 16), spot(2, 2, 15), spot(0, 0, 4)]
    fused = fuse(all_agree(3), layers, maps)
    assert fused.shape == (8, 8)
    assert np.unravel_index(fused.argmax(), (8, 8)) in [(1, 1), (0, 0), (0, 1), (1, 0)]
    assert fused[5:, 5:].max() < 1e-3 * fused.max()
