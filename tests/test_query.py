"""What a search goes by: the right images of a target, their focus, and how usual it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from audit.errors import RunFolderError
from audit.run_folder import Receipt, RunFolder, fixed_list
from audit.search.query import MOST_IMAGES, Moments, direction, read_query

N = 40


def make_run(path: Path, rows: list[dict[str, Any]], focus: bool = True) -> RunFolder:
    """Write the parts of a run that a query reads: two shards, embeddings (i, -i, 1)."""
    folder = RunFolder(path)
    images = pd.DataFrame({"image_id": range(N), "path": [f"{i}.png" for i in range(N)]})
    folder.write_table("images", images.assign(y_true=0))
    for index, ids in enumerate((np.arange(25), np.arange(25, N))):
        receipt = Receipt("predictions", index, len(ids))
        columns = {"image_id": ids, "y_pred": np.int32(ids % 2)}
        columns |= dict.fromkeys(("p_true", "p_pred", "margin"), np.ones(len(ids), np.float32))
        folder.write_shard("predictions", index, pa.table(columns), receipt)
        vectors = np.stack([ids, -ids, np.ones(len(ids))], axis=1)
        table = pa.table({"image_id": ids, "embedding": fixed_list(vectors)})
        folder.write_shard("embeddings", index, table, receipt)
    if focus:
        ids = np.repeat(np.arange(0, N, 2), 2)
        explained = np.int32(np.tile([0, 1], N // 2))  # even images are predicted to be 0
        vectors = np.stack([ids + 100 * explained, ids], axis=1).astype(np.float32)
        vectors[ids == 6] = 0  # an empty map
        columns = {"image_id": ids, "explained_class": explained, "embedding": fixed_list(vectors)}
        folder.write_shard(
            "focus_embeddings", 0, pa.table(columns), Receipt("explanations", 0, len(ids))
        )
    folder.write_json("targets", {"targets": [{"id": "T1"}, {"id": "T2", "title": "Collect"}]})
    folder.write_json("targets/T2", {"images": rows})
    return folder


def row(image_id: int | None, role: str = "error") -> dict[str, Any]:
    return {"image_id": image_id, "role": role, "path": f"{image_id}.png"}


def test_a_query_holds_the_errors_of_the_target_in_their_order(tmp_path: Path):
    rows = [row(7), row(4), row(30), row(4), row(6), row(9, "control"), row(None, "file")]
    found = read_query(make_run(tmp_path, rows), "T2")
    assert found.target == {"id": "T2", "title": "Collect"}
    assert found.image_ids == (7, 4, 30, 6)
    assert found.whole.tolist() == [[7, -7, 1], [4, -4, 1], [30, -30, 1], [6, -6, 1]]
    # Of the predicted class; 7 was not explained, the map of 6 is empty.
    assert found.focus is not None
    assert found.focus.tolist() == [[4, 4], [30, 30]]


def test_mean_and_deviation_are_those_of_all_images(tmp_path: Path):
    found = read_query(make_run(tmp_path, [row(7)]), "T2")
    assert found.mean == pytest.approx([19.5, -19.5, 1])
    spread = float(np.arange(N).std())
    assert found.deviation == pytest.approx([spread, spread, 1e-3 * spread * 2 / 3], rel=1e-5)


def test_without_errors_all_images_of_the_target_count(tmp_path: Path):
    found = read_query(make_run(tmp_path, [row(3, "reference"), row(5, "control")]), "T2")
    assert found.image_ids == (3, 5)
    assert found.focus is None  # odd images were not explained


def test_only_the_most_typical_images_count(tmp_path: Path):
    rows = [row(i) for i in reversed(range(N))]
    found = read_query(make_run(tmp_path, rows), "T2")
    assert found.image_ids == tuple(range(N - 1, N - 1 - MOST_IMAGES, -1))


def test_a_model_that_shows_nothing_has_no_focus(tmp_path: Path):
    found = read_query(make_run(tmp_path, [row(4)], focus=False), "T2")
    assert found.focus is None
    assert "it is not known what the model looked at" in found.why_whole


@pytest.mark.parametrize(
    ("findings", "is_whole"), [(["F1"], False), (["F2", "F1"], True), (["F9"], False), ([], False)]
)
def test_only_a_target_that_rests_on_a_pattern_is_about_a_place(
    tmp_path: Path, findings: list[str], is_whole: bool
):
    folder = make_run(tmp_path, [row(4)])
    kinds = [{"id": "F1", "kind": "pattern"}, {"id": "F2", "kind": "slice"}]
    folder.write_json("findings", {"findings": kinds})
    folder.write_json("targets", {"targets": [{"id": "T2", "findings": findings}]})
    found = read_query(folder, "T2")
    assert (found.focus is None) == is_whole
    assert ("not about a place" in found.why_whole) == is_whole


def test_the_fingerprint_follows_all_that_the_likeness_depends_on(tmp_path: Path):
    texts = {
        read_query(make_run(tmp_path / str(n), rows, focus), "T2").fingerprint()
        for n, (rows, focus) in enumerate(
            [([row(4)], True), ([row(8)], True), ([row(4), row(8)], True), ([row(4)], False)]
        )
    }
    assert len(texts) == 4
    again = read_query(make_run(tmp_path / "again", [row(4)]), "T2").fingerprint()
    assert again in texts


def test_an_unknown_target_is_refused_with_those_there_are(tmp_path: Path):
    folder = make_run(tmp_path, [row(4)])
    with pytest.raises(RunFolderError, match=r"no target `T9`.*targets T1, T2\. Name one"):
        read_query(folder, "T9")
    with pytest.raises(RunFolderError, match="no target"):
        read_query(folder, "../T2")
    (tmp_path / "targets.json").write_text(json.dumps({"targets": []}))
    with pytest.raises(RunFolderError, match="a run without targets"):
        read_query(folder, "T2")
    (tmp_path / "targets.json").unlink()
    with pytest.raises(RunFolderError, match="a run without targets"):
        read_query(folder, "T2")


@pytest.mark.parametrize("rows", [[], [row(None, "file")]])
def test_a_target_without_images_is_refused(tmp_path: Path, rows: list[dict[str, Any]]):
    with pytest.raises(RunFolderError, match="names no images to go by"):
        read_query(make_run(tmp_path, rows), "T2")


def test_moments_do_not_depend_on_how_the_vectors_come():
    vectors = np.random.default_rng(0).normal(3, 2, (100, 5))
    moments = Moments()
    for start in (0, 1, 40):
        moments.add(vectors[start : {0: 1, 1: 40, 40: 100}[start]])
    mean, deviation = moments.mean_and_deviation()
    assert mean == pytest.approx(vectors.mean(axis=0), rel=1e-5)
    assert deviation == pytest.approx(vectors.std(axis=0), rel=1e-5)


def test_a_direction_is_a_unit_vector_or_nothing():
    unit = direction(np.array([[3.0, 4.0]]), np.zeros(2), np.ones(2))
    assert unit == pytest.approx([0.6, 0.8])
    assert direction(np.array([[1.0, 2.0]]), np.array([1.0, 2.0]), np.ones(2)).tolist() == [0, 0]
