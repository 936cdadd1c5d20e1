"""The gallery's pages and its data, against frames worked out by hand and the stored run."""

import base64
import dataclasses
import json
import math
import zlib

import numpy as np
import pandas as pd
import pytest
from report_fixture import HOSTILE_NAMES, HOSTILE_PATH, Sizes, write_run
from report_html import read_page

from audit.diagnose.causes import overall_effect
from audit.report.formats import legible
from audit.report.packing import pack_json
from audit.report.pages import make_environment
from audit.report.run_data import read_run
from audit.report.views import gallery
from audit.report.views.slices import filtered_slices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(240, 60, 4))


@pytest.fixture(scope="module")
def data(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("hostile"), sizes=Sizes(60, 50, 3)))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    names = [f"class {n}" for n in range(30)]
    sizes = Sizes(900, 410, 3)
    return read_run(write_run(tmp_path_factory.mktemp("many"), names, sizes, explained=False))


def unpack(packed):
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def data_of(data):
    return unpack(next(gallery.gallery_pages(data)).data)


# How causal


def trials(*rows):
    return pd.DataFrame(rows, columns=["image_id", "treatment", "area", "logit_fall"])


def test_the_fall_is_that_of_the_focus_less_the_mean_elsewhere():
    causes = trials(
        (7, "focus", 0.3, 4.0),
        (7, "elsewhere", 0.3, 1.0),
        (7, "elsewhere", 0.3, 2.0),  # 4 - (1 + 2) / 2 = 2.5
        (7, "focus", 0.1, 90.0),  # a smaller area does not count
        (7, "elsewhere", 0.1, 50.0),
        (7, "blur", 0.3, 70.0),  # nor does another treatment
        (7, "blur elsewhere", 0.3, 60.0),
        (2, "elsewhere", 0.3, 0.5),
        (2, "focus", 0.3, -1.0),  # -1 - 0.5 = -1.5
    )
    falls = gallery.causal_falls(causes)
    assert falls.to_dict() == {2: -1.5, 7: 2.5}
    assert falls.index.tolist() == [2, 7]


def test_a_fall_that_is_not_finite_is_not_counted():
    causes = trials(
        (1, "focus", 0.3, math.nan),
        (1, "elsewhere", 0.3, 1.0),
        (2, "focus", 0.3, 3.0),
        (2, "elsewhere", 0.3, math.inf),
        (2, "elsewhere", 0.3, 1.0),
        (3, "not tested", math.nan, math.nan),
        (4, "focus", 0.3, 3.0),
    )
    assert gallery.causal_falls(causes).to_dict() == {2: 2.0}


def test_nothing_tested_gives_no_fall():
    assert gallery.causal_falls(trials()).empty


def test_falls_agree_with_the_verdict_on_the_whole_run(data):
    falls = gallery.causal_falls(data.diagnosis.causes)
    whole = overall_effect(data.diagnosis.causes, data.images["y_true"])
    assert len(falls) == whole["n_tested"] == len(data.errors)
    assert falls.mean() == pytest.approx(whole["logit_fall"]["value"], abs=1e-9)


# The data


def test_the_data_are_the_frame_in_order_of_the_images(data):
    content, errors = data_of(data), data.errors.sort_values("image_id")
    assert content["id"] == errors["image_id"].tolist()
    assert content["path"] == [legible(path) for path in errors["path"]]
    assert content["true"] == errors["y_true"].tolist()
    assert content["predicted"] == errors["y_pred"].tolist()
    assert content["pattern"] == errors["pattern"].tolist()
    assert [np.float32(value) for value in content["confidence"]] == errors["p_pred"].tolist()
    assert content["classes"] == ["cats", "dogs"]
    assert content["patterns"] == {str(n): name for n, name in data.pattern_names.items()}
    falls = gallery.causal_falls(data.diagnosis.causes)[content["id"]]
    assert content["falls"] == pytest.approx(falls.tolist(), abs=0.0005)


def test_columns_have_a_value_for_every_error(hostile):
    content = data_of(hostile)
    columns = ("true", "predicted", "confidence", "pattern", "pictures", "flags", "slices")
    assert {len(content[name]) for name in ("id", *columns, "falls", "path")} == {50}
    assert content["pictures"].count(1) == 1  # the error whose fused map is empty
    assert content["pictures"].count(2) == 49


def test_what_puts_a_label_in_doubt_is_told_by_number(data):
    content = data_of(data)
    flags = data.diagnosis.flags
    found = {
        image_id: content["reasons"][number - 1]
        for image_id, number in zip(content["id"], content["flags"], strict=True)
        if number
    }
    assert found == {i: flags[i] for i in flags if i in data.error_rows} != {}


def test_each_slice_has_a_bit(data):
    content = data_of(data)
    expected = {
        n: set(data.errors["image_id"].iloc[rows]) for n, (_, rows) in filtered_slices(data).items()
    }
    assert content["slice_numbers"] == list(expected) == [1, 3]
    for n, number in enumerate(content["slice_numbers"]):
        pairs = zip(content["id"], content["slices"], strict=True)
        assert {image_id for image_id, bits in pairs if bits >> n & 1} == expected[number]


def test_a_run_without_maps_has_neither_pictures_nor_falls(many):
    content = data_of(many)
    assert set(content["pictures"]) == {0}
    assert set(content["falls"]) == {None}
    assert next(gallery.gallery_pages(many)).n_tested == 0


def test_errors_that_were_not_tested_have_no_fall(data):
    tested = data.diagnosis.causes[data.diagnosis.causes["image_id"] % 2 == 0]
    diagnosis = dataclasses.replace(data.diagnosis, causes=tested)
    changed = dataclasses.replace(data, diagnosis=diagnosis)
    content = data_of(changed)
    for image_id, fall in zip(content["id"], content["falls"], strict=True):
        assert (fall is None) == (image_id % 2 == 1)
    evens = sum(image_id % 2 == 0 for image_id in content["id"])
    assert next(gallery.gallery_pages(changed)).n_tested == evens


def test_hostile_names_are_spelled_out(hostile):
    content = data_of(hostile)
    assert content["classes"] == [legible(name) for name in HOSTILE_NAMES]
    assert legible(HOSTILE_PATH) in content["path"]


def test_lone_surrogates_in_paths_do_no_harm():
    assert unpack(pack_json({"path": ["a\udcffb"]})) == {"path": ["a?b"]}


def test_the_same_run_gives_the_same_data(folder, data):
    first, again = (next(gallery.gallery_pages(run)).data for run in (data, read_run(folder)))
    assert first == again


# The pages


def test_every_error_is_once_on_the_pages(many):
    pages = list(gallery.gallery_pages(many))
    shown = [thumb.image_id for page in pages for thumb in page.thumbs]
    assert shown == many.errors["image_id"].tolist()
    assert [(page.first, page.last) for page in pages] == [(1, 200), (201, 400), (401, 410)]
    assert [page.data is None for page in pages] == [False, True, True]
    assert [page.previous for page in pages] == [None, "errors.html", "errors-2.html"]
    assert [page.next for page in pages] == ["errors-2.html", "errors-3.html", None]


@pytest.mark.parametrize("column", ["true_classes", "predicted_classes"])
def test_choices_count_the_errors(many, column):
    page = next(gallery.gallery_pages(many))
    counts = many.errors[{"true_classes": "y_true", "predicted_classes": "y_pred"}[column]].tolist()
    for choice in getattr(page, column):
        assert choice.count == counts.count(choice.value) > 0
        assert choice.name == f"class {choice.value}"
    assert sum(choice.count for choice in getattr(page, column)) == 410


def test_choices_of_patterns_slices_and_labels_count_the_errors(data):
    page = next(gallery.gallery_pages(data))
    patterns = data.errors["pattern"].tolist()
    assert [(c.value, c.count) for c in page.patterns] == [(n, patterns.count(n)) for n in (1, 2)]
    assert page.n_outside_patterns == patterns.count(0) > 0
    table = data.diagnosis.slices.set_index("slice")
    assert [c.count for c in page.slices] == [table.loc[c.value, "n_errors"] for c in page.slices]
    assert page.n_flagged == sum(i in data.diagnosis.flags for i in data.error_rows) > 0


def numbers(number, n_pages):
    """Return the pages that are linked, a dot before those that do not follow."""
    links = gallery.page_links(number, n_pages)
    return " ".join(("" if link.follows else ".") + str(link.number) for link in links)


def test_the_pager_is_short_and_reaches_every_page():
    assert numbers(1, 1) == "1"
    assert numbers(2, 3) == "1 2 3"
    assert numbers(1, 250) == "1 2 .11 .51 .250"
    assert numbers(100, 250) == "1 .50 .90 .99 100 101 .110 .150 .250"
    assert numbers(250, 250) == "1 .200 .240 .249 250"
    assert [link.href for link in gallery.page_links(2, 3)] == [
        "errors.html",
        "errors-2.html",
        "errors-3.html",
    ]


def test_names_take_one_line_where_any_two_fit(data, hostile):
    assert next(gallery.gallery_pages(data)).is_short
    assert not next(gallery.gallery_pages(hostile)).is_short


# The page as it is written


def rendered(data, tmp_path):
    page = next(gallery.gallery_pages(data))
    template = make_environment().get_template("errors.html")
    path = tmp_path / "errors.html"
    path.write_text(template.render(page=page, site=page.site, root=""), encoding="utf-8")
    return read_page(path)


def shape(page, inside):
    """Return the tags and classes of the first card in a list, or in the template."""
    found = [e for e in page.elements if inside in e.inside and "li" in (e.tag, *e.inside)]
    found = [e for e in found if ("template" in e.inside) == (inside == "template")]
    first = [n for n, e in enumerate(found) if e.attributes.get("class") == "card"]
    end = first[1] if len(first) > 1 else len(found)
    return [(e.tag, e.attributes.get("class", "")) for e in found[first[0] : end]]


def test_the_card_of_the_script_has_the_parts_of_the_others(data, tmp_path):
    flags = dict.fromkeys(data.error_rows, "Its label is suspected to be wrong.")
    first = data.errors[data.errors["pattern"] > 0].head(1)
    issues = pd.DataFrame({"image_id": list(flags), "kind": "suspected label"})
    diagnosis = dataclasses.replace(data.diagnosis, label_issues=issues)
    whole = dataclasses.replace(
        data, errors=first.reset_index(drop=True), diagnosis=diagnosis, metadata=pd.DataFrame()
    )
    page = rendered(whole, tmp_path)
    card, template = shape(page, "ul"), shape(page, "template")
    assert template == card
    assert {"photo", "heat", "flag", "tag"} <= {name for _, name in card}


def test_the_page_offers_what_there_is(data, many, tmp_path):
    whole, plain = rendered(data, tmp_path), rendered(many, tmp_path)
    orders = [
        [e.attributes["value"] for e in p.all("option") if e.text.endswith("first")]
        for p in (whole, plain)
    ]
    assert orders == [["", "unsure", "causal"], ["", "unsure"]]
    assert whole.problems == plain.problems == []
    assert len(plain.all("nav", cls="pages")) == 1
    assert not whole.all("nav", cls="pages")


def test_a_model_without_errors_has_an_empty_gallery(tmp_path):
    empty = read_run(write_run(tmp_path / "run", ("cats", "dogs"), Sizes(40, 0, 2), patterns=False))
    (page,) = gallery.gallery_pages(empty)
    assert (page.n_pages, page.thumbs, page.n_tested) == (1, (), 0)
    assert unpack(page.data)["id"] == []
    assert "The model made no error" in rendered(empty, tmp_path).all("p", cls="empty")[0].text
