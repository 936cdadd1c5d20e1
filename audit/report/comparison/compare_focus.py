"""Where the focus went, in words and on an axis.

In: a `FocusShift`. Out: a small frozen dataclass, no HTML.
"""

from dataclasses import dataclass

from audit.compare.focus_shift import FocusShift, Likeness
from audit.report.views.parts import Estimate, Whisker, whisker


@dataclass(frozen=True)
class LikenessRow:
    """One measure of how alike the maps are; `at` and `chance_at` are on an axis of 0 to 1."""

    label: str
    meaning: str
    found: Likeness
    at: Whisker | None
    chance_at: float | None


@dataclass(frozen=True)
class FocusView:
    """Where the focus went."""

    found: FocusShift
    rows: tuple[LikenessRow, ...]
    closeness: str


def focus_view(found: FocusShift) -> FocusView:
    """Return the measures of likeness with what they mean."""
    rows = [
        (
            "Overlap of the hottest tenths",
            "what the hottest tenths share, by what they cover together: 1 the same, 0 apart",
            found.overlap,
        ),
        (
            "Correlation",
            "pixel by pixel over the whole map: 1 the same, 0 unrelated",
            found.correlation,
        ),
        (
            "Distance moved",
            "how far the heat has to be moved, in sides of the image: 0 not at all",
            found.distance,
        ),
    ]
    return FocusView(
        found=found,
        rows=tuple(
            LikenessRow(
                label,
                meaning,
                likeness,
                whisker(Estimate(likeness.mean, likeness.low, likeness.high), 0.0),
                None
                if likeness.chance is None
                else round(100 * min(1.0, max(0.0, likeness.chance)), 2),
            )
            for label, meaning, likeness in rows
            if likeness is not None
        ),
        closeness=_closeness(found.overlap),
    )


def _closeness(overlap: Likeness | None) -> str:
    """Say in words where the mean overlap lies between chance and the same."""
    if overlap is None or overlap.chance is None or overlap.chance >= 1:
        return ""
    if overlap.low is not None and overlap.low <= overlap.chance:
        return "no more alike than those of two different images"
    share = (overlap.mean - overlap.chance) / (1 - overlap.chance)
    words = ((0.75, "much the same"), (0.4, "alike, but not the same"), (0.15, "partly the same"))
    return next((text for least, text in words if share >= least), "largely different")
