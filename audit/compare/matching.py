"""The same images in several runs: matched by path, or else by content; classes by name.

In: run folders. Out: labels, predictions and scores of the images that all runs have, side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.conditions import OBJECT
from audit.diagnose.wording import printable
from audit.errors import RunFolderError
from audit.places import Place
from audit.predict.properties import MEASURES
from audit.run_folder import RunFolder

_FILE_FACTS = ["width", "height", "file_size"]
_VIEW = ("height", "width", "channels", "aspect", "interpolation")
"""What decides which pixels a model sees of a file; scaling comes after they are measured."""
_SAME_BITS = 4
"""Bits of the hash by which two copies of an image may differ, made by other versions of a library;
those of different photographs differ by about 32."""
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ComputedMaps:
    """Maps that a run lacked and that were made for a comparison.

    Attributes:
        folder: where they are kept, as the explanations of a run are: `explanations/`, `layers`
            left out, and `thumbnails/`.
        maps: image_id, explained_class, peak, cam, as `RunFolder.read_fused` returns.
        n_wanted: of an image and a class.
        left_out: path and reason of the images that could not be explained.
    """

    folder: RunFolder
    maps: pd.DataFrame
    n_wanted: int
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ComparedRun:
    """A finished run that is compared with others.

    Attributes:
        label: what it is called in the comparison.
        predictions: image_id, path, y_true, y_pred, p_true, p_pred, margin; ordered by image_id.
        scores: float32 of shape (n, n_classes), rows as `predictions`, classes in the run's order.
        computed: maps made with its model for this comparison, `None` if none were asked for.
    """

    label: str
    folder: RunFolder
    manifest: dict[str, Any]
    predictions: pd.DataFrame
    scores: np.ndarray
    computed: ComputedMaps | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.manifest["class_names"])

    @cached_property
    def properties(self) -> pd.DataFrame | None:
        """What was measured of each image, rows as `predictions`; `None` if nothing was."""
        shards = list(self.folder.iter_shards("properties"))
        if not shards:
            return None
        measured = pd.concat(shards, ignore_index=True).set_index("image_id")
        if self.folder.table_path("objects").is_file():
            measured[OBJECT] = self.folder.read_table("objects").set_index("image_id")[OBJECT]
        return measured.reindex(self.predictions["image_id"]).reset_index()

    def table(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """Return a table, without rows if the run did not come to write it."""
        if not self.folder.table_path(name).is_file():
            return pd.DataFrame(columns=list(columns))
        return self.folder.read_table(name)


@dataclass(frozen=True)
class MatchCounts:
    """How the images of a run were matched with those of the first.

    Attributes:
        n_images: with a prediction in this run.
        n_by_path, n_by_content: matched; the latter under another path.
        n_replaced: of the same path, but with another content.
        n_ambiguous: of the same content as several others, so that nothing says which is which.
        n_relabelled: matched, but with another true class; they are left out.
        knows_content: whether contents could be compared. The hash is of what the model saw, so
            both models have to see images in the same size.
    """

    n_images: int
    n_by_path: int
    n_by_content: int
    n_replaced: int
    n_ambiguous: int
    n_relabelled: int
    knows_content: bool


@dataclass(frozen=True)
class MatchedRuns:
    """The images that all runs have, and what each run says of them.

    Attributes:
        runs: in the order given.
        counts: by run; the first is matched with itself.
        class_names: in the order of the first run; all classes below are in this order.
        positive: the positive class of the first run, `None` if it has none.
        paths: str of shape (n,), as the first run has them.
        image_ids: int64 of shape (n_runs, n).
        y_true: int64 of shape (n,).
        y_pred: int64 of shape (n_runs, n).
        scores: float32 of shape (n_runs, n, n_classes).
    """

    runs: tuple[ComparedRun, ...]
    counts: tuple[MatchCounts, ...]
    class_names: tuple[str, ...]
    positive: int | None
    paths: np.ndarray
    image_ids: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    scores: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        """Whether each run is right, bool of shape (n_runs, n)."""
        return np.asarray(self.y_pred == self.y_true)

    def class_order(self, run: int) -> np.ndarray:
        """Return the class of the first run for each class of another, int64 of shape (n,)."""
        return _class_order(self.runs[run].class_names, self.class_names)


def open_compared(path: Place | str, label: str) -> ComparedRun:
    """Read what is compared of a run.

    Raises:
        RunFolderError: if it is no run, has another format version, or is not finished.
    """
    folder = RunFolder.open(path)
    manifest = folder.read_manifest()
    if manifest["status"] != "done":
        raise RunFolderError(
            f"`{path}` is not finished. Received: a run with the status"
            f" {printable(manifest['status'])!r}. Start the same `gradcam-audit run` again, and"
            " compare when it is done."
        )
    return ComparedRun(label, folder, manifest, folder.read_predictions(), folder.read_scores())


def match_runs(runs: Sequence[ComparedRun]) -> MatchedRuns:
    """Find the images that all runs have.

    Every run is matched with the first: an image by its path, if size and, where both models see
    images in the same way, looks agree; of what is left, by its content, if only one image in each
    run has it. Images that one of the runs lacks, or that have another true class in it, are left
    out: a new label is no change of the model.

    Args:
        runs: two or more.

    Raises:
        RunFolderError: if the classes differ, or no image is in all runs.
    """
    first = runs[0]
    for run in runs[1:]:
        _refuse_other_classes(first, run)
    n = len(first.predictions)
    rows = pd.DataFrame({"first": np.arange(n)})
    counts = [MatchCounts(n, n, 0, 0, 0, 0, first.properties is not None)]
    for position, run in enumerate(runs[1:], start=1):
        pairs, counted = match_pair(first, run)
        counts.append(counted)
        rows = rows.merge(pairs.rename(columns={"other": f"run {position}"}), on="first")
    if rows.empty:
        raise RunFolderError(_nothing_in_common(runs, counts))
    return _side_by_side(runs, counts, rows.sort_values("first").to_numpy(np.int64).T)


def match_pair(first: ComparedRun, other: ComparedRun) -> tuple[pd.DataFrame, MatchCounts]:
    """Match the images of two runs.

    Returns:
        Columns first, other: rows of `predictions`, int64; and how they were found.
    """
    row_of = pd.Index(other.predictions["path"]).get_indexer(first.predictions["path"])
    by_path = pd.DataFrame({"first": np.flatnonzero(row_of >= 0), "other": row_of[row_of >= 0]})
    same_view = all(
        first.manifest["input"].get(name) == other.manifest["input"].get(name) for name in _VIEW
    )
    knows_content = same_view and first.properties is not None and other.properties is not None
    is_same = _same_content(first.properties, other.properties, by_path, same_view)
    by_path, n_replaced = by_path[is_same], int(np.count_nonzero(~is_same))
    by_content, n_ambiguous = pd.DataFrame({"first": [], "other": []}, dtype=np.int64), 0
    if knows_content:
        by_content, n_ambiguous = _match_content(first.properties, other.properties, by_path)
    pairs = pd.concat([by_path, by_content], ignore_index=True)
    order = _class_order(other.class_names, first.class_names)
    y_first = first.predictions["y_true"].to_numpy(np.int64)[pairs["first"]]
    y_other = order[other.predictions["y_true"].to_numpy(np.int64)[pairs["other"]]]
    counts = MatchCounts(
        n_images=len(other.predictions),
        n_by_path=len(by_path),
        n_by_content=len(by_content),
        n_replaced=n_replaced,
        n_ambiguous=n_ambiguous,
        n_relabelled=int(np.count_nonzero(y_first != y_other)),
        knows_content=knows_content,
    )
    return pairs[y_first == y_other].reset_index(drop=True), counts


def _same_content(
    first: pd.DataFrame | None, other: pd.DataFrame | None, pairs: pd.DataFrame, same_view: bool
) -> np.ndarray:
    """Tell for images of one path whether nothing speaks against their being the same."""
    if first is None or other is None:
        return np.ones(len(pairs), bool)
    one, two = first.iloc[pairs["first"]], other.iloc[pairs["other"]]
    # What comes from no file has no size; NaN stands for it on both sides.
    facts = [frame[_FILE_FACTS].to_numpy(np.float64, na_value=np.nan) for frame in (one, two)]
    same = ((facts[0] == facts[1]) | np.isnan(facts[0]) | np.isnan(facts[1])).all(axis=1)
    if same_view:
        known = one["hash"].notna().to_numpy() & two["hash"].notna().to_numpy()
        hashes = [frame["hash"].fillna(0).to_numpy(np.uint64) for frame in (one, two)]
        same &= ~known | (np.bitwise_count(hashes[0] ^ hashes[1]) <= _SAME_BITS)
    return np.asarray(same)


def _match_content(
    first: pd.DataFrame | None, other: pd.DataFrame | None, taken: pd.DataFrame
) -> tuple[pd.DataFrame, int]:
    """Match the images that are not taken yet by size, hash and all that was measured of them."""
    assert first is not None
    assert other is not None
    keys = [*_FILE_FACTS, "hash", *MEASURES]
    sides = []
    for name, properties in (("first", first), ("other", other)):
        left = properties[~np.isin(np.arange(len(properties)), taken[name])]
        left = left[left["hash"].notna()]
        sides.append(left.assign(**{name: left.index}, alike=left.duplicated(keys, keep=False)))
    found = sides[0][[*keys, "first", "alike"]].merge(
        sides[1][[*keys, "other", "alike"]], on=keys, suffixes=("", "_other")
    )
    is_clear = ~(found["alike"] | found["alike_other"])
    n_ambiguous = int(found.loc[~is_clear, "other"].nunique())
    return found.loc[is_clear, ["first", "other"]].astype(np.int64), n_ambiguous


def _side_by_side(
    runs: Sequence[ComparedRun], counts: Sequence[MatchCounts], rows: np.ndarray
) -> MatchedRuns:
    """Take the matched rows of every run; `rows` is int64 of shape (n_runs, n)."""
    first = runs[0]
    names = first.class_names
    orders = [_class_order(run.class_names, names) for run in runs]
    taken = [run.predictions.iloc[chosen] for run, chosen in zip(runs, rows, strict=True)]
    positive = first.manifest["positive_class"]
    return MatchedRuns(
        runs=tuple(runs),
        counts=tuple(counts),
        class_names=names,
        positive=None if positive is None else names.index(positive),
        paths=taken[0]["path"].to_numpy(object),
        image_ids=np.stack([frame["image_id"].to_numpy(np.int64) for frame in taken]),
        y_true=taken[0]["y_true"].to_numpy(np.int64),
        y_pred=np.stack(
            [order[t["y_pred"].to_numpy(np.int64)] for order, t in zip(orders, taken, strict=True)]
        ),
        scores=np.stack(
            [
                run.scores[chosen][:, np.argsort(order)]
                for run, chosen, order in zip(runs, rows, orders, strict=True)
            ]
        ),
    )


def _class_order(names: Sequence[str], first: Sequence[str]) -> np.ndarray:
    index = {name: position for position, name in enumerate(first)}
    return np.array([index[name] for name in names], np.int64)


def _refuse_other_classes(first: ComparedRun, other: ComparedRun) -> None:
    names = set(first.class_names), set(other.class_names)
    if names[0] != names[1]:
        only = [", ".join(_shown(names[side] - names[1 - side])) for side in (0, 1)]
        raise RunFolderError(
            f"`{other.folder.path}` has other classes than `{first.folder.path}`. Received: in the"
            f" first alone {only[0] or 'none'}, in the other alone {only[1] or 'none'}. Compare"
            " runs over the same classes; their order does not matter."
        )


def _shown(names: set[str]) -> list[str]:
    ordered = sorted(names)
    more = [f"{len(ordered) - _NAMES_SHOWN} more"] if len(ordered) > _NAMES_SHOWN else []
    return [*(printable(name) for name in ordered[:_NAMES_SHOWN]), *more]


def _nothing_in_common(runs: Sequence[ComparedRun], counts: Sequence[MatchCounts]) -> str:
    sizes = ", ".join(f"{count.n_images:,}" for count in counts)
    n_replaced = sum(count.n_replaced for count in counts)
    n_relabelled = sum(count.n_relabelled for count in counts)
    reasons = [
        *([f"{n_replaced:,} have the same path but another content"] if n_replaced else []),
        *([f"{n_relabelled:,} have another label"] if n_relabelled else []),
    ]
    return (
        f"The runs have no image in common. Received: {len(runs)} runs of {sizes} images, matched"
        f" by path and content{'; ' + ', '.join(reasons) if reasons else ''}. Compare runs over"
        " the same images."
    )
