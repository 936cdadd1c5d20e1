"""How many images go through the model at once, so that memory is enough.

In: what the user allows, what is free, what an image takes. Out: a batch size. Free memory is what
the machine has left and what the control group (a container, a batch job) still grants.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from audit.config import parse_memory
from audit.errors import ModelError

if TYPE_CHECKING:
    from audit.predict.model import AuditedModel

logger = logging.getLogger("audit")

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (  # version 2, version 1: limit, use, and what of that the kernel can drop
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def choose_batch_size(memory: str, free: int | None, image_bytes: int, largest: int) -> int:
    """Return how many images fit into the memory that is allowed, from 1 to `largest`.

    Args:
        memory: as `--memory`: an amount, or a share of what is free.
        free: bytes; `None` where it is not known: then a share allows `largest`.
        image_bytes: what one image takes.
        largest: the upper limit.
    """
    amount, share = parse_memory(memory)
    if amount is None and free is None:
        return largest
    allowed = amount if amount is not None else int((free or 0) * (share or 0))
    return max(1, min(largest, allowed // max(1, image_bytes)))


def halve_batch(
    batch_size: int, model: "AuditedModel", exc: BaseException, *, doing: str = "explain"
) -> int:
    """Return half a batch size after memory ran out.

    Args:
        exc: what was raised when it ran out.
        doing: "explain" or "predict".

    Raises:
        ModelError: if it was one image already.
    """
    if batch_size == 1:
        height, width = model.input_size
        less = ", or explain fewer layers, as with `--layers stages`" if doing == "explain" else ""
        raise ModelError(
            f"There is not enough memory to {doing} one image of `{model.name}`. Received: an image"
            f" of {height} × {width} pixels at a batch size of 1. Free some memory{less}."
        ) from exc
    logger.info("out of memory, %d images at once from here on", batch_size // 2)
    return batch_size // 2


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return how many bytes this process may still take, or `None` where it is not known.

    Args:
        proc, cgroups: where Linux says so; other systems are asked for their free pages.
    """
    free = [*_free_on_machine(proc), *_free_in_cgroups(proc, cgroups)]
    return min(free) if free else None


def _free_on_machine(proc: Path) -> Iterator[int]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        names = getattr(os, "sysconf_names", {})
        if {"SC_AVPHYS_PAGES", "SC_PAGE_SIZE"} <= names.keys():
            yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return
    for line in lines:
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _free_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield what each control group from the root down to this process's own still grants."""
    for folder in _own_groups(proc):
        for controller, limit_name, use_name, droppable in _LIMITS:
            path = cgroups / controller / folder
            limit, use = _number(path / limit_name), _number(path / use_name)
            if limit is not None and use is not None:
                yield max(0, limit - use + _statistic(path / "memory.stat", droppable))


def _own_groups(proc: Path) -> Iterable[str]:
    """Return the group's path and those of its parents; a container often sees only the root."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    folders = {""}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            parts = path.strip("/").split("/")
            folders |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
    return sorted(folders)


def _number(path: Path) -> int | None:
    """Return the number in a file; `None` if there is no file, or it says that nothing is set."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[:1] == [name])
