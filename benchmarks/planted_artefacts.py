"""What the planted settings draw into pictures, and what they do to whole pictures.

An artefact is a function that takes a picture (uint8 of shape (side, side, 3), RGB), a generator
and a strength, and returns a new picture. Those that lie somewhere are drawn more or less opaque;
those of the whole picture have no place that a heat-map could show.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from planted_sets import (
    Drawing,
    draw_background_texture,
    draw_border_frame,
    draw_corner_sticker,
    draw_small_object,
    draw_watermark,
)

Strength = Literal["strong", "weak"]

OPACITY: dict[Strength, float] = {"strong": 1.0, "weak": 0.5}
BLUR: dict[Strength, float] = {"strong": 0.018, "weak": 0.009}
"""Standard deviation ÷ side, or ÷ `SMALLEST_SIDE` of a smaller picture."""
SMALLEST_SIDE = 64
CAST: dict[Strength, tuple[float, float, float]] = {
    "strong": (1.25, 1.0, 0.6),
    "weak": (1.15, 1.0, 0.7),
}
"""Factors of red, green and blue."""


def draw_bars(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Draw three to five upright grey bars from top to bottom into the left or the right half."""
    side = len(picture)
    width = max(1, round(side * rng.uniform(0.025, 0.04)))
    pitch = max(width + 1, round(side * rng.uniform(0.08, 0.12)))
    start = int(rng.integers(0, pitch))
    mask = np.zeros((side, side), bool)
    for bar in range(int(rng.integers(3, 6))):
        mask[:, start + bar * pitch : min(start + bar * pitch + width, side // 2)] = True
    if rng.random() < 0.5:
        mask = mask[:, ::-1]
    grey = np.uint8(rng.integers(110, 190))
    return np.where(mask[..., None], grey, picture), mask


def draw_date_stamp(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Print a date in orange digits along the lower edge, as old cameras did."""
    side = len(picture)
    text = f"{rng.integers(1, 13)} {rng.integers(1, 29)} '{rng.integers(90, 100)}"
    scale, thickness = side / 224 * rng.uniform(0.75, 0.9), max(1, side // 90)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, thickness)
    letters = np.zeros((side, side), np.uint8)
    x = side - width - int(side * rng.uniform(0.03, 0.08))
    y = side - int(side * rng.uniform(0.05, 0.09))
    cv2.putText(letters, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, 255, thickness)
    mask = letters > 0
    return np.where(mask[..., None], np.uint8((255, 140, 30)), picture), mask


def _drawn(
    draw: Callable[[np.ndarray, np.random.Generator], Drawing],
) -> Callable[[np.ndarray, np.random.Generator, Strength], np.ndarray]:
    def plant(picture: np.ndarray, rng: np.random.Generator, strength: Strength) -> np.ndarray:
        drawn, _ = draw(picture, rng)
        share = OPACITY[strength]
        return (share * drawn + (1 - share) * picture).round().astype(np.uint8)

    return plant


def blur(picture: np.ndarray, rng: np.random.Generator, strength: Strength) -> np.ndarray:
    """Blur the whole picture with a Gaussian."""
    sigma = max(len(picture), SMALLEST_SIDE) * BLUR[strength] * rng.uniform(0.85, 1.15)
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def cast_colour(picture: np.ndarray, rng: np.random.Generator, strength: Strength) -> np.ndarray:
    """Turn the colours of the whole picture towards orange."""
    factors = np.array(CAST[strength]) ** rng.uniform(0.85, 1.15)
    return np.clip(picture * factors, 0, 255).round().astype(np.uint8)


VISIBLE = {
    "bars": _drawn(draw_bars),
    "sticker": _drawn(draw_corner_sticker),
    "frame": _drawn(draw_border_frame),
    "texture": _drawn(draw_background_texture),
    "object": _drawn(draw_small_object),
    "watermark": _drawn(draw_watermark),
    "date_stamp": _drawn(draw_date_stamp),
}
"""Artefacts with a place."""
WHOLE_IMAGE = {"blur": blur, "colour_cast": cast_colour}
"""Artefacts without."""
ARTEFACTS = VISIBLE | WHOLE_IMAGE
HELD_OUT = ("watermark", "date_stamp")
"""Kinds that no choice may be tuned on."""
