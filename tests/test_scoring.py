"""A shard of a search: its columns, what is left out of it, and pixels in another range."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from audit.predict.inference import DecisionRule
from audit.run_folder import RunFolder, ShardSpec
from audit.search.likeness import Calibration, Comparison
from audit.search.query import Query
from audit.search.scoring import SCHEMA, ScoringWorker, in_range, score_shard

SIZE = 4


class Pool:
    """Images of one value each, 10 times their id; image 3 cannot be read."""

    def batches(self, image_ids: Any, batch_size: int) -> Iterator[Any]:
        ids = [i for i in image_ids if i != 3]
        for start in range(0, len(ids), batch_size):
            part = np.array(ids[start : start + batch_size], np.int64)
            pixels = np.ones((len(part), SIZE, SIZE, 1), np.float32) * part[:, None, None, None]
            yield part, tf.constant(10 * pixels)

    def why_unreadable(self, image_id: int) -> str | None:
        return "it is broken"


def predict(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores (1 - v, v) and embedding (1, v) of images of value v; that of 0.7 is not finite."""
    value = tf.reduce_mean(pixels, axis=(1, 2, 3))
    value = tf.where(tf.abs(value - 0.7) < 1e-3, np.nan, value)
    return tf.stack([1 - value, value], axis=1), tf.stack([tf.ones_like(value), value], axis=1)


def worker(folder: RunFolder, batch_size: int = 3, focus: bool = True) -> ScoringWorker:
    def local(pixels: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.ones_like(pixels), pixels], axis=-1)

    whole = np.array([[0.0, 1.0]], np.float32)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    query = Query({}, (0,), whole, zeros, ones, whole[:, ::-1] if focus else None)
    predictor: Any = SimpleNamespace(predict=predict)
    source: Any = Pool()
    return ScoringWorker(
        folder,
        source,
        (0.0, 1.0),
        predictor,
        DecisionRule(1),
        Comparison(query, Calibration(zeros, ones)),
        local if focus else None,
        batch_size,
    )


def test_a_shard_holds_what_the_model_says_and_how_alike_the_images_are(tmp_path: Path):
    folder = RunFolder(tmp_path)
    spec = ShardSpec("likeness", 2, (0, 1, 2, 3, 20))
    receipt = score_shard(spec, worker(folder))
    assert receipt == folder.read_receipt(spec)
    assert (receipt.n_done, receipt.left_out) == (4, ((3, "it is broken"),))
    table = pq.read_table(folder.shard_path("likeness", 2))
    assert table.schema.remove_metadata() == SCHEMA
    shard = table.to_pandas()
    assert shard["image_id"].tolist() == [0, 1, 2, 20]
    assert shard["y_pred"].tolist() == [0, 0, 0, 1]
    values = np.array([0, 10, 20, 200]) / 255  # as the model is used to
    assert shard["p_pred"].to_numpy() == pytest.approx(np.maximum(values, 1 - values))
    length = np.sqrt(1 + values**2)
    assert shard["whole"].to_numpy() == pytest.approx(values / length, abs=1e-6)  # cosine to (0, 1)
    assert shard["place"].to_numpy() == pytest.approx(
        1 / length
    )  # cosine to (1, 0), alike everywhere
    assert shard["top"].to_numpy() == pytest.approx(0.125)  # the first of four rows
    assert shard["left"].to_numpy() == pytest.approx(0.125)


def test_an_image_that_the_model_makes_nothing_of_is_left_out(tmp_path: Path):
    pixels = 0.7 * 255 / 10
    ids = (1, 2)
    strange = worker(RunFolder(tmp_path))
    strange.source.batches = lambda image_ids, batch_size: iter(  # type: ignore[method-assign]
        [
            (
                np.array(ids),
                tf.constant([1.0, 10 * pixels])[:, None, None, None] * np.ones((1, 4, 4, 1)),
            )
        ]
    )
    receipt = score_shard(ShardSpec("likeness", 0, ids), strange)
    assert receipt.left_out == ((2, "what the model makes of it is not a finite number"),)
    assert receipt.n_done == 1


def test_without_local_features_there_is_no_place(tmp_path: Path):
    folder = RunFolder(tmp_path)
    score_shard(ShardSpec("likeness", 0, (1, 2)), worker(folder, focus=False))
    shard = folder.read_shard("likeness", 0)
    assert shard[["place", "top", "left"]].isna().all(axis=None)
    assert shard["whole"].notna().all()


def test_a_shard_without_any_readable_image_is_done(tmp_path: Path):
    folder = RunFolder(tmp_path)
    spec = ShardSpec("likeness", 0, (3,))
    assert score_shard(spec, worker(folder)).n_done == 0
    assert folder.read_receipt(spec) is not None
    assert len(folder.read_shard("likeness", 0)) == 0


def test_the_batch_size_does_not_matter(tmp_path: Path):
    spec = ShardSpec("likeness", 0, (5, 1, 9, 2, 6))
    shards = []
    for size in (1, 2, 5):
        folder = RunFolder(tmp_path / str(size))
        score_shard(spec, worker(folder, size))
        shards.append(folder.read_shard("likeness", 0))
    assert shards[0].equals(shards[1]) and shards[0].equals(shards[2])


def test_pixels_are_brought_to_the_range_of_the_run():
    pixels = tf.constant([0.0, 51.0, 255.0])
    assert in_range(pixels, (0.0, 255.0)) is pixels
    assert in_range(pixels, (0.0, 1.0)).numpy() == pytest.approx([0, 0.2, 1])
    assert in_range(pixels, (-1.0, 1.0)).numpy() == pytest.approx([-1, -0.6, 1])
