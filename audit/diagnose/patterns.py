"""Focus patterns: groups of errors whose maps look at the same thing, or at the same place.

In: the focus table, the fused maps, and what is under them. Out: a row per pattern, and the pattern
of each explained image. Groups are found on errors and controls together, without regard to which
is which; then it is asked which of them are special to errors. That does not say that the focus
causes the errors.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from audit.diagnose.looks import Looks
from audit.diagnose.pattern_names import name_confusion, name_pattern, tell_apart
from audit.diagnose.pattern_search import (
    Maps,
    Pattern,
    gather_maps,
    search_patterns,
    typical_order,
)
from audit.diagnose.stratified import count_by_class, risk_ratio
from audit.explain.focus import FEATURES
from audit.schemas import NOT_TESTED, make_frame

_TYPICAL = (*FEATURES, "agreement", "layer_agreement")

SCHEMA = pa.schema(
    [
        ("pattern", pa.int32()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("n_errors", pa.int64()),
        ("share_of_errors", pa.float64()),
        ("n_controls", pa.int64()),
        ("control_share", pa.float64()),
        ("n_true_controls", pa.int64()),
        ("true_control_share", pa.float64()),
        ("lift", pa.float64()),
        ("lift_low", pa.float64()),
        ("lift_high", pa.float64()),
        ("p_value", pa.float64()),
        ("q_value", pa.float64()),
        ("stability", pa.float64()),
        ("distinctness", pa.float64()),
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
        *[(name, pa.float32()) for name in _TYPICAL],
        ("verdict", pa.string()),
    ]
)
"""Columns of `patterns.parquet`. `find_patterns` says what each of them means."""

N_EXEMPLARS = 10
_Z95 = 1.959963984540054


def find_patterns(
    focus: pd.DataFrame,
    fused: pd.DataFrame,
    class_names: Sequence[str],
    *,
    looks: Looks | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.Series]:
    """Group the errors by what they look at, and those that are left by where they look.

    The order of rows does not matter.

    Args:
        focus: the focus table; see `audit.explain.focus.focus_table`.
        fused: `image_id`, `explained_class` and `cam` (uint8 of shape (height, width)) for each row
            of `focus`.
        class_names: names in class order, for telling patterns of the same name apart.
        looks: what is under each map, from `audit.diagnose.looks.read_looks`; without it, errors
            are grouped by place alone.
        seed: of the resamples, and of the sample that is searched if there are many maps.

    Returns:
        A frame with a row per pattern, the one with the most errors first (ties: the smallest
        image_id first):

        - `pattern`: 1, 2, …; `name`: plain words, different for each pattern.
        - `kind`: "look" (its errors look at the same thing, wherever it is), "place" (at the same
          place, whatever is there) or "both".
        - `n_errors`, and their share of all explained errors.
        - `n_controls`: correct images of the classes that its errors were taken for, whose map is
          in the pattern, and their share of all such that were explained. `n_true_controls`: the
          same of correct images of its errors' true classes, explained for the class that the
          errors were taken for. Shares are NaN without controls.
        - `lift`: how many times as common it is among the errors taken for a class as among correct
          images of that class, with a 95 % interval; see `audit.diagnose.stratified.risk_ratio`.
        - `p_value`: how likely so many errors are in it if its focus is not special to errors; see
          `audit.diagnose.pattern_choice.Evidence`; of a later pattern, among what the earlier ones
          leave. NaN where there are no controls of one kind. `q_value`: that times the number of
          groups that were weighed; below 0.05 the focus is special to the errors.
        - `stability`: 0.5 to 1, how well the pattern comes back in resamples; `distinctness`: 0 to
          1, how clearly it is apart; see `audit.diagnose.look_groups.Groups`.
        - `confusions`: `y_true`, `y_pred` and `count` of its errors, the most common first.
        - `exemplars`: `image_id` of its ten most typical errors, the medoid first.
        - `mean_map`: bytes, uint8 of shape (`mean_height`, `mean_width`), row-major, the mean of
          its errors' maps, each at its own peak of 255; scaled to a peak of 255.
        - the focus features: the median of its errors; `orientation` is the mean direction.
        - `verdict`: "not tested".

        And a series `pattern` (int32) with the index of `focus`: the pattern of the map, for all
        maps of controls and for those of errors for their predicted class; -1 for an outlier, an
        empty map, and in all other rows.
    """
    maps = gather_maps(focus, fused, looks)
    patterns = search_patterns(maps, seed)
    by_row = np.full(len(focus), -1, np.int32)
    for number, pattern in enumerate(patterns, start=1):
        by_row[maps.table["row"].to_numpy()[pattern.members]] = number
    rows = [_describe(maps, pattern) for pattern in patterns]
    confusions = [name_confusion(**_first_confusion(row), class_names=class_names) for row in rows]
    names = tell_apart([row["name"] for row in rows], confusions)
    for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        row |= {"pattern": number, "name": name}
    return make_frame(rows, SCHEMA), pd.Series(by_row, index=focus.index, name="pattern")


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


def _describe(maps: Maps, pattern: Pattern) -> dict[str, Any]:
    """Return the row of a pattern but for its number; its name may be that of another one."""
    errors = pattern.members & maps.units.is_error
    members = maps.table[errors]
    points = maps.vectors if pattern.of_look else maps.sketches
    order = typical_order(points[errors], members["image_id"].to_numpy())
    exemplars = members["image_id"].to_numpy()[order].tolist()
    mean_map = _mean_map(members.set_index("image_id")["cam"], exemplars[0])
    name = name_pattern(
        pattern.kind,
        mean_map,
        list(members["cam"]),
        maps.measures[errors],
        maps.measures[~pattern.members & maps.sketches.any(axis=1)],
    )
    return {
        "name": name,
        "kind": pattern.kind,
        **_count(maps, pattern.members),
        "p_value": pattern.p_value,
        "q_value": pattern.q_value,
        "stability": pattern.stability,
        "distinctness": pattern.distinctness,
        "confusions": _confusions(members),
        "exemplars": exemplars[:N_EXEMPLARS],
        "mean_height": mean_map.shape[0],
        "mean_width": mean_map.shape[1],
        "mean_map": mean_map.tobytes(),
        **_typical_features(members),
        "verdict": NOT_TESTED,
    }


def _count(maps: Maps, members: np.ndarray) -> dict[str, Any]:
    """Count errors and controls of a pattern, and among whom they are counted."""
    units = maps.units
    errors = members & units.is_error
    is_taken_so = np.isin(units.explained, units.explained[errors])
    own = units.is_own & is_taken_so
    rivals = units.is_rival & np.isin(units.confusion, units.confusion[errors])
    n_errors, n_own, n_rivals = (int((members & of).sum()) for of in (errors, own, rivals))
    compared = own | (units.is_error & is_taken_so)
    if members[compared].all():  # Nothing differs, and no interval would follow from it.
        lift, lift_low, lift_high = lift_interval(n_errors, n_errors, n_own, n_own)
    else:
        in_classes = count_by_class(
            units.is_error[compared], members[compared], units.explained[compared]
        )
        lift, lift_low, lift_high = risk_ratio(in_classes)
    return {
        "n_errors": n_errors,
        "share_of_errors": n_errors / int(units.is_error.sum()),
        "n_controls": n_own,
        "control_share": n_own / own.sum() if own.any() else math.nan,
        "n_true_controls": n_rivals,
        "true_control_share": n_rivals / rivals.sum() if rivals.any() else math.nan,
        "lift": lift,
        "lift_low": lift_low,
        "lift_high": lift_high,
    }


def _mean_map(cams: "pd.Series[Any]", medoid: int) -> np.ndarray:
    """Average maps at the size of the medoid's, uint8 with a peak of 255."""
    height, width = cams.loc[medoid].shape
    total = np.zeros((height, width), np.float64)
    for cam in cams:
        scaled = cam if cam.shape == (height, width) else cv2.resize(cam, (width, height))
        total += scaled.astype(np.float64) / scaled.max()
    return np.asarray(np.round(255 * total / total.max()), np.uint8)


def _confusions(members: pd.DataFrame) -> list[dict[str, int]]:
    pairs = zip(members["y_true"].tolist(), members["y_pred"].tolist(), strict=True)
    ranked = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [{"y_true": t, "y_pred": p, "count": count} for (t, p), count in ranked]


def _first_confusion(row: dict[str, Any]) -> dict[str, int]:
    first = row["confusions"][0]
    return {"y_true": first["y_true"], "y_pred": first["y_pred"]}


def _typical_features(members: pd.DataFrame) -> dict[str, float]:
    typical = {name: float(members[name].median()) for name in _TYPICAL}
    # 1 and 179 degrees are neighbours: double the angles, average, halve.
    doubled = np.radians(2 * members["orientation"].dropna().to_numpy(np.float64))
    if len(doubled):
        angle = np.degrees(np.arctan2(np.sin(doubled).mean(), np.cos(doubled).mean())) / 2
        typical["orientation"] = float(angle % 180 % 180)
    return typical
