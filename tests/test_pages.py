"""Pages and static files written into a folder or another sink."""

from dataclasses import dataclass, field

import jinja2
import pytest

from audit.report import images
from audit.report.pages import PLAIN_FILES, FolderSink, PageWriter, make_environment


@dataclass
class MemorySink:
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        assert name not in self.files
        self.files[name] = content


@dataclass
class Page:
    site: str


def test_a_folder_gets_the_files_and_the_folders_they_are_in(tmp_path):
    sink = FolderSink(tmp_path / "report")
    for name in ("index.html", "errors/1.html", "errors/2.html"):
        sink.write(name, name.encode())
    found = {path.relative_to(sink.folder).as_posix() for path in sink.folder.rglob("*.html")}
    assert found == {"index.html", "errors/1.html", "errors/2.html"}
    assert (sink.folder / "errors/2.html").read_bytes() == b"errors/2.html"


@pytest.mark.parametrize(
    ("name", "is_flat", "root"),
    [("index.html", False, ""), ("errors/1.html", False, "../"), ("errors/1.html", True, "")],
)
def test_links_start_at_the_reports_folder(name, is_flat, root):
    environment = make_environment()
    environment.loader = jinja2.DictLoader({"page.html": "{{ root }}|{{ site }}|{{ page.site }}"})
    sink = MemorySink()
    PageWriter(sink, environment, is_flat).write(name, "page.html", Page("<b>\ud800"))
    assert sink.files == {name: f"{root}|&lt;b&gt;?|&lt;b&gt;?".encode()}


def test_static_files_and_colours_are_written_once():
    sink = MemorySink()
    PageWriter(sink, make_environment()).write_static()
    assert set(sink.files) == {f"static/{name}" for name in (*PLAIN_FILES, "colours.js")}
    colours = sink.files["static/colours.js"].decode()
    red, green, blue = images.colour_table("inferno")[255].tolist()
    assert f"{red}, {green}, {blue}]" in colours or f"{red},{green},{blue}]" in colours


def test_a_remembered_name_is_the_one_that_was_asked_for():
    environment = make_environment()
    template = environment.from_string(
        '{% from "macros/words.html" import name, quoted, confusion %}'
        "{{ name(text) }} {{ quoted(text) }} {{ confusion(text, other) }}"
    )
    fresh = environment.from_string(
        '{% import "macros/words.html" as words with context %}'
        "{{ words.name(text) }} {{ words.quoted(text) }} {{ words.confusion(text, other) }}"
    )
    texts = ["cats", "<b>cats</b>", "\u202ecats", "1", "long " * 30]
    for _ in range(2):
        for text in texts:
            for other in texts:
                shown = template.render(text=text, other=other)
                assert shown == fresh.render(text=text, other=other)
                assert "<b>" not in shown


def test_numbers_keep_their_value_and_what_is_not_defined_is_a_dash():
    template = make_environment().from_string(
        '{% from "macros/words.html" import percent, count, number, value %}'
        "{{ percent(x) }}{{ count(x) }}{{ number(x) }}{{ value(x, 'so') }}"
    )
    dash = '<span class="nothing" title="not defined">–</span>'
    assert template.render(x=None) == template.render(x=float("nan")) == 4 * dash
    shown = template.render(x=0.5)
    assert shown.count('<data value="0.5">') == 4
    assert ">50.0\u202f%<" in shown and ">0.500<" in shown and ">so<" in shown
