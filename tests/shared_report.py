"""What is in a report, however it was shared: file names and decoded contents."""

import base64
import re
import zipfile
import zlib
from pathlib import Path

CHUNK = re.compile(r'<script type="text/plain" data-(page|file)="([^"]+)">([^<]*)</script>\n')


def folder_files(report: Path) -> dict[str, bytes]:
    """Return the files of a report's folder by name."""
    return {
        path.relative_to(report).as_posix(): path.read_bytes()
        for path in sorted(report.rglob("*"))
        if path.is_file()
    }


def zip_files(path: Path) -> dict[str, bytes]:
    """Return the files of a zip file by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def chunk_files(path: Path) -> dict[str, bytes]:
    """Return what is packed in a report of one file, by name."""
    return {
        name: unpack(text) if kind == "page" else base64.b64decode(text)
        for kind, name, text in CHUNK.findall(path.read_text("utf-8"))
    }


def single_files(path: Path) -> dict[str, bytes]:
    """Return the same, the file itself without its chunks, and the pictures embedded in it."""
    text = path.read_text("utf-8")
    shell = CHUNK.sub("", text)
    embedded = re.findall(r'data-file="([^"]+)" src="data:image/\w+;base64,([^"]+)"', shell)
    pictures = {f"embedded/{name}": base64.b64decode(content) for name, content in embedded}
    return {"shell": shell.encode(), **pictures, **chunk_files(path)}


def unpack(text: str) -> bytes:
    """Return a packed page."""
    return zlib.decompress(base64.b64decode(text))
