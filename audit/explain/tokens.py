"""Tokens of a vision transformer as maps: which places of the image they stand for.

A transformer cuts the image into patches, row by row, and turns each into one token; tokens for
the whole image, such as a class token, may go before them. In: numbers of tokens, sizes of maps.
Out: the grid of the patches. Attention is told by what it does: a softmax over one weight for each
two tokens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tensorflow as tf

_MOST_LEADING = 8
"""More tokens than this do not go before the patches; the most known are one and four registers."""
_MOST_GUESSED_LEADING = 2


@dataclass(frozen=True)
class TokenGrid:
    """Where the patches are among the tokens.

    Attributes:
        n_leading: tokens before the first patch, which have no place.
        height, width: of the grid of patches; its rows follow each other.
    """

    n_leading: int
    height: int
    width: int

    @property
    def possible_counts(self) -> range:
        """How many tokens there can be in other layers, with other leading ones."""
        n_patches = self.height * self.width
        return range(n_patches, n_patches + _MOST_LEADING + 1)

    def to_grid(self, tokens: tf.Tensor) -> tf.Tensor:
        """Turn tokens of shape (n, tokens, channels) into shape (n, height, width, channels)."""
        patches = tokens[:, self.n_leading :]
        return tf.reshape(patches, (-1, self.height, self.width, tokens.shape[-1]))


def find_token_grid(n_tokens: int, sizes: Sequence[tuple[int, int]]) -> TokenGrid | None:
    """Find out how tokens cover the image.

    Args:
        n_tokens: how many tokens there are.
        sizes: (height, width) of the maps before them. One is the grid, such as that of the
            convolution that makes the patches; or else the grid has the proportions of the first.

    Returns:
        The grid with the fewest leading tokens; `None` if there is none.
    """
    for n_leading in range(min(_MOST_LEADING, n_tokens - 2) + 1):
        for height, width in reversed(sizes):
            if height * width == n_tokens - n_leading:
                return TokenGrid(n_leading, height, width)
    image_height, image_width = next((size for size in sizes if min(size) > 0), (1, 1))
    for n_leading in range(min(_MOST_GUESSED_LEADING, n_tokens - 2) + 1):
        n_patches = n_tokens - n_leading
        height = math.isqrt(n_patches * image_height // image_width)
        width = n_patches // max(height, 1)
        if height * width == n_patches and height * image_width == width * image_height:
            return TokenGrid(n_leading, height, width)
    return None


def attended_counts(operations: Iterable[tf.Operation]) -> set[int]:
    """Return the numbers of tokens between which a graph's softmax operations share attention."""
    counts = set()
    for operation in operations:
        if operation.type == "Softmax":
            shape = operation.outputs[0].shape
            if shape.rank in (3, 4) and shape[-1] and shape[-1] == shape[-2]:
                counts.add(int(shape[-1]))
    return counts
