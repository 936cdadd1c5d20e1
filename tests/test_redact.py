"""A redacted report tells no path, no file name and no metadata, in no byte of no file."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_fixture import Sizes, write_run
from shared_report import folder_files, single_files, zip_files

from audit.config import AuditConfig
from audit.diagnose.wording import phrase
from audit.report.redact import A_COLUMN, PRIVATE_OPTIONS, REDACTED, redact, redact_list
from audit.report.render import ReportOptions, render_report
from audit.report.run_data import as_records, read_run
from audit.report.share import write_zip
from audit.report.single_file import write_single_file
from audit.run_folder import RunFolder

MARK = "zqjxvwky"
"""Begins whatever must not be told; no word and no chance makes it."""
NUMBER = 73512000000
"""The first of the numbers of a column, unlike any other number."""
MARKS = (MARK.encode(), str(NUMBER)[:8].encode())
LONG = f"{MARK}value with many words " * 4
SLICE = f"{MARK}column: {MARK}value1 and class cats"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run in which all that is the user's own has a mark."""
    folder = write_run(tmp_path_factory.mktemp("redact"), ("cats", "dogs"), Sizes(160, 12, 4))
    plant_paths(folder)
    plant_diagnosis(folder)
    plant_manifest(folder)
    return folder


def plant_paths(folder: RunFolder) -> None:
    images = folder.read_table("images")
    n = len(images)
    images["path"] = [f"cats/{MARK}folder{i % 3}/{MARK} file ({i}).jpg" for i in range(n)]
    images = images[["image_id", "path", "y_true"]].assign(
        **{
            f"{MARK}column": [f"{MARK}value{i % 4}" for i in range(n)],
            f"{MARK} long": LONG,
            "who <b>": np.arange(n) + NUMBER,
        }
    )
    folder.write_table("images", images)
    lost = f"{MARK}lost/{MARK}torn.jpg"
    reason = f"cannot open /home/{MARK}user/{lost}: {MARK}torn.jpg is torn"
    folder.write_table(
        "unreadable",
        pd.DataFrame([(lost, "unreadable", reason)], columns=["path", "kind", "reason"]),
    )
    paths = images["path"].tolist()
    table = pd.read_csv(folder.path / "targets.csv")
    table["path"] = [lost if pd.isna(i) else paths[int(i)] for i in table["image_id"]]
    table[f"{MARK}more"] = MARK
    table.to_csv(folder.path / "targets.csv", index=False)
    for name, rows in table.groupby("target"):
        rows.to_csv(folder.path / f"targets/{name}.csv", index=False)
        content = {
            "target": name,
            "title": MARK,
            "images": json.loads(rows.to_json(orient="records")),
        }
        folder.write_json(f"targets/{name}", content)


def plant_diagnosis(folder: RunFolder) -> None:
    slices = folder.read_table("slices")
    slices["name"] = [SLICE, f"{MARK} long: {LONG}", "who <b> in the lowest 10 %"]
    slices["kind"] = ["pair", "metadata", "metadata"]
    slices["confirmed"] = True
    slices["conditions"] = [
        [
            condition(f"metadata.{MARK}column", value=f"{MARK}value1"),
            condition("y_true", value="cats"),
        ],
        [condition(f"metadata.{MARK} long", value=LONG)],
        [condition("metadata.who <b>", high=float(NUMBER + 24))],
    ]
    folder.write_table("slices", slices)
    value = f"{MARK}value{read_run(folder).errors['image_id'].max() % 4}"
    findings = folder.read_json("findings")["findings"]
    findings[0]["text"] = (
        f"The image {MARK}folder1/{MARK} file (1).jpg is wrong, see /mnt/{MARK}/x."
    )
    for finding, name in zip(findings[1:], slices["name"], strict=False):
        finding["text"] = f"{phrase(name)}: 12 of 40 images are wrong."
        finding["confirmed_by"] = f"a test of {phrase(name)} with {value}"
    folder.write_json("findings", {"findings": findings})
    targets = folder.read_json("targets")["targets"]
    for target, name in zip(targets, slices["name"], strict=False):
        target["title"] = f"Collect more: {phrase(name)}"
        target["text"] = f"Collect images like {MARK} file (7); also {phrase(SLICE)}."
        target["recipe"] = f"# for {phrase(name)}\nimport keras\n"
        target["refuted_by"] = f"If {value} stays, it was not that."
    folder.write_json("targets", {"targets": targets})


def condition(column: str, high: float | None = None, value: str | None = None) -> dict:
    return {"column": column, "low": None, "high": high, "value": value}


def plant_manifest(folder: RunFolder) -> None:
    manifest = folder.read_manifest()
    error = int(read_run(folder).errors["image_id"].max())
    manifest["model"] |= {"name": f"{MARK}model.keras", "path": f"/home/{MARK}/{MARK}model.keras"}
    manifest["data"]["name"] = f"{MARK}data"
    manifest["config"] |= {
        "label_regex": f"({MARK})",
        "notify_cmd": f"mail {MARK}",
        "layers": f"{MARK}model/.*",
    }
    manifest["fingerprints"] = {"model": f"{MARK}1", "data": f"{MARK}2"}
    manifest["unknown"] = MARK
    manifest["head"]["explained"] = f"The logit of {MARK}model."
    manifest["warnings"] += [
        {
            "kind": "unexplained",
            "text": f"2 images, the first cats/{MARK}folder2/{MARK} file (2).jpg",
        },
        {"kind": "unexplained", "text": rf"Gone: C:\Users\{MARK}\{MARK} file (2).jpg."},
        {
            "kind": "unexplained",
            "text": f"Of {MARK}data, {NUMBER + error} is not there; {MARK}model.",
        },
    ]
    folder.write_manifest(manifest)
    metrics = folder.read_metrics()
    metrics["notes"] = [f"Counted without {MARK}torn."]
    folder.write_metrics(metrics)


@pytest.fixture(scope="module")
def reports(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Path]]:
    """The report in each of its three forms, redacted and not."""
    made = {}
    for redacted in (False, True):
        scratch = tmp_path_factory.mktemp("shared")
        options = ReportOptions(redact=redacted)
        shutil.copytree(render_report(folder, options=options).parent, scratch / "report")
        write_zip(folder, scratch / "report.zip", options=options)
        write_single_file(folder, scratch / "report.html", options=options)
        made[redacted] = [scratch / name for name in ("report", "report.zip", "report.html")]
    return made


def files_of(report: Path) -> dict[str, bytes]:
    read = {"": folder_files, ".zip": zip_files, ".html": single_files}
    return read[report.suffix](report)


def test_no_byte_of_a_redacted_report_tells_whose_it_is(reports: dict[bool, list[Path]]):
    for report in reports[True]:
        files = files_of(report)
        assert len(files) > 50
        telling = {name for name, content in files.items() if any(m in content for m in MARKS)}
        assert telling == set()
        if report.is_file():
            assert MARK.encode() not in report.read_bytes()


def test_without_redaction_each_kind_of_page_tells(reports: dict[bool, list[Path]]):
    # So that the test above can fail.
    pages = {"index.html", "findings.html", "run.html", "slices.html", "slices/1.html"}
    pages |= {"targets/T1.csv", "targets/T1.json", "targets/T1.html", "errors.html"}
    for report in reports[False]:
        files = {
            name.removeprefix("report/"): content for name, content in files_of(report).items()
        }
        files["index.html"] = files.get("index.html", files.get("shell", b""))
        assert pages <= {name for name, content in files.items() if MARK.encode() in content}
        assert sum(MARKS[1] in content for content in files.values()) >= 12


def test_the_report_says_that_it_is_redacted(reports: dict[bool, list[Path]]):
    # In one file the footer stands once, around all pages.
    for redacted, forms in reports.items():
        for report in forms:
            files = files_of(report)
            framed = [
                content
                for name, content in files.items()
                if name == "shell" or (name.endswith(".html") and "shell" not in files)
            ]
            said = [b"Redacted: paths, file names" in content for content in framed]
            assert len(said) >= (1 if "shell" in files else 30)
            assert set(said) == {redacted}


# what stays


def test_images_and_files_are_called_by_number(folder: RunFolder):
    data = redact(read_run(folder))
    assert data.images["path"][7] == "image 7"
    assert data.errors["path"].tolist() == [f"image {i}" for i in data.errors["image_id"]]
    assert data.unreadable["path"].tolist() == ["file 1"]
    rows = data.diagnosis.target_images
    lost = rows["image_id"].isna()
    assert rows.loc[lost, "path"].tolist() == ["file 1"]
    assert rows.loc[~lost, "path"].tolist() == [
        f"image {i:.0f}" for i in rows.loc[~lost, "image_id"]
    ]
    assert data.metadata.shape == (12, 0)


def test_numbers_classes_and_patterns_stay(folder: RunFolder):
    told, whole = redact(read_run(folder)), read_run(folder)
    assert told.class_names == whole.class_names
    pd.testing.assert_frame_equal(told.patterns, whole.patterns)
    pd.testing.assert_frame_equal(
        told.errors.drop(columns="path"), whole.errors.drop(columns="path")
    )
    kept = whole.diagnosis.slices.columns.drop(["name", "conditions"])
    pd.testing.assert_frame_equal(told.diagnosis.slices[kept], whole.diagnosis.slices[kept])
    assert told.manifest["stages"] == whole.manifest["stages"]
    assert told.manifest["warnings"][:2] == whole.manifest["warnings"][:2]


def test_slices_by_a_column_say_neither_column_nor_value(folder: RunFolder):
    found = redact(read_run(folder)).diagnosis
    assert found.slices["name"].tolist() == [f"{A_COLUMN} and true class cats", A_COLUMN, A_COLUMN]
    assert [as_records(each)[0]["column"] for each in found.slices["conditions"]] == [
        f"metadata.{A_COLUMN}"
    ] * 3
    assert as_records(found.slices["conditions"][0])[1] == condition("y_true", value="cats")
    assert (
        found.findings[1]["text"] == f"{A_COLUMN} and true class cats: 12 of 40 images are wrong."
    )
    assert found.findings[2]["text"] == f"{A_COLUMN}: 12 of 40 images are wrong."
    assert found.targets[0]["title"] == f"Collect more: {A_COLUMN} and true class cats"
    assert found.targets[0]["recipe"] == f"# for {A_COLUMN} and true class cats\nimport keras\n"


def test_texts_lose_only_what_tells(folder: RunFolder):
    told = redact(read_run(folder))
    assert (
        told.diagnosis.findings[0]["text"]
        == f"The image {REDACTED}/{REDACTED} is wrong, see {REDACTED}"
    )
    assert [item["text"] for item in told.manifest["warnings"][2:]] == [
        f"2 images, the first {REDACTED}",
        f"Gone: {REDACTED}",
        f"Of {REDACTED}, {REDACTED} is not there; {REDACTED}.",
    ]
    assert told.unreadable["reason"][0] == f"cannot open {REDACTED} {REDACTED} is torn"
    assert told.metrics["notes"] == [f"Counted without {REDACTED}."]
    assert told.manifest["config"]["label_regex"] == REDACTED
    assert set(told.manifest["fingerprints"].values()) == {REDACTED}


def test_options_in_words_of_the_users_own_are_known():
    """A new option with free text must be judged: is it private?"""
    harmless = {"layers", "memory", "positive"}
    free = {
        name
        for name, field in AuditConfig.model_fields.items()
        if field.annotation in (str, str | None)
    }
    assert free == harmless | set(PRIVATE_OPTIONS)


def test_plain_words_are_not_taken_for_names(folder: RunFolder, tmp_path: Path):
    """Files may be called like words of ours: `left/image 1.jpg`, a model `model.keras`."""
    copied = RunFolder(shutil.copytree(folder.path, tmp_path / "run"))
    images = copied.read_table("images")
    images["path"] = [f"cats/left/image {i}.jpg" for i in images["image_id"]]
    copied.write_table("images", images[["image_id", "path", "y_true"]])
    manifest = copied.read_manifest()
    manifest["model"] = {"name": "model.keras", "n_parameters": 7, "path": None}
    text = "Image 12 of the model: cats look at the left edge, 12 % of 240 images."
    manifest["warnings"] = [{"kind": "a", "text": text}]
    copied.write_manifest(manifest)
    assert redact(read_run(copied)).manifest["warnings"][0]["text"] == text


def test_lists_keep_their_rows_with_numbers_and_no_other_column(folder: RunFolder):
    data = redact(read_run(folder))
    for number in (1, 4):
        name = f"targets/T{number}.csv"
        before = pd.read_csv(folder.path / name)
        after = list(
            csv.DictReader(
                io.StringIO(redact_list(name, (folder.path / name).read_bytes(), data).decode())
            )
        )
        assert [row["role"] for row in after] == before["role"].tolist()
        names = [f"image {i:.0f}" if i == i else "file 1" for i in before["image_id"]]
        assert [row["path"] for row in after] == names
        assert set(after[0]) == {"target", "kind", "image_id", "path", "y_true", "y_pred", "role"}
        name = f"targets/T{number}.json"
        told = json.loads(redact_list(name, (folder.path / name).read_bytes(), data))
        assert [row["path"] for row in told["images"]] == names
        assert told["title"] == data.diagnosis.targets[number - 1]["title"]
