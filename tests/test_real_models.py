"""Models made by strangers give, on 2,000 photographs, exactly the figures that Keras gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audit.predict.dataset import FileSource
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.listing import Listing, list_images
from audit.predict.model import AuditedModel, load_model
from audit.predict.scaling_check import check_scaling
from audit.stages.prediction import SCALING_SAMPLE

RULE = DecisionRule(positive=1)
CHECKED_IMAGES = SCALING_SAMPLE
# Rows are true. ReshmaAyaan's accuracy is known to four digits, its confusion matrix is not.
FIGURES = {
    "JeanXL.h5": ("0-1", 0.9485, [[931, 69], [34, 966]]),
    "YusufDilekci.h5": ("0-1", 0.9255, [[911, 89], [60, 940]]),
    "ReshmaAyaan.h5": ("0-1", 0.7030, None),
    "tm_11Maximus11_converted.keras": ("-1-1", 0.9660, [[960, 40], [28, 972]]),
    # Written by earlier versions, refused by Keras 3 itself:
    "tm_11Maximus11.h5": ("-1-1", 0.9660, [[960, 40], [28, 972]]),
    "akhil-sharma.h5": ("0-1", 0.8540, [[834, 166], [126, 874]]),
    "FishMaarten.h5": ("0-1", 0.8150, [[743, 257], [113, 887]]),
}


@pytest.fixture(scope="module")
def listing(shared_data: Path) -> Listing:
    return list_images(shared_data / "cats_dogs" / "val")


@pytest.fixture(scope="module")
def open_model(
    shared_data: Path, listing: Listing
) -> Callable[[str], tuple[AuditedModel, FileSource]]:
    """Give a model and images as `load_img` reads them, which is how the figures were made."""

    def open_named(name: str) -> tuple[AuditedModel, FileSource]:
        model = load_model(shared_data / "legacy_models" / name)
        source = FileSource(listing, model.input_size, model.channels, interpolation="nearest")
        return model, source

    return open_named


def confusion(predictor: Predictor, source: FileSource) -> np.ndarray:
    y_true = source.listing.images["y_true"].to_numpy()
    counts = np.zeros((2, 2), int)
    for ids, pixels in source.batches(range(len(y_true)), 64):
        y_pred = RULE.decide(predictor.predict(pixels)[0].numpy())
        np.add.at(counts, (y_true[ids], y_pred), 1)
    return counts


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("tm_") else ())
        for name in FIGURES
    ],
)
def test_accuracy_and_confusion_are_those_of_keras(open_model, name):
    scaling, accuracy, expected = FIGURES[name]
    model, source = open_model(name)
    counts = confusion(Predictor(model, scaling), source)
    assert counts.sum(axis=1).tolist() == [1000, 1000]
    assert np.trace(counts) / 2000 == accuracy
    assert expected is None or counts.tolist() == expected


def test_without_its_scaling_one_model_hardly_changes(open_model):
    model, source = open_model("ReshmaAyaan.h5")
    assert np.trace(confusion(Predictor(model, "none"), source)) / 2000 == 0.7085


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("JeanXL.h5", ["0-1"]),
        ("YusufDilekci.h5", ["0-1"]),
        ("tm_11Maximus11_converted.keras", ["-1-1"]),
        ("akhil-sharma.h5", [None]),  # four points better: too little to warn of
        ("FishMaarten.h5", ["0-1"]),
        ("ReshmaAyaan.h5", [None]),
    ],
)
def test_the_wrong_scaling_is_noticed_where_it_matters(open_model, name, suggested):
    model, source = open_model(name)
    check = check_scaling(Predictor(model, "none"), source, RULE, n_images=CHECKED_IMAGES, seed=0)
    assert check.suggested in suggested


@pytest.mark.parametrize("name", FIGURES)
def test_the_right_scaling_is_left_alone(open_model, name):
    scaling, _, _ = FIGURES[name]
    model, source = open_model(name)
    check = check_scaling(Predictor(model, scaling), source, RULE, n_images=CHECKED_IMAGES, seed=0)
    assert check.suggested is None
