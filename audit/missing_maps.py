"""Make the maps that only one of two runs has with the other run's model, so that they can be held
against each other.

In: two matched runs, their models and images. Out: the runs with these maps, which are kept in the
comparison's folder. TensorFlow is loaded only if there is anything to make.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from audit.compare.compare_folder import MAPS
from audit.compare.matching import ComparedRun, ComputedMaps, MatchedRuns
from audit.compare.stored import lacking
from audit.engines.local import cut_shards, run_shards
from audit.errors import ConfigError, DatasetError, ModelError
from audit.predict.devices import prepare_tensorflow
from audit.predict.listing import Listing
from audit.predict.model_file import check_model_file, fingerprint_model_file
from audit.run_folder import RunFolder

if TYPE_CHECKING:
    from audit.explain.explanations import ExplainWorker
    from audit.predict.model import AuditedModel

OPTIONS = ("--model-a", "--model-b")
_FORMAT = 1
_STAGE = "explanations"
_IDENTITY = "maps"

Wanted = Sequence[tuple[int, int]]
"""Pairs of image_id and class, as a run has them."""


def compute_missing(
    images: MatchedRuns,
    models: tuple[Path | None, Path | None],
    data: Path | None,
    out: Path,
    *,
    trust_model_code: bool = False,
    progress: bool = True,
) -> MatchedRuns:
    """Give two runs the maps that only the other one has.

    Maps are made as the run made its own: with its options, and what its sample agreed on. Images
    that cannot be read, or that the model no longer scores as it did, are left out and counted.

    Args:
        images: of two runs.
        models: of the first and the second run; for `None`, nothing is computed.
        data: the folder, or the manifest, that the runs were made from.
        out: the comparison's folder. What is there from an earlier call is not made again.
        trust_model_code: whether code that a model's file brings along may be run.
        progress: whether to show a progress bar on stderr.

    Raises:
        ConfigError: if there are more than two runs, or no images are given.
        ModelError: if a model is not the run's.
        DatasetError: if a run was made from a dataset in memory, or no image can be read.
    """
    if models == (None, None):
        if data is not None:
            raise ConfigError(
                f"`--data` is of use with a model only. Received: `--data {data}` without"
                f" `{OPTIONS[0]}` and `{OPTIONS[1]}`. Give one of these to have maps computed."
            )
        return images
    if len(images.runs) != 2:
        raise ConfigError(
            f"`{OPTIONS[0]}` and `{OPTIONS[1]}` need two runs. Received: {len(images.runs)}."
            " Compare two runs at a time to have maps computed."
        )
    if data is None:
        raise ConfigError(
            f"`{OPTIONS[0]}` and `{OPTIONS[1]}` need the images. Received: no `--data`. Give the"
            " folder or the manifest that the runs were made from with `--data`."
        )
    runs = list(images.runs)
    for position, (run, model) in enumerate(zip(images.runs, models, strict=True)):
        if model is not None:
            _refuse_other_model(run, model, OPTIONS[position])
            wanted = lacking(images, position, 1 - position)
            kept_in = out / MAPS / f"run-{position + 1}"
            root = _root_of(data, run)
            runs[position] = replace(
                run,
                computed=_compute(run, wanted, model, trust_model_code, root, kept_in, progress),
            )
    return replace(images, runs=tuple(runs))


def _compute(
    run: ComparedRun,
    wanted: Wanted,
    model: Path,
    trust_model_code: bool,
    root: Path,
    kept_in: Path,
    progress: bool,
) -> ComputedMaps:
    """Make the maps of a run that are not there yet, shard by shard."""
    folder = RunFolder(kept_in)
    if not wanted:
        return ComputedMaps(folder, _no_maps(), 0, ())
    plan = _plan(run, wanted)
    _open(folder, kept_in, _identity(run, wanted, model))
    specs = cut_shards(_STAGE, plan.index, int(run.manifest["config"]["explain_shard_size"]))
    with tqdm(
        total=len(plan),
        desc=f"maps of {kept_in.name}",
        unit=" images",
        disable=not progress,
        file=sys.stderr,
    ) as bar:

        def make_worker() -> "ExplainWorker":
            prepare_tensorflow()
            from audit.search.audited import open_model

            audited = open_model(run.manifest, model, trust_model_code=trust_model_code)
            return _make_worker(run, plan, audited, root, folder, bar)

        def explain(spec: Any, worker: "ExplainWorker") -> Any:
            from audit.explain.explanations import explain_shard

            return explain_shard(spec, worker)

        receipts = run_shards(folder, specs, explain, make_worker, bar.update)
    left_out = [entry for receipt in receipts for entry in receipt.left_out]
    made = folder.read_fused()
    for receipt in receipts:
        if receipt.left_out:  # Another time, with the images back, it is tried again.
            folder.shard_path(_STAGE, receipt.index).unlink()
    if len(left_out) == len(plan):
        raise DatasetError(
            f"None of the {len(plan):,} images can be explained that only one of the runs has maps"
            f" of. Received: `--data {root}`; the first could not because {left_out[0][1]}. Give"
            " the images that the runs were made from."
        )
    keys = pd.MultiIndex.from_frame(made[["image_id", "explained_class"]])
    paths = run.predictions.set_index("image_id")["path"]
    return ComputedMaps(
        folder,
        made[keys.isin(list(wanted))].reset_index(drop=True),
        len(wanted),
        tuple((str(paths[image_id]), reason) for image_id, reason in left_out),
    )


def _plan(run: ComparedRun, wanted: Wanted) -> pd.DataFrame:
    """Return what to explain: y_pred, p_pred, and two classes for each image, by image_id.

    Where one class is wanted, the other one is the predicted class, as it is in a run.
    """
    classes: dict[int, list[int]] = {}
    for image_id, explained in wanted:
        classes.setdefault(image_id, []).append(explained)
    plan = run.predictions.set_index("image_id").loc[sorted(classes), ["y_pred", "p_pred"]]
    pairs = [
        (*classes[image_id], y_pred)[:2]
        for image_id, y_pred in zip(plan.index.tolist(), plan["y_pred"].tolist(), strict=True)
    ]
    return plan.assign(
        first_class=[first for first, _ in pairs], other_class=[other for _, other in pairs]
    )


def _make_worker(
    run: ComparedRun,
    plan: pd.DataFrame,
    model: "AuditedModel",
    root: Path,
    folder: RunFolder,
    bar: "tqdm[Any]",
) -> "ExplainWorker":
    """Make what made the run's own maps."""
    from audit.explain.consensus import Consensus
    from audit.explain.explainers import make_explainer
    from audit.explain.explanations import ExplainWorker
    from audit.predict.dataset import FileSource
    from audit.predict.memory import choose_batch_size, free_memory
    from audit.search.audited import config_of

    manifest, config = run.manifest, config_of(run.manifest)
    has_consensus = run.folder.table_path("consensus").is_file()
    explainer = make_explainer(
        model,
        scaling=config.scaling,
        method=config.method,
        layers=config.layers,
        fusion=config.fusion,
        consensus=Consensus.from_frame(run.folder.read_table("consensus"))
        if has_consensus
        else None,
        keep_maps="fused",
    )
    listing = Listing(
        manifest["data"]["kind"],
        root,
        run.folder.read_table("images"),
        run.class_names,
        pd.DataFrame(columns=["path", "kind", "reason"]),
    )
    made = manifest["input"]
    source = FileSource(
        listing,
        (made["height"], made["width"]),
        made["channels"],
        aspect=made["aspect"],
        interpolation=made["interpolation"],
        max_pixels=config.max_pixels,
    )
    batch_size = choose_batch_size(
        config.memory, free_memory(), explainer.image_bytes, config.explain_batch_size
    )
    return ExplainWorker(
        folder, source, explainer, plan, batch_size, bar.update, leaves_out_others=True
    )


def _identity(run: ComparedRun, wanted: Wanted, model: Path) -> str:
    """Return a SHA-256 of all that the maps follow from, but for the images."""
    manifest = run.manifest
    digest = hashlib.sha256()
    known = [_FORMAT, manifest["fingerprints"], manifest["input"], manifest["method"]]
    options = [manifest["config"].get(name) for name in ("layers", "fusion", "explain_shard_size")]
    text = json.dumps([known, options, fingerprint_model_file(model), wanted], sort_keys=True)
    digest.update(text.encode())
    consensus = run.folder.table_path("consensus")
    if consensus.is_file():
        digest.update(consensus.read_bytes())
    return digest.hexdigest()


def _open(folder: RunFolder, kept_in: Path, identity: str) -> None:
    """Begin a folder of maps, or go on with one of the same; one of others is emptied."""
    path = kept_in / f"{_IDENTITY}.json"
    if path.is_file() and folder.read_json(_IDENTITY).get("sha256") == identity:
        return
    if kept_in.is_dir():
        shutil.rmtree(kept_in)
    folder.write_json(_IDENTITY, {"sha256": identity})


def _refuse_other_model(run: ComparedRun, model: Path, option: str) -> None:
    """Refuse a file that is not the run's model, before TensorFlow is loaded."""
    check_model_file(model)
    expected, found = run.manifest["fingerprints"]["model"], fingerprint_model_file(model)
    was_live = (run.manifest["model"] or {}).get("path") is None  # Then loading it has to tell.
    if found != expected and not was_live:
        raise ModelError(
            f"`{option} {model}` is not the model of `{run.folder.path}`. Received: a file with the"
            f" fingerprint {found[:12]}, the run's has {expected[:12]}. Give the file that was"
            " audited."
        )


def _root_of(data: Path, run: ComparedRun) -> Path:
    """Return the folder that a run's paths are relative to."""
    if run.manifest["data"]["kind"] == "dataset":
        raise DatasetError(
            f"No map can be computed for `{run.folder.path}`. Received: a run of a dataset in"
            " memory, whose images are in no file. Audit the images as files to compare them so."
        )
    if not data.exists():
        raise DatasetError(
            f"There are no images at `--data {data}`. Received: a path that does not exist. Give"
            " the folder or the manifest that the runs were made from."
        )
    return data if data.is_dir() else data.parent


def _no_maps() -> pd.DataFrame:
    return pd.DataFrame(columns=["image_id", "explained_class", "peak", "cam"])
