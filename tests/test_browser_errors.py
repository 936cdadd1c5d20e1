"""The page of an error in a real browser: its maps are the stored ones, its state goes along."""

import base64
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from map_pixels import canvas_pixels, is_close_in_colour, is_laid_as_hot, page_heat, stray
from report_fixture import Sizes, write_run

from audit.report.maps import map_layers
from audit.report.neighbours import read_neighbours
from audit.report.render import render_report
from audit.report.run_data import read_run
from audit.report.views.patterns import pattern_views

N_LAYERS = 12
FUSED = N_LAYERS


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("two"), ("cats", "dogs"), Sizes(400, 80, N_LAYERS))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"), sizes=Sizes(240, 16, N_LAYERS))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def data(binary):
    return read_run(binary)


def first_error(folder) -> int:
    return int(read_run(folder).errors["image_id"].iloc[0])


def state_of(address: str) -> dict[str, str]:
    """Return what comes after the # of an address, as a page reads it."""
    return {key: value for key, (value,) in parse_qs(urlsplit(address).fragment).items()}


# What is drawn is what is stored


@pytest.mark.parametrize("role", ["predicted", "true"])
@pytest.mark.parametrize("layer", [2, 7, 11, FUSED])
def test_the_layer_slider_shows_the_map_that_is_stored(tab, binary, data, layer, role):
    error = data.errors.iloc[4]
    image_id, explained = int(error["image_id"]), int(error[f"y_{role[:4]}"])
    (heat,), item = page_heat(binary, image_id, [explained], layer)
    assert item.height == {2: 14, 7: 12, 11: 6, FUSED: 32}[layer]
    opened = tab(binary)
    opened.open(f"errors/{image_id}.html")
    opened.page.check(f"[name=role][value={role}]")
    opened.page.locator("#layer").fill(str(layer))
    drawn = canvas_pixels(opened, "[data-layer=chosen] canvas")
    assert drawn.shape == (96, 96, 4)
    assert is_laid_as_hot(drawn, heat, stray(item))


def test_every_map_of_the_strip_is_the_stored_one(tab, binary, data):
    error = data.errors.iloc[7]
    image_id = int(error["image_id"])
    opened = tab(binary)
    opened.open(f"errors/{image_id}.html")
    assert opened.page.locator(".strip-map").count() == N_LAYERS + 1
    for n in range(N_LAYERS + 1):
        (heat,), item = page_heat(binary, image_id, [error["y_pred"]], n)
        opened.js("(n) => document.querySelectorAll('.strip-map')[n].dataset.test = n", n)
        drawn = canvas_pixels(opened, f".strip-map[data-test='{n}'] canvas")
        assert drawn.shape == (*heat.shape, 4) and (drawn[..., 3] == 255).all()
        assert is_close_in_colour(drawn[..., :3].reshape(-1, 3), heat.reshape(-1), stray(item))


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


def test_the_overlays_that_need_no_script_are_where_the_script_draws(tab, binary, data):
    """The PNGs cover the picture as the canvases do, but for their coarser grid."""
    address = f"errors/{int(data.errors['image_id'].iloc[4])}.html"
    opened, plain = tab(binary), tab(binary, java_script_enabled=False)
    opened.open(address)
    plain.open(address)
    for view in (
        "[data-role=predicted][data-layer=fused]",
        "[data-role=true]",
        "[data-layer=last]",
    ):
        drawn = canvas_pixels(opened, f".views {view} canvas")[..., 3].astype(float)
        source = plain.page.locator(f".views {view} .heat").get_attribute("src")
        if source.startswith("data:image/png;base64,"):
            png = base64.b64decode(source.partition(",")[2])
        else:
            png = (plain.root / "errors" / source).read_bytes()
        laid = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)[..., 3]
        laid = cv2.resize(laid.astype(float), (96, 96), interpolation=cv2.INTER_LINEAR)
        assert drawn.max() > 60
        assert np.abs(laid - drawn).mean() < 4


def test_a_map_in_which_nothing_speaks_is_said_and_not_drawn(tab, hostile):
    found = read_run(hostile)
    predicted = zip(found.errors["image_id"], found.errors["y_pred"], strict=True)
    empty = next(i for i, c in predicted if found.peaks[i, c] == 0)
    opened = tab(hostile)
    opened.open(f"errors/{empty}.html")
    view = opened.page.locator("[data-role=predicted][data-layer=fused]")
    assert view.locator("canvas").is_hidden()
    assert "speaks for" in view.inner_text()


# What it is like


def test_likenesses_on_the_page_are_those_that_were_computed(tab, binary, data):
    exemplars = {x.number: [t.image_id for t in x.exemplars] for x in pattern_views(data)}
    found = read_neighbours(binary, data, exemplars)
    row = int(np.flatnonzero(data.errors["pattern"] == 1)[-1])
    error = data.errors.iloc[row]
    opened = tab(binary)
    opened.open(f"errors/{int(error['image_id'])}.html")
    section = opened.page.locator("section[aria-labelledby=h-nearest]")
    shown = section.locator(".likeness data").evaluate_all("(all) => all.map((x) => x.value)")
    assert [float(value) for value in shown] == [value for _, value in found.nearest_of(row)]
    paths = section.locator(".card-path").all_inner_texts()
    nearest = [image_id for image_id, _ in found.nearest_of(row)]
    assert paths == [str(data.images["path"][i]) for i in nearest]
    section = opened.page.locator("section[aria-labelledby=h-exemplars]")
    links = section.locator("a[data-error-link]").evaluate_all(
        "(all) => all.map((x) => x.pathname)"
    )
    others = [i for i in exemplars[1] if i != error["image_id"]][: len(links)]
    assert [path.split("/")[-1] for path in links] == [f"{i}.html" for i in others]
    looks = section.locator(".likeness span:nth-child(2) data")
    look = found.look_of(row, 1)
    values = looks.evaluate_all("(all) => all.map((x) => Number(x.value))")
    assert values == [look[i] for i in others]
    opened.js("for (const img of document.images) img.loading = 'eager'")
    opened.page.wait_for_function("() => [...document.images].every((img) => img.complete)")
    assert opened.js("[...document.images].filter((img) => !img.naturalWidth).length") == 0


# The state in the address


def test_a_link_restores_the_view(tab, binary):
    image_id = first_error(binary)
    opened = tab(binary)
    opened.open(
        f"errors/{image_id}.html#layer=3&role=true&colours=jet&opacity=40&threshold=30&speed=25"
    )
    page = opened.page
    assert page.locator("#layer").input_value() == "3"
    assert page.locator("[name=role][value=true]").is_checked()
    assert page.locator("#colours").input_value() == "jet"
    assert page.locator("#opacity").input_value() == "40"
    assert page.locator("#threshold").input_value() == "30"
    assert page.locator("#speed").input_value() == "25"
    page.locator("#layer").fill("5")
    assert state_of(page.url) == {
        "layer": "5",
        "role": "true",
        "colours": "jet",
        "opacity": "40",
        "threshold": "30",
        "speed": "25",
    }


@pytest.mark.parametrize(
    "fragment", ["layer=x&role=__proto__", "layer=-4&colours=constructor&speed=7", "%%%", "main"]
)
def test_a_broken_link_shows_the_page_as_it_starts(tab, binary, fragment):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html#{fragment}")
    assert opened.page.locator("#colours").input_value() == "inferno"
    assert opened.page.locator("[name=role][value=predicted]").is_checked()
    assert opened.page.locator("#speed").input_value() == "10"


def test_the_next_error_opens_in_the_view_of_this_one(tab, binary, data):
    ids = data.errors["image_id"].tolist()
    opened = tab(binary)
    opened.open(f"errors/{ids[1]}.html#from=true%3D0%26sort%3Dunsure")
    page = opened.page
    page.select_option("#colours", "viridis")
    page.locator("#threshold").fill("40")
    page.check("[name=role][value=true]")
    page.locator("#layer").fill("6")  # written late, as the address has just changed
    page.click("#next-error")
    page.wait_for_url(f"**/errors/{ids[2]}.html#*")
    opened.wait_until_ready()
    assert page.locator("#layer").input_value() == "6"
    assert page.locator("#colours").input_value() == "viridis"
    assert page.locator("#threshold").input_value() == "40"
    assert page.locator("[name=role][value=true]").is_checked()
    assert state_of(page.url)["from"] == "true=0&sort=unsure"
    up = page.locator("#up").evaluate("(link) => link.href")
    assert state_of(up) == {"true": "0", "sort": "unsure", "at": str(ids[2])}
    page.keyboard.press("Escape")
    page.wait_for_url("**/errors.html#*")
    assert state_of(page.url)["true"] == "0"


def test_a_long_pull_at_a_slider_does_not_flood_the_address(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    opened.js(
        """() => {
          const opacity = document.getElementById("opacity");
          for (let n = 0; n < 400; n += 1) {
            opacity.value = 5 * (n % 20);
            opacity.dispatchEvent(new Event("input"));
          }
        }"""
    )
    opened.page.wait_for_function("() => location.hash === '#opacity=95'")


# Play, keys, stages


def test_play_walks_through_the_layers_and_stops(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    page = opened.page
    page.click("#play")
    assert page.locator("#play").inner_text() == "Pause"
    page.wait_for_function("() => Number(document.getElementById('layer').value) >= 3")
    assert "layer=" not in page.url
    page.click("#play")
    stopped = page.locator("#layer").input_value()
    page.wait_for_function("(layer) => location.hash === `#layer=${layer}`", arg=stopped)
    page.wait_for_timeout(300)
    assert page.locator("#layer").input_value() == stopped
    assert page.locator("#play").inner_text() == "Play"


def test_the_speed_of_play_can_be_chosen(tab, binary):
    """Counts the layers that are shown while 600 ms pass."""
    opened = tab(binary)
    code = """() => new Promise((resolve) => {
      const slider = document.getElementById("layer");
      const seen = new Set();
      const started = performance.now();
      const look = (now) => {
        seen.add(slider.value);
        if (now - started < 600) requestAnimationFrame(look);
        else resolve(seen.size);
      };
      requestAnimationFrame(look);
    })"""
    counts = {}
    for speed in (4, 25):
        opened.open(f"errors/{first_error(binary)}.html#layer=0&speed={speed}")
        opened.page.click("#play")
        counts[speed] = opened.js(code)
        opened.page.click("#play")
    assert counts[4] <= 4 < counts[25]


def test_nothing_moves_by_itself(tab, binary):
    opened = tab(binary, reduced_motion="reduce")
    opened.open(f"errors/{first_error(binary)}.html#layer=2")
    opened.page.wait_for_timeout(500)
    assert opened.page.locator("#layer").input_value() == "2"
    opened.page.click("#play")
    opened.page.wait_for_function("() => document.getElementById('layer').value !== '2'")


def test_the_keyboard_reaches_layers_cards_and_neighbours(tab, binary, data):
    ids = data.errors["image_id"].tolist()
    opened = tab(binary)
    page = opened.page
    opened.open(f"errors/{ids[1]}.html")
    page.locator(".strip-map[aria-current]").focus()
    for key, layer in [("ArrowLeft", "11"), ("Home", "0"), ("ArrowLeft", "12"), ("End", "12")]:
        page.keyboard.press(key)
        assert page.locator("#layer").input_value() == layer
        assert opened.js("document.activeElement.ariaCurrent") == "true"
    opened.js("document.activeElement.blur()")
    for key, layer in [(",", "11"), ("[", "10"), (".", "11"), ("]", "12")]:
        page.keyboard.press(key)
        assert page.locator("#layer").input_value() == layer
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/errors/{ids[2]}.html*")
    opened.wait_until_ready()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/errors/{ids[1]}.html*")
    opened.wait_until_ready()
    page.keyboard.press("Escape")
    page.wait_for_url("**/errors.html*")


def test_space_plays_where_the_viewer_has_the_focus(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html#layer=1")
    page = opened.page
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Play"  # elsewhere Space scrolls
    page.click("[data-layer=chosen]")
    for label in ("Pause", "Play"):
        page.keyboard.press(" ")
        assert page.locator("#play").inner_text() == label
    page.locator(".strip-map[aria-current]").focus()
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Pause"
    page.focus("#play")
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Play"


def test_the_list_of_keys_names_those_of_the_page(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    opened.page.keyboard.press("?")
    text = opened.page.locator("#keys-dialog").inner_text()
    for words in ("error before, error after", "layer before, layer after", "play or pause"):
        assert words in text


def test_the_stage_of_the_layer_is_marked(tab, binary, data):
    layers = map_layers(data.layers)
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html")
    page = opened.page
    assert page.locator("#stage-bar span").all_inner_texts() == ["1", "2", "3", "4", ""]
    for layer in (0, 4, 11):
        page.locator("#layer").fill(str(layer))
        stage = str(layers[layer].stage + 1)
        assert page.locator("#stage-bar .is-current").all_inner_texts() == [stage]
        assert page.locator(".strip-stage.is-current b").all_inner_texts() == [f"Stage {stage}"]
        assert f"stage {stage}" in page.locator("#layer-facts").inner_text()
    page.locator("#layer").fill(str(FUSED))
    assert page.locator(".strip-stage.is-current b").all_inner_texts() == ["All layers"]


# Other ways to read it


def test_print_shows_the_chosen_view_and_no_controls(tab, binary):
    opened = tab(binary)
    opened.open(f"errors/{first_error(binary)}.html#layer=5&colours=jet")
    opened.page.emulate_media(media="print")
    assert opened.page.locator(".viewer-controls").is_hidden()
    assert opened.page.locator(".tools").is_hidden()
    assert opened.page.locator("[data-layer=chosen] canvas").is_visible()
    assert opened.page.locator("#layer-number").inner_text() == "layer 6 of 13"
    assert opened.page.locator(".strip-map").first.is_visible()
    assert opened.page.pdf()[:5] == b"%PDF-"


def test_without_a_script_the_page_says_and_shows_what_it_can(tab, binary, data):
    opened = tab(binary, java_script_enabled=False)
    row = int(np.flatnonzero(data.errors["pattern"] == 1)[-1])
    opened.open(f"errors/{data.errors['image_id'].iloc[row]}.html")
    page = opened.page
    assert page.locator(".views .heat").count() == 3
    assert page.locator("#viewer").is_hidden() and page.locator(".tools").count() == 0
    assert "needs JavaScript" in page.locator("noscript").inner_text()
    for name in ("h-treatments", "h-exemplars", "h-nearest", "h-scores"):
        assert page.locator(f"#{name}").is_visible()
