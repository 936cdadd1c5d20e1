"""Occlusion maps: worked out by hand, against a loop of its own, and on real photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score

from audit.explain.explainers import make_explainer
from audit.explain.occlusion import OcclusionExplainer, paint_out
from audit.predict.dataset import decode_image, resize_image
from audit.predict.model import AuditedModel, load_model, wrap_model
from audit.run_folder import FUSED_LAYER

SIDE = 32
CELL = (slice(12, 16), slice(12, 16))
"""Where the score comes from. Every box holds all of this cell or none of it: see below."""
BOTH = np.array([[1, 0]])


def cell_model(sign: float = 1.0) -> AuditedModel:
    """Return a function whose logit is the mean of the cell ÷ 100, or the negative of that."""

    def mean_of_cell(pixels: np.ndarray) -> np.ndarray:
        return sign * pixels[:, CELL[0], CELL[1]].mean(axis=(1, 2, 3)) / 100

    return wrap_model(mean_of_cell, head="logit", input_shape=(SIDE, SIDE, 3))


def bright_cell() -> tf.Tensor:
    """Return a black image whose cell is 200."""
    image = np.zeros((1, SIDE, SIDE, 3), np.float32)
    image[:, CELL[0], CELL[1]] = 200
    return tf.constant(image)


def fused(maps: Any, column: int) -> tuple[float, np.ndarray]:
    return next((p, cam) for layer, p, cam in maps.of_image(0, column) if layer == FUSED_LAYER)


# By hand


def test_a_hole_becomes_the_mean_of_what_surrounds_it():
    # Three known pixels of 3, 6 and 9: halved once, their mean is 6, which fills the fourth.
    image = tf.constant([3.0, 6.0, 9.0, 100.0], shape=(1, 2, 2, 1))
    keep = tf.constant([[1.0, 1.0], [1.0, 0.0]])
    assert paint_out(image, keep).numpy().ravel().tolist() == [3, 6, 9, 6]


@pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 5)])
def test_what_is_painted_has_the_colour_around_it_and_the_rest_stays(size):
    rng = np.random.default_rng(0)
    keep = np.ones(size, np.float32)
    keep[: size[0] // 2 + 1, : size[1] // 2] = 0
    plain = np.broadcast_to(np.float32([10, 20, 30]), (2, *size, 3))
    np.testing.assert_allclose(paint_out(tf.constant(plain), tf.constant(keep)), plain, rtol=1e-6)
    image = rng.uniform(0, 255, (2, *size, 3)).astype(np.float32)
    painted = paint_out(tf.constant(image), tf.constant(keep)).numpy()
    np.testing.assert_array_equal(painted[:, keep == 1], image[:, keep == 1])
    other = np.where(keep[..., None] == 0, np.float32(255), image)
    np.testing.assert_array_equal(paint_out(tf.constant(other), tf.constant(keep)), painted)
    assert painted.min() >= image.min()
    assert painted.max() <= image.max()


def test_the_map_is_exactly_the_square_that_the_score_is_of():
    # On 32 pixels the boxes' edges are 0 8 16 24 32 (quarters at four places), 0 8 16 24 32 (halves
    # at three), 0 5 11 16 21 27 32 (halves at four) and all multiples of 4 (strips): none lies
    # inside 12..16. A box that holds the cell is surrounded by black, so the logit falls from 2 to
    # 0; any other changes nothing. Hence the map is 2 in the cell, and less where a box does not
    # hold the cell: everywhere else.
    maps = OcclusionExplainer(cell_model()).explain(bright_cell(), BOTH)
    layer, cells = maps.groups
    assert layer.peaks[0, 0].tolist() == pytest.approx([2, 0])
    peak, cam = fused(maps, 0)
    assert peak == 1
    expected = np.zeros((SIDE, SIDE), bool)
    expected[CELL] = True
    np.testing.assert_array_equal(cam == 255, expected)
    assert cells.cams.shape == (1, SIDE, SIDE, 1, 2)
    assert cam[0, 31] == 0  # In none of the boxes that hold the cell.
    # (12, 20), two cells on: of each shape, boxes with both over boxes with it. Across, quarters at
    # 16..24, halves 8..24 and 16..32: 0/1, 1/2, and with four places 5..21 and 11..27 hold both,
    # 16..32 does not: 2/3. Rows 12 always hold the cell. Strips: 8 rows 1/1; columns 0/2.
    assert cam[12, 20] == pytest.approx(255 * np.mean([1 / 2, 0, 2 / 3, 1, 0]), abs=1)


def test_the_other_class_is_explained_by_the_negative():
    for sign, columns in ((1, (0, 1)), (-1, (1, 0))):
        maps = OcclusionExplainer(cell_model(sign)).explain(bright_cell(), BOTH)
        speaks, silent = columns
        assert fused(maps, speaks)[0] == 1
        assert fused(maps, speaks)[1][CELL].min() == 255
        assert fused(maps, silent)[0] == 0
        assert fused(maps, silent)[1].max() == 0
    same = OcclusionExplainer(cell_model()).explain(bright_cell(), np.array([[1, 1]]))
    assert fused(same, 0)[0] == fused(same, 1)[0] == 1


def test_two_classes_share_a_scale():
    # Class 1 falls by 2 without its cell, class 2 by half of that without another cell.
    def two_cells(pixels: np.ndarray) -> np.ndarray:
        first = pixels[:, 12:16, 12:16].mean(axis=(1, 2, 3)) / 100
        second = pixels[:, 12:16, 28:32].mean(axis=(1, 2, 3)) / 200
        return np.stack([0 * first, first, second], axis=1)

    image = bright_cell().numpy()
    image[:, 12:16, 28:32] = 200
    model = wrap_model(two_cells, head="logits", input_shape=(SIDE, SIDE, 3))
    maps = OcclusionExplainer(model).explain(tf.constant(image), np.array([[1, 2]]))
    layer, shared = maps.groups
    first, second = layer.peaks[0, 0].tolist()
    assert 1.5 < first <= 2
    assert 0.75 < second <= 1
    assert shared.peaks[0, 0].tolist() == pytest.approx([1, second / first])


def test_a_map_that_says_nothing_of_a_place_is_empty():
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)), tf.float32)
    functions = {
        "constant": lambda pixels: np.full(len(pixels), 3.0),
        "alike": lambda pixels: np.where((pixels == image.numpy()).all(axis=(1, 2, 3)), 5.0, 3.0),
        "rounding": lambda pixels: 4 + 1e-6 * pixels.mean(axis=(1, 2, 3)) / 255,
        "not finite": lambda pixels: np.where(
            (pixels == image.numpy()).all(axis=(1, 2, 3)), 5.0, np.nan
        ),
    }
    for name, function in functions.items():
        model = wrap_model(function, head="logit", input_shape=(16, 16, 3))
        maps = OcclusionExplainer(model).explain(image, BOTH)
        layer, shared = maps.groups
        alike = [-2, 0] if name == "alike" else [0, 0]  # The fall, negated: it has no place.
        assert layer.peaks[0, 0].tolist() == pytest.approx(alike, abs=1e-6), name
        assert not shared.peaks.any(), name
        assert not layer.cams.any(), name
        assert not shared.cams.any(), name


def test_maps_are_stored_in_the_size_asked_for():
    model = wrap_model(lambda pixels: pixels.mean(axis=(1, 2)), input_shape=(64, 32, 3))
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 64, 32, 3)), tf.float32)
    sides = {"full": [(56, 28), (56, 28)], "compact": [(28, 14), (56, 28)], "fused": [(56, 28)]}
    for keep_maps, expected in sides.items():
        explainer = make_explainer(model, keep_maps=keep_maps)
        groups = explainer.explain(images, BOTH).groups
        assert [group.cams.shape[1:3] for group in groups] == expected
        assert explainer.stored_side == (0 if keep_maps == "fused" else expected[0][0])


# Against a computation of its own


def test_the_map_agrees_with_a_loop_over_the_boxes():
    rng = np.random.default_rng(1)
    size = (20, 24)
    weights = rng.normal(size=(size[0] * size[1], 3)).astype(np.float32) / 500
    model = wrap_model(
        lambda pixels: pixels.reshape(len(pixels), -1) @ weights, input_shape=(*size, 1)
    )
    pixels = tf.constant(rng.uniform(0, 255, (2, *size, 1)), tf.float32)
    classes = np.array([[0, 2], [1, 1]])
    explainer = OcclusionExplainer(model)
    maps = explainer.explain(pixels, classes)
    raw = model.forward(pixels).numpy()
    total = np.zeros((2, *size, 2))
    for (height, width), (n_down, n_across) in (
        ((5, 12), (4, 3)),
        ((10, 6), (3, 4)),
        ((10, 12), (4, 4)),
        ((5, 24), (7, 1)),
        ((20, 6), (1, 7)),
    ):
        falls, count = np.zeros((2, *size, 2)), np.zeros(size)
        for top in np.round(np.linspace(0, size[0] - height, n_down)).astype(int):
            for left in np.round(np.linspace(0, size[1] - width, n_across)).astype(int):
                keep = np.ones(size, np.float32)
                keep[top : top + height, left : left + width] = 0
                after = model.forward(paint_out(pixels, tf.constant(keep))).numpy()
                fall = np.take_along_axis(raw - after, classes, axis=1)
                falls += fall[:, None, None, :] * (keep == 0)[..., None]
                count += keep == 0
        assert count.min() >= 1
        total += falls / count[..., None] / 5
    expected = np.maximum(total, 0)
    for column in (0, 1):
        layer, _ = maps.groups
        np.testing.assert_allclose(
            layer.peaks[:, 0, column], expected.max(axis=(1, 2))[:, column], rtol=1e-3
        )
        cams = maps.groups[1].cams[:, :, :, 0, column]
        scaled = 255 * expected[..., column] / expected[..., column].max(axis=(1, 2), keepdims=True)
        assert np.abs(cams - scaled).max() <= 1
    np.testing.assert_allclose(maps.scores, tf.nn.softmax(raw), rtol=1e-5)


def test_one_set_of_probes_serves_both_classes_and_a_whole_batch():
    calls: list[int] = []

    def counting(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return pixels.mean(axis=(1, 2))

    model = wrap_model(counting, head="logits", input_shape=(16, 16, 3))
    explainer = OcclusionExplainer(model)
    calls.clear()
    batch = tf.constant(np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)), tf.float32)
    classes = np.array([[0, 1], [2, 2], [1, 0]])
    together = explainer.explain(batch, classes)
    assert calls == [3] * (1 + explainer.n_probes)
    assert explainer.n_probes == 54
    for index in range(3):
        alone = explainer.explain(batch[index : index + 1], classes[index : index + 1])
        for whole, single in zip(together.groups, alone.groups, strict=True):
            np.testing.assert_allclose(whole.peaks[index], single.peaks[0], rtol=1e-4)
            assert np.abs(whole.cams[index].astype(int) - single.cams[0].astype(int)).max() <= 1


def test_probabilities_are_explained_by_their_log_odds():
    logits = OcclusionExplainer(cell_model())

    def sigmoid_of_cell(pixels: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-pixels[:, CELL[0], CELL[1]].mean(axis=(1, 2, 3)) / 100))

    probabilities = wrap_model(sigmoid_of_cell, input_shape=(SIDE, SIDE, 3))
    assert probabilities.head.kind == "sigmoid"
    expected = logits.explain(bright_cell(), BOTH)
    maps = OcclusionExplainer(probabilities).explain(bright_cell(), BOTH)
    np.testing.assert_allclose(maps.groups[0].peaks, expected.groups[0].peaks, atol=1e-4)


def test_scaling_comes_after_the_painting():
    plain, scaled = cell_model(), OcclusionExplainer(cell_model(), scaling="0-1")
    before = OcclusionExplainer(plain).explain(bright_cell(), BOTH).groups[0].peaks
    np.testing.assert_allclose(
        scaled.explain(bright_cell(), BOTH).groups[0].peaks, before / 255, atol=1e-6
    )


# On real photographs


@pytest.mark.slow
def test_maps_of_a_model_taken_as_a_function_lie_on_the_planted_bars(shared_data: Path):
    """57 cats whose drawn bars the model takes for dogs."""
    folder = shared_data / "planted_bars"
    keras_model = load_model(folder / "planted_bars_model.keras")
    spec = tf.TensorSpec((None, 224, 224, 3))
    function = tf.function(keras_model.forward, input_signature=[spec], autograph=False)
    model = wrap_model(function, head="logit", input_shape=(224, 224, 3))
    truth = pd.read_csv(folder / "truth.csv")
    files = truth.loc[(truth["class"] == "cats") & (truth["barred"] == 1), "file"]
    explainer = OcclusionExplainer(model)
    grid = np.indices((224, 224)) / 223 - 0.5
    centre = np.exp(-4 * (grid**2).sum(axis=0))
    precisions: list[tuple[float, float]] = []
    energies, hits = [], []
    for start in range(0, len(files), 16):
        names = files.iloc[start : start + 16]
        pixels = tf.stack([read_pixels(folder / "val" / name) for name in names])
        wrong = np.flatnonzero(function(pixels).numpy()[:, 0] >= 0)
        maps = explainer.explain(tf.gather(pixels, wrong), np.tile([1, 0], (len(wrong), 1)))
        for index, name in enumerate(names.iloc[wrong]):
            mask = read_mask(folder / "masks" / name)
            cam = tf.image.resize(fused_of(maps, index)[..., None], (224, 224)).numpy()[..., 0]
            ap = [average_precision_score(mask.ravel(), x.ravel()) for x in (cam, centre)]
            precisions.append((ap[0], ap[1]))
            energies.append(cam[mask].sum() / cam.sum() / mask.mean())
            hits.append(mask.ravel()[cam.argmax()])
    own, by_centre = np.mean(precisions, axis=0)
    assert len(precisions) == 57
    assert own > 0.23
    assert own > 1.6 * by_centre
    assert np.mean(energies) > 1.7
    assert np.mean(hits) > 0.25


def read_pixels(path: Path) -> tf.Tensor:
    image = decode_image(tf.io.read_file(str(path)), 3, "bilinear")
    return resize_image(image, (224, 224), 3, "stretch")


def read_mask(path: Path) -> np.ndarray:
    image = decode_image(tf.io.read_file(str(path.with_suffix(".png"))), 1, "bilinear")
    return tf.image.resize(image, (224, 224), method="nearest").numpy()[..., 0] > 127


def fused_of(maps: Any, index: int) -> np.ndarray:
    return next(
        cam.astype(np.float32) for layer, _, cam in maps.of_image(index, 0) if layer == FUSED_LAYER
    )
