"""Do errors look beside the object? Shares of the focus inside it, against those of correct images.

In: a focus table with the columns of `audit.explain.inside`. Out: figures over all errors, and for
each pattern. Images whose object is not known are counted, and left out of every figure.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.pattern_names import name_beside
from audit.diagnose.stratified import count_by_class, p_value, risk_ratio
from audit.explain.objects import BOXES, EMPTY, MASK, NOT_GIVEN, UNUSABLE
from audit.predict.intervals import (
    affordable_resamples,
    bootstrap_estimate,
    number_or_none,
    resampled_means,
    wilson_estimate,
)
from audit.schemas import INSIDE

PATTERN_COLUMNS = (
    "n_objects",
    "object_share",
    *("energy_inside", "energy_inside_low", "energy_inside_high"),
    *("energy_lift", "energy_lift_low", "energy_lift_high"),
    "pointing",
    *("energy_change", "energy_change_low", "energy_change_high"),
    "is_beside",
)
"""The columns that `judge_inside` adds to `patterns.parquet`. It says what each of them means."""

LEAST_OBJECTS = 5
"""With fewer objects nothing is said of a pattern."""
_MOST_OF = 0.5


def summarise_inside(
    focus: pd.DataFrame, objects: pd.DataFrame, *, seed: int = 0
) -> dict[str, Any]:
    """Say how much of the focus of errors lies inside the object, and of correct images.

    Maps are those of the predicted class. Errors taken for a class are compared with correct images
    of that class, and the differences averaged over the errors that have such.

    Args:
        focus: with the columns of `INSIDE`.
        objects: the columns of `objects.parquet`; see `audit.schemas`.
        seed: of the bootstrap.

    Returns:
        - `n_images`: predicted; `n_known`: those whose object is known; `n_masks`, `n_boxes`: from
          what; `n_not_given`, `n_empty`, `n_unusable`: the others. `first_reason`: of the latter.
        - `errors`, and `controls` of the classes that these were taken for, each: `n`: maps;
          `n_left_out`: of images whose object is not known, or that show no place;
          `object_share`: mean, which an even map would have inside; `energy`: mean share of the
          focus inside, `lift`: that over `object_share`, each with a bootstrap interval;
          `pointing`: share of maps whose hottest pixel is inside (Wilson).
        - `change`: of the energy beyond that of an even map, so that objects of errors may be
          larger or smaller; errors less controls of the same class, with a bootstrap interval.
          `ratio`: how many times as often the hottest pixel is beside the object, with
          its interval, and `p_value`, one-sided; see `audit.diagnose.stratified`. `None` if there
          is nothing to compare.
    """
    predicted = focus[focus["is_predicted"].astype(bool)]
    sides = {
        name: predicted[predicted["role"] == role]
        for name, role in (("errors", "error"), ("controls", "control"))
    }
    taken_for = _known(sides["errors"])["explained_class"].unique()
    comparable = sides["controls"]["explained_class"].isin(taken_for)
    sides["controls"] = sides["controls"][comparable]
    kinds = objects["kind"].value_counts()
    unusable = objects.loc[objects["kind"] == UNUSABLE, "reason"]
    counts = {
        f"n_{name}": int(kinds.get(kind, 0))
        for name, kind in (
            ("masks", MASK),
            ("boxes", BOXES),
            ("not_given", NOT_GIVEN),
            ("empty", EMPTY),
            ("unusable", UNUSABLE),
        )
    }
    rng = np.random.default_rng(seed)
    return {
        "n_images": len(objects),
        "n_known": counts["n_masks"] + counts["n_boxes"],
        **counts,
        "first_reason": str(unusable.iloc[0]) if len(unusable) else None,
        **{name: _describe(rows, rng) for name, rows in sides.items()},
        **_compare(sides["errors"], sides["controls"], rng),
    }


def judge_inside(patterns: pd.DataFrame, focus: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Say of each pattern how much of its errors' focus lies inside the object, and name it so.

    A pattern looks beside the object if less of its focus lies inside than of an even map (the
    upper bound of `energy_lift` is below 1), the hottest pixel is inside for fewer than half of its
    errors, and the object is known for at least 5 and half of them.

    Args:
        patterns: columns `pattern` and `name`; the others are kept.
        focus: with the columns of `INSIDE`, and `pattern`.
        seed: of the bootstrap.

    Returns:
        `patterns`, with ", beside the object" after the names of those that look there, and with
        these columns, of its errors' maps for the predicted class; NaN where nothing is known:

        - `n_objects`: maps whose object is known. `object_share`: its mean share of the pixels.
        - `energy_inside`: mean share of the focus inside the object; `energy_lift`: that over
          `object_share`; `energy_change`: the energy beyond that of an even map, less that of
          correct images of the classes its errors were taken for; each with a 95 % bootstrap
          interval.
        - `pointing`: share of maps whose hottest pixel is inside. `is_beside`: see above.
    """
    predicted = focus[focus["is_predicted"].astype(bool)]
    controls = predicted[predicted["role"] == "control"]
    rng = np.random.default_rng(seed)
    rows = []
    for number in patterns["pattern"]:
        members = predicted[(predicted["role"] == "error") & (predicted["pattern"] == number)]
        rows.append(_judge(members, controls, rng))
    judged = pd.DataFrame(rows, columns=list(PATTERN_COLUMNS), index=patterns.index)
    kept = patterns.drop(columns=[name for name in PATTERN_COLUMNS if name in patterns])
    names = [
        name_beside(name) if is_beside else name
        for name, is_beside in zip(kept["name"], judged["is_beside"], strict=True)
    ]
    types = dict.fromkeys(PATTERN_COLUMNS[1:-1], np.float64)
    judged = judged.astype({**types, "n_objects": np.int64, "is_beside": bool})
    return pd.concat([kept.assign(name=names), judged], axis=1)


def _judge(
    members: pd.DataFrame, controls: pd.DataFrame, rng: np.random.Generator
) -> dict[str, Any]:
    found, change = _describe(members, rng), _compare(members, controls, rng)["change"]
    row = {
        "n_objects": found["n"],
        "object_share": found["object_share"],
        "pointing": found["pointing"]["value"],
        **_spread("energy_inside", found["energy"]),
        **_spread("energy_lift", found["lift"]),
        **_spread("energy_change", change),
    }
    is_known = found["n"] >= max(LEAST_OBJECTS, _MOST_OF * len(members))
    highest = found["lift"]["high"] if found["lift"]["high"] is not None else found["lift"]["value"]
    is_beside = is_known and highest < 1 and found["pointing"]["value"] < _MOST_OF
    return row | {"is_beside": bool(is_beside)}


def _spread(name: str, estimate: dict[str, Any] | None) -> dict[str, Any]:
    found = estimate or {}
    bounds = ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high"))
    return {column: found.get(key) for column, key in bounds}


def _known(maps: pd.DataFrame) -> pd.DataFrame:
    return maps[maps["energy_inside"].notna()]


def _describe(maps: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    known = _known(maps)
    values = known[list(INSIDE)].to_numpy(np.float64)
    n_inside = int((~_is_beside(known)).sum())
    found = {"n": len(known), "n_left_out": len(maps) - len(known)}
    if not len(known):
        nothing = bootstrap_estimate(math.nan, np.empty(0))
        unknown = {"object_share": None, "energy": nothing, "lift": nothing}
        return found | unknown | {"pointing": wilson_estimate(0, 0)}
    share, energy, _ = values.mean(axis=0)
    resampled = resampled_means(values[:, :2], affordable_resamples(values[:, :2].size), rng)
    return found | {
        "object_share": float(share),
        "energy": bootstrap_estimate(float(energy), resampled[:, 1]),
        "lift": bootstrap_estimate(float(energy / share), resampled[:, 1] / resampled[:, 0]),
        "pointing": wilson_estimate(n_inside, len(known)),
    }


def _compare(
    errors: pd.DataFrame, controls: pd.DataFrame, rng: np.random.Generator
) -> dict[str, Any]:
    """Hold errors against correct images of the classes that they were taken for."""
    errors, controls = _known(errors), _known(controls)
    classes = sorted(set(errors["explained_class"]) & set(controls["explained_class"]))
    if not classes:
        return dict.fromkeys(("change", "ratio", "p_value"))
    errors, controls = (maps[maps["explained_class"].isin(classes)] for maps in (errors, controls))
    change = _energy_change(errors, controls, classes, rng)
    both = pd.concat([errors, controls])
    is_error = (both["role"] == "error").to_numpy(bool)
    counts = count_by_class(is_error, _is_beside(both), both["explained_class"].to_numpy(np.int64))
    ratio, low, high = (number_or_none(bound) for bound in risk_ratio(counts))
    return {
        "change": change,
        "ratio": {"value": ratio, "low": low, "high": high, "method": "mantel-haenszel"},
        "p_value": p_value(counts),
    }


def _energy_change(
    errors: pd.DataFrame, controls: pd.DataFrame, classes: Sequence[int], rng: np.random.Generator
) -> dict[str, Any]:
    """Average the differences within classes over the errors; images are drawn within classes."""
    n_resamples = affordable_resamples(len(errors) + len(controls))
    value, resampled = 0.0, np.zeros(n_resamples)
    for explained in classes:
        own, other = (
            _excess(maps[maps["explained_class"] == explained]) for maps in (errors, controls)
        )
        weight = len(own) / len(errors)
        value += weight * float(own.mean() - other.mean())
        drawn = [resampled_means(x[:, None], n_resamples, rng)[:, 0] for x in (own, other)]
        resampled += weight * (drawn[0] - drawn[1])
    return bootstrap_estimate(value, resampled)


def _excess(maps: pd.DataFrame) -> np.ndarray:
    """Return the share of each map inside the object beyond that of an even map, shape (n,)."""
    inside, even = (maps[name].to_numpy(np.float64) for name in ("energy_inside", "object_share"))
    return np.asarray(inside - even)


def _is_beside(maps: pd.DataFrame) -> np.ndarray:
    return maps["pointing"].to_numpy(np.float64) < 0.5
