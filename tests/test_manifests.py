"""Manifests: which images a target is about, for people and for scripts."""

import csv
import io
import json

import finding_tables
import pandas as pd

from audit.diagnose import manifests
from audit.diagnose.tables import Tables


def rows() -> list[dict]:
    full = finding_tables.full_tables()
    return [
        *manifests.manifest_rows(full, [7, 0], "error"),
        *manifests.manifest_rows(full, [200], "control", {200: 1}),
        *manifests.manifest_rows(full, [0], "control"),  # a second time
    ]


def test_a_manifest_keeps_order_and_names_an_image_once():
    frame = manifests.manifest_frame("T1", "collect", rows())
    assert tuple(frame.columns) == manifests.COLUMNS
    assert frame["image_id"].tolist() == [7, 0, 200]
    assert frame["path"].tolist() == ["cats/007.jpg", "cats/000.jpg", "cats/200.jpg"]
    assert frame["role"].tolist() == ["error", "error", "control"]
    assert frame["y_true"].tolist() == [0, 0, 0]
    assert frame["y_pred"].tolist() == [1, 1, 0]
    assert frame["predicted_class"].tolist() == ["dogs", "dogs", "cats"]
    assert frame["suggested_class"].tolist() == ["", "", "dogs"]
    assert set(frame["target"]) == {"T1"}
    assert set(frame["kind"]) == {"collect"}


def test_a_suspected_label_is_marked_in_every_list():
    frame = manifests.manifest_frame("T1", "collect", rows())
    assert frame["suspected_label"].tolist() == [False, True, False]


def test_files_that_are_no_images_have_a_path_alone():
    frame = manifests.manifest_frame("T2", "review", manifests.file_rows(["a", "b"], "unreadable"))
    assert frame["path"].tolist() == ["a", "b"]
    assert frame["image_id"].isna().all()
    joined = manifests.join_manifests([manifests.manifest_frame("T1", "collect", rows()), frame])
    assert joined["target"].tolist() == ["T1"] * 3 + ["T2"] * 2
    assert str(joined["image_id"].dtype) == "Int64"  # 7, not 7.0
    assert manifests.manifest_csv(joined).decode().splitlines()[1].startswith("T1,collect,7,cats/")
    assert manifests.manifest_csv(joined).decode().splitlines()[4] == (
        "T2,review,,a,,,unreadable,,,,False"
    )


def test_without_targets_there_is_a_header():
    frame = manifests.join_manifests([])
    assert manifests.manifest_csv(frame).decode() == ",".join(manifests.COLUMNS) + "\n"


def test_json_has_plain_values():
    frame = manifests.manifest_frame(
        "T1", "review", [*rows(), *manifests.file_rows(["a"], "unreadable")]
    )
    stored = manifests.manifest_records(frame)
    assert json.loads(json.dumps(stored)) == stored
    assert stored[0]["image_id"] == 7
    assert stored[0]["suspected_label"] is False
    assert stored[-1]["image_id"] is None


def test_no_cell_is_a_formula_and_every_line_is_one_image():
    predictions = finding_tables.predictions().head(3)
    predictions["path"] = ['=cmd|"/c calc"!A1', "@x,y\n.jpg", "cats/é.jpg"]
    rude = Tables(predictions, ("+cats", "=dogs"))
    frame = manifests.manifest_frame("T1", "collect", manifests.manifest_rows(rude, [0, 1, 2], "e"))
    text = manifests.manifest_csv(frame).decode("utf-8")
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["path"] for row in read] == [
        './=cmd|"/c calc"!A1',  # the same file
        "./@x,y\n.jpg",
        "cats/é.jpg",
    ]
    assert {row["true_class"] for row in read} == {"'+cats"}
    assert {row["predicted_class"] for row in read} == {"'=dogs"}
    assert frame["path"][0] == '=cmd|"/c calc"!A1'


def test_a_report_reads_the_ids_back():
    content = manifests.manifest_csv(manifests.manifest_frame("T1", "collect", rows()))
    read = pd.read_csv(io.BytesIO(content))
    assert read["image_id"].tolist() == [7, 0, 200]
    assert read["suspected_label"].tolist() == [False, True, False]
