"""The reverse test: paste the focus of typical errors into correct images, and ask the model again.

In: patterns with their exemplars, and the fused maps. Out: a row per pasted image. What they say of
a pattern is counted in `audit.diagnose.causes`.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.explain.causal import Asker, Plan
from audit.explain.painting import AREAS, ELSEWHERE, FOCUS, choose_moves, heat_of, hottest, paste
from audit.predict.dataset import ImageSource

SCHEMA = pa.schema(
    [
        ("pattern", pa.int32()),
        ("source", pa.int64()),
        ("control", pa.int64()),
        ("kind", pa.string()),
        ("y_pred_before", pa.int32()),
        ("y_pred_after", pa.int32()),
        ("logit_after", pa.float32()),
    ]
)
"""Columns of `pastes.parquet`. `paste_focus` says what each of them means."""

PASTED_AREA = AREAS[-1]
"""The share of the pixels that is pasted: as much as is painted out at most."""
_POOL_SIZE = 12
"""Correct images of a class that the controls are drawn from: all are held in memory."""


@dataclass(frozen=True)
class _Exemplar:
    pattern: int
    image_id: int
    y_true: int
    y_pred: int
    controls: tuple[int, ...]


def paste_focus(
    patterns: pd.DataFrame,
    predicted: pd.DataFrame,
    cams: Mapping[int, np.ndarray],
    source: ImageSource,
    asker: Asker,
    plan: Plan,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Paste what each pattern's exemplars look at into correct images of their true class.

    The focus, the hottest `PASTED_AREA` of the pixels, is pasted where it was, with a soft edge.
    For comparison the same place of the same image is covered with another part of the exemplar:
    what lies under the shape after one of the moves that painting out makes, brought back. So what
    is covered, and the seam, are the same both times.

    Args:
        patterns: columns `pattern` and `exemplars` (image ids, the most typical first); those that
            are not errors, or have no map, are passed over.
        predicted: columns y_true and y_pred of all predictions, indexed by image_id.
        cams: maps by image_id, as `audit.explain.causal.predicted_maps` returns them.
        seed: of the controls and the moves.

    Returns:
        Two rows for each exemplar and control, in the order of patterns, exemplars, controls:

        - `pattern`; `source`: the exemplar's image_id; `control`: the image pasted into.
        - `kind`: "focus" or "elsewhere", what was pasted.
        - `y_pred_before`: predicted for the control as it is, its true class; `y_pred_after`: with
          the paste, -1 where a score is not finite.
        - `logit_after`: logit of the class that the exemplar is taken for, less that of the true
          class; NaN where it is not finite.

        Images that can no longer be read are left out.
    """
    exemplars = _choose_exemplars(patterns, predicted, cams, plan, seed)
    ids = sorted({i for e in exemplars for i in (e.image_id, *e.controls)})
    images = {
        image_id: image
        for batch, pixels in source.batches(ids, asker.batch_size)
        for image_id, image in zip(batch.tolist(), pixels.numpy(), strict=True)
    }

    def rows_of(exemplar: _Exemplar) -> list[dict[str, object]]:
        return _paste_one(exemplar, images, cams[exemplar.image_id], asker, seed)

    with ThreadPoolExecutor(asker.n_threads) as pool:
        rows = [row for rows in pool.map(rows_of, exemplars) for row in rows]
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()


def _choose_exemplars(
    patterns: pd.DataFrame,
    predicted: pd.DataFrame,
    cams: Mapping[int, np.ndarray],
    plan: Plan,
    seed: int,
) -> list[_Exemplar]:
    """Return the exemplars of all patterns, each with its controls."""
    is_right = predicted["y_true"] == predicted["y_pred"]
    right = predicted.index[is_right].to_numpy()
    labels = predicted["y_true"][is_right].to_numpy()
    pools: dict[int, np.ndarray] = {}
    chosen = []
    for pattern, image_ids in zip(patterns["pattern"], patterns["exemplars"], strict=True):
        usable = [int(i) for i in image_ids if int(i) in cams and not is_right[int(i)]]
        for image_id in usable[: plan.n_exemplars]:
            y_true, y_pred = (int(predicted[name][image_id]) for name in ("y_true", "y_pred"))
            if y_true not in pools:
                pools[y_true] = _draw(right[labels == y_true], _POOL_SIZE, [seed, y_true])
            controls = _draw(pools[y_true], plan.n_controls, [seed, image_id])
            chosen.append(_Exemplar(int(pattern), image_id, y_true, y_pred, tuple(controls)))
    return chosen


def _draw(image_ids: np.ndarray, count: int, seed: list[int]) -> np.ndarray:
    """Return up to `count` of some ids, in order."""
    count = min(count, len(image_ids))
    return np.sort(np.random.default_rng(seed).choice(image_ids, count, replace=False))


def _paste_one(
    exemplar: _Exemplar,
    images: Mapping[int, np.ndarray],
    cam: np.ndarray,
    asker: Asker,
    seed: int,
) -> list[dict[str, object]]:
    controls = [i for i in exemplar.controls if i in images]
    if exemplar.image_id not in images or not controls:
        return []
    image = images[exemplar.image_id]
    focus = hottest(heat_of(cam, image.shape[:2]), PASTED_AREA)
    generator = np.random.default_rng([seed, exemplar.image_id])
    moves = choose_moves(focus, len(controls), generator)
    pasted = []
    for control, move in zip(controls, moves, strict=True):
        pasted.append(paste(images[control], image, focus))
        pasted.append(paste(images[control], move.undo(image), focus))
    answers = asker.ask(pasted, exemplar.y_pred, exemplar.y_true)
    logits = np.where(np.isfinite(answers.contrast), answers.contrast, np.nan)
    return [
        {
            "pattern": exemplar.pattern,
            "source": exemplar.image_id,
            "control": int(controls[number // 2]),
            "kind": (FOCUS, ELSEWHERE)[number % 2],
            "y_pred_before": exemplar.y_true,
            "y_pred_after": int(answers.y_pred[number]),
            "logit_after": float(logits[number]),
        }
        for number in range(len(pasted))
    ]
