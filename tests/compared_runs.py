"""Runs with pictures and maps, for tests of the report of a comparison.

Forty cats, then thirty dogs. In the first run twelve barred cats look to the left and are called
dogs, and one cat without bars. In later runs fewer of the barred ones are, and two dogs go wrong.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare_fixture import SIDE, binary_scores, condition, write_run

from audit.compare.comparison import Comparison, compare_runs

N_CATS, N_DOGS, N_BARRED = 40, 30, 12
N = N_CATS + N_DOGS
HOSTILE_NAMES = ("<b>cats</b>", '"dogs" & \u202ethe rest')
HOSTILE_LABELS = ("</script><script>alert(1)</script>", "after\u202e & <i>")
HOSTILE_PATHS = ['<img src=x onerror="alert(1)">.png', "../../etc/passwd", "a'b\n.png"]


def left() -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[:, :2] = 255
    return cam


def middle() -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[2:6, 3:6] = 255
    cam[3, 4] = 128
    return cam


def write_first(path: Path, **changes) -> Path:
    """Write the run before: 12 barred cats and cat 20 are called dogs, dog 50 a cat."""
    p_dogs = [0.8] * N_BARRED + [0.2] * (N_CATS - N_BARRED) + [0.9] * N_DOGS
    p_dogs[20], p_dogs[50] = 0.7, 0.4
    barred = list(range(N_BARRED))
    wrong = [*barred, 20, 50]
    return write_run(
        path,
        _y_true(),
        binary_scores(p_dogs),
        metadata={"bars": ["yes"] * N_BARRED + ["no"] * (N - N_BARRED)},
        patterns={1: barred},
        maps={(image, 1): left() for image in [*barred, 20]}
        | {(image, 0): middle() for image in [*barred, 50]}
        | {(30, 0): middle()},
        repaired=dict.fromkeys(barred, True),
        slices=[
            {
                "name": "bars: yes",
                "kind": "metadata",
                "conditions": [condition("metadata.bars", value="yes")],
                "confirmed": True,
            }
        ],
        pictures=[*wrong, 30],
        **changes,
    )


def write_later(path: Path, n_left: int = 1, **changes) -> Path:
    """Write a run after, with `n_left` barred cats called dogs; dogs 60 and 61 are called cats."""
    p_dogs = [0.6] * n_left + [0.1] * (N_CATS - n_left) + [0.95] * N_DOGS
    p_dogs[50], p_dogs[60], p_dogs[61] = 0.45, 0.3, 0.2
    return write_run(
        path,
        _y_true(),
        binary_scores(p_dogs),
        metadata={"bars": ["yes"] * N_BARRED + ["no"] * (N - N_BARRED)},
        patterns={1: [60, 61]},
        maps={(image, 1): middle() for image in range(6)}
        | {(image, 0): middle() for image in (50, 60, 61)}
        | {(31, 0): left()},
        repaired={0: False},
        pictures=[*range(6), 31, 50, 60, 61],
        **changes,
    )


def write_pair(folder: Path, **changes) -> tuple[Path, Path]:
    """Write a run before and one after."""
    return write_first(folder / "before", **changes), write_later(folder / "after", **changes)


def compared_pair(folder: Path, labels: Sequence[str] | None = None, **changes) -> Comparison:
    return compare_runs(write_pair(folder, **changes), labels)


def compared_series(folder: Path) -> Comparison:
    """Compare a run with three later ones, with 8, 4 and 1 of the barred cats still wrong."""
    later = [write_later(folder / f"r{n}", n) for n in (8, 4, 1)]
    return compare_runs([write_first(folder / "r0"), *later], ["0 %", "25 %", "50 %", "100 %"])


def hostile_pair(folder: Path) -> Comparison:
    """Compare runs whose names of classes, runs and files try to break out of the page."""
    paths = [*HOSTILE_PATHS, *(f"{n:04d}.png" for n in range(3, N))]
    return compared_pair(folder, HOSTILE_LABELS, class_names=HOSTILE_NAMES, paths=paths)


def long_names(folder: Path) -> Comparison:
    """Compare a series whose names are long, and mostly without a place to break."""
    changes = {
        "class_names": ("c" * 300, "d é漢字" * 60),
        "paths": [f"{'deep/' * 40}{n}{'x' * 100}.png" for n in range(N)],
    }
    later = [write_later(folder / f"r{n}", n, **changes) for n in (9, 5, 1)]
    labels = ["L" * 200, "0" + "run " * 50, "1" + "run " * 50, "Z" * 120]
    return compare_runs([write_first(folder / "r0", **changes), *later], labels)


def many_classes(folder: Path, n_classes: int = 1000) -> Comparison:
    """Compare two runs of a model with many classes, two images of each."""
    rng = np.random.default_rng(3)
    y_true = np.repeat(np.arange(n_classes), 2)
    runs = []
    for name in ("a", "b"):
        y_pred = np.where(rng.random(len(y_true)) < 0.05, rng.permutation(y_true), y_true)
        scores = np.full((len(y_true), n_classes), 0.1 / n_classes, np.float32)
        scores[np.arange(len(y_true)), y_pred] = 0.9
        names = [f"class {n} of many" for n in range(n_classes)]
        runs.append(write_run(folder / name, y_true, scores, class_names=names))
    return compare_runs(runs)


def _y_true() -> list[int]:
    return [0] * N_CATS + [1] * N_DOGS
