"""Pixels are Keras's bit by bit; every image that cannot be read is named; live datasets."""

from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from audit.errors import DatasetError
from audit.predict.dataset import DatasetSource, FileSource, resize_image
from audit.predict.listing import Listing, list_images, make_listing

KERAS_MODES: dict[str, dict[str, bool]] = {
    "stretch": {},
    "crop": {"crop_to_aspect_ratio": True},
    "pad": {"pad_to_aspect_ratio": True},
}


def draw(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Draw noise with an ellipse on it, of any Pillow mode."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    ImageDraw.Draw(image).ellipse((0, 0, width // 2, height - 1), fill=(250, 40, 5))
    return image.convert("L").convert(mode) if mode == "LA" else image.convert(mode)


@pytest.fixture(scope="module")
def drawn_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    sizes = [(37, 23), (20, 64), (32, 32), (5, 90), (1, 1), (130, 51)]
    for folder, formats in (("a", ("jpg", "png")), ("b", ("gif", "bmp"))):
        (root / folder).mkdir()
        for number, size in enumerate(sizes):
            for suffix in formats:
                draw(*size, seed=number).save(root / folder / f"{number}.{suffix}")
    draw(31, 17, "L").save(root / "a" / "grey.jpg")
    draw(31, 17, "L").save(root / "a" / "grey.png")
    draw(31, 17, "LA").save(root / "a" / "grey_alpha.png")
    draw(31, 17, "RGBA").save(root / "a" / "rgba.png")
    draw(31, 17, "P").save(root / "a" / "palette.png")
    draw(31, 17).save(root / "a" / "progressive.jpg", progressive=True, quality=40)
    draw(31, 17).save(root / "b" / "png_inside.jpg", format="PNG")
    frames = [draw(20, 12, seed=n) for n in range(3)]
    frames[0].save(root / "b" / "moving.gif", save_all=True, append_images=frames[1:])
    return root


def read_all(source: Any, ids: list[int] | None = None, batch_size: int = 7) -> np.ndarray:
    ids = list(range(len(source.listing.images))) if ids is None else ids
    seen, blocks = [], []
    for batch_ids, pixels in source.batches(ids, batch_size):
        seen += batch_ids.tolist()
        blocks.append(pixels.numpy())
        assert len(batch_ids) <= batch_size
    assert seen == ids
    return np.concatenate(blocks)


def keras_pixels(listing: Listing, size: tuple[int, int], channels: int, aspect: str) -> np.ndarray:
    """Let Keras list and load the folder; return its images in the order of the listing."""
    dataset = keras.utils.image_dataset_from_directory(
        listing.root,
        image_size=size,
        color_mode="rgb" if channels == 3 else "grayscale",
        shuffle=False,
        verbose=False,
        batch_size=5,
        **KERAS_MODES[aspect],
    )
    paths = [Path(path).relative_to(listing.root).as_posix() for path in dataset.file_paths]
    images = dict(zip(paths, dataset.unbatch().as_numpy_iterator(), strict=True))
    return np.stack([images[path][0] for path in listing.images["path"]])


@pytest.mark.parametrize("aspect", KERAS_MODES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_pixels_are_those_of_image_dataset_from_directory(drawn_images, aspect, size):
    listing = list_images(drawn_images)
    got = read_all(FileSource(listing, size, 3, aspect=aspect))
    assert got.dtype == np.float32 and got.shape == (len(listing.images), *size, 3)
    np.testing.assert_array_equal(got, keras_pixels(listing, size, 3, aspect))


@pytest.fixture(scope="module")
def grey_readable(drawn_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn images that TensorFlow can decode as grey: no GIF, no colour BMP."""
    root = tmp_path_factory.mktemp("grey")
    for path in drawn_images.glob("*/*"):
        if path.suffix in (".jpg", ".png"):
            target = root / path.relative_to(drawn_images)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


@pytest.mark.parametrize("aspect", KERAS_MODES)
def test_grey_pixels_are_those_of_image_dataset_from_directory(grey_readable, aspect):
    listing = list_images(grey_readable)
    got = read_all(FileSource(listing, (24, 40), 1, aspect=aspect))
    np.testing.assert_array_equal(got, keras_pixels(listing, (24, 40), 1, aspect))


def load_img(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    mode = "rgb" if channels == 3 else "grayscale"
    return keras.utils.img_to_array(
        keras.utils.load_img(path, target_size=size, color_mode=mode, interpolation="nearest")
    )


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (7, 5), (101, 203)])
def test_nearest_pixels_are_those_of_load_img(drawn_images, channels, size):
    listing = list_images(drawn_images)
    got = read_all(FileSource(listing, size, channels, interpolation="nearest"))
    for path, pixels in zip(listing.images["path"], got, strict=True):
        want = load_img(drawn_images / path, size, channels)
        np.testing.assert_array_equal(pixels, want, err_msg=path)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 97, 224, 299])
def test_nearest_takes_the_same_pixels_as_pillow_for_every_width(length):
    for width in [*range(1, 40), 224, 299, 375, 499, 500, 1023]:
        row = np.arange(width, dtype=np.int32)
        want = np.asarray(Image.fromarray(row[None]).resize((length, 1), Image.Resampling.NEAREST))
        image = tf.constant(row[None, :, None])
        got = resize_image(image, (1, length), 1, "stretch", "nearest")
        np.testing.assert_array_equal(got[0, :, 0], want[0], err_msg=str(width))


def sample_of(root: Path, every: int, target: Path) -> Path:
    """Link every n-th real image into class folders of its own."""
    for folder in sorted(root.iterdir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[::every]:
            (target / folder.name / path.name).symlink_to(path)
    return target


@pytest.mark.parametrize("aspect", KERAS_MODES)
def test_photographs_are_those_of_keras(shared_data, tmp_path, aspect):
    root = sample_of(shared_data / "cats_dogs" / "val", 50, tmp_path / "sample")
    listing = list_images(root)
    assert len(listing.images) == 40
    for channels in (3, 1):
        got = read_all(FileSource(listing, (160, 128), channels, aspect=aspect))
        want = keras_pixels(listing, (160, 128), channels, aspect)
        np.testing.assert_array_equal(got, want)


def test_photographs_are_those_of_load_img(shared_data, tmp_path):
    root = sample_of(shared_data / "cats_dogs" / "val", 50, tmp_path / "sample")
    listing = list_images(root)
    for channels in (3, 1):
        got = read_all(FileSource(listing, (150, 224), channels, interpolation="nearest"))
        want = [load_img(root / path, (150, 224), channels) for path in listing.images["path"]]
        np.testing.assert_array_equal(got, np.stack(want))


@pytest.mark.parametrize("aspect", KERAS_MODES)
def test_odd_photographs_are_read_as_keras_reads_them_or_named(shared_data, tmp_path, aspect):
    """RGBA, palette, huge, tiny, and files whose name lies about what is in them."""
    for folder in ("odd", "other"):
        (tmp_path / folder).mkdir()
    draw(9, 9).save(tmp_path / "other" / "x.png")
    for path in (shared_data / "odd_images" / "with_mask").iterdir():
        (tmp_path / "odd" / path.name).symlink_to(path)
    listing = list_images(tmp_path)
    assert len(listing.images) + len(listing.left_out) == 25
    source = FileSource(listing, (96, 96), 3, aspect=aspect)
    readable = []
    for image_id in listing.images["image_id"]:
        if (reason := source.why_unreadable(image_id)) is None:
            readable.append(image_id)
        else:
            with pytest.raises(tf.errors.OpError):  # Keras cannot read it either
                tf.io.decode_image(
                    tf.io.read_file(str(tmp_path / listing.images["path"][image_id]))
                )
            assert 10 < len(reason) <= 300
    got = {}
    for ids, pixels in source.batches(listing.images["image_id"], 8):
        got |= dict(zip(ids.tolist(), pixels.numpy(), strict=True))
    assert list(got) == readable
    kept = tmp_path / "kept"
    for image_id in readable:
        path = listing.images["path"][image_id]
        (kept / path).parent.mkdir(parents=True, exist_ok=True)
        (kept / path).symlink_to((tmp_path / path).resolve())
    want = keras_pixels(list_images(kept), (96, 96), 3, aspect)
    np.testing.assert_array_equal(np.stack(list(got.values())), want)
    assert len(readable) >= 20


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_sizes_are_those_of_the_files(drawn_images, interpolation):
    listing = list_images(drawn_images)
    source = FileSource(listing, (20, 30), 3, interpolation=interpolation)
    rows = {}
    for ids, pixels, sizes in source.sized_batches(listing.images["image_id"], 7):
        assert pixels.shape == (len(ids), 20, 30, 3) and sizes.dtype == np.int64
        rows |= dict(zip(ids.tolist(), sizes.tolist(), strict=True))
    for image_id, path in zip(listing.images["image_id"], listing.images["path"], strict=True):
        with Image.open(drawn_images / path) as image:
            assert rows[image_id] == [*image.size, (drawn_images / path).stat().st_size], path


# Files that cannot be read


@pytest.fixture
def spoilt(tmp_path: Path) -> FileSource:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for name in ("a/0.jpg", "a/3.png", "a/6.jpg", "b/7.png", "a/1.jpg", "a/5.jpg"):
        draw(40, 30, seed=len(name)).save(tmp_path / name)
    content = (tmp_path / "a/1.jpg").read_bytes()
    (tmp_path / "a/1.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "a/2.png").write_bytes(b"")
    (tmp_path / "a/4.jpg").write_text("I am no picture")
    (tmp_path / "b/8.jpg").symlink_to(tmp_path / "nowhere.jpg")
    listing = list_images(tmp_path)
    (tmp_path / "a/5.jpg").unlink()
    return FileSource(listing, (8, 8), 3)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_unreadable_files_are_missing_and_the_others_keep_their_order(spoilt, batch_size):
    seen = [ids.tolist() for ids, _ in spoilt.batches(range(9), batch_size)]
    assert list(chain(*seen)) == [0, 3, 6, 7]
    assert all(len(ids) <= batch_size for ids in seen)
    backwards = [ids.tolist() for ids, _ in spoilt.batches(range(8, -1, -1), batch_size)]
    assert list(chain(*backwards)) == [7, 6, 3, 0]


def test_each_unreadable_file_has_a_reason(spoilt):
    reasons = {image_id: spoilt.why_unreadable(image_id) for image_id in range(9)}
    assert [image_id for image_id, why in reasons.items() if why is None] == [0, 3, 6, 7]
    assert reasons[2] == "it is empty (0 bytes)"
    assert reasons[5] == reasons[8] == "it is gone, or a link to nothing"
    assert reasons[4].startswith("its content is no picture of a known kind (BMP, GIF, JPEG,")
    assert "JPEG" in reasons[1]
    for why in filter(None, reasons.values()):
        assert "{{" not in why and "[Op:" not in why and "\n" not in why
        assert str(spoilt.listing.root) not in why


def test_nothing_to_read_gives_no_batch(spoilt):
    assert list(spoilt.batches([], 4)) == []
    assert list(spoilt.batches([2, 4], 4)) == []


def test_a_colour_bmp_cannot_feed_a_grey_model_with_keras_decoding(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    draw(9, 9).save(tmp_path / "a" / "x.bmp")
    draw(9, 9).save(tmp_path / "b" / "y.png")
    listing = list_images(tmp_path)
    source = FileSource(listing, (8, 8), 1)
    assert [ids.tolist() for ids, _ in source.batches([0, 1], 2)] == [[1]]
    assert "channels" in source.why_unreadable(0)


def test_a_sliver_that_keras_cannot_pad_is_named(tmp_path):
    for name, size in (("a/x.png", (3, 90)), ("b/y.png", (9, 9))):
        (tmp_path / name).parent.mkdir()
        draw(*size).save(tmp_path / name)
    source = FileSource(list_images(tmp_path), (24, 24), 3, aspect="pad")
    assert [ids.tolist() for ids, _ in source.batches([0, 1], 2)] == [[1]]
    assert "must be positive" in source.why_unreadable(0)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("aspect", KERAS_MODES)
def test_batch_size_does_not_matter(drawn_images, aspect, interpolation):
    source = FileSource(
        list_images(drawn_images), (20, 30), 3, aspect=aspect, interpolation=interpolation
    )
    want = read_all(source, batch_size=1)
    for batch_size in (3, 64):
        np.testing.assert_array_equal(read_all(source, batch_size=batch_size), want)


def test_odd_file_names_are_read(tmp_path):
    for name in ("a/ü ☃ %20.png", "a/it's [1] {x}*?.png", "b/-rf.png", "b/$HOME.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw(9, 9).save(tmp_path / name)
    assert len(read_all(FileSource(list_images(tmp_path), (8, 8), 3))) == 4


def test_a_listing_without_files_is_no_file_source():
    listing = make_listing(
        "dataset", None, pd.DataFrame({"path": ["a"], "label": ["x"]}), ["x", "y"]
    )
    with pytest.raises(ValueError, match="listing of files"):
        FileSource(listing, (8, 8), 3)


# Live datasets


def images_of(n: int) -> np.ndarray:
    """Image number k is filled with k."""
    return np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 4, 5, 3)).copy()


def dataset_of(labels: Any, *more: Any, batch: int = 3) -> tf.data.Dataset:
    parts = (images_of(len(labels)), np.asarray(labels), *more)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch)


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 2, 1],
        np.array([1, 0, 2, 1], np.uint8),
        np.array([1, 0, 2, 1], np.float32),
        [[1], [0], [2], [1]],
        np.eye(3)[[1, 0, 2, 1]],
        [[0.1, 0.8, 0.1], [0.9, 0.1, 0], [0, 0, 1], [0.2, 0.5, 0.3]],
    ],
    ids=["int", "uint8", "float", "column", "one-hot", "soft"],
)
def test_labels_of_every_common_shape(labels):
    source = DatasetSource(dataset_of(labels), ["a", "b", "c"])
    assert source.listing.images["y_true"].tolist() == [1, 0, 2, 1]
    assert source.listing.class_names == ("a", "b", "c")
    assert source.listing.kind == "dataset"
    assert source.image_shape == (4, 5, 3)


def test_images_of_a_dataset_have_no_file_sizes():
    source = DatasetSource(dataset_of([0, 1, 0, 1, 1]), None)
    batches = list(source.sized_batches(range(5), 2))
    assert [ids.tolist() for ids, _, _ in batches] == [[0, 1], [2, 3], [4]]
    assert [sizes.tolist() for *_, sizes in batches] == [[[-1] * 3] * 2] * 2 + [[[-1] * 3]]


def test_images_are_numbered_in_the_order_of_the_dataset():
    source = DatasetSource(dataset_of([0, 1] * 60, batch=7), None)
    assert source.listing.images["image_id"].tolist() == list(range(120))
    assert read_all(source)[:, 0, 0, 0].tolist() == list(range(120))
    assert source.listing.class_names == ("0", "1")


def test_ids_may_be_read_in_any_order_and_again():
    source = DatasetSource(dataset_of([0, 1] * 10), None)
    for ids in ([4, 5, 11], [12, 19], [3, 2, 2, 0, 19, 1], [19], [0]):
        assert read_all(source, ids, batch_size=2)[:, 0, 0, 0].tolist() == ids
    assert list(source.batches([], 4)) == []


def test_ascending_shards_take_one_pass():
    passes = []

    def numbers():
        passes.append(1)
        for n in range(12):
            yield images_of(n + 1)[-1], n % 2

    spec = (tf.TensorSpec((4, 5, 3)), tf.TensorSpec((), tf.int32))
    dataset = tf.data.Dataset.from_generator(numbers, output_signature=spec).batch(4)
    source = DatasetSource(dataset, None)
    before = len(passes)
    for shard in ([0, 1, 2, 3], [4, 6], [7, 11]):
        read_all(source, shard)
    assert len(passes) == before + 1


def test_class_names_and_files_come_from_keras(drawn_images):
    dataset = keras.utils.image_dataset_from_directory(
        drawn_images, shuffle=False, verbose=False, image_size=(8, 8), label_mode="categorical"
    )
    source = DatasetSource(dataset, None)
    files = list_images(drawn_images)
    assert source.listing.class_names == ("a", "b")
    assert source.listing.images["y_true"].tolist() == files.images["y_true"].tolist()
    assert source.listing.images["file"].tolist() == [Path(p).name for p in files.images["path"]]
    np.testing.assert_array_equal(read_all(source), read_all(FileSource(files, (8, 8), 3)))


def test_integer_images_become_float32_and_weights_are_ignored():
    images = images_of(4).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 1, 1, 0], [1.0, 2.0, 0.5, 0.0]))
    source = DatasetSource(dataset.batch(2), None)
    pixels = read_all(source)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, images_of(4))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], (0, 255)),
        ([3, 17], (0, 255)),
        ([0, 1], (0, 1)),
        ([0.2, 0.9], (0, 1)),
        ([-1, 1], (-1, 1)),
        ([-0.5, 0.2], (-1, 1)),
        ([-2.1, 2.6], (-2.1, 2.6)),
    ],
)
def test_the_pixel_range_is_guessed(values, expected):
    images = np.zeros((2, 4, 5, 3), np.float32)
    images[:] = np.array(values, np.float32)[:, None, None, None]
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 1])).batch(2)
    assert DatasetSource(dataset, None).pixel_range == pytest.approx(expected)


def refusal(dataset: tf.data.Dataset, class_names: list[str] | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        DatasetSource(dataset, class_names)
    assert " Received: " in str(caught.value)
    return str(caught.value)


def test_a_dataset_that_is_not_batched_is_refused():
    text = refusal(dataset_of([0, 1, 1]).unbatch())
    assert "not batched. Received: images of shape (4, 5, 3). Call `.batch(32)`" in text


@pytest.mark.parametrize("n_dimensions", [4, 3, 1])
def test_a_dataset_without_labels_is_refused(n_dimensions):
    images = images_of(4)
    dataset = tf.data.Dataset.from_tensor_slices(images if n_dimensions > 1 else images[:, 0, 0, 0])
    assert "has no labels" in refusal(dataset.batch(2) if n_dimensions == 4 else dataset)


def test_a_dataset_of_dicts_is_refused():
    images = images_of(4)
    as_dict = tf.data.Dataset.from_tensor_slices({"image": images, "label": [0, 1, 0, 1]}).batch(2)
    assert "has no labels" in refusal(as_dict)
    inside = tf.data.Dataset.from_tensor_slices(({"image": images}, [0, 1, 0, 1])).batch(2)
    assert "one image" in refusal(inside)


def test_an_empty_dataset_is_refused():
    assert "is empty. Received: 0 batches" in refusal(dataset_of([0, 1]).take(0))


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_without_a_class_are_refused(labels):
    text = refusal(dataset_of(labels), ["cats", "dogs"])
    assert f"labels from {labels[0]} to {labels[1]}; classes [cats, dogs]. Name all" in text


def test_one_class_in_the_dataset_gives_two_outputs():
    assert DatasetSource(dataset_of([0, 0]), None).listing.class_names == ("0", "1")
