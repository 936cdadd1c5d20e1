"""Every operation of a model is seen, in order, by the right thread, and nothing stays behind."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.predict.tracing import enclosing_operations, observe_operations

ORIGINAL_CALL = keras.Operation.__call__


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    yield
    assert keras.Operation.__call__ is ORIGINAL_CALL
    assert enclosing_operations() == ()


def nested_model():
    inner = keras.Sequential(
        [keras.layers.Dense(3, name="first"), keras.layers.ReLU(name="relu")], name="inner"
    )
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(1, name="last")(inner(inputs))
    return keras.Model(inputs, outputs, name="outer")


class Watcher:
    def __init__(self):
        self.seen = []
        self.tensors = []

    def __call__(self, path, operation, first_input, output):
        self.seen.append(("/".join(path), type(operation).__name__))
        self.tensors.append((first_input, output, enclosing_operations()))

    @property
    def paths(self):
        return [path for path, _ in self.seen]


X = np.ones((4, 2), np.float32)
NESTED_PATHS = ["outer/inner/first", "outer/inner/relu", "outer/last", "outer"]


def without_inputs(watcher):
    return [p for p in watcher.paths if "sequential" not in p and "input" not in p]


def test_inner_operations_come_first_and_carry_their_path():
    model, watcher = nested_model(), Watcher()
    with observe_operations(watcher):
        model(X)
    kept = [path for path in without_inputs(watcher) if path != "outer/inner"]
    assert kept == NESTED_PATHS
    assert watcher.paths.index("outer/inner/relu") < watcher.paths.index("outer/inner")


def test_inputs_outputs_and_enclosing_operations():
    model, watcher = nested_model(), Watcher()
    with observe_operations(watcher):
        output = model(tf.constant(X))
    by_path = dict(zip(watcher.paths, watcher.tensors, strict=True))
    assert by_path["outer"][1] is output
    assert by_path["outer"][2] == ()
    first_input, first_output, around = by_path["outer/inner/first"]
    assert first_input.shape == (4, 2) and first_output.shape == (4, 3)
    assert [operation.name for operation in around] == ["outer", "inner"]
    assert by_path["outer/inner/relu"][0] is first_output
    assert [operation.name for operation in by_path["outer/last"][2]] == ["outer"]


def test_a_traced_function_is_watched_once():
    model, watcher = nested_model(), Watcher()

    @tf.function(autograph=False)
    def run(x):
        with observe_operations(watcher):
            return model(x)

    first = run(tf.constant(X))
    n_seen = len(watcher.seen)
    np.testing.assert_array_equal(run(tf.constant(X)), first)
    assert len(watcher.seen) == n_seen > 0


def test_watching_does_not_change_the_outputs():
    model = nested_model()
    plain = model(X).numpy()
    with observe_operations(Watcher()):
        np.testing.assert_array_equal(model(X), plain)


def test_operations_that_are_no_layers_are_seen():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.ops.relu(inputs) + 1, name="m")
    watcher = Watcher()
    with observe_operations(watcher):
        model(X)
    assert [kind for _, kind in watcher.seen if kind in ("Relu", "ReLU", "Add")][-1] == "Add"


def test_a_subclassed_model_and_keyword_arguments():
    class Custom(keras.Model):
        def __init__(self):
            super().__init__(name="custom")
            self.dense = keras.layers.Dense(2, name="dense")

        def call(self, x):
            return self.dense(inputs=x)

    watcher = Watcher()
    model = Custom()
    model(X)  # builds it
    with observe_operations(watcher):
        model(X)
    assert watcher.paths == ["custom/dense", "custom"]
    assert watcher.tensors[0][0] is not None


def test_a_layer_called_twice_is_seen_twice():
    dense = keras.layers.Dense(2, name="shared")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, dense(dense(inputs)), name="m")
    watcher = Watcher()
    with observe_operations(watcher):
        model(X)
    assert watcher.paths.count("m/shared") == 2


def test_other_threads_are_not_watched():
    model, other, watcher = nested_model(), nested_model(), Watcher()
    other_watcher = Watcher()

    def elsewhere(watch):
        if watch:
            with observe_operations(other_watcher):
                other(X)
        else:
            other(X)

    with observe_operations(watcher):
        for watch in (False, True):
            thread = threading.Thread(target=elsewhere, args=(watch,))
            thread.start()
            thread.join()
        assert watcher.seen == []
        assert [p for p in without_inputs(other_watcher) if p != "outer/inner"] == NESTED_PATHS
        model(X)  # the other thread's end did not switch this one off
    assert watcher.seen != []


def test_an_exception_in_the_model_leaves_nothing_behind():
    model, watcher = nested_model(), Watcher()
    with pytest.raises(ValueError, match="incompatible"), observe_operations(watcher):
        model(np.ones((4, 7), np.float32))
    assert model(X).shape == (4, 1)


def test_an_exception_in_the_observer_leaves_nothing_behind():
    def fail(*_):
        raise KeyError("mine")

    model = nested_model()
    with pytest.raises(KeyError, match="mine"), observe_operations(fail):
        model(X)
    watcher = Watcher()
    with observe_operations(watcher):
        model(X)
    assert watcher.paths[-1] == "outer"


def test_an_exception_caught_inside_keeps_the_path():
    model, watcher = nested_model(), Watcher()
    with observe_operations(watcher):
        with pytest.raises(ValueError, match="incompatible"):
            model(np.ones((4, 7), np.float32))
        watcher.seen.clear()
        model(X)
    assert watcher.paths[-1] == "outer"


def test_watching_inside_watching_starts_afresh_and_ends_where_it_was():
    model, outer, inner = nested_model(), Watcher(), Watcher()
    with observe_operations(outer):
        with observe_operations(inner):
            model(X)
        assert outer.seen == []
        model(X)
    assert inner.seen == outer.seen
    n_seen = len(outer.seen)
    model(X)
    assert len(outer.seen) == n_seen
