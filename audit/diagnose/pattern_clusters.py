"""Groups of maps that lie close together: by where they look, or by what they look at.

In: points, one for each map; nobody says which of them belong to errors. Out: candidate groups,
nested in one another, each with how distinct and how stable it is. Points that show where a map
looks are sketches of it. Two sketches are compared by their affinity, the share of mass they have
in common (Bhattacharyya 1943): 1 if equal, 0 if apart. It is the dot product of sketches, and their
Euclidean distance is the Hellinger distance times root 2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.cluster import AgglomerativeClustering

GRID = 8
"""Rows and columns of a sketch."""

MIN_SIZE = 5
"""Fewer maps than this are no group."""

MIN_AFFINITY = 0.5
"""Sketches look at one place if their mean affinity to each other is at least this."""

MIN_DISTINCTNESS = 0.2
"""How much later a group is joined to others than it was complete, as a share; see `Groups`.

Groups that a planted artefact explains had 0.21 to 0.9; of five hundred groups in errors without
one, two in three had less.
"""

MIN_STABILITY = 0.5
"""Below it a group counts as dissolved (Hennig 2007, doi:10.1016/j.csda.2006.11.025)."""

MOST_LIKE_ELSEWHERE = 0.75
"""A group's focus must set it apart more than the rest of its images does: the ratio of the two.

It was 0.2 to 0.72 for planted bars, stickers, frames, textures and objects, and 1.0 to 1.1 for blur
and a colour cast, which are everywhere. Of groups that a natural content makes, cats on a sofa, it
was above 0.75 in three of four.
"""

_LARGEST_SHARE = 0.9
_LEAST_AFFINITY = 0.35
_APART = 0.6
_RESAMPLES = 20
_RESAMPLE_SHARE = 0.8
_RESAMPLE_AT_MOST = 500
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Groups:
    """Candidate groups of n points: any two are nested or apart.

    Attributes:
        members: bool of shape (n_groups, n).
        distinctness: float64 of shape (n_groups,), 0 to 1: 1 − h ÷ H, where h is the distance at
            which Ward's method completes the group and H that at which it joins it to another; 1 of
            a group of all points.
        stability: float64 of shape (n_groups,), 0 to 1: the mean over random samples of 80 % of the
            points of the group's best Jaccard overlap with a group that is found there.
    """

    members: np.ndarray
    distinctness: np.ndarray
    stability: np.ndarray

    def __len__(self) -> int:
        return len(self.members)


def sketch_maps(cams: Iterable[np.ndarray]) -> np.ndarray:
    """Turn maps into sketches that compare where they look.

    The map is averaged to GRID × GRID cells; what rises above the median cell is kept (the level
    that a map has everywhere says nothing about a place and would drown the rest), scaled to sum
    to 1; the square root gives a vector of length 1.

    Args:
        cams: uint8 of shape (height, width) each; sizes may differ.

    Returns:
        float64 of shape (n, GRID * GRID). All zeros for a map without relief.
    """
    sketches = [_sketch(cam) for cam in cams]
    return np.array(sketches, np.float64).reshape(len(sketches), GRID * GRID)


def find_looks(points: np.ndarray, seed: int, elsewhere: np.ndarray) -> Groups:
    """Find the groups that maps fall into by what they look at; the data choose how many.

    Every branch of the tree that Ward's method builds is looked at. It is a candidate if it is
    clearly complete before it is joined to another branch, if it comes back when the search is
    repeated on samples, and if the rest of the images does not set it apart nearly as well: then it
    is a matter of the images and not of a focus.

    Args:
        points: float64 of shape (n, d), what is under each map, in a fixed order.
        seed: of the samples.
        elsewhere: of the same shape, what is in the rest of each image.

    Source: Ward 1963, doi:10.1080/01621459.1963.10500845; Hennig 2007 for the stability.
    """
    members, distinctness = _distinct_branches(points, MIN_SIZE)
    ratios = [_separation(elsewhere, m) / _separation(points, m) for m in members]
    is_focus = np.array(ratios, np.float64) <= MOST_LIKE_ELSEWHERE
    return _stable(points, members[is_focus], distinctness[is_focus], seed, _distinct_branches)


def find_places(sketches: np.ndarray, seed: int) -> Groups:
    """Find the groups that maps fall into by where they look; the data choose how many.

    As `find_looks`, but a candidate must look at one place, and is the largest branch that does;
    that may be all maps.

    Args:
        sketches: float64 of shape (n, GRID * GRID), of length 1 each, in a fixed order.
        seed: of the samples.
    """
    members, distinctness = _branches_of_one_place(sketches, MIN_SIZE)
    return _stable(sketches, members, distinctness, seed, _branches_of_one_place)


def mean_affinity(members: np.ndarray) -> float:
    """Return the mean dot product over all pairs of different vectors of length 1."""
    n = len(members)
    total = members.sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def nearest_group(points: np.ndarray, known: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Place points by most of their five nearest neighbours.

    Args:
        points: float64 of shape (n, d), the points to place.
        known: float64 of shape (m, d), points with a group.
        groups: int of shape (m,), -1 for none.

    Returns:
        int64 of shape (n,); -1 where no group has more than half of the neighbours.
    """
    placed = np.full(len(points), -1)
    squares = (known**2).sum(axis=1)
    for start in range(0, len(points), 1000):
        distances = squares - 2 * points[start : start + 1000] @ known.T
        nearest = np.argpartition(distances, min(_NEIGHBOURS, len(known)) - 1, axis=1)
        votes = np.sort(groups[nearest[:, :_NEIGHBOURS]], axis=1)
        middle = votes[:, votes.shape[1] // 2]  # Who has more than half of the votes has this one.
        wins = (votes == middle[:, None]).sum(axis=1) > votes.shape[1] / 2
        placed[start : start + 1000] = np.where(wins, middle, -1)
    return placed


def _sketch(cam: np.ndarray) -> np.ndarray:
    cells = cv2.resize(cam.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    cells = cells.astype(np.float64).ravel()
    relief = np.maximum(cells - np.median(cells), 0)
    if not relief.any():  # the larger half lies at the peak
        relief = cells - cells.min()
    mass = relief.sum()
    return np.asarray(np.sqrt(relief / mass)) if mass > 0 else np.zeros(GRID * GRID)


def _branches(points: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return members and distinctness of all branches of the tree, the last of which is all of it.

    The leaves of a branch are neighbours in the order in which the tree lists all leaves, so that a
    branch is a first position and a size.
    """
    n = len(points)
    if n < max(min_size, 2):
        return np.zeros((0, n), bool), np.zeros(0)
    tree = AgglomerativeClustering(n_clusters=None, distance_threshold=0, linkage="ward")
    tree.fit(points)
    size = np.ones(2 * n - 1, np.int64)
    for node, (left, right) in enumerate(tree.children_, start=n):
        size[node] = size[left] + size[right]
    first = np.zeros(2 * n - 1, np.int64)
    joined_at = np.full(2 * n - 1, np.inf)
    for node in range(2 * n - 2, n - 1, -1):
        left, right = tree.children_[node - n]
        first[left], first[right] = first[node], first[node] + size[left]
        joined_at[[left, right]] = tree.distances_[node - n]
    size, start, position, joined_at = size[n:], first[n:], first[:n], joined_at[n:]
    ratio = np.divide(tree.distances_, joined_at, out=np.ones(n - 1), where=joined_at > 0)
    kept = size >= min_size
    start, end = start[kept, None], (start + size)[kept, None]
    return (position >= start) & (position < end), 1 - ratio[kept]


def _distinct_branches(points: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    members, distinctness = _branches(points, min_size)
    is_part = members.sum(axis=1) <= _LARGEST_SHARE * len(points)
    kept = is_part & (distinctness >= MIN_DISTINCTNESS)
    return members[kept], distinctness[kept]


def _branches_of_one_place(sketches: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest branches that look at one place, without maps that hardly look there."""
    members, distinctness = _branches(sketches, min_size)
    affinity = members @ sketches @ sketches.T  # Of each group with each map, summed.
    size = members.sum(axis=1)
    within = (np.where(members, affinity, 0).sum(axis=1) - size) / (size * (size - 1))
    to_others = (affinity - members) / np.maximum(size[:, None] - members, 1)
    kept = (distinctness >= MIN_DISTINCTNESS) & (within >= MIN_AFFINITY)
    kept &= ~_is_two_places(members, sketches)
    members &= to_others >= _LEAST_AFFINITY
    members, distinctness, size = members[kept], distinctness[kept], size[kept]
    common = members.astype(np.float32) @ members.T.astype(np.float32)
    is_inside = (common == members.sum(axis=1)[:, None]) & (size[:, None] < size)
    chosen = ~is_inside.any(axis=1) & (members.sum(axis=1) >= min_size)
    return members[chosen], distinctness[chosen]


def _is_two_places(members: np.ndarray, sketches: np.ndarray) -> np.ndarray:
    """Tell the branches that hold two others which are clearly apart."""
    size = members.sum(axis=1)
    common = members.astype(np.float32) @ members.T.astype(np.float32)
    is_apart = (common == 0) & _are_apart(members, sketches)
    is_inside = (common == size[:, None]) & (size[:, None] < size)  # Row inside column.
    pairs = is_inside.T.astype(np.float32) @ is_apart.astype(np.float32)
    return np.asarray(((pairs > 0) & is_inside.T).any(axis=1))


def _are_apart(members: np.ndarray, sketches: np.ndarray) -> np.ndarray:
    """Tell pairs of groups whose maps are clearly further from each other than from their own."""
    size = members.sum(axis=1)
    sums = members @ sketches
    affinity = sums @ sums.T / np.outer(size, size)
    own = (np.diag(affinity) * size**2 - size) / np.maximum(size * (size - 1), 1)
    looser = np.maximum.outer(1 - own, 1 - own)
    return np.asarray(looser < _APART * (1 - affinity))


def _separation(points: np.ndarray, members: np.ndarray) -> float:
    """Return how far the centre of a group is from that of the others, in its own spreads."""
    inside, outside = points[members], points[~members]
    centre = inside.mean(axis=0)
    spread = np.sqrt(((inside - centre) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(centre - outside.mean(axis=0)) / max(spread, 1e-12))


def _stable(
    points: np.ndarray,
    members: np.ndarray,
    distinctness: np.ndarray,
    seed: int,
    search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
) -> Groups:
    """Keep the groups that are found again in samples.

    A group is looked for in samples that hold at least all but one of `MIN_SIZE` of its members.
    """
    rng = np.random.default_rng(seed)
    n, least = len(points), MIN_SIZE - 1
    total, n_samples = np.zeros(len(members)), np.zeros(len(members))
    for _ in range(_RESAMPLES if len(members) else 0):
        size = min(int(_RESAMPLE_SHARE * n), _RESAMPLE_AT_MOST)
        rows = np.sort(rng.choice(n, size, replace=False))
        again, _ = search(points[rows], least)
        sampled = members[:, rows]
        common = sampled.astype(np.float32) @ again.T.astype(np.float32)
        sizes = sampled.sum(axis=1)
        union = sizes[:, None] + again.sum(axis=1) - common
        is_there = sizes >= least
        total += np.where(is_there, (common / np.maximum(union, 1)).max(axis=1, initial=0), 0)
        n_samples += is_there
    stability = total / np.maximum(n_samples, 1)
    kept = stability >= MIN_STABILITY
    return Groups(members[kept], distinctness[kept], stability[kept])
