"""Run the two halves of a batch side by side.

On CPUs most operations of a network are too small to keep several cores busy, so that two halves at
once, each on its share of the cores, are done sooner than the whole. A GPU gets the whole batch.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

LEAST = 8
"""A smaller batch stays whole: what each operation costs by itself would be paid twice."""

Found = TypeVar("Found")


def side_by_side(
    call: Callable[[slice], Found], n: int, *, calls_python: bool = False
) -> list[Found]:
    """Call with each half of `n` images at once, or with all if they are few or go to a GPU.

    What the halves are depends on `n` alone, not on the number of cores.

    Args:
        calls_python: whether it runs somebody's Python, which need not bear two threads: then it
            is called with all images.

    Returns:
        What each call returned, in order. An error of either is raised once both have ended.
    """
    if calls_python or n < LEAST or tf.config.list_logical_devices("GPU"):
        return [call(slice(0, n))]
    middle = (n + 1) // 2
    second = _pool().submit(call, slice(middle, n))
    try:
        first = call(slice(0, middle))
    finally:
        wait([second])
    return [first, second.result()]


def in_halves(
    call: Callable[..., tuple[tf.Tensor, ...]], traced: Any
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Return `call` so that it runs both halves of a batch side by side.

    Args:
        call: takes a batch, and whatever else is the same for all images; returns tensors with a
            row for each image.
        traced: the traced function that it runs.
    """
    is_whole = runs_python(traced)

    def run(batch: tf.Tensor, *others: Any) -> tuple[tf.Tensor, ...]:
        def run_part(part: slice) -> tuple[tf.Tensor, ...]:
            return call(batch[part], *others)

        return join(side_by_side(run_part, len(batch), calls_python=is_whole))

    return run


def arrays_in_halves(
    traced: Callable[..., Any], *batches: tf.Tensor, calls_python: bool
) -> list[np.ndarray]:
    """Run a traced function on halves of its inputs side by side, and bring its outputs to NumPy.

    Args:
        traced: takes and returns tensors, nested or not, with a row for each image.
        calls_python: as `side_by_side`.

    Returns:
        The outputs, flat.
    """

    def run(part: slice) -> list[np.ndarray]:
        found = traced(*(batch[part] for batch in batches))
        return [tensor.numpy() for tensor in tf.nest.flatten(found)]

    halves = side_by_side(run, len(batches[0]), calls_python=calls_python)
    return [np.concatenate(parts) for parts in zip(*halves, strict=True)]


def join(parts: Sequence[tuple[tf.Tensor, ...]]) -> tuple[tf.Tensor, ...]:
    """Join what parts of a batch gave, tensor by tensor."""
    if len(parts) == 1:
        return parts[0]
    return tuple(tf.concat(tensors, axis=0) for tensors in zip(*parts, strict=True))


def runs_python(traced: Any) -> bool:
    """Tell whether a traced function calls somebody's Python when it is run."""
    inner = traced.graph.as_graph_def().library.function
    called = {node.op for function in inner for node in function.node_def}
    called |= {operation.type for operation in traced.graph.get_operations()}
    return bool(called & {"PyFunc", "PyFuncStateless", "EagerPyFunc"})


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the thread for second halves."""
    return ThreadPoolExecutor(1, thread_name_prefix="half")
