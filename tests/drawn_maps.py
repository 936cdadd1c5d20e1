"""Drawn maps of known kinds, and the tables a run would have of them."""

import cv2
import numpy as np
import pandas as pd

from audit.diagnose.looks import MEASURES, Looks
from audit.explain.focus import focus_table

CLASS_NAMES = ["cats", "dogs"]
LEFT, CORNER, CENTRE, ANYWHERE, RIGHT = range(5)
SIDE = 56
Y, X = np.mgrid[:SIDE, :SIDE] / SIDE


def blob(x, y, width, height):
    return np.exp(-((X - x) ** 2) / (2 * width**2) - (Y - y) ** 2 / (2 * height**2))


def draw(kind, rng, noise):
    """Draw a map of a kind, shifted a little, on a floor of fine and coarse noise."""
    x, y = rng.normal(0, 0.03, 2)
    if kind == LEFT:
        cam = blob(0.1 + x, 0.5 + y, 0.05, 0.3)
    elif kind == RIGHT:
        cam = blob(0.9 + x, 0.5 + y, 0.05, 0.3)
    elif kind == CORNER:
        cam = blob(0.85 + x, 0.85 + y, 0.08, 0.08)
    elif kind == CENTRE:
        cam = blob(0.5 + x, 0.5 + y, 0.2, 0.15)
    else:
        cam = blob(*rng.random(2), *rng.uniform(0.05, 0.25, 2))
    coarse = cv2.resize(rng.random((7, 7)), (SIDE, SIDE))
    cam = cam + noise * (rng.random((SIDE, SIDE)) + coarse)
    return np.round(255 * cam / cam.max()).astype(np.uint8)


def draw_all(kinds, *, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return [draw(kind, rng, noise) for kind in kinds]


def planted(counts):
    return np.repeat([LEFT, CORNER, CENTRE, ANYWHERE], counts)


def make_run(errors, controls=(), rivals=(), *, y_true=None):
    """Make focus and fused tables.

    Args:
        errors: maps of cats called dogs, for dogs, or of the classes in `y_true`, called the other.
        controls: maps of right dogs, for dogs.
        rivals: maps of right cats, for dogs; for cats they have an empty one, which comes last.
    """
    n_errors, n_controls, n_rivals = len(errors), len(controls), len(rivals)
    labels = list(y_true) if y_true is not None else [0] * n_errors
    labels = np.array(labels + [1] * n_controls + [0] * n_rivals, np.int64)
    n = len(labels)
    is_error = np.arange(n) < n_errors
    explained = pd.DataFrame(
        {
            "image_id": np.arange(n) * 3 + 7,
            "role": np.where(is_error, "error", "control"),
            "y_true": labels,
            "y_pred": np.where(is_error, 1 - labels, labels),
        }
    )
    fused = explained[["image_id"]].assign(explained_class=explained["y_pred"], peak=1.0)
    fused.loc[n_errors + n_controls :, "explained_class"] = 1
    fused["cam"] = [*errors, *controls, *rivals]
    own = fused[n_errors + n_controls :].assign(explained_class=0, peak=0.0)
    own["cam"] = [np.zeros((SIDE, SIDE), np.uint8)] * n_rivals
    fused = pd.concat([fused, own], ignore_index=True)
    return focus_table(fused, explained), fused


def make_looks(fused, vectors, elsewhere=None, measures=None):
    """Return looks for the rows of a fused table, the rows of empty maps last and unknown."""
    n, width = len(fused), np.shape(vectors)[1]
    of_focus, of_rest = np.zeros((n, width), np.float32), np.zeros((n, width), np.float32)
    of_focus[: len(vectors)] = vectors
    of_rest[: len(vectors)] = 0 if elsewhere is None else elsewhere
    measured = np.full((n, len(MEASURES)), np.nan, np.float32)
    if measures is not None:
        measured[: len(measures)] = measures
    return Looks(
        fused["image_id"].to_numpy(np.int64),
        fused["explained_class"].to_numpy(np.int64),
        of_focus,
        of_rest,
        True,
        np.full(n, np.nan, np.float32),
        measured,
    )
