"""Run the stages of an audit in order, skip what is current, and keep the manifest.

In: a model and a data set. Out: a finished run folder, as a `Run`. Each stage reads what earlier
stages wrote; disk is the truth, so an audit that was killed goes on where it stopped.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.config import make_config
from audit.engines import ray
from audit.errors import ResourceError, RunFolderError
from audit.inputs import Inputs, check_limits_fit, positive_index
from audit.manifest import STAGES, now, open_log, open_manifest
from audit.places import Place
from audit.results import Run
from audit.run_folder import RunFolder
from audit.stages import diagnosis, explanation, prediction, rendering
from audit.stages.context import Context
from audit.stages.remote import check_can_be_sent

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

DO: Mapping[str, Callable[[Context], None]] = {
    "list": prediction.list_files,
    "predict": prediction.predict,
    "metrics": prediction.measure,
    "explain": explanation.explain,
    "causes": explanation.find_causes,
    "patterns": diagnosis.group_patterns,
    "labels": diagnosis.check_labels,
    "slices": diagnosis.slice_images,
    "probes": diagnosis.probe,
    "findings": diagnosis.draw_findings,
    "report": rendering.report,
}
"""What each stage does, by its name in the manifest."""

logger = logging.getLogger("audit")


def run(
    model: "str | Place | keras.Model | Callable[[Any], Any]",
    data: "str | Place | tf.data.Dataset",
    out: str | Place,
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
        out: the run folder; it is created. It, the model and the data may be behind URLs.
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
    inputs = Inputs(model, data, settings)
    if settings.engine == "ray":
        check_can_be_sent(inputs)
        ray.check_installed()
    audit = Context(inputs, RunFolder(out), settings, progress)
    positive_index(audit.class_names, settings.positive)  # Looked at before anything is written.
    check_limits_fit(audit.class_names, settings.fail_under)
    fingerprints = {"model": inputs.model_fingerprint(), "data": inputs.listing.fingerprint()}
    if inputs.objects is not None:
        fingerprints["objects"] = inputs.objects.fingerprint()
    session = ray.session() if settings.engine == "ray" else nullcontext()
    with open_log(audit.folder), session:
        audit.manifest = open_manifest(
            audit.folder,
            inputs.listing,
            inputs.data_name,
            fingerprints,
            settings.kept(),
        )
        for name in STAGES:
            if not _is_current(audit, name):
                _run_stage(audit, name)
        if audit.manifest["status"] != "done":
            audit.manifest |= {"status": "done", "finished": now()}
            rendering.write_times(audit.folder, audit.manifest)
            audit.save_manifest()  # Last of all: until it is there, a run goes on.
    return Run(audit.folder.path)


def _is_current(audit: Context, name: str) -> bool:
    """Tell whether a stage is done; a report may be gone since, if rendering again was stopped."""
    is_gone = name == "report" and not audit.folder.report_path.is_file()
    return audit.manifest["stages"][name]["state"] == "done" and not is_gone


def _run_stage(audit: Context, name: str) -> None:
    number = STAGES.index(name) + 1
    logger.info("stage %d of %d: %s", number, len(STAGES), name)
    entry = audit.manifest["stages"][name]
    entry["state"] = "running"
    audit.save_manifest()
    begin = time.perf_counter()
    try:
        DO[name](audit)
        entry["state"] = "done"
    except MemoryError as exc:
        raise ResourceError(
            f"There is not enough memory for the stage `{name}`. Received: {exc or 'no details'}."
            " Nothing that is done is lost: free some memory and start the same command again."
        ) from exc
    finally:
        seconds = time.perf_counter() - begin
        entry["seconds"] = round((entry["seconds"] or 0) + seconds, 3)
        if entry["state"] != "done":
            with suppress(ResourceError, RunFolderError):  # The first error is the one to tell.
                audit.save_manifest()
    audit.save_manifest()
    logger.info("%s done in %.1f s", name, seconds)
