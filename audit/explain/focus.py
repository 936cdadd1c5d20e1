"""Numbers that describe a heat-map: where it looks, how widely, in which shape.

In: maps of shape (height, width), on any scale. Out: a frame, a row per explained image and class.
A pixel counts as a square of even mass, so that the numbers mean the same at every map size. Shares
of a side run from 0 at the left or top edge to 1 at the right or bottom edge.
"""

import cv2
import numpy as np
import pandas as pd

FEATURES = (
    "centre_x",
    "centre_y",
    "spread_x",
    "spread_y",
    "area",
    "border_share",
    "border_lift",
    "entropy",
    "concentration",
    "elongation",
    "orientation",
    "n_blobs",
)
"""The columns that `describe_focus` fills, in order. It says what each of them means."""

EMPTY_BECAUSE = ("not finite", "nothing speaks for the class", "the same everywhere")
"""Why a map shows no place: its stored peak is NaN, 0 or, where it is flat, below 0."""

BORDER = 0.125
"""The frame that `border_share` looks at, as a share of each side."""

HOTTEST = 0.1
"""The share of the pixels that `concentration` looks at."""

_UNIFORM_BORDER_SHARE = 1 - (1 - 2 * BORDER) ** 2
_TINY_BLOB = 0.1
_ROUND = 1.01
_CHUNK = 256


def describe_focus(cam: np.ndarray) -> dict[str, float]:
    """Describe one map by twelve numbers.

    Args:
        cam: of shape (height, width), uint8 or floating, >= 0, on any scale.

    Returns:
        NaN for every name if the map is all zero or not finite, else:

        - `centre_x`, `centre_y`: centre of mass, 0 to 1 from the left and from the top.
        - `spread_x`, `spread_y`: standard deviation of the mass, as a share of the side; 0.289 (one
          over the root of 12) for an even map, 0.5 at most.
        - `area`: share of the pixels at or above half the peak, above 0 to 1.
        - `border_share`: share of the mass in the outer 12.5 % of each side, 0 to 1.
        - `border_lift`: `border_share` over that of an even map (0.4375), 0 to 2.29; 1 is no
          preference.
        - `entropy`: of the mass over the pixels, 0 for a single pixel, 1 for an even map.
        - `concentration`: share of the mass in the hottest tenth of the pixels, 0.1 for an even map
          to 1.
        - `elongation`: length over width of the mass at or above half the peak, from its principal
          axes; 1 is round or square, and a bar has the ratio of its sides.
        - `orientation`: of the long axis, in degrees from 0 to below 180: 0 lies flat, 90 stands
          upright, 45 rises to the right. NaN if `elongation` is below 1.01: there is no long axis.
        - `n_blobs`: connected regions at or above half the peak, diagonals included; those smaller
          than a tenth of the largest are not counted. At least 1.
    """
    features = describe_maps(np.asarray(cam)[None])
    return {name: float(values[0]) for name, values in features.items()}


def describe_maps(cams: np.ndarray) -> dict[str, np.ndarray]:
    """Describe many maps of one size as `describe_focus` does.

    Args:
        cams: of shape (n, height, width), uint8 or floating, >= 0.

    Returns:
        float64 of shape (n,) by feature, in the order of `FEATURES`.
    """
    usable = np.isfinite(cams).all(axis=(1, 2)) & (cams.max(axis=(1, 2)) > 0)
    described = {name: np.full(len(cams), np.nan) for name in FEATURES}
    chosen = np.flatnonzero(usable)
    for start in range(0, len(chosen), _CHUNK):  # bounds the memory that the floats take
        rows = chosen[start : start + _CHUNK]
        maps = cams[rows].astype(np.float64)
        maps /= maps.max(axis=(1, 2), keepdims=True)
        features = _place(maps) | _evenness(maps) | _shape(maps)
        for name in FEATURES:
            described[name][rows] = features[name]
    return described


def focus_table(
    fused: pd.DataFrame, explained: pd.DataFrame, layer_agreement: np.ndarray | None = None
) -> pd.DataFrame:
    """Describe every fused map and say what it was made for.

    Args:
        fused: `image_id`, `explained_class`, `peak` (before scaling) and `cam` (uint8 of shape
            (height, width)). Sizes may differ between images.
        explained: one row per image: `image_id`, `role` ("error" or "control"), `y_true`, `y_pred`.
        layer_agreement: float of shape (n_maps,), for each row of `fused` in the order of image and
            class; see `audit.explain.pooling`. NaN by default.

    Returns:
        One row per map, sorted by `image_id` and `explained_class`: these two, `role`, `y_true`,
        `y_pred`, `is_predicted` (the map speaks for the predicted class), `is_empty`,
        `empty_because`, the `FEATURES`, `agreement` and `layer_agreement` as float32. `is_empty` is
        true of a map that shows no place; its features are then NaN and `empty_because` is one of
        `EMPTY_BECAUSE`, otherwise "".
        `agreement` is the correlation, -1 to 1, between the maps for the predicted and the true
        class of an error; NaN for controls, and if one of the two is empty. `layer_agreement` says
        in the same way how far the layers of the model point at what the map points at.

    Raises:
        ValueError: if `explained` names an image twice or lacks one that has a map.
    """
    columns = ["image_id", "role", "y_true", "y_pred"]
    if not fused["image_id"].isin(explained["image_id"]).all():
        raise ValueError("`explained` must name every image that has a map.")
    table = fused[["image_id", "explained_class", "peak", "cam"]].merge(
        explained[columns], on="image_id", how="left", validate="many_to_one"
    )
    table = table.sort_values(["image_id", "explained_class"], kind="stable", ignore_index=True)
    cams = list(table["cam"])
    flat = np.array([cam.min() == cam.max() for cam in cams], bool)
    peaks = table["peak"].to_numpy(np.float64)
    is_empty = flat | ~(np.isfinite(peaks) & (peaks > 0))
    why = [~is_empty, ~np.isfinite(peaks), peaks == 0]
    described = _describe_by_size(cams, ~is_empty)
    result = table[["image_id", "explained_class", "role", "y_true", "y_pred"]].astype(
        {"image_id": "int64", "explained_class": "int32", "y_true": "int32", "y_pred": "int32"}
    )
    result["is_predicted"] = result["explained_class"] == result["y_pred"]
    result["is_empty"] = is_empty
    result["empty_because"] = np.select(why, ["", *EMPTY_BECAUSE[:2]], EMPTY_BECAUSE[2])
    for name in FEATURES:
        result[name] = described[name].astype(np.float32)
    result["agreement"] = _agreement(result, cams).astype(np.float32)
    nothing = np.full(len(result), np.nan, np.float32)
    result["layer_agreement"] = nothing if layer_agreement is None else layer_agreement
    result.loc[is_empty, "layer_agreement"] = np.nan
    return result.astype({"layer_agreement": np.float32})


def _describe_by_size(cams: list[np.ndarray], usable: np.ndarray) -> dict[str, np.ndarray]:
    described = {name: np.full(len(cams), np.nan) for name in FEATURES}
    for rows in _rows_by_size(cams, np.flatnonzero(usable)):
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            features = describe_maps(np.stack([cams[row] for row in chunk]))
            for name in FEATURES:
                described[name][chunk] = features[name]
    return described


def _rows_by_size(cams: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    by_size: dict[tuple[int, ...], list[int]] = {}
    for row in rows.tolist():
        by_size.setdefault(cams[row].shape, []).append(row)
    return [np.array(members) for members in by_size.values()]


def _agreement(table: pd.DataFrame, cams: list[np.ndarray]) -> np.ndarray:
    """Correlate the two maps of each error; both rows of an image get the value."""
    agreement = np.full(len(table), np.nan)
    wanted = table[(table["role"] == "error") & ~table["is_empty"]]
    predicted = wanted.index[wanted["is_predicted"]]
    true = wanted.index[wanted["explained_class"] == wanted["y_true"]]
    row_of_true = dict(zip(wanted.loc[true, "image_id"], true, strict=True))
    for row, image_id in zip(predicted, wanted.loc[predicted, "image_id"], strict=True):
        other = row_of_true.get(image_id)
        if other is not None and cams[row].shape == cams[other].shape:
            value = _correlation(cams[row], cams[other])
            agreement[[row, other]] = value
    return agreement


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a = first.astype(np.float64).ravel()
    b = second.astype(np.float64).ravel()
    a -= a.mean()
    b -= b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _place(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Centre, spread and border, from the mass of each row and column."""
    height, width = maps.shape[1:]
    mass = maps.sum(axis=(1, 2))
    across = maps.sum(axis=1) / mass[:, None]
    down = maps.sum(axis=2) / mass[:, None]
    centre_x, spread_x = _centre_and_spread(across)
    centre_y, spread_y = _centre_and_spread(down)
    inner = maps @ _inside(width) @ _inside(height) / mass
    border_share = np.clip(1 - inner, 0, 1)
    return {
        "centre_x": centre_x,
        "centre_y": centre_y,
        "spread_x": spread_x,
        "spread_y": spread_y,
        "border_share": border_share,
        "border_lift": border_share / _UNIFORM_BORDER_SHARE,
    }


def _centre_and_spread(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of profiles of shape (n, side) that sum to 1 over the side."""
    side = profile.shape[1]
    position = (np.arange(side) + 0.5) / side
    centre = profile @ position
    variance = (profile * (position - centre[:, None]) ** 2).sum(axis=1)
    return centre, np.sqrt(variance + 1 / (12 * side**2))  # the second term: a pixel has a width


def _inside(side: int) -> np.ndarray:
    """Return for each pixel of a side the share of it that is not in the border, shape (side,)."""
    start = np.arange(side)
    overlap = np.minimum(start + 1, (1 - BORDER) * side) - np.maximum(start, BORDER * side)
    return np.asarray(np.clip(overlap, 0, 1))


def _evenness(maps: np.ndarray) -> dict[str, np.ndarray]:
    """How far the mass is from lying evenly over the pixels."""
    n, n_pixels = len(maps), maps[0].size
    flat = maps.reshape(n, n_pixels)
    mass = flat.sum(axis=1)
    # With p = v / mass: -sum p log p = log mass - sum(v log v) / mass; where v is 0 the term is 0.
    logs = np.log(np.where(flat > 0, flat, 1))
    entropy = np.log(mass) - np.einsum("np,np->n", flat, logs) / mass
    n_hottest = HOTTEST * n_pixels
    whole, rest = int(n_hottest), n_hottest - int(n_hottest)
    first = n_pixels - whole - 1
    ranked = np.partition(flat, first, axis=1)
    hottest = ranked[:, first + 1 :].sum(axis=1) + rest * ranked[:, first]
    largest_entropy = np.log(n_pixels) if n_pixels > 1 else 1.0
    return {
        "entropy": np.clip(entropy / largest_entropy, 0, 1),
        "concentration": hottest / mass,
    }


def _shape(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Area, principal axes and regions of what is at or above half the peak of 1."""
    hot = maps >= 0.5
    elongation, orientation = _principal_axes(np.where(hot, maps, 0))
    return {
        "area": hot.mean(axis=(1, 2)),
        "elongation": elongation,
        "orientation": orientation,
        "n_blobs": np.array([_count_blobs(one) for one in hot.astype(np.uint8)], np.float64),
    }


def _principal_axes(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elongation and orientation of the mass, from the eigenvalues of its 2×2 covariance."""
    height, width = maps.shape[1:]
    mass = maps.sum(axis=(1, 2))
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    across, down = maps.sum(axis=1), maps.sum(axis=2)
    mean_x, mean_y = across @ x / mass, down @ y / mass
    variance_x = across @ x**2 / mass - mean_x**2 + 1 / 12
    variance_y = down @ y**2 / mass - mean_y**2 + 1 / 12
    covariance = maps @ x @ y / mass - mean_x * mean_y
    half_gap = np.hypot((variance_x - variance_y) / 2, covariance)
    middle = (variance_x + variance_y) / 2
    # A pixel's own width keeps both axes at or above 1/12, so rounding cannot make this negative.
    elongation = np.sqrt((middle + half_gap) / np.maximum(middle - half_gap, 1 / 12))
    # Rows are counted downwards, degrees anticlockwise: hence the minus sign.
    angle = np.degrees(np.arctan2(-2 * covariance, variance_x - variance_y)) / 2
    # The outer remainder catches -1e-15, whose remainder rounds up to 180 itself.
    orientation = np.where(elongation < _ROUND, np.nan, np.remainder(np.remainder(angle, 180), 180))
    return elongation, orientation


def _count_blobs(hot: np.ndarray) -> int:
    count, _, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]  # row 0 is the background
    return int((areas >= _TINY_BLOB * areas.max()).sum())
