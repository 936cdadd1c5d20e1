"""The gallery in a real browser: it shows what a frame says, from a link and from the keyboard."""

from urllib.parse import parse_qs

import pandas as pd
import pytest
from browser_tab import WIDTHS
from report_fixture import Sizes, write_run

from audit.report.formats import legible
from audit.report.render import render_report
from audit.report.run_data import read_run
from audit.report.views.gallery import causal_falls

N_CARDS = "document.querySelectorAll('#gallery .card').length"


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(600, 220, 3))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"), sizes=Sizes(240, 40, 3))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def errors(binary):
    """Return the errors with all that the gallery filters by, in order of confidence."""
    data = read_run(binary)
    falls = causal_falls(data.diagnosis.causes)
    return data.errors.assign(
        fall=data.errors["image_id"].map(falls).round(3),
        flagged=data.errors["image_id"].isin(list(data.diagnosis.flags)),
        # A confidence means the decimal that stands for it, as on the cards.
        percent=[100 * float(str(value)) for value in data.errors["p_pred"]],
    )


def all_ids(opened) -> list[int]:
    """Scroll through the gallery and return every error in the order shown."""
    code = """async () => {
      const seen = new Map();
      const next = () => new Promise((done) => requestAnimationFrame(done));
      const frame = () => next().then(next);
      for (let y = 0; y <= document.documentElement.scrollHeight; y += innerHeight / 2) {
        scrollTo(0, y);
        await frame();
        for (const card of document.querySelectorAll("#gallery .card")) {
          const id = Number(/errors\\/(\\d+)\\.html/.exec(card.querySelector("a").href)[1]);
          seen.set(Number(card.getAttribute("aria-posinset")), id);
        }
      }
      scrollTo(0, 0);
      await frame();
      return [...seen].sort((a, b) => a[0] - b[0]);
    }"""
    found = opened.js(code)
    assert [position for position, _ in found] == list(range(1, len(found) + 1))
    return [image_id for _, image_id in found]


def focused(opened) -> int:
    """Return the error whose card has the focus."""
    href = opened.js("document.activeElement.getAttribute('href')")
    return int(href.split("/")[1].split(".")[0])


def said(opened) -> str:
    return opened.page.locator("#shown").inner_text()


def in_view(opened) -> bool:
    code = """() => {
      const box = document.activeElement.getBoundingClientRect();
      return box.top >= 0 && box.bottom <= innerHeight + 1;
    }"""
    return opened.js(code)


# Filters and orders

FILTERS = {
    "true=0": lambda e: e["y_true"] == 0,
    "predicted=0": lambda e: e["y_pred"] == 0,
    "pattern=2": lambda e: e["pattern"] == 2,
    "pattern=0": lambda e: e["pattern"] == 0,
    "label=1": lambda e: e["flagged"],
    "label=0": lambda e: ~e["flagged"],
    "min=80": lambda e: e["percent"] >= 80,
    "max=70.5": lambda e: e["percent"] <= 70.5,
    "min=60&max=75": lambda e: e["percent"].between(60, 75),
    "find=DOGS": lambda e: e["y_true"] >= 0,
    "find=image+00": lambda e: e["path"].str.contains("image") & e["path"].str.contains("00"),
    "find=%3C04": lambda e: e["path"].str.contains("<04", regex=False),
    "true=1&pattern=1&label=0&min=65&find=class": lambda e: (
        (e["y_true"] == 1) & (e["pattern"] == 1) & ~e["flagged"] & (e["percent"] >= 65)
        & e["path"].str.contains("class")
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", list(FILTERS))
def test_a_filter_shows_exactly_the_errors_that_fit(tab, binary, errors, state):
    opened = tab(binary)
    opened.open(f"errors.html#{state}")
    chosen = errors[FILTERS[state](errors)]
    assert len(chosen) > 0
    assert all_ids(opened) == chosen["image_id"].tolist()
    assert said(opened) == (
        f"{len(chosen)} of 220 errors" if len(chosen) < 220 else "All 220 errors"
    )


def test_the_gallery_filters_by_slice(tab, binary, errors):
    opened = tab(binary)
    opened.open("slices/1.html")
    opened.page.locator("a", has_text="Filter and sort all").click()
    opened.wait_until_ready()
    table = binary.read_table("slices").set_index("slice")
    chosen = errors[errors["image_id"].isin(table.loc[1, "error_ids"])]
    assert all_ids(opened) == chosen["image_id"].tolist() != []
    assert opened.page.url.endswith("#slice=1")


ORDERS = {
    "": (["p_pred", "image_id"], [False, True]),
    "unsure": (["p_pred", "image_id"], [True, True]),
    "causal": (["fall", "p_pred", "image_id"], [False, False, True]),
    "path": (["image_id"], [True]),
    "pattern": (["group", "p_pred", "image_id"], [True, False, True]),
}


@pytest.mark.parametrize("order", list(ORDERS))
def test_an_order_is_that_of_the_frame(tab, binary, errors, order):
    opened = tab(binary)
    opened.open("errors.html")
    opened.page.select_option("#sort", order)
    frame = errors.assign(group=errors["pattern"].replace(0, 99))
    columns, ascending = ORDERS[order]
    expected = frame.sort_values(columns, ascending=ascending)["image_id"].tolist()
    assert all_ids(opened) == expected
    chosen = opened.page.locator("#sort option:checked").inner_text()
    assert opened.page.locator("#order").inner_text() == chosen


def test_cards_say_how_causal_their_focus_is(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html#sort=causal")
    falls = dict(zip(errors["image_id"], errors["fall"], strict=True))
    lines = opened.js(
        """() => [...document.querySelectorAll("#gallery .card")].map((card) => {
          const [fall] = card.querySelectorAll(".card-fall data");
          return [card.querySelector("a").href, fall.value, fall.textContent];
        })"""
    )
    for href, value, text in lines:
        fall = falls[int(href.split("/errors/")[1].split(".")[0])]
        assert float(value) == pytest.approx(fall, abs=1e-9)
        assert text == f"falls by {abs(fall):.1f} {'more' if fall > 0 else 'less'}"
    assert opened.page.locator("#about-causal").is_visible()
    opened.page.select_option("#sort", "")
    assert opened.page.locator(".card-fall").count() == 0
    assert opened.page.locator("#about-causal").is_hidden()


def test_errors_that_were_not_tested_come_last_and_say_so(tab, tmp_path):
    folder = write_run(tmp_path / "run", ("cats", "dogs"), Sizes(80, 12, 2))
    (shard, *_) = sorted((folder.path / "causes").glob("*.parquet"))
    frame = pd.read_parquet(shard)
    untested = frame["image_id"].unique()[:2].tolist()
    frame.loc[frame["image_id"].isin(untested), "logit_fall"] = float("nan")
    frame.to_parquet(shard, index=False)
    render_report(folder)
    opened = tab(folder)
    opened.open("errors.html#sort=causal")
    assert sorted(all_ids(opened)[-2:]) == sorted(untested)
    assert opened.page.locator(".card-fall", has_text="not tested").count() == 2
    assert "10 of 12 errors were tested" in opened.page.locator("#about-causal").inner_text()


def test_typing_searches_and_the_address_follows(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html")
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("image <01", delay=20)
    chosen = errors[errors["path"].str.contains("<01", regex=False)]
    assert said(opened) == f"{len(chosen)} of 220 errors"
    opened.page.wait_for_url("**/errors.html#find=image+%3C01")
    opened.page.fill("#filter-min", "150")  # no percentage
    assert said(opened) == f"{len(chosen)} of 220 errors"
    opened.page.click("#clear")
    assert said(opened) == "All 220 errors"
    assert opened.page.locator("#filter-find").input_value() == ""
    assert opened.js("location.hash") in ("", "#")


def test_a_choice_that_fits_nothing_says_so(tab, binary):
    opened = tab(binary)
    opened.open("errors.html#true=0&predicted=0")
    assert said(opened) == "0 of 220 errors"
    assert opened.page.locator("#gallery .card").count() == 0
    opened.page.click("#clear-empty")
    assert said(opened) == "All 220 errors"
    assert len(all_ids(opened)) == 220


# The address


def test_a_link_restores_the_view(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html#find=class&true=1&pattern=1&label=0&min=60&max=95&sort=unsure&heat=0")
    values = {
        "find": "class",
        "true": "1",
        "pattern": "1",
        "label": "0",
        "min": "60",
        "max": "95",
    }
    for name, value in values.items():
        assert opened.page.locator(f"#filter-{name}").input_value() == value
    assert opened.page.locator("#sort").input_value() == "unsure"
    assert not opened.page.locator("#show-heat").is_checked()
    assert not opened.page.locator("#gallery .heat").first.is_visible()
    chosen = errors.query("y_true == 1 and pattern == 1 and not flagged and 60 <= percent <= 95")
    ids = chosen.sort_values(["p_pred", "image_id"])["image_id"].tolist()
    assert all_ids(opened) == ids


@pytest.mark.parametrize(
    "state",
    [
        "true=7&predicted=x&pattern=99&slice=0&label=2&min=abc&max=101&sort=__proto__&heat=2&at=x",
        "true=__proto__&sort=constructor&min=-5&max=1e9&at=999999999",
        "%%%",
        "min=&max=&find=&true=",
    ],
)
def test_what_makes_no_sense_in_the_address_is_left_out(tab, binary, errors, state):
    opened = tab(binary)
    opened.open(f"errors.html#{state}")
    assert said(opened) == "All 220 errors"
    assert all_ids(opened) == errors["image_id"].tolist()
    assert opened.page.locator("#show-heat").is_checked()
    assert opened.page.locator("#clear").is_disabled()


def test_a_card_carries_the_state_on_to_the_error_and_back(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html#true=0&sort=unsure")
    chosen = errors[errors["y_true"] == 0].sort_values(["p_pred", "image_id"])
    image_id = int(chosen["image_id"].iloc[30])
    link = f"#gallery a[href^='errors/{image_id}.html']"
    opened.js("scrollTo(0, 900)")
    opened.page.locator(link).click()
    opened.page.wait_for_url(f"**/errors/{image_id}.html#*")
    opened.wait_until_ready()
    (state,) = parse_qs(opened.page.url.split("#", 1)[1])["from"]
    assert state == f"true=0&sort=unsure&at={image_id}"
    opened.page.go_back()
    opened.page.wait_for_url(f"**/errors.html#{state}")
    opened.wait_until_ready()
    assert said(opened) == f"{len(chosen)} of 220 errors"
    assert focused(opened) == image_id
    assert in_view(opened)


def test_escape_on_an_error_leads_back_to_its_card(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html#pattern=1")
    chosen = errors.loc[errors["pattern"] == 1, "image_id"].tolist()
    opened.page.keyboard.press("Tab")
    opened.page.locator("#gallery a").first.focus()
    opened.page.keyboard.press("End")
    assert focused(opened) == chosen[-1]
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_url(f"**/errors/{chosen[-1]}.html#*")
    opened.wait_until_ready()
    opened.page.keyboard.press("Escape")
    opened.page.wait_for_url("**/errors.html#*")
    opened.wait_until_ready()
    assert said(opened) == f"{len(chosen)} of 220 errors"
    assert focused(opened) == chosen[-1]
    assert in_view(opened)


# The keyboard


def test_the_keyboard_moves_over_all_cards(tab, binary, errors):
    ids = errors["image_id"].tolist()
    opened = tab(binary, viewport={"width": 800, "height": 700})
    opened.open("errors.html")
    columns = opened.js(
        "getComputedStyle(document.getElementById('gallery')).gridTemplateColumns.split(' ').length"
    )
    opened.page.locator("#gallery a").first.focus()
    at = 0
    steps = [("ArrowRight", 1), ("ArrowDown", columns), ("ArrowLeft", -1), ("ArrowUp", -columns)]
    for key, by in [*steps, ("ArrowLeft", 0), ("ArrowUp", 0), *[("ArrowDown", columns)] * 20]:
        opened.page.keyboard.press(key)
        at += by
        assert focused(opened) == ids[at], key
        assert in_view(opened)
    opened.page.keyboard.press("End")
    assert focused(opened) == ids[-1] and in_view(opened)
    opened.page.keyboard.press("ArrowRight")
    assert focused(opened) == ids[-1]
    opened.page.keyboard.press("Home")
    assert focused(opened) == ids[0] and in_view(opened)
    opened.page.keyboard.press("Escape")
    assert opened.js("document.activeElement.id") == "filter-find"


def test_the_last_row_is_reached_from_any_column(tab, binary, errors):
    opened = tab(binary, viewport={"width": 800, "height": 700})
    opened.open("errors.html")
    ids = errors["image_id"].tolist()
    columns = opened.js(
        "getComputedStyle(document.getElementById('gallery')).gridTemplateColumns.split(' ').length"
    )
    before_last = (len(ids) - 1) // columns * columns - 1  # the end of the row before the last
    opened.open(f"errors.html#at={ids[before_last]}")
    assert focused(opened) == ids[before_last]
    opened.page.keyboard.press("ArrowDown")
    assert focused(opened) == ids[min(before_last + columns, len(ids) - 1)]


def test_tab_goes_through_the_filters_to_one_card_and_on(tab, binary):
    opened = tab(binary)
    opened.open("errors.html#label=1")
    opened.page.locator("#filter-find").focus()
    code = """() => {
      const at = document.activeElement;
      return at.id || at.parentElement.className;
    }"""
    stops = []
    for _ in range(12):
        stops.append(opened.js(code))
        opened.page.keyboard.press("Tab")
    names = ["find", "true", "predicted", "pattern", "slice", "label", "min", "max"]
    expected = [*(f"filter-{name}" for name in names), "sort", "clear", "show-heat", "card"]
    assert stops == expected
    assert not opened.js("document.getElementById('gallery').contains(document.activeElement)")


def test_the_focus_stays_in_sight_when_its_card_scrolls_away(tab, binary):
    opened = tab(binary, viewport={"width": 800, "height": 700})
    opened.open("errors.html")
    first = opened.page.locator("#gallery a").first
    first.focus()
    was = focused(opened)
    opened.js("scrollTo(0, 4000)")
    opened.page.wait_for_function(
        "(id) => !document.activeElement.href?.includes(`/errors/${id}.html`)", arg=was
    )
    assert opened.js("document.getElementById('gallery').contains(document.activeElement)")
    assert opened.js("document.querySelectorAll('#gallery a[tabindex=\"0\"]').length") == 1


def test_the_list_of_keys_names_those_of_the_gallery(tab, binary):
    opened = tab(binary)
    opened.open("errors.html")
    opened.page.keyboard.press("?")
    text = opened.page.locator("#keys-dialog").inner_text()
    for words in ("searches", "move over the errors", "opens the error", "back to the filters"):
        assert words in text


# How it looks


def test_only_the_part_in_sight_has_cards(tab, binary):
    opened = tab(binary, viewport={"width": 390, "height": 844})
    opened.open("errors.html")
    most = 0
    for _ in range(30):
        opened.page.mouse.wheel(0, 700)
        opened.page.wait_for_timeout(30)
        most = max(most, opened.js(N_CARDS))
        cards = opened.js(
            """[...document.querySelectorAll("#gallery .card")]
              .filter((card) => card.getBoundingClientRect().bottom > 0
                && card.getBoundingClientRect().top < innerHeight).length"""
        )
        assert cards >= 4
    assert most <= 40


def test_rows_are_as_high_as_each_other_and_nothing_jumps(tab, hostile):
    opened = tab(hostile)
    for width in WIDTHS:
        opened.resize(width)
        for state in ("", "sort=causal"):
            opened.open(f"errors.html#{state}")
            code = """() => new Set([...document.querySelectorAll("#gallery .card")]
              .map((card) => Math.round(card.getBoundingClientRect().height))).size"""
            assert opened.js(code) == 1
            height = opened.js("document.documentElement.scrollHeight")
            all_ids(opened)
            assert abs(opened.js("document.documentElement.scrollHeight") - height) <= 1
            assert opened.excess() == 0


def test_another_width_lays_the_cards_out_anew(tab, binary, errors):
    opened = tab(binary)
    opened.open("errors.html")
    for width in (390, 2560, 768):
        opened.resize(width)
        opened.js("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert all_ids(opened) == errors["image_id"].tolist()


def test_hostile_names_are_text_on_cards(tab, hostile):
    data = read_run(hostile)
    opened = tab(hostile)
    opened.open("errors.html")
    names = opened.js(
        "[...document.querySelectorAll('#gallery .card bdi')].map((e) => e.textContent)"
    )
    assert set(names) <= {legible(name) for name in data.class_names}
    assert opened.page.title() != "stolen"
    titles = opened.js("[...document.querySelectorAll('#gallery a')].map((a) => a.title)")
    assert set(titles) <= {legible(path) for path in data.errors["path"]}


def test_a_card_of_the_script_looks_like_the_one_without_it(tab, hostile):
    code = """() => [...document.querySelectorAll("#gallery .card")].slice(0, 8).map((card) => [
      card.querySelector("a").getAttribute("href").split("#")[0],
      card.querySelector("a").title,
      card.querySelector("data").getAttribute("value"),
      card.querySelector("data").textContent,
      ...[...card.querySelectorAll("img")].map((image) => `${image.alt} ${image.src}`),
      ...[...card.querySelectorAll("*")].map((part) => `${part.tagName} ${part.className}`),
    ])"""
    cards = []
    for scripts in (True, False):
        opened = tab(hostile, java_script_enabled=scripts)
        opened.open("errors.html")
        cards.append(opened.js(code))
    assert len(cards[0]) == 8
    assert cards[0] == cards[1]


def test_on_paper_are_the_first_errors(tab, binary):
    opened = tab(binary)
    opened.open("errors.html")
    opened.js("dispatchEvent(new Event('beforeprint'))")
    assert opened.js(N_CARDS) == 200
    assert said(opened) == "The first 200 of 220 errors"
    opened.js("dispatchEvent(new Event('afterprint'))")
    assert opened.js(N_CARDS) < 200
    assert said(opened) == "All 220 errors"


def test_without_a_script_the_pages_have_all_errors(tab, binary, errors):
    opened = tab(binary, java_script_enabled=False)
    opened.open("errors.html")
    page = opened.page
    assert page.locator("#filters").is_hidden()
    ids = []
    for n in (1, 2):
        cards = page.locator("#gallery a")
        ids += [int(a.get_attribute("href")[7:-5]) for a in cards.all()]
        if n == 1:
            page.locator(".pages [rel=next]").click()
    assert ids == errors["image_id"].tolist()
    assert page.locator(".pages [aria-current=page]").inner_text() == "2"
