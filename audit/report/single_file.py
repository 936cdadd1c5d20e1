"""A report as one HTML file that needs nothing else, not even a folder beside it.

In: a run folder. Out: a file with the overview as it is, and every other page, picture and list
packed as text that `templates/static/single.js` opens when it is looked at. Its policy allows its
own style, scripts and pictures, and nothing else. What does not fit into the budget is left out and
counted.
"""

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import jinja2
from markupsafe import Markup

from audit.disk import readable
from audit.errors import RunFolderError
from audit.files import atomic
from audit.report.packing import pack
from audit.report.pages import FolderSink, make_environment
from audit.report.render import ReportOptions, write_pages
from audit.report.share import check_target
from audit.report.views.parts import Site, make_site
from audit.run_folder import RunFolder

BUDGET = 25_000_000
"""Bytes of a file if nothing else is said: what most mail takes as an attachment."""

_OVERVIEW = "index.html"
_GALLERY = "errors.html"
_ROUTER = "static/single.js"
_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}
_CHUNK = '<script type="text/plain" data-page=""></script>\n'
_ERROR = re.compile(r"errors/(\d+)\.html")
_ERROR_LINK = re.compile(r'href="errors/(\d+)\.html')
_OF_IMAGE = re.compile(r"images/(\d+)(?:-\w+)?\.\w+")
_PICTURE = re.compile(r'(<img\b[^>]*?\s)src="(images/[\w.-]+)"')
_MORE_OF_GALLERY = re.compile(r"errors-\d+\.html")


@dataclass(frozen=True)
class SingleFile:
    """What was written: errors in the file, errors of the run, bytes."""

    n_errors: int
    n_all_errors: int
    size: int

    @property
    def n_left_out(self) -> int:
        return self.n_all_errors - self.n_errors


@dataclass(frozen=True)
class Inline:
    """A style sheet or a script, with what the policy allows it by."""

    text: Markup
    digest: str

    @classmethod
    def of(cls, content: bytes) -> "Inline":
        """Take a file of the program's own; as text it would come out escaped."""
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        return cls(Markup(content.decode()), f"sha256-{digest}")


@dataclass(frozen=True)
class Chunk:
    """A packed page or file as the template writes it."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True)
class Frame:
    """What stands around the chunks. `title` and `main` are those of the overview, rendered."""

    title: Markup
    main: Markup
    style: Inline
    scripts: tuple[Inline, ...]
    icon: str
    n_errors: int
    n_left_out: int
    budget: str


class Spool:
    """Keeps the files of a report on disk until it is known which of them fit.

    Those of the frame stay in memory. Later pages of the gallery, which only readers without
    JavaScript need, are dropped: here the first one shows all errors.
    """

    def __init__(self, folder: Path) -> None:
        self.static: dict[str, bytes] = {}
        self.overview = b""
        self.names: dict[str, None] = {}
        self._sink = FolderSink(folder)

    def write(self, name: str, content: bytes) -> None:
        if name.startswith("static/"):
            self.static[name] = content
        elif name == _OVERVIEW:
            self.overview = content
        elif not _MORE_OF_GALLERY.fullmatch(name):
            self._sink.write(name, content)
            self.names[name] = None

    def read(self, name: str) -> bytes:
        """Return a file as it was written."""
        return self.overview if name == _OVERVIEW else (self._sink.folder / name).read_bytes()

    def chunk(self, name: str) -> Chunk:
        """Return a file packed: base64, of a zlib stream if it is a page."""
        content, is_page = self.read(name), name.endswith(".html")
        packed = pack(content) if is_page else base64.b64encode(content).decode("ascii")
        return Chunk("page" if is_page else "file", name, packed)

    def size(self, name: str) -> int:
        """Return how many bytes a file takes as a chunk."""
        return len(self.chunk(name).text) + len(_CHUNK) + len(name)

    def pictures(self, name: str) -> list[str]:
        """Return the pictures on a page, in the order in which they stand there."""
        found = dict.fromkeys(name for _, name in _PICTURE.findall(self.read(name).decode()))
        return [picture for picture in found if picture in self.names]


@dataclass(frozen=True)
class Contents:
    """What may go into a file, and in which order.

    Attributes:
        sink: the files.
        by_confidence: image ids of all errors, the most confident first.
    """

    sink: Spool
    by_confidence: Sequence[int]

    @cached_property
    def fixed(self) -> list[str]:
        """All but what belongs to an error: pages, pictures on them, lists."""
        pages = [name for name in self._pages if name != _OVERVIEW]
        shown = {picture for name in self._pages for picture in self.sink.pictures(name)}
        others = [
            name
            for name in self.sink.names
            if not name.endswith(".html")
            and self._error_of(name) is None
            and (name in shown or not _OF_IMAGE.fullmatch(name))
        ]
        return [*pages, *others]

    @cached_property
    def telling(self) -> list[int]:
        """All errors, those first that other pages show, in the order of these pages."""
        shown = (
            int(image_id)
            for name in self._pages
            if name != _GALLERY
            for image_id in _ERROR_LINK.findall(self.sink.read(name).decode())
        )
        return list(dict.fromkeys([*(i for i in shown if i in self._errors), *self.by_confidence]))

    def of_error(self, image_id: int) -> list[str]:
        """Return the page of an error and its pictures; of other images, those that are no error.

        An error that is beside it on its page comes with its own.
        """
        page = f"errors/{image_id}.html"
        own = self._own_pictures.get(image_id, [])
        beside = (
            name
            for name in self.sink.pictures(page)
            if self._error_of(name) is None and name not in self._is_fixed
        )
        return [page, *own, *beside]

    @cached_property
    def _pages(self) -> list[str]:
        """Return the pages that are none of an error's, the overview first."""
        names = [
            name
            for name in self.sink.names
            if name.endswith(".html") and not _ERROR.fullmatch(name)
        ]
        return [_OVERVIEW, *sorted(names, key=_by_importance)]

    @cached_property
    def _errors(self) -> frozenset[int]:
        return frozenset(self.by_confidence)

    @cached_property
    def _is_fixed(self) -> frozenset[str]:
        return frozenset(self.fixed)

    @cached_property
    def _own_pictures(self) -> dict[int, list[str]]:
        result: dict[int, list[str]] = {}
        for name in self.sink.names:
            image_id = self._error_of(name)
            if image_id is not None and not name.endswith(".html"):
                result.setdefault(image_id, []).append(name)
        return result

    def _error_of(self, name: str) -> int | None:
        """Return the error that a picture is of."""
        found = _OF_IMAGE.fullmatch(name)
        return int(found[1]) if found and int(found[1]) in self._errors else None


def write_single_file(
    folder: RunFolder,
    path: Path,
    *,
    budget: int = BUDGET,
    options: ReportOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SingleFile:
    """Write the report of a run as one HTML file.

    All but the errors' own pages and pictures is always in it. Errors follow, those first that
    patterns, targets, findings, slices and labels show, then the most confident, as far as the
    budget goes.

    Args:
        folder: the run.
        path: the file; its folder is made if it is missing, and an older file is replaced.
        budget: bytes that the file may have.
        options: what the report holds.
        progress: called with (errors done, errors in all) after every page of an error.

    Raises:
        RunFolderError: if the run has no metrics yet, the file cannot be written, or the budget is
            too small even without any error.
    """
    check_target(path)
    options = replace(options or ReportOptions(), with_times=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=path.parent) as spool:
        sink = Spool(Path(spool))
        data = write_pages(folder, sink, options=options, progress=progress, layout="fragment.html")
        n_all = len(data.errors)
        contents = Contents(sink, data.errors["image_id"].tolist())
        shell = _Shell(sink, make_site(data), n_all, readable(budget), options.redact)
        errors, names = _choose(contents, shell, budget, path)
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                for piece in shell.pieces(len(errors), map(sink.chunk, names)):
                    file.write(piece.encode("utf-8", "replace"))
            size = temporary.stat().st_size
    return SingleFile(len(errors), n_all, size)


def _choose(
    contents: Contents, shell: "_Shell", budget: int, path: Path
) -> tuple[list[int], list[str]]:
    """Return the errors that fit, and the names of all files in order."""
    size_of = contents.sink.size
    names = dict.fromkeys(contents.fixed)
    used = shell.size + sum(map(size_of, names))
    if used > budget:
        raise RunFolderError(
            f"`{path}` does not fit into a budget of {readable(budget)}. Received: a report that"
            f" needs {readable(used)} without any error. Give more with `--budget`, or use `--zip`."
        )
    errors = []
    for image_id in contents.telling:
        fresh = [name for name in contents.of_error(image_id) if name not in names]
        used += sum(map(size_of, fresh))
        if used > budget:
            break
        errors.append(image_id)
        names |= dict.fromkeys(fresh)
    return errors, list(names)


@dataclass(frozen=True)
class _Shell:
    """The frame of a file, to be written around any chunks."""

    sink: Spool
    site: Site
    n_all: int
    budget: str
    redacted: bool

    @cached_property
    def size(self) -> int:
        """Bytes without chunks, at most."""
        some_left_out = 0 if self.n_all == 0 else self.n_all - 1
        return sum(
            len(piece.encode("utf-8", "replace")) for piece in self.pieces(some_left_out, ())
        )

    def pieces(self, n_errors: int, chunks: Iterable[Chunk]) -> Iterator[str]:
        """Yield the file from top to bottom, one chunk in memory at a time."""
        frame = replace(self._frame, n_errors=n_errors, n_left_out=self.n_all - n_errors)
        template = self._environment.get_template("single.html")
        return template.generate(
            file=frame, chunks=chunks, site=self.site, root="", here="overview"
        )

    @cached_property
    def _environment(self) -> jinja2.Environment:
        environment = make_environment()
        environment.globals["redacted"] = self.redacted
        return environment

    @cached_property
    def _frame(self) -> Frame:
        static = self.sink.static
        # Rendered by the same environment a moment ago: all that is foreign in it is escaped.
        scripts = [content for name, content in static.items() if name.endswith(".js")]
        title, _, main = self.sink.overview.decode().partition("</title>\n")
        return Frame(
            title=Markup(title.removeprefix("<title>")),
            main=Markup(_PICTURE.sub(self._embedded, main)),
            style=Inline.of(static["static/report.css"]),
            scripts=tuple(map(Inline.of, [*scripts, self._router])),
            icon=_address("favicon.svg", static["static/favicon.svg"]),
            n_errors=self.n_all,
            n_left_out=0,
            budget=self.budget,
        )

    @property
    def _router(self) -> bytes:
        """The script that opens pages, which comes after those of the pages."""
        loader = self._environment.loader
        assert loader is not None  # set in make_environment
        return loader.get_source(self._environment, _ROUTER)[0].encode()

    def _embedded(self, found: re.Match[str]) -> str:
        start, name = found.groups()
        if name not in self.sink.names:
            return found[0]
        return f'{start}data-file="{name}" src="{_address(name, self.sink.read(name))}"'


def _address(name: str, content: bytes) -> str:
    kind = _TYPES[PurePosixPath(name).suffix]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _by_importance(name: str) -> tuple[int, list[int | str]]:
    """Order pages: patterns, targets, findings, slices, labels, others; numbers as numbers."""
    kinds = ("pattern", "target", "finding", "slice", "label")
    rank = next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
    parts = re.split(r"(\d+)", name)
    return rank, [int(part) if n % 2 else part for n, part in enumerate(parts)]
