"""What a file claims is what Pillow finds in it; what must not be decoded is named, at no cost."""

import os
import socket
import struct
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import picture_files
import pytest
from PIL import Image

from audit.predict.headers import EndlessHeaderError, read_claim, why_not_decode

MOST = 10_000


def claim_of(content: bytes) -> tuple[str, int, int]:
    claim = read_claim(BytesIO(content))
    return claim.kind, claim.width, claim.height


# Sizes


@pytest.mark.parametrize("size", [(1, 1), (37, 23), (640, 3), (2, 1000), (16383, 1)])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "quality": 30}),
        ("JPEG", {"restart_marker_rows": 1, "comment": b"\xff\xc0 no frame" * 99}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WebP", {"quality": 10}),
        ("WebP", {"lossless": True}),
    ],
)
def test_the_claim_is_the_size_of_the_picture(form: str, options: dict[str, Any], size: Any):
    content = picture_files.encode(picture_files.noise(*size), form, **options)
    assert claim_of(content) == (form, *size)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_colours(mode: str):
    image = picture_files.noise(31, 17, mode)
    assert claim_of(picture_files.encode(image, "JPEG")) == ("JPEG", 31, 17)


def test_a_jpeg_with_long_segments_before_its_size():
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned on its side: TensorFlow does not turn it.
    exif[0x010E] = "x" * 60_000
    options = {"exif": exif, "icc_profile": bytes(200_000)}
    content = picture_files.encode(picture_files.noise(31, 17), "JPEG", **options)
    assert claim_of(content) == ("JPEG", 31, 17)


def test_a_jpeg_may_have_fill_bytes_and_garbage_between_its_segments():
    content = picture_files.jpeg(300, 200)
    spoilt = content[:2] + b"\xff\xff\xff\xfe\x00\x04hi\x00garbage\xff\x00\xff\xd0" + content[2:]
    assert claim_of(spoilt) == ("JPEG", 300, 200)


def test_a_turned_bmp_and_an_animated_webp():
    assert claim_of(picture_files.bmp(300, -200)) == ("BMP", 300, 200)
    assert claim_of(picture_files.webp(300, 200)) == ("WebP", 300, 200)
    frames = [picture_files.noise(40, 30, seed=seed) for seed in range(3)]
    moving = picture_files.encode(frames[0], "WebP", save_all=True, append_images=frames[1:])
    assert claim_of(moving) == ("WebP", 40, 30)


def test_a_gif_claims_all_its_frames():
    frames = [picture_files.noise(20, 12, seed=seed) for seed in range(3)]
    content = picture_files.encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    claim = read_claim(BytesIO(content))
    assert (claim.width, claim.height, claim.n_frame_pixels) == (20, 12, 720)
    claim = read_claim(BytesIO(picture_files.gif((5, 9), (7, 3), (1, 1))))
    assert (claim.width, claim.height, claim.n_frame_pixels) == (7, 9, 45 + 21 + 1)


def test_jpeg_xl_with_and_without_its_container():
    assert claim_of(picture_files.JXL_37_BY_23) == ("JPEG XL", 37, 23)
    assert claim_of(picture_files.JXL_8_BY_8) == ("JPEG XL", 8, 8)


@pytest.mark.parametrize(
    ("bits", "size"),
    [
        # From the lowest bit: is it small? its height, the ratio of its sides, its width.
        ([(1, 1), (4, 5), (0, 3), (2, 5)], (24, 40)),
        ([(1, 1), (4, 5), (7, 3)], (80, 40)),
        ([(0, 1), (0, 2), (299, 9), (3, 3)], (400, 300)),
        ([(0, 1), (1, 2), (8191, 13), (0, 3), (2, 2), (262143, 18)], (262144, 8192)),
        ([(0, 1), (3, 2), ((1 << 30) - 1, 30), (1, 3)], (1 << 30, 1 << 30)),
    ],
)
def test_every_form_of_the_size_of_a_jpeg_xl(bits: list[tuple[int, int]], size: tuple[int, int]):
    number = shift = 0
    for value, width in bits:
        number |= value << shift
        shift += width
    assert claim_of(b"\xff\x0a" + number.to_bytes(12, "little")) == ("JPEG XL", *size)


@pytest.mark.parametrize(
    "content",
    [
        picture_files.encode(picture_files.noise(30, 20), form)
        for form in ("JPEG", "PNG", "GIF", "BMP", "WebP")
    ]
    + [picture_files.JXL_8_BY_8],
)
def test_a_header_that_is_cut_off_anywhere_claims_nothing_else(content: bytes):
    whole = read_claim(BytesIO(content))
    for length in range(len(content)):
        claim = read_claim(BytesIO(content[:length]))
        assert claim.kind in ("", whole.kind)
        if whole.kind != "JPEG XL":  # Bits that are missing are taken for zeros.
            assert claim.width in (0, whole.width) and claim.height in (0, whole.height)


@pytest.mark.parametrize("content", [b"", b"x", b"I am no picture", b"II*\x00tiff", bytes(99)])
def test_what_is_no_picture_claims_nothing(content: bytes):
    assert claim_of(content) == ("", 0, 0)


def test_a_jpeg_header_without_end_is_given_up():
    many = b"\xff\xd8" + b"\xff\xfe\x00\x03." * 1_000_000
    garbage = b"\xff\xd8\xff" + b"\xfe\x00\x03." + bytes(10_000_000)
    for content in (many, garbage):
        begin = time.perf_counter()
        with pytest.raises(EndlessHeaderError):
            read_claim(BytesIO(content))
        assert time.perf_counter() - begin < 5


# Reasons


def reason(path: Path, content: bytes | None = None, most: int = MOST) -> str | None:
    if content is not None:
        path.write_bytes(content)
    return why_not_decode(path, most)


@pytest.mark.parametrize(
    "content",
    [
        picture_files.png(30_000, 30_000),
        picture_files.jpeg(30_000, 30_000),
        picture_files.gif((30_000, 30_000)),
        picture_files.bmp(30_000, -30_000),
        picture_files.webp(30_000, 30_000),
        b"\xff\x0a" + (2 << 1 | 29_999 << 3 | 1 << 21).to_bytes(12, "little"),
    ],
    ids=["PNG", "JPEG", "GIF", "BMP", "WebP", "JPEG XL"],
)
def test_a_claim_of_too_many_pixels_is_refused(tmp_path: Path, content: bytes):
    text = reason(tmp_path / "x.jpg", content, most=250_000_000)
    assert text == (
        "it claims to have 30,000 × 30,000 pixels, more than --max-pixels 250,000,000 allows"
    )
    assert reason(tmp_path / "x.jpg", most=900_000_000) is None


def test_as_many_pixels_as_allowed_are_decoded(tmp_path: Path):
    assert reason(tmp_path / "x.png", picture_files.png(100, 100)) is None
    assert "100 × 101" in str(reason(tmp_path / "x.png", picture_files.png(100, 101)))


def test_frames_of_a_gif_are_counted_together(tmp_path: Path):
    path = tmp_path / "x.gif"
    assert reason(path, picture_files.gif(*[(100, 100)] * 3)) is None
    text = reason(path, picture_files.gif(*[(100, 100)] * 4))
    assert text == (
        "its frames claim to have 40,000 pixels together, more than --max-pixels 10,000 allows"
    )


def test_a_file_of_more_bytes_than_its_pixels_can_need_is_not_read(tmp_path: Path):
    path = tmp_path / "x.jpg"
    with path.open("wb") as file:
        file.write(picture_files.jpeg(16, 16))
        file.truncate(8 * MOST + 1)  # A hole: nothing is stored.
    assert reason(path) == (
        "it has 80,001 bytes, more than a picture of --max-pixels 10,000 can need"
    )


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
        assert reason(tmp_path / "socket.jpg") == "it is a socket, not a file"
    assert reason(tmp_path / "pipe.jpg") == "it is a named pipe, not a file"
    assert reason(tmp_path / "folder.jpg") == "it is a folder, not a file"
    assert reason(tmp_path / "device.jpg") == "it is a device, not a file"
    assert reason(tmp_path / "gone.jpg") == "it is gone, or a link to nothing"
    assert reason(tmp_path / "dangling.jpg") == "it is gone, or a link to nothing"
    assert "symbolic links" in str(reason(tmp_path / "loop.jpg"))
    assert "too long" in str(reason(tmp_path / ("x" * 300 + ".jpg")))
    assert reason(tmp_path / "nul\0.jpg") == "there can be no file of this name"
    assert reason(tmp_path / "empty.jpg", b"") == "it is empty (0 bytes)"
    assert reason(tmp_path / "endless.jpg", b"\xff\xd8" + b"\xff\xfe\x00\x03." * 20_000, 10**8) == (
        "it begins as a JPEG, but its header does not end"
    )


@pytest.mark.parametrize("function", ["os.stat", "builtins.open"])
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: Any, function: str):
    path = tmp_path / "x.png"
    path.write_bytes(picture_files.png(3, 3))

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(function, refuse)
    assert why_not_decode(path, MOST) == "it cannot be opened: Permission denied"


def test_text_and_other_formats_are_left_to_the_decoder(tmp_path: Path):
    assert reason(tmp_path / "x.jpg", b"I am no picture") is None
    assert reason(tmp_path / "x.jpg", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)) is None
