"""One writer for a run folder in an object store, which has no locks: an object says whose it is.

Whoever creates `logs/run.lock` first holds the folder: the store lets one of several succeed. The
holder writes it anew every few seconds and removes it at its end. Who finds it watches it for a
while: if it changes, the holder lives; if not, it was killed, and the folder is free. A holder that
was not heard of for so long, as on a machine that slept, finds that it has lost the folder and
writes no more. Nothing here depends on clocks being alike.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.disk import writing
from audit.errors import PlaceError, RunFolderError
from audit.places import Remote

BEAT = 10.0
"""Seconds between two signs of life."""
WATCH = 45.0
"""Seconds without one after which a holder is taken for dead."""
_LOOKS = 9
_BOOT = Path("/proc/sys/kernel/random/boot_id")

logger = logging.getLogger("audit")


@dataclass
class Hold:
    """A folder that this process holds, as far as it knows.

    Attributes:
        path: the object that says so.
    """

    path: Remote
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    beat: int = 0
    lost: bool = False

    def check(self) -> None:
        """Refuse to go on if the folder is somebody else's by now.

        Raises:
            RunFolderError: if it is.
        """
        if self.lost:
            raise RunFolderError(
                f"`{self.path.parent.parent}` has been taken over. Received: a lock of another"
                f" gradcam-audit, as this one was not heard of for {WATCH:.0f} s. Let the other"
                " come to its end, or stop it and start this again."
            )

    def sign(self) -> bytes:
        """Return the next sign of life."""
        self.beat += 1
        return json.dumps({"owner": self.owner, "beat": self.beat} | _here()).encode()

    def give_sign(self) -> None:
        """Say that the holder lives, or find out that the folder is lost."""
        try:
            self.lost = self.lost or _read(self.path).get("owner") != self.owner
            if not self.lost:
                self.path.write_bytes(self.sign(), patient=False)
        except (OSError, PlaceError) as exc:
            logger.warning("no sign of life could be given: %s", exc)

    def release(self) -> None:
        """Give the folder free, if it is still held."""
        try:
            if not self.lost and _read(self.path).get("owner") == self.owner:
                self.path.unlink(missing_ok=True)
        except PlaceError as exc:  # Others will find the lock, and that nobody is there any more.
            logger.warning("the lock could not be removed: %s", exc)


@contextmanager
def held(path: Remote) -> Iterator[Hold]:
    """Hold a run folder alone inside the block.

    Args:
        path: of the lock, in a folder of the run folder.

    Raises:
        RunFolderError: if somebody else holds it, or the lock cannot be written.
        PlaceError: if the store cannot be reached.
    """
    hold = Hold(path)
    while not _created(hold):
        _refuse_if_alive(path)
        logger.warning("the lock of a run that was killed is removed")
        path.unlink(missing_ok=True)
    ended = threading.Event()

    def give_signs() -> None:
        while not ended.wait(BEAT):
            hold.give_sign()

    thread = threading.Thread(target=give_signs, name="run-lock", daemon=True)
    thread.start()
    try:
        yield hold
    finally:
        ended.set()
        thread.join()
        hold.release()


def _created(hold: Hold) -> bool:
    with writing(hold.path):
        try:
            hold.path.create(hold.sign())
        except FileExistsError:  # Also after an attempt that succeeded although it seemed to fail.
            return bool(_read(hold.path).get("owner") == hold.owner)
    return True


def _refuse_if_alive(path: Remote) -> None:
    """Watch a lock until it changes or is gone, or its holder must be dead."""
    first, folder = _read(path), path.parent.parent
    if not first or _died_here(first):
        return
    logger.warning("%s is locked; watching for %.0f s whether its holder lives", folder, WATCH)
    for _ in range(_LOOKS):
        time.sleep(WATCH / _LOOKS)
        now = _read(path)
        if not now:
            return
        if now != first:
            raise RunFolderError(
                f"`{folder}` is in use. Received: another gradcam-audit that writes into it at this"
                f" moment, on the machine `{now.get('host')}`. Wait for its end, or stop it and"
                " start this again; `gradcam-audit show` may read meanwhile."
            )


def _read(path: Remote) -> dict[str, Any]:
    """Return what a lock says; nothing if it is gone or no lock of ours."""
    try:
        content = json.loads(path.read_bytes(patient=False))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _here() -> dict[str, Any]:
    """Return what tells this process from all others, as far as the system says it."""
    return {"host": socket.gethostname(), "space": _process_space(), "process": os.getpid()}


def _process_space() -> str | None:
    """Return on which machine and in which container process ids are counted, if that is known."""
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _died_here(sign: dict[str, Any]) -> bool:
    """Tell whether a holder was a process of this machine and is no more."""
    here, process = _here(), sign.get("process")
    if here["space"] is None or not isinstance(process, int):
        return False
    return sign.get("space") == here["space"] and not os.path.exists(f"/proc/{process}")
