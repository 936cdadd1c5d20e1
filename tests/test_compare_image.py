"""The page of one image over the runs, as values."""

import base64
import zlib

import cv2
import numpy as np
import pytest
from compared_runs import compared_pair, compared_series, left, middle

from audit.report.comparison.compare_image import image_page, pack_maps
from audit.report.comparison.compare_overview import make_site
from audit.report.comparison.compared_images import ComparedImages
from audit.report.comparison.compared_pictures import ComparedPictures


def page_of(comparison, position, patterns=()):
    shown = ComparedImages(comparison, ComparedPictures(comparison.images))
    place = shown.positions[shown.order].tolist().index(position)
    site = make_site(comparison, len(shown))
    return image_page(site, shown, place, list(patterns), size=(24, 24), has_gif=False)


def unpack(text, shapes):
    """Undo `pack_maps` as the browser does, pixel by pixel."""
    content, start, maps = zlib.decompress(base64.b64decode(text)), 0, []
    for height, width in shapes:
        values = list(content[start : start + height * width])
        for n in range(1, len(values)):
            values[n] = (values[n] + values[n - 1 if n % width else n - width]) % 256
        maps.append(np.array(values).reshape(height, width))
        start += height * width
    assert start == len(content)
    return maps


def test_packing_loses_nothing():
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 8), (3, 5), (1, 1))]
    found = unpack(pack_maps(maps), [cam.shape for cam in maps])
    assert all((one == two).all() for one, two in zip(maps, found, strict=True))


def test_a_fixed_image_with_maps_in_both(tmp_path):
    page = page_of(compared_pair(tmp_path), 3, [(0, 1, "bars <b>")])
    assert (page.true_name, page.outcome) == ("cats", "fixed")
    assert page.outcome_href == "images.html#step=1&outcome=0"
    assert [(x.name, x.is_true, x.shares) for x in page.explained] == [
        ("dogs", False, (1.0, 1.0)),
        ("cats", True, (1.0, None)),
    ]
    assert page.n_maps == 2
    assert page.patterns == (("before", 1, "bars <b>", "images.html#step=1&pattern=0-1"),)
    sizes = [found["runs"] for found in page.data["classes"]]
    assert sizes == [[(8, 8, 1.0), (8, 8, 1.0)], [(8, 8, 1.0), None]]
    maps = unpack(page.data["maps"], [(8, 8)] * 3)
    for found, cam in zip(maps, (left(), middle(), middle()), strict=True):
        assert (found == cam).all()


def test_scores_are_those_of_every_run(tmp_path):
    page = page_of(compared_pair(tmp_path), 3)
    cats, dogs = page.scores
    assert (cats.name, cats.is_true, cats.said_by) == ("cats", True, (1,))
    assert cats.values == (0.19999999, 0.9)  # 1 - 0.8 in float32
    assert (dogs.values, dogs.said_by) == ((0.8, 0.1), (0,))
    assert cats.bars == (20.0, 90.0)


def test_the_segment_is_what_lies_above_half(tmp_path):
    page = page_of(compared_pair(tmp_path), 3)
    before, after = page.segments
    png = base64.b64decode(before.mask.partition(",")[2])
    alpha = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)[..., 3]
    assert alpha.shape == (112, 112)
    # A column of 8 is 14 pixels wide; halfway between hot and cold lies the border.
    assert (alpha[:, :28] == 0).all()
    assert (alpha[:, 29:] == 235).all()
    assert before.share == pytest.approx(28 / 112, abs=1 / 112)
    assert 0 < after.share < before.share


def test_an_image_without_maps_has_no_data(tmp_path):
    comparison = compared_pair(tmp_path)
    page = page_of(comparison, 30)
    assert [segment is None for segment in page.segments] == [False, True]
    comparison.images.runs[0].folder.shard_path("explanations", 0).unlink()
    page = page_of(comparison, 30)
    assert page.data is None
    assert page.n_maps == 0
    assert [x.name for x in page.explained] == ["cats"]


def test_neighbours_are_those_of_the_gallery(tmp_path):
    comparison = compared_series(tmp_path)
    shown = ComparedImages(comparison, ComparedPictures(comparison.images))
    in_order = shown.positions[shown.order].tolist()
    first, last = page_of(comparison, in_order[0]), page_of(comparison, in_order[-1])
    assert first.previous is None
    assert first.next == f"images/{in_order[1]}.html"
    assert last.next is None
    assert (first.number, last.number) == (1, len(in_order))
    assert len(first.sides) == 4
