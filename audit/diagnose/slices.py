"""Slices: conditions under which the model errs more often, found on one half, tested on the other.

In: predictions, properties of the images, the user's metadata, near-duplicates. Out: the table
`slices`. What no map can show, such as blur, shows here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import false_discovery_control

from audit.diagnose.conditions import Condition, make_table
from audit.diagnose.slice_search import Slice, search_classes, search_conditions
from audit.diagnose.stratified import Counts, p_value, rate_of_others, risk_ratio
from audit.diagnose.wording import ALPHA
from audit.predict.intervals import wilson_interval
from audit.schemas import make_frame

SCHEMA = pa.schema(
    [
        ("slice", pa.int32()),
        ("name", pa.string()),
        ("kind", pa.string()),
        (
            "conditions",
            pa.list_(
                pa.struct(
                    [
                        ("column", pa.string()),
                        ("low", pa.float64()),
                        ("high", pa.float64()),
                        ("value", pa.string()),
                    ]
                )
            ),
        ),
        *[(name, pa.int64()) for name in ("n_images", "n_errors")],
        *[
            (name, pa.float64())
            for name in ("error_rate", "error_rate_low", "error_rate_high", "other_error_rate")
        ],
        *[(name, pa.float64()) for name in ("lift", "lift_low", "lift_high")],
        *[(name, pa.int64()) for name in ("n_images_confirm", "n_errors_confirm")],
        *[(name, pa.float64()) for name in ("p_value", "q_value")],
        ("confirmed", pa.bool_()),
        ("error_ids", pa.list_(pa.int64())),
        ("excess_errors", pa.float64()),
    ]
)
"""Columns of `slices.parquet`. `find_slices` says what each of them means."""

MOST_SEARCHED = 50_000
"""Images that are searched; all of the other half are used for the tests."""


def find_slices(
    predictions: pd.DataFrame,
    properties: pd.DataFrame,
    metadata: pd.DataFrame,
    duplicates: pd.DataFrame,
    class_names: Sequence[str],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Find where the model errs more often than on other images of the same classes.

    Candidates are the conditions of `list_conditions`, pairs of them, and each within a true class.
    (Not within a predicted class: what is wrongly called a class is of another one, and its images
    look different for that reason alone.) The images are split in two, near-duplicates together. On
    one half the candidate that stands out most is taken, the images it holds are put aside, and so
    on, so that slices do not repeat each other; a pair has to stand out clearly within either of
    its parts. At most ten are taken, and at most ten single classes beside them, so that what the
    confusion matrix shows cannot crowd out the rest. On the other half each is tested once, again
    without the images of those before it.

    At most `MOST_SEARCHED` images, drawn at random, are searched, so that time and memory stay
    bounded; of a larger data set the tests use all of the other half.

    Args:
        predictions, properties, metadata, duplicates: see `audit.diagnose.conditions.make_table`;
            the order of rows does not matter.
        class_names: in class order.
        seed: of the split.

    Returns:
        A frame with the columns of `SCHEMA`: a row per slice that was tested, those confirmed
        first, those of kind "class" last, the most excess errors first.

        - `kind`: "property", "metadata", "duplicates", "class", or "pair" of any two.
        - `conditions`: all must be met. `column` is a property, "metadata.NAME",
          "near_duplicates", "y_true" or "y_pred"; the number is at least `low` and below `high`, or
          the text is `value`: a class name, or "" for missing. What is not asked for is null.
        - `n_images`, `n_errors`, `error_rate` with its Wilson interval: over both halves.
        - `other_error_rate`: of the other images of the same true classes, weighted by the slice's
          mix of classes; if the kind is "class", of all others. `excess_errors`: errors beyond
          those that this rate would give.
        - `lift`, with its interval: how many times as often the slice is wrong as those, in the
          test; see `audit.diagnose.stratified.risk_ratio`. `n_images_confirm`, `n_errors_confirm`:
          of the slice in the test.
        - `p_value`: see `audit.diagnose.stratified.p_value`. `q_value`: the same with false
          discoveries controlled (Benjamini & Hochberg 1995) over all rows of kind "class", or over
          all others. `confirmed`: q < 0.05.
        - `error_ids`: the image_id of its errors, ascending.
    """
    table = make_table(predictions, properties, metadata, duplicates, class_names)
    is_searched = split_images(table, duplicates, seed)
    rng = np.random.default_rng(seed)
    searched = np.flatnonzero(is_searched)
    if len(searched) > MOST_SEARCHED:
        searched = np.sort(rng.choice(searched, MOST_SEARCHED, replace=False))
    first_half, kept_back = table.iloc[searched], table[~is_searched]
    rows = [
        row
        for found in (search_conditions(table, first_half), search_classes(first_half))
        for row in _test(found, table, kept_back)
    ]
    rows.sort(key=lambda row: (not row["confirmed"], row["kind"] == "class", -row["excess_errors"]))
    for number, row in enumerate(rows, start=1):
        row["slice"] = number
    return make_frame(rows, SCHEMA)


def slice_members(conditions: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> np.ndarray:
    """Return bool of shape (n,): which rows of a table are in a slice.

    Args:
        conditions: of a row of `find_slices`.
        table: see `audit.diagnose.conditions.make_table`.
    """
    return Slice(tuple(Condition(**condition, name="") for condition in conditions)).members(table)


def split_images(table: pd.DataFrame, duplicates: pd.DataFrame, seed: int) -> np.ndarray:
    """Return which images are searched: half of the right and the wrong ones of each class.

    Args:
        table: see `audit.diagnose.conditions.make_table`.
        duplicates: see `audit.diagnose.duplicates.find_duplicates`.
        seed: as given to `find_slices`; the same gives the same half.

    Returns:
        bool of shape (n,), for the rows of `table`.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    strata = pd.factorize(table["y_true"])[0] * 2 + table["is_error"].to_numpy()
    order = order[np.argsort(strata[order], kind="stable")]
    is_searched = np.empty(len(table), bool)
    is_searched[order] = np.arange(len(table)) % 2 == 0
    leaders = duplicates.groupby("group")["image_id"].transform("min")
    row_of = pd.Series(np.arange(len(table)), index=table["image_id"])
    rows, leader_rows = (
        row_of.reindex(ids).to_numpy() for ids in (duplicates["image_id"], leaders)
    )
    is_searched[rows] = is_searched[leader_rows]
    return is_searched


def _test(found: Sequence[Slice], table: pd.DataFrame, kept_back: pd.DataFrame) -> list[Any]:
    """Test slices on the half that was kept back, with false discoveries controlled over them."""
    tests, is_left = [], np.ones(len(kept_back), bool)
    for found_slice in found:
        tests.append(found_slice.compare(kept_back[is_left]))
        is_left &= ~found_slice.members(kept_back)
    p_values = [p_value(counts) for counts in tests]
    q_values = false_discovery_control(p_values) if found else []
    return [
        _describe(found_slice, table, counts) | {"p_value": p, "q_value": q, "confirmed": q < ALPHA}
        for found_slice, counts, p, q in zip(found, tests, p_values, q_values, strict=True)
    ]


def _describe(found: Slice, table: pd.DataFrame, tested: Counts) -> dict[str, Any]:
    errors = table.loc[found.members(table) & table["is_error"], "image_id"]
    n_images, n_errors = int(found.members(table).sum()), len(errors)
    low, high = wilson_interval(n_errors, n_images)
    other_rate = rate_of_others(found.compare(table))
    lift, lift_low, lift_high = risk_ratio(tested)
    return {
        "name": found.name,
        "kind": found.kind,
        "conditions": [
            {name: getattr(condition, name) for name in ("column", "low", "high", "value")}
            for condition in found.conditions
        ],
        "n_images": n_images,
        "n_errors": n_errors,
        "error_rate": n_errors / n_images,
        "error_rate_low": float(low),
        "error_rate_high": float(high),
        "other_error_rate": other_rate,
        "excess_errors": n_errors - n_images * other_rate,
        "lift": lift,
        "lift_low": lift_low,
        "lift_high": lift_high,
        "n_images_confirm": int(tested.inside.sum()),
        "n_errors_confirm": int(tested.wrong_inside.sum()),
        "error_ids": errors.tolist(),
    }
