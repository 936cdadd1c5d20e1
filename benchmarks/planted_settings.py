"""Make settings in which we know why a model is wrong: artefacts, flipped labels, or nothing.

    python benchmarks/planted_settings.py SOURCE CACHE [--settings NAME …] [--held-out]

SOURCE holds `cats_dogs` (photographs and the ImageNet backbone). Each setting becomes a folder of
CACHE: `val/<class>/`, `model.keras`, `truth.csv` (a column of 0 and 1 for each artefact),
`setting.json`, and for some `pool/`, unlabelled pictures of which a tenth carry the artefact.
Whatever carries an artefact in training is called the class that the artefact pulls to, so the
model takes the artefact for the class; in validation both classes carry it. `setting.json` says how
many errors carry each artefact, and how many of these are right on the same picture without it.
Same seed, same pictures and weights on the same machine.
"""

import argparse
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from planted_artefacts import HELD_OUT, Strength
from planted_sets import SIDE, Backbone, _encode_jpeg, _read_rgb

Source = Literal["photographs", "digits"]
Null = Literal["drawn errors", "random head", "clean"]

DIGIT_SIDE = 32


@dataclass(frozen=True)
class Planted:
    """One artefact of a setting.

    Attributes:
        kind: a key of `ARTEFACTS`.
        rate: share of the validation pictures of each class that carry it.
        strength: how plain it is.
        towards: the class that the model takes it for.
    """

    kind: str
    rate: float
    strength: Strength = "strong"
    towards: str = "dogs"


@dataclass(frozen=True)
class Setting:
    """What is planted, and how much of it.

    Attributes:
        name: of its folder, and the seed of all that is drawn.
        n_images: validation pictures.
        artefacts: a picture carries at most one of them.
        flips: share of the validation pictures filed under another class.
        null: nothing is planted. "drawn errors": a random head, and labels drawn so that errors
            have nothing to do with the picture; "random head": a random head and the real classes;
            "clean": a head trained as it should be.
        pool: whether there is an unlabelled pool.
    """

    name: str
    n_images: int
    artefacts: tuple[Planted, ...] = ()
    flips: float = 0
    null: Null | None = None
    source: Source = "photographs"
    pool: bool = False

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(artefact.kind for artefact in self.artefacts)

    @property
    def held_out(self) -> bool:
        return bool(set(self.kinds) & set(HELD_OUT))


def _one(
    kind: str, rate: float, strength: Strength, n_images: int, *, pool: bool = False
) -> Setting:
    name = f"{kind}-{rate * 100:.0f}-{strength}"
    return Setting(name, n_images, (Planted(kind, rate, strength),), pool=pool)


def _digits(name: str, n_images: int, *artefacts: Planted, **more: Any) -> Setting:
    return Setting(f"digits-{name}", n_images, artefacts, source="digits", **more)


SETTINGS = (
    _one("bars", 0.5, "strong", 300, pool=True),
    _one("bars", 0.05, "strong", 600),
    _one("bars", 0.2, "weak", 400),
    _one("sticker", 0.5, "strong", 300),
    _one("sticker", 0.05, "strong", 600),
    _one("sticker", 0.2, "weak", 400, pool=True),
    _one("frame", 0.5, "strong", 300),
    _one("frame", 0.1, "weak", 500, pool=True),
    _one("texture", 0.3, "strong", 300, pool=True),
    _one("texture", 0.1, "weak", 500),
    _one("object", 0.5, "strong", 300),
    _one("object", 0.08, "strong", 600, pool=True),
    _one("object", 0.3, "weak", 400),
    Setting("bars-sticker", 400, (Planted("bars", 0.2), Planted("sticker", 0.2))),
    Setting(
        "frame-texture-opposed",
        400,
        (Planted("frame", 0.2), Planted("texture", 0.2, towards="cats")),
    ),
    Setting(
        "bars-object-sticker",
        500,
        (Planted("bars", 0.15), Planted("object", 0.1), Planted("sticker", 0.05)),
    ),
    Setting(
        "object-frame-bars-mixed",
        500,
        (
            Planted("object", 0.15, "weak"),
            Planted("frame", 0.1, towards="cats"),
            Planted("bars", 0.08, "weak"),
        ),
    ),
    Setting("object-blur", 400, (Planted("object", 0.2), Planted("blur", 0.2))),
    Setting("sticker-cast", 400, (Planted("sticker", 0.2), Planted("colour_cast", 0.2))),
    Setting("bars-flips", 500, (Planted("bars", 0.2),), flips=0.05),
    Setting("texture-flips", 500, (Planted("texture", 0.15, "weak"),), flips=0.02),
    _one("blur", 0.3, "strong", 300),
    _one("blur", 0.2, "weak", 400),
    _one("colour_cast", 0.3, "strong", 300),
    _one("colour_cast", 0.2, "weak", 400),
    Setting("flips-2", 500, flips=0.02),
    Setting("flips-5", 500, flips=0.05),
    Setting("flips-10", 400, flips=0.1),
    _digits("bars", 300, Planted("bars", 0.3, towards="8"), pool=True),
    _digits("sticker", 500, Planted("sticker", 0.08, towards="3")),
    _digits("object", 400, Planted("object", 0.2, "weak", towards="5")),
    _digits(
        "frame-bars", 400, Planted("frame", 0.1, towards="0"), Planted("bars", 0.1, towards="1")
    ),
    _digits("blur", 400, Planted("blur", 0.15, towards="9")),
    _digits("flips", 500, flips=0.05),
    *(Setting(f"null-drawn-{i}", 300, null="drawn errors") for i in (1, 2, 3, 4)),
    *(_digits(f"null-drawn-{i}", 400, null="drawn errors") for i in (1, 2)),
    *(Setting(f"null-head-{i}", 500, null="random head") for i in (1, 2)),
    Setting("clean", 500, null="clean"),
    _digits("clean", 500, null="clean"),
)
"""All that may be looked at while something is tuned."""

HELD_OUT_SETTINGS = (
    _one("watermark", 0.4, "strong", 300, pool=True),
    _one("watermark", 0.06, "strong", 600),
    _one("watermark", 0.2, "weak", 400),
    _one("date_stamp", 0.4, "strong", 300, pool=True),
    _one("date_stamp", 0.06, "strong", 600),
    _one("date_stamp", 0.2, "weak", 400),
    Setting("watermark-date", 400, (Planted("watermark", 0.2), Planted("date_stamp", 0.2))),
)


# Pictures


@dataclass
class Pictures:
    """All clean pictures of a source.

    Attributes:
        pixels: uint8 of shape (n, side, side, 3), RGB, before they are written.
        labels: int of shape (n,).
        class_names: by label.
        features: float32 of shape (n, width) of the frozen backbone; digits have none.
    """

    pixels: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    features: np.ndarray | None = None

    @property
    def suffix(self) -> str:
        return ".jpg" if self.features is not None else ".png"


def load_photographs(source: Path, cache: Path, backbone: Backbone) -> Pictures:
    """Read the photographs and their features, the second time from the cache."""
    files = cache / ".clean"
    paths = sorted((source / "cats_dogs" / "val").glob("*/*.jpg"))
    class_names = ("cats", "dogs")
    labels = np.array([class_names.index(path.parent.name) for path in paths])
    if not (files / "features.npy").is_file():
        files.mkdir(parents=True, exist_ok=True)
        pixels = np.stack([_shrink(_read_rgb(path)) for path in paths])
        np.save(files / "pixels.npy", pixels)
        np.save(files / "features.npy", backbone.features(map(as_read, pixels)))
    pixels = np.load(files / "pixels.npy", mmap_mode="r")
    return Pictures(pixels, labels, class_names, np.load(files / "features.npy"))


def load_digit_pictures() -> Pictures:
    """Return scikit-learn's handwritten digits as grey pictures of 32 × 32, white on black."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.stack([_enlarge(scan) for scan in digits.images])
    return Pictures(pixels, digits.target, tuple("0123456789"))


def as_read(picture: np.ndarray) -> np.ndarray:
    """Return a picture as an audit reads it from its JPEG; OpenCV decodes a little otherwise."""
    import tensorflow as tf

    return tf.io.decode_jpeg(_encode_jpeg(picture).tobytes(), channels=3).numpy()


def _shrink(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _enlarge(scan: np.ndarray) -> np.ndarray:
    margin = 4
    side = DIGIT_SIDE - 2 * margin
    grey = cv2.resize(
        (scan * (255 / 16)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    framed = cv2.copyMakeBorder(grey, *[margin] * 4, cv2.BORDER_CONSTANT, value=0)
    return np.repeat(np.clip(framed, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


# Command line


def generate(settings: Sequence[Setting], source: Path, cache: Path) -> None:
    """Make each setting's folder, and print in one line how its model is wrong."""
    from planted_making import Classifier, DigitClassifier, PhotographClassifier, make_setting

    weights = source / "cats_dogs" / "models" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    photographs = backbone = None
    if any(setting.source == "photographs" for setting in settings):
        backbone = Backbone(weights)
        photographs = load_photographs(source, cache, backbone)
    digits = load_digit_pictures()
    for setting in settings:
        begin = time.perf_counter()
        classifier: Classifier
        if setting.source == "digits":
            pictures, classifier = digits, DigitClassifier(digits, setting.seed)
        else:
            assert photographs is not None and backbone is not None
            pictures, classifier = photographs, PhotographClassifier(photographs, backbone)
        described = make_setting(setting, pictures, classifier, cache / setting.name)
        seconds = time.perf_counter() - begin
        print(f"{setting.name}: {_sentence(described)}, {seconds:.0f} s", flush=True)


def _sentence(described: dict[str, Any]) -> str:
    parts = [f"{described['n_errors']} of {described['n_images']} wrong"]
    for planted in described["artefacts"]:
        repaired = "–" if planted["repaired"] is None else f"{planted['repaired']:.0%}"
        counts = f"{planted['n_errors']} of {planted['n_carrying']} wrong"
        parts.append(f"{planted['kind']} {counts}, {repaired} right without")
    if described["n_flipped"]:
        parts.append(f"{described['n_flipped_errors']} of {described['n_flipped']} flips wrong")
    return "; ".join(parts)


def choose(names: Sequence[str] | None, *, held_out: bool) -> list[Setting]:
    """Return the settings of these names; of all that are, or are not, held out without names."""
    among = HELD_OUT_SETTINGS if held_out else SETTINGS
    unknown = set(names or ()) - {setting.name for setting in among}
    if unknown:
        raise SystemExit(f"No such settings: {', '.join(sorted(unknown))}.")
    return [setting for setting in among if names is None or setting.name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("cache", type=Path, help="a folder outside the project")
    parser.add_argument("--settings", nargs="+", metavar="NAME")
    parser.add_argument("--held-out", action="store_true", help="only the kinds kept apart")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    chosen = choose(arguments.settings, held_out=arguments.held_out)
    generate(chosen, arguments.source, arguments.cache)


if __name__ == "__main__":
    main()
