"""Decisions on paper, shards that do not depend on batch size, and memory that runs out."""

import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hand_set import SIZE, hand_set_model, write_images
from keras import layers
from PIL import Image

from audit.engines.local import cut_shards, run_shards
from audit.errors import ModelError
from audit.predict.dataset import DatasetSource, FileSource
from audit.predict.inference import (
    DecisionRule,
    Predictor,
    PredictWorker,
    predict_shard,
    predictions_table,
)
from audit.predict.listing import list_images
from audit.predict.model import wrap_model
from audit.predict.properties import MEASURES, measure_images
from audit.run_folder import RunFolder

# Decisions


def f32(*rows: Any) -> np.ndarray:
    return np.array(rows, np.float32)


SCORES = f32([0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.7, 0.3])


@pytest.mark.parametrize(
    ("positive", "threshold", "expected"),
    [
        (1, 0.5, [0, 1, 1, 0]),  # a tie is positive
        (0, 0.5, [0, 0, 1, 0]),
        (1, 0.3, [0, 1, 1, 1]),  # 0.3 as float32 is at the threshold, not below it
        (1, 0.6, [0, 0, 1, 0]),
        (0, 0.7, [0, 1, 1, 0]),
        (0, 0.95, [1, 1, 1, 1]),
        (1, 0.05, [1, 1, 1, 1]),
    ],
)
def test_two_classes_are_decided_at_the_threshold(positive, threshold, expected):
    decided = DecisionRule(positive, threshold).decide(SCORES)
    assert decided.tolist() == expected
    assert decided.dtype == np.int32


def test_more_classes_are_decided_by_the_highest_score():
    scores = f32([0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8])
    assert DecisionRule(None, 0.9).decide(scores).tolist() == [1, 0, 2]  # a tie: the first class
    assert DecisionRule(None).decide(np.empty((0, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize("positive", [None, 0, 1])
def test_scores_that_are_no_numbers_decide_nothing(positive):
    nan, inf = np.nan, np.inf
    scores = np.array([[nan, 0.5], [0.2, nan], [inf, 0], [nan, nan], [0.2, 0.8]], np.float32)
    decided = DecisionRule(positive).decide(scores)
    assert decided.tolist() == [-1, -1, -1, -1, 1] and decided.dtype == np.int32


def test_the_predictions_table_by_hand():
    scores = f32([0.75, 0.25], [0.625, 0.375], [0.125, 0.875])
    ids, y_true = np.array([4, 7, 9]), np.array([0, 0, 0])
    table = predictions_table(ids, y_true, scores, DecisionRule(1, 0.375))
    assert table.to_pydict() == {
        "image_id": [4, 7, 9],
        "y_pred": [0, 1, 1],
        "p_true": [0.75, 0.625, 0.125],
        "p_pred": [0.75, 0.375, 0.875],
        "margin": [0.5, -0.25, 0.75],  # the threshold overruled the higher score of image 7
        "scores": [[0.75, 0.25], [0.625, 0.375], [0.125, 0.875]],
    }


def test_the_predictions_table_of_three_classes():
    scores = f32([0.5, 0.125, 0.375], [0.25, 0.5, 0.25])
    table = predictions_table(np.array([0, 1]), np.array([2, 1]), scores, DecisionRule(None))
    assert table["y_pred"].to_pylist() == [0, 1]
    assert table["p_true"].to_pylist() == [0.375, 0.5]
    assert table["margin"].to_pylist() == [0.125, 0.25]


def test_an_empty_predictions_table_has_its_columns():
    empty = np.empty(0, np.int64)
    table = predictions_table(empty, empty, np.empty((0, 3), np.float32), DecisionRule(None))
    assert table.num_rows == 0
    assert table["scores"].type.list_size == 3


# Shards


def make_worker(out: Path, source: Any, model: keras.Model, **options: Any) -> PredictWorker:
    scaling = options.pop("scaling", "0-1")
    return PredictWorker(
        RunFolder(out),
        source,
        Predictor(wrap_model(model), scaling),
        options.pop("rule", DecisionRule(1)),
        options.pop("batch_size", 4),
        **options,
    )


def predict_all(worker: PredictWorker, shard_size: int = 6) -> list[Any]:
    ids = worker.source.listing.images["image_id"]
    specs = cut_shards("predictions", ids, shard_size)
    worker.folder.write_table("images", worker.source.listing.images)
    return run_shards(worker.folder, specs, predict_shard, lambda: worker)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return FileSource(list_images(write_images(tmp_path / "val")), (SIZE, SIZE), 3)


def test_predictions_of_a_model_set_by_hand(tmp_path, source):
    worker = make_worker(tmp_path / "run", source, hand_set_model())
    receipts = predict_all(worker)
    assert [(r.n_done, r.left_out) for r in receipts] == [(6, ())] * 3 + [(2, ())]
    frame = worker.folder.read_predictions()
    assert frame["image_id"].tolist() == list(range(20))
    levels = [
        np.asarray(Image.open(source.listing.root / path))[0, 0, 0] / 255 for path in frame["path"]
    ]
    p = 1 / (1 + np.exp(2 - 4 * np.array(levels)))
    scores = worker.folder.read_scores()
    np.testing.assert_allclose(scores, np.stack([1 - p, p], axis=1), rtol=1e-5)
    assert (frame["y_pred"] == frame["y_true"]).all()
    np.testing.assert_allclose(frame["p_pred"], np.maximum(p, 1 - p), rtol=1e-5)
    ids, embeddings = worker.folder.read_embeddings()
    assert ids.tolist() == list(range(20))
    np.testing.assert_allclose(embeddings, np.stack([levels, levels], axis=1), rtol=1e-5)


def test_logits_are_exact_where_the_score_is_saturated():
    # A white image: 40 · 1 − 2 = 38. Its score is 1 in float32, from which no logit follows.
    predictor = Predictor(wrap_model(hand_set_model(weight=40.0)), "0-1")
    scores, logits = predictor.score(np.full((1, SIZE, SIZE, 3), 255, np.float32))
    assert scores.numpy().tolist() == [[0.0, 1.0]]
    np.testing.assert_allclose(logits.numpy(), [[-38.0, 38.0]], rtol=1e-5)


def folder_bytes(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*.parquet")}


def test_two_runs_give_equal_bytes(tmp_path, source):
    for name in ("a", "b"):
        predict_all(make_worker(tmp_path / name, source, hand_set_model()))
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


@pytest.mark.parametrize(("batch_size", "shard_size"), [(1, 6), (3, 7), (64, 1), (64, 100)])
def test_batch_and_shard_sizes_do_not_matter(tmp_path, source, batch_size, shard_size):
    frames = []
    for name, size, shard in (("a", 4, 6), ("b", batch_size, shard_size)):
        worker = make_worker(tmp_path / name, source, hand_set_model(), batch_size=size)
        predict_all(worker, shard)
        frames.append(worker.folder.read_predictions(scores=True))
    scores = [np.stack(frame.pop("scores")) for frame in frames]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    pd.testing.assert_frame_equal(*frames, rtol=1e-5)


def test_a_dataset_in_memory_gives_the_predictions_of_its_files(tmp_path, source):
    dataset = keras.utils.image_dataset_from_directory(
        source.listing.root, image_size=(SIZE, SIZE), shuffle=False, verbose=False, batch_size=3
    )
    scores = []
    for name, given in (("files", source), ("live", DatasetSource(dataset, None))):
        worker = make_worker(tmp_path / name, given, hand_set_model())
        predict_all(worker)
        scores.append(worker.folder.read_scores())
    np.testing.assert_array_equal(*scores)


def read_properties(folder: RunFolder) -> pd.DataFrame:
    return pd.concat(folder.iter_shards("properties"), ignore_index=True)


def test_properties_are_those_of_what_the_model_saw(tmp_path, source):
    worker = make_worker(tmp_path / "run", source, hand_set_model())
    predict_all(worker)
    got = read_properties(worker.folder)
    assert got["image_id"].tolist() == worker.folder.read_predictions()["image_id"].tolist()
    pixels = np.concatenate([pixels.numpy() for _, pixels in source.batches(range(20), 4)])
    want = measure_images(pixels, (0.0, 255.0))
    np.testing.assert_array_equal(got[list(MEASURES)].to_numpy(), want.values)
    np.testing.assert_array_equal(got["hash"].to_numpy(), want.hashes)
    assert set(got["width"]) == {12} and set(got["height"]) == {9}
    sizes = [(source.listing.root / path).stat().st_size for path in source.listing.images["path"]]
    assert got["file_size"].tolist() == sizes


def test_properties_of_a_dataset_in_memory_lack_the_files(tmp_path):
    pixels = np.random.default_rng(0).random((10, SIZE, SIZE, 3), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((pixels, [0, 1] * 5)).batch(3)
    worker = make_worker(tmp_path / "run", DatasetSource(dataset, None), hand_set_model())
    predict_all(worker)
    got = read_properties(worker.folder)
    assert got[["width", "height", "file_size"]].isna().all(axis=None)
    want = measure_images(pixels, (0.0, 1.0))
    np.testing.assert_array_equal(got[list(MEASURES)].to_numpy(), want.values)


def test_bad_images_are_in_the_receipt_and_the_rest_is_predicted(tmp_path):
    root = write_images(tmp_path / "val")
    (root / "dark" / "004.png").write_bytes(b"")
    (root / "light" / "001.png").write_text("no picture")
    listing = list_images(root)
    (root / "light" / "019.png").unlink()
    counted: list[int] = []
    source = FileSource(listing, (SIZE, SIZE), 3)
    worker = make_worker(tmp_path / "run", source, hand_set_model(), on_images=counted.append)
    receipts = predict_all(worker)
    left_out = [entry for receipt in receipts for entry in receipt.left_out]
    paths = [listing.images["path"][image_id] for image_id, _ in left_out]
    assert paths == ["dark/004.png", "light/001.png", "light/019.png"]
    assert left_out[0][1] == "it is empty (0 bytes)"
    assert left_out[1][1].startswith("its content is no picture of a known kind")
    assert left_out[2][1] == "it is gone, or a link to nothing"
    assert sum(r.n_done for r in receipts) == sum(counted) == 17
    frame = worker.folder.read_predictions()
    assert len(frame) == 17 and not set(frame["path"]) & set(paths)
    assert worker.folder.read_embeddings()[0].tolist() == frame["image_id"].tolist()
    assert read_properties(worker.folder)["image_id"].tolist() == frame["image_id"].tolist()


def test_a_shard_of_bad_images_only_is_finished_and_empty(tmp_path, source):
    for path in source.listing.root.glob("*/*.png"):
        path.write_bytes(b"")
    worker = make_worker(tmp_path / "run", source, hand_set_model())
    receipts = predict_all(worker, shard_size=20)
    assert receipts[0].n_done == 0 and len(receipts[0].left_out) == 20
    assert worker.folder.read_scores().shape == (0, 2)
    specs = cut_shards("predictions", range(20), 20)
    assert run_shards(worker.folder, specs, predict_shard, pytest.fail) == receipts


def test_outputs_that_are_no_numbers_are_left_out(tmp_path, source):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(inputs))
    nan_if_light = layers.Lambda(lambda x: tf.where(x > 0, x, float("nan")))
    model = keras.Model(inputs, layers.Dense(2, "softmax")(nan_if_light(x)))
    model.layers[1].kernel.assign(-tf.ones((1, 1, 3, 2)))
    model.layers[1].bias.assign([384.0, 384.0])  # positive below a grey of 128
    worker = make_worker(tmp_path / "run", source, model, scaling="none", rule=DecisionRule(None))
    receipts = predict_all(worker)
    left_out = dict(entry for receipt in receipts for entry in receipt.left_out)
    light = source.listing.images.query("y_true == 1")["image_id"].tolist()
    assert left_out == dict.fromkeys(light, "the model's output for it is not a finite number")
    assert np.isfinite(worker.folder.read_scores()).all()
    assert not set(read_properties(worker.folder)["image_id"]) & set(light)


class Spoil(layers.Layer):
    """Gives something else for light images; the noise that a model is tried on is darker."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs, outputs):
        is_light = tf.reduce_mean(inputs, axis=(1, 2, 3), keepdims=True)[:, 0, 0] > 140
        return tf.where(is_light, self.function(outputs), outputs)


def spoilt_model(n_outputs, activation, function):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(inputs / 255))
    return keras.Model(inputs, Spoil(function)(inputs, layers.Dense(n_outputs, activation)(x)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_outputs_without_end_are_left_out_too(tmp_path, source, value, n_outputs):
    """A sigmoid of infinity is 1, and a softmax of minus infinity 0: neither is believed."""
    spoilt = [value] + [0.0] * (n_outputs - 1)
    model = spoilt_model(n_outputs, None, lambda logits: logits * 0 + spoilt)
    worker = make_worker(tmp_path / "run", source, model, scaling="none")
    receipts = predict_all(worker)
    left_out = dict(entry for receipt in receipts for entry in receipt.left_out)
    light = source.listing.images.query("y_true == 1")["image_id"].tolist()
    assert left_out == dict.fromkeys(light, "the model's output for it is not a finite number")
    assert sum(receipt.n_done for receipt in receipts) == len(source.listing.images) - len(light)


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (lambda scores: scores / 2, "scores that add up to 0.5"),
        (lambda scores: scores * [[1.0, 0.0]] + [[0.0, 1.2]], "scores from "),
        (lambda scores: scores * 0 + [[1.5, -0.5]], "scores from -0.5 to 1.5"),
    ],
)
def test_outputs_that_are_no_probabilities_are_refused(tmp_path, source, function, received):
    model = spoilt_model(2, "softmax", function)
    worker = make_worker(tmp_path / "run", source, model, scaling="none")
    assert worker.predictor.model.head.kind == "softmax"
    with pytest.raises(ModelError, match="not the probabilities that they were taken") as caught:
        predict_all(worker)
    assert f"Received: {received}" in str(caught.value)
    assert "for an image. Say what they are, with `--head logits`." in str(caught.value)


@pytest.mark.parametrize("damage", ["torn", "short", "missing", "empty"])
def test_a_damaged_shard_is_done_again(tmp_path, source, damage):
    worker = make_worker(tmp_path / "run", source, hand_set_model())
    receipts = predict_all(worker)
    before = folder_bytes(tmp_path / "run")
    path = worker.folder.shard_path("predictions", 1)
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(worker.folder.shard_path("predictions", 3).read_bytes())
    else:
        path.write_bytes(path.read_bytes()[: -20 if damage == "torn" else 0])
    counted: list[int] = []
    again = make_worker(tmp_path / "run", source, hand_set_model(), on_images=counted.append)
    assert predict_all(again) == receipts
    assert sum(counted) == 6
    assert folder_bytes(tmp_path / "run") == before


# Memory


class Full:
    """What a predictor runs, on a device that holds only so many images."""

    def __init__(self, predictor: Predictor, capacity: int, error: type) -> None:
        self.run, self.capacity, self.error, self.sizes = predictor._run, capacity, error, []

    def __call__(self, pixels: tf.Tensor, *how: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if len(pixels) > self.capacity:
            raise self.error(*([] if self.error is MemoryError else [None, None, "OOM"]))
        self.sizes.append(len(pixels))
        return self.run(pixels, *how)


def small_predictor(capacity: int, error: type = MemoryError) -> tuple[Predictor, Full, list[int]]:
    predictor, halved = Predictor(wrap_model(hand_set_model()), "0-1"), []
    full = Full(predictor, capacity, error)
    predictor._run, predictor.on_halved = full, halved.append
    return predictor, full, halved


@pytest.mark.parametrize("error", [MemoryError, tf.errors.ResourceExhaustedError])
def test_when_memory_runs_out_batches_are_halved_and_stay_so(error):
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (21, SIZE, SIZE, 3)), tf.float32)
    whole = Predictor(wrap_model(hand_set_model()), "0-1")
    predictor, full, halved = small_predictor(6, error)
    for ours, expected in (
        (predictor.predict(pixels), whole.predict(pixels)),
        (predictor.score(pixels[:7]), whole.score(pixels[:7])),
    ):
        for mine, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-6)
    assert halved == [5]  # Of 11 and 10 images, side by side: it is the first to fail that counts.
    assert sorted(full.sizes[:5]) == [1, 5, 5, 5, 5] and full.sizes[5:] == [5, 2]


@pytest.mark.parametrize("opaque", [False, True])
def test_only_a_network_is_asked_for_two_halves_at_once(opaque):
    """A function is somebody's own code, which need not bear two threads."""
    pixels = np.random.default_rng(0).uniform(0, 255, (40, SIZE, SIZE, 3)).astype(np.float32)
    model = hand_set_model()
    expected = model.predict(pixels / 255, verbose=0)[:, 0]
    asked: list[int] = []

    def function(images: tf.Tensor) -> tf.Tensor:
        return model(images)

    function.input_shape = (None, SIZE, SIZE, 3)
    predictor = Predictor(wrap_model(function if opaque else model), "0-1")
    run = predictor._run

    def noting(*inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
        asked.append(threading.get_ident())
        return run(*inputs)

    predictor._run = noting
    scores, embeddings = predictor.predict(pixels)
    np.testing.assert_allclose(scores[:, 1], expected, atol=1e-6)
    assert scores.shape == (40, 2) and len(embeddings) == 40
    assert len(set(asked)) == (1 if opaque else 2)
    asked.clear()
    np.testing.assert_allclose(predictor.score(pixels)[0], scores, atol=1e-6)
    assert len(set(asked)) == 1


def test_a_last_few_images_that_do_not_fit_are_halved_too():
    predictor, full, halved = small_predictor(4)
    predictor.predict(tf.zeros((4, SIZE, SIZE, 3)))
    full.capacity = 1
    predictor.predict(tf.zeros((3, SIZE, SIZE, 3)))
    assert (halved, full.sizes) == ([1], [4, 1, 1, 1])


def test_one_image_that_does_not_fit_is_one_clear_sentence():
    predictor, _, halved = small_predictor(0)
    with pytest.raises(ModelError, match="not enough memory to predict one image of"):
        predictor.predict(tf.zeros((4, SIZE, SIZE, 3)))
    assert halved == [2, 1]
