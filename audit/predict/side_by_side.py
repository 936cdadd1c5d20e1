"""Run the two halves of a batch side by side.

On CPUs most operations of a network are too small to keep several cores busy, so that two halves at
once, each on its share of the cores, are done sooner than the whole. A GPU gets the whole batch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import tensorflow as tf

LEAST = 8
"""A smaller batch stays whole: what each operation costs by itself would be paid twice."""

Found = TypeVar("Found")


def side_by_side(call: Callable[[slice], Found], n: int) -> list[Found]:
    """Call with each half of `n` images at once, or with all if they are few or go to a GPU.

    What the halves are depends on `n` alone, so that the same images give the same bytes on any
    number of cores.

    Returns:
        What each call returned, in order. An error of either is raised once both have ended.
    """
    if n < LEAST or tf.config.list_logical_devices("GPU"):
        return [call(slice(0, n))]
    middle = (n + 1) // 2
    second = _pool().submit(call, slice(middle, n))
    try:
        first = call(slice(0, middle))
    finally:
        wait([second])
    return [first, second.result()]


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the thread for second halves."""
    return ThreadPoolExecutor(1, thread_name_prefix="half")
