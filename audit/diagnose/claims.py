"""Claims about the model: what its errors look at, which images they are, what breaks it.

In: the tables of a run. Out: findings without a number. What did not pass its test is left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from audit.diagnose.finding import (
    ASSOCIATED,
    HELD_BACK,
    INTERVENED,
    REPRODUCED,
    SHIFTED,
    Estimate,
    Finding,
    score,
)
from audit.diagnose.imbalance import STRONGLY, find_uneven_classes
from audit.diagnose.recipes import probes_of_slice
from audit.diagnose.tables import CLASS_COLUMNS, Tables, conditions_of
from audit.diagnose.threshold import ThresholdChoice, choose_threshold
from audit.diagnose.wording import (
    ALPHA,
    capitalised,
    count,
    count_interval,
    is_number,
    listed,
    percent,
    percent_interval,
    phrase,
    plural,
    probability,
    significant,
    times,
    times_interval,
)
from audit.schemas import CAUSAL, NOT_SHOWN, NOT_TESTED, TOO_FEW, records

SAME_ERRORS = 0.8
"""Two findings that share this much of the smaller one's errors say the same thing."""

_UNSHOWN = {
    NOT_SHOWN: "painting it out was tried and does not single it out as the cause",
    TOO_FEW: "too few of its errors to test whether it is the cause",
    NOT_TESTED: "whether it is the cause was not tested",
}


def claim_causes(tables: Tables) -> list[Finding]:
    """Return the patterns that were shown to be causal.

    Both tests must hold, so q is the larger of the two: painting out acts more than as much painted
    out elsewhere, and errors look there more often than correct images called the same do. The
    errors explained are those that painting out repairs, less those that it repairs elsewhere.
    """
    return [
        _cause(tables, row)
        for row in records(tables.patterns)
        if row.get("verdict") == CAUSAL
        and _passes(row.get("causal_q"))
        and _passes(row.get("q_value"))
        and _has(row, "repaired", "repaired_low", "repaired_high", "elsewhere", "n_tested")
    ]


def claim_enriched(tables: Tables, shown: frozenset[int]) -> list[Finding]:
    """Return the patterns that errors have more often than correct images do, cause or not.

    Args:
        shown: errors that a cause or a slice explains; a pattern that adds none is left out.
    """
    findings = []
    for row in records(tables.patterns):
        errors = tables.pattern_errors(row)
        new = [image_id for image_id in errors if image_id not in shown]
        if (
            row.get("verdict") != CAUSAL
            and _passes(row.get("q_value"))
            and _has(row, "lift", "lift_low", "lift_high")
            and row["lift_low"] > 1
            and len(new) > (1 - SAME_ERRORS) * len(errors)
        ):
            findings.append(_enriched(tables, row, errors, len(new) / len(errors)))
    return findings


def claim_slices(tables: Tables) -> list[Finding]:
    """Return the confirmed slices, without those that restate the confusion matrix or another."""
    candidates = [
        _slice(tables, row)
        for row in records(tables.slices)
        if row["confirmed"]
        and _passes(row["q_value"])
        and _has(row, "lift", "lift_low", "lift_high")
        and row["lift_low"] > 1
        and not is_class_only(row)
    ]
    kept: list[Finding] = []
    for finding in sorted(candidates, key=lambda one: -one.score):  # stable: ties in table order
        if not any(share_within(finding.images, better.images) >= SAME_ERRORS for better in kept):
            kept.append(finding)
    return kept


def claim_probes(tables: Tables, most: int = 3) -> list[Finding]:
    """Return what breaks the model much more than the other transformations of that strength do.

    The lower bound of the fall must lie above the median fall of all transformations; of each, the
    mildest such strength is named. At most three, the largest falls. They explain no error of this
    set, so their score is 0.
    """
    probes = tables.probes
    if probes.empty:
        return []
    usual = probes.groupby("strength")["fall"].median()
    notable: dict[str, dict[str, Any]] = {}
    for row in sorted(records(probes), key=lambda row: int(row["strength"])):
        stands_out = row["fall_low"] > usual[row["strength"]]
        if _passes(row["q_value"]) and stands_out and row["transformation"] not in notable:
            notable[row["transformation"]] = row
    worst = sorted(notable.values(), key=lambda row: -row["fall"])[:most]
    return [_probe(row, float(usual[row["strength"]])) for row in worst]


def claim_imbalance(tables: Tables, shown: frozenset[int]) -> list[Finding]:
    """Return the classes that are wrong far more often than others, even without `shown`."""
    images = tables.images
    explained = images.index.isin(list(shown)) & images["is_error"].to_numpy()
    truth, said = images["y_true"].to_numpy(), images["y_pred"].to_numpy()
    findings = []
    for one in find_uneven_classes(truth, said, explained):
        name = tables.name(one.y)
        which = f"of {name}" if one.side == "y_true" else f"called {name}"
        left_out = ", also without the errors that other findings explain" if shown else ""
        findings.append(
            Finding(
                kind="imbalance",
                text=f"{count(one.n_errors)} of {plural(one.n_images, 'image')} {which} are wrong"
                f" ({percent(one.rate)}"
                f" {percent_interval(one.rate_low, one.rate_high)}) against"
                f" {percent(one.other_rate)} of all others, {times(one.lift)} times as often"
                f" {times_interval(one.lift_low, one.lift_high)}{left_out}"
                f" ({probability(one.q_value)}).",
                n_errors=one.n_errors,
                share_of_errors=one.n_errors / tables.n_errors,
                estimate=Estimate(
                    one.lift, one.lift_low, one.lift_high, "times the error rate of all others"
                ),
                q_value=one.q_value,
                confirmed_by="Fisher's exact test of errors against support, false discoveries"
                f" controlled over classes; at least {STRONGLY:g} times as often, surely",
                table="class_metrics",
                key=f"{one.side}={one.y}",
                images=tuple(tables.errors_among(images.index[one.errors])),
                score=score(
                    one.excess * _share_outside(images.index[one.errors], shown),
                    one.q_value,
                    SHIFTED,
                ),
            )
        )
    return findings


def threshold_choice(tables: Tables, seed: int) -> ThresholdChoice | None:
    """Return the better threshold of a binary model, if there is one."""
    images = tables.images
    if tables.positive is None or images.empty:
        return None
    said = (images["y_pred"] == tables.positive).to_numpy()
    p_pred = images["p_pred"].to_numpy()
    p_positive = np.where(said, p_pred, 1 - p_pred)
    truth = (images["y_true"] == tables.positive).to_numpy()
    return choose_threshold(truth, p_positive, tables.threshold, seed=seed)


def claim_threshold(tables: Tables, choice: ThresholdChoice | None) -> list[Finding]:
    """Say what another threshold would save."""
    if choice is None:
        return []
    best, low, high = (
        significant(value)
        for value in (choice.threshold, choice.threshold_low, choice.threshold_high)
    )
    return [
        Finding(
            kind="threshold",
            text=f"A threshold of {best} [{low}, {high}] instead of"
            f" {significant(tables.threshold)} makes {plural(choice.gain, 'error')} fewer"
            f" {count_interval(choice.gain_low, choice.gain_high)} of"
            f" {count(tables.n_errors)}: it puts {count(choice.n_fixed)} right and"
            f" {count(choice.n_broken)} wrong ({probability(choice.p_value, 'p')}).",
            n_errors=choice.gain,
            share_of_errors=choice.gain / tables.n_errors,
            estimate=Estimate(choice.gain, choice.gain_low, choice.gain_high, "errors fewer"),
            q_value=choice.p_value,
            confirmed_by="chosen on one half of the images and counted on the other, both ways;"
            " bootstrap interval and exact McNemar test",
            table="predictions",
            key="threshold",
            images=tuple(int(tables.images.index[position]) for position in choice.fixed),
            score=score(choice.gain, choice.p_value, SHIFTED),
        )
    ]


def is_class_only(row: dict[str, Any]) -> bool:
    """Say whether a slice is made of classes alone, as the confusion matrix is."""
    columns = [condition["column"] for condition in conditions_of(row)]
    return bool(columns) and all(column in CLASS_COLUMNS for column in columns)


def confusions_in_words(tables: Tables, row: dict[str, Any]) -> str:
    """Return the confusions of a pattern: "cats → dogs", or the three most common."""
    pairs = [
        f"{tables.name(pair['y_true'])} → {tables.name(pair['y_pred'])}"
        for pair in row["confusions"]
    ]
    return listed(pairs)


def share_within(some: Sequence[int], others: Sequence[int]) -> float:
    """Return the share of some images that are among others; 0 for none."""
    return len(set(some) & set(others)) / len(some) if some else 0.0


def _cause(tables: Tables, row: dict[str, Any]) -> Finding:
    errors = tables.pattern_errors(row)
    q_value = max(float(row["causal_q"]), float(row["q_value"]))
    repaired = percent_interval(row["repaired_low"], row["repaired_high"])
    more_repaired = max(0.0, row["repaired"] - row["elsewhere"])
    lift = (
        f"{times(row['lift'])} times as common among errors as among correct images that are called"
        f" the same {times_interval(row['lift_low'], row['lift_high'])}"
        if _has(row, "lift", "lift_low", "lift_high")
        else "more common among errors than among correct images that are called the same"
    )
    pasted = (
        f"; pasted into correct images it turns {percent(row['pasted_wrong'])} of"
        f" {plural(row['n_pasted'], 'try', 'tries')} wrong, other parts"
        f" {percent(row['pasted_elsewhere_wrong'])}"
        if _has(row, "n_pasted", "pasted_wrong", "pasted_elsewhere_wrong") and row["n_pasted"] > 0
        else ""
    )
    return Finding(
        kind="pattern",
        text=f"{_so_many(tables, row)} look at {phrase(row['name'])}; painting that out turns"
        f" {percent(row['repaired'])} of them right {repaired}, the same shape elsewhere"
        f" {percent(row['elsewhere'])} ({probability(q_value)}).",
        n_errors=int(row["n_errors"]),
        share_of_errors=int(row["n_errors"]) / tables.n_errors,
        estimate=Estimate(
            float(row["repaired"]),
            float(row["repaired_low"]),
            float(row["repaired_high"]),
            "share of its errors that turn right when the focus is painted out",
        ),
        q_value=q_value,
        confirmed_by=f"painted out of {plural(row['n_tested'], 'error')} against the same shape"
        f" elsewhere, a paired test; and {lift}; both with false-discovery control over patterns"
        f"{pasted}",
        table="patterns",
        key=int(row["pattern"]),
        images=tuple(errors),
        score=score(row["n_errors"] * more_repaired, q_value, INTERVENED),
    )


def _enriched(tables: Tables, row: dict[str, Any], errors: list[int], share_new: float) -> Finding:
    q_value = float(row["q_value"])
    return Finding(
        kind="pattern",
        text=f"{_so_many(tables, row)} look at {phrase(row['name'])}, {times(row['lift'])} times as"
        f" often as correct images that are called the same"
        f" {times_interval(row['lift_low'], row['lift_high'])} ({probability(q_value)}); not shown"
        " to be the cause.",
        n_errors=int(row["n_errors"]),
        share_of_errors=int(row["n_errors"]) / tables.n_errors,
        estimate=Estimate(
            float(row["lift"]),
            float(row["lift_low"]),
            float(row["lift_high"]),
            "times as common among errors as among correct images that are called the same",
        ),
        q_value=q_value,
        confirmed_by="a test against correct images that are called the same, false discoveries"
        f" controlled over patterns; {_UNSHOWN[row['verdict']]}",
        table="patterns",
        key=int(row["pattern"]),
        images=tuple(errors),
        score=score(_excess(row) * share_new, q_value, ASSOCIATED),
    )


def _slice(tables: Tables, row: dict[str, Any]) -> Finding:
    q_value, errors = float(row["q_value"]), tables.slice_errors(row)
    probes = probes_of_slice(tables.probes, row)
    reproduced = (
        f"; {phrase(probes[0]['transformation'])} ({phrase(probes[0]['parameter'])}) turns"
        f" {percent(probes[0]['fall'])} of correct images wrong"
        if probes
        else ""
    )
    return Finding(
        kind="slice",
        text=f"{capitalised(phrase(row['name']))}: {count(row['n_errors'])} of"
        f" {plural(row['n_images'], 'image')} are wrong ({percent(row['error_rate'])}"
        f" {percent_interval(row['error_rate_low'], row['error_rate_high'])}) against"
        f" {percent(row['other_error_rate'])} of comparable ones; on the half kept back"
        f" {times(row['lift'])} times as often {times_interval(row['lift_low'], row['lift_high'])}"
        f" ({probability(q_value)}).",
        n_errors=int(row["n_errors"]),
        share_of_errors=int(row["n_errors"]) / tables.n_errors,
        estimate=Estimate(
            float(row["lift"]),
            float(row["lift_low"]),
            float(row["lift_high"]),
            "times the error rate of comparable images, on the half kept back",
        ),
        q_value=q_value,
        confirmed_by="found on one half of the images and confirmed on the other, against images of"
        f" the same classes: {count(row['n_errors_confirm'])} of"
        f" {plural(row['n_images_confirm'], 'image')} wrong,"
        f" false discoveries controlled over slices{reproduced}",
        table="slices",
        key=int(row["slice"]),
        images=tuple(errors),
        score=score(row["excess_errors"], q_value, REPRODUCED if probes else HELD_BACK),
    )


def _probe(row: dict[str, Any], usual: float) -> Finding:
    q_value = float(row["q_value"])
    return Finding(
        kind="probe",
        text=f"{capitalised(phrase(row['transformation']))} ({phrase(row['parameter'])}) turns"
        f" {percent(row['fall'])} of {plural(row['n_images'], 'correct image')} wrong"
        f" {percent_interval(row['fall_low'], row['fall_high'])}; the median over all"
        f" transformations of that strength is {percent(usual)} ({probability(q_value)}).",
        n_errors=0,
        share_of_errors=0.0,
        estimate=Estimate(
            float(row["fall"]),
            float(row["fall_low"]),
            float(row["fall_high"]),
            "share of correct images that turn wrong",
        ),
        q_value=q_value,
        confirmed_by="tried on a sample of correct images, false discoveries controlled over"
        " transformations and strengths",
        table="probes",
        key=f"{row['transformation']}, strength {int(row['strength'])}",
        images=(),
        score=0.0,
    )


def _so_many(tables: Tables, row: dict[str, Any]) -> str:
    """Return "57 of 96 errors (cats → dogs)"; only explained errors can have a pattern."""
    focus = tables.focus
    explained = tables.n_errors
    if "role" in focus:
        explained = int(focus.loc[focus["role"] == "error", "image_id"].nunique())
    kind = "errors" if explained == tables.n_errors else "explained errors"
    return (
        f"{count(row['n_errors'])} of {count(explained)} {kind}"
        f" ({confusions_in_words(tables, row)})"
    )


def _excess(row: dict[str, Any]) -> float:
    """Return the errors beyond those that would look there if errors were like correct images.

    The attributable fraction among the exposed (Levin 1953; Miettinen 1974), 1 − 1 / lift.
    """
    has_lift = _has(row, "lift") and row["lift"] > 0
    return float(row["n_errors"]) * (max(0.0, 1 - 1 / row["lift"]) if has_lift else 1.0)


def _share_outside(errors: "pd.Index[int] | Sequence[int]", shown: frozenset[int]) -> float:
    return sum(int(image_id) not in shown for image_id in errors) / max(1, len(errors))


def _passes(q_value: Any) -> bool:
    return is_number(q_value) and q_value < ALPHA


def _has(row: dict[str, Any], *names: str) -> bool:
    """Say whether all of these columns are there and hold a number."""
    return all(is_number(row.get(name)) for name in names)
