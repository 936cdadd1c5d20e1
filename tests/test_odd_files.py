"""Audits of folders in which everything is wrong that can be: they end, and count every file."""

import os
from pathlib import Path

import drawn_set
import keras
import numpy as np
import pandas as pd
import picture_files
import pytest
import tensorflow as tf

import audit
from audit.ending import EXIT_LEFT_OUT, end_of
from audit.errors import DatasetError
from audit.predict.dataset import FileSource
from audit.predict.listing import list_images
from audit.terminal import print_run

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def write_zoo(root: Path) -> dict[str, str | None]:
    """Add odd files to class folders; return, by path, a part of the reason, `None` if readable."""
    image = picture_files.noise(40, 30)
    encode = picture_files.encode
    deep = np.random.default_rng(0).integers(0, 1 << 16, (30, 40), dtype=np.uint16)
    moving = {"save_all": True, "append_images": [image.rotate(90)] * 2}
    turned = picture_files.Image.Exif()
    turned[0x0112] = 6
    whole_jpeg, whole_png = encode(image, "JPEG"), encode(image, "PNG")
    files: dict[str, tuple[bytes, str | None]] = {
        "ok.jpg": (whole_jpeg, None),
        "cmyk.jpg": (encode(image.convert("CMYK"), "JPEG"), None),
        "turned.jpg": (encode(image, "JPEG", exif=turned), None),
        "deep.png": (encode(picture_files.Image.fromarray(deep), "PNG"), None),
        "palette.png": (encode(image.convert("P"), "PNG"), None),
        "alpha.png": (encode(image.convert("RGBA"), "PNG"), None),
        "moving.gif": (encode(image, "GIF", **moving), None),
        "moving.png": (encode(image, "PNG", **moving), None),
        "webp_inside.jpg": (encode(image, "WebP"), None),
        "jxl_inside.jpg": (picture_files.JXL_37_BY_23, None),
        "png_inside.jpg": (whole_png, None),
        "moving_webp.jpg": (encode(image, "WebP", **moving), "its content is WebP, but cannot"),
        "tiff_inside.jpg": (encode(image, "TIFF"), "is no picture of a known kind"),
        "text.jpg": (b"I am no picture", "is no picture of a known kind"),
        "cut_off.jpg": (whole_jpeg[: len(whole_jpeg) // 2], "its content is JPEG, but cannot"),
        "cut_off.png": (whole_png[: len(whole_png) // 2], "its content is PNG, but cannot"),
        "empty.jpg": (b"", "it is empty (0 bytes)"),
        "huge.jpg": (picture_files.jpeg(30_000, 30_000), "30,000 × 30,000 pixels, more than"),
        "huge.png": (picture_files.png(30_000, 30_000), "30,000 × 30,000 pixels, more than"),
        "bomb.gif": (picture_files.gif(*[(15_000, 15_000)] * 4), "900,000,000 pixels together"),
    }
    for name, (content, _) in files.items():
        (root / "left" / name).write_bytes(content)
    os.mkfifo(root / "left" / "pipe.jpg")
    (root / "left" / "device.jpg").symlink_to("/dev/zero")
    (root / "left" / "loop.jpg").symlink_to("loop.jpg")
    (root / "left" / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "left" / f"{NOT_UTF8}.jpg").write_bytes(whole_jpeg)
    (root / "left" / "folder.jpg").mkdir()  # Its images are found, as Keras finds them.
    (root / "left" / "folder.jpg" / "inside.png").write_bytes(whole_png)
    return {f"left/{name}": part for name, (_, part) in files.items()} | {
        "left/folder.jpg/inside.png": None,
        "left/pipe.jpg": "it is a named pipe, not a file",
        "left/device.jpg": "it is a device, not a file",
        "left/loop.jpg": "symbolic links",
        "left/dangling.jpg": "it is gone, or a link to nothing",
        "left/caf\\xe9.jpg": "its name is not valid UTF-8",
    }


def keras_scores(model: Path, root: Path, paths: list[str]) -> np.ndarray:
    """Return what Keras itself makes of files: its listing, its decoding, its `predict`."""
    dataset = keras.utils.image_dataset_from_directory(
        root, image_size=(drawn_set.SIDE, drawn_set.SIDE), shuffle=False, verbose=False
    )
    files = [Path(path).relative_to(root).as_posix() for path in dataset.file_paths]
    assert sorted(files) == sorted(paths)
    logits = keras.saving.load_model(model).predict(dataset, verbose=0)[:, 0]
    return tf.sigmoid(logits[[files.index(path) for path in paths]]).numpy()


def test_an_audit_of_odd_files_reads_them_as_keras_does_or_names_them(
    drawn_model: Path, tmp_path: Path
):
    root = drawn_set.save_set(tmp_path / "val")
    expected = write_zoo(root)
    result = audit.run(
        drawn_model, root, tmp_path / "run", progress=False, causal="off", **drawn_set.SHARDS
    )
    reasons = result.unreadable.set_index("path")["reason"].to_dict()
    assert set(reasons) == {path for path, part in expected.items() if part is not None}
    for path, reason in reasons.items():
        assert expected[path] in reason, path
    assert set(result.unreadable["kind"]) == {"unreadable"}
    summary = result.summary()
    n_readable = drawn_set.N_IMAGES + sum(part is None for part in expected.values())
    assert len(result.predictions) == result.metrics["n_images"] == n_readable
    assert summary["n_unreadable"] == len(reasons)
    assert summary["n_images"] == n_readable + len(reasons) - 1  # One cannot even be named.
    assert end_of(result).exit_code == EXIT_LEFT_OUT
    # Keras dies of the others: what is left is what it reads.
    for path in set(reasons) - {"left/caf\\xe9.jpg"}:
        (root / path).unlink()
    (root / "left" / f"{NOT_UTF8}.jpg").unlink()
    predictions = result.predictions
    scores = np.stack(predictions["scores"])[:, 1]
    want = keras_scores(drawn_model, root, predictions["path"].tolist())
    np.testing.assert_allclose(scores, want, atol=1e-5)


@pytest.mark.parametrize("folder", ["one class only", "the other is empty"])
def test_an_audit_of_one_image(drawn_model: Path, tmp_path: Path, folder: str):
    image = drawn_set.draw_image("left", fooled=True, number=1)
    drawn_set.save_image(tmp_path / "val" / "left" / "x.png", image)
    if folder == "the other is empty":
        (tmp_path / "val" / "right").mkdir()
    result = audit.run(
        drawn_model, tmp_path / "val", tmp_path / "run", progress=False, classes="left,right"
    )
    assert result.summary()["n_images"] == result.summary()["n_errors"] == 1
    assert result.report_path.is_file()


def test_a_folder_may_have_a_name_that_is_no_utf8(tmp_path: Path):
    root = drawn_set.save_set(tmp_path / "val").rename(tmp_path / NOT_UTF8)
    source = FileSource(list_images(root), (8, 8), 3)
    assert sum(len(ids) for ids, _ in source.batches(range(60), 32)) == 60
    assert source.why_unreadable(0) is None
    (root / source.listing.images["path"][0]).write_bytes(b"x")
    assert "no picture" in str(source.why_unreadable(0))


def test_ten_thousand_classes_are_listed_and_named_in_one_sentence(tmp_path: Path):
    names = [f"class{number:05d}" for number in range(10_000)]
    table = pd.DataFrame({"path": [f"{name}.jpg" for name in names], "label": names})
    table.to_csv(tmp_path / "list.csv", index=False)
    listing = list_images(tmp_path / "list.csv")
    assert listing.class_names == tuple(names)
    with pytest.raises(DatasetError) as caught:
        list_images(tmp_path / "list.csv", classes=[name.upper() for name in names])
    assert len(str(caught.value)) < 2000
    assert "class00029, and 9,970 more]" in str(caught.value)
    assert "Add class00000, class00001," in str(caught.value)


# Models that say nothing of some images


class NothingAbove(keras.layers.Layer):
    """Turns logits above a limit into NaN."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.where(logits > self.limit, float("nan"), logits)


def silent_model(limit: float) -> keras.Model:
    whole = drawn_set.corner_model()
    return keras.Model(whole.inputs, NothingAbove(limit)(whole.outputs[0]))


def test_images_of_which_the_model_says_nothing_are_counted_and_shown(
    drawn_data: Path, drawn_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    images, _, paths = drawn_set.draw_set()
    logits = drawn_set.corner_model().predict(images.astype(np.float32), verbose=0)[:, 0]
    lowest, *silent = np.argsort(logits)[-6:]
    model = silent_model(float(logits[lowest]))
    result = audit.run(model, drawn_data, tmp_path / "run", causal="off", **drawn_set.SHARDS)
    told = capsys.readouterr().err
    table = result.unreadable.query("kind == 'undefined'")
    assert set(table["path"]) == {paths[index] for index in silent}
    assert set(table["reason"]) == {"the model's output for it is not a finite number"}
    summary = result.summary()
    assert (summary["n_undefined"], summary["n_unreadable"]) == (5, 0)
    assert result.metrics["n_images"] == len(result.predictions) == drawn_set.N_IMAGES - 5
    warning = (
        "For 5 of 60 images the model's output is not a finite number. They have no prediction"
    )
    assert any(text.startswith(warning) for text in summary["warnings"]) and warning in told
    assert result.predictions["y_pred"].isin([0, 1]).all()
    want = audit.Run(drawn_run).predictions.set_index("path")["p_pred"]
    got = result.predictions.set_index("path")["p_pred"]
    np.testing.assert_allclose(got, want[got.index], atol=1e-6)
    ending = end_of(result)
    assert ending.exit_code == EXIT_LEFT_OUT
    assert (
        "LEFT OUT",
        "the model's scores of 5 images are no numbers, `--max-unreadable` lets 0"
        " pass; the report and `unreadable.parquet` name them",
    ) in ending.notes
    print_run(summary)
    assert "60 (0 unreadable, 5 with undefined scores, 1 skipped)" in capsys.readouterr().out
    again = audit.run(
        model, drawn_data, tmp_path / "run", causal="off", max_unreadable=5, **drawn_set.SHARDS
    )
    assert end_of(again).exit_code == 0


def test_a_model_that_says_nothing_at_all_is_refused(drawn_data: Path, tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        audit.run(silent_model(-1e9), drawn_data, tmp_path / "run", progress=False)
    assert str(caught.value).startswith(
        "None of the 60 images could be predicted. Received, for the first: the model's output for"
        " it is not a finite number."
    )
