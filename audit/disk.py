"""What the system says against a write, as one sentence that a user can act on."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.errors import ResourceError, RunFolderError
from audit.places import Place

_NO_ROOM = {errno.ENOSPC, errno.EFBIG} | (
    {errno.EDQUOT} if hasattr(errno, "EDQUOT") else set()  # Windows has no quotas of this kind.
)
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@contextmanager
def writing(path: Place, n_bytes: int | None = None) -> Iterator[None]:
    """Turn an `OSError` of what is written in the block into an error for the user.

    Args:
        path: what is written.
        n_bytes: how large it becomes at most, where that is known.

    Raises:
        ResourceError: if there is no room for it.
        RunFolderError: if it cannot be written for another reason.
    """
    try:
        yield
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        if exc.errno in _NO_ROOM:
            needed = "" if n_bytes is None else f", and it takes up to {readable(n_bytes)}"
            raise ResourceError(
                f"There is no room for `{path}`. Received: {reason};"
                f" {_free(path)} free{needed}. Nothing that is done is lost: free some space and"
                " start the same command again."
            ) from exc
        raise RunFolderError(
            f"`{path}` cannot be written. Received: {reason}. Give a folder that you may write to,"
            " or make this one writable and start the same command again."
        ) from exc


def readable(n_bytes: int) -> str:
    """Return an amount of bytes for people: 1,500 becomes "1.5 kB"."""
    amount, unit = float(n_bytes), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{n_bytes} bytes" if unit == 0 else f"{amount:.3g} {_UNITS[unit]}"


def _free(path: Place) -> str:
    """Return what is free where a path is, or is to be."""
    for folder in (path, *path.parents) if isinstance(path, Path) else ():
        if folder.is_dir():
            return readable(shutil.disk_usage(folder).free)
    return "an unknown amount"
