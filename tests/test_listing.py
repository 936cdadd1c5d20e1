"""Listing: Keras's classes and files, manifests, class order, and every file accounted for."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit.errors import DatasetError
from audit.predict.listing import (
    Listing,
    check_class_count,
    list_images,
    list_unlabelled,
    make_listing,
)

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


def make_files(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)
    return root


def rows(listing: Listing) -> list[tuple[int, str, int]]:
    columns = listing.images[["image_id", "path", "y_true"]]
    return [tuple(row) for row in columns.itertuples(index=False)]


def left_out(listing: Listing) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in listing.left_out.itertuples(index=False)]


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        list_images(*args, **kwargs)
    text = str(caught.value)
    what, received = text.split(" Received: ", 1)
    assert what.endswith(".") and received.endswith(".") and ". " in received
    return text


# A folder per class


def test_images_are_numbered_in_the_order_of_their_paths(tmp_path):
    make_files(tmp_path, "cats/b.jpg", "cats/a.png", "dogs/c.JPEG", "dogs/10.bmp", "dogs/9.gif")
    listing = list_images(tmp_path)
    assert rows(listing) == [
        (0, "cats/a.png", 0),
        (1, "cats/b.jpg", 0),
        (2, "dogs/10.bmp", 1),
        (3, "dogs/9.gif", 1),
        (4, "dogs/c.JPEG", 1),
    ]
    assert listing.class_names == ("cats", "dogs")
    assert (listing.kind, listing.root) == ("folders", tmp_path)
    assert listing.images["y_true"].dtype == np.int32
    assert listing.left_out.empty
    assert list(listing.left_out) == ["path", "kind", "reason"]


def test_classes_and_files_are_those_of_keras(tmp_path):
    names = [
        "cats/deep/er/1.jpg",
        "cats/deep/2.PNG",
        "cats/0.jpg",
        "cats/.ipynb/3.jpg",
        "dogs/a.JpG",
        "dogs/b.gif",
        "empty/",
        "Birds/c.bmp",
        "10/d.jpeg",
        "9/e.jpg",
        "Ünï ☃/f.jpg",
        ".hidden/g.jpg",
    ]
    for name in names:
        make_files(tmp_path, name)
        if not name.endswith("/"):
            Image.new("RGB", (2, 2)).save(tmp_path / name)
    make_files(tmp_path, "cats/x.webp", "dogs/notes.txt", "dogs/noextension", "top.jpg")
    keras_set = keras.utils.image_dataset_from_directory(
        tmp_path, shuffle=False, verbose=False, image_size=(2, 2)
    )
    listing = list_images(tmp_path)
    assert list(listing.class_names) == keras_set.class_names
    assert listing.class_names == ("10", "9", "Birds", "cats", "dogs", "empty", "Ünï ☃")
    of_keras = [Path(path).relative_to(tmp_path).as_posix() for path in keras_set.file_paths]
    labels = np.concatenate([batch.numpy() for _, batch in keras_set])
    assert dict(zip(of_keras, labels.tolist(), strict=True)) == {
        path: y_true for _, path, y_true in rows(listing)
    }
    skipped = {path: reason for path, kind, reason in left_out(listing) if kind == "skipped"}
    suffixes = "is not among .bmp, .gif, .jpeg, .jpg, .png"
    assert skipped == {
        ".hidden": "hidden folder",
        "cats/x.webp": f".webp {suffixes}",
        "dogs/noextension": f"no suffix {suffixes}",
        "dogs/notes.txt": f".txt {suffixes}",
        "top.jpg": "not inside a class folder",
    }


def test_the_order_is_that_of_keras_for_plain_class_folders(tmp_path):
    names = [f"{folder}/{n}.jpg" for folder in ("b", "a") for n in (10, 9, 1)]
    for name in names:
        make_files(tmp_path, name)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    keras_set = keras.utils.image_dataset_from_directory(
        tmp_path, shuffle=False, verbose=False, image_size=(2, 2)
    )
    paths = list_images(tmp_path).images["path"]
    assert [str(tmp_path / path) for path in paths] == keras_set.file_paths


def test_a_hidden_file_is_left_out(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/2.jpg", "b/._2.jpg")
    listing = list_images(tmp_path)
    assert left_out(listing) == [("b/._2.jpg", "skipped", "hidden file")]


def test_a_file_name_that_is_not_utf8_is_left_out_and_listed(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/2.jpg", f"b/{NOT_UTF8}", NOT_UTF8)
    listing = list_images(tmp_path)
    reason = "its name is not valid UTF-8"
    assert left_out(listing) == [
        ("b/caf\\xe9.jpg", "unreadable", reason),
        ("caf\\xe9.jpg", "unreadable", reason),
    ]
    assert len(listing.images) == 2


def test_a_link_to_a_folder_is_not_followed_but_listed(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    listing = list_images(tmp_path)
    assert len(listing.images) == 2
    assert left_out(listing) == [("b/link", "skipped", "a link to another folder")]


def test_a_class_folder_may_be_a_link(tmp_path):
    make_files(tmp_path, "data/a/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    assert rows(list_images(tmp_path / "data")) == [(0, "a/1.jpg", 0), (1, "b/2.jpg", 1)]


def test_a_folder_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    make_files(tmp_path, "a/1.jpg", "b/2.jpg", "b/locked/3.jpg")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    listing = list_images(tmp_path)
    assert left_out(listing) == [("b/locked", "unreadable", "Permission denied")]


@pytest.mark.parametrize("name", ["<b>&", "'; --", "a,b", "con dog", "+1"])
def test_hostile_class_names_are_kept(tmp_path, name):
    make_files(tmp_path, f"{name}/1.jpg", "zzz/2.jpg")
    assert list_images(tmp_path).class_names == (name, "zzz")


NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=6
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
FILES = st.tuples(
    st.lists(NAMES, max_size=2),
    NAMES,
    st.sampled_from(["", ".jpg", ".PNG", ".webp", ".txt", ".jpeg"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FILES, max_size=12), st.booleans())
def test_every_file_is_accounted_for(files, flat):
    with TemporaryDirectory() as folder:
        root = make_files(Path(folder), "one/1.jpg", "two/2.jpg")
        for folders, name, suffix in files:
            try:
                make_files(root, "/".join([*folders, name + suffix]))
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                continue
        listing = list_images(root, label_regex="(.)") if flat else list_images(root)
        # A hidden class folder is one entry; all other files are an image or left out, by name.
        expected = {
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file() and (flat or not path.relative_to(root).parts[0].startswith("."))
        }
        if not flat:
            expected |= {path.name for path in root.iterdir() if path.name.startswith(".")}
        seen = [*listing.images["path"], *listing.left_out["path"]]
        assert len(seen) == len(set(seen)) == len(listing.images) + len(listing.left_out)
        assert set(seen) == expected
        assert listing.images["path"].tolist() == sorted(listing.images["path"])


# A flat folder


def test_a_flat_folder_with_a_regular_expression(tmp_path):
    make_files(tmp_path, "dog.10.jpg", "cat.2.jpg", "sub/cat.3.png", "bird.jpg", "cat.txt")
    listing = list_images(tmp_path, label_regex="^(cat|dog)")
    assert rows(listing) == [(0, "cat.2.jpg", 0), (1, "dog.10.jpg", 1), (2, "sub/cat.3.png", 0)]
    assert listing.kind == "flat"
    assert left_out(listing) == [
        ("bird.jpg", "skipped", "its name does not match --label-regex"),
        ("cat.txt", "skipped", ".txt is not among .bmp, .gif, .jpeg, .jpg, .png"),
    ]


def test_the_regular_expression_sees_the_file_name_only(tmp_path):
    make_files(tmp_path, "cat/x_dog_1.jpg", "cat/x_cow_2.jpg")
    assert list_images(tmp_path, label_regex="_(.+)_").class_names == ("cow", "dog")


def test_a_group_that_took_no_part_is_no_label(tmp_path):
    make_files(tmp_path, "cat1.jpg", "dog1.jpg", "x1.jpg")
    listing = list_images(tmp_path, label_regex="(cat|dog)?1")
    assert listing.left_out["path"].tolist() == ["x1.jpg"]


# Manifests


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_manifest_keeps_further_columns(tmp_path):
    path = write_csv(
        tmp_path,
        "label,camera,path,lux,night\nno,A,b.jpg,1.5,True\nyes,,sub/a.png,,False\nno,B,c.jpg,3,True\n",
    )
    listing = list_images(path)
    assert rows(listing) == [(0, "b.jpg", 0), (1, "c.jpg", 0), (2, "sub/a.png", 1)]
    assert list(listing.images) == ["image_id", "path", "y_true", "camera", "lux", "night"]
    assert listing.images["camera"].fillna("?").tolist() == ["A", "B", "?"]
    assert listing.images["lux"].fillna(-1).tolist() == [1.5, 3, -1]
    assert listing.images["night"].tolist() == [True, True, False]
    assert (listing.kind, listing.root) == ("manifest", tmp_path)


def test_a_parquet_manifest(tmp_path):
    path = tmp_path / "labels.parquet"
    frame = pd.DataFrame({"path": ["b.jpg", "a.jpg"], "label": [10, 9], "n": [1, 2]})
    frame.to_parquet(path)
    listing = list_images(path)
    assert listing.class_names == ("9", "10")
    assert rows(listing) == [(0, "a.jpg", 0), (1, "b.jpg", 1)]
    assert listing.images["n"].tolist() == [2, 1]


def test_whole_number_labels_are_sorted_as_numbers(tmp_path):
    lines = "".join(f"{n}.jpg,{n}\n" for n in range(12))
    assert list_images(write_csv(tmp_path, "path,label\n" + lines)).class_names == tuple(
        str(n) for n in range(12)
    )


@pytest.mark.parametrize("label", ["NA", "None", "null", "nan", "N/A"])
def test_a_class_may_be_called_none(tmp_path, label):
    path = write_csv(tmp_path, f"path,label\na.jpg,{label}\nb.jpg,scratch\n")
    assert set(list_images(path).class_names) == {label, "scratch"}


def test_leading_zeros_of_labels_and_paths_are_kept(tmp_path):
    listing = list_images(write_csv(tmp_path, "path,label\n007.jpg,01\n008.jpg,1\n"))
    assert set(listing.class_names) == {"01", "1"}
    assert listing.images["path"].tolist() == ["007.jpg", "008.jpg"]


def test_a_column_of_the_user_may_have_a_name_of_ours(tmp_path):
    path = write_csv(
        tmp_path, "path,label,image_id,y_true,image_id_\na.jpg,x,7,8,9\nb.jpg,y,1,2,3\n"
    )
    images = list_images(path).images
    assert images["image_id"].tolist() == [0, 1]
    assert images["y_true"].tolist() == [0, 1]
    others = [name for name in images if name not in ("image_id", "path", "y_true")]
    assert len(set(others)) == 3
    assert sorted(images[others].iloc[0]) == [7, 8, 9]


def test_a_manifest_may_name_files_that_are_not_images(tmp_path):
    path = write_csv(tmp_path, "path,label\na.jpg,x\nb.jpg,y\nc.tif,x\n")
    assert [entry[:2] for entry in left_out(list_images(path))] == [("c.tif", "skipped")]


@pytest.mark.parametrize("text", ["sub/../a.jpg", "./a.jpg", "sub\\..\\a.jpg", "ABSOLUTE"])
def test_paths_are_made_relative_and_plain(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    text = text.replace("ABSOLUTE", str(tmp_path / "a.jpg"))
    write_csv(tmp_path, f"path,label\n{text},x\nb.jpg,y\n")
    for manifest in (Path("labels.csv"), tmp_path / "labels.csv"):
        assert list_images(manifest).images["path"].tolist() == ["a.jpg", "b.jpg"]


def test_a_manifest_without_its_columns_is_refused(tmp_path):
    text = refusal(write_csv(tmp_path, "file,label\na.jpg,x\n"))
    assert "lacks the column path. Received: the columns file, label. Name the columns" in text
    text = refusal(write_csv(tmp_path, "file;klass\na.jpg;x\n"))
    assert "lacks the column path and label. Received: the columns file;klass." in text


@pytest.mark.parametrize(
    "row", ["b.jpg,", ",y", "b.jpg"], ids=["no label", "no path", "a short row"]
)
def test_a_row_without_path_or_label_is_refused(tmp_path, row):
    text = refusal(write_csv(tmp_path, f"path,label\na.jpg,x\n{row}\n"))
    assert "a row without a path or a label. Received: row 2 after the heading. Fill it" in text


def test_a_parquet_row_without_a_label_is_refused(tmp_path):
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": [1.0, np.nan]}).to_parquet(path)
    assert "Received: row 2 after the heading" in refusal(path)


def test_an_empty_manifest_is_refused(tmp_path):
    assert "lists no images. Received: 0 rows" in refusal(write_csv(tmp_path, "path,label\n"))
    assert "cannot be read as a table" in refusal(write_csv(tmp_path, ""))


def test_a_manifest_of_other_files_is_refused(tmp_path):
    text = refusal(write_csv(tmp_path, "path,label\na.tif,x\nb.tif,y\n"))
    assert "No image to audit" in text and "2 other files" in text


def test_an_image_listed_twice_is_refused(tmp_path):
    text = refusal(write_csv(tmp_path, "path,label\na.jpg,x\nb.jpg,y\n./a.jpg,y\n"))
    assert "lists an image twice. Received: 'a.jpg'. Keep one of the rows." in text


@pytest.mark.parametrize("text", ["../a.jpg", "/etc/a.jpg", "sub/../../a.jpg", "..\\a.jpg"])
def test_a_path_outside_the_folder_is_refused(tmp_path, text):
    answer = refusal(write_csv(tmp_path, f"path,label\n{text},x\nb.jpg,y\n"))
    assert f"points outside its own folder. Received: {text!r}. Put the manifest" in answer


def test_a_manifest_of_its_own_folder_is_not_taken_for_an_image(tmp_path):
    listing = list_images(write_csv(tmp_path, "path,label\n.,x\na.jpg,x\nb.jpg,y\n"))
    assert [entry[:2] for entry in left_out(listing)] == [(".", "skipped")]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path, encoding):
    path = tmp_path / "labels.csv"
    path.write_bytes("path,label\ncafé.jpg,x\nb.jpg,y\n".encode(encoding))
    assert "cannot be read as a table" in refusal(path)


def test_a_byte_order_mark_is_no_part_of_the_heading(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("path,label\ncafé.jpg,x\nb.jpg,y\n".encode("utf-8-sig"))
    assert list_images(path).images["path"].tolist() == ["b.jpg", "café.jpg"]


def test_a_long_manifest_is_listed_in_seconds(tmp_path):
    lines = (f"folder{n % 100}/image{n:06d}.jpg,class{n % 10},{n}\n" for n in range(100_000))
    path = write_csv(tmp_path, "path,label,lux\n" + "".join(lines))
    begin = time.process_time()
    listing = list_images(path)
    assert len(listing.fingerprint()) == 64
    assert len(listing.images) == 100_000
    assert time.process_time() - begin < 10  # It takes 2.


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_a_file_that_is_no_table_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'\xff\xfe"PAR1')
    assert "cannot be read as a table" in refusal(path)


@pytest.mark.parametrize(("name", "suffix"), [("labels.json", "'.json'"), ("labels", "'nothing'")])
def test_another_kind_of_file_is_refused(tmp_path, name, suffix):
    path = tmp_path / name
    path.write_text("x")
    assert f"neither a folder nor a manifest. Received: a file ending in {suffix}" in refusal(path)


# Class order


def test_given_classes_set_the_order(tmp_path):
    make_files(tmp_path, "cats/1.jpg", "dogs/2.jpg")
    listing = list_images(tmp_path, ["dogs", "cats"])
    assert listing.class_names == ("dogs", "cats")
    assert rows(listing) == [(0, "cats/1.jpg", 1), (1, "dogs/2.jpg", 0)]


def test_given_classes_may_name_classes_without_images(tmp_path):
    make_files(tmp_path, "cats/1.jpg", "dogs/2.jpg")
    listing = list_images(tmp_path, ["birds", "cats", "cows", "dogs"])
    assert listing.images["y_true"].tolist() == [1, 3]


def test_given_classes_may_leave_out_an_empty_folder(tmp_path):
    make_files(tmp_path, "cats/1.jpg", "dogs/2.jpg", "empty/")
    assert list_images(tmp_path, ["cats", "dogs"]).class_names == ("cats", "dogs")


def test_given_classes_may_not_leave_out_a_class_with_images(tmp_path):
    make_files(tmp_path, "cats/1.jpg", "dogs/2.jpg", "cows/3.jpg")
    text = refusal(tmp_path, ["cats", "cow"])
    assert "do not match `--classes`. Received: [cats, cows, dogs]; --classes [cats, cow]." in text
    assert "Add cows, dogs to --classes" in text


def test_manifest_labels_and_file_names_are_held_against_given_classes(tmp_path):
    path = write_csv(tmp_path, "path,label\na.jpg,x\nb.jpg,y\n")
    assert f"The labels in `{path}` do not match `--classes`" in refusal(path, ["x", "z"])
    make_files(tmp_path / "flat", "cat1.jpg", "dog1.jpg")
    text = refusal(tmp_path / "flat", ["cat", "cow"], "^(cat|dog)")
    assert "by `--label-regex ^(cat|dog)` do not match" in text


def test_one_class_only_is_refused(tmp_path):
    make_files(tmp_path, "cats/1.jpg", "note.txt")
    text = refusal(tmp_path)
    assert "give one class only. Received: [cats]. A classifier needs at least two" in text


def test_a_class_count_that_does_not_fit_the_model_is_refused():
    check_class_count(["a", "b"], 2, "m.keras")
    with pytest.raises(DatasetError) as caught:
        check_class_count(["a", "b"], 3, "m.keras")
    assert str(caught.value) == (
        "The data has 2 classes but `m.keras` has outputs for 3. Received: data classes [a, b];"
        " model outputs [0, 1, 2]. Give every class in the order of the model's outputs with"
        " `--classes`, or the data it was trained for."
    )


# Nothing to audit


def test_a_missing_path_is_refused(tmp_path):
    text = refusal(tmp_path / "nothing")
    assert text.startswith(f"There is no data at `{tmp_path / 'nothing'}`. Received: ")


@pytest.mark.parametrize("names", [[], ["a/", "b/"], ["a/1.webp", "2.jpg"]])
def test_a_folder_without_images_is_refused(tmp_path, names):
    make_files(tmp_path, *names)
    text = refusal(tmp_path)
    assert f"No image to audit in `{tmp_path}`. Received: 0 files ending in .bmp, .gif" in text
    n_files = sum(not name.endswith("/") for name in names)
    assert f"{n_files} other files" in text


def test_a_flat_folder_of_which_no_name_matches_is_refused(tmp_path):
    make_files(tmp_path, "bird.jpg")
    assert "1 other files" in refusal(tmp_path, label_regex="^(cat|dog)")


# Fingerprint


def test_the_fingerprint_follows_paths_sizes_labels_and_class_order_only(tmp_path):
    root = make_files(tmp_path / "one", "a/1.jpg", "b/2.jpg")
    before = list_images(root).fingerprint()
    assert len(before) == 64
    make_files(root, "b/notes.txt", "c/")
    assert list_images(root, ["a", "b"]).fingerprint() == before
    os.utime(root / "a" / "1.jpg", (0, 0))
    make_files(root, "a/1.jpg", content=b"y")  # the same size
    assert list_images(root, ["a", "b"]).fingerprint() == before
    other = make_files(tmp_path / "two", "a/1.jpg", "b/2.jpg")
    assert list_images(other).fingerprint() == before

    assert list_images(root, ["b", "a"]).fingerprint() != before
    assert list_images(root).fingerprint() != before  # the empty folder is a class
    make_files(other, "a/1.jpg", content=b"longer")
    assert list_images(other).fingerprint() != before
    (root / "a" / "1.jpg").rename(root / "a" / "3.jpg")
    assert list_images(root, ["a", "b"]).fingerprint() != before


def test_the_fingerprint_does_not_need_the_files(tmp_path):
    path = write_csv(tmp_path, "path,label,lux\na.jpg,x,1\nb.jpg,y,2\n")
    before = list_images(path).fingerprint()
    write_csv(tmp_path, "path,label\nb.jpg,y\na.jpg,x\n")
    assert list_images(path).fingerprint() == before
    write_csv(tmp_path, "path,label\nb.jpg,x\na.jpg,y\n")
    assert list_images(path).fingerprint() != before


def test_a_dataset_in_memory_has_no_files():
    frame = pd.DataFrame({"path": ["b", "a"], "label": ["x", "y"]})
    listing = make_listing("dataset", None, frame, ["x", "y"])
    assert rows(listing) == [(0, "a", 1), (1, "b", 0)]
    assert listing.fingerprint() != make_listing("dataset", None, frame, ["y", "x"]).fingerprint()


# A pool without labels


def test_a_pool_is_listed_whole_whatever_its_folders(tmp_path):
    make_files(tmp_path, "z.png", "deep/er/a.JPG", "deep/b.txt", ".c.png", "empty/")
    listing = list_unlabelled(tmp_path)
    assert rows(listing) == [(0, "deep/er/a.JPG", 0), (1, "z.png", 0)]
    assert listing.class_names == ("",)
    assert [(path, kind) for path, kind, _ in left_out(listing)] == [
        (".c.png", "skipped"),
        ("deep/b.txt", "skipped"),
    ]


def test_a_pool_with_nothing_in_it_or_none_at_all_is_refused(tmp_path):
    make_files(tmp_path, "notes.txt")
    with pytest.raises(DatasetError, match=r"No image in .*0 files ending in .*1 other files"):
        list_unlabelled(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        list_unlabelled(tmp_path / "no")
    with pytest.raises(DatasetError, match="is no folder"):
        list_unlabelled(tmp_path / "notes.txt")
