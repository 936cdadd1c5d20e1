"""From predictions to heat-maps of errors and controls, and what painting out does to errors."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from audit.engines.local import cut_shards
from audit.predict.devices import prepare_tensorflow
from audit.run_folder import OCCLUSION, Receipt
from audit.stages.context import Context
from audit.stages.remote import run_shards

if TYPE_CHECKING:
    from audit.explain.causal import Asker, CausalWorker
    from audit.explain.consensus import Consensus
    from audit.explain.explanations import ExplainWorker
    from audit.explain.maps import Explainer
    from audit.explain.occlusion import OcclusionExplainer

logger = logging.getLogger("audit")


def explain(audit: Context) -> None:
    """Make the maps of every error and control, shard by shard."""
    prepare_tensorflow()
    from audit.explain.explanations import explain_shard, layers_table

    folder = audit.folder
    explained = choose_explained(audit, folder.read_predictions())
    specs = cut_shards("explanations", explained["image_id"], audit.config.explain_shard_size)
    if not folder.table_path("layers").is_file():
        made = _explainer(audit)
        _describe_maps(audit, made.method, made.fusion)
        folder.write_table("layers", layers_table(made.layers, made.fused_size, made.stored_side))
    if specs and audit.manifest["explain_batch_size"] is None:
        explain_batch_size(audit, _explainer(audit).image_bytes)  # The same for all workers.
    with audit.bar("explain", len(explained)) as bar:
        receipts = run_shards(audit, specs, explain_shard, make_explain_worker, bar.update)
    audit.explainer = None  # No later stage makes maps; its graph is large.
    _warn_of_left_out(
        audit,
        "unexplained",
        receipts,
        "images were predicted but could not be read again to be explained",
    )


def make_explain_worker(audit: Context, on_images: Callable[[int], Any]) -> "ExplainWorker":
    """Return what explains the shards of an audit, here or on another machine."""
    prepare_tensorflow()
    from audit.explain.explanations import ExplainWorker

    predictions = audit.folder.read_predictions()
    explained = choose_explained(audit, predictions)
    stored = explained.merge(predictions[["image_id", "p_pred"]], on="image_id")
    explainer = _explainer(audit)
    return ExplainWorker(
        audit.folder,
        audit.inputs.source,
        explainer,
        stored.set_index("image_id")[["y_true", "y_pred", "p_pred", "other_class"]],
        explain_batch_size(audit, explainer.image_bytes),
        on_images,
        lambda batch_size: on_halved(audit, batch_size),
    )


def find_causes(audit: Context) -> None:
    """Paint out what each error's map shows, and ask again, shard by shard."""
    if audit.config.causal == "off":
        return
    prepare_tensorflow()
    from audit.explain.causal import causal_shard

    predictions = audit.folder.read_predictions()
    errors = predictions.loc[predictions["y_true"] != predictions["y_pred"], "image_id"]
    specs = cut_shards("causes", errors, audit.config.explain_shard_size)
    with audit.bar("causes", len(errors)) as bar:
        receipts = run_shards(audit, specs, causal_shard, make_causal_worker, bar.update)
    _warn_of_left_out(
        audit, "untested", receipts, "errors could not be read again to test what causes them"
    )


def make_causal_worker(audit: Context, on_images: Callable[[int], Any]) -> "CausalWorker":
    """Return what tests the causes of an audit's errors, here or on another machine."""
    prepare_tensorflow()
    from audit.explain.causal import PLANS, CausalWorker, predicted_maps

    folder, config = audit.folder, audit.config
    predicted = folder.read_predictions().set_index("image_id")[["y_true", "y_pred", "p_pred"]]
    return CausalWorker(
        folder,
        audit.inputs.source,
        make_asker(audit),
        predicted,
        predicted_maps(folder, predicted),
        PLANS[config.causal],
        config.seed,
        on_images,
    )


def make_asker(audit: Context) -> "Asker":
    """Return what asks the model about painted images, with the predictor that predicted."""
    from audit.explain.causal import Asker

    return Asker(audit.predictor, audit.inputs.rule, audit.batch_size)


def choose_explained(audit: Context, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the errors and controls of this run; the same at every call."""
    from audit.explain.selection import select_explained

    return select_explained(predictions, n_controls=audit.config.controls, seed=audit.config.seed)


def explain_batch_size(audit: Context, image_bytes: int) -> int:
    """Choose how many images are explained at once; a resumed run keeps to it."""
    from audit.predict.memory import choose_batch_size, free_memory

    if audit.manifest["explain_batch_size"] is None:
        audit.manifest["explain_batch_size"] = choose_batch_size(
            audit.config.memory, free_memory(), image_bytes, audit.config.explain_batch_size
        )
        audit.save_manifest()
    return int(audit.manifest["explain_batch_size"])


def on_halved(audit: Context, batch_size: int) -> None:
    """Remember, and say, that memory sufficed for fewer images at once."""
    audit.manifest["explain_batch_size"] = batch_size
    audit.warn(
        "memory",
        f"Memory did not suffice: from here on, {batch_size} images are explained at once. Give"
        " less with `--memory` or `--explain-batch-size` another time.",
    )
    audit.save_manifest()


def _explainer(audit: Context) -> "Explainer | OcclusionExplainer":
    """Make what makes the maps, once; the consensus is learnt for it, or read if it was."""
    if audit.explainer is None:
        audit.explainer = audit.inputs.make_explainer(_consensus(audit))
    return audit.explainer


def _consensus(audit: Context) -> "Consensus | None":
    """Learn what the errors agree on, once; `None` where layers are joined in another way."""
    from audit.explain.consensus import Consensus, sample_for_consensus
    from audit.explain.sample import learn_from_images

    if not audit.folder.table_path("consensus").is_file():
        sampler = audit.inputs.make_sampler()
        if sampler is None:
            return None
        sample = sample_for_consensus(audit.folder.read_predictions(), audit.config.seed)
        logger.info("learning from %d images what the maps have in common", len(sample))
        batch_size = explain_batch_size(audit, sampler.image_bytes)
        consensus = learn_from_images(
            sampler, audit.inputs.source, sample, batch_size, lambda n: on_halved(audit, n)
        )
        audit.folder.write_table("consensus", consensus.to_frame())
    return Consensus.from_frame(audit.folder.read_table("consensus"))


def _describe_maps(audit: Context, method: str, fusion: str | None) -> None:
    """Put into the manifest how maps are made; say so if it is not what was asked for."""
    audit.manifest |= {"method": method, "fusion": fusion}
    if method == OCCLUSION and (audit.config.method, audit.config.layers) != (method, "all"):
        model = audit.inputs.model
        reason = f"`{model.name}` is {model.opaque}. They" if model.opaque else "they"
        audit.warn(
            "occlusion",
            f"The heat-maps are occlusion maps, not Grad-CAM: {reason} say how far the logit of"
            " a class falls when a part of the image is painted out. There are no layers, and"
            " `--layers` does not apply.",
        )
    audit.save_manifest()


def _warn_of_left_out(audit: Context, kind: str, receipts: Sequence[Receipt], what: str) -> None:
    """Warn of images that no shard could read; `what` tells what they are and could not be."""
    left_out = [entry for receipt in receipts for entry in receipt.left_out]
    if left_out:
        text = f"{len(left_out)} {what}, the first because {left_out[0][1]}."
        audit.warn(kind, text)
