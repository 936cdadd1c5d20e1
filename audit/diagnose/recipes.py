"""Augmentations that the evidence asks for, as Python text that runs.

In: rows of the probes table. Out: a Keras preprocessing pipeline. A remedy is offered only against
what correct images were shown to break under, at the strength at which they did.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.diagnose.tables import conditions_of, side_of
from audit.diagnose.transformations import TRANSFORMATIONS
from audit.diagnose.wording import ALPHA, one_line, phrase
from audit.schemas import records

SHOWN_BY: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("brightness", -1): ("brightness",),
    ("brightness", 1): ("brightness",),
    ("contrast", -1): ("contrast",),
    ("contrast", 1): ("contrast",),
    ("sharpness", -1): ("blur",),
    ("sharpness", 1): ("noise",),
    ("edge_density", -1): ("blur",),
    ("edge_density", 1): ("noise",),
    ("noise", 1): ("noise",),
    ("red_green", -1): ("colour cast",),
    ("red_green", 1): ("colour cast",),
    ("blue_yellow", -1): ("colour cast",),
    ("blue_yellow", 1): ("colour cast",),
    ("saturation", -1): ("grey",),
    ("saturation", 1): ("colour cast",),
    ("size", -1): ("blur",),
    ("file_size", -1): ("JPEG", "blur"),
}
"""The transformations that move an image's property to its low (-1) or high (1) side."""

SHAPES: Mapping[str, tuple[str, ...]] = {
    "bars": ("stripe", "bar", "mesh", "grid", "line", "upright", "flat", "slanting"),
    "corner patch": ("corner",),
}
"""The transformations that draw what a focus pattern with one of these words in its name shows."""

ANY_SHAPE = "cut-out"
"""What imitates a focus of any other shape."""

MOST_LOST = 0.5
"""Beyond this fall an image may have lost what makes it one of its class."""

_VALUES = {transformation.name: transformation.values for transformation in TRANSFORMATIONS}
_RANGE = re.compile(r"value_range=\(([-\d.e]+), ([-\d.e]+)\)")


@dataclass(frozen=True)
class _OwnLayer:
    """A layer that Keras does not have: its class, its source, and its arguments from a value."""

    name: str
    source: str
    value: str


_JPEG = _OwnLayer(
    "RandomJPEG",
    '''\
class RandomJPEG(keras.layers.Layer):
    """Code each image as a JPEG of a random quality."""

    def __init__(self, lowest_quality, value_range):
        super().__init__()
        self.lowest_quality, self.value_range = int(lowest_quality), value_range

    def call(self, images, training=True):
        return tf.map_fn(self.code, images) if training else images

    def code(self, image):
        low, high = self.value_range
        coded = tf.clip_by_value((image - low) * (255 / (high - low)), 0, 255)
        coded = tf.cast(tf.round(coded), tf.uint8)
        coded = tf.image.random_jpeg_quality(coded, self.lowest_quality, 100)
        return tf.cast(coded, image.dtype) * ((high - low) / 255) + low
''',
    "lowest_quality",
)
_BARS = _OwnLayer(
    "RandomBars",
    '''\
class RandomBars(keras.layers.Layer):
    """Draw five bars over every other image, upright or flat, dark or light."""

    def __init__(self, share, value_range, rate=0.5):
        super().__init__()
        self.share, self.value_range, self.rate = share, value_range, rate
        self.seeds = keras.random.SeedGenerator()

    def call(self, images, training=True):
        if not training:
            return images
        ops, (low, high) = keras.ops, self.value_range
        n, height, width = ops.shape(images)[:3]
        down = ops.reshape((ops.arange(height, dtype="float32") + 0.5) / height, (1, -1, 1, 1))
        across = ops.reshape((ops.arange(width, dtype="float32") + 0.5) / width, (1, 1, -1, 1))
        place = ops.where(self.draw(n) < 0.5, across + 0 * down, down + 0 * across)
        covered = (5 * place + self.draw(n)) % 1 < self.share * self.draw(n)
        shade = low + (high - low) * ops.where(self.draw(n) < 0.5, 0.1, 0.9)
        drawn = ops.logical_and(covered, self.draw(n) < self.rate)
        return ops.where(drawn, ops.cast(shade, images.dtype), images)

    def draw(self, n):
        return keras.random.uniform((n, 1, 1, 1), seed=self.seeds)
''',
    "share",
)
_COLOUR_CAST = _OwnLayer(
    "RandomColourCast",
    '''\
class RandomColourCast(keras.layers.Layer):
    """Make each of red, green and blue stronger or weaker by a random share."""

    def __init__(self, share, value_range):
        super().__init__()
        self.share, self.value_range = share, value_range
        self.seeds = keras.random.SeedGenerator()

    def call(self, images, training=True):
        if not training:
            return images
        low, high = self.value_range
        shape = (keras.ops.shape(images)[0], 1, 1, 3)
        gains = keras.random.uniform(shape, 1 - self.share, 1 + self.share, seed=self.seeds)
        return keras.ops.clip((images - low) * gains + low, low, high)
''',
    "share",
)
_OWN = {"JPEG": _JPEG, "bars": _BARS, "colour cast": _COLOUR_CAST}
"""What Keras cannot do. It shifts hues, but that leaves grey as it is; a colour cast does not."""


def sensitive_to(probes: pd.DataFrame, transformation: str) -> dict[str, Any] | None:
    """Return the probe that shows a model to be sensitive, or `None` if none does.

    Of the strengths at which the fall is significant (q < 0.05) it is the strongest that still
    leaves half of the correct images right, so that there is something left to learn from; if none
    does, the mildest.
    """
    if probes.empty:
        return None
    chosen = probes[(probes["transformation"] == transformation) & (probes["q_value"] < ALPHA)]
    rows = sorted(records(chosen), key=lambda row: int(row["strength"]))
    mild = [row for row in rows if row["fall"] <= MOST_LOST]
    return mild[-1] if mild else rows[0] if rows else None


def probes_of_slice(probes: pd.DataFrame, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the probes that break correct images in the way a slice's images differ."""
    names = [
        name
        for condition in conditions_of(row)
        for name in SHOWN_BY.get((condition["column"], side_of(condition)), ())
    ]
    return _sensitive(probes, names)


def probes_of_pattern(probes: pd.DataFrame, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the probes that draw what a focus pattern looks at, or else hide parts at random."""
    words = str(row["name"]).lower()
    names = [name for name, signs in SHAPES.items() if any(sign in words for sign in signs)]
    return _sensitive(probes, names) or _sensitive(probes, [ANY_SHAPE])


def write_recipe(broken: Sequence[Mapping[str, Any]], probes: pd.DataFrame, reason: str) -> str:
    """Write a pipeline that trains against what some probes did.

    Args:
        broken: rows of the probes table, at least one.
        probes: the table.
        reason: the evidence in a sentence, for the comment at the top.

    Returns:
        Python text that defines `augment`, a `keras.Sequential` for batches of images.
    """
    low, high = _pixel_range(probes)
    own = [_OWN[name] for row in broken if (name := row["transformation"]) in _OWN]
    imports = ["import keras"] + ["import tensorflow as tf"] * any("tf." in o.source for o in own)
    calls = [line for row in broken for line in _layers(row, (low, high)).splitlines()]
    layers = "".join(f"        {call},\n" for call in calls)
    shown = "; ".join(
        f"{phrase(row['transformation'])} ({phrase(row['parameter'])})" for row in broken
    )
    return (
        f"# {one_line(reason)}\n"
        f"# Up to the strength that was shown to matter: {shown}.\n"
        + "\n".join(imports)
        + "\n\n"
        + "".join(f"\n{layer.source}\n" for layer in own)
        + ("\n" if own else "")
        + f"augment = keras.Sequential(\n    [\n{layers}    ],\n"
        '    name="augment",\n)\n'
        f"# For batches of float32 images of {low:g} to {high:g}, before `--scaling`, in training"
        " only:\n"
        "# train = train.map(lambda images, labels: (augment(images, training=True), labels))\n"
    )


def _sensitive(probes: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = [sensitive_to(probes, name) for name in dict.fromkeys(names)]
    return [row for row in rows if row is not None]


def _layers(row: Mapping[str, Any], reach: tuple[float, float]) -> str:
    """Return the calls that make the layers, one a line."""
    name, strength = str(row["transformation"]), int(row["strength"])
    if name in _OWN:
        own = _OWN[name]
        value = _VALUES[name][strength - 1]
        return f"{own.name}({own.value}={value:g}, value_range=({reach[0]:g}, {reach[1]:g}))"
    return str(row["recipe"])


def _pixel_range(probes: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the pixels that the probes' recipes are for."""
    for recipe in probes["recipe"]:
        if found := _RANGE.search(recipe):
            return float(found[1]), float(found[2])
    return 0.0, 255.0
