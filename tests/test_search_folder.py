"""The folder of a search: it goes on with its own search only, and its tables are safe to open."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit.errors import RunFolderError
from audit.predict.listing import Listing, list_unlabelled
from audit.run_folder import Receipt, RunFolder
from audit.search.query import Query
from audit.search.search_folder import harmless, open_search, write_found, write_left_out

MANIFEST: dict[str, Any] = {"fingerprints": {"model": "m", "data": "d"}}


def query(image_id: int = 1, target: str = "T1") -> Query:
    ones = np.ones((1, 2), np.float32)
    return Query({"id": target}, (image_id,), ones, ones[0], ones[0], None)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "pool" / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.jpg", "=cmd.png"):
        (tmp_path / "pool" / name).write_bytes(b"x")
    (tmp_path / "pool" / "notes.txt").write_text("-")
    return tmp_path / "pool"


def opened(path: Path, pool: Path, manifest: Any = MANIFEST, **changed: Any) -> RunFolder:
    return open_search(path, pool, manifest, query(**changed), list_unlabelled(pool))


def test_the_same_search_goes_on(tmp_path: Path, pool: Path):
    first = opened(tmp_path / "find" / "T1", pool)
    before = (first.path / "search.json").read_bytes()
    (first.path / "shard").touch()
    assert opened(tmp_path / "find" / "T1", pool).path == first.path
    assert (first.path / "search.json").read_bytes() == before


def test_another_search_is_refused_with_what_differs(tmp_path: Path, pool: Path):
    path = opened(tmp_path / "T1", pool).path
    with pytest.raises(RunFolderError, match="another value of the run"):
        opened(path, pool, {"fingerprints": {"model": "n", "data": "d"}})
    with pytest.raises(RunFolderError, match="another value of the target"):
        opened(path, pool, image_id=2)
    with pytest.raises(RunFolderError, match="another value of target, the target"):
        opened(path, pool, image_id=2, target="T2")
    (pool / "c.png").write_bytes(b"x")
    with pytest.raises(RunFolderError, match=r"another value of the pool\."):
        opened(path, pool)


def test_what_is_there_is_never_mixed_with_a_search(tmp_path: Path, pool: Path):
    (tmp_path / "mine").mkdir()
    assert opened(tmp_path / "mine", pool)  # an empty folder will do
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(RunFolderError, match="a folder with other files"):
        opened(tmp_path / "full", pool)
    with pytest.raises(RunFolderError, match="Received: a file"):
        opened(tmp_path / "full" / "mine.txt", pool)
    with pytest.raises(RunFolderError, match="cannot be written"):
        opened(tmp_path / "full" / "mine.txt" / "T1", pool)


def test_a_search_is_not_kept_in_its_own_pool(tmp_path: Path, pool: Path):
    (tmp_path / "link").symlink_to(pool)
    for path in (pool, pool / "run" / "find" / "T1", tmp_path / "link" / "T1"):
        with pytest.raises(RunFolderError, match="kept in the pool that it searches"):
            opened(path, pool)
    assert not (pool / "run").exists()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_that_was_left_out_is_listed_with_the_reason(tmp_path: Path, pool: Path):
    listing: Listing = list_unlabelled(pool)
    assert listing.images["path"].tolist() == ["=cmd.png", "b.png", "deep/a.jpg"]
    folder = RunFolder(tmp_path / "T1")
    receipts = [Receipt("likeness", 0, 1, ((0, "broken"),)), Receipt("likeness", 1, 0, ((2, "x"),))]
    table = write_left_out(folder, listing, receipts)
    assert table["path"].tolist() == ["=cmd.png", "deep/a.jpg", "notes.txt"]
    rows = rows_of(folder.path / "unreadable.csv")
    assert [(r["path"], r["kind"], r["reason"]) for r in rows[:2]] == [
        ("./=cmd.png", "unreadable", "broken"),
        ("deep/a.jpg", "unreadable", "x"),
    ]
    assert rows[2]["kind"] == "skipped"


def test_the_table_is_read_back_and_holds_no_formula(tmp_path: Path):
    table = pd.DataFrame(
        {
            "rank": [1, 2],
            "path": ["@sum(A1)\n.png", 'a,"b".png'],
            "likeness": np.array([0.123456789, np.nan], np.float32),
            "predicted_class": ["-1", "ö"],
        }
    )
    path = write_found(RunFolder(tmp_path), table)
    first, second = rows_of(path)
    assert first == {
        "rank": "1",
        "path": "./@sum(A1)\n.png",
        "likeness": "0.123457",
        "predicted_class": "'-1",
    }
    assert second == {
        "rank": "2",
        "path": 'a,"b".png',
        "likeness": "",
        "predicted_class": "ö",
    }


def test_only_what_begins_like_a_formula_is_changed():
    assert harmless("a=b", "./") == "a=b"
    assert harmless("", "./") == ""
    assert harmless("\t=b", "./") == "./\t=b"
