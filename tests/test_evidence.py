"""Findings, targets, causes, slices, labels and probes in the report: what is stored is shown."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from diagnosis_fixture import HOSTILE_RECIPE, HOSTILE_SLICE, HOSTILE_TEXT, TRANSFORMATIONS
from report_fixture import Sizes, write_run
from report_html import read_report

from audit.files import write_json
from audit.report import evidence
from audit.report.formats import legible
from audit.report.render import render_report
from audit.report.run_data import read_run
from audit.report.views import (
    causes,
    findings,
    labels,
    patterns,
    probes,
    slices,
    targets,
    thumbs,
)
from audit.report.views.thumbs import single


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(300, 40, 6))
    render_report(folder)
    return folder, read_report(folder.path / "report")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"), sizes=Sizes(240, 24, 4))
    render_report(folder)
    return folder, read_report(folder.path / "report")


@pytest.fixture(scope="module")
def data(binary):
    return read_run(binary[0])


def stored(folder, name):
    return json.loads((folder.path / f"{name}.json").read_text(encoding="utf-8"))[name]


def values_of(page):
    """Return the exact numbers that a page holds, as text."""
    return {element.attributes["value"] for element in page.all("data")}


# Reading


def test_what_a_run_did_not_come_to_is_missing_and_not_empty(tmp_path, binary):
    early = evidence.read_diagnosis(write_run(tmp_path / "early", explained=False))
    tables = {"slices", "label_issues", "probes", "causes", "findings", "targets"}
    assert early.missing == tables
    assert early.findings == early.targets == ()
    assert early.slices.empty and early.target_images.empty and early.causes.empty
    assert evidence.read_diagnosis(binary[0]).missing == frozenset()


def test_labels_in_doubt_are_the_suspected_ones_and_those_of_unlike_duplicates(binary, data):
    issues = binary[0].read_table("label_issues").set_index("image_id")["kind"]
    flagged = set(issues.index[issues != "duplicate"])
    assert set(data.diagnosis.flags) == flagged
    assert len(set(data.diagnosis.flags.values())) == 2


def test_a_run_of_an_older_program_has_no_tests_of_its_patterns(tmp_path):
    folder = write_run(tmp_path / "run", ("a", "b"), Sizes(80, 20, 3), diagnosed=False)
    patterns_table = folder.read_table("patterns")
    folder.write_table("patterns", patterns_table.drop(columns=["kind", "q_value"]))
    for view in patterns.pattern_views(read_run(folder)):
        assert view.cause.verdict == "not tested"
        assert view.cause.areas == () and view.cause.repaired.value is None
        assert view.q_value is None and view.kind == ""


# Causes


def test_treatments_of_an_error_are_means_over_places():
    trials = [
        causes.Trial(7, "elsewhere", 0.2, 0, 0.5, 0.1, 0),
        causes.Trial(7, "elsewhere", 0.2, 1, 1.5, 0.7, 1),
        causes.Trial(7, "focus", 0.3, 0, 4.0, 0.9, 1),
        causes.Trial(7, "focus", 0.1, 0, math.nan, math.nan, -1),
        causes.Trial(7, "not tested", 0.0, 0, 0.0, 0.2, 0),
    ]
    small, large, elsewhere = causes.treatment_rows(trials, 1, ("cats", "dogs"))
    assert (small.label, small.area, small.fall, small.becomes) == (
        "Focus painted out",
        0.1,
        None,
        "",
    )
    assert (large.area, large.fall, large.becomes, large.n_right) == (0.3, 4.0, "dogs", 1)
    assert (elsewhere.n_trials, elsewhere.n_right, elsewhere.becomes) == (2, 1, "")
    assert (elsewhere.fall, elsewhere.p_true) == (1.0, pytest.approx(0.4))
    assert [row.is_focus for row in (small, large, elsewhere)] == [True, True, False]


def test_trials_are_found_by_image_whatever_the_order_of_the_shards(data):
    shuffled = data.diagnosis.causes.sample(frac=1, random_state=1)
    trials = causes.Trials.of(shuffled)
    for image_id, rows in data.diagnosis.causes.groupby("image_id"):
        found = trials.of_image(image_id)
        assert {trial.image_id for trial in found} == {image_id}
        assert len(found) == len(rows)
    assert trials.of_image(10**9) == []


@pytest.mark.parametrize(
    ("verdict", "causal_q", "q_value", "said"),
    [
        ("causal", 0.01, 0.01, "more than painting elsewhere, and errors look there more often"),
        ("not shown", 0.01, 0.5, "but comparable correct images"),
        ("not shown", 0.5, 0.01, "more often than comparable correct images"),
        ("not shown", 0.5, math.nan, "about as often"),
        ("too few", math.nan, 0.01, "too few to tell"),
        ("not tested", math.nan, 0.01, "not tested in this run"),
    ],
)
def test_a_verdict_says_which_of_its_two_conditions_holds(data, verdict, causal_q, q_value, said):
    row = data.patterns.iloc[0].to_dict()
    row |= {"verdict": verdict, "causal_q": causal_q, "q_value": q_value}
    assert said in causes.cause_view(row).reason


def test_a_pattern_page_repeats_the_test_of_its_cause(binary, data):
    _, pages = binary
    for row in data.patterns.to_dict("records"):
        page = pages[f"pattern-{row['pattern']}.html"]
        shown = values_of(page)
        names = ["repaired", "elsewhere", "blur_repaired", "blur_elsewhere", "logit_fall"]
        names += ["causal_q", "q_value", "lift", "control_share", "true_control_share", "n_tested"]
        names += ["pasted_wrong", "pasted_elsewhere_wrong", "n_pasted"] * (row["n_pasted"] > 0)
        assert {str(row[name]) for name in names} <= shown
        assert str(round(row["repaired"] * row["n_tested"])) in shown
        for area in row["areas"]:
            assert {str(value) for value in area.values()} <= shown
        (decisive,) = page.all("tr", cls="in-use")
        assert decisive.text.split()[0].startswith("30")
        stamps = {stamp.text for stamp in page.all("span", cls="stamp")}
        assert stamps == {row["verdict"]}
        crops = [image.attributes["src"] for image in page.all("img", cls="crop")]
        assert crops == [f"images/{image_id}-crop.jpg" for image_id in row["exemplars"]]


def test_an_error_page_repeats_what_painting_out_did(binary, data):
    _, pages = binary
    y_true = data.errors.set_index("image_id")["y_true"]
    for image_id, rows in data.diagnosis.causes.groupby("image_id"):
        shown = values_of(pages[f"errors/{image_id}.html"])
        focus = rows[rows["treatment"] == "focus"]
        assert {str(single(fall)) for fall in focus["logit_fall"]} <= shown
        tags = pages[f"errors/{image_id}.html"].all("span", cls="tag-right")
        right = (rows["y_pred"] == y_true[image_id]).groupby([rows["treatment"], rows["area"]])
        assert len(tags) == int(right.all().sum())


# Slices


def test_slices_come_confirmed_first_with_their_conditions_in_words(binary, data):
    views = slices.slice_views(data)
    assert [view.number for view in views] == [1, 3, 2]
    assert [view.is_confirmed for view in views] == [True, True, False]
    words = [[(item.column, item.content) for item in view.conditions] for view in views]
    assert words == [
        [("brightness", "below 0.31")],
        [("sharpness", "12 or more"), ("width", "640 to 1280")],
        [("camera", "<b>north</b>")],
    ]


def test_a_missing_value_is_named():
    item = {"column": "metadata.camera", "low": None, "high": math.nan, "value": ""}
    assert slices._condition(item) == slices.Condition("camera", "nothing")
    item = {"column": "y_true", "low": None, "high": None, "value": "dogs"}
    assert slices._condition(item) == slices.Condition("true class", "dogs")


def test_slice_pages_repeat_the_table(binary, data):
    folder, pages = binary
    overview = values_of(pages["slices.html"])
    for row in folder.read_table("slices").to_dict("records"):
        page = pages[f"slices/{row['slice']}.html"]
        names = ["n_images", "n_errors", "error_rate", "other_error_rate", "lift", "q_value"]
        assert {str(row[name]) for name in names} <= overview
        names += ["n_images_confirm", "n_errors_confirm", "p_value", "excess_errors"]
        assert {str(row[name]) for name in names} <= values_of(page)
        cards = [e.attributes["href"] for e in page.all("a") if "title" in e.attributes]
        order = [i for i in data.errors["image_id"] if i in set(row["error_ids"])]
        assert cards == [f"../errors/{i}.html" for i in order[: slices.MAX_ERRORS]]


# Labels


def test_a_pair_of_duplicates_is_shown_once(data):
    page = labels.labels_page(data)
    assert (page.n_suspected, page.n_suspected_errors) == (2, 2)
    assert (page.n_other_label, page.n_same_label) == (1, 1)
    (pair,) = page.other_label
    assert pair.first.label_name != pair.second.label_name
    (pair,) = page.same_label
    assert pair.first.label_name == pair.second.label_name
    assert pair.first.photo is None and pair.second.photo is None


def test_pictures_of_labels_in_doubt_bear_no_heat(data):
    page = labels.labels_page(data)
    cards = [item.thumb for item in page.suspected]
    cards += [card for pair in page.other_label for card in (pair.first, pair.second)]
    assert all(card.photo and not card.heat for card in cards)


def test_an_image_whose_label_is_in_doubt_is_marked_wherever_it_is(binary, data):
    _, pages = binary
    names = {image_id: f"errors/{image_id}.html" for image_id in data.error_rows}
    flagged = {names[i] for i in data.diagnosis.flags if i in names}
    for name, page in pages.items():
        for link in page.all("a"):
            leads_to = link.attributes.get("href", "").removeprefix("../")
            is_card = "title" in link.attributes and name != "labels.html"
            if is_card and leads_to in names.values():
                assert ("label?" in link.text) == (leads_to in flagged), f"{name}: {leads_to}"
    for image_id, name in names.items():
        notes = pages[name].all("p", cls="label-note")
        assert len(notes) == (image_id in data.diagnosis.flags)


def test_the_labels_page_only_suspects(binary, data):
    _, pages = binary
    page = pages["labels.html"]
    assert "Suspected, not proven" in page.all("p", cls="lede")[0].text
    issues = data.diagnosis.label_issues
    chosen = issues[issues["kind"] == "suspected label"]
    assert {str(score) for score in chosen["score"]} <= values_of(page)
    (cards,) = page.all("ul", cls="label-cards")
    for row in chosen.to_dict("records"):
        assert data.class_names[row["suggested"]] in cards.text


# Probes


def test_transformations_come_by_what_they_cost_and_with_every_number(binary, data):
    folder, pages = binary
    page = probes.probes_page(data)
    assert [row.name for row in page.rows] == ["contrast", "flip", "blur <b>"]
    assert set(TRANSFORMATIONS) == {row.name for row in page.rows}
    assert [cell.strength for row in page.rows for cell in row.cells] == [1, 2, 3] * 3
    shown = values_of(pages["robustness.html"])
    table = folder.read_table("probes")
    for name in ("fall", "q_value"):
        assert {str(value) for value in table[name]} <= shown
    assert "200" in shown


# Findings and targets


def test_findings_are_shown_in_order_with_their_numbers(binary):
    folder, pages = binary
    page = pages["findings.html"]
    found = stored(folder, "findings")
    articles = page.all("article")
    assert [a.attributes["id"] for a in articles] == [f"finding-{n + 1}" for n in range(len(found))]
    for article, finding in zip(articles, found, strict=True):
        assert legible(finding["text"]) in article.text
        assert finding["confirmed_by"] in article.text
        assert f"{finding['n_errors']:,}" in article.text
    shown = values_of(page)
    for finding in found:
        assert finding["q_value"] is None or str(finding["q_value"]) in shown
        assert str(finding["estimate"]["value"]) in shown


def test_findings_lead_to_their_evidence():
    assert findings.evidence_href("patterns", 3) == "pattern-3.html"
    assert findings.evidence_href("slices", 2) == "slices/2.html"
    assert findings.evidence_href("label_issues", "duplicate") == "labels.html"
    assert findings.evidence_href("probes", "blur, strength 2") == "robustness.html"
    assert findings.evidence_href("unreadable", "unreadable") == "run.html#left-out"
    assert findings.evidence_href("class_metrics", "y_true=0") == "metrics.html#classes"
    assert findings.evidence_href("something new", "<b>") == "metrics.html"


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("share of its errors that turn right", "percent", "share of its errors that turn right"),
        ("times the error rate of all others", "ratio", "the error rate of all others"),
        ("errors that could go away, at most", "count", "errors that could go away, at most"),
    ],
)
def test_an_estimate_is_printed_as_its_words_say(what, kind, said):
    found = findings.stated_estimate({"value": 2.0, "low": 1.0, "high": 3.0, "what": what})
    assert (found.kind, found.what, found.estimate.low) == (kind, said, 1.0)
    counted = findings.stated_estimate({"value": 2.0, "low": 2.0, "high": 2.0, "what": what})
    assert counted.estimate.low is None and counted.estimate.value == 2.0


def test_the_overview_leads_with_findings_and_targets(binary):
    folder, pages = binary
    page = pages["index.html"]
    texts = [legible(finding["text"]) for finding in stored(folder, "findings")]
    assert [line.text for line in page.all("p", cls="finding-text")] == texts[:5]
    titles = [target["title"] for target in stored(folder, "targets")]
    cards = page.all("li", cls="target-card")
    assert len(cards) == 3
    for card, title in zip(cards, titles, strict=False):
        assert legible(title) in card.text
    links = [link.attributes.get("href") for link in page.all("a")]
    expected = [f"targets/T{n}.html{place}" for n in (1, 2, 3) for place in ("", "#h-images")]
    assert [link for link in links if "targets/" in link] == expected


def test_a_target_page_says_everything_that_is_stored(binary):
    folder, pages = binary
    found = {finding["id"]: finding for finding in stored(folder, "findings")}
    for target in stored(folder, "targets"):
        page = pages[f"targets/{target['id']}.html"]
        (main,) = page.all("main")
        for text in (target["title"], target["text"], target["refuted_by"]):
            assert legible(text) in main.text
        assert [line.text for line in page.all("p", cls="finding-text")] == [
            legible(found[key]["text"]) for key in target["findings"]
        ]
        (gain,) = page.all("p", cls="gain")
        assert gain.text.startswith(str(round(target["gain"]["value"])))
        assert str(float(target["gain"]["value"])) in values_of(page)
        assert target["gain"]["what"] in main.text
        code = [element.text for element in page.all("code", id="recipe")]
        assert code == ([target["recipe"]] if target["recipe"] else [])
        assert bool(page.all("div", cls="chart-drawing")) == (target["kind"] == "threshold")


def test_the_lists_of_images_lie_in_the_report_as_they_are(binary):
    folder, pages = binary
    for target in stored(folder, "targets"):
        page = pages[f"targets/{target['id']}.html"]
        links = [e.attributes["href"] for e in page.all("a") if "download" in e.attributes]
        assert links == [f"../targets/{target['id']}.{form}" for form in ("csv", "json")]
        for form in ("csv", "json"):
            name = f"targets/{target['id']}.{form}"
            copy = folder.path / "report" / name
            assert copy.read_bytes() == (folder.path / name).read_bytes()


def test_the_images_of_a_target_are_those_of_its_list(binary, data):
    folder, _ = binary
    table = pd.read_csv(folder.path / "targets.csv")
    for page in targets.target_pages(data):
        rows = table[table["target"] == page.target.id].head(targets.MAX_IMAGES)
        expected = rows["image_id"].fillna(-1).astype(int).tolist()
        assert [item.thumb.image_id for item in page.images] == expected
        assert [item.thumb.path for item in page.images] == rows["path"].tolist()
        assert len(page.target.cover) <= targets.MAX_COVER
        assert all(thumb.photo for thumb in page.target.cover)
        is_about_labels = page.target.kind == "Review"
        assert any(item.thumb.heat for item in page.images) != is_about_labels
    assert page.images[0].thumb == thumbs.file_thumb("broken/<b>torn</b>.jpg")
    assert page.images[0].role == "unreadable"


def test_an_image_that_is_right_has_no_page_and_no_link(data):
    right = int(data.images.index.difference(list(data.error_rows))[0])
    card = thumbs.image_thumb(data, right)
    assert card.href is None and card.heat is None and card.predicted_name is None
    assert card.label_name == data.class_names[data.images["y_true"][right]]


# Hostile texts, missing tables, many rows


def test_hostile_texts_are_text_and_nothing_else(hostile):
    _, pages = hostile
    texts = "".join(page.all("main")[0].text for page in pages.values())
    for text in (HOSTILE_TEXT, HOSTILE_SLICE):
        assert legible(text) in texts
    assert HOSTILE_RECIPE in texts
    for name, page in pages.items():
        assert page.problems == [], name
        assert not [e for e in page.elements if e.attributes.get("src") == "x"]
        assert not [e for e in page.elements if e.tag == "i"]
        bold = [e for e in page.elements if e.tag == "b"]
        assert not bold, name


@pytest.fixture(scope="module")
def undiagnosed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undiagnosed")
    folder = write_run(path, ("a", "b"), Sizes(60, 20, 3), diagnosed=False)
    render_report(folder)
    return read_report(folder.path / "report")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("findings.html", "did not come to its findings"),
        ("targets.html", "did not come to its targets"),
        ("slices.html", "did not come to its slices"),
        ("labels.html", "did not come to its labels"),
        ("robustness.html", "did not come to its probes"),
        ("index.html", "did not come to its findings"),
        ("pattern-1.html", "was not painted out in this run"),
    ],
)
def test_a_run_without_a_diagnosis_says_what_is_missing(undiagnosed, page, said):
    texts = [element.text for element in undiagnosed[page].all("p", cls="empty")]
    assert any(said in text for text in texts)
    counted = {
        link.text.split()[0] for link in undiagnosed[page].all("a") if link.text[-1:].isdigit()
    }
    assert not counted & {"Findings", "Targets", "Slices", "Labels"}


def test_a_run_with_nothing_to_find_says_so_calmly(tmp_path):
    folder = write_run(tmp_path / "run", ("a", "b"), Sizes(60, 0, 3))
    render_report(folder)
    pages = read_report(folder.path / "report")
    for name in ("findings.html", "targets.html", "slices.html"):
        assert len(pages[name].all("p", cls="empty")) == 1
        assert "did not come" not in pages[name].all("p", cls="empty")[0].text
    assert len(pages["labels.html"].all("p", cls="empty")) == 3


def test_pages_of_thousands_of_rows_stay_small_and_say_so(tmp_path):
    folder = write_run(tmp_path / "run", ("cats", "dogs"), Sizes(2000, 60, 3))
    few = folder.read_table("slices")
    many = pd.concat([few.iloc[[0]]] * 300, ignore_index=True).assign(slice=np.arange(1, 301))
    folder.write_table("slices", many)
    issues = pd.DataFrame(
        {
            "image_id": np.arange(1500),
            "kind": ["suspected label"] * 500 + ["duplicate"] * 1000,
            "y_true": np.int32(0),
            "suggested": np.int32(1),
            "score": 0.1,
            "other_id": np.r_[np.full(500, -1), np.arange(500, 1500) ^ 1],
            "is_error": False,
            "rank": np.arange(1500),
        }
    )
    folder.write_table("label_issues", issues)
    rows = pd.read_csv(folder.path / "targets.csv")
    pd.concat([rows] * 40).to_csv(folder.path / "targets.csv", index=False)
    listed = stored(folder, "targets")
    for target in listed:
        target["n_images"] *= 40
    write_json(folder.path / "targets.json", {"targets": listed})
    render_report(folder)
    pages = read_report(folder.path / "report")
    assert "The first 100 of 300" in pages["slices.html"].all("p", cls="note")[0].text
    notes = [note.text for note in pages["labels.html"].all("p", cls="section-note")]
    assert [note.count("The first 100 are shown") for note in notes] == [1, 1]
    assert notes[1].startswith("500 pairs")
    first = pages["targets/T1.html"].all("p", cls="section-note")[0].text
    assert f"The first {targets.MAX_IMAGES} of {listed[0]['n_images']:,}" in first
    assert len([name for name in pages if name.startswith("slices/")]) == slices.MAX_SLICES
    for name, page in pages.items():
        size = page.path.stat().st_size
        assert size < 200_000, f"{name}: {size}"
