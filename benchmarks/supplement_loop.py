"""Close the loop: do what a target says, train again, and see what it is worth.

In: an audited base. Out: records. "Collect more" is done with the pool's images that `find` puts
first, against as many drawn at random and as many that are like other errors; "augment" with the
target's own pipeline, against none and against one drawn at random.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from planted_settings import as_read
from supplement_series import Bench, Record, Seed, mean_share
from supplement_sets import CATS, Drawn, first_carry, train_head, with_more, write_validation

from audit.diagnose.recipes import write_recipe
from audit.results import Run
from audit.run_folder import RunFolder
from audit.schemas import records
from audit.search.query import Moments, direction

IN_POOL = (0.1, 0.1)
"""Shares of the pool's pictures of each class that carry the artefact, and one of another kind."""
ADDED = (25, 50, 100)
"""How many images of the pool are labelled and added."""
HEADS = 5
"""Heads whose answers are averaged, so that a gain is not a seed's luck."""
DRAWS = 20
"""Random draws from the pool, each with one head."""
COPIES = 2
"""Augmented copies of each picture of the base."""

_LAYER = re.compile(r"^ {8}(?:keras\.layers\.)?(\w+)\(", re.MULTILINE)

Training = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Exam:
    """Pictures that nobody has learnt from.

    Attributes:
        carriers: features of cats that carry the artefact, of shape (n, width).
        all: features of pictures as in the audited set, and their labels.
    """

    carriers: np.ndarray
    all: Training

    def right(self, training: Sequence[Training], seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Return for each picture the share of heads that are right, one head for each seed."""
        heads = [train_head(*t, seed) for t, seed in zip(training, seeds, strict=True)]
        features, labels = self.all
        return {
            "carriers": np.mean([head.decide(self.carriers) == CATS for head in heads], axis=0),
            "all": np.mean([head.decide(features) == labels for head in heads], axis=0),
        }


def gains(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> Record:
    """Return accuracy before, after, and the gain with its paired bootstrap interval over images.

    The interval is of the images judged on; the heads and what was added are taken as they are.
    """
    return {
        name: {
            "before": float(before[name].mean()),
            "after": float(after[name].mean()),
            "gain": asdict(mean_share((after[name] - before[name]).tolist())),
        }
        for name in before
    }


def make_exam(one: Seed) -> Exam:
    """Return the test photographs, half of either class with the artefact; and all cats with it."""
    tests = one.split.test
    half = np.tile(first_carry(tests.shape[1], 0.5), 2)
    mixed = mixed_features(one.bench, [one.drawn], tests.ravel(), half)
    return Exam(one.drawn.features(tests[CATS]), (mixed, one.bench.pictures.labels[tests.ravel()]))


# Collect


class Pool:
    """Pictures that nobody has labelled yet: most are clean, some carry an artefact."""

    def __init__(self, one: Seed, other: Drawn) -> None:
        """Write the pool if it is not there: `<position>.jpg`, all in one folder.

        Args:
            one: whose artefact and photographs these are.
            other: an artefact that the base knows nothing of.
        """
        spare = np.concatenate([one.split.supplement, one.split.more], axis=1)
        self.folder = one.folder / "pool"
        self.positions = spare.ravel()
        self.carries = np.tile(first_carry(spare.shape[1], *IN_POOL), 2)
        self.features = mixed_features(one.bench, [one.drawn, other], self.positions, self.carries)
        self.labels = one.bench.pictures.labels[self.positions]
        if self.folder.is_dir():
            return
        partial = one.folder / "pool-part"
        shutil.rmtree(partial, ignore_errors=True)
        pictures = one.bench.pictures
        write_validation(partial, pictures, self.positions, self.carries, [one.drawn, other])
        (partial / "flat").mkdir()
        for path in (partial / "val").glob("*/*.jpg"):
            path.rename(partial / "flat" / path.name)
        (partial / "flat").rename(self.folder)
        shutil.rmtree(partial)

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Return the rows of the pictures with these file names."""
        row = {f"{position:04d}.jpg": i for i, position in enumerate(self.positions.tolist())}
        return np.array([row[name] for name in names], int)


def mixed_features(
    bench: Bench, drawn: Sequence[Drawn], positions: np.ndarray, carries: np.ndarray
) -> np.ndarray:
    """Return features of pictures, `carries` says with which artefact, -1 for none."""
    features = bench.clean[positions]
    for which, artefact in enumerate(drawn):
        chosen = carries == which
        features[chosen] = artefact.features(positions[chosen])
    return features


def close_loop(one: Seed, run: Run, other: Drawn) -> Iterator[Record]:
    """Add what `find` puts first, as many at random, as many like other errors; yield the gains.

    Added images get the labels that people would give them. Those "of cats" are chosen in the same
    way among the cats alone, for the target asks for cats.
    """
    pool, exam = Pool(one, other), make_exam(one)
    seeds = [1000 * (one.seed + 1) + i for i in range(HEADS)]
    before = exam.right([one.base] * HEADS, seeds)
    target = run.targets[0]
    is_cat = pool.labels == CATS
    found = _find(one, run, target, pool)
    ranked = {"find": found, "find, cats": found[is_cat[found]]}
    others = _like_others(run, target, pool)
    if others is not None:
        ranked["other errors"] = others
    for n in ADDED:
        rng = np.random.default_rng([one.seed, n])
        added = {arm: [rows[:n]] * HEADS for arm, rows in ranked.items()}
        for arm, among in (("random", len(is_cat)), ("random, cats", np.flatnonzero(is_cat))):
            added[arm] = [rng.choice(among, n, replace=False) for _ in range(DRAWS)]
        for arm, chosen in added.items():
            training = [with_more(one.base, pool.features[c], pool.labels[c]) for c in chosen]
            after = exam.right(training, [seeds[i % HEADS] for i in range(len(chosen))])
            carries = [pool.carries[c] == 0 for c in chosen]
            yield {
                "kind": one.drawn.kind,
                "seed": one.seed,
                "arm": arm,
                "n": n,
                "n_added": len(chosen[0]),
                "target": target["title"],
                "n_carrying": float(np.mean([c.sum() for c in carries])),
                "n_breaking": float(
                    np.mean([(is_cat[c] & t).sum() for c, t in zip(chosen, carries, strict=True)])
                ),
                **gains(before, after),
            }


def _find(one: Seed, run: Run, target: dict[str, Any], pool: Pool) -> np.ndarray:
    """Return the rows of the pool as `find` ranks them, the first half."""
    from audit.search.find import find_images

    found = find_images(
        run.path,
        target["id"],
        pool.folder,
        top=len(pool.labels) // 2,
        out=one.folder / "found",
        model=one.folder / "0.keras",
        progress=False,
    )
    return pool.rows([Path(path).name for path in found.table["path"]])


def _like_others(run: Run, target: dict[str, Any], pool: Pool) -> np.ndarray | None:
    """Rank the pool by likeness to the errors that the target is not about, if there are any.

    As `find` compares whole images: by the cosine of their standardised embeddings.
    """
    manifest = pd.read_csv(run.path / target["manifest"])
    own = set(manifest.loc[manifest["role"] == "error", "path"])
    errors = run.errors[~run.errors["path"].isin(own)]["image_id"]
    if errors.empty:
        return None
    shards = pd.concat(RunFolder.open(run.path).iter_shards("embeddings"))
    embeddings = np.stack(shards["embedding"].tolist())
    moments = Moments()
    moments.add(embeddings)
    mean, deviation = moments.mean_and_deviation()
    chosen = shards["image_id"].isin(errors).to_numpy()
    sought = direction(embeddings[chosen], mean, deviation)
    return rank_by_cosine((pool.features - mean) / deviation, sought)


def rank_by_cosine(vectors: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """Return the rows of vectors, those that point most as `sought` does first."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    return np.argsort(-(vectors @ sought) / lengths, kind="stable")


# Augment


def augment_arms(one: Seed, run: Run) -> Iterator[Record]:
    """Train with the pipeline of the run's augment target, with none, and with a random one."""
    bench, drawn = one.bench, one.drawn
    target = next((t for t in run.targets if t["kind"] == "augment"), None)
    key: Record = {"kind": drawn.kind, "seed": one.seed}
    if target is None:
        yield key | {"arm": "target", "target": None}
        return
    exam = make_exam(one)
    seeds = [1000 * (one.seed + 1) + i for i in range(HEADS)]
    pictures = _base_pictures(one)
    plain = _copies(one.base, [one.base[0]] * COPIES)
    before = exam.right([plain] * HEADS, seeds)
    recipes = {
        "target": target["recipe"],
        "random": random_recipe(target["recipe"], run.probes, one.seed),
    }
    for arm, recipe in recipes.items():
        copies = _augmented(bench, recipe, pictures, one.seed)
        after = exam.right([_copies(one.base, copies)] * HEADS, seeds)
        yield key | {
            "arm": arm,
            "target": target["title"],
            "layers": layers_of(recipe),
            **gains(before, after),
        }


def random_recipe(recipe: str, probes: pd.DataFrame, seed: int) -> str:
    """Write a pipeline of as many layers as another has, drawn from all that probes can try.

    Layers of the other are not drawn; the strength of each is drawn from the three.
    """
    rng = np.random.default_rng([seed, 1])
    taken = layers_of(recipe)
    offered = {
        (row["transformation"], int(row["strength"])): row
        for row in records(probes)
        if (layers := layers_of(write_recipe([row], probes, ""))) and not set(layers) & set(taken)
    }
    names = sorted({name for name, _ in offered})
    chosen = rng.choice(names, min(len(taken), len(names)), replace=False)
    drawn = [offered[str(name), int(rng.integers(1, 4))] for name in chosen]
    return write_recipe(drawn, probes, "Drawn at random.")


def layers_of(recipe: str) -> list[str]:
    """Return the names of the layers of a recipe, but for those that only change the range."""
    names = _LAYER.findall(recipe.partition("augment = keras.Sequential(")[2])
    return [name for name in names if name != "Rescaling"]


def _base_pictures(one: Seed) -> list[np.ndarray]:
    """Return the pictures of the base as they are read, in the order of its features."""
    pixels = one.bench.pictures.pixels
    cats, dogs = one.split.base
    n_drawn = round(one.bench.plan.shortcut * len(dogs))
    pictures = [
        *(pixels[p] for p in cats),
        *(one.drawn.draw(int(p))[0] for p in dogs[:n_drawn]),
        *(pixels[p] for p in dogs[n_drawn:]),
    ]
    return [as_read(picture) for picture in pictures]


def _augmented(
    bench: Bench, recipe: str, pictures: Sequence[np.ndarray], seed: int
) -> list[np.ndarray]:
    """Return the features of `COPIES` augmented copies of all pictures."""
    import keras

    keras.utils.set_random_seed(seed)
    names: dict[str, Any] = {}
    exec(recipe, names)  # The text that the tool gives people to paste into their training.
    augment = names["augment"]
    copies = []
    for _ in range(COPIES):
        batches = [
            np.asarray(augment(np.stack(pictures[i : i + 32]).astype(np.float32), training=True))
            for i in range(0, len(pictures), 32)
        ]
        copies.append(bench.backbone.features(np.concatenate(batches)))
    return copies


def _copies(base: Training, copies: Sequence[np.ndarray]) -> Training:
    for features in copies:
        base = with_more(base, features, base[1][: len(features)])
    return base
