"""The search for slices: one or two conditions under which errors are more common than otherwise.

In: a table of what is known of each image, and who is wrong. Out: the slices that stand out, each
without the images of those before it. What stands out here has been picked from thousands: it says
nothing until it is tested on other images.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.diagnose.conditions import (
    DUPLICATES,
    METADATA,
    Condition,
    class_condition,
    is_met,
    list_conditions,
)
from audit.diagnose.stratified import Counts, count_by_class, score_classes, score_groups

MOST_TRIED = 10
"""Slices that are taken, and as many classes."""

_LEAST = {"fewest": 10, "fewest_wrong": 3}  # Images of a slice, and errors among them.
_CLEAR = 2.0  # Standard deviations above chance.
_PAIR_GAIN = 3.0  # Of two conditions within each of them, as there are many pairs.
_ROUNDING = 1e-9
_NO_CLASS = -1
_NEW = 0.5  # Share of a slice that is in none before it.
_MOST_KEPT = 100  # Conditions, those that stand out most by themselves.
_MOST_LOOKED_AT = 200


@dataclass(frozen=True)
class Slice:
    """One or two conditions that an image must meet, one of them perhaps a class."""

    conditions: tuple[Condition, ...]

    @property
    def kind(self) -> str:
        if len(self.conditions) > 1:
            return "pair"
        column = self.conditions[0].column
        if column in ("y_true", "y_pred"):
            return "class"
        if column == DUPLICATES:
            return "duplicates"
        return "metadata" if column.startswith(METADATA) else "property"

    @property
    def name(self) -> str:
        return " and ".join(condition.name for condition in self.conditions)

    def members(self, table: pd.DataFrame) -> np.ndarray:
        """Return bool of shape (n,)."""
        return np.all([is_met(condition, table) for condition in self.conditions], axis=0)

    def compare(self, table: pd.DataFrame) -> Counts:
        """Count the slice's images and those that it is to be compared with, by class.

        A class is compared with all others; anything else with images of the same true class.
        """
        wrong = table["is_error"].to_numpy()
        if self.kind == "class":
            return count_by_class(self.members(table), wrong, np.zeros(len(table), np.int64))
        counts = count_by_class(self.members(table), wrong, pd.factorize(table["y_true"])[0])
        if self.conditions[-1].column == "y_true":
            return Counts(*(part[counts.inside > 0] for part in counts))
        return counts


def search_conditions(table: pd.DataFrame, half: pd.DataFrame) -> list[Slice]:
    """Return slices of one or two conditions, the one that stands out most first.

    Args:
        table: see `audit.diagnose.conditions.make_table`; the conditions come from all of it.
        half: the rows of it that are searched.
    """
    conditions = list_conditions(table)
    if not conditions:
        return []
    search = _Search(conditions, half)
    is_left = np.ones(len(half), bool)
    found: list[Slice] = []
    while len(found) < MOST_TRIED and (best := search.best(is_left)) is not None:
        found.append(best)
        is_left &= ~best.members(half)
    return found


def search_classes(half: pd.DataFrame) -> list[Slice]:
    """Return the true and predicted classes that stand out, each without those before it."""
    wrong = half["is_error"].to_numpy()
    sides = {side: pd.factorize(half[side], sort=True) for side in ("y_true", "y_pred")}
    is_left = np.ones(len(half), bool)
    found: list[Slice] = []
    while len(found) < MOST_TRIED and is_left.any():
        scores = {
            (side, y): score
            for side, (codes, _) in sides.items()
            for y, score in enumerate(score_classes(codes[is_left], wrong[is_left], **_LEAST))
        }
        side, y = max(scores, key=lambda key: scores[key])
        if scores[side, y] < _CLEAR:
            break
        codes, names = sides[side]
        found.append(Slice((class_condition(side, names[y]),)))
        is_left &= codes != y
    return found


class _Search:
    """Conditions, who meets them, who is wrong: all that is asked again for each next slice."""

    def __init__(self, conditions: list[Condition], half: pd.DataFrame) -> None:
        self._wrong = half["is_error"].to_numpy()
        self._classes, self._class_names = pd.factorize(half["y_true"], sort=True)
        promise: list[float] = []
        for start in range(0, len(conditions), _MOST_KEPT):
            groups = _stack(conditions[start : start + _MOST_KEPT], half)
            scores = score_groups(groups, self._wrong, self._classes, **_LEAST)
            by_class = scores.by_class.max(axis=0, initial=-np.inf)
            promise += np.maximum(np.diag(scores.pairs), by_class).tolist()
        kept = np.sort(np.argsort(-np.array(promise), kind="stable")[:_MOST_KEPT])
        self._conditions = [conditions[position] for position in kept]
        self._groups = _stack(self._conditions, half)

    def best(self, is_left: np.ndarray) -> Slice | None:
        """Return what stands out most among the images that are left, or `None` if nothing does."""
        for first, second, y in self._candidates(is_left):
            inside = self._groups[:, first] & self._groups[:, second]
            if y != _NO_CLASS:
                inside = inside & (self._classes == y)
            is_new = (inside & is_left).sum() >= _NEW * inside.sum()
            if is_new and (first == second or self._gains(is_left, first, second)):
                kept = [self._conditions[row] for row in dict.fromkeys((first, second))]
                if y != _NO_CLASS:
                    kept.append(class_condition("y_true", self._class_names[y]))
                return Slice(tuple(kept))
        return None

    def _candidates(self, is_left: np.ndarray) -> list[tuple[int, int, int]]:
        """Return conditions, pairs and conditions within a class, what stands out most first."""
        scores = score_groups(
            self._groups[is_left], self._wrong[is_left], self._classes[is_left], **_LEAST
        )
        columns = np.array([condition.column for condition in self._conditions], object)
        apart = columns[:, None] != columns
        np.fill_diagonal(apart, True)
        first, second = np.nonzero(np.triu(apart & (scores.pairs >= _CLEAR)))
        # A class is named if the others show less of it.
        alone = np.diag(scores.pairs) - _ROUNDING
        y, row = np.nonzero(scores.by_class >= np.maximum(alone, _CLEAR))
        found = np.concatenate([scores.by_class[y, row], scores.pairs[first, second]])
        order = np.argsort(-np.round(found, 9), kind="stable")[:_MOST_LOOKED_AT]
        keys = np.array(
            [
                np.concatenate([row, first]),
                np.concatenate([row, second]),
                np.concatenate([y, np.full(len(first), _NO_CLASS)]),
            ]
        )
        return [(i, j, label) for i, j, label in keys[:, order].T.tolist()]

    def _gains(self, is_left: np.ndarray, first: int, second: int) -> bool:
        """Say whether each of two conditions stands out among the images that meet the other."""
        for part, other in ((first, second), (second, first)):
            rows = is_left & self._groups[:, part]
            groups = self._groups[rows][:, [other]]
            scores = score_groups(groups, self._wrong[rows], self._classes[rows], **_LEAST)
            if scores.pairs[0, 0] < _PAIR_GAIN:
                return False
        return True


def _stack(conditions: list[Condition], half: pd.DataFrame) -> np.ndarray:
    """Return bool of shape (n_images, n_conditions)."""
    return np.stack([is_met(condition, half) for condition in conditions], axis=1)
