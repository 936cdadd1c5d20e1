"""The report of a comparison in a real browser, from disk: it works and says what is stored."""

import json

import numpy as np
import pytest
from browser_tab import WIDTHS
from compared_runs import (
    compared_pair,
    compared_series,
    hostile_pair,
    long_names,
    many_classes,
)
from page_checks import A4_WIDTH, kinds_of_pages, missing_pictures, violations, walk_with_tab

from audit.compare.compare_folder import write_comparison
from audit.report.comparison.compare_report import write_compare_report
from audit.report.formats import legible

MADE = {
    "pair": compared_pair,
    "series": compared_series,
    "hostile": hostile_pair,
    "many": many_classes,
    "long": long_names,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports by name, made when they are asked for: the comparison and its folder."""
    made = {}

    def report(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            comparison = MADE[name](folder)
            write_comparison(comparison, folder / "out")
            write_compare_report(comparison, folder / "out")
            made[name] = comparison, folder / "out"
        return made[name]

    return report


def outcomes_of(out, step=-1):
    found = json.loads((out / "comparison.json").read_text())["steps"][step]["outcomes"]
    return [found[f"n_{name}"] for name in ("fixed", "broken", "still_wrong", "still_right")]


@pytest.mark.parametrize("name", ["pair", "series", "hostile"])
def test_every_page_opens_from_disk_without_a_problem(tab, reports, name):
    _, out = reports(name)
    opened = tab(out)
    pages = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.html"))
    for page in pages:
        opened.open(page)
        assert missing_pictures(opened) == [], page
    assert len(pages) > 18


@pytest.mark.parametrize("name", MADE)
def test_nothing_overflows_at_any_width(tab, reports, name):
    _, out = reports(name)
    opened = tab(out)
    for page in kinds_of_pages(out):
        opened.open(page)
        for width in WIDTHS:
            opened.resize(width)
            assert opened.excess() == 0, f"{page} at {width}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["pair", "series", "hostile"])
def test_axe_finds_nothing(tab, reports, name, scheme):
    _, out = reports(name)
    opened = tab(out, color_scheme=scheme)
    for page in kinds_of_pages(out):
        opened.open(page)
        assert violations(opened) == [], page


@pytest.mark.parametrize("page", ["index.html", "images.html", "images/3.html"])
def test_the_tab_key_reaches_everything_and_shows_where_it_is(tab, reports, page):
    opened = tab(reports("pair")[1])
    opened.open(page)
    assert walk_with_tab(opened) == (set(), [])


def test_it_fits_on_paper(tab, reports):
    opened = tab(reports("series")[1])
    opened.page.emulate_media(media="print")
    opened.resize(A4_WIDTH)
    for page in ("index.html", "images.html", "images/3.html"):
        opened.open(page)
        assert opened.excess() == 0, page


def test_a_count_leads_to_so_many_images(tab, reports):
    comparison, out = reports("pair")
    (step,) = comparison.steps
    arrays = (step.outcomes.fixed, step.outcomes.broken, step.outcomes.still_wrong)
    opened = tab(out)
    for n, positions in enumerate(arrays):
        opened.open("index.html")
        link = opened.page.locator(".outcome-tiles .tile-value a").nth(n)
        assert int(link.inner_text()) == len(positions) == outcomes_of(out)[n]
        link.click()
        opened.wait_until_ready()
        cards = opened.page.locator("#gallery .change-card a")
        hrefs = [card.get_attribute("href") for card in cards.all()]
        assert {f"images/{position}.html" for position in positions.tolist()} == set(hrefs)
        assert opened.page.locator("#shown").inner_text() == f"{len(positions)} of 18 images"


def test_patterns_and_classes_lead_to_their_images(tab, reports):
    opened = tab(reports("pair")[1])
    for selector, n in ((".compare-pattern .pattern-name a", 12), (".group-table tbody a", 15)):
        opened.open("index.html")
        opened.page.locator(selector).first.click()
        opened.wait_until_ready()
        assert opened.page.locator("#shown").inner_text() == f"{n} of 18 images"


def test_cards_made_by_the_script_are_those_of_the_page(tab, reports):
    _, out = reports("hostile")
    code = """() => [...document.querySelectorAll("#gallery .change-card a")].map((a) => ({
      href: a.getAttribute("href"), title: a.title, text: a.innerText.replace(/\\s+/g, " "),
      images: [...a.querySelectorAll("img")].map((i) => i.getAttribute("src")),
      marks: [...a.querySelectorAll(".mark, .said")].map((m) => m.className),
      values: [...a.querySelectorAll("data")].map((d) => [Number(d.value), d.textContent]),
    }))"""
    plain, live = tab(out, java_script_enabled=False), tab(out)
    for opened in (plain, live):
        opened.open("images.html")
    assert plain.js(code) == live.js(code)


def test_the_gallery_filters_sorts_and_turns(tab, reports):
    opened = tab(reports("pair")[1])
    opened.open("images.html")
    page, shown = opened.page, opened.page.locator("#shown")
    assert shown.inner_text() == "All 18 images"
    page.locator("#filter-maps").select_option("2")
    page.wait_for_function("() => document.getElementById('shown').textContent.startsWith('7 of')")
    assert "maps=2" in page.url
    page.locator("#filter-outcome").select_option("2")
    page.wait_for_function("() => document.getElementById('shown').textContent.startsWith('2 of')")
    page.locator("#filter-find").fill("nothing is called so")
    page.wait_for_selector("#no-match:visible")
    page.locator("#clear-empty").click()
    assert shown.inner_text() == "All 18 images"
    page.locator("#sort").select_option("loss")
    page.wait_for_function("() => location.hash === '#sort=loss'")
    first = page.locator("#gallery .change-card a").first
    assert first.get_attribute("href") == "images/61.html"  # From 0.9 to 0.2.
    page.locator("#filter-find").fill("0005.PNG")
    page.wait_for_function("() => document.getElementById('shown').textContent.startsWith('1 of')")
    assert page.locator("#turner").is_hidden()


def test_many_images_come_a_page_at_a_time(tab, reports):
    _, out = reports("many")
    opened = tab(out)
    opened.open("images.html")
    page = opened.page
    assert page.locator("#gallery .change-card").count() == 60
    n = int(page.locator("#shown").inner_text().split()[1])
    last = -(-n // 60)
    assert page.locator("#turn-where").inner_text() == f"Page 1 of {last}"
    seen = set()
    for number in range(1, last + 1):
        assert page.locator("#turn-where").inner_text() == f"Page {number} of {last}"
        seen |= set(opened.js("[...document.querySelectorAll('#gallery a')].map((a) => a.href)"))
        if number < last:
            page.keyboard.press("n")
    assert len(seen) == n
    assert page.locator("#turn-on").is_disabled()
    page.reload()
    opened.wait_until_ready()
    assert page.locator("#turn-where").inner_text() == f"Page {last} of {last}"


def test_a_thousand_classes_can_be_searched_and_sorted(tab, reports):
    comparison, out = reports("many")
    opened = tab(out)
    opened.open("index.html")
    table = opened.page.locator(".group-table")
    assert table.locator("tbody tr").count() == len(comparison.steps[0].classes) == 1000
    assert opened.js("document.querySelector('.scroll-tall').clientHeight") <= 480
    opened.page.get_by_label("Find a class").fill("class 999 ")
    opened.page.wait_for_function(
        "() => document.querySelectorAll('.group-table tbody tr:not([hidden])').length === 1"
    )
    header = table.locator("th", has_text="Broken")
    header.locator("button").click()
    broken = [int(text) for text in table.locator("tbody td:nth-child(6)").all_inner_texts()[:50]]
    assert broken == sorted(broken, reverse=True)


def test_the_gallery_of_a_series_knows_every_step(tab, reports):
    comparison, out = reports("series")
    opened = tab(out)
    for step in (1, 2, 3):
        opened.open(f"steps/{step}.html")
        opened.page.locator(".outcome-tiles .tile-value a").first.click()
        opened.wait_until_ready()
        n = len(comparison.steps[step - 1].outcomes.fixed)
        assert (
            opened.page.locator("#gallery .change-card").count()
            == n
            == outcomes_of(out, step - 1)[0]
        )
        sides = opened.page.locator("#gallery .change-card").first.locator(".change-side").count()
        assert sides == (4 if step == 3 else 2)


def hot_columns(opened, selector):
    """Return the mean cover of each eighth of a canvas, from the left, 0 to 255."""
    return opened.js(
        """(selector) => {
          const canvas = document.querySelector(selector);
          const { width, height } = canvas;
          const copy = new OffscreenCanvas(width, height);
          const context = copy.getContext("2d", { willReadFrequently: true });
          context.drawImage(canvas, 0, 0);
          const pixels = context.getImageData(0, 0, width, height).data;
          const sums = new Array(8).fill(0);
          for (let n = 0; n < width * height; n += 1) {
            sums[Math.floor(((n % width) * 8) / width)] += pixels[4 * n + 3];
          }
          return sums.map((sum) => sum / ((width * height) / 8));
        }""",
        selector,
    )


def test_the_overlays_are_painted_where_each_model_looked(tab, reports):
    opened = tab(reports("pair")[1])
    opened.open("images/3.html")
    before = hot_columns(opened, '[data-overlay="0"][data-run="0"] canvas')
    after = hot_columns(opened, '[data-overlay="0"][data-run="1"] canvas')
    assert np.argmax(before) in (0, 1)
    assert sum(before[3:]) == 0
    assert np.argmax(after) in (3, 4)
    assert opened.page.locator('[data-overlay="1"][data-run="1"] canvas').count() == 0
    assert (
        opened.page.locator('[data-overlay="1"][data-run="1"] .stack-note').inner_text() == "no map"
    )


def test_the_threshold_changes_what_is_seen(tab, reports):
    opened = tab(reports("pair")[1])
    opened.open("images/3.html")
    seen = opened.page.locator('[data-seen="1"]')
    shares = []
    for percent in (25, 50, 75):
        opened.js(
            """(percent) => {
              const slider = document.getElementById("threshold");
              slider.value = percent;
              slider.dispatchEvent(new Event("input"));
            }""",
            percent,
        )
        assert opened.page.locator("#threshold-value").inner_text() == f"{percent}\u202f%"
        shares.append(int(seen.inner_text().split("\u202f")[0]))
        covered = hot_columns(opened, '[data-segment="1"] canvas')
        assert shares[-1] == pytest.approx(100 * (1 - np.mean(covered) / 235), abs=0.6)
    assert shares[0] > shares[1] > shares[2] > 0


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_animation_goes_over_the_runs(tab, reports, motion):
    opened = tab(reports("series")[1], reduced_motion=motion)
    opened.open("images/3.html")
    page = opened.page
    where = page.locator("#stage-numbers")
    assert "1 of 4" in where.inner_text()
    assert np.argmax(hot_columns(opened, "#stage canvas")) in (0, 1)
    page.wait_for_timeout(300)
    assert "1 of 4" in where.inner_text()  # It waits to be asked.
    page.locator("#play").click()
    page.wait_for_function(
        "() => document.getElementById('stage-numbers').textContent.includes('2 of 4')"
    )
    assert page.locator("#play").inner_text() == "Pause"
    page.locator("#play").click()
    assert page.locator("#play").inner_text() == "Play"
    page.locator("#stage-run").focus()
    page.keyboard.press("End")
    assert "4 of 4" in where.inner_text()
    assert "100 %" in page.locator("#stage-label").inner_text()
    assert np.argmax(hot_columns(opened, "#stage canvas")) in (3, 4)


def test_the_arrow_keys_go_through_the_images(tab, reports):
    comparison, out = reports("pair")
    opened = tab(out)
    opened.open("images.html")
    hrefs = opened.js("[...document.querySelectorAll('#gallery a')].map((a) => a.href)")
    opened.page.locator("#gallery a").first.click()
    opened.wait_until_ready()
    for href in hrefs[1:4]:
        with opened.page.expect_navigation():
            opened.page.keyboard.press("ArrowRight")
        opened.wait_until_ready()
        assert opened.page.url == href
    assert len(hrefs) == 18 == len(set(hrefs))
    assert comparison.n_images == 70


def test_it_can_be_read_without_javascript(tab, reports):
    opened = tab(reports("pair")[1], java_script_enabled=False)
    page = opened.page
    opened.open("index.html")
    assert "12 errors fixed, 2 images broken" in page.locator("h1").inner_text()
    opened.open("images.html")
    assert page.locator("#filters").is_hidden()
    assert page.locator("#gallery .change-card").count() == 18
    page.locator(".outcome-jumps a", has_text="Broken").click()
    assert page.url.endswith("#broken")
    opened.open("images/3.html")
    assert page.locator("[data-overlay] .heat").count() == 2
    assert page.locator("[data-segment] .mask").count() == 2
    assert page.locator("#animation").is_hidden()
    assert page.locator("noscript a").first.get_attribute("href") == "../images/3.gif"


def test_hostile_names_are_shown_as_they_are(tab, reports):
    comparison, out = reports("hostile")
    opened = tab(out)
    opened.open("images/0.html")
    assert opened.page.locator("#path").inner_text() == legible(comparison.images.paths[0])
    assert opened.page.title() != "stolen"
    opened.open("images.html")
    titles = opened.js("[...document.querySelectorAll('#gallery a')].map((a) => a.title)")
    assert legible(comparison.images.paths[0]) in titles
    assert opened.page.locator("#gallery i, #gallery b").count() == 0
