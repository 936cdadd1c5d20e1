"""A report as one archive, to be sent.

In: a run folder. Out: a zip file that opens after unzipping, whole or not at all. The same run
gives the same bytes.
"""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from audit.disk import writing
from audit.errors import RunFolderError
from audit.files import atomic
from audit.report.render import ReportOptions, write_pages
from audit.run_folder import RunFolder

PACKED_ALREADY = frozenset({".jpg", ".png"})
"""Endings of files that deflating would not make smaller."""

FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold; every file in it has this one."""

READABLE = 0o644


@dataclass(frozen=True)
class ZipSink:
    """Writes a report's files into an archive, all below one folder."""

    archive: zipfile.ZipFile
    top: str

    def write(self, name: str, content: bytes) -> None:
        entry = zipfile.ZipInfo(f"{self.top}/{name}", FIRST_DATE)
        entry.create_system = 3  # Unix, whatever this machine is: permissions are read as such
        entry.external_attr = READABLE << 16
        is_packed = PurePosixPath(name).suffix in PACKED_ALREADY
        kind = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
        self.archive.writestr(entry, content, kind, compresslevel=9)


def write_zip(
    folder: RunFolder,
    path: Path,
    *,
    options: ReportOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the report of a run as a zip file. Unzipped, it is one folder named after the file.

    Args:
        folder: the run.
        path: the file; its folder is made if it is missing, and an older file is replaced.
        options: what the report holds.
        progress: called with (errors done, errors in all) after every page of an error.

    Raises:
        RunFolderError: if the run has no metrics yet, or the file cannot be written.
    """
    check_target(path)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        sink = ZipSink(archive, _top_folder(path))
        options = replace(options or ReportOptions(), with_times=True)
        write_pages(folder, sink, options=options, progress=progress)


def check_target(path: Path) -> None:
    """Make sure that a file can be written, before the work for it is done.

    Raises:
        RunFolderError: if it cannot.
    """
    if path.is_dir():
        raise RunFolderError(
            f"`{path}` cannot be written. Received: a folder. Give the name of a file, such as"
            f" `{path / 'report.zip'}` or `{path / 'report.html'}`."
        )
    probe = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def _top_folder(path: Path) -> str:
    """Return the name of the one folder in the archive, safe on every system."""
    return re.sub(r"[^\w.-]+", "-", path.stem).strip(".-") or "report"
