"""Places: which text is a URL, what is refused and kept secret, and what a store is asked."""

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from audit import places
from audit.errors import ConfigError, PlaceError
from audit.places import Remote, is_url, lies_in, place, without_secrets

# Texts


@pytest.mark.parametrize(
    "text", ["val", "/data/val", "../val", "C:\\data", "C:/data", "a:b", "val/s3:", "s3:/x", ""]
)
def test_what_is_no_url_stays_the_path_that_it_was(text: str):
    assert place(text) == Path(text)
    assert not is_url(text)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///data/val", "/data/val"),
        ("file:///data/my%20val/", "/data/my val"),
        ("FILE:///data/val", "/data/val"),
        ("file://localhost/data/val", "/data/val"),
    ],
)
def test_a_file_url_is_a_path_of_this_machine(url: str, path: str):
    assert place(url) == Path(path)


def test_a_path_and_a_place_stay_what_they_are(bucket: Remote, tmp_path: Path):
    assert place(tmp_path) is tmp_path
    assert place(bucket) is bucket


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("s3://key:secret@bucket/val", "a password"),
        ("s3://key:sec/ret@bucket/val", "a password"),
        ("memory://bucket/val?token=secret", "a query"),
        ("memory://bucket/val#secret", "a query"),
        ("memory://bucket/../other", "`..`"),
        ("file:///data/../secret", "`..`"),
        ("memory://bucket::file:///secret", "within another"),
        ("memory://bucket/a::b", "within another"),
        ("memory://", "names nothing"),
        ("memory:///", "names nothing"),
        ("file://host/data", "another machine"),
        ("file://C:/data", "another machine"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_tells_no_secret(url: str, what: str):
    with pytest.raises(ConfigError, match="cannot be used as a URL") as caught:
        place(url)
    assert what in str(caught.value)
    if "query" in what or ("password" in what and "@" in url):
        assert "sec" not in str(caught.value)


def test_the_name_of_a_container_before_its_account_is_no_secret():
    url = "abfss://container@account.dfs.core.windows.net/val"
    assert places._why_not_url(url, "abfss") is None
    assert without_secrets(url) == url


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="a URL of the scheme 'https'"):
        place("https://example.org/val?key=1")


@pytest.mark.parametrize("url", ["s3://bucket/val", "memory://bucket/val", "file:///val"])
def test_a_url_that_was_made_a_path_is_refused(url: str):
    with pytest.raises(ConfigError, match=r"is no URL any more\. Received"):
        place(Path(url))


def test_a_folder_that_is_called_like_a_scheme_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("s3:/bucket").mkdir(parents=True)
    assert place(Path("s3://bucket")).is_dir()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no `s3://k:a/b@c/d` here", "no `s3://…@c/d` here"),
        ('to "http://127.0.0.1:80/a?sig=1&x=2" now', 'to "http://127.0.0.1:80/a?…" now'),
        ("gs://bucket/a and gs://bucket/b#1", "gs://bucket/a and gs://bucket/b?…"),
        ("what? no: a@b", "what? no: a@b"),
    ],
)
def test_secrets_are_taken_out_of_a_text(text: str, told: str):
    assert without_secrets(text) == told


# Names


def test_names_are_those_of_a_path(bucket: Remote):
    file = bucket / "logs" / "run.log"
    assert (file.name, file.stem, file.suffix) == ("run.log", "run", ".log")
    assert str(file) == file.as_posix() == f"{bucket}/logs/run.log"
    assert file.parent.parent == bucket == place(f"{bucket}/")
    assert file.with_name("run.lock") == bucket / "logs/run.lock"
    assert file.resolve() is file.absolute() is file
    assert pickle.loads(pickle.dumps(file)) == file
    assert pickle.loads(pickle.dumps(file)).anchor == str(bucket)


def test_what_lies_in_what(bucket: Remote, tmp_path: Path):
    assert lies_in(bucket, bucket)
    assert lies_in(bucket / "a", bucket)
    assert not lies_in(bucket, bucket / "a")
    assert not lies_in(bucket.with_name("deeper"), bucket)
    assert not lies_in(bucket, tmp_path)
    assert not lies_in(tmp_path, bucket)
    assert lies_in(tmp_path / "a" / ".." / "b", tmp_path)


# What is there


def test_a_folder_is_what_has_files_in_it(bucket: Remote):
    assert not bucket.exists()
    assert list(bucket.glob("*")) == []
    with pytest.raises(FileNotFoundError):
        bucket.iterdir()
    for name in ("b.txt", "a/1.txt", "a/2.csv", "deep/deep/x"):
        (bucket / name).write_bytes(name.encode())
    assert bucket.is_dir()
    assert not bucket.is_file()
    assert (bucket / "b.txt").is_file()
    assert not (bucket / "b").exists()
    assert [path.name for path in bucket.iterdir()] == ["a", "b.txt", "deep"]
    assert [str(path) for path in (bucket / "a").glob("*.txt")] == [f"{bucket}/a/1.txt"]
    assert bucket.sizes() == {"b.txt": 5, "a/1.txt": 7, "a/2.csv": 7, "deep/deep/x": 11}


@pytest.mark.parametrize(("n_bytes", "end"), [(2, b"ef"), (6, b"abcdef"), (100, b"abcdef")])
def test_the_end_of_a_file(bucket: Remote, n_bytes: int, end: bytes):
    (bucket / "x").write_bytes(b"abcdef")
    assert (bucket / "x").read_end(n_bytes) == end


def test_of_two_who_create_a_file_one_succeeds(bucket: Remote):
    (bucket / "x").create(b"first")
    with pytest.raises(FileExistsError):
        (bucket / "x").create(b"second")
    assert (bucket / "x").read_text("utf-8") == "first"


def test_a_file_can_be_removed_once(bucket: Remote):
    (bucket / "x").write_bytes(b"")
    (bucket / "x").unlink()
    (bucket / "x").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (bucket / "x").unlink()


def test_files_and_folders_come_and_go_whole(bucket: Remote, tmp_path: Path):
    source = tmp_path / "here"
    for name in ("index.html", "a/b.html"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    for name in ("index.html", "old.html"):
        (bucket / "report" / name).write_bytes(b"old")
    (bucket / "report").replace_files(source, last="index.html")
    assert (bucket / "report").sizes() == {"index.html": 10, "a/b.html": 8}
    (bucket / "report").download(tmp_path / "there")
    assert (tmp_path / "there" / "a" / "b.html").read_text() == "a/b.html"
    (bucket / "report" / "index.html").download(tmp_path / "one.html")
    assert (tmp_path / "one.html").read_text() == "index.html"


# A store that does not answer


def break_store(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Exception]:
    """Let the next questions for a content fail, and return the errors that are still to come."""
    left, cat_file = list(errors), MemoryFileSystem.cat_file

    def fail(store: Any, *args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return cat_file(store, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    return left


class StoreError(Exception):
    """Stands for the errors of a store's own package, which have nothing in common."""


def test_a_store_that_never_answered_is_not_asked_twice(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch
):
    left = break_store(monkeypatch, StoreError("No key in s3://k:secret@b\nat all."), StoreError())
    with pytest.raises(PlaceError, match=r"cannot be reached\. Received: No key in ") as caught:
        (bucket / "x").read_bytes()
    assert "s3://…@b at all. See to" in str(caught.value)
    assert len(left) == 1
    with pytest.raises(PlaceError, match=r"Received: StoreError\. "):
        (bucket / "x").read_bytes()


def test_a_store_that_has_answered_is_asked_again_for_minutes(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    slept: list[float] = []
    monkeypatch.setattr(places.time, "sleep", slept.append)
    (bucket / "x").write_bytes(b"content")
    break_store(monkeypatch, OSError(errno.ENETUNREACH, "away"), StoreError("away"))
    assert (bucket / "x").read_bytes() == b"content"
    assert slept == [1, 2]
    assert "away; trying again in 2 s" in caplog.text
    slept.clear()
    left = break_store(monkeypatch, *[StoreError("away")] * 30)
    with pytest.raises(PlaceError):
        (bucket / "x").read_bytes()
    assert slept == [1, 2, 4, 8, 15, 30, 60, 60, 60, 60]
    with pytest.raises(PlaceError):
        (bucket / "x").read_bytes()
    assert (len(slept), len(left)) == (10, 18)


def test_one_that_need_not_succeed_is_not_tried_again(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch
):
    (bucket / "x").write_bytes(b"content")
    break_store(monkeypatch, StoreError("away"))
    with pytest.raises(PlaceError):
        (bucket / "x").read_bytes(patient=False)


def test_a_file_that_may_not_be_read_is_one_of_many_or_an_end(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch
):
    (bucket / "x").write_bytes(b"content")
    break_store(monkeypatch, PermissionError("Access Denied"), PermissionError("Access Denied"))
    with pytest.raises(PermissionError):
        (bucket / "x").fetch()
    with pytest.raises(PlaceError, match="Received: Access Denied"):
        (bucket / "x").read_bytes()
    assert (bucket / "x").fetch() == b"content"
    with pytest.raises(FileNotFoundError):
        (bucket / "y").fetch()
