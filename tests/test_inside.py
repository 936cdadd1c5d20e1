"""Energy inside the object and the pointing game: by hand, and as the benchmarks compute them."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from audit.explain.inside import energy_inside, measure_inside, pointing
from audit.explain.object_view import View
from audit.explain.objects import Objects
from audit.schemas import SCHEMAS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import map_scores

CAM = np.array([[0, 0, 10, 0], [0, 50, 0, 0], [0, 0, 0, 20], [0, 0, 0, 0]], np.uint8)


def test_by_hand():
    coverage = np.zeros((4, 4), np.float32)
    coverage[:2, :2] = 1  # Holds the 50 of 80.
    coverage[0, 2] = 0.5  # And half of the 10.
    assert energy_inside(CAM, coverage) == pytest.approx(55 / 80)
    assert pointing(CAM, coverage) == 1
    assert pointing(CAM, 1 - coverage) == 0


def test_an_even_map_has_the_share_of_the_area():
    coverage = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    assert energy_inside(np.full((3, 3), 7), coverage) == pytest.approx(coverage.mean())


def test_peaks_that_are_as_hot_count_in_part():
    cam = np.array([[9, 9, 9, 9]])
    assert pointing(cam, np.array([[1, 0, 0, 0]], np.float32)) == 0.25
    # A pixel is inside if half of it is.
    assert pointing(cam, np.array([[0.5, 0.49, 0, 0]], np.float32)) == 0.25


def test_the_scale_of_a_map_does_not_matter():
    coverage = np.random.default_rng(1).random((8, 8)).astype(np.float32)
    assert energy_inside(CAM, coverage) == pytest.approx(energy_inside(CAM * 3.5, coverage))


@pytest.mark.parametrize("seed", range(5))
def test_the_benchmarks_compute_the_same(seed: int):
    rng = np.random.default_rng(seed)
    cam = (rng.random((7, 7)) * 255).astype(np.uint8)
    mask = cv2.resize(rng.random((5, 5)), (56, 56)) > 0.6
    large = map_scores.enlarge(cam, 56)
    expected = map_scores.energy_ratio(large, mask) * mask.mean()
    assert energy_inside(cam, mask.astype(np.float32)) == pytest.approx(expected, rel=1e-5)
    assert pointing(cam, mask.astype(np.float32)) == map_scores.pointing(large, mask)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Image 0 has its left half as the object, image 2 a file that is no mask, 1 and 3 nothing."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    cv2.imwrite(str(tmp_path / "0.png"), mask)
    (tmp_path / "2.png").write_text("no")
    return Objects([f"{n}.jpg" for n in range(4)], tmp_path)


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    left, even = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    left[:, 0] = 200
    keys = [(0, 1), (0, 0), (2, 1)]
    cams = [left, even, left]
    fused = pd.DataFrame(keys, columns=["image_id", "explained_class"]).assign(cam=cams)
    focus = fused[["image_id", "explained_class"]].assign(is_empty=[False, True, False])
    sizes = pd.DataFrame({"image_id": [3, 2, 1, 0], "width": 8, "height": 8})
    return focus, fused.iloc[::-1], sizes  # The order of rows does not matter.


def test_every_map_gets_what_is_known_of_it(objects: Objects):
    focus, fused, sizes = tables()
    seen: list[int] = []
    measured, table = measure_inside(focus, fused, objects, sizes, View(8, 8), seen.append)
    assert sum(seen) == 4
    assert list(table.columns) == SCHEMAS["objects"].names
    assert table["image_id"].tolist() == [0, 1, 2, 3]
    assert table["kind"].tolist() == ["mask", "not given", "unusable", "not given"]
    np.testing.assert_array_equal(table["object_share"], [0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(measured["object_share"], np.float32([0.5, 0.5, np.nan]))
    # The left column of four, enlarged twofold, fades out within the left half.
    np.testing.assert_array_equal(measured["energy_inside"], np.float32([1, np.nan, np.nan]))
    np.testing.assert_array_equal(measured["pointing"], np.float32([1, np.nan, np.nan]))
    assert measured["energy_inside"].dtype == np.float32


def test_sizes_may_be_unknown(objects: Objects):
    focus, fused, sizes = tables()
    unknown = sizes.assign(width=pd.array([None] * 4, "Int32"), height=np.nan)
    unknown["width"] = unknown["width"].astype("float64")
    _, table = measure_inside(focus, fused, objects, unknown, View(8, 8))
    assert table["kind"].tolist()[0] == "mask"


def test_real_maps_inside_real_bars(shared_data: Path):
    """A map made of a bar mask itself lies wholly inside it."""
    masks = shared_data / "planted_bars" / "masks"
    names = sorted(path.relative_to(masks).as_posix() for path in masks.rglob("*.png"))[:5]
    objects = Objects([name.replace(".png", ".jpg") for name in names], masks)
    for row, name in enumerate(names):
        mask = cv2.imread(str(masks / name), cv2.IMREAD_GRAYSCALE)
        placed = objects.place(row, (mask.shape[1], mask.shape[0]), View(224, 224))
        assert placed.coverage is not None
        assert placed.coverage.mean() == pytest.approx((mask > 0).mean(), abs=1e-3)
        assert energy_inside((mask > 0).astype(np.uint8), placed.coverage) > 0.98
