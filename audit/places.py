"""Where files are: on this machine, or in an object store behind a URL.

In: what a user gave. Out: a `Path` for all that is local, `file://` too, or else a `Remote`, which
has the methods of a path that an audit uses. fsspec opens the stores, with credentials from the
environment. An object appears whole or not at all, so nothing needs to be renamed there.
"""

import fnmatch
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from audit.errors import ConfigError, PlaceError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"} | dict.fromkeys(
    ("az", "abfs", "abfss"), "azure"
)
"""The stores that a run can be kept in, by scheme, and the extra that brings what opens them."""

_MEMORY = "memory"  # Lives as long as its process: for tests, and to try things out.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_WAITS = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
"""Seconds between attempts to reach a store that has answered before: five minutes in all."""
_ABSENT = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_LONGEST_REASON = 300
_AT_ONCE = 16
"""Transfers at a time: they wait for the network, not for a processor."""

_answered: set[str] = set()
"""Places that have answered in this process: what fails there later may pass."""

Answer = TypeVar("Answer")

logger = logging.getLogger("audit")


@dataclass(frozen=True)
class Remote:
    """A file or a folder in an object store, with the methods of a `Path` that are needed.

    A folder is what has files in it; none needs to be made. Every method but those on names asks
    the store and may raise `PlaceError`; `FileNotFoundError` and its kind are raised as for files.

    Attributes:
        url: as the user wrote it, and what was appended.
        key: what the store calls it.
        anchor: the URL that the user gave, by which the store is opened.
    """

    url: str
    key: str
    anchor: str = field(compare=False, repr=False)

    # Names

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> "Remote":
        return Remote(self.url.rpartition("/")[0], self.key.rpartition("/")[0], self.anchor)

    def with_name(self, name: str) -> "Remote":
        return self.parent / name

    def __truediv__(self, part: str) -> "Remote":
        return Remote(f"{self.url}/{part}", f"{self.key}/{part}", self.anchor)

    def __str__(self) -> str:
        return self.url

    def as_posix(self) -> str:
        return self.url

    def absolute(self) -> "Remote":
        return self

    def resolve(self) -> "Remote":
        return self

    # What is there

    def exists(self) -> bool:
        return self._kind() is not None

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def iterdir(self) -> Iterator["Remote"]:
        """Yield what is in a folder, in the order of names.

        Raises:
            FileNotFoundError: if there is no such folder.
        """
        found = self._ask(lambda store: store.ls(self.key, detail=False))
        inside = {key.rstrip("/") for key in found} - {self.key}  # A store may list the folder.
        return (self / key.rpartition("/")[2] for key in sorted(inside))

    def glob(self, pattern: str) -> Iterator["Remote"]:
        """Yield what is in a folder, there or not, and is called so."""
        try:
            found = list(self.iterdir())
        except _ABSENT:
            return
        yield from (path for path in found if fnmatch.fnmatchcase(path.name, pattern))

    def sizes(self) -> dict[str, int]:
        """Return the files at all depths below a folder, by relative path, with their bytes."""
        found = self._ask(lambda store: store.find(self.key, detail=True))
        start = f"{self.key}/"
        return {
            key.removeprefix(start): int(entry["size"] or 0)
            for key, entry in found.items()
            if key.startswith(start) and not key.endswith("/")
        }

    # Contents

    def read_bytes(self, *, patient: bool = True) -> bytes:
        return self._ask(lambda store: store.cat_file(self.key), patient=patient)

    def read_end(self, n_bytes: int) -> bytes:
        """Return so many bytes at the end of a file, or all if it is shorter."""
        start = int(self._ask(lambda store: store.info(self.key))["size"]) - n_bytes
        return self._ask(lambda store: store.cat_file(self.key, start=start if start > 0 else None))

    def read_text(self, encoding: str) -> str:
        return self.read_bytes().decode(encoding)

    def fetch(self) -> bytes:
        """Return the content of a file of many.

        Raises:
            FileNotFoundError: if it is gone.
            PermissionError: if it may not be read, although the store answers.
            PlaceError: if the store cannot be reached.
        """
        return self._ask(lambda store: store.cat_file(self.key), may_be_denied=True)

    def write_bytes(self, content: bytes, *, patient: bool = True) -> None:
        self._ask(lambda store: store.pipe_file(self.key, content), patient=patient)

    def create(self, content: bytes) -> None:
        """Write a file that is not there.

        Raises:
            FileExistsError: if it is there. Of several who try at once, one succeeds.
        """
        self._ask(lambda store: store.pipe_file(self.key, content, mode="create"))

    def upload(self, path: Path) -> None:
        """Write the content of a local file."""
        self._ask(lambda store: store.put_file(os.fspath(path), self.key))

    def download(self, path: Path) -> None:
        """Write a file, or all files of a folder, to a local path."""
        self._ask(lambda store: store.get(self.key, os.fspath(path), recursive=self.is_dir()))

    def replace_files(self, folder: Path, last: str) -> None:
        """Make a folder hold the files of a local one and no others, `last` after all the rest."""
        old = set(self.sizes())
        files = (path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            first = [name for name in sorted(names) if name != last]
            list(pool.map(lambda name: (self / name).upload(folder / name), first))
            (self / last).upload(folder / last)
            gone = sorted(old - set(names))
            list(pool.map(lambda name: (self / name).unlink(missing_ok=True), gone))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._ask(lambda store: store.rm_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _kind(self) -> str | None:
        try:
            kind: str = self._ask(lambda store: store.info(self.key))["type"]
        except _ABSENT:
            return None
        return kind

    def _ask(
        self,
        question: Callable[[Any], Answer],
        *,
        patient: bool = True,
        may_be_denied: bool = False,
    ) -> Answer:
        """Ask the store; if it has answered before, ask again for some minutes where it fails.

        Every store and every network has errors of its own, so all are taken for one.
        """
        waits = iter(_WAITS)
        while True:
            try:
                answer = question(_open_store(self.anchor))
            except (*_ABSENT, ConfigError):
                raise
            except Exception as exc:
                if isinstance(exc, PermissionError) and may_be_denied:
                    raise
                denied = isinstance(exc, PermissionError)
                wait = next(waits, None) if patient and self.anchor in _answered else None
                if denied or wait is None:
                    _answered.discard(self.anchor)  # What else is asked at the end fails at once.
                    raise PlaceError(
                        f"`{self.url}` cannot be reached. Received: {_reason(exc)}. See to the"
                        " network and to the credentials, which are taken from the environment,"
                        " and start the same command again."
                    ) from exc
                logger.warning("%s: %s; trying again in %d s", self.url, _reason(exc), wait)
                time.sleep(wait)
            else:
                _answered.add(self.anchor)
                return answer


Place: TypeAlias = Path | Remote
"""A path of this machine, or one in an object store."""


def place(given: "str | Path | Remote") -> Place:
    """Return where something is that a user named.

    Raises:
        ConfigError: if it is a URL that cannot be used: of another scheme, with a password or a
            query in it, with `..`, or of a store that no installed package opens.
    """
    if isinstance(given, Remote):
        return given
    if isinstance(given, Path):
        lost = _LOST_SLASH.match(given.as_posix())
        if lost and lost[1].lower() in (*EXTRAS, _MEMORY, "file") and not given.exists():
            raise ConfigError(
                f"`{given}` is no URL any more. Received: one that was made a `Path`, which takes"
                " a slash away. Give it as a text."
            )
        return given
    match = _SCHEME.match(given)
    if match is None:
        return Path(given)
    scheme = match[1].lower()
    if scheme not in (*EXTRAS, _MEMORY, "file"):
        known = ", ".join(f"{name}://" for name in ("file", "s3", "gs", "az"))
        raise ConfigError(
            f"`{without_secrets(given)}` cannot be opened. Received: a URL of the scheme"
            f" {scheme!r}. Give a path of this machine, or a URL that begins with {known}."
        )
    reason = _why_not_url(given, scheme)
    if reason:
        raise ConfigError(
            f"`{without_secrets(given)}` cannot be used as a URL. Received: one {reason}. Give the"
            " bucket and the path only, such as s3://bucket/folder; keys and passwords are taken"
            " from the environment."
        )
    if scheme == "file":
        return Path(url2pathname(urlsplit(given).path))
    url = given.rstrip("/")
    return Remote(url, _store_class(url)._strip_protocol(url), url)


def lies_in(path: Place, folder: Place) -> bool:
    """Tell whether a place is a folder, or inside it."""
    if isinstance(path, Remote) and isinstance(folder, Remote):
        return f"{path.url}/".startswith(f"{folder.url}/")
    if isinstance(path, Remote) or isinstance(folder, Remote):
        return False
    return path.resolve().is_relative_to(folder.resolve())


def is_url(text: str) -> bool:
    """Tell whether a text is meant as a URL rather than as a path of this machine."""
    return _SCHEME.match(text) is not None


def without_secrets(text: str) -> str:
    """Take passwords and queries out of all URLs in a text."""
    text = re.sub(r"(\w://)[^/\s@]*:[^\s@`'\"]*@", r"\1…@", text)  # A secret may hold a slash.
    return re.sub(r"(\w://[^\s?#`'\"]*)[?#][^\s`'\"]*", r"\1?…", text)


def _why_not_url(url: str, scheme: str) -> str | None:
    rest = url.partition("://")[2]
    if "::" in rest:
        return "within another"
    if scheme == "file" and urlsplit(url).netloc not in ("", "localhost"):
        return "that names another machine"
    if ":" in rest.partition("/")[0]:
        return "with a password in it"
    if "?" in rest or "#" in rest:
        return "with a query in it"
    if ".." in rest.split("/"):
        return "with `..` in it"
    return None if rest.strip("/") else "that names nothing"


@lru_cache
def _open_store(anchor: str) -> Any:
    """Return what asks a store. It remembers no listing: others may write there as well."""
    _store_class(anchor)
    import fsspec

    return fsspec.url_to_fs(anchor, use_listings_cache=False)[0]


def _store_class(url: str) -> Any:
    """Return what knows the names of a store, without asking it."""
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec

        return fsspec.get_filesystem_class(scheme)
    except ImportError as exc:
        extra = EXTRAS.get(scheme)
        package = f"gradcam-audit[{extra}]" if extra else "fsspec"
        raise ConfigError(
            f"`{url}` needs a package that is not installed. Received: {_reason(exc)}. Install it"
            f" with `pip install '{package}'`."
        ) from exc


def _reason(exc: Exception) -> str:
    """Return what a store says, in one line and without what nobody else should read."""
    text = " ".join(without_secrets(str(exc)).split())[:_LONGEST_REASON].rstrip(" .:")
    return text or type(exc).__name__
