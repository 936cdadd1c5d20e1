"""Masks have the area they say, moved shapes their pixels; what is painted or pasted, and where."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.explain.painting import (
    AREAS,
    MOST_OVERLAP,
    Move,
    blur_all,
    blur_out,
    choose_moves,
    heat_of,
    hottest,
    paint_out,
    paste,
)

SIZES = [(32, 32), (224, 224), (150, 97), (7, 300), (5, 5)]


def blob(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth uint8 map with a peak of 255 somewhere."""
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), max(size) / 10)
    smooth -= smooth.min()
    return np.round(255 * smooth / smooth.max()).astype(np.uint8)


def photograph(size: tuple[int, int], channels: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (*size, channels)).astype(np.float32)


# Masks


def test_the_hottest_pixels_by_hand():
    heat = np.array([[5, 1, 4], [4, 4, 0]], np.float32)
    # A half of six is three: the 5, and the first two of three equal 4s.
    assert hottest(heat, 0.5).tolist() == [[True, False, True], [True, False, False]]
    assert hottest(heat, 1 / 6).tolist() == [[True, False, False], [False, False, False]]
    assert hottest(heat, 0.001).sum() == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("area", AREAS)
def test_a_mask_has_exactly_the_area_it_says(size: tuple[int, int], area: float):
    height, width = size
    spot = np.zeros((56, 56), np.uint8)
    spot[3, 50] = 255
    for cam in (blob((56, 56)), spot, np.full((8, 8), 9, np.uint8)):
        mask = hottest(heat_of(cam, size), area)
        assert mask.shape == size and mask.dtype == bool
        assert mask.sum() == round(area * height * width)


def test_a_hotter_level_always_ranks_first():
    cam = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.uint8) * 80
    heat = heat_of(cam, (20, 30))
    for level in (80, 160, 240):
        assert heat[cam == level].min() > heat[cam < level].max()


def test_where_the_map_is_zero_what_is_near_the_hot_spot_counts_as_hotter():
    cam = np.zeros((56, 56), np.uint8)
    cam[40, 10] = 255
    mask = hottest(heat_of(cam, (56, 56)), 0.3)
    rows, columns = np.indices(mask.shape)
    distance = np.hypot(rows - 40, columns - 10)
    assert mask[40, 10]
    # All of a disc, cut by the border of the image: nothing outside is nearer than what is in it.
    assert distance[mask].max() <= distance[~mask].min() + 1


def test_areas_are_nested():
    heat = heat_of(blob((56, 56)), (100, 120))
    small, middle, large = (hottest(heat, area) for area in AREAS)
    assert not (small & ~middle).any() and not (middle & ~large).any()


# Moves


def test_a_move_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]])
    assert Move(False, False, 1, 1).apply(image).tolist() == [[6, 4, 5], [3, 1, 2]]
    assert Move(True, False, 0, 0).apply(image).tolist() == [[4, 5, 6], [1, 2, 3]]
    assert Move(False, True, 0, 1).apply(image).tolist() == [[1, 3, 2], [4, 6, 5]]


@given(
    st.booleans(), st.booleans(), st.integers(0, 6), st.integers(0, 8), st.integers(0, 2**32 - 1)
)
def test_undoing_a_move_brings_everything_back(rows, columns, down, right, seed):
    image = np.random.default_rng(seed).integers(0, 99, (7, 9, 3))
    move = Move(rows, columns, down, right)
    np.testing.assert_array_equal(move.undo(move.apply(image)), image)
    # What lay under the moved mask lies under the mask again.
    mask = image[..., 0] > 50
    under = np.sort(image[move.apply(mask)], axis=0)
    np.testing.assert_array_equal(np.sort(move.undo(image)[mask], axis=0), under)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("area", AREAS)
def test_a_moved_shape_keeps_its_pixels_and_leaves_the_focus(size: tuple[int, int], area: float):
    for seed in range(5):
        mask = hottest(heat_of(blob((56, 56), seed), size), area)
        moves = choose_moves(mask, 3, np.random.default_rng(seed))
        assert len(set(moves)) == 3
        for move in moves:
            moved = move.apply(mask)
            assert moved.sum() == mask.sum()
            if min(size) >= 32:  # The grid rounds; on the smallest images it can do no better.
                assert (moved & mask).sum() <= 2 * MOST_OVERLAP * mask.sum()


def test_moves_are_those_that_an_exhaustive_search_allows():
    # 32 × 32 pixels are the cells themselves, so that the overlap is known exactly.
    mask = hottest(heat_of(blob((32, 32)), (32, 32)), 0.2)
    allowed = {
        move
        for flip in ((False, False), (False, True), (True, False), (True, True))
        for down in range(0, 32, 2)
        for right in range(0, 32, 2)
        if (Move(*flip, down, right).apply(mask) & mask).sum() <= MOST_OVERLAP * mask.sum()
        for move in [Move(*flip, down, right)]
    }
    drawn = set(choose_moves(mask, len(allowed), np.random.default_rng(0)))
    assert 50 < len(allowed) < 1024
    # With as many as there are, four times as many may be drawn from: none of the least is worse.
    assert set(choose_moves(mask, len(allowed) // 4, np.random.default_rng(0))) <= allowed
    assert len(drawn) == len(allowed)


def test_a_shape_that_cannot_leave_itself_moves_to_where_it_overlaps_least():
    mask = np.ones((32, 32), bool)
    mask[:4] = False
    moves = choose_moves(mask, 2, np.random.default_rng(0))
    # Seven eighths of the image overlap themselves by at least six eighths of it.
    for move in moves:
        assert (move.apply(mask) & mask).sum() == 24 * 32


def test_moves_depend_on_the_seed_alone():
    mask = hottest(heat_of(blob((56, 56)), (64, 64)), 0.1)
    first, again, other = (choose_moves(mask, 4, np.random.default_rng(s)) for s in (5, 5, 6))
    assert first == again != other


# Painting out


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (150, 97), (64, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_painting_changes_what_is_under_the_mask_and_nothing_else(size, channels):
    image, mask = photograph(size, channels), hottest(heat_of(blob((56, 56)), size), 0.3)
    painted = paint_out(image, mask)
    assert painted.shape == image.shape and painted.dtype == np.float32
    np.testing.assert_array_equal(painted[~mask], image[~mask])
    assert (painted[mask] != image[mask]).any(axis=-1).mean() > 0.99
    assert painted.min() >= 0 and painted.max() <= 255
    # What was there leaves no trace.
    other = np.where(mask[..., None], np.float32(255) - image, image)
    np.testing.assert_array_equal(paint_out(other, mask), painted)


@pytest.mark.parametrize(
    ("pixel_range", "ground", "spot"),
    [((0.0, 255.0), 70.0, 250.0), ((0.0, 1.0), 0.25, 1.0), ((-1.0, 1.0), -0.5, 0.9)],
)
def test_a_spot_on_a_plain_ground_goes(pixel_range, ground, spot):
    mask = np.zeros((100, 120), bool)
    mask[30:70, 50:95] = True
    image = np.where(mask[..., None], np.float32(spot), np.float32(ground)).repeat(3, axis=2)
    level = (pixel_range[1] - pixel_range[0]) / 255
    # OpenCV's method rounds at every pixel, so that a plain ground drifts by some levels of 255.
    assert np.abs(paint_out(image, mask, pixel_range) - ground).max() <= 6 * level


def test_a_hole_at_the_border_is_filled_from_its_own_surroundings():
    # The left half is dark, the right half bright; a hole in either takes its half's grey.
    image = np.full((64, 64, 1), 40, np.float32)
    image[:, 32:] = 200
    for columns, grey in ((slice(0, 12), 40), (slice(52, 64), 200)):
        mask = np.zeros((64, 64), bool)
        mask[20:40, columns] = True
        assert np.abs(paint_out(image, mask)[mask] - grey).max() <= 6


def test_the_fill_is_close_to_that_of_full_size():
    yy, xx = np.indices((224, 224)).astype(np.float32)
    image = np.stack([yy, xx, 224 - yy], axis=-1)
    mask = hottest(heat_of(blob((56, 56), 3), (224, 224)), 0.2)
    exact = cv2.inpaint(image.astype(np.uint8), mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    difference = np.abs(paint_out(image, mask) - exact)[mask]
    spread = np.abs(image - image.mean(axis=(0, 1)))[mask]
    assert difference.mean() < 0.2 * spread.mean()


# Blurring


def test_a_blur_leaves_the_mean_colours_under_the_mask_only():
    image, mask = photograph((224, 160)), hottest(heat_of(blob((56, 56)), (224, 160)), 0.3)
    treated = blur_out(image, blur_all(image), mask)
    np.testing.assert_array_equal(treated[~mask], image[~mask])
    # Noise around 127.5 with a deviation of 74: blurred over hundreds of pixels, little is left.
    assert np.abs(treated[mask] - 127.5).max() < 25
    grey = photograph((40, 40), 1)
    assert blur_out(grey, blur_all(grey), np.ones((40, 40), bool)).shape == (40, 40, 1)


def test_a_blur_is_as_wide_as_it_says():
    # Of an edge, blurred by a deviation of 9 % of the side, 84 % of the way lies one away.
    image = np.zeros((100, 100, 1), np.float32)
    image[:, 50:] = 100
    treated = blur_out(image, blur_all(image), np.ones((100, 100), bool))
    assert treated[50, 50 + 9, 0] == pytest.approx(84, abs=3)
    assert treated[50, 50 - 9, 0] == pytest.approx(16, abs=3)


# Pasting


def test_a_paste_is_exact_inside_and_outside_and_soft_between():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 0:50] = True
    image, source = photograph((100, 100), seed=1), photograph((100, 100), seed=2)
    pasted = paste(image, source, mask)
    np.testing.assert_array_equal(pasted[~mask], image[~mask])
    # The edge is 3 pixels wide; the image's own border, on the left, is no edge.
    np.testing.assert_array_equal(pasted[22:58, 0:48], source[22:58, 0:48])
    # On the outermost row of the mask, one pixel from outside, a third of the source shows.
    expected = image[20, 10] + (source[20, 10] - image[20, 10]) / 3
    np.testing.assert_allclose(pasted[20, 10], expected, atol=0.5)


def test_a_paste_into_a_small_grey_image_has_a_sharp_edge():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    image, source = photograph((16, 16), 1, seed=1), photograph((16, 16), 1, seed=2)
    expected = np.where(mask[..., None], source, image)
    np.testing.assert_array_equal(paste(image, source, mask), expected)
