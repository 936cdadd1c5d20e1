"""Boxes from COCO and VOC files, kind and hostile ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.errors import DatasetError
from audit.explain import annotations
from audit.explain.annotations import NoBoxesError, read_coco, read_voc

BOX = "<object><bndbox><xmin>3</xmin><ymin>1</ymin><xmax>10</xmax><ymax>5</ymax></bndbox></object>"
SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))


def coco(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def voc(path: Path, body: str | bytes) -> Path:
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return path


def listed(*annotations: Any, **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10} | image],
        "annotations": list(annotations),
    }


def test_coco_by_hand(tmp_path: Path):
    content = listed({"image_id": 1, "bbox": [2, 3, 5, 4]}, {"image_id": 1, "bbox": [0, 0, 1.5, 1]})
    content["images"].append({"id": "b", "file_name": "b.jpg"})
    found = read_coco(coco(tmp_path / "c.json", content))
    np.testing.assert_array_equal(found["a.jpg"].corners, [[2, 3, 7, 7], [0, 0, 1.5, 1]])
    assert found["a.jpg"].size == (20, 10)
    assert found["b.jpg"].size is None
    assert found["b.jpg"].corners.shape == (0, 4)
    assert found["b.jpg"].why_not == ""


@pytest.mark.parametrize(
    "bbox",
    [
        None,
        [1, 2, 3],
        [1, 2, 0, 4],
        [1, 2, 3, -1],
        ["1", 2, 3, 4],
        [True, 0, 1, 1],
        [1, 2, 3, 1e300],
    ],
)
def test_an_annotation_that_is_no_box_is_a_reason(tmp_path: Path, bbox: Any):
    good = {"image_id": 1, "bbox": [0, 0, 5, 5]}
    path = coco(tmp_path / "c.json", listed(good, {"image_id": 1, "bbox": bbox}))
    assert read_coco(path)["a.jpg"].why_not == (
        "one of its boxes is not four numbers x, y, width, height"
    )


def test_numbers_that_json_should_not_have(tmp_path: Path):
    text = json.dumps(listed({"image_id": 1, "bbox": "HERE"}))
    for numbers in ("[NaN, 0, 1, 1]", "[0, 0, Infinity, 1]", f"[{'9' * 4000}, 0, 1, 1]"):
        path = coco(tmp_path / "c.json", text.replace('"HERE"', numbers))
        assert read_coco(path)["a.jpg"].why_not


def test_annotations_of_unknown_images_are_passed_over(tmp_path: Path):
    others = [{"image_id": 7, "bbox": [0, 0, 1, 1]}, {"image_id": [], "bbox": []}, 5, {}]
    assert not len(read_coco(coco(tmp_path / "c.json", listed(*others)))["a.jpg"].corners)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2",
        "\x00\xff",
        "[]",
        "7",
        {"images": []},
        {"images": {}, "annotations": []},
        {"images": [5], "annotations": []},
        {"images": [{"id": 1}], "annotations": []},
        {"images": [{"file_name": "a"}], "annotations": []},
        "[" * 100_000,
    ],
)
def test_what_is_no_coco_is_one_sentence(tmp_path: Path, content: Any):
    path = coco(tmp_path / "c.json", content)
    with pytest.raises(
        DatasetError, match=r"holds no boxes that can be read\. Received: .*\. Give"
    ):
        read_coco(path)


def test_voc_by_hand(tmp_path: Path):
    found = read_voc(voc(tmp_path / "a.xml", f"<annotation>{SIZE}{BOX}{BOX}</annotation>"))
    # Pixels 3 to 10, counted from 1 and the last one inside, are 2 to 10 from the edge.
    np.testing.assert_array_equal(found.corners, [[2, 0, 10, 5]] * 2)
    assert found.size == (20, 10)


def test_boxes_of_parts_are_not_objects(tmp_path: Path):
    part = BOX.replace("<object>", "<object><part>").replace("</object>", "</part></object>")
    assert not len(read_voc(voc(tmp_path / "a.xml", f"<annotation>{part}</annotation>")).corners)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not well-formed"),
        ("not xml", "not well-formed"),
        ("<annotation>", "not well-formed"),
        (b"\xff\xfe\x00", "not well-formed"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not well-formed"),
        ("<html/>", "no VOC annotation"),
        (f"<annotation>{BOX.replace('10', 'wide')}</annotation>", "lacks a corner"),
        (f"<annotation>{BOX.replace('10', '1e9')}</annotation>", "lacks a corner"),
        (f"<annotation>{BOX.replace('<xmax>10</xmax>', '')}</annotation>", "lacks a corner"),
        (f"<annotation>{BOX.replace('10', '1')}</annotation>", "ends before it begins"),
        (
            f"<!DOCTYPE a [<!ENTITY l0 'ha'>{LAUGHS}]><annotation>&l29;</annotation>",
            "document type",
        ),
        (
            "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation>&x;</annotation>",
            "document type",
        ),
        ("<annotation>&x;</annotation>", "not well-formed"),
    ],
)
def test_what_is_no_voc_is_a_reason(tmp_path: Path, body: str | bytes, reason: str):
    with pytest.raises(NoBoxesError, match=reason):
        read_voc(voc(tmp_path / "a.xml", body))


def test_depth_and_endless_text_do_no_harm(tmp_path: Path):
    depth = 100_000
    body = "<annotation>" + "<a>" * depth + "</a>" * depth + BOX + "</annotation>"
    assert len(read_voc(voc(tmp_path / "a.xml", body)).corners) == 1
    endless = BOX.replace("10", "1" * 1_000_000)
    with pytest.raises(NoBoxesError, match="lacks a corner"):
        read_voc(voc(tmp_path / "b.xml", f"<annotation>{endless}</annotation>"))


def test_a_file_that_is_too_large_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(annotations, "MOST_XML_BYTES", 50)
    with pytest.raises(NoBoxesError, match="more than 50 bytes"):
        read_voc(voc(tmp_path / "a.xml", f"<annotation>{BOX}</annotation>"))
    with pytest.raises(NoBoxesError, match="cannot be opened: No such file"):
        read_voc(tmp_path / "gone.xml")


def test_real_boxes(shared_data: Path):
    found = read_voc(shared_data / "neu_det" / "annotations" / "crazing_1.xml")
    assert found.size == (200, 200)
    assert found.corners[0].tolist() == [1, 1, 193, 194]
