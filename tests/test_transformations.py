"""Transformations: each does what it says, more of it at a higher strength, and again the same."""

from typing import Any

import numpy as np
import pytest

from audit.diagnose.transformations import TRANSFORMATIONS, Transformation

BY_NAME = {t.name: t for t in TRANSFORMATIONS}
SEED = (7, 1)


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Smooth, coloured, nowhere black or white."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 5 + k) * np.cos(columns / 7 - k) for k in range(channels)]
    return (0.5 + 0.3 * np.stack(waves, axis=-1)).astype(np.float32)


def plain(value: float, shape: tuple[int, ...] = (20, 40, 3)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def changed(name: str, image: np.ndarray, strength: int, seed: tuple[int, ...] = SEED) -> Any:
    return BY_NAME[name].apply(image, strength, seed)


def at_seeds(name: str, image: np.ndarray, strength: int = 3) -> list[np.ndarray]:
    return [changed(name, image, strength, (seed,)) for seed in range(24)]


def test_there_are_fifteen_with_names_of_their_own():
    assert len(BY_NAME) == len(TRANSFORMATIONS) == 15


@pytest.mark.parametrize("shape", [(48, 64, 3), (33, 21, 1), (8, 8, 3), (8, 8, 1)])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS, ids=lambda t: t.name)
def test_the_result_has_the_form_of_the_image(transformation: Transformation, shape: Any):
    if shape[2] == 1 and transformation.needs_colour:
        return
    image = picture(*shape)
    before = image.copy()
    for strength in (1, 2, 3):
        result = transformation.apply(image, strength, SEED)
        again = transformation.apply(image, strength, SEED)
        assert result.shape == shape
        assert result.dtype == np.float32
        assert result.min() >= 0 and result.max() <= 1
        assert (result == again).all()
    assert (image == before).all()


@pytest.mark.parametrize(
    "transformation", [t for t in TRANSFORMATIONS if t.nested], ids=lambda t: t.name
)
def test_a_stronger_one_changes_more(transformation: Transformation):
    rows, columns = np.mgrid[-1:1:48j, -1:1:64j]  # Brighter or darker the further from the middle.
    image = np.stack([0.2 + 0.3 * (rows**2 + columns**2), picture()[..., 0], rows / 4 + 0.5], -1)
    image = image.astype(np.float32)
    for seed in range(6):
        distances = [
            np.abs(transformation.apply(image, strength, (seed,)) - image).mean()
            for strength in (1, 2, 3)
        ]
        assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", ["cut-out", "bars", "corner patch"])
def test_a_stronger_one_covers_all_that_a_milder_one_covers(name: str):
    for seed in range(12):
        covered = [
            (changed(name, picture(), strength, (seed,)) != picture()).any(axis=-1)
            for strength in (1, 2, 3)
        ]
        # Rounding may move an edge by one pixel; none of it does here.
        assert not (covered[0] & ~covered[1]).any()
        assert not (covered[1] & ~covered[2]).any()
        shares = BY_NAME[name].values
        assert [c.mean() for c in covered] == pytest.approx(shares, abs=0.06)


def test_brightness_adds_or_takes_away_a_share_of_the_range():
    results = {round(float(image.mean()), 5) for image in at_seeds("brightness", plain(0.5), 2)}
    assert results == {0.1, 0.9}
    assert (changed("brightness", plain(0.9), 3, (0,)) <= 1).all()


def test_contrast_draws_each_channel_towards_its_mean():
    image = plain(0.5)
    image[:10, :, 0], image[10:, :, 0] = 0.3, 0.7
    result = changed("contrast", image, 3)  # 80 % less: 0.5 ± 0.2 becomes 0.5 ± 0.04
    assert result[:10, :, 0] == pytest.approx(0.46)
    assert result[10:, :, 0] == pytest.approx(0.54)
    assert result[..., 1:] == pytest.approx(0.5)


def test_blur_keeps_the_mean_and_spreads_a_dot():
    dot = np.zeros((101, 101, 1), np.float32)
    dot[50, 50] = 1
    result = changed("blur", dot, 3)[..., 0]
    rows = np.arange(101) - 50
    assert result.sum() == pytest.approx(1, abs=1e-4)
    # σ is 2 % of the side: 2.02 pixels. OpenCV cuts the kernel off at 4 σ.
    assert np.sqrt((result.sum(axis=1) * rows**2).sum()) == pytest.approx(2.02, abs=0.02)


def test_noise_has_the_deviation_that_it_says():
    noise = changed("noise", plain(0.5, (100, 100, 3)), 1) - 0.5
    assert noise.std() == pytest.approx(0.04, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_an_even_colour_and_blocks_a_picture(channels: int):
    colour = np.array([0.8, 0.5, 0.2], np.float32)[:channels]
    even = plain(1, (16, 16, channels)) * colour
    assert changed("JPEG", even, 1) == pytest.approx(even, abs=0.03)
    assert (
        0.005
        < np.abs(changed("JPEG", picture(channels=channels), 3) - picture(channels=channels)).mean()
        < 0.2
    )


def test_rotation_turns_about_the_middle_to_either_side():
    image = plain(0, (41, 41, 1))
    image[20, 20:] = 1  # a ray from the middle to the right
    lengths = np.arange(16)
    angle = np.deg2rad(40)
    sides = set()
    for result in at_seeds("rotate", image):
        for side in (-1, 1):
            rows = np.rint(20 - side * lengths * np.sin(angle)).astype(int)
            columns = np.rint(20 + lengths * np.cos(angle)).astype(int)
            if result[rows, columns].mean() > 0.5:
                sides.add(side)
    assert sides == {-1, 1}


def test_shift_moves_a_dot_by_a_share_of_each_side():
    image = plain(0, (20, 40, 1))
    image[10, 20] = 1
    places = {
        tuple(np.unravel_index(result.argmax(), result.shape)[:2])
        for result in at_seeds("shift", image, 1)
    }
    assert places == {(8, 16), (8, 24), (12, 16), (12, 24)}


def test_zoom_shrinks_and_mirrors_and_crop_enlarges():
    image = plain(0, (64, 64, 1))
    image[16:48, 16:48] = 1
    shrunk = changed("zoom", image, 3)  # to a half: a square of 16 × 16 in the middle
    assert shrunk[25:39, 25:39].min() == 1
    # Half of it is the image, the rest its mirror images: as much white as before.
    assert shrunk.mean() == pytest.approx(image.mean(), abs=0.02)
    ramp = np.tile(np.linspace(0, 1, 100, dtype=np.float32)[None, :, None], (50, 1, 1))
    for result in at_seeds("crop", ramp):
        assert np.ptp(result) == pytest.approx(0.4, abs=0.02)
    assert np.ptp([result.min() for result in at_seeds("crop", ramp)]) > 0.3


def test_flips_turn_the_image_left_to_right_upside_down_and_both():
    image = picture()
    assert (changed("flip", image, 1) == image[:, ::-1]).all()
    assert (changed("flip", image, 2) == image[::-1]).all()
    assert (changed("flip", image, 3) == image[::-1, ::-1]).all()


def test_grey_takes_the_colour_away_and_keeps_the_brightness():
    image = plain(0)
    image[..., 0] = 1  # red
    assert changed("grey", image, 3) == pytest.approx(0.299, abs=1e-6)
    partly = changed("grey", image, 1)  # 35 % of the way
    assert partly[0, 0] == pytest.approx([1 - 0.35 * 0.701, 0.35 * 0.299, 0.35 * 0.299], abs=1e-6)


def test_a_cast_strengthens_one_colour_and_weakens_its_opposite():
    results = {
        tuple(np.round(r[0, 0].astype(float), 3).tolist())
        for r in at_seeds("colour cast", plain(0.5), 1)
    }
    warm, cold, green, magenta = (
        (0.6, 0.5, 0.4),
        (0.4, 0.5, 0.6),
        (0.4, 0.6, 0.4),
        (0.6, 0.4, 0.6),
    )
    assert results == {warm, cold, green, magenta}


def test_a_cut_out_is_filled_with_the_mean_colour_at_any_place():
    image = picture()
    mean = image.mean(axis=(0, 1))
    places = set()
    for result in at_seeds("cut-out", image):
        hole = (result != image).any(axis=-1)
        assert result[hole] == pytest.approx(np.tile(mean, (hole.sum(), 1)), abs=1e-5)
        places.add(tuple(np.argwhere(hole).min(axis=0)))
    assert len(places) > 10


def test_bars_are_upright_or_level_dark_or_light():
    kinds = set()
    for result in at_seeds("bars", plain(0.5)):
        covered = result[..., 0] != 0.5
        upright = bool((covered == covered[0]).all())
        assert upright or (covered == covered[:, :1]).all()
        line = covered[0] if upright else covered[:, 0]
        # Wherever the pattern begins, five bars, one of which may be cut by the edges.
        n_bars = int(line[0]) + int((np.diff(line.astype(int)) == 1).sum())
        assert n_bars in (5, 6)
        shades = np.unique(result[covered])
        assert len(shades) == 1
        kinds.add((upright, round(float(shades[0]), 1)))
    assert kinds == {(True, 0.1), (True, 0.9), (False, 0.1), (False, 0.9)}


def test_the_patch_sits_in_any_of_the_four_corners():
    corners = set()
    for result in at_seeds("corner patch", plain(0.5)):
        covered = (result != 0.5).any(axis=-1)
        held = [covered[0, 0], covered[0, -1], covered[-1, 0], covered[-1, -1]]
        assert sum(held) == 1
        assert len(np.unique(result[covered], axis=0)) == 1
        corners.add(held.index(True))
    assert corners == {0, 1, 2, 3}


def test_pixels_beyond_black_and_white_stay_as_they_are():
    """A dataset may be standardised, so that its range is only that of its first images."""
    image = plain(0.5)
    image[0, 0], image[-1, -1] = -0.4, 1.3
    assert changed("flip", image, 3)[-1, -1, 0] == np.float32(-0.4)
    assert changed("colour cast", image, 1).min() < -0.3


@pytest.mark.parametrize("reach", [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS, ids=lambda t: t.name)
def test_the_recipe_runs_and_changes_images(transformation: Transformation, reach: Any):
    import keras

    for value in transformation.values:
        lines = transformation.recipe(value, 224, reach).splitlines()
        if not lines:
            assert transformation.name in ("JPEG", "colour cast", "bars")  # Keras has none.
            continue
        keras.utils.set_random_seed(3)
        images = np.stack([picture(64, 64)] * 8) * (reach[1] - reach[0]) + reach[0]
        results = images
        for line in lines:
            layer = eval(line, {"keras": keras})
            results = np.asarray(layer(results, training=True))
        assert results.shape == images.shape
        assert np.isfinite(results).all()
        assert np.abs(results - images).max() > 0.01 * (reach[1] - reach[0])


def test_a_recipe_is_no_stronger_than_the_probe():
    assert BY_NAME["brightness"].recipe(0.4, 224, (0.0, 255.0)) == (
        "keras.layers.RandomBrightness(0.4, value_range=(0, 255))"
    )
    assert BY_NAME["noise"].recipe(0.08, 224, (0.0, 255.0)).splitlines() == [
        "keras.layers.Rescaling(1 / 255)",
        "keras.layers.GaussianNoise(0.08)",
        "keras.layers.Rescaling(255)",
    ]
    assert BY_NAME["blur"].recipe(0.01, 224, (0.0, 1.0)) == (
        "keras.layers.RandomGaussianBlur(kernel_size=15, sigma=(0.1, 2.24), value_range=(0, 1))"
    )
    assert BY_NAME["zoom"].recipe(2, 224, (0.0, 1.0)) == "keras.layers.RandomZoom((0, 1))"
    assert BY_NAME["crop"].recipe(0.6, 224, (0.0, 1.0)) == "keras.layers.RandomZoom((-0.4, 0))"


def test_every_strength_is_put_into_words():
    words = [t.words(value) for t in TRANSFORMATIONS for value in t.values]
    assert len(set(words)) == 45
    assert BY_NAME["blur"].words(0.005) == "Gaussian blur, σ 0.5 % of the side"
    assert BY_NAME["zoom"].words(1.5) == "shrunk to 67 %"
    assert BY_NAME["flip"].words(3) == "flipped both ways"
