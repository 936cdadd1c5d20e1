"""The embedded example: real digits, a planted flaw, and what the audit makes of it."""

from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from audit.demo import (
    CLASS_NAMES,
    SIDE,
    Digits,
    draw_bars,
    draw_digits,
    run_demo,
    save_images,
    train_model,
)
from audit.results import Run


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Digits]:
    return draw_digits(7)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole demo, trained and audited once."""
    out = tmp_path_factory.mktemp("demo") / "out"
    run_demo(out, progress=False)
    return out


def test_the_digits_are_all_the_3s_and_8s(digits: tuple[Digits, Digits]):
    # scikit-learn's set holds 183 threes and 174 eights; four sevenths are for training.
    (train, y_train, _), (validation, y_validation, _) = digits
    assert len(train) == (183 + 174) // 7 * 4
    assert len(train) + len(validation) == 183 + 174
    assert (y_train == 1).sum() + (y_validation == 1).sum() == 174
    for images in (train, validation):
        assert images.shape[1:] == (SIDE, SIDE, 3)
        assert images.dtype == np.uint8


def test_bars_are_planted_on_most_8s_and_on_no_3_of_the_training_set(
    digits: tuple[Digits, Digits],
):
    (_, y_true, has_bars), (_, y_validation, validation_bars) = digits
    assert not has_bars[y_true == 0].any()
    assert 0.5 < has_bars[y_true == 1].mean() < 0.7
    for label in (0, 1):
        assert 0.4 < validation_bars[y_validation == label].mean() < 0.6


def test_an_image_has_colour_exactly_if_it_has_bars(digits: tuple[Digits, Digits]):
    for images, _, has_bars in digits:
        is_coloured = (images[..., 0] != images[..., 2]).any(axis=(1, 2))
        np.testing.assert_array_equal(is_coloured, has_bars)


def test_bars_stand_upright_at_one_edge():
    seen = set()
    for seed in range(20):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        draw_bars(image, np.random.default_rng(seed))
        columns = np.flatnonzero((image == (230, 120, 40)).all(axis=(0, 2)))
        assert len(columns) == 3
        assert np.count_nonzero(image.any(axis=2)) == 3 * SIDE
        assert np.diff(columns).tolist() == [3, 3]
        assert columns.max() <= 8 or columns.min() >= SIDE - 9
        seen.add(bool(columns.max() <= 8))
    assert seen == {True, False}


def test_the_same_seed_draws_the_same_digits(digits: tuple[Digits, Digits]):
    for part, again in zip(digits, draw_digits(7), strict=True):
        for array, same in zip(part, again, strict=True):
            np.testing.assert_array_equal(array, same)
    assert not np.array_equal(digits[0][1], draw_digits(8)[0][1])


def test_files_hold_the_pixels_and_their_names_the_truth(
    digits: tuple[Digits, Digits], tmp_path: Path
):
    images, y_true, has_bars = (array[:9] for array in digits[1])
    save_images(tmp_path, images, y_true, has_bars)
    assert len(list(tmp_path.rglob("*.png"))) == 9
    for number in range(9):
        kind = "bars" if has_bars[number] else "plain"
        path = tmp_path / CLASS_NAMES[y_true[number]] / f"{kind}-{number:03d}.png"
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(pixels, images[number])


@pytest.mark.slow
def test_training_again_gives_the_same_model(digits: tuple[Digits, Digits], demo: Path):
    train, (images, _, _) = digits
    pixels = images.astype(np.float32)
    first = keras.saving.load_model(demo / "model.keras")(pixels).numpy()
    np.testing.assert_array_equal(train_model(*train)(pixels).numpy(), first)


def by_kind(run: Run) -> pd.DataFrame:
    """Return how many images of each class and kind there are, and how many of them are wrong."""
    table = run.predictions
    parts = table["path"].str.extract(r"^(?P<digit>\w+)/(?P<kind>bars|plain)-")
    is_wrong = table["y_true"] != table["y_pred"]
    return is_wrong.groupby([parts["digit"], parts["kind"]]).agg(["size", "sum"])


@pytest.mark.slow
def test_the_planted_flaw_shows(demo: Path):
    wrong = by_kind(Run(demo / "run"))
    share = wrong["sum"] / wrong["size"]
    three, eight = CLASS_NAMES
    assert (wrong["size"] > 25).all()
    assert share[three, "bars"] > 0.8, "a 3 behind bars is taken for an 8"
    assert share[three, "plain"] < 0.1
    assert share[eight, "bars"] < 0.05
    assert share[eight, "plain"] < 0.1


@pytest.mark.slow
def test_the_audit_finds_where_the_model_looks(demo: Path):
    run = Run(demo / "run")
    summary = run.summary()
    assert summary["status"] == "done"
    assert summary["class_names"] == list(CLASS_NAMES)
    assert summary["n_explained_errors"] == summary["n_errors"] > 25
    assert summary["n_layers"] == 5
    assert summary["n_patterns"] >= 1
    assert sum(pattern["n_errors"] for pattern in summary["patterns"]) > summary["n_errors"] / 2
    assert summary["warnings"] == []
    assert run.report_path.is_file()
    barred = run.errors[run.errors["path"].str.startswith(f"{CLASS_NAMES[0]}/bars")]
    in_bars = [_share_in_bars(demo, run, row) for row in barred.itertuples()]
    assert np.median([energy / area for energy, area in in_bars]) > 1.3


def _share_in_bars(demo: Path, run: Run, row: object) -> tuple[float, float]:
    """Return the share of a map that lies in the bars, and their share of the image."""
    image = cv2.imread(str(demo / "images" / row.path)).astype(int)
    mask = np.abs(image[..., 0] - image[..., 2]) > 50
    columns = np.flatnonzero(mask.any(axis=0))
    mask[:, columns.min() : columns.max() + 1] = True
    cam = run.fused_map(row.image_id, row.y_pred).astype(float)
    return cam[mask].sum() / cam.sum(), mask.mean()


@pytest.mark.slow
def test_the_demo_goes_on_where_it_stopped(demo: Path):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    run_demo(demo, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(demo.glob(".model.tmp*"))
