"""How fragile is the model: show it correct images once more, changed, and count what turns wrong.

In: a predictor, the images, the predictions. Out: the rows of `probes.parquet`, one for each
transformation and strength.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import binom, false_discovery_control

from audit.diagnose.transformations import TRANSFORMATIONS, Image, Transformation
from audit.predict.intervals import wilson_interval

if TYPE_CHECKING:
    from audit.predict.dataset import ImageSource
    from audit.predict.inference import DecisionRule, Predictor

FEWEST_IMAGES = 16
MOST_IMAGES = 200
_IMAGES_A_PROBE = 125
"""One image in so many is probed. It takes 17 to 45 forward passes, about 20 for a usual model, so
that probing takes less than a fifth of the passes that predicting took, once there are enough."""

TOLERATED = 0.05
"""A fall up to this is no news: some images are always on the brink."""

SCHEMA = pa.schema(
    [
        ("transformation", pa.string()),
        ("strength", pa.int32()),
        ("parameter", pa.string()),
        ("n_images", pa.int32()),
        ("n_right", pa.int32()),
        ("fall", pa.float64()),
        ("fall_low", pa.float64()),
        ("fall_high", pa.float64()),
        ("p_value", pa.float64()),
        ("q_value", pa.float64()),
        ("recipe", pa.string()),
    ]
)
"""Columns of `probes.parquet`.

`recipe`: Keras layers that train a model against it, as Python, one a line; "" if there are none.
"""


def probe_model(
    predictor: "Predictor",
    source: "ImageSource",
    rule: "DecisionRule",
    predictions: pd.DataFrame,
    *,
    seed: int = 0,
    batch_size: int = 32,
    on_images: Callable[[int], None] = lambda n: None,
) -> pd.DataFrame:
    """Change a sample of correct images in fifteen ways at three strengths and ask again.

    `fall` is the share of the sample that is wrong at a strength and at all stronger ones, so that
    it never falls as the strength rises. An image that stands the strongest is not shown the milder
    ones, which saves more than half of the passes. The three flips are no strengths of one another;
    each counts for itself. `p_value` is of an exact binomial test that the fall is at most 5 %, and
    `q_value` is corrected over all rows after Benjamini and Hochberg.

    Args:
        predictor: the model, traced.
        source: the images.
        rule: how scores become a class.
        predictions: columns image_id, y_true and y_pred; the sample is drawn from the correct ones.
        seed: of the sample, and of the places and signs of the transformations.
        batch_size: images at once.
        on_images: called with the number of images of each batch that is done.

    Returns:
        Columns as in `SCHEMA`, in the order of `TRANSFORMATIONS`: three rows for each, without
        those that need colour if the model sees none. No rows where no image is correct.

    Raises:
        ModelError: if memory does not suffice for one image.
    """
    channels = predictor.model.channels
    tried = [t for t in TRANSFORMATIONS if channels == 3 or not t.needs_colour]
    sample = sample_correct(predictions, sample_size(len(predictions)), seed)
    truth = predictions.set_index("image_id")["y_true"]
    probe = _Probe(predictor, rule, source.pixel_range, tried, seed, batch_size)
    blocks = []
    for ids, pixels in source.batches(sample.tolist(), batch_size):
        blocks.append(probe.wrong(ids, pixels.numpy(), truth.loc[ids].to_numpy()))
        on_images(len(ids))
    if not blocks:
        return SCHEMA.empty_table().to_pandas()
    wrong = np.concatenate(blocks, axis=2)
    return _table(tried, wrong, min(predictor.model.input_size), source.pixel_range)


def sample_size(n_predicted: int) -> int:
    """Return how many images are probed in an audit of so many."""
    return int(np.clip(n_predicted // _IMAGES_A_PROBE, FEWEST_IMAGES, MOST_IMAGES))


def sample_correct(predictions: pd.DataFrame, size: int, seed: int) -> np.ndarray:
    """Draw correct images, as many of each class as of any other where there are enough.

    Args:
        predictions: columns image_id, y_true and y_pred.

    Returns:
        int64 image ids in ascending order, `size` of them or all that are correct.
    """
    correct = predictions[predictions["y_true"] == predictions["y_pred"]]
    shuffled = correct.sample(frac=1, random_state=np.random.default_rng(seed))
    turn = shuffled.groupby("y_true").cumcount()
    chosen = shuffled.loc[turn.sort_values(kind="stable").index[:size], "image_id"]
    return np.sort(chosen.to_numpy(np.int64))


class _Probe:
    """Shows a model changed images."""

    def __init__(
        self,
        predictor: "Predictor",
        rule: "DecisionRule",
        pixel_range: tuple[float, float],
        tried: Sequence[Transformation],
        seed: int,
        batch_size: int,
    ) -> None:
        self._predictor, self._rule = predictor, rule
        self._low, self._span = pixel_range[0], pixel_range[1] - pixel_range[0]
        self._tried, self._seed = tried, seed
        self._batch_size = batch_size

    def wrong(self, ids: np.ndarray, pixels: np.ndarray, y_true: np.ndarray) -> np.ndarray:
        """Return bool of shape (transformations, 3, n): wrong at a strength and all stronger."""
        images = (pixels - np.float32(self._low)) / np.float32(self._span)
        wrong = np.ones((len(self._tried), 3, len(ids)), bool)
        for strength in (3, 2, 1):
            asked = [
                (number, index)
                for number, transformation in enumerate(self._tried)
                for index in range(len(ids))
                if strength == 3
                or not transformation.nested
                or wrong[number, strength, index]  # at the next stronger one
            ]
            changed = (
                self._tried[number].apply(
                    images[index], strength, (self._seed, int(ids[index]), number)
                )
                for number, index in asked
            )
            y_pred = self._decide(changed)
            numbers, indices = np.array(asked, int).reshape(-1, 2).T
            answers = np.zeros(wrong.shape[::2], bool)
            answers[numbers, indices] = y_pred != y_true[indices]
            wrong[:, strength - 1] = answers
        return wrong

    def _decide(self, images: Iterator[Image]) -> np.ndarray:
        """Return the predicted class of each image, int32 of shape (n,)."""
        decided = [np.empty(0, np.int32)]
        waiting: list[Image] = []
        for image in images:
            waiting.append(image)
            if len(waiting) >= self._batch_size:
                decided.append(self._predict(np.stack(waiting)))
                waiting = []
        if waiting:
            decided.append(self._predict(np.stack(waiting)))
        return np.concatenate(decided)

    def _predict(self, images: np.ndarray) -> np.ndarray:
        """Return the predicted classes of a batch."""
        pixels = images * np.float32(self._span) + np.float32(self._low)
        scores, _ = self._predictor.predict(pixels)
        return self._rule.decide(scores.numpy())


def _table(
    tried: Sequence[Transformation], wrong: np.ndarray, side: int, pixel_range: tuple[float, float]
) -> pd.DataFrame:
    """Return a row for each transformation and strength, from bool of shape (t, 3, n)."""
    n_images = wrong.shape[2]
    n_wrong = wrong.sum(axis=2).reshape(-1)
    low, high = wilson_interval(n_wrong, n_images)
    p_values = binom.sf(n_wrong - 1, n_images, TOLERATED)
    rows = [(t, strength, t.values[strength - 1]) for t in tried for strength in (1, 2, 3)]
    return pd.DataFrame(
        {
            "transformation": [t.name for t, _, _ in rows],
            "strength": np.array([strength for _, strength, _ in rows], np.int32),
            "parameter": [t.words(value) for t, _, value in rows],
            "n_images": np.int32(n_images),
            "n_right": (n_images - n_wrong).astype(np.int32),
            "fall": n_wrong / n_images,
            "fall_low": low,
            "fall_high": high,
            "p_value": p_values,
            "q_value": false_discovery_control(p_values, method="bh"),
            "recipe": [t.recipe(value, side, pixel_range) for t, _, value in rows],
        }
    )
