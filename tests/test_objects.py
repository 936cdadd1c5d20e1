"""Which mask or box belongs to which image, and files that are not what they seem."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from audit.errors import DatasetError
from audit.explain.object_view import View
from audit.explain.objects import (
    BOXES,
    EMPTY,
    MASK,
    NOT_GIVEN,
    UNUSABLE,
    NoMaskError,
    Objects,
    Placed,
    match_names,
    read_mask,
)

SQUARE = View(4, 4)
XML = (
    "<annotation><size><width>{w}</width><height>{h}</height></size><object><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>{x}</xmax><ymax>{y}</ymax></bndbox></object></annotation>"
)


def save(path: Path, pixels: Any, dtype: Any = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(pixels, dtype))
    return path


def left_half(side: int = 8) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return mask


def bomb(path: Path, side: int = 100_000) -> Path:
    """Write a small PNG that claims to have billions of pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(content)
    return path


def coco(path: Path, **boxes: list[list[float]]) -> Path:
    images = [{"id": n, "file_name": name, "width": 8, "height": 8} for n, name in enumerate(boxes)]
    of_images = [
        {"image_id": n, "bbox": box} for n, found in enumerate(boxes.values()) for box in found
    ]
    path.write_text(json.dumps({"images": images, "annotations": of_images}))
    return path


def test_names_by_hand():
    paths = ["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg", "dogs/3.jpg", "dogs/4.jpg"]
    names = ["cats/1.png", "2.png", "x/3.png", "y/3.png"]
    # cats/1 by its path; dogs/1 has none, for that is taken; 2 by its name; 3 is not clear.
    assert match_names(paths, names).tolist() == [0, -1, 1, -2, -1]


def test_the_suffix_tells_apart_what_nothing_else_does():
    assert match_names(["a.jpg", "a.png"], ["a.jpg", "a.png"]).tolist() == [0, 1]
    assert match_names(["a.jpg", "a.png"], ["a.bmp"]).tolist() == [-2, -2]
    assert match_names(["v1.2/a", "b.c/x"], ["v1.2/a.png"]).tolist() == [0, -1]
    assert match_names([], ["a"]).tolist() == match_names([], []).tolist() == []


def test_an_image_of_the_same_name_elsewhere_makes_a_lone_file_unclear():
    assert match_names(["cats/1.jpg", "dogs/1.jpg"], ["1.png"]).tolist() == [-2, -2]


@pytest.mark.parametrize(
    ("pixels", "dtype"),
    [
        ([[0, 1], [255, 0]], np.uint8),
        ([[0, 1], [65535, 0]], np.uint16),
        ([[[0, 0, 0], [1, 0, 0]], [[0, 0, 9], [0, 0, 0]]], np.uint8),
        # Black but opaque, coloured, coloured, coloured but transparent.
        ([[[0, 0, 0, 255], [9, 0, 0, 255]], [[0, 9, 0, 1], [9, 9, 9, 0]]], np.uint8),
    ],
)
def test_what_is_not_black_is_the_object(tmp_path: Path, pixels: Any, dtype: Any):
    path = save(tmp_path / "m.png", pixels, dtype)
    assert read_mask(path).tolist() == [[False, True], [True, False]]


def test_files_that_are_no_masks(tmp_path: Path):
    (tmp_path / "text.png").write_text("a mask, honestly")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    whole = save(tmp_path / "whole.png", left_half(64)).read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[:40])
    noise = save(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 2, (200, 200)))
    (tmp_path / "cut.png").write_bytes(noise.read_bytes()[:-100])
    save(tmp_path / "jpeg.jpg", left_half()).rename(tmp_path / "jpeg.png")
    reasons = {
        "text.png": "its mask is no PNG$",
        "empty.png": "it is empty",
        "folder.png": "it is a folder",
        "torn.png": "cannot be decoded",
        "cut.png": "cannot be decoded",
        "jpeg.png": "its mask is no PNG but JPEG",
        "gone.png": "it is gone",
    }
    for name, reason in reasons.items():
        with pytest.raises(NoMaskError, match=reason):
            read_mask(tmp_path / name)
    with pytest.raises(NoMaskError, match=r"claims to have 100,000 × 100,000 pixels"):
        read_mask(bomb(tmp_path / "bomb.png"))


def test_a_mask_of_another_size_is_brought_to_the_image(tmp_path: Path):
    save(tmp_path / "a.png", left_half(20))
    placed = Objects(["a.jpg"], tmp_path).place(0, (40, 40), SQUARE)
    assert placed.kind == MASK
    assert placed.coverage is not None
    assert placed.coverage.tolist() == [[1, 1, 0, 0]] * 4


def test_a_mask_of_another_shape_is_not_used(tmp_path: Path):
    save(tmp_path / "a.png", np.full((20, 30), 255))
    placed = Objects(["a.jpg"], tmp_path).place(0, (30, 20), SQUARE)
    assert placed.kind == MASK  # Of the same shape.
    turned = Objects(["a.jpg"], tmp_path).place(0, (20, 30), SQUARE)
    assert turned.kind == UNUSABLE
    assert "30 × 20 pixels, which is another shape than the image's 20 × 30" in turned.reason


def test_a_size_that_was_rounded_is_the_same_shape(tmp_path: Path):
    save(tmp_path / "a.png", np.full((6, 7), 255))  # 447 × 374 to a width of 7: 5.86 rows.
    assert Objects(["a.jpg"], tmp_path).place(0, (447, 374), SQUARE).kind == MASK


def test_an_image_of_no_file_has_the_size_that_the_model_sees(tmp_path: Path):
    save(tmp_path / "image-00000000.png", left_half())
    placed = Objects(["image-00000000"], tmp_path).place(0, None, SQUARE)
    assert placed.kind == MASK


def test_what_is_known_of_each_image(tmp_path: Path):
    save(tmp_path / "good.png", left_half())
    save(tmp_path / "none.png", np.zeros((8, 8)))
    (tmp_path / "bad.png").write_text("no")
    objects = Objects(["bad.jpg", "good.jpg", "missing.jpg", "none.jpg"], tmp_path)
    kinds = [objects.place(row, (8, 8), SQUARE).kind for row in range(4)]
    assert kinds == [UNUSABLE, MASK, NOT_GIVEN, EMPTY]


def test_an_object_that_the_crop_leaves_out_is_none(tmp_path: Path):
    mask = np.zeros((4, 12), np.uint8)
    mask[:, 0] = 255
    save(tmp_path / "a.png", mask)
    placed = Objects(["a.jpg"], tmp_path).place(0, (12, 4), View(4, 4, "crop"))
    assert placed.kind == EMPTY


def test_boxes_stand_in_for_masks_that_are_not_there(tmp_path: Path):
    masks = tmp_path / "masks"
    save(masks / "a.png", left_half())
    (masks / "c.png").write_text("no")
    boxes = coco(
        tmp_path / "b.json",
        **{"a.jpg": [[0, 0, 8, 8]], "b.jpg": [[0, 0, 8, 4]], "c.jpg": [[0, 0, 2, 8]], "d.jpg": []},
    )
    objects = Objects(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], masks, boxes)
    placed = [objects.place(row, (8, 8), SQUARE) for row in range(4)]
    assert [found.kind for found in placed] == [MASK, BOXES, BOXES, EMPTY]
    shares = [found.coverage.mean() for found in placed if found.coverage is not None]
    assert shares == pytest.approx([0.5, 0.5, 0.25])


def test_the_reason_of_a_bad_mask_is_kept_where_boxes_do_not_help(tmp_path: Path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "a.png").write_text("no")
    objects = Objects(["a.jpg", "b.jpg"], masks, coco(tmp_path / "b.json", **{"b.jpg": []}))
    assert objects.place(0, (8, 8), SQUARE) == Placed(UNUSABLE, "its mask is no PNG")


def test_voc_files(tmp_path: Path):
    (tmp_path / "a.xml").write_text(XML.format(w=8, h=8, x=4, y=8))
    (tmp_path / "b.xml").write_text(XML.format(w=8, h=4, x=4, y=4))
    (tmp_path / "c.xml").write_text("<annotation>")
    objects = Objects(["x/a.jpg", "x/b.jpg", "x/c.jpg"], boxes=tmp_path)
    placed = [objects.place(row, (16, 16), SQUARE) for row in range(3)]
    assert [found.kind for found in placed] == [BOXES, UNUSABLE, UNUSABLE]
    assert placed[0].coverage is not None
    assert placed[0].coverage.tolist() == [[1, 1, 0, 0]] * 4
    assert "its annotation has 8 × 4 pixels" in placed[1].reason


def test_coco_paths_of_windows_and_with_dots(tmp_path: Path):
    boxes = coco(tmp_path / "b.json", **{".\\cats\\1.jpg": [[0, 0, 8, 8]], "dogs/1.jpg": []})
    objects = Objects(["cats/1.jpg", "dogs/1.jpg"], boxes=boxes)
    assert objects.place(0, (8, 8), SQUARE).kind == BOXES


def test_two_entries_of_one_path_are_not_used(tmp_path: Path):
    boxes = coco(tmp_path / "b.json", **{"a.jpg": [[0, 0, 8, 8]], "./a.jpg": [[0, 0, 1, 1]]})
    placed = Objects(["a.jpg"], boxes=boxes).place(0, (8, 8), SQUARE)
    assert placed == Placed(UNUSABLE, "two images of the file have its path")


@pytest.mark.parametrize(
    ("masks", "boxes", "message"),
    [
        ("gone", None, "`--masks .*gone` is no folder. Received: a path that does not exist"),
        ("empty", None, "holds no .png file"),
        ("full", None, "Nothing in `--masks .*full` belongs to any image. Received: 1 files"),
        (None, "gone", "There are no boxes at `.*gone`"),
        (None, "empty", "holds no .xml file"),
        (None, "full/z.png", "holds no boxes that can be read"),
    ],
)
def test_a_setting_that_gives_nothing_is_refused(
    tmp_path: Path, masks: str | None, boxes: str | None, message: str
):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "full" / "z.png", left_half())
    places = [None if name is None else tmp_path / name for name in (masks, boxes)]
    with pytest.raises(DatasetError, match=message):
        Objects(["a.jpg"], *places)


def test_the_fingerprint_follows_the_files(tmp_path: Path):
    masks = tmp_path / "masks"
    save(masks / "a.png", left_half())
    boxes = coco(tmp_path / "b.json", **{"a.jpg": [[0, 0, 8, 8]]})
    first = Objects(["a.jpg"], masks, boxes).fingerprint()
    assert Objects(["a.jpg"], masks, boxes).fingerprint() == first
    assert Objects(["a.jpg"], masks).fingerprint() != first
    coco(boxes, **{"a.jpg": [[0, 0, 8, 7]]})
    second = Objects(["a.jpg"], masks, boxes).fingerprint()
    save(masks / "b.png", left_half())
    assert len({first, second, Objects(["a.jpg"], masks, boxes).fingerprint()}) == 3
