"""A report in one file: complete, within its budget, and at home in a browser without a network."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser_tab import Tab
from page_checks import violations
from report_fixture import Sizes, write_run
from shared_report import CHUNK, chunk_files, folder_files, single_files

from audit.errors import RunFolderError
from audit.report.render import ReportOptions, render_report
from audit.report.run_data import read_run
from audit.report.single_file import SingleFile, write_single_file
from audit.run_folder import RunFolder

N_ERRORS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with hostile names, and its report. Only look at it, or copy it."""
    folder = write_run(tmp_path_factory.mktemp("single"), sizes=Sizes(240, N_ERRORS, 12))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report in one file, alone in its folder."""
    path = tmp_path_factory.mktemp("whole") / "report.html"
    assert write_single_file(folder, path) == SingleFile(N_ERRORS, N_ERRORS, path.stat().st_size)
    return path


@pytest.fixture(scope="module")
def partial(folder: RunFolder, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with room for about half of the errors."""
    path = tmp_path_factory.mktemp("partial") / "report.html"
    write_single_file(folder, path, budget=middle(whole))
    return path


def needed(whole: Path) -> int:
    """Return about how many bytes a file takes without any error."""
    return whole.stat().st_size - sum(size_of(whole, image_id) for image_id in errors_in(whole))


def size_of(whole: Path, image_id: int) -> int:
    """Return the bytes of an error's own page and pictures."""
    own = re.compile(rf"(errors|images)/{image_id}\b.*")
    chunks = CHUNK.finditer(whole.read_text("utf-8"))
    return sum(len(found[0]) for found in chunks if own.fullmatch(found[2]))


def middle(whole: Path) -> int:
    return (needed(whole) + whole.stat().st_size) // 2


def errors_in(path: Path) -> set[int]:
    return {int(name[7:-5]) for name in chunk_files(path) if name.startswith("errors/")}


# what is in the file


def test_every_page_picture_and_list_of_the_folder_is_in_the_file(folder: RunFolder, whole: Path):
    packed, there = chunk_files(whole), folder_files(folder.path / "report")
    assert packed.keys() == {
        name for name in there if not name.startswith("static/") and name != "index.html"
    }
    for name, content in packed.items():
        if not name.endswith(".html"):
            assert content == there[name], name


def test_pages_carry_the_content_of_the_folders(folder: RunFolder, whole: Path):
    """Only the frame and the way to other files differ."""
    there = folder_files(folder.path / "report")
    for name, content in chunk_files(whole).items():
        if not name.endswith(".html") or name == "run.html":
            continue
        main = re.search(
            r'tabindex="-1" data-here="\w*">\n(.*)</main>\n', content.decode(), re.DOTALL
        )
        usual = re.search(r'tabindex="-1">\n(.*)</main>\n', there[name].decode(), re.DOTALL)
        assert main[1] == re.sub(r'(href|src)="\.\./', r'\1="', usual[1]), name


def test_the_policy_allows_these_scripts_and_nothing_else(whole: Path):
    text = whole.read_text("utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; img-src data: blob:; style-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(scripts) >= 8
    assert len(styles) == 1
    for content in [*scripts, *styles]:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("'sha256-") == len(scripts) + 1


class Structure(HTMLParser):
    """Counts tags, and notes whatever would ask for another file."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attributes:
            is_address = name == "src" or (tag == "link" and name == "href")
            if is_address and not (value or "").startswith("data:"):
                self.asked.append(f"{tag} {value}")


def test_nothing_in_the_file_asks_for_another_one(whole: Path):
    seen = Structure()
    seen.feed(whole.read_text("utf-8"))
    assert seen.asked == []
    assert seen.counts["title"] == seen.counts["main"] - 1 == 1  # one more <main> is in a template
    assert seen.counts["script"] == len(CHUNK.findall(whole.read_text("utf-8"))) + len(
        re.findall("<script>", whole.read_text("utf-8"))
    )


def test_the_same_run_gives_the_same_file(folder: RunFolder, whole: Path, tmp_path: Path):
    again = tmp_path / "again.html"
    write_single_file(folder, again)
    assert again.read_bytes() == whole.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.html"]


# the budget


def test_a_file_never_exceeds_its_budget_and_takes_what_fits(
    folder: RunFolder, whole: Path, tmp_path: Path
):
    low, high = needed(whole) + 2000, whole.stat().st_size
    before: set[int] = set()
    for n, budget in enumerate(range(low, high + 1, (high - low) // 2)):
        path = tmp_path / f"{n}.html"
        written = write_single_file(folder, path, budget=budget)
        assert path.stat().st_size == written.size <= budget
        assert len(errors_in(path)) == written.n_errors
        assert before <= errors_in(path)  # a larger budget only adds
        before = errors_in(path)
        if written.n_left_out:
            assert budget - written.size < 60_000  # about an error's worth
    assert N_ERRORS // 3 <= len(before) <= N_ERRORS


def test_a_budget_that_is_just_enough_leaves_nothing_out(folder: RunFolder, whole: Path, tmp_path):
    # A frame that says what was left out is a little longer, and is what the size is taken from.
    size = whole.stat().st_size + 2000
    assert write_single_file(folder, tmp_path / "a.html", budget=size).n_left_out == 0


def test_all_but_the_errors_own_files_stays(whole: Path, partial: Path):
    in_whole, in_partial = chunk_files(whole), chunk_files(partial)
    errors = errors_in(whole)
    gone = in_whole.keys() - in_partial.keys()
    assert gone
    for name in gone:
        found = re.fullmatch(r"errors/(\d+)\.html|images/(\d+)(-\w+)?\.\w+", name)
        assert found, name
    kept_errors = errors_in(partial)
    assert 0 < len(kept_errors) < N_ERRORS
    for image_id in errors:
        own = {name for name in in_whole if re.match(rf"(errors|images)/{image_id}\b", name)}
        assert own & in_partial.keys() == (own if image_id in kept_errors else set())


def test_telling_errors_come_first(folder: RunFolder, tmp_path: Path, whole: Path):
    """Those that other pages show, in the order of these pages, the overview first."""
    links = re.findall(r'href="errors/(\d+)\.html', single_files(whole)["shell"].decode())
    shown = list(dict.fromkeys(map(int, links)))
    assert len(shown) > 2
    budget = needed(whole) + sum(size_of(whole, image_id) for image_id in shown[:2]) + 20_000
    written = write_single_file(folder, tmp_path / "a.html", budget=budget)
    assert 1 <= written.n_errors < len(shown)
    assert errors_in(tmp_path / "a.html") == set(shown[: written.n_errors])


def test_a_budget_without_room_for_the_overview_is_refused(folder: RunFolder, tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"does not fit into a budget of 50 kB\. Received: "):
        write_single_file(folder, tmp_path / "a.html", budget=50_000)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_errors_or_heat_maps_is_a_file_too(tmp_path: Path):
    for name, options in {
        "right": {"sizes": Sizes(40, 0, 3)},
        "early": {"sizes": Sizes(40, 5, 3), "explained": False},
    }.items():
        folder = write_run(tmp_path / name, **options)
        written = write_single_file(folder, tmp_path / f"{name}.html")
        assert written.n_left_out == 0
        assert "run.html" in chunk_files(tmp_path / f"{name}.html")


# in a browser


@pytest.fixture
def alone(tab, whole: Path) -> Tab:
    return tab(whole.parent)


def is_only_file(opened: Tab, path: Path) -> bool:
    """Whether nothing was asked for but the file itself."""
    asked = {url.partition("#")[0] for url in opened.requests if not url.startswith("data:")}
    return asked <= {f"file://{path.resolve()}", "about:blank"}


def click(opened: Tab, selector: str, **options) -> None:
    before = opened.js("location.hash")
    opened.page.locator(selector, **options).first.click()
    opened.page.wait_for_function("(before) => location.hash !== before", arg=before)
    settled(opened)


def settled(opened: Tab) -> None:
    """Wait until the page of the address is shown and its scripts have started."""
    opened.page.wait_for_function("() => report.address.isHere()")
    opened.wait_until_ready()


def test_a_reader_walks_through_the_file(alone: Tab, whole: Path, folder: RunFolder):
    opened, page = alone, alone.page
    opened.open("report.html")
    assert page.title().startswith("Overview")
    assert page.locator("[data-nav][aria-current=page]").inner_text() == "Overview"
    assert opened.js("[...document.images].every((i) => i.src.startsWith('data:'))")
    click(opened, ".nav a", has_text="Patterns")
    assert page.title().startswith("Focus patterns")
    assert page.locator("[data-nav][aria-current=page]").inner_text().startswith("Patterns")
    assert opened.js("document.activeElement.id") == "main"
    click(opened, ".pattern-name a")
    assert opened.js("location.hash") == "#/pattern-1.html"
    click(opened, "a[href*='#/errors/']")
    assert page.locator("#viewer").is_visible()
    page.locator("#layer").fill("3")
    address = opened.js("location.hash")
    assert re.fullmatch(r"#/errors/\d+\.html#.*\blayer=3\b.*", address)
    painted = "document.querySelector('#viewer canvas').toDataURL()"
    third = opened.js(painted)
    page.go_back()
    settled(opened)
    assert opened.js("location.hash") == "#/pattern-1.html"
    page.go_forward()
    settled(opened)
    assert opened.js("location.hash") == address
    assert page.locator("#layer").input_value() == "3"
    assert opened.js(painted) == third
    assert opened.js("document.querySelectorAll('main').length") == 1
    assert is_only_file(opened, whole)


def test_every_page_opens_with_unique_ids_and_all_its_pictures(alone: Tab, whole: Path):
    alone.open("report.html")
    names = [name for name in chunk_files(whole) if name.endswith(".html")]
    assert len(names) > 30
    for name in ["index.html", *names]:
        alone.js("(name) => { location.hash = `#/${name}`; }", name)
        settled(alone)
        found = alone.js(
            """() => {
              const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
              for (const picture of document.images) picture.loading = "eager";
              return [
                ids.filter((id, n) => ids.indexOf(id) !== n),
                [...document.images].filter((i) => !i.src.startsWith("data:")).map((i) => i.src),
                [...document.querySelectorAll("main a[href]")].map((a) => a.getAttribute("href")),
                document.title,
              ];
            }"""
        )
        assert found[:2] == [[], []], name
        for href in found[2]:
            # A link that a script has made becomes one within the file when it is used.
            target = re.match(r"(?:#/)?([\w./-]+\.html)", href) or ["", href]
            assert href.startswith("data:") or target[1] in {*names, "index.html"}, (name, href)
        assert "stolen" not in found[3]
        assert alone.excess() == 0, name
    alone.page.wait_for_function("() => [...document.images].every((i) => i.complete)")
    assert is_only_file(alone, whole)


def test_the_gallery_filters_and_leads_to_errors(alone: Tab, folder: RunFolder):
    errors, page = read_run(folder).errors, alone.page
    alone.open("report.html#/errors.html")
    settled(alone)
    assert page.locator("#gallery .card").count() == N_ERRORS
    alone.js("() => { location.hash = '#/errors.html#true=1'; }")
    page.wait_for_function(
        "(n) => document.querySelectorAll('#gallery .card').length === n",
        arg=int((errors["y_true"] == 1).sum()),
    )
    assert alone.js(
        "[...document.querySelectorAll('#gallery img')].every((i) => i.src.startsWith('data:'))"
    )
    click(alone, "#gallery .card a")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_function("() => location.hash.startsWith('#/errors.html#')")
    settled(alone)
    assert page.locator("#gallery .card").count() == int((errors["y_true"] == 1).sum())


def test_a_view_that_was_sent_opens_afresh(tab, whole: Path, folder: RunFolder):
    image_id = int(read_run(folder).errors["image_id"].iloc[0])
    for separator in ("#", "%23"):
        opened = tab(whole.parent)
        opened.open(f"report.html#/errors/{image_id}.html{separator}layer=2&colours=viridis")
        settled(opened)
        assert opened.page.locator("#layer").input_value() == "2"
        assert opened.page.locator("#colours").input_value() == "viridis"
        assert (
            opened.page.locator("[data-nav][aria-current=page]").inner_text().startswith("Errors")
        )
        assert opened.js("document.activeElement.id") == "main"


def test_a_place_on_a_page_is_scrolled_to(alone: Tab):
    alone.open("report.html")
    alone.js("() => { location.hash = '#/run.html#limits'; }")
    settled(alone)
    alone.page.wait_for_function(
        "() => { const at = document.getElementById('limits').getBoundingClientRect();"
        " return at.top < innerHeight && at.bottom > 0; }"
    )
    assert alone.js("scrollY") > 0
    click(alone, ".brand")
    assert alone.js("scrollY") == 0
    alone.page.go_back()
    settled(alone)
    alone.page.wait_for_function("() => scrollY > 0")


def test_the_way_to_the_content_leaves_the_address_alone(alone: Tab):
    alone.open("report.html#/metrics.html")
    settled(alone)
    alone.page.locator(".skip").focus()
    alone.page.keyboard.press("Enter")
    assert alone.js("[location.hash, document.activeElement.id]") == ["#/metrics.html", "main"]


def test_lists_are_downloaded_from_the_file(alone: Tab, folder: RunFolder):
    alone.open("report.html#/targets/T1.html")
    settled(alone)
    with alone.page.expect_download() as started:
        alone.page.locator("a[download]", has_text="csv").click()
    assert started.value.suggested_filename == "T1.csv"
    saved = Path(started.value.path()).read_bytes()
    assert saved == (folder.path / "targets" / "T1.csv").read_bytes()


def test_what_is_not_there_is_said(tab, partial: Path, folder: RunFolder):
    opened = tab(partial.parent)
    missing = min(set(read_run(folder).errors["image_id"].tolist()) - errors_in(partial))
    n_errors = len(errors_in(partial))
    opened.open("report.html")
    said = opened.page.locator("aside.file-note").inner_text()
    assert said.startswith(
        f"{n_errors} of {N_ERRORS} errors are in this file; the others were left"
    )
    opened.open(f"report.html#/errors/{missing}.html")
    settled(opened)
    assert opened.page.locator("h1").inner_text() == "Left out of this file"
    click(opened, "main a")
    cards = opened.page.locator("#gallery .card")
    cards.nth(N_ERRORS - 1).wait_for(state="attached")
    assert cards.count() == N_ERRORS
    lacking = opened.page.locator("#gallery .stack-empty", has_text="not in this file")
    at_hand = {name.removeprefix("embedded/") for name in single_files(partial)}
    absent = [i for i in read_run(folder).errors["image_id"] if f"images/{i}.jpg" not in at_hand]
    assert lacking.count() == len(absent) > 0
    opened.open("report.html#/no/such.html")
    settled(opened)
    assert opened.page.locator("h1").inner_text() == "No such page"
    assert is_only_file(opened, partial)


def test_nothing_was_left_out_so_nothing_is_said(alone: Tab):
    alone.open("report.html#/errors/999999.html")
    settled(alone)
    assert alone.page.locator("h1").inner_text() == "No such page"
    assert alone.page.locator("aside.file-note").count() == 0


def test_the_overview_reads_without_javascript(tab, partial: Path, whole: Path):
    opened = tab(partial.parent, java_script_enabled=False)
    opened.page.goto(f"file://{partial.resolve()}")
    page = opened.page
    assert page.locator("h1").is_visible()
    assert "need JavaScript" in page.locator("noscript").inner_text()
    assert page.locator("aside.file-note", has_text="errors are in this file").is_visible()
    assert page.locator("main img").count() > 5
    pictures = page.locator("main img").evaluate_all("(all) => all.map((i) => i.naturalWidth)")
    assert len(pictures) > 5


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_no_violation_in_the_frame(tab, partial: Path, scheme: str, width: int):
    opened = tab(partial.parent, color_scheme=scheme, viewport={"width": width, "height": 900})
    for address in ("report.html", "report.html#/targets.html", "report.html#/no/such.html"):
        opened.open(address)
        settled(opened)
        assert violations(opened) == []
        assert opened.excess() == 0


# for a run that was shared on its own


def test_the_run_folder_alone_is_enough(folder: RunFolder, whole: Path, tmp_path: Path):
    moved = RunFolder(shutil.copytree(folder.path, tmp_path / "moved"))
    shutil.rmtree(moved.path / "report")
    write_single_file(moved, tmp_path / "report.html", options=ReportOptions(with_times=True))
    assert (tmp_path / "report.html").read_bytes() == whole.read_bytes()
    assert not (moved.path / "report").exists()
    assert "embedded/images/" in "".join(single_files(whole))
