"""Group maps by where they look: a coarse sketch of each map, dense groups of sketches, stability.

In: fused maps. Out: for each map the number of its group, or -1. Two sketches are compared by their
affinity, the share of mass they have in common (Bhattacharyya 1943): 1 if equal, 0 if apart. It is
the dot product of sketches, and their Euclidean distance is the Hellinger distance times root 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.cluster import HDBSCAN

GRID = 8
"""Rows and columns of a sketch."""

MIN_SIZE = 5
"""Fewer maps than this are no pattern."""

MIN_SHARE = 0.01
"""A pattern holds at least this share of the maps it was found in, so that lists stay short."""

MIN_AFFINITY = 0.5
"""Members of a pattern have at least this affinity to each other on average."""

MIN_STABILITY = 0.5
"""Below it a cluster counts as dissolved (Hennig 2007, doi:10.1016/j.csda.2006.11.025)."""

_MIN_SEPARATION = 0.15
_MIN_GAIN = 0.05
_NEIGHBOURS = 3
RESAMPLES = 20
"""How often a search is repeated to see what comes back."""

_RESAMPLE_SHARE = 0.8
_RESAMPLE_AT_MOST = 500


@dataclass(frozen=True)
class Clusters:
    """The rule that gives a map its pattern.

    Attributes:
        centres: float64 of shape (n_patterns, GRID * GRID), the mean sketches, of length 1.
        cuts: float64 of shape (n_patterns,), the affinity to the centre that a member has at least.
    """

    centres: np.ndarray
    cuts: np.ndarray

    def assign(self, sketches: np.ndarray) -> np.ndarray:
        """Return the nearest centre within reach of each sketch, or -1: int64 of shape (n,).

        Args:
            sketches: float64 of shape (n, GRID * GRID); all zeros, for no focus, gives -1.
        """
        if len(self.centres) == 0:
            return np.full(len(sketches), -1)
        affinity = sketches @ self.centres.T
        affinity[affinity < self.cuts - 1e-9] = -1  # rounding must not shut out the last member
        nearest = affinity.argmax(axis=1)
        return np.where(affinity.max(axis=1) > 0, nearest, -1)


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


def find_clusters(sketches: np.ndarray, seed: int) -> tuple[Clusters, np.ndarray]:
    """Find groups of maps that look at the same place; the data choose how many.

    Dense groups come from HDBSCAN; groups that are not clearly apart are merged; if there are
    none, all maps together are tried as one. A group is kept if its members look alike and if it
    comes back when the search is repeated on 20 random samples of 80 % of the maps. With fewer
    than seven maps nothing can come back, and nothing is kept. The fine groups (the leaves of
    HDBSCAN's tree) replace the coarse ones if clearly more of the maps come back in them.

    Args:
        sketches: float64 of shape (n, GRID * GRID), of length 1 each, in a fixed order.
        seed: decides the resamples.

    Returns:
        The rule, and the stability of each pattern, 0 to 1: the mean over the resamples of its
        best Jaccard overlap with a pattern found there; at least `MIN_STABILITY`.

    Source: Campello et al. 2013 for HDBSCAN; Hennig 2007 for the stability.
    """
    coarse = _find_stable(sketches, "eom", seed)
    fine = _find_stable(sketches, "leaf", seed)
    gain = _stable_share(sketches, *fine) - _stable_share(sketches, *coarse)
    # Leaves alone would also be found in scattered maps: they may only divide what there is.
    return fine if len(coarse[1]) > 0 and gain > _MIN_GAIN else coarse


def mean_affinity(members: np.ndarray) -> float:
    """Return the mean affinity over all pairs of different members."""
    n = len(members)
    total = members.sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def resample(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return positions of a random 80 % of n, at most 500, in order."""
    size = min(int(_RESAMPLE_SHARE * n), _RESAMPLE_AT_MOST)
    return np.sort(rng.choice(n, size, replace=False))


def _find_stable(sketches: np.ndarray, method: str, seed: int) -> tuple[Clusters, np.ndarray]:
    clusters = _fit(sketches, method)
    stability = _stability(sketches, clusters, method, np.random.default_rng(seed))
    kept = stability >= MIN_STABILITY
    return Clusters(clusters.centres[kept], clusters.cuts[kept]), stability[kept]


def _stable_share(sketches: np.ndarray, clusters: Clusters, stability: np.ndarray) -> float:
    """Share of the maps that are in a pattern, each counted by the stability of its pattern."""
    assigned = clusters.assign(sketches)
    return float(stability[assigned[assigned >= 0]].sum() / max(len(sketches), 1))


def _sketch(cam: np.ndarray) -> np.ndarray:
    cells = cv2.resize(cam.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    cells = cells.astype(np.float64).ravel()
    relief = np.maximum(cells - np.median(cells), 0)
    if not relief.any():  # the larger half lies at the peak
        relief = cells - cells.min()
    mass = relief.sum()
    return np.asarray(np.sqrt(relief / mass)) if mass > 0 else np.zeros(GRID * GRID)


def _fit(sketches: np.ndarray, method: str) -> Clusters:
    n = len(sketches)
    min_size = max(MIN_SIZE, round(MIN_SHARE * n))
    if n < min_size:
        return _rule(sketches, np.full(n, -1))
    search = HDBSCAN(
        min_cluster_size=min_size,
        min_samples=_NEIGHBOURS,
        cluster_selection_method=method,
        copy=True,
    )
    groups = _merge(sketches, search.fit_predict(sketches))
    if groups.max() < 0:
        groups = np.zeros(n, np.int64)
    clusters = _rule(sketches, groups)
    assigned = clusters.assign(sketches)
    members = [sketches[assigned == group] for group in range(len(clusters.centres))]
    kept = [len(m) >= min_size and mean_affinity(m) >= MIN_AFFINITY for m in members]
    return Clusters(clusters.centres[kept], clusters.cuts[kept])


def _merge(sketches: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Join the two closest groups until all are apart: two halves of one group are one group."""
    groups = groups.copy()
    while True:
        names = np.unique(groups[groups >= 0])
        members = [sketches[groups == name] for name in names]
        within = [1 - mean_affinity(m) for m in members]
        closest, least = (0, 0), _MIN_SEPARATION
        for i in range(len(names)):
            for j in range(i):
                between = 1 - members[i].mean(axis=0) @ members[j].mean(axis=0)
                # 1 - affinity is half a squared distance: the root compares plain distances.
                separation = 1 - np.sqrt(max(within[i], within[j]) / max(between, 1e-12))
                if separation < least:
                    closest, least = (i, j), separation
        if closest == (0, 0):
            return groups
        groups[groups == names[closest[0]]] = names[closest[1]]


def _rule(sketches: np.ndarray, groups: np.ndarray) -> Clusters:
    """Reach as far as the least typical member, each held against the centre of the *others*.

    With its own part in the centre a member would look more typical than a fresh map can.
    """
    centres, cuts = [], []
    for group in np.unique(groups[groups >= 0]):
        members = sketches[groups == group]
        total = members.sum(axis=0)
        others = total - members
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        centres.append(total / np.linalg.norm(total))
        cuts.append(np.einsum("nd,nd->n", members, others).min())
    return Clusters(np.array(centres).reshape(-1, sketches.shape[1]), np.array(cuts))


def _stability(
    sketches: np.ndarray, clusters: Clusters, method: str, rng: np.random.Generator
) -> np.ndarray:
    n, n_patterns = len(sketches), len(clusters.centres)
    if n_patterns == 0:
        return np.zeros(0)
    assigned = clusters.assign(sketches)
    overlaps: list[list[float]] = [[] for _ in range(n_patterns)]
    for _ in range(RESAMPLES):
        rows = resample(n, rng)
        again = _fit(sketches[rows], method)
        found = again.assign(sketches[rows])
        for pattern in range(n_patterns):
            members = assigned[rows] == pattern
            if members.sum() >= MIN_SIZE:  # with fewer it could not have been found
                best = [_jaccard(members, found == other) for other in range(len(again.centres))]
                overlaps[pattern].append(max(best, default=0.0))
    return np.array([np.mean(values) if values else 0.0 for values in overlaps])


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())
