"""From maps and predictions to what is wrong and what to do: patterns, slices, labels, findings."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from audit.diagnose.conditions import OBJECT
from audit.explain.objects import Objects
from audit.run_folder import RunFolder
from audit.stages.context import Context
from audit.stages.explanation import choose_explained, make_asker


def group_patterns(audit: Context) -> None:
    """Describe the maps, group the errors by where and at what they look, and judge each group."""
    from audit.diagnose.causes import judge_patterns, overall_effect
    from audit.diagnose.looks import read_looks
    from audit.diagnose.patterns import find_patterns
    from audit.explain.focus import focus_table

    folder, seed = audit.folder, audit.config.seed
    predictions = folder.read_predictions()
    fused = folder.read_fused()
    looks = read_looks(folder, fused)
    explained = choose_explained(audit, predictions)
    focus = focus_table(fused, explained, looks.layer_agreement)
    patterns, assigned = find_patterns(focus, fused, audit.class_names, looks=looks, seed=seed)
    focus["pattern"] = assigned
    if audit.inputs.objects is not None:
        focus, patterns = _look_inside(audit, audit.inputs.objects, focus, fused, patterns)
    pastes = _paste(audit, patterns, predictions)
    causes = _read_causes(folder)
    folder.write_table("focus", focus)
    folder.write_table("pastes", pastes)
    y_true = predictions.set_index("image_id")["y_true"]
    folder.write_json("causes", {"overall": overall_effect(causes, y_true, seed=seed)})
    folder.write_table("patterns", judge_patterns(patterns, focus, causes, pastes, seed=seed))
    shown = focus[focus["is_predicted"] | (focus["role"] == "error")]
    counts = shown.loc[shown["is_empty"], "empty_because"].value_counts(sort=False)
    if len(counts):
        reasons = ", ".join(f"{reason} ({n})" for reason, n in sorted(counts.items()))
        audit.warn(
            "empty maps",
            f"{counts.sum()} of {len(shown)} fused maps show no place: {reasons}. They are left"
            " out of the focus patterns, and not drawn.",
        )


def check_labels(audit: Context) -> None:
    """Look for near-duplicates, and for labels that seem wrong."""
    from audit.diagnose.duplicates import find_duplicates
    from audit.diagnose.labels import find_label_issues, label_quality

    folder = audit.folder
    properties = _read_properties(folder)
    scores, embeddings = (
        _reader(folder, "predictions", "scores"),
        _reader(folder, "embeddings", "embedding"),
    )
    duplicates = find_duplicates(
        properties["image_id"].to_numpy(), properties["hash"].to_numpy(np.uint64), embeddings
    )
    predictions = folder.read_predictions()
    quality = label_quality(predictions, scores, embeddings, seed=audit.config.seed)
    folder.write_table("duplicates", duplicates)
    folder.write_table("label_quality", quality)
    folder.write_table("label_issues", find_label_issues(quality, predictions, duplicates))


def slice_images(audit: Context) -> None:
    """Look for conditions under which the model errs more often."""
    from audit.diagnose.slices import find_slices

    folder = audit.folder
    slices = find_slices(
        folder.read_predictions(),
        _read_conditions(folder),
        _read_metadata(folder),
        folder.read_table("duplicates"),
        audit.class_names,
        seed=audit.config.seed,
    )
    folder.write_table("slices", slices)


def probe(audit: Context) -> None:
    """Change correct images a little and see which of them turn wrong."""
    from audit.diagnose.probes import probe_model
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()
    inputs, config = audit.inputs, audit.config
    probes = probe_model(
        audit.predictor,
        inputs.source,
        inputs.rule,
        audit.folder.read_predictions(),
        seed=config.seed,
        batch_size=audit.batch_size,
    )
    audit.folder.write_table("probes", probes)


def draw_findings(audit: Context) -> None:
    """Turn everything that was found into ranked findings, and these into targets."""
    from audit.diagnose.findings import find_findings, findings_json
    from audit.diagnose.manifests import manifest_csv
    from audit.diagnose.tables import Tables
    from audit.diagnose.targets import rank_targets, targets_json, targets_table

    folder, seed = audit.folder, audit.config.seed
    tables = Tables(
        predictions=folder.read_predictions(),
        class_names=audit.class_names,
        positive=audit.inputs.rule.positive,
        threshold=audit.config.threshold,
        focus=folder.read_table("focus"),
        patterns=folder.read_table("patterns"),
        slices=folder.read_table("slices"),
        label_issues=folder.read_table("label_issues"),
        probes=folder.read_table("probes"),
        unreadable=folder.read_table("unreadable"),
        properties=_read_conditions(folder),
        metadata=_read_metadata(folder),
    )
    findings = find_findings(tables, seed=seed)
    targets = rank_targets(findings, tables, seed=seed)
    for target in targets:
        folder.write_file(target.manifest, manifest_csv(target.images))
        folder.write_json(target.manifest.removesuffix(".csv"), target.manifest_json())
    folder.write_file("targets.csv", manifest_csv(targets_table(targets)))
    folder.write_json("findings", findings_json(findings))
    folder.write_json("targets", targets_json(targets))


def _look_inside(
    audit: Context,
    objects: Objects,
    focus: pd.DataFrame,
    fused: pd.DataFrame,
    patterns: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Say how much of each map, and of each pattern's, lies inside the object."""
    from audit.diagnose.beside import judge_inside, summarise_inside
    from audit.explain.inside import measure_inside
    from audit.explain.object_view import view_of

    folder, seed = audit.folder, audit.config.seed
    sizes = _read_properties(folder)
    with audit.bar("patterns", len(sizes)) as bar:
        focus, table = measure_inside(
            focus, fused, objects, sizes, view_of(audit.manifest["input"]), bar.update
        )
    summary = summarise_inside(focus, table, seed=seed)
    folder.write_table("objects", table)
    folder.write_json("objects", summary)
    if summary["n_unusable"]:
        audit.warn(
            "objects",
            f"The masks or boxes of {summary['n_unusable']:,} images cannot be used, the first"
            f" because {summary['first_reason']}. They are left out of what is said of the object;"
            " `objects.parquet` names them.",
        )
    return focus, judge_inside(patterns, focus, seed=seed)


def _paste(audit: Context, patterns: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Paste what the exemplars of patterns look at into correct images."""
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()
    from audit.explain.causal import PLANS, predicted_maps
    from audit.explain.pasting import SCHEMA, paste_focus

    if audit.config.causal == "off" or patterns.empty:
        return SCHEMA.empty_table().to_pandas()
    predicted = predictions.set_index("image_id")[["y_true", "y_pred"]]
    return paste_focus(
        patterns,
        predicted,
        predicted_maps(audit.folder, predicted),
        audit.inputs.source,
        make_asker(audit),
        PLANS[audit.config.causal],
        seed=audit.config.seed,
    )


def _read_causes(folder: RunFolder) -> pd.DataFrame:
    from audit.explain.causal import SCHEMA

    shards = list(folder.iter_shards("causes"))
    return pd.concat(shards, ignore_index=True) if shards else SCHEMA.empty_table().to_pandas()


def _read_properties(folder: RunFolder) -> pd.DataFrame:
    return pd.concat(folder.iter_shards("properties"), ignore_index=True)


def _read_conditions(folder: RunFolder) -> pd.DataFrame:
    """Return the properties, with the share of the object where there are masks or boxes."""
    properties = _read_properties(folder)
    if not folder.table_path("objects").is_file():
        return properties
    objects = folder.read_table("objects")[["image_id", OBJECT]]
    return properties.merge(objects, on="image_id", how="left")


def _read_metadata(folder: RunFolder) -> pd.DataFrame:
    return folder.read_table("images").drop(columns=["path", "y_true"])


def _reader(folder: RunFolder, stage: str, column: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that reads a list column of some images."""
    from audit.diagnose.duplicates import take_rows

    return lambda image_ids: take_rows(
        folder.iter_shards(stage, ["image_id", column]), column, image_ids
    )
