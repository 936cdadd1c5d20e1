"""Ctrl-C and SIGTERM: stop within a few seconds, and say how to go on.

A signal is raised in the main thread as `Stopped`, so that what is half written is cleaned away.
If the main thread is deep in native code and cannot hear it, a second thread ends the process:
a run folder stands that, as it stands `kill -9`.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 4.0
"""Seconds that the main thread has to stop."""
_ONE_PRESS = 0.3
"""Seconds in which a second signal is taken for the first: some shells pass it on twice."""
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or a scheduler, asked the process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = exit_code(number)


def exit_code(number: int) -> int:
    """Return what a shell reports of a process that a signal ended: 130 for Ctrl-C."""
    return 128 + number


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Let a signal stop the block, at once or, if it does not listen, after `GRACE` seconds.

    A second signal ends the process immediately. Outside the main thread nothing is changed, since
    signals do not come there.

    Args:
        message: what is written to stderr if the process has to be ended.

    Raises:
        Stopped: in the block, when a signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if not heard.is_set():
            heard.set()
            raise Stopped(number)

    reader, writer = socket.socketpair()  # Windows can wait for sockets only.
    writer.setblocking(False)
    handlers = {number: signal.signal(number, stop) for number in _NUMBERS}
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, message), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()  # The watching thread reads the end, and ends.
        watch.join()


def _watch(reader: socket.socket, message: str) -> None:
    """Wait for a signal; end the process if the block does not, or if a second signal comes."""
    with reader:
        number = _next_signal(reader, None)
        if number is None:
            return
        sys.stderr.write("\nStopping. Once more stops at once.\n")
        deadline = time.monotonic() + GRACE
        double = time.monotonic() + _ONE_PRESS
        while (left := deadline - time.monotonic()) > 0:
            try:
                if _next_signal(reader, left) is None:
                    return
            except TimeoutError:
                break
            if time.monotonic() > double:
                break
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
        os._exit(exit_code(number))


def _next_signal(reader: socket.socket, timeout: float | None) -> int | None:
    """Return the number of the next signal of ours, or `None` if the block is over.

    Raises:
        TimeoutError: if none comes in time.
    """
    while True:
        ready, _, _ = select.select([reader], [], [], timeout)
        if not ready:
            raise TimeoutError
        content = reader.recv(1)
        if not content:
            return None
        if content[0] in _NUMBERS:
            return content[0]
