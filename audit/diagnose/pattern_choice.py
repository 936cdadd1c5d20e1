"""Which of the candidate groups are patterns: one for each map, tested against correct images.

In: candidate groups, found without knowing who is an error, and who is. Out: the groups that are
kept, which do not overlap, with the evidence that their focus is special to errors.

A focus is special to errors if it is more common among them than among two kinds of correct images.
Those of the same *predicted* class tell it from what makes up that class: errors are cats called
dogs, these are dogs called dogs. Those of the same *true* class, explained for the class that the
errors were taken for, tell it from what makes up the true class: cats called cats, asked what in
them speaks for dogs. The first alone would call every part of a cat special, for there are no cats
among the dogs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import gammaln

from audit.diagnose.look_groups import Groups
from audit.diagnose.pattern_clusters import MIN_SIZE

SIGNIFICANT = 0.05

ODDS_OF_CONTENT = 2.0
"""By how much the odds of a focus may differ between wrong and right images of one true class.

Wrong and right images of a class differ in content, whatever the model: with a random head some
kinds of cats are wrong more often than others. With three random heads the largest lower limit of
the odds ratio of any group was 2.3, at 352 errors; groups that a planted artefact made up had 5 to
20. With controls explained for their own class the random heads had up to 50.
"""

STRONG_DISTINCTNESS = 0.6
"""From here on a group that is not more common among errors is kept, too, if it is not rarer."""

_LEAST_FREE, _MOSTLY_FREE = 0.5, 0.8
_LARGEST_COMMON = 0.5
_WORTH_TESTING = 1.6
_DIFFERENT = 0.1
_HALF_AS_GOOD = 0.5

Stratum = tuple[np.ndarray, np.ndarray]
"""Positions of errors, and of the controls they are compared with."""


@dataclass(frozen=True)
class Units:
    """Who is compared with whom: n maps, each of one image for one class.

    Attributes:
        is_error: bool of shape (n,): maps of errors for their predicted class.
        is_rival: bool of shape (n,): maps of correct images for a class they were *not* taken for.
            The others are correct images, explained for their own class.
        explained: int64 of shape (n,), the class that is explained.
        y_true: int64 of shape (n,).
    """

    is_error: np.ndarray
    is_rival: np.ndarray
    explained: np.ndarray
    y_true: np.ndarray

    @property
    def is_own(self) -> np.ndarray:
        """Bool of shape (n,): maps of correct images for their own class."""
        return ~self.is_error & ~self.is_rival

    @property
    def confusion(self) -> np.ndarray:
        """A number for each pair of true and explained class, int64 of shape (n,)."""
        return np.asarray(self.explained * (self.y_true.max(initial=0) + 1) + self.y_true)


@dataclass(frozen=True)
class Choice:
    """A group that is kept.

    Attributes:
        members: bool of shape (n,).
        group: position among the candidates.
        p_value: see `Evidence.p_value`.
        q_value: that times the number of candidates it was chosen from, at most 1.
    """

    members: np.ndarray
    group: int
    p_value: float
    q_value: float


class Evidence:
    """Compares how common groups are among errors and among the two kinds of controls."""

    def __init__(self, units: Units) -> None:
        is_error = units.is_error
        self._own = _strata(units.explained, is_error, units.is_own)
        self._rival = _strata(units.confusion, is_error, units.is_rival)

    def scores(self, members: np.ndarray, is_free: np.ndarray) -> np.ndarray:
        """Return how many standard deviations more errors groups hold than by chance.

        Args:
            members: bool of shape (n_groups, n).
            is_free: bool of shape (n,): the maps that are compared.

        Returns:
            float64 of shape (n_groups,): the smaller of the two comparisons, each within classes.
            NaN if one of them cannot be made.
        """
        own, rival = (_scores(members, _free(s, is_free)) for s in (self._own, self._rival))
        return np.minimum(own, rival)

    def p_value(self, members: np.ndarray, is_free: np.ndarray) -> float:
        """Return how likely at least so many errors in a group are by chance.

        The larger of two exact one-sided p-values: within predicted classes that the odds of the
        focus are no higher among errors than among correct images; and within pairs of true and
        predicted class that they are at most `ODDS_OF_CONTENT` times as high.

        Args:
            members, is_free: bool of shape (n,).

        Returns:
            NaN if one of the two comparisons cannot be made.

        Source: Fisher's noncentral hypergeometric distribution, summed over strata as in Agresti
        2013, section 7.3.
        """
        p_values = []
        for strata, odds in ((self._own, 1.0), (self._rival, ODDS_OF_CONTENT)):
            free = _free(strata, is_free)
            if not free:
                return math.nan
            counts = [
                (len(e) + len(c), len(e), int(members[e].sum() + members[c].sum())) for e, c in free
            ]
            p_values.append(upper_tail(counts, sum(int(members[e].sum()) for e, _ in free), odds))
        return max(p_values)


def choose_groups(units: Units, groups: Groups, is_free: np.ndarray | None = None) -> list[Choice]:
    """Keep groups that do not overlap, those that are special to errors first.

    One after the other, the group that stands out most is taken: by how much more common it is
    among errors, in standard deviations, times its stability and the root of its distinctness. A
    part of it that is a group in its own right is taken instead if that says it all: the rest is no
    more common among errors. What is taken is set aside, so that it cannot hide the next one. When
    no group is more common among errors, groups are taken that are very distinct, not rarer among
    errors, and not the bulk of all maps; or, where there are no controls, any.

    All candidates were found without regard to errors, and each p-value is multiplied by their
    number. So where errors are no different from correct images, at most one audit in twenty shows
    a first group with a q-value below 0.05.

    Args:
        is_free: bool of shape (n,): the maps that may be taken; all by default.
    """
    evidence = Evidence(units)
    is_free = np.ones(len(units.is_error), bool) if is_free is None else is_free.copy()
    choices: list[Choice] = []
    while (choice := _choose_next(units, groups, evidence, is_free)) is not None:
        choices.append(choice)
        is_free &= ~choice.members
    return choices


def upper_tail(counts: Sequence[tuple[int, int, int]], observed: int, odds: float) -> float:
    """Return the chance that groups hold at least so many errors in all.

    Args:
        counts: for each stratum how many maps it has, how many of them are errors, and how many are
            in the group.
        observed: errors in the group, over all strata.
        odds: how many times higher the odds of being in the group are among errors.
    """
    chances, least = np.ones(1), 0
    for n, n_errors, n_members in counts:
        low, high = max(0, n_members + n_errors - n), min(n_members, n_errors)
        x = np.arange(low, high + 1)
        logs = _log_choose(n_errors, x) + _log_choose(n - n_errors, n_members - x)
        logs = logs + x * math.log(odds)
        weights = np.exp(logs - logs.max())
        chances = np.convolve(chances, weights / weights.sum())
        least += low
    return float(min(1.0, chances[max(observed - least, 0) :].sum()))


def _choose_next(
    units: Units, groups: Groups, evidence: Evidence, is_free: np.ndarray
) -> Choice | None:
    """Return the best group, less what has been taken; `None` if none is worth keeping."""
    left = groups.members & is_free
    share_left = left.sum(axis=1) / np.maximum(groups.members.sum(axis=1), 1)
    weighed = share_left >= _LEAST_FREE
    usable = np.flatnonzero(weighed & ((left & units.is_error).sum(axis=1) >= MIN_SIZE))
    if not len(usable):
        return None
    scores = np.full(len(left), -np.inf)
    scores[usable] = evidence.scores(left[usable], is_free)

    @cache
    def p_value(group: int) -> float:
        return evidence.p_value(left[group], is_free)

    worth = usable[scores[usable] > _WORTH_TESTING]
    merit = scores * groups.stability * np.sqrt(groups.distinctness)
    ranked = worth[np.argsort(-merit[worth], kind="stable")].tolist()
    chosen = next((group for group in ranked if p_value(group) < SIGNIFICANT), None)
    if chosen is not None:
        chosen = _narrow(chosen, ranked, units, groups, left, evidence, is_free, p_value)
    else:
        kept = _is_worth_keeping(groups, evidence) & (share_left >= _MOSTLY_FREE)
        usable = usable[kept[usable]]
        if not len(usable):
            return None
        chosen = int(usable[groups.distinctness[usable].argmax()])
    q_value = min(1.0, p_value(chosen) * int(weighed.sum()))  # min(1, NaN) is 1.
    return Choice(
        left[chosen], chosen, p_value(chosen), math.nan if math.isnan(p_value(chosen)) else q_value
    )


def _is_worth_keeping(groups: Groups, evidence: Evidence) -> np.ndarray:
    """Tell the groups that are kept although they are not special: not the bulk of all maps."""
    scores = evidence.scores(groups.members, np.ones(groups.members.shape[1], bool))
    is_part = groups.members.mean(axis=1) <= _LARGEST_COMMON
    is_common = (scores >= 0) & is_part & (groups.distinctness >= STRONG_DISTINCTNESS)
    return np.asarray(is_common | np.isnan(scores))


def _narrow(
    chosen: int,
    ranked: list[int],
    units: Units,
    groups: Groups,
    left: np.ndarray,
    evidence: Evidence,
    is_free: np.ndarray,
    p_value: Callable[[int], float],
) -> int:
    """Go down to the part of a group that says all of it, if there is one."""
    merit = groups.stability * groups.distinctness

    def says_it_all(part: int, whole: int) -> bool:
        rest = left[whole] & ~left[part]
        if (left[part] & ~left[whole]).any() or not rest.any():
            return False
        if merit[part] < _HALF_AS_GOOD * merit[whole] or not p_value(part) < SIGNIFICANT:
            return False
        inside, errors = left[whole], units.is_error
        counts = int(inside.sum()), int((inside & errors).sum()), int(left[part].sum())
        if upper_tail([counts], int((left[part] & errors).sum()), 1.0) >= _DIFFERENT:
            return False
        if (rest & errors).sum() < MIN_SIZE:
            return True
        return not evidence.p_value(rest, is_free & ~left[part]) < SIGNIFICANT

    while True:
        part = next((group for group in ranked if says_it_all(group, chosen)), None)
        if part is None:
            return chosen
        chosen = part


def _strata(keys: np.ndarray, is_error: np.ndarray, is_control: np.ndarray) -> list[Stratum]:
    """Return errors and controls of each key that has both."""
    common = np.intersect1d(keys[is_error], keys[is_control])
    return [
        (np.flatnonzero((keys == key) & is_error), np.flatnonzero((keys == key) & is_control))
        for key in common
    ]


def _free(strata: Sequence[Stratum], is_free: np.ndarray) -> list[Stratum]:
    free = [(e[is_free[e]], c[is_free[c]]) for e, c in strata]
    return [(e, c) for e, c in free if len(e) and len(c)]


def _scores(members: np.ndarray, strata: Sequence[Stratum]) -> np.ndarray:
    """Cochran's score over strata, 0 where all or none are members; NaN without a stratum."""
    if not strata:
        return np.full(len(members), math.nan)
    surplus, variance = np.zeros(len(members)), np.zeros(len(members))
    for errors, controls in strata:
        n_errors, n = len(errors), len(errors) + len(controls)
        found = members[:, errors].sum(axis=1)
        n_members = found + members[:, controls].sum(axis=1)
        share = n_errors / n
        surplus += found - n_members * share
        variance += n_members * (n - n_members) * share * (1 - share) / (n - 1)
    return np.asarray(surplus / np.sqrt(np.where(variance > 0, variance, math.inf)))


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
