"""The command line: parse, call the Python API, print. The one place that prints errors."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from audit import __version__
from audit.config import AuditConfig, option_name
from audit.errors import AuditError

EXIT_ERROR = 1
EXIT_LEFT_OUT = 3
SHOWN = 5
"""Findings, and targets, that a terminal shows."""


class _Commands(click.Group):
    """Prints an `AuditError` as one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuditError as exc:
            click.echo(f"Error: {exc}", err=True)
            ctx.exit(EXIT_ERROR)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each field of `AuditConfig`."""
    for name, field in reversed(AuditConfig.model_fields.items()):
        annotation = field.annotation
        choices = get_args(annotation) if get_origin(annotation) is Literal else None
        shown = field.default is not None and not isinstance(field.default, bool)
        command = click.option(
            option_name(name),
            name,
            type=click.Choice(choices) if choices else _number_type(annotation),
            is_flag=annotation is bool,
            default=None,
            help=f"{field.description}" + (f"  [default: {field.default}]" if shown else ""),
        )(command)
    return command


def _number_type(annotation: Any) -> Any:
    wanted = set(get_args(annotation)) or {annotation}
    return next((kind for kind in (int, float) if kind in wanted), None)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="gradcam-audit")
def main() -> None:
    """Find out why an image classifier is wrong, where it looked, and what to do about it.

    \b
    Example:
        gradcam-audit demo
        gradcam-audit run model.keras val/ --out runs/tonight
    """


@main.command(short_help="Audit a model and write a report; goes on where it was stopped.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with these options.")
@config_options
def run(model: Path, data: Path, out: Path, config: Path | None, **options: Any) -> None:
    """Audit MODEL on the images in DATA and write a report; go on with an audit that was stopped.

    MODEL is a .keras or .h5 file, or the folder of a SavedModel. DATA is a folder with one folder
    per class, a flat folder (with --label-regex), or a .csv or .parquet file with the columns path
    and label. The last line printed is the report's path.

    \b
    Example:
        gradcam-audit run model.keras val/ --out runs/tonight --scaling -1-1
    """
    from audit.pipeline import run as run_audit

    # A zero is a value; only an option that was not given, or a flag that is off, is left out.
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    result = run_audit(model, data, out, config=config, **given)
    _print_run(result.summary())
    click.echo(result.report_path)
    allowed = result.manifest["config"]["max_unreadable"]
    unexplained = any(warning["kind"] == "unexplained" for warning in result.manifest["warnings"])
    if result.summary()["n_unreadable"] > allowed or unexplained:
        sys.exit(EXIT_LEFT_OUT)


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def report(run_folder: Path) -> None:
    """Render the report of RUN again. Needs no TensorFlow and no images.

    \b
    Example:
        gradcam-audit report runs/tonight
    """
    from audit.report.render import render_report
    from audit.run_folder import RunFolder

    click.echo(render_report(RunFolder.open(run_folder)))


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a script.")
def show(run_folder: Path, as_json: bool) -> None:
    """Print the summary of RUN.

    \b
    Example:
        gradcam-audit show runs/tonight --json
    """
    from audit.results import Run

    summary = Run(run_folder).summary()
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print_run(summary)
        click.echo(summary["report"] or "no report yet")


@main.command(short_help="Find more images like a target's, in a pool without labels.")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="The id of a target of RUN, such as T1.")
@click.option(
    "--pool",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder of images, which may lie in folders of their own.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many images are listed and shown.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the search is kept.  [default: find/TARGET in RUN]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Where the model of RUN is now.  [default: where it was]",
)
def find(
    run_folder: Path, target: str, pool: Path, top: int, out: Path | None, model: Path | None
) -> None:
    """Rank the images of a pool by how like they are to those of a target of RUN.

    For a target that rests on a focus pattern, an image is like it if some place in it looks to the
    model like what it looked at in the target's images; otherwise whole images are compared. Writes
    a table and a contact sheet; a search that was stopped goes on. The last line printed is the
    contact sheet's path.

    \b
    Example:
        gradcam-audit find runs/tonight --target T1 --pool photographs/ --top 100
    """
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()
    from audit.report.formats import legible
    from audit.search.find import find_images

    found = find_images(run_folder, target, pool, top=top, out=out, model=model)
    best = found.table.iloc[0]
    line("target", f"{found.target['id']}: {found.target['title']}")
    line(
        "pool",
        f"{found.n_images:,} images ({found.n_unreadable} unreadable, {found.n_skipped} skipped)",
    )
    line("best", f"{legible(best['path'])}, likeness {best['likeness']:.2f}")
    for note in found.notes:
        line("NOTE", note)
    line("table", found.csv_path)
    click.echo(found.sheet_path)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--head",
    type=click.Choice(get_args(AuditConfig.model_fields["head"].annotation)),
    default="auto",
    help="What the model's outputs are; 'auto' finds out.",
)
@click.option("--output", help=AuditConfig.model_fields["output"].description)
@click.option("--trust-model-code", is_flag=True, help="Run code that the model file brings along.")
def inspect(model: Path, head: str, output: str | None, trust_model_code: bool) -> None:
    """Say what would be explained of MODEL: input, outputs, logits, and every spatial layer.

    \b
    Example:
        gradcam-audit inspect model.keras
    """
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()
    from audit.explain.explainers import make_explainer
    from audit.explain.occlusion import OcclusionExplainer
    from audit.predict.model import load_model
    from audit.predict.tracing import computes_in_half

    audited = load_model(model, head=head, output=output, trust_model_code=trust_model_code)
    explainer = make_explainer(audited)
    height, width = audited.input_size
    outputs = 1 if audited.has_one_output else audited.head.n_classes
    size = f"{audited.n_parameters:,} parameters" if audited.n_parameters else "parameters unknown"
    click.echo(f"model       {audited.name}, {size}")
    click.echo(
        f"input       {height} × {width} × {audited.channels}, float32;"
        " scaling is up to --scaling, default none (0 to 255)"
        + ("; turned for the model, which takes channels first" if audited.channels_first else "")
    )
    click.echo(
        f"outputs     {outputs}, {audited.head.kind}"
        f" ({'as you say' if audited.head.forced else 'detected; --head overrides it'})"
        + (f", of the output `{output}`" if output else "")
    )
    click.echo(f"classes     {audited.head.n_classes}")
    click.echo(f"explained   {audited.head.explained}")
    half = computes_in_half(audited.model)
    if half:
        click.echo(f"precision   {half} in predictions, as saved; float32 in heat-maps")
    if isinstance(explainer, OcclusionExplainer):
        click.echo(f"layers      none can be shown: this is {audited.opaque}")
        click.echo(
            f"maps        by occlusion: {explainer.n_probes} parts of each image are painted out in"
            " turn; --method and --layers do not apply"
        )
        return
    kept = sum(layer.kept for layer in explainer.layers)
    click.echo(f"layers      {len(explainer.layers)} spatial, {kept} explained\n")
    width = max(len(layer.kind) for layer in explainer.layers)
    click.echo(f"{'#':>4}  {'size':>9}  {'channels':>8}  {'stage':>5}  {'kind':<{width}}  layer")
    for layer in explainer.layers:
        size = f"{layer.height}×{layer.width}"
        note = "" if layer.kept else f"   skipped: {layer.reason}"
        click.echo(
            f"{layer.order:>4}  {size:>9}  {layer.channels:>8}  {layer.stage:>5}"
            f"  {layer.kind:<{width}}  {layer.layer}{note}"
        )


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Where to put the images, the model and the run.",
)
def demo(out: Path) -> None:
    """Train a small model with a planted flaw and audit it, end to end.

    The model learns to tell handwritten 3s from 8s, but most 8s it learns from carry coloured bars.
    The report shows what that does to it.

    \b
    Example:
        gradcam-audit demo --out demo-run
    """
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()
    from audit.demo import run_demo

    result = run_demo(out)
    _print_run(result.summary())
    click.echo(result.report_path)


def line(label: str, text: object) -> None:
    """Print what something is called and what it is."""
    click.echo(f"{label:<12}{text}")


def _print_run(summary: dict[str, Any]) -> None:
    """Print a summary that fits a terminal."""
    line(
        "images",
        f"{summary['n_images']:,} ({summary['n_unreadable']} unreadable,"
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
    if summary["findings"] is not None:
        _print_diagnosis(summary["findings"], summary["targets"], line)
    for warning in summary["warnings"]:
        line("WARNING", warning)


def _print_diagnosis(
    findings: list[dict[str, Any]],
    targets: list[dict[str, Any]],
    line: Callable[[str, object], None],
) -> None:
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
