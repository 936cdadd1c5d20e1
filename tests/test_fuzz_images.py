"""Thousands of damaged pictures: no crash, no hang, each decoded as Keras does or listed."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import picture_files
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from audit.predict.dataset import FileSource
from audit.predict.head import Head
from audit.predict.headers import why_not_decode
from audit.predict.inference import DecisionRule, Predictor, PredictWorker, predict_shard
from audit.predict.listing import list_images
from audit.predict.model import wrap_model
from audit.run_folder import RunFolder, ShardSpec

SIDE = 8
MOST_PIXELS = 1_000_000
"""Small, so that a damaged header costs no time; the default is tested in `test_headers.py`."""


def whole_pictures() -> list[bytes]:
    """Return small pictures of every format and of many kinds."""
    colour, other = picture_files.noise(24, 16), picture_files.noise(24, 16, seed=1)
    moving = {"save_all": True, "append_images": [other, colour]}
    deep = np.random.default_rng(0).integers(0, 1 << 16, (16, 24), dtype=np.uint16)
    encode = picture_files.encode
    return [
        encode(colour, "JPEG", quality=60),
        encode(colour, "JPEG", progressive=True),
        encode(colour, "JPEG", restart_marker_blocks=1),
        encode(picture_files.noise(24, 16, "L"), "JPEG"),
        encode(picture_files.noise(24, 16, "CMYK"), "JPEG"),
        encode(colour, "PNG"),
        encode(picture_files.noise(24, 16, "P"), "PNG"),
        encode(picture_files.noise(24, 16, "RGBA"), "PNG"),
        encode(picture_files.noise(24, 16, "1"), "PNG"),
        encode(picture_files.Image.fromarray(deep), "PNG"),
        encode(colour, "GIF"),
        encode(colour, "GIF", **moving),
        encode(colour, "BMP"),
        encode(colour, "WebP"),
        encode(colour, "WebP", lossless=True),
        encode(colour, "WebP", **moving),
        picture_files.JXL_37_BY_23,
        picture_files.JXL_8_BY_8,
    ]


WHOLE = whole_pictures()
N_JPEG_AND_PNG = 10


@st.composite
def damaged(draw: st.DrawFn, first: int = 0, last: int = len(WHOLE)) -> bytes:
    """Draw a picture and change it in one to five places, half of them in the header."""
    content = bytearray(WHOLE[draw(st.integers(first, last - 1))])
    for _ in range(draw(st.integers(1, 5))):
        most = draw(st.sampled_from([60, len(content)]))
        start = draw(st.integers(0, max(0, min(most, len(content)) - 1)))
        stop = start + draw(st.integers(1, 8))
        match draw(st.integers(0, 6)):
            case 0:
                content[start:stop] = draw(st.binary(min_size=1, max_size=8))
            case 1:
                content[start : start + 1] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 255]))])
            case 2:
                del content[start:stop]
            case 3:
                content[start:start] = content[start:stop] * draw(st.integers(1, 50))
            case 4:
                del content[start:]
            case 5:
                content[start:stop] = bytes([255]) * (stop - start)
            case 6:
                content[start:] = WHOLE[draw(st.integers(0, len(WHOLE) - 1))][start:]
    right_checksums = draw(st.booleans())
    return with_right_checksums(bytes(content)) if right_checksums else bytes(content)


def with_right_checksums(content: bytes) -> bytes:
    """Mend the checksums of a PNG, so that the decoder reads what was changed."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    mended, position = content[:8], 8
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunk = content[position + 4 : position + 8 + length]
        mended += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
        position += 12 + length
    return mended + content[position:]


def draw_files(strategy: st.SearchStrategy[bytes], n: int) -> list[bytes]:
    """Let Hypothesis draw n files, the same every time."""
    files: list[bytes] = []

    @settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(content: bytes) -> None:
        files.append(content)

    keep()
    return files


def write_files(root: Path, files: list[bytes]) -> FileSource:
    for number, content in enumerate(files):
        path = root / f"class{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FileSource(list_images(root), (SIDE, SIDE), 3, max_pixels=MOST_PIXELS)


def check_all_are_read_or_named(source: FileSource, root: Path) -> tuple[int, int]:
    """Hold every file against Keras's decoder; return how many were decoded and how many not."""
    ids = source.listing.images["image_id"].tolist()
    pixels = {}
    for batch_ids, batch in source.batches(ids, 64):
        pixels |= dict(zip(batch_ids.tolist(), batch.numpy(), strict=True))
    assert list(pixels) == sorted(pixels)
    for image_id, path in zip(ids, source.listing.images["path"], strict=True):
        content = (root / path).read_bytes()
        reason = source.why_unreadable(image_id)
        if image_id in pixels:
            assert reason is None, path
            image = tf.io.decode_image(content, channels=3, expand_animations=False)
            want = tf.image.resize(image, (SIDE, SIDE), method="bilinear")
            np.testing.assert_array_equal(pixels[image_id], want, err_msg=path)
            continue
        assert reason is not None and 10 < len(reason) <= 400, path
        assert reason.isprintable() and "{{" not in reason and str(root) not in reason, reason
        if why_not_decode(root / path, MOST_PIXELS) is None:
            with pytest.raises((tf.errors.OpError, ValueError)):
                image = tf.io.decode_image(content, channels=3, expand_animations=False)
                tf.image.resize(image, (SIDE, SIDE))
    return len(pixels), len(ids) - len(pixels)


def test_the_whole_pictures_are_read(tmp_path: Path):
    n_read, _ = check_all_are_read_or_named(write_files(tmp_path, WHOLE), tmp_path)
    assert n_read == len(WHOLE) - 1  # TensorFlow refuses the WebP that moves.


def test_thousands_of_damaged_pictures_are_read_as_keras_does_or_named(tmp_path: Path):
    files = draw_files(damaged(0, N_JPEG_AND_PNG), 2200) + draw_files(damaged(), 800)
    assert len(set(files)) >= 2000
    n_read, n_named = check_all_are_read_or_named(write_files(tmp_path, files), tmp_path)
    assert n_read >= 100 and n_named >= 1000, "the damage is too much, or too little, to be a test"


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[tuple[PredictWorker, list[ShardSpec]]]:
    """Damaged and whole pictures, and a model, to predict in shards of fifty."""
    files = draw_files(damaged(), 180) + WHOLE
    source = write_files(tmp_path / "val", files)
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.GlobalAveragePooling2D()]
    model = wrap_model(keras.Sequential([*layers, keras.layers.Dense(2)]))
    assert isinstance(model.head, Head)
    folder = RunFolder(tmp_path / "run")
    worker = PredictWorker(folder, source, Predictor(model, "0-1"), DecisionRule(1), 16)
    ids = source.listing.images["image_id"].tolist()
    parts = [tuple(ids[start : start + 50]) for start in range(0, len(ids), 50)]
    yield worker, [ShardSpec("predictions", index, part) for index, part in enumerate(parts)]


def test_shards_of_damaged_pictures_count_every_one_once(shards):
    worker, specs = shards
    predicted, left_out = [], []
    for spec in specs:
        receipt = predict_shard(spec, worker)
        assert receipt == worker.folder.read_receipt(spec)
        predicted += worker.folder.read_shard("predictions", spec.index)["image_id"].tolist()
        left_out += [image_id for image_id, reason in receipt.left_out if reason]
    assert sorted(predicted + left_out) == worker.source.listing.images["image_id"].tolist()
    assert len(predicted) >= len(WHOLE) - 1 and len(left_out) > 50
