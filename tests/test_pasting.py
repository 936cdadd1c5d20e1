"""Pasting: a case exact to the pixel, who is pasted into whom, and what cannot be pasted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import drawn_set
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from audit.explain.causal import PLANS, Asker, Plan
from audit.explain.painting import ELSEWHERE, FOCUS
from audit.explain.pasting import SCHEMA, paste_focus
from audit.predict.dataset import DatasetSource, FileSource
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.listing import list_images
from audit.predict.model import wrap_model

SIDE = 32
CORNER = 8
N_ERRORS, N_RIGHT = 4, 10
QUICK = PLANS["quick"]


def corner_mean(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :CORNER, :CORNER].mean(axis=(1, 2, 3)) / 100 - 1


def corner_cam() -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[:CORNER, :CORNER] = 255
    return cam


class Bench:
    """Images of class 0: the first four have a bright corner, which says 1; ten are black."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray] = corner_mean) -> None:
        self.images = np.zeros((N_ERRORS + N_RIGHT, SIDE, SIDE, 3), np.float32)
        self.images[:N_ERRORS, :CORNER, :CORNER] = 200
        labels = np.zeros(len(self.images), np.int32)
        dataset = tf.data.Dataset.from_tensor_slices((self.images, labels)).batch(8)
        self.source = DatasetSource(dataset, ("a", "b"))
        model = wrap_model(function, head="logit", input_shape=(SIDE, SIDE, 3))
        self.asker = Asker(Predictor(model, "none"), DecisionRule(1), 32)
        self.predicted = pd.DataFrame({"y_true": labels, "y_pred": labels})
        self.predicted.loc[: N_ERRORS - 1, "y_pred"] = 1
        self.predicted.index.name = "image_id"
        self.cams = {image_id: corner_cam() for image_id in range(len(labels))}

    def paste(self, patterns: dict[int, list[int]], plan: Plan = QUICK, seed: int = 0):
        table = pd.DataFrame({"pattern": list(patterns), "exemplars": list(patterns.values())})
        return paste_focus(
            table, self.predicted, self.cams, self.source, self.asker, plan, seed=seed
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_a_pasted_corner_turns_a_correct_image_wrong_and_other_parts_do_not(bench: Bench):
    # The hottest 30 % hold the corner whole, and its soft edge lies beyond it: all of the corner is
    # pasted as it is, and the output is 200 ÷ 100 − 1 = 1, where it was −1. The same place covered
    # with the exemplar's black stays at −1, or a little above where some of its corner comes along.
    rows = bench.paste({1: [0, 1], 2: [3]})
    assert list(rows) == SCHEMA.names
    assert len(rows) == 3 * QUICK.n_controls * 2
    focus, other = (rows[rows["kind"] == kind] for kind in (FOCUS, ELSEWHERE))
    assert (focus["logit_after"] == 1).all()
    assert (focus["y_pred_after"] == 1).all()
    assert (other["logit_after"] < 0).all()
    assert (other["y_pred_after"] == 0).all()
    assert (other["logit_after"] == -1).any()
    assert (rows["y_pred_before"] == 0).all()


def test_each_exemplar_is_pasted_into_correct_images_of_its_true_class(bench: Bench):
    rows = bench.paste({1: [2, 0], 5: [1]}, replace(QUICK, n_controls=4))
    order = rows[["pattern", "source"]].drop_duplicates().to_numpy().tolist()
    assert order == [[1, 2], [1, 0], [5, 1]]
    for _, of_source in rows.groupby("source"):
        controls = of_source["control"].tolist()
        assert controls == sorted(controls)
        assert len(set(controls)) == 4
        assert min(controls) >= N_ERRORS
        assert of_source["kind"].tolist() == [FOCUS, ELSEWHERE] * 4


def test_no_more_exemplars_than_planned_and_none_that_cannot_serve(bench: Bench):
    rows = bench.paste({1: [0, 1, 2, 3]}, replace(QUICK, n_exemplars=2))
    assert rows["source"].unique().tolist() == [0, 1]
    other = Bench()
    del other.cams[0]
    # Image 7 is right: it is no exemplar of an error. Image 0 has no map.
    rows = other.paste({1: [7, 0, 2, 3]}, replace(QUICK, n_exemplars=2))
    assert rows["source"].unique().tolist() == [2, 3]


def test_the_same_seed_pastes_the_same(bench: Bench):
    first, again, other = (bench.paste({1: [0, 1]}, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["control"].tolist() != other["control"].tolist()
    # What is pasted does not depend on the other patterns.
    pd.testing.assert_frame_equal(first[:6], bench.paste({1: [0], 2: [3]})[:6])


def test_with_fewer_correct_images_than_wanted_there_are_fewer_pastes():
    bench = Bench()
    bench.predicted.loc[N_ERRORS + 2 :, "y_pred"] = 1
    rows = bench.paste({1: [0]})
    assert rows["control"].unique().tolist() == [N_ERRORS, N_ERRORS + 1]


def test_without_patterns_or_correct_images_the_table_is_empty_with_its_types():
    bench = Bench()
    no_patterns = bench.paste({})
    bench.predicted["y_pred"] = 1
    for rows in (no_patterns, bench.paste({1: [0]})):
        assert rows.empty
        assert pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False).schema.equals(
            SCHEMA, check_metadata=False
        )


def test_scores_that_are_not_finite_are_marked():
    def breaks(pixels: np.ndarray) -> np.ndarray:
        return np.where(corner_mean(pixels) > 0, np.nan, corner_mean(pixels))

    rows = Bench(breaks).paste({1: [0]})
    focus = rows[rows["kind"] == FOCUS]
    assert (focus["y_pred_after"] == -1).all()
    assert focus["logit_after"].isna().all()


def test_images_that_cannot_be_read_again_are_left_out(tmp_path: Path):
    source = FileSource(list_images(drawn_set.save_set(tmp_path / "val")), (32, 32), 3)
    labels = source.listing.images["y_true"]
    paths = source.listing.images["path"]
    fooled = paths.str.contains("fooled")
    predicted = pd.DataFrame({"y_true": labels, "y_pred": labels.where(~fooled, 1 - labels)})
    cams = {i: corner_cam() for i in predicted.index}
    model = wrap_model(drawn_set.corner_model())
    asker = Asker(Predictor(model, "none"), DecisionRule(1), 8)
    patterns = pd.DataFrame({"pattern": [1], "exemplars": [[0, 1]]})
    whole = paste_focus(patterns, predicted, cams, source, asker, QUICK)
    gone = whole["control"].iloc[0]
    for image_id in (1, gone):
        (source.listing.root / paths[image_id]).unlink()
    rows = paste_focus(patterns, predicted, cams, source, asker, QUICK)
    kept = whole[(whole["source"] == 0) & (whole["control"] != gone)]
    assert 0 < len(kept) < len(whole)
    assert rows["control"].tolist() == kept["control"].tolist()
    assert rows["source"].unique().tolist() == [0]
