"""The tables that findings and targets are made from, and what is looked up in them.

In: the frames of earlier stages; any may be empty. Out: image ids and rows, in a fixed order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.conditions import Condition, is_met, make_table
from audit.diagnose.wording import printable
from audit.predict.properties import SCHEMA as PROPERTIES
from audit.schemas import SUSPECTED

_NO_IMAGES = pd.DataFrame({"image_id": np.empty(0, np.int64)})
_NO_PROPERTIES = pd.DataFrame(columns=PROPERTIES.names)

CLASS_COLUMNS = ("y_true", "y_pred")
"""Conditions on these say no more than the confusion matrix does."""


@dataclass(frozen=True)
class Tables:
    """What is known of a run once everything has been tried.

    Attributes:
        predictions: image_id, path, y_true, y_pred, p_true, p_pred; `scores` is not needed.
        class_names: in class order, as the user wrote them.
        positive: the positive class of a binary model, `None` for any other.
        threshold: a binary model's image is called positive from this probability on.
        focus, patterns, slices, label_issues, probes, unreadable: the tables of these names.
        properties: the columns of `audit.predict.properties.SCHEMA`.
        metadata: image_id and the columns that the user brought; others are passed over.
    """

    predictions: pd.DataFrame
    class_names: Sequence[str]
    positive: int | None = None
    threshold: float = 0.5
    focus: pd.DataFrame = field(default_factory=pd.DataFrame)
    patterns: pd.DataFrame = field(default_factory=pd.DataFrame)
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    label_issues: pd.DataFrame = field(default_factory=pd.DataFrame)
    probes: pd.DataFrame = field(default_factory=pd.DataFrame)
    unreadable: pd.DataFrame = field(default_factory=pd.DataFrame)
    properties: pd.DataFrame = field(default_factory=pd.DataFrame)
    metadata: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def images(self) -> pd.DataFrame:
        """The predictions by `image_id`, with `is_error`."""
        images = self.predictions.sort_values("image_id").set_index("image_id")
        return images.assign(is_error=images["y_true"] != images["y_pred"])

    @cached_property
    def n_errors(self) -> int:
        return int(self.images["is_error"].sum())

    @cached_property
    def suspected(self) -> frozenset[int]:
        """The images whose label is suspected to be wrong."""
        return frozenset(self.issues(SUSPECTED)["image_id"].tolist())

    @cached_property
    def conditions(self) -> pd.DataFrame:
        """What slices set conditions on, by `image_id`; see `audit.diagnose.conditions`."""
        issues = self.label_issues
        duplicates = issues[issues["kind"] != SUSPECTED] if "kind" in issues else _NO_IMAGES
        table = make_table(
            self.predictions,
            self.properties if "image_id" in self.properties else _NO_PROPERTIES,
            self.metadata if "image_id" in self.metadata else _NO_IMAGES,
            duplicates,
            self.class_names,
        )
        return table.set_index("image_id")

    def name(self, y: int) -> str:
        """Return the name of a class, safe to print."""
        return printable(self.class_names[y])

    def issues(self, kind: str) -> pd.DataFrame:
        """Return the label issues of a kind, the most suspicious first."""
        issues = self.label_issues
        if issues.empty:
            return pd.DataFrame(columns=["image_id", "suggested", "other_id", "is_error", "rank"])
        return issues[issues["kind"] == kind].sort_values(["rank", "image_id"], ignore_index=True)

    def errors_among(self, image_ids: Iterable[int]) -> list[int]:
        """Keep the errors, the most confident first; images without a prediction are left out."""
        rows = self.images.loc[self.images.index.intersection(list(image_ids))]
        rows = rows[rows["is_error"]].reset_index()
        rows = rows.sort_values(["p_pred", "image_id"], ascending=[False, True])
        return [int(image_id) for image_id in rows["image_id"]]

    def pattern_errors(self, row: dict[str, Any]) -> list[int]:
        """Return a pattern's errors: its exemplars, then the others, the most confident first."""
        members = self._members(int(row["pattern"]), "error")
        exemplars = [int(image_id) for image_id in row["exemplars"]]
        return list(dict.fromkeys([*exemplars, *self.errors_among(members)]))

    def pattern_controls(self, row: dict[str, Any]) -> pd.DataFrame:
        """Return the correct images with a pattern's focus, rows of `images`."""
        members = self._members(int(row["pattern"]), "control")
        return self.images.loc[self.images.index.intersection(members)]

    def _members(self, pattern: int, role: str) -> list[int]:
        focus = self.focus
        if "pattern" not in focus:
            return []
        chosen = focus[(focus["pattern"] == pattern) & (focus["role"] == role)]
        return sorted(set(chosen["image_id"].tolist()))

    def slice_errors(self, row: dict[str, Any]) -> list[int]:
        """Return the errors of a slice, those that show it most first.

        "Most" is the mean rank over the properties that the slice sets a bound to, towards that
        bound's open side. Ties, and slices without such a property, go by confidence.
        """
        errors = self.errors_among(row["error_ids"])
        ranks = [
            ranked
            for condition in conditions_of(row)
            if (ranked := self._extremeness(condition, errors)) is not None
        ]
        if not ranks:
            return errors
        order = np.argsort(np.mean(ranks, axis=0), kind="stable")
        return [errors[position] for position in order]

    def slice_controls(self, row: dict[str, Any]) -> list[int]:
        """Return the correct images of a slice, by `image_id`."""
        columns = set(self.conditions.columns)
        conditions = [Condition(**one, name="") for one in conditions_of(row)]
        if not conditions or not all(condition.column in columns for condition in conditions):
            return []
        inside = np.all([is_met(condition, self.conditions) for condition in conditions], axis=0)
        inside &= ~self.images["is_error"].to_numpy()
        return [int(image_id) for image_id in self.images.index[inside]]

    def _extremeness(self, condition: dict[str, Any], errors: list[int]) -> np.ndarray | None:
        """Rank errors by a property, 0 the most extreme; `None` if it has no open side."""
        direction, table = side_of(condition), self.conditions
        if direction == 0 or condition["column"] not in table:
            return None
        values = table[condition["column"]].reindex(errors)
        if not pd.api.types.is_numeric_dtype(values):
            return None
        ranked = values.rank(method="average", ascending=direction < 0, na_option="bottom")
        return ranked.to_numpy(np.float64)


def conditions_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions of a slice."""
    conditions = row.get("conditions")
    return [] if conditions is None else [dict(condition) for condition in conditions]


def side_of(condition: dict[str, Any]) -> int:
    """Return -1 if a condition asks for low values, 1 for high ones, 0 for neither."""
    has_low, has_high = (
        value is not None and np.isfinite(value)
        for value in (condition.get("low"), condition.get("high"))
    )
    return int(has_low) - int(has_high)
