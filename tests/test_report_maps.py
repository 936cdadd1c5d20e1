"""Maps made small and packed for the pages of errors."""

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from audit.report import maps
from audit.schemas import SCHEMAS


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


def test_heats_are_rounded_to_the_nearest_of_fifteen_steps():
    # A step is 255 / 15 = 17 heats: 8 is nearer to 0, 9 to 1; 127 × 15 / 255 = 7.47.
    heats = np.array([0, 8, 9, 25, 26, 127, 128, 246, 247, 255], np.uint8)
    assert maps.to_steps(heats).tolist() == [0, 0, 1, 1, 2, 7, 8, 14, 15, 15]
    every = np.arange(256, dtype=np.uint8)
    assert maps.to_steps(every).tolist() == [round(heat * 15 / 255) for heat in range(256)]


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


def explanation(image_id, explained_class, layer, peak, cam):
    return image_id, explained_class, layer, *cam.shape, np.float32(peak), cam.tobytes()


def shard_table(rows):
    frame = pd.DataFrame(rows, columns=SCHEMAS["explanations"].names)
    return pa.Table.from_pandas(frame, schema=SCHEMAS["explanations"], preserve_index=False)


def drawn_rows(layers, pairs):
    rng = np.random.default_rng(0)
    rows = []
    for image_id, explained_class in pairs:
        for layer in layers:
            cam = rng.integers(0, 256, (layer.stored_height, layer.stored_width)).astype(np.uint8)
            cam[0, 0] = 255
            rows.append(explanation(image_id, explained_class, layer.name, image_id + 0.5, cam))
    return rows


def read_page(content, layers, n_classes):
    """Undo `pack` pixel by pixel, as the module's docstring has it: peaks, and maps by class."""
    n_peaks = n_classes * len(layers)
    peaks = np.frombuffer(content[: 4 * n_peaks], "<f4").reshape(n_classes, -1)
    halves = sum(layer.height * layer.width for layer in layers if layer.steps == 15)
    packed, result = list(content[4 * n_peaks :]), []
    for _ in range(n_classes):
        maps_of_class, before, rest = [], None, []
        while len(rest) < halves:
            rest += [packed[0] % 16, packed.pop(0) // 16]
        if halves % 2:
            assert rest.pop() == 0
        for layer in layers:
            if layer.steps == 255 and not rest:
                n_whole = sum(x.height * x.width for x in layers if x.steps == 255)
                rest, packed = packed[:n_whole], packed[n_whole:]
            height, width, modulus = layer.height, layer.width, layer.steps + 1
            shape = (height, width, modulus)
            grid = [[0] * width for _ in range(height)]
            for y in range(height):
                for x in range(width):
                    beside = grid[y][x - 1] if x else grid[y - 1][x] if y else 0
                    grid[y][x] = (rest.pop(0) + beside) % modulus
            grid = np.array(grid)
            if before is not None and before[0] == shape:
                grid = (grid + before[1]) % modulus
            before = (shape, grid)
            maps_of_class.append(grid)
        assert not rest
        result.append(maps_of_class)
    assert not packed
    return peaks, result


SIZE = {"kind": "Conv2D", "stage": 0, "own_height": 9, "own_width": 9, "path": "m"}


def small_layer(name, height, width, is_whole=False):
    stored = {"stored_height": height, "stored_width": width}
    return maps.MapLayer(name, height=height, width=width, is_whole=is_whole, **stored, **SIZE)


def test_the_bytes_of_a_page_are_worked_out_by_hand():
    # Layers "a" and "b" of 2 × 2, rounded to steps of 17 heats, and "fused" of 1 × 2, as it is.
    layers = (small_layer("a", 2, 2), small_layer("b", 2, 2), small_layer("fused", 1, 2, True))
    rows = [
        explanation(7, 3, "fused", 4.0, np.array([[1, 255]], np.uint8)),
        explanation(7, 3, "a", 2.0, np.array([[0, 255], [136, 17]], np.uint8)),
        explanation(7, 3, "b", 1.0, np.array([[17, 255], [119, 0]], np.uint8)),
        explanation(7, 1, "a", 0.0, np.array([[9, 9], [9, 9]], np.uint8)),
        explanation(7, 1, "b", 3.0, np.array([[255, 0], [0, 0]], np.uint8)),
        explanation(7, 1, "fused", 0.5, np.array([[255, 7]], np.uint8)),
    ]
    shard = maps.shard_maps(shard_table(rows), layers)
    assert shard.rows == {(7, 1): 0, (7, 3): 1}
    assert shard.cam(1, 0).tolist() == [[0, 15], [8, 1]]
    assert shard.cam(1, 1).tolist() == [[1, 15], [7, 0]]
    content = unpack(shard.pack([1, 0]))  # class 3 first, then class 1, for which "a" is silent
    assert np.frombuffer(content[:24], "<f4").tolist() == [2.0, 1.0, 4.0, 0.0, 3.0, 0.5]
    # "a": 0; 15 − 0; 8 − 0, the pixel above; 1 − 8 = −7 = 9 modulo 16.
    # "b" less "a" is 1, 0, −1, −1; of that: 1; −1 = 15; −1 − 1 = −2 = 14; −1 − −1 = 0.
    # "fused" has another size: 1; 255 − 1. Then class 1: nothing; 15, −15 = 1, −15 = 1, 0; 255 and
    # 7 − 255 = −248 = 8 modulo 256. "a" and "b" have two pixels a byte, the earlier one lower.
    first = [0 + 16 * 15, 8 + 16 * 9, 1 + 16 * 15, 14 + 16 * 0, 1, 254]
    second = [0, 0, 15 + 16 * 1, 1 + 16 * 0, 255, 8]
    assert list(content[24:]) == [*first, *second]


def test_an_odd_number_of_rounded_pixels_ends_in_half_a_byte():
    layers = (small_layer("a", 1, 3), small_layer("fused", 1, 1, True))
    rows = [
        explanation(0, index, name, 1.0, np.array([heats], np.uint8))
        for index in (0, 1)
        for name, heats in (("a", [17, 255, 34]), ("fused", [255]))
    ]
    content = unpack(maps.shard_maps(shard_table(rows), layers).pack([0, 1]))
    # 1; 15 − 1 = 14; 2 − 15 = −13 = 3 modulo 16.
    assert list(content[16:]) == 2 * [1 + 16 * 14, 3, 255]


def test_packed_maps_are_the_stored_ones():
    layers = maps.map_layers(layer_table())
    layers = (layers[0], layers[0], *layers)  # so that layers of one size follow each other
    layers = tuple(replace(layer, name=f"{n}") for n, layer in enumerate(layers[:-1])) + layers[-1:]
    rows = drawn_rows(layers, [(5, 1), (5, 0), (2, 0)])
    shard = maps.shard_maps(shard_table(rows), layers)
    assert shard.rows == {(2, 0): 0, (5, 0): 1, (5, 1): 2}
    peaks, found = read_page(unpack(shard.pack([2, 1])), layers, 2)
    assert peaks[0, -1] == np.float32(5.5)
    stored = np.frombuffer(rows[len(layers) - 1][6], np.uint8).reshape(32, 32)
    assert (found[0][-1] == stored).all()
    for maps_of_class, row in zip(found, (2, 1), strict=True):
        for n, grid in enumerate(maps_of_class):
            assert (grid == shard.cam(row, n)).all()


def test_all_maps_of_a_shard_are_those_made_one_by_one():
    layers = maps.map_layers(layer_table())
    rows = drawn_rows(layers, [(5, 1), (5, 0), (2, 0)])
    rows = [rows[n] for n in np.random.default_rng(1).permutation(len(rows))]
    shard = maps.shard_maps(shard_table(rows), layers)
    for image_id, explained_class, name, height, width, peak, content in rows:
        column = [layer.name for layer in layers].index(name)
        layer, row = layers[column], shard.rows[image_id, explained_class]
        cam = np.frombuffer(content, np.uint8).reshape(1, height, width)
        small, new_peak = maps.shrink(cam, np.array([peak]), layer.height, layer.width)
        expected = small[0] if layer.is_whole else maps.to_steps(small)[0]
        assert (shard.cam(row, column) == expected).all()
        assert shard.peaks[row, column] == new_peak[0]
        assert shard.cam(row, column).max() == layer.steps


def test_only_the_images_and_layers_that_are_wanted_are_unpacked():
    layers = maps.map_layers(layer_table())
    rows = drawn_rows(layers, [(5, 1), (2, 0)])
    rows.append(explanation(5, 1, "not shown", 1.0, np.full((3, 3), 255, np.uint8)))
    shard = maps.shard_maps(shard_table(rows), layers, {5, 99})
    assert shard.rows == {(5, 1): 0}
    assert maps.shard_maps(shard_table(rows), layers, set()).rows == {}
    assert maps.shard_maps(shard_table([]), layers).values.shape == (0, shard.values.shape[1])


def test_a_map_that_was_not_stored_is_empty():
    layers = maps.map_layers(layer_table())
    rows = drawn_rows(layers, [(5, 1), (2, 0)])
    del rows[0]  # layer "a" of image 5
    shard = maps.shard_maps(shard_table(rows), layers)
    assert not shard.cam(1, 0).any() and shard.peaks[1, 0] == 0
    assert shard.cam(0, 0).any() and shard.cam(1, 1).any()


def test_the_packed_table_of_layers_is_json_without_invisible_characters():
    table = layer_table()
    table.loc[0, "layer"] = "</script>\u202e"
    rows = json.loads(unpack(maps.pack_layers(maps.map_layers(table))))
    assert rows[1][0] == "</script>\\u202e"
    assert rows[0][1:] == ["Conv2D", 0, 14, 14, 56, 56, 15]
    assert [row[-1] for row in rows] == [15, 255, 255]
