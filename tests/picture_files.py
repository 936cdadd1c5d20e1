"""Picture files with headers of the test's own choosing, written byte by byte."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Return an image of noise, of any Pillow mode."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, packed: bytes = b"", depth: int = 8, colours: int = 2) -> bytes:
    """Return a PNG that claims a size, whatever its packed pixels hold; its checksums are right."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">2I5B", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    )


def jpeg(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    content = bytearray(encode(noise(16, 16), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">2H", height, width)
    return bytes(content)


def gif(*sizes: tuple[int, int]) -> bytes:
    """Return a GIF of frames that claim these sizes, each with a pixel of data."""
    frames = b"".join(
        b"!\xf9\x04\x00\x00\x00\x00\x00" + struct.pack("<c4HB", b",", 0, 0, *size, 0x80)
        # Its own table of two colours; then the least code size and one block of codes.
        + bytes(6) + b"\x02\x02\x4c\x01\x00"
        for size in sizes
    )  # fmt: skip
    return b"GIF89a" + struct.pack("<2H3B", 1, 1, 0x80, 0, 0) + bytes(6) + frames + b";"


def bmp(width: int, height: int) -> bytes:
    """Return a BMP header without pixels."""
    info = struct.pack("<I2i2H6I", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<I2HI", 54, 0, 0, 54) + info


def webp(width: int, height: int) -> bytes:
    """Return the start of an extended WebP that claims a canvas."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides


JXL_37_BY_23 = bytes.fromhex(
    "ff0ab000480c0013880200f800b59f200000152aa38c1bbc9cebf9f24387c5b48deb0c6db56d610963b3bd304848"
    "3842d936f402d57c3a00401f58003c4c008086b332940d40aea8504902"
)
"""A JPEG XL image of one colour, as libjxl 0.11 writes it."""
JXL_8_BY_8 = bytes.fromhex(
    "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20000000436a786c63ff0a41060013"
    "880200c000b59f200000152aa38c1bbc9cebf9f24387c5b48deb0c6db56d610963b3bd30484838828d8b826f4ea7"
    "0f734022952400"
)
"""The same in its container, with the short form of the size."""
