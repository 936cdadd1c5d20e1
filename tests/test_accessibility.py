"""Everyone can use the report: axe, the keyboard alone, and paper."""

import io
import re

import pytest
from page_checks import A4_WIDTH, kinds_of_pages, violations, walk_with_tab
from report_fixture import Sizes, write_run

from audit.report.render import render_report

RUNS = {
    "hostile": {"sizes": Sizes(240, 16, 12)},
    "binary": {"class_names": ("cats", "dogs"), "sizes": Sizes(300, 60, 12)},
    "many": {"class_names": tuple(f"class {n}" for n in range(30)), "sizes": Sizes(600, 120, 4)},
}
LOOKS = [("light", 1440), ("dark", 390), ("light", 390), ("dark", 1440)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The `report` folder of each run by its name."""
    folders = {}
    for name, options in RUNS.items():
        folder = write_run(tmp_path_factory.mktemp("accessible"), **options)
        folders[name] = render_report(folder).parent
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("run", RUNS)
def test_axe_finds_no_violation(tab, reports, run, scheme, width):
    opened = tab(reports[run], color_scheme=scheme, viewport={"width": width, "height": 900})
    found = {}
    for name in kinds_of_pages(reports[run]):
        opened.open(name)
        found[name] = violations(opened)
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert len(found) >= 17


def test_axe_would_find_a_violation(tab, reports):
    opened = tab(reports["binary"])
    opened.open("run.html")
    opened.js("document.querySelector('main').append(document.createElement('img'))")
    assert [line.split(":")[0] for line in violations(opened)] == ["image-alt"]


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(tab, reports, run):
    opened = tab(reports[run])
    for name in kinds_of_pages(reports[run]):
        opened.open(name)
        unreached, dull = walk_with_tab(opened)
        assert (unreached, dull) == (set(), []), name


def test_the_dialog_of_keys_opens_and_closes_by_keyboard(tab, reports):
    opened = tab(reports["binary"])
    opened.open("errors.html")
    dialog = opened.page.locator("#keys-dialog")
    opened.page.keyboard.press("?")
    assert dialog.is_visible()
    assert dialog.locator("dt").count() > 2
    assert violations(opened) == []
    opened.page.keyboard.press("Escape")
    assert dialog.is_hidden()


@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_cut_off_on_paper(tab, reports, run):
    opened = tab(reports[run], color_scheme="dark")
    opened.page.emulate_media(media="print")
    opened.resize(A4_WIDTH)
    for name in kinds_of_pages(reports[run]):
        opened.open(name)
        assert opened.excess() == 0, name
        # A scroll bar cannot be used on paper: nothing may hide behind one.
        hidden = opened.js(
            """() => [...document.querySelectorAll("main *")].filter((element) => {
              const style = getComputedStyle(element);
              return element.checkVisibility() && element.clientWidth
                && /auto|scroll/.test(style.overflowX)
                && element.scrollWidth > element.clientWidth + 1;
            }).map((element) => `${element.tagName}.${element.className}`)"""
        )
        assert hidden == [], name
        # Black on white, whatever the screen shows.
        assert opened.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def pages_of(pdf: bytes) -> int:
    """Count the pages of a PDF written by Chromium."""
    return max(int(count) for count in re.findall(rb"/Type /Pages\s*/Count (\d+)", pdf))


@pytest.mark.slow
def test_pages_are_printed(tab, reports):
    opened = tab(reports["binary"])
    error = next(name for name in kinds_of_pages(reports["binary"]) if name.startswith("errors/"))
    for name, most in (("index.html", 8), (error, 6), ("errors.html", 14)):
        opened.open(name)
        pdf = opened.page.pdf(format="A4")
        assert 1 <= pages_of(pdf) <= most, name
        assert len(io.BytesIO(pdf).getvalue()) > 20_000, name
