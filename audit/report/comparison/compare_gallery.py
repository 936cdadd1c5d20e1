"""The gallery of a comparison: pages that are complete without a script, and data to filter.

In: the images that a comparison shows. Out: small frozen dataclasses, and packed columns.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit.compare.patterns_change import FoundPattern
from audit.report.comparison.compare_overview import IMAGES_PAGE, CompareSite
from audit.report.comparison.compared_images import OUTCOMES, ComparedImages, ImageCard, Side
from audit.report.formats import legible
from audit.report.packing import pack_json
from audit.report.views.gallery import PageLink, page_links

PAGE_SIZE = 60
"""Cards on a page, with or without the script."""


@dataclass(frozen=True)
class Choice:
    """One entry of a filter; `run` names the group that it stands in, "" if there are none."""

    value: str
    name: str
    count: int
    run: str = ""


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery. The first carries `data`, all images in columns, to filter.

    `starts` has for each outcome that occurs its number of images and the page it begins on.
    `firsts`: the places on this page, from 0, of cards with which an outcome begins.
    """

    site: CompareSite
    number: int
    n_pages: int
    links: tuple[PageLink, ...]
    cards: tuple[ImageCard, ...]
    blank: ImageCard
    first: int
    n_all: int
    starts: tuple[tuple[str, int, str], ...]
    firsts: dict[int, str]
    classes: tuple[Choice, ...]
    patterns: tuple[Choice, ...]
    data: str | None

    @property
    def last(self) -> int:
        return self.first + len(self.cards) - 1

    @property
    def previous(self) -> str | None:
        return gallery_name(self.number - 1) if self.number > 1 else None

    @property
    def next(self) -> str | None:
        return gallery_name(self.number + 1) if self.number < self.n_pages else None


def gallery_name(number: int) -> str:
    return IMAGES_PAGE if number == 1 else f"images/page-{number}.html"


def gallery_pages(
    site: CompareSite, shown: ComparedImages, patterns: Sequence[Sequence[FoundPattern]]
) -> Iterator[GalleryPage]:
    """Yield the pages of the gallery in order; there is one even when there is no image.

    Args:
        site: what every page carries.
        shown: the images.
        patterns: those of each run.
    """
    n_pages = max(1, math.ceil(len(shown) / PAGE_SIZE))
    outcomes = shown.outcomes(len(site.labels) - 1)[shown.order]
    counts = np.bincount(outcomes, minlength=len(OUTCOMES)).tolist()
    begins = {int(np.argmax(outcomes == n)): n for n, count in enumerate(counts) if count}
    starts = tuple(
        (OUTCOMES[n], counts[n], f"{gallery_name(row // PAGE_SIZE + 1)}#{_anchor(n)}")
        for row, n in begins.items()
    )
    classes = _class_choices(shown)
    of_patterns = tuple(_pattern_choices(site, patterns))
    for number in range(1, n_pages + 1):
        first = (number - 1) * PAGE_SIZE
        rows = shown.order[first : first + PAGE_SIZE].tolist()
        yield GalleryPage(
            site=site,
            number=number,
            n_pages=n_pages,
            links=page_links(number, n_pages, gallery_name),
            cards=tuple(shown.card(row) for row in rows),
            blank=_blank(shown),
            first=first + 1,
            n_all=len(shown),
            starts=starts,
            firsts={
                row - first: _anchor(n)
                for row, n in begins.items()
                if first <= row < first + PAGE_SIZE
            },
            classes=classes,
            patterns=of_patterns,
            data=pack_json(gallery_data(shown, patterns)) if number == 1 else None,
        )


def gallery_data(
    shown: ComparedImages, patterns: Sequence[Sequence[FoundPattern]]
) -> dict[str, Any]:
    """Return all images in columns, as the script reads them.

    `said`, `p`, `p_true`, `photo`, `heat` and `pattern` have a list for each run. `photo` is the
    number of the view that a picture is of, -1 without one; `pattern` is 0 for an image in none.
    Names are made legible here, as the script writes them as they come.
    """
    images, positions, pictures = shown.images, shown.positions, shown.pictures
    runs = range(len(images.runs))
    said = images.y_pred[:, positions]
    numbers = np.zeros((len(runs), len(images.paths)), np.int64)
    for run, found in enumerate(patterns):
        for pattern in found:
            numbers[run, pattern.errors] = pattern.number
    keys = list(zip(positions.tolist(), shown.explained.tolist(), strict=True))
    sources = [[pictures.source(position, run) for position, _ in keys] for run in runs]
    return {
        "labels": [legible(run.label) for run in images.runs],
        "classes": [legible(name) for name in images.class_names],
        "outcomes": OUTCOMES,
        "cards": list(shown.card_runs),
        "id": positions.tolist(),
        "path": [legible(path) for path in images.paths[positions]],
        "true": images.y_true[positions].tolist(),
        "explained": shown.explained.tolist(),
        "said": said.tolist(),
        "p": [_singles(images.scores[run, positions, said[run]]) for run in runs],
        "p_true": [_singles(shown.p_true[run]) for run in runs],
        "photo": [
            [-1 if source is None else pictures.views[source] for source in of_run]
            for of_run in sources
        ],
        "heat": [[int(pictures.has_map(p, run, index)) for p, index in keys] for run in runs],
        "pattern": numbers[:, positions].tolist(),
    }


def _class_choices(shown: ComparedImages) -> tuple[Choice, ...]:
    names = shown.images.class_names
    counts = np.bincount(shown.images.y_true[shown.positions], minlength=len(names))
    return tuple(
        Choice(str(index), names[index], int(counts[index]))
        for index in np.flatnonzero(counts).tolist()
    )


def _pattern_choices(
    site: CompareSite, patterns: Sequence[Sequence[FoundPattern]]
) -> Iterator[Choice]:
    for run, found in enumerate(patterns):
        for pattern in found:
            if len(pattern.errors):
                value = f"{run}-{pattern.number}"
                yield Choice(value, pattern.name, len(pattern.errors), site.labels[run])


def _anchor(outcome: int) -> str:
    return OUTCOMES[outcome].replace(" ", "-")


def _blank(shown: ComparedImages) -> ImageCard:
    """Return a card that has every part. The script fills copies of it."""
    labels = shown.comparison.labels
    sides = (Side(run, labels[run], "", "", "", False, 0.0, 0.0, 1.0) for run in shown.card_runs)
    return ImageCard(0, "", "", "", OUTCOMES[0], "", tuple(sides))


def _singles(values: np.ndarray) -> list[float]:
    """Return float32 as the shortest decimals that read back as the same."""
    return [float(str(value)) for value in values]
