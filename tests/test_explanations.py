"""Shards of maps and of thumbnails, and what becomes of images that changed."""

from dataclasses import replace
from pathlib import Path

import cv2
import drawn_set
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audit.errors import DatasetError, ModelError
from audit.explain.capture import Layer
from audit.explain.explanations import (
    THUMBNAIL_SIDE,
    ExplainWorker,
    encode_thumbnail,
    explain_shard,
    layers_table,
)
from audit.explain.maps import BatchMaps, Explainer
from audit.explain.occlusion import OcclusionExplainer
from audit.predict.dataset import DatasetSource, FileSource
from audit.predict.listing import list_images
from audit.predict.model import wrap_model
from audit.run_folder import (
    FUSED_LAYER,
    SCHEMAS,
    Receipt,
    RunFolder,
    ShardSpec,
    decode_cam,
    to_arrow,
)
from audit.schemas import FOCUS_STAGE

LAYERS = ["colours", "pool_1", "blobs", "pool_2", FUSED_LAYER]


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(wrap_model(drawn_set.corner_model()))


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    """The drawn images in files of the test's own, which it may spoil."""
    return FileSource(list_images(drawn_set.save_set(tmp_path / "val")), (32, 32), 3)


def make_worker(
    folder: Path, source: FileSource | DatasetSource, explainer: Explainer, batch_size: int = 4
) -> ExplainWorker:
    """Predict every image and return a worker that explains them."""
    (_, pixels), *_ = source.batches(range(len(source.listing.images)), 1000)
    raw = explainer.model.model(pixels, training=False).numpy()
    scores = raw if raw.shape[1] > 1 else 1 / (1 + np.exp(-np.concatenate([-raw, raw], axis=1)))
    y_pred = scores.argmax(axis=1)
    table = pd.DataFrame(
        {
            "y_true": source.listing.images["y_true"],
            "y_pred": y_pred,
            "p_pred": scores[np.arange(len(scores)), y_pred],
            "other_class": source.listing.images["y_true"],
        }
    )
    table.index.name = "image_id"
    return ExplainWorker(RunFolder(folder), source, explainer, table, batch_size)


def test_an_error_has_rows_for_both_classes_and_a_control_for_one(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    # Image 0 is a left one that the model calls right (class 1); image 12 is plain.
    receipt = explain_shard(
        ShardSpec("explanations", 3, (0, 12)), make_worker(tmp_path, source, explainer)
    )
    assert receipt == Receipt("explanations", 3, 2)
    folder = RunFolder(tmp_path)
    shard = folder.read_shard("explanations", 3)
    assert list(shard) == SCHEMAS["explanations"].names
    assert shard[["image_id", "explained_class", "layer"]].to_numpy().tolist() == [
        *([0, 1, layer] for layer in LAYERS),
        *([0, 0, layer] for layer in LAYERS),
        *([12, 0, layer] for layer in LAYERS),
    ]
    sizes = shard.iloc[:5][["height", "width"]].to_numpy().tolist()
    assert sizes == [[28, 28], [16, 16], [16, 16], [8, 8], [32, 32]]
    for row in shard.itertuples():
        cam = decode_cam(row.cam, row.height, row.width)
        assert cam.max() == (255 if row.peak > 0 else 0)
    assert folder.read_receipt(ShardSpec("explanations", 3, (0, 12))) == receipt
    assert folder.read_receipt(ShardSpec("thumbnails", 3, (0, 12))).n_done == 2


def test_a_right_image_is_explained_for_another_class_if_asked(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    worker.explained.loc[13, "other_class"] = 1  # Image 13 is a plain left one, as is image 12.
    explain_shard(ShardSpec("explanations", 0, (12, 13)), worker)
    folder = RunFolder(tmp_path)
    expected = [[12, 0], [13, 0], [13, 1]]
    for stage in ("explanations", FOCUS_STAGE):
        shard = folder.read_shard(stage, 0)[["image_id", "explained_class"]]
        assert shard.drop_duplicates().to_numpy().tolist() == expected


def test_what_is_under_the_maps_is_stored_beside_them(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    spec = ShardSpec("explanations", 2, (1, 0, 12))
    receipt = explain_shard(spec, worker)
    folder = RunFolder(tmp_path)
    assert folder.read_receipt(replace(spec, stage=FOCUS_STAGE)).n_done == receipt.n_done == 3
    shard = folder.read_shard(FOCUS_STAGE, 2)
    assert shard["image_id"].tolist() == [1, 1, 0, 0, 12]
    (_, pixels), *_ = source.batches([0], 1)
    focus = explainer.explain(pixels, np.array([[1, 0]])).focus
    stored = np.stack(shard["embedding"])
    np.testing.assert_allclose(stored[2:4], focus.embeddings[0], atol=1e-5)
    np.testing.assert_allclose(np.stack(shard["elsewhere"])[2:4], focus.elsewhere[0], atol=1e-5)
    np.testing.assert_allclose(shard["layer_agreement"][2:4], focus.layer_agreement[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)


def test_where_no_layer_can_be_seen_nothing_is_stored_of_them(tmp_path: Path, source: FileSource):
    explainer = OcclusionExplainer(wrap_model(drawn_set.corner_model()))
    worker = make_worker(tmp_path, source, explainer)
    explain_shard(ShardSpec("explanations", 0, (0, 12)), worker)
    assert RunFolder(tmp_path).shard_indices("explanations") == [0]
    assert RunFolder(tmp_path).shard_indices(FOCUS_STAGE) == []


def test_the_map_for_the_predicted_class_glows_where_the_other_square_is(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    explain_shard(ShardSpec("explanations", 0, (0,)), make_worker(tmp_path, source, explainer))
    fused = RunFolder(tmp_path).read_fused().set_index("explained_class")["cam"]
    assert fused[1][21:29, 21:29].mean() > 10 * fused[1][:16, :16].mean()
    assert fused[0][3:11, 3:11].mean() > 10 * fused[0][16:, 16:].mean()


class Noted:
    """An explainer that notes what it is asked for and can hold only so many images."""

    def __init__(self, explainer: Explainer, capacity: int = 99, error: type = MemoryError) -> None:
        self.explainer, self.capacity, self.error = explainer, capacity, error
        self.model, self.batches = explainer.model, []

    def explain(self, pixels: tf.Tensor, classes: np.ndarray) -> BatchMaps:
        if len(classes) > self.capacity:
            raise self.error(*[None, None, "OOM"][: 3 if self.error is not MemoryError else 0])
        self.batches.append(classes.tolist())
        return self.explainer.explain(pixels, classes)


def test_errors_and_controls_are_explained_apart_and_stored_in_order(
    tmp_path: Path, source: FileSource
):
    ids = (0, 12, 13, 1, 2, 14, 3)
    explainer = Explainer(wrap_model(drawn_set.corner_model("softmax")))
    worker = make_worker(tmp_path, source, explainer, batch_size=3)
    worker.explainer = Noted(explainer)
    is_right = (worker.explained["y_pred"] == worker.explained["y_true"]).loc[list(ids)].tolist()
    assert is_right == [False, True, True, False, False, True, False]
    receipt = explain_shard(ShardSpec("explanations", 0, ids), worker)
    assert receipt.n_done == 7
    kinds = [[pair[0] == pair[1] for pair in batch] for batch in worker.explainer.batches]
    assert kinds == [[True] * 3, [False] * 3, [False]] or kinds == [
        [False] * 3,
        [True] * 3,
        [False],
    ]
    for stage in ("explanations", "thumbnails"):
        found = RunFolder(tmp_path).read_shard(stage, 0)["image_id"]
        assert found.drop_duplicates().tolist() == list(ids)


def test_where_both_classes_share_a_backward_pass_errors_and_controls_stay_together(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer, batch_size=3)
    worker.explainer = Noted(explainer)
    explain_shard(ShardSpec("explanations", 0, (0, 12, 13, 1, 2, 14, 3)), worker)
    assert [len(batch) for batch in worker.explainer.batches] == [3, 3, 1]
    assert {len(set(pair)) for pair in worker.explainer.batches[0]} == {1, 2}


@pytest.mark.parametrize("error", [MemoryError, tf.errors.ResourceExhaustedError])
def test_when_memory_runs_out_batches_are_halved_and_stay_so(
    error: type, tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker, halved = make_worker(tmp_path / "a", source, explainer, batch_size=8), []
    worker.on_halved = halved.append
    worker.explainer = Noted(explainer, capacity=2, error=error)
    ids = (0, 1, 2, 3, 4)
    explain_shard(ShardSpec("explanations", 0, ids), worker)
    assert halved == [4, 2] and worker.batch_size == 2
    assert [len(batch) for batch in worker.explainer.batches] == [2, 2, 1]
    undisturbed = make_worker(tmp_path / "b", source, explainer, batch_size=2)
    explain_shard(ShardSpec("explanations", 0, ids), undisturbed)
    shards = [RunFolder(tmp_path / name).shard_path("explanations", 0) for name in "ab"]
    assert shards[0].read_bytes() == shards[1].read_bytes()


def test_one_image_that_does_not_fit_is_one_clear_sentence(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    worker.explainer = Noted(explainer, capacity=0)
    with pytest.raises(ModelError, match="not enough memory to explain one image"):
        explain_shard(ShardSpec("explanations", 0, (0,)), worker)
    assert worker.batch_size == 1


def test_progress_is_reported_batch_by_batch(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker, seen = make_worker(tmp_path, source, explainer, batch_size=2), []
    worker.on_images = seen.append
    explain_shard(ShardSpec("explanations", 0, (0, 1, 2)), worker)
    assert seen == [2, 1]


def read_thumbnail(folder: Path, row: int = 0) -> np.ndarray:
    """Return a stored thumbnail as RGB, or grey with one channel."""
    shard = RunFolder(folder).read_shard("thumbnails", 0)
    assert list(shard) == SCHEMAS["thumbnails"].names
    image = cv2.imdecode(np.frombuffer(shard["jpeg"][row], np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape[:2] == (shard["height"][row], shard["width"][row])
    return image[..., None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_a_thumbnail_is_what_the_model_saw_in_rgb(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    explain_shard(ShardSpec("explanations", 0, (0,)), make_worker(tmp_path, source, explainer))
    images, _, _ = drawn_set.draw_set()
    thumbnail = read_thumbnail(tmp_path)
    assert thumbnail.shape == (32, 32, 3)
    assert np.abs(thumbnail.astype(int) - images[0]).mean() < 8  # JPEG, with half the colours
    blue, red = thumbnail[6, 6].astype(int), thumbnail[25, 25].astype(int)
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]


def test_a_grey_model_has_grey_thumbnails(tmp_path: Path):
    for name in ("a", "b"):
        image = np.full((20, 24, 1), 60 if name == "a" else 200, np.uint8)
        drawn_set.save_image(tmp_path / "val" / name / "x.png", image)
    model = keras.Sequential(
        [
            keras.Input((20, 24, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    source = FileSource(list_images(tmp_path / "val"), (20, 24), 1)
    worker = make_worker(tmp_path / "run", source, Explainer(wrap_model(model)))
    explain_shard(ShardSpec("explanations", 0, (0, 1)), worker)
    for row, grey in enumerate((60, 200)):
        np.testing.assert_array_equal(
            read_thumbnail(tmp_path / "run", row), np.full((20, 24, 1), grey)
        )


def test_a_large_image_is_reduced_in_proportion():
    height, width, jpeg = encode_thumbnail(np.full((640, 480, 3), 128, np.float32))
    assert (height, width) == (THUMBNAIL_SIDE, 240)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (320, 240, 3)


@pytest.mark.parametrize(
    ("values", "pixel_range", "expected"),
    [
        ((0.0, 0.5, 1.0), (0.0, 1.0), (0, 128, 255)),
        ((-1.0, 0.0, 1.0), (-1.0, 1.0), (0, 128, 255)),
        ((-20.0, 100.4, 300.0), (0.0, 255.0), (0, 100, 255)),
    ],
)
def test_the_pixel_range_decides_what_is_black_and_white(
    values: tuple[float, ...], pixel_range: tuple[float, float], expected: tuple[int, ...]
):
    for value, grey in zip(values, expected, strict=True):
        _, _, jpeg = encode_thumbnail(np.full((16, 16, 1), value, np.float32), pixel_range)
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.abs(image.astype(int) - grey).max() <= 1


def test_a_dataset_of_scaled_pixels_has_legible_thumbnails(tmp_path: Path):
    images, labels, _ = drawn_set.draw_set()
    model = drawn_set.corner_model()
    model.get_layer("scale").scale = 1.0
    dataset = tf.data.Dataset.from_tensor_slices((images / np.float32(255), labels)).batch(16)
    source = DatasetSource(dataset, drawn_set.CLASS_NAMES)
    worker = make_worker(tmp_path, source, Explainer(wrap_model(model)))
    explain_shard(ShardSpec("explanations", 0, (0,)), worker)
    assert np.abs(read_thumbnail(tmp_path).astype(int) - images[0]).mean() < 10


def test_an_image_that_cannot_be_read_again_is_left_out_with_the_reason(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    path = source.listing.root / source.listing.images["path"][1]
    path.write_bytes(b"")
    spec = ShardSpec("explanations", 0, (0, 1, 2))
    receipt = explain_shard(spec, worker)
    assert receipt == Receipt("explanations", 0, 2, ((1, "it is empty (0 bytes)"),))
    folder = RunFolder(tmp_path)
    assert folder.read_shard("explanations", 0)["image_id"].unique().tolist() == [0, 2]
    assert folder.read_shard("thumbnails", 0)["image_id"].tolist() == [0, 2]
    assert folder.read_receipt(spec) == receipt


def test_a_shard_of_nothing_but_unreadable_images_is_written_empty(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    (source.listing.root / source.listing.images["path"][1]).unlink()
    spec = ShardSpec("explanations", 0, (1,))
    assert explain_shard(spec, worker).left_out == ((1, "it is gone, or a link to nothing"),)
    assert RunFolder(tmp_path).read_shard("explanations", 0).empty
    assert RunFolder(tmp_path).read_fused().empty


def test_an_image_that_changed_since_it_was_predicted_is_refused(
    tmp_path: Path, source: FileSource, explainer: Explainer
):
    worker = make_worker(tmp_path, source, explainer)
    changed = drawn_set.draw_image("left", fooled=False, number=1)
    drawn_set.save_image(source.listing.root / source.listing.images["path"][1], changed)
    with pytest.raises(DatasetError, match="Image 1 is not the one that was predicted"):
        explain_shard(ShardSpec("explanations", 0, (0, 1, 2)), worker)
    assert not RunFolder(tmp_path).shard_indices("explanations")


def test_the_layers_table_ends_with_the_fused_map():
    layers = (
        Layer("scale", "m/scale", "Rescaling", 112, 56, 3, 0, 0, False, "preprocessing"),
        Layer("conv", "m/conv", "Conv2D", 112, 56, 8, 0, 1, True, ""),
        Layer("pool", "m/pool", "MaxPooling2D", 14, 7, 8, 1, 2, True, ""),
    )
    table = layers_table(layers, (56, 28), 28)
    assert table["layer"].tolist() == ["scale", "conv", "pool", FUSED_LAYER]
    assert table[["stored_height", "stored_width"]].to_numpy().tolist() == [
        [0, 0],
        [28, 14],
        [14, 7],
        [56, 28],
    ]
    only_fused = layers_table(layers, (56, 28), 0)
    assert only_fused["stored_height"].tolist() == [0, 0, 0, 56]
    fused = table.iloc[-1]
    assert (fused["kind"], fused["stage"], fused["order"], fused["kept"]) == ("fusion", 2, 3, True)
    assert to_arrow(table, SCHEMAS["layers"]).schema.equals(SCHEMAS["layers"])
