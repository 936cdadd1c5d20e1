"""What the commands print of a run: plain lines, a label and a text, that fit a terminal."""

from typing import Any

import click

SHOWN = 5
"""Findings, and targets, that a terminal shows."""


def line(label: str, text: object) -> None:
    """Print what something is called and what it is."""
    click.echo(f"{label:<12}{text}")


def print_run(summary: dict[str, Any]) -> None:
    """Print a summary that fits a terminal."""
    undefined = summary["n_undefined"]
    line(
        "images",
        f"{summary['n_images']:,} ({summary['n_unreadable']} unreadable,"
        f"{f' {undefined} with undefined scores,' if undefined else ''}"
        f" {summary['n_skipped']} skipped)",
    )
    if summary["accuracy"] is None:
        line("status", f"{summary['status']}; no metrics yet. Run the same command again to go on.")
        return
    low, high = summary["accuracy_interval"]
    line("accuracy", f"{summary['accuracy']:.2%} [{low:.2%}, {high:.2%}]")
    if summary["positive_class"] is not None:
        line(
            "errors",
            f"{summary['n_errors']}: {summary['false_positives']} false positives,"
            f" {summary['false_negatives']} false negatives"
            f" (positive class: {summary['positive_class']})",
        )
    else:
        line("errors", summary["n_errors"])
    if summary["patterns"] is not None:
        by_occlusion = summary["method"] == "occlusion"
        how = "by occlusion" if by_occlusion else f"over {summary['n_layers']} layers"
        line("explained", f"{summary['n_explained_errors']} errors {how}")
        for pattern in summary["patterns"]:
            line(
                f"pattern {pattern['id']}",
                f"{pattern['name']}: {pattern['n_errors']} errors (cause: {pattern['verdict']})",
            )
    if summary.get("objects") is not None:
        _print_objects(summary["objects"])
    if summary["findings"] is not None:
        _print_diagnosis(summary["findings"], summary["targets"])
    for warning in summary["warnings"]:
        line("WARNING", warning)


def _print_objects(found: dict[str, Any]) -> None:
    """Print how much of the focus of errors, and of correct images, lies inside the object."""
    from audit.diagnose.wording import percent, times

    known = f"the object is known in {found['n_known']:,} of {found['n_images']:,} images"
    sides = [
        f"{words} {percent(found[name]['energy']['value'])}"
        f" ({times(found[name]['lift']['value'])} times that of an even map)"
        for name, words in (("errors", "of errors"), ("controls", "of correct images"))
        if found[name]["n"]
    ]
    shares = f"share of the focus inside the object: {', '.join(sides)}; " if sides else ""
    line("object", shares + known)


def _print_diagnosis(findings: list[dict[str, Any]], targets: list[dict[str, Any]]) -> None:
    """Print the first findings and targets, a line each."""
    if not findings:
        line("findings", "nothing passed its test")
    for finding in findings[:SHOWN]:
        line(f"finding {finding['id']}", finding["text"])
    for target in targets[:SHOWN]:
        gain = target["gain"]
        most, low, high = (round(gain[name]) for name in ("value", "low", "high"))
        worth = f" (at most {most} errors fewer [{low}, {high}])" if gain["high"] > 0 else ""
        line(f"target {target['id']}", target["title"] + worth)
    left = max(0, len(findings) - SHOWN), max(0, len(targets) - SHOWN)
    if any(left):
        line("more", f"{left[0]} findings and {left[1]} targets are in the report")


def report_to(command: list[str] | None, summary: dict[str, Any]) -> None:
    """Run the user's own command, if there is one; that it fails is no failure of the run."""
    from audit.notify import notify

    trouble = notify(command, summary) if command is not None else None
    if trouble is not None:
        click.echo(f"WARNING: the command of `--notify-cmd` failed: {trouble}.", err=True)
