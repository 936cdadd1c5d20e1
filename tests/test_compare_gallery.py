"""The gallery of a comparison: pages and data."""

import base64
import json
import zlib

from compared_runs import compared_pair, many_classes

from audit.compare.stored import read_patterns
from audit.report.comparison import compare_gallery
from audit.report.comparison.compare_overview import make_site
from audit.report.comparison.compared_images import ComparedImages
from audit.report.comparison.compared_pictures import ComparedPictures


def pages_of(comparison):
    shown = ComparedImages(comparison, ComparedPictures(comparison.images))
    runs = range(len(comparison.runs))
    patterns = [read_patterns(comparison.images, run, is_later=run > 0) for run in runs]
    site = make_site(comparison, len(shown))
    return shown, list(compare_gallery.gallery_pages(site, shown, patterns))


def unpacked(page):
    return json.loads(zlib.decompress(base64.b64decode(page.data)))


def test_one_page_has_all_and_its_data(tmp_path):
    shown, (page,) = pages_of(compared_pair(tmp_path))
    assert (page.first, page.last, page.n_all) == (1, 18, 18)
    assert [card.position for card in page.cards] == shown.positions[shown.order].tolist()
    data = unpacked(page)
    assert data["id"] == shown.positions.tolist()
    assert data["labels"] == ["before", "after"]
    assert data["heat"][1][3] == 1
    assert data["heat"][1][9] == 0
    assert data["photo"] == [[0] * 12 + [0, 0, 0, 0, 0, 0]] * 2
    assert data["pattern"][0] == [1] * 12 + [0] * 6
    assert data["pattern"][1] == [0] * 16 + [1, 1]
    assert data["p_true"][1][3] == 0.9
    assert data["p"][0][0] == 0.8
    assert [(c.value, c.count, c.run) for c in page.patterns] == [
        ("0-1", 12, "before"),
        ("1-1", 2, "after"),
    ]
    assert [(c.name, c.count) for c in page.classes] == [("cats", 15), ("dogs", 3)]


def test_outcomes_begin_where_the_page_says(tmp_path):
    _, (page,) = pages_of(compared_pair(tmp_path))
    assert page.starts == (
        ("fixed", 12, "images.html#fixed"),
        ("broken", 2, "images.html#broken"),
        ("still wrong", 2, "images.html#still-wrong"),
        ("still right", 2, "images.html#still-right"),
    )
    assert page.firsts == {0: "fixed", 12: "broken", 14: "still-wrong", 16: "still-right"}


def test_many_images_are_cut_into_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_gallery, "PAGE_SIZE", 7)
    shown, pages = pages_of(compared_pair(tmp_path))
    assert [len(page.cards) for page in pages] == [7, 7, 4]
    assert [page.data is None for page in pages] == [False, True, True]
    assert pages[0].previous is None
    assert pages[0].next == "images/page-2.html"
    assert pages[1].previous == "images.html"
    assert [link.href for link in pages[0].links] == [
        "images.html",
        "images/page-2.html",
        "images/page-3.html",
    ]
    assert {name: href for name, _, href in pages[0].starts}["broken"] == (
        "images/page-2.html#broken"
    )
    assert pages[1].firsts == {5: "broken"}
    together = [card.position for page in pages for card in page.cards]
    assert together == shown.positions[shown.order].tolist()


def test_there_is_a_page_without_images(tmp_path):
    from compare_fixture import binary_scores, write_run

    from audit.compare.comparison import compare_runs

    run = write_run(tmp_path / "a", [0, 1], binary_scores([0.1, 0.9]))
    _, (page,) = pages_of(compare_runs([run, run]))
    assert page.n_all == 0
    assert page.cards == ()
    assert page.starts == ()


def test_of_many_classes_those_that_occur_can_be_chosen(tmp_path):
    shown, pages = pages_of(many_classes(tmp_path, 200))
    assert sum(choice.count for choice in pages[0].classes) == len(shown)
    assert len(pages[0].classes) < 200
