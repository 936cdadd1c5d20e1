"""The reports of three real runs, walked through in a real browser from disk, page by page.

Cats and dogs as in the article, the demo, and six kinds of steel surface whose class is in the file
name. Each run is made once for this module.
"""

import json
import math
import re

import numpy as np
import pytest
from browser_tab import WIDTHS
from map_pixels import canvas_pixels, is_close_in_colour, is_laid_as_hot, page_heat, stray
from page_checks import kinds_of_pages, missing_pictures, violations
from report_html import local_target, read_page, read_report

import audit
from audit.demo import run_demo
from audit.report.run_data import read_run
from audit.run_folder import RunFolder

pytestmark = pytest.mark.slow

MOST_ERROR_PAGES = 60
"""With more errors, every fifth of their pages is walked."""


def run_cats_and_dogs(shared, out):
    photographs = shared / "cats_dogs"
    model = photographs / "models" / "article_style_mobilenetv2_035_n400.keras"
    audit.run(model, photographs / "val", out, progress=False)
    return out


def run_the_demo(shared, out):
    run_demo(out, progress=False)
    return out / "run"


def run_surfaces(shared, out):
    """Train a head on two pictures of each class, so that enough of the 600 are wrong."""
    import cv2
    from planted_sets import SIDE, Backbone

    weights = shared / "cats_dogs" / "models" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    paths = sorted((shared / "neu_det" / "images").glob("*.jpg"))
    names = sorted({path.stem.rpartition("_")[0] for path in paths})
    chosen = [path for path in paths if path.stem.rpartition("_")[2] in ("10", "60")]
    assert (len(names), len(chosen)) == (6, 12)
    pictures = [
        cv2.resize(cv2.imread(str(path))[..., ::-1], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        for path in chosen
    ]
    backbone = Backbone(weights)
    labels = np.array([names.index(path.stem.rpartition("_")[0]) for path in chosen])
    model = out.parent / "surfaces.keras"
    backbone.save_with_head(backbone.features(pictures), labels, model)
    audit.run(model, shared / "neu_det" / "images", out, label_regex=r"^(.+)_\d+", progress=False)
    return out


RUNS = {"cats and dogs": run_cats_and_dogs, "demo": run_the_demo, "surfaces": run_surfaces}
FEWEST_ERRORS = {"cats and dogs": 75, "demo": 25, "surfaces": 15}


@pytest.fixture(scope="module", params=RUNS)
def folder(request, shared_data, tmp_path_factory):
    """A finished run with its report."""
    out = tmp_path_factory.mktemp("real") / "run"
    return RunFolder(RUNS[request.param](shared_data, out))


@pytest.fixture(scope="module")
def report(folder):
    return folder.path / "report"


@pytest.fixture(scope="module")
def data(folder):
    return read_run(folder)


def walked_pages(report) -> list[str]:
    """Return the pages to walk: all, but of many errors every fifth."""
    names = sorted(path.relative_to(report).as_posix() for path in report.rglob("*.html"))
    errors = [name for name in names if name.startswith("errors/")]
    left_out = set(errors) - set(errors[::5]) if len(errors) > MOST_ERROR_PAGES else set()
    return [name for name in names if name not in left_out]


def test_the_run_is_complete(folder, data, request):
    name = request.node.callspec.params["folder"]
    assert folder.read_manifest()["status"] == "done"
    assert len(data.errors) >= FEWEST_ERRORS[name]
    assert len(data.class_names) == (6 if name == "surfaces" else 2)
    assert len(list((folder.path / "report" / "errors").glob("*.html"))) == len(data.errors)


def test_every_page_opens_without_a_problem_and_its_pictures_load(tab, report):
    opened = tab(report)
    names = walked_pages(report)
    assert len(names) > 25
    for name in names:
        opened.open(name)
        assert missing_pictures(opened) == [], name
        assert opened.page.locator("h1").count() == 1


def test_every_link_and_picture_exists(report):
    pages = read_report(report)
    ids = {
        page.path.resolve(): {e.attributes.get("id") for e in page.elements}
        for page in pages.values()
    }
    n_links = 0
    for name, page in pages.items():
        assert page.problems == [], name
        for _, address in page.links():
            if address.startswith("data:"):
                continue
            path, fragment = local_target(page, address)
            assert path.is_file(), f"{name} leads to {address}"
            assert not fragment or "=" in fragment or fragment in ids[path], f"{name}: {address}"
            n_links += 1
    assert n_links > 1000


def test_nothing_overflows_at_any_width(tab, report):
    opened = tab(report)
    for name in kinds_of_pages(report):
        opened.open(name)
        for width in WIDTHS:
            opened.resize(width)
            assert opened.excess() == 0, f"{name} at {width}"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_no_violation(tab, report, scheme, width):
    opened = tab(report, color_scheme=scheme, viewport={"width": width, "height": 900})
    found = {}
    for name in kinds_of_pages(report):
        opened.open(name)
        found[name] = violations(opened)
    assert {name: lines for name, lines in found.items() if lines} == {}


# Numbers


def numbers_in(value):
    """Yield every number of a nested value."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        yield float(value)
    elif not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        for item in value:
            yield from numbers_in(item)


def stored_numbers(folder, data) -> np.ndarray:
    """Return every number of the run's small files and tables, and the scores, in order."""
    numbers = set(numbers_in(folder.read_manifest()))
    for path in sorted(folder.path.glob("*.json")):
        numbers |= set(numbers_in(json.loads(path.read_text())))
    for path in sorted(folder.path.glob("*.parquet")):
        frame = folder.read_table(path.stem)
        for column in frame:
            numbers |= set(numbers_in(frame[column].tolist()))
    for stage in ("predictions", "causes"):
        for shard in folder.iter_shards(stage):
            for column in shard:
                numbers |= set(numbers_in(shard[column].tolist()))
    numbers |= set(folder.read_table("consensus").groupby("layer")["reliability"].mean())
    return np.array(sorted(number for number in numbers if math.isfinite(number)))


def is_among(value: float, numbers: np.ndarray) -> bool:
    at = np.searchsorted(numbers, value)
    near = numbers[max(0, at - 1) : at + 1]
    return bool(np.isclose(near, value, rtol=1e-6, atol=1e-12).any())


def is_share(value: float, wholes) -> bool:
    """Whether a value is a count over one of these whole numbers."""
    return any(
        abs(value * whole - round(value * whole)) < 1e-7 * whole for whole in wholes if whole
    )


def said_number(text: str) -> tuple[float, float] | None:
    """Return the number that a text says and half of its last digit, or None if it is in words."""
    found = re.fullmatch(r"([-−]?)([\d,]+)(\.\d+)?(\s?[%×])?", text.strip())
    if found is None:
        return None
    sign, whole, part, unit = found.groups()
    scale = 0.01 if unit and unit.endswith("%") else 1
    value = float(whole.replace(",", "") + (part or ""))
    half = 0.5 * 10.0 ** -(len(part) - 1 if part else 0)
    return (-value if sign else value) * scale, half * scale


def test_every_number_on_a_page_is_the_stored_one(folder, report, data):
    numbers = stored_numbers(folder, data)
    wholes = {len(data.images), len(data.errors), *data.classes["support"].tolist()}
    scores = data.errors.set_index("image_id")[["p_true", "p_pred"]]
    n_checked, unknown, misread = 0, [], []
    for name in walked_pages(report):
        values = []
        for element in read_page(report / name).all("data"):
            if "template" in element.inside:
                continue
            value = float(element.attributes["value"])
            values.append(value)
            told = said_number(element.text)
            # "99.9 %" may stand for 99.99 %: only what is whole is called 100 %.
            if told is not None and abs(told[0] - value) > told[1] * 2.001:
                misread.append((name, value, element.text))
            # What an error's page says of likeness is computed there; other tests are about it.
            known = value.is_integer() or name.startswith("errors/") or is_among(value, numbers)
            if not (known or is_share(value, wholes)):
                unknown.append((name, value, element.text))
        n_checked += len(values)
        if name.startswith("errors/"):
            stored = scores.loc[int(name.split("/")[1].split(".")[0])]
            found = np.array(sorted(values))
            assert is_among(stored["p_true"], found) and is_among(stored["p_pred"], found), name
    assert (unknown, misread) == ([], [])
    assert n_checked > 300


def test_the_overview_says_how_good_the_model_is(tab, folder, report, data):
    metrics = folder.read_metrics()
    opened = tab(report)
    opened.open("index.html")
    heading = opened.page.locator("h1 data").first
    assert float(heading.get_attribute("value")) == metrics["accuracy"]["value"]
    right = 1 - len(data.errors) / len(data.images)
    assert metrics["accuracy"]["value"] == pytest.approx(right, abs=1e-12)
    assert said_number(heading.inner_text()) == pytest.approx((right, 0.0005), abs=0.0005)


# Filters, layers, links


def test_filters_show_as_many_errors_as_the_frame_has(tab, folder, report, data):
    errors = data.errors
    everything = f"All {len(errors)} errors"
    wanted = {f"true={n}": (errors["y_true"] == n).sum() for n in range(len(data.class_names))}
    wanted |= {f"predicted={n}": (errors["y_pred"] == n).sum() for n in errors["y_pred"].unique()}
    wanted |= {f"pattern={n}": (errors["pattern"] == n).sum() for n in errors["pattern"].unique()}
    flagged = errors["image_id"].isin(list(data.diagnosis.flags))
    wanted |= {"label=1": flagged.sum(), "label=0": (~flagged).sum()}
    slices = folder.read_table("slices")
    for row in slices[slices["confirmed"].astype(bool)].itertuples():
        wanted[f"slice={row.slice}"] = errors["image_id"].isin(row.error_ids).sum()
    opened = tab(report)
    for state, count in wanted.items():
        opened.open(f"errors.html#{state}")
        expected = everything if count == len(errors) else f"{count} of {len(errors)} errors"
        # A filter that nothing or everything fits is not offered.
        shown = opened.page.locator("#shown").inner_text()
        assert shown == expected or (count == 0 and shown == everything), state
    assert len(wanted) > 5


def test_the_slider_shows_the_stored_map_of_every_layer(tab, folder, report, data):
    error = data.errors.iloc[len(data.errors) // 2]
    image_id, classes = int(error["image_id"]), [int(error["y_true"]), int(error["y_pred"])]
    opened = tab(report)
    opened.open(f"errors/{image_id}.html")
    slider = opened.page.locator("#layer")
    last = int(slider.get_attribute("max"))
    for layer in sorted({0, last // 3, 2 * last // 3, last - 1, last}):
        slider.fill(str(layer))
        for role, explained in zip(("true", "predicted"), classes, strict=True):
            opened.page.check(f"[name=role][value={role}]")
            (heat,), item = page_heat(folder, image_id, [explained], layer)
            drawn = canvas_pixels(opened, "[data-layer=chosen] canvas")
            assert is_laid_as_hot(drawn, heat, stray(item)), f"layer {layer} for {role}"
    for n in (0, last // 2, last):
        (heat,), item = page_heat(folder, image_id, [classes[1]], n)
        opened.js("(n) => document.querySelectorAll('.strip-map')[n].dataset.test = n", n)
        drawn = canvas_pixels(opened, f".strip-map[data-test='{n}'] canvas")
        assert is_close_in_colour(drawn[..., :3].reshape(-1, 3), heat.reshape(-1), stray(item))


def test_a_link_restores_the_view(tab, report, data):
    image_id = int(data.errors["image_id"].iloc[-1])
    opened = tab(report)
    opened.open(f"errors/{image_id}.html#layer=2&role=true&colours=jet&opacity=40&threshold=30")
    page = opened.page
    for selector, value in (("layer", "2"), ("colours", "jet"), ("opacity", "40")):
        assert page.locator(f"#{selector}").input_value() == value
    assert page.locator("[name=role][value=true]").is_checked()
    address = page.url
    page.reload()
    opened.wait_until_ready()
    assert page.url == address
    assert page.locator("#layer").input_value() == "2"


def test_three_clicks_lead_from_the_overview_to_the_images_to_collect(tab, report):
    opened = tab(report)
    opened.open("index.html")
    target = opened.page.locator("a[href^='targets/T']").first
    if not target.count():
        pytest.skip("no finding of this run calls for an action")
    target.click()
    opened.wait_until_ready()
    assert re.search(r"/targets/T\d+\.html", opened.page.url)
    assert opened.page.locator("main img").count() > 0
