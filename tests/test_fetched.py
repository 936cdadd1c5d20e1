"""Images behind a URL: the pixels, the order and the reasons of files on this machine."""

import threading
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from audit.errors import PlaceError
from audit.places import Place, Remote
from audit.predict.dataset import FileSource
from audit.predict.fetched import FetchedSource, open_files
from audit.predict.listing import Listing, list_images

MAX_PIXELS = 100_000


def source_of(root: Place, **options: Any) -> FileSource:
    return open_files(
        list_images(root), (24, 20), 3, max_pixels=MAX_PIXELS, aspect="crop", **options
    )


@pytest.fixture
def both(bucket: Remote, tmp_path: Path) -> tuple[Path, Remote]:
    """The same images here and there, some of which cannot be read."""
    rng = np.random.default_rng(0)
    for number in range(150):
        shape = rng.integers(8, 40, 2)
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        suffix = ("png", "jpg", "bmp")[number % 3]
        drawn_set.save_image(tmp_path / f"{'ab'[number % 2]}/{number:03d}.{suffix}", image)
    whole = (tmp_path / "a" / "000.png").read_bytes()
    spoilt = {
        "a/0-empty.png": b"",
        "a/0-text.jpg": b"no picture",
        "b/0-cut.png": whole[: len(whole) // 2],
        "b/0-huge.png": whole[:16] + bytes([0, 0, 127, 255]) * 2 + whole[24:],
        "b/0-long.png": whole + bytes(MAX_PIXELS * 8),
        "b/0-nul.png": whole + bytes(9),  # What ends in zeros must come as it is.
        "b/0-endless.jpg": b"\xff\xd8\xff" + bytes(1 << 17),
    }
    for name, content in spoilt.items():
        (tmp_path / name).write_bytes(content)
    for path in tmp_path.rglob("*.*"):
        (bucket / path.relative_to(tmp_path).as_posix()).write_bytes(path.read_bytes())
    return tmp_path, bucket


def read_all(source: FileSource, ids: list[int], batch_size: int) -> list[tuple[Any, ...]]:
    return [
        (image_ids.tolist(), pixels.numpy().tobytes(), sizes.tolist())
        for image_ids, pixels, sizes in source.sized_batches(ids, batch_size)
    ]


def test_a_listing_has_the_same_rows_and_fingerprint(both: tuple[Path, Remote]):
    here, there = map(list_images, both)
    pd.testing.assert_frame_equal(here.images, there.images)
    pd.testing.assert_frame_equal(here.left_out, there.left_out)
    assert here.fingerprint() == there.fingerprint()
    (both[1] / "a/000.png").write_bytes(b"of another size")
    assert list_images(both[1]).fingerprint() != here.fingerprint()


def test_batches_are_those_of_files(both: tuple[Path, Remote]):
    here, there = map(source_of, both)
    assert type(here) is FileSource
    assert type(there) is FetchedSource
    ids = np.random.default_rng(1).permutation(len(here.listing.images)).tolist()
    for some in (ids, sorted(ids), ids[:3], []):
        assert read_all(here, some, 16) == read_all(there, some, 16)
    assert sum(len(batch[0]) for batch in read_all(there, ids, 16)) == 151


def test_reasons_are_those_of_files(both: tuple[Path, Remote]):
    here, there = map(source_of, both)
    reasons = {
        path: (here.why_unreadable(number), there.why_unreadable(number))
        for number, path in enumerate(here.listing.images["path"])
    }
    assert all(first == second for first, second in reasons.values()), reasons
    assert sum(first is not None for first, _ in reasons.values()) == 6
    assert reasons["b/0-long.png"][0].endswith("than a picture of --max-pixels 100,000 can need")


def test_what_is_too_large_is_not_fetched(
    both: tuple[Path, Remote], monkeypatch: pytest.MonkeyPatch
):
    there = source_of(both[1])
    number = there.listing.images["path"].tolist().index("b/0-long.png")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: pytest.fail("fetched"))
    assert "more than a picture of --max-pixels" in str(there.why_unreadable(number))


def test_a_worker_that_knows_no_sizes_reads_the_same(both: tuple[Path, Remote]):
    known = source_of(both[1])
    listing = known.listing
    bare = Listing(
        listing.kind, listing.root, listing.images, listing.class_names, listing.left_out
    )
    source = open_files(bare, (24, 20), 3, max_pixels=MAX_PIXELS, aspect="crop")
    ids = list(range(len(listing.images)))
    assert read_all(source, ids, 16) == read_all(known, ids, 16)


def fail_for(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    cat_file = MemoryFileSystem.cat_file

    def fail(store: Any, path: str, **kwargs: Any) -> bytes:
        if path.endswith(name):
            raise error
        return bytes(cat_file(store, path, **kwargs))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)


def test_an_image_that_is_gone_or_denied_is_unreadable(
    both: tuple[Path, Remote], monkeypatch: pytest.MonkeyPatch
):
    source = source_of(both[1])
    paths = source.listing.images["path"].tolist()
    gone, denied = paths.index("a/002.bmp"), paths.index("b/003.png")
    (both[1] / "a/002.bmp").unlink()
    fail_for(monkeypatch, "b/003.png", PermissionError("Access Denied"))
    assert source.why_unreadable(gone) == "it is gone, or a link to nothing"
    assert source.why_unreadable(denied) == "it may not be read with these credentials"
    seen = [
        number for batch in read_all(source, [gone, denied, gone + 1], 2) for number in batch[0]
    ]
    assert seen == [gone + 1]


def test_a_store_that_is_gone_ends_the_reading_and_loses_no_image_in_silence(
    both: tuple[Path, Remote], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("audit.places._WAITS", ())
    source = source_of(both[1])
    ids = [i for i, path in enumerate(source.listing.images["path"]) if "/0-" not in path]
    fail_for(monkeypatch, source.listing.images["path"][ids[100]], ConnectionError("away"))
    seen: list[int] = []
    with pytest.raises(PlaceError, match="cannot be reached"):
        for image_ids, _ in source.batches(ids, 8):
            seen += image_ids.tolist()
    assert seen == ids[:100]


def test_who_wants_no_more_images_leaves_no_thread_behind(both: tuple[Path, Remote]):
    source = source_of(both[1])
    batches = source.batches(list(range(100)), 4)
    next(batches)
    batches.close()
    del batches
    for thread in threading.enumerate():
        if thread.name.startswith("fetch"):
            thread.join(10)
            assert not thread.is_alive()
