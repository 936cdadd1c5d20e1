"""What a file says of itself before it is decoded: is it one, and how many pixels does it claim?

In: a path. Out: why it must not be decoded, or nothing. Only the first bytes are read, so a few
kilobytes that claim to be a picture of gigabytes cost nothing, and nothing waits at a pipe.
Whether the rest of the file keeps to its header is for the decoder to say.
"""

import os
import stat
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

KINDS = ("BMP", "GIF", "JPEG", "JPEG XL", "PNG", "WebP")
"""What TensorFlow decodes, whatever the name of the file."""

GONE = "it is gone, or a link to nothing"

_MOST_BYTES_PER_PIXEL = 8  # Four channels of 16 bits, not compressed.
_FRAMES_FOR_ONE = 3  # A frame of a GIF takes one byte a pixel until it is shown, a colour image 3.
_BUFFER = 4096
_MOST_SEGMENTS = 10_000
_MOST_GARBAGE = 1 << 16
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_PICTURE_FOLLOWS, _END = 0xDA, 0xD9
_NO_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True)
class Claim:
    """What a header says.

    Attributes:
        kind: one of `KINDS`, or "".
        width, height: in pixels, of the largest frame; 0 where the header does not say.
        n_frame_pixels: of all frames together, where all are decoded whichever is wanted.
    """

    kind: str
    width: int = 0
    height: int = 0
    n_frame_pixels: int = 0


class EndlessHeaderError(ValueError):
    """A header that goes on for longer than that of any picture."""


def why_not_decode(path: str | bytes | Path, max_pixels: int) -> str | None:
    """Return why a file must not be given to the decoder, for a person to read, or `None`.

    Args:
        path: of a file, which may have been removed or replaced since it was listed.
        max_pixels: a picture that claims more is refused.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kinds = (name for is_kind, name in _NO_FILES if is_kind(status.st_mode))
            return f"it is {next(kinds, 'a device')}, not a file"
        refused = why_wrong_size(status.st_size, max_pixels)
        if refused:
            return refused
        with open(path, "rb", buffering=_BUFFER) as file:
            return _why_not_content(file, max_pixels)
    except FileNotFoundError:
        return GONE
    except OSError as exc:
        return f"it cannot be opened: {exc.strerror or type(exc).__name__}"
    except ValueError:  # A manifest's path with a NUL in it.
        return "there can be no file of this name"


def why_wrong_size(n_bytes: int, max_pixels: int) -> str | None:
    """Return why a file with so many bytes must not be decoded, for a person to read, or `None`."""
    if n_bytes == 0:
        return "it is empty (0 bytes)"
    if n_bytes > max_pixels * _MOST_BYTES_PER_PIXEL:
        return (
            f"it has {n_bytes:,} bytes, more than a picture of --max-pixels {max_pixels:,} can need"
        )
    return None


def why_not_decode_content(content: bytes, max_pixels: int) -> str | None:
    """Return why a file's whole content must not be given to the decoder, or `None`."""
    refused = why_wrong_size(len(content), max_pixels)
    return refused or _why_not_content(BytesIO(content), max_pixels)


def _why_not_content(file: BinaryIO, max_pixels: int) -> str | None:
    try:
        return _too_large(read_claim(file), max_pixels)
    except EndlessHeaderError:
        return "it begins as a JPEG, but its header does not end"


def _too_large(claim: Claim, max_pixels: int) -> str | None:
    limit = f"more than --max-pixels {max_pixels:,} allows"
    if claim.width * claim.height > max_pixels:
        return f"it claims to have {claim.width:,} × {claim.height:,} pixels, {limit}"
    if claim.n_frame_pixels > max_pixels * _FRAMES_FOR_ONE:
        return f"its frames claim to have {claim.n_frame_pixels:,} pixels together, {limit}"
    return None


def read_claim(file: BinaryIO) -> Claim:
    """Read what kind of picture a file holds, whatever its name, and the size that it claims.

    Raises:
        EndlessHeaderError: if it is a JPEG whose header goes on and on.
    """
    start = file.read(64)
    if start.startswith(b"\xff\xd8\xff"):
        return Claim("JPEG", *_jpeg_size(file))
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return Claim("PNG", *_unpack(">16x2I", start))
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _gif_claim(file)
    if start.startswith(b"BM"):
        width, height = _unpack("<18x2i", start)
        return Claim("BMP", abs(width), abs(height))
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return Claim("WebP", *_webp_size(start))
    if start.startswith(b"\xff\x0a"):
        return Claim("JPEG XL", *_jxl_size(start[2:]))
    if start.startswith(b"\x00\x00\x00\x0cJXL "):
        codestream = (start + file.read(_BUFFER)).partition(b"\xff\x0a")[2]
        return Claim("JPEG XL", *_jxl_size(codestream))
    return Claim("")


def _unpack(layout: str, start: bytes) -> tuple[int, int]:
    """Return two numbers of a header, or zeros where it is cut off."""
    if len(start) < struct.calcsize(layout):
        return 0, 0
    first, second = struct.unpack_from(layout, start)
    return first, second


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    """Go from segment to segment, as libjpeg does, to the one that says the size."""
    file.seek(2)
    for _ in range(_MOST_SEGMENTS):
        marker = _next_marker(file)
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in (None, _PICTURE_FOLLOWS, _END):
            return 0, 0
        length, _ = _unpack(">HB", file.read(3))
        if length < 3:
            return 0, 0
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            height, width = _unpack(">2H", file.read(4))
            return width, height
        file.seek(length - 3, os.SEEK_CUR)
    raise EndlessHeaderError


def _next_marker(file: BinaryIO) -> int | None:
    """Pass over what is between two segments; `None` at the end of the file."""
    for _ in range(_MOST_GARBAGE):
        byte = file.read(1)
        if byte != b"\xff":
            if not byte:
                return None
            continue
        while byte == b"\xff":
            byte = file.read(1)
        if byte not in (b"", b"\x00"):
            return byte[0]
    raise EndlessHeaderError


def _gif_claim(file: BinaryIO) -> Claim:
    """Go from block to block: the decoder unpacks all frames before it takes the first."""
    file.seek(0)
    content = file.read()
    width = height = total = 0
    position = 13 + _table_length(content, 10)
    while position + 10 <= len(content) and content[position : position + 1] in (b"!", b","):
        if content[position] == ord("!"):
            position += 2
        else:
            size = struct.unpack_from("<2H", content, position + 5)
            width, height = max(width, size[0]), max(height, size[1])
            total += size[0] * size[1]
            position += 11 + _table_length(content, position + 9)
        while position < len(content) and content[position]:
            position += 1 + content[position]
        position += 1
    return Claim("GIF", width, height, total)


def _table_length(content: bytes, position: int) -> int:
    """Return how many bytes the colour table takes that a byte of flags announces."""
    flags = content[position] if position < len(content) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_size(start: bytes) -> tuple[int, int]:
    kind = start[12:16]
    if kind == b"VP8 ":
        width, height = _unpack("<26x2H", start)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        bits = int.from_bytes(start[24:30], "little")
        return (bits & 0xFFFFFF) + 1, (bits >> 24) + 1
    return 0, 0


def _jxl_size(codestream: bytes) -> tuple[int, int]:
    """Read the size header of a JPEG XL codestream, ISO/IEC 18181-1, D.2."""
    bits = int.from_bytes(codestream[:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    times, by = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * times // by if ratio else side()), height
