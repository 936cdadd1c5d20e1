"""Which files are in a folder, here or behind a URL.

In: a place. Out: names of files, relative, and what cannot be looked into. Nothing is opened.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from audit.places import Place, Remote


class Files(Protocol):
    """The files below a folder."""

    @property
    def sizes(self) -> Mapping[str, int] | None:
        """Bytes by path, if asking for one at a time would take long."""

    def top(self) -> list[tuple[str, bool]]:
        """Return what is in the folder itself, in order: names, and which are folders."""

    def below(self, folder: str, left_out: list[tuple[str, str, str]]) -> Iterator[str]:
        """Yield the files at all depths of a folder in it, or of itself (""), relative to it.

        Args:
            folder: its name.
            left_out: takes (path, kind, reason) of the folders that are not entered.
        """


def look_into(root: Place) -> Files:
    """Return the files below a folder."""
    return _RemoteFiles(root) if isinstance(root, Remote) else _LocalFiles(root)


class _LocalFiles:
    sizes = None

    def __init__(self, root: Path) -> None:
        self._root = root

    def top(self) -> list[tuple[str, bool]]:
        entries = sorted(os.scandir(self._root), key=lambda entry: entry.name)
        return [(entry.name, entry.is_dir()) for entry in entries]

    def below(self, folder: str, left_out: list[tuple[str, str, str]]) -> Iterator[str]:
        root = self._root

        def leave_out(exc: OSError) -> None:
            path = Path(exc.filename).relative_to(root).as_posix()
            left_out.append((legible(path), "unreadable", exc.strerror or "it cannot be read"))

        for current, folders, names in os.walk(root / folder, onerror=leave_out):
            relative = Path(current).relative_to(root).as_posix()
            prefix = "" if relative == "." else f"{relative}/"
            yield from (prefix + name for name in names)
            for name in folders:
                if os.path.islink(os.path.join(current, name)):
                    left_out.append((legible(prefix + name), "skipped", "a link to another folder"))


class _RemoteFiles:
    """Files in an object store, which names all of them, with their sizes, at once."""

    def __init__(self, root: Remote) -> None:
        self.sizes: Mapping[str, int] = root.sizes()
        self._folders: dict[str, list[str]] = {}
        for path in self.sizes:
            name, is_inside, _ = path.partition("/")
            if is_inside:
                self._folders.setdefault(name, []).append(path)

    def top(self) -> list[tuple[str, bool]]:
        files = {path for path in self.sizes if "/" not in path} - self._folders.keys()
        return sorted([(name, True) for name in self._folders] + [(name, False) for name in files])

    def below(self, folder: str, left_out: list[tuple[str, str, str]]) -> Iterator[str]:
        return iter(self._folders.get(folder, ()) if folder else self.sizes)


def is_utf8(text: str) -> bool:
    """Tell whether a name can be written down; the system hands out others as well."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def legible(text: str) -> str:
    """Return a name that can be written down."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
