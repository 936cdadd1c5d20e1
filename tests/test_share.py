"""A report as a zip file: whole, tidy, the same each time, and never more than was asked for."""

import re
import shutil
import stat
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from report_fixture import Sizes, write_run
from shared_report import folder_files, single_files, zip_files

from audit.cli import main
from audit.errors import RunFolderError
from audit.report import share
from audit.report.render import ReportOptions, render_report
from audit.report.run_data import read_run
from audit.report.share import write_zip
from audit.report.single_file import write_single_file
from audit.run_folder import Receipt, RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with its report. Only look at it, or copy it."""
    folder = write_run(tmp_path_factory.mktemp("share"), ("cats", "dogs"), Sizes(240, 16, 12))
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def archive(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sent") / "cats & dogs (1).zip"
    write_zip(folder, path)
    return path


def test_a_zip_holds_what_the_folder_holds_below_one_folder(folder: RunFolder, archive: Path):
    packed = zip_files(archive)
    assert {name.split("/")[0] for name in packed} == {"cats-dogs-1"}
    plain = {name.partition("/")[2]: content for name, content in packed.items()}
    there = folder_files(folder.path / "report")
    assert plain.keys() == there.keys()
    # Only the page on the run differs: it says itself how long the run took.
    assert {name for name in plain if plain[name] != there[name]} == {"run.html"}
    assert b"1.2" in plain["run.html"]
    assert b"logs/times.js" not in plain["run.html"]


def test_the_same_run_gives_the_same_zip_with_times_and_rights_of_no_machine(
    folder: RunFolder, archive: Path, tmp_path: Path
):
    again = tmp_path / archive.name
    write_zip(folder, again)
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None
        entries = content.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {stat.filemode(entry.external_attr >> 16) for entry in entries} == {"?rw-r--r--"}
    stored = {entry.filename for entry in entries if entry.compress_type == zipfile.ZIP_STORED}
    assert stored == {e.filename for e in entries if e.filename.endswith((".jpg", ".png"))}


def test_a_zip_opens_after_unzipping(tab, archive: Path, tmp_path: Path):
    shutil.unpack_archive(archive, tmp_path)
    opened = tab(tmp_path / "cats-dogs-1")
    opened.open("index.html")
    opened.page.locator(".nav a", has_text="Errors").click()
    opened.wait_until_ready()
    opened.page.locator("#gallery .card a").first.click()
    opened.wait_until_ready()
    assert opened.page.locator("#viewer").is_visible()


@pytest.mark.parametrize(
    ("name", "top"),
    [
        ("..zip", "report"),
        ("tonight.zip", "tonight"),
        ("a b.v2.zip", "a-b.v2"),
        ("\u202egpj.zip", "gpj"),
        ("Bär.zip", "Bär"),
        ("noending", "noending"),
    ],
)
def test_the_one_folder_has_a_plain_name(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, top: str
):
    monkeypatch.setattr(share, "write_pages", lambda _, sink, **__: sink.write("a/b.html", b"x"))
    write_zip(folder, tmp_path / name)
    assert {entry.split("/")[0] for entry in zip_files(tmp_path / name)} == {top}


def test_a_zip_that_fails_leaves_the_old_one(folder: RunFolder, tmp_path: Path):
    path = tmp_path / "old.zip"
    path.write_bytes(b"old")
    copied = RunFolder(shutil.copytree(folder.path, tmp_path / "copy"))
    (copied.path / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match="has no metrics yet"):
        write_zip(copied, path)
    assert path.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy", "old.zip"]


@pytest.mark.parametrize("write", [write_zip, write_single_file])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    folder: RunFolder, tmp_path: Path, write
):
    with pytest.raises(RunFolderError, match=r"cannot be written\. Received: a folder"):
        write(folder, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write(folder, tmp_path / "file" / "report")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# the command


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_both_files_and_leaves_the_report_alone(
    folder: RunFolder, archive: Path, tmp_path: Path
):
    before = folder_files(folder.path / "report")
    zipped, html = tmp_path / "new" / "deep" / archive.name, tmp_path / "new" / "a.html"
    options = ("--budget", "420kB", "--zip", zipped, "--single-file", html)
    result = call("report", folder.path, *options)
    assert result.exit_code == 0, result.output
    said, *paths = result.stdout.splitlines()
    assert re.fullmatch(
        r"errors      \d of 16 are in the single file;"
        r" the others were left out to stay under 420kB",
        said,
    )
    assert paths == [str(zipped), str(html)]
    assert zipped.read_bytes() == archive.read_bytes()
    assert html.stat().st_size <= 420_000
    assert sorted(entry.name for entry in html.parent.iterdir()) == ["a.html", "deep"]
    assert folder_files(folder.path / "report") == before


def test_the_command_renders_the_runs_own_report_as_asked(folder: RunFolder, tmp_path: Path):
    copied = RunFolder(shutil.copytree(folder.path, tmp_path / "run"))
    result = call("report", copied.path, "--redact", "--picture-size", 30, "--layer-detail", 7)
    assert result.stdout == f"{copied.report_path}\n"
    files = folder_files(copied.path / "report")
    image_id = int(read_run(copied).errors["image_id"].iloc[0])
    picture = np.frombuffer(files[f"images/{image_id}.jpg"], np.uint8)
    assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == (30, 30, 3)
    assert f"image {image_id}</bdi>".encode() in files[f"errors/{image_id}.html"]
    assert b"Redacted:" in files["index.html"]
    usual = folder_files(folder.path / "report")[f"errors/{image_id}.html"]
    assert len(files[f"errors/{image_id}.html"]) < len(usual)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--budget", "50%"], 1, "`--budget 50%` cannot be used: give an amount such as 25MB."),
        (["--zip", "."], 1, "`.` cannot be written. Received: a folder."),
        (["--picture-size", "0"], 2, "0 is not in the range x>=1"),
        (["--layer-detail", "small"], 2, "'small' is not a valid integer"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(folder: RunFolder, options, code: int, said: str):
    result = call("report", folder.path, *options)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


# pictures

NOTE = b"zqjxvwky taken by Jane at 48.1 N"


def with_notes(jpeg: bytes) -> bytes:
    """Put an EXIF, an XMP and an IPTC segment and a comment into a JPEG."""
    segments = [
        (0xE1, b"Exif\0\0" + NOTE),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NOTE),
        (0xED, b"Photoshop 3.0\0" + NOTE),
        (0xFE, NOTE),
    ]
    inserted = b"".join(
        bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content
        for marker, content in segments
    )
    return jpeg[:2] + inserted + jpeg[2:]


@pytest.fixture(scope="module")
def noted(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run, its pictures as cameras write them."""
    copied = RunFolder(shutil.copytree(folder.path, tmp_path_factory.mktemp("noted") / "run"))
    for index in copied.shard_indices("thumbnails"):
        shard = copied.read_shard("thumbnails", index)
        shard["jpeg"] = [with_notes(jpeg) for jpeg in shard["jpeg"]]
        table = pa.Table.from_pandas(shard, preserve_index=False)
        copied.write_shard("thumbnails", index, table, Receipt("thumbnails", index, len(table)))
    return copied


def test_no_note_of_a_camera_reaches_a_report(noted: RunFolder, tmp_path: Path):
    assert any(NOTE in jpeg for jpeg in noted.read_shard("thumbnails", 0)["jpeg"])
    render_report(noted)
    write_single_file(noted, tmp_path / "report.html")
    forms = [folder_files(noted.path / "report"), single_files(tmp_path / "report.html")]
    for side in (None, 40, 5000):
        write_zip(noted, tmp_path / "report.zip", options=ReportOptions(picture_side=side))
        forms.append(zip_files(tmp_path / "report.zip"))
    for files in forms:
        pictures = [content for name, content in files.items() if name.endswith(".jpg")]
        assert len(pictures) > 16
        assert not any(b"zqjxvwky" in content or b"Exif" in content for content in files.values())
        for content in pictures:
            assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None


def test_pictures_are_made_smaller_but_never_larger(folder: RunFolder, tmp_path: Path):
    for side, expected in ((40, 40), (96, 96), (5000, 96)):
        path = tmp_path / f"{side}.zip"
        write_zip(folder, path, options=ReportOptions(picture_side=side))
        files = zip_files(path)
        names = [name for name in files if name.endswith(".jpg") and "-" not in name.split("/")[-1]]
        assert len(names) > 16
        for name in names:
            picture = cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (expected, expected, 3), name
