"""Hostile names in a real browser: they are text that can be read, and nothing else.

Class, file and metadata names, slices, findings and targets of the drawn run hold what would end a
script or an attribute, start a template, turn the text around, leave the folder or fill the page.
"""

import pytest
from diagnosis_fixture import HOSTILE_RECIPE, HOSTILE_SLICE
from page_checks import kinds_of_pages
from report_fixture import HOSTILE_NAMES, HOSTILE_PATH, Sizes, write_run

from audit.report.formats import legible, shorten
from audit.report.render import render_report
from audit.report.run_data import read_run

SIZES = Sizes(120, 20, 6)
"""With these, the image with the hostile path is an error."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"), sizes=SIZES)
    render_report(folder)
    return folder


def text_of(opened) -> str:
    """Return what can be read on a page, in one line."""
    return " ".join(opened.js("document.body.innerText").split())


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_names_are_as_hostile_as_they_should_be():
    everything = " ".join((*HOSTILE_NAMES, HOSTILE_PATH, HOSTILE_SLICE, HOSTILE_RECIPE))
    for trap in ("</script>", '"', "'", "{{", "\u202e", "../", "onerror=", "</table>", "\n"):
        assert trap in everything
    assert max(len(name) for name in HOSTILE_NAMES) > 300


def test_nothing_of_them_becomes_part_of_a_page(tab, hostile):
    opened = tab(hostile)
    report = hostile.path / "report"
    own_scripts = sorted(path.name for path in (report / "static").glob("*.js"))
    for name in kinds_of_pages(report):
        opened.open(name)
        assert opened.page.title().endswith("corners <model>.keras")
        # The labels of the strip of layers are the only bold words of the report's own.
        foreign = "i, b:not(.strip-label > b), [onerror], img[src='x'], iframe, object"
        assert opened.page.locator(foreign).count() == 0, name
        scripts = opened.js(
            """[...document.scripts].map((script) => script.src
              ? script.src.split("/").pop() : script.type)"""
        )
        assert set(scripts) <= {*own_scripts, "application/json"}, name
        # Only what the button copies, and nobody sees, holds the path with its controls.
        opened.js("document.querySelector('[data-copy]')?.removeAttribute('data-copy')")
        assert "\u202e" not in opened.js("document.documentElement.outerHTML"), name


# Where a name must be read, and what of it.
WHERE = {
    "index.html": [shorten(HOSTILE_NAMES[0]), shorten(HOSTILE_NAMES[1])],
    "metrics.html": [shorten(HOSTILE_NAMES[0]), shorten(HOSTILE_NAMES[1])],
    "confusion.html": [shorten(HOSTILE_NAMES[0]), shorten(HOSTILE_NAMES[1])],
    "errors.html": [shorten(HOSTILE_NAMES[1])],
    "slices.html": [shorten(HOSTILE_SLICE, 80)],
    "slices/1.html": [legible(HOSTILE_SLICE)],
    "targets/T2.html": ["</code></pre><script>alert(1)</script>", "{{ 7 * 7 }}"],
    "findings.html": ["<img src=x onerror=alert(1)> {{ 7 * 7 }} \\u202ebars\\u202c"],
    "errors/0.html": [legible(HOSTILE_PATH), "<b>north</b>", "exposure </td>"],
    "run.html": ["broken/<b>torn</b>.jpg"],
}


@pytest.mark.parametrize("name", WHERE)
def test_they_can_be_read_as_they_are(tab, hostile, name):
    opened = tab(hostile)
    opened.open(name)
    opened.js("for (const more of document.querySelectorAll('details')) more.open = true")
    text = text_of(opened)
    for wanted in WHERE[name]:
        assert in_one_line(wanted) in text, wanted


def test_a_name_of_300_characters_can_be_read_whole(tab, hostile):
    whole = in_one_line(legible(HOSTILE_NAMES[2]))
    opened = tab(hostile)
    opened.open("metrics.html")
    assert whole in text_of(opened)
    opened.resize(390)
    assert opened.excess() == 0


def test_what_is_copied_is_the_path_itself(tab, hostile):
    assert 0 in read_run(hostile).errors["image_id"].tolist()
    opened = tab(hostile)
    opened.open("errors/0.html")
    assert opened.page.locator("[data-copy]").get_attribute("data-copy") == HOSTILE_PATH


def test_a_hostile_name_in_the_search_finds_its_errors(tab, hostile):
    opened = tab(hostile)
    opened.open("errors.html")
    opened.page.fill("#filter-find", "<img src=x onerror")
    opened.page.wait_for_function(
        "() => document.getElementById('shown').textContent.startsWith('1 of')"
    )
    card = opened.page.locator("#gallery .card a").first
    assert card.get_attribute("href").startswith("errors/0.html")
