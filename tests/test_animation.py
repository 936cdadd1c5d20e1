"""The animation of an image over the runs, read back by another library."""

import io

import cv2
import numpy as np
import pytest
from compare_fixture import picture

from audit.report.comparison.animation import (
    BAR,
    DIMMED,
    MOVING,
    N_BETWEEN,
    SIDE,
    STILL,
    Frame,
    overlay_gif,
)
from audit.report.comparison.compared_pictures import StoredMap
from audit.report.images import OVERLAY_OPACITY, colour_table, decode_picture

PIL = pytest.importorskip("PIL.Image")


def frames(*columns: int) -> list[Frame]:
    """Return a frame for each column of a map of 4 × 4 that is hot there alone."""
    found = []
    for column in columns:
        cam = np.zeros((4, 4), np.uint8)
        cam[:, column] = 255
        grey = np.full((24, 24, 3), 100, np.uint8)
        found.append(Frame(grey, StoredMap(cam, 1.0), 1.0))
    return found


def read(content: bytes) -> list[tuple[np.ndarray, int]]:
    """Return the pictures as RGB and how long each stays."""
    image, found = PIL.open(io.BytesIO(content)), []
    for n in range(image.n_frames):
        image.seek(n)
        found.append((np.asarray(image.convert("RGB")).astype(int), image.info["duration"]))
    return found


def test_it_goes_from_run_to_run_without_an_end():
    content = overlay_gif(frames(0, 3, 1))
    shown = read(content)
    steps = [STILL, *[MOVING] * N_BETWEEN]
    assert [duration for _, duration in shown] == [*steps, *steps, STILL]
    assert all(pixels.shape == (SIDE + BAR, SIDE, 3) for pixels, _ in shown)
    assert PIL.open(io.BytesIO(content)).info["loop"] == 0


def test_colours_are_those_of_the_pages():
    first, last = (read(overlay_gif(frames(0, 3)))[n][0] for n in (0, -1))
    hot = colour_table("inferno")[255].astype(float) * OVERLAY_OPACITY
    hot += DIMMED * 100 * (1 - OVERLAY_OPACITY)
    for pixels, hot_at, cold_at in ((first, 10, -10), (last, -10, 10)):
        assert np.abs(pixels[100, hot_at] - hot).max() < 12  # 256 colours hold it about.
        assert np.abs(pixels[100, cold_at] - DIMMED * 100).max() < 12


def test_a_weaker_map_is_darker_and_a_wide_picture_keeps_its_shape():
    wide = np.full((12, 24, 3), 100, np.uint8)
    cam = np.full((4, 4), 255, np.uint8)
    strong, weak = Frame(wide, StoredMap(cam, 1.0), 1.0), Frame(wide, StoredMap(cam, 0.2), 0.2)
    shown = read(overlay_gif([strong, weak]))
    assert shown[0][0].shape == (SIDE // 2 + BAR, SIDE, 3)
    assert shown[0][0][50, 100, 0] > 200
    assert np.abs(shown[-1][0][50, 100] - DIMMED * 100).max() < 12  # Below what is coloured.


def test_the_bar_says_which_run_is_shown():
    shown = read(overlay_gif(frames(0, 3)))
    for pixels, left_is_bright in ((shown[0][0], True), (shown[-1][0], False)):
        left, right = pixels[-5, 40].sum(), pixels[-5, -40].sum()
        assert (left > right + 150) == left_is_bright


def test_the_same_gives_the_same_bytes():
    photo = decode_picture(picture(3))
    cam = cv2.resize(np.arange(16, dtype=np.uint8).reshape(4, 4) * 17, (8, 8))
    pair = [Frame(photo, StoredMap(cam, 0.5), 1.0), Frame(photo, StoredMap(cam.T, 0.5), 0.5)]
    assert overlay_gif(pair) == overlay_gif(pair)
