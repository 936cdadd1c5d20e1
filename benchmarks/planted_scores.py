"""How well an audit's answers agree with what was planted: figures of one setting and of all.

In: tables of a run and the truth. Out: numbers. What a run does not hold is `None`, never a pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from planted_artefacts import WHOLE_IMAGE
from sklearn.metrics import adjusted_rand_score, average_precision_score

from audit.predict.intervals import wilson_interval

PRECISE = 0.8
"""Images that show the artefact, of the first ten, for a pattern or a target to be about it."""
FEWEST_LISTED = 5
"""With fewer images than this there is no such share."""
ENOUGH_ERRORS = 10
"""Artefacts with fewer errors are not counted."""
SIGNIFICANT = 0.05
PROPERTIES = {
    "blur": {"sharpness", "edge_density"},
    "colour_cast": {"saturation", "red_green", "blue_yellow"},
}
"""Columns of a slice that name an artefact of the whole image."""
PROBES = {"blur": {"blur"}, "colour_cast": {"colour cast", "grey"}}
"""Transformations that name it."""
RANDOM_NULLS = ("drawn errors", "random head")


# Figures


def precision_at(hits: Sequence[bool] | np.ndarray, k: int) -> float | None:
    """Return the share of hits among the first `k`; of what there is, if that is less than `k`.

    `None` with fewer than `FEWEST_LISTED`.
    """
    first = np.asarray(hits, bool)[:k]
    return float(first.mean()) if len(first) >= min(k, FEWEST_LISTED) else None


def is_precise(precision: float | None) -> bool:
    return precision is not None and precision >= PRECISE


def ranking_precision(listed: Sequence[Any], wanted: set[Any]) -> float:
    """Return the average precision of a list; what it leaves out counts as never found.

    Args:
        listed: the first one is the most suspicious; without repetitions.
        wanted: not empty.
    """
    hits = np.array([item in wanted for item in listed], bool)
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / len(wanted))


def loss_precision(p_true: np.ndarray, wanted: np.ndarray) -> float:
    """Return the average precision of sorting all images by −log p_true, the largest first."""
    return float(average_precision_score(wanted, -p_true))


def agreement(planted: np.ndarray, patterns: np.ndarray) -> float:
    """Return the adjusted Rand index of two groupings of the same errors; -1 is a group too."""
    return float(adjusted_rand_score(planted, patterns))


# One setting


@dataclass(frozen=True)
class Found:
    """What became of one planted artefact.

    Attributes:
        n_errors: errors that carry it.
        repaired: how many of them are right on the same picture without it.
        precision: share of the first ten images of its best pattern that carry it.
        verdict: of the patterns with a precision of at least `PRECISE`, "causal" if one is.
        by_slice, by_probe: whether a confirmed slice, or a probe, names it; of whole images only.
    """

    kind: str
    n_errors: int
    repaired: float | None
    precision: float | None
    verdict: str | None = None
    by_slice: bool | None = None
    by_probe: bool | None = None

    @property
    def is_whole_image(self) -> bool:
        return self.kind in WHOLE_IMAGE

    @property
    def is_found(self) -> bool:
        return is_precise(self.precision)

    @property
    def is_causal(self) -> bool:
        return self.verdict == "causal"


@dataclass(frozen=True)
class Judged:
    """One setting's figures.

    Attributes:
        null: see `planted_settings.Setting`.
        n_patterns, n_causal: patterns, and those called causal, `None` if none was tested.
        ari: patterns against truth among errors; `None` unless an artefact with a place explains
            most errors.
        label_precision, loss_precision: average precision for flipped labels.
        find_precision: share of the first fifty of the pool that carry the artefact.
        first_target: whether it names the planted cause; `None` unless there is just one.
        first_title: its title.
        seconds: of the audit.
    """

    name: str
    null: str | None
    n_errors: int
    found: tuple[Found, ...]
    n_patterns: int | None = None
    n_causal: int | None = None
    ari: float | None = None
    label_precision: float | None = None
    loss_precision: float | None = None
    find_precision: float | None = None
    first_target: bool | None = None
    first_title: str | None = None
    seconds: float | None = None

    @property
    def counted(self) -> list[Found]:
        """The artefacts with enough errors."""
        return [found for found in self.found if found.n_errors >= ENOUGH_ERRORS]


def judge_patterns(
    patterns: Sequence[dict[str, Any]], carriers: set[str]
) -> tuple[float | None, str | None]:
    """Return the best pattern's precision at 10, and the verdict on those that are precise.

    Args:
        patterns: with `images`, paths, most typical first, and `verdict`.
        carriers: paths of the images that carry the artefact.
    """
    scored = []
    for pattern in patterns:
        precision = precision_at([path in carriers for path in pattern["images"]], 10)
        if precision is not None:
            scored.append((precision, pattern["verdict"]))
    if not scored:
        return None, None
    verdicts = [verdict for precision, verdict in scored if is_precise(precision)]
    causal = "causal" if "causal" in verdicts else None
    return max(precision for precision, _ in scored), causal or next(iter(verdicts), None)


def planted_groups(truth: pd.DataFrame, kinds: Sequence[str]) -> np.ndarray:
    """Return for each image the number of its artefact with a place, or -1."""
    visible = [kind for kind in kinds if kind not in WHOLE_IMAGE]
    groups = np.full(len(truth), -1)
    for index, kind in enumerate(visible):
        groups[truth[kind].to_numpy() == 1] = index
    return groups


def slice_names(row: dict[str, Any], kind: str, carriers: set[int]) -> bool:
    """Say whether a confirmed slice names an artefact of the whole image, and holds its errors."""
    columns = {condition["column"] for condition in row["conditions"]}
    errors = [image_id in carriers for image_id in row["error_ids"]]
    share = float(np.mean(errors)) if errors else 0.0
    return bool(row["confirmed"]) and bool(columns & PROPERTIES[kind]) and share >= PRECISE


def probe_names(row: dict[str, Any], kind: str) -> bool:
    """Say whether a probe shows that the model breaks under an artefact of the whole image."""
    is_shown = row["q_value"] < SIGNIFICANT and row["fall_low"] > 0
    return row["transformation"] in PROBES[kind] and bool(is_shown)


# All settings


@dataclass(frozen=True)
class Measure:
    """A count over settings, artefacts or patterns.

    Attributes:
        goal: the share asked for; `None` where none is.
        at_most: whether the share must not exceed the goal, instead of reaching it.
    """

    name: str
    hits: int
    total: int
    goal: float | None = None
    at_most: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.goal is None or self.total == 0:
            return None
        share = self.hits / self.total
        return share <= self.goal if self.at_most else share >= self.goal

    def interval(self) -> tuple[float, float]:
        low, high = wilson_interval(self.hits, self.total)
        return float(low), float(high)


def measure(judged: Sequence[Judged]) -> list[Measure]:
    """Return what is counted over all settings; what no run holds has a total of 0."""
    real = [one for one in judged if one.null is None]
    nulls = [one for one in judged if one.null in RANDOM_NULLS]
    clean = [one for one in judged if one.null == "clean"]
    visible = [f for one in real for f in one.counted if not f.is_whole_image]
    whole = [f for one in real for f in one.counted if f.is_whole_image]
    placed = [one for one in real if any(not f.is_whole_image for f in one.counted)]
    agreeing = [one.ari for one in real if one.ari is not None]
    single = [one.first_target for one in real if one.first_target is not None]
    flips = [one for one in real if None not in (one.label_precision, one.loss_precision)]
    tested = [f for one in real if one.n_causal is not None for f in one.counted]
    tested = [f for f in tested if not f.is_whole_image]
    sliced = [f.by_slice for f in whole if f.by_slice is not None]
    probed = [f.by_probe for f in whole if f.by_probe is not None]
    either = [f.by_slice or f.by_probe for f in whole if None not in (f.by_slice, f.by_probe)]
    called = [
        f.verdict == "causal"
        for one in real
        if one.n_causal is not None
        for f in one.counted
        if f.is_whole_image
    ]
    return [
        _count("planted artefacts with a place: found", [f.is_found for f in visible], 0.85),
        _count("settings with such: all found", [_all_found(one) for one in placed], 0.85),
        _count("settings where most errors carry one: ARI ≥ 0.6", [a >= 0.6 for a in agreeing]),
        _count("planted artefacts with a place: called causal", [f.is_causal for f in tested], 0.8),
        _count(
            "of those that were found: called causal",
            [f.is_causal for f in tested if f.is_found],
            0.8,
        ),
        _false_verdicts("null settings, random heads: patterns called causal", nulls, 0.05),
        _count(
            "null settings, random heads: with such a pattern",
            [one.n_causal > 0 for one in nulls if one.n_causal is not None],
            0.05,
            at_most=True,
        ),
        _false_verdicts("null settings, trained heads: patterns called causal", clean),
        _count("blur and colour cast: named by a slice", sliced),
        _count("blur and colour cast: named by a probe", probed),
        _count("blur and colour cast: named by either", either, 1),
        _count("blur and colour cast: called a causal focus", called, 0, at_most=True),
        _count(
            "flipped labels: average precision above sorting by loss",
            [one.label_precision > one.loss_precision for one in flips],
            1,
        ),
        _count("one artefact: the first target names it", single, 0.8),
    ]


def means(judged: Sequence[Judged]) -> list[tuple[str, float, int, float | None]]:
    """Return means over the settings that have a value: name, mean, settings, goal."""
    columns: list[tuple[str, str, float | None]] = [
        ("ARI where most errors carry an artefact with a place", "ari", 0.6),
        ("flipped labels: average precision of label_issues", "label_precision", None),
        ("flipped labels: average precision of sorting by loss", "loss_precision", None),
        ("find: precision among the first 50, 10 % planted", "find_precision", None),
    ]
    rows = []
    for name, attribute, goal in columns:
        values = [value for one in judged if (value := getattr(one, attribute)) is not None]
        if values:
            rows.append((name, float(np.mean(values)), len(values), goal))
    return rows


def _all_found(one: Judged) -> bool:
    return all(found.is_found for found in one.counted if not found.is_whole_image)


def _count(
    name: str, outcomes: Iterable[bool], goal: float | None = None, *, at_most: bool = False
) -> Measure:
    hits = list(outcomes)
    return Measure(name, sum(hits), len(hits), goal, at_most)


def _false_verdicts(name: str, nulls: Sequence[Judged], goal: float | None = None) -> Measure:
    judged = [one for one in nulls if one.n_causal is not None]
    hits, total = (sum(getattr(one, n) or 0 for one in judged) for n in ("n_causal", "n_patterns"))
    return Measure(name, hits, total, goal, at_most=True)
