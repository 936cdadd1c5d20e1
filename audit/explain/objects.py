"""Where the object is in each image: the user's masks and boxes, as the model saw the image.

In: a folder of PNG masks, a COCO file or a folder of VOC files, and the paths of the images. Out:
for each image how much of every pixel that the model saw belongs to the object, or why that is not
known. Files are looked at one at a time, and before they are decoded.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from audit.config import MAX_PIXELS
from audit.errors import DatasetError
from audit.explain.annotations import Boxes, NoBoxesError, read_coco, read_voc
from audit.explain.object_view import View, cover_by_boxes, cover_by_mask
from audit.predict.headers import EndlessHeaderError, read_claim, why_not_decode

MASK, BOXES = "mask", "boxes"
NOT_GIVEN, EMPTY, UNUSABLE = "not given", "empty", "unusable"
"""What is known of an image: its object is in a mask or in boxes; or none was given, or it shows no
object, or it cannot be used."""

_NO_MATCH, _AMBIGUOUS = -1, -2


@dataclass(frozen=True)
class Placed:
    """The object of one image.

    Attributes:
        kind: `MASK`, `BOXES`, `NOT_GIVEN`, `EMPTY` or `UNUSABLE`.
        reason: why it is not known, or "".
        coverage: float32 of shape (height, width), 0 to 1: how much of each pixel that the model
            sees belongs to the object; not all 0. `None` if it is not known.
    """

    kind: str
    reason: str = ""
    coverage: np.ndarray | None = None


class Objects:
    """The masks and boxes of a list of images."""

    def __init__(
        self,
        paths: Sequence[str],
        masks: Path | None = None,
        boxes: Path | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Find what belongs to which image; masks are not opened yet.

        A file belongs to the image of the same relative path, or of the same without the suffix, or
        else of the same name alone if only one image and one file have it.

        Args:
            paths: relative paths of the images, posix.
            masks: a folder of PNG files.
            boxes: a COCO JSON file, or a folder of VOC XML files.
            max_pixels: a mask that claims more is not decoded.

        Raises:
            DatasetError: if there are none, or not one belongs to an image.
        """
        self._max_pixels = max_pixels
        self._masks = _files(masks, ".png", "--masks") if masks else []
        self._mask_folder, self._box_place = masks, boxes
        self._coco: Mapping[str, Boxes] | None = None
        self._boxes: list[str] = []
        if boxes is not None and boxes.is_dir():
            self._boxes = _files(boxes, ".xml", "--boxes")
        elif boxes is not None:
            self._coco = _read_coco(boxes)
            self._boxes = list(self._coco)
        self._mask_of = match_names(paths, self._masks)
        self._boxes_of = match_names(paths, self._boxes)
        for option, place, found, names in (
            ("--masks", masks, self._mask_of, self._masks),
            ("--boxes", boxes, self._boxes_of, self._boxes),
        ):
            if place is not None and len(paths) and not (found != _NO_MATCH).any():
                raise DatasetError(
                    f"Nothing in `{option} {place}` belongs to any image. Received:"
                    f" {len(names):,} files, the first {names[0]!r}; {len(paths):,} images, the"
                    f" first {paths[0]!r}. Give each the path of its image below the folder, or at"
                    " least its name, without regard to the suffix."
                )

    def fingerprint(self) -> str:
        """Return a SHA-256 over names and sizes of the files, and over what a COCO file holds."""
        digest = hashlib.sha256()
        for folder, names in ((self._mask_folder, self._masks), (self._box_place, self._boxes)):
            if folder is None or (folder == self._box_place and self._coco is not None):
                continue
            for name in names:
                digest.update(f"{name}\0{_file_size(folder / name)}\n".encode())
            digest.update(b"\0")
        for name, boxes in (self._coco or {}).items():
            digest.update(f"{name}\0{boxes.size}\0{boxes.why_not}\n".encode())
            digest.update(boxes.corners.tobytes())
        return digest.hexdigest()

    def place(self, row: int, size: tuple[int, int] | None, view: View) -> Placed:
        """Return where the object of an image is.

        Args:
            row: its position among the paths.
            size: width and height of the image as decoded, without regard to an orientation that
                its file asks for: the model's loader has none either. `None` for an image that
                came in the size that the model sees.
            view: what the model sees.
        """
        size = size or (view.width, view.height)
        from_mask = self._from_mask(int(self._mask_of[row]), size, view)
        if from_mask.kind == MASK or self._box_place is None:
            return from_mask
        from_boxes = self._from_boxes(int(self._boxes_of[row]), size, view)
        is_known = from_boxes.kind == BOXES or from_mask.kind == NOT_GIVEN
        return from_boxes if is_known else from_mask

    def _from_mask(self, number: int, size: tuple[int, int], view: View) -> Placed:
        if number < 0 or self._mask_folder is None:
            return _unmatched(number)
        try:
            mask = read_mask(self._mask_folder / self._masks[number], self._max_pixels)
        except NoMaskError as exc:
            return Placed(UNUSABLE, str(exc))
        height, width = mask.shape
        if not _same_aspect((width, height), size):
            return Placed(UNUSABLE, _other_shape("its mask", (width, height), size))
        return _placed(MASK, cover_by_mask(mask, size, view))

    def _from_boxes(self, number: int, size: tuple[int, int], view: View) -> Placed:
        if number < 0 or self._box_place is None:
            return _unmatched(number)
        name = self._boxes[number]
        try:
            boxes = self._coco[name] if self._coco is not None else read_voc(self._box_place / name)
        except NoBoxesError as exc:
            return Placed(UNUSABLE, str(exc))
        if boxes.why_not:
            return Placed(UNUSABLE, boxes.why_not)
        if boxes.size is not None and not _same_aspect(boxes.size, size):
            return Placed(UNUSABLE, _other_shape("its annotation", boxes.size, size))
        annotated = boxes.size or size
        corners = boxes.corners / np.tile(np.asarray(annotated, np.float64), 2)
        return _placed(BOXES, cover_by_boxes(corners, size, view))


class NoMaskError(ValueError):
    """Why a mask cannot be used, for a person to read."""


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a mask: what is neither black nor transparent is the object.

    Returns:
        bool of shape (height, width).

    Raises:
        NoMaskError: if it is no PNG, claims too many pixels or cannot be decoded.
    """
    refused = why_not_decode(path, max_pixels)
    if refused:
        raise NoMaskError(f"its mask cannot be read: {refused}")
    try:
        with path.open("rb") as file:
            kind = read_claim(file).kind
            file.seek(0)
            content = file.read() if kind == "PNG" else b""
    except (OSError, EndlessHeaderError) as exc:
        raise NoMaskError("its mask cannot be opened any more") from exc
    if not content:
        raise NoMaskError(f"its mask is no PNG{f' but {kind}' if kind else ''}")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as exc:
        raise NoMaskError("its mask cannot be decoded") from exc
    if pixels is None:
        raise NoMaskError("its mask is a PNG, but cannot be decoded")
    if pixels.ndim == 2:
        return np.asarray(pixels != 0)
    inside = (pixels[..., :3] != 0).any(axis=2)
    return np.asarray(inside & (pixels[..., 3] != 0) if pixels.shape[2] == 4 else inside)


def match_names(paths: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Find for each image the file that belongs to it.

    Args:
        paths: of the images, relative, posix.
        names: of the files, likewise.

    Returns:
        int64 of shape (n_images,): the position among the names, -1 where there is none, -2 where
        several images or files have the same name and no path tells them apart.
    """
    found = np.full(len(paths), _NO_MATCH)
    is_free = np.ones(len(names), bool)
    for key_of in (_whole, _without_suffix, _stem):
        free = {key_of(names[number]): number for number in np.flatnonzero(is_free).tolist()}
        times = Counter(key_of(names[number]) for number in np.flatnonzero(is_free).tolist())
        wanted = [key_of(path) for path in paths]
        asked = Counter(wanted)
        for row in np.flatnonzero(found < 0).tolist():
            key = wanted[row]
            if key in free:
                is_clear = times[key] == 1 and asked[key] == 1
                found[row] = free[key] if is_clear else _AMBIGUOUS
        is_free[found[found >= 0]] = False
    return found


def _placed(kind: str, coverage: np.ndarray) -> Placed:
    if not coverage.any():
        return Placed(EMPTY, "it shows no object where the model looks")
    return Placed(kind, "", coverage)


def _unmatched(number: int) -> Placed:
    if number == _AMBIGUOUS:
        return Placed(UNUSABLE, "several images or files have its name, and no path tells which")
    return Placed(NOT_GIVEN, "none was given")


def _same_aspect(own: tuple[float, float], size: tuple[float, float]) -> bool:
    """Tell whether one size is the other, scaled and rounded to whole pixels."""
    width, height = own
    return bool(
        abs(width - height * size[0] / size[1]) <= 1 or abs(height - width * size[1] / size[0]) <= 1
    )


def _other_shape(what: str, own: tuple[float, float], size: tuple[int, int]) -> str:
    return (
        f"{what} has {own[0]:g} × {own[1]:g} pixels, which is another shape than the image's"
        f" {size[0]} × {size[1]}"
    )


def _read_coco(path: Path) -> dict[str, Boxes]:
    if not path.is_file():
        raise DatasetError(
            f"There are no boxes at `{path}`. Received: a path that does not exist. Give a COCO"
            " JSON file or a folder of VOC XML files with `--boxes`."
        )
    found: dict[str, Boxes] = {}
    for name, boxes in sorted(read_coco(path).items()):
        key = _posix(name)
        doubled = replace(boxes, why_not="two images of the file have its path")
        found[key] = doubled if key in found else boxes
    return found


def _files(folder: Path, suffix: str, option: str) -> list[str]:
    """Return the relative paths of the files below a folder that end in a suffix, in order."""
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "a path that does not exist"
        raise DatasetError(
            f"`{option} {folder}` is no folder. Received: {kind}. Give a folder of {suffix} files"
            " that are called as the images."
        )
    found = []
    for current, folders, names in os.walk(folder):
        folders.sort()
        relative = Path(current).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(suffix) and not name.startswith(".")
        ]
    kept = sorted(name for name in found if _is_utf8(name))
    if not kept:
        raise DatasetError(
            f"`{option} {folder}` holds no {suffix} file. Received: a folder without any, at any"
            " depth. Give a folder of them that are called as the images."
        )
    return kept


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def _posix(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/").lstrip("/")


def _whole(path: str) -> str:
    return path


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a name with a NUL in it.
        return -1
