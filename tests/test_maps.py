"""All layers in one pass, against one layer at a time; and what is stored of the maps."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.config import KeepMaps, Method
from audit.errors import ModelError
from audit.explain import differentiate as differentiate_module
from audit.explain.capture import Layer
from audit.explain.maps import (
    FUSED_SIDE,
    STORED_SIDE,
    BatchMaps,
    Explainer,
    choose_stored_side,
    fit_into,
)
from audit.predict.dataset import FileSource
from audit.predict.listing import list_images
from audit.predict.model import AuditedModel, wrap_model
from audit.run_folder import FUSED_LAYER

METHODS = [method for method in get_args(Method) if method != "occlusion"]
Step = tuple[str, Callable[[tf.Tensor], tf.Tensor]]
"""A layer's key and the function that computes its output from the one before."""


def random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Fill a model with weights that leave no layer idle; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            weight.assign(rng.normal(0, 0.1, shape))
        else:
            weight.assign(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape))
    return model


def all_signed_maps(
    model: AuditedModel, pixels: np.ndarray, classes: np.ndarray, method: Method = "gradcam"
) -> dict[str, np.ndarray]:
    """Return what one pass of the engine gives: (n, height, width, k) by layer."""
    explainer, keys = Explainer(model, method=method), []

    @tf.function(autograph=False)
    def run(pixels: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        _, kept, maps = explainer.signed_maps(pixels, classes)
        keys[:] = [layer.layer for layer in kept]
        return maps

    maps = run(tf.constant(pixels), tf.constant(classes, tf.int32))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, (values.numpy() for values in maps), strict=True))


def one_layer(
    activations: tf.Tensor, score: Callable[[tf.Tensor], tf.Tensor], method: Method = "gradcam"
) -> np.ndarray:
    """Return the signed map of one layer with a tape of its own; the score is of shape (n,)."""
    with tf.GradientTape() as tape:
        tape.watch(activations)
        total = tf.reduce_sum(score(activations))
    gradients = tape.gradient(total, activations).numpy()
    values = activations.numpy()
    if method in ("hirescam", "layercam"):
        weights = np.maximum(gradients, 0) if method == "layercam" else gradients
        return (values * weights).sum(axis=-1)
    if method == "gradcam++":  # the paper's fraction as it stands
        squared = gradients**2
        total_activation = values.sum(axis=(1, 2), keepdims=True)
        with np.errstate(invalid="ignore"):
            alpha = squared / (2 * squared + total_activation * gradients**3)
        weights = (np.nan_to_num(alpha) * np.maximum(gradients, 0)).sum(axis=(1, 2))
        return np.einsum("nhwc,nc->nhw", values, weights)
    if method == "article":
        gradients = (values > 0) * (gradients > 0) * gradients
    return np.einsum("nhwc,nc->nhw", values, gradients.mean(axis=(1, 2)))


def step_by_step(
    steps: Sequence[Step],
    pixels: np.ndarray,
    scores: Sequence[Callable[[tf.Tensor], tf.Tensor]],
    method: Method = "gradcam",
) -> dict[str, np.ndarray]:
    """Return the maps of a chain of layers, one layer at a time.

    Args:
        steps: the layers in order, each with its key, or "" for one without a map.
        scores: for each explained class, the score of shape (n,) from the last step's output.
    """
    found = {}
    for position, (key, _) in enumerate(steps):
        if not key:
            continue
        x = tf.constant(pixels)
        for _, layer in steps[: position + 1]:
            x = layer(x)

        def finish(x: tf.Tensor, rest: Sequence[Step] = steps[position + 1 :]) -> tf.Tensor:
            for _, layer in rest:
                x = layer(x)
            return x

        columns = [one_layer(x, lambda x, s=score: s(finish(x)), method) for score in scores]
        found[key] = np.stack(columns, axis=-1)
    return found


def assert_same_maps(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for key, reference in expected.items():
        scale = np.abs(reference).max()
        assert scale > 0, f"{key} is empty, which proves nothing"
        np.testing.assert_allclose(found[key], reference, rtol=0, atol=1e-9 * scale, err_msg=key)


def draw_pixels(n: int, side: int, channels: int = 3, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 255, (n, side, side, channels)).astype(dtype)


def single_logit_cnn() -> tuple[keras.Model, list[Step]]:
    """A plain CNN with one logit, and its layers in order."""
    layers = [
        keras.layers.Rescaling(1 / 255, name="scale"),
        keras.layers.Conv2D(4, 3, padding="same", name="conv_1"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.ReLU(name="relu"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.DepthwiseConv2D(3, padding="same", activation="tanh", name="depth"),
        keras.layers.Conv2D(6, 1, activation="swish", name="conv_2"),
    ]
    inputs = x = keras.Input((16, 16, 3))
    for layer in layers:
        x = layer(x)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    model = random_weights(keras.Model(inputs, head[1](head[0](x))))
    steps = [(layer.name, lambda x, layer=layer: layer(x, training=False)) for layer in layers]
    return model, [("", steps[0][1]), *steps[1:], *[("", layer) for layer in head]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("float64")
def test_a_functional_cnn_agrees_with_one_layer_at_a_time(method: Method):
    model, steps = single_logit_cnn()
    pixels, classes = draw_pixels(3, 16), np.array([[1, 0], [0, 1], [1, 1]])
    found = all_signed_maps(wrap_model(model), pixels, classes, method)
    expected = step_by_step(steps, pixels, [lambda z: -z[:, 0], lambda z: z[:, 0]], method)
    chosen = {  # the two columns are those classes of each image
        key: np.stack([values[i][..., classes[i]] for i in range(3)])
        for key, values in expected.items()
    }
    assert list(found) == list(expected)
    assert_same_maps(found, chosen)


@pytest.mark.usefixtures("float64")
def test_class_0_of_a_single_output_is_explained_by_the_negative_logit():
    model, _ = single_logit_cnn()
    found = all_signed_maps(wrap_model(model), draw_pixels(2, 16), np.array([[0, 1], [1, 0]]))
    for values in found.values():
        np.testing.assert_array_equal(values[..., 0], -values[..., 1])


@pytest.mark.usefixtures("float64")
def test_a_sigmoid_is_explained_by_the_logit_even_where_it_is_saturated():
    model, _ = single_logit_cnn()
    *_, dense = model.layers
    sigmoid = keras.layers.Dense(1, activation="sigmoid", name="sigmoid")
    saturated = keras.Model(model.inputs, sigmoid(dense.input))
    kernel, bias = dense.get_weights()
    sigmoid.set_weights([kernel, bias + 100])  # p = 1.0: its gradient is 0
    pixels, classes = draw_pixels(2, 16), np.array([[1, 0], [1, 0]])
    found = all_signed_maps(wrap_model(saturated), pixels, classes)
    assert_same_maps(found, all_signed_maps(wrap_model(model), pixels, classes))


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.usefixtures("float64")
def test_several_outputs_are_explained_class_by_class(activation: str | None):
    conv = keras.layers.Conv2D(5, 3, activation="relu", name="conv")
    pool = keras.layers.GlobalAveragePooling2D()
    dense = keras.layers.Dense(3, activation=activation)
    model = random_weights(
        keras.Sequential([keras.Input((12, 12, 3)), conv, pool, dense], name="net")
    )
    pixels, classes = draw_pixels(4, 12) / 255, np.array([[0, 1], [1, 2], [2, 0], [1, 1]])
    found = all_signed_maps(wrap_model(model), pixels, classes)
    logits: list[Step] = [
        ("conv", conv),
        ("", pool),
        ("", lambda x: tf.matmul(x, dense.kernel.value) + dense.bias.value),
    ]
    expected = step_by_step(logits, pixels, [lambda z, c=c: z[:, c] for c in range(3)])["conv"]
    chosen = np.stack([expected[i][..., classes[i]] for i in range(4)])
    assert_same_maps(found, {"conv": chosen})


@pytest.mark.usefixtures("float64")
def test_a_nested_backbone_agrees_with_the_sub_models_of_the_article():
    backbone = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, include_top=False, weights=None
    )
    random_weights(backbone)
    scale = keras.layers.Rescaling(1 / 127.5, -1)
    pool, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((64, 64, 3)), scale, backbone, pool, dense], name="net")
    pixels = draw_pixels(2, 64)
    found = all_signed_maps(wrap_model(model), pixels, np.array([[1, 0], [1, 0]]))
    # 155 layers without the input layer, of which the last is the backbone's own output.
    inner = [layer for layer in backbone.layers[1:] if isinstance(layer, keras.layers.Layer)]
    for layer in [*inner[::40], inner[-1]]:
        with tf.GradientTape() as tape:
            sub_model = keras.Model(backbone.inputs, [layer.output, backbone.output])
            activations, x = sub_model(scale(tf.constant(pixels)), training=False)
            score = tf.reduce_sum(dense(pool(x)))
        weights = tf.reduce_mean(tape.gradient(score, activations), axis=(1, 2)).numpy()
        cam = np.einsum("nhwc,nc->nhw", activations.numpy(), weights)
        name = f"{backbone.name}/{layer.name}"
        key = name if name in found else f"{name}/pad"  # ZeroPadding2D is a layer around `pad`
        assert_same_maps(found, {key: np.stack([cam, -cam], axis=-1)})


class _Subclassed(keras.Model):
    """A model that Keras knows no graph of, with a branch that joins again."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.first = keras.layers.Conv2D(4, 3, padding="same", activation="tanh", name="first")
        self.second = keras.layers.Conv2D(4, 3, padding="same", name="second")
        self.add = keras.layers.Add(name="add")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")
        self.dense = keras.layers.Dense(1, name="dense")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = self.first(images / 255)
        return self.dense(self.pool(self.add([x, self.second(x)])))


@pytest.mark.usefixtures("float64")
def test_a_subclassed_model_agrees_with_one_layer_at_a_time():
    model = _Subclassed()
    pixels = draw_pixels(2, 10)
    model(tf.constant(pixels))
    random_weights(model)
    found = all_signed_maps(
        wrap_model(model, input_shape=(10, 10, 3)), pixels, np.array([[1, 0], [1, 0]])
    )

    def score(joined: tf.Tensor) -> tf.Tensor:
        return model.dense(model.pool(joined))[:, 0]

    first = model.first(tf.constant(pixels) / 255)
    second = model.second(first)
    expected = {
        "first": one_layer(first, lambda x: score(x + model.second(x))),
        "second": one_layer(second, lambda x: score(first + x)),
        "add": one_layer(first + second, score),
    }
    assert list(found) == list(expected)
    assert_same_maps(found, {k: np.stack([v, -v], axis=-1) for k, v in expected.items()})


@pytest.mark.usefixtures("float64")
def test_each_call_of_a_shared_layer_has_its_own_map():
    shared = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    pool, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)
    inputs = keras.Input((9, 9, 3))
    model = random_weights(keras.Model(inputs, dense(pool(shared(shared(inputs))))))
    pixels = draw_pixels(2, 9) / 255
    found = all_signed_maps(wrap_model(model), pixels, np.array([[0, 1], [0, 1]]))
    steps: list[Step] = [("shared", shared), ("shared#2", shared), ("", pool), ("", dense)]
    expected = step_by_step(steps, pixels, [lambda z: -z[:, 0], lambda z: z[:, 0]])
    assert list(found) == ["shared", "shared#2"]
    assert_same_maps(found, expected)


def article_cam(
    grad_model: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], img_array: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Run the article's code on one image, in float64: the cam, and the heat-map in [0, 1]."""
    with tf.GradientTape() as tape:
        inputs = tf.cast(img_array, tf.float64)
        (conv_outputs, predictions) = grad_model(inputs)
        loss = predictions[:, 0]
    grads = tape.gradient(loss, conv_outputs)
    cast_conv_outputs = tf.cast(conv_outputs > 0, "float64")
    cast_grads = tf.cast(grads > 0, "float64")
    guided_grads = cast_conv_outputs * cast_grads * grads
    conv_outputs = conv_outputs[0]
    guided_grads = guided_grads[0]
    weights = tf.reduce_mean(guided_grads, axis=(0, 1))
    cam = tf.reduce_sum(tf.multiply(weights, conv_outputs), axis=-1)
    (w, h) = (img_array.shape[2], img_array.shape[1])
    heatmap = cv2.resize(cam.numpy(), (w, h))
    numer = heatmap - np.min(heatmap)
    denom = (heatmap.max() - heatmap.min()) + 1e-8
    return cam.numpy(), numer / denom


ARTICLE_LAYERS = ("block_1_expand_relu", "block_6_expand_relu", "Conv_1")


@pytest.mark.slow
def test_three_layers_of_a_real_error_agree_with_the_articles_code(shared_data: Path):
    path = shared_data / "cats_dogs" / "models" / "article_style_mobilenetv2_035_n400.keras"
    model = keras.saving.load_model(path, compile=False)
    pixels = _first_cat_called_dog(model, shared_data / "cats_dogs" / "val")
    double = keras.models.model_from_json(model.to_json().replace("float32", "float64"))
    double.set_weights(model.get_weights())

    _, rescaling, backbone, pool, _, dense = double.layers  # dropout does nothing here
    wanted = {}
    for name in ARTICLE_LAYERS:
        sub_model = keras.Model(backbone.inputs, [backbone.get_layer(name).output, backbone.output])

        def grad_model(inputs: tf.Tensor, sub_model: keras.Model = sub_model) -> Any:
            conv_outputs, features = sub_model(rescaling(inputs), training=False)
            return conv_outputs, dense(pool(features))

        wanted[f"{backbone.name}/{name}"] = article_cam(grad_model, pixels)

    dog = np.array([[1, 1]])
    in_double = all_signed_maps(wrap_model(double), pixels.astype("float64"), dog, "article")
    in_single = all_signed_maps(wrap_model(model), pixels, dog, "article")
    for key, (cam, heatmap) in wanted.items():
        for found in (in_double[key], in_single[key]):
            np.testing.assert_allclose(found[0, ..., 0], cam, rtol=0, atol=1e-5 * np.ptp(cam))
            large = cv2.resize(found[0, ..., 0], (224, 224))
            scaled = (large - large.min()) / np.ptp(large)
            np.testing.assert_allclose(scaled, heatmap, rtol=0, atol=1e-5)


def _first_cat_called_dog(model: keras.Model, data: Path) -> np.ndarray:
    """Return float32 of shape (1, 224, 224, 3)."""
    source = FileSource(list_images(data), (224, 224), 3)
    predict = tf.function(model, reduce_retracing=True)
    for _, pixels in source.batches(range(1000), 32):  # the cats come first
        called_dog = np.flatnonzero(predict(pixels, training=False).numpy()[:, 0] >= 0)
        if len(called_dog):
            return pixels.numpy()[called_dog[:1]]
    raise AssertionError("the model made no error")


# What is stored


def small_explainer(method: Method = "gradcam", head: str = "logit") -> Explainer:
    import drawn_set

    return Explainer(wrap_model(drawn_set.corner_model(head)), method=method)


def rows(maps: BatchMaps, index: int, column: int) -> dict[str, tuple[float, np.ndarray]]:
    return {layer: (peak, cam) for layer, peak, cam in maps.of_image(index, column)}


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_map_is_within_a_255th_of_its_peak(method: Method):
    explainer = small_explainer(method)
    pixels, classes = draw_pixels(3, 32, dtype="float32"), np.array([[1, 0], [0, 1], [1, 0]])
    exact = all_signed_maps(explainer.model, pixels, classes, method)
    stored = explainer.explain(tf.constant(pixels), classes)
    for index in range(3):
        for column in range(2):
            found = rows(stored, index, column)
            assert list(found)[-1] == FUSED_LAYER
            assert set(found) - {FUSED_LAYER} == set(exact)
            for layer in exact:
                peak, cam = found[layer]
                signed = exact[layer][index, ..., column]
                wanted = signed - signed.min() if method == "article" else np.maximum(signed, 0)
                if wanted.shape[0] > STORED_SIDE:
                    wanted = cv2.resize(wanted, (STORED_SIDE,) * 2, interpolation=cv2.INTER_AREA)
                assert cam.dtype == np.uint8
                assert cam.shape == wanted.shape
                assert peak == pytest.approx(wanted.max(), rel=1e-5)
                assert np.abs(cam * (peak / 255) - wanted).max() <= peak / 255 + 1e-7


def two_layer_model() -> AuditedModel:
    """Two 1 × 1 convolutions that can be followed on paper; see the test below."""
    first = keras.layers.Conv2D(1, 1, name="first")
    second = keras.layers.Conv2D(2, 1, activation="relu", name="second")
    dense = keras.layers.Dense(2, name="dense")
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), first, second, keras.layers.GlobalAveragePooling2D(), dense]
    )
    first.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    second.set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2), np.array([0.0, 2.0])])
    dense.set_weights([np.array([[2.0, 0.0], [0.0, 1.0]]), np.zeros(2)])
    return wrap_model(model)


def test_the_peak_of_the_fused_map_is_on_one_scale_for_both_classes():
    # Pixels 0 1 2 4. `first` passes them on; `second` gives B0 = 0 1 2 4 and B1 = relu(2 - x)
    # = 2 1 0 0. Logits: z0 = 2 · mean(B0), z1 = mean(B1).
    # Class 0. second: the weight of B0 is 2/4, the map x/2, its peak 2. first: the gradient is 2/4
    #   where x > 0 and 0 at x = 0, the weight 3/8, the map 3/8 · x, its peak 1.5.
    # Class 1. second: the weight of B1 is 1/4, the map 0.5 0.25 0 0, its peak 0.5. first: the
    #   gradient is -1/4 at x = 0 and x = 1, the weight -1/8: nothing speaks for it, the peak is 0.
    # Shared scale, mean over layers: class 0 (1.5/1.5 + 2/2) / 2 = 1; class 1 (0 + 0.5/2) / 2.
    pixels = np.array([0, 1, 2, 4], np.float32).reshape(1, 2, 2, 1)
    maps = Explainer(two_layer_model()).explain(tf.constant(pixels), np.array([[0, 1]]))
    for_0, for_1 = rows(maps, 0, 0), rows(maps, 0, 1)
    assert [for_0[key][0] for key in ("first", "second", FUSED_LAYER)] == [1.5, 2.0, 1.0]
    assert [for_1[key][0] for key in ("first", "second", FUSED_LAYER)] == [0.0, 0.5, 0.125]
    # Fused, class 0: x/4 in both layers. 255/4 = 63.75, 127.5 goes to the even 128.
    np.testing.assert_array_equal(for_0[FUSED_LAYER][1], [[0, 64], [128, 255]])
    # Class 1: 0 in `first`, 1 0.5 0 0 in `second`; their mean's peak is stored as 255.
    np.testing.assert_array_equal(for_1[FUSED_LAYER][1], [[255, 128], [0, 0]])
    np.testing.assert_array_equal(for_1["first"][1], np.zeros((2, 2)))


def test_the_scores_of_the_pass_are_the_models():
    explainer = small_explainer()
    pixels = tf.constant(draw_pixels(4, 32, dtype="float32"))
    maps = explainer.explain(pixels, np.array([[0, 1]] * 4))
    p = tf.sigmoid(explainer.model.model(pixels, training=False)).numpy()
    np.testing.assert_allclose(maps.scores, np.concatenate([1 - p, p], axis=1), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_does_not_matter(method: Method):
    model, _ = single_logit_cnn()
    explainer = Explainer(wrap_model(model), method=method)
    pixels = tf.constant(draw_pixels(5, 16, dtype="float32"))
    classes = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [1, 0]])
    together = explainer.explain(pixels, classes)
    for index in range(5):
        alone = explainer.explain(pixels[index : index + 1], classes[index : index + 1])
        for column in range(2):
            one, many = rows(alone, 0, column), rows(together, index, column)
            assert list(one) == list(many)
            for layer, (peak, cam) in one.items():
                assert many[layer][0] == pytest.approx(peak, rel=1e-4, abs=1e-7)
                np.testing.assert_allclose(many[layer][1].astype(int), cam.astype(int), atol=1)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets a number for each time that a model is traced."""
    numbers: list[int] = []

    class Counted(differentiate_module.ActivationRecorder):
        def __init__(self, watch: Callable[[tf.Tensor], None]) -> None:
            super().__init__(watch)
            numbers.append(len(numbers))

    monkeypatch.setattr(differentiate_module, "ActivationRecorder", Counted)
    return numbers


@pytest.mark.parametrize(("head", "n_traces"), [("logit", 1), ("softmax", 2)])
def test_no_batch_size_is_traced_again(head: str, n_traces: int, traced: list[int]):
    # With several outputs, batches of one class have a pass of their own.
    explainer = small_explainer(head=head)
    assert len(traced) == 1
    for n in (16, 1, 3, 16, 2, 7):
        pixels = tf.constant(draw_pixels(n, 32, dtype="float32"))
        explainer.explain(pixels, np.array([[0, 1]] * n))
        explainer.explain(pixels, np.array([[1, 1]] * n))
    assert len(traced) == n_traces


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_one_class_has_the_same_maps_in_fewer_passes(method: Method):
    explainer = small_explainer(method, head="softmax")
    pixels = tf.constant(draw_pixels(3, 32, dtype="float32"))
    both = explainer.explain(pixels, np.array([[1, 1], [0, 1], [0, 0]]))
    for index, label in ((0, 1), (2, 0)):
        alone = explainer.explain(pixels[index : index + 1], np.array([[label, label]]))
        assert alone.groups[0].peaks.shape[2] == 1
        for layer, (peak, cam) in rows(alone, 0, 0).items():
            other_peak, other = rows(both, index, 0)[layer]
            assert peak == pytest.approx(other_peak, rel=1e-4, abs=1e-7)
            np.testing.assert_allclose(cam.astype(int), other.astype(int), atol=1)


def test_the_scaling_is_applied_before_the_model():
    inputs = keras.Input((16, 16, 3))
    conv = keras.layers.Conv2D(2, 3, activation="tanh", name="conv")
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(conv(inputs)))
    model = wrap_model(random_weights(keras.Model(inputs, outputs)))
    pixels, classes = draw_pixels(2, 16, dtype="float32"), np.array([[0, 1]] * 2)
    by_audit = Explainer(model, scaling="0-1").explain(tf.constant(pixels), classes)
    by_hand = Explainer(model).explain(tf.constant(pixels / 255), classes)
    np.testing.assert_allclose(by_audit.scores, by_hand.scores, atol=1e-6)
    peaks = [
        [peak for _, peak, _ in maps.of_image(1, column)]
        for maps in (by_audit, by_hand)
        for column in range(2)
    ]
    np.testing.assert_allclose(peaks[:2], peaks[2:], rtol=1e-4)


def test_the_articles_fused_map_is_the_mean_of_its_scaled_maps():
    model, _ = single_logit_cnn()
    audited = wrap_model(model)
    pixels, classes = draw_pixels(2, 16, dtype="float32"), np.array([[1, 0], [0, 1]])
    signed = all_signed_maps(audited, pixels, classes, "article")
    stored = Explainer(audited, method="article").explain(tf.constant(pixels), classes)
    for index in range(2):
        for column in range(2):
            scaled = []
            for values in signed.values():
                large = cv2.resize(values[index, ..., column], (16, 16))
                scaled.append((large - large.min()) / (np.ptp(large) + 1e-8))
            wanted = np.mean(scaled, axis=0)
            _, cam = rows(stored, index, column)[FUSED_LAYER]
            np.testing.assert_allclose(cam / 255, wanted / wanted.max(), atol=1 / 255)


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "mixed_float16"])
def test_layers_of_another_precision_are_explained(policy: str):
    layers = [
        keras.layers.Conv2D(4, 3, padding="same", name="a", dtype=policy),
        keras.layers.ReLU(name="b"),  # in float32
        keras.layers.MaxPooling2D(name="c", dtype=policy),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1),
    ]
    model = random_weights(keras.Sequential([keras.Input((16, 16, 3)), *layers]))
    pixels = tf.constant(draw_pixels(2, 16, dtype="float32") / 255)
    maps = Explainer(wrap_model(model)).explain(pixels, np.array([[0, 1], [1, 0]]))
    assert list(rows(maps, 0, 0)) == ["a", "b", "c", FUSED_LAYER]
    assert maps.scores.dtype == np.float32
    assert max(rows(maps, 0, 0)[FUSED_LAYER][0], rows(maps, 0, 1)[FUSED_LAYER][0]) > 0


def test_a_model_without_spatial_layers_is_refused():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)], name="flat"
    )
    with pytest.raises(ModelError, match="`flat` has no spatial layer"):
        Explainer(wrap_model(model))


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((112, 112), 28, (28, 28)),
        ((14, 14), 28, (14, 14)),
        ((100, 50), 28, (28, 14)),
        ((3, 300), 28, (1, 28)),
        ((1, 1), 28, (1, 1)),
    ],
)
def test_sizes_shrink_in_proportion(size: tuple[int, int], longest: int, expected: tuple[int, int]):
    assert fit_into(size, longest) == expected


def test_the_fused_map_is_no_larger_than_the_image():
    assert small_explainer().fused_size == (32, 32)
    assert FUSED_SIDE == 56


def layer_of(side: int, number: int) -> Layer:
    return Layer(f"l{number}", "", "", side, side, 1, 0, number, True, "")


def test_the_stored_side_keeps_many_layers_within_the_budget():
    # 60,000 bytes less 56² of the fused map are 56,864. 72 maps of 28² are 56,448; 73 are too many
    # at 28 (57,232), and fit at 27 (53,217).
    few, many = ([layer_of(112, n) for n in range(count)] for count in (72, 73))
    assert choose_stored_side(few, "compact") == 28
    assert choose_stored_side(many, "compact") == 27
    assert choose_stored_side([layer_of(112, n) for n in range(10_000)], "compact") == 4
    assert choose_stored_side(many, "full") == 112
    assert choose_stored_side(many, "fused") == 0


@pytest.mark.parametrize("keep_maps", get_args(KeepMaps))
def test_what_is_kept_of_the_maps_can_be_chosen(keep_maps: KeepMaps):
    import drawn_set

    model = wrap_model(drawn_set.corner_model())
    explainer = Explainer(model, keep_maps=keep_maps)
    maps = explainer.explain(tf.constant(draw_pixels(1, 32, dtype="float32")), np.array([[0, 1]]))
    sizes = {layer: cam.shape for layer, (_, cam) in rows(maps, 0, 0).items()}
    assert sizes.pop(FUSED_LAYER) == (32, 32)
    wanted = {
        "full": [(32, 32), (16, 16), (16, 16), (8, 8)],
        "compact": [(28, 28), (16, 16), (16, 16), (8, 8)],
        "fused": [],
    }
    assert list(sizes.values()) == wanted[keep_maps]


def _log_of_positive(x: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.nn.relu(tf.stop_gradient(x)))  # else its gradients spoil the layer below


def test_maps_that_show_no_place_are_flagged_and_left_out_of_the_fused_map():
    # One 1 × 1 convolution gives `first`, then `same` (0 · x + 3) and `broken` (∞ · 0 for x = 0)
    # hang beside it, so that the fused map can only be that of `first`.
    inputs = keras.Input((2, 2, 1))
    first = keras.layers.Conv2D(1, 1, name="first")(inputs)
    same = keras.layers.Conv2D(1, 1, name="same")(first)
    broken = keras.layers.Activation(_log_of_positive, name="broken")(first)
    none = keras.layers.Conv2D(1, 1, name="none")(first)
    kept = [keras.layers.GlobalMaxPooling2D()(x) for x in (first, same, broken, none)]
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(kept))
    model = keras.Model(inputs, outputs)
    model.get_layer("first").set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.get_layer("same").set_weights([np.zeros((1, 1, 1, 1)), np.array([3.0])])
    model.get_layer("none").set_weights([np.zeros((1, 1, 1, 1)), np.array([-1.0])])
    model.layers[-1].set_weights([np.array([[4.0], [4.0], [0.0], [4.0]]), np.zeros(1)])
    pixels = np.array([0, 1, 2, 4], np.float32).reshape(1, 2, 2, 1)
    maps = Explainer(wrap_model(model)).explain(tf.constant(pixels), np.array([[1, 1]]))
    found = rows(maps, 0, 0)
    assert found["first"][0] == 4  # all the gradient of 4 is at the largest of 4 pixels: weight 1
    assert found["same"][0] == -3  # weight 1, too, on 3 everywhere
    assert np.isnan(found["broken"][0])  # log 0
    assert found["none"][0] == 0
    for layer in ("same", "broken", "none"):
        np.testing.assert_array_equal(found[layer][1], np.zeros((2, 2)))
    np.testing.assert_array_equal(found[FUSED_LAYER][1], [[0, 64], [128, 255]])
    assert found[FUSED_LAYER][0] == pytest.approx(1 / 3)  # one of three finite layers speaks


@pytest.mark.slow
def test_memory_does_not_grow_over_many_images():
    explainer = small_explainer(head="softmax")
    rng = np.random.default_rng(0)

    def explain(n_batches: int) -> int:
        for _ in range(n_batches):
            n = int(rng.integers(1, 9))
            pixels = tf.constant(rng.uniform(0, 255, (n, 32, 32, 3)).astype(np.float32))
            explainer.explain(pixels, rng.integers(0, 2, (n, 2)))
        gc.collect()
        status = Path("/proc/self/status").read_text()
        return next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS"))

    after_warm_up = explain(100)
    assert explain(500) - after_warm_up < 20_000  # kB; a leak of one map a batch would be more


def test_grouped_convolutions_which_keras_compiles_are_explained():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(4, 3, name="whole"),
            keras.layers.Conv2D(4, 3, groups=2, name="grouped"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    pixels = draw_pixels(2, 12).astype(np.float32)
    explained = Explainer(wrap_model(model)).explain(tf.constant(pixels), np.array([[0, 1]] * 2))
    np.testing.assert_allclose(explained.scores, tf.nn.softmax(model(pixels)), atol=1e-5)
    assert explained.groups[-1].cams.max() == 255
