"""Conditions that an image may meet: "blurred", "camera: B", "class cats"; alone or two at once.

In: properties, the user's metadata, classes, near-duplicates. Out: one table of columns, and the
conditions on it that are worth trying. Nothing here knows which images are wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.wording import percent, printable
from audit.predict.properties import MEASURES

PROPERTIES = (*MEASURES, "size", "aspect_ratio", "file_size")
"""Numeric columns: what was measured, and of the file its pixels, width / height and bytes."""

OBJECT = "object_share"
"""A numeric column where masks or boxes say how much of nearly every image is the object."""

METADATA = "metadata."
"""What the names of the user's columns begin with, so that none is taken for a property."""

DUPLICATES = "near_duplicates"
HAS_DUPLICATE = "yes"
MISSING = ""
"""The value of a text column that says nothing."""

TAILS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the images that make a low and a high tail of a numeric column."""

MIN_IMAGES = 20
"""Conditions that fewer images meet are not tried."""

_MOST_SHARE = 0.6
_NEARLY_ALL = 0.9
_FEW_VALUES = 12
_MOST_LEVELS = 50
_OURS = ("image_id", "path", "y_true")

_PHRASES = {
    ("brightness", -1): "dark",
    ("brightness", 1): "bright",
    ("contrast", -1): "low in contrast",
    ("contrast", 1): "high in contrast",
    ("sharpness", -1): "blurred",
    ("sharpness", 1): "very sharp",
    ("noise", -1): "smooth",
    ("noise", 1): "noisy",
    ("saturation", -1): "pale",
    ("saturation", 1): "strongly coloured",
    ("red_green", -1): "greenish",
    ("red_green", 1): "reddish",
    ("blue_yellow", -1): "yellowish",
    ("blue_yellow", 1): "bluish",
    ("edge_density", -1): "few edges",
    ("edge_density", 1): "many edges",
    ("size", -1): "small",
    ("size", 1): "large",
    ("aspect_ratio", -1): "tall",
    ("aspect_ratio", 1): "wide",
    ("file_size", -1): "few bytes",
    ("file_size", 1): "many bytes",
    (OBJECT, -1): "small object",
    (OBJECT, 1): "large object",
}
_LABELS = {
    "red_green": "red less green",
    "blue_yellow": "blue less yellow",
    "edge_density": "edge density",
    "size": "number of pixels",
    "aspect_ratio": "width by height",
    "file_size": "file size",
    OBJECT: "its share of the image",
}


@dataclass(frozen=True)
class Condition:
    """What an image has to meet: a number within bounds, or a text.

    Attributes:
        column: of the table that `make_table` returns.
        low, high: the number is at least `low` and less than `high`; `None`: no bound.
        value: the text, `MISSING` for none; `None` where bounds are set.
        name: plain words.
    """

    column: str
    low: float | None
    high: float | None
    value: str | None
    name: str


def make_table(
    predictions: pd.DataFrame,
    properties: pd.DataFrame,
    metadata: pd.DataFrame,
    duplicates: pd.DataFrame,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """Join all that conditions may be set on, a row per predicted image, ordered by image_id.

    Args:
        predictions: image_id, y_true, y_pred.
        properties: the columns of `audit.predict.properties.SCHEMA`, and perhaps `OBJECT`, NaN
            where it is not known. It is passed over if it is known for fewer than nine tenths of
            the images: they may have been chosen for a reason that has to do with the errors.
        metadata: image_id and the user's columns, of any names and types; path and y_true are
            passed over. They become "metadata.NAME".
        duplicates: see `audit.diagnose.duplicates.find_duplicates`; only image_id is used.

    Returns:
        image_id, is_error; `PROPERTIES`, float64 with NaN where unknown; `OBJECT` where nearly all
        images have it; near_duplicates ("yes" or
        "no"); y_true and y_pred as class names; and the user's columns: float64 if they hold
        more than 12 different numbers, or else text.
    """
    images = predictions[["image_id", "y_true", "y_pred"]].sort_values(
        "image_id", ignore_index=True
    )
    ids, names = images["image_id"], np.array([str(name) for name in class_names], object)
    columns: dict[str, Any] = {
        "image_id": ids,
        "is_error": images["y_true"] != images["y_pred"],
    }
    stored = [*MEASURES, "width", "height", "file_size"]
    measured = properties.set_index("image_id")[stored].reindex(ids).astype(np.float64)
    measured["size"] = measured["width"] * measured["height"]
    measured["aspect_ratio"] = measured["width"] / measured["height"]
    columns |= {name: measured[name].to_numpy() for name in PROPERTIES}
    if OBJECT in properties:
        shares = properties.set_index("image_id")[OBJECT].reindex(ids).to_numpy(np.float64)
        if np.isfinite(shares).sum() >= _NEARLY_ALL * len(ids):
            columns[OBJECT] = shares
    columns[DUPLICATES] = np.where(ids.isin(duplicates["image_id"]), HAS_DUPLICATE, "no")
    columns |= {side: names[images[side]] for side in ("y_true", "y_pred")}
    brought = metadata.set_index("image_id").reindex(ids)
    for name in brought:
        if name not in _OURS:
            columns[f"{METADATA}{name}"] = _numbers_or_texts(brought[name])
    return pd.DataFrame(columns)


def list_conditions(table: pd.DataFrame) -> list[Condition]:
    """List the conditions worth trying, without those on classes.

    They are the tails of numeric columns (see `TAILS`; equal values stay together, so a tail may be
    larger), and each text of a text column, the 50 most common ones; met by at least `MIN_IMAGES`
    images and at most 60 % of them.
    """
    conditions: list[Condition] = []
    for column in table.columns:
        if column in ("image_id", "is_error", "y_true", "y_pred"):
            continue
        if pd.api.types.is_numeric_dtype(table[column]):
            conditions += _tails(column, table[column].to_numpy())
        else:
            conditions += _levels(column, table[column])
    return conditions


def class_condition(side: str, class_name: str) -> Condition:
    """Return the condition that y_true or y_pred is a class."""
    shown = printable(class_name)
    return Condition(
        side, None, None, class_name, f"class {shown}" if side == "y_true" else f"called {shown}"
    )


def is_met(condition: Condition, table: pd.DataFrame) -> np.ndarray:
    """Return bool of shape (n,): which rows of a table meet a condition."""
    values = table[condition.column].to_numpy()
    if condition.value is not None:
        return np.asarray(values == condition.value, bool)
    low = -np.inf if condition.low is None else condition.low
    high = np.inf if condition.high is None else condition.high
    return np.asarray((values >= low) & (values < high), bool)


def _tails(column: str, values: np.ndarray) -> Iterable[Condition]:
    """Return the low and high tails of a numeric column, each set of images once."""
    ordered = np.sort(values[np.isfinite(values)])
    found: dict[tuple[float | None, float | None], Condition] = {}
    for tail in TAILS:
        size = round(tail * len(ordered))
        if size == 0:
            continue
        n_low = int(np.searchsorted(ordered, ordered[size - 1], side="right"))
        n_high = len(ordered) - int(np.searchsorted(ordered, ordered[-size], side="left"))
        if _fits(n_low, len(values)):
            high = float(ordered[n_low])
            name = _tail_name(column, -1, n_low / len(ordered))
            found[None, high] = Condition(column, None, high, None, name)
        if _fits(n_high, len(values)):
            low = float(ordered[-n_high])
            name = _tail_name(column, 1, n_high / len(ordered))
            found[low, None] = Condition(column, low, None, None, name)
    return found.values()


def _levels(column: str, texts: "pd.Series[Any]") -> Iterable[Condition]:
    """Return a condition for each common text of a column."""
    counts = texts.value_counts()
    counts = counts[[_fits(n, len(texts)) for n in counts]]
    common = counts.reset_index().sort_values(["count", column], ascending=[False, True])
    for text in common[column].head(_MOST_LEVELS):
        if column != DUPLICATES or text == HAS_DUPLICATE:
            yield Condition(column, None, None, text, _level_name(column, text))


def _fits(n_images: int, n_all: int) -> bool:
    return MIN_IMAGES <= n_images <= _MOST_SHARE * n_all


def _tail_name(column: str, side: int, share: float) -> str:
    where = f"in the {'lowest' if side < 0 else 'highest'} {percent(share)}"
    if column.startswith(METADATA):
        return f"{printable(column.removeprefix(METADATA))} {where}"
    return f"{_PHRASES[column, side]} ({_LABELS.get(column, column)} {where})"


def _level_name(column: str, text: str) -> str:
    if column == DUPLICATES:
        return "with a near-duplicate"
    name = printable(column.removeprefix(METADATA))
    return f"{name} is missing" if text == MISSING else f"{name}: {printable(text)}"


def _numbers_or_texts(values: "pd.Series[Any]") -> np.ndarray:
    """Return a user's column as float64 if it holds many different numbers, or else as texts."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number and not pd.api.types.is_complex_dtype(values) and values.nunique() > _FEW_VALUES:
        numbers = pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    texts = [MISSING if _is_missing(value) else str(value) for value in values]
    return np.array(texts, object)


def _is_missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
