"""How much of a heat-map lies inside the object, and whether its hottest pixel does.

In: fused maps, and where the objects are. Out: for each image what is known of its object, and for
each map two numbers.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from audit.explain.object_view import View
from audit.explain.objects import Objects, Placed
from audit.schemas import INSIDE, SCHEMAS

_INSIDE_FROM = 0.5
"""A pixel of which so much belongs to the object is inside."""


def energy_inside(cam: np.ndarray, coverage: np.ndarray) -> float:
    """Return the share of a map's sum that lies inside the object.

    The map is enlarged bilinearly to what the model saw, as it is drawn.

    Args:
        cam: of shape (h, w), >= 0, not all 0.
        coverage: float32 of shape (height, width), 0 to 1; see `Placed`.

    Returns:
        0 to 1; the mean of `coverage` for an even map.

    Source: Wang et al. 2020, "Score-CAM", the "energy-based pointing game".
    https://arxiv.org/abs/1910.01279
    """
    heat = _enlarge(cam, coverage)
    return float((heat * coverage).sum() / heat.sum())


def pointing(cam: np.ndarray, coverage: np.ndarray) -> float:
    """Return 1 where the hottest pixel of a map is inside the object, else 0.

    Where several are as hot it is the share of them that is inside. A pixel is inside if half of
    it is. Unlike the source, which forgives 15 pixels, nothing beside the object counts.

    Args:
        cam, coverage: as in `energy_inside`.

    Source: Zhang et al. 2018, "Top-down neural attention by excitation backprop" (pointing game).
    https://arxiv.org/abs/1608.00507
    """
    heat = _enlarge(cam, coverage)
    return float((coverage[heat == heat.max()] >= _INSIDE_FROM).mean())


def measure_inside(
    focus: pd.DataFrame,
    fused: pd.DataFrame,
    objects: Objects,
    sizes: pd.DataFrame,
    view: View,
    on_image: Callable[[int], object] = lambda n: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look up the object of every image, one at a time, and measure the maps of those explained.

    Args:
        focus: the focus table.
        fused: `image_id`, `explained_class` and `cam` for each of its rows.
        objects: by image_id.
        sizes: a row for each predicted image: image_id, width and height as decoded, missing
            where it came from no file.
        view: what the model sees.
        on_image: called with 1 for each image.

    Returns:
        `focus` with `object_share`, `energy_inside` and `pointing`, float32: the object's share of
        the pixels, which is the energy that an even map would have inside; see the functions of
        these names. All NaN where the object is not known, the last two where the map is empty.
        And a row for each of `sizes`, in order of image_id: `kind` and `reason` of `Placed`, and
        `object_share`, float64.
    """
    rows_of = focus.groupby("image_id").indices
    key = ["image_id", "explained_class"]
    cams = fused.set_index(key)["cam"].reindex(pd.MultiIndex.from_frame(focus[key])).to_list()
    is_empty = focus["is_empty"].to_numpy(bool)
    measured = np.full((len(focus), len(INSIDE)), np.nan, np.float32)
    found = []
    ordered = sizes.sort_values("image_id")
    for image_id, width, height in ordered[["image_id", "width", "height"]].itertuples(index=False):
        placed = objects.place(int(image_id), _size(width, height), view)
        share = np.nan if placed.coverage is None else float(placed.coverage.mean())
        found.append((int(image_id), placed.kind, placed.reason, share))
        for row in rows_of.get(image_id, ()):
            measured[row] = _measure(None if is_empty[row] else cams[row], placed, share)
        on_image(1)
    table = pd.DataFrame(found, columns=SCHEMAS["objects"].names)
    columns = dict(zip(INSIDE, measured.T, strict=True))
    return focus.assign(**columns), table.astype({"image_id": np.int64, "object_share": np.float64})


def _measure(cam: np.ndarray | None, placed: Placed, share: float) -> tuple[float, float, float]:
    if cam is None or placed.coverage is None:
        return share, np.nan, np.nan
    return share, energy_inside(cam, placed.coverage), pointing(cam, placed.coverage)


def _size(width: float, height: float) -> tuple[int, int] | None:
    is_known = np.isfinite(width) and np.isfinite(height) and width > 0 and height > 0
    return (int(width), int(height)) if is_known else None


def _enlarge(cam: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    height, width = coverage.shape
    large = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float64)
