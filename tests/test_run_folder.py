"""The run folder: whole files or none, torn shards recognised, every column kept."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audit.errors import RunFolderError
from audit.files import write_json, write_parquet
from audit.run_folder import (
    FORMAT_VERSION,
    FUSED_LAYER,
    Receipt,
    RunFolder,
    ShardSpec,
    decode_cam,
    fixed_list,
    to_arrow,
)
from audit.schemas import SCHEMAS, embeddings_schema, predictions_schema

SPEC = ShardSpec("predictions", 0, (3, 4, 9))
HOSTILE = ["</script><b>", "a\0b", "Ünï ☃ 😀", "\"quote' \\", "line\nbreak", "../up", "=1+1", ""]


def predictions(ids, n_classes=2, seed=0):
    scores = np.random.default_rng(seed).dirichlet(np.ones(n_classes), len(ids)).astype(np.float32)
    columns = [
        pa.array(ids, pa.int64()),
        pa.array(scores.argmax(axis=1), pa.int32()),
        pa.array(scores[:, 0]),
        pa.array(scores.max(axis=1)),
        pa.array(scores.max(axis=1) - scores.min(axis=1)),
        fixed_list(scores),
    ]
    return pa.table(columns, schema=predictions_schema(n_classes)), scores


def finished_shard(tmp_path, left_out=()):
    folder = RunFolder(tmp_path)
    done = [i for i in SPEC.image_ids if i not in dict(left_out)]
    receipt = Receipt("predictions", 0, len(done), tuple(left_out))
    folder.write_shard("predictions", 0, predictions(done)[0], receipt)
    return folder, receipt


def file_names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Shards


def test_a_left_over_temporary_file_is_overwritten_and_never_listed(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / ".shard-000000.parquet.tmp").write_bytes(b"torn")
    assert folder.shard_indices("predictions") == []
    folder.write_shard("predictions", 0, predictions([3])[0], Receipt("predictions", 0, 1))
    assert file_names(tmp_path) == ["predictions/shard-000000.parquet"]


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        folder = RunFolder(tmp_path / name)
        folder.write_shard("predictions", 0, predictions([1, 2])[0], Receipt("predictions", 0, 2))
        folder.write_table("images", pd.DataFrame({"image_id": [0], "path": ["x"]}))
    for file in ("predictions/shard-000000.parquet", "images.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# Receipts


@pytest.mark.parametrize("left_out", [(), ((4, "it is empty (0 bytes)"),), ((3, HOSTILE[2]),)])
def test_the_receipt_of_a_finished_shard(tmp_path, left_out):
    folder, receipt = finished_shard(tmp_path, left_out)
    assert folder.read_receipt(SPEC) == receipt


def test_a_shard_of_which_every_image_was_left_out(tmp_path):
    left_out = tuple((i, "why") for i in SPEC.image_ids)
    folder, receipt = finished_shard(tmp_path, left_out)
    assert folder.read_receipt(SPEC) == receipt
    assert folder.read_scores().shape == (0, 2)


def test_a_missing_shard_has_no_receipt(tmp_path):
    assert RunFolder(tmp_path).read_receipt(SPEC) is None


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -4, -8, -20])
def test_a_torn_shard_has_no_receipt(tmp_path, keep):
    folder, _ = finished_shard(tmp_path)
    path = folder.shard_path("predictions", 0)
    path.write_bytes(path.read_bytes()[:keep])
    assert folder.read_receipt(SPEC) is None


def test_a_shard_of_zeros_has_no_receipt(tmp_path):
    folder, _ = finished_shard(tmp_path)
    path = folder.shard_path("predictions", 0)
    path.write_bytes(bytes(path.stat().st_size))
    assert folder.read_receipt(SPEC) is None


def test_a_short_shard_has_no_receipt(tmp_path):
    folder, _ = finished_shard(tmp_path)
    assert folder.read_receipt(ShardSpec("predictions", 0, (3, 4, 9, 11))) is None


def test_a_shard_without_receipt_is_not_finished(tmp_path):
    folder = RunFolder(tmp_path)
    write_parquet(folder.shard_path("predictions", 0), predictions([3, 4, 9])[0])
    assert folder.read_receipt(SPEC) is None


# Tables


def test_a_stored_table_has_no_trace_of_pandas(tmp_path):
    folder, _ = finished_shard(tmp_path)
    folder.write_table("images", pd.DataFrame({"image_id": [0], "path": ["a"], "y_true": [1]}))
    assert pq.read_schema(folder.table_path("images")).metadata is None
    assert list(pq.read_schema(folder.shard_path("predictions", 0)).metadata) == [b"receipt"]


def sample_column(kind):
    numbers = range(len(HOSTILE))
    if pa.types.is_string(kind):
        return HOSTILE
    if pa.types.is_binary(kind):
        return [bytes([n, 0, 255]) for n in numbers]
    if pa.types.is_boolean(kind):
        return [n % 2 == 0 for n in numbers]
    if pa.types.is_floating(kind):
        return [0.5 * n for n in numbers]
    if pa.types.is_list(kind):
        return [[0.5 * n] * n for n in numbers]
    return list(numbers)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("n_rows", [len(HOSTILE), 0])
def test_fixed_tables_come_back_as_they_were(tmp_path, name, n_rows):
    folder = RunFolder(tmp_path)
    columns = {field.name: sample_column(field.type)[:n_rows] for field in SCHEMAS[name]}
    folder.write_table(name, pd.DataFrame(columns, dtype=None if n_rows else object))
    assert pq.read_schema(folder.table_path(name)).equals(SCHEMAS[name])
    back = folder.read_table(name).to_dict("list")
    lists = {field.name for field in SCHEMAS[name] if pa.types.is_list(field.type)}
    back |= {column: [values.tolist() for values in back[column]] for column in lists}
    assert back == columns


def test_a_table_without_one_of_its_columns_is_not_written(tmp_path):
    with pytest.raises(KeyError, match="reason"):
        RunFolder(tmp_path).write_table("unreadable", pd.DataFrame({"path": ["a"], "kind": ["b"]}))
    assert file_names(tmp_path) == []


def test_metadata_columns_of_the_user_are_kept(tmp_path):
    folder = RunFolder(tmp_path)
    frame = pd.DataFrame(
        {"image_id": [0, 1], "camera </td>": HOSTILE[:2], "lux": [1.5, np.nan], "n": [1, 2]}
    )
    folder.write_table("images", frame)
    pd.testing.assert_frame_equal(folder.read_table("images"), frame)


def test_lists_come_back_in_order_over_shards(tmp_path):
    folder = RunFolder(tmp_path)
    wanted = []
    for index, ids in enumerate([[0, 1, 2], [3], [5, 8]]):
        table, scores = predictions(ids, n_classes=3, seed=index)
        folder.write_shard("predictions", index, table, Receipt("predictions", index, len(ids)))
        folder.write_shard(
            "embeddings",
            index,
            pa.table([pa.array(ids), fixed_list(2 * scores)], schema=embeddings_schema(3)),
            Receipt("embeddings", index, len(ids)),
        )
        wanted.append(scores)
    scores = np.concatenate(wanted)
    assert folder.shard_indices("predictions") == [0, 1, 2]
    np.testing.assert_array_equal(folder.read_scores(), scores)
    assert folder.read_scores().dtype == np.float32
    ids, embeddings = folder.read_embeddings()
    assert ids.tolist() == [0, 1, 2, 3, 5, 8]
    np.testing.assert_array_equal(embeddings, 2 * scores)


def test_predictions_are_joined_with_paths_and_labels(tmp_path):
    folder = RunFolder(tmp_path)
    images = {"image_id": [0, 1, 2], "path": ["a", "b", "c"], "y_true": [0, 1, 1], "lux": [1, 2, 3]}
    folder.write_table("images", pd.DataFrame(images))
    table, scores = predictions([2, 0])
    receipt = Receipt("predictions", 0, 2, ((1, "gone"),))
    folder.write_shard("predictions", 0, table, receipt)
    frame = folder.read_predictions(scores=True)
    columns = ["image_id", "path", "y_true", "y_pred", "p_true", "p_pred", "margin", "scores"]
    assert list(frame) == columns
    assert frame["image_id"].tolist() == [0, 2]
    assert frame["path"].tolist() == ["a", "c"]
    np.testing.assert_array_equal(np.stack(frame["scores"]), scores[::-1])
    assert list(folder.read_predictions()) == columns[:-1]


def test_predictions_of_a_run_that_has_none_yet(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_table("images", pd.DataFrame({"image_id": [0], "path": ["a"], "y_true": [1]}))
    assert folder.read_predictions().empty


def test_fused_maps_come_back_as_arrays_in_order(tmp_path):
    folder = RunFolder(tmp_path)
    cam = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rows = [
        (7, 1, FUSED_LAYER, 2, 3, 0.5, cam.tobytes()),
        (7, 0, FUSED_LAYER, 2, 3, 0.25, (cam + 1).tobytes()),
        (7, 0, "conv", 2, 3, 9.0, (cam + 2).tobytes()),
    ]
    table = to_arrow(
        pd.DataFrame(rows, columns=SCHEMAS["explanations"].names), SCHEMAS["explanations"]
    )
    folder.write_shard("explanations", 0, table, Receipt("explanations", 0, 1))
    fused = folder.read_fused()
    assert list(fused) == ["image_id", "explained_class", "peak", "cam"]
    assert fused["explained_class"].tolist() == [0, 1]
    np.testing.assert_array_equal(fused["cam"][0], cam + 1)
    np.testing.assert_array_equal(fused["cam"][1], cam)
    assert RunFolder(tmp_path / "other").read_fused().empty


def test_a_map_is_stored_row_by_row():
    assert decode_cam(bytes([0, 1, 2, 3, 4, 255]), 2, 3).tolist() == [[0, 1, 2], [3, 4, 255]]


# JSON


def test_numbers_without_meaning_become_null(tmp_path):
    values = {
        "nan": float("nan"),
        "inf": np.float32(np.inf),
        "array": np.array([1.5, np.nan]),
        "nested": [{"x": (np.nan, np.int64(2))}],
        "bool": np.True_,
        "path": tmp_path / "a",
        3: np.float32(0.1),
    }
    write_json(tmp_path / "v.json", values)
    back = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert back == {
        "nan": None,
        "inf": None,
        "array": [1.5, None],
        "nested": [{"x": [None, 2]}],
        "bool": True,
        "path": (tmp_path / "a").as_posix(),
        "3": float(np.float32(0.1)),
    }


def test_keys_keep_their_order(tmp_path):
    write_json(tmp_path / "v.json", {"b": 1, "a": 2})
    assert (tmp_path / "v.json").read_text() == '{\n  "b": 1,\n  "a": 2\n}\n'


@pytest.mark.parametrize("text", [*HOSTILE, os.fsdecode(b"caf\xe9")])
def test_hostile_strings_come_back_as_they_were(tmp_path, text):
    folder = RunFolder(tmp_path)
    folder.write_manifest({"format_version": FORMAT_VERSION, "name": text, text or "x": 1})
    folder.write_metrics({"class": text})
    assert RunFolder.open(tmp_path).read_manifest()["name"] == text
    assert folder.read_metrics() == {"class": text}
    folder.manifest_path.read_bytes().decode("utf-8")  # a file that any reader can decode


# Refusals


def refusal(path):
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(path)
    return str(caught.value)


@pytest.mark.parametrize("make", ["nothing", "folder", "file"])
def test_a_path_that_is_not_a_run_is_refused(tmp_path, make):
    path = tmp_path / "run"
    if make == "folder":
        path.mkdir()
    if make == "file":
        path.write_text("text")
    assert refusal(path) == (
        f"`{path}` is not a run folder. Received: a path without a manifest.json. Give the folder"
        " that was passed to `gradcam-audit run … --out`."
    )


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_version_is_refused(tmp_path, version):
    RunFolder(tmp_path).write_manifest({"format_version": version})
    text = refusal(tmp_path)
    assert f"format_version {version}, this program reads {FORMAT_VERSION}" in text
    assert text.endswith("or a new folder.")


@pytest.mark.parametrize("content", [b"", b'{"format_version": 1', b"\xff\xfe", b"[1]", b"null"])
def test_a_broken_manifest_is_refused(tmp_path, content):
    RunFolder(tmp_path).manifest_path.write_bytes(content)
    text = refusal(tmp_path)
    assert f"`{tmp_path / 'manifest.json'}` " in text
    assert text.endswith("Audit again into a new folder.")


def test_reading_changes_nothing(tmp_path):
    folder, _ = finished_shard(tmp_path)
    folder.write_manifest({"format_version": FORMAT_VERSION})
    before = file_names(tmp_path)
    RunFolder.open(tmp_path).read_receipt(SPEC)
    list(folder.iter_shards("predictions"))
    assert file_names(tmp_path) == before
