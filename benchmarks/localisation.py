"""Do the heat-maps show what fooled the model? Sets with known pixels, against simple maps.

    python benchmarks/localisation.py FOLDER … [--images 60] [--curve-images 12] [--quick]

Each FOLDER is `planted_bars` or a set that `planted_sets.py` wrote. Judged are the pictures that
are wrong because of the artefact, explaining the class that the model chose; where the masks are
boxes (`neu_det`), all pictures, explaining their true class. Printed as Markdown: pixel average
precision, energy inside the mask ÷ its share of the area, pointing game, the mean probability of
the explained class while the hottest pixels are painted out (deletion, lower is better) and while
only they are shown (insertion, higher is better), all with 95 % bootstrap intervals over images;
and what a map costs against the plain pass over all layers, measured in turn in this run; for the
consensus that leaves out what is learnt once for each audit, from at most 96 images.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast, get_args

import numpy as np
import pandas as pd

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import map_scores
import tensorflow as tf
from planted_sets import HELD_OUT, PlantedSet, load_planted_set

from audit.config import Fusion, Method
from audit.explain.consensus import Consensus, learn_consensus, sample_for_consensus
from audit.explain.fusion import FUSIONS
from audit.explain.maps import Explainer
from audit.explain.occlusion import OCCLUSION, OcclusionExplainer
from audit.explain.sample import Sampler
from audit.predict.model import AuditedModel, load_model

BATCH = 16
STEPS = 10
"""Steps of deletion and of insertion."""
NOISE_SIDE = 14
ROUNDS = 5
"""Times that the cost of each map is measured."""
REFERENCE = "Grad-CAM, last layer"
PLAIN = ("gradcam", "mean")
"""Method and fusion of the pass over all layers that is the unit of cost."""
DEFAULT = ("gradcam", "consensus")
"""What the product does unless asked for something else."""
METRICS = ("ap", "energy", "pointing", "insertion", "deletion")

Scores = dict[str, dict[str, np.ndarray]]
"""For each kind of map and each metric, one value per image."""


class MapMaker(Protocol):
    """What is judged."""

    name: str

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return float32 of shape (n, h, w), larger where a map says "here"; any size, any scale.

        Args:
            pixels: float32 of shape (n, height, width, 3), 0 to 255.
            classes: int of shape (n,), the class to explain.
        """


class RandomMap:
    """Noise on a grid of 14 × 14, drawn anew for each call.

    Single pixels would be no fair rival: painted out at random, they are all restored.
    """

    name = "random"

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return self._rng.random((len(pixels), NOISE_SIDE, NOISE_SIDE), np.float32)


class CentreMap:
    """A Gaussian at the centre with σ = a quarter of the side."""

    name = "centre"

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        n, height, width, _ = pixels.shape
        rows, columns = (np.linspace(-2, 2, side, dtype=np.float32) for side in (height, width))
        centre = np.exp(-(rows[:, None] ** 2 + columns**2) / 2)
        return np.broadcast_to(centre, (n, height, width))


class LastLayer:
    """Grad-CAM of the last spatial layer, as most tools show it."""

    name = REFERENCE

    def __init__(self, model: AuditedModel) -> None:
        explainer = Explainer(model, method="gradcam")
        signature = (
            tf.TensorSpec((None, *model.input_size, model.channels), tf.float32),
            tf.TensorSpec((None, 1), tf.int32),
        )

        @tf.function(input_signature=signature, autograph=False, jit_compile=False)
        def last(pixels: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
            _, _, signed = explainer.signed_maps(pixels, classes)
            return tf.nn.relu(signed[-1][..., 0])

        self._last = last

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return self._last(tf.constant(pixels), tf.constant(classes[:, None], tf.int32)).numpy()


class Shipped:
    """The product's one map of an image, as it is stored."""

    def __init__(self, name: str, explainer: Explainer | OcclusionExplainer) -> None:
        self.name = name
        self._explainer = explainer

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        pairs = np.stack([classes, classes], axis=1)
        explained = self._explainer.explain(tf.constant(pixels), pairs)
        return explained.groups[-1].cams[..., 0, 0].astype(np.float32)


def shipped_pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return each chosen method with each fusion it can have, and the pair that costs count in.

    The article's fusion shifts every map, so it goes with the article's method alone, the consensus
    with Grad-CAM; occlusion has one map and no fusion.
    """
    pairs = []
    for method in get_args(Method):
        fusions = [name for name in FUSIONS if name != "article" or method == "article"]
        pairs += [(method, name) for name in ([""] if method == OCCLUSION else fusions)]
    return [DEFAULT, *(pair for pair in pairs if pair[0] in methods or pair == PLAIN)]


def shipped_name(method: str, fusion: str) -> str:
    """Return how a row is called; the product's default is in bold."""
    name = f"{method}, {fusion}" if fusion else method
    return f"**{name}** (default)" if (method, fusion) == DEFAULT else name


def learn(model: AuditedModel, planted: PlantedSet, seed: int) -> Consensus:
    """Learn what the maps of a set agree on, from the images an audit of it would learn from."""
    predictions = pd.DataFrame(
        {"image_id": range(len(planted.y_true)), "y_true": planted.y_true, "y_pred": planted.y_pred}
    )
    sample = sample_for_consensus(predictions, seed)
    ids, classes = sample["image_id"].to_numpy(), sample[["y_pred", "y_true"]].to_numpy()
    is_error = sample["is_error"].to_numpy()
    sampler = Sampler(model)
    parts = [slice(first, first + BATCH) for first in range(0, len(ids), BATCH)]
    found = sampler.statistics((planted.pixels[ids[p]], classes[p], is_error[p]) for p in parts)
    kept = [layer for layer in sampler.layers if layer.kept]
    return learn_consensus(kept, found, is_binary=model.has_one_output)


def make_maps(
    model: AuditedModel, planted: PlantedSet, methods: Sequence[str], seed: int
) -> list[MapMaker]:
    """Return everything to compare: simple maps, then those the product ships."""
    shipped = []
    for method, fusion in shipped_pairs(methods):
        if method == OCCLUSION:
            explainer: Explainer | OcclusionExplainer = OcclusionExplainer(model)
        elif (method, fusion) == DEFAULT:
            explainer = Explainer(model, consensus=learn(model, planted, seed))
        else:
            explainer = Explainer(model, method=cast(Method, method), fusion=cast(Fusion, fusion))
        shipped.append(Shipped(shipped_name(method, fusion), explainer))
    return [RandomMap(seed), CentreMap(), LastLayer(model), *shipped]


def judge(
    maker: MapMaker,
    planted: PlantedSet,
    chosen: np.ndarray,
    classes: np.ndarray,
    curve_images: int,
    probability: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Return each metric's value for each chosen picture (deletion, insertion: for the first few).

    Args:
        chosen: positions in the set; classes: what to explain of each, same shape.
        probability: of given classes on given pictures.
    """
    heats = np.concatenate(
        [
            maker.maps(planted.pixels[chosen[i : i + BATCH]], classes[i : i + BATCH])
            for i in range(0, len(chosen), BATCH)
        ]
    )
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for index, heat in enumerate(heats):
        picture, mask = planted.pixels[chosen[index]], planted.masks[chosen[index]]
        large = map_scores.enlarge(heat, len(mask))
        values["ap"].append(map_scores.pixel_ap(large, mask))
        values["energy"].append(map_scores.energy_ratio(large, mask))
        values["pointing"].append(map_scores.pointing(large, mask))
        if index < curve_images:
            asked = np.full(STEPS, classes[index])
            for metric, series in (
                ("deletion", map_scores.deletion_series),
                ("insertion", map_scores.insertion_series),
            ):
                values[metric].append(probability(series(picture, heat, STEPS), asked).mean())
    return {metric: np.array(numbers) for metric, numbers in values.items()}


def judge_all(
    planted: PlantedSet,
    makers: Sequence[MapMaker],
    model: AuditedModel,
    chosen: Sequence[int],
    curve_images: int,
) -> Scores:
    """Judge every kind of map on the same pictures of a set.

    Args:
        chosen: positions in `planted.asked`.
    """
    scores_of = tf.function(lambda pixels: model.call(pixels).scores, autograph=False)

    def probability(pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return scores_of(tf.constant(pictures)).numpy()[np.arange(len(classes)), classes]

    positions, classes = planted.asked[chosen], planted.asked_class[chosen]
    return {
        maker.name: judge(maker, planted, positions, classes, curve_images, probability)
        for maker in makers
    }


def measure_costs(
    makers: Sequence[MapMaker],
    unit: str,
    pixels: np.ndarray,
    classes: np.ndarray,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return each kind's seconds ÷ those of the kind called `unit`, the median over rounds.

    All kinds take a turn in each round, so that a change in the machine's speed hits them alike.
    """
    for maker in makers:
        maker.maps(pixels, classes)  # The first call traces.
    rounds = []
    for _ in range(ROUNDS):
        seconds = {}
        for maker in makers:
            begin = clock()
            maker.maps(pixels, classes)
            seconds[maker.name] = clock() - begin
        rounds.append({name: own / seconds[unit] for name, own in seconds.items()})
    return {name: statistics.median(ratios[name] for ratios in rounds) for name in rounds[0]}


def ap_table(judged: dict[str, Scores], seed: int) -> list[str]:
    """Return a Markdown table of pixel average precision: a row per kind of map, a column per set.

    Args:
        judged: by name of the set.
    """
    rows = [["pixel AP", *judged]]
    for kind in next(iter(judged.values())):
        cells = [
            map_scores.bootstrap_mean([scores[kind]["ap"]], seed) for scores in judged.values()
        ]
        rows.append([kind, *(_cell(cell) for cell in cells)])
    return _markdown(rows)


def metrics_table(sets: Sequence[Scores], costs: dict[str, float], seed: int) -> list[str]:
    """Return a Markdown table of all metrics, each the mean over sets of the mean over images."""
    rows = [["map", "pixel AP", "÷ last layer", *METRICS[1:], "cost"]]
    for kind in sets[0]:
        values = {metric: [scores[kind][metric] for scores in sets] for metric in METRICS}
        reference = [scores[REFERENCE]["ap"] for scores in sets]
        ratio = map_scores.bootstrap_ratio(values["ap"], reference, seed)
        means = [map_scores.bootstrap_mean(values[metric], seed) for metric in METRICS]
        cells = [_cell(means[0]), _cell(ratio, 2), _cell(means[1], 2), *map(_cell, means[2:])]
        rows.append([kind, *cells, f"{costs[kind]:.2f}"])
    return _markdown(rows)


def _cell(interval: map_scores.Interval, digits: int = 3) -> str:
    low, high = (f"{end:.{digits}f}" for end in (interval.low, interval.high))
    return f"{interval.mean:.{digits}f} ({low}–{high})"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--images", type=int, default=60, help="at most so many of each set")
    parser.add_argument(
        "--curve-images", type=int, default=12, help="of these, so many for deletion and insertion"
    )
    methods = get_args(Method)
    parser.add_argument("--methods", nargs="*", choices=methods, default=methods)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="12 images of a set, 3 for the curves")
    arguments = parser.parse_args()
    limits = (12, 3) if arguments.quick else (arguments.images, arguments.curve_images)
    judged: dict[str, Scores] = {}
    costs: dict[str, float] = {}
    groups: dict[str, list[str]] = {}
    for folder in arguments.sets:
        planted = load_planted_set(folder)
        model = load_model(planted.model_path)
        makers = make_maps(model, planted, arguments.methods, arguments.seed)
        chosen = np.random.default_rng(arguments.seed).permutation(len(planted.asked))[: limits[0]]
        if not costs:
            sample = chosen[:BATCH]
            pixels, classes = planted.pixels[planted.asked[sample]], planted.asked_class[sample]
            costs = measure_costs(makers, shipped_name(*PLAIN), pixels, classes)
        judged[planted.name] = judge_all(planted, makers, model, chosen, limits[1])
        apart = planted.name == HELD_OUT or planted.asks == "all"
        groups.setdefault(planted.name if apart else "planted sets", []).append(planted.name)
        area = planted.masks[planted.asked].mean()
        print(f"{planted.name}: {len(chosen)} pictures, masks cover {area:.1%}", file=sys.stderr)
    print("\n".join(ap_table(judged, arguments.seed)))
    for title, names in groups.items():
        mean = f"mean of {len(names)} " if len(names) > 1 else ""
        held_out = " (held out)" if title == HELD_OUT else ""
        print(f"\n{mean}{title}{held_out}:\n")
        sets = [judged[name] for name in names]
        print("\n".join(metrics_table(sets, costs, arguments.seed)))


if __name__ == "__main__":
    main()
