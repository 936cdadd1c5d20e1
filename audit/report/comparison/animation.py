"""The overlays of one image over a series of runs as a moving picture (GIF).

In: what the models saw and their maps. Out: the bytes of a file that any program shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from audit.report.comparison.compared_pictures import StoredMap
from audit.report.images import OVERLAY_OPACITY, Pixels, colour_table, heat_alpha

SIDE = 224
"""Pixels on the longer side."""
BAR = 10
"""Pixels of the bar below the picture, which has a part for each run."""
STILL, MOVING = 1200, 90
"""Milliseconds that a run stays, and that a picture between two runs does."""
N_BETWEEN = 4
"""Pictures between two runs."""
DIMMED = 0.8
"""How bright the grey picture under a map is, as in the pages' style sheet."""
GROUND, PART, CURRENT = (34, 29, 27), (96, 88, 84), (92, 187, 252)
"""Colours of the bar, in blue, green, red."""


@dataclass(frozen=True)
class Frame:
    """An image in one run. `share`: the map's peak by the largest one among the runs."""

    picture: Pixels
    found: StoredMap
    share: float


def overlay_gif(frames: Sequence[Frame]) -> bytes:
    """Return an animation that goes through the runs and begins again, without an end.

    Maps are enlarged bilinearly, coloured as on the pages, and blend from run to run; a bar below
    says which run is shown. The same arguments give the same bytes.

    Args:
        frames: one for each run with a map, at least two; pictures are uint8 BGR.
    """
    height, width = frames[0].picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photos = [_prepare(frame.picture, size) for frame in frames]
    heats = [
        cv2.resize(frame.found.cam.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        * np.float32(frame.share)
        for frame in frames
    ]
    shown, durations = [], []
    for n, (photo, heat) in enumerate(zip(photos, heats, strict=True)):
        shown.append(_picture(photo, heat, n, len(frames)))
        durations.append(STILL)
        if n + 1 < len(frames):
            for step in range(1, N_BETWEEN + 1):
                share = step / (N_BETWEEN + 1)
                between = heat * (1 - share) + heats[n + 1] * share
                ground = photo * (1 - share) + photos[n + 1] * share
                shown.append(_picture(ground, between, n if share < 0.5 else n + 1, len(frames)))
                durations.append(MOVING)
    animation = cv2.Animation()
    animation.frames = shown
    animation.durations = durations
    animation.loop_count = 0
    # A palette for each picture, with scattered errors: the defaults leave bands in grey.
    how = [cv2.IMWRITE_GIF_QUALITY, 8, cv2.IMWRITE_GIF_DITHER, 3]
    _, encoded = cv2.imencodeanimation(".gif", animation, how)
    return bytes(encoded)


def _prepare(picture: Pixels, size: tuple[int, int]) -> np.ndarray:
    """Return a picture in grey, dimmed, float32 of shape (height, width, 3)."""
    fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(fitted, cv2.COLOR_BGR2GRAY).astype(np.float32) * DIMMED
    return np.repeat(grey[..., None], 3, axis=2)


def _picture(photo: np.ndarray, heat: np.ndarray, current: int, n_runs: int) -> Pixels:
    """Lay a map over its picture, and put the bar below."""
    heats = np.rint(heat).astype(np.uint8)
    cover = heat_alpha()[heats][..., None] * OVERLAY_OPACITY
    colours = colour_table("inferno")[heats][..., ::-1]
    blended = np.rint(photo * (1 - cover) + colours * cover).astype(np.uint8)
    bar = np.full((BAR, blended.shape[1], 3), GROUND, np.uint8)
    edges = np.rint(np.linspace(0, blended.shape[1], n_runs + 1)).astype(int)
    for n, (left, right) in enumerate(pairwise(edges)):
        bar[3:-3, left + 2 : right - 2] = CURRENT if n == current else PART
    return np.concatenate([blended, bar])
