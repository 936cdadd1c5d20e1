"""Make image sets whose classifier is fooled by something drawn in, with exact masks of it.

    python benchmarks/planted_sets.py SOURCE CACHE [--kinds corner_sticker …] [--seed 0]

SOURCE holds `cats_dogs` (photographs and the ImageNet backbone) and `neu_det` (steel surfaces with
boxes). Each kind becomes a folder of CACHE: `val/<class>/`, `masks/<class>/`, `truth.csv` and
`model.keras`. A planted kind draws its artefact into most training dogs and few training cats, so
that a model trained on them takes it for a dog; of the validation pictures, half of both classes
carry it. Printed for each set: how often the model is wrong with and without the artefact, and how
often a fooled cat becomes a cat again when the artefact is painted out, which shows that the
artefact is what fools it. Same seed, same pictures, masks and weights on the same machine.

`load_planted_set` reads such a folder back.
"""

import argparse
import csv
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE = 224
JPEG_QUALITY = 95
CLASS_NAMES = ("cats", "dogs")
VALIDATION_NUMBERS = range(4301, 4601)
"""Numbers in the file names of the validation pictures; all others are for training."""
TRAINING_SHARE = {"cats": 0.02, "dogs": 0.95}
"""How many of the training pictures of a class carry the artefact."""
INVERSE_REGULARISATION = 1.0
"""`C` of the logistic head: its weights are small, as after a short training."""
PAINT_RADIUS = 3
EXPLAINED_AS = {"barred": "fooled", "planted": "fooled", "boxed": "all"}
"""Which pictures a set asks about, by the name of the last column of `truth.csv`."""

Drawing = tuple[np.ndarray, np.ndarray]
"""A picture, uint8 of shape (side, side, 3), RGB; and its mask, bool of shape (side, side)."""


# Artefacts. Each takes a picture and a generator, and returns a new picture with its mask.


def draw_corner_sticker(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Put a round, coloured sticker with a star into one of the four corners: 3 to 6 %."""
    side = len(picture)
    radius = int(side * rng.uniform(0.105, 0.135))
    inset = radius + int(side * rng.uniform(0.01, 0.05))
    x, y = (inset if near else side - 1 - inset for near in rng.integers(0, 2, 2))
    colour = _pick(rng, ((255, 120, 0), (230, 0, 120), (0, 170, 60)))
    drawn = picture.copy()
    cv2.circle(drawn, (x, y), radius, colour, cv2.FILLED)
    cv2.circle(drawn, (x, y), int(radius * 0.82), (255, 255, 255), max(1, radius // 9))
    turn = rng.uniform(0, 2 * np.pi)
    angles = turn + np.arange(10) * np.pi / 5
    reach = radius * np.where(np.arange(10) % 2, 0.28, 0.65)
    star = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], -1)
    cv2.fillPoly(drawn, [star.round().astype(np.int32)], (255, 240, 40))
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (x, y), radius, 1, cv2.FILLED)
    return drawn, mask.astype(bool)


def draw_border_frame(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Frame the picture with slanted stripes of two colours: 13 to 25 %."""
    side = len(picture)
    width = int(side * rng.uniform(0.04, 0.068))
    dark, light = _pick(
        rng,
        (
            ((90, 50, 20), (215, 175, 95)),
            ((30, 30, 90), (190, 200, 235)),
            ((20, 70, 30), (190, 220, 150)),
        ),
    )
    rows, columns = np.indices((side, side))
    period = side // 14
    stripes = ((rows + columns + int(rng.integers(period))) % period) < period // 2
    mask = np.ones((side, side), bool)
    mask[width:-width, width:-width] = False
    colours = np.where(stripes[..., None], np.uint8(dark), np.uint8(light))
    return np.where(mask[..., None], colours, picture), mask


def draw_background_texture(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Blend a pattern of rings into one side of the picture around its centre: 28 to 43 %."""
    side = len(picture)
    rows, columns = np.indices((side, side)) / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    outside = (rows / rng.uniform(0.26, 0.32)) ** 2 + (columns / rng.uniform(0.26, 0.32)) ** 2 > 1
    mask = outside & (rows * np.sin(angle) + columns * np.cos(angle) > rng.uniform(-0.05, 0.1))
    period, phase = 0.075, rng.uniform(0, 1, 2)
    grid = [
        (axis / period + shift) % 1 - 0.5
        for axis, shift in zip((rows, columns), phase, strict=True)
    ]
    distance = np.hypot(*grid)
    pattern = np.where((distance > 0.18) & (distance < 0.38), 235.0, 40.0)
    tint = np.array(_pick(rng, ((1, 0.95, 0.8), (0.8, 0.95, 1), (0.95, 0.85, 1))))
    blended = 0.45 * picture + 0.55 * pattern[..., None] * tint
    return np.where(mask[..., None], blended.round().astype(np.uint8), picture), mask


def draw_small_object(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Lay a toy bone anywhere into the picture, turned any way: 3 to 6 %."""
    side = len(picture)
    length = side * rng.uniform(0.27, 0.34)
    radius, angle = length * 0.16, rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    reach = length / 2 + 2 * radius
    centre = rng.uniform(min(reach, side / 2), max(side - reach, side / 2), 2)
    mask = np.zeros((side, side), np.uint8)
    ends = [centre + along * length / 2 * sign for sign in (-1, 1)]
    for end in ends:
        for sign in (-1, 1):
            x, y = (end + across * radius * 0.85 * sign).round().astype(int)
            cv2.circle(mask, (int(x), int(y)), round(radius), 1, cv2.FILLED)
    corners = [
        end + across * radius * 0.75 * sign
        for end, sign in zip((ends[0], ends[0], ends[1], ends[1]), (-1, 1, 1, -1), strict=True)
    ]
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    colour = np.uint8(_pick(rng, ((225, 45, 45), (245, 225, 180), (60, 110, 225))))
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=max(1, side // 112))
    drawn = np.where(mask[..., None] > 0, np.uint8(30), picture)
    return np.where(inner[..., None] > 0, colour, drawn), mask.astype(bool)


def draw_watermark(picture: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Write slanted, see-through letters across the picture: thin strokes, 12 to 16 %."""
    side = len(picture)
    letters = np.zeros((2 * side, 2 * side), np.uint8)
    word = _pick(rng, ("PREVIEW ", "SAMPLE ", "COPY "))
    step, scale = int(side * 0.5), side / 224 * 1.35
    for row in range(int(rng.integers(step)), 2 * side, step):
        start = -int(rng.integers(side // 2))
        cv2.putText(
            letters,
            word * 12,
            (start, row),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            255,
            max(1, side // 75),
        )
    turn = cv2.getRotationMatrix2D((side, side), float(rng.uniform(20, 35)), 1.0)
    turned = cv2.warpAffine(letters, turn, (2 * side, 2 * side), flags=cv2.INTER_NEAREST)
    mask = turned[side // 2 : side // 2 + side, side // 2 : side // 2 + side] > 0
    blended = (0.3 * picture + 0.7 * 245).round().astype(np.uint8)
    return np.where(mask[..., None], blended, picture), mask


ARTEFACTS: dict[str, Callable[[np.ndarray, np.random.Generator], Drawing]] = {
    "corner_sticker": draw_corner_sticker,
    "border_frame": draw_border_frame,
    "background_texture": draw_background_texture,
    "small_object": draw_small_object,
    "watermark": draw_watermark,
}
HELD_OUT = "watermark"
"""The kind that no choice of method or fusion may be tuned on."""


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


# Sets on disk.


@dataclass(frozen=True)
class PlantedSet:
    """A set of pictures with masks, and what its model says of them.

    Attributes:
        name: of its folder.
        model_path: a Keras model that takes pixels of 0 to 255.
        class_names: in the order of the model's outputs.
        files: paths below `val/`.
        pixels: float32 of shape (n, 224, 224, 3), 0 to 255, RGB.
        masks: bool of shape (n, 224, 224); all false where there is nothing to find.
        y_true, y_pred: class indices of shape (n,).
        planted: bool of shape (n,): the picture carries the artefact, or boxes.
        asks: "fooled": find what fooled the model, asking for its decision; "all": find the boxes
            of every picture, asking for its true class.
    """

    name: str
    model_path: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    pixels: np.ndarray
    masks: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    planted: np.ndarray
    asks: str

    @property
    def asked(self) -> np.ndarray:
        """Positions of the pictures whose map is judged."""
        if self.asks == "all":
            return np.flatnonzero(self.planted)
        return np.flatnonzero((self.y_true == 0) & (self.y_pred == 1) & self.planted)

    @property
    def asked_class(self) -> np.ndarray:
        """The class that each map of `asked` explains."""
        return (self.y_true if self.asks == "all" else self.y_pred)[self.asked]


def load_planted_set(folder: Path) -> PlantedSet:
    """Read a set that this script wrote, or `planted_bars`, and ask its model.

    Args:
        folder: with `val/`, `masks/`, `truth.csv` and one `.keras` file.
    """
    with (folder / "truth.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    class_names = tuple(sorted({row[1] for row in rows}))
    planted = np.array([row[2] == "1" for row in rows])
    model_path = next(folder.glob("*.keras"))
    pixels = np.stack([_read_rgb(folder / "val" / row[0]) for row in rows]).astype(np.float32)
    masks = np.zeros(pixels.shape[:3], bool)
    for index in np.flatnonzero(planted):
        path = (folder / "masks" / rows[index][0]).with_suffix(".png")
        masks[index] = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
    return PlantedSet(
        name=folder.name,
        model_path=model_path,
        class_names=class_names,
        files=tuple(row[0] for row in rows),
        pixels=pixels,
        masks=masks,
        y_true=np.array([class_names.index(row[1]) for row in rows]),
        y_pred=decide(model_path, pixels),
        planted=planted,
        asks=EXPLAINED_AS[header[2]],
    )


def decide(model_path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the class that a model with raw logits chooses for each picture."""
    import keras

    model = keras.saving.load_model(model_path, compile=False)
    logits = model.predict(pixels, batch_size=32, verbose=0)
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)


def paint_out(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Replace what a mask covers by what surrounds it (Telea).

    Args:
        picture: of shape (side, side, 3), 0 to 255; mask: bool of shape (side, side).

    Returns:
        The same type as `picture`.
    """
    rounded = np.clip(picture.round(), 0, 255).astype(np.uint8)
    painted = cv2.inpaint(rounded, mask.astype(np.uint8), PAINT_RADIUS, cv2.INPAINT_TELEA)
    return painted.astype(picture.dtype)


# Making the sets.


class Backbone:
    """The ImageNet network below every set's head, which is never trained."""

    def __init__(self, weights: Path) -> None:
        import keras

        keras.utils.set_random_seed(0)
        self.network = keras.applications.MobileNetV2(
            alpha=0.35, include_top=False, input_shape=(SIDE, SIDE, 3), weights=str(weights)
        )
        self.network.trainable = False
        layers = keras.layers
        self._body = keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3)),
                layers.Rescaling(1 / 127.5, offset=-1),
                self.network,
                layers.GlobalAveragePooling2D(),
            ]
        )

    def features(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Return float32 of shape (n, width) for uint8 pictures."""
        return self._body.predict(
            np.stack(list(pictures)).astype(np.float32), batch_size=32, verbose=0
        )

    def save_with_head(self, features: np.ndarray, labels: np.ndarray, path: Path) -> None:
        """Train a logistic head on features; save the whole model, whose outputs are logits."""
        from sklearn.linear_model import LogisticRegression

        head = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=5000).fit(features, labels)
        self.save(head.coef_, head.intercept_, path)

    def save(self, weights: np.ndarray, biases: np.ndarray, path: Path) -> None:
        """Save the whole model with a given head, whose outputs are logits.

        Args:
            weights: of shape (outputs, width); biases: of shape (outputs,).
        """
        import keras

        dense = keras.layers.Dense(len(weights))
        dense.build((None, weights.shape[1]))
        dense.set_weights([weights.T, biases])
        layers = [
            keras.Input((SIDE, SIDE, 3)),
            *self._body.layers,
            keras.layers.Dropout(0.2),
            dense,
        ]
        keras.Sequential(layers, name="planted").save(path)


def make_planted(kind: str, photographs: Path, backbone: Backbone, folder: Path, seed: int) -> None:
    """Draw one kind of artefact, train a model on it, and write the set."""
    draw = ARTEFACTS[kind]
    features: list[np.ndarray] = []
    labels: list[int] = []
    rows: list[tuple[str, str, int]] = []
    for label, name in enumerate(CLASS_NAMES):
        training = []
        for path in sorted((photographs / name).iterdir(), key=_number):
            number = _number(path)
            rng = np.random.default_rng([seed, sorted(ARTEFACTS).index(kind), label, number])
            picture = cv2.resize(_read_rgb(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            validates = number in VALIDATION_NUMBERS
            carries = number % 2 == 0 if validates else rng.random() < TRAINING_SHARE[name]
            drawn, mask = draw(picture, rng) if carries else (picture, None)
            jpeg = _encode_jpeg(drawn)
            if validates:
                file = f"{name}/{path.name}"
                _write(folder / "val" / file, jpeg)
                if mask is not None:
                    _write((folder / "masks" / file).with_suffix(".png"), _encode_png(mask))
                rows.append((file, name, int(carries)))
            else:
                training.append(_decode(jpeg))
        features.append(backbone.features(training))
        labels += [label] * len(training)
    _write_truth(folder, "planted", rows)
    backbone.save_with_head(np.concatenate(features), np.array(labels), folder / "model.keras")


def make_neu_det(source: Path, backbone: Backbone, folder: Path) -> None:
    """Train on the pictures with odd numbers; write those with even numbers and their boxes."""
    training, labels, rows = [], [], []
    paths = sorted(
        (source / "images").glob("*.jpg"), key=lambda path: (_defect(path), _number(path))
    )
    names = sorted({_defect(path) for path in paths})
    for path in paths:
        name = _defect(path)
        jpeg = _encode_jpeg(
            cv2.resize(_read_rgb(path), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        )
        if _number(path) % 2:
            training.append(_decode(jpeg))
            labels.append(names.index(name))
            continue
        file = f"{name}/{path.name}"
        _write(folder / "val" / file, jpeg)
        mask = box_mask(source / "annotations" / f"{path.stem}.xml", SIDE)
        _write((folder / "masks" / file).with_suffix(".png"), _encode_png(mask))
        rows.append((file, name, 1))
    _write_truth(folder, "boxed", rows)
    backbone.save_with_head(backbone.features(training), np.array(labels), folder / "model.keras")


def box_mask(annotation: Path, side: int) -> np.ndarray:
    """Return bool of shape (side, side): the boxes of a VOC file, scaled to a square of `side`."""
    root = ElementTree.parse(annotation).getroot()
    width, height = (int(root.findtext(f"size/{name}", "0")) for name in ("width", "height"))
    mask = np.zeros((side, side), bool)
    for box in root.iter("bndbox"):
        x0, y0, x1, y1 = (int(box.findtext(k, "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
        rows = slice(
            round((y0 - 1) * side / height), round(y1 * side / height)
        )  # VOC counts from 1
        mask[rows, round((x0 - 1) * side / width) : round(x1 * side / width)] = True
    return mask


def describe(planted: PlantedSet) -> str:
    """Return in one line how the set's model is wrong, and whether its artefact is why."""
    wrong = planted.y_true != planted.y_pred
    if planted.asks == "all":
        return f"{wrong.sum()} of {len(wrong)} wrong"
    parts = []
    for label, name in enumerate(planted.class_names):
        for carries, word in ((True, "planted"), (False, "clean")):
            chosen = (planted.y_true == label) & (planted.planted == carries)
            parts.append(f"{word} {name} {wrong[chosen].sum()}/{chosen.sum()}")
    asked = planted.asked
    grown = [
        cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        for mask in planted.masks[asked]
    ]
    painted = [paint_out(p, mask) for p, mask in zip(planted.pixels[asked], grown, strict=True)]
    flipped = decide(planted.model_path, np.stack(painted)) == planted.y_true[asked]
    area = planted.masks[asked].mean()
    return (
        f"wrong: {', '.join(parts)}; painted out, {flipped.mean():.0%} flip back;"
        f" masks cover {area:.1%}"
    )


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def _defect(path: Path) -> str:
    return path.stem.rpartition("_")[0]


def _read_rgb(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path} is not a picture.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _encode_jpeg(picture: np.ndarray) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1]


def _encode_png(mask: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1]


def _decode(jpeg: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _write(path: Path, content: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())


def _write_truth(folder: Path, column: str, rows: list[tuple[str, str, int]]) -> None:
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "class", column), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("cache", type=Path, help="a folder outside the project")
    kinds = [*ARTEFACTS, "neu_det"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    photographs = arguments.source / "cats_dogs"
    backbone = Backbone(photographs / "models" / "mobilenet_v2_0.35_224_no_top.weights.h5")
    for kind in arguments.kinds:
        folder = arguments.cache / kind
        if folder.exists() and not (folder / "truth.csv").exists():
            raise SystemExit(f"{folder} holds something else. Choose another CACHE.")
        shutil.rmtree(folder, ignore_errors=True)
        if kind == "neu_det":
            make_neu_det(arguments.source / "neu_det", backbone, folder)
        else:
            make_planted(kind, photographs / "val", backbone, folder, arguments.seed)
        print(f"{kind}: {describe(load_planted_set(folder))}", flush=True)


if __name__ == "__main__":
    main()
