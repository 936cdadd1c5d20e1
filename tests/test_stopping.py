"""Ctrl-C and SIGTERM: heard at once in Python, and in time where nothing listens."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from audit import stopping
from audit.stopping import Stopped, exit_code, stoppable

DEAF = """
import hashlib, sys
from audit import stopping
stopping.GRACE = float(sys.argv[1])
with stopping.stoppable("GO ON"):
    print("started", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1_000_000_000)  # minutes in native code
"""
BUSY = """
import sys, time
from audit import stopping
try:
    with stopping.stoppable("GO ON"):
        print("started", flush=True)
        time.sleep(60)
except stopping.Stopped as exc:
    time.sleep(0.5)  # what is half written is cleaned away
    print(f"stopped by {exc}", flush=True)
    sys.exit(exc.exit_code)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a process and wait until it is in its block."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(1)  # It may be busy with that line still.
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_in_the_block(number: signal.Signals):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    n_threads = threading.active_count()
    with pytest.raises(Stopped, match=number.name) as caught, stoppable("go on"):
        assert signal.getsignal(number) != before[number]
        signal.raise_signal(number)
        time.sleep(10)
    assert caught.value.exit_code == exit_code(number) == 128 + number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert {n: signal.getsignal(n) for n in before} == before
    assert threading.active_count() == n_threads
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_signal_does_not_disturb_the_cleaning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stopping, "_ONE_PRESS", 60.0)
    cleaned = False
    with pytest.raises(Stopped), stoppable("go on"):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned = True
    assert cleaned


def test_without_a_signal_nothing_happens(capfd: pytest.CaptureFixture[str]):
    with stoppable("go on"):
        pass
    assert capfd.readouterr() == ("", "")


def test_outside_the_main_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stoppable("go on"):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_process_ends_as_it_likes_when_it_listens():
    process = start(BUSY)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "stopped by SIGTERM\n")
    assert err == "\nStopping. Once more stops at once.\n"


def test_a_process_deep_in_native_code_is_ended_in_time():
    process = start(DEAF, "1")
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "GO ON"
    assert time.monotonic() - begin >= 1


def test_a_second_signal_ends_it_at_once():
    process = start(DEAF, "600")
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_signal_that_comes_twice_in_one_press_counts_once():
    process = start(DEAF, "3")
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begin > 2
