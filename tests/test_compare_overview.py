"""What the first page of a comparison says, as values."""

import pytest
from compared_runs import compared_pair, compared_series, many_classes

from audit.compare.changes import BETTER, WORSE
from audit.compare.stored import read_patterns
from audit.report.comparison.compare_overview import (
    METRIC_NAMES,
    gallery_href,
    make_site,
    run_rows,
    step_view,
)
from audit.report.comparison.compared_images import ComparedImages
from audit.report.comparison.compared_pictures import ComparedPictures
from audit.report.comparison.mean_maps import MeanMaps


def view_of(comparison, position=None):
    pictures = ComparedPictures(comparison.images)
    shown = ComparedImages(comparison, pictures)
    runs = range(len(comparison.runs))
    patterns = [read_patterns(comparison.images, run, is_later=run > 0) for run in runs]
    means = MeanMaps(patterns, comparison.images.y_pred)
    for image in shown.positions.tolist():
        means.add(image, pictures)
    step = comparison.steps[-1 if position is None else position - 1]
    return step_view(comparison, step, shown, means)


@pytest.fixture
def step(tmp_path):
    return view_of(compared_pair(tmp_path))


def test_counts_lead_to_their_images(step):
    assert step.counts == {"fixed": 12, "broken": 2, "still wrong": 2, "still right": 54}
    assert [(tile.n_shown, tile.href) for tile in step.outcomes] == [
        (12, "images.html#step=1&outcome=0"),
        (2, "images.html#step=1&outcome=1"),
        (2, "images.html#step=1&outcome=2"),
        (2, "images.html#step=1&outcome=3"),
    ]


def test_every_metric_has_a_name(step):
    assert [row.found.name for row in step.metrics] == list(METRIC_NAMES)
    assert [row.label for row in step.metrics if row.is_lower_better] == [
        "Log loss",
        "Brier score",
        "Calibration error (ECE)",
    ]


def test_the_direction_needs_a_test(tmp_path, step):
    assert step.direction == BETTER
    assert step.p_value < 0.05
    comparison = compared_pair(tmp_path / "again")
    same = compared_series(tmp_path / "series")
    # Four cats fixed, two dogs broken: p = 0.34 or so.
    assert view_of(same, 1).counts["broken"] == 2
    assert view_of(same, 1).direction == ""
    assert comparison.steps[0].outcomes.p_value == step.p_value
    assert WORSE != BETTER


def test_a_pattern_has_its_mean_maps_and_its_place(step):
    earlier, later = step.patterns
    assert earlier.found.verdict == "gone"
    assert earlier.found_in == "before"
    assert earlier.kind == "by place"
    assert earlier.href == "images.html#step=1&pattern=0-1"
    assert (earlier.before.picture, earlier.after.picture) == (
        "images/mean-1-1-1.jpg",
        "images/mean-1-1-2.jpg",
    )
    assert (earlier.after.mean.n, earlier.after.mean.of) == (6, 12)
    assert earlier.place.before == pytest.approx(13 / 16)
    assert earlier.place.after == 0
    assert later.place is None
    assert later.before.picture is None
    assert later.href == "images.html#step=1&pattern=1-1"
    # Five of its fixed errors and the one left have maps in both runs; the fixed ones changed most.
    assert [card.position for card in earlier.examples] == [1, 2, 3, 4]
    assert [card.position for card in later.examples] == [61, 60]
    assert step.leading is earlier
    assert step.shown_patterns == (earlier,)
    assert step.other_patterns == (later,)


def test_cards_with_maps_of_both_runs_come_first(step):
    assert len(step.fixed) == 8
    with_both = [all(side.heat for side in card.sides) for card in step.fixed]
    assert with_both == [True] * 5 + [False] * 3
    assert {card.outcome for card in step.broken} == {"broken"}


def test_gaps_are_in_points(step):
    (before, _), (after, words) = step.gaps
    found = step.calibration
    assert before == pytest.approx(abs(100 * found.gap_before))
    assert after == pytest.approx(abs(100 * found.gap_after))
    assert words == ("surer than right" if found.gap_after > 0 else "less sure than right")


def test_classes_lead_to_their_images(step):
    assert [row.href for row in step.classes] == [
        "images.html#step=1&true=0",
        "images.html#step=1&true=1",
    ]
    assert [row.href for row in step.slices] == [None]


def test_many_classes_begin_with_the_surest_change(tmp_path):
    view = view_of(many_classes(tmp_path, 60))
    q_values = [row.found.q_value for row in view.classes]
    assert q_values == sorted(q_values)
    assert len(q_values) == 60


def test_runs_of_a_series_lead_to_their_steps(tmp_path):
    pair, series = compared_pair(tmp_path / "pair"), compared_series(tmp_path / "series")
    assert [row.href for row in run_rows(pair)] == [None, None]
    assert [row.href for row in run_rows(series)] == [None, *(f"steps/{n}.html" for n in (1, 2, 3))]
    assert make_site(series, 3).is_series
    assert not make_site(pair, 3).is_series


def test_links_into_the_gallery_are_made_of_fixed_words():
    assert gallery_href(step=1, outcome=2) == "images.html#step=1&outcome=2"
