"""Models that nobody can look into: SavedModels and functions, alone and through a whole audit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_set
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from report_html import read_page

import audit
from audit.cli import main
from audit.errors import ModelError, RunFolderError
from audit.predict.inference import Predictor
from audit.predict.model import load_model, wrap_model
from audit.predict.opaque import fingerprint_scores, holds_opaque_layer

SHAPE = (drawn_set.SIDE, drawn_set.SIDE, 3)


def drawn_pixels() -> np.ndarray:
    return drawn_set.draw_set()[0].astype(np.float32)


def drawn_dataset() -> tf.data.Dataset:
    images, labels, _ = drawn_set.draw_set()
    return tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels)).batch(8)


def export(model: keras.Model, path: Path) -> Path:
    model.export(path, verbose=False)
    return path


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(drawn_set.corner_model(), tmp_path_factory.mktemp("export") / "corners")


def save_function(path: Path, function: Callable[..., Any], *specs: Any, **names: Any) -> Path:
    """Write a SavedModel with one function as its signature or signatures."""
    module = tf.Module()
    module.function = tf.function(function, input_signature=specs)
    signatures = dict.fromkeys(names, module.function) or module.function
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def images(side: int | None = 8, dtype: tf.DType = tf.float32, n: int | None = None) -> Any:
    return tf.TensorSpec((n, side, side, 3), dtype, name="images")


def means(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": tf.reduce_mean(tf.cast(pixels, tf.float32), axis=(1, 2))}


def trusted(path: Path, **options: Any) -> Any:
    return load_model(path, trust_model_code=True, **options)


# SavedModels


@pytest.mark.parametrize("head", ["logit", "sigmoid", "softmax", "logits"])
def test_an_exported_model_predicts_as_the_keras_model_does(head: str, tmp_path: Path):
    model = drawn_set.corner_model(head, 2 if head in ("logit", "sigmoid") else 4)
    exported = trusted(export(model, tmp_path / "model"))
    assert exported.head.kind == head
    assert exported.input_size == SHAPE[:2]
    assert exported.n_parameters == model.count_params()
    expected, _ = Predictor(wrap_model(model), "none").predict(drawn_pixels())
    scores, embedding = Predictor(exported, "none").predict(drawn_pixels())
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert embedding.shape == scores.shape  # The logits: nothing else is known of an image.


def test_a_saved_model_is_a_program_and_runs_only_if_trusted(saved_model: Path):
    with pytest.raises(ModelError, match=r"brings code of its own.*a SavedModel"):
        load_model(saved_model)


def test_a_keras_file_that_runs_a_saved_model_has_to_be_trusted(saved_model: Path, tmp_path: Path):
    layer = keras.layers.TFSMLayer(str(saved_model), call_endpoint="serving_default")
    inputs = keras.Input(SHAPE)
    keras.Model(inputs, layer(inputs)).save(tmp_path / "wrapped.keras")
    with pytest.raises(ModelError, match=r"brings code of its own.*TFSMLayer"):
        load_model(tmp_path / "wrapped.keras")
    wrapped = trusted(tmp_path / "wrapped.keras")
    assert wrapped.opaque == "a model with a layer that Keras cannot look into"
    scores, embedding = Predictor(wrapped, "none").predict(drawn_pixels())
    expected, _ = Predictor(trusted(saved_model), "none").predict(drawn_pixels())
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert embedding.shape[1] == 2


def test_the_serving_signature_is_chosen_and_named(saved_model: Path, tmp_path: Path):
    assert "`serving_default`" in trusted(saved_model).opaque
    only = save_function(tmp_path / "only", means, images(), predict=True)
    assert "`predict`" in trusted(only).opaque
    several = save_function(tmp_path / "several", means, images(), first=True, second=True)
    with pytest.raises(ModelError, match=r"not clear how to run.*\[first, second\]"):
        trusted(several)


def test_whole_numbers_are_given_to_a_saved_model_that_takes_them(tmp_path: Path):
    model = trusted(save_function(tmp_path / "bytes", means, images(dtype=tf.uint8)))
    pixels = tf.constant([0.4, 0.6, 300.0, -5.0], shape=(4, 1, 1, 1)) * tf.ones((4, 8, 8, 3))
    np.testing.assert_array_equal(model.forward(pixels)[:, 0], [0, 1, 255, 0])


def test_one_of_several_outputs_is_chosen_by_name(tmp_path: Path):
    def two(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.reduce_mean(pixels, axis=(1, 2))
        return {"classes": found, "other": found[:, :2], "names": tf.as_string(found)}

    path = save_function(tmp_path / "two", two, images())
    with pytest.raises(ModelError, match=r"has 2 outputs.*`classes`.*`other`"):
        trusted(path)
    assert trusted(path, output="classes").head.n_classes == 3
    assert trusted(path, output="other").head.n_classes == 2


def test_a_saved_model_of_open_size_takes_that_of_the_dataset(tmp_path: Path):
    path = save_function(tmp_path / "open", means, images(side=None))
    with pytest.raises(ModelError, match="leaves the size of its images open"):
        trusted(path)
    assert trusted(path, input_shape=(8, 10, 3)).input_size == (8, 10)


def test_a_saved_model_that_takes_no_images_is_refused(tmp_path: Path):
    def first(pixels: tf.Tensor, other: tf.Tensor) -> dict[str, tf.Tensor]:
        return means(pixels + other)

    other = tf.TensorSpec((None, 8, 8, 3), tf.float32, name="other")
    path = save_function(tmp_path / "both", first, images(), other)
    with pytest.raises(ModelError, match="has several inputs"):
        trusted(path)
    encoded = tf.TensorSpec((None,), tf.string, name="encoded")
    path = save_function(tmp_path / "encoded", lambda x: {"n": tf.strings.length(x)}, encoded)
    with pytest.raises(ModelError, match=r"not a classifier of images.*encoded: string \(None,\)"):
        trusted(path)
    path = save_function(tmp_path / "fixed", means, images(n=1))
    with pytest.raises(ModelError, match="a fixed number of images at a time"):
        trusted(path)


def test_a_damaged_saved_model_is_refused_with_the_reason(saved_model: Path, tmp_path: Path):
    damaged = shutil.copytree(saved_model, tmp_path / "damaged")
    shutil.rmtree(damaged / "variables")
    with pytest.raises(ModelError, match=r"TensorFlow .* cannot load"):
        trusted(damaged)


# Functions


def test_a_function_gets_arrays_and_one_of_tensorflow_gets_tensors():
    seen: list[type] = []

    def plain(pixels: Any) -> Any:
        seen.append(type(pixels))
        return np.zeros((len(pixels), 3))

    class Module(tf.Module):
        def __call__(self, pixels: Any) -> Any:
            seen.append(type(pixels))
            return {"scores": tf.zeros((len(pixels), 3))}

    wrap_model(plain, input_shape=SHAPE)
    wrap_model(Module(), input_shape=SHAPE)
    assert seen[0] is np.ndarray
    assert issubclass(seen[-1], tf.Tensor)
    traced = tf.function(lambda pixels: tf.reduce_mean(pixels, axis=(1, 2)))
    model = wrap_model(traced, input_shape=SHAPE)
    scores, _ = Predictor(model, "none").predict(drawn_pixels())
    np.testing.assert_allclose(scores, tf.nn.softmax(traced(drawn_pixels())), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x.mean(axis=(1, 2, 3)) - 100, "logit"),
        (lambda x: x.mean(axis=(1, 2, 3)) / 255, "sigmoid"),
        (lambda x: (x.mean(axis=(1, 2)) - 100).tolist(), "logits"),
        (lambda x: x.mean(axis=(1, 2)) / x.mean(axis=(1, 2)).sum(axis=1, keepdims=True), "softmax"),
    ],
)
def test_the_head_of_a_function_is_told_by_its_values(function: Callable[..., Any], kind: str):
    model = wrap_model(function, input_shape=SHAPE)
    assert model.head.kind == kind
    scores, _ = Predictor(model, "none").predict(drawn_pixels())
    assert scores.shape == (drawn_set.N_IMAGES, model.head.n_classes)
    np.testing.assert_allclose(tf.reduce_sum(scores, axis=1), 1, atol=1e-5)


def test_one_output_of_a_function_is_chosen_by_name():
    def two(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {"a": pixels.mean(axis=(1, 2)), "b": pixels.max(axis=(1, 2))}

    model = wrap_model(two, output="b", input_shape=SHAPE)
    scores, _ = Predictor(model, "none").predict(drawn_pixels())
    expected = tf.nn.softmax(drawn_pixels().max(axis=(1, 2)))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_function_that_calls_a_keras_model_is_not_looked_into():
    inner = drawn_set.corner_model()
    model = wrap_model(lambda pixels: inner(pixels, training=False), input_shape=SHAPE)
    assert model.opaque == "a function in Python"
    expected, _ = Predictor(wrap_model(inner), "none").predict(drawn_pixels())
    scores, embedding = Predictor(model, "none").predict(drawn_pixels())
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert embedding.shape[1] == 2


def test_what_cannot_be_used_as_a_function_is_refused():
    with pytest.raises(ModelError, match="`list` is not a model that can be called"):
        wrap_model([1, 2], input_shape=SHAPE)
    with pytest.raises(ModelError, match="does not say how large its images are"):
        wrap_model(lambda pixels: pixels.mean(axis=(1, 2)))
    with pytest.raises(ModelError, match=r"ValueError: scores of shape \(3,\) for 8 images"):
        wrap_model(lambda pixels: np.zeros(3), input_shape=SHAPE)
    with pytest.raises(ModelError, match="is not a classifier"):
        wrap_model(lambda pixels: pixels, input_shape=SHAPE)


def test_a_function_can_say_the_size_of_its_images_itself():
    def sized(pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2))

    sized.input_shape = (None, 9, 7, 3)  # type: ignore[attr-defined]
    assert wrap_model(sized).input_size == (9, 7)


def test_functions_are_told_apart_by_what_they_say_of_noise():
    def scaled(by: float) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda pixels: by * tf.reduce_mean(pixels, axis=(1, 2))

    same, again, other = (fingerprint_scores(scaled(by), (8, 8, 3)) for by in (1, 1, 1.01))
    assert same == again
    assert same != other


def test_a_layer_is_opaque_if_keras_does_not_know_its_inside():
    class Own(keras.layers.Layer):
        def call(self, values: tf.Tensor) -> tf.Tensor:
            return values

    def net(*layers: Any) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), *layers])

    assert not holds_opaque_layer(net(keras.layers.Dense(2)))
    assert not holds_opaque_layer(net(net(keras.layers.Dense(2))))
    assert holds_opaque_layer(net(net(Own())))
    assert holds_opaque_layer(net(keras.layers.Lambda(lambda values: values)))
    assert not holds_opaque_layer(lambda pixels: pixels)


# Whole audits


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def saved_run(saved_model: Path, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """What the command printed, and the run folder of an audit of a SavedModel."""
    out = tmp_path_factory.mktemp("saved") / "run"
    result = invoke("run", saved_model, drawn_data, "--out", out, "--trust-model-code")
    assert result.exit_code == 0, result.output
    return result, out


def test_the_command_audits_a_saved_model_and_says_how(saved_run: tuple[Result, Path]):
    result, out = saved_run
    assert "errors by occlusion" in result.stdout
    assert "WARNING: The heat-maps are occlusion maps" in result.stderr
    assert "run through its signature `serving_default`" in result.stderr
    assert "occlusion maps" in (out / "logs" / "run.log").read_text()
    run = audit.Run(out)
    assert run.manifest["method"] == "occlusion"
    assert run.manifest["config"]["method"] == "gradcam"
    assert [warning["kind"] for warning in run.manifest["warnings"]] == ["occlusion"]
    assert run.layers[["layer", "kind"]].to_numpy().tolist() == [
        ["occlusion", "occlusion"],
        ["fused", "fusion"],
    ]
    shown = json.loads(invoke("show", out, "--json").stdout)
    assert (shown["method"], shown["n_layers"]) == ("occlusion", 0)
    assert "by occlusion, model-agnostic" in run._repr_html_()
    assert shown["n_errors"] == drawn_set.N_ERRORS
    assert any("occlusion" in warning for warning in shown["warnings"])


def test_it_finds_the_errors_and_looks_where_the_keras_model_is_misled(
    saved_run: tuple[Result, Path], drawn_run: Path
):
    run, keras_run = audit.Run(saved_run[1]), audit.Run(drawn_run)
    assert run.errors["path"].tolist() == keras_run.errors["path"].tolist()
    focus = run.focus[run.focus["role"] == "error"]
    assert focus["image_id"].nunique() == drawn_set.N_ERRORS
    for image_id, y_true, y_pred in run.errors[["image_id", "y_true", "y_pred"]].to_numpy():
        for explained, is_right in ((y_pred, bool(y_pred)), (y_true, bool(y_true))):
            cam = run.fused_map(image_id, explained)
            row, column = np.unravel_index(cam.argmax(), cam.shape)
            assert (row > 15) == (column > 15) == is_right  # The square of the explained class.


def page_text(path: Path) -> str:
    return read_page(path).all("main")[0].text


def test_every_page_says_that_the_maps_are_occlusion_maps(saved_run: tuple[Result, Path]):
    report = saved_run[1] / "report"
    pages = [report / name for name in ("index.html", "errors.html", "patterns.html", "run.html")]
    pages += sorted((report / "errors").glob("*.html"))[:1]
    pages += sorted(report.glob("pattern-*.html"))[:1]
    assert len(pages) >= 5
    for page in pages:
        text = page_text(page)
        assert "cclusion map" in text, page.name
        for wrong in ("over all layers", "ast layer alone", "Layer by layer", "mean gradient"):
            assert wrong not in text, (page.name, wrong)


def test_a_finished_run_is_left_alone_and_another_model_refused(
    saved_run: tuple[Result, Path], saved_model: Path, drawn_data: Path, tmp_path: Path
):
    _, out = saved_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    again = audit.run(saved_model, drawn_data, out, progress=False, trust_model_code=True)
    assert again.manifest["status"] == "done"
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    other = shutil.copytree(saved_model, tmp_path / "corners")
    (other / "assets").mkdir(exist_ok=True)
    (other / "assets" / "labels.txt").write_text("left right")
    with pytest.raises(RunFolderError, match="another value of the model"):
        audit.run(other, drawn_data, out, progress=False, trust_model_code=True)


def red_against_blue(pixels: np.ndarray) -> np.ndarray:
    """Return a logit for "right", whose squares are red."""
    return (pixels[..., 0] - pixels[..., 2]).mean(axis=(1, 2)) / 2


def test_a_function_is_audited_and_goes_on_where_it_was_stopped(tmp_path: Path):
    options: dict[str, Any] = drawn_set.SHARDS | {"progress": False, "classes": "left,right"}
    run = audit.run(red_against_blue, drawn_dataset(), tmp_path / "run", **options)
    assert run.manifest["model"]["name"] == "red_against_blue"
    assert run.manifest["method"] == "occlusion"
    assert len(run.errors) == drawn_set.N_ERRORS
    shards = sorted((tmp_path / "run" / "explanations").glob("*.parquet"))
    whole = pd.concat([pd.read_parquet(shard) for shard in shards])
    copy = shutil.copytree(tmp_path / "run", tmp_path / "stopped")
    shards = sorted((copy / "explanations").glob("*.parquet"))
    shards[1].unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    for stage in ("explain", "patterns", "report"):
        manifest["stages"][stage]["state"] = "waiting"
    (copy / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    audit.run(red_against_blue, drawn_dataset(), copy, **options)
    pd.testing.assert_frame_equal(pd.concat([pd.read_parquet(shard) for shard in shards]), whole)
    with pytest.raises(RunFolderError, match="another value of the model"):
        audit.run(lambda x: -red_against_blue(x), drawn_dataset(), copy, **options)


def test_a_function_that_says_its_size_is_audited_on_files(drawn_data: Path, tmp_path: Path):
    def sized(pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape[1:] == SHAPE
        return red_against_blue(pixels)

    with pytest.raises(ModelError, match="does not say how large"):
        audit.run(sized, drawn_data, tmp_path / "run", progress=False)
    sized.input_shape = (None, *SHAPE)  # type: ignore[attr-defined]
    run = audit.run(sized, drawn_data, tmp_path / "run", progress=False, controls=0)
    assert len(run.errors) == drawn_set.N_ERRORS
    assert run.errors["path"].str.contains("fooled").all()


def test_outputs_that_were_probabilities_only_for_noise_are_refused(tmp_path: Path):
    def half_for_noise(pixels: np.ndarray) -> np.ndarray:
        return np.where(pixels.mean(axis=(1, 2, 3)) > 100, 0.5, red_against_blue(pixels))

    with pytest.raises(ModelError, match=r"not the probabilities.*--head logit`"):
        audit.run(half_for_noise, drawn_dataset(), tmp_path / "run", progress=False)
    run = audit.run(
        half_for_noise, drawn_dataset(), tmp_path / "run", progress=False, head="logit", controls=0
    )
    assert len(run.errors) == drawn_set.N_ERRORS


def test_any_model_can_be_explained_by_occlusion(
    drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    run = audit.run(
        drawn_model, drawn_data, tmp_path / "run", progress=False, method="occlusion", controls=0
    )
    assert run.manifest["method"] == "occlusion"
    assert run.manifest["warnings"] == []  # It is what was asked for.
    assert "model-agnostic" in page_text(run.report_path)


def test_inspect_says_what_would_be_done(saved_model: Path):
    result = invoke("inspect", saved_model, "--trust-model-code")
    assert result.exit_code == 0, result.output
    assert "32 × 32 × 3" in result.stdout
    assert "a SavedModel, run through its signature `serving_default`" in result.stdout
    assert "by occlusion: 54 parts of each image" in result.stdout
