"""From maps and predictions to what is wrong: the stage patterns."""

from audit.stages.context import Context
from audit.stages.explanation import choose_explained


def group_patterns(audit: Context) -> None:
    """Describe the maps and group the errors by where they look."""
    from audit.diagnose.patterns import find_patterns
    from audit.explain.focus import focus_table

    folder = audit.folder
    fused = folder.read_fused()
    focus = focus_table(fused, choose_explained(audit, folder.read_predictions()))
    patterns, assigned = find_patterns(focus, fused, audit.class_names, seed=audit.config.seed)
    focus["pattern"] = assigned
    folder.write_table("focus", focus)
    folder.write_table("patterns", patterns)
    counts = focus.loc[focus["is_empty"], "empty_because"].value_counts(sort=False)
    if len(counts):
        reasons = ", ".join(f"{reason} ({n})" for reason, n in sorted(counts.items()))
        audit.warn(
            "empty maps",
            f"{counts.sum()} of {len(focus)} fused maps show no place: {reasons}. They are left"
            " out of the focus patterns, and not drawn.",
        )
