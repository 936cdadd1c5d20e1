"""Writes the report: a folder of static pages that opens from disk, without any network.

In: a run folder whose metrics are done. Out: `report/` in it, whole or not at all. The same run
folder gives the same bytes. TensorFlow is never loaded.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import audit
from audit.report import images
from audit.report.charts import Chart
from audit.report.formats import FILTERS, is_defined
from audit.report.maps import MapLayer, ShardMaps, iter_shard_maps, map_layers
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
from audit.run_folder import RunFolder
from audit.schemas import records

Progress = Callable[[int, int], None]

PLAIN_FILES = (
    "report.css",
    "tables.js",
    "gallery.js",
    "maps.js",
    "viewer.js",
    "copy.js",
    "favicon.svg",
)


def render_report(folder: RunFolder, *, progress: Progress | None = None) -> Path:
    """Render the report of a run and return its first page.

    The pages are written beside the old report, which is replaced when they are complete.

    Args:
        folder: the run.
        progress: called with (errors done, errors in all) after every page of an error.

    Raises:
        RunFolderError: if the run has no metrics yet.
    """
    data = read_run(folder)
    report = folder.report_path.parent
    fresh, old = report.with_name("report.tmp"), report.with_name("report.old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    writer = PageWriter(fresh, make_environment())
    writer.write_static()
    found = patterns.pattern_views(data)
    pictured = _write_evidence_pages(data, writer)
    _write_pictures(folder, pictured | set(data.errors["image_id"].tolist()), fresh)
    _write_pattern_pictures(data, fresh)
    _copy_lists(folder, data, fresh)
    _write_error_pages(folder, data, found, writer, progress)
    _write_other_pages(data, found, writer)
    if report.exists():
        report.rename(old)
    fresh.rename(report)
    shutil.rmtree(old, ignore_errors=True)
    return folder.report_path


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
    environment.globals.update(colour_maps=list(images.COLOUR_MAPS), opacity=images.OVERLAY_OPACITY)
    return environment


@dataclass(frozen=True)
class PageWriter:
    """Renders templates into a folder."""

    folder: Path
    environment: jinja2.Environment

    def write(self, name: str, template: str, page: Any) -> None:
        """Render one page; `name` is its path in the report, made of fixed words and integers."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * name.count("/")
        text = self.environment.get_template(template).render(page=page, site=page.site, root=root)
        path.write_bytes(text.encode("utf-8", "replace"))

    def write_static(self) -> None:
        """Copy style sheet, scripts and icon, and write the colour tables for the browser."""
        target = self.folder / "static"
        target.mkdir(parents=True)
        loader = self.environment.loader
        assert loader is not None  # set in make_environment
        for name in PLAIN_FILES:
            source, _, _ = loader.get_source(self.environment, f"static/{name}")
            (target / name).write_bytes(source.encode())
        tables = {
            name: images.colour_table(name).reshape(-1).tolist() for name in images.COLOUR_MAPS
        }
        alpha = np.rint(images.heat_alpha() * 255).astype(int).tolist()
        template = self.environment.get_template("static/colours.js.jinja")
        (target / "colours.js").write_text(
            template.render(tables=tables, alpha=alpha), encoding="utf-8"
        )


def _drawing(chart: Chart) -> Markup:
    """Mark a chart's SVG as safe: the one text that is not escaped here, as Vega has done it."""
    return Markup(chart.svg)


def _write_pictures(folder: RunFolder, wanted: set[int], target: Path) -> None:
    """Copy what the model saw of these images, as far as it was kept, without metadata."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    for shard in folder.iter_shards("thumbnails", ["image_id", "jpeg"]):
        for image_id, jpeg in shard.itertuples(index=False, name=None):
            if image_id in wanted:
                _picture_path(target, image_id).write_bytes(images.strip_metadata(jpeg))


def _write_pattern_pictures(data: RunData, target: Path) -> None:
    for row in records(data.patterns):
        content = np.frombuffer(row["mean_map"], np.uint8)
        mean_map = content.reshape(int(row["mean_height"]), int(row["mean_width"]))
        path = target / "images" / f"pattern-{int(row['pattern'])}.jpg"
        path.write_bytes(images.colour_map_picture(mean_map))


def _write_error_pages(
    folder: RunFolder,
    data: RunData,
    found: Iterable[patterns.PatternView],
    writer: PageWriter,
    progress: Progress | None,
) -> None:
    """Write the page of every error, shard by shard, then those that have no maps."""
    left = set(data.errors["image_id"].tolist())
    n_all = len(left)
    layers = map_layers(data.layers) if data.is_explained else ()
    scores = read_top_scores(folder, left, errors.N_TOP_SCORES)
    exemplars = {pattern.number: pattern.exemplars for pattern in found}
    cropped = {crop.thumb.image_id: crop.photo for pattern in found for crop in pattern.crops}
    maker = errors.ErrorPageMaker.build(data, layers, scores, exemplars)

    def write(image_id: int, maps: ShardMaps | None) -> None:
        page = maker.page(image_id, maps)
        if maps is not None and page.thumb.photo:
            _write_overlays(page, maps, layers, writer.folder, cropped.get(image_id))
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
    target: Path,
    crop: str | None,
) -> None:
    """Write the fused map of both classes, on one scale, and the last layer's, over the picture.

    With `crop` as a file name, what lies under the predicted class' focus is cut out as well.
    """
    image_id = page.thumb.image_id
    picture = images.decode_picture(_picture_path(target, image_id).read_bytes())
    fused = next((n for n, layer in enumerate(layers) if layer.is_fused), None)
    for item in page.explained:
        row = maps.rows.get((image_id, item.index))
        if item.heat and row is not None and fused is not None:
            cam = maps.cam(row, fused)
            (target / item.heat).write_bytes(images.overlay(picture, cam, item.share))
            if crop and item.role == "predicted":
                (target / crop).write_bytes(images.focus_crop(picture, cam))
    if page.last_heat and page.last_layer is not None:
        row = maps.rows[image_id, page.explained[0].index]
        cam = maps.cam(row, layers.index(page.last_layer))
        (target / page.last_heat).write_bytes(images.overlay(picture, cam))


def _picture_path(target: Path, image_id: int) -> Path:
    return target / "images" / f"{image_id}.jpg"


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


def _copy_lists(folder: RunFolder, data: RunData, target: Path) -> None:
    """Copy the lists of images of each target, so that the report can be shared on its own."""
    for name in targets.list_files(data):
        (target / name).write_bytes((folder.path / name).read_bytes())


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
