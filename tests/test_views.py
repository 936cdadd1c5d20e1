"""From a run folder to page dataclasses: every number is the stored one."""

import base64
import dataclasses
import math
import re
from typing import get_args

import cv2
import numpy as np
import pandas as pd
import pytest
from report_fixture import EMPTY_ERROR, HOSTILE_PATH, Sizes, write_run

from audit.config import Fusion, Method
from audit.errors import RunFolderError
from audit.report.maps import map_layers, shard_maps
from audit.report.neighbours import N_EXEMPLARS, N_NEAREST, Neighbours, read_neighbours
from audit.report.pages import make_environment
from audit.report.run_data import read_run, read_top_scores
from audit.report.views import causes, errors, metrics, overview, parts, patterns, run, thumbs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def data(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    path = tmp_path_factory.mktemp("binary")
    return read_run(write_run(path, ("cats", "dogs"), Sizes(200, 24, 8)))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    names = [f"class {n}" for n in range(30)]
    return read_run(write_run(tmp_path_factory.mktemp("many"), names, Sizes(900, 210, 4)))


def test_a_run_without_metrics_is_refused_with_what_to_do(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder.path / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match=r"no metrics yet.*gradcam-audit run"):
        read_run(folder)


def test_errors_are_the_misclassified_images_by_falling_confidence(folder, data):
    predictions = folder.read_predictions()
    wrong = predictions[predictions["y_pred"] != predictions["y_true"]]
    assert set(data.errors["image_id"]) == set(wrong["image_id"])
    assert (np.diff(data.errors["p_pred"]) <= 0).all()


def test_metadata_may_bear_any_name(data):
    assert list(data.metadata.columns) == ["camera", "exposure </td>", "y_pred"]
    assert len(data.metadata) == len(data.errors)
    assert data.metadata.index.tolist() == data.errors["image_id"].tolist()


def test_patterns_of_errors_come_from_the_map_of_the_predicted_class(folder, data):
    focus = folder.read_table("focus")
    stored = focus[(focus["role"] == "error") & focus["is_predicted"] & (focus["pattern"] > 0)]
    expected = dict(zip(stored["image_id"], stored["pattern"], strict=True))
    found = data.errors[data.errors["pattern"] > 0]
    assert dict(zip(found["image_id"], found["pattern"], strict=True)) == expected


def test_top_scores_are_the_highest_in_order(folder, data):
    ids = set(data.errors["image_id"])
    top = read_top_scores(folder, ids, 2)
    stored = folder.read_predictions(scores=True).set_index("image_id")["scores"]
    assert set(top) == ids
    for image_id, rows in top.items():
        highest = sorted(stored[image_id], reverse=True)[:2]
        assert [score for _, score in rows] == pytest.approx(highest)


def test_the_overview_repeats_what_is_stored(data):
    page = overview.overview_page(data, patterns.pattern_views(data))
    stored = data.metrics["accuracy"]
    assert (page.accuracy.value, page.accuracy.low, page.accuracy.high) == (
        stored["value"],
        stored["low"],
        stored["high"],
    )
    assert [(part.kind, part.count) for part in page.left_out] == [
        ("unreadable", 1),
        ("skipped", 2),
    ]
    assert page.n_outside_patterns == int((data.errors["pattern"] == 0).sum())


def shown_share(data, n_members):
    """Return how the overview counts a pattern that has so many of the errors."""
    (view, *_) = patterns.pattern_views(data)
    page = overview.overview_page(data, [dataclasses.replace(view, n_errors=n_members)])
    return page.leading.share


def test_most_errors_are_more_than_half_of_them(data):
    n_errors = len(data.errors)
    assert n_errors == 30
    assert shown_share(data, 15) == "some"
    assert shown_share(data, 16) == "most"
    assert shown_share(data, 29) == "most"
    assert shown_share(data, 30) == "all"
    assert overview.overview_page(data, ()).leading is None


def sentence(data, **pattern) -> str:
    """Return the verdict of a report whose first pattern is changed so."""
    view = patterns.pattern_views(data)[0]
    changed = [dataclasses.replace(view, name="the bars", **pattern)]
    page = overview.overview_page(data, changed)
    template = make_environment().get_template("index.html")
    text = template.render(page=page, site=page.site, root="")
    heading = re.search(r'<h1 class="verdict">(.*?)</h1>', text, re.DOTALL)[1]
    return " ".join(re.sub(r"<[^>]*>", "", heading).replace("\u202f", " ").split())


def test_only_a_cause_repairs_in_the_verdict(data):
    cause = patterns.pattern_views(data)[0].cause
    tested = dataclasses.replace(
        cause, verdict="causal", n_tested=20, repaired=parts.Estimate(0.844, 0.7, 0.9)
    )
    words = "90.0 % right [86.1, 92.9]. Most errors (20 of 30) look at the bars"
    assert sentence(data, n_errors=20, cause=tested) == f"{words}; painting that out repairs 84 %."
    some = dataclasses.replace(tested, n_tested=12)
    assert sentence(data, n_errors=20, cause=some).endswith("repairs 84 % of 12 tested.")
    for verdict in ("not shown", "too few", "not tested"):
        other = dataclasses.replace(tested, verdict=verdict)
        said = sentence(data, n_errors=20, cause=other, control_share=0.25)
        assert said == f"{words}; so do 25.0 % of comparable correct images."
        assert sentence(data, n_errors=20, cause=other, control_share=None) == f"{words}."
    assert "10 of 30 errors look at the bars" in sentence(data, n_errors=10)
    assert "All errors (30) look at the bars" in sentence(data, n_errors=30)


def test_the_leading_pattern_is_a_cause_or_marks_errors_or_is_the_largest(data):
    views = patterns.pattern_views(data)
    plain = [
        dataclasses.replace(
            view,
            lift=parts.Estimate(1.0, 0.5, 2.0),
            cause=dataclasses.replace(view.cause, verdict="not shown"),
        )
        for view in views
    ]
    largest = max(plain, key=lambda view: view.n_errors)
    assert overview.leading_pattern(plain) == largest
    other = next(view for view in plain if view.number != largest.number)
    marked = dataclasses.replace(other, lift=parts.Estimate(2.0, 1.5, 3.0))
    assert overview.leading_pattern([largest, marked]) == marked
    causal = dataclasses.replace(
        largest, cause=dataclasses.replace(largest.cause, verdict="causal")
    )
    assert overview.leading_pattern([causal, marked]) == causal
    assert overview.leading_pattern([]) is None


def test_the_warning_on_scaling_comes_first(data):
    assert [warning.kind for warning in overview.run_warnings(data)] == ["scaling", "empty"]


def test_two_classes_have_false_positives_and_false_negatives(binary):
    page = overview.overview_page(binary, ())
    stored = binary.metrics["binary"]
    assert [side.pair.count for side in page.sides] == [stored["fp"], stored["fn"]]
    positive, negative = page.sides
    assert (positive.pair.true_name, positive.pair.predicted_name) == ("cats", "dogs")
    assert (negative.pair.true_name, negative.pair.predicted_name) == ("dogs", "cats")
    assert positive.pair.share.value == pytest.approx(stored["false_positive_rate"]["value"])
    assert [row.count for row in metrics.metrics_page(binary).counts] == [
        stored[key] for key in ("tp", "fp", "tn", "fn")
    ]


def test_exactly_one_threshold_of_the_sweep_is_in_use(binary):
    page = metrics.metrics_page(binary)
    assert [row.threshold for row in page.sweep if row.in_use] == [0.5]


def test_the_curves_say_the_stored_areas(data, binary):
    for stored in (data, binary):
        page = metrics.metrics_page(stored)
        assert [caption for caption, _ in page.curves] == ["ROC", "Precision and recall"]
        assert page.n_curves == len(stored.metrics["curves"]) > 0
        roc, trade_off = (drawing.label for _, drawing in page.curves)
        for curve in stored.metrics["curves"]:
            row = stored.classes.set_index("class").loc[curve["class"]]
            assert f"{row['roc_auc']:.3f}" in roc
            assert f"{row['average_precision']:.3f}" in trade_off


def test_a_run_from_before_the_curves_leaves_them_out(data):
    older = {name: value for name, value in data.metrics.items() if name != "curves"}
    page = metrics.metrics_page(dataclasses.replace(data, metrics=older))
    assert (page.curves, page.n_curves) == ((), 0)


def test_names_that_come_out_alike_in_a_legend_bear_their_number(data):
    alike = ("a" * 90, "a" * 40 + "b" + "a" * 49, "c")
    run = dataclasses.replace(data, class_names=alike)
    first, second, third = metrics._distinct_names(run, [0, 1, 2])
    assert (first[-4:], second[-4:], third) == (" (0)", " (1)", "c")


def test_a_threshold_between_the_others_is_told_from_them(binary):
    stored = {**binary.metrics["binary"]["sweep"][0], "threshold": 0.4375}
    assert metrics.SweepRow(**stored, in_use=True).digits == 4
    assert all(row.digits == 2 for row in metrics.metrics_page(binary).sweep)


def test_many_classes_have_no_grid_and_the_worst_of_them_on_the_overview(many):
    page = overview.overview_page(many, ())
    assert page.matrix is None
    assert len(page.pairs) == overview.MAX_PAIRS < page.n_pairs
    recalls = [row.recall.value for row in page.class_table.rows]
    assert len(recalls) == overview.MAX_CLASSES
    assert recalls == sorted(recalls)
    assert len(metrics.metrics_page(many).class_table.rows) == 30


def test_confidence_is_the_stored_float32(data):
    cards = thumbs.error_thumbs(data, range(len(data.errors)))
    assert [np.float32(t.confidence) for t in cards] == data.errors["p_pred"].tolist()


@pytest.fixture(scope="module")
def error_pages(folder, data):
    layers = map_layers(data.layers)
    ids = set(data.errors["image_id"].tolist())
    views = patterns.pattern_views(data)
    siblings = {view.number: view.exemplars for view in views}
    exemplars = {view.number: [x.image_id for x in view.exemplars] for view in views}
    near = read_neighbours(folder, data, exemplars)
    scores = read_top_scores(folder, ids, 8)
    maker = errors.ErrorPageMaker.build(data, layers, scores, siblings, near)
    pages = {}
    for index in folder.shard_indices("explanations"):
        columns = ("image_id", "explained_class", "layer", "peak", "cam")
        shard = shard_maps(folder.read_shard_table("explanations", index, columns), layers, ids)
        pages |= {i: maker.page(i, shard) for i, _ in shard.rows}
    return pages


def test_pages_of_errors_follow_the_order_of_the_gallery(data, error_pages):
    order = data.errors["image_id"].tolist()
    addresses = [None, *(f"errors/{image_id}.html" for image_id in order), None]
    for n, image_id in enumerate(order):
        page = error_pages[image_id]
        assert page.position == n + 1
        assert (page.previous, page.next) == (addresses[n], addresses[n + 2])


def test_both_classes_share_the_scale_of_the_larger_peak(data, error_pages):
    for image_id, page in error_pages.items():
        peaks = [data.peaks[image_id, item.index] for item in page.explained]
        if min(peaks) > 0:
            assert [item.share for item in page.explained] == [p / max(peaks) for p in peaks]


def test_a_class_for_which_nothing_speaks_has_no_overlay(data, error_pages):
    empty = sorted(data.errors["image_id"])[EMPTY_ERROR]
    predicted, true = error_pages[empty].explained
    assert predicted.heat is None and predicted.share == 0
    assert true.heat is not None and true.share == 1
    assert error_pages[empty].thumb.heat is None


def test_overlays_of_a_page_are_a_file_and_two_pictures_in_the_page(data, error_pages):
    for image_id, page in error_pages.items():
        predicted, true = page.explained
        if predicted.heat is not None:
            assert predicted.heat == f"images/{image_id}-predicted.png" == page.thumb.heat
        for address in (true.heat, page.last_heat):
            assert address is not None
            png = base64.b64decode(address.removeprefix("data:image/png;base64,"))
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
            assert picture.shape[2] == 4 and picture[..., 3].any()


def test_the_last_layer_is_held_against_the_fused_map(folder, data, error_pages):
    stored = pd.concat(folder.iter_shards("explanations")).set_index(
        ["image_id", "explained_class", "layer"]
    )
    layers = map_layers(data.layers)
    error = data.errors.iloc[5]
    key = int(error["image_id"]), int(error["y_pred"])
    last, fused = (
        np.frombuffer(row["cam"], np.uint8).reshape(row["height"], row["width"]).astype(np.float32)
        for row in (stored.loc[(*key, layers[-2].name)], stored.loc[(*key, layers[-1].name)])
    )
    large = cv2.resize(last, fused.shape[::-1], interpolation=cv2.INTER_LINEAR)
    cosine = (large * fused).sum() / math.sqrt((large**2).sum() * (fused**2).sum())
    assert error_pages[key[0]].last_likeness == pytest.approx(cosine, abs=1e-6)


def test_an_error_is_held_against_exemplars_other_than_itself(data, error_pages):
    n_shown = 0
    for image_id, page in error_pages.items():
        shown = [item.thumb.image_id for item in page.siblings]
        assert image_id not in shown
        assert len(shown) == (N_EXEMPLARS if page.thumb.pattern else 0)
        assert all(item.thumb.pattern == page.thumb.pattern for item in page.siblings)
        assert all(0 <= item.place <= 1 and -1 <= item.look <= 1 for item in page.siblings)
        n_shown += len(shown)
    assert n_shown > 0


def test_the_nearest_images_are_right_and_say_which_class_they_are(data, error_pages):
    for page in error_pages.values():
        assert page.n_right == 30
        assert len(page.nearest) == N_NEAREST
        for item in page.nearest:
            thumb = item.thumb
            assert thumb.href is None and thumb.image_id not in data.error_rows
            assert thumb.label_name == data.class_names[data.images["y_true"][thumb.image_id]]
            assert thumb.heat == f"images/{thumb.image_id}-predicted.png"
        names = [item.thumb.label_name for item in page.nearest]
        assert names == [page.thumb.true_name] * 2 + [page.thumb.predicted_name] * 2


def trial(treatment, area, y_pred, number=0):
    return causes.Trial(7, treatment, area, number, 1.0, 0.5, y_pred)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], None),
        ([("elsewhere", 0.1, 1)], None),
        # Right from 20 % on without the focus, never elsewhere.
        (
            [("focus", 0.1, 2), ("focus", 0.2, 1), ("focus", 0.3, 1), ("elsewhere", 0.2, 2)],
            causes.Outcome(0.2, None, 0.3, False, True),
        ),
        # As soon elsewhere, in one of two places.
        (
            [("focus", 0.1, 1), ("elsewhere", 0.1, 2), ("elsewhere", 0.1, 1)],
            causes.Outcome(0.1, 0.1, 0.1, False, False),
        ),
        # There was no room for the shape elsewhere.
        ([("focus", 0.3, 1)], causes.Outcome(0.3, None, 0.3, False, None)),
        # Never right; blurring is not looked at.
        (
            [("focus", 0.1, 2), ("focus", 0.3, 2), ("elsewhere", 0.3, 1), ("blur", 0.3, 1)],
            causes.Outcome(None, 0.3, 0.3, True, None),
        ),
        # Another wrong class.
        ([("focus", 0.1, 2), ("focus", 0.2, 0)], causes.Outcome(None, None, 0.2, False, None)),
    ],
)
def test_what_painting_out_did_is_summed_up(trials, expected):
    """The error is a 1 taken for a 2."""
    assert causes.outcome([trial(*item) for item in trials], 1, 2) == expected


def test_the_true_class_is_among_the_scores_even_if_it_is_low(tmp_path):
    names = [f"class {n}" for n in range(30)]
    folder = write_run(tmp_path / "run", names, Sizes(300, 40, 3), explained=False)
    data = read_run(folder)
    ids = set(data.errors["image_id"].tolist())
    scores = read_top_scores(folder, ids, 3)
    maker = errors.ErrorPageMaker.build(data, (), scores, {}, Neighbours())
    for image_id in ids:
        page = maker.page(image_id, None)
        assert page.maps is None
        assert sum(row.is_true for row in page.scores) == 1
        assert sum(row.is_predicted for row in page.scores) == 1
        assert len(page.scores) in (3, 4)


def test_patterns_list_their_members_once(folder, data):
    for view in patterns.pattern_views(data):
        stored = data.errors[data.errors["pattern"] == view.number]
        shown = [thumb.image_id for thumb in (*view.exemplars, *view.others)]
        assert sorted(shown) == sorted(stored["image_id"])
        assert view.n_errors == len(stored)
        assert view.has_all
        assert sum(pair.count for pair in view.confusions) == view.n_errors


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.2, 3.0, "more often than correct images"),
        (0.2, 0.9, "less often than correct images"),
        (0.8, 1.4, "no clear difference from correct images"),
        (math.nan, math.nan, "no clear difference from correct images"),
    ],
)
def test_a_lift_is_put_into_words_only_as_far_as_its_interval_goes(low, high, text):
    assert patterns.comparison(low, high) == text


def test_the_run_page_names_options_as_on_the_command_line(data):
    page = run.run_page(data, layer_detail=14)
    assert "--label-regex" in [fact.label for fact in page.options]
    assert [row.scaling for row in page.scalings if row.is_suggested] == ["0-1"]
    assert (page.n_kept, len(page.layers)) == (21, 22)


def test_whiskers_lie_on_their_axis():
    assert parts.whisker(parts.Estimate(0.9, 0.8, 1.0), 0.5) == parts.Whisker(60.0, 80.0, 100.0)
    assert parts.whisker(parts.Estimate(0.9, None, None), 0.0) is None
    assert parts.whisker(parts.Estimate(1.9, 1.8, 2.0), 0.0) is None


def test_names_of_files_are_made_of_integers(data):
    cards = thumbs.error_thumbs(data, range(len(data.errors)))
    assert all(thumb.href == f"errors/{thumb.image_id}.html" for thumb in cards)
    assert all(HOSTILE_PATH not in (thumb.photo or "") for thumb in cards)


def test_every_method_and_fusion_is_put_into_words():
    assert sorted(run.METHODS) == sorted(get_args(Method))
    assert sorted(run.FUSIONS) == sorted(get_args(Fusion))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([], "nothing; every file in the data was read and counted."),
        (["undefined"], "1 image with undefined scores, in none of these numbers."),
        (
            ["skipped", "unreadable", "undefined", "undefined", "unreadable"],
            "2 unreadable files, 2 images with undefined scores and 1 file of another kind, in none"
            " of these numbers.",
        ),
    ],
)
def test_the_overview_says_what_is_in_none_of_its_numbers(data, kinds, said):
    rows = [(f"{n}.jpg", kind, "why") for n, kind in enumerate(kinds)]
    table = pd.DataFrame(rows, columns=["path", "kind", "reason"])
    page = overview.overview_page(dataclasses.replace(data, unreadable=table), ())
    html = make_environment().get_template("index.html").render(page=page, site=page.site, root="")
    note = re.sub(r"<[^>]*>", "", next(x for x in html.split("\n") if "Left out:" in x))
    assert note.startswith(f"Left out: {said}")
