"""The command that compares runs: parse, call, print. `audit.cli` adds it to the others."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audit.arguments import LocalArgument, PlaceArgument
from audit.places import Place
from audit.terminal import line

if TYPE_CHECKING:
    from audit.compare.comparison import Comparison
    from audit.compare.matching import MatchedRuns

KINDS = ("accuracy", "class", "pattern")
"""What `--fail-on` can be confined to."""
SHOWN = 5
"""Classes, slices or patterns of a kind that a terminal shows."""


@click.command(short_help="Compare finished runs: what changed, and is it more than chance?")
@click.argument("run_folders", metavar="RUN_A RUN_B [RUN_C]...", nargs=-1, type=PlaceArgument())
@click.option("--out", type=LocalArgument(), required=True, help="The comparison's folder.")
@click.option(
    "--labels",
    metavar="A,B,...",
    help="What the runs are called, with commas between.  [default: their folders' names]",
)
@click.option(
    "--masks",
    type=LocalArgument(),
    help="A folder of PNG masks, called as the images.  [default: what both runs were given]",
)
@click.option(
    "--boxes",
    type=LocalArgument(),
    help="The same from boxes: a COCO JSON file, or a folder of Pascal VOC XML files.",
)
@click.option(
    "--model-a",
    type=LocalArgument(),
    help="The model of RUN_A, to make the maps that only RUN_B has; loads TensorFlow.",
)
@click.option("--model-b", type=LocalArgument(), help="The model of RUN_B, likewise.")
@click.option(
    "--data",
    type=LocalArgument(),
    help="With --model-a or --model-b: the images, as they were given to the runs.",
)
@click.option("--trust-model-code", is_flag=True, help="Run code that these models bring along.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a script.")
@click.option(
    "--fail-on",
    type=click.Choice(["regression", *(f"regression={kind}" for kind in KINDS)]),
    help="End with exit code 4 if the last run is worse than the first beyond chance.",
)
def compare(
    run_folders: tuple[Place, ...],
    out: Path,
    labels: str | None,
    masks: Path | None,
    boxes: Path | None,
    model_a: Path | None,
    model_b: Path | None,
    data: Path | None,
    trust_model_code: bool,
    as_json: bool,
    fail_on: str | None,
) -> None:
    """Compare finished runs over the same images; each is held against the first, RUN_A.

    Images are matched by path, or else by content, classes by name. Needs no TensorFlow, no model
    and no images, unless maps are to be made that only one of two runs has. Writes a report,
    comparison.json, fixed.csv and broken.csv; the last line printed is the report's first page.

    \b
    Example:
        gradcam-audit compare runs/before runs/after --out runs/compared
        gradcam-audit compare before after --model-a a.keras --model-b b.keras --data val/ --out x
        gradcam-audit compare r0 r25 r50 --labels 0%,25%,50% --out runs/series
    """
    from audit.compare.compare_folder import check_out, write_comparison
    from audit.compare.comparison import compare_runs
    from audit.compare.regressions import find_regressions
    from audit.ending import EXIT_GATE
    from audit.missing_maps import compute_missing

    def compute(images: "MatchedRuns") -> "MatchedRuns":
        return compute_missing(
            images, (model_a, model_b), data, out, trust_model_code=trust_model_code
        )

    check_out(out)
    names = None if labels is None else [label.strip() for label in labels.split(",")]
    comparison = compare_runs(run_folders, names, masks=masks, boxes=boxes, compute=compute)
    write_comparison(comparison, out)
    path = _write_report(comparison, out)
    found = find_regressions(comparison, comparison.steps[-1])
    wanted = (fail_on or "").partition("=")[2]
    worse = [text for kind in KINDS if wanted in ("", kind) for text in found[kind]]
    summary = comparison.summary()
    if as_json:
        click.echo(json.dumps(summary | {"regressions": worse}, indent=2, ensure_ascii=False))
    else:
        print_comparison(summary)
        for text in worse:
            line("REGRESSION", text)
        click.echo(path)
    if fail_on and worse:
        sys.exit(EXIT_GATE)


def _write_report(comparison: "Comparison", out: Path) -> Path:
    """Write the report, with a progress bar on a terminal, and return its first page."""
    from tqdm import tqdm

    from audit.report.comparison.compare_report import write_compare_report

    with tqdm(desc="report", unit=" images", disable=None, file=sys.stderr, leave=False) as bar:

        def on_page(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return write_compare_report(comparison, out, progress=on_page)


def show_comparison(folder: Place, as_json: bool) -> bool:
    """Print what a folder of `compare` holds; `False` if it is not one."""
    from audit.compare.compare_folder import read_comparison

    found = read_comparison(folder)
    if found is None:
        return False
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_comparison(found)
        click.echo(folder / "index.html")
    return True


def print_comparison(found: dict[str, Any]) -> None:
    """Print a comparison, as `comparison.json` holds it, that fits a terminal."""
    from audit.diagnose.wording import printable

    line("images", f"{found['n_images']:,} in all runs")
    for run in found["runs"]:
        matched, accuracy = run["matched"], run["accuracy"]
        line(
            "run",
            f"{printable(run['label'])}: {run['n_errors']:,} errors, accuracy"
            f" {accuracy['value']:.2%} [{accuracy['low']:.2%}, {accuracy['high']:.2%}]"
            f" ({matched['n_images']:,} images, {matched['n_by_path']:,} matched by path,"
            f" {matched['n_by_content']:,} by content)",
        )
        if matched["n_replaced"] or matched["n_relabelled"] or matched["n_ambiguous"]:
            line(
                "LEFT OUT",
                f"{matched['n_replaced']:,} with another content, {matched['n_relabelled']:,} with"
                f" another label, {matched['n_ambiguous']:,} of the same content as others",
            )
        if run["computed"] is not None:
            _print_computed(run["computed"], printable(run["label"]))
    for step in found["steps"]:
        line("step", f"{printable(step['before'])} → {printable(step['after'])}")
        _print_step(step)


def _print_computed(computed: dict[str, Any], label: str) -> None:
    from audit.diagnose.wording import printable

    line(
        "maps",
        f"{computed['n_maps']:,} of {computed['n_wanted']:,} that only the other run has"
        f" computed with the model of {label}",
    )
    if computed["n_left_out"]:
        line(
            "LEFT OUT",
            f"{computed['n_left_out']:,} images without a map, the first because"
            f" {printable(computed['first_reason'], 200)}",
        )


def _print_step(step: dict[str, Any]) -> None:
    from audit.diagnose.wording import probability

    outcomes = step["outcomes"]
    line(
        "outcomes",
        f"{outcomes['n_fixed']:,} fixed, {outcomes['n_broken']:,} broken,"
        f" {outcomes['n_still_wrong']:,} still wrong, {outcomes['n_still_right']:,} still right"
        f" ({probability(outcomes['mcnemar_p'], 'p')})",
    )
    for metric in step["metrics"]:
        if metric["before"] is not None and metric["after"] is not None:
            line(
                "metric",
                f"{metric['name']} {metric['before']:.4f} → {metric['after']:.4f},"
                f" {_change(metric['change'])}: {metric['verdict']}",
            )
    _print_groups("class", step["classes"])
    _print_groups("slice", step["slices"])
    _print_patterns(step["patterns"])
    _print_focus(step["focus"])


def _print_focus(focus: dict[str, Any]) -> None:
    left = (
        f"{focus['n_before_only']:,} maps before and {focus['n_after_only']:,} after have no"
        " partner"
    )
    if focus["overlap"] is None:
        line("focus", f"no image was explained for the same class in both; {left}")
        return
    chance = focus["overlap"]["chance"]
    computed = f" ({focus['n_computed']:,} computed)" if focus["n_computed"] else ""
    line(
        "focus",
        f"{focus['n_maps']:,} maps in both{computed}; {left}; their hottest tenths overlap by"
        f" {focus['overlap']['mean']:.2f}{'' if chance is None else f', by chance {chance:.2f}'}",
    )
    if focus["objects"] is not None:
        _print_objects(focus["objects"])


def _print_objects(found: dict[str, Any]) -> None:
    from audit.diagnose.wording import percent, plural, printable, probability

    left = f"{plural(found['n_left_out'], 'map')} left out, whose object is not known"
    if found["energy_before"] is None or found["energy_after"] is None:
        line("object", f"of no image with maps in both is the object known; {left}")
    else:
        line(
            "object",
            f"share of the focus inside the object {percent(found['energy_before'])} →"
            f" {percent(found['energy_after'])}, {_change(found['energy_change'])}"
            f" ({probability(found['energy_p'], 'p')}); hottest pixel inside"
            f" {percent(found['pointing_before'] or 0)} → {percent(found['pointing_after'] or 0)},"
            f" {_change(found['pointing_change'])} ({probability(found['pointing_p'], 'p')});"
            f" {found['n_images']:,} images, {left}; an even map has"
            f" {percent(found['object_share'] or 0)} inside",
        )
    if found["n_unusable"]:
        line(
            "LEFT OUT",
            f"masks or boxes of {found['n_unusable']:,} images, the first because"
            f" {printable(found['first_reason'], 200)}",
        )


def _print_groups(label: str, groups: list[dict[str, Any]]) -> None:
    """Print the groups that changed most surely."""
    from audit.diagnose.wording import phrase, probability

    for group in sorted(groups, key=lambda group: group["q_value"])[:SHOWN]:
        line(
            label,
            f"{phrase(group['name'])}: {group['n_wrong_before']:,} → {group['n_wrong_after']:,}"
            f" errors of {group['n_images']:,}{' kept back' if group['found_in'] else ''},"
            f" {_change(group['change'])}: {group['verdict']}"
            f" ({probability(group['q_value'])})",
        )


def _print_patterns(patterns: list[dict[str, Any]]) -> None:
    from audit.diagnose.wording import phrase, probability

    for is_later in (False, True):
        own = [pattern for pattern in patterns if pattern["is_later"] == is_later]
        for pattern in own[:SHOWN]:
            was = "right before" if is_later else "now right"
            line(
                "later" if is_later else "pattern",
                f"{pattern['number']} {phrase(pattern['name'])}: of {pattern['n_matched']:,} errors"
                f" {pattern['n_right']:,} {was}, against {pattern['n_against']:,} the other way:"
                f" {pattern['verdict']} ({probability(pattern['q_value'])})",
            )


def _change(change: dict[str, Any]) -> str:
    if change["value"] is None:
        return "not defined"
    low, high = change["low"], change["high"]
    interval = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
    return f"{change['value']:+.4f}{interval}"
