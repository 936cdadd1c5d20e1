"""What became of the focus patterns: gone, smaller, unchanged, new.

In: the errors of each pattern, and what both runs say of all images. Out: a record per pattern.

The errors of a pattern are errors because the run that found it was wrong on them. Any other model
of the same quality is right on some of them: that alone is no improvement. What it fixes for no
reason it breaks elsewhere as often, so the errors fixed are held against *all* images that were
right before and are now taken for the same. If nothing but chance changed, those are at least as
many on average, however the pattern was found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit.compare.paired import ALPHA, Change, adjust, mcnemar_p, net_change
from audit.predict.intervals import number_or_none, wilson_interval

GONE, SMALLER, UNCHANGED, NEW = "gone", "smaller", "unchanged", "new"
"""The verdicts. "Unchanged" says that no change is shown, not that there is none."""

LEFT_OF_GONE = 0.1
"""A pattern is gone if at most this share of its errors is left."""


@dataclass(frozen=True)
class Share:
    """A share of images, `n` of `of`, with its 95 % Wilson interval; `None` where `of` is 0."""

    n: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FoundPattern:
    """A pattern as one of the runs found it.

    Attributes:
        is_later: whether the later run found it.
        n_errors: of the pattern in its run.
        errors: int64 of positions among the matched images; the others are in no other run.
        name, kind, verdict: as in `patterns.parquet`.
    """

    number: int
    name: str
    kind: str
    verdict: str
    is_later: bool
    n_errors: int
    errors: np.ndarray


@dataclass(frozen=True)
class PatternChange:
    """What became of a pattern of the earlier run, or where one of the later run came from.

    Attributes:
        n_errors: in the run that found it; `n_matched`: those that both runs have.
        n_same_way: of these, wrong in the same way in the other run as well.
        n_another_way: wrong in the other run, but taken for another class.
        n_right: right in the other run: fixed, or, if `is_later`, broken.
        n_against: images outside it that went the other way: of an earlier pattern, right before
            and now wrong in one of its confusions; of a later one, such errors that were fixed.
        change: `n_right` less `n_against`, as a share of `n_matched`: how much smaller, or newer,
            the pattern is beyond what comes and goes, with its exact interval.
        p_value: how likely that is by chance, two-sided. `q_value`: with false discoveries
            controlled over the patterns of both runs.
        causal_before, causal_after: of its errors that were painted out, those that turn right
            without their focus; after: of those still wrong in the same way.
        verdict: "gone", "smaller", "unchanged" or "new".
        right, same_way: positions of these images.
    """

    number: int
    name: str
    kind: str
    found_verdict: str
    is_later: bool
    n_errors: int
    n_matched: int
    n_same_way: int
    n_another_way: int
    n_right: int
    n_against: int
    change: Change
    p_value: float
    q_value: float
    causal_before: Share
    causal_after: Share
    verdict: str
    right: np.ndarray
    same_way: np.ndarray


def compare_patterns(
    patterns: Sequence[FoundPattern],
    y_true: np.ndarray,
    y_pred: np.ndarray,
    repaired: np.ndarray,
) -> tuple[PatternChange, ...]:
    """Say what became of every pattern of two runs.

    A pattern of the earlier run is "smaller" if `q_value` < 0.05 and more of its errors are fixed
    than others broken, and "gone" if besides at most a tenth of its errors is wrong in the same
    way; a pattern of the later run is "new" likewise. All others are "unchanged".

    Args:
        patterns: of both runs.
        y_true: int of shape (n,).
        y_pred: int of shape (2, n), before and after.
        repaired: float of shape (2, n): 1 where an error turned right without its focus, 0 where it
            did not, NaN where it was not painted out.
    """
    p_values = [
        mcnemar_p(
            len(_right_in_other(pattern, y_true, y_pred)), _n_against(pattern, y_true, y_pred)
        )
        for pattern in patterns
    ]
    return tuple(
        _change(pattern, y_true, y_pred, repaired, p_value, q_value)
        for pattern, p_value, q_value in zip(patterns, p_values, adjust(p_values), strict=True)
    )


def _change(
    pattern: FoundPattern,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    repaired: np.ndarray,
    p_value: float,
    q_value: float,
) -> PatternChange:
    errors, own, other = pattern.errors, *_runs(pattern)
    right = _right_in_other(pattern, y_true, y_pred)
    same_way = errors[y_pred[own, errors] == y_pred[other, errors]]
    n_against = _n_against(pattern, y_true, y_pred)
    change = net_change(len(right), n_against, len(errors))
    causal = _share(repaired[own, errors]), _share(repaired[other, same_way])
    return PatternChange(
        pattern.number,
        pattern.name,
        pattern.kind,
        pattern.verdict,
        pattern.is_later,
        pattern.n_errors,
        len(errors),
        len(same_way),
        len(errors) - len(right) - len(same_way),
        len(right),
        n_against,
        change,
        p_value,
        q_value,
        causal[own],
        causal[other],
        _verdict(pattern, change, q_value, len(same_way)),
        right,
        same_way,
    )


def _verdict(pattern: FoundPattern, change: Change, q_value: float, n_left: int) -> str:
    if q_value >= ALPHA or not change.value or change.value < 0:
        return UNCHANGED
    if pattern.is_later:
        return NEW
    return GONE if n_left <= LEFT_OF_GONE * len(pattern.errors) else SMALLER


def _runs(pattern: FoundPattern) -> tuple[int, int]:
    """Return which of the two rows is the run that found the pattern, and which is the other."""
    return (1, 0) if pattern.is_later else (0, 1)


def _right_in_other(pattern: FoundPattern, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    _, other = _runs(pattern)
    return np.asarray(pattern.errors[(y_pred[other] == y_true)[pattern.errors]])


def _n_against(pattern: FoundPattern, y_true: np.ndarray, y_pred: np.ndarray) -> int:
    """Count the images right in the pattern's run and in the other wrong in its confusions."""
    own, other = _runs(pattern)
    n_classes = int(max(y_true.max(), y_pred.max())) + 1
    confusions = y_true[pattern.errors] * n_classes + y_pred[own, pattern.errors]
    turned = (y_pred[own] == y_true) & (y_pred[other] != y_true)
    return int(np.isin(y_true[turned] * n_classes + y_pred[other, turned], confusions).sum())


def _share(values: np.ndarray) -> Share:
    known = values[~np.isnan(values)]
    n, of = int(known.sum()), len(known)
    low, high = wilson_interval(n, of)
    value = n / of if of else None
    return Share(n, of, value, number_or_none(float(low)), number_or_none(float(high)))
