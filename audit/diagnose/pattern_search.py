"""Search the maps of a run for patterns: by what they look at, then by where.

In: the focus table, the fused maps, and what is under them. Out: the patterns as groups of maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.diagnose.look_groups import Groups, find_looks, nearest_group
from audit.diagnose.looks import MEASURES, Looks
from audit.diagnose.pattern_choice import Choice, Units, choose_groups
from audit.diagnose.pattern_clusters import (
    find_clusters,
    mean_affinity,
    sketch_maps,
)

PLACE, LOOK, BOTH = "place", "look", "both"
_SEARCH_AT_MOST = 2000
_MOST_CONTROLS = 1000
_ALIKE = 0.9
_ONE_PLACE = 0.6  # Two places that are as common have a mean affinity of a half.


@dataclass(frozen=True)
class Maps:
    """The n maps that are grouped, ordered by image and class, with what is known of each.

    They are those of errors for the predicted class, and all maps of controls.

    Attributes:
        table: rows of the focus table with the columns `cam` and `row`, their position in it.
        units: who is compared with whom.
        sketches: float64 of shape (n, cells), all zeros where a map is empty.
        vectors, elsewhere: float32 of shape (n, width): what is under the map, and what is not;
            zeros where that is not known.
        measures: float32 of shape (n, len(MEASURES)), NaN where not known.
    """

    table: pd.DataFrame
    units: Units
    sketches: np.ndarray
    vectors: np.ndarray
    elsewhere: np.ndarray
    measures: np.ndarray


@dataclass(frozen=True)
class Pattern:
    """A group of maps that is kept.

    Attributes:
        members: bool of shape (n,).
        of_look: whether it was found by what its maps look at; else by where.
        kind: "look", "place" or "both".
        stability, distinctness: see `Groups`.
        p_value, q_value: see `Choice`.
    """

    members: np.ndarray
    of_look: bool
    kind: str
    stability: float
    distinctness: float
    p_value: float
    q_value: float


def gather_maps(focus: pd.DataFrame, fused: pd.DataFrame, looks: Looks | None) -> Maps:
    """Put together what is known of the maps that are grouped.

    Args:
        focus: the focus table.
        fused: `image_id`, `explained_class` and `cam` for each of its rows.
        looks: what is under the maps.
    """
    table = focus.assign(row=np.arange(len(focus)))
    is_control = table["role"] == "control"
    table = table[is_control | table["is_predicted"].astype(bool)].merge(
        fused[["image_id", "explained_class", "cam"]],
        on=["image_id", "explained_class"],
        validate="one_to_one",
    )
    table = table.sort_values(["image_id", "explained_class"], kind="stable", ignore_index=True)
    image_ids, explained, y_true = (
        table[name].to_numpy(np.int64) for name in ("image_id", "explained_class", "y_true")
    )
    is_error = (table["role"] == "error").to_numpy(bool)
    is_rival = ~is_error & ~table["is_predicted"].to_numpy(bool)
    units = Units(is_error, is_rival, explained, y_true)
    sketches = sketch_maps(table["cam"])
    sketches[table["is_empty"].to_numpy(bool)] = 0
    if looks is None or not len(looks.image_ids):
        nothing = np.zeros((len(table), 0), np.float32)
        unknown = np.full((len(table), len(MEASURES)), np.nan, np.float32)
        return Maps(table, units, sketches, nothing, nothing, unknown)
    rows = looks.rows_of(image_ids, explained)
    is_known = ((rows >= 0) & sketches.any(axis=1))[:, None]
    vectors, elsewhere = (
        np.where(is_known, values[rows], np.float32(0))
        for values in (looks.vectors, looks.elsewhere)
    )
    measures = np.where(is_known, looks.measures[rows], np.float32(np.nan))
    return Maps(table, units, sketches, vectors, elsewhere, measures)


def search_patterns(maps: Maps, seed: int) -> list[Pattern]:
    """Find patterns of look, and in what is left patterns of place; the largest first.

    With more than 2,000 maps a sample is searched, with up to 1,000 maps of controls, and each
    other map is placed by its nearest neighbours.

    Args:
        seed: of the sample, and of the resamples that tell how stable a pattern is.

    Returns:
        Patterns that do not overlap, in the order of their errors (ties: the first error).
    """
    usable = np.flatnonzero(maps.sketches.any(axis=1))
    searched = _sample(usable, maps.units.is_error, seed)
    others = np.setdiff1d(usable, searched)
    assigned = np.full(len(maps.table), -1)
    found: list[tuple[Choice, Groups, bool]] = []
    for of_look, points in ((True, maps.vectors), (False, maps.sketches)):
        rows = searched[points[searched].any(axis=1)]
        if of_look:
            of_focus, of_rest = (x[rows].astype(np.float64) for x in (points, maps.elsewhere))
            groups = find_looks(of_focus, seed, of_rest)
        else:
            groups = _find_places(points[rows], seed)
        first = len(found)
        for choice in choose_groups(_units_of(maps.units, rows), groups, assigned[rows] < 0):
            assigned[rows[choice.members]] = len(found)
            found.append((choice, groups, of_look))
        if len(found) > first:
            known = np.where(assigned[rows] >= first, assigned[rows], -1)
            open_ = others[(assigned[others] < 0) & points[others].any(axis=1)]
            assigned[open_] = nearest_group(points[open_], points[rows], known)
    patterns = [
        Pattern(
            members=assigned == number,
            of_look=of_look,
            kind=_kind(maps, assigned == number, of_look),
            stability=float(groups.stability[choice.group]),
            distinctness=float(groups.distinctness[choice.group]),
            p_value=choice.p_value,
            q_value=choice.q_value,
        )
        for number, (choice, groups, of_look) in enumerate(found)
    ]
    errors = [pattern.members & maps.units.is_error for pattern in patterns]
    order = sorted(range(len(patterns)), key=lambda i: (-errors[i].sum(), errors[i].argmax()))
    return [patterns[i] for i in order]


def _sample(usable: np.ndarray, is_error: np.ndarray, seed: int) -> np.ndarray:
    """Return the maps that are searched, in order."""
    if len(usable) <= _SEARCH_AT_MOST:
        return usable
    rng = np.random.default_rng(seed)
    controls, errors = usable[~is_error[usable]], usable[is_error[usable]]
    n_controls = min(len(controls), max(_MOST_CONTROLS, _SEARCH_AT_MOST - len(errors)))
    chosen = [
        rng.choice(controls, n_controls, replace=False),
        rng.choice(errors, min(len(errors), _SEARCH_AT_MOST - n_controls), replace=False),
    ]
    return np.sort(np.concatenate(chosen))


def _find_places(sketches: np.ndarray, seed: int) -> Groups:
    """Return the clusters of sketches; distinct as far as they are closer than others are."""
    clusters, stability = find_clusters(sketches, seed)
    assigned = clusters.assign(sketches)
    members = np.arange(len(stability))[:, None] == assigned
    distinctness = np.ones(len(members))
    for number, inside in enumerate(members):
        if not inside.all():
            within = 1 - mean_affinity(sketches[inside])
            between = 1 - sketches[inside].mean(axis=0) @ sketches[~inside].mean(axis=0)
            distinctness[number] = 1 - np.sqrt(min(1.0, within / between))
    return Groups(members, distinctness, stability)


def _units_of(units: Units, rows: np.ndarray) -> Units:
    return Units(
        units.is_error[rows], units.is_rival[rows], units.explained[rows], units.y_true[rows]
    )


def _kind(maps: Maps, members: np.ndarray, of_look: bool) -> str:
    """Tell whether what was found by look is at one place, too, or the other way round."""
    errors = members & maps.units.is_error
    if of_look:
        return BOTH if mean_affinity(maps.sketches[errors]) >= _ONE_PLACE else LOOK
    known = maps.vectors.any(axis=1)
    within = _mean_squared_distance(maps.vectors[errors & known])
    overall = _mean_squared_distance(maps.vectors[known])
    return BOTH if within < _ALIKE**2 * overall else PLACE


def _mean_squared_distance(points: np.ndarray) -> float:
    """Return twice the variance: the mean over all pairs; infinite with fewer than two points."""
    n = len(points)
    variance = points.var(axis=0, dtype=np.float64).sum() if n > 1 else np.inf
    return float(2 * variance * n / max(n - 1, 1))


def typical_order(points: np.ndarray, image_ids: Sequence[int]) -> np.ndarray:
    """Order points by their mean similarity to the others; the first is the medoid.

    Args:
        points: floating of shape (n, d).
        image_ids: ties are broken by them.
    """
    points = points.astype(np.float64)
    # The sum of squared distances to all is n·x² − 2·x·sum + const; equal points must tie exactly.
    spread = len(points) * (points**2).sum(axis=1) - 2 * points @ points.sum(axis=0)
    return np.lexsort((image_ids, np.round(spread, 9)))
