"""Draw the article's pictures: a strip of layers, its frames as a GIF, a comparison of maps.

In: a picture, uint8 RGB, and heats, float32 in [0, 1], of the same height and width. Out: pictures,
uint8 RGB, on white, with the names written beneath. Colours are the article's: jet, half and half
over the picture, blue for the least and red for the largest value of each map.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from audit.report.formats import legible, shorten
from audit.report.images import colour_table

Panel = tuple[str, str, np.ndarray | None]
"""Two lines of text and a heat; `None` shows the picture alone."""

OPACITY = 0.5
IMPORTANT_FROM = 0.7
"""Of the peak: where the most important pixels begin, as in the report's viewer. In jet, red."""
GIF_SECONDS = 20
_CELL, _GAP, _TEXT = 152, 8, 40
_LARGE_CELL = 216
_FRAME_CELL = 256
_INK, _MUTED, _PAPER, _HIDDEN = (25, 25, 25), (105, 105, 105), 255, 236
_FONT_SIZE = 14
_CLOSEST_COLOURS = [
    *(cv2.IMWRITE_GIF_QUALITY, 8),
    *(cv2.IMWRITE_GIF_DITHER, 3),
    *(cv2.IMWRITE_GIF_COLORTABLE, 1),
]
"""Off by 1.6 of 255 on average, where OpenCV's defaults are off by 19."""
_BOLD = 600


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat over a picture in jet colours."""
    colours = colour_table("jet")[np.rint(heat * 255).astype(np.uint8)]
    return np.rint(OPACITY * colours + (1 - OPACITY) * picture).astype(np.uint8)


def most_important(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Keep the pixels from `IMPORTANT_FROM` of the peak on, and hide the others."""
    return np.where((heat >= IMPORTANT_FROM)[..., None], picture, np.uint8(_HIDDEN))


def percent(share: float) -> str:
    """Return a share of 1 as text, in whole per cent."""
    return f"{100 * share:.0f} %"


def draw_strip(picture: np.ndarray, panels: Sequence[Panel]) -> np.ndarray:
    """Draw panels in rows, each with its text beneath."""
    n_columns = len(panels) if len(panels) <= 7 else 8
    rows = [panels[i : i + n_columns] for i in range(0, len(panels), n_columns)]
    height = len(rows) * (_CELL + _TEXT + _GAP) + _GAP
    canvas = np.full((height, n_columns * (_CELL + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for number, row in enumerate(rows):
        top = _GAP + number * (_CELL + _TEXT + _GAP)
        for column, (first, second, heat) in enumerate(row):
            left = _GAP + column * (_CELL + _GAP)
            _place(canvas, _fit(picture, heat, _CELL, overlay), top, left, _CELL)
            _write(canvas, first, (left, top + _CELL + 16), _CELL, _BOLD)
            _write(canvas, second, (left, top + _CELL + 34), _CELL)
    return canvas


def draw_frames(picture: np.ndarray, panels: Sequence[Panel]) -> list[np.ndarray]:
    """Draw one frame for each panel."""
    frames = []
    for number, (first, second, heat) in enumerate(panels, start=1):
        side = _FRAME_CELL
        frame = np.full((side + _TEXT + 2 * _GAP, side + 2 * _GAP, 3), _PAPER, np.uint8)
        _place(frame, _fit(picture, heat, side, overlay), _GAP, _GAP, side)
        _write(frame, first, (_GAP, _GAP + side + 18), side, _BOLD)
        count = f"{second}, {number} of {len(panels)}"
        _write(frame, count, (_GAP, _GAP + side + 36), side)
        frames.append(frame)
    return frames


def draw_comparison(picture: np.ndarray, columns: Sequence[Panel]) -> np.ndarray:
    """Draw the picture, then for each column its map and the most important pixels below.

    Args:
        columns: two lines of title each, and a heat.
    """
    side, step = _LARGE_CELL, _LARGE_CELL + _GAP
    height = _TEXT + 2 * (side + _GAP) + _TEXT // 2 + _GAP
    canvas = np.full((height, (len(columns) + 1) * step + _GAP, 3), _PAPER, np.uint8)
    top, below = _TEXT + _GAP, _TEXT + _GAP + step
    _write(canvas, "image", (_GAP, _TEXT), side, _BOLD)
    _place(canvas, _fit(picture, None, side, overlay), top, _GAP, side)
    canvas[below + 8 : below + 20, _GAP : _GAP + side] = colour_table("jet")[
        np.linspace(0, 255, side).astype(int)
    ]
    _write(canvas, "each map: least to largest value", (_GAP, below + 38), side)
    for line, words in enumerate(("most important pixels:", "from 70 % of the peak on")):
        _write(canvas, words, (_GAP, below + 78 + 20 * line), side)
    for position, (first, second, heat) in enumerate(columns, start=1):
        left = _GAP + position * step
        _write(canvas, first, (left, 20), side)
        _write(canvas, second, (left, _TEXT), side, _BOLD)
        _place(canvas, _fit(picture, heat, side, overlay), top, left, side)
        _place(canvas, _fit(picture, heat, side, most_important), below, left, side)
        share = percent((heat >= IMPORTANT_FROM).mean())
        _write(canvas, f"{share} of the image", (left, below + side + 18), side)
    return canvas


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB as PNG."""
    smallest = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1], smallest)[1].tobytes())


def write_gif(path: Path, frames: Sequence[np.ndarray]) -> None:
    """Write uint8 RGB frames as an endless GIF; the last one stays three times as long."""
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    each = min(900, max(120, 1000 * GIF_SECONDS // len(frames)))
    animation.durations = np.array([each] * (len(frames) - 1) + [3 * each], np.int32)
    animation.loop_count = 0
    if not cv2.imwriteanimation(str(path), animation, _CLOSEST_COLOURS):
        raise OSError(f"OpenCV could not write `{path}`.")


def _fit(
    picture: np.ndarray,
    heat: np.ndarray | None,
    side: int,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Fit a picture into a square and join it with its heat; small pictures keep their pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    how = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    fitted = cv2.resize(picture, size, interpolation=how)
    if heat is None:
        return fitted
    return join(fitted, cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR))


def _place(canvas: np.ndarray, picture: np.ndarray, top: int, left: int, side: int) -> None:
    """Put a picture into the middle of a square, in place."""
    height, width = picture.shape[:2]
    top, left = top + (side - height) // 2, left + (side - width) // 2
    canvas[top : top + height, left : left + width] = picture


def _write(
    canvas: np.ndarray, words: str, origin: tuple[int, int], width: int, weight: int = 400
) -> None:
    """Write one line on a canvas, in place, without its middle if it is too long."""
    font, whole = cv2.FontFace("sans"), legible(words)
    shown = whole

    def extent() -> int:
        return cv2.getTextSize(canvas.shape[1::-1], shown, origin, font, _FONT_SIZE, weight)[2]

    while len(shown) > 3 and extent() > width:
        shown = shorten(whole, len(shown) - 1)
    colour = _INK if weight > 400 else _MUTED
    cv2.putText(canvas, shown, origin, colour, font, _FONT_SIZE, weight)
