"""Audit heads, hold what each looks at against the truth, and what the tool says of the change.

In: a base with a shortcut and a supplement that breaks it. Out: plain records, one for each audit
and each comparison.
"""

import gc
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from planted_settings import Pictures, as_read
from supplement_sets import (
    CATS,
    DOGS,
    SHARES,
    Backbone,
    Drawn,
    Head,
    Plan,
    Split,
    base_features,
    first_carry,
    save_model,
    train_head,
    with_more,
    write_validation,
)

import audit
from audit.compare.comparison import Comparison, Step, compare_runs
from audit.compare.focus_shift import share_inside
from audit.compare.paired import ALPHA, Change, mcnemar_p, net_change
from audit.compare.patterns_change import GONE, LEFT_OF_GONE, NEW, SMALLER, UNCHANGED, PatternChange
from audit.explain.painting import AREAS, FOCUS
from audit.predict.intervals import (
    RESAMPLES,
    number_or_none,
    percentile_interval,
    resampled_means,
    wilson_estimate,
)
from audit.results import Run
from audit.run_folder import RunFolder

OPTIONS: dict[str, Any] = {"keep_maps": "fused", "progress": False}
"""How every run is audited: as it is by default, without storing the maps of single layers."""
MOSTLY = 0.5
"""A pattern is about the artefact if more than this share of its errors carry it."""
ON_THE_BRINK = 1
"""Answers that may differ between an audit and features computed before: logits next to 0."""
GROWN = np.ones((5, 5), np.uint8)
"""What a mask is grown by before what it covers is painted out: JPEG smears the edge."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all parts of the experiment share: photographs, network, places, sizes."""

    pictures: Pictures
    backbone: Backbone
    cache: Path
    plan: Plan

    @property
    def clean(self) -> np.ndarray:
        """Features of the clean photographs, float32 of shape (n, width)."""
        assert self.pictures.features is not None
        return self.pictures.features


def audit_head(bench: Bench, head: Head, folder: Path, name: str) -> Run:
    """Audit a head on the folder's pictures; a run that is finished is read, not made again."""
    import keras

    model, out = folder / f"{name}.keras", folder / f"run-{name}"
    if not model.is_file():  # A run goes on only with the model that it began with.
        shutil.rmtree(out, ignore_errors=True)
        save_model(bench.backbone, head, model)
    run = audit.run(model, folder / "val", out, **OPTIONS)
    keras.backend.clear_session()
    gc.collect()
    return run


# The truth


class Carriers:
    """The audited cats with the artefact: what is known of them without asking the tool."""

    def __init__(self, bench: Bench, drawn: Drawn, split: Split, folder: Path) -> None:
        self.drawn = drawn
        self.positions = split.val[CATS][: bench.plan.n_val // 2]
        self.folder = folder
        self.n_maps = bench.plan.n_maps
        pictures, masks = zip(*(drawn.draw(int(p)) for p in self.positions), strict=True)
        self.masks: tuple[np.ndarray, ...] = masks
        self.features = drawn.features(self.positions)
        self.painted = _painted_features(bench, pictures, masks, folder / "painted.npy")

    @property
    def paths(self) -> list[str]:
        return [f"cats/{position:04d}.jpg" for position in self.positions]


def _painted_features(
    bench: Bench, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], path: Path
) -> np.ndarray:
    """Return features of the pictures without what the masks cover (Telea), kept in a file."""
    if not path.is_file():
        painted = [
            cv2.inpaint(as_read(p), cv2.dilate(m.astype(np.uint8), GROWN), 3, cv2.INPAINT_TELEA)
            for p, m in zip(pictures, masks, strict=True)
        ]
        np.save(path, bench.backbone.features(painted))
    return np.load(path)


def measure(run: Run, head: Head, carriers: Carriers) -> Record:
    """Hold a run against the truth: the cats with the artefact, their maps, their painting out.

    Returns:
        `right`: of the cats with the artefact; `wrong`: whether each of them is wrong;
        `clean_right`: of all other images; `focus_dogs`, `focus_cats`: of each map, the share that
        lies on the artefact, `None` for a map that shows nothing; `repaired`: of the errors among
        these cats, those that turn right without what the tool says they look at;
        `mask_repaired`: the same without the artefact itself.
    """
    predictions = run.predictions.set_index("path")
    is_right = predictions["y_true"] == predictions["y_pred"]
    wrong = ~is_right.loc[carriers.paths].to_numpy()
    if np.count_nonzero(wrong != (head.decide(carriers.features) == DOGS)) > ON_THE_BRINK:
        raise SystemExit(f"{run.path} was made from other pictures. Remove its folder.")
    others = is_right.drop(carriers.paths)
    answers = _without_focus(run).reindex(predictions["image_id"].loc[carriers.paths])
    tested = answers.to_numpy(np.float64)[wrong]
    tested = tested[~np.isnan(tested)]
    without = head.decide(carriers.painted) == CATS
    dogs, cats = zip(*_focus_shares(run, carriers), strict=True)
    return {
        "right": wilson_estimate(int((~wrong).sum()), len(wrong)),
        "wrong": wrong.astype(int).tolist(),
        "clean_right": wilson_estimate(int(others.sum()), len(others)),
        "n_errors": int((~is_right).sum()),
        "focus_dogs": list(dogs),
        "focus_cats": list(cats),
        "area": float(np.mean([mask.mean() for mask in carriers.masks[: carriers.n_maps]])),
        "repaired": _share(int(tested.sum()), len(tested)),
        "mask_repaired": _share(int(without[wrong].sum()), int(wrong.sum())),
    }


def _share(n: int, of: int) -> Record:
    return {"n": n, "of": of} | (wilson_estimate(n, of) if of else {})


def _without_focus(run: Run) -> "Any":
    """Return by image_id whether an error is right without its focus, at the largest area."""
    folder = RunFolder.open(run.path)
    y_true = run.predictions.set_index("image_id")["y_true"]
    found = {}
    for shard in folder.iter_shards("causes", ["image_id", "treatment", "area", "y_pred"]):
        rows = shard[(shard["treatment"] == FOCUS) & np.isclose(shard["area"], AREAS[-1])]
        found |= dict(zip(rows["image_id"], rows["y_pred"], strict=True))
    return y_true.index.to_series().map(found).eq(y_true).where(y_true.index.isin(list(found)))


def _focus_shares(run: Run, carriers: Carriers) -> Iterator[tuple[float | None, float | None]]:
    """Yield for each cat how much of its maps for dog, and for cat, lies on the artefact."""
    model = carriers.folder / f"{run.path.name.removeprefix('run-')}.keras"
    paths = carriers.paths[: carriers.n_maps]
    maps = fused_maps(run, model, carriers.folder / "val", paths, (DOGS, CATS))
    for pair, mask in zip(maps, carriers.masks, strict=False):  # Not all have maps.
        dogs, cats = (None if cam is None else share_inside(cam, mask) for cam in pair)
        yield dogs, cats


def fused_maps(
    run: Run, model: Path, data: Path, paths: Sequence[str], classes: tuple[int, int]
) -> list[tuple[np.ndarray | None, ...]]:
    """Make the maps of images as a run made them, for whichever images and classes.

    Args:
        paths: as the run has them.
        classes: what each image is explained for.

    Returns:
        For each image and class a map, uint8 of shape (height, width), or `None` where nothing
        speaks for the class.
    """
    from audit.config import AuditConfig
    from audit.explain.consensus import Consensus
    from audit.inputs import Inputs

    inputs = Inputs(model, data, AuditConfig(keep_maps="fused"))
    consensus = Consensus.from_frame(RunFolder.open(run.path).read_table("consensus"))
    explainer = inputs.make_explainer(consensus)
    ids = run.predictions.set_index("path")["image_id"].loc[list(paths)].tolist()
    found: dict[int, tuple[np.ndarray | None, ...]] = {}
    for batch, pixels in inputs.source.batches(ids, 16):
        fused = explainer.explain(pixels, np.tile(classes, (len(batch), 1))).groups[-1]
        for row, image_id in enumerate(batch.tolist()):
            cams, peaks = fused.cams[row, :, :, 0], fused.peaks[row, 0]
            found[image_id] = tuple(
                cams[:, :, k] if peaks[k] > 0 and cams[:, :, k].any() else None for k in (0, 1)
            )
    return [found[image_id] for image_id in ids]


def mean_share(values: Sequence[float | None], seed: int = 0) -> Change:
    """Return a mean with its bootstrap interval over images; `None` is left out."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return Change(None, None, None)
    resampled = resampled_means(known[:, None], RESAMPLES, np.random.default_rng(seed))[:, 0]
    low, high = (number_or_none(float(bound)) for bound in percentile_interval(resampled))
    return Change(float(known.mean()), low, high)


def mean_difference(
    before: Sequence[float | None], after: Sequence[float | None], seed: int = 0
) -> Change:
    """Return the mean of after − before over the images that have both, with its interval."""
    pairs = zip(before, after, strict=True)
    return mean_share([b - a for a, b in pairs if None not in (a, b)], seed)


def true_verdict(before: Sequence[int], after: Sequence[int]) -> tuple[str, Change]:
    """Say what became of the errors with the artefact, by the rule that the tool has for patterns.

    Args:
        before, after: 1 for each image with the artefact that is wrong.

    Returns:
        "gone", "smaller" or "unchanged", and the share of the errors before that were fixed less
        that of images that broke.
    """
    was, now = np.asarray(before, bool), np.asarray(after, bool)
    n_fixed, n_broken = int((was & ~now).sum()), int((~was & now).sum())
    change = net_change(n_fixed, n_broken, int(was.sum()))
    if mcnemar_p(n_fixed, n_broken) >= ALPHA or n_fixed <= n_broken:
        return UNCHANGED, change
    return (GONE if now.sum() <= LEFT_OF_GONE * was.sum() else SMALLER), change


# What the tool says


def describe_patterns(comparison: Comparison, step: Step, carriers: frozenset[str]) -> list[Record]:
    """Return what a comparison says of each pattern, and how many of its errors are `carriers`."""
    places = {place.pattern: place for place in step.focus.places}
    return [
        _describe(comparison, pattern, carriers)
        | (
            {"place": asdict(places[pattern.number])}
            if not pattern.is_later and pattern.number in places
            else {}
        )
        for pattern in step.patterns
    ]


def _describe(comparison: Comparison, pattern: PatternChange, carriers: frozenset[str]) -> Record:
    errors = np.concatenate([pattern.right, pattern.same_way])
    carrying = [path in carriers for path in comparison.images.paths[errors]]
    return {
        "number": pattern.number,
        "name": pattern.name,
        "is_later": pattern.is_later,
        "verdict": pattern.verdict,
        "found_verdict": pattern.found_verdict,
        "n_errors": pattern.n_matched,
        "n_left": pattern.n_same_way,
        "change": asdict(pattern.change),
        "q_value": pattern.q_value,
        "causal_before": asdict(pattern.causal_before),
        "causal_after": asdict(pattern.causal_after),
        "carrying": float(np.mean(carrying)) if carrying else 0.0,
    }


def about_artefact(patterns: Sequence[Record]) -> Record | None:
    """Return the largest earlier pattern most of whose errors carry the artefact, if any does."""
    own = [p for p in patterns if not p["is_later"] and p["carrying"] > MOSTLY]
    return max(own, key=lambda p: p["n_errors"], default=None)


def is_recovered(pattern: Record | None) -> bool:
    """Say whether the tool reports a fix: gone or smaller, with an interval above no change."""
    if pattern is None or pattern["verdict"] not in (GONE, SMALLER):
        return False
    low = pattern["change"]["low"]
    return low is not None and low > 0


def claims(patterns: Sequence[Record]) -> list[Record]:
    """Return the patterns that are said to be fixed or new."""
    return [p for p in patterns if p["verdict"] in (GONE, SMALLER, NEW)]


# The parts


class Seed:
    """One kind and one seed: who learns, who is audited, and where."""

    def __init__(self, bench: Bench, drawn: Drawn, split: Split, seed: int) -> None:
        plan = bench.plan
        self.bench, self.drawn, self.split, self.seed = bench, drawn, split, seed
        self.folder = bench.cache / f"{drawn.kind}-{seed}"
        if not (self.folder / "val").is_dir():
            carries = np.tile(first_carry(plan.n_val, 0.5), 2)
            write_validation(self.folder, bench.pictures, split.val.ravel(), carries, [drawn])
        self.base = base_features(split, bench.clean, drawn, plan.shortcut)
        self.carriers = Carriers(bench, drawn, split, self.folder)

    def head(self, share: float, head_seed: int | None = None) -> Head:
        """Train on the base and a share of the supplement."""
        cats = self.split.supplement[CATS][: round(share * self.bench.plan.n_supplement)]
        training = with_more(self.base, self.drawn.features(cats), np.full(len(cats), CATS))
        return train_head(*training, self.seed if head_seed is None else head_seed)

    def carrying_paths(self) -> frozenset[str]:
        """Return the paths of all audited images with the artefact, of both classes."""
        half = self.bench.plan.n_val // 2
        cats, dogs = self.split.val[:, :half]
        return frozenset(
            [*(f"cats/{p:04d}.jpg" for p in cats), *(f"dogs/{p:04d}.jpg" for p in dogs)]
        )


def series(one: Seed) -> Iterator[Record]:
    """Audit the base with each share of the supplement, compare the series; yield the records."""
    runs, measured = [], []
    for share in SHARES:
        head = one.head(share)
        runs.append(audit_head(one.bench, head, one.folder, f"{100 * share:.0f}"))
        measured.append(measure(runs[-1], head, one.carriers))
    targets = [{"kind": t["kind"], "title": t["title"]} for t in runs[0].targets]
    labels = [f"{100 * share:.0f}%" for share in SHARES]
    compared = compare_runs([run.path for run in runs], labels)
    told = [
        {"targets": targets},
        *(_told(one, compared, step, measured) for step in compared.steps),
    ]
    for share, record, said in zip(SHARES, measured, told, strict=True):
        yield {"kind": one.drawn.kind, "seed": one.seed, "share": share} | record | said


def _told(one: Seed, compared: Comparison, step: Step, measured: Sequence[Record]) -> Record:
    """Return what the tool says of a step, and what is true."""
    verdict, change = true_verdict(measured[0]["wrong"], measured[step.position]["wrong"])
    return {
        "patterns": describe_patterns(compared, step, one.carrying_paths()),
        "n_fixed": len(step.outcomes.fixed),
        "n_broken": len(step.outcomes.broken),
        "accuracy_p": step.outcomes.p_value,
        "truth": {"verdict": verdict, "change": asdict(change)},
    }


def null_trial(one: Seed, trial: int, *, resample: bool) -> Record:
    """Compare two heads that learnt the same data from other seeds.

    Trial t sets head t against head t + 1, so that neighbouring trials share a run. Head 0 is the
    base of the series.

    Args:
        resample: each head learns a bootstrap sample of the base instead: models differ more.
    """
    runs = []
    for number in (trial, trial + 1):
        name, head_seed, training = f"other-{number}", 1000 * (one.seed + 1) + number, one.base
        if resample:
            rng = np.random.default_rng(head_seed)
            rows = rng.integers(0, len(training[1]), len(training[1]))
            name, training = f"resampled-{number}", (training[0][rows], training[1][rows])
        elif number == 0:
            name, head_seed = "0", one.seed
        runs.append(audit_head(one.bench, train_head(*training, head_seed), one.folder, name).path)
    compared = compare_runs(runs, ["one", "other"])
    step = compared.steps[0]
    patterns = describe_patterns(compared, step, one.carrying_paths())
    changed = int((compared.images.y_pred[0] != compared.images.y_pred[1]).sum())
    return {
        "kind": one.drawn.kind,
        "seed": one.seed,
        "trial": trial,
        "n_changed": changed,
        "n_images": compared.n_images,
        "patterns": patterns,
        "claims": claims(patterns),
    }
