"""Files that are there whole or not at all, on this machine or behind a URL.

In: bytes, tables and small values, and where they go. Out: files. One is written to a temporary
name beside it, flushed to disk and renamed; behind a URL it is uploaded whole.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audit.disk import writing
from audit.errors import RunFolderError
from audit.places import Place, Remote

_USUAL_FOOTER = 1 << 16
"""Bytes at the end of a Parquet file that nearly always hold all that it says of itself."""


def parquet_source(path: Place) -> Any:
    """Return what Arrow reads a file from: where it is, or its content if that is far away."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, Remote) else path


def read_footer(path: Place) -> pq.FileMetaData:
    """Return what a Parquet file says of itself; of one that is far away, its end is fetched."""
    if not isinstance(path, Remote):
        return pq.read_metadata(path)
    try:
        return pq.read_metadata(pa.BufferReader(path.read_end(_USUAL_FOOTER)))
    except pa.ArrowInvalid:  # It is longer, or torn.
        return pq.read_metadata(parquet_source(path))


def write_parquet(path: Place, table: pa.Table, writer: str = "") -> None:
    """Write a table atomically, compressed with zstd."""
    with atomic(path, table.nbytes, writer) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(path: Place, value: Any) -> None:
    """Write JSON atomically, keys in the order given; NaN becomes null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 becomes a JSON escape, so that every reader can decode the file.
    write_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))


def write_bytes(path: Place, content: bytes) -> None:
    """Write a small file atomically."""
    if isinstance(path, Remote):
        with writing(path, len(content)):
            path.write_bytes(content)
        return
    with atomic(path, len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic(path: Place, n_bytes: int | None = None, writer: str = "") -> Iterator[Path]:
    """Give a temporary name in the same folder; then flush, rename, and flush the folder.

    A file behind a URL is written elsewhere and then uploaded, which is atomic by itself.

    Args:
        n_bytes: how large the file becomes at most, if that is known.
        writer: makes the name one's own where several processes may write the same file.
    """
    if isinstance(path, Remote):
        here = Path(tempfile.gettempdir())
        with writing(here, n_bytes), tempfile.TemporaryDirectory(dir=here) as spool:
            yield Path(spool, path.name)
            with writing(path):
                path.upload(Path(spool, path.name))
        return
    temporary = path.with_name(f".{path.name}.{writer}.tmp" if writer else f".{path.name}.tmp")
    with writing(path, n_bytes):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its rename is already ordered.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Place) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: if it is missing, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RunFolderError(
            f"The run's file `{path}` cannot be read. Received: {exc}. Audit again into a new"
            " folder."
        ) from exc
    if not isinstance(content, dict):
        raise RunFolderError(
            f"`{path}` does not hold a JSON object. Received: a {type(content).__name__}. Audit"
            " again into a new folder."
        )
    return content


def _plain(value: Any) -> Any:
    """Turn NumPy values, tuples and paths into what JSON knows; NaN and infinities into null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Place):
        return value.as_posix()
    return value
