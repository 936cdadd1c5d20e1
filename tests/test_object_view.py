"""How much of each pixel is the object: small cases by hand, then against Keras's own resizing."""

import numpy as np
import pytest
import tensorflow as tf

from audit.explain.object_view import View, cover_by_boxes, cover_by_mask, view_of
from audit.predict.dataset import resize_image


def test_shares_of_pixels_by_hand():
    # Three cells onto two pixels: each pixel sees one and a half of them.
    mask = np.array([[True, False, True]])
    covered = cover_by_mask(mask, (3, 1), View(1, 2))
    np.testing.assert_allclose(covered, [[1 / 1.5, 1 / 1.5]], rtol=1e-6)
    left_cell = cover_by_mask(np.array([[True, False, False]]), (3, 1), View(1, 2))
    np.testing.assert_allclose(left_cell, [[2 / 3, 0]], rtol=1e-6)


def test_a_smaller_mask_is_enlarged_without_blur():
    mask = np.array([[True, False], [False, False]])
    covered = cover_by_mask(mask, (200, 100), View(4, 4))
    expected = np.zeros((4, 4))
    expected[:2, :2] = 1
    np.testing.assert_array_equal(covered, expected)


def test_a_box_by_hand():
    # From a quarter to the end of the width, the upper half: pixels 0.25 * 2 = 0.5 on.
    covered = cover_by_boxes(np.array([[0.25, 0, 1, 0.5]]), (40, 40), View(2, 2))
    np.testing.assert_allclose(covered, [[0.5, 1], [0, 0]], rtol=1e-6)


def test_boxes_that_overlap_count_once_and_what_sticks_out_is_cut_off():
    corners = np.array([[-3, -3, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]])
    covered = cover_by_boxes(corners, (8, 8), View(4, 4))
    assert covered.sum() == pytest.approx(4)
    assert covered.max() == 1


def test_no_box_covers_nothing():
    assert not cover_by_boxes(np.empty((0, 4)), (8, 8), View(4, 4)).any()


def test_a_crop_leaves_out_the_ends_of_the_longer_side():
    # Of 8 × 4 pixels the middle 4 × 4 are seen.
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True
    covered = cover_by_mask(mask, (8, 4), View(4, 4, "crop"))
    np.testing.assert_array_equal(covered[0], [1, 0, 0, 0])


def test_padding_is_not_the_object():
    # 8 × 4 pixels become 4 × 2, in rows 1 and 2.
    covered = cover_by_mask(np.ones((4, 8), bool), (8, 4), View(4, 4, "pad"))
    np.testing.assert_array_equal(covered[:, 0], [0, 1, 1, 0])


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(64, 64), (90, 40), (33, 71), (224, 223), (447, 374)])
def test_it_is_where_the_resized_image_has_it(aspect: str, size: tuple[int, int]):
    width, height = size
    view = View(32, 48, aspect)
    y, x = np.mgrid[:height, :width]
    mask = (np.hypot((x - 0.55 * width) / width, (y - 0.4 * height) / height) < 0.3).astype(bool)
    drawn = tf.constant(mask[..., None].astype(np.uint8) * 255)
    seen = resize_image(drawn, (view.height, view.width), 1, aspect).numpy()[..., 0] / 255
    covered = cover_by_mask(mask, size, view)
    # They differ in the pixels that the edge goes through, for Keras samples and this measures.
    clear = (covered < 1e-4) | (covered > 1 - 1e-4)
    assert clear.mean() > 0.8
    inner = np.abs(seen - covered)[clear]
    assert (inner > 0.6).mean() < 0.01
    assert covered.mean() == pytest.approx(seen.mean(), abs=0.01)


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
def test_a_box_and_its_mask_cover_the_same(aspect: str):
    mask = np.zeros((30, 50), bool)
    mask[6:21, 10:35] = True
    view = View(16, 24, aspect)
    corners = np.array([[10 / 50, 6 / 30, 35 / 50, 21 / 30]])
    np.testing.assert_allclose(
        cover_by_boxes(corners, (50, 30), view), cover_by_mask(mask, (50, 30), view), atol=1e-6
    )


def test_many_rows_are_done_in_blocks():
    mask = np.random.default_rng(0).random((2500, 40)) < 0.3
    covered = cover_by_mask(mask, (40, 2500), View(5, 4))
    blocks = mask.reshape(5, 500, 4, 10).mean(axis=(1, 3))
    np.testing.assert_allclose(covered, blocks, atol=1e-5)


def test_the_view_of_a_run():
    made = {"height": 8, "width": 9, "channels": 3, "aspect": "pad"}
    assert view_of(made) == View(8, 9, "pad")
    assert view_of({"height": 8, "width": 9}) == View(8, 9, "stretch")
