"""One writer for a folder in a store: whoever lives keeps it, and of the dead it is taken."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from audit import remote_lock
from audit.errors import RunFolderError
from audit.places import Remote
from audit.remote_lock import Hold, held
from audit.run_folder import Receipt, RunFolder
from audit.run_lock import locked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_lock, "BEAT", 0.02)
    monkeypatch.setattr(remote_lock, "WATCH", 0.45)


def lock_of(bucket: Remote) -> Remote:
    return bucket / "run/logs/run.lock"


def written_by(bucket: Remote, **sign: Any) -> None:
    """Leave a lock as another process would."""
    here = remote_lock._here() | {"owner": "another", "beat": 1}
    lock_of(bucket).write_bytes(json.dumps(here | sign).encode())


@contextmanager
def another_lives(bucket: Remote) -> Iterator[None]:
    """Hold a folder as a process of another machine would."""
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.01):
            number += 1
            written_by(bucket, beat=number, space="elsewhere", host="far-away")

    written_by(bucket, space="elsewhere", host="far-away")
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_second_is_refused_and_the_next_is_not(bucket: Remote):
    with locked(RunFolder(bucket / "run")):
        with (
            pytest.raises(RunFolderError, match=r"run` is in use\. Received: another gradcam"),
            locked(RunFolder(f"{bucket}/run")),
        ):
            pass
        assert bucket.sizes().keys() == {"run/logs/run.lock"}
    assert not bucket.sizes()
    with locked(RunFolder(bucket / "run")):
        pass


def test_a_holder_gives_signs_of_life(bucket: Remote):
    with held(lock_of(bucket)):
        first = lock_of(bucket).read_bytes()
        deadline = time.monotonic() + 10
        while (now := lock_of(bucket).read_bytes()) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        before, after = json.loads(first), json.loads(now)
        assert after.pop("beat") > before.pop("beat")
        assert after == before


def test_one_who_lives_elsewhere_is_named(bucket: Remote):
    with (
        another_lives(bucket),
        pytest.raises(RunFolderError, match="on the machine `far-away`"),
        held(lock_of(bucket)),
    ):
        pass


def test_of_one_who_died_elsewhere_the_folder_is_taken_after_a_while(
    bucket: Remote, caplog: pytest.LogCaptureFixture
):
    written_by(bucket, space="elsewhere")
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, "audit"), held(lock_of(bucket)) as hold:
        assert time.monotonic() - begin >= 0.45
        assert json.loads(lock_of(bucket).read_bytes())["owner"] == hold.owner
    assert "of a run that was killed is removed" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who died")
def test_of_one_who_died_here_the_folder_is_taken_at_once(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_lock, "WATCH", 3600)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    written_by(bucket, process=process.pid)
    with held(lock_of(bucket)):
        pass


def test_one_who_lives_here_is_not_taken_for_dead(bucket: Remote):
    assert not remote_lock._died_here(remote_lock._here() | {"process": os.getppid()})
    assert not remote_lock._died_here(remote_lock._here() | {"process": "1"})
    assert not remote_lock._died_here({})


@pytest.mark.parametrize("content", [b"", b"no lock", b"[]", b"{}"])
def test_what_is_no_lock_is_removed(bucket: Remote, content: bytes):
    lock_of(bucket).write_bytes(content)
    with held(lock_of(bucket)):
        pass
    assert not lock_of(bucket).exists()


def test_who_has_lost_the_folder_writes_no_more_and_leaves_the_lock(bucket: Remote):
    folder = RunFolder(bucket / "run")
    with locked(folder):
        folder.write_manifest({"status": "running"})
        written_by(bucket)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                folder.check_owner()
            except RunFolderError:
                break
            time.sleep(0.01)
        with pytest.raises(RunFolderError, match=r"has been taken over\. Received: a lock of an"):
            folder.write_manifest({"status": "done"})
        with pytest.raises(RunFolderError, match="taken over"):
            folder.write_shard("x", 0, pa.table({"a": [1]}), Receipt("x", 0, 0))
    assert json.loads(lock_of(bucket).read_bytes())["owner"] == "another"
    assert folder.read_manifest() == {"status": "running"}


def test_a_sign_that_cannot_be_given_is_no_end(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    hold = Hold(lock_of(bucket))
    hold.path.create(hold.sign())

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", fail)
        hold.give_sign()
        hold.release()
    assert "no sign of life could be given: `memory://" in caplog.text
    assert "the lock could not be removed: `memory://" in caplog.text
    hold.check()
    hold.give_sign()
    hold.check()
    hold.release()
    assert not hold.path.exists()


def test_an_attempt_that_seemed_to_fail_but_did_not_is_ones_own(bucket: Remote):
    hold = Hold(lock_of(bucket))
    hold.path.create(hold.sign())
    assert remote_lock._created(hold)
    assert not remote_lock._created(Hold(lock_of(bucket)))
