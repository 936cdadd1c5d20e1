"""Findings: what is wrong with the model or its data, one sentence each, all of them tested.

In: the tables of a run. Out: findings, the most important first. A pattern, a slice or a class that
did not pass its test is no finding, and neither is what anybody would expect.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from audit.diagnose.claims import (
    claim_causes,
    claim_enriched,
    claim_imbalance,
    claim_probes,
    claim_slices,
    claim_threshold,
    threshold_choice,
)
from audit.diagnose.data_claims import claim_duplicates, claim_labels, claim_unreadable
from audit.diagnose.finding import Finding
from audit.diagnose.tables import Tables


def find_findings(tables: Tables, *, seed: int = 0) -> list[Finding]:
    """Turn the tables of a run into findings, and order them.

    The order is by `score`: errors explained × (1 − q) × a weight for the kind of confirmation (see
    `audit.diagnose.finding`). Errors explained are, of

    - a causal pattern, those that turn right when the focus is painted out, less those that do when
      the same shape is painted out elsewhere;
    - a slice, those beyond the error rate elsewhere;
    - a pattern that is not shown to be the cause, those beyond the rate of correct images of the
      same predicted class; of it, of an uneven class and of suspected labels only those that no
      causal pattern or slice explains;
    - a threshold, the errors it saves on images that it was not chosen on;
    - probes and unreadable files: none.

    Args:
        tables: what is known of the run; tables that are empty give no findings.
        seed: of the halves and resamples with which a threshold is judged.

    Returns:
        Findings "F1", "F2", … with falling scores. The same tables give the same findings.
    """
    causes, slices = claim_causes(tables), claim_slices(tables)
    covered = [image_id for finding in (*causes, *slices) for image_id in finding.images]
    shown = frozenset(tables.errors_among(covered))
    findings = [
        *causes,
        *slices,
        *claim_enriched(tables, shown),
        *claim_labels(tables, shown),
        *claim_duplicates(tables),
        *claim_imbalance(tables, shown),
        *claim_threshold(tables, threshold_choice(tables, seed)),
        *claim_probes(tables),
        *claim_unreadable(tables),
    ]
    findings.sort(key=lambda finding: -finding.score)  # stable: ties in the order above
    return [replace(finding, id=f"F{number}") for number, finding in enumerate(findings, start=1)]


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what `findings.json` holds."""
    return {"findings": [finding.to_json() for finding in findings]}
