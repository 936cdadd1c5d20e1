"""Groups of maps that show the same thing, wherever it is.

In: vectors of what is under each map and of what is elsewhere in its image; nobody says which maps
belong to errors. Out: candidate groups, nested in one another, each with how distinct and how
stable it is.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from audit.diagnose.pattern_clusters import MIN_SIZE, MIN_STABILITY, RESAMPLES, resample

MIN_DISTINCTNESS = 0.2
"""How much later a group is joined to others than it was complete, as a share; see `Groups`.

Groups that a planted artefact made up had 0.2 to 0.9. Of 1,738 branches in the errors and controls
of six random heads and two ordinary models, 70 % had less.
"""

MOST_LIKE_ELSEWHERE = 0.75
"""A group's focus must set it apart more than the rest of its images does: the ratio of the two.

It was 0.2 to 0.72 for planted bars, stickers, frames, textures and objects, and 1.0 to 1.1 for blur
and a colour cast, which are everywhere. Of the branches above that are distinct, 86 % had more.
"""

_LARGEST_SHARE = 0.9
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Groups:
    """Candidate groups of n points: any two are nested or apart.

    Attributes:
        members: bool of shape (n_groups, n).
        distinctness: float64 of shape (n_groups,), 0 to 1: 1 − h ÷ H, where h is the distance at
            which Ward's method completes the group and H that at which it joins it to another.
        stability: float64 of shape (n_groups,), 0 to 1: the mean over random samples of 80 % of the
            points of the group's best Jaccard overlap with a group that is found there.
    """

    members: np.ndarray
    distinctness: np.ndarray
    stability: np.ndarray

    def __len__(self) -> int:
        return len(self.members)


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
    members, distinctness = members[is_focus], distinctness[is_focus]
    stability = _stability(points, members, seed)
    kept = stability >= MIN_STABILITY
    return Groups(members[kept], distinctness[kept], stability[kept])


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


def _distinct_branches(points: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return members and distinctness of the branches of the tree that stand out.

    The leaves of a branch are neighbours in the order in which the tree lists all leaves, so that a
    branch is a first position and a size.
    """
    n = len(points)
    if n < min_size:
        return np.zeros((0, n), bool), np.zeros(0)
    tree = AgglomerativeClustering(n_clusters=None, distance_threshold=0, linkage="ward")
    tree.fit(points)
    size = np.ones(2 * n - 1, np.int64)
    for node, (left, right) in enumerate(tree.children_, start=n):
        size[node] = size[left] + size[right]
    first = np.zeros(2 * n - 1, np.int64)
    joined_at = np.zeros(2 * n - 1)
    for node in range(2 * n - 2, n - 1, -1):
        left, right = tree.children_[node - n]
        first[left], first[right] = first[node], first[node] + size[left]
        joined_at[[left, right]] = tree.distances_[node - n]
    position, size, start, joined_at = first[:n], size[n:-1], first[n:-1], joined_at[n:-1]
    ratio = np.divide(tree.distances_[:-1], joined_at, out=np.ones(n - 2), where=joined_at > 0)
    kept = (size >= min_size) & (size <= _LARGEST_SHARE * n) & (1 - ratio >= MIN_DISTINCTNESS)
    start, end = start[kept, None], (start + size)[kept, None]
    return (position >= start) & (position < end), 1 - ratio[kept]


def _separation(points: np.ndarray, members: np.ndarray) -> float:
    """Return how far the centre of a group is from that of the others, in its own spreads."""
    inside, outside = points[members], points[~members]
    centre = inside.mean(axis=0)
    spread = np.sqrt(((inside - centre) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(centre - outside.mean(axis=0)) / max(spread, 1e-12))


def _stability(points: np.ndarray, members: np.ndarray, seed: int) -> np.ndarray:
    """Find groups again in samples that hold at least `MIN_SIZE` − 1 of their members."""
    rng = np.random.default_rng(seed)
    least = MIN_SIZE - 1
    total, n_samples = np.zeros(len(members)), np.zeros(len(members))
    for _ in range(RESAMPLES if len(members) else 0):
        rows = resample(len(points), rng)
        again, _ = _distinct_branches(points[rows], least)
        sampled = members[:, rows]
        common = sampled.astype(np.float32) @ again.T.astype(np.float32)
        sizes = sampled.sum(axis=1)
        union = sizes[:, None] + again.sum(axis=1) - common
        is_there = sizes >= least
        total += np.where(is_there, (common / np.maximum(union, 1)).max(axis=1, initial=0), 0)
        n_samples += is_there
    return np.asarray(total / np.maximum(n_samples, 1))
