"""The finished report of a comparison, parsed: links, pictures, names, numbers, the same bytes."""

import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from compare_fixture import binary_scores, write_run
from compared_runs import (
    HOSTILE_LABELS,
    HOSTILE_NAMES,
    HOSTILE_PATHS,
    compared_pair,
    compared_series,
    hostile_pair,
    many_classes,
)
from report_html import local_target, read_report
from shared_report import folder_files

from audit.compare.compare_folder import write_comparison
from audit.compare.comparison import compare_runs
from audit.compare.object_shift import ObjectShift
from audit.compare.paired import Change
from audit.report.comparison.compare_report import MOST_GIFS, write_compare_report
from audit.report.formats import legible


def no_pictures(folder):
    """Compare two runs that hold neither pictures nor maps, with one image fixed."""
    runs = [
        write_run(folder / name, [0, 1, 1], binary_scores(p_dogs))
        for name, p_dogs in (("a", [0.1, 0.4, 0.9]), ("b", [0.1, 0.6, 0.9]))
    ]
    return compare_runs(runs)


def no_change(folder):
    run = write_run(folder / "a", [0, 1], binary_scores([0.1, 0.9]))
    return compare_runs([run, run])


COMPARISONS = {
    "pair": compared_pair,
    "series": compared_series,
    "hostile": hostile_pair,
    "many classes": lambda folder: many_classes(folder, 60),
    "no pictures": no_pictures,
    "no change": no_change,
}


def written(comparison, path):
    write_comparison(comparison, path)
    return write_compare_report(comparison, path)


@pytest.fixture(scope="module", params=COMPARISONS)
def report(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    comparison = COMPARISONS[request.param](folder)
    written(comparison, folder / "out")
    return comparison, folder / "out", read_report(folder / "out")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    comparison = compared_pair(folder)
    written(comparison, folder / "out")
    return comparison, folder / "out", read_report(folder / "out")


def test_every_page_is_well_formed(report):
    _, _, pages = report
    assert {name: page.problems for name, page in pages.items() if page.problems} == {}


def test_every_relative_link_and_picture_exists(report):
    _, out, pages = report
    ids = {
        page.path.resolve(): {e.attributes.get("id") for e in page.elements}
        for page in pages.values()
    }
    for name, page in pages.items():
        in_template = [e for e in page.elements if "template" in e.inside]
        for element in page.elements:
            for key in ("href", "src"):
                address = element.attributes.get(key)
                if address is None or element in in_template:
                    continue
                if address.startswith("data:image/png;base64,"):
                    content = base64.b64decode(address.partition(",")[2], validate=True)
                    assert content.startswith(b"\x89PNG"), name
                    continue
                assert ":" not in address.split("#")[0], address
                path, fragment = local_target(page, address)
                assert path.is_file(), f"{name} leads to {address}"
                assert path.is_relative_to(out.resolve())
                assert not fragment or "=" in fragment or fragment in ids[path], address


def test_the_policy_forbids_what_is_not_there(report):
    _, _, pages = report
    for page in pages.values():
        (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert policy.attributes["content"].startswith("default-src 'none'; ")
        assert "unsafe" not in policy.attributes["content"]
        for element in page.elements:
            assert "style" not in element.attributes
            assert not [name for name in element.attributes if name.startswith("on")]
            is_data = element.attributes.get("type") == "application/json"
            assert element.tag != "script" or is_data or element.attributes.get("src")


def test_ids_are_unique_and_labels_find_what_they_name(report):
    _, _, pages = report
    for name, page in pages.items():
        ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
        assert len(set(ids)) == len(ids), name
        for element in page.elements:
            for key in ("aria-labelledby", "for"):
                assert element.attributes.get(key, ids[0]) in ids, f"{name}: {element}"
            assert element.tag != "img" or "alt" in element.attributes


def test_there_is_a_page_for_every_image_that_is_wrong_in_a_run(report):
    comparison, _, pages = report
    wrong = np.flatnonzero(~comparison.images.is_right.all(axis=0)).tolist()
    assert {f"images/{position}.html" for position in wrong} <= set(pages)


def test_the_counts_are_those_of_the_json(report):
    comparison, out, pages = report
    outcomes = json.loads((out / "comparison.json").read_text())["steps"][-1]["outcomes"]
    tiles = pages["index.html"].all("span", cls="tile-value")
    assert [int(tile.text.replace(",", "")) for tile in tiles] == [
        outcomes[f"n_{name}"] for name in ("fixed", "broken", "still_wrong", "still_right")
    ]
    headline = pages["index.html"].all("h1")[0].text
    assert f"{outcomes['n_fixed']} error" in headline or not outcomes["n_fixed"]
    assert comparison.n_images == sum(int(t.text.replace(",", "")) for t in tiles)


def test_every_metric_has_its_exact_values(report):
    _, out, pages = report
    metrics = json.loads((out / "comparison.json").read_text())["steps"][-1]["metrics"]
    shown = {float(d.attributes["value"]) for d in pages["index.html"].all("data")}
    for metric in metrics:
        for key in ("before", "after"):
            assert metric[key] is None or metric[key] in shown, metric["name"]


def test_the_same_comparison_gives_the_same_bytes(tmp_path, pair):
    comparison, out, _ = pair
    written(comparison, tmp_path / "again")
    assert folder_files(tmp_path / "again") == folder_files(out)


def test_an_earlier_report_is_taken_out(tmp_path):
    out = tmp_path / "out"
    written(compared_series(tmp_path / "series"), out)
    assert (out / "steps" / "1.html").is_file()
    (out / "maps").mkdir()
    (out / "maps" / "kept").write_text("by another part")
    written(compared_pair(tmp_path / "pair"), out)
    assert not (out / "steps").exists()
    assert not (out / "report.tmp").exists()
    assert (out / "maps" / "kept").is_file()
    assert sorted(path.name for path in out.iterdir()) == [
        "broken.csv",
        "comparison.json",
        "fixed.csv",
        "images",
        "images.html",
        "index.html",
        "maps",
        "static",
    ]


def test_the_headline_has_accuracy_test_counts_and_pattern(pair):
    _, _, pages = pair
    words = " ".join(pages["index.html"].all("h1")[0].text.split())
    assert words == (
        "Accuracy 80.00 % → 94.29 %, p = 0.013. 12 errors fixed, 2 images"
        " broken. Pattern 1 “pattern 1” is gone: 11 of its 12 errors are right now."
    )


def test_without_a_change_nothing_is_claimed(tmp_path):
    out = tmp_path / "out"
    written(no_change(tmp_path), out)
    words = " ".join(read_report(out)["index.html"].all("h1")[0].text.split())
    assert words.startswith("No change of accuracy is shown: 100.00 % → 100.00 %, p = 1")
    assert "No answer changed between right and wrong." in words


def test_a_run_without_pictures_says_so(tmp_path):
    out = tmp_path / "out"
    written(no_pictures(tmp_path), out)
    pages = read_report(out)
    empty = pages["images/1.html"].all("span", cls="stack-empty")
    assert {element.text for element in empty} == {"no picture"}
    assert not list((out / "images").glob("*.jpg"))
    assert any("nothing can be said" in e.text for e in pages["index.html"].all("p", cls="empty"))


def test_overlays_of_both_runs_are_on_one_scale(pair):
    _, out, _ = pair
    for position in (0, 3):
        one, two = (
            cv2.imread(str(out / "images" / f"{position}-run-{run}.png"), cv2.IMREAD_UNCHANGED)
            for run in (1, 2)
        )
        assert one.shape == two.shape
        assert one[..., 3].max() == two[..., 3].max() > 200
        assert one[:, :7, 3].min() > 0 == two[:, :7, 3].max()  # Left before, in the middle after.


def test_images_with_two_maps_get_an_animation(pair):
    _, out, pages = pair
    animated = sorted(int(path.stem) for path in (out / "images").glob("*.gif"))
    assert animated == [*range(6), 50]
    assert len(animated) <= MOST_GIFS
    for position in animated:
        assert (out / "images" / f"{position}.gif").read_bytes()[:6] == b"GIF89a"
        (link,) = [
            e for e in pages[f"images/{position}.html"].all("a") if "download" in e.attributes
        ]
        assert link.attributes["href"] == f"../images/{position}.gif"
    assert not [e for e in pages["images/9.html"].all("a") if "download" in e.attributes]


def test_a_series_has_charts_and_a_page_for_each_step(tmp_path):
    out = tmp_path / "out"
    comparison = compared_series(tmp_path)
    written(comparison, out)
    pages = read_report(out)
    charts = pages["index.html"].all("div", cls="chart-drawing")
    assert charts[0].attributes["aria-label"].startswith("Accuracy. 0 %: 80.0%, 25 %: ")
    assert "place of pattern 1" in charts[1].attributes["aria-label"]
    texts = {e.text for e in pages["index.html"].all("text")}
    assert set(comparison.labels) <= texts
    for n in (1, 2, 3):
        tiles = pages[f"steps/{n}.html"].all("span", cls="tile-value")
        outcomes = comparison.steps[n - 1].outcomes
        assert [int(tile.text) for tile in tiles] == [
            len(outcomes.fixed),
            len(outcomes.broken),
            len(outcomes.still_wrong),
            len(outcomes.still_right),
        ]


def with_objects(comparison, n_unusable=0):
    """Return a comparison in which it is known how much of the focus lies on the object."""
    shift = ObjectShift(
        n_images=6,
        n_maps=7,
        n_left_out=3,
        n_unusable=n_unusable,
        first_reason="<b>torn</b>" if n_unusable else None,
        object_share=0.25,
        energy_before=0.125,
        energy_after=0.625,
        energy_change=Change(0.5, 0.375, 0.5625),
        energy_p=0.002,
        pointing_before=0.0,
        pointing_after=1.0,
        pointing_change=Change(1.0, 0.75, 1.0),
        pointing_p=0.004,
    )
    steps = [replace(x, focus=replace(x.focus, objects=shift)) for x in comparison.steps]
    return replace(comparison, steps=tuple(steps))


def test_focus_on_the_object_is_shown_where_it_is_known(tmp_path, pair):
    _, _, pages = pair
    titles = [element.text for element in pages["index.html"].all("h3")]
    assert "Is the focus on the object?" not in titles
    out = tmp_path / "out"
    written(with_objects(compared_series(tmp_path), n_unusable=2), out)
    page = read_report(out)["index.html"]
    assert "Is the focus on the object?" in [element.text for element in page.all("h3")]
    shown = {float(d.attributes["value"]) for d in page.all("data")}
    assert {0.125, 0.625, 0.5, 0.25} <= shown
    text = " ".join(page.all("main")[0].text.split())
    assert "+50.0 +37.5 to +56.2" in text
    assert "of 2 images could not be used, the first because <b>torn</b>" in text
    charts = [x.attributes["aria-label"] for x in page.all("div", cls="chart-drawing")]
    assert any(label.startswith("Focus inside the object. 0 %") for label in charts)


def test_hostile_names_come_out_as_text(tmp_path):
    out = tmp_path / "out"
    written(hostile_pair(tmp_path), out)
    for page in read_report(out).values():
        assert not page.all("i")
        assert not page.all("b")
        assert "alert" not in " ".join(e.text for e in page.all("script") if "src" in e.attributes)
        source = page.path.read_text("utf-8")
        assert "\u202e" not in re.sub(r'data-copy="[^"]*"', "", source)
        assert "<img src=x" not in source
    text = read_report(out)["index.html"].all("main")[0].text
    for name in (*HOSTILE_NAMES, HOSTILE_LABELS[1]):
        assert legible(name) in text
    (path,) = read_report(out)["images/0.html"].all("code", id="path")
    assert path.text == legible(HOSTILE_PATHS[0])


def test_progress_is_told(tmp_path):
    told = []
    comparison = compared_pair(tmp_path)
    write_comparison(comparison, tmp_path / "out")
    write_compare_report(
        comparison, tmp_path / "out", progress=lambda done, total: told.append((done, total))
    )
    assert told == [(n, 18) for n in range(1, 19)]
