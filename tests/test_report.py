"""The finished report, parsed: links, pictures, names, numbers, the same bytes twice."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib

import jinja2
import pytest
from report_fixture import HOSTILE_NAMES, HOSTILE_PATH, LEFT_OUT, Sizes, write_run
from report_html import local_target, read_report

from audit.errors import RunFolderError
from audit.report.formats import legible
from audit.report.pages import make_environment
from audit.report.render import render_report, render_summary
from audit.report.run_data import read_run
from audit.report.views import run as run_view

RUNS = {
    "hostile": {},
    "binary": {"class_names": ("cats", "dogs"), "sizes": Sizes(240, 30, 12)},
    "many": {"class_names": tuple(f"class {n}" for n in range(30)), "sizes": Sizes(900, 220, 4)},
    "early": {"explained": False},
    "not diagnosed": {"diagnosed": False},
    "no patterns": {"class_names": ("a", "b"), "sizes": Sizes(60, 3, 4), "patterns": False},
    "no errors": {"class_names": ("a", "b", "c"), "sizes": Sizes(60, 0, 4)},
}


@pytest.fixture(scope="module", params=RUNS)
def report(request, tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"), **RUNS[request.param])
    render_report(folder)
    return folder, read_report(folder.path / "report")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("hostile"))
    render_report(folder)
    return folder, read_report(folder.path / "report")


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("binary"), ("cats", "dogs"), Sizes(240, 30, 12))
    render_report(folder)
    return folder, read_report(folder.path / "report")


def test_every_page_is_well_formed(report):
    _, pages = report
    assert {name: page.problems for name, page in pages.items() if page.problems} == {}


def test_every_relative_link_and_picture_exists(report):
    folder, pages = report
    ids = {
        page.path.resolve(): {e.attributes.get("id") for e in page.elements}
        for page in pages.values()
    }
    for name, page in pages.items():
        for _, address in page.links():
            if address.startswith("data:image/png;base64,"):
                content = base64.b64decode(address.partition(",")[2], validate=True)
                assert content.startswith(b"\x89PNG"), name
                continue
            path, fragment = local_target(page, address)
            assert path.is_file(), f"{name} leads to {address}"
            # Only how long the run took lies outside, so that the report itself does not change.
            is_time = (name, path) == ("run.html", (folder.path / "logs" / "times.js").resolve())
            assert is_time or path.is_relative_to((folder.path / "report").resolve())
            is_filter = "=" in fragment
            assert not fragment or is_filter or fragment in ids[path], f"{name}: {address}"


def test_nothing_comes_from_a_network_and_the_policy_forbids_it(report):
    _, pages = report
    for page in pages.values():
        outward = [x for _, x in page.links() if not x.startswith("data:image/png;base64,")]
        assert not [address for address in outward if ":" in address.split("#")[0]]
        (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert policy.attributes["content"].startswith("default-src 'none'; ")
        assert "unsafe" not in policy.attributes["content"]


def test_no_page_has_inline_styles_handlers_or_scripts(report):
    _, pages = report
    for page in pages.values():
        for element in page.elements:
            assert "style" not in element.attributes
            assert not [name for name in element.attributes if name.startswith("on")]
            assert element.tag != "style"
            is_data = element.attributes.get("type") == "application/json"
            assert element.tag != "script" or is_data or element.attributes.get("src")


def test_ids_are_unique_and_labels_find_what_they_name(report):
    _, pages = report
    for name, page in pages.items():
        ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
        assert len(set(ids)) == len(ids), name
        for element in page.elements:
            for key in ("aria-labelledby", "for"):
                assert element.attributes.get(key, ids[0]) in ids, f"{name}: {element}"


def test_pages_have_language_landmarks_and_one_heading(report):
    _, pages = report
    for page in pages.values():
        assert page.all("html")[0].attributes["lang"] == "en"
        assert [len(page.all(tag)) for tag in ("main", "h1", "title", "footer")] == [1, 1, 1, 1]
        assert page.all("a", cls="skip")[0].attributes["href"] == "#main"
        assert len(page.all("a", **{"aria-current": "page"})) >= 1


def test_every_picture_has_a_text_and_every_header_a_scope(report):
    _, pages = report
    for page in pages.values():
        assert all("alt" in image.attributes for image in page.all("img"))
        assert all("scope" in header.attributes for header in page.all("th"))


def test_every_error_has_a_page_and_is_in_the_gallery_without_a_script(report):
    folder, pages = report
    ids = [f"{i}.html" for i in read_run(folder).errors["image_id"]]
    shown = [
        link.attributes["href"].removeprefix("errors/")
        for name in sorted(pages, key=lambda name: (len(name), name))
        if re.fullmatch(r"errors(-\d+)?\.html", name)
        for link in pages[name].all("a")
        if link.attributes.get("href", "").startswith("errors/")
    ]
    assert shown == ids
    assert {name for name in pages if name.startswith("errors/")} == {f"errors/{i}" for i in ids}


def test_the_same_run_gives_the_same_bytes(tmp_path):
    folder = write_run(tmp_path / "run")

    def digest():
        render_report(folder)
        root = folder.path / "report"
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    first = digest()
    assert digest() == first
    # What the pipeline writes when rendering is over must not change a page.
    manifest = folder.read_manifest()
    manifest["status"], manifest["finished"] = "done", "2027-01-01T00:00:00+00:00"
    manifest["stages"]["report"] = {"state": "done", "seconds": 3.21}
    folder.write_manifest(manifest)
    assert digest() == first


def test_hostile_class_names_are_text_and_nothing_else(hostile):
    _, pages = hostile
    names = {bdi.text for page in pages.values() for bdi in page.all("bdi")}
    assert HOSTILE_NAMES[0] in names
    assert HOSTILE_NAMES[1] in names
    assert legible(HOSTILE_NAMES[2]) in names
    for page in pages.values():
        assert not [e for e in page.elements if e.tag == "i"]
        assert page.all("title")[0].text.endswith("corners <model>.keras")
        assert "\u202e" not in page.path.read_text(encoding="utf-8")


def test_hostile_names_in_data_do_not_end_the_script(hostile):
    _, pages = hostile
    (chunk,) = pages["errors.html"].all("script", id="error-data")
    content = json.loads(zlib.decompress(base64.b64decode(json.loads(chunk.text))))
    assert content["classes"] == [legible(name) for name in HOSTILE_NAMES]


def test_a_hostile_path_is_shown_and_names_no_file(hostile):
    folder, pages = hostile
    for path in (folder.path / "report").rglob("*"):
        assert re.fullmatch(r"[a-z0-9.\-]+|T\d+\.(html|csv|json)", path.name)
    run = write_page_of_image_zero(folder)
    if run is not None:
        assert pages[run].all("code", id="path")[0].text == legible(HOSTILE_PATH)


def write_page_of_image_zero(folder):
    """Return the page of the image with the hostile path, if it is an error in this fixture."""
    ids = read_run(folder).errors["image_id"].tolist()
    return "errors/0.html" if 0 in ids else None


def test_metadata_columns_are_shown_as_text(hostile):
    folder, pages = hostile
    data = read_run(folder)
    image_id = int(data.errors["image_id"].iloc[0])
    page = pages[f"errors/{image_id}.html"]
    terms = [e.text for e in page.all("dt")]
    assert "exposure </td>" in terms
    contents = [e.text for e in page.all("dd")]
    assert legible(data.metadata.iloc[0]["camera"]) in contents


def test_files_left_out_are_listed_with_their_reason(hostile):
    _, pages = hostile
    cells = [e.text for e in pages["run.html"].elements if e.tag in ("td", "th")]
    for row in LEFT_OUT:
        assert all(text in cells for text in row)


@pytest.mark.parametrize(("given", "found", "shown"), [(None, 64, 64), (8, None, 8)])
def test_the_batch_size_that_was_found_stands_in_for_the_option(given, found, shown):
    manifest = {"config": {"batch_size": given, "seed": 3}, "batch_size": found}
    assert run_view._options(manifest) == {"batch_size": shown, "seed": 3}
    assert manifest["config"]["batch_size"] == given


def data_values(page):
    return [e.attributes["value"] for e in page.all("data") if "template" not in e.inside]


def test_numbers_on_pages_are_the_stored_ones(binary):
    folder, pages = binary
    metrics, data = folder.read_metrics(), read_run(folder)
    overview = data_values(pages["index.html"])
    for value in (metrics["accuracy"]["value"], metrics["ece"]["value"], metrics["binary"]["fp"]):
        assert str(value) in overview
    for name in ("recall", "precision", "f1", "roc_auc", "average_precision"):
        assert all(str(value) in overview for value in data.classes[name])
    gallery = [float(value) for value in data_values(pages["errors.html"])]
    assert [value for value in gallery if value < 1] == pytest.approx(
        data.errors["p_pred"].tolist(), abs=1e-7
    )
    sweep = data_values(pages["metrics.html"])
    assert all(
        str(row["precision"]) in sweep for row in metrics["binary"]["sweep"] if row["precision"]
    )


def test_the_confusion_matrix_leads_to_its_errors(binary):
    folder, pages = binary
    cells = pages["index.html"].all("td", cls="cell-wrong")
    links = [e.attributes["href"] for e in pages["index.html"].all("a") if "table" in e.inside]
    confusion = read_run(folder).confusion
    wrong = confusion[confusion["y_true"] != confusion["y_pred"]]
    assert [int(cell.text.split()[0]) for cell in cells] == wrong["count"].tolist()
    assert "errors.html#true=0&predicted=1" in links
    assert "errors.html#true=1&predicted=0" in links


def test_a_perfect_model_gets_a_calm_report(tmp_path):
    folder = write_run(tmp_path / "run", ("a", "b"), Sizes(40, 0, 3))
    render_report(folder)
    pages = read_report(folder.path / "report")
    assert "There is no error to explain." in pages["index.html"].all("h1")[0].text
    assert "no error" in pages["errors.html"].all("p", cls="empty")[0].text


def test_a_run_that_stopped_early_says_so(tmp_path):
    folder = write_run(tmp_path / "run", explained=False)
    render_report(folder)
    pages = read_report(folder.path / "report")
    texts = [e.text for e in pages["index.html"].all("div", cls="warning")]
    assert any("stopped before heat-maps" in text for text in texts)


def test_progress_counts_every_error(tmp_path):
    folder = write_run(tmp_path / "run", ("a", "b"), Sizes(50, 7, 3))
    seen = []
    render_report(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 7) for n in range(1, 8)]


def test_a_failed_rendering_leaves_the_old_report(tmp_path):
    folder = write_run(tmp_path / "run", ("a", "b"), Sizes(50, 7, 3))
    path = render_report(folder)
    before = path.read_bytes()

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_report(folder, progress=fail)
    assert path.read_bytes() == before
    render_report(folder)
    assert sorted(p.name for p in folder.path.glob("report*")) == ["report"]


def test_a_run_without_metrics_is_refused(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder.path / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match="no metrics yet"):
        render_report(folder)
    assert not folder.report_path.parent.exists()


def test_a_misspelt_name_in_a_template_is_an_error():
    template = make_environment().from_string("{{ pgae.title }}")
    with pytest.raises(jinja2.UndefinedError):
        template.render(page=None)


def test_templates_name_no_filter_that_is_unsafe():
    environment = make_environment()
    for name in environment.list_templates(extensions=["html", "jinja"]):
        source, _, _ = environment.loader.get_source(environment, name)
        assert not re.search(r"\|\s*safe|autoescape|style=", source), name


def test_rendering_does_not_load_tensorflow():
    code = "import sys, audit.report.render; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_notebook_gets_the_summary_with_hostile_names_inert():
    summary = {
        "model": "<script>alert(1)</script>",
        "method": "gradcam",
        "status": "done",
        "n_images": 2000,
        "n_unreadable": 1,
        "n_skipped": 0,
        "accuracy": 0.952,
        "accuracy_interval": [0.9417, 0.9605],
        "n_errors": 96,
        "positive_class": "</td>dogs",
        "false_positives": 58,
        "false_negatives": 38,
        "patterns": [{"id": 1, "name": "left edge", "n_errors": 57, "verdict": "not tested"}],
        "warnings": [],
        "report": "runs/tonight/report/index.html",
    }
    shown = render_summary(summary)
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert "&lt;/td&gt;dogs" in shown
    assert "58 false positives" in shown and "left edge: 57 errors" in shown
