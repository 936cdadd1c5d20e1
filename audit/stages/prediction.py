"""From a listing to predictions and metrics: the stages list, predict and metrics."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from audit.engines.local import cut_shards
from audit.errors import DatasetError
from audit.manifest import describe_model
from audit.places import Place
from audit.predict.listing import check_class_count
from audit.predict.scaling import pixel_scaling
from audit.run_folder import Receipt
from audit.schemas import UNDEFINED, UNDEFINED_SCORES, UNREADABLE
from audit.stages.context import Context
from audit.stages.remote import run_shards

if TYPE_CHECKING:
    from audit.predict.inference import PredictWorker
    from audit.predict.model import AuditedModel

logger = logging.getLogger("audit")

SCALING_SAMPLE = 256
"""Images on which the other scalings are tried, if the first few do not rule them out."""


def list_files(audit: Context) -> None:
    """Write down which images there are, and what else lies in the folder."""
    audit.folder.write_table("images", audit.inputs.listing.images)
    audit.folder.write_table("unreadable", audit.inputs.listing.left_out)


def predict(audit: Context) -> None:
    """Predict every image, shard by shard."""
    inputs = audit.inputs
    model = inputs.model  # The first use of TensorFlow.
    from audit.predict.inference import predict_shard

    check_class_count(audit.class_names, model.head.n_classes, model.name)
    pixel_scaling(audit.config.scaling, model.channels)  # Refuses one that needs colour.
    _describe_model(audit, model)
    _check_scaling(audit)
    images = inputs.listing.images
    specs = cut_shards("predictions", images["image_id"], audit.config.shard_size)
    logger.info("predicting %d images at once", audit.batch_size)  # The same for all workers.
    with audit.bar("predict", len(images)) as bar:
        receipts = run_shards(audit, specs, predict_shard, make_predict_worker, bar.update)
    _record_unreadable(audit, receipts)


def make_predict_worker(audit: Context, on_images: Callable[[int], Any]) -> "PredictWorker":
    """Return what predicts the shards of an audit, here or on another machine."""
    from audit.predict.inference import PredictWorker

    inputs = audit.inputs
    source, rule = inputs.source, inputs.rule
    batch_size = audit.batch_size
    return PredictWorker(audit.folder, source, audit.predictor, rule, batch_size, on_images)


def measure(audit: Context) -> None:
    """Compute the metrics of all predictions."""
    from audit.predict.metrics import compute_metrics

    predictions = audit.folder.read_predictions()
    metrics = compute_metrics(
        predictions["y_true"].to_numpy(),
        predictions["y_pred"].to_numpy(),
        audit.folder.read_scores(),
        audit.class_names,
        positive=audit.inputs.rule.positive,
        threshold=audit.config.threshold,
        seed=audit.config.seed,
    )
    audit.folder.write_table("class_metrics", metrics.classes)
    audit.folder.write_table("confusion", metrics.confusion)
    audit.folder.write_metrics(metrics.summary)
    accuracy = metrics.summary["accuracy"]
    if len(audit.class_names) == 2 and accuracy["high"] < 0.5:
        audit.warn(
            "class order",
            f"Accuracy is {accuracy['value']:.1%}, worse than guessing. If the model's outputs"
            " have another order than the classes here"
            f" ({', '.join(audit.class_names)}), give theirs with `--classes`.",
        )


def _describe_model(audit: Context, model: "AuditedModel") -> None:
    """Put into the manifest what is known only once the model is loaded."""
    positive = audit.inputs.rule.positive
    audit.manifest["positive_class"] = None if positive is None else audit.class_names[positive]
    given = audit.inputs.model_input
    path = given if isinstance(given, Place) else None
    audit.manifest |= describe_model(model, path, audit.config)
    if model.head.logits_from == "log-odds of the probability":
        audit.warn("logits", f"The maps explain a substitute. {model.head.explained}")


def _check_scaling(audit: Context) -> None:
    if audit.manifest["scaling_check"] is not None:
        return
    from audit.predict.scaling_check import check_scaling

    inputs, used = audit.inputs, audit.config.scaling
    check = check_scaling(
        audit.predictor,
        inputs.source,
        inputs.rule,
        n_images=SCALING_SAMPLE,
        seed=audit.config.seed,
    )
    if check.suggested:
        audit.warn(
            "scaling",
            f"The scaling of the pixels looks wrong: on {check.n_images} images,"
            f" `--scaling {used}` is right for {check.accuracies[used]:.0%} and"
            f" `--scaling {check.suggested}` for {check.accuracies[check.suggested]:.0%}. If the"
            " model was trained with the latter, audit again into a new folder with"
            f" `--scaling {check.suggested}`.",
        )
    audit.manifest["scaling_check"] = vars(check)
    audit.save_manifest()


def _record_unreadable(audit: Context, receipts: list[Receipt]) -> None:
    listing = audit.inputs.listing
    paths = listing.images["path"]
    found = pd.DataFrame(
        [
            (paths[image_id], UNDEFINED if reason == UNDEFINED_SCORES else UNREADABLE, reason)
            for receipt in receipts
            for image_id, reason in receipt.left_out
        ],
        columns=["path", "kind", "reason"],
    )
    table = pd.concat([listing.left_out, found]).sort_values(["path", "kind"])
    audit.folder.write_table("unreadable", table)
    n_undefined = int((table["kind"] == UNDEFINED).sum())
    audit.manifest["data"]["n_unreadable"] = int((table["kind"] == UNREADABLE).sum())
    audit.manifest["data"]["n_undefined"] = n_undefined
    if sum(receipt.n_done for receipt in receipts) == 0:
        raise DatasetError(
            f"None of the {len(paths)} images could be predicted. Received, for the first:"
            f" {found['reason'].iloc[0]}. The others are listed in"
            f" `{audit.folder.table_path('unreadable')}`."
        )
    if n_undefined:
        audit.warn(
            "undefined scores",
            f"For {n_undefined:,} of {len(paths):,} images the model's output is not a finite"
            " number. They have no prediction and are left out of every figure;"
            " `unreadable.parquet` names them.",
        )
