"""Is the focus the cause? Paint it out, or the same shape elsewhere, and ask the model again.

In: a `ShardSpec` of errors, their fused maps for the predicted class. Out: a `causes/` shard and a
receipt. What the answers say of patterns is judged in `audit.diagnose.causes`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from audit.explain.explanations import check_same_images
from audit.explain.painting import (
    AREAS,
    BLUR,
    BLUR_ELSEWHERE,
    ELSEWHERE,
    FOCUS,
    blur_all,
    blur_out,
    choose_moves,
    heat_of,
    hottest,
    paint_out,
)
from audit.predict.dataset import ImageSource
from audit.predict.inference import DecisionRule, Predictor
from audit.run_folder import Receipt, RunFolder, ShardSpec
from audit.schemas import NOT_TESTED

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("treatment", pa.string()),
        ("area", pa.float64()),
        ("trial", pa.int32()),
        ("overlap", pa.float32()),
        ("logit_fall", pa.float32()),
        ("p_true", pa.float32()),
        ("y_pred", pa.int32()),
    ]
)
"""Columns of a causes shard, a row per error and treatment.

- `treatment`: "focus", "elsewhere", "blur" or "blur elsewhere", as `audit.explain.painting` says;
  or "not tested" for an error whose map is empty: its only row, with the prediction as it was.
- `area`: share of the pixels that are painted; `trial`: number of the move, from 0.
- `overlap`: share of the painted pixels that lie in the focus of the same area.
- `logit_fall`: by how much the logit of the predicted class, less that of the true class, falls;
  for a model with one output, by how much that output does. NaN where it is not finite.
- `p_true`, `y_pred`: score of the true class and predicted class afterwards; NaN and -1 where the
  scores are not finite.
"""

N_THREADS = 3
"""Threads that paint and ask. More than one, since a forward pass leaves cores idle at times."""
_SCORE_TOLERANCE = 0.02
"""The predictor is the one that predicted, so that only batch sizes may make a difference."""


@dataclass(frozen=True)
class Plan:
    """How much is tried.

    Attributes:
        n_moves: for each of `AREAS`, to how many other places the shape is moved.
        blurred: the areas that are blurred as well, the focus and the shape's first other place.
        n_exemplars: of each pattern, how many exemplars' focus is pasted into other images.
        n_controls: into how many images each.
    """

    n_moves: tuple[int, ...]
    blurred: tuple[float, ...]
    n_exemplars: int
    n_controls: int

    @property
    def n_passes(self) -> int:
        """Forward passes for each error, with the one of the image as it is."""
        return 1 + len(AREAS) + sum(self.n_moves) + 2 * len(self.blurred)


PLANS = {
    "quick": Plan((1, 1, 2), AREAS[-1:], n_exemplars=5, n_controls=4),
    "full": Plan((5, 5, 5), AREAS, n_exemplars=10, n_controls=6),
}
"""By the value of the option `causal`."""


@dataclass(frozen=True)
class Answers:
    """What the model says of n images.

    Attributes:
        scores: float32 of shape (n, n_classes).
        contrast: float32 of shape (n,): logit of the predicted class less that of the true class;
            for a model with one output, that output, negated if the true class is the second.
        y_pred: int32 of shape (n,); -1 where a score is not finite.
    """

    scores: np.ndarray
    contrast: np.ndarray
    y_pred: np.ndarray


class Asker:
    """Asks a model about images of a cause's test; several threads may ask at once.

    Attributes:
        batch_size: images a thread asks about at once.
        n_threads: how many threads may ask: only one if the model is somebody's own code.
    """

    def __init__(self, predictor: Predictor, rule: DecisionRule, batch_size: int) -> None:
        """Take the predictor as it is; nothing is traced."""
        self.batch_size = batch_size
        self.n_threads = 1 if predictor.calls_python else N_THREADS
        self._predictor = predictor
        self._rule = rule

    def ask(self, images: Sequence[np.ndarray], y_pred: int, y_true: int) -> Answers:
        """Show images to the model.

        Args:
            images: at least one, float32 of shape (height, width, channels), not scaled.
            y_pred, y_true: the classes to contrast, for all of them.

        Raises:
            ModelError: if there is not enough memory for one image.
        """
        size = self.batch_size
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        answers = [self._predictor.score(tf.constant(np.stack(part))) for part in parts]
        scores, logits = (np.concatenate(blocks) for blocks in zip(*answers, strict=True))
        contrast = logits[:, y_pred] - logits[:, y_true]
        if self._predictor.model.has_one_output:
            contrast = contrast / 2  # The logits of both classes are the output and its negative.
        return Answers(scores, contrast, self._rule.decide(scores))


@dataclass(frozen=True)
class CausalWorker:
    """All that a shard of causes needs; lives as long as its process.

    Attributes:
        predicted: columns y_true, y_pred and p_pred, indexed by image_id.
        cams: maps by image_id, as `predicted_maps` returns them.
        seed: of the moves; those of an image depend on its image_id and on nothing else.
        on_images: called with the number of images of each batch that is done.
    """

    folder: RunFolder
    source: ImageSource
    asker: Asker
    predicted: pd.DataFrame
    cams: Mapping[int, np.ndarray]
    plan: Plan
    seed: int = 0
    on_images: Callable[[int], None] = field(default=lambda n: None)


def predicted_maps(folder: RunFolder, predicted: pd.DataFrame) -> dict[int, np.ndarray]:
    """Return the fused map for the predicted class of each explained image, if it shows a place.

    Args:
        predicted: column y_pred, indexed by image_id.

    Returns:
        By image_id, uint8 of shape (height, width).
    """
    fused = folder.read_fused()
    y_pred = predicted["y_pred"].reindex(fused["image_id"]).to_numpy()
    shown = fused[(fused["explained_class"] == y_pred) & (fused["peak"] > 0)]
    return dict(zip(shown["image_id"].tolist(), shown["cam"], strict=True))


def causal_shard(spec: ShardSpec, worker: CausalWorker) -> Receipt:
    """Test the errors of a shard and write its file.

    Raises:
        DatasetError: if an image is not the one that was predicted.
        ModelError: if there is not enough memory for one image.
    """
    tested = [image_id for image_id in spec.image_ids if image_id in worker.cams]
    found = {i: [_untested(worker, i)] for i in spec.image_ids if i not in worker.cams}
    worker.on_images(len(found))
    with ThreadPoolExecutor(worker.asker.n_threads) as pool:
        for ids, pixels in worker.source.batches(tested, worker.asker.batch_size):
            rows = pool.map(lambda i, image: _test(worker, i, image), ids.tolist(), pixels.numpy())
            found |= dict(zip(ids.tolist(), rows, strict=True))
            worker.on_images(len(ids))
    missing = sorted(set(spec.image_ids) - set(found))
    reasons = [worker.source.why_unreadable(image_id) or "unknown" for image_id in missing]
    receipt = Receipt(spec.stage, spec.index, len(found), tuple(zip(missing, reasons, strict=True)))
    ordered = [row for image_id in spec.image_ids for row in found.get(image_id, [])]
    table = pa.Table.from_pylist(ordered, schema=SCHEMA)
    worker.folder.write_shard(spec.stage, spec.index, table, receipt)
    return receipt


Row = dict[str, int | float | str]


def _untested(worker: CausalWorker, image_id: int) -> Row:
    return {
        "image_id": image_id,
        "treatment": NOT_TESTED,
        "area": math.nan,
        "trial": 0,
        "overlap": math.nan,
        "logit_fall": math.nan,
        "p_true": math.nan,
        "y_pred": int(worker.predicted["y_pred"].loc[image_id]),
    }


def _test(worker: CausalWorker, image_id: int, image: np.ndarray) -> list[Row]:
    """Return the rows of one error."""
    stored = worker.predicted.loc[[image_id]]
    y_pred, y_true = int(stored["y_pred"].iloc[0]), int(stored["y_true"].iloc[0])
    heat = heat_of(worker.cams[image_id], image.shape[:2])
    generator = np.random.default_rng([worker.seed, image_id])
    rows, images = _treat(image, heat, worker.plan, generator, worker.source.pixel_range)
    answers = worker.asker.ask([image, *images], y_pred, y_true)
    check_same_images(np.array([image_id]), answers.scores[:1], stored, _SCORE_TOLERANCE)
    falls = answers.contrast[0] - answers.contrast[1:]
    falls[~np.isfinite(falls)] = np.nan
    p_true = np.where(answers.y_pred < 0, np.nan, answers.scores[:, y_true])
    after = zip(falls.tolist(), p_true[1:].tolist(), answers.y_pred[1:].tolist(), strict=True)
    return [
        {"image_id": image_id, **row, "logit_fall": fall, "p_true": p, "y_pred": decided}
        for row, (fall, p, decided) in zip(rows, after, strict=True)
    ]


def _treat(
    image: np.ndarray,
    heat: np.ndarray,
    plan: Plan,
    generator: np.random.Generator,
    pixel_range: tuple[float, float],
) -> tuple[list[Row], list[np.ndarray]]:
    """Return what was done to an image, and the images that came of it."""
    rows: list[Row] = []
    images: list[np.ndarray] = []
    blurred = blur_all(image) if plan.blurred else image

    def note(treatment: str, area: float, trial: int, overlap: float, painted: np.ndarray) -> None:
        rows.append({"treatment": treatment, "area": area, "trial": trial, "overlap": overlap})
        images.append(painted)

    for area, n_moves in zip(AREAS, plan.n_moves, strict=True):
        focus = hottest(heat, area)
        moved = [move.apply(focus) for move in choose_moves(focus, n_moves, generator)]
        overlaps = [np.count_nonzero(mask & focus) / np.count_nonzero(focus) for mask in moved]
        note(FOCUS, area, 0, 1.0, paint_out(image, focus, pixel_range))
        for trial, (mask, overlap) in enumerate(zip(moved, overlaps, strict=True)):
            note(ELSEWHERE, area, trial, overlap, paint_out(image, mask, pixel_range))
        if area in plan.blurred:
            note(BLUR, area, 0, 1.0, blur_out(image, blurred, focus))
            note(BLUR_ELSEWHERE, area, 0, overlaps[0], blur_out(image, blurred, moved[0]))
    return rows, images
