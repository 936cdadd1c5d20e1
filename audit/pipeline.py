"""Run the stages of an audit in order, skip what is current, and keep the manifest.

In: a model and a data set. Out: a finished run folder, as a `Run`. Each stage reads what earlier
stages wrote; disk is the truth, so an audit that was killed goes on where it stopped.
"""

import logging
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from audit.config import AuditConfig, make_config
from audit.engines.local import cut_shards, run_shards
from audit.errors import DatasetError
from audit.inputs import Inputs, positive_index
from audit.manifest import STAGES, describe_model, now, open_log, open_manifest
from audit.predict.devices import prepare_tensorflow
from audit.predict.listing import check_class_count
from audit.predict.scaling import pixel_scaling
from audit.results import Run
from audit.run_folder import OCCLUSION, Receipt, RunFolder

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from audit.explain.consensus import Consensus
    from audit.explain.maps import Explainer
    from audit.explain.occlusion import OcclusionExplainer
    from audit.predict.model import AuditedModel

SCALING_SAMPLE = 256
"""Images on which the other scalings are tried, if the first few do not rule them out."""

logger = logging.getLogger("audit")


def run(
    model: "str | Path | keras.Model | Callable[[Any], Any]",
    data: "str | Path | tf.data.Dataset",
    out: str | Path,
    *,
    config: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Audit a model on a data set, from images to report; go on with an audit that was stopped.

    Args:
        model: a `.keras` or `.h5` file, a SavedModel folder, a live Keras model, or a function. A
            function gets float32 pixels of shape (n, height, width, channels), as a tensor if it
            belongs to TensorFlow or Keras, or else as a NumPy array, and returns scores of shape
            (n, n_classes), (n, 1) or (n,): probabilities or logits. Its images have the size that
            the dataset says, or the function's attribute `input_shape`. A run goes on if the
            function still gives the same scores for some noise; more cannot be known of it.
        data: a folder or manifest of images, or a batched `tf.data.Dataset` of `(image, label)` in
            a fixed order. A live dataset is fed to the model as it is, then `scaling` is applied.
        out: the run folder; it is created.
        config: a TOML file with options.
        progress: whether to show progress bars on stderr.
        **options: fields of `AuditConfig`, for instance `scaling="0-1"`.

    Returns:
        The finished run.

    Raises:
        AuditError: if the options, the model, the data or the folder cannot be used.

    Example:
        >>> import audit
        >>> result = audit.run("model.keras", "val/", "runs/tonight")  # doctest: +SKIP
        >>> result.report_path  # doctest: +SKIP
    """
    settings = make_config(options, Path(config) if config else None)
    audit = _Audit(model, data, RunFolder(out), settings, progress)
    return audit.run()


class _Audit:
    """One audit under way: its inputs, its stages and its manifest."""

    def __init__(
        self, model: Any, data: Any, folder: RunFolder, config: AuditConfig, progress: bool
    ) -> None:
        self.inputs = Inputs(model, data, config)
        self.folder = folder
        self.config = config
        self.progress = progress
        self.manifest: dict[str, Any] = {}

    def run(self) -> Run:
        stages: dict[str, Callable[[], None]] = {
            "list": self._list,
            "predict": self._predict,
            "metrics": self._metrics,
            "explain": self._explain,
            "patterns": self._patterns,
            "report": self._report,
        }
        inputs = self.inputs  # Looked at before anything is written.
        positive_index(inputs.listing.class_names, self.config.positive)
        fingerprints = {"model": inputs.model_fingerprint(), "data": inputs.listing.fingerprint()}
        with open_log(self.folder):
            self.manifest = open_manifest(
                self.folder,
                inputs.listing,
                inputs.data_name,
                fingerprints,
                self.config.model_dump(mode="json"),
            )
            for name in STAGES:
                if self.manifest["stages"][name]["state"] != "done":
                    self._run_stage(name, stages[name])
            if self.manifest["status"] != "done":
                self.manifest |= {"status": "done", "finished": now()}
                self._save_manifest()
        return Run(self.folder.path)

    # Manifest

    def _save_manifest(self) -> None:
        self.folder.write_manifest(self.manifest)

    def _warn(self, kind: str, text: str) -> None:
        """Say something that the user must not miss: on stderr, in the log, manifest and report."""
        entry = {"kind": kind, "text": text}
        if entry not in self.manifest["warnings"]:
            self.manifest["warnings"].append(entry)
        logger.warning(text)
        if self.progress:
            tqdm.write(f"WARNING: {text}", file=sys.stderr)

    def _run_stage(self, name: str, stage: Callable[[], None]) -> None:
        number = STAGES.index(name) + 1
        logger.info("stage %d of %d: %s", number, len(STAGES), name)
        entry = self.manifest["stages"][name]
        entry["state"] = "running"
        self._save_manifest()
        begin = time.perf_counter()
        stage()
        entry["state"] = "done"
        entry["seconds"] = round((entry["seconds"] or 0) + time.perf_counter() - begin, 3)
        self._save_manifest()
        logger.info("%s done in %.1f s", name, time.perf_counter() - begin)

    def _bar(self, name: str, total: int, unit: str = "images") -> "tqdm[Any]":
        label = f"{name} (stage {STAGES.index(name) + 1} of {len(STAGES)})"
        return tqdm(
            total=total, desc=label, unit=f" {unit}", disable=not self.progress, file=sys.stderr
        )

    # Stages

    def _list(self) -> None:
        self.folder.write_table("images", self.inputs.listing.images)
        self.folder.write_table("unreadable", self.inputs.listing.left_out)

    def _predict(self) -> None:
        model = self.inputs.model  # The first use of TensorFlow.
        from audit.predict.inference import PredictWorker, predict_shard

        check_class_count(self.inputs.listing.class_names, model.head.n_classes, model.name)
        pixel_scaling(self.config.scaling, model.channels)  # Refuses one that needs colour.
        self._describe_model(model)
        self._check_scaling()
        specs = cut_shards(
            "predictions", self.inputs.listing.images["image_id"], self.config.shard_size
        )
        with self._bar("predict", len(self.inputs.listing.images)) as bar:
            receipts = run_shards(
                self.folder,
                specs,
                predict_shard,
                lambda: PredictWorker(
                    self.folder,
                    self.inputs.source,
                    self.inputs.predictor,
                    self.inputs.rule,
                    self.config.batch_size,
                    bar.update,
                ),
                bar.update,
            )
        self._record_unreadable(receipts)

    def _describe_model(self, model: "AuditedModel") -> None:
        """Put into the manifest what is known only once the model is loaded."""
        names = self.inputs.listing.class_names
        positive = self.inputs.rule.positive
        self.manifest["positive_class"] = None if positive is None else names[positive]
        self.manifest |= describe_model(model, self.config)
        if model.head.logits_from == "log-odds of the probability":
            self._warn("logits", f"The maps explain a substitute. {model.head.explained}")

    def _check_scaling(self) -> None:
        if self.manifest["scaling_check"] is not None:
            return
        from audit.predict.inference import check_scaling

        check = check_scaling(
            self.inputs.predictor,
            self.inputs.source,
            self.inputs.rule,
            n_images=SCALING_SAMPLE,
            seed=self.config.seed,
        )
        if check.suggested:
            self._warn(
                "scaling",
                f"The scaling of the pixels looks wrong: on {check.n_images} images,"
                f" `--scaling {self.config.scaling}` is right for"
                f" {check.accuracies[self.config.scaling]:.0%} and `--scaling {check.suggested}`"
                f" for {check.accuracies[check.suggested]:.0%}. If the model was trained with the"
                f" latter, audit again into a new folder with `--scaling {check.suggested}`.",
            )
        self.manifest["scaling_check"] = vars(check)
        self._save_manifest()

    def _record_unreadable(self, receipts: list[Receipt]) -> None:
        paths = self.inputs.listing.images["path"]
        found = pd.DataFrame(
            [
                (paths[image_id], "unreadable", reason)
                for receipt in receipts
                for image_id, reason in receipt.left_out
            ],
            columns=["path", "kind", "reason"],
        )
        table = pd.concat([self.inputs.listing.left_out, found]).sort_values(["path", "kind"])
        self.folder.write_table("unreadable", table)
        self.manifest["data"]["n_unreadable"] = int((table["kind"] == "unreadable").sum())
        if sum(receipt.n_done for receipt in receipts) == 0:
            raise DatasetError(
                f"None of the {len(paths)} images could be predicted. Received, for the first:"
                f" {found['reason'].iloc[0]}. The others are listed in"
                f" `{self.folder.table_path('unreadable')}`."
            )

    def _metrics(self) -> None:
        from audit.predict.metrics import compute_metrics

        predictions = self.folder.read_predictions()
        metrics = compute_metrics(
            predictions["y_true"].to_numpy(),
            predictions["y_pred"].to_numpy(),
            self.folder.read_scores(),
            self.inputs.listing.class_names,
            positive=self.inputs.rule.positive,
            threshold=self.config.threshold,
            seed=self.config.seed,
        )
        self.folder.write_table("class_metrics", metrics.classes)
        self.folder.write_table("confusion", metrics.confusion)
        self.folder.write_metrics(metrics.summary)
        accuracy = metrics.summary["accuracy"]
        if len(self.inputs.listing.class_names) == 2 and accuracy["high"] < 0.5:
            self._warn(
                "class order",
                f"Accuracy is {accuracy['value']:.1%}, worse than guessing. If the model's outputs"
                " have another order than the classes here"
                f" ({', '.join(self.inputs.listing.class_names)}), give theirs with `--classes`.",
            )

    def _explain(self) -> None:
        prepare_tensorflow()
        from audit.explain.explanations import ExplainWorker, explain_shard, layers_table
        from audit.explain.selection import select_explained

        predictions = self.folder.read_predictions()
        explained = select_explained(
            predictions, n_controls=self.config.controls, seed=self.config.seed
        )
        specs = cut_shards("explanations", explained["image_id"], self.config.explain_shard_size)
        stored = predictions.set_index("image_id")[["y_true", "y_pred", "p_pred"]]

        def make_worker() -> ExplainWorker:
            return ExplainWorker(
                self.folder,
                self.inputs.source,
                explainer(),
                stored,
                self._explain_batch_size(explainer().image_bytes),
                bar.update,
                self._on_halved,
            )

        @cache  # Made, and the consensus learnt, only where a shard is missing.
        def explainer() -> "Explainer | OcclusionExplainer":
            return self.inputs.make_explainer(self._consensus(predictions))

        if not self.folder.table_path("layers").is_file():
            made = explainer()
            self._describe_maps(made.method, made.fusion)
            layers = layers_table(made.layers, made.fused_size, made.stored_side)
            self.folder.write_table("layers", layers)
        with self._bar("explain", len(explained)) as bar:
            receipts = run_shards(self.folder, specs, explain_shard, make_worker, bar.update)
        left_out = [entry for receipt in receipts for entry in receipt.left_out]
        if left_out:
            self._warn(
                "unexplained",
                f"{len(left_out)} images were predicted but could not be read again to be"
                f" explained, the first because {left_out[0][1]}.",
            )

    def _consensus(self, predictions: pd.DataFrame) -> "Consensus | None":
        """Learn what the errors agree on, once; `None` where layers are joined in another way."""
        from audit.explain.consensus import Consensus, sample_for_consensus
        from audit.explain.sample import learn_from_images

        sampler = self.inputs.make_sampler()
        if sampler is None:
            return None
        if not self.folder.table_path("consensus").is_file():
            sample = sample_for_consensus(predictions, self.config.seed)
            logger.info("learning from %d images what the maps have in common", len(sample))
            batch_size = self._explain_batch_size(sampler.image_bytes)
            consensus = learn_from_images(sampler, self.inputs.source, sample, batch_size)
            self.folder.write_table("consensus", consensus.to_frame())
        return Consensus.from_frame(self.folder.read_table("consensus"))

    def _explain_batch_size(self, image_bytes: int) -> int:
        """Choose how many images are explained at once; a resumed run keeps to it."""
        from audit.explain.memory import choose_batch_size, free_memory

        if self.manifest["explain_batch_size"] is None:
            self.manifest["explain_batch_size"] = choose_batch_size(
                self.config.memory, free_memory(), image_bytes, self.config.explain_batch_size
            )
            self._save_manifest()
        return int(self.manifest["explain_batch_size"])

    def _on_halved(self, batch_size: int) -> None:
        self.manifest["explain_batch_size"] = batch_size
        self._warn(
            "memory",
            f"Memory did not suffice: from here on, {batch_size} images are explained at once. Give"
            " less with `--memory` or `--explain-batch-size` another time.",
        )
        self._save_manifest()

    def _describe_maps(self, method: str, fusion: str | None) -> None:
        """Put into the manifest how maps are made; say so if it is not what was asked for."""
        self.manifest |= {"method": method, "fusion": fusion}
        if method == OCCLUSION and (self.config.method, self.config.layers) != (method, "all"):
            model = self.inputs.model
            reason = f"`{model.name}` is {model.opaque}. They" if model.opaque else "they"
            self._warn(
                "occlusion",
                f"The heat-maps are occlusion maps, not Grad-CAM: {reason} say how far the logit of"
                " a class falls when a part of the image is painted out. There are no layers, and"
                " `--layers` does not apply.",
            )
        self._save_manifest()

    def _patterns(self) -> None:
        from audit.diagnose.patterns import find_patterns
        from audit.explain.focus import focus_table
        from audit.explain.selection import select_explained

        explained = select_explained(
            self.folder.read_predictions(), n_controls=self.config.controls, seed=self.config.seed
        )
        fused = self.folder.read_fused()
        focus = focus_table(fused, explained)
        patterns, assigned = find_patterns(
            focus, fused, self.inputs.listing.class_names, seed=self.config.seed
        )
        focus["pattern"] = assigned
        self.folder.write_table("focus", focus)
        self.folder.write_table("patterns", patterns)
        counts = focus.loc[focus["is_empty"], "empty_because"].value_counts(sort=False)
        if len(counts):
            reasons = ", ".join(f"{reason} ({n})" for reason, n in sorted(counts.items()))
            self._warn(
                "empty maps",
                f"{counts.sum()} of {len(focus)} fused maps show no place: {reasons}. They are left"
                " out of the focus patterns, and not drawn.",
            )

    def _report(self) -> None:
        from audit.report.render import render_report

        with self._bar("report", 0, unit="pages") as bar:

            def on_page(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            render_report(self.folder, progress=on_page)
