"""Painting out: falls worked out by hand, shards, what goes wrong on the way, and planted bars."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audit.config import AuditConfig
from audit.engines.local import cut_shards, run_shards
from audit.errors import DatasetError
from audit.explain.causal import (
    NOT_TESTED,
    PLANS,
    SCHEMA,
    Asker,
    CausalWorker,
    Plan,
    causal_shard,
    predicted_maps,
)
from audit.explain.maps import Explainer
from audit.explain.painting import AREAS, BLUR, BLUR_ELSEWHERE, ELSEWHERE, FOCUS
from audit.files import write_parquet
from audit.predict.dataset import DatasetSource, FileSource
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.listing import list_images
from audit.predict.model import AuditedModel, load_model, wrap_model
from audit.run_folder import Receipt, RunFolder, ShardSpec, to_arrow

SIDE = 32
CORNER = 8
"""The score comes from so many rows and columns in the upper left corner."""
QUICK = PLANS["quick"]


def corner_mean(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :CORNER, :CORNER].mean(axis=(1, 2, 3)) / 100 - 1


def corner_cam() -> np.ndarray:
    """A map that is hot in the corner and nowhere else."""
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[:CORNER, :CORNER] = 255
    return cam


def bright_corners(n: int, level: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Black images with a bright corner, which say 1, and their labels, which say 0."""
    images = np.zeros((n, SIDE, SIDE, 3), np.float32)
    images[:, :CORNER, :CORNER] = level
    return images, np.zeros(n, np.int32)


def make_worker(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray] = corner_mean,
    *,
    head: str = "logit",
    rule: DecisionRule | None = None,
    plan: Plan = QUICK,
    batch_size: int = 32,
) -> CausalWorker:
    """Predict images with a function of their pixels, and return what tests all of them."""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    source = DatasetSource(dataset, ("a", "b", "c") if head == "logits3" else ("a", "b"))
    model = wrap_model(function, head=head[:6], input_shape=images.shape[1:])
    return worker_of(folder, source, model, rule=rule, plan=plan, batch_size=batch_size)


def worker_of(
    folder: Path,
    source: DatasetSource | FileSource,
    model: AuditedModel,
    *,
    rule: DecisionRule | None = None,
    plan: Plan = QUICK,
    batch_size: int = 32,
) -> CausalWorker:
    predictor = Predictor(model, "none")
    rule = rule or DecisionRule(1 if model.head.n_classes == 2 else None)
    (_, pixels), *_ = source.batches(range(len(source.listing.images)), 1000)
    scores = predictor.score(pixels)[0].numpy()
    y_pred = rule.decide(scores)
    predicted = pd.DataFrame(
        {
            "y_true": source.listing.images["y_true"].to_numpy(),
            "y_pred": y_pred,
            "p_pred": scores[np.arange(len(scores)), y_pred],
        }
    ).rename_axis("image_id")
    cams = {image_id: corner_cam() for image_id in range(len(scores))}
    asker = Asker(predictor, rule, batch_size)
    return CausalWorker(RunFolder(folder), source, asker, predicted, cams, plan)


def rows_of(worker: CausalWorker, ids: tuple[int, ...] = (0,), index: int = 0) -> pd.DataFrame:
    causal_shard(ShardSpec("causes", index, ids), worker)
    return worker.folder.read_shard("causes", index)


# By hand


def test_painting_the_corner_out_flips_the_error_and_elsewhere_changes_nothing(tmp_path: Path):
    # The corner says 200 ÷ 100 − 1 = 1. The hottest tenth, 102 pixels, are its 64 and what lies
    # next to it, so it is painted black from its surroundings: −1. The output falls by 2.
    rows = rows_of(make_worker(tmp_path, *bright_corners(3)), (0, 1, 2))
    focus = rows[rows["treatment"] == FOCUS]
    assert focus["area"].tolist() == list(AREAS) * 3
    assert focus["logit_fall"].to_numpy() == pytest.approx(2, abs=1e-6)
    assert focus["p_true"].to_numpy() == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert focus["y_pred"].tolist() == [0] * 9
    assert focus["overlap"].tolist() == [1.0] * 9
    moved = rows[rows["treatment"] == ELSEWHERE]
    assert (moved["overlap"] < 0.2).all()
    apart = moved[moved["overlap"] == 0]
    assert len(apart) >= 3
    assert (apart["logit_fall"] == 0).all()
    assert (moved["y_pred"] == 1).all()


def test_a_blur_takes_away_less_than_painting_out(tmp_path: Path):
    rows = rows_of(make_worker(tmp_path, *bright_corners(1)))
    blur = rows[rows["treatment"] == BLUR]
    assert blur["area"].tolist() == [AREAS[-1]]
    # A deviation of 0.09 × 32 = 2.9 pixels leaves about half the light in a corner of 8.
    assert 0.3 < blur["logit_fall"].item() < 1.7
    elsewhere = rows[rows["treatment"] == BLUR_ELSEWHERE]
    assert abs(elsewhere["logit_fall"].item()) < 0.3
    assert elsewhere["y_pred"].item() == 1


def test_the_fall_is_the_same_whichever_way_the_model_says_it(tmp_path: Path):
    def falls(name: str, function: Any, labels: np.ndarray, head: str) -> np.ndarray:
        images = bright_corners(1)[0]
        worker = make_worker(tmp_path / name, images, labels, function, head=head)
        return rows_of(worker)["logit_fall"].to_numpy()

    one = falls("one", corner_mean, np.array([0]), "logit")
    pair = falls(
        "pair",
        lambda p: np.stack([3 + 0 * corner_mean(p), 3 + corner_mean(p)], axis=1),
        np.array([0]),
        "logits",
    )
    np.testing.assert_allclose(pair, one, atol=1e-5)
    # Of three classes only the predicted and the true one count.
    three = falls(
        "three",
        lambda p: np.stack([corner_mean(p) - 9, -corner_mean(p), corner_mean(p)], axis=1),
        np.array([1]),
        "logits3",
    )
    np.testing.assert_allclose(three, 2 * one, atol=1e-5)
    # The first class is explained by the negative of the output.
    other = falls("other", lambda p: -corner_mean(p), np.array([1]), "logit")
    np.testing.assert_allclose(other, one, atol=1e-5)


def test_the_threshold_decides_what_is_a_flip(tmp_path: Path):
    # The score of class 1 is 0.73 as it is and 0.27 painted out.
    for threshold, expected in ((0.5, 0), (0.2, 1)):
        worker = make_worker(
            tmp_path / str(threshold), *bright_corners(1), rule=DecisionRule(1, threshold)
        )
        rows = rows_of(worker)
        assert set(rows.loc[rows["treatment"] == FOCUS, "y_pred"]) == {expected}


# Rows, shards and receipts


@pytest.mark.parametrize("name", ["quick", "full"])
def test_the_model_is_asked_as_often_as_the_plan_says(name: str, tmp_path: Path):
    asked = []

    def counted(pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        return corner_mean(pixels)

    plan = PLANS[name]
    worker = make_worker(tmp_path, *bright_corners(2), counted, plan=plan, batch_size=64)
    asked.clear()
    rows = rows_of(worker, (0, 1))
    assert sum(asked) == 2 * plan.n_passes
    assert len(rows) == 2 * (plan.n_passes - 1)
    described = AuditConfig.model_fields["causal"].description or ""
    assert re.search(rf"'{name}'\D*(\d+) times", described)[1] == str(plan.n_passes)
    if name == "quick":
        assert plan.n_passes <= 12


def test_rows_come_in_order_with_the_columns_of_the_schema(tmp_path: Path):
    worker = make_worker(tmp_path, *bright_corners(4))
    rows = rows_of(worker, (0, 2, 3), index=5)
    assert list(rows) == SCHEMA.names
    assert rows["image_id"].drop_duplicates().tolist() == [0, 2, 3]
    first = rows[rows["image_id"] == 2]
    assert first[["treatment", "area", "trial"]].to_numpy().tolist() == [
        *([FOCUS, 0.1, 0], [ELSEWHERE, 0.1, 0], [FOCUS, 0.2, 0], [ELSEWHERE, 0.2, 0]),
        *([FOCUS, 0.3, 0], [ELSEWHERE, 0.3, 0], [ELSEWHERE, 0.3, 1]),
        *([BLUR, 0.3, 0], [BLUR_ELSEWHERE, 0.3, 0]),
    ]
    spec = ShardSpec("causes", 5, (0, 2, 3))
    assert worker.folder.read_receipt(spec) == Receipt("causes", 5, 3)


def test_an_error_without_a_map_is_recorded_as_not_tested(tmp_path: Path):
    worker = make_worker(tmp_path, *bright_corners(3))
    seen: list[int] = []
    worker = replace(worker, cams={0: corner_cam()}, on_images=seen.append)
    rows = rows_of(worker, (0, 1, 2)).set_index("image_id")
    assert sum(seen) == 3
    for image_id in (1, 2):
        row = rows.loc[image_id]
        assert (row["treatment"], row["y_pred"]) == (NOT_TESTED, 1)
        assert row[["area", "logit_fall", "p_true"]].isna().all()
    assert len(rows.loc[[0]]) == QUICK.n_passes - 1
    assert worker.folder.read_receipt(ShardSpec("causes", 0, (0, 1, 2))).n_done == 3


def test_maps_of_the_predicted_class_that_show_a_place_are_used(tmp_path: Path):
    cam, other = np.full((2, 2), 7, np.uint8), np.full((2, 2), 9, np.uint8)
    maps = [(0, 1, 0.5, cam), (0, 0, 0.9, other), (1, 1, 0.0, cam), (2, 0, np.nan, cam)]
    rows = [(i, c, layer, 2, 2, p, m.tobytes()) for i, c, p, m in maps for layer in ("x", "fused")]
    names = ("image_id", "explained_class", "layer", "height", "width", "peak", "cam")
    folder = RunFolder(tmp_path)
    frame = pd.DataFrame(rows, columns=names)
    write_parquet(folder.shard_path("explanations", 0), to_arrow(frame, None))
    y_pred = pd.DataFrame({"y_pred": [1, 1, 0, 0]}).rename_axis("image_id")
    found = predicted_maps(folder, y_pred)
    assert list(found) == [0]
    np.testing.assert_array_equal(found[0], cam)
    assert predicted_maps(RunFolder(tmp_path / "none"), y_pred) == {}


def noisy(n: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = bright_corners(n)
    rng = np.random.default_rng(0)
    return images + rng.uniform(0, 40, images.shape).astype(np.float32), labels


def shard_bytes(worker: CausalWorker) -> list[bytes]:
    folder = worker.folder
    return [folder.shard_path("causes", i).read_bytes() for i in folder.shard_indices("causes")]


def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path):
    whole, resumed = (make_worker(tmp_path / name, *noisy(7)) for name in ("whole", "resumed"))
    specs = cut_shards("causes", range(7), 3)
    receipts = run_shards(whole.folder, specs, causal_shard, lambda: whole)
    run_shards(resumed.folder, specs[1:2], causal_shard, lambda: resumed)
    torn = resumed.folder.shard_path("causes", 2)
    torn.write_bytes(b"PAR1 torn")
    assert run_shards(resumed.folder, specs, causal_shard, lambda: resumed) == receipts
    assert shard_bytes(resumed) == shard_bytes(whole)


def test_an_image_is_treated_alike_in_any_company_and_not_like_another(tmp_path: Path):
    worker = make_worker(tmp_path, *noisy(4))
    together = rows_of(worker, (0, 1, 2, 3), index=0).set_index("image_id")
    alone = rows_of(worker, (2,), index=1).set_index("image_id")
    pd.testing.assert_frame_equal(together.loc[[2]], alone)
    assert together["overlap"].loc[1].tolist() != together["overlap"].loc[2].tolist()
    other_seed = rows_of(replace(worker, seed=1), (2,), index=2)
    assert other_seed["overlap"].tolist() != alone["overlap"].tolist()


def test_several_threads_and_any_batch_size_give_the_same_rows(tmp_path: Path):
    images, labels, _ = drawn_set.draw_set()
    dataset = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels)).batch(8)
    source = DatasetSource(dataset, drawn_set.CLASS_NAMES)
    model = wrap_model(drawn_set.corner_model())
    found = []
    for name, batch_size in (("a", 32), ("b", 32), ("c", 3)):
        worker = worker_of(tmp_path / name, source, model, batch_size=batch_size)
        assert worker.asker.n_threads > 1
        found.append(rows_of(worker, tuple(range(8))))
    assert shard_bytes(worker_of(tmp_path / "a", source, model)) == shard_bytes(
        worker_of(tmp_path / "b", source, model)
    )
    pd.testing.assert_frame_equal(found[0], found[2], atol=1e-4)


def test_somebody_s_own_function_is_called_by_one_thread(tmp_path: Path):
    assert make_worker(tmp_path, *bright_corners(1)).asker.n_threads == 1


# What goes wrong


def test_logits_that_are_not_finite_are_left_blank(tmp_path: Path):
    def breaks(pixels: np.ndarray) -> np.ndarray:
        return np.where(corner_mean(pixels) < 0, np.nan, corner_mean(pixels))

    rows = rows_of(make_worker(tmp_path, *bright_corners(1), breaks))
    focus = rows[rows["treatment"] == FOCUS]
    assert focus[["logit_fall", "p_true"]].isna().all(axis=None)
    assert (focus["y_pred"] == -1).all()
    assert (rows.loc[rows["overlap"] == 0, "y_pred"] == 1).all()


@pytest.fixture
def drawn_worker(tmp_path: Path) -> CausalWorker:
    """The drawn images in files, which a test may spoil."""
    source = FileSource(list_images(drawn_set.save_set(tmp_path / "val")), (32, 32), 3)
    return worker_of(tmp_path / "run", source, wrap_model(drawn_set.corner_model()))


def test_an_image_that_cannot_be_read_again_is_left_out_with_the_reason(drawn_worker: CausalWorker):
    source = drawn_worker.source
    (source.listing.root / source.listing.images["path"][1]).write_bytes(b"")
    spec = ShardSpec("causes", 0, (0, 1, 2))
    receipt = causal_shard(spec, drawn_worker)
    assert receipt == Receipt("causes", 0, 2, ((1, "it is empty (0 bytes)"),))
    rows = drawn_worker.folder.read_shard("causes", 0)
    assert rows["image_id"].unique().tolist() == [0, 2]
    assert drawn_worker.folder.read_receipt(spec) == receipt


def test_a_shard_without_any_map_reads_no_image(drawn_worker: CausalWorker):
    for path in drawn_worker.source.listing.images["path"]:
        (drawn_worker.source.listing.root / path).unlink()
    spec = ShardSpec("causes", 0, (0, 1))
    assert causal_shard(spec, replace(drawn_worker, cams={})) == Receipt("causes", 0, 2)
    assert drawn_worker.folder.read_shard("causes", 0)["treatment"].tolist() == [NOT_TESTED] * 2


def test_an_image_that_changed_since_it_was_predicted_is_refused(drawn_worker: CausalWorker):
    source = drawn_worker.source
    changed = drawn_set.draw_image("left", fooled=False, number=1)
    drawn_set.save_image(source.listing.root / source.listing.images["path"][1], changed)
    with pytest.raises(DatasetError, match="Image 1 is not the one that was predicted"):
        causal_shard(ShardSpec("causes", 0, (0, 1, 2)), drawn_worker)
    assert not drawn_worker.folder.shard_indices("causes")


# Real photographs


def test_painting_out_planted_bars_turns_errors_right(shared_data: Path, tmp_path: Path):
    folder = shared_data / "planted_bars"
    with (folder / "truth.csv").open() as file:
        barred = {row["file"] for row in csv.DictReader(file) if row["barred"] == "1"}
    listing = list_images(folder / "val")
    source = FileSource(listing, (224, 224), 3, interpolation="nearest")
    paths = listing.images["path"]
    cats = [i for i, path in enumerate(paths) if path in barred and path.startswith("cats/")]
    model = load_model(folder / "planted_bars_model.keras")
    predictor = Predictor(model, "none")
    explainer = Explainer(model, layers="stages", fusion="mean")
    predicted, cams = {}, {}
    for ids, pixels in source.batches(cats[:60], 20):
        scores = predictor.predict(pixels)[0].numpy()
        wrong = np.flatnonzero(scores[:, 1] > 0.5)
        maps = explainer.explain(tf.gather(pixels, wrong), np.tile([1, 0], (len(wrong), 1)))
        for place, row in enumerate(wrong):
            predicted[int(ids[row])] = (0, 1, scores[row, 1])
            *_, (_, _, cams[int(ids[row])]) = maps.of_image(place, 0)
    frame = pd.DataFrame.from_dict(predicted, "index", columns=["y_true", "y_pred", "p_pred"])
    asker = Asker(predictor, DecisionRule(1), 32)
    worker = CausalWorker(RunFolder(tmp_path), source, asker, frame, cams, QUICK)
    rows = rows_of(worker, tuple(frame.index))
    at_most = rows[rows["area"] == AREAS[-1]]
    right = (at_most["y_pred"] == 0).groupby(at_most["treatment"]).mean()
    falls = at_most.groupby("treatment")["logit_fall"].mean()
    assert len(frame) > 15
    # Of all 57, with the maps of a whole run, it is 84 % against 4 %.
    assert right[FOCUS] >= 0.6
    assert right[ELSEWHERE] <= 0.15
    assert falls[FOCUS] > 3 > 0.5 > falls[ELSEWHERE]
