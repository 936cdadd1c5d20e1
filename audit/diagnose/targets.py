"""Targets: what to do next, ranked, each with its images, its gain and what would refute it.

In: findings and the tables they came from. Out: targets, and what the run folder keeps of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from audit.diagnose.actions import (
    Action,
    act_on_duplicates,
    act_on_imbalance,
    act_on_labels,
    act_on_pattern,
    act_on_slice,
    act_on_threshold,
    act_on_unreadable,
    is_cause,
)
from audit.diagnose.claims import SAME_ERRORS, share_within, threshold_choice
from audit.diagnose.finding import Estimate, Finding
from audit.diagnose.manifests import join_manifests, manifest_frame, manifest_records
from audit.diagnose.tables import Tables


@dataclass(frozen=True)
class Target:
    """An action proposed from findings.

    Attributes:
        id: "T1" comes first.
        kind: collect, augment, relabel, review, rebalance or threshold.
        title: a few words that name the thing.
        text: what to do and why, with the numbers.
        findings: the findings that it rests on, the decisive one first.
        gain: an upper bound, in errors that could go away, with a 95 % interval.
        refuted_by: what would show that it is no good.
        recipe: Python text that defines a Keras pipeline `augment`, for kind augment.
        cost_curve: (threshold, false positives, false negatives), for kind threshold.
        images: its manifest; columns as in `audit.diagnose.manifests`, most typical images first.
    """

    id: str
    kind: str
    title: str
    text: str
    findings: tuple[str, ...]
    gain: Estimate
    refuted_by: str
    recipe: str | None
    cost_curve: tuple[tuple[float, int, int], ...]
    images: pd.DataFrame = field(compare=False, repr=False)

    @property
    def manifest(self) -> str:
        """The manifest's path in the run folder; beside it lies the same as `.json`."""
        return f"targets/{self.id}.csv"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `targets.json`; the images are in the manifest."""
        curve = [{"threshold": t, "fp": fp, "fn": fn} for t, fp, fn in self.cost_curve]
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "text": self.text,
            "findings": list(self.findings),
            "n_images": len(self.images),
            "gain": asdict(self.gain),
            "refuted_by": self.refuted_by,
            "recipe": self.recipe,
            "cost_curve": curve or None,
            "manifest": self.manifest,
        }

    def manifest_json(self) -> dict[str, Any]:
        """Return what the manifest's JSON file holds."""
        return {
            "target": self.id,
            "kind": self.kind,
            "title": self.title,
            "images": manifest_records(self.images),
        }


def rank_targets(findings: Sequence[Finding], tables: Tables, *, seed: int = 0) -> list[Target]:
    """Turn findings into targets, in the order of the findings.

    A finding with two remedies has the one with more behind it first: a cause is collected for,
    then augmented against; a slice whose property also breaks correct images is augmented against,
    then collected. A slice, or a pattern that is no cause, whose errors are mostly those of a
    finding before it joins that one's targets as evidence. Probes alone make no target: nothing
    says that such images occur.

    Args:
        findings: as `find_findings` returned them for these tables.
        tables: the same tables.
        seed: the same seed.

    Returns:
        Targets "T1", "T2", …
    """
    slices = [one for one in findings if one.kind == "slice"]
    probes = [one for one in findings if one.kind == "probe"]
    causes = [one for one in findings if is_cause(one, tables)]
    shown = frozenset(image_id for one in (*slices, *causes) for image_id in one.images)
    choice = threshold_choice(tables, seed)
    actions: list[Action] = []
    acted_on: dict[str, Finding] = {}
    joined: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind in {"slice", "pattern"}:
            same = _covering(finding, acted_on.values())
            if same is not None and finding not in causes:
                joined.setdefault(same.id, []).append(finding.id)
                continue
            acted_on[finding.id] = finding
        match finding.kind:
            case "pattern":
                actions += act_on_pattern(finding, tables, slices, probes)
            case "slice":
                actions += act_on_slice(finding, tables, probes)
            case "label":
                actions += act_on_labels(finding, tables, shown)
            case "duplicates":
                actions += act_on_duplicates(finding, tables)
            case "unreadable":
                actions += act_on_unreadable(finding, tables)
            case "imbalance":
                actions += act_on_imbalance(finding, tables)
            case "threshold":
                actions += act_on_threshold(finding, tables, choice)
    return [
        _number(action, f"T{number}", joined.get(action.findings[0], []))
        for number, action in enumerate(actions, start=1)
    ]


def targets_json(targets: Sequence[Target]) -> dict[str, Any]:
    """Return what `targets.json` holds."""
    return {"targets": [target.to_json() for target in targets]}


def targets_table(targets: Sequence[Target]) -> pd.DataFrame:
    """Return what `targets.csv` holds: the manifests of all targets."""
    return join_manifests([target.images for target in targets])


def _covering(finding: Finding, others: Iterable[Finding]) -> Finding | None:
    """Return the first finding that holds most of the errors of another."""
    inside = (one for one in others if share_within(finding.images, one.images) >= SAME_ERRORS)
    return next(inside, None)


def _number(action: Action, number: str, joined: Sequence[str]) -> Target:
    return Target(
        id=number,
        kind=action.kind,
        title=action.title,
        text=action.text,
        findings=tuple(dict.fromkeys([*action.findings, *joined])),
        gain=action.gain,
        refuted_by=action.refuted_by,
        recipe=action.recipe,
        cost_curve=action.cost_curve,
        images=manifest_frame(number, action.kind, action.rows),
    )
