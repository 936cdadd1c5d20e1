"""Focus patterns: groups of errors whose maps for the predicted class look at the same place.

In: the focus table and the fused maps. Out: a row per pattern, and the pattern of each explained
image. A pattern says where errors look and how much more often than correct images do; it does not
say that the focus causes them. The patterns are found in the very errors they are counted in, so
their lift is a description and not a test.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from audit.diagnose.pattern_clusters import MIN_SIZE, find_clusters, sketch_maps
from audit.diagnose.pattern_names import name_confusion, name_patterns
from audit.explain.focus import FEATURES

SCHEMA = pa.schema(
    [
        ("pattern", pa.int32()),
        ("name", pa.string()),
        ("n_errors", pa.int64()),
        ("share_of_errors", pa.float64()),
        ("n_controls", pa.int64()),
        ("control_share", pa.float64()),
        ("lift", pa.float64()),
        ("lift_low", pa.float64()),
        ("lift_high", pa.float64()),
        ("stability", pa.float64()),
        (
            "confusions",
            pa.list_(
                pa.struct([("y_true", pa.int32()), ("y_pred", pa.int32()), ("count", pa.int64())])
            ),
        ),
        ("exemplars", pa.list_(pa.int64())),
        ("mean_height", pa.int32()),
        ("mean_width", pa.int32()),
        ("mean_map", pa.binary()),
        *[(name, pa.float32()) for name in FEATURES],
        ("agreement", pa.float32()),
        ("verdict", pa.string()),
    ]
)
"""Columns of `patterns.parquet`. `find_patterns` says what each of them means."""

NOT_TESTED = "not tested"
N_EXEMPLARS = 10
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class _Maps:
    """The maps for the predicted class, ordered by image, with what is known of each.

    Attributes:
        table: rows of the focus table with a column `cam`.
        sketches: float64 of shape (n, cells), all zeros where a map is empty.
        is_error: bool of shape (n,); the others are controls.
    """

    table: pd.DataFrame
    sketches: np.ndarray
    is_error: np.ndarray


def find_patterns(
    focus: pd.DataFrame, fused: pd.DataFrame, class_names: Sequence[str], *, seed: int = 0
) -> tuple[pd.DataFrame, pd.Series]:
    """Group the errors by where their maps for the predicted class look.

    The order of rows and the number of a pattern's fellow rows do not matter. Controls are placed
    by the same rule, with the same reach, as the errors.

    Args:
        focus: the focus table; see `audit.explain.focus.focus_table`.
        fused: `image_id`, `explained_class` and `cam` (uint8 of shape (height, width)) for each row
            of `focus`.
        class_names: names in class order, for telling patterns of the same shape apart.
        seed: of the resamples, and of the sample that is searched if there are many errors.

    Returns:
        A frame with a row per pattern, the largest first (ties: the smallest image_id first):

        - `pattern`: 1, 2, …; `name`: plain words, different for each pattern.
        - `n_errors`, `n_controls`, and their shares of all explained errors and controls, those
          with an empty map included. `control_share` is NaN without controls.
        - `lift`: the first share over the second, with a 95 % interval; see `lift_interval`.
        - `stability`: 0 to 1, how well the pattern comes back in resamples; at least 0.5.
        - `confusions`: `y_true`, `y_pred` and `count` of its errors, the most common first.
        - `exemplars`: `image_id` of its ten most typical errors, the medoid first.
        - `mean_map`: bytes, uint8 of shape (`mean_height`, `mean_width`), row-major, the mean of
          its errors' maps, each at its own peak of 255; scaled to a peak of 255.
        - the focus features: the median of its errors; `orientation` is the mean direction.
        - `verdict`: "not tested".

        And a series `pattern` (int32) with the index of `focus`: the pattern of the image in the
        row of its predicted class; -1 for an outlier, an empty map, and in all other rows.
    """
    maps = _predicted_maps(focus, fused)
    usable = maps.sketches.any(axis=1)
    found = maps.is_error & usable
    clusters, stability = find_clusters(maps.sketches[found], seed)
    assigned = clusters.assign(maps.sketches)
    assigned, stability = _number_by_size(assigned, maps.is_error, stability)

    by_row = np.full(len(focus), -1, np.int32)
    by_row[maps.table["row"].to_numpy()] = assigned
    pattern = pd.Series(by_row, index=focus.index, name="pattern")
    rows = [_describe(maps, assigned, number) for number in range(1, len(stability) + 1)]
    names = name_patterns(
        [_mean_map_of(row) for row in rows],
        [name_confusion(**_first_confusion(row), class_names=class_names) for row in rows],
    )
    for row, name, value in zip(rows, names, stability, strict=True):
        row |= {"name": name, "stability": float(value)}
    return _frame(rows), pattern


def lift_interval(
    n_errors: int, all_errors: int, n_controls: int, all_controls: int
) -> tuple[float, float, float]:
    """Return how much more common a pattern is among errors than among controls, with 95 % limits.

    The ratio of the two shares, with an interval on its logarithm. If a pattern holds no or all
    controls, or all errors, 0.5 is added to each cell of the table (members and others, of both),
    so that ratio and interval stay finite; the ratio is then a cautious one.

    Returns:
        lift, lower and upper limit; all NaN without controls.

    Source: Katz et al. 1978, doi:10.2307/2530610; the 0.5 from Haldane 1956 and Anscombe 1956.
    """
    if all_controls == 0 or all_errors == 0:
        return math.nan, math.nan, math.nan
    cells = (n_errors, all_errors - n_errors, n_controls, all_controls - n_controls)
    extra = 0.5 if min(cells) == 0 else 0.0
    a, b = n_errors + extra, n_controls + extra
    n, m = all_errors + 2 * extra, all_controls + 2 * extra
    lift = (a / n) / (b / m)
    factor = math.exp(_Z95 * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m))
    return lift, lift / factor, lift * factor


def _predicted_maps(focus: pd.DataFrame, fused: pd.DataFrame) -> _Maps:
    table = focus.assign(row=np.arange(len(focus)))
    table = table[table["is_predicted"].astype(bool)].merge(
        fused[["image_id", "explained_class", "cam"]],
        on=["image_id", "explained_class"],
        validate="one_to_one",
    )
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    sketches = sketch_maps(table["cam"])
    sketches[table["is_empty"].to_numpy(bool)] = 0
    return _Maps(table, sketches, (table["role"] == "error").to_numpy(bool))


def _number_by_size(
    assigned: np.ndarray, is_error: np.ndarray, stability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number clusters 1, 2, … by falling count of errors; too small ones become -1."""
    members = [(assigned == old) & is_error for old in range(len(stability))]
    ranked = sorted(
        range(len(members)), key=lambda old: (-members[old].sum(), members[old].argmax())
    )
    order = [old for old in ranked if members[old].sum() >= MIN_SIZE]
    numbered = np.full(len(assigned), -1, np.int32)
    for number, old in enumerate(order, start=1):
        numbered[assigned == old] = number
    return numbered, stability[np.array(order, np.int64)]


def _describe(maps: _Maps, assigned: np.ndarray, number: int) -> dict[str, Any]:
    is_member = assigned == number
    errors = is_member & maps.is_error
    members = maps.table[errors]
    n_errors, n_controls = int(errors.sum()), int((is_member & ~maps.is_error).sum())
    all_errors, all_controls = int(maps.is_error.sum()), int((~maps.is_error).sum())
    lift, lift_low, lift_high = lift_interval(n_errors, all_errors, n_controls, all_controls)
    exemplars = _by_typicality(maps.sketches[errors], members["image_id"].to_numpy())
    mean_map = _mean_map(members.set_index("image_id")["cam"], exemplars[0])
    return {
        "pattern": number,
        "n_errors": n_errors,
        "share_of_errors": n_errors / all_errors,
        "n_controls": n_controls,
        "control_share": n_controls / all_controls if all_controls else math.nan,
        "lift": lift,
        "lift_low": lift_low,
        "lift_high": lift_high,
        "confusions": _confusions(members),
        "exemplars": exemplars[:N_EXEMPLARS],
        "mean_height": mean_map.shape[0],
        "mean_width": mean_map.shape[1],
        "mean_map": mean_map.tobytes(),
        **_typical_features(members),
        "verdict": NOT_TESTED,
    }


def _by_typicality(sketches: np.ndarray, image_ids: np.ndarray) -> list[int]:
    """Order members by their mean affinity to the others; the first is the medoid."""
    affinity = np.round(sketches @ sketches.sum(axis=0), 9)  # equal maps must tie exactly
    order: list[int] = image_ids[np.lexsort((image_ids, -affinity))].tolist()
    return order


def _mean_map(cams: "pd.Series[Any]", medoid: int) -> np.ndarray:
    """Average maps at the size of the medoid's, uint8 with a peak of 255."""
    height, width = cams.loc[medoid].shape
    total = np.zeros((height, width), np.float64)
    for cam in cams:
        scaled = cam if cam.shape == (height, width) else cv2.resize(cam, (width, height))
        total += scaled.astype(np.float64) / scaled.max()
    return np.asarray(np.round(255 * total / total.max()), np.uint8)


def _mean_map_of(row: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(row["mean_map"], np.uint8)
    return flat.reshape(row["mean_height"], row["mean_width"])


def _confusions(members: pd.DataFrame) -> list[dict[str, int]]:
    pairs = zip(members["y_true"].tolist(), members["y_pred"].tolist(), strict=True)
    ranked = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [{"y_true": t, "y_pred": p, "count": count} for (t, p), count in ranked]


def _first_confusion(row: dict[str, Any]) -> dict[str, int]:
    first = row["confusions"][0]
    return {"y_true": first["y_true"], "y_pred": first["y_pred"]}


def _typical_features(members: pd.DataFrame) -> dict[str, float]:
    names = [*FEATURES, "agreement"]
    typical = {name: float(members[name].median()) for name in names}
    # 1 and 179 degrees are neighbours: double the angles, average, halve.
    doubled = np.radians(2 * members["orientation"].dropna().to_numpy(np.float64))
    if len(doubled):
        angle = np.degrees(np.arctan2(np.sin(doubled).mean(), np.cos(doubled).mean())) / 2
        typical["orientation"] = float(angle % 180 % 180)
    return typical


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Turn rows into a frame whose columns have their types even without rows."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    frame: pd.DataFrame = table.to_pandas(types_mapper=_arrow_type)
    return frame


def _arrow_type(kind: pa.DataType) -> pd.ArrowDtype | None:
    keep = pa.types.is_nested(kind) or pa.types.is_binary(kind)
    return pd.ArrowDtype(kind) if keep else None
