"""The contact sheet: parsed as a browser does, safe against hostile names, and all in one file."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_html import Page, read_page

from audit.report.contact_sheet import Hit, Picture, Sheet, render_contact_sheet
from audit.report.images import encode_jpeg

HOSTILE = '</style><script>alert("1")</script>\u202e"><img src=x onerror=alert(1)>\n.png'


def picture(width: int = 60, height: int = 40) -> Picture:
    return Picture(encode_jpeg(np.full((height, width, 3), 90, np.uint8)), width, height)


HITS = (
    Hit(1, "deep/er/a.png", 0.6254, "cats", 0.98765, picture(), (0.25, 0.75)),
    Hit(2, HOSTILE, 0.5, HOSTILE, 0.5, picture(30, 60), None),
    Hit(3, "gone.png", -0.25, "dogs", 1.0, None, None),
)
SHEET = Sheet(
    program="gradcam-audit 9.9",
    model_name=HOSTILE,
    pool_name=HOSTILE,
    target_id="T1",
    title=HOSTILE,
    text=f"Collect {HOSTILE}",
    n_images=12_345,
    n_unreadable=3,
    notes=(f"Only {HOSTILE}.",),
    examples=(picture(), picture(20, 20)),
    hits=HITS,
)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return rendered(SHEET, tmp_path)


def rendered(sheet: Sheet, folder: Path) -> Page:
    path = folder / "contact_sheet.html"
    path.write_bytes(render_contact_sheet(sheet))
    return read_page(path)


def test_the_page_is_well_formed_and_needs_nothing_else(page: Page):
    assert page.problems == []
    assert all(address.startswith("data:image/jpeg;base64,") for _, address in page.links())
    assert not page.all("script") and not page.all("link")
    assert not any("style" in element.attributes for element in page.elements)
    assert all(image.attributes["alt"] for image in page.all("img"))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)


def test_the_policy_allows_the_pages_own_style_and_pictures_only(page: Page):
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (style,) = page.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )
    assert "grid-template-columns" in style.text and "&" not in style.text


def test_every_image_is_shown_with_its_numbers(page: Page):
    captions = [re.sub(r"\s+", " ", e.text).strip() for e in page.all("figcaption")]
    assert captions[0] == "1 deep/er/a.png likeness 0.625 the model says cats, 98.8 %"
    assert captions[2] == "3 gone.png likeness −0.250 the model says dogs, 100.0 %"
    assert [e.attributes["value"] for e in page.all("data")][:2] == ["0.6254", "0.98765"]
    (heading,) = page.all("h2", id="found")
    assert heading.text == "The 3 images most like it"
    assert "Of 12,345 images in" in page.all("main")[0].text
    assert "3 of which could not be read" in page.all("main")[0].text
    assert len(page.all("img")) == 2 + 2
    assert page.all("p", cls="nothing")[0].text == "It could not be read again."


def test_the_pictures_are_what_was_given(page: Page):
    address = page.all("img")[2].attributes["src"]
    content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    assert content == HITS[0].picture.jpeg
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)
    assert b"Exif" not in content


def test_the_ring_is_around_the_place(page: Page):
    (drawing,) = page.all("svg")
    assert drawing.attributes["viewbox"] == "0 0 60 40"
    rings = page.all("circle")
    assert len(rings) == 2  # white upon black
    for ring in rings:
        # 0.25 × 60, 0.75 × 40, 0.14 × 40
        assert [ring.attributes[name] for name in ("cx", "cy", "r")] == ["15.0", "30.0", "5.6"]


def test_hostile_names_are_shown_and_do_nothing(page: Page):
    assert len(page.all("script")) == 0
    assert not any(name.startswith("on") for e in page.elements for name in e.attributes)
    shown = page.all("bdi", cls="path")[1].text
    assert shown.startswith('</style><script>alert("1")</script>\\u202e')
    assert "\u202e" not in page.all("body")[0].text


def test_a_sheet_without_places_does_not_speak_of_rings(tmp_path: Path):
    plain = rendered(replace(SHEET, hits=HITS[1:2], notes=(), examples=()), tmp_path)
    assert "ring" not in plain.all("main")[0].text.replace(HOSTILE, "")
    assert not plain.all("p", cls="note")
    assert not plain.all("section", **{"aria-labelledby": "examples"})
    assert plain.all("h2")[0].text == "The 1 image most like it"


def test_the_same_sheet_gives_the_same_bytes():
    assert render_contact_sheet(SHEET) == render_contact_sheet(SHEET)
