"""The article's experiment: add what breaks a shortcut, train again; does the focus move?

    python benchmarks/supplement.py SOURCE CACHE [--kinds bars …] [--parts series …] [--quick]

SOURCE holds `cats_dogs` (photographs and the ImageNet backbone); CACHE is a folder outside the
project. Nine in ten of the dogs that a head learns from carry an artefact, bars or a toy bone, and
no cat does, so that cats with it are called dogs. Parts:

- series: the base with 0, 25, 50, 75 and 100 % of a supplement, cats with the artefact; each is
  audited, and each later run compared with the first.
- null: two heads that learnt the same base from other seeds, compared.
- resampled: the same, but each head learns a bootstrap sample of the base: they differ more.
- find: images that `gradcam-audit find` takes from a mixed pool for the first target, against as
  many at random, and as many that are like its other errors.
- augment: the pipeline of the first augment target, against none and one drawn at random.

Results are added to CACHE/supplement.jsonl as they come, and what is there is not done again;
`--parts` without a name prints the tables of what is there. Same seeds, same results on the same
machine. `--quick` takes a few images and seeds, in CACHE/quick, to see that everything runs: its
figures say nothing.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import supplement_tables as tables
from planted_sets import Backbone
from planted_settings import load_photographs
from supplement_loop import augment_arms, close_loop
from supplement_series import Bench, Record, Seed, audit_head, null_trial, series
from supplement_sets import KINDS, SHARES, Drawn, Plan, Split, split

from audit.results import Run

PARTS = ("series", "null", "resampled", "find", "augment")
TRIALS = 20
"""Of either null, for each kind."""
KEYS = ("part", "kind", "seed", "share", "trial", "arm", "n")
"""What tells records apart."""


class Results:
    """Records in a file of JSON lines; one that is there is not written again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.is_file() else ""
        self.records: list[Record] = [json.loads(line) for line in text.splitlines()]

    def of(self, part: str) -> list[Record]:
        """Return the records of a part, in a fixed order."""
        own = [one for one in self.records if one["part"] == part]
        order = {arm: i for i, arm in enumerate(("target", *tables.ARMS))}
        return sorted(
            own,
            key=lambda one: (
                KINDS.index(one.get("kind", KINDS[0])),
                one["seed"],
                one.get("share", 0),
                one.get("trial", 0),
                order.get(one.get("arm", ""), 0),
            ),
        )

    def count(self, **key: object) -> int:
        """Return how many records have these values."""
        return sum(key.items() <= {k: one.get(k) for k in KEYS}.items() for one in self.records)

    def add(self, record: Record) -> None:
        if self.count(**{key: record[key] for key in KEYS if key in record}):
            return
        self.records.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


class Experiment:
    """The parts of the experiment over kinds and seeds; what is done already is left out."""

    def __init__(
        self, bench: Bench, results: Results, cells: Sequence[tuple[str, int]], trials: int
    ) -> None:
        """Take what to do it with, for which kinds and seeds, and how often for either null."""
        self._bench, self._results, self._cells = bench, results, cells
        self._trials = trials
        self._seed, self._drawn = cache(self._make_seed), cache(self._make_drawn)

    def run(self, part: str) -> None:
        """Do one part, and tell of each record on stderr."""
        begin = time.perf_counter()
        for record in getattr(self, f"_{part}")():
            self._results.add({"part": part} | record)
            words = [f"{k} {record[k]}" for k in KEYS if k in record]
            took = time.perf_counter() - begin
            print(f"{part}: {', '.join(words)}, {took:.0f} s", file=sys.stderr, flush=True)

    def _series(self) -> Iterator[Record]:
        for kind, seed in self._cells:
            if self._results.count(part="series", kind=kind, seed=seed) < len(SHARES):
                yield from series(self._seed(kind, seed))

    def _null(self, part: str = "null") -> Iterator[Record]:
        for kind, seed, trial in share_out(self._cells, self._trials):
            if not self._results.count(part=part, kind=kind, seed=seed, trial=trial):
                yield null_trial(self._seed(kind, seed), trial, resample=part == "resampled")

    def _resampled(self) -> Iterator[Record]:
        yield from self._null("resampled")

    def _find(self) -> Iterator[Record]:
        for one, run in self._audited_bases("find"):
            other = KINDS[1 - KINDS.index(one.drawn.kind)]
            yield from list(close_loop(one, run, self._drawn(other, one.seed)))

    def _augment(self) -> Iterator[Record]:
        for one, run in self._audited_bases("augment"):
            yield from list(augment_arms(one, run))

    def _audited_bases(self, part: str) -> Iterator[tuple[Seed, Run]]:
        """Yield the bases that a part has not done, with the audits that begin the series.

        A part adds all records of a base at once, so that one that was stopped begins it again.
        """
        for kind, seed in self._cells:
            if not self._results.count(part=part, kind=kind, seed=seed):
                one = self._seed(kind, seed)
                yield one, audit_head(self._bench, one.head(0.0), one.folder, "0")

    def _make_seed(self, kind: str, seed: int) -> Seed:
        return Seed(self._bench, self._drawn(kind, seed), self._split(seed), seed)

    def _make_drawn(self, kind: str, seed: int) -> Drawn:
        bench = self._bench
        return Drawn(kind, seed, bench.pictures, bench.backbone, bench.cache)

    def _split(self, seed: int) -> Split:
        return split(self._bench.pictures.labels, self._bench.plan, seed)


def share_out(cells: Sequence[tuple[str, int]], n_trials: int) -> Iterator[tuple[str, int, int]]:
    """Yield n trials of each kind, as evenly as can be over its seeds: kind, seed, trial."""
    for kind in dict.fromkeys(kind for kind, _ in cells):
        seeds = [seed for own, seed in cells if own == kind]
        for number in range(n_trials):
            yield kind, seeds[number % len(seeds)], number // len(seeds)


def print_tables(results: Results) -> None:
    """Print a table for each part that has records."""
    if found := results.of("series"):
        print("\n".join([*tables.series_tables(found), *tables.agreement_table(found), ""]))
    for part, name in (("null", "other seed"), ("resampled", "base drawn again")):
        if found := results.of(part):
            print("\n".join([*tables.null_table(found, name), ""]))
    if found := results.of("find"):
        print("\n".join(tables.loop_tables(found)))
    if found := results.of("augment"):
        print("\n".join([*tables.augment_table(found), ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("cache", type=Path, help="a folder outside the project")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=TRIALS, help="of either null, of each kind")
    parser.add_argument("--quick", action="store_true", help="see that it runs; no figures")
    arguments = parser.parse_args()
    plan, place = Plan(), arguments.cache
    if arguments.quick:
        plan, place = plan.quick(), place / "quick"
        arguments.seeds, arguments.trials = arguments.seeds[:1], 1
        print("Quick: these figures only show that everything runs.\n")
    place.mkdir(parents=True, exist_ok=True)
    results = Results(place / "supplement.jsonl")
    if arguments.parts:
        weights = (
            arguments.source / "cats_dogs" / "models" / "mobilenet_v2_0.35_224_no_top.weights.h5"
        )
        backbone = Backbone(weights)
        pictures = load_photographs(arguments.source, arguments.cache, backbone)
        bench = Bench(pictures, backbone, place, plan)
        cells = [(kind, seed) for kind in arguments.kinds for seed in arguments.seeds]
        experiment = Experiment(bench, results, cells, arguments.trials)
        for part in arguments.parts:
            experiment.run(part)
    print_tables(results)


if __name__ == "__main__":
    main()
