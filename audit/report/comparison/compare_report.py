"""Writes the report of a comparison: pages that open from disk, without any network.

In: a comparison. Out: `index.html`, `images.html` and what they need, beside the tables of the
comparison, whole or not at all. The same comparison gives the same bytes. TensorFlow is never
loaded, and no more than a few shards of each run are in memory at a time.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit.compare.comparison import Comparison
from audit.compare.paired import Change
from audit.compare.patterns_change import FoundPattern
from audit.compare.stored import read_patterns
from audit.disk import writing
from audit.report import images
from audit.report.charts import Chart, series_chart
from audit.report.comparison.animation import Frame, overlay_gif
from audit.report.comparison.compare_gallery import gallery_name, gallery_pages
from audit.report.comparison.compare_image import ImagePage, image_page
from audit.report.comparison.compare_overview import (
    CompareSite,
    RunRow,
    StepPage,
    StepView,
    make_site,
    run_rows,
    step_name,
    step_view,
)
from audit.report.comparison.compared_images import (
    ComparedImages,
    gif_name,
    heat_name,
    page_name,
    photo_name,
)
from audit.report.comparison.compared_pictures import ComparedPictures
from audit.report.comparison.mean_maps import MeanMaps
from audit.report.formats import legible, shorten
from audit.report.pages import FolderSink, PageWriter, make_environment

PLACES = ("index.html", "images.html", "images", "steps", "static")
"""What the report puts into the folder of a comparison; an earlier report is taken out."""
STATIC_FILES = (
    "report.css",
    "compare.css",
    "report.js",
    "tables.js",
    "maps.js",
    "copy.js",
    "compare_images.js",
    "compare_image.js",
    "favicon.svg",
)
MOST_GIFS = 24
"""Images that get an animation to download: those whose true class gained or lost most."""
MOST_CHARTED = 6
"""Patterns whose place is charted over a series."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IndexPage:
    """The first page: all about the last step, and of a series what happened on the way.

    `charts` holds (caption, drawing). `n_gifs` counts animations.
    """

    site: CompareSite
    runs: tuple[RunRow, ...]
    step: StepView
    steps: tuple[StepView, ...]
    charts: tuple[tuple[str, Chart], ...]


def write_compare_report(
    comparison: Comparison,
    path: Path,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write the report into the folder of a comparison and return its first page.

    Args:
        comparison: of two runs or more.
        path: its folder, which must exist.
        progress: called with (images done, images in all) after every page of an image.
    """
    fresh = path / "report.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    write_compare_pages(comparison, fresh, progress=progress)
    with writing(path):
        for name in PLACES:
            _remove(path / name)
            if (fresh / name).exists():
                (fresh / name).rename(path / name)
        fresh.rmdir()
    return path / "index.html"


def write_compare_pages(
    comparison: Comparison,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> None:
    """Write all pages and pictures into a new folder. Arguments as in `write_compare_report`."""
    shown = ComparedImages(comparison, ComparedPictures(comparison.images))
    patterns = [
        read_patterns(comparison.images, run, is_later=run > 0)
        for run in range(len(comparison.runs))
    ]
    site, means = make_site(comparison, len(shown)), MeanMaps(patterns, comparison.images.y_pred)
    environment = make_environment()
    sink = FolderSink(folder)
    writer = PageWriter(sink, environment)
    writer.write_static(STATIC_FILES)
    _write_images(site, shown, patterns, means, writer, progress)
    for page in gallery_pages(site, shown, patterns):
        writer.write(gallery_name(page.number), "compare_images.html", page)
    steps = tuple(step_view(comparison, step, shown, means) for step in comparison.steps)
    for step in steps:
        for row in step.patterns:
            for mean in (row.before, row.after):
                if mean.picture is not None and mean.mean.cam is not None:
                    sink.write(mean.picture, images.colour_map_picture(mean.mean.cam))
    if site.is_series:
        _write_steps(site, steps, writer)
    charts = _charts(comparison, steps) if site.is_series else ()
    index = IndexPage(site, run_rows(comparison), steps[-1], steps, charts)
    writer.write("index.html", "compare.html", index)


def _write_images(
    site: CompareSite,
    shown: ComparedImages,
    patterns: Sequence[Sequence[FoundPattern]],
    means: MeanMaps,
    writer: PageWriter,
    progress: Progress | None,
) -> None:
    """Write the page and the pictures of every image, in the order in which runs hold them."""
    place_of = np.empty(len(shown), np.int64)
    place_of[shown.order] = np.arange(len(shown))
    in_patterns = _patterns_by_position(patterns)
    animated = _animated(shown)
    for row, position in enumerate(shown.positions.tolist()):
        size = _write_photos(shown, position, writer)
        page = image_page(
            site,
            shown,
            int(place_of[row]),
            in_patterns.get(position, []),
            size=size,
            has_gif=position in animated,
        )
        writer.write(page_name(position), "compare_image.html", page)
        _write_heats(shown, page, writer)
        if position in animated:
            _write_gif(shown, page, writer)
        means.add(position, shown.pictures)
        if progress is not None:
            progress(row + 1, len(shown))


def _write_photos(shown: ComparedImages, position: int, writer: PageWriter) -> tuple[int, int]:
    """Write each view of an image once; return (height, width) of the first, (1, 1) without any."""
    pictures, size = shown.pictures, (1, 1)
    written: set[int] = set()
    for run in range(len(pictures)):
        source = pictures.source(position, run)
        if source is None or pictures.views[source] in written:
            continue
        jpeg = pictures.picture(position, source)
        if jpeg is not None:
            writer.sink.write(photo_name(position, pictures.views[source]), jpeg)
            if not written:
                height, width = images.decode_picture(jpeg).shape[:2]
                size = (height, width)
            written.add(pictures.views[source])
    return size


def _write_heats(shown: ComparedImages, page: ImagePage, writer: PageWriter) -> None:
    """Write the overlays of the class that the image's card speaks of."""
    main = page.explained[0]
    for run, share in enumerate(main.shares):
        found = shown.pictures.map(page.position, run, main.index)
        if found is not None and share is not None:
            size = page.size if page.size != (1, 1) else found.cam.shape
            heat = images.heat_picture(found.cam, (size[0], size[1]), share)
            writer.sink.write(heat_name(page.position, run), heat)


def _write_gif(shown: ComparedImages, page: ImagePage, writer: PageWriter) -> None:
    main, frames = page.explained[0], []
    for run, share in enumerate(main.shares):
        found = shown.pictures.map(page.position, run, main.index)
        source = shown.pictures.source(page.position, run)
        jpeg = None if source is None else shown.pictures.picture(page.position, source)
        if found is not None and share is not None and jpeg is not None:
            frames.append(Frame(images.decode_picture(jpeg), found, share))
    writer.sink.write(gif_name(page.position), overlay_gif(frames))


def _animated(shown: ComparedImages) -> set[int]:
    """Return the positions of the images that get an animation: they need maps of two runs."""
    last = len(shown.comparison.runs) - 1
    rows = [row for row in range(len(shown)) if shown.n_maps(row) > 1]
    gains = np.abs(shown.gains(last))
    pictured = [row for row in rows if shown.pictures.is_pictured(int(shown.positions[row]))]
    pictured.sort(key=lambda row: (-gains[row], row))
    return {int(shown.positions[row]) for row in pictured[:MOST_GIFS]}


def _patterns_by_position(
    patterns: Sequence[Sequence[FoundPattern]],
) -> dict[int, list[tuple[int, int, str]]]:
    found: dict[int, list[tuple[int, int, str]]] = {}
    for run, of_run in enumerate(patterns):
        for pattern in of_run:
            for position in pattern.errors.tolist():
                found.setdefault(position, []).append((run, pattern.number, pattern.name))
    return found


def _write_steps(site: CompareSite, steps: Sequence[StepView], writer: PageWriter) -> None:
    names = [None, *(step_name(step.position) for step in steps), None]
    for n, step in enumerate(steps):
        page = StepPage(site, step, previous=names[n], next=names[n + 2])
        writer.write(step_name(step.position), "compare_step.html", page)


def _charts(comparison: Comparison, steps: Sequence[StepView]) -> tuple[tuple[str, Chart], ...]:
    """Draw the accuracy, and for each earlier pattern the share of focus in its place."""
    runs = _axis_names(comparison.labels)
    accuracy = [
        {"run": name, "name": "accuracy", **{key: run.accuracy[key] for key in _ENDS}}
        for name, run in zip(runs, comparison.runs, strict=True)
    ]
    words = ", ".join(f"{row['run']}: {row['value']:.1%}" for row in accuracy)
    drawn = series_chart(accuracy, runs, ["accuracy"], "Share that is right", f"Accuracy. {words}")
    charts = [("Accuracy", drawn)]
    numbers = [row.found.number for row in steps[0].patterns if not row.found.is_later]
    for number in numbers[:MOST_CHARTED]:
        chart = _place_chart(number, runs, steps)
        if chart is not None:
            charts.append(chart)
    inside = _object_chart(runs, steps)
    return (*charts, *([inside] if inside is not None else []))


def _place_chart(
    number: int, runs: Sequence[str], steps: Sequence[StepView]
) -> tuple[str, Chart] | None:
    """Draw the share of focus in a pattern's place."""
    rows = [
        next(x for x in step.patterns if x.found.number == number and not x.found.is_later)
        for step in steps
    ]
    shares = [
        (runs[step.position], row.place.before, row.place.after, row.place.change)
        for step, row in zip(steps, rows, strict=True)
        if row.place is not None
    ]
    title = f"Focus in the place of pattern {number}, {shorten(rows[0].found.name, 40)}"
    return _shift_chart(title, runs, shares)


def _object_chart(runs: Sequence[str], steps: Sequence[StepView]) -> tuple[str, Chart] | None:
    """Draw the share of focus inside the object."""
    found = [(step.position, step.focus.found.objects) for step in steps]
    shares = [
        (runs[position], shift.energy_before, shift.energy_after, shift.energy_change)
        for position, shift in found
        if shift is not None
    ]
    return _shift_chart("Focus inside the object", runs, shares)


def _shift_chart(
    title: str,
    runs: Sequence[str],
    shares: Sequence[tuple[str, float | None, float | None, Change]],
) -> tuple[str, Chart] | None:
    """Draw shares over the series, each beside that of the same images in the first run.

    Every run is compared with the first on the images that both have maps of, so that each has a
    share before of its own; at the first run stands that of the images of the next. The interval is
    that of the change.
    """
    before, after = "same images, first run", "this run"
    rows = []
    for run, share, share_after, change in shares:
        if share is None or share_after is None:
            continue
        low, high = (
            None if end is None else min(1.0, max(0.0, share + end))
            for end in (change.low, change.high)
        )
        rows += [
            {"run": run, "name": before, "value": share, "low": None, "high": None},
            {"run": run, "name": after, "value": share_after, "low": low, "high": high},
        ]
    if not rows:
        return None
    first = {"run": runs[0], "value": rows[0]["value"], "low": None, "high": None}
    rows = [{**first, "name": before}, {**first, "name": after}, *rows]
    words = ", ".join(f"{row['run']}, {row['name']}: {row['value']:.0%}" for row in rows)
    drawing = series_chart(
        rows, runs, [before, after], "Share of the focus", f"{legible(title)}. {words}"
    )
    return title, drawing


def _axis_names(labels: Sequence[str]) -> list[str]:
    """Return labels as an axis shows them, short and all different."""
    short = [shorten(label, 24) for label in labels]
    if len(set(short)) == len(short):
        return short
    return [f"{n}: {legible(label)[:20]}" for n, label in enumerate(short, start=1)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_ENDS = ("value", "low", "high")
