"""One writer for a run folder: a lock that the system releases when its holder dies.

The lock is on the empty file `logs/run.lock`. It holds among all processes of one machine. On a
network file system it holds among machines as far as that file system passes locks on: NFS since
version 3 with its lock service, SMB and Lustre if mounted with locks. Where locks are not known at
all, the run goes on and the log says so. A folder behind a URL is held by `audit.remote_lock`.
"""

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from audit.disk import writing
from audit.errors import RunFolderError
from audit.places import Remote
from audit.remote_lock import held
from audit.run_folder import RunFolder

_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

logger = logging.getLogger("audit")


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold a run folder alone inside the block. The folder `logs` in it is created.

    Raises:
        RunFolderError: if somebody else holds it, or the lock cannot be written.
    """
    path = folder.log_path.with_name("run.lock")
    if isinstance(path, Remote):
        with held(path) as hold:
            folder.check_owner = hold.check
            yield
        return
    with writing(folder.path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            _lock(file)
        except OSError as exc:
            if exc.errno in _TAKEN:
                raise RunFolderError(
                    f"`{folder.path}` is in use. Received: another gradcam-audit that writes into"
                    " it at this moment. Wait for its end, or stop it and start this again;"
                    " `gradcam-audit show` may read meanwhile."
                ) from exc
            logger.warning("no lock (%s): see to it that nothing else writes here", exc.strerror)
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
