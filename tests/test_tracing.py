"""Every operation of a model is seen, in order, by the right thread, and nothing stays behind."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.predict.tracing import (
    all_layers,
    computes_in_half,
    enclosing_operations,
    in_float32,
    observe_operations,
)

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


# Layers that are functions of TensorFlow


class Compiled(keras.layers.Layer):
    """A layer whose call is a `tf.function`, with a condition that hangs on a tensor."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2, name="dense")

    @tf.function
    def call(self, x):
        if tf.reduce_sum(x) > 0:
            x = 2 * x
        for _ in tf.range(3):
            x = x + 1
        return self.dense(x)


def compiled_model():
    return keras.Sequential([keras.Input((2,)), Compiled(name="compiled")], name="m")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_inside_of_a_compiled_layer_is_seen_with_its_conditions_and_loops(sign):
    model, watcher = compiled_model(), Watcher()
    x = tf.constant(sign * X)
    plain = model(x).numpy()
    before = vars(Compiled)["call"]
    with observe_operations(watcher):
        np.testing.assert_allclose(model(x), plain, rtol=1e-6)

    @tf.function(autograph=False)
    def traced(x):
        with observe_operations(Watcher()):
            return model(x)

    np.testing.assert_allclose(traced(x), plain, rtol=1e-6)
    assert watcher.paths[-3:] == ["m/compiled/dense", "m/compiled", "m"]
    assert vars(Compiled)["call"] is before
    assert "call" not in vars(model.layers[0])
    np.testing.assert_allclose(model(x), plain, rtol=0)


def test_gradients_reach_the_inside_of_a_compiled_layer():
    model = compiled_model()
    sources, by_hand = {}, None

    @tf.function(autograph=False)
    def gradient_of_dense(x):
        with tf.GradientTape() as tape:

            def watch(path, operation, first_input, output):
                if path[-1] == "dense":
                    tape.watch(output)
                    sources["dense"] = output

            with observe_operations(watch):
                score = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(score, sources["dense"]), 2 * sources["dense"]

    found, by_hand = gradient_of_dense(tf.constant(X))
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert np.abs(found).min() > 0


def test_a_layer_that_was_compiled_by_hand_is_unwrapped_and_kept():
    model, watcher = nested_model(), Watcher()
    dense = model.get_layer("inner").layers[0]
    plain = model(X).numpy()
    dense.call = compiled = tf.function(dense.call)
    with observe_operations(watcher):
        np.testing.assert_allclose(model(X), plain, rtol=1e-6)
    assert dense.call is compiled
    assert "outer/inner/first" in watcher.paths


def test_a_compiled_function_without_source_is_unwrapped_too():
    names = {"keras": keras, "tf": tf}
    exec("function = tf.function(lambda x, **_: x + 1)", names)
    layer, watcher = keras.layers.Lambda(lambda x: x), Watcher()
    layer.call = names["function"]
    with observe_operations(watcher):
        np.testing.assert_array_equal(layer(X), X + 1)
    assert layer.call is names["function"]


def test_a_compiled_layer_that_fails_is_restored():
    class Fails(keras.layers.Layer):
        @tf.function
        def call(self, x):
            raise KeyError("mine")

    layer = Fails()
    with pytest.raises(Exception, match="mine"), observe_operations(Watcher()):
        layer(tf.constant(X))
    assert "call" not in vars(layer)


# Precision


def half_model(policy):
    """Return a model whose layers compute in half precision, with all kinds of variables."""
    keras.utils.set_random_seed(0)
    norms = [
        keras.layers.BatchNormalization(dtype=policy),
        keras.layers.LayerNormalization(dtype=policy),
    ]
    inner = keras.Sequential(  # Built when it is called: with an input of half precision.
        [
            keras.layers.Conv2D(4, 3, dtype=policy),
            keras.Sequential(norms, name="norms"),
            keras.layers.DepthwiseConv2D(3, dtype=policy),
        ],
        name="inner",
    )
    keras.config.set_floatx(
        policy if policy.endswith("16") and "mixed" not in policy else "float32"
    )
    inputs = keras.Input((12, 12, 3))
    keras.config.set_floatx("float32")
    x = inner(keras.layers.Rescaling(1 / 255, dtype=policy)(inputs))
    x = keras.layers.Reshape((64, 4), dtype=policy)(x)
    x = keras.layers.MultiHeadAttention(2, 3, dtype=policy)(x, x)
    x = keras.layers.GlobalAveragePooling1D(dtype=policy)(x)
    model = keras.Model(inputs, keras.layers.Dense(3, dtype=policy)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 0.8, weight.shape))
    return model


def inputs_of(model):
    return [x for layer in all_layers(model) for x in getattr(layer, "inputs", [])]


PIXELS = np.random.default_rng(1).uniform(0, 255, (4, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_becomes_single_and_is_restored(policy):
    model = half_model(policy)
    policies = [layer.dtype_policy for layer in all_layers(model)]
    assert sum(layer.compute_dtype in ("float16", "bfloat16") for layer in all_layers(model)) > 10
    plain = model(PIXELS)
    input_dtypes = [x.dtype for x in inputs_of(model)]
    assert {"float16", "bfloat16"} & set(input_dtypes)
    weights = [weight.numpy().tobytes() for weight in model.weights]
    watcher = Watcher()
    with in_float32(model), observe_operations(watcher):
        single = model(PIXELS)
        assert {layer.compute_dtype for layer in all_layers(model)} == {"float32"}
    outputs = [o for _, o, _ in watcher.tensors if isinstance(o, tf.Tensor) and o.shape.rank > 1]
    assert len(outputs) > 10
    assert {tensor.dtype for tensor in outputs} == {tf.float32}
    assert [x.dtype for x in inputs_of(model)] == input_dtypes

    # As precise as a float32 model of the same, rounded, weights.
    wanted = half_model("float32")
    wanted.set_weights([tf.cast(w.value, tf.float32).numpy() for w in model.weights])
    np.testing.assert_allclose(single, wanted(PIXELS), rtol=1e-5)

    assert [layer.dtype_policy for layer in all_layers(model)] == policies
    assert all(a.dtype_policy is b for a, b in zip(all_layers(model), policies, strict=True))
    assert [weight.numpy().tobytes() for weight in model.weights] == weights
    assert model(PIXELS).dtype == plain.dtype == (policy.removeprefix("mixed_"))
    assert model(PIXELS).numpy().tobytes() == plain.numpy().tobytes()


def test_precision_is_restored_after_an_exception():
    model = half_model("mixed_float16")
    with pytest.raises(KeyError, match="mine"), in_float32(model):
        raise KeyError("mine")
    assert computes_in_half(model) == "float16"
    assert model(PIXELS).dtype == tf.float16


def test_other_precisions_are_left_alone():
    layers = [keras.layers.Dense(3, dtype=policy) for policy in ("float64", "float32", "float16")]
    model = keras.Sequential([keras.Input((2,)), *layers])
    with in_float32(model):
        assert [layer.compute_dtype for layer in layers] == ["float64", "float32", "float32"]
    assert [layer.compute_dtype for layer in layers] == ["float64", "float32", "float16"]


@pytest.mark.parametrize(
    ("policies", "half"),
    [
        (["float32", "float64"], None),
        (["float32", "mixed_float16"], "float16"),
        (["float16", "mixed_bfloat16", "float32"], "bfloat16"),
    ],
)
def test_the_least_precise_type_is_known(policies, half):
    layers = [keras.layers.Dense(3, dtype=policy) for policy in policies]
    assert computes_in_half(keras.Sequential([keras.Input((2,)), *layers])) == half


def test_what_is_no_keras_model_has_no_layers():
    with in_float32(len):
        assert all_layers(len) == []
    assert computes_in_half(len) is None
