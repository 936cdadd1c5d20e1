"""Overlays, crops, pictures without metadata, colour tables."""

import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image
from report_fixture import draw_picture

from audit.report import images


def decode_heat(png):
    """Return uint8 RGBA of shape (height, width, 4), as another program reads it."""
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "P")
        return np.asarray(picture.convert("RGBA"))


def colour_of(heat):
    """Return the RGBA of a heat of 0..255 by the tables alone, after rounding to 51 steps."""
    rounded = round(round(heat * 51 / 255) * 255 / 51)
    alpha = round(float(images.heat_alpha()[rounded]) * images.OVERLAY_OPACITY * 255)
    red, green, blue = images.colour_table("inferno")[rounded].tolist()
    return (red, green, blue, alpha)


def test_an_overlay_of_two_by_two_is_enlarged_with_pixel_centres_aligned():
    # Two columns, 0 and 255, on four pixels. The centres of the four lie at −0.25, 0.25, 0.75 and
    # 1.25 of the two, so they are 0, 255 / 4 = 63.75, 255 × 3 / 4 = 191.25 and 255.
    cam = np.array([[0, 255], [0, 255]], np.uint8)
    drawn = decode_heat(images.heat_picture(cam, (100, 100), side=4))
    assert drawn.shape == (4, 4, 4)
    for row in drawn.tolist():
        assert row[0][3] == row[1][3] == 0  # below 0.3 of the scale nothing is covered
        assert tuple(row[2]) == colour_of(191.25)
        assert tuple(row[3]) == colour_of(255)
    assert tuple(drawn[0, 3]) == (252, 255, 164, 217)  # the last colour of inferno, 0.85 × 255


def test_every_heat_has_the_colour_and_the_transparency_of_the_tables():
    cam = np.arange(256, dtype=np.uint8).reshape(16, 16)
    drawn = decode_heat(images.heat_picture(cam, (64, 64), side=16)).reshape(256, 4)
    for heat, pixel in enumerate(drawn.tolist()):
        expected = colour_of(heat)
        assert pixel[3] == expected[3]
        assert expected[3] == 0 or tuple(pixel) == expected
    assert drawn[:70, 3].max() == 0 and drawn[255, 3] == 217


def test_a_weaker_class_is_drawn_weaker_on_the_shared_scale():
    cam = np.full((4, 4), 255, np.uint8)
    drawn = decode_heat(images.heat_picture(cam, (4, 4), 0.5, side=4))
    assert tuple(drawn[0, 0]) == colour_of(127.5)
    assert decode_heat(images.heat_picture(cam, (4, 4), 0.2, side=4))[..., 3].max() == 0


@pytest.mark.parametrize(
    ("cam", "size", "expected"),
    [
        ((7, 7), (224, 224), (56, 56)),
        ((56, 56), (224, 224), (56, 56)),
        ((80, 80), (224, 224), (80, 80)),  # never smaller than the map
        ((7, 14), (150, 300), (28, 56)),
        ((5, 7), (100, 224), (25, 56)),  # the picture's proportions, not the map's
        ((4, 4), (1, 300), (1, 56)),
        ((2, 2), (16, 16), (56, 56)),
    ],
)
def test_an_overlay_has_the_pictures_proportions(cam, size, expected):
    drawn = decode_heat(images.heat_picture(np.full(cam, 255, np.uint8), size))
    assert drawn.shape[:2] == expected
    assert (drawn == (252, 255, 164, 217)).all()


def test_an_empty_map_covers_nothing_and_the_same_map_gives_the_same_bytes():
    cam = np.zeros((9, 9), np.uint8)
    png = images.heat_picture(cam, (9, 9))
    assert not decode_heat(png)[..., 3].any()
    assert png == images.heat_picture(cam.copy(), (9, 9))


def test_a_smooth_overlay_takes_about_a_kilobyte():
    ys, xs = np.mgrid[0:14, 0:14] / 13
    cam = np.rint(255 * np.exp(-((xs - 0.3) ** 2 + (ys - 0.6) ** 2) / 0.1)).astype(np.uint8)
    assert len(images.heat_picture(cam, (224, 224))) < 1400


def test_a_picture_as_an_address_holds_its_bytes():
    address = images.data_address(b"\x89PNG")
    kind, text = address.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(text) == b"\x89PNG"


def test_a_picture_is_made_smaller_but_never_larger():
    jpeg = draw_picture(1, 1)
    dirty = jpeg[:2] + b"\xff\xfe\x00\x08secret" + jpeg[2:]
    assert images.fit_picture(dirty, 96) == jpeg
    small = images.fit_picture(dirty, 48)
    assert b"secret" not in small
    whole = images.decode_picture(jpeg).astype(np.float32)
    means = whole.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(images.decode_picture(small) - means).mean() < 4
    wide = images.encode_jpeg(np.zeros((30, 90, 3), np.uint8))
    assert images.decode_picture(images.fit_picture(wide, 60)).shape == (20, 60, 3)


def crop_of(cam, height=80, width=120):
    """Cut from a picture whose blue says the row and whose green the column, halved."""
    ys, xs = np.mgrid[0:height, 0:width]
    picture = np.stack([ys * 2, xs * 2, np.zeros_like(ys)], axis=2).astype(np.uint8)
    crop = images.decode_picture(images.focus_crop(picture, cam)).astype(float)
    top, left = crop[2, 2, 0] / 2 - 2, crop[2, 2, 1] / 2 - 2
    return crop.shape[0], crop.shape[1], top, left


def test_a_crop_is_the_square_around_the_hottest_region():
    cam = np.zeros((8, 12), np.uint8)
    cam[2:5, 6:9] = 200  # rows 20 to 50, columns 60 to 90 of the picture
    cam[3, 7] = 255
    cam[7, 0] = 254  # hot, but it does not hang together with the peak
    height, width, top, left = crop_of(cam)
    assert (height, width) == (30, 30)
    assert (top, left) == (pytest.approx(20, abs=1.5), pytest.approx(60, abs=1.5))


def test_a_crop_is_neither_tiny_nor_the_whole_picture_and_lies_inside():
    spot = np.zeros((16, 24), np.uint8)
    spot[0, 23] = 255
    height, width, top, left = crop_of(spot)
    assert (height, width) == (20, 20)  # a quarter of 80
    assert (top, left) == (pytest.approx(0, abs=1.5), pytest.approx(100, abs=1.5))
    bar = np.zeros((8, 12), np.uint8)
    bar[:, 0] = 255
    height, width, top, left = crop_of(bar)
    assert (height, width) == (40, 40)  # a half
    assert (top, left) == (pytest.approx(20, abs=1.5), pytest.approx(0, abs=1.5))


def test_metadata_is_stripped_and_pixels_stay():
    jpeg = draw_picture(1, 1)
    exif = b"\xff\xe1\x00\x0fExif\x00\x00GPS 50N"
    comment = b"\xff\xfe\x00\x08secret"
    dirty = jpeg[:2] + exif + comment + jpeg[2:]
    clean = images.strip_metadata(dirty)
    assert b"GPS" not in clean and b"secret" not in clean
    assert clean == jpeg
    assert (images.decode_picture(clean) == images.decode_picture(jpeg)).all()


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\xff", b"GIF89a"])
def test_stripping_does_not_stumble_over_what_is_no_picture(content):
    assert images.strip_metadata(content) == content


def test_colour_tables_are_those_of_opencv():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, -1)
    jet = cv2.applyColorMap(ramp, cv2.COLORMAP_JET)[0, :, ::-1]
    assert (images.colour_table("jet") == jet).all()
    alpha = images.heat_alpha()
    assert alpha[0] == 0 and alpha[255] == 1 and (np.diff(alpha) >= 0).all()
