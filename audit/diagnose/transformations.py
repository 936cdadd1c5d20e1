"""What may happen to a picture on its way to a model: fifteen transformations at three strengths.

In: pixels of one image between 0 (black) and 1 (white). Out: the same image, changed. Each comes
with the Keras layers that train a model against it. Needs no TensorFlow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

Image = np.ndarray
"""float32 of shape (height, width, 1 or 3), RGB, 0 to 1 but for the odd value beyond."""

Range = tuple[float, float]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""How much red, green and blue count in grey (ITU-R BT.601), as in `tf.image.rgb_to_grayscale`."""

_CASTS = np.array([[1, 0, -1], [-1, 0, 1], [-1, 1, -1], [1, -1, 1]], np.float32)
"""Warm, cold, green and magenta light: which channels gain and which lose."""

_N_BARS = 5


@dataclass(frozen=True)
class Transformation:
    """One way to change a picture.

    Attributes:
        name: one word or two.
        values: how strong it is at strengths 1, 2 and 3.
        words: what it does at such a value, as a text with a place for it.
        change: changes an image by a value, with random draws that do not depend on the value.
        recipe: from a value, the side in pixels and the pixel range: the Keras layers that do so at
            random up to that value, as Python, one a line; "" if Keras has none.
        needs_colour: whether it means nothing to a model of grey images.
        nested: whether a stronger one does all that a milder one does, and more of it.
    """

    name: str
    values: tuple[float, float, float]
    words: Callable[[float], str]
    change: Callable[[Image, float, np.random.Generator], Image]
    recipe: Callable[[float, int, Range], str] = lambda value, side, reach: ""
    needs_colour: bool = False
    nested: bool = True

    def apply(self, image: Image, strength: int, seed: tuple[int, ...]) -> Image:
        """Return an image as it is at a strength of 1, 2 or 3; places and signs follow a seed."""
        changed = self.change(image, self.values[strength - 1], np.random.default_rng(seed))
        low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
        return np.clip(changed, low, high).reshape(image.shape)


def _brightness(image: Image, value: float, rng: np.random.Generator) -> Image:
    return image + np.float32(value * _sign(rng))


def _contrast(image: Image, value: float, rng: np.random.Generator) -> Image:
    mean = _mean(image)
    return mean + (image - mean) * np.float32(1 - value)


def _blur(image: Image, value: float, rng: np.random.Generator) -> Image:
    sigma = value * min(image.shape[:2])
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _noise(image: Image, value: float, rng: np.random.Generator) -> Image:
    return image + rng.standard_normal(image.shape, np.float32) * np.float32(value)


def _jpeg(image: Image, value: float, rng: np.random.Generator) -> Image:
    coded = np.clip(image * 255, 0, 255).round().astype(np.uint8)[..., ::-1]
    _, content = cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, int(value)])
    flag = cv2.IMREAD_GRAYSCALE if image.shape[2] == 1 else cv2.IMREAD_COLOR
    decoded = np.asarray(cv2.imdecode(content, flag)).reshape(image.shape)
    return decoded[..., ::-1] * np.float32(1 / 255)


def _rotate(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    centre = (width - 1) / 2, (height - 1) / 2
    return _warp(image, cv2.getRotationMatrix2D(centre, value * _sign(rng), 1))


def _shift(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    right, down = _sign(rng) * value * width, _sign(rng) * value * height
    return _warp(image, np.array([[1, 0, right], [0, 1, down]]))


def _zoom(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    return _warp(image, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, 1 / value))


def _crop(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    across, down = rng.random(2)
    kept_height, kept_width = max(1, round(value * height)), max(1, round(value * width))
    top, left = round(down * (height - kept_height)), round(across * (width - kept_width))
    kept = image[top : top + kept_height, left : left + kept_width]
    return cv2.resize(kept, (width, height), interpolation=cv2.INTER_LINEAR)


def _flip(image: Image, value: float, rng: np.random.Generator) -> Image:
    across, down = _FLIPS[value]
    return image[:: -1 if down else 1, :: -1 if across else 1]


def _grey(image: Image, value: float, rng: np.random.Generator) -> Image:
    grey = (image @ _GREY)[..., None]
    return image + (grey - image) * np.float32(value)


def _cast(image: Image, value: float, rng: np.random.Generator) -> Image:
    return image * (1 + np.float32(value) * _CASTS[rng.integers(len(_CASTS))])


def _cut_out(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    down, across = rng.random(2)
    side = math.sqrt(value)
    rows = _span(down, side, height)
    columns = _span(across, side, width)
    changed = image.copy()
    changed[rows, columns] = _mean(image)
    return changed


def _bars(image: Image, value: float, rng: np.random.Generator) -> Image:
    upright, shade, offset = rng.random() < 0.5, _shade(rng), rng.random()
    length = image.shape[1 if upright else 0]
    step = length / _N_BARS
    place = (np.arange(length) + 0.5 + offset * step) % step
    covered = np.abs(place - step / 2) < value * step / 2
    changed = image.copy()
    changed[(slice(None), covered) if upright else (covered, slice(None))] = shade
    return changed


def _patch(image: Image, value: float, rng: np.random.Generator) -> Image:
    height, width, channels = image.shape
    down, across = rng.integers(0, 2, 2)
    side = math.sqrt(value)
    rows, columns = _span(float(down), side, height), _span(float(across), side, width)
    colour = rng.permutation([0.1, 0.9, rng.choice([0.1, 0.9])])[:channels]
    changed = image.copy()
    changed[rows, columns] = colour
    return changed


def _warp(image: Image, matrix: np.ndarray) -> Image:
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _span(position: float, share: float, length: int) -> slice:
    """Return a stretch of a share of the length, around or inside a position of 0 to 1."""
    extent = max(1, round(share * length))
    start = round(position * (length - extent))
    return slice(start, start + extent)


def _mean(image: Image) -> np.ndarray:
    """Return the mean of each channel, float32 of shape (channels,)."""
    return np.array(cv2.mean(image)[: image.shape[2]], np.float32)


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _shade(rng: np.random.Generator) -> float:
    return float(rng.choice([0.1, 0.9]))


_FLIPS = {1.0: (True, False), 2.0: (False, True), 3.0: (True, True)}
_FLIP_WORDS = {1.0: "left to right", 2.0: "upside down", 3.0: "both ways"}
_FLIP_MODES = {1.0: "horizontal", 2.0: "vertical", 3.0: "horizontal_and_vertical"}


def _percent(text: str, value: float) -> str:
    return text.format(f"{value * 100:.3g} %")


def _layer(arguments: str, value: float, side: int, reach: Range) -> str:
    """Return one layer; its arguments may name `value` and `reach`."""
    return "keras.layers." + arguments.format(value=value, reach=_reach(reach))


def _blur_recipe(value: float, side: int, reach: Range) -> str:
    sigma = max(0.2, round(value * side, 2))
    kernel = 2 * math.ceil(3 * sigma) + 1
    arguments = f"kernel_size={kernel}, sigma=(0.1, {sigma:g}), {_reach(reach)}"
    return f"keras.layers.RandomGaussianBlur({arguments})"


def _noise_recipe(value: float, side: int, reach: Range) -> str:
    """Keras allows a deviation of 1 at most, so the range is made to be 1 around it."""
    span = reach[1] - reach[0]
    noise = f"keras.layers.GaussianNoise({value:g})"
    if span == 1:
        return noise
    return f"keras.layers.Rescaling(1 / {span:g})\n{noise}\nkeras.layers.Rescaling({span:g})"


def _reach(reach: Range) -> str:
    return f"value_range=({reach[0]:g}, {reach[1]:g})"


TRANSFORMATIONS = (
    Transformation(
        "brightness",
        (0.2, 0.4, 0.6),
        partial(_percent, "lighter or darker by {} of the range"),
        _brightness,
        partial(_layer, "RandomBrightness({value:g}, {reach})"),
    ),
    Transformation(
        "contrast",
        (0.3, 0.55, 0.8),
        partial(_percent, "contrast lowered by {}"),
        _contrast,
        partial(_layer, "RandomContrast({value:g}, {reach})"),
    ),
    Transformation(
        "blur",
        (0.005, 0.01, 0.02),
        partial(_percent, "Gaussian blur, σ {} of the side"),
        _blur,
        _blur_recipe,
    ),
    Transformation(
        "noise",
        (0.04, 0.08, 0.16),
        partial(_percent, "Gaussian noise, σ {} of the range"),
        _noise,
        _noise_recipe,
    ),
    Transformation("JPEG", (40, 20, 8), "JPEG of quality {:.0f}".format, _jpeg),
    Transformation(
        "rotate",
        (10, 20, 40),
        "turned by {:.0f}° to either side".format,
        _rotate,
        lambda value, side, reach: f"keras.layers.RandomRotation({value:g} / 360)",
    ),
    Transformation(
        "shift",
        (0.1, 0.2, 0.3),
        partial(_percent, "shifted by {} of the side both ways"),
        _shift,
        partial(_layer, "RandomTranslation({value:g}, {value:g})"),
    ),
    Transformation(
        "zoom",
        (1.25, 1.5, 2),
        lambda value: f"shrunk to {100 / value:.0f} %",
        _zoom,
        lambda value, side, reach: f"keras.layers.RandomZoom((0, {value - 1:g}))",
    ),
    Transformation(
        "crop",
        (0.8, 0.6, 0.4),
        partial(_percent, "cropped to {} of the side"),
        _crop,
        lambda value, side, reach: f"keras.layers.RandomZoom(({value - 1:g}, 0))",
    ),
    Transformation(
        "flip",
        (1, 2, 3),
        lambda value: f"flipped {_FLIP_WORDS[value]}",
        _flip,
        lambda value, side, reach: f'keras.layers.RandomFlip("{_FLIP_MODES[value]}")',
        nested=False,
    ),
    Transformation(
        "grey",
        (0.35, 0.7, 1),
        partial(_percent, "{} of the colour taken away"),
        _grey,
        partial(_layer, "RandomColorDegeneration({value:g}, {reach})"),
        needs_colour=True,
    ),
    Transformation(
        "colour cast",
        (0.2, 0.4, 0.6),
        partial(_percent, "one colour stronger by {}, its opposite weaker"),
        _cast,
        needs_colour=True,
    ),
    Transformation(
        "cut-out",
        (0.06, 0.15, 0.3),
        partial(_percent, "a square of {} of the area wiped out"),
        _cut_out,
        partial(_layer, "RandomErasing(scale=(0.02, {value:g}), {reach})"),
    ),
    Transformation(
        "bars",
        (0.1, 0.2, 0.35),
        partial(_percent, "five bars over {} of the area"),
        _bars,
    ),
    Transformation(
        "corner patch",
        (0.03, 0.07, 0.15),
        partial(_percent, "a coloured patch of {} of the area in a corner"),
        _patch,
        partial(_layer, "RandomErasing(scale=(0.02, {value:g}), {reach})"),
    ),
)
"""All that a model is tried with, in the order of the tables."""
