"""Reads a finished report the way a browser does: elements, text, links. No grep."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID = {"meta", "link", "img", "input", "br", "hr"}
SVG_VOID = {"rect", "circle", "line", "path"}


@dataclass
class Element:
    """An element with its attributes and all text inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: tuple[str, ...] = ()


@dataclass
class Page:
    """A parsed page: its elements in document order."""

    path: Path
    elements: list[Element] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements of a tag that have these attributes; `cls` is one of its classes."""
        wanted = {key: value for key, value in attributes.items() if key != "cls"}
        return [
            element
            for element in self.elements
            if element.tag == tag
            and all(element.attributes.get(key) == value for key, value in wanted.items())
            and attributes.get("cls", "") in ("", *element.attributes.get("class", "").split())
        ]

    def links(self) -> Iterator[tuple[str, str]]:
        """Yield (attribute, address) of everything the page refers to."""
        for element in self.elements:
            for name in ("href", "src"):
                if name in element.attributes:
                    yield name, element.attributes[name]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.page = page
        self.open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.page.problems.append(f"<{tag}> repeats an attribute")
        inside = tuple(element.tag for element in self.open)
        element = Element(tag, {name: value or "" for name, value in attrs}, inside=inside)
        self.page.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1].tag != tag:
            self.page.problems.append(f"</{tag}> closes {self.open[-1].tag if self.open else '-'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(path: Path) -> Page:
    """Parse a page; `problems` says what is not well formed."""
    page = Page(path)
    reader = _Reader(page)
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    page.problems += [f"<{element.tag}> is never closed" for element in reader.open]
    return page


def read_report(folder: Path) -> dict[str, Page]:
    """Parse every page of a report by its path."""
    return {
        path.relative_to(folder).as_posix(): read_page(path)
        for path in sorted(folder.rglob("*.html"))
    }


def local_target(page: Page, address: str) -> tuple[Path, str]:
    """Return the file that an address of a page leads to, and its fragment."""
    parts = urlsplit(address)
    path = page.path if not parts.path else page.path.parent / unquote(parts.path)
    return path.resolve(), parts.fragment
