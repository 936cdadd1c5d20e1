"""Where the focus went, in words."""

import pytest

from audit.compare.focus_shift import FocusShift, Likeness
from audit.report.comparison.compare_focus import focus_view


def shift(overlap: Likeness | None) -> FocusShift:
    distance = None if overlap is None else Likeness(0.1, 0.08, 0.12, 0.2)
    return FocusShift(4, 3, 1, 2, overlap, overlap, distance, ())


@pytest.mark.parametrize(
    ("mean", "low", "chance", "words"),
    [
        (0.06, 0.04, 0.05, "no more alike than those of two different images"),
        (0.1, 0.08, 0.05, "largely different"),
        (0.41, 0.38, 0.07, "partly the same"),
        (0.5, 0.45, 0.05, "alike, but not the same"),
        (0.9, 0.85, 0.05, "much the same"),
        (1.0, None, 0.05, "much the same"),
        (0.9, 0.85, None, ""),
    ],
)
def test_how_alike_depends_on_chance(mean, low, chance, words):
    assert focus_view(shift(Likeness(mean, low, 1.0, chance))).closeness == words


def test_rows_are_on_an_axis():
    view = focus_view(shift(Likeness(0.4, 0.3, 0.5, 0.07)))
    assert [row.label for row in view.rows] == [
        "Overlap of the hottest tenths",
        "Correlation",
        "Distance moved",
    ]
    overlap = view.rows[0]
    assert (overlap.at.low, overlap.at.value, overlap.at.high) == (30, 40, 50)
    assert overlap.chance_at == 7
    assert focus_view(shift(None)).rows == ()
    assert focus_view(shift(None)).closeness == ""
