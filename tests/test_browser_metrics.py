"""Overview, confusion and metrics in a real browser: slider, search, sorting, the way to images."""

import pytest
from report_fixture import Sizes, write_run

from audit.report import formats
from audit.report.render import render_report
from audit.report.run_data import read_run
from audit.report.views.confusion import sorted_confusions

NAMES = tuple(f"{('red', 'green', 'blue')[n % 3]} fox {n}" for n in range(130))
COLUMNS = ("tp", "fp", "tn", "fn", "precision", "recall", "f1", "accuracy")


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(300, 40, 3))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    sizes = Sizes(1950, 500, 2)
    folder = write_run(tmp_path_factory.mktemp("many"), NAMES, sizes, explained=False)
    render_report(folder)
    return folder


def shown_numbers(opened):
    """Return the texts of the threshold panel: the threshold, then the eight figures."""
    return opened.js(
        "[...document.querySelectorAll('#threshold-panel [data-column]')].map((e) => e.innerText)"
    )


def expected_numbers(row):
    shares = [formats.percent(row[name], 2) for name in COLUMNS[4:]]
    return [f"{row['threshold']:.2f}", *(formats.count(row[name]) for name in COLUMNS[:4]), *shares]


def test_the_slider_shows_the_stored_sweep_at_every_threshold(tab, binary):
    sweep = binary.read_metrics()["binary"]["sweep"]
    assert len(sweep) == 99
    opened = tab(binary)
    opened.open("metrics.html")
    assert shown_numbers(opened) == expected_numbers(sweep[49])
    assert opened.page.locator("#threshold-is-in-use").is_visible()
    assert opened.page.locator("#threshold-back").is_disabled()
    for n, row in enumerate(sweep):
        opened.page.locator("#threshold").fill(str(n))
        assert shown_numbers(opened) == expected_numbers(row)
    assert not opened.page.locator("#threshold-is-in-use").is_visible()
    opened.page.wait_for_function("() => location.hash === '#threshold=0.99'")


def test_the_threshold_moves_by_keyboard_and_by_address(tab, binary):
    sweep = binary.read_metrics()["binary"]["sweep"]
    opened = tab(binary)
    opened.open("metrics.html#threshold=0.35")
    slider = opened.page.locator("#threshold")
    assert shown_numbers(opened) == expected_numbers(sweep[34])
    spoken = slider.get_attribute("aria-valuetext")
    assert spoken == (f"0.35: {sweep[34]['fp']} false positives, {sweep[34]['fn']} false negatives")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert shown_numbers(opened) == expected_numbers(sweep[36])
    opened.page.wait_for_function("() => location.hash === '#threshold=0.37'")
    opened.js("location.hash = '#threshold=0.2049'")
    opened.page.wait_for_function("() => document.getElementById('threshold').value === '19'")
    opened.js("location.hash = '#threshold=none'")
    opened.page.wait_for_function("() => document.getElementById('threshold').value === '49'")
    opened.open("metrics.html#threshold=0.9")
    opened.page.locator("#threshold-back").click()
    assert shown_numbers(opened) == expected_numbers(sweep[49])
    opened.page.wait_for_function("() => location.hash === ''")


def test_a_line_in_the_charts_moves_with_the_threshold(tab, binary):
    opened = tab(binary)
    opened.open("metrics.html#threshold=0.25")
    places = """[...document.querySelectorAll("#threshold-charts svg")].map((svg) =>
      [...svg.querySelectorAll(".mark-rule.role-mark line")].map((line) =>
        line.getBoundingClientRect().x))"""
    slider = opened.page.locator("#threshold")
    at = {"0.25": opened.js(places)}
    slider.fill("74")
    at["0.75"] = opened.js(places)
    for chart in range(2):
        in_use = at["0.25"][chart][0]
        assert at["0.75"][chart][0] == in_use
        left, right = at["0.25"][chart][1] - in_use, at["0.75"][chart][1] - in_use
        assert left == pytest.approx(-right, abs=0.5)
        assert right > 40


def test_without_a_script_the_sweep_stands_in_a_table(tab, binary):
    opened = tab(binary, java_script_enabled=False)
    opened.open("metrics.html")
    assert not opened.page.locator("#threshold-panel").is_visible()
    opened.page.locator("summary").first.click()
    assert opened.page.locator("#sweep tbody tr").count() == 99
    assert opened.page.locator("#sweep tbody tr").first.is_visible()


def visible_names(opened, table):
    return opened.js(
        f"[...document.querySelectorAll('{table} tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.cells[0].innerText.trim())"
    )


def wait_for_status(opened, text):
    opened.page.wait_for_function(
        "(text) => document.querySelector('.filters-table [role=status]').textContent === text",
        arg=text,
    )


def test_classes_are_found_by_name_and_stay_sorted(tab, many):
    classes = read_run(many).classes
    opened = tab(many)
    opened.open("metrics.html")
    assert visible_names(opened, ".class-table") == list(NAMES)
    field = opened.page.get_by_label("Find a class")
    field.fill("BLUE")
    wait_for_status(opened, "43 of 130 rows")
    assert visible_names(opened, ".class-table") == [x for x in NAMES if "blue" in x]
    opened.page.get_by_role("button", name="Recall").click()
    header = opened.page.locator(".class-table th[aria-sort]")
    assert header.get_attribute("aria-sort") == "descending"
    blue = classes[classes["name"].str.contains("blue")]
    expected = blue.sort_values("recall", ascending=False, kind="stable")["name"].tolist()
    assert visible_names(opened, ".class-table") == expected
    field.fill("no such fox")
    wait_for_status(opened, "0 of 130 rows")
    field.fill("")
    wait_for_status(opened, "")
    assert len(visible_names(opened, ".class-table")) == 130


def wait_for_found(opened, text):
    opened.page.wait_for_function(
        "(text) => document.getElementById('found').textContent === text", arg=text
    )


def rows_of(opened):
    """Return (true, predicted, errors, share) of the rows shown, share as the page has it."""
    return opened.js("""[...document.querySelectorAll(".pair-table tbody tr")].map((row) => [
      ...[...row.querySelectorAll("bdi")].map((name) => name.textContent),
      ...[...row.querySelectorAll("data")].map((stored) => Number(stored.value))])""")


def expected_rows(frame):
    columns = (frame[name].tolist() for name in ("y_true", "y_pred", "count", "share"))
    return [[NAMES[n], NAMES[m], count, share] for n, m, count, share in zip(*columns, strict=True)]


def test_confusions_are_found_by_a_class_on_either_side(tab, many):
    found = sorted_confusions(read_run(many))
    opened = tab(many)
    opened.open("confusion.html")
    wait_for_found(opened, f"100 of {len(found)} shown")
    assert rows_of(opened) == expected_rows(found.head(100))
    opened.page.locator("#more").click()
    wait_for_found(opened, f"200 of {len(found)} shown")
    assert rows_of(opened) == expected_rows(found.head(200))
    wanted = 7  # "green fox 7" is part of "green fox 70" and others
    fits = [n for n, name in enumerate(NAMES) if NAMES[wanted] in name]
    either = found[found["y_true"].isin(fits) | found["y_pred"].isin(fits)]
    opened.page.locator("#find").fill("Green Fox 7")
    opened.page.wait_for_function("() => location.hash === '#find=Green+Fox+7'")
    wait_for_found(opened, f"{len(either)} of {len(either)} shown")
    assert rows_of(opened) == expected_rows(either)
    opened.page.locator("#side").select_option("predicted")
    only = found[found["y_pred"].isin(fits)]
    wait_for_found(opened, f"{len(only)} of {len(only)} shown")
    assert rows_of(opened) == expected_rows(only)


def test_a_search_can_be_sent_and_leads_to_the_errors(tab, many):
    run = read_run(many)
    found = sorted_confusions(run)
    opened = tab(many)
    opened.open("confusion.html#find=blue&side=true&order=share")
    blue = found[[("blue" in NAMES[n]) for n in found["y_true"]]]
    expected = blue.sort_values("share", ascending=False, kind="stable")
    wait_for_found(opened, f"100 of {len(expected)} shown")
    assert rows_of(opened) == expected_rows(expected.head(100))
    assert opened.page.locator("#side").input_value() == "true"
    first = expected.iloc[0]
    text = opened.page.locator(".pair-table tbody tr").first.inner_text()
    assert formats.percent(first["share"]) in text
    assert formats.percent_range(first["share_low"], first["share_high"]) in text
    opened.page.locator(".pair-table tbody a").first.click()
    opened.wait_until_ready()
    assert opened.page.url.endswith(
        f"errors.html#true={int(first['y_true'])}&predicted={int(first['y_pred'])}"
    )
    opened.page.wait_for_function(
        "(n) => document.querySelectorAll('#gallery > *').length === n", arg=int(first["count"])
    )


def test_nothing_found_is_said(tab, many):
    opened = tab(many)
    opened.open("confusion.html#find=no+such+fox")
    wait_for_found(opened, "0 of 0 shown")
    assert opened.page.locator("#none-found").is_visible()
    opened.js("location.hash = '#'")
    opened.page.wait_for_function("() => document.getElementById('none-found').hidden")
    assert opened.page.locator("#find").input_value() == ""


def test_the_script_writes_shares_as_the_report_does(tab, many):
    opened = tab(many, java_script_enabled=False)
    opened.open("confusion.html")
    printed = opened.page.locator(".pair-table tbody tr").all_inner_texts()
    opened = tab(many)
    opened.open("confusion.html")
    assert opened.page.locator(".pair-table tbody tr").all_inner_texts() == printed
    assert len(printed) == 100


def test_a_cell_of_the_matrix_leads_to_exactly_its_errors(tab, many):
    opened = tab(many)
    opened.open("confusion.html")
    cell = opened.page.locator(".matrix .cell-wrong a").first
    count = int(cell.locator("data").first.inner_text())
    cell.click()
    opened.wait_until_ready()
    opened.page.wait_for_function(
        "(n) => document.querySelectorAll('#gallery > *').length === n", arg=count
    )


def test_one_screen_has_verdict_figures_targets_and_patterns(tab, binary):
    opened = tab(binary, viewport={"width": 1440, "height": 900})
    opened.open("index.html")
    boxes = {
        name: opened.page.locator(place).last.bounding_box()
        for name, place in {
            "verdict": ".verdict",
            "figures": ".tiles",
            "left out": ".tiles + .note",
            "targets": ".target-card",
        }.items()
    }
    assert all(box["y"] + box["height"] <= 900 for box in boxes.values()), boxes
    cards = [box.bounding_box() for box in opened.page.locator(".pattern-brief").all()]
    assert len(cards) == 2
    assert all(box["y"] <= 860 for box in cards), cards


def test_three_clicks_lead_to_what_to_collect_and_the_images(tab, binary):
    opened = tab(binary)
    opened.open("index.html")
    card = opened.page.locator(".target-card", has_text="Collect").first
    card.get_by_role("link", name="See its").click()
    opened.wait_until_ready()
    assert opened.page.url.endswith("targets/T1.html#h-images")
    assert opened.page.locator("main .cards .card").first.is_visible()
    opened.page.locator("main .cards .card a").first.click()
    opened.wait_until_ready()
    assert "/errors/" in opened.page.url


@pytest.mark.parametrize("name", ["index.html", "confusion.html", "metrics.html"])
def test_pages_of_many_classes_fit_at_any_width_and_stay_small(tab, many, name):
    opened = tab(many)
    opened.open(name)
    for width in (390, 768, 1440, 2560):
        opened.resize(width)
        assert opened.excess() == 0, width
    assert (many.path / "report" / name).stat().st_size < 300_000
