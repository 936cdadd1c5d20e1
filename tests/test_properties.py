"""Properties of images worked out on paper, hashes that near-duplicates share."""

import cv2
import numpy as np
import pytest
from scipy.fft import dctn

from audit.predict.properties import (
    MEASURES,
    SCHEMA,
    Measured,
    measure_images,
    perceptual_hash,
    properties_table,
)

BYTES = (0.0, 255.0)


def measure(image: np.ndarray, pixel_range: tuple[float, float] = BYTES) -> dict[str, float]:
    values, _ = measure_images(np.asarray(image, np.float32)[None], pixel_range)
    assert values.dtype == np.float32
    return dict(zip(MEASURES, values[0].tolist(), strict=True))


def drawing(seed: int, size: int = 96) -> np.ndarray:
    """Draw random discs: float32 of shape (size, size, 3), whole numbers."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), rng.integers(40, 200, 3), np.uint8)
    for _ in range(12):
        centre, radius = rng.integers(0, size, 2).tolist(), int(rng.integers(4, size // 4))
        cv2.circle(image, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
    return image.astype(np.float32)


# On paper


def test_a_black_and_a_white_half():
    # 8 × 8, the right half white. Sobel is 4 · 255 = 1020 in the two columns at the border, that is
    # in 16 of 64 pixels, the Laplacian 255 in the same. So edges are 1/4 and sharpness is
    # 8 · (255 · 4) / (1020 · 4 + sqrt(64)).
    image = np.zeros((8, 8, 1))
    image[:, 4:] = 255
    got = measure(image)
    assert got["brightness"] == got["contrast"] == 0.5
    assert got["edge_density"] == 0.25
    assert got["sharpness"] == pytest.approx(8 * 1020 / 4088)
    assert [got[name] for name in ("noise", "saturation", "red_green", "blue_yellow")] == [0] * 4


def test_a_red_image():
    got = measure(np.broadcast_to([255.0, 0, 0], (6, 5, 3)))
    assert got["brightness"] == pytest.approx(76 / 255)  # 0.299 · 255, rounded
    assert (got["saturation"], got["red_green"], got["blue_yellow"]) == (1, 1, -0.5)
    assert [got[name] for name in ("contrast", "sharpness", "noise", "edge_density")] == [0] * 4


def test_a_blue_and_a_grey_image():
    blue = measure(np.broadcast_to([0, 0, 255.0], (4, 4, 3)))
    assert (blue["red_green"], blue["blue_yellow"]) == (0, 1)
    grey = measure(np.broadcast_to([130.0, 130, 130], (4, 4, 3)))
    assert (grey["saturation"], grey["red_green"], grey["blue_yellow"]) == (0, 0, 0)


@pytest.mark.parametrize("deviation", [2, 5, 12])
def test_noise_is_measured_in_shares_of_white(deviation):
    noise = np.random.default_rng(0).normal(0, deviation, (200, 200, 1))
    got = measure(128 + noise)["noise"] * 255
    assert got == pytest.approx(deviation, rel=0.05)


def test_noise_and_texture_are_told_apart_better_than_by_the_mean():
    image = drawing(0)
    noisy = image + np.random.default_rng(0).normal(0, 8, image.shape)
    assert measure(image)["noise"] == 0
    assert measure(np.clip(noisy, 0, 255))["noise"] * 255 == pytest.approx(8, rel=0.5)


# Agreement


@pytest.mark.parametrize("seed", range(5))
def test_the_more_blur_the_less_sharpness(seed):
    image = drawing(seed)
    sharpness = [
        measure(cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image)["sharpness"]
        for sigma in (0, 0.7, 1.5, 3)
    ]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 2 * sharpness[-1]


def test_contrast_does_not_change_sharpness():
    image = drawing(1)
    pale = 100 + image / 4
    assert measure(pale)["contrast"] == pytest.approx(measure(image)["contrast"] / 4, rel=0.05)
    assert measure(pale)["sharpness"] == pytest.approx(measure(image)["sharpness"], rel=0.05)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0), (-7.5, 3.0)])
def test_the_range_of_the_pixels_does_not_matter(pixel_range):
    low, high = pixel_range
    images = np.stack([drawing(seed) for seed in range(3)])
    want = measure_images(images, BYTES)
    got = measure_images(low + images / 255 * (high - low), pixel_range)
    np.testing.assert_array_equal(got.values, want.values)
    np.testing.assert_array_equal(got.hashes, want.hashes)


def test_pixels_out_of_range_are_cut_off():
    image = np.array([[-0.5, 0.0], [1.0, 1.5]])[..., None]
    assert measure(image, (0.0, 1.0)) == measure(np.clip(image, 0, 1), (0.0, 1.0))


def test_one_channel_is_measured_as_grey_and_a_fourth_is_passed_over():
    image = drawing(2)
    grey = np.broadcast_to(image[..., :1], image.shape)
    one, three = measure(image[..., :1]), measure(grey)
    assert one == three and one["saturation"] == 0
    assert measure(np.concatenate([image, image[..., :1]], axis=-1)) == measure(image)
    assert measure(image[..., :2]) == one


def test_each_image_of_a_batch_is_measured_by_itself():
    images = np.stack([drawing(seed) for seed in range(4)])
    together = measure_images(images, BYTES)
    for row, image in enumerate(images):
        alone = measure_images(image[None], BYTES)
        np.testing.assert_array_equal(alone.values[0], together.values[row])
        assert alone.hashes[0] == together.hashes[row]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 7, 3), (2, 2, 4), (8, 8, 1)])
def test_small_images_and_images_of_one_colour_are_measured(shape):
    for level in (0, 90, 255):
        got = measure(np.full(shape, level))
        assert got["brightness"] == pytest.approx(level / 255)
        assert got["sharpness"] == got["noise"] == got["edge_density"] == got["contrast"] == 0


def test_no_images_give_empty_arrays():
    values, hashes = measure_images(np.empty((0, 4, 4, 3), np.float32), BYTES)
    assert values.shape == (0, len(MEASURES)) and values.dtype == np.float32
    assert hashes.shape == (0,) and hashes.dtype == np.uint64


# Hashes


def grey_of(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGB2GRAY)


def test_the_hash_is_that_of_an_independent_transform():
    for seed in range(20):
        grey = grey_of(drawing(seed, 32))
        frequencies = dctn(grey.astype(np.float64), norm="ortho")[:8, :8].ravel()
        bits = frequencies > np.median(frequencies[1:])
        want = sum(1 << (63 - place) for place in range(1, 64) if bits[place])
        assert int(perceptual_hash(grey)) == want


def test_an_even_image_has_the_hash_zero():
    assert perceptual_hash(np.full((50, 40), 77, np.uint8)) == 0


def changed(image: np.ndarray) -> dict[str, np.ndarray]:
    coded = cv2.imencode(".jpg", image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return {
        "coded anew": cv2.imdecode(coded, cv2.IMREAD_COLOR),
        "half as large": cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "brighter": np.clip(image * 1.1 + 5, 0, 255),
        "cut": image[1:-1, 1:-1],
    }


@pytest.mark.parametrize("change", list(changed(drawing(0))))
def test_near_duplicates_have_near_hashes(change):
    bits = [
        int(perceptual_hash(grey_of(image)) ^ perceptual_hash(grey_of(changed(image)[change])))
        for image in map(drawing, range(20))
    ]
    assert max(value.bit_count() for value in bits) <= 10


def test_other_images_have_other_hashes():
    hashes = [int(perceptual_hash(grey_of(drawing(seed)))) for seed in range(30)]
    distances = [(a ^ b).bit_count() for a in hashes for b in hashes if a != b]
    assert len(set(hashes)) == 30 and min(distances) > 10
    assert np.mean(distances) == pytest.approx(32, abs=2)


def test_photographs_blurred_coded_anew_and_compared(shared_data):
    paths = sorted((shared_data / "cats_dogs" / "val").glob("*/*.jpg"))[::50]
    images = [
        cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), (224, 224))
        for path in paths
    ]
    pixels = np.stack(images).astype(np.float32)
    values, hashes = measure_images(pixels, BYTES)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in pixels])
    place = MEASURES.index("sharpness")
    before, after = values[:, place], measure_images(blurred, BYTES).values[:, place]
    assert (after < 0.8 * before).all()
    assert np.quantile(after, 0.95) < np.quantile(before, 0.05)  # told apart without the original
    again = np.stack([changed(image)["coded anew"] for image in images]).astype(np.float32)
    assert np.bitwise_count(measure_images(again, BYTES).hashes ^ hashes).max() <= 4
    distances = np.bitwise_count(hashes[:, None] ^ hashes)[~np.eye(len(hashes), dtype=bool)]
    assert distances.min() > 10


# The table


def test_the_table_by_hand():
    values = np.arange(16, dtype=np.float32).reshape(2, 8)
    measured = Measured(values, np.array([1 << 63, 5], np.uint64))
    sizes = np.array([[640, 480, 12345], [-1, -1, -1]])
    table = properties_table(np.array([7, 9]), sizes, measured)
    assert table.schema == SCHEMA
    assert table.to_pylist() == [
        {
            "image_id": 7,
            "width": 640,
            "height": 480,
            "file_size": 12345,
            **{name: float(number) for number, name in enumerate(MEASURES)},
            "hash": 1 << 63,
        },
        {
            "image_id": 9,
            "width": None,
            "height": None,
            "file_size": None,
            **{name: float(number) for number, name in enumerate(MEASURES, start=8)},
            "hash": 5,
        },
    ]


def test_an_empty_table_has_its_columns():
    measured = measure_images(np.empty((0, 4, 4, 3), np.float32), BYTES)
    empty = properties_table(np.empty(0, np.int64), np.empty((0, 3), np.int64), measured)
    assert empty.num_rows == 0 and empty.schema == SCHEMA
