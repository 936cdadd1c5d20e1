"""Boxes around objects, as COCO and Pascal VOC write them.

In: a COCO JSON file, or the VOC XML file of an image. Out: boxes as shares of the image's sides.
Files are taken to be hostile: XML with a document type is refused, for entities are declared there,
and what is no box is a reason, not a crash.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from audit.errors import DatasetError

MOST_XML_BYTES = 16_000_000
"""A larger file is no annotation of one image."""

_ADVICE = (
    "Give a COCO JSON file with `images` and `annotations`, or a folder of VOC XML files, one for"
    " each image."
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_IN_BOX = ["annotation", "object", "bndbox"]
_IN_SIZE = ["annotation", "size"]
_LONGEST_NUMBER = 40


class NoBoxesError(ValueError):
    """Why the boxes of an image cannot be used, for a person to read."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image.

    Attributes:
        size: width and height in pixels of the image as it was annotated, `None` if not said.
        corners: float64 of shape (n, 4): left, top, right and bottom in pixels of that size.
        why_not: why they cannot be used, or "".
    """

    size: tuple[float, float] | None
    corners: np.ndarray
    why_not: str = ""


def read_coco(path: Path) -> dict[str, Boxes]:
    """Read the boxes of all images, whatever the category, by `file_name`.

    An image with an annotation that is no box is kept, with the reason: what is left of it might
    not be the object.

    Raises:
        DatasetError: if the file is no COCO JSON.
    """
    images, annotations = _coco_lists(path)
    names: dict[Any, str] = {}
    sizes: dict[str, tuple[float, float] | None] = {}
    for image in images:
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str):
            raise _refused(path, "an image without a `file_name`")
        if not isinstance(image.get("id"), (int, str)):
            raise _refused(path, "an image without an `id`")
        names[image["id"]] = image["file_name"]
        sizes[image["file_name"]] = _size(image.get("width"), image.get("height"))
    boxes: dict[str, list[list[float]]] = {name: [] for name in sizes}
    reasons: dict[str, str] = {}
    for annotation in annotations:
        image_id = annotation.get("image_id") if isinstance(annotation, Mapping) else None
        name = names.get(image_id) if isinstance(image_id, (int, str)) else None
        if name is None:
            continue  # Of an image that the file does not list.
        numbers = _numbers(annotation.get("bbox"))
        if numbers is None or numbers[2] <= 0 or numbers[3] <= 0:
            reasons[name] = "one of its boxes is not four numbers x, y, width, height"
        else:
            left, top, width, height = numbers
            boxes[name].append([left, top, left + width, top + height])
    return {
        name: Boxes(size, np.array(boxes[name], np.float64).reshape(-1, 4), reasons.get(name, ""))
        for name, size in sizes.items()
    }


def read_voc(path: Path) -> Boxes:
    """Read the boxes of one image.

    Pixels are counted from 1 and `xmax`, `ymax` are the last ones inside, as in Pascal VOC.

    Raises:
        NoBoxesError: if they cannot be used.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_XML_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise NoBoxesError(f"its XML file cannot be opened: {reason}") from exc
    if len(content) > MOST_XML_BYTES:
        raise NoBoxesError(f"its XML file has more than {MOST_XML_BYTES:,} bytes")
    return _VocReader().read(content)


class _VocReader:
    """Listens to a parser, and keeps the size and the corners of boxes."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._text = ""
        self._size: dict[str, str] = {}
        self._box: dict[str, str] = {}
        self._boxes: list[dict[str, str]] = []

    def read(self, content: bytes) -> Boxes:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add
        try:
            parser.Parse(content, True)
        except (expat.ExpatError, UnicodeError, LookupError) as exc:
            raise NoBoxesError("its annotation is not well-formed XML") from exc
        corners = [_voc_corners(box) for box in self._boxes]
        size = _size(*(_number(self._size.get(side, "")) for side in ("width", "height")))
        return Boxes(size, np.array(corners, np.float64).reshape(-1, 4))

    def _refuse_doctype(self, *_: object) -> None:
        raise NoBoxesError("its XML declares a document type, which no annotation needs")

    def _start(self, tag: str, _: object) -> None:
        if not self._path and tag != "annotation":
            raise NoBoxesError("its XML is no VOC annotation")
        self._path.append(tag)
        self._text = ""
        if self._path == _IN_BOX:
            self._box = {}

    def _add(self, text: str) -> None:
        if len(self._text) < _LONGEST_NUMBER:
            self._text += text[:_LONGEST_NUMBER]

    def _end(self, tag: str) -> None:
        if self._path == _IN_BOX:
            self._boxes.append(self._box)
        self._path.pop()
        if self._path == _IN_BOX:
            self._box[tag] = self._text
        elif self._path == _IN_SIZE:
            self._size[tag] = self._text


def _voc_corners(box: Mapping[str, str]) -> list[float]:
    left, top, right, bottom = (_number(box.get(name, "")) for name in _CORNERS)
    if left is None or top is None or right is None or bottom is None:
        raise NoBoxesError("one of its boxes lacks a corner that is a number")
    if right < left or bottom < top:
        raise NoBoxesError("one of its boxes ends before it begins")
    return [left - 1, top - 1, right, bottom]


def _coco_lists(path: Path) -> tuple[list[Any], list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise _refused(path, f"a file that is no JSON ({_first_line(exc)})") from exc
    found = [content.get(name) if isinstance(content, Mapping) else None for name in _LISTS]
    missing = [
        name for name, value in zip(_LISTS, found, strict=True) if not isinstance(value, list)
    ]
    if missing:
        raise _refused(path, f"JSON without a list `{'` and a list `'.join(missing)}`")
    return found[0] or [], found[1] or []


_LISTS = ("images", "annotations")


def _refused(path: Path, received: str) -> DatasetError:
    return DatasetError(
        f"`{path}` holds no boxes that can be read. Received: {received}. {_ADVICE}"
    )


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:100]


def _numbers(value: Any) -> list[float] | None:
    """Return four finite numbers, or `None`."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    found = [_finite(number) for number in value]
    kept = [number for number in found if number is not None]
    return kept if len(kept) == 4 else None


def _number(text: str) -> float | None:
    plain = re.fullmatch(r"\s*([-+]?\d{1,9}(?:\.\d{0,9})?)\s*", text, re.ASCII)
    return float(plain[1]) if plain else None


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
        return None
    return float(value) if math.isfinite(value) else None


def _size(width: Any, height: Any) -> tuple[float, float] | None:
    sides = _finite(width), _finite(height)
    if sides[0] is None or sides[1] is None or min(sides[0], sides[1]) < 1:
        return None
    return sides[0], sides[1]
