"""See every operation of a Keras model while it is traced, however deep it is nested.

Asking for the outputs of inner layers fails for nested and subclassed models. Every layer call
ends in `keras.Operation.__call__`, so watching that one method while TensorFlow traces the model
shows all of them, in the order in which data takes them. The switch is per thread: models that
other threads call in the meantime are not watched. Beside it stands the switch that lets layers of
half precision compute in single precision.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import keras
import tensorflow as tf

OperationObserver = Callable[[tuple[str, ...], keras.Operation, Any, Any], None]
"""Called after each operation with its path of names, itself, its first input, and its output."""

HALF_PRECISION = ("float16", "bfloat16")


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

    Inner operations are reported before the operation that contains them. A layer whose `call` is a
    `tf.function` runs as the Python function in it, so that its inner operations are seen too.
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
        with _call_unwrapped(operation):
            outputs = _original_call(operation, *args, **kwargs)
        path, _watch.parents = _watch.path, outer_parents
        observer(path, operation, next(iter((*args, *kwargs.values())), None), outputs)
    finally:
        _watch.path, _watch.parents = outer_path, outer_parents
    return outputs


@contextmanager
def _call_unwrapped(operation: keras.Operation) -> Iterator[None]:
    """Put the Python function of an operation's `call` in its place if that is a `tf.function`.

    A `tf.function` has a graph of its own, into which a tape does not see from outside.
    """
    attributes = vars(operation)  # Past `Layer.__setattr__`, which would track what it is given.
    own = attributes.get("call")
    function = getattr(own or type(operation).call, "python_function", None)
    if function is None:
        yield
        return
    if inspect.ismethod(function):
        attributes["call"] = MethodType(_with_autograph(function.__func__), function.__self__)
    elif own is None:
        attributes["call"] = MethodType(_with_autograph(function), operation)
    else:
        attributes["call"] = _with_autograph(function)
    try:
        yield
    finally:
        if own is None:
            del attributes["call"]
        else:
            attributes["call"] = own


def _with_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose loops and conditions may hang on tensors, as in a `tf.function`."""
    try:
        return tf.autograph.to_graph(function)
    except Exception:  # AutoGraph raises whatever it stumbles over; a `tf.function` goes on, too.
        return function


def all_layers(model: Any) -> list[keras.Layer]:
    """Return a model and all layers in it, however deep; none for what is no Keras model."""
    return model._flatten_layers() if isinstance(model, keras.Layer) else []


class _Float32Policy(keras.DTypePolicy):  # type: ignore[misc]
    """Computes in float32 on variables that keep their type."""

    def __init__(self, saved: keras.DTypePolicy) -> None:
        super().__init__("float32")
        self._saved_variable_dtype = saved.variable_dtype

    @property
    def variable_dtype(self) -> str:
        """The type of the variables: where it is not float32, Keras casts them as they are read."""
        return self._saved_variable_dtype


@contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Let the layers of a model that compute in half precision do so in float32 inside the block.

    Gradients of half precision vanish: of 153 layers of a float16 MobileNetV2, 152 had an image
    whose gradient was zero throughout. Layers of other precisions, and quantised ones, are left
    alone. The layers are changed in place, so no other thread should use the model meanwhile.
    """
    layers = all_layers(model)
    saved = [
        (layer, layer.dtype_policy)
        for layer in layers
        if layer.compute_dtype in HALF_PRECISION and _is_plain(layer.dtype_policy)
    ]
    # A model inside a model casts what it is given to the type of its inputs.
    inputs = [layer for layer in layers if isinstance(layer, keras.layers.InputLayer)]
    inputs += [x for layer in layers for x in keras.tree.flatten(getattr(layer, "inputs", ()))]
    cast = [(x, x.dtype) for x in inputs if x.dtype in HALF_PRECISION]
    try:
        for layer, policy in saved:
            layer.dtype_policy = _Float32Policy(policy)
        for given, _ in cast:
            given._dtype = "float32"
        yield
    finally:
        for layer, policy in saved:
            layer.dtype_policy = policy
        for given, dtype in cast:
            given._dtype = dtype


def computes_in_half(model: keras.Model) -> str | None:
    """Return the least precise type that layers of a model compute in, or `None` if none is half.

    "bfloat16" keeps 8 bits of a number, "float16" 11, float32 24.
    """
    found = {layer.compute_dtype for layer in all_layers(model)}
    return next((name for name in reversed(HALF_PRECISION) if name in found), None)


def _is_plain(policy: keras.DTypePolicy) -> bool:
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return not is_map and policy.quantization_mode is None


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
