"""Small drawn images and a model with hand-set weights, for tests that run the whole audit.

The class of an image is the corner that its square is in: a blue square in the upper left corner is
"left", a red one in the lower right corner is "right". Some images have a fainter square of their
own class and a brighter one of the other class, which the model believes: they are the errors, and
a test knows each of them by its name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    import keras

SIDE = 32
CLASS_NAMES = ("left", "right")
N_IMAGES = 60
N_FALSE_POSITIVES = 8
"""Images of "left" that the model takes for "right", its positive class."""
N_FALSE_NEGATIVES = 6
N_ERRORS = N_FALSE_POSITIVES + N_FALSE_NEGATIVES
SHARDS = {"batch_size": 8, "shard_size": 20, "explain_batch_size": 4, "explain_shard_size": 8}
"""Options that cut the drawn images into three shards, and the explained ones into four."""
_SQUARE = 8
_CORNERS = {"left": 3, "right": SIDE - 3 - _SQUARE}
_COLOURS = {"left": (0, 0.1, 1), "right": (1, 0.1, 0)}


def draw_image(name: str, *, fooled: bool, number: int) -> np.ndarray:
    """Return uint8 of shape (32, 32, 3), RGB: a square on a dark, grainy ground."""
    rng = np.random.default_rng([number, CLASS_NAMES.index(name)])
    image = rng.integers(0, 40, (SIDE, SIDE, 1)) + np.zeros(3, int)
    other = CLASS_NAMES[1 - CLASS_NAMES.index(name)]
    squares = [(name, 120 + number)] + ([(other, 200 + number)] if fooled else [])
    for corner, brightness in squares:
        start = _CORNERS[corner] + int(rng.integers(-1, 2))
        square = np.multiply(_COLOURS[corner], brightness)
        image[start : start + _SQUARE, start : start + _SQUARE] = square
    return image.astype(np.uint8)


def draw_set() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images of shape (60, 32, 32, 3), labels and relative paths, in the order of paths."""
    images, labels, paths = [], [], []
    for label, n_fooled in enumerate((N_FALSE_POSITIVES, N_FALSE_NEGATIVES)):
        name = CLASS_NAMES[label]
        for number in range(N_IMAGES // 2):
            fooled = number < n_fooled
            images.append(draw_image(name, fooled=fooled, number=number))
            labels.append(label)
            paths.append(f"{name}/{'fooled' if fooled else 'plain'}-{number:02d}.png")
    order = np.argsort(paths)
    return np.stack(images)[order], np.array(labels)[order], [paths[i] for i in order]


def save_set(folder: Path) -> Path:
    """Write the images of `draw_set` into a folder per class."""
    for image, _, path in zip(*draw_set(), strict=True):
        save_image(folder / path, image)
    return folder


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a PNG of RGB or grey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.shape[-1] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), image)


def corner_model(head: str = "logit", n_classes: int = 2) -> "keras.Model":
    """Return a Keras model that weighs red (speaks for "right") against blue (for "left").

    Args:
        head: "logit", "sigmoid", "softmax" or "logits".
        n_classes: of the last two; classes after the second are never predicted.
    """
    import keras

    layers = keras.layers
    single = head in ("logit", "sigmoid")
    n_outputs = 1 if single else n_classes
    activation = {"sigmoid": "sigmoid", "softmax": "softmax"}.get(head)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Conv2D(2, 3, padding="same", activation="relu", name="colours"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(2, 3, padding="same", activation="relu", name="blobs"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(n_outputs, activation=activation, name="answer"),
        ],
        name="corners",
    )
    colours = np.zeros((3, 3, 3, 2), np.float32)
    colours[..., 0, 0] = colours[..., 2, 1] = 1 / 9
    colours[..., 2, 0] = colours[..., 0, 1] = -1 / 9
    blobs = np.zeros((3, 3, 2, 2), np.float32)
    blobs[..., 0, 0] = blobs[..., 1, 1] = 1 / 9
    answer = np.array([[40], [-40]], np.float32)
    if not single:
        answer = np.concatenate([-answer / 2, answer / 2], axis=1)
        answer = np.pad(answer, ((0, 0), (0, n_outputs - 2)))
    bias = np.zeros(n_outputs, np.float32)
    bias[2:] = -20
    model.get_layer("colours").set_weights([colours, np.zeros(2, np.float32)])
    model.get_layer("blobs").set_weights([blobs, np.zeros(2, np.float32)])
    model.get_layer("answer").set_weights([answer, bias])
    return model


def save_model(path: Path, **kind: Any) -> Path:
    """Write a `corner_model` to a file."""
    corner_model(**kind).save(path)
    return path
