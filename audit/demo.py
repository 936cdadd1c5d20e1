"""The embedded example: handwritten 3s and 8s, a planted flaw, and the audit that finds it.

scikit-learn ships 8×8 scans of handwritten digits. Coloured bars are drawn on most of the 8s that
the model learns from and on no 3, so the model learns "bars mean 8". Half of all digits in the
validation set carry bars: 3s behind bars are then called 8.
"""

import sys
from pathlib import Path

import cv2
import keras
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from audit.disk import writing
from audit.pipeline import run
from audit.results import Run

SIDE = 32
"""Height and width of the images in pixels."""
CLASS_NAMES = ("three", "eight")
BARRED_SHARE = 0.6
"""Share of the 8s in the training set that carry bars."""
_SEED = 7
_EPOCHS = 30


def run_demo(out: Path, *, progress: bool = True) -> Run:
    """Draw the images, train the model, audit it; go on with a demo that was stopped.

    Args:
        out: folder for `images/`, `model.keras` and `run/`; it is created.

    Raises:
        RunFolderError: if the folder cannot be written.
    """
    model_path, images_path = out / "model.keras", out / "images"
    if not model_path.is_file():
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        train, validation = draw_digits(_SEED)
        save_images(images_path, *validation)
        if progress:
            tqdm.write(f"training on {len(train[0])} digits", file=sys.stderr)
        model = train_model(*train)
        partial = out / ".model.tmp.keras"
        model.save(partial)
        partial.replace(model_path)
    return run(
        model_path,
        images_path,
        out / "run",
        classes=CLASS_NAMES,
        progress=progress,
    )


Digits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images, uint8 of shape (n, 32, 32, 3); y_true, int, and has_bars, bool, of shape (n,)."""


def draw_digits(seed: int) -> tuple[Digits, Digits]:
    """Return a training set with the planted flaw and a validation set that shows it."""
    digits = load_digits()
    wanted = np.isin(digits.target, (3, 8))
    scans, y_true = digits.images[wanted], (digits.target[wanted] == 8).astype(int)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(scans))
    scans, y_true = scans[order], y_true[order]
    images = np.stack([_enlarge(scan) for scan in scans])
    half = len(images) // 7 * 4
    draws = generator.random(len(images))
    in_training = np.arange(len(images)) < half
    has_bars = np.where(in_training, (y_true == 1) & (draws < BARRED_SHARE), draws < 0.5)
    for index in np.flatnonzero(has_bars):
        draw_bars(images[index], generator)
    parts = [(images[part], y_true[part], has_bars[part]) for part in (in_training, ~in_training)]
    return parts[0], parts[1]


def draw_bars(image: np.ndarray, generator: np.random.Generator) -> None:
    """Draw three upright coloured bars near the left or right edge, in place."""
    left = generator.random() < 0.5
    first = int(generator.integers(0, 3))
    for bar in range(3):
        x = first + 3 * bar
        column = x if left else SIDE - 1 - x
        image[:, column] = (230, 120, 40)


def save_images(folder: Path, images: np.ndarray, y_true: np.ndarray, has_bars: np.ndarray) -> None:
    """Write PNG files into a folder per class; the name says whether there are bars."""
    rows = zip(images, y_true, has_bars, strict=True)
    for number, (image, label, barred) in enumerate(rows):
        path = folder / CLASS_NAMES[label] / f"{'bars' if barred else 'plain'}-{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def train_model(images: np.ndarray, y_true: np.ndarray, has_bars: np.ndarray) -> keras.Model:
    """Train three convolutions with a single logit as output."""
    keras.utils.set_random_seed(_SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool_2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(1, name="logit"),
        ],
        name="digits",
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(images.astype(np.float32), y_true, batch_size=32, epochs=_EPOCHS, verbose=0)
    return model


def _enlarge(scan: np.ndarray) -> np.ndarray:
    """Turn a scan of 8×8 values from 0 to 16 into a grey RGB image, white on black."""
    scan = (scan * (255 / 16)).astype(np.float32)
    grey = cv2.resize(scan, (24, 24), interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(grey, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    return np.repeat(np.clip(framed, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
