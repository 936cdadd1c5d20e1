"""Tokens are laid out as the grid of patches that they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from audit.explain.tokens import TokenGrid, attended_counts, find_token_grid


def test_patches_are_laid_out_row_by_row_behind_what_leads():
    # One leading token (100), then the patches 0 1 2 / 3 4 5, with two channels each.
    values = np.array([100, 0, 1, 2, 3, 4, 5])
    tokens = tf.constant(np.stack([values, -values], -1)[None])
    grid = TokenGrid(1, 2, 3).to_grid(tokens)
    np.testing.assert_array_equal(grid[0, :, :, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(grid[..., 1], -grid[..., 0])


@pytest.mark.parametrize(
    ("n_tokens", "sizes", "grid"),
    [
        (196, [(224, 224), (14, 14)], (0, 14, 14)),
        (197, [(224, 224), (14, 14)], (1, 14, 14)),  # a class token
        (198, [(224, 224), (14, 14)], (2, 14, 14)),  # and one for distillation
        (201, [(224, 224), (14, 14)], (5, 14, 14)),  # and four registers
        (205, [(224, 224), (14, 14)], None),  # nine are too many
        (6, [(20, 30), (2, 3)], (0, 2, 3)),
        (6, [(30, 20), (3, 2)], (0, 3, 2)),
        (49, [(14, 14), (7, 7)], (0, 7, 7)),
        (16, [(4, 4), (2, 8)], (0, 2, 8)),  # the last one that fits
        # Without a map of that size the grid has the proportions of the image.
        (16, [], (0, 4, 4)),
        (17, [], (1, 4, 4)),
        (18, [], (2, 4, 4)),
        (19, [], None),
        (24, [(40, 60)], (0, 4, 6)),
        (25, [(40, 60)], (1, 4, 6)),
        (25, [(60, 40)], (1, 6, 4)),
        (16, [(0, 0)], (0, 4, 4)),  # of a size that is not fixed
        (16, [(40, 60)], None),
        (1, [(1, 1)], None),
        (2, [], None),
    ],
)
def test_the_grid_is_found(n_tokens, sizes, grid):
    found = find_token_grid(n_tokens, sizes)
    assert (None if found is None else (found.n_leading, found.height, found.width)) == grid


def test_other_layers_may_have_more_leading_tokens():
    counts = TokenGrid(1, 14, 14).possible_counts
    assert min(counts) == 196 and {197, 201} < set(counts)


def test_attention_is_a_softmax_over_pairs_of_tokens():
    with tf.Graph().as_default() as graph:
        for shape in [(None, 4, 17, 17), (None, 9, 9), (None, 3), (None, 6, 3), (5, 5), (2, 1, 1)]:
            tf.nn.softmax(tf.compat.v1.placeholder(tf.float32, shape))
        tf.nn.relu(tf.compat.v1.placeholder(tf.float32, (None, 7, 7)))
    assert attended_counts(graph.get_operations()) == {17, 9, 1}
