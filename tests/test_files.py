"""Whole files or none, on this machine and in an object store."""

import errno
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from audit import files
from audit.errors import ResourceError, RunFolderError
from audit.files import (
    atomic,
    parquet_source,
    read_footer,
    read_json,
    write_bytes,
    write_json,
    write_parquet,
)
from audit.places import Remote


def file_names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_written_file_is_whole_and_alone(tmp_path):
    write_bytes(tmp_path / "deep" / "file.bin", b"new")
    assert (tmp_path / "deep" / "file.bin").read_bytes() == b"new"
    assert file_names(tmp_path) == ["deep/file.bin"]


@pytest.mark.parametrize("failing", ["write_table", "_flush", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "table.parquet"
    write_parquet(path, pa.table({"a": [1]}))

    def fail(*args, **kwargs):
        if failing == "write_table":
            args[1].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {"write_table": pq, "_flush": files, "replace": os}[failing]
    monkeypatch.setattr(place, failing, fail)
    with pytest.raises(ResourceError, match="No space left"):
        write_parquet(path, pa.table({"a": [2]}))
    assert pq.read_table(path)["a"].to_pylist() == [1]
    assert file_names(tmp_path) == ["table.parquet"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(tmp_path / "table.parquet", pa.table({"a": [2]}))
    assert file_names(tmp_path) == []


# Behind a URL


def test_a_file_is_uploaded_when_it_is_whole(bucket: Remote):
    with atomic(bucket / "deep/file.bin") as temporary:
        temporary.write_bytes(b"half")
        assert not (bucket / "deep/file.bin").exists()
        temporary.write_bytes(b"whole")
    assert not temporary.exists()
    assert bucket.sizes() == {"deep/file.bin": 5}


def test_what_fails_before_it_is_whole_is_not_uploaded(bucket: Remote):
    write_bytes(bucket / "file.bin", b"old")
    with pytest.raises(KeyboardInterrupt), atomic(bucket / "file.bin") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (bucket / "file.bin").read_bytes() == b"old"
    assert bucket.sizes() == {"file.bin": 3}


def test_a_full_disk_here_is_not_taken_for_a_full_store(bucket: Remote):
    with pytest.raises(ResourceError) as caught, atomic(bucket / "x", 1000):
        raise OSError(errno.ENOSPC, "full")
    assert str(caught.value).startswith(f"There is no room for `{tempfile.gettempdir()}`.")
    assert "unknown" not in str(caught.value)


def test_a_store_that_may_not_be_written_is_named(bucket: Remote, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(MemoryFileSystem, "put_file", fail)
    with pytest.raises(RunFolderError) as caught:
        write_parquet(bucket / "x.parquet", pa.table({"a": [1]}))
    named = (
        f"`{bucket}/x.parquet` cannot be written. Received: The specified bucket does not exist."
    )
    assert str(caught.value).startswith(named)


def test_a_file_has_the_same_bytes_here_and_there(bucket: Remote, tmp_path: Path):
    table = pa.table({"a": [1, 2], "b": ["x", "y"]}).replace_schema_metadata({"receipt": "[2]"})
    for place in (bucket, tmp_path):
        write_parquet(place / "t.parquet", table)
        write_json(place / "v.json", {"where": place / "model", "nothing": float("nan")})
    assert (bucket / "t.parquet").read_bytes() == (tmp_path / "t.parquet").read_bytes()
    assert pq.read_table(parquet_source(bucket / "t.parquet")).equals(table)
    assert parquet_source(tmp_path / "t.parquet") == tmp_path / "t.parquet"
    assert read_json(bucket / "v.json") == {"where": f"{bucket}/model", "nothing": None}


@pytest.mark.parametrize("usual", [8, 64, 1 << 16])  # The footer of this table has 400 bytes or so.
def test_a_footer_is_read_however_long_it_is(
    bucket: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual: int
):
    monkeypatch.setattr(files, "_USUAL_FOOTER", usual)
    table = pa.table({"a": [1, 2, 3]}).replace_schema_metadata({"receipt": "[3]"})
    for place in (bucket, tmp_path):
        write_parquet(place / "t.parquet", table)
        footer = read_footer(place / "t.parquet")
        assert (footer.num_rows, footer.metadata[b"receipt"]) == (3, b"[3]")


def test_a_torn_or_missing_file_has_no_footer(bucket: Remote):
    write_bytes(bucket / "torn.parquet", b"PAR1 and no more")
    with pytest.raises(pa.ArrowInvalid):
        read_footer(bucket / "torn.parquet")
    with pytest.raises(FileNotFoundError):
        read_footer(bucket / "missing.parquet")


def test_a_missing_json_file_is_an_error_for_the_user(bucket: Remote):
    with pytest.raises(RunFolderError, match=r"`memory://.*/none.json` cannot be read"):
        read_json(bucket / "none.json")
