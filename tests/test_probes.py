"""Probes: what turns wrong is counted exactly, on the right images, whatever the pixels' range."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import drawn_set
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from scipy.stats import binomtest

from audit.diagnose import probes
from audit.diagnose.probes import SCHEMA, probe_model, sample_correct, sample_size
from audit.diagnose.transformations import TRANSFORMATIONS
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.model import wrap_model

RULE = DecisionRule(positive=1)
NAMES = [t.name for t in TRANSFORMATIONS]


class Images:
    """A source of images in memory."""

    def __init__(self, images: np.ndarray, pixel_range: tuple[float, float] = (0.0, 1.0)) -> None:
        self.images, self.pixel_range = images.astype(np.float32), pixel_range
        self.asked: list[int] = []

    def batches(self, image_ids: Any, batch_size: int) -> Iterator[Any]:
        self.asked += image_ids
        for start in range(0, len(image_ids), batch_size):
            ids = np.array(image_ids[start : start + batch_size], np.int64)
            yield ids, tf.constant(self.images[ids])


class Answers:
    """A predictor that answers by a rule of the test's own."""

    def __init__(self, is_positive: Any, images: Images) -> None:
        _, *size, channels = images.images.shape
        self.model = SimpleNamespace(name="own", input_size=tuple(size), channels=channels)
        self._is_positive = is_positive
        self.passes: list[int] = []

    def predict(self, pixels: np.ndarray) -> tuple[tf.Tensor, None]:
        self.passes.append(len(pixels))
        positive = np.array([self._is_positive(image) for image in pixels], np.float32)
        return tf.constant(np.stack([1 - positive, positive], axis=1)), None


def all_right(n: int, y_true: Any = 1) -> pd.DataFrame:
    return pd.DataFrame({"image_id": range(n), "y_true": y_true, "y_pred": y_true})


def probed(is_positive: Any, source: Images, y_true: Any = 1, **options: Any) -> pd.DataFrame:
    predictor: Any = Answers(is_positive, source)
    table = probe_model(predictor, source, RULE, all_right(len(source.images), y_true), **options)
    assert pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False).num_rows == len(table)
    return table.set_index(["transformation", "strength"])


def lit_from_the_left(n: int = 20, side: int = 16, channels: int = 3) -> Images:
    ramp = np.linspace(0.8, 0.2, side)[None, None, :, None]
    return Images(np.broadcast_to(ramp, (n, side, side, channels)))


def left_is_brighter(image: np.ndarray) -> bool:
    half = image.shape[1] // 2
    return bool(image[:, :half].mean() > image[:, half:].mean())


def test_a_model_that_minds_left_and_right_falls_to_a_flip_and_to_nothing_even():
    table = probed(left_is_brighter, lit_from_the_left())
    assert list(table.index) == [(name, s) for name in NAMES for s in (1, 2, 3)]
    assert (table["n_images"] == 16).all()
    assert table.loc["flip", "n_right"].tolist() == [0, 16, 0]  # upside down changes nothing
    assert table.loc["flip", "fall"].tolist() == [1, 0, 1]
    for name in ("brightness", "contrast", "blur", "JPEG", "grey", "colour cast", "zoom"):
        assert table.loc[name, "n_right"].tolist() == [16] * 3, name
    exact = binomtest(16, 16, 0.05, alternative="greater").pvalue
    assert table.loc["flip", "p_value"].tolist() == pytest.approx([exact, 1, exact])
    # Two of the 45 tests are that sure: the smallest q-value is p × 45 / 2.
    assert table.loc[("flip", 1), "q_value"] == pytest.approx(exact * 45 / 2)
    # Wilson for 16 of 16 and for none: z² / (n + z²) with z² = 3.8415.
    assert table.loc[("flip", 1), "fall_low"] == pytest.approx(16 / 19.8415, abs=1e-4)
    assert table.loc[("flip", 1), "fall_high"] == 1
    assert table.loc[("flip", 2), "fall_high"] == pytest.approx(3.8415 / 19.8415, abs=1e-4)


def test_a_model_that_minds_colour_falls_to_grey_alone_and_from_some_strength_on():
    red = np.broadcast_to([0.6, 0.2, 0.2], (20, 16, 16, 3))

    def is_red(image: np.ndarray) -> bool:
        red, green, _ = image.mean(axis=(0, 1))
        return bool(red - green > 0.2)

    table = probed(is_red, Images(red))
    # 0.4 × (1 - 0.35) = 0.26; 0.4 × (1 - 0.7) = 0.12; 0
    assert table.loc["grey", "fall"].tolist() == [0, 1, 1]
    assert table.loc["grey", "parameter"].tolist()[1] == "70 % of the colour taken away"
    for name in ("flip", "shift", "rotate", "zoom", "crop", "blur"):
        assert (table.loc[name, "fall"] == 0).all(), name


def test_what_the_strongest_does_not_turn_wrong_counts_as_right_and_is_not_asked_again():
    """A fall is the share that is wrong at a strength and at all stronger ones."""
    source = lit_from_the_left(channels=1)
    spread = float(source.images[0].std())
    by_contrast = next(t for t in TRANSFORMATIONS if t.name == "contrast")

    def answer(image: np.ndarray) -> bool:
        return not 0.4 < image.std() / spread < 0.5

    mild, strong = (by_contrast.apply(source.images[0], s, (0,)) for s in (2, 3))
    assert not answer(mild) and answer(strong)
    predictor: Any = Answers(answer, source)
    table = probe_model(predictor, source, RULE, all_right(20)).set_index("transformation")
    # Contrast lowered by 55 % is in the band, lowered by 80 % is not: wrong at strength 2 alone.
    assert table.loc["contrast", "n_right"].tolist() == [16] * 3
    kinds = len(NAMES) - 2  # no colour
    n_wrong = 16 * 3 * kinds - int(table["n_right"].sum())
    assert sum(predictor.passes) == 16 * (kinds + 2) + _asked_again(table)
    assert n_wrong < 16 * 3 * kinds


def _asked_again(table: pd.DataFrame) -> int:
    nested = table[(table.index != "flip") & (table["strength"] > 1)]
    return int((nested["n_images"] - nested["n_right"]).sum())


@pytest.mark.parametrize("reach", [(0.0, 255.0), (-1.0, 1.0), (-2.0, 3.0)])
def test_the_range_of_the_pixels_does_not_matter(reach: tuple[float, float]):
    rng = np.random.default_rng(0)
    unit = rng.uniform(0.2, 0.8, (20, 12, 12, 3)) * np.linspace(1, 0.6, 12)[:, None]
    low, high = reach
    expected = probed(left_is_brighter_in(0, 1), Images(unit))
    scaled = Images(unit * (high - low) + low, reach)
    table = probed(left_is_brighter_in(low, high), scaled)
    columns = ["n_right", "fall", "q_value", "parameter"]
    pd.testing.assert_frame_equal(table[columns], expected[columns])
    assert 0 < expected["fall"].mean() < 1


def left_is_brighter_in(low: float, high: float) -> Any:
    def answer(pixels: np.ndarray) -> bool:
        image = (pixels - low) / (high - low)
        difference = image[:, :6].mean() - image[:, 6:].mean() + image[:6].mean() - 0.5
        return bool(difference > -0.02)

    return answer


def test_a_model_of_grey_images_is_not_tried_with_colours():
    table = probed(left_is_brighter, lit_from_the_left(channels=1)).reset_index()
    assert [n for n in NAMES if n not in set(table["transformation"])] == ["grey", "colour cast"]
    assert len(table) == 39


def test_the_same_seed_gives_the_same_whatever_the_batch_size():
    rng = np.random.default_rng(3)
    source = Images(rng.uniform(0, 1, (40, 12, 12, 3)))
    y_true = [int(left_is_brighter(image)) for image in source.images]
    one = probed(left_is_brighter, source, y_true, seed=1)
    pd.testing.assert_frame_equal(one, probed(left_is_brighter, source, y_true, seed=1))
    pd.testing.assert_frame_equal(
        one, probed(left_is_brighter, source, y_true, seed=1, batch_size=5)
    )
    assert not one.equals(probed(left_is_brighter, source, y_true, seed=2))
    assert 0 < one["fall"].mean() < 1


def test_errors_are_not_probed_and_without_correct_images_there_is_nothing():
    source = lit_from_the_left()
    predictions = all_right(20)
    predictions.loc[4:, "y_pred"] = 0
    predictor: Any = Answers(left_is_brighter, source)
    table = probe_model(predictor, source, RULE, predictions)
    assert source.asked == [0, 1, 2, 3]
    assert (table["n_images"] == 4).all()
    predictions["y_pred"] = 0
    empty = probe_model(predictor, source, RULE, predictions)
    assert empty.columns.tolist() == SCHEMA.names
    assert len(empty) == 0


def test_the_sample_is_balanced_as_far_as_there_are_images():
    y_true = np.repeat([0, 1, 2], [1000, 30, 2])
    predictions = pd.DataFrame({"image_id": np.arange(1032) * 3, "y_true": y_true})
    predictions["y_pred"] = np.where(predictions["image_id"] % 2 == 0, y_true, 9)  # half are wrong
    chosen = sample_correct(predictions, 16, seed=0)
    assert (np.sort(chosen) == chosen).all() and len(set(chosen)) == 16
    rows = predictions.set_index("image_id").loc[chosen]
    assert (rows["y_true"] == rows["y_pred"]).all()
    assert sorted(np.bincount(rows["y_true"])) == [1, 7, 8]
    assert sample_correct(predictions, 16, seed=0).tolist() == chosen.tolist()
    assert sample_correct(predictions, 16, seed=1).tolist() != chosen.tolist()
    assert len(sample_correct(predictions, 10**6, seed=0)) == 516


def test_the_sample_grows_with_the_audit_and_probing_stays_a_small_part_of_it():
    assert [sample_size(n) for n in (1, 500, 2000, 10_000, 25_000, 10**6)] == [
        16,
        16,
        16,
        80,
        200,
        200,
    ]


def test_the_drawn_model_sees_colour_and_survives_what_keeps_it(drawn_data: Path):
    """The real chain: files, scaling, a Keras model. It weighs red against blue."""
    from audit.config import AuditConfig
    from audit.inputs import Inputs

    inputs = Inputs(drawn_set.corner_model(), drawn_data, AuditConfig())
    images, labels, _ = drawn_set.draw_set()
    scores = Predictor(wrap_model(drawn_set.corner_model()), "none").predict(
        tf.constant(images, tf.float32)
    )[0]
    predictions = pd.DataFrame(
        {"image_id": range(60), "y_true": labels, "y_pred": RULE.decide(scores.numpy())}
    )
    table = probe_model(inputs.predictor, inputs.source, inputs.rule, predictions, batch_size=7)
    falls = table.set_index(["transformation", "strength"])["fall"]
    assert (falls["flip"] == 0).all()
    assert (falls["shift"][:2] == 0).all()
    assert (table["n_images"] == 16).all()
    # Without colour all logits are 0 but for rounding: images of one class or the other turn wrong.
    assert 0.25 < falls["grey", 3] <= 0.75
    assert (falls["grey"][:2] == 0).all()
    grey = table[(table["transformation"] == "grey") & (table["strength"] == 3)].iloc[0]
    assert grey["q_value"] < 0.01
    assert grey["recipe"] == "keras.layers.RandomColorDegeneration(1, value_range=(0, 255))"


@pytest.mark.slow
def test_a_real_model_minds_blur_and_compression_and_not_grey(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
):
    from audit.config import AuditConfig
    from audit.inputs import Inputs

    folder = shared_data / "cats_dogs"
    model = folder / "models" / "article_style_mobilenetv2_035_n400.keras"
    inputs = Inputs(model, folder / "val", AuditConfig())
    images = inputs.listing.images
    sample = images.groupby("y_true").sample(40, random_state=0)
    right = []
    for ids, pixels in inputs.source.batches(sorted(sample["image_id"]), 32):
        y_pred = inputs.rule.decide(inputs.predictor.predict(pixels)[0].numpy())
        right += zip(ids.tolist(), y_pred.tolist(), strict=True)
    predictions = images.merge(pd.DataFrame(right, columns=["image_id", "y_pred"]), on="image_id")
    monkeypatch.setattr(probes, "FEWEST_IMAGES", 48)
    table = probe_model(inputs.predictor, inputs.source, inputs.rule, predictions)
    strongest = table[table["strength"] == 3].set_index("transformation")
    # On 193 correct images: blur 33 %, JPEG 35 %, bars 35 %, grey 2 %, rotation 8 %.
    assert (strongest.loc[["blur", "JPEG", "bars"], "q_value"] < 0.05).all()
    assert (strongest.loc[["grey", "rotate"], "q_value"] > 0.05).all()
