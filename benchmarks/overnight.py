"""What a whole audit costs against the least that any audit must do.

    python benchmarks/overnight.py MODEL IMAGES [--repeats 3] [--views 1]

The least: `model.predict` over `keras.utils.image_dataset_from_directory`, then one batched
forward and backward pass for each explained image. Both are whole processes, from the start of
Python to the end, run in turn so that a change in the machine's speed hits both. Printed: each
pair's seconds and ratio; the ratio without start-up (importing TensorFlow, loading the model); that
of predictions, metrics and maps alone, without what tells why the model errs; where an audit's time
goes by stage; and images a second with 1 and 2 threads. With `--views 8`
each photograph comes with seven seeded crops of it, so that what is paid once (starting, tracing)
weighs as little as in a night. Needs Linux.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

EXPLAIN_BATCH = 16
WHY = ("causes", "patterns", "labels", "slices", "probes", "findings", "report")
"""Stages of which the least has nothing."""
LEAST_CROP = 0.8
"""The smallest crop has this part of a photograph's sides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, help="a folder per class")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--views", type=int, default=1, help="of each photograph, crops of it")
    parser.add_argument("--least", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--speed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.least is not None:
        print(json.dumps(do_the_least(arguments.model, arguments.images, arguments.least)))
        return
    if arguments.speed:
        print(json.dumps(measure_speed(arguments.model, arguments.images)))
        return
    if arguments.views == 1:
        compare(arguments.model, arguments.images, arguments.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_views(arguments.images, Path(folder), arguments.views)
        compare(arguments.model, Path(folder), arguments.repeats)


def write_views(images: Path, folder: Path, n_views: int) -> None:
    """Write each photograph and crops of it, mirrored every other time, as JPEG."""
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    for path in paths:
        (folder / path.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_crops, images, folder, n_views), range(len(paths)), paths))


def write_crops(images: Path, folder: Path, n_views: int, number: int, path: Path) -> None:
    """Write the views of one photograph; the first is the file as it is."""
    target = folder / path.relative_to(images)
    target.write_bytes(path.read_bytes())
    pixels = cv2.imread(str(path))
    height, width = pixels.shape[:2]
    for view in range(1, n_views):
        random = np.random.default_rng([number, view])
        share = random.uniform(LEAST_CROP, 1)
        top, left = random.uniform(0, 1 - share, 2) * (height, width)
        crop = pixels[int(top) :, int(left) :][: int(share * height), : int(share * width)]
        crop = crop[:, ::-1] if view % 2 else crop
        cv2.imwrite(str(target.with_stem(f"{path.stem}_{view}")), crop)


@dataclass(frozen=True)
class Pair:
    """Seconds of an audit and of the least, one after the other.

    Attributes:
        audit: from the start of the process to its end.
        stages: of the audit, by stage.
        summary: what the audit found.
        n_explained: images explained.
        least: from start to end.
        parts: of the least: start_up, predict, backward.
    """

    audit: float
    stages: dict[str, float]
    summary: dict[str, Any]
    n_explained: int
    least: float
    parts: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.audit / self.least

    @property
    def work_ratio(self) -> float:
        """Without start-up on both sides."""
        start_up = self.parts["start_up"]
        return (self.audit - start_up) / (self.least - start_up)

    @property
    def maps_ratio(self) -> float:
        """Of predictions, metrics and maps alone, start-up included."""
        return (self.audit - sum(self.stages[name] for name in WHY)) / self.least


def compare(model: Path, images: Path, repeats: int) -> None:
    n_cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {n_cores} cores")
    print(f"{'audit':>9}  {'least':>9}  {'ratio':>6}  {'ratio without start-up':>23}   (seconds)")
    pairs = [run_pair(model, images, n_cores) for _ in range(repeats)]
    first = pairs[0]
    print(
        f"median ratio {statistics.median(pair.ratio for pair in pairs):.2f},"
        f" without start-up {statistics.median(pair.work_ratio for pair in pairs):.2f},"
        f" predictions and maps alone {statistics.median(pair.maps_ratio for pair in pairs):.2f}"
    )
    print(
        f"{first.summary['n_images']} images, {first.summary['n_errors']} errors,"
        f" {first.n_explained} images explained over {first.summary['n_layers']} layers; median"
        " seconds by stage, and share of the audit:"
    )
    for name in first.stages:
        seconds = statistics.median(pair.stages[name] for pair in pairs)
        share = statistics.median(pair.stages[name] / pair.audit for pair in pairs)
        print(f"  {name:<20}{seconds:7.2f}{share:7.1%}")
    for n in (1, 2):
        if n <= n_cores:
            printed = timed([sys.executable, __file__, model, images, "--speed"], n)[1]
            speed = json.loads(printed.splitlines()[-1])
            print(
                f"{n} {'thread' if n == 1 else 'threads'}: the audit predicts"
                f" {speed['audit']:.0f} images/s, bare predict {speed['bare']:.0f}, in one process"
            )


def run_pair(model: Path, images: Path, n_cores: int) -> Pair:
    """Audit, then do the least, both on so many cores; print and return what they took."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "audit", "run", model, images, "--out", run]
        audit_seconds, _ = timed(command, n_cores)
        manifest = json.loads((run / "manifest.json").read_text())
        shown = timed([sys.executable, "-m", "audit", "show", run, "--json"], n_cores)[1]
        n_explained = n_explained_images(run)
    least_command = [sys.executable, __file__, model, images, "--least", str(n_explained)]
    least_seconds, printed = timed(least_command, n_cores)
    seconds = {name: stage["seconds"] for name, stage in manifest["stages"].items()}
    pair = Pair(
        audit=audit_seconds,
        stages=seconds | {"outside the stages": audit_seconds - sum(seconds.values())},
        summary=json.loads(shown),
        n_explained=n_explained,
        least=least_seconds,
        parts=json.loads(printed.splitlines()[-1]),
    )
    print(
        f"{pair.audit:9.1f}  {pair.least:9.1f}  {pair.ratio:6.2f}  {pair.work_ratio:23.2f}"
        f"   predict {pair.parts['predict']:.1f}, forward+backward {pair.parts['backward']:.1f},"
        f" start-up {pair.parts['start_up']:.1f}; {n_cores} cores",
        flush=True,
    )
    return pair


def timed(command: list[object], n_cores: int) -> tuple[float, str]:
    """Run a command on so many cores; return its seconds from start to end, and its output."""
    cores = sorted(os.sched_getaffinity(0))[:n_cores]
    begin = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return seconds, done.stdout


def n_explained_images(run: Path) -> int:
    import pandas as pd

    return pd.read_parquet(run / "focus.parquet")["image_id"].nunique()


def do_the_least(model_path: Path, images: Path, n_explained: int) -> dict[str, float]:
    """Predict every image, then run forward and backward on as many as are explained."""
    begin = time.perf_counter()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(model_path, compile=False)
    start_up = time.perf_counter() - begin
    dataset = keras.utils.image_dataset_from_directory(
        images, image_size=model.input_shape[1:3], shuffle=False, verbose=False
    )
    begin = time.perf_counter()
    model.predict(dataset, verbose=0)
    predict = time.perf_counter() - begin

    @tf.function(jit_compile=False)
    def backward(pixels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            score = tf.reduce_sum(model(pixels, training=False)[:, 0])
        return tape.gradient(score, pixels)

    begin = time.perf_counter()
    batches = dataset.unbatch().take(n_explained).batch(EXPLAIN_BATCH)
    for pixels, _ in batches:
        backward(pixels)
    return {
        "start_up": start_up,
        "predict": predict,
        "backward": time.perf_counter() - begin,
    }


def measure_speed(model: Path, images: Path) -> dict[str, float]:
    """Return images a second of the audit's shards, files included, and of bare `predict`."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    from audit.config import make_config
    from audit.engines.local import cut_shards, run_shards
    from audit.inputs import Inputs
    from audit.predict.inference import PredictWorker, predict_shard
    from audit.run_folder import RunFolder

    config = make_config({})
    inputs = Inputs(model, images, config)
    loaded, ids = inputs.model, inputs.listing.images["image_id"]
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(path)
        begin = time.perf_counter()
        worker = PredictWorker(
            folder, inputs.source, inputs.predictor, inputs.rule, config.batch_size
        )
        specs = cut_shards("predictions", ids, config.shard_size)
        run_shards(folder, specs, predict_shard, lambda: worker)
        audited = time.perf_counter() - begin
    dataset = keras.utils.image_dataset_from_directory(
        images, image_size=loaded.input_size, shuffle=False, verbose=False
    )
    begin = time.perf_counter()
    loaded.model.predict(dataset, verbose=0)
    return {"audit": len(ids) / audited, "bare": len(ids) / (time.perf_counter() - begin)}


if __name__ == "__main__":
    main()
