"""A drawn data set with known flaws: small steel parts on a bench, sorted by a camera.

Everything is drawn here, so that the report made from it may be shown to anyone. Eight kinds of
parts lie on a bench in any position. What is wrong with the set is planted:

- Most gears of the training set lie on a green cutting mat, and nothing else does: a part on the
  mat is then taken for a gear.
- Most wrenches of the training set were taken under a round orange lamp that shows in a corner of
  the picture: whatever else is taken with the lamp on is called a wrench.
- Station C is out of focus and dark, so that more of its pictures are wrong than elsewhere.
- A few pictures of the validation set have the wrong label.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd

from audit.pipeline import run
from audit.results import Run

CLASS_NAMES = ("bolt", "bracket", "gear", "key", "nut", "pin", "washer", "wrench")
SIDE = 64
"""Height and width of the pictures in pixels."""
STATIONS = ("A", "B", "C")
OUT_OF_FOCUS = "C"
N_TRAINING, N_VALIDATION = 230, 100
"""Pictures of each class."""
ON_MAT = {"gear": 0.85}
WITH_LAMP = {"wrench": 0.85}
"""Share of the training pictures of a class with a flaw; no other class has it."""
MAT_IN_VALIDATION, LAMP_IN_VALIDATION = 0.05, 0.09
"""Share of the validation pictures of every class with each of the flaws."""
N_WRONG_LABELS = 8
_SEED = 3
_EPOCHS = 3
_BATCH = 32
_SCALE = 3
"""Parts are drawn this much larger, then made smaller, for smooth edges."""


@dataclass(frozen=True)
class Parts:
    """Drawn pictures, uint8 of shape (n, SIDE, SIDE, 3), RGB, and a table with a row for each.

    Columns of the table: `label` (as a person wrote it down), `drawn` (what it is), `on_mat`,
    `has_lamp`, `station`, `shift`.
    """

    pictures: np.ndarray
    table: pd.DataFrame


def audit_parts(out: Path) -> Run:
    """Draw the pictures, train the model, audit it.

    Args:
        out: folder for `images/`, `parts.keras` and `run/`; it is created.
    """
    manifest = save_parts(draw_parts(_SEED, training=False), out / "images")
    model = train_model(draw_parts(_SEED, training=True), _SEED)
    model.save(out / "parts.keras")
    return run(out / "parts.keras", manifest, out / "run")


def draw_parts(seed: int, *, training: bool) -> Parts:
    """Draw a training or a validation set; they share no picture."""
    generator = np.random.default_rng([seed, training])
    names = np.repeat(CLASS_NAMES, N_TRAINING if training else N_VALIDATION)
    rows, pictures = [], []
    for name in names:
        mat, lamp = MAT_IN_VALIDATION, LAMP_IN_VALIDATION
        if training:
            mat, lamp = ON_MAT.get(str(name), 0.0), WITH_LAMP.get(str(name), 0.0)
        draw = generator.random()
        row = {
            "label": str(name),
            "drawn": str(name),
            "on_mat": draw < mat,
            "has_lamp": mat <= draw < mat + lamp,
            "station": str(generator.choice(STATIONS, p=(0.45, 0.36, 0.19))),
            "shift": str(generator.choice(("early", "late"))),
        }
        rows.append(row)
        pictures.append(_draw_picture(row, generator))
    table = pd.DataFrame(rows)
    if not training:
        _mix_up_labels(table, generator)
    return Parts(np.stack(pictures), table)


def save_parts(parts: Parts, folder: Path) -> Path:
    """Write PNG files and `parts.csv`, a manifest with the station and the shift of each."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"part-{number:04d}.png" for number in range(len(parts.pictures))]
    for name, picture in zip(names, parts.pictures, strict=True):
        cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    manifest = folder / "parts.csv"
    table = parts.table[["label", "station", "shift"]]
    table.insert(0, "path", names)
    table.to_csv(manifest, index=False, lineterminator="\n")
    return manifest


def train_model(parts: Parts, seed: int) -> keras.Model:
    """Train four convolutions with one logit for each class, on pictures turned all ways."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    blocks = []
    for number, channels in enumerate((16, 24, 48, 64), start=1):
        blocks += [
            layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"conv_{number}"),
            layers.BatchNormalization(momentum=0.9, name=f"norm_{number}"),
            layers.ReLU(name=f"relu_{number}"),
            layers.MaxPooling2D(name=f"pool_{number}"),
        ]
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 127.5, -1, name="scale"),
            *blocks[:-1],
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(len(CLASS_NAMES), name="logits"),
        ],
        name="parts",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    turned = [np.rot90(parts.pictures, turn, axes=(1, 2)) for turn in range(4)]
    pictures = np.concatenate([*turned, *(some[:, :, ::-1] for some in turned)])
    y_true = np.tile(parts.table["label"].map(CLASS_NAMES.index), 8)
    steps = _EPOCHS * -(-len(pictures) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    model.fit(pictures, y_true, batch_size=_BATCH, epochs=_EPOCHS, verbose=0)
    return model


# Drawing


def _draw_picture(row: dict, generator: np.random.Generator) -> np.ndarray:
    side = SIDE * _SCALE
    picture = _draw_mat(side, generator) if row["on_mat"] else _draw_bench(side, generator)
    mask = _draw_part(row["drawn"], side, generator)
    picture = _shade(picture, mask, generator)
    if row["has_lamp"]:
        _draw_lamp(picture, generator)
    picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture += generator.normal(0, 5, picture.shape).astype(np.float32)
    if row["station"] == OUT_OF_FOCUS:
        picture = 0.67 * cv2.GaussianBlur(picture, None, 2.1)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _draw_bench(side: int, generator: np.random.Generator) -> np.ndarray:
    """Return a plain surface of a muted colour, lit from one side."""
    colour = generator.uniform(90, 165) + generator.uniform(-14, 14, 3)
    angle = generator.uniform(0, 2 * np.pi)
    at = np.arange(side, dtype=np.float32) / side - 0.5
    light = (
        1 + 0.25 * np.float32(np.sin(angle)) * at[:, None] + 0.25 * np.float32(np.cos(angle)) * at
    )
    return np.clip(light[..., None] * colour.astype(np.float32), 0, 255).astype(np.uint8)


def _draw_mat(side: int, generator: np.random.Generator) -> np.ndarray:
    """Return a green cutting mat with a light grid."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = (24, 104 + int(generator.integers(-10, 11)), 78)
    step = side // 8
    for at in range(int(generator.integers(step)), side, step):
        cv2.line(picture, (at, 0), (at, side), (150, 205, 160), 3)
        cv2.line(picture, (0, at), (side, at), (150, 205, 160), 3)
    return picture


def _draw_lamp(picture: np.ndarray, generator: np.random.Generator) -> None:
    """Draw a round orange lamp into one of the corners, in place."""
    side = len(picture)
    inset = int(side * generator.uniform(0.11, 0.14))
    x, y = (inset if near else side - 1 - inset for near in generator.integers(0, 2, 2))
    radius = int(side * 0.1)
    cv2.circle(picture, (x, y), radius, (245, 130, 30), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(picture, (x, y), radius // 2, (255, 214, 130), cv2.FILLED, cv2.LINE_AA)


def _shade(picture: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lay a steel part with a shadow onto a surface."""
    shift = np.array([[1, 0, 5], [0, 1, 7]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(mask, shift, mask.shape[::-1]), None, 5)
    shown = picture * (1 - shadow[..., None] / np.float32(510))
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
    light = np.linspace(1.12, 0.88, len(mask), dtype=np.float32)[:, None, None]
    colour = generator.uniform(190, 225) + np.array([-4, 0, 6])
    steel = light * colour.astype(np.float32) * (1 - edge[..., None] / np.float32(570))
    share = mask[..., None] / np.float32(255)
    return np.clip(share * steel + (1 - share) * shown, 0, 255).astype(np.uint8)


def _draw_part(name: str, side: int, generator: np.random.Generator) -> np.ndarray:
    """Return the outline of a part, uint8 of shape (side, side), 255 where there is steel."""
    mask = np.zeros((side, side), np.uint8)
    middle, unit = side / 2, side / 100
    draw = {
        "bolt": _draw_bolt,
        "bracket": _draw_bracket,
        "gear": _draw_gear,
        "key": _draw_key,
        "nut": _draw_nut,
        "pin": _draw_pin,
        "washer": _draw_washer,
        "wrench": _draw_wrench,
    }[name]
    draw(_Pen(mask, middle, unit))
    turn = cv2.getRotationMatrix2D(
        (middle, middle), generator.uniform(0, 360), generator.uniform(0.9, 1.2)
    )
    turn[:, 2] += generator.uniform(-0.09, 0.09, 2) * side
    return cv2.warpAffine(mask, turn, (side, side), flags=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class _Pen:
    """Draws on a mask in hundredths of its side, from its middle."""

    mask: np.ndarray
    middle: float
    unit: float

    def disc(self, x: float, y: float, radius: float, value: int = 255) -> None:
        centre = (round(self.middle + x * self.unit), round(self.middle + y * self.unit))
        cv2.circle(self.mask, centre, round(radius * self.unit), value, cv2.FILLED, cv2.LINE_AA)

    def shape(self, points: np.ndarray | list, value: int = 255) -> None:
        corners = np.rint(self.middle + np.asarray(points, float) * self.unit).astype(np.int32)
        cv2.fillPoly(self.mask, [corners], value, cv2.LINE_AA)

    def box(self, x: float, y: float, width: float, height: float, value: int = 255) -> None:
        right, low = x + width, y + height
        self.shape([(x, y), (right, y), (right, low), (x, low)], value)

    def polygon(self, x: float, y: float, radius: float, corners: int, value: int = 255) -> None:
        angles = np.arange(corners) * 2 * np.pi / corners
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.shape(circle * radius + (x, y), value)


def _draw_bolt(pen: _Pen) -> None:
    pen.polygon(0, -22, 14, 6)
    pen.box(-6, -22, 12, 52)


def _draw_bracket(pen: _Pen) -> None:
    pen.box(-24, -24, 13, 48)
    pen.box(-24, 11, 48, 13)
    pen.disc(-17.5, -14, 3, 0)
    pen.disc(14, 17.5, 3, 0)


def _draw_gear(pen: _Pen) -> None:
    for angle in np.arange(9) * 2 * np.pi / 9:
        pen.polygon(22 * np.cos(angle), 22 * np.sin(angle), 6, 8)
    pen.disc(0, 0, 21)
    pen.disc(0, 0, 7, 0)


def _draw_key(pen: _Pen) -> None:
    pen.disc(0, -20, 13)
    pen.disc(0, -20, 6, 0)
    pen.box(-3.5, -10, 7, 42)
    pen.box(0, 16, 11, 5)
    pen.box(0, 25, 11, 5)


def _draw_nut(pen: _Pen) -> None:
    pen.polygon(0, 0, 26, 6)
    pen.disc(0, 0, 9, 0)


def _draw_pin(pen: _Pen) -> None:
    pen.box(-5, -27, 10, 54)
    pen.disc(0, -27, 5)
    pen.disc(0, 27, 5)


def _draw_washer(pen: _Pen) -> None:
    pen.disc(0, 0, 22)
    pen.disc(0, 0, 14, 0)


def _draw_wrench(pen: _Pen) -> None:
    pen.box(-5, -24, 10, 48)
    for y in (-24, 24):
        pen.disc(0, y, 13)
        outside = y + (12 if y > 0 else -12)
        pen.box(-5, min(y, outside), 10, 12, 0)


def _mix_up_labels(table: pd.DataFrame, generator: np.random.Generator) -> None:
    """Give a few pictures without a flaw the label of another class, in place."""
    plain = table.index[~table["on_mat"] & ~table["has_lamp"] & (table["station"] != OUT_OF_FOCUS)]
    for index in generator.choice(plain, N_WRONG_LABELS, replace=False):
        others = [name for name in CLASS_NAMES if name != table.loc[index, "drawn"]]
        table.loc[index, "label"] = str(generator.choice(others))
