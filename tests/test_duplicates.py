"""Near-duplicates: found whatever bits differ, confirmed by embeddings, grouped, at any scale."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.diagnose import duplicates
from audit.diagnose.duplicates import find_duplicates, take_rows


def random_hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def flip(value: np.uint64, *places: int) -> np.uint64:
    for place in places:
        value ^= np.uint64(1) << np.uint64(place)
    return value


def find(hashes: np.ndarray, embeddings: np.ndarray | None = None) -> pd.DataFrame:
    """Search images 0, 1, …; by default images with near hashes have near embeddings too."""
    ids = np.arange(len(hashes))
    if embeddings is None:  # The bits themselves: two unlike images have a cosine of about 0.
        embeddings = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32)
    return find_duplicates(ids, hashes, lambda chosen: embeddings[chosen])


def as_tuples(frame: pd.DataFrame) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in frame.itertuples(index=False)]


def test_groups_by_hand():
    hashes = random_hashes(40)
    hashes[7] = flip(hashes[3], 0, 20, 63)  # 3 bits from image 3
    hashes[30] = flip(hashes[7], 1, 2)  # 2 bits from image 7, 5 from image 3
    hashes[21] = hashes[9]
    got = find(hashes)
    assert list(got.columns) == ["image_id", "group", "other_id", "bits"]
    assert as_tuples(got) == [
        (3, 1, 7, 3),
        (3, 1, 30, 5),
        (7, 1, 30, 2),
        (7, 1, 3, 3),
        (30, 1, 7, 2),
        (30, 1, 3, 5),
        (9, 2, 21, 0),
        (21, 2, 9, 0),
    ]


def test_a_chain_is_one_group():
    hashes = random_hashes(30)
    hashes[1] = flip(hashes[0], *range(8))
    hashes[2] = flip(hashes[1], *range(10, 18))  # 16 bits from image 0
    got = find(hashes)
    assert got["group"].tolist() == [1] * 4
    assert as_tuples(got)[0] == (0, 1, 1, 8)


@pytest.mark.parametrize("bits", [1, 5, 10, 11])
def test_any_bits_may_differ_up_to_ten(bits):
    hashes = random_hashes(400, seed=bits)
    rng = np.random.default_rng(bits)
    for row in range(0, 100, 2):
        hashes[row + 1] = flip(hashes[row], *rng.choice(64, bits, replace=False).tolist())
    got = find(hashes)
    assert len(got) == (100 if bits <= 10 else 0)
    assert (got["bits"] == bits).all()


def test_the_embedding_has_to_agree():
    hashes = random_hashes(30)
    hashes[1], hashes[3] = hashes[0], hashes[2]
    embeddings = np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32) + 50
    assert find(hashes, embeddings).empty  # without the mean, nothing is left in common
    embeddings[3] = embeddings[2] + 0.1
    assert as_tuples(find(hashes, embeddings)) == [(2, 1, 3, 0), (3, 1, 2, 0)]


def test_only_candidates_and_a_sample_are_read(monkeypatch):
    monkeypatch.setattr(duplicates, "_SAMPLE", 5)
    hashes = random_hashes(1000)
    hashes[500] = hashes[20]
    asked: list[np.ndarray] = []

    def read(ids: np.ndarray) -> np.ndarray:
        asked.append(ids)
        return np.random.default_rng(0).normal(size=(len(ids), 3))

    find_duplicates(np.arange(1000) * 3, hashes, read)
    (ids,) = asked
    assert len(ids) <= 7 and {60, 1500} <= set(ids.tolist())
    assert (np.diff(ids) > 0).all()


def test_embeddings_without_a_direction_are_nobodys_duplicate():
    hashes = np.full(25, 5, np.uint64)
    assert find(hashes, np.ones((25, 4), np.float32)).empty


def test_many_copies_of_one_image_are_one_group():
    hashes = random_hashes(3000)
    hashes[1000:] = hashes[0]
    got = find(hashes)
    assert got["group"].unique().tolist() == [1]
    assert set(got["image_id"]) == {0, *range(1000, 3000)}
    assert len(got) < 20 * 2001


def test_where_unlike_images_have_like_hashes_fewer_bits_may_differ():
    # Only 16 of the 64 bits ever differ: ten of them would connect everything.
    hashes = random_hashes(500) & np.uint64(0xFFFF)
    hashes[1] = flip(hashes[0], 3)
    assert duplicates._radius(random_hashes(500)) == 10
    assert duplicates._radius(hashes) == 2
    got = find(hashes)
    assert len(got) >= 2 and got["bits"].max() <= 2


def brute_force(hashes: np.ndarray, radius: int) -> set[tuple[int, int]]:
    bits = np.bitwise_count(hashes[:, None] ^ hashes)
    first, second = np.nonzero(np.triu(bits <= radius, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 10))
def test_the_index_misses_no_pair_within_the_radius(seed, radius):
    rng = np.random.default_rng(seed)
    hashes = random_hashes(60, seed)
    near = [
        flip(value, *rng.choice(64, rng.integers(1, 13), replace=False).tolist())
        for value in hashes
    ]
    hashes = np.unique(np.concatenate([hashes, np.array(near, np.uint64)]))
    first, second = duplicates._similar(hashes, radius)
    pairs = {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert pairs == brute_force(hashes, radius)


def test_a_large_set_is_searched_in_fewer_parts(monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 1000)
    hashes = random_hashes(5000)
    rng = np.random.default_rng(0)
    for row in range(0, 200, 2):  # four parts: three flips leave one untouched
        hashes[row + 1] = flip(hashes[row], *rng.choice(64, 3, replace=False).tolist())
    got = find(hashes)
    assert len(got) == 200 and (got["bits"] == 3).all()


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(random):
    hashes = random_hashes(50)
    hashes[[5, 6, 20]] = hashes[[1, 1, 2]]
    ids = np.arange(50) * 7 + 3
    embeddings = dict(
        zip(ids.tolist(), np.random.default_rng(1).normal(size=(50, 64)), strict=True)
    )
    embeddings[38] = embeddings[45] = embeddings[10]  # images 5, 6 and 1
    order = list(range(50))
    random.shuffle(order)

    def read(chosen: np.ndarray) -> np.ndarray:
        return np.stack([embeddings[image_id] for image_id in chosen.tolist()])

    want = find_duplicates(ids, hashes, read)
    pd.testing.assert_frame_equal(find_duplicates(ids[order], hashes[order], read), want)
    assert set(want["image_id"]) == {10, 38, 45}


@pytest.mark.parametrize("n", [0, 1, 2, 19])
def test_few_images_have_no_duplicates(n):
    got = find(random_hashes(n))
    assert got.empty and list(got.columns) == ["image_id", "group", "other_id", "bits"]


def test_two_images_that_are_the_same_are_found():
    # Their mean is each of them, so the embeddings cannot say anything; a third can.
    assert len(find(random_hashes(1).repeat(2))) == 0
    hashes = random_hashes(3)
    hashes[1] = hashes[0]
    assert as_tuples(find(hashes)) == [(0, 1, 1, 0), (1, 1, 0, 0)]


def shards() -> Iterator[pd.DataFrame]:
    for start in (0, 3, 6):
        ids = np.arange(start, start + 3)
        values = [np.array([i, 10.0 * i], np.float32) for i in ids]
        yield pd.DataFrame({"image_id": ids, "embedding": values})


def test_rows_are_taken_from_shards():
    got = take_rows(shards(), "embedding", np.array([1, 2, 7]))
    assert got.dtype == np.float32
    assert got.tolist() == [[1, 10], [2, 20], [7, 70]]
    assert take_rows(shards(), "embedding", np.array([100])).shape == (0, 0)
