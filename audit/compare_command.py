"""The command that compares runs: parse, call, print. `audit.cli` adds it to the others."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audit.terminal import line

if TYPE_CHECKING:
    from audit.compare.changes import GroupChange
    from audit.compare.comparison import Comparison, Step
    from audit.compare.paired import Change
    from audit.compare.patterns_change import PatternChange

KINDS = ("accuracy", "class", "pattern")
"""What `--fail-on` can be confined to."""
SHOWN = 5
"""Classes, slices or patterns of a kind that a terminal shows."""


@click.command(short_help="Compare finished runs: what changed, and is it more than chance?")
@click.argument(
    "run_folders", metavar="RUN_A RUN_B [RUN_C]...", nargs=-1, type=click.Path(path_type=Path)
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The comparison's folder."
)
@click.option(
    "--labels",
    metavar="A,B,...",
    help="What the runs are called, with commas between.  [default: their folders' names]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a script.")
@click.option(
    "--fail-on",
    type=click.Choice(["regression", *(f"regression={kind}" for kind in KINDS)]),
    help="End with exit code 4 if the last run is worse than the first beyond chance.",
)
def compare(
    run_folders: tuple[Path, ...],
    out: Path,
    labels: str | None,
    as_json: bool,
    fail_on: str | None,
) -> None:
    """Compare finished runs over the same images; each is held against the first, RUN_A.

    Images are matched by path, or else by content, classes by name. Needs no TensorFlow, no model
    and no images. Writes comparison.json, fixed.csv and broken.csv; the last line printed is the
    path of the first.

    \b
    Example:
        gradcam-audit compare runs/before runs/after --out runs/compared
        gradcam-audit compare r0 r25 r50 --labels 0%,25%,50% --out runs/series
    """
    from audit.compare.compare_folder import check_out, write_comparison
    from audit.compare.comparison import compare_runs
    from audit.compare.regressions import find_regressions
    from audit.ending import EXIT_GATE

    check_out(out)
    names = None if labels is None else [label.strip() for label in labels.split(",")]
    comparison = compare_runs(run_folders, names)
    path = write_comparison(comparison, out)
    found = find_regressions(comparison, comparison.steps[-1])
    wanted = (fail_on or "").partition("=")[2]
    worse = [text for kind in KINDS if wanted in ("", kind) for text in found[kind]]
    if as_json:
        summary = comparison.summary() | {"regressions": worse}
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison)
        for text in worse:
            line("REGRESSION", text)
        click.echo(path)
    if fail_on and worse:
        sys.exit(EXIT_GATE)


def print_comparison(comparison: "Comparison") -> None:
    """Print a comparison that fits a terminal."""
    from audit.diagnose.wording import printable

    line("images", f"{comparison.n_images:,} in all runs")
    for run in comparison.runs:
        matched, accuracy = run.matched, run.accuracy
        line(
            "run",
            f"{printable(run.label)}: {run.n_errors:,} errors, accuracy {accuracy['value']:.2%}"
            f" [{accuracy['low']:.2%}, {accuracy['high']:.2%}] ({matched.n_images:,} images,"
            f" {matched.n_by_path:,} matched by path, {matched.n_by_content:,} by content)",
        )
        if matched.n_replaced or matched.n_relabelled or matched.n_ambiguous:
            line(
                "LEFT OUT",
                f"{matched.n_replaced:,} with another content, {matched.n_relabelled:,} with"
                f" another label, {matched.n_ambiguous:,} of the same content as others",
            )
    for step in comparison.steps:
        later = comparison.labels[step.position]
        line("step", f"{printable(comparison.labels[0])} → {printable(later)}")
        _print_step(step)


def _print_step(step: "Step") -> None:
    from audit.diagnose.wording import probability

    outcomes = step.outcomes
    line(
        "outcomes",
        f"{len(outcomes.fixed):,} fixed, {len(outcomes.broken):,} broken,"
        f" {len(outcomes.still_wrong):,} still wrong, {len(outcomes.still_right):,} still right"
        f" ({probability(outcomes.p_value, 'p')})",
    )
    for metric in step.metrics:
        if metric.before is not None and metric.after is not None:
            line(
                "metric",
                f"{metric.name} {metric.before:.4f} → {metric.after:.4f},"
                f" {_change(metric.change)}: {metric.verdict}",
            )
    _print_groups("class", step.classes)
    _print_groups("slice", step.slices)
    _print_patterns(step.patterns)
    focus = step.focus
    left = f"{focus.n_before_only:,} maps before and {focus.n_after_only:,} after have no partner"
    if focus.overlap is None:
        line("focus", f"no image was explained for the same class in both; {left}")
        return
    chance = focus.overlap.chance
    line(
        "focus",
        f"{focus.n_maps:,} maps in both; {left}; their hottest tenths overlap by"
        f" {focus.overlap.mean:.2f}{'' if chance is None else f', by chance {chance:.2f}'}",
    )


def _print_groups(label: str, groups: "tuple[GroupChange, ...]") -> None:
    """Print the groups that changed most surely."""
    from audit.diagnose.wording import phrase, probability

    for group in sorted(groups, key=lambda group: group.q_value)[:SHOWN]:
        line(
            label,
            f"{phrase(group.name)}: {group.n_wrong_before:,} → {group.n_wrong_after:,} errors of"
            f" {group.n_images:,}{' kept back' if group.found_in else ''},"
            f" {_change(group.change)}: {group.verdict}"
            f" ({probability(group.q_value)})",
        )


def _print_patterns(patterns: "tuple[PatternChange, ...]") -> None:
    from audit.diagnose.wording import phrase, probability

    for is_later in (False, True):
        own = [pattern for pattern in patterns if pattern.is_later == is_later]
        for pattern in own[:SHOWN]:
            was = "right before" if is_later else "now right"
            line(
                "later" if is_later else "pattern",
                f"{pattern.number} {phrase(pattern.name)}: of {pattern.n_matched:,} errors"
                f" {pattern.n_right:,} {was}, against {pattern.n_against:,} the other way:"
                f" {pattern.verdict} ({probability(pattern.q_value)})",
            )


def _change(change: "Change") -> str:
    if change.value is None:
        return "not defined"
    interval = "" if change.low is None else f" [{change.low:+.4f}, {change.high:+.4f}]"
    return f"{change.value:+.4f}{interval}"
