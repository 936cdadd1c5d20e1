"""Near-duplicates: images that were coded twice, resized, or cut a little differently.

In: the hashes of all images, and a way to read embeddings. Out: groups of near-duplicates. The hash
finds candidates among a million images; the model's embedding has to agree.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ReadRows = Callable[[np.ndarray], np.ndarray]
"""Gives the rows (embeddings or scores) of image ids, int64 of shape (n,) in ascending order."""

MOST_BITS = 10
"""Hashes of near-duplicates differ in at most so many of their 64 bits."""

LEAST_COSINE = 0.5
"""Of two embeddings, less the mean of all; unlike images have about 0."""

_UNLIKE = 5.0  # Standard deviations below the mean distance of any two images.
_LEAST_BITS = 2
_MOST_PAIRS = 300_000_000  # Seconds of work.
_FEWEST_PARTS = 4
_FARTHEST = 1024
_IDENTICAL_STEPS = 8
_SAMPLE = 2000


def find_duplicates(
    image_ids: np.ndarray, hashes: np.ndarray, read_embeddings: ReadRows
) -> pd.DataFrame:
    """Group the images that are nearly the same.

    Two images are near-duplicates if their hashes differ in at most `MOST_BITS` bits, or fewer
    where unlike images have similar hashes too (five standard deviations below the mean distance
    of two images, but at least 2), and if the cosine of their embeddings, less the mean embedding,
    is at least `LEAST_COSINE`. A group is what such pairs connect.

    Every pair within that distance is compared in up to some 70,000 images. Among more, those that
    differ least are: within 8 bits in 100,000 and within 4 in a million, and the others only if
    they happen to agree in a part of the hash. The order of rows does not matter.

    Args:
        image_ids: int64 of shape (n,), no two the same.
        hashes: uint64 of shape (n,).
        read_embeddings: is asked once, for the candidates and a sample of 2,000.

    Returns:
        A frame with two rows for each pair found, one from either side: `image_id`, `group` (1, 2,
        …, by the smallest image_id in it), `other_id` and `bits` (in how many their hashes differ);
        ordered by group, image_id, bits and other_id, so that an image's closest pair comes first.
        Of many images with one hash, each is paired with the first and the eight before and after.
    """
    order = np.argsort(image_ids)
    image_ids, hashes = np.asarray(image_ids)[order], np.asarray(hashes, np.uint64)[order]
    first, second = _candidates(hashes, _radius(hashes))
    likeness = _cosines(image_ids, first, second, read_embeddings)
    first, second = first[likeness >= LEAST_COSINE], second[likeness >= LEAST_COSINE]
    bits = np.bitwise_count(hashes[first] ^ hashes[second]).astype(np.int64)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(hashes),) * 2)
    component = connected_components(graph, directed=False)[1]
    rows, others = np.concatenate([first, second]), np.concatenate([second, first])
    pairs = pd.DataFrame(
        {
            "image_id": image_ids[rows],
            "group": component[rows],
            "other_id": image_ids[others],
            "bits": np.concatenate([bits, bits]),
        }
    )
    pairs = pairs.sort_values(["image_id", "bits", "other_id"])
    pairs["group"] = pd.factorize(pairs["group"])[0] + 1
    return pairs.sort_values("group", kind="stable", ignore_index=True)


def take_rows(shards: Iterable[pd.DataFrame], column: str, image_ids: np.ndarray) -> np.ndarray:
    """Collect the rows of some images from shards, one shard in memory at a time.

    Args:
        shards: frames with `image_id`, ascending over all of them, and `column`, arrays of one
            length.
        image_ids: int64 of shape (n,), ascending.

    Returns:
        float32 of shape (n, length).
    """
    blocks = []
    for shard in shards:
        chosen = shard[column][np.isin(shard["image_id"], image_ids)]
        if len(chosen):
            blocks.append(np.stack(chosen.to_list()).astype(np.float32, copy=False))
    return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)


def _radius(hashes: np.ndarray) -> int:
    """Return the distance up to which two of these hashes do not agree by chance."""
    if len(hashes) < 2:
        return MOST_BITS
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(hashes), (2, 20_000))
    bits = np.bitwise_count(hashes[first] ^ hashes[second])[first != second]
    return int(np.clip(bits.mean() - _UNLIKE * bits.std(), _LEAST_BITS, MOST_BITS))


def _candidates(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows whose hashes differ in at most `radius` bits, each pair once."""
    unique, first_row, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    a, b = _similar(unique, radius)
    pairs = [np.stack([first_row[a], first_row[b]])]
    # Of those with one hash, each is held against the first and the next few.
    order = np.argsort(inverse, kind="stable")
    pairs.append(np.stack([first_row[inverse[order]], order]))
    for step in range(1, _IDENTICAL_STEPS + 1):
        same = inverse[order[:-step]] == inverse[order[step:]]
        pairs.append(np.stack([order[:-step][same], order[step:][same]]))
    low, high = np.sort(np.concatenate(pairs, axis=1), axis=0)
    keys = np.unique(low[low < high] * len(hashes) + high[low < high])
    return keys // len(hashes), keys % len(hashes)


def _similar(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of different hashes within the radius.

    Of a hash cut into `radius + 1` parts, one is untouched by as many flips (multi-index hashing,
    Norouzi et al. 2012). Fewer, longer parts make fewer pairs to compare, and find fewer.
    """
    for n_parts in range(max(radius + 1, _FEWEST_PARTS), _FEWEST_PARTS - 1, -1):
        parts = _parts(hashes, n_parts)
        if sum(_n_pairs(part) for part in parts) <= _MOST_PAIRS:
            break
    found = [np.empty((2, 0), np.int64)]
    for part in parts:
        order = np.lexsort((hashes, part))
        ordered, values = hashes[order], part[order]
        n_after = np.searchsorted(values, values, side="right") - np.arange(len(values)) - 1
        rows = np.flatnonzero(n_after)
        step = 1
        while len(rows) and step <= _FARTHEST:
            near = rows[np.bitwise_count(ordered[rows] ^ ordered[rows + step]) <= radius]
            found.append(np.stack([order[near], order[near + step]]))
            step += 1
            rows = rows[n_after[rows] >= step]
    first, second = np.concatenate(found, axis=1)
    return first, second


def _parts(hashes: np.ndarray, n_parts: int) -> list[np.ndarray]:
    """Cut 64 bits into parts of nearly equal length."""
    bounds = [round(64 * part / n_parts) for part in range(n_parts + 1)]
    return [
        (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for low, high in pairwise(bounds)
    ]


def _n_pairs(part: np.ndarray) -> int:
    """Count the pairs that `_similar` compares for a part."""
    counts = np.unique(part, return_counts=True)[1].astype(np.float64)
    steps = np.minimum(counts - 1, _FARTHEST)
    return int((steps * counts - steps * (steps + 1) / 2).sum())


def _cosines(
    image_ids: np.ndarray, first: np.ndarray, second: np.ndarray, read_embeddings: ReadRows
) -> np.ndarray:
    """Return the cosine of the embeddings of each pair of rows, less the mean embedding."""
    if len(first) == 0:
        return np.empty(0)
    sample = np.linspace(0, len(image_ids) - 1, min(_SAMPLE, len(image_ids))).astype(np.int64)
    rows = np.unique(np.concatenate([first, second, sample]))
    embeddings = read_embeddings(image_ids[rows])
    centred = embeddings - embeddings[np.searchsorted(rows, sample)].mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = centred / np.where(lengths == 0, 1, lengths)
    first, second = np.searchsorted(rows, first), np.searchsorted(rows, second)
    blocks = np.array_split(np.arange(len(first)), len(first) // 10_000 + 1)
    return np.concatenate([(centred[first[b]] * centred[second[b]]).sum(axis=1) for b in blocks])
