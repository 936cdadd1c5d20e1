"""Colours and edges under a map, on drawn images; and what the run folder holds of them."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from audit.diagnose.looks import COLOURS, EDGES, MEASURES, measure_look, read_looks
from audit.run_folder import Receipt, RunFolder, fixed_list
from audit.schemas import SCHEMAS

SIDE = 64
ROW, COLUMN = np.mgrid[:SIDE, :SIDE]
LEFT = (COLUMN < SIDE // 2).astype(np.uint8) * 200
BGR = {
    "black": (10, 10, 10),
    "grey": (128, 128, 128),
    "white": (250, 250, 250),
    "red": (30, 20, 220),
    "orange": (0, 140, 255),
    "brown": (20, 60, 120),
    "yellow": (0, 230, 240),
    "green": (40, 180, 40),
    "turquoise": (200, 200, 20),
    "blue": (220, 60, 20),
    "purple": (200, 30, 120),
    "pink": (180, 50, 250),
}


def measures(image: np.ndarray, cam: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Return what is under a map and elsewhere, by name."""
    focus, rest = measure_look(image, [cam])
    return dict(zip(MEASURES, focus[0], strict=True)), dict(zip(MEASURES, rest[0], strict=True))


def plain(colour: tuple[int, ...]) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_have_their_names(name: str):
    focus, _ = measures(plain(BGR[name]), np.ones((7, 7), np.uint8))
    assert {c: focus[c] for c in COLOURS} == {c: float(c == name) for c in COLOURS}


def test_what_is_under_the_map_is_told_from_what_is_not():
    image = plain(BGR["blue"])
    image[:, : SIDE // 2] = BGR["red"]
    focus, rest = measures(image, LEFT)
    assert (focus["red"], rest["blue"]) == (pytest.approx(1), pytest.approx(1))
    # Half of the map's mass lies on each side of a map that is even but for a quarter.
    quarter = np.where(COLUMN < SIDE // 4, 255, 85).astype(np.uint8)
    focus, rest = measures(image, quarter)
    # Weights 1 and 1/3: red has 16 + 16/3 of 16 + 48/3 columns; elsewhere 2/3 each: 16 of 48.
    assert focus["red"] == pytest.approx(2 / 3, abs=0.01)
    assert rest["red"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("coordinate", "edge"),
    [(COLUMN, "upright"), (ROW, "flat"), (ROW + COLUMN, "rising"), (ROW - COLUMN, "falling")],
)
def test_edges_have_their_directions(coordinate: np.ndarray, edge: str):
    grey = (127.5 + 100 * np.sin(coordinate / 3)).astype(np.uint8)
    focus, _ = measures(np.repeat(grey[..., None], 3, axis=2), np.ones((SIDE, SIDE), np.uint8))
    strengths = {name: focus[name] for name in EDGES}
    assert max(strengths, key=strengths.get) == edge
    assert strengths[edge] > 10 * sorted(strengths.values())[-2]


def test_the_strength_of_an_edge_is_the_slope_of_the_lightness():
    # CIELAB lightness of a ramp of it: 1/64 a pixel, in units of 1/255 that is 255/64 = 3.98.
    lab = np.zeros((SIDE, SIDE, 3), np.float32)
    lab[..., 0] = 100 * COLUMN / SIDE
    image = np.round(255 * cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)).astype(np.uint8)
    focus, _ = measures(image, (COLUMN > 8).astype(np.uint8) * (COLUMN < SIDE - 8))
    assert focus["upright"] == pytest.approx(255 / SIDE, rel=0.05)
    assert focus["sharpness"] < 1


def test_lightness_and_colourfulness():
    image = plain((0, 0, 0))
    image[:, ::2] = 255
    focus, _ = measures(image, np.ones((SIDE, SIDE), np.uint8))
    assert focus["lightness"] == pytest.approx(0.5, abs=0.01)
    assert focus["lightness_spread"] == pytest.approx(0.5, abs=0.01)
    assert focus["colourfulness"] == pytest.approx(0, abs=0.1)
    assert measures(plain(BGR["red"]), LEFT)[0]["colourfulness"] > 70


def test_grey_images_and_empty_maps():
    focus, rest = measure_look(np.full((9, 12), 128, np.uint8), [np.zeros((4, 4)), np.ones((4, 4))])
    assert np.isnan(focus[0]).all() and np.isnan(rest[0]).all()
    assert np.isfinite(focus[1]).all() and np.isnan(rest[1]).all()
    assert focus[1, COLOURS.index("grey")] == 1


def write_pictures(folder: RunFolder, pictures: dict[int, np.ndarray]) -> None:
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in pictures.values()]
    columns = [list(pictures), [SIDE] * len(jpegs), [SIDE] * len(jpegs), jpegs]
    table = pa.table(dict(zip(SCHEMAS["thumbnails"].names, columns, strict=True)))
    folder.write_shard("thumbnails", 0, table, Receipt("explanations", 0, len(jpegs)))


def write_vectors(folder: RunFolder, keys: list[tuple[int, int]], vectors: np.ndarray) -> None:
    ids, classes = zip(*keys, strict=True)
    table = pa.table(
        {
            "image_id": pa.array(ids, pa.int64()),
            "explained_class": pa.array(classes, pa.int32()),
            "layer_agreement": pa.array(np.arange(len(keys)) / 10, pa.float32()),
            "embedding": fixed_list(vectors),
            "elsewhere": fixed_list(-vectors),
        }
    )
    folder.write_shard("focus_embeddings", 0, table, Receipt("explanations", 0, len(keys)))


def fused_table(keys: list[tuple[int, int]]) -> pd.DataFrame:
    ids, classes = zip(*keys, strict=True)
    return pd.DataFrame({"image_id": ids, "explained_class": classes, "cam": [LEFT] * len(keys)})


def test_looks_are_read_in_the_order_of_images_and_classes(tmp_path: Path):
    folder = RunFolder(tmp_path)
    write_pictures(folder, {5: plain(BGR["red"]), 2: plain(BGR["blue"])})
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_vectors(folder, [(5, 1), (5, 0), (2, 1)], vectors)
    looks = read_looks(folder, fused_table([(5, 1), (2, 1), (5, 0), (8, 0)]))
    assert looks.of_model
    assert looks.image_ids.tolist() == [2, 5, 5, 8]
    assert looks.classes.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(looks.vectors, [vectors[2], vectors[1], vectors[0], [0, 0]])
    np.testing.assert_array_equal(looks.elsewhere, -looks.vectors)
    np.testing.assert_array_equal(looks.layer_agreement, np.float32([0.2, 0.1, 0, np.nan]))
    np.testing.assert_allclose(looks.measures[:3, COLOURS.index("red")], [0, 1, 1], atol=0.01)
    assert np.isnan(looks.measures[3]).all()
    assert looks.rows_of(np.array([5, 2, 2]), np.array([1, 1, 0])).tolist() == [2, 0, -1]


def test_without_a_look_into_the_model_colours_and_edges_take_its_place(tmp_path: Path):
    folder = RunFolder(tmp_path)
    half = plain(BGR["blue"])
    half[:, : SIDE // 2] = BGR["red"]
    write_pictures(folder, {1: half, 2: plain(BGR["red"]), 3: plain(BGR["blue"])})
    looks = read_looks(folder, fused_table([(1, 0), (2, 0), (3, 0)]))
    assert not looks.of_model
    assert np.isnan(looks.layer_agreement).all()

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.linalg.norm(first - second))

    # The map looks at the left half: there the first image is red, elsewhere it is blue.
    of_focus, of_rest = looks.vectors, looks.elsewhere
    assert distance(of_focus[0], of_focus[1]) < 0.3 < distance(of_focus[0], of_focus[2])
    assert distance(of_rest[0], of_rest[2]) < 0.3 < distance(of_rest[0], of_rest[1])


def test_a_run_without_maps_has_no_looks(tmp_path: Path):
    empty = pd.DataFrame(columns=["image_id", "explained_class", "peak", "cam"])
    looks = read_looks(RunFolder(tmp_path), empty)
    assert looks.vectors.shape[0] == looks.measures.shape[0] == len(looks.image_ids) == 0
