"""What a whole audit costs against the least that any audit must do.

    python benchmarks/overnight.py MODEL IMAGES [--repeats 3]

The least: `model.predict` over `keras.utils.image_dataset_from_directory`, then one batched
forward and backward pass for each explained image. Both are whole processes, from the start of
Python to the end, run in turn so that a change in the machine's speed hits both. Printed: each
pair's seconds and ratio, the ratio without start-up (importing TensorFlow, loading the model), and
where an audit's time goes by stage.
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
from pathlib import Path

EXPLAIN_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, help="a folder per class")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--least", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.least is not None:
        print(json.dumps(do_the_least(arguments.model, arguments.images, arguments.least)))
        return
    compare(arguments.model, arguments.images, arguments.repeats)


def compare(model: Path, images: Path, repeats: int) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"{'audit':>9}  {'least':>9}  {'ratio':>6}  {'ratio without start-up':>23}   (seconds)")
    whole, work, stages = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [sys.executable, "-m", "audit", "run", model, images, "--out", run]
            audit_seconds, _ = timed(command)
            manifest = json.loads((run / "manifest.json").read_text())
            shown = timed([sys.executable, "-m", "audit", "show", run, "--json"])[1]
            n_explained = n_explained_images(run)
        least_command = [sys.executable, __file__, model, images, "--least", str(n_explained)]
        least_seconds, printed = timed(least_command)
        least = json.loads(printed.splitlines()[-1])
        seconds = {name: stage["seconds"] for name, stage in manifest["stages"].items()}
        start_up = least["start_up"]
        whole.append(audit_seconds / least_seconds)
        work.append((audit_seconds - start_up) / (least_seconds - start_up))
        stages.append(seconds | {"outside the stages": audit_seconds - sum(seconds.values())})
        print(
            f"{audit_seconds:9.1f}  {least_seconds:9.1f}  {whole[-1]:6.2f}  {work[-1]:23.2f}"
            f"   predict {least['predict']:.1f}, forward+backward {least['backward']:.1f},"
            f" start-up {start_up:.1f}"
        )
    summary = json.loads(shown)
    print(
        f"median ratio {statistics.median(whole):.2f},"
        f" without start-up {statistics.median(work):.2f}"
    )
    print(
        f"{summary['n_images']} images, {summary['n_errors']} errors, {n_explained} images"
        f" explained over {summary['n_layers']} layers; median seconds by stage:"
    )
    for name in stages[0]:
        print(f"  {name:<20}{statistics.median(stage[name] for stage in stages):7.2f}")


def timed(command: list[object]) -> tuple[float, str]:
    """Run a command; return its seconds from start to end, and its standard output."""
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
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


if __name__ == "__main__":
    main()
