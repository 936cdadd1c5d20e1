"""The article's pictures of one error, and whether its all-layer mean is more precise.

    python benchmarks/article.py MODEL IMAGES OUT [--image FILE] [--masks FOLDER] [--classes A,B]

MODEL has two classes. Of IMAGES, a folder per class, the errors that count are those of the first
class called the second: cats called dogs. Written to OUT for one of them: `layers.png` and
`layers.gif`, the article's heat-map of every layer in the model's order; and `comparison.png`, the
last convolution's map beside the mean over all layers, each with the pixels that it calls the most
important. Printed as Markdown: what the stages of the model point at, and how good the maps of all
these errors are. Pixel average precision, energy and pointing are judged where MASKS, a folder of
`<class>/<name>.png`, says what fooled the model; painting out the hottest fifth needs no mask.

All maps come from the product's own engine.

Source: D. Reiff, "Understanding your Algorithm with Grad-CAM", 2021.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import article_pictures
import map_scores
import tensorflow as tf
from planted_sets import paint_out

from audit.config import Interpolation
from audit.errors import AuditError
from audit.explain.capture import Layer
from audit.explain.consensus import Consensus, sample_for_consensus
from audit.explain.maps import Explainer
from audit.explain.sample import Sampler, learn_from_images
from audit.predict.dataset import FileSource
from audit.predict.listing import list_images
from audit.predict.model import AuditedModel, load_model
from audit.report.formats import legible
from audit.run_folder import FUSED_LAYER

BATCH = 16
JUDGED = 60
"""At most so many errors are judged, the same ones as in `localisation.py`."""
PAINTED_SHARE = 0.2
NOISE_SIDE = 14
ARTICLE_LAST, ARTICLE_MEAN = "article's rule, last convolution", "article's rule, all-layer mean"
PLAIN_LAST, PLAIN_MEAN = "Grad-CAM, last convolution", "Grad-CAM, all-layer mean"
CONSENSUS = "Grad-CAM, consensus"
RANDOM = "random"


@dataclass(frozen=True)
class Errors:
    """Pictures of the first class that the model calls the second.

    Attributes:
        paths: relative to the folder of images.
        pixels: float32 of shape (n, height, width, 3), 0 to 255.
        probabilities: of the second class, float32 of shape (n,).
    """

    paths: tuple[str, ...]
    pixels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class LayerHeats:
    """The article's heat-maps of one picture.

    Attributes:
        layers: those with a map, in the model's order.
        heats: float32 of shape (n_layers, height, width) at the picture's size, each scaled from
            its least to its largest value to [0, 1]; zeros where a map is the same everywhere.
        mean: the engine's mean over all layers, scaled in the same way, of shape (height, width).
    """

    layers: tuple[Layer, ...]
    heats: np.ndarray
    mean: np.ndarray


def find_errors(
    model: AuditedModel,
    images: Path,
    classes: Sequence[str] | None = None,
    interpolation: Interpolation = "nearest",
) -> Errors:
    """Read the pictures of the first class and keep those that are called the second."""
    listing = list_images(images, classes)
    source = FileSource(listing, model.input_size, model.channels, interpolation=interpolation)
    ids = listing.images.loc[listing.images["y_true"] == 0, "image_id"].to_list()
    scores_of = probabilities_of(model)
    paths, kept, probabilities = [], [], []
    for batch_ids, pixels in source.batches(ids, 2 * BATCH):
        scores = scores_of(pixels).numpy()
        for i in np.flatnonzero(scores[:, 1] >= 0.5):
            paths.append(str(listing.images["path"].iloc[batch_ids[i]]))
            kept.append(pixels[i].numpy())
            probabilities.append(scores[i, 1])
    if not paths:
        first, second = listing.class_names[:2]
        raise SystemExit(f"The model calls no image of `{first}` `{second}`: nothing to explain.")
    return Errors(tuple(paths), np.stack(kept), np.array(probabilities))


def learn(
    model: AuditedModel,
    images: Path,
    classes: Sequence[str] | None = None,
    interpolation: Interpolation = "nearest",
) -> Consensus:
    """Learn what the errors agree on, from the images an audit would learn from."""
    listing = list_images(images, classes)
    source = FileSource(listing, model.input_size, model.channels, interpolation=interpolation)
    scores_of = probabilities_of(model)
    ids, y_pred = [], []
    for batch_ids, pixels in source.batches(listing.images["image_id"].to_list(), 2 * BATCH):
        ids += batch_ids.tolist()
        y_pred += scores_of(pixels).numpy().argmax(axis=1).tolist()
    predictions = listing.images.set_index("image_id").loc[ids].reset_index().assign(y_pred=y_pred)
    sample = sample_for_consensus(predictions, seed=0)
    return learn_from_images(Sampler(model), source, sample, BATCH)


def probabilities_of(model: AuditedModel) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function from pixels to the probabilities of both classes."""
    return tf.function(lambda pixels: model.call(pixels).scores, autograph=False)


def last_convolution(layers: Sequence[Layer]) -> Layer:
    """Return the last convolution, `Conv_1` in the article's model, or else the last layer."""
    kept = [layer for layer in layers if layer.kept]
    return next((layer for layer in reversed(kept) if "Conv" in layer.kind), kept[-1])


def enlarge(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map bilinearly to (height, width), float32."""
    return cv2.resize(heat.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def scale_heat(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to (height, width) and scale it from its least to its largest value to [0, 1].

    A map that is the same everywhere becomes zeros.
    """
    large = enlarge(heat, size)
    extent = np.ptp(large)
    return (large - large.min()) / extent if extent > 0 else np.zeros_like(large)


def explain_layers(explainer: Explainer, pixels: np.ndarray) -> LayerHeats:
    """Make the heat-map of every layer of one picture for the second class.

    Args:
        explainer: keeps maps in full.
        pixels: float32 of shape (height, width, channels).
    """
    explained = explainer.explain(tf.constant(pixels[None]), np.array([[1, 1]]))
    found = {layer: cam for layer, _, cam in explained.of_image(0, 0)}
    layers = tuple(layer for layer in explainer.layers if layer.kept)
    size = pixels.shape[:2]
    heats = np.stack([scale_heat(found[layer.layer], size) for layer in layers])
    return LayerHeats(layers, heats, scale_heat(found[FUSED_LAYER], size))


def compared_maps(
    by_rule: Mapping[str, Explainer], pixels: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the maps that the claim is about, and noise, for the second class.

    Args:
        by_rule: explainers for "article", "gradcam" and, if it is asked for, "consensus".
        pixels: float32 of shape (n, height, width, channels).

    Returns:
        By name, uint8 or float of shape (n, h, w), larger where a map says "here".
    """
    noise = np.random.default_rng(seed).random((len(pixels), NOISE_SIDE, NOISE_SIDE), np.float32)
    maps = {RANDOM: noise}
    names = {"article": (ARTICLE_LAST, ARTICLE_MEAN), "gradcam": (PLAIN_LAST, PLAIN_MEAN)}
    for rule, (last_name, mean_name) in names.items():
        explainer = by_rule[rule]
        last = last_convolution(explainer.layers).layer
        batches = []
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH]
            ones = np.ones((len(batch), 2), int)
            explained = explainer.explain(tf.constant(batch), ones)
            for i in range(len(batch)):
                found = {layer: cam for layer, _, cam in explained.of_image(i, 0)}
                batches.append((found[last], found[FUSED_LAYER]))
        maps[last_name] = np.stack([own for own, _ in batches])
        maps[mean_name] = np.stack([mean for _, mean in batches])
    if "consensus" in by_rule:
        blocks = []
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH]
            ones = np.ones((len(batch), 2), int)
            fused = by_rule["consensus"].explain(tf.constant(batch), ones).groups[-1]
            blocks.append(fused.cams[:, :, :, 0, 0])
        maps[CONSENSUS] = np.concatenate(blocks)
    return maps


def class_likeness(explainer: Explainer, pixels: np.ndarray) -> np.ndarray:
    """Return how alike the all-layer means for both classes are: correlations of shape (n,)."""
    found = []
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        explained = explainer.explain(tf.constant(batch), np.array([[1, 0]] * len(batch)))
        means = explained.groups[-1].cams[:, :, :, 0].astype(np.float64)
        found += [correlation(both[..., 0], both[..., 1]) for both in means]
    return np.array(found)


def most_narrowed(maps: Mapping[str, np.ndarray], size: tuple[int, int]) -> int:
    """Return the error whose most important pixels averaging narrows most."""
    pairs = zip(maps[ARTICLE_LAST], maps[ARTICLE_MEAN], strict=True)
    return int(np.argmax([hot_share(last, size) - hot_share(mean, size) for last, mean in pairs]))


def hot_share(heat: np.ndarray, size: tuple[int, int]) -> float:
    """Return the share of the picture that the most important pixels take."""
    return float((scale_heat(heat, size) >= article_pictures.IMPORTANT_FROM).mean())


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation of two maps of one shape, 0 where one is even."""
    first, second = (values - values.mean(dtype=np.float64) for values in (first, second))
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0


def hottest(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the hottest fifth of the pixels, bool of shape `size`."""
    rank = map_scores.removal_rank(enlarge(heat, size))
    return rank < round(PAINTED_SHARE * rank.size)


def ask_painted(
    scores_of: Callable[[tf.Tensor], tf.Tensor], pixels: np.ndarray, heats: np.ndarray
) -> np.ndarray:
    """Return the probability of the second class once the hottest fifth is painted out, (n,)."""
    size = pixels.shape[1:3]
    painted = [
        paint_out(picture, hottest(heat, size)).reshape(picture.shape)
        for picture, heat in zip(pixels, heats, strict=True)
    ]
    batches = [np.stack(painted[i : i + BATCH]) for i in range(0, len(painted), BATCH)]
    return np.concatenate([scores_of(tf.constant(batch)).numpy()[:, 1] for batch in batches])


def judge(
    scores_of: Callable[[tf.Tensor], tf.Tensor],
    pixels: np.ndarray,
    maps: Mapping[str, np.ndarray],
    masks: np.ndarray | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Judge each kind of map on each error.

    Args:
        scores_of: from pixels to probabilities.
        masks: bool of shape (n, height, width), none of them empty, or None.

    Returns:
        By kind and metric, one value per error. "painted" is 1 where the model takes the picture
        for the first class once the hottest fifth is painted out, else 0.
    """
    size = pixels.shape[1:3]
    judged: dict[str, dict[str, np.ndarray]] = {}
    for kind, heats in maps.items():
        again = ask_painted(scores_of, pixels, heats)
        judged[kind] = {"painted": (again < 0.5).astype(float)}
        if masks is not None:
            large = [enlarge(heat, size) for heat in heats]
            judged[kind] |= {
                metric: np.array([score(*pair) for pair in zip(large, masks, strict=True)])
                for metric, score in (
                    ("ap", map_scores.pixel_ap),
                    ("energy", map_scores.energy_ratio),
                    ("pointing", map_scores.pointing),
                )
            }
    return judged


def read_masks(folder: Path, paths: Sequence[str], size: tuple[int, int]) -> list[np.ndarray]:
    """Read the mask of each picture, bool of shape `size`; all false where there is none."""
    masks = []
    for path in paths:
        mask = cv2.imread(str((folder / path).with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        empty = np.zeros(size, np.uint8)
        large = (
            empty if mask is None else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
        )
        masks.append(large > 127)
    return masks


def stage_table(heats: LayerHeats, last: Layer, mask: np.ndarray | None) -> list[str]:
    """Return a Markdown table: what the maps of each stage of one picture look like.

    "hot area" is the share of the picture at or above half of a map's range, the mean over the
    stage; "like" is the correlation of the stage's mean with the last convolution's map and with
    the all-layer mean.
    """
    head = ["stage", "maps", "empty", "hot area", f"like `{label(last)}`", "like all-layer mean"]
    rows = [head if mask is None else [*head, "pixel AP"]]
    own = heats.heats[heats.layers.index(last)]
    for stage in sorted({layer.stage for layer in heats.layers}):
        positions = [i for i, layer in enumerate(heats.layers) if layer.stage == stage]
        speaking = [heats.heats[i] for i in positions if heats.heats[i].any()]
        sizes = Counter((heats.layers[i].height, heats.layers[i].width) for i in positions)
        height, width = sizes.most_common(1)[0][0]  # Padding layers are a row larger.
        row = [f"{height} × {width}", str(len(positions))]
        row.append(str(len(positions) - len(speaking)))
        mean = np.mean(speaking, axis=0) if speaking else np.zeros_like(own)
        area = np.mean([(heat >= 0.5).mean() for heat in speaking]) if speaking else 0.0
        row += [article_pictures.percent(area), f"{correlation(mean, own):.2f}"]
        row.append(f"{correlation(mean, heats.mean):.2f}")
        if mask is not None:
            row.append(f"{map_scores.pixel_ap(mean, mask):.3f}")
        rows.append(row)
    return markdown(rows)


def map_table(
    scores_of: Callable[[tf.Tensor], tf.Tensor],
    pixels: np.ndarray,
    maps: Mapping[str, np.ndarray],
) -> list[str]:
    """Return a Markdown table of the maps of one picture.

    Args:
        pixels: float32 of shape (height, width, channels).
        maps: of this picture, by name, each of shape (h, w).
    """
    title = "probability once the hottest fifth is painted out"
    rows = [["map", "most important pixels", title]]
    for kind in (ARTICLE_LAST, ARTICLE_MEAN, PLAIN_LAST, PLAIN_MEAN):
        heat = maps[kind]
        again = ask_painted(scores_of, pixels[None], heat[None])[0]
        share = article_pictures.percent(hot_share(heat, pixels.shape[:2]))
        rows.append([kind, f"{share} of the image", f"{again:.3f}"])
    return markdown(rows)


def claim_table(judged: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """Return a Markdown table of what `judge` found, with 95 % bootstrap intervals over errors.

    The last rows hold what averaging gains, error by error.
    """
    titles = {
        "ap": "pixel AP",
        "energy": "energy ÷ area",
        "pointing": "pointing",
        "painted": "right once painted out",
    }
    shown = [metric for metric in titles if metric in judged[ARTICLE_MEAN]]
    rows = [["map", *(titles[metric] for metric in shown)]]
    for kind, values in judged.items():
        rows.append([kind, *(_cell(values[metric]) for metric in shown)])
    pairs = {
        "article's rule, mean − last": (ARTICLE_MEAN, ARTICLE_LAST),
        "Grad-CAM, mean − last": (PLAIN_MEAN, PLAIN_LAST),
    }
    if CONSENSUS in judged:
        pairs["Grad-CAM, consensus − last"] = (CONSENSUS, PLAIN_LAST)
    for title, (mean, last) in pairs.items():
        gains = [judged[mean][metric] - judged[last][metric] for metric in shown]
        rows.append([title, *(_cell(gain, "+") for gain in gains)])
    return markdown(rows)


def _cell(values: np.ndarray, sign: str = "") -> str:
    """Return the mean over errors with its 95 % bootstrap interval."""
    found = map_scores.bootstrap_mean([values], seed=0)
    mean, low, high = (f"{x:{sign}.3f}" for x in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def label(layer: Layer) -> str:
    """Return the last part of a layer's name."""
    return layer.layer.rsplit("/", 1)[-1]


def draw_pictures(
    out: Path,
    pixels: np.ndarray,
    heats: LayerHeats,
    last: Layer,
    maps: Mapping[str, np.ndarray],
) -> None:
    """Write the strip, the animation and the comparison.

    Args:
        maps: of this picture, by name, as `compared_maps` returns.
    """
    picture = np.clip(pixels.round(), 0, 255).astype(np.uint8)
    if picture.shape[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    frames = [("image", "", None)]
    for layer, heat in zip(heats.layers, heats.heats, strict=True):
        frames.append((label(layer), f"{layer.height} × {layer.width}", heat))
    frames.append(("mean of all", f"{len(heats.layers)} layers", heats.mean))
    article_pictures.write_png(out / "layers.png", article_pictures.draw_strip(picture, frames))
    article_pictures.write_gif(
        out / "layers.gif", article_pictures.draw_frames(picture, frames[1:])
    )
    size = picture.shape[:2]
    columns = [
        ("article's rule", f"{label(last)} alone", scale_heat(maps[ARTICLE_LAST], size)),
        ("article's rule", "mean of all layers", scale_heat(maps[ARTICLE_MEAN], size)),
        ("Grad-CAM", f"{label(last)} alone", scale_heat(maps[PLAIN_LAST], size)),
        ("Grad-CAM", "mean of all layers", scale_heat(maps[PLAIN_MEAN], size)),
    ]
    comparison = article_pictures.draw_comparison(picture, columns)
    article_pictures.write_png(out / "comparison.png", comparison)


def run(
    model: AuditedModel,
    errors: Errors,
    consensus: Consensus,
    out: Path,
    image: str | None,
    masks: Path | None,
) -> list[str]:
    """Write the pictures of one error and return the tables over all of them.

    Args:
        image: one of `errors.paths`; by default the one that averaging narrows most.
    """
    by_rule = {
        rule: Explainer(model, method=rule, fusion=fusion, keep_maps="full")
        for rule, fusion in (("article", "article"), ("gradcam", "mean"))
    }
    by_rule["consensus"] = Explainer(model, consensus=consensus, keep_maps="fused")
    order = np.arange(len(errors.paths))
    size, found = model.input_size, None
    if masks is not None:
        found = np.stack(read_masks(masks, errors.paths, size))
        order = np.flatnonzero(found.any(axis=(1, 2)))
        if not len(order):
            raise SystemExit(f"No error has a mask in `{masks}`: name them <class>/<name>.png.")
    if image is not None and image not in errors.paths:
        raise SystemExit(f"`{image}` is not an error that counts. Those are: {errors.paths}.")
    order = np.random.default_rng(0).permutation(order)[:JUDGED]
    maps = compared_maps(by_rule, errors.pixels[order])
    best_case = int(order[most_narrowed(maps, size)])
    chosen = errors.paths.index(image) if image else best_case
    pixels = errors.pixels[chosen]
    heats = explain_layers(by_rule["article"], pixels)
    last = last_convolution(heats.layers)
    own = {kind: one[0] for kind, one in compared_maps(by_rule, pixels[None]).items()}
    out.mkdir(parents=True, exist_ok=True)
    draw_pictures(out, pixels, heats, last, own)
    mask = found[chosen] if found is not None and found[chosen].any() else None
    scores_of = probabilities_of(model)
    likeness = [
        f"{rule}, the all-layer mean for one class is like that for the other: {_cell(found)}"
        for rule, found in (
            ("article's rule", class_likeness(by_rule["article"], errors.pixels[order])),
            ("Grad-CAM", class_likeness(by_rule["gradcam"], errors.pixels[order])),
        )
    ]
    judged = judge(scores_of, errors.pixels[order], maps, None if found is None else found[order])
    return [
        f"`{legible(errors.paths[chosen])}`, probability {errors.probabilities[chosen]:.3f}:",
        "",
        *stage_table(heats, last, mask),
        "",
        *map_table(scores_of, pixels, own),
        "",
        f"{len(order)} errors; the last convolution is `{label(last)}`:",
        "",
        *claim_table(judged),
        "",
        *likeness,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--image", help="an error, as a path below IMAGES")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--classes", help="in the order of the model's outputs; default a to z")
    choices = get_args(Interpolation)
    parser.add_argument("--interpolation", choices=choices, default="nearest", help="as `load_img`")
    arguments = parser.parse_args()
    classes = arguments.classes.split(",") if arguments.classes else None
    try:
        model = load_model(arguments.model)
        errors = find_errors(model, arguments.images, classes, arguments.interpolation)
        consensus = learn(model, arguments.images, classes, arguments.interpolation)
        image, masks = arguments.image, arguments.masks
        print("\n".join(run(model, errors, consensus, arguments.out, image, masks)))
    except AuditError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
