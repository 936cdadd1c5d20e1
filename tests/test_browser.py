"""The report in a real browser, from disk: it works, asks for nothing and shows what is stored."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnosis_fixture import HOSTILE_RECIPE
from report_fixture import Sizes, write_run

from audit.report import images
from audit.report.maps import map_layers, shard_maps
from audit.report.render import render_report
from audit.report.run_data import read_run

sync_api = pytest.importorskip("playwright.sync_api")

WIDTHS = (390, 768, 1440, 2560)
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium is installed"
        if os.environ.get("AUDIT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield running
        running.close()


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


class Tab:
    """A tab that remembers everything that went wrong, and every request."""

    def __init__(self, browser, report: Path, **options) -> None:
        self.report = report
        self.has_scripts = options.get("java_script_enabled", True)
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("requestfailed", self._note_failure)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _note_failure(self, request) -> None:
        # A picture still on its way when the test leaves the page is no failure.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def open(self, name: str) -> None:
        """Open a page of the report and wait until its scripts have run."""
        if "#" in name:  # a fragment alone would not load the page afresh
            self.page.goto("about:blank")
        self.page.goto(f"file://{self.report.resolve()}/{name}")
        if self.has_scripts and self.page.locator("#maps, #error-data").count():
            self.page.wait_for_selector("html[data-ready]", state="attached")

    def js(self, code: str, argument=None):
        return self.page.evaluate(code, argument)


@pytest.fixture
def tab(browser) -> Iterator:
    opened = []

    def open_tab(folder, **options) -> Tab:
        opened.append(Tab(browser, folder.path / "report", **options))
        return opened[-1]

    yield open_tab
    for item in opened:
        item.context.close()
        assert item.problems == []
        assert [
            url for url in item.requests if not url.startswith(("file://", "about:", "data:"))
        ] == []


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
    assert len(pages) == 16 + 12 + 4 + 3  # errors, pages at the top, targets, slices


def test_nothing_overflows_at_any_width(tab, hostile, binary):
    for folder in (hostile, binary):
        opened = tab(folder)
        for name in kinds_of_pages(folder):
            opened.open(name)
            for width in WIDTHS:
                opened.page.set_viewport_size({"width": width, "height": 900})
                excess = opened.js("document.documentElement.scrollWidth - innerWidth")
                assert excess <= 0, f"{name} at {width}"


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


def shown_ids(opened) -> list[int]:
    names = opened.js("[...document.querySelectorAll('#gallery a')].map((a) => a.href)")
    return [int(Path(name).stem) for name in names]


def wait_for_count(opened, text: str) -> None:
    opened.page.wait_for_function(
        "(text) => document.getElementById('shown').textContent === text", arg=text
    )


def test_filters_show_exactly_the_errors_that_fit(tab, binary):
    data = read_run(binary).errors
    opened = tab(binary)
    opened.open("errors.html")
    page = opened.page
    assert page.locator("#shown").inner_text() == "All 220 errors"
    page.select_option("#filter-true", "0")
    cats = data[data["y_true"] == 0]
    wait_for_count(opened, f"{len(cats)} of 220 errors")
    page.select_option("#filter-pattern", "1")
    chosen = cats[cats["pattern"] == 1]
    wait_for_count(opened, f"{len(chosen)} of 220 errors")
    assert shown_ids(opened) == chosen["image_id"].tolist()
    assert page.url.endswith("#true=0&pattern=1")
    page.click("#clear")
    wait_for_count(opened, "All 220 errors")


def test_the_gallery_filters_by_slice_and_by_doubt(tab, binary):
    data = read_run(binary)
    opened = tab(binary)
    opened.open("slices/1.html")
    opened.page.locator("a", has_text="Filter and sort all").click()
    opened.page.wait_for_selector("html[data-ready]", state="attached")
    table = binary.read_table("slices").set_index("slice")
    chosen = data.errors[data.errors["image_id"].isin(table.loc[1, "error_ids"])]
    wait_for_count(opened, f"{len(chosen)} of 220 errors")
    assert opened.page.url.endswith("#slice=1")
    opened.page.select_option("#filter-label", "1")
    flagged = chosen[chosen["image_id"].isin(data.diagnosis.flags)]
    wait_for_count(opened, f"{len(flagged)} of 220 errors")
    assert shown_ids(opened) == flagged["image_id"].tolist() != []
    marks = opened.page.locator("#gallery .flag")
    assert marks.count() == len(flagged)
    assert marks.first.get_attribute("title") in data.diagnosis.flags.values()
    opened.page.select_option("#filter-label", "0")
    wait_for_count(opened, f"{len(chosen) - len(flagged)} of 220 errors")
    assert opened.page.locator("#gallery .flag").count() == 0


def test_the_gallery_sorts(tab, binary):
    data = read_run(binary).errors
    opened = tab(binary)
    opened.open("errors.html#predicted=1&sort=unsure")
    chosen = data[data["y_pred"] == 1].sort_values(["p_pred", "image_id"])
    ids = shown_ids(opened)
    assert ids == chosen["image_id"].head(len(ids)).tolist()
    assert opened.page.locator("#order").inner_text() == "least confident first"


def test_the_gallery_shows_more_when_its_end_comes_into_sight(tab, binary):
    opened = tab(binary)
    opened.open("errors.html")
    assert len(shown_ids(opened)) < 220
    opened.page.locator("footer").scroll_into_view_if_needed()
    opened.page.wait_for_function(
        """() => {
          scrollTo(0, 1e6);
          return document.querySelectorAll("#gallery .card").length === 220;
        }"""
    )
    assert shown_ids(opened) == read_run(binary).errors["image_id"].tolist()


def test_a_choice_that_fits_nothing_says_so(tab, hostile):
    opened = tab(hostile)
    opened.open("errors.html#true=0&predicted=0")
    assert opened.page.locator("#shown").inner_text().startswith(("0 of", "All"))
    opened.open("errors.html#true=1&predicted=0&pattern=0&sort=pattern")
    fitting = read_run(hostile).errors.query("y_true == 1 and y_pred == 0 and pattern == 0")
    assert len(shown_ids(opened)) == len(fitting)
    assert opened.page.locator("#no-match").is_visible() == fitting.empty


def test_a_cell_of_the_confusion_matrix_leads_to_its_errors(tab, binary):
    opened = tab(binary)
    opened.open("index.html")
    link = opened.page.locator(".matrix td a").first
    count = int(link.locator(".cell-count").inner_text())
    link.click()
    opened.page.wait_for_selector("html[data-ready]", state="attached")
    assert opened.page.locator("#shown").inner_text().startswith(f"{count} of ")


def test_heat_maps_can_be_hidden_in_the_gallery(tab, binary):
    opened = tab(binary)
    opened.open("errors.html")
    assert opened.page.locator("#gallery .heat").first.is_visible()
    opened.page.uncheck("#show-heat")
    assert not opened.page.locator("#gallery .heat").first.is_visible()


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


# The page of an error


def stored_maps(folder, image_id):
    """Return the layers and the small maps of one image, from the Parquet files."""
    layers = map_layers(read_run(folder).layers)
    frames = [f[f["image_id"] == image_id] for f in folder.iter_shards("explanations")]
    frame = next(frame for frame in frames if len(frame))
    return layers, shard_maps(frame, layers), frame.set_index(["layer", "explained_class"])


def share_of_scale(maps, image_id, explained_class, layer):
    peaks = [maps.peaks[row, layer] for (i, _), row in maps.rows.items() if i == image_id]
    return float(maps.peaks[maps.rows[image_id, explained_class], layer]) / max(peaks)


def canvas_pixels(opened, selector) -> np.ndarray:
    code = """(selector) => {
      const canvas = document.querySelector(selector);
      const copy = new OffscreenCanvas(canvas.width, canvas.height)
        .getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const image = copy.getImageData(0, 0, canvas.width, canvas.height);
      return [image.height, image.width, [...image.data]];
    }"""
    height, width, values = opened.js(code, selector)
    return np.array(values, np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize("role", ["predicted", "true"])
@pytest.mark.parametrize("layer", [7, 11, 12])
def test_the_layer_slider_shows_the_map_that_is_stored(tab, binary, layer, role):
    error = read_run(binary).errors.iloc[4]
    image_id, explained = int(error["image_id"]), int(error[f"y_{role[:4]}"])
    layers, maps, stored = stored_maps(binary, image_id)
    opened = tab(binary)
    opened.open(f"errors/{image_id}.html")
    opened.page.check(f"[name=role][value={role}]")
    opened.page.locator("#layer").fill(str(layer))
    row = stored.loc[(layers[layer].name, explained)]
    cam = np.frombuffer(row["cam"], np.uint8).reshape(row["height"], row["width"])
    share = share_of_scale(maps, image_id, explained, layer)
    expected = cv2.resize(cam.astype(np.float32), (96, 96), interpolation=cv2.INTER_LINEAR) * share
    drawn = canvas_pixels(opened, "[data-layer=chosen] canvas")
    # A pixel's opacity says how hot it is; maps that are rounded may stray by two heats.
    alpha = images.heat_alpha() * 255 * images.OVERLAY_OPACITY
    stray = 1 if layers[layer].is_whole else 3
    low = alpha[np.clip(np.floor(expected) - stray, 0, 255).astype(int)]
    high = alpha[np.clip(np.ceil(expected) + stray, 0, 255).astype(int)]
    assert (drawn[..., 3] >= low - 1).all() and (drawn[..., 3] <= high + 1).all()
    hot = drawn[..., 3] > 200
    table = images.colour_table("inferno").astype(int)
    near = table[np.rint(expected[hot]).astype(int)]
    assert not hot.any() or np.abs(drawn[hot][:, :3].astype(int) - near).max() <= 24


def test_every_map_of_the_strip_is_the_packed_one(tab, binary):
    error = read_run(binary).errors.iloc[7]
    image_id, predicted = int(error["image_id"]), int(error["y_pred"])
    layers, maps, _ = stored_maps(binary, image_id)
    opened = tab(binary)
    opened.open(f"errors/{image_id}.html")
    assert opened.page.locator(".strip-map").count() == len(layers)
    table = images.colour_table("inferno")
    for n in range(len(layers)):
        opened.js("(n) => document.querySelectorAll('.strip-map')[n].dataset.test = n", n)
        drawn = canvas_pixels(opened, f".strip-map[data-test='{n}'] canvas")
        cam = maps.cam(maps.rows[image_id, predicted], n)
        heat = np.floor(cam * share_of_scale(maps, image_id, predicted, n) + 0.5).astype(int)
        assert np.abs(drawn[..., :3].astype(int) - table[heat]).max() <= 4
        assert (drawn[..., 3] == 255).all()


def test_a_link_restores_the_view(tab, binary):
    image_id = first_error(binary)
    opened = tab(binary)
    opened.open(f"errors/{image_id}.html#layer=3&role=true&colours=jet&opacity=40&threshold=30")
    page = opened.page
    assert page.locator("#layer").input_value() == "3"
    assert page.locator("[name=role][value=true]").is_checked()
    assert page.locator("#colours").input_value() == "jet"
    assert page.locator("#opacity").input_value() == "40"
    assert page.locator("#threshold").input_value() == "30"
    page.locator("#layer").fill("5")
    assert "layer=5" in page.url and "colours=jet" in page.url


@pytest.mark.parametrize(
    "fragment", ["layer=x&role=__proto__", "layer=-4&colours=constructor", "%%%"]
)
def test_a_broken_link_shows_the_page_as_it_starts(tab, binary, fragment):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html#{fragment}")
    assert opened.page.locator("#colours").input_value() == "inferno"
    assert opened.page.locator("[name=role][value=predicted]").is_checked()


def test_opacity_colours_and_threshold_change_the_pictures(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    before = canvas_pixels(opened, "[data-layer=fused] canvas")
    opened.page.locator("#opacity").fill("0")
    assert not canvas_pixels(opened, "[data-layer=fused] canvas")[..., 3].any()
    opened.page.locator("#opacity").fill("85")
    opened.page.select_option("#colours", "jet")
    after = canvas_pixels(opened, "[data-layer=fused] canvas")
    assert (after[..., 3] == before[..., 3]).all()
    assert (after[..., :3] != before[..., :3]).any()
    seen = []
    for threshold in (10, 50, 90):
        opened.page.locator("#threshold").fill(str(threshold))
        veil = canvas_pixels(opened, "[data-mask] canvas")[..., 3]
        seen.append((veil == 0).mean())
        share = float(opened.page.locator("#mask-share").inner_text().split("\u202f")[0])
        assert share == pytest.approx(100 * seen[-1], abs=0.051)
    assert seen[0] > seen[1] > seen[2] > 0


def test_play_walks_through_the_layers_and_stops(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    opened.page.click("#play")
    assert opened.page.locator("#play").get_attribute("aria-pressed") == "true"
    opened.page.wait_for_function("() => Number(document.getElementById('layer').value) >= 3")
    opened.page.click("#play")
    stopped = opened.page.locator("#layer").input_value()
    opened.page.wait_for_timeout(300)
    assert opened.page.locator("#layer").input_value() == stopped
    assert f"layer={stopped}" in opened.page.url


def test_a_map_in_which_nothing_speaks_is_said_and_not_drawn(tab, hostile):
    data = read_run(hostile)
    predicted = zip(data.errors["image_id"], data.errors["y_pred"], strict=True)
    empty = next(i for i, c in predicted if data.peaks[i, c] == 0)
    opened = tab(hostile)
    opened.open(f"errors/{empty}.html")
    view = opened.page.locator("[data-role=predicted][data-layer=fused]")
    assert view.locator("canvas").is_hidden()
    assert "speaks for" in view.inner_text()


def test_the_keyboard_reaches_layers_cards_and_neighbours(tab, binary):
    ids = read_run(binary).errors["image_id"].tolist()
    opened = tab(binary)
    page = opened.page
    opened.open("errors.html")
    page.locator("#gallery a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/errors/{ids[1]}.html")
    page.wait_for_selector("html[data-ready]", state="attached")
    page.locator(".strip-map[aria-current]").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#layer").input_value() == "11"
    opened.js("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/errors/{ids[2]}.html*")
    page.wait_for_selector("html[data-ready]", state="attached")
    page.keyboard.press("Escape")
    page.wait_for_url("**/errors.html*")


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
