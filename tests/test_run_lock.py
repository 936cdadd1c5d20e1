"""One writer at a time; whoever dies gives the folder free."""

import errno
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audit import run_lock
from audit.errors import RunFolderError
from audit.run_folder import RunFolder
from audit.run_lock import locked

HOLD = """
import sys, time
from audit.run_folder import RunFolder
from audit.run_lock import locked
with locked(RunFolder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_and_the_next_is_not(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    with locked(folder):
        with pytest.raises(RunFolderError, match=r"is in use\. Received: another"), locked(folder):
            pass
        with pytest.raises(RunFolderError), locked(RunFolder(tmp_path / "run")):
            pass
    with locked(folder):
        pass
    assert [path.name for path in folder.log_path.parent.iterdir()] == ["run.lock"]
    assert (folder.log_path.parent / "run.lock").read_bytes() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_lock_does_not_outlive_its_process(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as printed:
        assert printed.readline() == "held\n"
        with pytest.raises(RunFolderError, match="in use"), locked(RunFolder(tmp_path)):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(RunFolder(tmp_path)):
        pass


def test_where_locks_are_not_known_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def unknown(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock, "_lock", unknown)
    with caplog.at_level(logging.WARNING, "audit"), locked(RunFolder(tmp_path)):
        pass
    assert "no lock (No locks available): see to it that nothing else writes" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    with pytest.raises(RunFolderError) as caught, locked(RunFolder(path)):
        pass
    assert str(caught.value).startswith(f"`{path}` cannot be written. Received: Not a directory.")
