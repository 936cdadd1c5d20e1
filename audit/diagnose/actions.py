"""What to do about a finding: the words, the images, the gain and what would refute it.

In: a finding and the tables. Out: drafts of targets, before they are ranked and numbered. A gain is
an upper bound: it counts errors that could go away if the cause were gone and nothing else changed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit.diagnose.claims import SAME_ERRORS, share_within
from audit.diagnose.data_claims import CONFIRMED, expected_wrong_labels, images_of_pairs
from audit.diagnose.finding import Estimate, Finding
from audit.diagnose.manifests import (
    CONTROL,
    ERROR,
    MOST_CONTROLS,
    REFERENCE,
    file_rows,
    manifest_rows,
)
from audit.diagnose.recipes import probes_of_pattern, probes_of_slice, write_recipe
from audit.diagnose.tables import Tables
from audit.diagnose.threshold import ThresholdChoice
from audit.diagnose.wording import (
    count,
    count_interval,
    listed,
    percent,
    phrase,
    plural,
    significant,
    so_many_errors,
    times,
)
from audit.schemas import CAUSAL, OTHER_LABEL, SUSPECTED, records

COULD_GO = "errors that could go away, at most"

STRAY = 0.1
"""A class with less than this share of the errors is not asked for."""


@dataclass(frozen=True)
class Action:
    """A target without its number.

    Attributes:
        findings: the ids of the findings that it rests on, the decisive one first.
        rows: see `audit.diagnose.manifests`.
    """

    kind: str
    title: str
    text: str
    findings: tuple[str, ...]
    rows: list[dict[str, Any]]
    gain: Estimate
    refuted_by: str
    recipe: str | None = None
    cost_curve: tuple[tuple[float, int, int], ...] = ()


def act_on_pattern(
    finding: Finding, tables: Tables, slices: Sequence[Finding], probes: Sequence[Finding]
) -> list[Action]:
    """Collect what errors look at; if it is the cause and the model is sensitive, augment too.

    Args:
        slices: confirmed slices. One that holds nearly all of the pattern's errors is named beside
            it, because it may be the same thing seen from another side.
        probes: findings from probes, to refer to.
    """
    row = _row(tables, finding)
    is_cause = row["verdict"] == CAUSAL
    beside = [one for one in slices if share_within(finding.images, one.images) >= SAME_ERRORS]
    ids = (finding.id, *(one.id for one in beside))
    gain = _repaired(row) if is_cause else _excess(row)
    what = phrase(row["name"]) + _also(tables, beside)
    truths = _classes_in_words(tables, finding.images)
    tried = "" if is_cause else " The focus is not shown to be the cause: look at them first."
    collect = Action(
        kind="collect",
        title=f"Collect more {truths}: {what}",
        text=f"Collect {truths} where the model looks at {what}:"
        f" {_with_same_focus(tables, row)}.{tried} {_could_go(gain)}",
        findings=ids,
        rows=_pattern_rows(finding, tables, row),
        gain=gain,
        refuted_by=f"After training on them, audit again: if more than"
        f" {count(finding.n_errors - gain.low)} of these {plural(finding.n_errors, 'error')} stay"
        + (
            ", or painting out the focus still turns more of them right than the same shape"
            " elsewhere, such images were not what was missing."
            if is_cause
            else ", such images were not what was missing."
        ),
    )
    broken = probes_of_pattern(tables.probes, row) if is_cause else []
    if not broken:
        return [collect]
    return [collect, _augment(finding, tables, row, what, broken, collect, probes)]


def act_on_slice(finding: Finding, tables: Tables, probes: Sequence[Finding]) -> list[Action]:
    """Collect images of a slice; where the model is sensitive to its property, augment first."""
    row = _row(tables, finding)
    what = phrase(row["name"])
    low, high = (
        max(0.0, row["n_images"] * (row[bound] - row["other_error_rate"]))
        for bound in ("error_rate_low", "error_rate_high")
    )
    excess = max(0.0, float(row["excess_errors"]))
    gain = Estimate(excess, min(low, excess), max(high, excess), COULD_GO)
    rate, other = percent(row["error_rate"]), percent(row["other_error_rate"])
    verb = "Review" if row["kind"] == "duplicates" else "Collect more"
    whose = _classes_in_words(tables, finding.images)
    collect = Action(
        kind=verb.split()[0].lower(),
        title=f"{verb} {whose}: {what}",
        text=f"{verb} {whose} like these: {what}. {count(row['n_errors'])} of"
        f" {plural(row['n_images'], 'image')} are wrong, {rate} against {other} of comparable"
        f" ones. {_could_go(gain)}",
        findings=(finding.id,),
        rows=manifest_rows(tables, finding.images, ERROR)
        + manifest_rows(tables, tables.slice_controls(row)[:MOST_CONTROLS], CONTROL),
        gain=gain,
        refuted_by="After training on more of them, audit again: if they are still wrong more than"
        f" {times(max(1.0, row['lift_low']))} times as often as comparable ones, it was not for"
        " lack of them.",
    )
    broken = probes_of_slice(tables.probes, row)
    if not broken:
        return [collect]
    return [_augment(finding, tables, row, what, broken, collect, probes), collect]


def act_on_labels(finding: Finding, tables: Tables, shown: frozenset[int]) -> list[Action]:
    """Have the suspected labels looked at, those that nothing else explains first."""
    issues = tables.issues(SUSPECTED)
    suggested = {
        int(image_id): int(y)
        for image_id, y in zip(issues["image_id"], issues["suggested"], strict=True)
    }
    last = [image_id for image_id in finding.images if image_id in shown]
    first = [image_id for image_id in finding.images if image_id not in shown]
    explained = (
        f" {count(len(last))} of them come last: a finding explains these errors without a wrong"
        " label."
        if last
        else ""
    )
    gain = expected_wrong_labels(finding.n_errors, COULD_GO)
    return [
        Action(
            kind="relabel",
            title=f"Look at {plural(len(finding.images), 'suspected label')}",
            text=f"Look at {plural(len(finding.images), 'image')} and change the label where it is"
            f" wrong: {so_many_errors(finding.n_errors)}; {CONFIRMED} (Northcutt et al."
            f" 2021).{explained} {_could_go(gain)}",
            findings=(finding.id,),
            rows=manifest_rows(tables, [*first, *last], SUSPECTED, suggested),
            gain=gain,
            refuted_by="If people who see only image and classes keep nearly all of these labels,"
            " the errors are the model's.",
        )
    ]


def act_on_duplicates(finding: Finding, tables: Tables) -> list[Action]:
    """Have near-duplicates looked at, pair by pair."""
    differs = finding.key == OTHER_LABEL
    images = plural(len(finding.images), "image")
    n_errors = finding.n_errors if differs else 0
    return [
        Action(
            kind="review",
            title=f"Review {images} that look like another"
            + (" with another label" if differs else ""),
            text=f"Compare {images} with the one beside it in the list"
            + (
                " and correct the label that is wrong, or drop both."
                f" {_could_go(Estimate(n_errors, 0, n_errors, COULD_GO))}"
                if differs
                else " and keep one of each: no error goes away, but numbers and intervals become"
                " honest."
            ),
            findings=(finding.id,),
            rows=manifest_rows(tables, images_of_pairs(tables.issues(str(finding.key))), "pair"),
            gain=Estimate(n_errors, 0, n_errors, COULD_GO),
            refuted_by="If a detail that the model can see tells the two of a pair apart, they are"
            " no duplicates.",
        )
    ]


def act_on_unreadable(finding: Finding, tables: Tables) -> list[Action]:
    """Have files that could not be read repaired or removed."""
    bad = tables.unreadable[tables.unreadable["kind"] == "unreadable"].sort_values("path")
    files = plural(len(bad), "file")
    return [
        Action(
            kind="review",
            title=f"Repair or remove {files}",
            text=f"Repair or remove {files} that could not be read; until then the metrics are of"
            " the others. No error goes away.",
            findings=(finding.id,),
            rows=file_rows(bad["path"], "unreadable"),
            gain=Estimate(0, 0, 0, COULD_GO),
            refuted_by="If another program shows them, the files are in a format that is not read"
            " here.",
        )
    ]


def act_on_imbalance(finding: Finding, tables: Tables) -> list[Action]:
    """Give a class that is wrong too often more weight or more images."""
    side, y = str(finding.key).split("=")
    name, lift = tables.name(int(y)), finding.estimate
    value, low, high = (
        finding.n_errors * max(0.0, 1 - 1 / bound) for bound in (lift.value, lift.low, lift.high)
    )
    gain = Estimate(value, low, high, COULD_GO)
    how = (
        f"Give {name} more weight in training, or more images"
        if side == "y_true"
        else f"Give the classes that are taken for {name} more weight in training, or more images"
    )
    return [
        Action(
            kind="rebalance",
            title=f"Rebalance: {name}" + ("" if side == "y_true" else " is said too often"),
            text=f"{how}: {finding.text} {_could_go(gain)}",
            findings=(finding.id,),
            rows=manifest_rows(tables, finding.images, ERROR),
            gain=gain,
            refuted_by="If the training set holds as many images of the class as of others, or more"
            " weight only moves the errors to other classes, the class is harder, not rarer.",
        )
    ]


def act_on_threshold(
    finding: Finding, tables: Tables, choice: ThresholdChoice | None
) -> list[Action]:
    """Move the threshold, if false positives and false negatives cost the same."""
    if choice is None:
        return []
    better, now = significant(choice.threshold), significant(tables.threshold)
    gain = Estimate(choice.gain, choice.gain_low, choice.gain_high, COULD_GO)
    return [
        Action(
            kind="threshold",
            title=f"Move the threshold from {now} to {better}",
            text=f"Audit again with `--threshold {better}`: {finding.text} That is so if a false"
            " positive costs as much as a false negative; otherwise take the threshold from the"
            f" cost curve. {_could_go(gain)}",
            findings=(finding.id,),
            rows=manifest_rows(tables, finding.images, ERROR),
            gain=gain,
            refuted_by=f"If on {count(len(tables.images))} new images it makes no fewer errors, or"
            f" fewer by less than {count(choice.gain_low)}, it fits this sample only.",
            cost_curve=choice.curve,
        )
    ]


def _augment(
    finding: Finding,
    tables: Tables,
    row: dict[str, Any],
    what: str,
    broken: Sequence[dict[str, Any]],
    collect: Action,
    probes: Sequence[Finding],
) -> Action:
    """Train against what was shown both to break the model and to be common among errors."""
    names = listed([phrase(probe["transformation"]) for probe in broken])
    shown = listed(
        [
            f"{phrase(probe['parameter'])} turns {percent(probe['fall'])} of"
            f" {plural(probe['n_images'], 'correct image')} wrong"
            for probe in broken
        ]
    )
    tried = {str(probe["transformation"]) for probe in broken}
    ids = [one.id for one in probes if str(one.key).split(", strength")[0] in tried]
    return Action(
        kind="augment",
        title=f"Augment with {names}: {what}",
        text=f"Train with {names}: {shown}, and errors are common there: {what}."
        f" {_could_go(collect.gain)}",
        findings=(*collect.findings, *ids),
        rows=collect.rows,
        gain=collect.gain,
        refuted_by="After training with it, audit again: if the same change still turns as many"
        f" correct images wrong, it was not learnt; if it does not, but these"
        f" {plural(finding.n_errors, 'error')} stay, it was not the cause.",
        recipe=write_recipe(broken, tables.probes, finding.text),
    )


def _with_same_focus(tables: Tables, row: dict[str, Any]) -> str:
    """Return "57 errors, while all 41 dogs explained with the same focus are right"."""
    said = row["confusions"][0]["y_pred"]
    errors = tables.images.loc[tables.pattern_errors(row)]
    n_right = int((tables.pattern_controls(row)["y_true"] == said).sum())
    n_wrong = int((errors["y_true"] == said).sum())
    number = plural(row["n_errors"], "error")
    if n_right == 0:
        return number
    others = f"{tables.name(said)} explained with the same focus"
    if n_wrong == 0:
        return f"{number}, while all {count(n_right)} {others} are right"
    return f"{number}, while of the {others} {count(n_right)} are right and {count(n_wrong)} wrong"


def _pattern_rows(finding: Finding, tables: Tables, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the errors, then correct images with the same focus: of their class, of the other."""
    truths = {pair["y_true"] for pair in row["confusions"]}
    said = {pair["y_pred"] for pair in row["confusions"]}
    controls = tables.pattern_controls(row)
    rows = manifest_rows(tables, finding.images, ERROR)
    for role, classes in ((CONTROL, truths), (REFERENCE, said)):
        chosen = controls.index[controls["y_true"].isin(classes)][:MOST_CONTROLS]
        rows += manifest_rows(tables, chosen.tolist(), role)
    return rows


def _repaired(row: dict[str, Any]) -> Estimate:
    n_errors = int(row["n_errors"])
    return Estimate(
        n_errors * row["repaired"],
        n_errors * row["repaired_low"],
        n_errors * row["repaired_high"],
        COULD_GO,
    )


def _excess(row: dict[str, Any]) -> Estimate:
    """Return the errors beyond the rate of correct images, as the lift and its interval say."""
    value, low, high = (
        row["n_errors"] * max(0.0, 1 - 1 / row[name]) for name in ("lift", "lift_low", "lift_high")
    )
    return Estimate(value, low, high, COULD_GO)


def _classes_in_words(tables: Tables, errors: Sequence[int]) -> str:
    """Return the true classes of errors, the most common first, or "images" if they are of all."""
    totals: Counter[int] = Counter(tables.images.loc[list(errors), "y_true"].tolist())
    common = {y: n for y, n in totals.items() if n >= STRAY * len(errors)}
    if not common or len(common) == len(tables.class_names):
        return "images"
    ranked = sorted(common, key=lambda y: (-common[y], y))
    return listed([tables.name(y) for y in ranked])


def _also(tables: Tables, beside: Sequence[Finding]) -> str:
    names = [phrase(_row(tables, one)["name"]) for one in beside]
    return f"; also {listed(names, 2)}" if names else ""


def _could_go(gain: Estimate) -> str:
    interval = count_interval(gain.low, gain.high)
    return f"At most {plural(gain.value, 'error')} {interval} could go away."


def is_cause(finding: Finding, tables: Tables) -> bool:
    """Say whether a finding is a pattern that was shown to be the cause."""
    return finding.kind == "pattern" and _row(tables, finding)["verdict"] == CAUSAL


def _row(tables: Tables, finding: Finding) -> dict[str, Any]:
    """Return the row of the table that a pattern or a slice finding rests on."""
    table, number = (
        (tables.patterns, "pattern") if finding.table == "patterns" else (tables.slices, "slice")
    )
    return records(table[table[number] == finding.key])[0]
