"""The pixels of the maps on an error's page, and what the Parquet files say they should be."""

import cv2
import numpy as np
from browser_tab import Tab

from audit.report import images
from audit.report.maps import STEPS, MapLayer, map_layers
from audit.report.run_data import read_run
from audit.run_folder import RunFolder

HALF_STEP = 255 / STEPS / 2
"""So many heats may a map that is rounded to steps lie beside the stored one."""


def canvas_pixels(opened: Tab, selector: str) -> np.ndarray:
    """Return what a canvas shows, uint8 of shape (height, width, 4), RGBA."""
    code = """(selector) => {
      const canvas = document.querySelector(selector);
      const copy = new OffscreenCanvas(canvas.width, canvas.height)
        .getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const image = copy.getImageData(0, 0, canvas.width, canvas.height);
      return [image.height, image.width, [...image.data]];
    }"""
    height, width, values = opened.js(code, selector)
    return np.array(values, np.uint8).reshape(height, width, 4)


def page_heat(
    folder: RunFolder, image_id: int, classes: list[int], layer: int
) -> tuple[list[np.ndarray], MapLayer]:
    """Return the heats of both classes at the size of a page's map, on one scale of 0..255.

    They are read from the Parquet files; maps of 28 pixels are averaged to 14, as pages do.
    """
    item = map_layers(read_run(folder).layers)[layer]
    heats = {}
    for shard in folder.iter_shards("explanations"):
        chosen = shard[(shard["image_id"] == image_id) & (shard["layer"] == item.name)]
        for row in chosen.itertuples():
            cam = np.frombuffer(row.cam, np.uint8).reshape(row.height, row.width)
            size = (item.width, item.height)
            small = cv2.resize(cam.astype(np.float64), size, interpolation=cv2.INTER_AREA)
            heats[row.explained_class] = small * row.peak
    largest = max(heat.max() for heat in heats.values())
    return [255 * heats[index] / largest for index in classes], item


def stray(item: MapLayer) -> float:
    """Return how many heats rounding to steps and to bytes may move a pixel."""
    return 1.5 if item.is_whole else HALF_STEP + 1.5


def is_close_in_colour(drawn: np.ndarray, heat: np.ndarray, tolerance: float) -> bool:
    """Whether each colour, RGB of shape (n, 3), is that of a heat within `tolerance` of `heat`."""
    table = images.colour_table("inferno").astype(int)
    distance = np.abs(drawn[:, None].astype(int) - table[None]).max(axis=2)
    near = np.abs(np.arange(256)[None] - heat[:, None]) <= tolerance
    return bool((np.where(near, distance, 999).min(axis=1) <= 6).all())


def is_laid_as_hot(drawn: np.ndarray, heat: np.ndarray, tolerance: float) -> bool:
    """Whether a canvas over the picture is as opaque, and as coloured, as a map is hot.

    Args:
        drawn: uint8 of shape (height, width, 4), what the canvas shows.
        heat: float of any smaller shape, 0..255; it is enlarged as the page does.
        tolerance: heats that a pixel may stray.
    """
    size = (drawn.shape[1], drawn.shape[0])
    expected = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)
    alpha = images.heat_alpha() * 255 * images.OVERLAY_OPACITY
    low = alpha[np.clip(np.floor(expected - tolerance), 0, 255).astype(int)]
    high = alpha[np.clip(np.ceil(expected + tolerance), 0, 255).astype(int)]
    hot = drawn[..., 3] > 200
    fits = (drawn[..., 3] >= low - 1).all() and (drawn[..., 3] <= high + 1).all()
    seen = hot.any() or expected.max() < 230
    return bool(fits and seen and is_close_in_colour(drawn[hot][:, :3], expected[hot], tolerance))
