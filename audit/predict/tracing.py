"""See every operation of a Keras model while it is traced, however deep it is nested.

Asking for the outputs of inner layers fails for nested and subclassed models. Every layer call
ends in `keras.Operation.__call__`, so watching that one method while TensorFlow traces the model
shows all of them, in the order in which data takes them. The switch is per thread: models that
other threads call in the meantime are not watched.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

OperationObserver = Callable[[tuple[str, ...], keras.Operation, Any, Any], None]
"""Called after each operation with its path of names, itself, its first input, and its output."""


class _Watch(threading.local):
    observer: OperationObserver | None = None
    path: tuple[str, ...] = ()
    parents: tuple[keras.Operation, ...] = ()


_watch = _Watch()
_patch_lock = threading.Lock()
_patched_by = 0
_original_call = keras.Operation.__call__


@contextmanager
def observe_operations(observer: OperationObserver) -> Iterator[None]:
    """Call `observer` after every operation that this thread calls inside the block.

    Inner operations are reported before the operation that contains them.
    """
    _install()
    before = _watch.observer, _watch.path, _watch.parents
    _watch.observer, _watch.path, _watch.parents = observer, (), ()
    try:
        yield
    finally:
        _watch.observer, _watch.path, _watch.parents = before
        _uninstall()


def enclosing_operations() -> tuple[keras.Operation, ...]:
    """Return the operations around the one that is reported, outermost first."""
    return _watch.parents


def _observed_call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    observer = _watch.observer
    if observer is None:
        return _original_call(operation, *args, **kwargs)
    outer_path, outer_parents = _watch.path, _watch.parents
    _watch.path = (*outer_path, operation.name)
    _watch.parents = (*outer_parents, operation)
    try:
        outputs = _original_call(operation, *args, **kwargs)
        path, _watch.parents = _watch.path, outer_parents
        observer(path, operation, next(iter((*args, *kwargs.values())), None), outputs)
    finally:
        _watch.path, _watch.parents = outer_path, outer_parents
    return outputs


def _install() -> None:
    global _patched_by
    with _patch_lock:
        _patched_by += 1
        keras.Operation.__call__ = _observed_call


def _uninstall() -> None:
    global _patched_by
    with _patch_lock:
        _patched_by -= 1
        if _patched_by == 0:
            keras.Operation.__call__ = _original_call
