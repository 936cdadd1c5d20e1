"""The report in a real browser, from disk: it works, asks for nothing and shows what is stored."""

import pytest
from browser_tab import WIDTHS
from diagnosis_fixture import HOSTILE_RECIPE
from report_fixture import Sizes, write_run

from audit.report.render import render_report
from audit.report.run_data import read_run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"), sizes=Sizes(240, 16, 12))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(600, 220, 12))
    render_report(folder)
    return folder


def kinds_of_pages(folder) -> list[str]:
    """Return one page of each kind."""
    report = folder.path / "report"
    names = [path.name for path in report.glob("*.html") if not path.stem.endswith("-2")]
    targets = [f"targets/T{number}.html" for number in (1, 2, 3)]
    return [*sorted(names), f"errors/{first_error(folder)}.html", "slices/1.html", *targets]


def first_error(folder) -> int:
    return int(read_run(folder).errors["image_id"].iloc[0])


def test_every_page_opens_from_disk_without_a_problem(tab, hostile):
    opened = tab(hostile)
    pages = sorted((hostile.path / "report").rglob("*.html"))
    for path in pages:
        opened.open(path.relative_to(hostile.path / "report").as_posix())
        assert opened.page.title() != "stolen"
    assert len(pages) == 16 + 13 + 4 + 3  # errors, pages at the top, targets, slices


def test_nothing_overflows_at_any_width(tab, hostile, binary):
    for folder in (hostile, binary):
        opened = tab(folder)
        for name in kinds_of_pages(folder):
            opened.open(name)
            for width in WIDTHS:
                opened.resize(width)
                assert opened.excess() == 0, f"{name} at {width}"


def test_all_pictures_load(tab, binary):
    opened = tab(binary)
    for name in (
        "index.html",
        "errors.html",
        "pattern-1.html",
        "findings.html",
        "labels.html",
        "slices/1.html",
        "targets/T1.html",
        f"errors/{first_error(binary)}.html",
    ):
        opened.open(name)
        opened.js("for (const img of document.images) img.loading = 'eager'")
        opened.page.wait_for_function("() => [...document.images].every((img) => img.complete)")
        assert opened.js("[...document.images].filter((img) => !img.naturalWidth).length") == 0


def test_a_cell_of_the_confusion_matrix_leads_to_its_errors(tab, binary):
    opened = tab(binary)
    opened.open("index.html")
    link = opened.page.locator(".matrix td a").first
    count = int(link.locator(".cell-count").inner_text())
    link.click()
    opened.wait_until_ready()
    assert opened.page.locator("#shown").inner_text().startswith(f"{count} of ")


def test_tables_sort_by_number_and_say_how(tab, binary):
    opened = tab(binary)
    opened.open("index.html")
    header = opened.page.locator(".class-table th", has_text="Recall")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    names = opened.page.locator(".class-table tbody th").all_inner_texts()
    recalls = dict(read_run(binary).classes[["name", "recall"]].itertuples(index=False))
    assert names == sorted(names, key=lambda name: -recalls[name])
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"


def test_the_code_of_a_recipe_can_be_copied(tab, hostile):
    opened = tab(hostile)
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.open("targets/T2.html")
    button = opened.page.locator("[data-copy-from]")
    button.click()
    opened.page.wait_for_function(
        """() => ["Copied", "Selected"].includes(
          document.querySelector("[data-copy-from]").textContent)"""
    )
    if button.inner_text() == "Copied":
        copied = opened.js("navigator.clipboard.readText()")
    else:
        copied = opened.js("getSelection().toString()")
    assert copied.strip() == HOSTILE_RECIPE.strip()


def test_the_path_can_be_copied(tab, hostile):
    opened = tab(hostile)
    image_id = first_error(hostile)
    opened.open(f"errors/{image_id}.html")
    button = opened.page.locator("[data-copy]")
    path = read_run(hostile).errors["path"].iloc[0]
    assert button.get_attribute("data-copy") == path
    button.click()
    opened.page.wait_for_function(
        "() => ['Copied', 'Selected'].includes(document.querySelector('[data-copy]').textContent)"
    )


def test_the_report_can_be_read_without_javascript(tab, binary):
    opened = tab(binary, java_script_enabled=False)
    image_id = first_error(binary)
    opened.open("errors.html")
    page = opened.page
    assert page.locator("#gallery .card").count() == 200
    assert page.locator("#filters").is_hidden()
    page.locator(".pages a", has_text="2").click()
    assert page.locator("#gallery .card").count() == 20
    opened.open(f"errors/{image_id}.html")
    assert page.locator(".view .heat").count() == 3
    assert page.locator("#viewer").is_hidden()
    assert "needs JavaScript" in page.locator("noscript").inner_text()
    for name in kinds_of_pages(binary):
        opened.open(name)
        assert page.locator("h1").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(tab, hostile, scheme):
    code = """() => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
      };
      const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const colour = rgba(getComputedStyle(at).backgroundColor);
          if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
      };
      const poor = [];
      for (const element of document.querySelectorAll("main *, header *, footer *")) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !element.checkVisibility()) continue;
        if (element.closest("svg, .sr-only, :disabled")) continue;
        const style = getComputedStyle(element);
        const text = luminance(rgba(style.color));
        const back = luminance(ground(element));
        const contrast = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        const enough = contrast >= (large ? 3 : 4.5);
        if (!enough) poor.push([element.className, element.textContent, contrast]);
      }
      return poor;
    }"""
    opened = tab(hostile, color_scheme=scheme)
    for name in kinds_of_pages(hostile):
        opened.open(name)
        assert opened.js(code) == [], name


def test_single_keys_can_be_switched_off_and_stay_off(tab, binary):
    opened = tab(binary)
    page = opened.page
    opened.open("index.html")
    page.keyboard.press("?")
    assert page.locator("#keys-dialog").is_visible()
    page.get_by_label("Single characters act as keys").uncheck()
    page.keyboard.press("Escape")
    for name in ("index.html", "metrics.html"):
        opened.open(name)
        page.keyboard.press("?")
        assert page.locator("#keys-dialog").is_hidden()
    page.locator("#keys").click()
    page.get_by_label("Single characters act as keys").check()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#keys-dialog").is_visible()
