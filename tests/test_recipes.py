"""Recipes: offered only where the model is sensitive, and they run."""

import finding_tables
import numpy as np
import pandas as pd
import pytest

from audit.diagnose import recipes
from audit.diagnose.transformations import TRANSFORMATIONS

NAMES = [transformation.name for transformation in TRANSFORMATIONS]


def test_the_strongest_strength_that_leaves_half_right_is_trained_against():
    probes = finding_tables.probes(blur=90)  # 30, 60 and 90 of 100 turn wrong
    row = recipes.sensitive_to(probes, "blur")
    assert row is not None
    assert (row["strength"], row["fall"]) == (1, 0.3)
    probes = finding_tables.probes(blur=60)  # 20, 40, 60
    assert recipes.sensitive_to(probes, "blur")["strength"] == 2
    probes = finding_tables.probes(blur=45)
    assert recipes.sensitive_to(probes, "blur")["strength"] == 3


def test_if_every_strength_takes_more_than_half_it_is_the_mildest():
    probes = finding_tables.probes(blur=99)
    probes.loc[probes["transformation"] == "blur", "fall"] = [0.6, 0.8, 0.99]
    assert recipes.sensitive_to(probes, "blur")["strength"] == 1


def test_a_fall_that_is_not_significant_shows_no_sensitivity():
    probes = finding_tables.probes()
    assert all(recipes.sensitive_to(probes, name) is None for name in NAMES)
    assert recipes.sensitive_to(pd.DataFrame(), "blur") is None


@pytest.mark.parametrize(
    ("column", "low", "high", "transformation"),
    [
        ("sharpness", None, 12.0, "blur"),
        ("edge_density", None, 0.1, "blur"),
        ("brightness", None, 0.2, "brightness"),
        ("brightness", 0.8, None, "brightness"),
        ("contrast", None, 0.1, "contrast"),
        ("noise", 0.1, None, "noise"),
        ("saturation", None, 0.1, "grey"),
        ("saturation", 0.6, None, "colour cast"),
        ("red_green", 0.1, None, "colour cast"),
        ("blue_yellow", None, -0.1, "colour cast"),
        ("file_size", None, 9000, "JPEG"),
    ],
)
def test_a_slice_goes_with_the_probe_that_changes_its_property(
    column: str, low: float | None, high: float | None, transformation: str
):
    conditions = [{"column": column, "low": low, "high": high, "value": None}]
    row = finding_tables.slice_row(conditions=conditions)
    sensitive = finding_tables.probes(**{transformation.replace(" ", "_"): 60})
    (probe,) = recipes.probes_of_slice(sensitive, row)
    assert probe["transformation"] == transformation
    assert recipes.probes_of_slice(finding_tables.probes(rotate=60), row) == []
    assert recipes.probes_of_slice(pd.DataFrame(), row) == []


def test_the_other_side_of_a_property_goes_with_another_probe_or_none():
    blurred = finding_tables.probes(blur=60)
    sharp = [{"column": "sharpness", "low": 40.0, "high": None, "value": None}]
    assert recipes.probes_of_slice(blurred, finding_tables.slice_row(conditions=sharp)) == []
    between = [{"column": "sharpness", "low": 10.0, "high": 20.0, "value": None}]
    assert recipes.probes_of_slice(blurred, finding_tables.slice_row(conditions=between)) == []
    by_camera = [{"column": "camera", "low": None, "high": None, "value": "B"}]
    assert recipes.probes_of_slice(blurred, finding_tables.slice_row(conditions=by_camera)) == []


@pytest.mark.parametrize(
    ("name", "transformation"),
    [
        ("vertical stripes, either side", "bars"),
        ("left edge, upright", "bars"),
        ("lower right corner, round", "corner patch"),
        ("centre, wide", "cut-out"),
    ],
)
def test_a_pattern_goes_with_the_probe_that_draws_it(name: str, transformation: str):
    every = finding_tables.probes(bars=60, corner_patch=60, cut_out=60)
    (probe,) = recipes.probes_of_pattern(every, {"name": name})
    assert probe["transformation"] == transformation
    hidden = finding_tables.probes(cut_out=60)
    assert recipes.probes_of_pattern(hidden, {"name": name})[0]["transformation"] == "cut-out"
    assert recipes.probes_of_pattern(finding_tables.probes(blur=60), {"name": name}) == []


def run_recipe(text: str):
    """Run a recipe as a user would who pastes it into a file; return `augment`."""
    names: dict = {}
    exec(compile(text, "recipe.py", "exec"), names)
    return names["augment"]


@pytest.mark.parametrize("strength", [1, 2, 3])
@pytest.mark.parametrize("transformation", NAMES)
def test_every_recipe_runs_and_changes_images_only_in_training(transformation: str, strength: int):
    import keras

    probes = finding_tables.probes()
    row = probes[
        (probes["transformation"] == transformation) & (probes["strength"] == strength)
    ].to_dict("records")[0]
    text = recipes.write_recipe([row], probes, "Because.")
    assert row["parameter"] in text
    keras.utils.set_random_seed(5)
    augment = run_recipe(text)
    images = np.random.default_rng(0).uniform(20, 235, (8, 32, 32, 3)).astype(np.float32)
    changed = np.asarray(augment(images, training=True))
    assert changed.shape == images.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.abs(changed - images).max() > 1
    np.testing.assert_allclose(np.asarray(augment(images, training=False)), images, atol=1e-3)


@pytest.mark.parametrize("transformation", ["JPEG", "bars", "colour cast"])
def test_layers_that_keras_lacks_work_in_a_dataset_and_at_another_range(transformation: str):
    import keras
    import tensorflow as tf

    probes = finding_tables.probes()
    probes["recipe"] = probes["recipe"].str.replace("(0, 255)", "(-1, 1)")
    row = probes[probes["transformation"] == transformation].to_dict("records")[2]
    text = recipes.write_recipe([row], probes, "Because.")
    assert "value_range=(-1, 1)" in text
    assert "images of -1 to 1" in text
    keras.utils.set_random_seed(5)
    augment = run_recipe(text)
    images = np.random.default_rng(0).uniform(-0.8, 0.8, (12, 24, 32, 3)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((images, np.zeros(12))).batch(5)
    train = train.map(lambda images, labels: (augment(images, training=True), labels))
    changed = np.concatenate([batch.numpy() for batch, _ in train])
    assert changed.shape == images.shape
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert np.abs(changed - images).max() > 0.1


def test_bars_are_drawn_over_about_half_of_the_images():
    import keras

    probes = finding_tables.probes()
    row = probes[probes["transformation"] == "bars"].to_dict("records")[2]
    keras.utils.set_random_seed(1)
    augment = run_recipe(recipes.write_recipe([row], probes, "Because."))
    images = np.full((400, 40, 40, 3), 128, np.float32)
    changed = np.asarray(augment(images, training=True))[..., 0]
    covered = (changed != 128).mean(axis=(1, 2))
    assert 0.4 < (covered > 0).mean() < 0.55  # half, less bars thinner than a pixel
    assert covered.max() <= 0.35 + 0.1  # in whole pixels
    drawn = changed[covered > 0.1]
    upright = (drawn == drawn[:, :1]).all(axis=(1, 2))  # all rows alike
    flat = (drawn == drawn[:, :, :1]).all(axis=(1, 2))
    assert (upright ^ flat).all()
    assert upright.any()
    assert flat.any()
    np.testing.assert_allclose(np.unique(drawn), [25.5, 128, 229.5], rtol=1e-6)


def test_several_probes_make_one_pipeline():
    probes = finding_tables.probes()
    rows = [
        probes[probes["transformation"] == name].to_dict("records")[1] for name in ("JPEG", "blur")
    ]
    augment = run_recipe(recipes.write_recipe(rows, probes, "Because."))
    assert [type(layer).__name__ for layer in augment.layers] == [
        "RandomJPEG",
        "RandomGaussianBlur",
    ]


def test_hostile_reasons_stay_in_the_comment():
    probes = finding_tables.probes()
    row = probes[probes["transformation"] == "flip"].to_dict("records")[0]
    text = recipes.write_recipe([row], probes, "a\nraise SystemExit\r\u2028import os\x85x")
    assert text.splitlines()[0] == "# a raise SystemExit import os x"
    run_recipe(text)
