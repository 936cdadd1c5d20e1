"""What became of each image, and which class its overlays speak of."""

import numpy as np
import pytest
from compared_runs import compared_pair, compared_series

from audit.report.comparison.compared_images import OUTCOMES, ComparedImages
from audit.report.comparison.compared_pictures import ComparedPictures


def shown_of(comparison) -> ComparedImages:
    return ComparedImages(comparison, ComparedPictures(comparison.images))


@pytest.fixture
def shown(tmp_path) -> ComparedImages:
    return shown_of(compared_pair(tmp_path))


def test_wrong_images_and_pictured_ones_are_shown(shown):
    # 0..11 barred, 20, 50, 60 and 61 are wrong in a run; of the rest 30 and 31 have a picture.
    assert shown.positions.tolist() == [*range(12), 20, 30, 31, 50, 60, 61]


def test_outcomes_are_those_of_the_comparison(shown):
    (step,) = shown.comparison.steps
    found = shown.outcomes(1)
    for name, positions in (
        ("fixed", step.outcomes.fixed),
        ("broken", step.outcomes.broken),
        ("still wrong", step.outcomes.still_wrong),
    ):
        assert shown.positions[found == OUTCOMES.index(name)].tolist() == positions.tolist()
    assert shown.positions[found == 3].tolist() == [30, 31]


def test_the_overlays_speak_of_the_class_with_most_maps(shown):
    explained = dict(zip(shown.positions.tolist(), shown.explained.tolist(), strict=True))
    assert explained[3] == 1  # Both runs have a map for dogs, only the first for cats.
    # One map for each class: the wrong one comes first.
    assert explained[9] == 1
    assert explained[50] == 0
    assert explained[30] == 0  # Right in both, so that only the true class counts.
    assert shown.classes(3) == (1, 0)
    assert shown.n_maps(shown.positions.tolist().index(3)) == 2


def test_shares_are_of_the_largest_peak(tmp_path):
    comparison = compared_pair(tmp_path)
    pictures = ComparedPictures(comparison.images)
    shown = ComparedImages(comparison, pictures)
    assert shown.shares(3, 1) == (1.0, 1.0)
    assert shown.shares(9, 1) == (1.0, None)
    assert shown.shares(9, 0) == (1.0, None)
    original = pictures.map

    def dimmed(position, run, index):
        from dataclasses import replace

        found = original(position, run, index)
        return found if found is None or run == 0 else replace(found, peak=0.25)

    pictures.map = dimmed
    assert shown.shares(3, 1) == (1.0, 0.25)
    pictures.same_method = False
    assert shown.shares(3, 1) == (1.0, 1.0)


def test_a_card_says_what_each_run_says(shown):
    row = shown.positions.tolist().index(3)
    card = shown.card(row)
    assert (card.true_name, card.explained, card.outcome) == ("cats", "dogs", "fixed")
    before, after = card.sides
    assert (before.predicted, before.is_right, before.p_predicted) == ("dogs", False, 0.8)
    assert (after.predicted, after.is_right, after.p_true) == ("cats", True, 0.9)
    assert before.photo == after.photo == "images/3.jpg"
    assert (before.heat, after.heat) == ("images/3-run-1.png", "images/3-run-2.png")
    assert shown.card(shown.positions.tolist().index(9)).sides[1].heat is None


def test_the_order_is_by_outcome_then_by_the_change(shown):
    outcomes = shown.outcomes(1)[shown.order]
    assert (np.diff(outcomes) >= 0).all()
    gains = shown.gains(1)[shown.order]
    fixed = np.abs(gains[outcomes == 0])
    assert (np.diff(fixed) <= 0).all()
    assert fixed[0] == pytest.approx(0.7)  # From 0.2 to 0.9.


def test_a_card_of_a_long_series_shows_four_runs(tmp_path):
    shown = shown_of(compared_series(tmp_path))
    assert shown.card_runs == (0, 1, 2, 3)
    # Cat 2 is wrong in all but the last run.
    row = shown.positions.tolist().index(2)
    assert [OUTCOMES[shown.outcomes(run)[row]] for run in (1, 2, 3)] == [
        "still wrong",
        "still wrong",
        "fixed",
    ]
    assert shown.card(row, (0, 2)).outcome == "still wrong"
    assert shown.card(row).outcome == "fixed"
