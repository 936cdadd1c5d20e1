"""A run with a target, and a pool to search, both drawn: the target is about red squares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import drawn_set
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from audit.config import make_config
from audit.engines.local import cut_shards, run_shards
from audit.explain.explanations import encode_thumbnail
from audit.explain.maps import Explainer
from audit.explain.pooling import focus_rows, focus_shard
from audit.inputs import Inputs
from audit.manifest import describe_model, open_manifest
from audit.predict.inference import PredictWorker, predict_shard
from audit.run_folder import Receipt, RunFolder
from audit.schemas import FOCUS_STAGE, SCHEMAS

N_POOL, N_RED = 40, 10


def make_run(path: Path, model: Any, data: Any, *, focus: bool = True, **options: Any) -> RunFolder:
    """Predict the drawn images and write by hand what later stages would: target T1, its focus."""
    inputs = Inputs(model, data, make_config({**drawn_set.SHARDS, **options}))
    folder, names = RunFolder(path), inputs.listing.class_names
    prints = {"model": inputs.model_fingerprint(), "data": inputs.listing.fingerprint()}
    options = inputs.config.model_dump(mode="json")
    manifest = open_manifest(folder, inputs.listing, inputs.data_name, prints, options)
    saved = inputs.model_input if isinstance(inputs.model_input, Path) else None
    manifest |= describe_model(inputs.model, saved, inputs.config)
    manifest["positive_class"] = names[1]
    folder.write_manifest(manifest)
    folder.write_table("images", inputs.listing.images)
    ids = inputs.listing.images["image_id"].tolist()
    run_shards(
        folder,
        cut_shards("predictions", ids, 20),
        predict_shard,
        lambda: PredictWorker(folder, inputs.source, inputs.predictor, inputs.rule, 8),
    )
    predictions = folder.read_predictions()
    wrong = predictions[predictions["y_true"] != predictions["y_pred"]]
    fooled = wrong[wrong["y_pred"] == 1]
    explained = wrong["image_id"].tolist()
    batches = list(inputs.source.batches(explained, 64))
    pixels = np.concatenate([part.numpy() for _, part in batches])
    reach = inputs.source.pixel_range
    thumbnails = [(i, *encode_thumbnail(p, reach)) for i, p in zip(explained, pixels, strict=True)]
    columns = [list(c) for c in zip(*thumbnails, strict=True)]
    receipt = Receipt("explanations", 0, len(explained))
    folder.write_shard("thumbnails", 0, pa.table(columns, schema=SCHEMAS["thumbnails"]), receipt)
    if focus:
        _write_focus(folder, inputs, wrong, pixels)
    rows = [{"image_id": int(i), "role": "error"} for i in fooled["image_id"]]
    target = {"id": "T1", "kind": "collect", "title": "Collect red squares", "text": "As drawn."}
    folder.write_json("targets", {"targets": [target]})
    folder.write_json("targets/T1", {"target": "T1", "images": rows})
    return folder


def _write_focus(
    folder: RunFolder, inputs: Inputs, explained: pd.DataFrame, pixels: np.ndarray
) -> None:
    """Write what the stage `explain` would: features under the fused maps."""
    classes = explained[["y_pred", "y_true"]].to_numpy()
    explainer, rows, width = Explainer(inputs.model), [], 0
    for start in range(0, len(explained), 8):
        part = slice(start, start + 8)
        focus = explainer.explain(tf.constant(pixels[part]), classes[part]).focus
        assert focus is not None
        width = focus.embeddings.shape[-1]
        for index, image_id in enumerate(explained["image_id"][part].tolist()):
            rows += focus_rows(image_id, classes[start + index].tolist(), focus, index)
    receipt = Receipt("explanations", 0, len(explained))
    folder.write_shard(FOCUS_STAGE, 0, focus_shard(rows, width), receipt)


def draw_pool(folder: Path) -> list[str]:
    """Write a pool of 40 images, and return the paths of the 10 with a red square somewhere."""
    red = []
    for number in range(N_POOL):
        rng = np.random.default_rng([9, number])
        image = (rng.integers(0, 40, (48, 64, 1)) + np.zeros(3, int)).astype(np.uint8)
        path = f"{('', 'a/', 'a/b/')[number % 3]}{number:03d}.png"
        colour = (220, 20, 0) if number < N_RED else (0, 20, 220) if number < 20 else None
        if colour:
            top, left = red_square(number)
            image[top : top + 14, left : left + 18] = colour
        if number < N_RED:
            red.append(path)
        drawn_set.save_image(folder / path, image)
    return sorted(red)


def red_square(number: int) -> tuple[int, int]:
    """Return the top and left of the square of an image of 48 × 64 pixels."""
    rng = np.random.default_rng([7, number])
    return int(rng.integers(0, 34)), int(rng.integers(0, 46))


def damage(path: Path) -> None:
    """Leave only the beginning of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()[:40])


def paths_of(table: pd.DataFrame, top: int | None = None) -> Sequence[str]:
    return sorted(table["path"][:top])


def for_pixels_of(scale: float, offset: float) -> keras.Model:
    """Return the drawn model for pixels that were scaled."""
    drawn = drawn_set.corner_model()
    inputs = keras.Input((drawn_set.SIDE, drawn_set.SIDE, 3))
    whole = keras.layers.Rescaling(1 / scale, offset=-offset / scale)(inputs)
    return keras.Model(inputs, drawn(whole), name="scaled")
