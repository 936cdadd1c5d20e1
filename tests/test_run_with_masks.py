"""A whole audit with masks: errors that look beside the object are found to, and said to."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import drawn_set
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from report_html import Page, read_page

import audit
from audit.cli import main
from audit.diagnose.conditions import OBJECT
from audit.errors import RunFolderError
from audit.report.redact import REDACTED, redact
from audit.report.run_data import read_run
from audit.results import Run
from audit.run_folder import RunFolder
from audit.schemas import INSIDE, SCHEMAS

OPTIONS = drawn_set.SHARDS | {"causal": "off"}
N_ERRORS = drawn_set.N_ERRORS


def save_masks(folder: Path) -> Path:
    """Write where the square of its own class is, a corner of 14 × 14 pixels; of all but two."""
    half = 14
    _, labels, paths = drawn_set.draw_set()
    for label, path in zip(labels, paths, strict=True):
        mask = np.zeros((drawn_set.SIDE, drawn_set.SIDE), np.uint8)
        corner = slice(None, half) if label == 0 else slice(-half, None)
        mask[corner, corner] = 255
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), mask)
    (folder / paths[0]).unlink()
    (folder / paths[1]).write_text("no mask")
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def run(
    masks: Path, drawn_model: Path, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    out = tmp_path_factory.mktemp("inside") / "run"
    return audit.run(drawn_model, drawn_data, out, masks=masks, progress=False, **OPTIONS)


def test_errors_look_beside_the_object_and_correct_images_at_it(run: Run):
    errors = run.focus[(run.focus["role"] == "error") & run.focus["is_predicted"]]
    controls = run.focus[(run.focus["role"] == "control") & run.focus["is_predicted"]]
    known = errors["energy_inside"].notna()
    assert known.sum() == N_ERRORS - 2  # The first two images are errors.
    assert errors["energy_inside"].median() < 0.1 < 0.5 < controls["energy_inside"].median()
    assert errors["pointing"].max() == 0
    # For their true class, errors look at the object.
    of_true = run.focus[(run.focus["role"] == "error") & ~run.focus["is_predicted"]]
    assert of_true["energy_inside"].median() > 0.5


def test_the_patterns_are_called_so(run: Run):
    assert len(run.patterns)
    assert run.patterns["is_beside"].all()
    assert all(name.endswith(", beside the object") for name in run.patterns["name"])


def test_the_tables(run: Run):
    folder = RunFolder(run.path)
    table = folder.read_table("objects")
    assert list(table.columns) == SCHEMAS["objects"].names
    assert table["kind"].tolist()[:3] == ["not given", "unusable", "mask"]
    assert table["kind"].value_counts().to_dict() == {
        "mask": drawn_set.N_IMAGES - 2,
        "not given": 1,
        "unusable": 1,
    }
    assert table[OBJECT].dropna().unique() == pytest.approx([14**2 / 32**2])
    found = folder.read_json("objects")
    assert found["n_known"] == drawn_set.N_IMAGES - 2
    assert found["errors"]["n"] == N_ERRORS - 2
    assert found["change"]["high"] < 0
    assert found["p_value"] < 0.001
    assert run.manifest["config"]["masks"]
    assert len(run.manifest["fingerprints"]["objects"]) == 64
    (warning,) = [w["text"] for w in run.manifest["warnings"] if w["kind"] == "objects"]
    assert "of 1 images cannot be used, the first because its mask is no PNG" in warning


def test_scripts_and_terminals_are_told(run: Run):
    assert run.summary()["objects"] == RunFolder(run.path).read_json("objects")
    shown = CliRunner().invoke(main, ["show", str(run.path)]).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("object ")]
    assert re.search(r"of errors <?\d+ % \(0\.\d+ times that of an even map\), of correct", line)
    assert line.endswith("the object is known in 58 of 60 images")


def numbers(page: Page) -> list[float]:
    return [float(element.attributes["value"]) for element in page.all("data")]


def words(page: Page) -> str:
    return " ".join(" ".join(element.text for element in page.all("body")).split())


def test_the_report_says_it(run: Run):
    folder = RunFolder(run.path)
    report = run.path / "report"
    found = folder.read_json("objects")
    overview = read_page(report / "index.html")
    assert "Focus inside the object" in words(overview)
    for part in (found["errors"]["energy"], found["controls"]["energy"], found["change"]):
        assert part["value"] in numbers(overview)
    assert f"in {found['n_known']} of {drawn_set.N_IMAGES} images" in words(overview)
    assert "those of 1 cannot be used" in words(overview)
    pattern = run.patterns.iloc[0]
    page = read_page(report / "pattern-1.html")
    assert pattern["energy_inside"] in numbers(page)
    assert "less than in correct images" in words(page)
    image_id = int(run.errors["image_id"].iloc[3])
    rows = run.focus[run.focus["image_id"] == image_id]
    error = read_page(report / f"errors/{image_id}.html")
    assert "hottest pixel beside it" in words(error)
    for energy in rows["energy_inside"]:
        assert any(value == pytest.approx(energy, abs=1e-6) for value in numbers(error))
    without = int(run.errors["image_id"].min())  # Its mask is missing.
    assert "Focus inside the object" not in words(read_page(report / f"errors/{without}.html"))


def test_without_masks_nothing_of_it_is_there(drawn_run: Path):
    folder = RunFolder(drawn_run)
    assert not set(INSIDE) & set(folder.read_table("focus").columns)
    assert "is_beside" not in folder.read_table("patterns").columns
    manifest = folder.read_manifest()
    assert not {"masks", "boxes"} & set(manifest["config"])
    assert set(manifest["fingerprints"]) == {"model", "data"}
    assert not list(drawn_run.glob("objects*"))
    pages = (drawn_run / "report").rglob("*.html")
    assert not any("the object" in page.read_text() for page in pages)


def test_it_goes_on_with_masks_that_moved_but_not_with_others(
    run: Run, masks: Path, drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    def again(**options: Any) -> Run:
        return audit.run(drawn_model, drawn_data, copy, progress=False, **OPTIONS, **options)

    copy = shutil.copytree(run.path, tmp_path / "run")
    moved = shutil.copytree(masks, tmp_path / "moved")
    assert again(masks=moved).manifest["config"]["masks"] == str(moved)
    (next(moved.rglob("*.png"))).unlink()
    for options in ({"masks": moved}, {}):
        with pytest.raises(RunFolderError, match="another value of the masks or boxes"):
            again(**options)


def test_boxes_say_the_same(
    run: Run, masks: Path, drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    """The same corners as COCO boxes give the same figures."""
    side, half = drawn_set.SIDE, 14
    _, labels, paths = drawn_set.draw_set()
    names = paths[2:]
    starts = {
        path: 0 if label == 0 else side - half for label, path in zip(labels, paths, strict=True)
    }
    content = {
        "images": [
            {"id": n, "file_name": name, "width": side, "height": side}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": n, "bbox": [starts[name], starts[name], half, half]}
            for n, name in enumerate(names)
        ],
    }
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    other = audit.run(
        drawn_model, drawn_data, tmp_path / "run", boxes=boxes, progress=False, **OPTIONS
    )
    columns = ["image_id", "explained_class", *INSIDE]
    pd.testing.assert_frame_equal(other.focus[columns], run.focus[columns])


def test_a_redacted_report_says_no_place(run: Run):
    told = redact(read_run(RunFolder(run.path)))
    assert told.manifest["config"]["masks"] == REDACTED
    assert told.diagnosis.objects is not None
