"""Every error that a user can cause: it is documented, and it comes when it should.

`TRIGGERS` names, for each section of `docs/messages.md`, functions that cause its error. Each is
run once; its text is held against the documented one, and the place in the code that raised it is
noted, so that no error in the code can be forgotten.
"""

import ast
import errno
import json
import re
import shutil
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import MagicMock

import drawn_set
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from fsspec.implementations.memory import MemoryFileSystem

import audit
from audit import errors, pipeline, remote_lock
from audit.arguments import LocalArgument
from audit.compare.compare_folder import check_out
from audit.compare.comparison import compare_runs
from audit.compare.matching import MatchedRuns
from audit.config import make_config, parse_budget
from audit.disk import writing
from audit.engines import ray as ray_engine
from audit.errors import AuditError
from audit.explain.maps import Explainer
from audit.inputs import Inputs
from audit.missing_maps import compute_missing
from audit.notify import parse_command
from audit.places import place
from audit.predict.inference import Predictor
from audit.predict.metrics import compute_metrics
from audit.predict.model import wrap_model
from audit.results import Run
from audit.run_folder import RunFolder, ShardSpec
from audit.run_lock import locked
from audit.stages.context import Context
from audit.stages.remote import site_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "messages.md"
ERROR_NAMES = {name for name, value in vars(errors).items() if isinstance(value, type)}


BLACK = np.zeros((8, 8, 3), np.uint8)


@dataclass(frozen=True)
class Bench:
    """What a trigger may use: good inputs, and a folder of its own to spoil."""

    tmp: Path
    model: Path
    data: Path
    finished: Path

    def audit(self, model: Any = None, data: Any = None, out: Any = None, **options: Any) -> Run:
        """Run an audit in which everything is right but what the trigger changes."""
        return audit.run(
            self.model if model is None else model,
            self.data if data is None else data,
            self.tmp / "run" if out is None else out,
            progress=False,
            **options,
        )

    def own_data(self) -> Path:
        return drawn_set.save_set(self.tmp / "val")

    def own_run(self) -> Path:
        return shutil.copytree(self.finished, self.tmp / "copy")

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def manifest(self, *rows: str) -> Path:
        """Write a CSV manifest, and two images that it can name."""
        for name in ("a.png", "b.png"):
            drawn_set.save_image(self.tmp / "images" / name, BLACK)
        return self.file("images/list.csv", "\n".join(rows) + "\n")


def net(*layers: Any, inputs: Any = (8, 8, 3)) -> keras.Model:
    return keras.Sequential([keras.Input(inputs), *layers], name="net")


def pooled(*layers: Any, inputs: Any = (8, 8, 3)) -> keras.Model:
    """Return a small convolutional model with layers of the caller's on top."""
    return net(
        keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D(), *layers, inputs=inputs
    )


def dataset(*columns: Any, batch: int | None = 2) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices(columns if len(columns) > 1 else columns[0])
    return data.batch(batch) if batch else data


def two_inputs(bench: Bench) -> None:
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Add()([first, second]))
    bench.audit(keras.Model([first, second], keras.layers.Dense(2)(x)))


def named_otherwise(bench: Bench) -> None:
    named = dataset(IMAGES, [0, 1, 0, 1])
    named.class_names = ["a", "b"]
    bench.audit(data=named, classes="b,a")


def two_outputs(bench: Bench) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    bench.audit(keras.Model(inputs, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)]))


class NotHere(keras.layers.Conv2D):
    """A layer for channels that come first, on a device that has nothing to run it with."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        raise tf.errors.UnimplementedError(None, None, "only supports NHWC")


def channels_first(bench: Bench) -> None:
    convolution = NotHere(2, 3, data_format="channels_first")
    model = net(convolution, keras.layers.Flatten(), keras.layers.Dense(2), inputs=(3, 8, 8))
    bench.audit(model)


def nan_weights(bench: Bench) -> None:
    model = pooled(keras.layers.Dense(2))
    model.layers[0].bias.assign([np.nan, 0.0])
    bench.audit(model)


def cut_off_h5(bench: Bench) -> None:
    pooled(keras.layers.Dense(1)).save(bench.tmp / "whole.h5")
    bench.audit(bench.file("m.h5", (bench.tmp / "whole.h5").read_bytes()[:3000]))


def archive_that_leads_out(bench: Bench) -> None:
    path = Path(shutil.copy(bench.model, bench.tmp / "m.keras"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil", "x")
    bench.audit(path)


def archive_that_swells(bench: Bench) -> None:
    path = Path(shutil.copy(bench.model, bench.tmp / "m.keras"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/x", bytes(70 << 20))
    bench.audit(path)


def lambda_layer(bench: Bench) -> None:
    path = bench.tmp / "lambda.keras"
    pooled(keras.layers.Dense(1), keras.layers.Lambda(lambda x: x * 2)).save(path)
    bench.audit(path)


def saved_model(bench: Bench, n: int | None = None, signatures: Any = ("serving_default",)) -> Any:
    """Write a SavedModel that takes n images at a time, under some signatures."""
    module = tf.Module()
    module.mean = tf.function(
        lambda images: {"scores": tf.reduce_mean(images, axis=(1, 2))},
        input_signature=[tf.TensorSpec((n, 32, 32, 3), name="images")],
    )
    path = bench.tmp / "saved"
    tf.saved_model.save(module, str(path), signatures=dict.fromkeys(signatures, module.mean))
    return path


def two_inputs_saved(bench: Bench) -> None:
    module = tf.Module()
    spec = tf.TensorSpec((None, 8, 8, 3))
    module.sum = tf.function(lambda a, b: {"sum": a + b}, input_signature=[spec, spec])
    tf.saved_model.save(module, str(bench.tmp / "two"), signatures=module.sum)
    bench.audit(bench.tmp / "two", trust_model_code=True)


def encoded_input(bench: Bench) -> None:
    module = tf.Module()
    spec = tf.TensorSpec((None,), tf.string)
    module.length = tf.function(lambda text: {"n": tf.strings.length(text)}, input_signature=[spec])
    tf.saved_model.save(module, str(bench.tmp / "text"), signatures=module.length)
    bench.audit(bench.tmp / "text", trust_model_code=True)


def weights_file(bench: Bench) -> None:
    with h5py.File(bench.tmp / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    bench.audit(bench.tmp / "weights.h5")


def damaged_archive(bench: Bench) -> None:
    path = shutil.make_archive(str(bench.tmp / "damaged"), "zip", bench.data / "left")
    bench.audit(path)


def h5_without_sense(bench: Bench) -> None:
    with h5py.File(bench.tmp / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {}})
    bench.audit(bench.tmp / "model.h5")


class Raises(keras.Model):
    """A model that does not work."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        raise ValueError("broken on purpose")


def shuffled(bench: Bench) -> None:
    images, labels, _ = drawn_set.draw_set()
    data = dataset(images.astype(np.float32), labels, batch=None)
    bench.audit(data=data.shuffle(100, seed=1).batch(8))


def all_unreadable(bench: Bench) -> None:
    for path in bench.own_data().rglob("*.png"):
        path.write_bytes(b"")
    bench.audit(data=bench.tmp / "val")


def other_class_folder(bench: Bench) -> None:
    data = bench.own_data()
    (data / "left").rename(data / "lef")
    bench.audit(data=data, classes="left,right")


def flat_with_one_class(bench: Bench) -> None:
    for number in range(2):
        drawn_set.save_image(bench.tmp / "flat" / f"cat.{number}.png", BLACK)
    bench.audit(data=bench.tmp / "flat", label_regex="^(cat|dog)")


def flat_without_a_match(bench: Bench) -> None:
    drawn_set.save_image(bench.tmp / "flat" / "cat.png", BLACK)
    bench.audit(data=bench.tmp / "flat", label_regex="^(dog)")


def spoil_manifest(bench: Bench, **values: Any) -> Path:
    path = bench.own_run() / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path.parent


def rendered_too_early(bench: Bench) -> None:
    from audit.report.render import render_report

    run = bench.own_run()
    (run / "metrics.json").unlink()
    render_report(RunFolder.open(run))


def out_of_memory(bench: Bench) -> None:
    """Explain on a device that cannot hold a single image."""

    class Full(Explainer):
        def explain(self, pixels: object, classes: object) -> NoReturn:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.explain.explainers.Explainer", Full)
        bench.audit()


def out_of_memory_in_predictions(bench: Bench) -> None:
    def full(*_: object) -> NoReturn:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    predictor = Predictor(wrap_model(drawn_set.corner_model()), "none")
    predictor._run = full
    predictor.predict(tf.zeros((2, 32, 32, 3)))


def full_disk(bench: Bench) -> None:
    with writing(bench.tmp / "run" / "images.parquet", 10**9):
        raise OSError(errno.ENOSPC, "No space left on device")


def stage_out_of_memory(bench: Bench) -> None:
    def need_too_much(context: object) -> None:
        np.empty(1 << 60, np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.DO, "list", need_too_much)
        bench.audit()


def run_in_use(bench: Bench) -> None:
    with locked(RunFolder(bench.tmp / "run")):
        bench.audit()


def run_in_use_in_a_store(bench: Bench) -> None:
    lock = place("memory://messages/run/logs/run.lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_lock, "WATCH", 0.5)
        patch.setattr(remote_lock, "BEAT", 0.01)
        with remote_lock.held(lock), remote_lock.held(lock):
            pass


def taken_over(bench: Bench) -> None:
    hold = remote_lock.Hold(place("memory://messages/run/logs/run.lock"))
    hold.give_sign()  # There is no lock of its own.
    hold.check()


def store_without_answer(bench: Bench) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise ConnectionError("Name or service not known.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "info", fail)
        bench.audit(data="memory://unknown/val")


def store_not_installed(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "s3fs", None)
        bench.audit(data="s3://bucket/val")


def compare(bench: Bench, *runs: Path, labels: list[str] | None = None) -> None:
    """Compare the finished run with others, or with itself."""
    compare_runs([bench.finished, *(runs or (bench.finished,))], labels)


def compare_other_images(bench: Bench) -> None:
    run = bench.own_run()
    images = RunFolder(run).read_table("images")
    images["y_true"] = 1 - images["y_true"]
    RunFolder(run).write_table("images", images)
    compare(bench, run)


def mask(bench: Bench, name: str) -> Path:
    """Write a mask and return its folder."""
    drawn_set.save_image(bench.tmp / "masks" / name, BLACK)
    return bench.tmp / "masks"


def compute_maps(
    bench: Bench, *runs: Path, model: Path | None = None, data: Path | None = None
) -> None:
    """Compare the finished run with others, by default one that lacks all its maps."""

    def compute(images: MatchedRuns) -> MatchedRuns:
        return compute_missing(images, (None, model), data, bench.tmp / "out", progress=False)

    compare_runs([bench.finished, *(runs or (run_without_maps(bench),))], compute=compute)


def run_without_maps(bench: Bench) -> Path:
    run = bench.own_run()
    shutil.rmtree(run / "explanations")
    return run


def another_model(bench: Bench) -> Path:
    path = bench.tmp / "other.keras"
    pooled(keras.layers.Dense(1)).save(path)
    return path


def images_in_memory(bench: Bench) -> None:
    run = run_without_maps(bench)
    folder = RunFolder(run)
    manifest = folder.read_manifest()
    folder.write_manifest(manifest | {"data": manifest["data"] | {"kind": "dataset"}})
    compute_maps(bench, run, model=bench.model, data=bench.data)


def search(bench: Bench, target: str = "T1", pool: Path | None = None, **options: Any) -> None:
    """Search a pool in which all is right but what the trigger changes."""
    import search_fixture

    from audit.search.find import find_images

    run = bench.tmp / "searched"
    if not run.exists():
        search_fixture.make_run(
            run, options.pop("audited", bench.model), options.pop("data", bench.data), focus=False
        )
    find_images(run, target, pool or bench.own_data(), progress=False, **options)


def search_without_images(bench: Bench) -> None:
    with pytest.raises(AuditError, match="T9"):
        search(bench, "T9")
    bench.file("searched/targets/T1.json", '{"images": []}')
    search(bench)


def search_after_the_model_is_gone(bench: Bench) -> None:
    search(bench, audited=shutil.copy(bench.model, bench.tmp / "own.keras"))
    (bench.tmp / "own.keras").unlink()
    search(bench, out=bench.tmp / "again")


def search_with_a_model_elsewhere(bench: Bench) -> None:
    search(bench)
    folder = RunFolder(bench.tmp / "searched")
    elsewhere = {"path": "s3://bucket/model.keras"}
    folder.write_manifest(folder.read_manifest() | {"model": elsewhere})
    search(bench, out=bench.tmp / "again")


def search_a_prepared_dataset(bench: Bench) -> None:
    import search_fixture

    images, labels, _ = drawn_set.draw_set()
    model = search_fixture.for_pixels_of(1 / 16, -8)
    prepared = dataset(images / np.float32(16) - np.float32(8), labels, batch=8)
    search(bench, audited=model, data=prepared, model=model)


def search_another_pool(bench: Bench) -> None:
    search(bench)
    drawn_set.save_image(bench.tmp / "val" / "new.png", BLACK)
    search(bench)


def nothing_finite(bench: Bench) -> None:
    scores = np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32)
    compute_metrics(
        np.array([0, 1]), np.array([0, 0]), scores, ("a", "b"), positive=1, threshold=0.5
    )


def share(bench: Bench, path: Path, **options: Any) -> None:
    from audit.report.single_file import write_single_file

    write_single_file(RunFolder.open(bench.finished), path, **options)


def demo_below_a_file(bench: Bench) -> None:
    from audit.demo import run_demo

    run_demo(bench.file("file") / "demo")


def without_ray(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        bench.audit(engine="ray")


def no_cluster(bench: Bench) -> None:
    ray = MagicMock()
    ray.is_initialized.return_value = False
    ray.init.side_effect = ConnectionError("Could not find any running Ray instance.\nMore.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", ray)
        ray_engine.connect(ray_engine.Cluster("auto"))


def dying_workers(deaths: int, task: Any = None, quarantined: bool = False) -> None:
    """Tell a driver of shards that workers die."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", MagicMock())
        nothing = ray_engine.Cluster(workers=1)
        driver = ray_engine._Driver(MagicMock(), MagicMock(), nothing, MagicMock(), MagicMock())
    if quarantined:
        driver._quarantines[0] = MagicMock()
    for _ in range(deaths):
        driver._bury(task, ConnectionError("The actor died."))


def files_of_workers_not_seen(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "PATIENCE", 0)
        ray_engine._wait_for_files(RunFolder(bench.tmp), [ONE_SHARD])


def open_site(bench: Bench, **changes: Any) -> None:
    """Open a finished run as a worker on another machine, where something is not the same."""
    config, folder = make_config({}), RunFolder(bench.finished)
    inputs = Inputs(bench.model, bench.data, config)
    site = site_of(Context(inputs, folder, config, False, folder.read_manifest()))
    replace(site, **changes).open(lambda kind, text: None)


def spatial_output(bench: Bench) -> None:
    bench.audit(net(keras.layers.Conv2D(2, 3)))


def einsum_head(bench: Bench) -> None:
    model = net(keras.layers.Flatten(), keras.layers.EinsumDense("ab,bc->ac", 2))
    Predictor(wrap_model(model), "none")


ONE_SHARD = ShardSpec("predictions", 0, (0, 1))
TWO_LABELS = ("path,label", "a.png,cat", "b.png,dog")
IMAGES = np.zeros((4, 8, 8, 3), np.float32)

Trigger = Callable[[Bench], Any]
TRIGGERS: dict[str, list[Trigger]] = {
    "no-such-option": [
        lambda b: b.audit(treshold=0.4),
        lambda b: b.audit(config=b.file("audit.toml", "treshold = 0.4")),
    ],
    "wrong-option": [
        lambda b: b.audit(threshold=1.5),
        lambda b: b.audit(scaling="0-255"),
        lambda b: b.audit(classes="cats"),
        lambda b: b.audit(classes="cats,cats"),
        lambda b: b.audit(fail_under="acuracy=0.9"),
        lambda b: b.audit(address="head:6379"),
        lambda b: b.audit(masks="s3://bucket/masks"),
        lambda b: parse_command("echo 'open"),
        lambda b: parse_command("no-such-program"),
        lambda b: b.audit(label_regex="^cat"),
        lambda b: b.audit(label_regex="("),
        lambda b: b.audit(config=b.file("audit.toml", "seed = -1")),
        lambda _: parse_budget("50%"),
        lambda _: parse_budget("much"),
        lambda b: compare(b, labels=["a"]),
    ],
    "config-file": [
        lambda b: b.audit(config=b.tmp / "no.toml"),
        lambda b: b.audit(config=b.file("audit.toml", "scaling = 0-1")),
    ],
    "scaling-needs-colour": [
        lambda b: b.audit(pooled(keras.layers.Dense(1), inputs=(8, 8, 1)), scaling="imagenet-torch")
    ],
    "limit-of-two-classes": [
        lambda b: b.audit(fail_under="recall=0.5", classes="left,right,middle"),
    ],
    "positive-class": [
        lambda b: b.audit(positive="middle"),
        lambda b: b.audit(positive="left", classes="left,right,middle"),
    ],
    "no-model": [
        lambda b: b.audit(b.tmp / "no.keras"),
        lambda b: b.audit("memory://messages/no.keras"),
    ],
    "model-is-a-folder": [lambda b: b.audit(b.data)],
    "not-callable": [lambda b: b.audit(7)],
    "size-not-said": [lambda b: b.audit(lambda pixels: pixels.mean(axis=(1, 2)))],
    "lfs-pointer": [
        lambda b: b.audit(b.file("m.h5", "version https://git-lfs.github.com/spec/v1\noid x\n"))
    ],
    "not-a-model": [
        lambda b: b.audit(b.file("m.keras", "not a model")),
        lambda b: b.audit(b.file("m.h5", b"")),
    ],
    "weights-only": [weights_file],
    "damaged-model": [cut_off_h5],
    "strange-archive": [archive_that_leads_out, archive_that_swells],
    "model-brings-code": [lambda_layer, lambda b: b.audit(saved_model(b))],
    "model-does-not-load": [damaged_archive, h5_without_sense],
    "saved-model-does-not-load": [
        lambda b: b.audit(b.file("saved/saved_model.pb", "x").parent, trust_model_code=True)
    ],
    "signature-not-clear": [
        lambda b: b.audit(saved_model(b, signatures=("a", "b")), trust_model_code=True)
    ],
    "fixed-batch": [lambda b: b.audit(saved_model(b, n=1), trust_model_code=True)],
    "several-inputs": [two_inputs, two_inputs_saved],
    "input-is-no-image": [
        lambda b: b.audit(net(keras.layers.Dense(2), inputs=(10,))),
        lambda b: b.audit(Raises()),
        encoded_input,
    ],
    "channels": [lambda b: b.audit(pooled(keras.layers.Dense(1), inputs=(8, 8, 4)))],
    "open-size": [lambda b: b.audit(pooled(keras.layers.Dense(1), inputs=(None, None, 3)))],
    "model-does-not-run": [lambda b: wrap_model(Raises(), input_shape=(8, 8, 3))],
    "channels-first": [channels_first],
    "weights-not-finite": [nan_weights],
    "several-outputs": [two_outputs],
    "no-such-output": [lambda b: b.audit(output="no such output")],
    "output-is-no-vector": [spatial_output],
    "wrong-head": [
        lambda b: b.audit(head="softmax"),
        lambda b: b.audit(pooled(keras.layers.Dense(2)), head="sigmoid"),
        lambda b: b.audit(pooled(keras.layers.Dense(2)), head="softmax"),
    ],
    "sigmoid-per-class": [
        lambda b: b.audit(
            pooled(keras.layers.Dense(3, activation="sigmoid", kernel_initializer="zeros")),
            classes="left,right,middle",
        )
    ],
    "no-classifier-head": [einsum_head],
    "no-spatial-layer": [
        lambda b: Explainer(wrap_model(net(keras.layers.Flatten(), keras.layers.Dense(1)))),
    ],
    "layers-leave-none": [lambda b: b.audit(layers="no such layer")],
    "out-of-memory": [out_of_memory, out_of_memory_in_predictions],
    "not-probabilities": [
        lambda b: b.audit(
            lambda pixels: np.where(pixels.mean(axis=(1, 2, 3)) > 100, 0.5, 3.0),
            dataset(drawn_set.draw_set()[0], drawn_set.draw_set()[1]),
        ),
        lambda b: b.audit(
            lambda pixels: np.where(pixels.mean(axis=(1, 2, 3))[:, None] > 100, 0.5, [[0.1, 0.3]]),
            dataset(drawn_set.draw_set()[0], drawn_set.draw_set()[1]),
        ),
    ],
    "outputs-not-finite": [nothing_finite],
    "no-data": [lambda b: b.audit(data=b.tmp / "nothing")],
    "no-images": [
        lambda b: b.audit(data=b.file("empty/notes.txt", "no image").parent),
        flat_without_a_match,
        lambda b: b.audit(data=b.manifest("path,label", "a.tiff,cat")),
    ],
    "one-class-only": [
        lambda b: b.audit(data=b.manifest("path,label", "a.png,cat")),
        flat_with_one_class,
    ],
    "classes-do-not-match": [
        other_class_folder,
        lambda b: b.audit(data=b.manifest(*TWO_LABELS), classes="cat,cow"),
    ],
    "class-count": [
        lambda b: b.audit(classes="left,right,middle"),
        lambda b: b.audit(pooled(keras.layers.Dense(3))),
    ],
    "nothing-predicted": [all_unreadable],
    "no-folder-of-masks": [
        lambda b: b.audit(masks=b.tmp / "no"),
        lambda b: b.audit(masks=b.file("m.png")),
    ],
    "folder-without-masks": [
        lambda b: b.audit(masks=b.file("empty/x.txt").parent),
        lambda b: b.audit(boxes=b.data),
    ],
    "no-boxes": [lambda b: b.audit(boxes=b.tmp / "no.json")],
    "boxes-unreadable": [
        lambda b: b.audit(boxes=b.file("b.json", "[1, 2")),
        lambda b: b.audit(boxes=b.file("b.json", '{"images": [1], "annotations": []}')),
    ],
    "masks-of-other-images": [lambda b: b.audit(masks=mask(b, "other.png"))],
    "image-changed": [shuffled],
    "not-a-manifest": [lambda b: b.audit(data=b.file("list.txt", "a.png"))],
    "manifest-unreadable": [
        lambda b: b.audit(data=b.file("list.csv", "")),
        lambda b: b.audit(data=b.file("list.csv", "path,label\ncafé.jpg,x\n".encode("latin-1"))),
        lambda b: b.audit(data=b.file("list.parquet", "not a table")),
    ],
    "manifest-columns": [lambda b: b.audit(data=b.manifest("file,label", "a.png,cat"))],
    "manifest-gap": [lambda b: b.audit(data=b.manifest(*TWO_LABELS, "c.png,"))],
    "manifest-empty": [lambda b: b.audit(data=b.manifest("path,label"))],
    "manifest-twice": [lambda b: b.audit(data=b.manifest(*TWO_LABELS, "./a.png,cow"))],
    "manifest-outside": [
        lambda b: b.audit(data=b.manifest(*TWO_LABELS, "../c.png,cat")),
        lambda b: b.audit(data=b.manifest(*TWO_LABELS, "/etc/c.png,cat")),
    ],
    "dataset-without-labels": [lambda b: b.audit(data=dataset(IMAGES))],
    "dataset-not-one-image": [lambda b: b.audit(data=dataset({"image": IMAGES}, [0, 1, 0, 1]))],
    "dataset-not-batched": [lambda b: b.audit(data=dataset(IMAGES, [0, 1, 0, 1], batch=None))],
    "dataset-empty": [lambda b: b.audit(data=dataset(IMAGES, [0, 1, 0, 1]).take(0))],
    "dataset-labels": [
        lambda b: b.audit(data=dataset(IMAGES, [0, 1, 2, 3]), classes="a,b"),
        lambda b: b.audit(data=dataset(IMAGES, [-1, 1, -1, 1])),
    ],
    "dataset-class-names": [named_otherwise],
    "not-a-run": [lambda b: Run(b.data), lambda b: Run(b.tmp / "nothing")],
    "other-format": [lambda b: Run(spoil_manifest(b, format_version=99))],
    "unreadable-run": [
        lambda b: Run(b.file("run/manifest.json", "{").parent),
        lambda b: Run(b.file("run/manifest.json", b"\xff").parent),
    ],
    "not-an-object": [lambda b: Run(b.file("run/manifest.json", "[]").parent)],
    "other-run": [
        lambda b: b.audit(out=b.finished, seed=9),
        lambda b: b.audit(drawn_set.corner_model("sigmoid"), out=b.finished),
        lambda b: b.audit(data=b.manifest(*TWO_LABELS), out=b.finished),
    ],
    "out-is-a-file": [lambda b: b.audit(out=b.file("file"))],
    "out-not-empty": [lambda b: b.audit(out=b.file("folder/mine.txt").parent)],
    "cannot-write": [
        lambda b: b.audit(out=b.file("file") / "run"),
        lambda b: b.audit(out="/proc/no/run"),
        demo_below_a_file,
        lambda b: share(b, b.file("file") / "report.zip"),
        lambda b: share(b, b.file("folder/mine.txt").parent),
        lambda b: search(b, out=b.file("file") / "found"),
    ],
    "no-room": [full_disk],
    "stage-out-of-memory": [stage_out_of_memory],
    "run-in-use": [run_in_use, run_in_use_in_a_store],
    "no-metrics-yet": [rendered_too_early],
    "budget-too-small": [lambda b: share(b, b.tmp / "report.html", budget=20_000)],
    "unknown-scheme": [lambda b: b.audit(data="https://example.org/val")],
    "not-a-url": [
        lambda b: b.audit(data="s3://key:secret@bucket/val"),
        lambda b: b.audit(out="memory://bucket/../run"),
    ],
    "lost-slash": [lambda b: b.audit(data=Path("s3://bucket/val"))],
    "store-not-installed": [store_not_installed],
    "not-reached": [store_without_answer],
    "taken-over": [taken_over],
    "only-here": [lambda b: LocalArgument().convert("memory://bucket/report.zip", None, None)],
    "ray-not-installed": [without_ray],
    "no-cluster": [no_cluster],
    "not-in-files": [
        lambda b: b.audit(drawn_set.corner_model(), engine="ray"),
        lambda b: b.audit(data=dataset(IMAGES, [0, 1, 0, 1]), engine="ray"),
    ],
    "worker-without-files": [
        lambda b: open_site(b, model=b.tmp / "gone"),
        lambda b: open_site(b, root=b.tmp / "gone"),
    ],
    "worker-without-run": [
        lambda b: open_site(b, run=b.tmp / "gone"),
        lambda b: open_site(b, started="1999-01-01T00:00:00+00:00"),
    ],
    "worker-of-another-version": [lambda b: open_site(b, versions={"numpy": "1.0"})],
    "workers-do-not-begin": [lambda _: dying_workers(3)],
    "workers-die-together": [lambda _: dying_workers(3, ray_engine._Task(ONE_SHARD), True)],
    "not-seen-here": [files_of_workers_not_seen],
    "no-target": [lambda b: search(b, "T9")],
    "target-without-images": [search_without_images],
    "no-pool": [
        lambda b: search(b, pool=b.tmp / "nothing"),
        lambda b: search(b, pool=b.file("file")),
    ],
    "empty-pool": [lambda b: search(b, pool=b.file("empty/notes.txt").parent)],
    "pool-unreadable": [lambda b: search(b, pool=b.file("broken/a.png").parent)],
    "model-not-recorded": [lambda b: search(b, audited=drawn_set.corner_model())],
    "model-gone": [search_after_the_model_is_gone],
    "model-behind-url": [search_with_a_model_elsewhere],
    "another-model": [
        lambda b: search(b, model=drawn_set.save_model(b.tmp / "other.keras", head="sigmoid"))
    ],
    "pool-not-alike": [search_a_prepared_dataset],
    "search-in-pool": [lambda b: search(b, out=b.tmp / "val" / "found")],
    "other-search": [search_another_pool],
    "not-a-search": [
        lambda b: search(b, out=b.file("mine/own.txt").parent),
        lambda b: search(b, out=b.file("file")),
    ],
    "too-few-runs": [lambda b: compare_runs([b.finished])],
    "run-not-finished": [lambda b: compare(b, spoil_manifest(b, status="running"))],
    "other-classes": [lambda b: compare(b, spoil_manifest(b, class_names=["left", "centre"]))],
    "no-common-image": [compare_other_images],
    "maps-of-two-runs": [
        lambda b: compute_maps(b, b.finished, b.finished, model=b.model, data=b.data)
    ],
    "maps-need-images": [lambda b: compute_maps(b, b.finished, model=b.model)],
    "images-need-a-model": [lambda b: compute_maps(b, b.finished, data=b.data)],
    "not-the-runs-model": [lambda b: compute_maps(b, model=another_model(b), data=b.data)],
    "no-images-for-maps": [lambda b: compute_maps(b, model=b.model, data=b.tmp / "no")],
    "images-in-memory": [images_in_memory],
    "no-map-made": [lambda b: compute_maps(b, model=b.model, data=b.file("x/y").parent)],
    "not-a-comparison": [
        lambda b: check_out(b.file("mine/own.txt").parent),
        lambda b: check_out(b.file("file")),
    ],
}
CASES = [(slug, number) for slug, found in TRIGGERS.items() for number in range(len(found))]


@dataclass(frozen=True)
class Outcome:
    """What a trigger raised: its text, and the file and line that raised it."""

    text: str
    raised_in: Path
    line: int


Outcomes = Callable[[str, int], Outcome]


@pytest.fixture(scope="module")
def outcomes(
    drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """Run a trigger when it is first asked for, and remember what came of it."""
    known: dict[tuple[str, int], Outcome] = {}

    def outcome(slug: str, number: int) -> Outcome:
        if (slug, number) not in known:
            bench = Bench(tmp_path_factory.mktemp(slug), drawn_model, drawn_data, drawn_run)
            with pytest.raises(AuditError) as caught:
                TRIGGERS[slug][number](bench)
            frame = traceback.extract_tb(caught.value.__traceback__)[-1]
            known[slug, number] = Outcome(str(caught.value), Path(frame.filename), frame.lineno)
        return known[slug, number]

    yield outcome


def documented() -> dict[str, str]:
    """Return the message of each section of the page."""
    sections = re.findall(r"^## (\S+)\n\n((?:> .*\n)+)\n(.+)", PAGE.read_text(), re.MULTILINE)
    assert len(sections) == PAGE.read_text().count("\n## "), "a section lacks a message or a text"
    return {
        slug: " ".join(line.removeprefix("> ") for line in quote.splitlines())
        for slug, quote, _ in sections
    }


def as_pattern(message: str) -> str:
    """Turn a documented message into a regular expression; … stands for anything."""
    return ".+?".join(re.escape(part) for part in message.split("…"))


@pytest.mark.parametrize(("slug", "number"), CASES)
def test_a_message_reads_as_documented(slug: str, number: int, outcomes: Outcomes):
    text = outcomes(slug, number).text
    assert re.match(as_pattern(documented()[slug]), text, re.DOTALL), text
    others = {
        other
        for other, message in documented().items()
        if other != slug and re.match(as_pattern(message), text, re.DOTALL)
    }
    assert not others, f"the text fits these sections as well: {others}"


@pytest.mark.parametrize(("slug", "number"), CASES)
def test_a_message_is_one_sentence_line_with_what_was_received(
    slug: str, number: int, outcomes: Outcomes
):
    text = outcomes(slug, number).text
    assert text.endswith((".", "`.", '".'))
    known = "Received: |Received, for the first: |cannot be read|There is no option|does not hold"
    assert re.search(known, text), text


def test_every_section_is_triggered_and_linked():
    assert set(documented()) == set(TRIGGERS)
    links = re.findall(r"\[([\w-]+)\]\(#([\w-]+)\)", PAGE.read_text())
    assert [name for name, _ in links if name in TRIGGERS] == list(documented())
    assert all(name == anchor for name, anchor in links if name in TRIGGERS)


def raise_sites() -> dict[tuple[Path, range], str]:
    """Return every place in the package that raises a user's error, with its first line."""
    sites = {}
    for path in sorted((ROOT / "audit").rglob("*.py")):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and isinstance(node.exc.func, ast.Name)
                and node.exc.func.id in ERROR_NAMES
            ):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                sites[path, lines] = f"{path.name}:{node.lineno}"
    return sites


def test_no_error_in_the_code_is_forgotten(outcomes: Outcomes):
    reached = {(seen.raised_in, seen.line) for seen in (outcomes(*case) for case in CASES)}
    forgotten = [
        name
        for (path, lines), name in raise_sites().items()
        if not any(raised_in == path and line in lines for raised_in, line in reached)
    ]
    assert not forgotten, "document them in docs/messages.md and trigger them in TRIGGERS"


def test_every_way_to_refuse_an_option_names_it():
    for name, value in {"threshold": 2, "batch_size": 0, "classes": "one", "seed": -1}.items():
        with pytest.raises(AuditError, match=f"`--{name.replace('_', '-')}` cannot be used"):
            make_config({name: value})
