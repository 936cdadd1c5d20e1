"""Makes a run folder of any size from the real maps and pictures of a finished run.

In: a run folder with heat-maps. Out: a run folder with as many errors and classes as asked for,
whose shards repeat the pictures, maps and features of the first under new numbers. Who is taken for
whom, scores, names, paths, patterns and slices are drawn with a seed; metrics are computed from
them. What is drawn says nothing about the maps beside it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.predict.metrics import compute_metrics
from audit.run_folder import Receipt, RunFolder, fixed_list
from audit.schemas import (
    CAUSAL,
    FOCUS_STAGE,
    NOT_SHOWN,
    SUSPECTED,
    embeddings_schema,
    predictions_schema,
)

SHARD, EXPLAIN_SHARD = 1024, 64
N_CONTROLS, N_PATTERNS, N_FLAGGED_PER_1000 = 1000, 8, 10
IN_PATTERNS = 0.6
CONFUSED_WITH = 6
"""Classes that a class is taken for; the first far more often than the last."""

COPIED = ("layers", "consensus", "probes", "unreadable")
WORDS = (
    *("amber", "birch", "coral", "dune", "ember", "fjord", "grove", "heron", "iris", "jade"),
    *("kelp", "larch", "moss", "newt", "otter", "perch", "quartz", "reed", "slate", "thrush"),
)


@dataclass(frozen=True)
class Drawn:
    """What is true and what the model says of every image: arrays of shape (n_images,)."""

    y_true: np.ndarray
    y_pred: np.ndarray
    p_true: np.ndarray
    p_pred: np.ndarray
    names: tuple[str, ...]

    @property
    def errors(self) -> np.ndarray:
        return np.flatnonzero(self.y_true != self.y_pred)


def write_synthetic_run(
    source: RunFolder, path: Path, n_errors: int, n_classes: int, seed: int = 0
) -> RunFolder:
    """Write a run with twice as many images as errors, and return it.

    Args:
        source: a finished run with heat-maps and errors.
        path: where; created.
        n_errors: how many errors, at least 1.
        n_classes: at least 3.
        seed: the same gives the same files.
    """
    rng = np.random.default_rng(seed)
    folder = RunFolder(path)
    drawn = _draw(rng, n_errors, n_classes)
    right = np.flatnonzero(drawn.y_true == drawn.y_pred)
    controls = rng.choice(right, min(N_CONTROLS, len(right)), replace=False)
    explained = np.sort(np.concatenate([drawn.errors, controls]))
    _write_images(folder, drawn)
    _write_scores(folder, drawn, rng)
    _write_embeddings(source, folder, len(drawn.y_true), rng)
    _write_explained(source, folder, drawn, explained, rng)
    pattern = _draw_patterns(drawn, explained, rng)
    _write_focus(source, folder, drawn, explained, pattern, rng)
    _write_patterns(source, folder, drawn, pattern)
    _write_causes(source, folder, drawn, rng)
    _write_diagnosis(source, folder, drawn, rng)
    _write_manifest(source, folder, drawn)
    return folder


def _draw(rng: np.random.Generator, n_errors: int, n_classes: int) -> Drawn:
    n_images = 2 * n_errors
    y_true = rng.integers(0, n_classes, n_images)
    y_pred = y_true.copy()
    wrong = rng.choice(n_images, n_errors, replace=False)
    others = rng.integers(1, n_classes, (n_classes, CONFUSED_WITH))
    weights = 0.5 ** np.arange(CONFUSED_WITH)
    kind = rng.choice(CONFUSED_WITH, n_errors, p=weights / weights.sum())
    y_pred[wrong] = (y_true[wrong] + others[y_true[wrong], kind]) % n_classes
    p_pred = rng.uniform(0.35, 0.999, n_images).astype(np.float32)
    p_true = np.where(y_true == y_pred, p_pred, (1 - p_pred) * rng.uniform(0.05, 0.9, n_images))
    picked = rng.choice(len(WORDS), (n_classes, 2))
    names = tuple(f"{WORDS[a]} {WORDS[b]} {n}" for n, (a, b) in enumerate(picked.tolist()))
    return Drawn(y_true, y_pred, p_true.astype(np.float32), p_pred, names)


def _write_images(folder: RunFolder, drawn: Drawn) -> None:
    frame = pd.DataFrame(
        {
            "image_id": np.arange(len(drawn.y_true)),
            "path": _paths(drawn, np.arange(len(drawn.y_true))),
            "y_true": drawn.y_true.astype(np.int32),
            "station": np.arange(len(drawn.y_true)) % 17,
        }
    )
    folder.write_table("images", frame)


def _paths(drawn: Drawn, image_ids: np.ndarray) -> list[str]:
    """Return a path for each image; they sort as the ids do."""
    labels = drawn.y_true[image_ids].tolist()
    return [
        f"{n // 10_000:04d}/{drawn.names[label]} {n:08d}.jpg"
        for n, label in zip(image_ids.tolist(), labels, strict=True)
    ]


def _write_scores(folder: RunFolder, drawn: Drawn, rng: np.random.Generator) -> None:
    """Write predictions and metrics; the probability that is left goes to the other classes."""
    n_images, n_classes = len(drawn.y_true), len(drawn.names)
    scores = np.empty((n_images, n_classes), np.float32)
    shape = rng.uniform(0.2, 1, n_classes).astype(np.float32)
    for start in range(0, n_images, SHARD):
        rows = np.arange(start, min(start + SHARD, n_images))
        block, at = np.tile(shape, (len(rows), 1)), np.arange(len(rows))
        y_true, y_pred = drawn.y_true[rows], drawn.y_pred[rows]
        block[at, y_true] = block[at, y_pred] = 0
        given = np.where(y_true == y_pred, 0, drawn.p_true[rows]) + drawn.p_pred[rows]
        block *= ((1 - given) / block.sum(axis=1))[:, None]
        block[at, y_true], block[at, y_pred] = drawn.p_true[rows], drawn.p_pred[rows]
        scores[rows] = block
        top = np.partition(block, -2, axis=1)[:, -2:]
        columns = [
            pa.array(rows),
            pa.array(y_pred.astype(np.int32)),
            pa.array(drawn.p_true[rows]),
            pa.array(drawn.p_pred[rows]),
            pa.array(top[:, 1] - top[:, 0]),
            fixed_list(block),
        ]
        table = pa.Table.from_arrays(columns, schema=predictions_schema(n_classes))
        _write_shard(folder, "predictions", start // SHARD, table, len(rows))
    metrics = compute_metrics(
        drawn.y_true, drawn.y_pred, scores, drawn.names, positive=None, threshold=0.5
    )
    folder.write_metrics(metrics.summary)
    folder.write_table("class_metrics", metrics.classes)
    folder.write_table("confusion", metrics.confusion)


def _write_embeddings(
    source: RunFolder, folder: RunFolder, n_images: int, rng: np.random.Generator
) -> None:
    _, known = source.read_embeddings()
    for start in range(0, n_images, SHARD):
        ids = np.arange(start, min(start + SHARD, n_images))
        rows = known[rng.integers(0, len(known), len(ids))]
        columns = [pa.array(ids), fixed_list(rows)]
        table = pa.Table.from_arrays(columns, schema=embeddings_schema(known.shape[1]))
        _write_shard(folder, "embeddings", start // SHARD, table, len(ids))


def _write_explained(
    source: RunFolder,
    folder: RunFolder,
    drawn: Drawn,
    explained: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Write thumbnails, maps and features under them: the rows of real errors, renumbered."""
    predictions = source.read_predictions()
    errors = predictions.loc[predictions["y_true"] != predictions["y_pred"]]
    for stage in ("thumbnails", "explanations", FOCUS_STAGE):
        whole = _read_stage(source, stage)
        if whole is None:
            continue
        bases = [
            _rows_of_images(whole, errors, rng.choice(len(errors), EXPLAIN_SHARD)) for _ in range(4)
        ]
        per_image = len(bases[0]) // EXPLAIN_SHARD
        for index, start in enumerate(range(0, len(explained), EXPLAIN_SHARD)):
            ids = explained[start : start + EXPLAIN_SHARD]
            base = bases[index % len(bases)].slice(0, per_image * len(ids))
            table = _renumber(base, ids, drawn, per_image)
            _write_shard(folder, stage, index, table, len(ids))


def _read_stage(source: RunFolder, stage: str) -> pa.Table | None:
    indices = source.shard_indices(stage)
    if not indices:
        return None
    tables = [pq.read_table(source.shard_path(stage, index)) for index in indices]
    return pa.concat_tables(tables).combine_chunks().replace_schema_metadata(None)


def _rows_of_images(whole: pa.Table, errors: pd.DataFrame, chosen: np.ndarray) -> pa.Table:
    """Return the rows of some real errors: for each those of the predicted class, then the true."""
    ids = whole["image_id"].to_numpy()
    classes = (
        whole["explained_class"].to_numpy() if "explained_class" in whole.schema.names else None
    )
    rows = []
    for error in errors.iloc[chosen].itertuples():
        own = ids == error.image_id
        if classes is None:
            rows.append(np.flatnonzero(own))
        else:
            rows += [np.flatnonzero(own & (classes == c)) for c in (error.y_pred, error.y_true)]
    return whole.take(pa.array(np.concatenate(rows))).combine_chunks()


def _renumber(base: pa.Table, ids: np.ndarray, drawn: Drawn, per_image: int) -> pa.Table:
    columns = {"image_id": np.repeat(ids, per_image)}
    if "explained_class" in base.schema.names:
        classes = np.stack([drawn.y_pred[ids], _other_class(drawn, ids)], axis=1)
        columns["explained_class"] = np.repeat(classes.reshape(-1), per_image // 2)
    for name, values in columns.items():
        field = base.schema.field(name)
        at = base.schema.get_field_index(name)
        base = base.set_column(at, field, pa.array(values, field.type))
    return base


def _other_class(drawn: Drawn, ids: np.ndarray) -> np.ndarray:
    """Return the class explained beside the predicted one: of an error the true one."""
    is_right = drawn.y_true[ids] == drawn.y_pred[ids]
    return np.where(is_right, (drawn.y_true[ids] + 1) % len(drawn.names), drawn.y_true[ids])


def _draw_patterns(drawn: Drawn, explained: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the pattern of each explained image, -1 for none; the first is the largest."""
    weights = 0.7 ** np.arange(N_PATTERNS)
    pattern = rng.choice(N_PATTERNS, len(explained), p=weights / weights.sum()) + 1
    is_error = drawn.y_true[explained] != drawn.y_pred[explained]
    inside = rng.random(len(explained)) < np.where(is_error, IN_PATTERNS, IN_PATTERNS / 3)
    return np.where(inside, pattern, -1)


def _write_focus(
    source: RunFolder,
    folder: RunFolder,
    drawn: Drawn,
    explained: np.ndarray,
    pattern: np.ndarray,
    rng: np.random.Generator,
) -> None:
    known = source.read_table("focus")
    ids = np.repeat(explained, 2)
    frame = known.iloc[rng.integers(0, len(known), len(ids))].reset_index(drop=True)
    classes = np.stack([drawn.y_pred[explained], _other_class(drawn, explained)], axis=1)
    frame["image_id"], frame["explained_class"] = ids, classes.reshape(-1).astype(np.int32)
    frame["y_true"], frame["y_pred"] = drawn.y_true[ids], drawn.y_pred[ids]
    frame["role"] = np.where(frame["y_true"] == frame["y_pred"], "control", "error")
    frame["is_predicted"] = frame["explained_class"] == frame["y_pred"]
    frame["pattern"] = np.where(frame["is_predicted"], np.repeat(pattern, 2), -1).astype(np.int32)
    folder.write_table("focus", frame)


def _write_patterns(
    source: RunFolder, folder: RunFolder, drawn: Drawn, pattern: np.ndarray
) -> None:
    """Write patterns whose numbers are plausible, and counts are those of the members."""
    fused = source.read_fused()
    focus = folder.read_table("focus")
    rows = []
    for number in range(1, N_PATTERNS + 1):
        members = focus[focus["pattern"] == number]
        errors = members[members["role"] == "error"]
        n_controls = len(members) - len(errors)
        share = len(errors) / len(drawn.errors)
        cam = fused["cam"].iloc[number % len(fused)]
        counts = errors.value_counts(["y_true", "y_pred"]).sort_values(kind="stable").tail(10)[::-1]
        confusions = [
            {"y_true": int(a), "y_pred": int(b), "count": int(n)} for (a, b), n in counts.items()
        ]
        areas = [
            {"area": area, "repaired": area, "elsewhere": area / 9, "logit_fall": 9 * area}
            for area in (0.1, 0.2, 0.3)
        ]
        rows.append(
            {
                "pattern": number,
                "name": f"{WORDS[number]} at the {WORDS[-number]}",
                "kind": ("place", "look", "both")[number % 3],
                "n_errors": len(errors),
                "share_of_errors": share,
                "n_controls": n_controls,
                "control_share": n_controls / N_CONTROLS,
                "n_true_controls": n_controls // 2,
                "true_control_share": n_controls / N_CONTROLS,
                "lift": 3.0,
                "lift_low": 2.5,
                "lift_high": 3.6,
                "p_value": 1e-6,
                "q_value": 1e-5,
                "stability": 0.8,
                "distinctness": 0.5,
                "confusions": confusions,
                "exemplars": errors["image_id"].head(10).tolist(),
                "mean_height": cam.shape[0],
                "mean_width": cam.shape[1],
                "mean_map": cam.tobytes(),
                "centre_x": 0.4,
                "centre_y": 0.6,
                "area": 0.05,
                "n_blobs": 2.0,
                "n_tested": len(errors),
                "best_area": 0.3,
                "repaired": 0.3,
                "repaired_low": 0.28,
                "repaired_high": 0.32,
                "elsewhere": 0.03,
                "logit_fall": 2.7,
                "logit_fall_low": 2.5,
                "logit_fall_high": 2.9,
                "blur_repaired": 0.2,
                "blur_elsewhere": 0.02,
                "causal_p": 1e-9,
                "causal_q": 1e-8,
                "areas": areas,
                "n_pasted": 20,
                "pasted_wrong": 0.4,
                "pasted_elsewhere_wrong": 0.1,
                "verdict": CAUSAL if number < 4 else NOT_SHOWN,
            }
        )
    folder.write_table("patterns", pd.DataFrame(rows))


def _write_causes(
    source: RunFolder, folder: RunFolder, drawn: Drawn, rng: np.random.Generator
) -> None:
    """Repeat what painting out did to real errors: what turned right turns right."""
    whole = _read_stage(source, "causes")
    if whole is None:
        return
    predictions = source.read_predictions().set_index("image_id")["y_true"]
    found = whole.to_pandas()
    turned = found["y_pred"].to_numpy() == predictions.loc[found["image_id"]].to_numpy()
    groups = [np.asarray(rows) for rows in found.groupby("image_id").indices.values()]
    for index, start in enumerate(range(0, len(drawn.errors), EXPLAIN_SHARD)):
        ids = drawn.errors[start : start + EXPLAIN_SHARD]
        chosen = [groups[n] for n in rng.integers(0, len(groups), len(ids))]
        rows, of = np.concatenate(chosen), np.repeat(ids, [len(group) for group in chosen])
        part = whole.take(pa.array(rows))
        y_pred = np.where(turned[rows], drawn.y_true[of], drawn.y_pred[of])
        for name, values in (("image_id", of), ("y_pred", y_pred)):
            at = part.schema.get_field_index(name)
            field = part.schema.field(at)
            part = part.set_column(at, field, pa.array(values, field.type))
        _write_shard(folder, "causes", index, part, len(ids))


def _write_diagnosis(
    source: RunFolder, folder: RunFolder, drawn: Drawn, rng: np.random.Generator
) -> None:
    """Write slices and suspected labels of this size, and copy what does not depend on it."""
    errors = drawn.errors
    for name in COPIED:
        if source.table_path(name).is_file():
            folder.write_table(name, source.read_table(name))
    slices = source.read_table("slices")
    slices["confirmed"] = np.arange(len(slices)) < 3
    parts = [np.sort(rng.choice(errors, len(errors) // 5, replace=False)) for _ in slices.index]
    slices["error_ids"] = [part.tolist() for part in parts]
    slices["n_errors"], slices["n_images"] = len(errors) // 5, len(errors) // 3
    folder.write_table("slices", slices)
    flagged = np.sort(rng.choice(errors, max(1, len(errors) * N_FLAGGED_PER_1000 // 1000), False))
    folder.write_table(
        "label_issues",
        pd.DataFrame(
            {
                "image_id": flagged,
                "kind": SUSPECTED,
                "y_true": drawn.y_true[flagged].astype(np.int32),
                "suggested": drawn.y_pred[flagged].astype(np.int32),
                "score": np.sort(rng.uniform(0, 0.1, len(flagged))),
                "other_id": -1,
                "is_error": True,
                "rank": np.arange(1, len(flagged) + 1),
            }
        ),
    )
    for name in ("causes", "findings", "targets"):
        path = source.path / f"{name}.json"
        if path.is_file():
            folder.write_json(name, _renumber_images(json.loads(path.read_text()), errors))
    if (source.path / "targets.csv").is_file():
        _write_target_images(source, folder, drawn)
        shutil.copytree(source.path / "targets", folder.path / "targets")


def _renumber_images(value: Mapping[str, Any], errors: np.ndarray) -> dict[str, Any]:
    """Return findings whose images are errors of this run."""
    return {
        key: [
            {**item, "images": errors[: len(item["images"])].tolist()}
            if isinstance(item, dict) and "images" in item
            else item
            for item in content
        ]
        if isinstance(content, list)
        else content
        for key, content in value.items()
    }


def _write_target_images(source: RunFolder, folder: RunFolder, drawn: Drawn) -> None:
    frame = pd.read_csv(source.path / "targets.csv", keep_default_na=False)
    ids = drawn.errors[np.arange(len(frame)) % len(drawn.errors)]
    frame["image_id"], frame["path"] = ids, _paths(drawn, ids)
    frame["y_true"], frame["y_pred"] = drawn.y_true[ids], drawn.y_pred[ids]
    folder.write_file("targets.csv", frame.to_csv(index=False, lineterminator="\n").encode())


def _write_manifest(source: RunFolder, folder: RunFolder, drawn: Drawn) -> None:
    manifest = source.read_manifest()
    manifest |= {"class_names": list(drawn.names), "positive_class": None}
    manifest["data"] |= {"name": "synthetic", "n_images": len(drawn.y_true)}
    folder.write_manifest(manifest)


def _write_shard(folder: RunFolder, stage: str, index: int, table: pa.Table, n_images: int) -> None:
    folder.write_shard(stage, index, table, Receipt(stage, index, n_images))
