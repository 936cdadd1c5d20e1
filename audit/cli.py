"""The command line: parse, call the Python API, print. The one place that prints errors."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from audit import __version__
from audit.arguments import LocalArgument, PlaceArgument
from audit.compare_command import compare, show_comparison
from audit.config import AuditConfig, option_name
from audit.errors import AuditError
from audit.places import Place
from audit.stopping import Stopped, stoppable
from audit.terminal import line, print_run, report_to

EXIT_ERROR = 1
GO_ON = "Nothing that is done is lost: start the same command again to go on."


class _Commands(click.Group):
    """Prints an `AuditError` as one sentence, without a traceback; stops when it is told to."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stoppable(GO_ON):
                return super().invoke(ctx)
        except AuditError as exc:
            click.echo(f"Error: {exc}", err=True)
            ctx.exit(EXIT_ERROR)
        except Stopped as exc:
            click.echo(f"Stopped by {exc}. {GO_ON}", err=True)
            ctx.exit(exc.exit_code)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each field of `AuditConfig`."""
    for name, field in reversed(AuditConfig.model_fields.items()):
        annotation = field.annotation
        choices = get_args(annotation) if get_origin(annotation) is Literal else None
        shown = field.default not in (None, {}) and not isinstance(field.default, bool)
        command = click.option(
            option_name(name),
            name,
            type=click.Choice(choices) if choices else _number_type(annotation),
            is_flag=annotation is bool,
            multiple=get_origin(annotation) is dict,
            metavar="NAME=VALUE" if get_origin(annotation) is dict else None,
            default=None,
            help=f"{field.description}" + (f"  [default: {field.default}]" if shown else ""),
        )(command)
    return command


def _number_type(annotation: Any) -> Any:
    if get_origin(annotation) is dict:
        return None
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
@click.argument("model", type=PlaceArgument())
@click.argument("data", type=PlaceArgument())
@click.option("--out", type=PlaceArgument(), required=True, help="The run folder.")
@click.option("--config", type=LocalArgument(), help="A TOML file with these options.")
@click.option(
    "--notify-cmd",
    metavar="COMMAND",
    help="A command to run at the end, whatever that is, with the summary as JSON on its stdin.",
)
@config_options
def run(
    model: Place,
    data: Place,
    out: Place,
    config: Path | None,
    notify_cmd: str | None,
    **options: Any,
) -> None:
    """Audit MODEL on the images in DATA and write a report; go on with an audit that was stopped.

    MODEL is a .keras or .h5 file, or the folder of a SavedModel. DATA is a folder with one folder
    per class, a flat folder (with --label-regex), or a .csv or .parquet file with the columns path
    and label. All three may be URLs, such as s3://bucket/val. The last line printed is the report's
    path.

    \b
    Example:
        gradcam-audit run model.keras val/ --out runs/tonight --scaling -1-1
    """
    from audit.ending import end_of, failure
    from audit.notify import parse_command
    from audit.pipeline import run as run_audit

    # A zero is a value; only an option that was not given, or a flag that is off, is left out.
    given = {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != ()
    }
    command = parse_command(notify_cmd) if notify_cmd is not None else None
    try:
        with stoppable(GO_ON):
            result = run_audit(model, data, out, config=config, **given)
    except Stopped as exc:
        report_to(command, failure(exc, out, exc.exit_code).summary)
        raise
    except Exception as exc:
        report_to(command, failure(exc, out).summary)
        raise
    ending = end_of(result)
    print_run(ending.summary)
    for label, text in ending.notes:
        line(label, text)
    report_to(command, ending.summary)
    click.echo(result.report_path)
    if ending.exit_code:
        sys.exit(ending.exit_code)


@main.command(short_help="Render the report of a run again, or share it as one file.")
@click.argument("run_folder", metavar="RUN", type=PlaceArgument())
@click.option(
    "--zip",
    "zip_path",
    type=LocalArgument(),
    help="Write the report as this zip file, which opens after unzipping.",
)
@click.option(
    "--single-file",
    "html_path",
    type=LocalArgument(),
    help="Write the report as this one HTML file, which needs nothing else.",
)
@click.option(
    "--budget",
    default="25MB",
    show_default=True,
    help="How large the single file may be; the errors that say least are left out, and counted.",
)
@click.option(
    "--redact",
    is_flag=True,
    help="Leave out paths, file names, metadata and fingerprints; class names and pictures stay.",
)
@click.option(
    "--picture-size",
    type=click.IntRange(min=1),
    help="Make pictures smaller, to so many pixels on their longer side.",
)
@click.option(
    "--layer-detail",
    type=click.IntRange(min=1),
    help="Pixels on the longer side of a layer's map.  [default: 14]",
)
def report(
    run_folder: Place,
    zip_path: Path | None,
    html_path: Path | None,
    budget: str,
    redact: bool,
    picture_size: int | None,
    layer_detail: int | None,
) -> None:
    """Render the report of RUN again, or write it as a file to be sent.

    Needs no TensorFlow and no images. With --zip or --single-file, or both, these files are written
    and the report in RUN stays as it is. The last lines printed are the paths of what was written.

    \b
    Example:
        gradcam-audit report runs/tonight
        gradcam-audit report runs/tonight --single-file tonight.html --redact
    """
    from audit.config import parse_budget
    from audit.report.maps import LAYER_DETAIL
    from audit.report.render import ReportOptions, render_report
    from audit.report.share import write_zip
    from audit.report.single_file import write_single_file
    from audit.run_folder import RunFolder
    from audit.run_lock import locked

    folder, n_bytes = RunFolder.open(run_folder), parse_budget(budget)
    options = ReportOptions(
        layer_detail=layer_detail or LAYER_DETAIL, redact=redact, picture_side=picture_size
    )
    if zip_path is None and html_path is None:
        with locked(folder):
            click.echo(render_report(folder, options=options))
        return
    if html_path is not None:
        written = write_single_file(folder, html_path, budget=n_bytes, options=options)
        if written.n_left_out:
            line(
                "errors",
                f"{written.n_errors:,} of {written.n_all_errors:,} are in the single file; the"
                f" others were left out to stay under {budget}",
            )
    if zip_path is not None:
        write_zip(folder, zip_path, options=options)
    for path in (zip_path, html_path):
        if path is not None:
            click.echo(path)


@main.command()
@click.argument("run_folder", metavar="RUN", type=PlaceArgument())
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a script.")
def show(run_folder: Place, as_json: bool) -> None:
    """Print the summary of RUN, or of a folder that `compare` made.

    \b
    Example:
        gradcam-audit show runs/tonight --json
    """
    from audit.results import Run

    if show_comparison(run_folder, as_json):
        return
    summary = Run(run_folder).summary()
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print_run(summary)
        click.echo(summary["report"] or "no report yet")


@main.command(short_help="Find more images like a target's, in a pool without labels.")
@click.argument("run_folder", metavar="RUN", type=PlaceArgument())
@click.option("--target", required=True, help="The id of a target of RUN, such as T1.")
@click.option(
    "--pool",
    type=PlaceArgument(),
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
    type=PlaceArgument(),
    help="Where the search is kept.  [default: find/TARGET in RUN]",
)
@click.option(
    "--model", type=PlaceArgument(), help="Where the model of RUN is now.  [default: where it was]"
)
@click.option("--trust-model-code", is_flag=True, help="Run code that the model file brings along.")
def find(run_folder: Place, target: str, pool: Place, **options: Any) -> None:
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

    found = find_images(run_folder, target, pool, **options)
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
@click.argument("model", type=PlaceArgument())
@click.option(
    "--head",
    type=click.Choice(get_args(AuditConfig.model_fields["head"].annotation)),
    default="auto",
    help="What the model's outputs are; 'auto' finds out.",
)
@click.option("--output", help=AuditConfig.model_fields["output"].description)
@click.option("--trust-model-code", is_flag=True, help="Run code that the model file brings along.")
def inspect(model: Place, head: str, output: str | None, trust_model_code: bool) -> None:
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
    type=LocalArgument(),
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
    print_run(result.summary())
    click.echo(result.report_path)


main.add_command(compare)
