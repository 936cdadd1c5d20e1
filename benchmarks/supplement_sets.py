"""A base set with a planted shortcut, what breaks it, and heads that learn from either.

In: clean photographs and their features (`planted_settings.load_photographs`). Out: who learns and
who validates, drawn pictures with masks, heads, folders that an audit reads. Nothing here audits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from planted_artefacts import draw_bars
from planted_sets import (
    CLASS_NAMES,
    Backbone,
    Drawing,
    _encode_jpeg,
    _encode_png,
    _write,
    draw_small_object,
)
from planted_settings import Pictures, as_read

DRAW: dict[str, Callable[[np.ndarray, np.random.Generator], Drawing]] = {
    "bars": draw_bars,
    "object": draw_small_object,
}
"""The artefacts, by name: three to five upright bars on one side, and a toy bone anywhere."""
KINDS = tuple(DRAW)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the supplement, in the order of the series."""
CATS, DOGS = 0, 1

DROPOUT = 0.1
"""Before the head, as the article's model has it."""
EPOCHS, BATCH, RATE = 60, 32, 1e-3


@dataclass(frozen=True)
class Plan:
    """How many photographs there are of each class, and how many carry an artefact.

    Attributes:
        n_base: that every head learns from.
        shortcut: share of the base's dogs that carry the artefact; of its cats none does.
        n_supplement: cats with the artefact, all of the supplement.
        n_val: that are audited; half of either class carry the artefact.
        n_more: for the pool that is searched, beside the photographs of the supplement.
        n_test: on which what is found in the pool is judged.
        n_maps: cats with the artefact whose maps are held against the masks.
    """

    n_base: int = 300
    shortcut: float = 0.9
    n_supplement: int = 150
    n_val: int = 150
    n_more: int = 150
    n_test: int = 200
    n_maps: int = 50

    def quick(self) -> "Plan":
        """Return a plan that shows that everything runs, and little else."""
        return replace(self, n_base=100, n_supplement=50, n_val=60, n_more=50, n_test=50, n_maps=12)


@dataclass(frozen=True)
class Split:
    """Positions of photographs, each int of shape (2, n): of cats, and of dogs."""

    base: np.ndarray
    supplement: np.ndarray
    val: np.ndarray
    more: np.ndarray
    test: np.ndarray


def split(labels: np.ndarray, plan: Plan, seed: int) -> Split:
    """Share the photographs of each class out; no photograph is in two parts.

    Args:
        labels: int of shape (n,), 0 or 1.
    """
    counts = [plan.n_base, plan.n_supplement, plan.n_val, plan.n_more, plan.n_test]
    cuts = np.cumsum(counts)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in (CATS, DOGS)]
    if min(map(len, shuffled)) < cuts[-1]:
        raise SystemExit(f"There are fewer than {cuts[-1]} photographs of a class.")
    chosen = np.stack([of_class[: cuts[-1]] for of_class in shuffled])
    return Split(*np.split(chosen, cuts[:-1], axis=1))


class Drawn:
    """The photographs with an artefact drawn in, and their features, kept in a file.

    The artefact of a photograph depends on its position, the kind and the seed alone.
    """

    def __init__(
        self, kind: str, seed: int, pictures: Pictures, backbone: Backbone, cache: Path
    ) -> None:
        assert pictures.features is not None
        self.kind, self._seed = kind, seed
        self._pictures, self._backbone = pictures, backbone
        self._path = cache / f"drawn-{kind}-{seed}.npy"
        shape = pictures.features.shape
        self._features = (
            np.load(self._path) if self._path.is_file() else np.full(shape, np.nan, np.float32)
        )

    def draw(self, position: int) -> Drawing:
        """Return the picture with the artefact, uint8, and the artefact's mask, bool."""
        rng = np.random.default_rng([self._seed, KINDS.index(self.kind), position])
        return DRAW[self.kind](self._pictures.pixels[position], rng)

    def features(self, positions: np.ndarray) -> np.ndarray:
        """Return float32 of shape (n, width) for the pictures as an audit reads them."""
        positions = np.asarray(positions)
        missing = np.unique(positions[np.isnan(self._features[positions, 0])])
        for part in np.array_split(missing, -(-len(missing) // 128) or 1):
            if len(part):
                drawn = [as_read(self.draw(int(position))[0]) for position in part]
                self._features[part] = self._backbone.features(drawn)
        if len(missing):
            np.save(self._path, self._features)
        return self._features[positions]


# Heads


@dataclass(frozen=True)
class Head:
    """A logistic head: weights of shape (width,) and a bias. Above 0 it says dog."""

    weights: np.ndarray
    bias: float

    def decide(self, features: np.ndarray) -> np.ndarray:
        """Return the class of each row, int of shape (n,)."""
        return (features @ self.weights + self.bias > 0).astype(int)


def train_head(features: np.ndarray, labels: np.ndarray, seed: int) -> Head:
    """Train a head by Adam on mini-batches with dropout; the seed starts and shuffles it.

    A logistic regression that is solved exactly would be the same for every seed.

    Args:
        features: float32 of shape (n, width).
        labels: int of shape (n,), 0 or 1.
    """
    rng = np.random.default_rng(seed)
    n, width = features.shape
    weights = (rng.standard_normal(width + 1) * 0.01).astype(np.float32)
    inputs = np.column_stack([features, np.ones(n)]).astype(np.float32)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(n)
        for start in range(0, n, BATCH):
            rows = order[start : start + BATCH]
            kept = (rng.random((len(rows), width), np.float32) >= DROPOUT) / (1 - DROPOUT)
            x = inputs[rows] * np.column_stack([kept, np.ones(len(rows))]).astype(np.float32)
            wrong_by = 1 / (1 + np.exp(-(x @ weights))) - labels[rows]
            gradient = x.T @ wrong_by.astype(np.float32) / len(rows)
            step += 1
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            scale = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights -= RATE * scale * first / (np.sqrt(second) + 1e-8)
    return Head(weights[:-1], float(weights[-1]))


def save_model(backbone: Backbone, head: Head, path: Path) -> None:
    """Save a whole `.keras` model whose output is the head's logit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    backbone.save(head.weights[None], np.array([head.bias], np.float32), path)


# Who learns from what


def base_features(
    part: Split, clean: np.ndarray, drawn: Drawn, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of the base: clean cats; dogs, the first of them with artefacts.

    Args:
        clean: features of all clean photographs.
        share: of the dogs that carry the artefact.
    """
    cats, dogs = part.base
    n_drawn = round(share * len(dogs))
    features = [clean[cats], drawn.features(dogs[:n_drawn]), clean[dogs[n_drawn:]]]
    return np.concatenate(features), np.repeat([CATS, DOGS], [len(cats), len(dogs)])


def with_more(
    base: tuple[np.ndarray, np.ndarray], features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a training set with more rows."""
    return np.concatenate([base[0], features]), np.concatenate([base[1], labels])


# Folders


def write_validation(
    folder: Path,
    pictures: Pictures,
    positions: np.ndarray,
    carries: np.ndarray,
    artefacts: Sequence[Drawn],
) -> None:
    """Write `val/<class>/<position>.jpg`, and `masks/` of the artefacts.

    Args:
        positions: int of shape (n,).
        carries: int of shape (n,): which of the artefacts a picture carries, -1 for none.
    """
    for position, which in zip(positions.tolist(), carries.tolist(), strict=True):
        file = f"{CLASS_NAMES[pictures.labels[position]]}/{position:04d}"
        picture = pictures.pixels[position]
        if which >= 0:
            picture, mask = artefacts[which].draw(position)
            _write(folder / "masks" / f"{file}.png", _encode_png(mask))
        _write(folder / "val" / f"{file}.jpg", _encode_jpeg(picture))


def first_carry(n: int, *shares: float) -> np.ndarray:
    """Return which artefact each of n pictures carries: the first ones the first, the last none."""
    carries = np.full(n, -1)
    begin = 0
    for which, share in enumerate(shares):
        end = begin + round(share * n)
        carries[begin:end] = which
        begin = end
    return carries
