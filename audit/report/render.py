"""Writes the report: a folder of static pages that opens from disk, without any network.

In: a run folder whose metrics are done. Out: `report/` in it, whole or not at all. The same run
folder gives the same bytes. TensorFlow is never loaded.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

import audit
from audit.report import images
from audit.report.charts import Chart
from audit.report.formats import FILTERS, is_defined
from audit.report.maps import LAYER_DETAIL, MapLayer, ShardMaps, iter_shard_maps, map_layers
from audit.report.run_data import RunData, read_run, read_top_scores
from audit.report.views import (
    errors,
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
from audit.report.views.thumbs import picture_name
from audit.run_folder import RunFolder
from audit.schemas import records

Progress = Callable[[int, int], None]

PLAIN_FILES = (
    "report.css",
    "report.js",
    "tables.js",
    "gallery.js",
    "maps.js",
    "viewer.js",
    "copy.js",
    "favicon.svg",
)


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds.

    Attributes:
        layer_detail: pixels on the longer side of a layer's map on a page.
    """

    layer_detail: int = LAYER_DETAIL


class Sink(Protocol):
    """Where a report's files go: a folder, an archive, one file."""

    def write(self, name: str, content: bytes) -> None:
        """Take a file; `name` is its path in the report, made of fixed words and integers."""


@dataclass(frozen=True)
class FolderSink:
    """Writes a report's files into a folder."""

    folder: Path

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def render_report(
    folder: RunFolder,
    *,
    options: ReportOptions = ReportOptions(),
    progress: Progress | None = None,
) -> Path:
    """Render the report of a run and return its first page.

    The pages are written beside the old report, which is replaced when they are complete.

    Args:
        folder: the run.
        options: what the pages hold.
        progress: called with (errors done, errors in all) after every page of an error.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    report = folder.report_path.parent
    fresh, old = report.with_name("report.tmp"), report.with_name("report.old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    write_pages(folder, FolderSink(fresh), options=options, progress=progress)
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
) -> None:
    """Render every page and picture of a run's report into a sink.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    data = read_run(folder)
    writer = PageWriter(sink, make_environment())
    writer.write_static()
    found = patterns.pattern_views(data)
    pictured = _write_evidence_pages(data, writer)
    pictures = _write_pictures(folder, pictured | set(data.errors["image_id"].tolist()), sink)
    _write_pattern_pictures(data, sink)
    _copy_lists(folder, data, sink)
    _write_error_pages(folder, data, found, writer, pictures, options, progress)
    _write_other_pages(data, found, writer)


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return a summary, as `Run.summary` gives it, as a fragment of HTML for a notebook."""
    return make_environment().get_template("_summary.html").render(summary=summary)


def make_environment() -> jinja2.Environment:
    """Return the one Jinja environment: everything escaped, a misspelt name is an error."""
    package = Path(audit.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([package / "templates", package.parent / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    environment.filters["drawing"] = _drawing
    environment.tests["defined_number"] = is_defined
    environment.globals.update(colour_maps=list(images.COLOUR_MAPS), layout="base.html")
    return environment


@dataclass(frozen=True)
class PageWriter:
    """Renders templates into a sink."""

    sink: Sink
    environment: jinja2.Environment

    def write(self, name: str, template: str, page: Any) -> None:
        """Render one page; `name` is its path in the report, made of fixed words and integers."""
        root = "../" * name.count("/")
        text = self.environment.get_template(template).render(page=page, site=page.site, root=root)
        self.sink.write(name, text.encode("utf-8", "replace"))

    def write_static(self) -> None:
        """Copy style sheet, scripts and icon, and write the colour tables for the browser."""
        loader = self.environment.loader
        assert loader is not None  # set in make_environment
        for name in PLAIN_FILES:
            source, _, _ = loader.get_source(self.environment, f"static/{name}")
            self.sink.write(f"static/{name}", source.encode())
        tables = {
            name: images.colour_table(name).reshape(-1).tolist() for name in images.COLOUR_MAPS
        }
        alpha = np.rint(images.heat_alpha() * 255).astype(int).tolist()
        template = self.environment.get_template("static/colours.js.jinja")
        colours = template.render(tables=tables, alpha=alpha)
        self.sink.write("static/colours.js", colours.encode())


def _drawing(chart: Chart) -> Markup:
    """Mark a chart's SVG as safe: the one text that is not escaped here, as Vega has done it."""
    return Markup(chart.svg)


def _write_pictures(folder: RunFolder, wanted: set[int], sink: Sink) -> dict[int, bytes]:
    """Copy what the model saw of these images, as far as it was kept, without metadata."""
    pictures = {}
    for shard in folder.iter_shards("thumbnails", ["image_id", "jpeg"]):
        for image_id, jpeg in shard.itertuples(index=False, name=None):
            if image_id in wanted:
                pictures[image_id] = images.strip_metadata(jpeg)
                sink.write(picture_name(image_id), pictures[image_id])
    return pictures


def _write_pattern_pictures(data: RunData, sink: Sink) -> None:
    for row in records(data.patterns):
        content = np.frombuffer(row["mean_map"], np.uint8)
        mean_map = content.reshape(int(row["mean_height"]), int(row["mean_width"]))
        name = f"images/pattern-{int(row['pattern'])}.jpg"
        sink.write(name, images.colour_map_picture(mean_map))


def _write_error_pages(
    folder: RunFolder,
    data: RunData,
    found: Iterable[patterns.PatternView],
    writer: PageWriter,
    pictures: Mapping[int, bytes],
    options: ReportOptions,
    progress: Progress | None,
) -> None:
    """Write the page of every error, shard by shard, then those that have no maps."""
    left = set(data.errors["image_id"].tolist())
    n_all = len(left)
    layers = map_layers(data.layers, options.layer_detail) if data.is_explained else ()
    scores = read_top_scores(folder, left, errors.N_TOP_SCORES)
    exemplars = {pattern.number: pattern.exemplars for pattern in found}
    cropped = {crop.thumb.image_id: crop.photo for pattern in found for crop in pattern.crops}
    maker = errors.ErrorPageMaker.build(data, layers, scores, exemplars)

    def write(image_id: int, maps: ShardMaps | None) -> None:
        page = maker.page(image_id, maps)
        if maps is not None and page.thumb.photo:
            picture = images.decode_picture(pictures[image_id])
            _write_overlays(page, maps, layers, picture, writer.sink, cropped.get(image_id))
        writer.write(page.thumb.href, "error.html", page)
        left.discard(image_id)
        if progress is not None:
            progress(n_all - len(left), n_all)

    if data.is_explained:
        for maps in iter_shard_maps(folder, layers, set(left)):
            for image_id in sorted({image_id for image_id, _ in maps.rows}):
                write(image_id, maps)
    for image_id in sorted(left):
        write(image_id, None)


def _write_overlays(
    page: errors.ErrorPage,
    maps: ShardMaps,
    layers: tuple[MapLayer, ...],
    picture: NDArray[np.uint8],
    sink: Sink,
    crop: str | None,
) -> None:
    """Write the fused map of both classes, on one scale, and the last layer's, over the picture.

    With `crop` as a file name, what lies under the predicted class' focus is cut out as well.
    """
    image_id = page.thumb.image_id
    fused = next((n for n, layer in enumerate(layers) if layer.is_fused), None)
    for item in page.explained:
        row = maps.rows.get((image_id, item.index))
        if item.heat and row is not None and fused is not None:
            cam = maps.cam(row, fused)
            sink.write(item.heat, images.overlay(picture, cam, item.share))
            if crop and item.role == "predicted":
                sink.write(crop, images.focus_crop(picture, cam))
    if page.last_heat and page.last_layer is not None:
        row = maps.rows[image_id, page.explained[0].index]
        cam = maps.cam(row, layers.index(page.last_layer))
        sink.write(page.last_heat, images.overlay(picture, cam))


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


def _copy_lists(folder: RunFolder, data: RunData, sink: Sink) -> None:
    """Copy the lists of images of each target, so that the report can be shared on its own."""
    for name in targets.list_files(data):
        sink.write(name, (folder.path / name).read_bytes())


def _write_other_pages(
    data: RunData, found: tuple[patterns.PatternView, ...], writer: PageWriter
) -> None:
    writer.write("index.html", "index.html", overview.overview_page(data, found))
    writer.write("metrics.html", "metrics.html", metrics.metrics_page(data))
    for shown in gallery.gallery_pages(data):
        writer.write(gallery.gallery_file(shown.number), "errors.html", shown)
    writer.write("patterns.html", "patterns.html", patterns.patterns_page(data, found))
    for page in patterns.pattern_pages(data, found):
        writer.write(page.pattern.href, "pattern.html", page)
    writer.write("run.html", "run.html", run.run_page(data))
