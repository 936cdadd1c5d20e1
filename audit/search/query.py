"""What is looked for: the images of a target, as the audit saw them.

In: a run folder and the id of a target. Out: a `Query`. Needs no TensorFlow.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.errors import RunFolderError
from audit.run_folder import RunFolder

MOST_IMAGES = 30
"""The most typical images of a target say what it is; the last of a long list may blur it."""

_ERROR = "error"
_PATTERN = "pattern"
_NOT_KNOWN = (
    "Only whole images were compared: of the target's images it is not known what the model looked"
    " at."
)
_NOT_OF_A_PLACE = "Whole images were compared: the target is not about a place in them."
_FOCUS = "focus_embeddings"


@dataclass(frozen=True)
class Query:
    """What the images of a target look like to the model.

    Attributes:
        target: the entry of `targets.json`.
        image_ids: the images, the most typical first.
        whole: float32 of shape (n, width): the embeddings of the whole images.
        mean, deviation: float32 of shape (width,): of the embeddings of all images of the run.
        focus: float32 of shape (k, channels): the features that the model looked at in those of
            them that were explained; `None` if there are none, or none are wanted.
        why_whole: why there are none, as a sentence, or "".
    """

    target: dict[str, Any]
    image_ids: tuple[int, ...]
    whole: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    focus: np.ndarray | None
    why_whole: str = ""

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that the likeness depends on."""
        digest = hashlib.sha256(json.dumps(self.image_ids).encode())
        for part in (self.whole, self.mean, self.deviation, self.focus):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def read_query(folder: RunFolder, target_id: str) -> Query:
    """Return what is known of a target's images.

    Raises:
        RunFolderError: if the run has no such target, or the target has no images to go by.
    """
    target = _find_target(folder, target_id)
    ids = _typical_images(folder, target_id)
    mean, deviation = _moments(shard["embedding"] for shard in folder.iter_shards("embeddings"))
    wanted = set(ids)
    embeddings = {
        image_id: embedding
        for shard in folder.iter_shards("embeddings")
        for image_id, embedding in zip(shard["image_id"], shard["embedding"], strict=True)
        if image_id in wanted
    }
    is_of_pattern = _rests_on_a_pattern(folder, target)
    focus = _focus(folder, ids) if is_of_pattern else None
    why = "" if focus is not None else _NOT_KNOWN if is_of_pattern else _NOT_OF_A_PLACE
    whole = np.stack([embeddings[image_id] for image_id in ids]).astype(np.float32)
    return Query(target, ids, whole, mean, deviation, focus, why)


def _find_target(folder: RunFolder, target_id: str) -> dict[str, Any]:
    targets = folder.read_json("targets")["targets"] if _has_targets(folder) else []
    for target in targets:
        if target["id"] == target_id:
            return dict(target)
    known = ", ".join(target["id"] for target in targets)
    raise RunFolderError(
        f"The run in `{folder.path}` has no target `{target_id}`. Received:"
        f" {f'targets {known}' if known else 'a run without targets'}."
        f" {'Name one of these.' if known else 'There is nothing to look for.'}"
    )


def _has_targets(folder: RunFolder) -> bool:
    return (folder.path / "targets.json").is_file()


def _rests_on_a_pattern(folder: RunFolder, target: dict[str, Any]) -> bool:
    """Tell whether a target is about what the model looks at, and not about whole images."""
    path = folder.path / "findings.json"
    findings = folder.read_json("findings")["findings"] if path.is_file() else []
    kinds = {finding["id"]: finding["kind"] for finding in findings}
    return kinds.get(next(iter(target.get("findings", ())), None), _PATTERN) == _PATTERN


def _typical_images(folder: RunFolder, target_id: str) -> tuple[int, ...]:
    """Return the images that the target is about: its errors, or else all that it names."""
    rows = pd.DataFrame(folder.read_json(f"targets/{target_id}")["images"])
    rows = rows[rows["image_id"].notna()] if len(rows) else rows
    if rows.empty:
        raise RunFolderError(
            f"Target `{target_id}` names no images to go by. Received: 0 images that the model"
            " predicted. Look for another target."
        )
    errors = rows[rows["role"] == _ERROR]
    chosen = rows if errors.empty else errors
    return tuple(chosen["image_id"].astype(int).drop_duplicates()[:MOST_IMAGES].tolist())


def _focus(folder: RunFolder, ids: tuple[int, ...]) -> np.ndarray | None:
    """Return the features under the focus of the predicted class, in the order of the images."""
    if not folder.shard_indices(_FOCUS):
        return None
    y_pred = folder.read_predictions().set_index("image_id")["y_pred"].to_dict()
    found = {
        image_id: np.asarray(embedding, np.float32)
        for shard in folder.iter_shards(_FOCUS)
        for image_id, explained, embedding in shard[
            ["image_id", "explained_class", "embedding"]
        ].itertuples(index=False, name=None)
        if image_id in ids and explained == y_pred[image_id]
    }
    seen = [found[i] for i in ids if i in found and np.isfinite(found[i]).all() and found[i].any()]
    return np.stack(seen) if seen else None


def _moments(columns: Iterable[pd.Series]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of vectors that come in parts."""
    moments = Moments()
    for column in columns:
        moments.add(np.stack(list(column)))
    return moments.mean_and_deviation()


class Moments:
    """Mean and deviation of each channel, of vectors that come in parts."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, vectors: np.ndarray) -> None:
        """Add vectors of shape (n, channels)."""
        vectors = vectors.astype(np.float64)
        self.n += len(vectors)
        self._sums = self._sums + vectors.sum(axis=0)
        self._squares = self._squares + np.square(vectors).sum(axis=0)

    def mean_and_deviation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 of shape (channels,) each.

        A channel that hardly varies is divided by a thousandth of the usual deviation, so that its
        rounding errors do not decide.
        """
        mean = self._sums / self.n
        deviation = np.sqrt(np.maximum(self._squares / self.n - mean**2, 0))
        least = 1e-3 * max(float(deviation.mean()), 1e-12)
        return np.asarray(mean, np.float32), np.maximum(deviation, least).astype(np.float32)


def direction(vectors: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return the unit vector that some vectors have in common, once each channel is standardised.

    Args:
        vectors: of shape (n, channels).

    Returns:
        float32 of shape (channels,).
    """
    standard = (vectors - mean) / deviation
    units = standard / np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)
    common = units.mean(axis=0)
    return (common / max(float(np.linalg.norm(common)), 1e-12)).astype(np.float32)
