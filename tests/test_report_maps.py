"""Maps made small and packed, overlays, pictures without metadata."""

import base64
import json
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from report_fixture import draw_picture

from audit.report import images, maps


def test_shrink_averages_areas_and_keeps_the_true_values():
    # 4 × 4 to 2 × 2: each new pixel is the mean of a quarter: 100, 50, 0, 200 of 255 at peak 2.
    cam = np.zeros((1, 4, 4), np.uint8)
    cam[0, :2, :2], cam[0, :2, 2:], cam[0, 2:, 2:] = 100, 50, 200
    small, peak = maps.shrink(cam, np.array([2.0], np.float32), 2, 2)
    # The largest average, 200, becomes 255; the others grow alike; the peak falls to 2 × 200 / 255.
    assert small.tolist() == [[[128, 64], [0, 255]]]
    assert peak[0] == pytest.approx(2 * 200 / 255)


def test_shrink_weighs_pixels_that_lie_in_two_areas():
    # 3 pixels to 2: each new one covers 1.5 old ones.
    # (0 + 0.5·90) / 1.5 = 30 and (0.5·90 + 255) / 1.5 = 200.
    cam = np.array([[[0, 90, 255]]], np.uint8)
    small, peak = maps.shrink(cam, np.array([1.0], np.float32), 1, 2)
    assert small.tolist() == [[[round(30 * 255 / 200), 255]]]
    assert peak[0] == pytest.approx(200 / 255)


def test_shrink_leaves_a_map_of_the_right_size_alone():
    cam = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    small, peak = maps.shrink(cam, np.array([3.0], np.float32), 4, 4)
    assert (small == cam).all()
    assert peak.tolist() == [3.0]


@pytest.mark.parametrize("peak", [0.0, np.nan, np.inf])
def test_an_empty_map_is_all_zero(peak):
    cam = np.full((1, 4, 4), 9, np.uint8)
    small, peaks = maps.shrink(cam, np.array([peak], np.float32), 2, 2)
    assert not small.any()
    assert peaks.tolist() == [0.0]


def test_rounding_keeps_the_ends_and_strays_by_two_at_most():
    every = np.arange(256, dtype=np.uint8)
    rounded = maps.round_heat(every)
    assert rounded[0] == 0 and rounded[255] == 255
    assert len(set(rounded.tolist())) == maps.STEPS + 1
    assert np.abs(rounded.astype(int) - every).max() <= 2


def layer_table():
    rows = [
        ("b", "m/b", "Conv2D", 40, 20, 8, 28, 14, 1, 2, True, ""),
        ("a", "m/a", "Conv2D", 56, 56, 8, 28, 28, 0, 1, True, ""),
        ("pool", "m/pool", "Pool", 1, 1, 8, 0, 0, 1, 3, False, "too small"),
        ("fused", "fused", "fusion", 56, 56, 1, 32, 32, 2, 4, True, ""),
    ]
    columns = ["layer", "path", "kind", "height", "width", "channels", "stored_height"]
    columns += ["stored_width", "stage", "order", "kept", "reason"]
    return pd.DataFrame(rows, columns=columns)


def test_layers_come_in_the_models_order_and_only_small_ones_stay_whole():
    layers = maps.map_layers(layer_table())
    assert [layer.name for layer in layers] == ["a", "b", "fused"]
    assert [(layer.height, layer.width) for layer in layers] == [(14, 14), (28, 14), (32, 32)]
    assert [layer.is_whole for layer in layers] == [False, True, True]


def test_an_occlusion_map_is_shown_once():
    table = layer_table()
    table["kind"] = ["occlusion" if layer != "fused" else "fusion" for layer in table["layer"]]
    assert [layer.name for layer in maps.map_layers(table)] == ["fused"]


def unpack(text):
    return zlib.decompress(base64.b64decode(text))


def test_packed_maps_are_the_stored_ones():
    layers = maps.map_layers(layer_table())
    rng = np.random.default_rng(0)
    rows = []
    for image_id, explained_class in [(5, 1), (5, 0), (2, 0)]:
        for layer in layers:
            cam = rng.integers(0, 256, (layer.stored_height, layer.stored_width)).astype(np.uint8)
            cam[0, 0] = 255
            size = (layer.stored_height, layer.stored_width)
            peak = np.float32(image_id + layer.own_height)
            rows.append((image_id, explained_class, layer.name, *size, peak, cam.tobytes()))
    columns = ["image_id", "explained_class", "layer", "height", "width", "peak", "cam"]
    shard = maps.shard_maps(pd.DataFrame(rows, columns=columns), layers)
    assert shard.rows == {(2, 0): 0, (5, 0): 1, (5, 1): 2}
    content = unpack(shard.pack([2, 1]))
    peaks = np.frombuffer(content[:24], "<f4").reshape(2, 3)
    assert peaks[0, 2] == np.float32(5 + 56)
    stored = np.frombuffer(rows[2][6], np.uint8)
    whole = np.frombuffer(content[24:], np.uint8).reshape(2, -1)
    assert (whole[0, -1024:] == stored).all()
    assert (shard.cam(2, 2).reshape(-1) == stored).all()


def test_the_packed_table_of_layers_is_json_without_invisible_characters():
    table = layer_table()
    table.loc[0, "layer"] = "</script>\u202e"
    rows = json.loads(unpack(maps.pack_layers(maps.map_layers(table))))
    assert rows[1][0] == "</script>\\u202e"
    assert rows[0][1:] == ["Conv2D", 0, 14, 14, 56, 56]


def test_an_overlay_is_the_grey_picture_where_cold_and_the_colour_where_hot():
    picture = np.full((32, 32, 3), (20, 120, 220), np.uint8)
    cam = np.zeros((2, 2), np.uint8)
    cam[:, 1] = 255
    drawn = cv2.imdecode(np.frombuffer(images.overlay(picture, cam), np.uint8), cv2.IMREAD_COLOR)
    grey = (0.0722 * 20 + 0.7152 * 120 + 0.2126 * 220) * images.PICTURE_BRIGHTNESS
    assert drawn[16, 2] == pytest.approx([grey] * 3, abs=6)
    hot = images.colour_table("inferno")[255, ::-1] * images.OVERLAY_OPACITY
    assert drawn[16, 29] == pytest.approx(hot + grey * (1 - images.OVERLAY_OPACITY), abs=6)


def test_a_weaker_class_is_drawn_weaker_on_the_shared_scale():
    picture = np.full((32, 32, 3), 120, np.uint8)
    cam = np.full((4, 4), 255, np.uint8)
    assert images.overlay(picture, cam, 1.0) != images.overlay(picture, cam, 0.5)
    grey = images.overlay(picture, np.zeros((4, 4), np.uint8))
    assert images.overlay(picture, cam, 0.2) == grey


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
