"""The images that a comparison shows: what became of each, and which pictures it has.

In: a comparison and the pictures of its runs. Out: arrays and small dataclasses, no HTML. Names of
files are made of integers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from audit.compare.comparison import Comparison
from audit.report.comparison.compared_pictures import ComparedPictures

OUTCOMES = ("fixed", "broken", "still wrong", "still right")
"""What becomes of an image from the first run to a later one; its place is its number."""
MOST_CLASSES = 4
"""Classes that an image's page shows maps for."""
CARD_RUNS = 4
"""Runs that a card shows pictures of."""


def page_name(position: int) -> str:
    return f"images/{position}.html"


def photo_name(position: int, view: int) -> str:
    return f"images/{position}-{view}.jpg" if view else f"images/{position}.jpg"


def heat_name(position: int, run: int) -> str:
    return f"images/{position}-run-{run + 1}.png"


def gif_name(position: int) -> str:
    return f"images/{position}.gif"


@dataclass(frozen=True)
class Side:
    """An image in one run. `photo` and `heat` are files, `None` where there is no such picture.

    `share` is the peak of the map as a share of the largest one among the runs.
    """

    run: int
    label: str
    photo: str | None
    heat: str | None
    predicted: str
    is_right: bool
    p_predicted: float
    p_true: float
    share: float


@dataclass(frozen=True)
class ImageCard:
    """An image with what some runs say of it; `explained` is the class that overlays speak of."""

    position: int
    href: str
    path: str
    true_name: str
    outcome: str
    explained: str
    sides: tuple[Side, ...]


class ComparedImages:
    """The images that any run gets wrong, and of the others those with a picture.

    Attributes:
        positions: int64, ascending: the places of the shown images among the matched ones.
        explained: int64 of the same shape: the class for which most runs have a map; of classes
            with as many, the one that an earlier run took the image for, the true one last.
    """

    def __init__(self, comparison: Comparison, pictures: ComparedPictures) -> None:
        self.comparison = comparison
        self.images = comparison.images
        self.pictures = pictures
        is_right = self.images.is_right
        wrong = set(np.flatnonzero((~is_right).any(axis=0)).tolist())
        self.positions = np.array(
            [
                position
                for position in range(comparison.n_images)
                if position in wrong or pictures.is_pictured(position)
            ],
            np.int64,
        )
        self.explained = np.array([self.classes(p)[0] for p in self.positions.tolist()], np.int64)
        right = np.asarray(is_right[:, self.positions], np.int64)
        before = right[:1]
        self._outcomes = np.where(right == 1, 3 * before, 2 - before)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def card_runs(self) -> tuple[int, ...]:
        """The runs that a card shows: all, or else four from the first to the last."""
        n_runs = len(self.comparison.runs)
        chosen = np.linspace(0, n_runs - 1, min(CARD_RUNS, n_runs))
        return tuple(int(run) for run in np.rint(chosen))

    def outcomes(self, run: int) -> np.ndarray:
        """Return the number of the outcome of each shown image from the first run to another."""
        return np.asarray(self._outcomes[run])

    def gains(self, run: int) -> np.ndarray:
        """Return by how much the true class's probability rises, float64, for each shown image."""
        p_true = self.p_true[[0, run]].astype(np.float64)
        return np.asarray(p_true[1] - p_true[0])

    @cached_property
    def p_true(self) -> np.ndarray:
        """The true class's probability, float32 of shape (n_runs, n_shown)."""
        chosen = self.positions
        return np.asarray(self.images.scores[:, chosen, self.images.y_true[chosen]])

    @cached_property
    def order(self) -> np.ndarray:
        """Rows of `positions` by outcome in the last run, the largest change first."""
        last = len(self.comparison.runs) - 1
        return np.lexsort((self.positions, -np.abs(self.gains(last)), self.outcomes(last)))

    def classes(self, position: int) -> tuple[int, ...]:
        """Return the classes whose maps tell most of an image, that of its card first."""
        images = self.images
        y_true = int(images.y_true[position])
        wrong = [int(index) for index in images.y_pred[:, position] if index != y_true]
        candidates = list(dict.fromkeys([*wrong, y_true]))
        n_maps = {index: self._n_maps(position, index) for index in candidates}
        return tuple(sorted(candidates, key=lambda index: -n_maps[index])[:MOST_CLASSES])

    def shares(self, position: int, index: int) -> tuple[float | None, ...]:
        """Return the peak of each run's map as a share of the largest, `None` without a map.

        Where the runs made their maps in different ways, each has a scale of its own.
        """
        runs = range(len(self.pictures))
        maps = [self.pictures.map(position, run, index) for run in runs]
        peaks = [None if found is None else found.peak for found in maps]
        largest = max((peak for peak in peaks if peak is not None), default=1.0)
        if not self.pictures.same_method:
            return tuple(None if peak is None else 1.0 for peak in peaks)
        return tuple(None if peak is None else peak / largest for peak in peaks)

    def n_maps(self, row: int, runs: Sequence[int] | None = None) -> int:
        """Return in how many runs, of some or all, an image has a map for the class of its card."""
        return self._n_maps(int(self.positions[row]), int(self.explained[row]), runs)

    def card(self, row: int, runs: Sequence[int] | None = None) -> ImageCard:
        """Return the card of a row of `positions`, with some runs, by default `card_runs`.

        The outcome is that from the first run to the last of these.
        """
        runs = self.card_runs if runs is None else runs
        images, position = self.images, int(self.positions[row])
        explained = int(self.explained[row])
        names = images.class_names
        return ImageCard(
            position=position,
            href=page_name(position),
            path=str(images.paths[position]),
            true_name=names[images.y_true[position]],
            outcome=OUTCOMES[self.outcomes(runs[-1])[row]],
            explained=names[explained],
            sides=tuple(self.side(row, run, explained) for run in runs),
        )

    def side(self, row: int, run: int, index: int, share: float = 1.0) -> Side:
        """Return an image in one run, with the overlay of a class."""
        images, position = self.images, int(self.positions[row])
        predicted = int(images.y_pred[run, position])
        source = self.pictures.source(position, run)
        has_map = self.pictures.has_map(position, run, index)
        return Side(
            run=run,
            label=self.comparison.labels[run],
            photo=None if source is None else photo_name(position, self.pictures.views[source]),
            heat=heat_name(position, run) if has_map else None,
            predicted=images.class_names[predicted],
            is_right=predicted == int(images.y_true[position]),
            p_predicted=_single(images.scores[run, position, predicted]),
            p_true=_single(images.scores[run, position, images.y_true[position]]),
            share=share,
        )

    def _n_maps(self, position: int, index: int, runs: Sequence[int] | None = None) -> int:
        chosen = range(len(self.pictures)) if runs is None else runs
        return sum(self.pictures.has_map(position, run, index) for run in chosen)


def _single(value: np.float32) -> float:
    """Return a float32 as the shortest decimal that reads back as the same float32."""
    return float(str(value))
