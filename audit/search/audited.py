"""The model of a run once more, and pixels as it got them then.

In: a run's manifest, and a model if the user gives one. Out: the same model, refused if it is not.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from audit.config import AuditConfig
from audit.errors import DatasetError, ModelError
from audit.places import Place, is_url, place, without_secrets
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.model import AuditedModel, load_model, wrap_model
from audit.run_folder import RunFolder
from audit.search.scoring import in_range

_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))
_TRIALS = 32
_MOST_DIFFERENCE = 0.15
"""So far the scores of pictures may be, on average, from those they got before they became JPEGs.

Those of 192 photographs, half of them errors, differ by 0.04; in another range by 0.45.
"""


def config_of(manifest: dict[str, Any]) -> AuditConfig:
    """Return the options of a run."""
    known = AuditConfig.model_fields
    return AuditConfig(**{name: v for name, v in manifest["config"].items() if name in known})


def batch_size_of(manifest: dict[str, Any]) -> int:
    """Return how many images went through the model at once when a run predicted."""
    return int(manifest["config"]["batch_size"] or manifest["batch_size"])


def rule_of(manifest: dict[str, Any]) -> DecisionRule:
    """Return how a run turned scores into classes."""
    positive = manifest["positive_class"]
    index = None if positive is None else manifest["class_names"].index(positive)
    return DecisionRule(index, float(manifest["config"]["threshold"]))


def open_model(
    manifest: dict[str, Any],
    given: "str | Place | keras.Model | Callable[[Any], Any] | None" = None,
    *,
    trust_model_code: bool = False,
) -> AuditedModel:
    """Load the model that a run audited.

    A run folder may come from anybody. So what it says of trust in the model's code is not heeded,
    and nothing is fetched because it names a URL.

    Args:
        given: where it is now, or the live model; by default it is where it was.
        trust_model_code: whether code in the file may be run.

    Raises:
        ModelError: if it is not there, or another one, or needs a trust that was not given.
    """
    config, recorded = config_of(manifest), manifest["model"].get("path")
    size = tuple(manifest["input"][name] for name in ("height", "width", "channels"))
    if given is None and recorded is None:
        raise ModelError(
            "The run does not say where its model is. Received: a run of a model in memory. Say"
            " where the model is saved, with `--model`."
        )
    if given is None and recorded is not None and is_url(recorded):
        raise ModelError(
            "The run's model is behind a URL, which is not opened only because a run folder names"
            f" it. Received: `{without_secrets(recorded)}`. If you trust what is there, give it"
            " with `--model`."
        )
    if given is None and recorded is not None and not place(recorded).exists():
        raise ModelError(
            f"The run's model is gone. Received: no file at `{recorded}`. Say where it is now, with"
            " `--model`."
        )
    wrap = partial(wrap_model, head=config.head, output=config.output, input_shape=size)
    model = recorded if given is None else given
    if isinstance(model, str | Place):
        audited = load_model(
            place(model),
            head=config.head,
            output=config.output,
            trust_model_code=trust_model_code,
            input_shape=size,
        )
    else:
        audited = wrap(model)
    expected = manifest["fingerprints"]["model"]
    found = audited.fingerprint
    if found != expected and recorded is None:  # It was audited live, and has been saved since.
        found = wrap(audited.model).fingerprint
    if found != expected:
        raise ModelError(
            f"`{audited.name}` is not the model of the run. Received: a model with the fingerprint"
            f" {found[:12]}, the run's has {expected[:12]}. Give the model that was audited."
        )
    return audited


def find_pixel_range(
    folder: RunFolder, manifest: dict[str, Any], predictor: Predictor
) -> tuple[float, float]:
    """Return which values stood for black and white in the run.

    Files always have 0 to 255. A dataset in memory may have been prepared in any way, so the model
    is shown pictures that it saw then, in the usual ranges.

    Raises:
        DatasetError: if in none of them the model says of the pictures what it said then.
    """
    if manifest["data"]["kind"] != "dataset":
        return _RANGES[0]
    seen = _seen_pictures(folder, predictor.model)
    differences = dict.fromkeys(_RANGES, np.inf)
    for reach in _RANGES if seen else ():
        pixels = in_range(tf.constant(np.stack([pixels for pixels, _, _ in seen])), reach)
        scores = predictor.predict(pixels)[0].numpy()
        gaps = [row[y_pred] - p for row, (_, y_pred, p) in zip(scores, seen, strict=True)]
        differences[reach] = float(np.abs(gaps).mean())
    best = min(differences, key=lambda reach: differences[reach])
    if not differences[best] <= _MOST_DIFFERENCE:
        raise DatasetError(
            "The images of the pool cannot be shown to the model as those of the run were."
            " Received: a run of a dataset in memory, whose pictures get other scores as files of 0"
            " to 255, 0 to 1 or -1 to 1. Audit the images as files, with `--scaling`."
        )
    return best


def _seen_pictures(folder: RunFolder, model: AuditedModel) -> list[tuple[np.ndarray, int, float]]:
    """Return stored pictures as float32 pixels of 0 to 255, their class and its probability."""
    predicted = folder.read_predictions().set_index("image_id")[["y_pred", "p_pred"]]
    height, width = model.input_size
    flag = cv2.IMREAD_COLOR_RGB if model.channels == 3 else cv2.IMREAD_GRAYSCALE
    stored = (
        row
        for shard in folder.iter_shards("thumbnails", ["image_id", "jpeg"])
        for row in shard.itertuples(index=False, name=None)
    )
    seen = []
    for image_id, jpeg in islice(stored, _TRIALS):
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag)
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = resized.reshape(height, width, model.channels).astype(np.float32)
        seen.append((pixels, int(predicted["y_pred"][image_id]), predicted["p_pred"][image_id]))
    return seen
