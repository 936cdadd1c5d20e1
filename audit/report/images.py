"""Pixels for pages: colour tables, overlays, pictures without metadata.

In: what the model saw as JPEG, a map of uint8. Out: JPEG and PNG bytes. The browser colours maps
with the same tables and the same rule (`templates/static/maps.js`), so both look alike.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 80
OVERLAY_OPACITY = 0.85
"""How much of the picture the hottest colour covers."""

FIRST_HEAT, FULL_HEAT = 0.3, 0.9
"""Shares of the scale between which a colour fades in over the picture."""

HALF_PEAK = 128
"""From this heat on a pixel belongs to the focus."""

SMALLEST_CROP, LARGEST_CROP = 0.25, 0.5
"""Sides of the squares that are cut out, as shares of the picture's shorter side."""

PICTURE_BRIGHTNESS = 0.8
"""Under a map the picture is grey and dimmed to this, so that only heat has a colour."""

LUMA = np.array([0.0722, 0.7152, 0.2126], np.float32)
"""How much blue, green and red count in grey, as in CSS filters (ITU-R BT.709)."""

COLOUR_MAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "jet": cv2.COLORMAP_JET,
}
"""Perceptually even and safe for colour-blind readers, but for `jet`, the article's rainbow."""


def colour_table(name: str) -> NDArray[np.uint8]:
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


def decode_picture(jpeg: bytes) -> NDArray[np.uint8]:
    """Return a stored picture as uint8 BGR of shape (height, width, 3)."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, dtype=np.uint8)


def overlay(picture: NDArray[np.uint8], cam: NDArray[np.uint8], share: float = 1.0) -> bytes:
    """Lay a map over a picture and return it as JPEG.

    Args:
        picture: uint8 BGR of shape (height, width, 3).
        cam: uint8 of shape (h, w), 255 at the map's own peak.
        share: the map's peak as a share of the scale it is shown on, 0..1.
    """
    height, width = picture.shape[:2]
    large = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    heat = np.rint(large * np.float32(share)).astype(np.uint8)
    keep, cover = _BLEND
    grey = (picture @ LUMA) * np.float32(PICTURE_BRIGHTNESS)
    blended = (grey * keep[heat])[..., None] + cover[heat]
    return encode_jpeg(np.rint(blended).astype(np.uint8))


def focus_crop(picture: NDArray[np.uint8], cam: NDArray[np.uint8]) -> bytes:
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


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return uint8 BGR of shape (height, width, 3) as JPEG without metadata."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(encoded)


def colour_map_picture(cam: NDArray[np.uint8], side: int = 224) -> bytes:
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


def _extent(
    positions: NDArray[np.intp], heat: NDArray[np.uint8], scale: float
) -> tuple[float, float]:
    """Return the length and the centre of mass of a region along an axis, in pixels."""
    length = float(positions.max() - positions.min() + 1) * scale
    return length, float(np.average(positions + 0.5, weights=heat)) * scale


def _first_pixel(centre: float, side: int, length: int) -> int:
    """Return where a stretch around a centre begins, moved so that it lies inside."""
    return min(max(round(centre - side / 2), 0), length - side)


def _blend_tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    alpha = heat_alpha() * np.float32(OVERLAY_OPACITY)
    colours = colour_table("inferno")[:, ::-1].astype(np.float32)
    return 1 - alpha, colours * alpha[:, None]


_BLEND = _blend_tables()
