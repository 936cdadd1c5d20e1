"""How much of each pixel that a model sees belongs to an object.

In: a mask or boxes of an image of any size. Out: exact shares of area, with the image cropped,
padded or stretched as Keras brings it to the model's size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class View:
    """What a model sees of images: (height, width) in pixels, and `--aspect`."""

    height: int
    width: int
    aspect: str = "stretch"


def view_of(made: Mapping[str, Any]) -> View:
    """Return what the model of a run saw, from the entry `input` of its manifest."""
    return View(int(made["height"]), int(made["width"]), str(made.get("aspect", "stretch")))


def cover_by_mask(mask: np.ndarray, size: tuple[int, int], view: View) -> np.ndarray:
    """Return how much of each pixel that the model sees a mask covers.

    Args:
        mask: bool of shape (h, w), of any size; it is stretched to the image's.
        size: width and height of the image.

    Returns:
        float32 of shape (view.height, view.width), 0 to 1, exact areas.
    """
    across, down = _windows(size, view)
    columns = _cell_shares(across, mask.shape[1])
    rows = _cell_shares(down, mask.shape[0])
    covered = np.zeros((view.height, view.width), np.float32)
    for start in range(0, len(mask), _ROWS_AT_ONCE):  # Bounds the memory of the floats.
        block = mask[start : start + _ROWS_AT_ONCE].astype(np.float32) @ columns.T
        covered += rows[:, start : start + _ROWS_AT_ONCE] @ block
    return np.clip(covered, 0, 1)


def cover_by_boxes(corners: np.ndarray, size: tuple[int, int], view: View) -> np.ndarray:
    """Return how much of each pixel that the model sees boxes cover.

    Args:
        corners: float64 of shape (n, 4): left, top, right, bottom as shares of the image's sides;
            what lies outside is cut off.
        size: width and height of the image.

    Returns:
        float32 of shape (view.height, view.width), 0 to 1; where several boxes cover parts of one
        pixel, the largest part.
    """
    across, down = _windows(size, view)
    covered = np.zeros((view.height, view.width), np.float32)
    for left, top, right, bottom in np.clip(corners, 0, 1):
        x, y = _overlap(across, left, right), _overlap(down, top, bottom)
        np.maximum(covered, np.outer(y, x).astype(np.float32), out=covered)
    return covered


def _windows(size: tuple[int, int], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return what pixels see of an image, as Keras brings it to the model's size.

    Returns:
        Across and down, float64 of shape (pixels, 2): beginning and end of what a column or a row
        of pixels sees, as shares of the image's side; the same where it sees nothing.

    Source: `keras.preprocessing.image.smart_resize`, `tf.image.resize_with_pad`.
    """
    width, height = size
    if view.aspect == "crop":
        crop_width = min(width, int(height * view.width / view.height))
        crop_height = min(height, int(width * view.height / view.width))
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
        return (
            _steps(left / width, (left + crop_width) / width, view.width),
            _steps(top / height, (top + crop_height) / height, view.height),
        )
    if view.aspect == "pad":
        ratio = max(width / view.width, height / view.height)
        return (
            _padded(int(width / ratio), int(max(0.0, view.width - width / ratio) / 2), view.width),
            _padded(
                int(height / ratio), int(max(0.0, view.height - height / ratio) / 2), view.height
            ),
        )
    return _steps(0, 1, view.width), _steps(0, 1, view.height)


def _steps(start: float, stop: float, n_pixels: int) -> np.ndarray:
    edges = start + (stop - start) * np.arange(n_pixels + 1) / n_pixels
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _padded(n_seen: int, before: int, n_pixels: int) -> np.ndarray:
    window = np.zeros((n_pixels, 2))
    window[before : before + n_seen] = _steps(0, 1, max(n_seen, 1))[:n_seen]
    return window


def _overlap(window: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Return the share of each pixel's view that lies between two places, of shape (pixels,)."""
    low, high = window.T
    inside = np.clip(np.minimum(high, stop) - np.maximum(low, start), 0, None)
    return np.asarray(inside / np.where(high > low, high - low, 1))


def _cell_shares(window: np.ndarray, n_cells: int) -> np.ndarray:
    """Return how much of each pixel's view each cell of a mask is, float32 (pixels, n_cells)."""
    low, high = window[:, :1] * n_cells, window[:, 1:] * n_cells
    cells = np.arange(n_cells)
    inside = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    return np.asarray(inside / np.where(high > low, high - low, 1), np.float32)
