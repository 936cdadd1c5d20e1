"""Pixels for pages: colour tables, overlays, pictures without metadata.

In: what the model saw as JPEG, a map of uint8. Out: JPEG and PNG bytes. An overlay holds colour and
transparency only; the page lays it over the picture, which the style sheet greys and dims. The
browser colours maps with the same tables and the same rule (`templates/static/maps.js`), so both
look alike.
"""

import base64
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

JPEG_QUALITY = 80
OVERLAY_OPACITY = 0.85
"""How much of the picture the hottest colour covers."""

FIRST_HEAT, FULL_HEAT = 0.3, 0.9
"""Shares of the scale between which a colour fades in over the picture."""

HALF_PEAK = 128
"""From this heat on a pixel belongs to the focus."""

SMALLEST_CROP, LARGEST_CROP = 0.25, 0.5
"""Sides of the squares that are cut out, as shares of the picture's shorter side."""

HEAT_SIDE = 56
"""Pixels on the longer side of an overlay; the browser enlarges it smoothly."""

HEAT_STEPS = 51
"""Overlays are rounded to so many steps above none, which halves their bytes."""

COLOUR_MAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "jet": cv2.COLORMAP_JET,
}
"""Perceptually even and safe for colour-blind readers, but for `jet`, the article's rainbow."""


def colour_table(name: str) -> Pixels:
    """Return the 256 colours of a map as uint8 RGB of shape (256, 3), cold first."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256)
    bgr = cv2.applyColorMap(ramp, COLOUR_MAPS[name])
    return np.ascontiguousarray(bgr[0, :, ::-1], dtype=np.uint8)


def heat_alpha() -> NDArray[np.float32]:
    """Return how much each of the 256 heats covers the picture, float32 of shape (256,) in 0..1.

    It rises smoothly; cold places stay uncovered, so that the picture remains readable.
    """
    ramp = np.arange(256, dtype=np.float32) / 255
    rise = np.clip((ramp - FIRST_HEAT) / (FULL_HEAT - FIRST_HEAT), 0, 1)
    return np.asarray(rise * rise * (3 - 2 * rise), dtype=np.float32)


def decode_picture(jpeg: bytes) -> Pixels:
    """Return a stored picture as uint8 BGR of shape (height, width, 3)."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, dtype=np.uint8)


def heat_picture(
    cam: Pixels, size: tuple[int, int], share: float = 1.0, side: int = HEAT_SIDE
) -> bytes:
    """Return a map as a PNG to lay over a picture: the colours of inferno, cold places transparent.

    It has the picture's proportions and `side` pixels on the longer side, or as many as the map, so
    that no map is made smaller. Heats are enlarged bilinearly, pixel centres aligned, and rounded
    to `HEAT_STEPS`.

    Args:
        cam: uint8 of shape (h, w), 255 at the map's own peak.
        size: height and width of the picture.
        share: the map's peak as a share of the scale it is shown on, 0..1.
        side: pixels on the longer side.
    """
    scale = max(side, *cam.shape) / max(size)
    height, width = (max(1, round(length * scale)) for length in size)
    large = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    steps = np.rint(large * np.float32(share * HEAT_STEPS / 255))
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0 for none
    rows[:, 1:] = np.maximum(steps - _N_UNSEEN, 0)
    header = _png_chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0))
    pixels = _png_chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
    return _PNG_SIGNATURE + header + _HEAT_PALETTE + pixels + _png_chunk(b"IEND", b"")


def data_address(png: bytes) -> str:
    """Return a PNG as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def focus_crop(picture: Pixels, cam: Pixels) -> bytes:
    """Cut the square under a map's hottest region out of a picture and return it as JPEG.

    The region is what hangs together with the peak at or above half of it. The square holds it, but
    is a quarter to a half of the picture's shorter side wide: of a longer region it shows the part
    around the centre of mass, so that a crop never shows the whole picture.

    Args:
        picture: uint8 BGR of shape (height, width, 3).
        cam: uint8 of shape (h, w), 255 at the map's own peak.
    """
    height, width = picture.shape[:2]
    _, regions = cv2.connectedComponents((cam >= HALF_PEAK).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(regions == regions.flat[cam.argmax()])
    heat = cam[rows, columns]
    tall, y = _extent(rows, heat, height / cam.shape[0])
    wide, x = _extent(columns, heat, width / cam.shape[1])
    smallest, largest = (share * min(height, width) for share in (SMALLEST_CROP, LARGEST_CROP))
    side = max(1, round(np.clip(max(tall, wide), smallest, largest)))
    top, left = _first_pixel(y, side, height), _first_pixel(x, side, width)
    return encode_jpeg(picture[top : top + side, left : left + side])


def encode_jpeg(picture: Pixels) -> bytes:
    """Return uint8 BGR of shape (height, width, 3) as JPEG without metadata."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(encoded)


def fit_picture(jpeg: bytes, side: int) -> bytes:
    """Return a stored picture with at most `side` pixels on its longer side, as JPEG.

    It is free of metadata. One that is small enough keeps its pixels as they are.
    """
    picture = decode_picture(jpeg)
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return strip_metadata(jpeg)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(np.asarray(small, np.uint8))


def colour_map_picture(cam: Pixels, side: int = 224) -> bytes:
    """Return a map alone, coloured and enlarged to `side` pixels on its longer side, as JPEG."""
    height, width = cam.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    large = cv2.resize(cam, size, interpolation=cv2.INTER_CUBIC)
    return encode_jpeg(colour_table("inferno")[large][..., ::-1].astype(np.uint8))


def strip_metadata(jpeg: bytes) -> bytes:
    """Return a JPEG without EXIF, comments and other application segments; pixels stay as they are.

    Only the segments before the scan are looked at; JFIF (APP0) and Adobe's colour note (APP14)
    stay, as they say how to decode. Anything that is not a JPEG comes back unchanged.
    """
    if jpeg[:2] != b"\xff\xd8":
        return jpeg
    kept = [jpeg[:2]]
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF and jpeg[position + 1] != 0xDA:
        marker = jpeg[position + 1]
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        is_note = marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)
        if not is_note:
            kept.append(jpeg[position:end])
        position = end
    return b"".join(kept) + jpeg[position:]


def _extent(positions: NDArray[np.intp], heat: Pixels, scale: float) -> tuple[float, float]:
    """Return the length and the centre of mass of a region along an axis, in pixels."""
    length = float(positions.max() - positions.min() + 1) * scale
    return length, float(np.average(positions + 0.5, weights=heat)) * scale


def _first_pixel(centre: float, side: int, length: int) -> int:
    """Return where a stretch around a centre begins, moved so that it lies inside."""
    return min(max(round(centre - side / 2), 0), length - side)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    length, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return length + kind + content + check


def _heat_palette() -> tuple[int, bytes]:
    """Return how many steps show nothing but the first of them, and the PNG's palette chunks.

    All steps that are fully transparent share the palette's first entry.
    """
    heats = np.rint(np.arange(HEAT_STEPS + 1) * (255 / HEAT_STEPS)).astype(int)
    alpha = np.rint(heat_alpha()[heats] * (OVERLAY_OPACITY * 255)).astype(np.uint8)
    n_unseen = int(np.argmax(alpha > 0)) - 1
    colours = colour_table("inferno")[heats[n_unseen:]]
    transparency = _png_chunk(b"tRNS", alpha[n_unseen:].tobytes())
    return n_unseen, _png_chunk(b"PLTE", colours.tobytes()) + transparency


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_N_UNSEEN, _HEAT_PALETTE = _heat_palette()
