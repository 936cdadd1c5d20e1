"""From a run folder to page dataclasses: every number is the stored one."""

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
from report_fixture import EMPTY_ERROR, HOSTILE_PATH, Sizes, write_run

from audit.config import Fusion, Method
from audit.errors import RunFolderError
from audit.report.maps import map_layers, shard_maps
from audit.report.run_data import read_run, read_top_scores
from audit.report.views import errors, gallery, metrics, overview, parts, patterns, run, thumbs


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
    cells = {(c.true_name, c.predicted_name): c for row in page.matrix for c in row.cells}
    for cell in data.confusion.to_dict("records"):
        shown = cells[data.class_names[cell["y_true"]], data.class_names[cell["y_pred"]]]
        assert shown.count == cell["count"]
        assert shown.share.value == cell["share"]
        assert shown.is_right == (cell["y_true"] == cell["y_pred"])
    assert (page.n_unreadable, page.n_skipped) == (1, 2)
    assert page.n_outside_patterns == int((data.errors["pattern"] == 0).sum())


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


def test_many_classes_have_no_grid_and_the_worst_of_them_on_the_overview(many):
    page = overview.overview_page(many, ())
    assert page.matrix == ()
    assert len(page.pairs) == overview.MAX_PAIRS < page.n_pairs
    recalls = [row.recall.value for row in page.class_table.rows]
    assert len(recalls) == overview.MAX_CLASSES
    assert recalls == sorted(recalls)
    assert len(metrics.metrics_page(many).class_table.rows) == 30


def test_the_gallery_has_every_error_once_on_its_pages(many):
    pages = list(gallery.gallery_pages(many))
    shown = [thumb.image_id for page in pages for thumb in page.thumbs]
    assert shown == many.errors["image_id"].tolist()
    assert [(page.first, page.last) for page in pages] == [(1, 200), (201, 210)]
    assert pages[0].data is not None and pages[1].data is None
    assert sum(choice.count for choice in pages[0].true_classes) == 210


def test_the_gallerys_data_is_the_gallery(data):
    page = next(gallery.gallery_pages(data))
    assert page.data["id"] == [thumb.image_id for thumb in page.thumbs]
    assert page.data["confidence"] == [thumb.confidence for thumb in page.thumbs]
    assert page.data["pattern"] == [thumb.pattern for thumb in page.thumbs]
    assert page.data["pictures"].count(1) == 1  # the error whose fused map is empty


def test_confidence_is_the_stored_float32(data):
    cards = thumbs.error_thumbs(data, range(len(data.errors)))
    assert [np.float32(t.confidence) for t in cards] == data.errors["p_pred"].tolist()


@pytest.fixture(scope="module")
def error_pages(folder, data):
    layers = map_layers(data.layers)
    ids = set(data.errors["image_id"].tolist())
    views = patterns.pattern_views(data)
    siblings = {view.number: view.exemplars for view in views}
    maker = errors.ErrorPageMaker.build(data, layers, read_top_scores(folder, ids, 8), siblings)
    pages = {}
    for frame in folder.iter_shards("explanations"):
        shard = shard_maps(frame[frame["image_id"].isin(ids)], layers)
        pages |= {i: maker.page(i, shard) for i, _ in shard.rows}
    return pages


def test_pages_of_errors_follow_the_order_of_the_gallery(data, error_pages):
    order = data.errors["image_id"].tolist()
    for n, image_id in enumerate(order):
        page = error_pages[image_id]
        assert page.position == n + 1
        assert (page.previous.image_id if page.previous else None) == (order[n - 1] if n else None)
        following = order[n + 1] if n + 1 < len(order) else None
        assert (page.next.image_id if page.next else None) == following


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


def test_the_true_class_is_among_the_scores_even_if_it_is_low(tmp_path):
    names = [f"class {n}" for n in range(30)]
    folder = write_run(tmp_path / "run", names, Sizes(300, 40, 3), explained=False)
    data = read_run(folder)
    ids = set(data.errors["image_id"].tolist())
    maker = errors.ErrorPageMaker.build(data, (), read_top_scores(folder, ids, 3), {})
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
    page = run.run_page(data)
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
