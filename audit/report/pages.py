"""Writes pages: templates and static files, into a folder or whatever else takes a report's files.

In: page dataclasses. Out: bytes by name, in UTF-8. All text of pages comes from `templates/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jinja2
import numpy as np
from markupsafe import Markup

import audit
from audit.disk import writing
from audit.report import images
from audit.report.charts import Chart
from audit.report.formats import FILTERS, is_defined

PAGE_LAYOUT = "base.html"
"""The frame of the pages of a folder."""

PLAIN_FILES = (
    "report.css",
    "report.js",
    "tables.js",
    "times.js",
    "threshold.js",
    "confusion.js",
    "gallery.js",
    "maps.js",
    "viewer.js",
    "copy.js",
    "favicon.svg",
)


REMEMBERED = {
    "macros/words.html": ("name", "quoted", "confusion", "percent"),
    "macros/figures.html": ("small_stack",),
    "macros/frame.html": ("nav", "foot"),
}
"""Macros whose text is kept, by template; they depend on nothing but their arguments."""

N_REMEMBERED = 4096
"""So many texts of each are kept, those that were asked for last."""


class Sink(Protocol):
    """Where a report's files go: a folder, an archive, one file."""

    def write(self, name: str, content: bytes) -> None:
        """Take a file; `name` is its path in the report, made of fixed words and integers."""


@dataclass(frozen=True)
class FolderSink:
    """Writes a report's files into a folder."""

    folder: Path
    _made: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with writing(path, len(content)):
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            path.write_bytes(content)


def make_environment() -> jinja2.Environment:
    """Return the one Jinja environment: everything escaped, a misspelt name is an error."""
    package = Path(audit.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([package / "templates", package.parent / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    environment.filters["drawing"] = _drawing
    environment.tests["defined_number"] = is_defined
    environment.globals.update(layout=PAGE_LAYOUT, redacted=False)
    _remember_names(environment)
    return environment


def _remember_names(environment: jinja2.Environment) -> None:
    """Keep what macros return for names and frames: pages of errors ask for the same ones."""
    for template, names in REMEMBERED.items():
        module = environment.get_template(template).module
        for name in names:
            macro = getattr(module, name)
            setattr(module, name, lru_cache(maxsize=N_REMEMBERED, typed=True)(macro))


@dataclass(frozen=True)
class PageWriter:
    """Renders templates into a sink; `is_flat`: links are relative to the report's folder."""

    sink: Sink
    environment: jinja2.Environment
    is_flat: bool = False

    def write(self, name: str, template: str, page: Any) -> None:
        """Render one page; `name` is its path in the report, made of fixed words and integers."""
        root = "" if self.is_flat else "../" * name.count("/")
        text = self.environment.get_template(template).render(page=page, site=page.site, root=root)
        self.sink.write(name, text.encode("utf-8", "replace"))

    def write_static(self, files: Sequence[str] = PLAIN_FILES) -> None:
        """Copy style sheets, scripts and icon, and write the colour tables for the browser."""
        loader = self.environment.loader
        assert loader is not None  # set in make_environment
        for name in files:
            source, _, _ = loader.get_source(self.environment, f"static/{name}")
            self.sink.write(f"static/{name}", source.encode())
        tables = {
            name: images.colour_table(name).reshape(-1).tolist() for name in images.COLOUR_MAPS
        }
        alpha = np.rint(images.heat_alpha() * 255).astype(int).tolist()
        self.write_script("colours.js", tables=tables, alpha=alpha)

    def write_script(self, name: str, **values: Any) -> None:
        """Write a script that hands values to the others, from its template in `static/`."""
        text = self.environment.get_template(f"static/{name}.jinja").render(values)
        self.sink.write(f"static/{name}", text.encode())


def _drawing(chart: Chart) -> Markup:
    """Mark a chart's SVG as safe: the one text that is not escaped here, as Vega has done it."""
    return Markup(chart.svg)
