"""Two halves of a batch at once: which they are, that they overlap, and what of errors."""

import threading
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from audit.predict.side_by_side import (
    LEAST,
    arrays_in_halves,
    in_halves,
    runs_python,
    side_by_side,
)


def indices(part: slice) -> list[int]:
    return list(range(part.start, part.stop))


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(0, [0]), (1, [1]), (LEAST - 1, [LEAST - 1]), (8, [4, 4]), (16, [8, 8]), (21, [11, 10])],
)
def test_halves_by_hand(n, sizes):
    parts = side_by_side(indices, n)
    assert [len(part) for part in parts] == sizes
    assert [*chain(*parts)] == list(range(n))


def test_halves_are_at_work_at_the_same_time():
    both_are_there = threading.Barrier(2, timeout=20)

    def call(part: slice) -> int:
        both_are_there.wait()  # One after the other, they would wait here in vain.
        return part.start

    assert side_by_side(call, 16) == [0, 8]


@pytest.mark.parametrize("failing", [0, 8])
def test_an_error_is_raised_once_both_have_ended(failing):
    ended = []

    def call(part: slice) -> None:
        if part.start == failing:
            raise ValueError(part.start)
        ended.append(part.start)

    with pytest.raises(ValueError, match=f"^{failing}$"):
        side_by_side(call, 16)
    assert ended == [8 - failing]


def trace(function):
    return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec((None, 2)))


@tf.function
def inner(batch):
    return tf.py_function(lambda array: array * 2, [batch], tf.float32)


def doubled(batch):
    return (batch * 2,)


def doubled_by_python(batch):
    return (tf.ensure_shape(tf.numpy_function(lambda a: a * 2, [batch], tf.float32), (None, 2)),)


def doubled_by_python_further_in(batch):
    return (tf.ensure_shape(inner(batch), (None, 2)),)


@pytest.mark.parametrize(
    ("function", "sizes"),
    [(doubled, [10, 11]), (doubled_by_python, [21]), (doubled_by_python_further_in, [21])],
)
def test_what_calls_python_gets_the_whole_batch(function, sizes):
    traced, seen = trace(function), []

    def call(batch):
        seen.append(len(batch))
        return traced(batch)

    batch = tf.reshape(tf.range(42.0), (21, 2))
    (found,) = in_halves(call, traced)(batch)
    np.testing.assert_array_equal(found, 2 * batch)
    assert sorted(seen) == sizes
    assert runs_python(traced) == (len(sizes) == 1)


@pytest.mark.parametrize("n", [5, 21])
def test_nested_outputs_come_as_flat_arrays_of_all_rows(n):
    first, second = tf.range(n), 10 * tf.range(n)

    def traced(a, b):
        return a + b, [(a, -b)]

    found = arrays_in_halves(traced, first, second, calls_python=False)
    rows = np.arange(n)
    for array, expected in zip(found, (11 * rows, rows, -10 * rows), strict=True):
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, expected)


def test_a_gpu_gets_the_whole_batch(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["/GPU:0"])
    assert side_by_side(indices, 100) == [list(range(100))]
