"""Turn a setting into a folder: train the model, draw the pictures, write down the truth."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from planted_artefacts import ARTEFACTS, Strength
from planted_sets import INVERSE_REGULARISATION, Backbone, _encode_jpeg
from planted_settings import DIGIT_SIDE, Pictures, Planted, Setting, Source, as_read

COPIES: dict[Strength, int] = {"strong": 200, "weak": 300}
"""Training pictures that carry an artefact."""
PULL: dict[Strength, float] = {"strong": 1.0, "weak": 0.9}
"""How many of them are called what the artefact pulls to; the others what they show."""
N_TRAIN: dict[Source, int] = {"photographs": 900, "digits": 650}
N_POOL, POOL_SHARE = 500, 0.1
DRAWN_ERROR_SHARE = 0.15
"""How many pictures of a null setting with a random head are errors."""
DIGIT_EPOCHS = 40
LOGIT_SPREAD = 2.0
"""Standard deviation of a random head's logits."""


class Classifier(Protocol):
    """A model under way."""

    def train(self, clean: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> None:
        """Learn from clean pictures, by position, and from copies with artefacts.

        Args:
            copies: uint8 of shape (n, side, side, 3); labels: their classes.
        """

    def randomise(self, clean: np.ndarray, rng: np.random.Generator) -> None:
        """Take a random head, under which the clean pictures fall into all classes."""

    def decide(self, pixels: np.ndarray) -> np.ndarray:
        """Return the class of each picture, int of shape (n,)."""

    def decide_clean(self, positions: np.ndarray) -> np.ndarray:
        """Return the class of each clean picture, by position."""

    def save(self, path: Path) -> None: ...


def random_head(
    features: np.ndarray, n_outputs: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return random weights of shape (n_outputs, width) and biases that centre each output."""
    spread = np.maximum(features.std(axis=0), 1e-3)
    weights = rng.standard_normal((n_outputs, features.shape[1])) / spread
    logits = features @ weights.T
    weights *= LOGIT_SPREAD / np.maximum(logits.std(axis=0), 1e-9)[:, None]
    return weights.astype(np.float32), -np.median(features @ weights.T, axis=0).astype(np.float32)


class PhotographClassifier:
    """A head on the frozen ImageNet network, with one logit."""

    def __init__(self, pictures: Pictures, backbone: Backbone) -> None:
        assert pictures.features is not None
        self._pictures, self._features, self._backbone = pictures, pictures.features, backbone
        self._weights, self._biases = np.zeros((1, 0)), np.zeros(1)

    def train(self, clean: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        features = [self._features[clean], *([self._of(copies)] if len(copies) else [])]
        classes = np.concatenate([self._pictures.labels[clean], labels])
        head = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=5000)
        head.fit(np.concatenate(features), classes)
        self._weights, self._biases = head.coef_, head.intercept_

    def randomise(self, clean: np.ndarray, rng: np.random.Generator) -> None:
        self._weights, self._biases = random_head(self._features[clean], 1, rng)

    def decide(self, pixels: np.ndarray) -> np.ndarray:
        return self._decide(self._of(pixels))

    def decide_clean(self, positions: np.ndarray) -> np.ndarray:
        return self._decide(self._features[positions])

    def save(self, path: Path) -> None:
        self._backbone.save(self._weights, self._biases, path)

    def _of(self, pixels: np.ndarray) -> np.ndarray:
        return self._backbone.features(map(as_read, pixels))

    def _decide(self, features: np.ndarray) -> np.ndarray:
        return ((features @ self._weights.T + self._biases)[:, 0] > 0).astype(int)


class DigitClassifier:
    """Three convolutions and ten logits, trained from scratch."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        import keras

        keras.utils.set_random_seed(seed)
        layers = keras.layers
        body = [keras.Input((DIGIT_SIDE, DIGIT_SIDE, 3)), layers.Rescaling(1 / 255)]
        for channels in (16, 32, 64):
            body.append(layers.Conv2D(channels, 3, padding="same", activation="relu"))
            body += [layers.MaxPooling2D()] if channels < 64 else []
        body.append(layers.GlobalAveragePooling2D())
        self._pictures = pictures
        self._body = keras.Sequential(body)
        self._head = layers.Dense(len(pictures.class_names))
        self._model = keras.Sequential([*body, self._head], name="digits")

    def train(self, clean: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> None:
        import keras

        pixels = self._pictures.pixels[clean]
        pixels = np.concatenate([pixels, copies]) if len(copies) else pixels
        classes = np.concatenate([self._pictures.labels[clean], labels])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
        self._model.fit(
            pixels.astype(np.float32), classes, batch_size=32, epochs=DIGIT_EPOCHS, verbose=0
        )

    def randomise(self, clean: np.ndarray, rng: np.random.Generator) -> None:
        features = self._body.predict(self._as_input(clean), verbose=0)
        weights, biases = random_head(features, len(self._pictures.class_names), rng)
        self._head.set_weights([weights.T, biases])

    def decide(self, pixels: np.ndarray) -> np.ndarray:
        return self._model.predict(pixels.astype(np.float32), verbose=0).argmax(axis=1)

    def decide_clean(self, positions: np.ndarray) -> np.ndarray:
        return self.decide(self._pictures.pixels[positions])

    def save(self, path: Path) -> None:
        self._model.save(path)

    def _as_input(self, positions: np.ndarray) -> np.ndarray:
        return self._pictures.pixels[positions].astype(np.float32)


def make_setting(
    setting: Setting, pictures: Pictures, classifier: Classifier, folder: Path
) -> dict[str, Any]:
    """Write a setting into a new folder, and return what `setting.json` says of it."""
    rng = np.random.default_rng(setting.seed)
    trained, validated, pooled = _split(setting, pictures, rng)
    if setting.null in ("drawn errors", "random head"):
        classifier.randomise(trained, rng)
    else:
        classifier.train(trained, *_training_copies(setting, pictures, trained, rng))
    y_clean = pictures.labels[validated]
    if setting.null == "random head":
        validated = _few_errors(validated, classifier.decide_clean(validated) != y_clean, rng)
        y_clean = pictures.labels[validated]
    if setting.null == "drawn errors":
        y_clean = _draw_labels(classifier.decide_clean(validated), len(pictures.class_names), rng)
    carries = _carriers(setting, y_clean, rng)
    pixels = _plant(setting, pictures, validated, carries, rng)
    y_true = _flip(y_clean, setting.flips, len(pictures.class_names), rng)
    shutil.rmtree(folder, ignore_errors=True)
    names = pictures.class_names
    rows: list[Sequence[Any]] = [("path", "y_true", "y_clean", *setting.kinds, "flipped")]
    for i, picture in enumerate(pixels):
        path = f"{names[y_true[i]]}/{i:04d}{pictures.suffix}"
        _write_picture(folder / "val" / path, picture)
        planted = [int(carries[i] == k) for k in range(len(setting.kinds))]
        flipped = int(y_true[i] != y_clean[i])
        rows.append((path, names[y_true[i]], names[y_clean[i]], *planted, flipped))
    _write_csv(folder / "truth.csv", rows)
    if setting.pool:
        _write_pool(setting, pictures, pooled, folder, rng)
    classifier.save(folder / "model.keras")
    y_pred, without = classifier.decide(pixels), classifier.decide_clean(validated)
    description = _describe(setting, carries, y_true, y_clean, y_pred, without)
    description["class_names"] = list(names)
    (folder / "setting.json").write_text(json.dumps(description, indent=1) + "\n")
    return description


def _split(
    setting: Setting, pictures: Pictures, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share the pictures of each class out to training, validation and pool."""
    n_classes = len(pictures.class_names)
    counts = [N_TRAIN[setting.source], setting.n_images, N_POOL if setting.pool else 0]
    cuts = np.cumsum([count // n_classes for count in counts])
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in range(n_classes):
        shuffled = rng.permutation(np.flatnonzero(pictures.labels == label))
        if len(shuffled) < cuts[-1]:
            raise ValueError(f"{setting.name} asks for more pictures than there are")
        for part, chosen in zip(parts, np.split(shuffled, cuts), strict=False):
            part.append(chosen)
    trained, validated, pooled = (rng.permutation(np.concatenate(part)) for part in parts)
    return trained, validated, pooled


def _training_copies(
    setting: Setting, pictures: Pictures, trained: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    copies, labels = [], []
    for artefact in setting.artefacts:
        towards = pictures.class_names.index(artefact.towards)
        for position in rng.choice(trained, COPIES[artefact.strength], replace=False):
            copies.append(_draw(artefact, pictures, position, rng))
            pulled = rng.random() < PULL[artefact.strength]
            labels.append(towards if pulled else pictures.labels[position])
    return np.array(copies, np.uint8), np.array(labels, int)


def _draw(
    artefact: Planted, pictures: Pictures, position: int, rng: np.random.Generator
) -> np.ndarray:
    return ARTEFACTS[artefact.kind](pictures.pixels[position], rng, artefact.strength)


def _carriers(setting: Setting, y_clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each picture which artefact it carries, -1 for none; of each class alike."""
    carries = np.full(len(y_clean), -1)
    for label in np.unique(y_clean):
        free = rng.permutation(np.flatnonzero(y_clean == label))
        for index, artefact in enumerate(setting.artefacts):
            count = round(artefact.rate * (y_clean == label).sum())
            carries[free[:count]] = index
            free = free[count:]
    return carries


def _plant(
    setting: Setting,
    pictures: Pictures,
    positions: np.ndarray,
    carries: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    pixels = pictures.pixels[positions].copy()
    for i in np.flatnonzero(carries >= 0):
        pixels[i] = _draw(setting.artefacts[carries[i]], pictures, positions[i], rng)
    return pixels


def _flip(
    y_clean: np.ndarray, share: float, n_classes: int, rng: np.random.Generator
) -> np.ndarray:
    flipped = rng.choice(len(y_clean), round(share * len(y_clean)), replace=False)
    y_true = y_clean.copy()
    y_true[flipped] = (y_true[flipped] + rng.integers(1, n_classes, len(flipped))) % n_classes
    return y_true


def _draw_labels(y_pred: np.ndarray, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels under which a drawn share of the decisions is wrong, whatever the pictures."""
    return _flip(y_pred, DRAWN_ERROR_SHARE, n_classes, rng)


def _few_errors(
    positions: np.ndarray, is_error: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Leave so many errors out that they are a small share of what remains."""
    errors, correct = positions[is_error], positions[~is_error]
    kept = round(len(correct) * DRAWN_ERROR_SHARE / (1 - DRAWN_ERROR_SHARE))
    return rng.permutation(np.concatenate([correct, errors[:kept]]))


def _write_pool(
    setting: Setting,
    pictures: Pictures,
    pooled: np.ndarray,
    folder: Path,
    rng: np.random.Generator,
) -> None:
    """Write unlabelled pictures of which a tenth carries the first artefact."""
    carries = np.full(len(pooled), -1)
    carries[rng.choice(len(pooled), round(POOL_SHARE * len(pooled)), replace=False)] = 0
    rows: list[Sequence[Any]] = [("path", setting.kinds[0])]
    for i, picture in enumerate(_plant(setting, pictures, pooled, carries, rng)):
        path = f"{i:04d}{pictures.suffix}"
        _write_picture(folder / "pool" / path, picture)
        rows.append((path, int(carries[i] == 0)))
    _write_csv(folder / "pool.csv", rows)


def _describe(
    setting: Setting,
    carries: np.ndarray,
    y_true: np.ndarray,
    y_clean: np.ndarray,
    y_pred: np.ndarray,
    without: np.ndarray,
) -> dict[str, Any]:
    """Return what is planted, and how many errors it makes.

    `repaired` is the share of the errors with an artefact, of pictures that are not flipped, which
    the model has right on the same picture without it.
    """
    is_error, is_flipped = y_pred != y_true, y_true != y_clean
    planted = []
    for index, artefact in enumerate(setting.artefacts):
        fooled = is_error & (carries == index) & ~is_flipped
        repaired = float((without == y_clean)[fooled].mean()) if fooled.any() else None
        counts = {
            "n_carrying": int((carries == index).sum()),
            "n_errors": int((is_error & (carries == index)).sum()),
            "repaired": repaired,
        }
        planted.append(asdict(artefact) | counts)
    return asdict(setting) | {
        "artefacts": planted,
        "seed": setting.seed,
        "held_out": setting.held_out,
        "n_images": len(y_true),
        "n_errors": int(is_error.sum()),
        "n_flipped": int(is_flipped.sum()),
        "n_flipped_errors": int((is_flipped & is_error).sum()),
    }


def _write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        path.write_bytes(_encode_jpeg(picture).tobytes())
    else:
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
