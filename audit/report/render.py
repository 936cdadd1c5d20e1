"""Writes the report: a folder of static pages that opens from disk, without any network.

In: a run folder whose metrics are done. Out: `report/` in it, whole or not at all. The same run
folder gives the same bytes. TensorFlow is never loaded.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.disk import writing
from audit.places import Place, Remote
from audit.report import images
from audit.report.error_files import Progress, write_errors
from audit.report.maps import LAYER_DETAIL
from audit.report.pages import PAGE_LAYOUT, FolderSink, PageWriter, Sink, make_environment
from audit.report.redact import redact, redact_list
from audit.report.run_data import RunData, read_run
from audit.report.views import (
    confusion,
    findings,
    gallery,
    labels,
    metrics,
    overview,
    patterns,
    probes,
    run,
    slices,
    targets,
)
from audit.report.views.times import run_times
from audit.run_folder import RunFolder
from audit.schemas import records


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds.

    Attributes:
        layer_detail: pixels on the longer side of a layer's map on a page.
        with_times: whether the pages themselves say how long the run took; those in a run folder
            read it from `logs/times.js`, so that the same audit gives the same pages.
        redact: whether paths, file names, metadata and fingerprints are left out, see `redact`.
        picture_side: pixels of the longer side that pictures are made smaller to; `None`: as kept.
    """

    layer_detail: int = LAYER_DETAIL
    with_times: bool = False
    redact: bool = False
    picture_side: int | None = None


def render_report(
    folder: RunFolder,
    *,
    options: ReportOptions = ReportOptions(),
    progress: Progress | None = None,
) -> Place:
    """Render the report of a run and return its first page.

    The pages are written beside the old report, which is replaced when they are complete. Those of
    a run behind a URL are made on this machine and then uploaded, the first page last.

    Args:
        folder: the run.
        options: what the pages hold.
        progress: called with (errors done, errors in all) after every page of an error.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    report = folder.report_path.parent
    if isinstance(report, Remote):
        with tempfile.TemporaryDirectory() as spool:
            write_pages(folder, FolderSink(Path(spool)), options=options, progress=progress)
            write_times(folder, folder.read_manifest())
            with writing(report):
                report.replace_files(Path(spool), last=folder.report_path.name)
        return folder.report_path
    fresh, old = report.with_name("report.tmp"), report.with_name("report.old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    write_pages(folder, FolderSink(fresh), options=options, progress=progress)
    write_times(folder, folder.read_manifest())
    with writing(report):
        if report.exists():
            report.rename(old)
        fresh.rename(report)
    shutil.rmtree(old, ignore_errors=True)
    return folder.report_path


def write_pages(
    folder: RunFolder,
    sink: Sink,
    *,
    options: ReportOptions = ReportOptions(),
    progress: Progress | None = None,
    layout: str = PAGE_LAYOUT,
) -> RunData:
    """Render every page and picture of a run's report into a sink.

    Args:
        folder: the run.
        sink: takes the files.
        options: what the pages hold.
        progress: called with (errors done, errors in all) after every page of an error.
        layout: the template that frames the pages; in any but the usual one all links are relative
            to the report's folder, wherever the page is.

    Returns:
        What the pages tell of, without what was redacted.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    data = read_run(folder)
    if options.redact:
        data = redact(data)
    environment = make_environment()
    environment.globals.update(layout=layout, redacted=options.redact)
    writer = PageWriter(sink, environment, is_flat=layout != PAGE_LAYOUT)
    writer.write_static()
    found = patterns.pattern_views(data)
    pictured = _write_evidence_pages(data, writer)
    _write_pattern_pictures(data, sink)
    _copy_lists(folder, data, sink, redacted=options.redact)
    write_errors(
        folder,
        data,
        found,
        pictured,
        writer,
        layer_detail=options.layer_detail,
        picture_side=options.picture_side,
        progress=progress,
    )
    _write_other_pages(data, found, writer, options)
    return data


def write_times(folder: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Write how long the run took where the report's page on the run looks for it.

    Args:
        folder: the run.
        manifest: its manifest, which need not be saved yet.
    """
    template = make_environment().get_template("static/times.js.jinja")
    times = asdict(run_times(manifest))
    folder.write_file("logs/times.js", template.render(times=times).encode())


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return a summary, as `Run.summary` gives it, as a fragment of HTML for a notebook."""
    return make_environment().get_template("_summary.html").render(summary=summary)


def _write_pattern_pictures(data: RunData, sink: Sink) -> None:
    for row in records(data.patterns):
        content = np.frombuffer(row["mean_map"], np.uint8)
        mean_map = content.reshape(int(row["mean_height"]), int(row["mean_width"]))
        name = f"images/pattern-{int(row['pattern'])}.jpg"
        sink.write(name, images.colour_map_picture(mean_map))


def _write_evidence_pages(data: RunData, writer: PageWriter) -> set[int]:
    """Write findings, targets, slices, labels and probes; return the images on these pages."""
    found = findings.findings_page(data)
    todo, each_todo = targets.targets_page(data), targets.target_pages(data)
    doubted = labels.labels_page(data)
    writer.write("findings.html", "findings.html", found)
    writer.write("targets.html", "targets.html", todo)
    for page in each_todo:
        writer.write(page.target.href, "target.html", page)
    writer.write("slices.html", "slices.html", slices.slices_page(data))
    for part in slices.slice_pages(data):
        writer.write(part.slice.href, "slice.html", part)
    writer.write("labels.html", "labels.html", doubted)
    writer.write("robustness.html", "robustness.html", probes.probes_page(data))
    shown = found.image_ids() | todo.image_ids() | doubted.image_ids()
    return shown.union(*(page.image_ids() for page in each_todo))


def _copy_lists(folder: RunFolder, data: RunData, sink: Sink, *, redacted: bool) -> None:
    """Copy the lists of images of each target, so that the report can be shared on its own."""
    for name in targets.list_files(data):
        content = (folder.path / name).read_bytes()
        sink.write(name, redact_list(name, content, data) if redacted else content)


def _write_other_pages(
    data: RunData,
    found: tuple[patterns.PatternView, ...],
    writer: PageWriter,
    options: ReportOptions,
) -> None:
    writer.write("index.html", "index.html", overview.overview_page(data, found))
    writer.write("confusion.html", "confusion.html", confusion.confusion_page(data))
    writer.write("metrics.html", "metrics.html", metrics.metrics_page(data))
    for shown in gallery.gallery_pages(data):
        writer.write(gallery.gallery_file(shown.number), "errors.html", shown)
    writer.write("patterns.html", "patterns.html", patterns.patterns_page(data, found))
    for page in patterns.pattern_pages(data, found):
        writer.write(page.pattern.href, "pattern.html", page)
    about = run.run_page(data, layer_detail=options.layer_detail, with_times=options.with_times)
    writer.write("run.html", "run.html", about)
