"""What an image looks like in a few numbers, and a hash that near-duplicates share.

In: the pixels that the model saw, before scaling. Out: a row per image for `properties/`. A map
shows where a model looks; it cannot show that an image is blurred or dark. These numbers can.
"""

from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa

MEASURES = (
    "brightness",
    "contrast",
    "sharpness",
    "noise",
    "saturation",
    "red_green",
    "blue_yellow",
    "edge_density",
)
"""The columns measured on the pixels, in the order of `Measured.values`."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("file_size", pa.int64()),
        *[(name, pa.float32()) for name in MEASURES],
        ("hash", pa.uint64()),
    ]
)
"""Columns of `properties/`. Of an image that comes from no file, the first three are null."""

_STEEP = 128  # 16 grey levels from pixel to pixel, as Sobel's gain is 8.
_SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32)
_NOISE_GAIN = 6 * 0.31863936  # The filter's norm; the lower quartile of |x| if x is normal.
_HASH_SIDE = 32


class Measured(NamedTuple):
    """What was measured of a batch.

    Attributes:
        values: float32 of shape (n, len(MEASURES)).
        hashes: uint64 of shape (n,); see `perceptual_hash`.
    """

    values: np.ndarray
    hashes: np.ndarray


def measure_images(pixels: np.ndarray, pixel_range: tuple[float, float]) -> Measured:
    """Measure a batch of images as the model sees them.

    - `brightness`, `contrast`: mean and standard deviation of grey, in shares of white.
    - `sharpness`: the Laplacian's root mean square over that of Sobel's gradient, from 0: how
      abrupt the edges are, be they many or few. Blur lowers it, noise raises it.
    - `noise`: standard deviation in shares of white, of noise that is in every pixel; 0 if a
      quarter of the image is even.
    - `saturation`: mean of HSV's, 0 to 1.
    - `red_green`: mean of red − green; `blue_yellow`: mean of blue − (red + green) / 2; -1 to 1.
      They are 0 for an image whose colours balance, and all three for a grey one.
    - `edge_density`: share of pixels that differ from their neighbours by 16 grey levels or more.

    Args:
        pixels: floating, of shape (n, height, width, channels), not scaled for the model. Three or
            more channels begin with red, green and blue; of fewer, the first is grey.
        pixel_range: the values that stand for black and white.

    Source of `noise`: Immerkær 1996, doi:10.1006/cviu.1996.0060, with the lower quartile in place
    of the mean, so that texture counts less.
    """
    low, high = pixel_range
    if pixel_range != (0.0, 255.0):
        pixels = np.clip((pixels - low) * (255 / max(high - low, 1e-9)), 0, 255)
    values = np.empty((len(pixels), len(MEASURES)), np.float32)
    hashes = np.empty(len(pixels), np.uint64)
    for row, image in enumerate(pixels):
        has_colour = image.shape[-1] >= 3
        rounded = cv2.convertScaleAbs(image[..., :3] if has_colour else image[..., 0])
        grey = cv2.cvtColor(rounded, cv2.COLOR_RGB2GRAY) if has_colour else rounded
        colour = _measure_colour(rounded) if has_colour else (0.0, 0.0, 0.0)
        brightness, contrast, sharpness, noise, edge_density = _measure_grey(grey)
        values[row] = (brightness, contrast, sharpness, noise, *colour, edge_density)
        hashes[row] = perceptual_hash(grey)
    return Measured(values, hashes)


def perceptual_hash(grey: np.ndarray) -> np.uint64:
    """Return 64 bits of which near-duplicates share nearly all.

    A bit says whether one of the 63 lowest frequencies of the image, at 32 × 32 pixels, is above
    their median; the first bit stands for the mean and is 0. Coding it anew, or another size,
    changes 0 to 2 bits, a small crop or turn up to 8, another image about 31.

    Args:
        grey: uint8 of shape (height, width).

    Source: pHash, in Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
    Functions".
    """
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    return np.packbits(bits).view(">u8")[0]


def properties_table(image_ids: np.ndarray, sizes: np.ndarray, measured: Measured) -> pa.Table:
    """Return the rows of a properties shard.

    Args:
        image_ids: int64 of shape (n,).
        sizes: int64 of shape (n, 3): width and height in pixels and bytes of the files; -1 if
            unknown, which becomes null.
        measured: of the same images.
    """
    columns = [
        pa.array(image_ids),
        *[
            pa.array(size, SCHEMA.field(name).type, mask=size < 0)
            for name, size in zip(("width", "height", "file_size"), sizes.T, strict=True)
        ],
        *[pa.array(value) for value in np.ascontiguousarray(measured.values.T)],
        pa.array(measured.hashes),
    ]
    return pa.table(columns, schema=SCHEMA)


def _measure_grey(grey: np.ndarray) -> tuple[float, float, float, float, float]:
    """Return brightness, contrast, sharpness, noise and edge density."""
    mean, deviation = cv2.meanStdDev(grey)
    across, down = cv2.Sobel(grey, cv2.CV_16S, 1, 0), cv2.Sobel(grey, cv2.CV_16S, 0, 1)
    gradient = np.hypot(cv2.norm(across), cv2.norm(down))
    # One unit of Sobel is added to each pixel's gradient, so that an even image is not sharp.
    abruptness = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S)) / (gradient + np.sqrt(grey.size))
    steepness = cv2.add(cv2.convertScaleAbs(across), cv2.convertScaleAbs(down))
    return (
        mean[0, 0] / 255,
        deviation[0, 0] / 255,
        8 * abruptness,
        _measure_noise(grey) / 255,
        np.count_nonzero(steepness >= _STEEP) / grey.size,
    )


def _measure_noise(grey: np.ndarray) -> float:
    """Return the standard deviation, in grey levels, of noise that is in every pixel."""
    differences = cv2.sepFilter2D(grey, cv2.CV_16S, _SECOND_DIFFERENCE, _SECOND_DIFFERENCE)
    counts = cv2.calcHist([cv2.convertScaleAbs(differences)], [0], None, [256], [0, 256])
    share = np.cumsum(counts.ravel()) / grey.size
    if share[0] >= 0.25:
        return 0.0
    level = int(np.searchsorted(share, 0.25))
    within = (0.25 - share[level - 1]) / (share[level] - share[level - 1])
    return float(level - 0.5 + within) / _NOISE_GAIN


def _measure_colour(image: np.ndarray) -> tuple[float, float, float]:
    """Return saturation, red-green and blue-yellow, of every other pixel, which suffices."""
    image = np.ascontiguousarray(image[::2, ::2])
    red, green, blue, _ = cv2.mean(image)
    saturation = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))[1]
    return saturation / 255, (red - green) / 255, (blue - (red + green) / 2) / 255
