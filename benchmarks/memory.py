"""How much memory an audit takes, and by how much that grows with the number of images.

    python benchmarks/memory.py [--sizes 2000 200000] [--audit MODEL IMAGES]

Draws sets of so many cheap pictures (32 × 32 pixels, each another one) into the system's temporary
folder, 64 of them in the folder of the other class, so that both sets have as many errors and only
the number of predictions differs. Each set is audited at the default settings in a process of its
own by a small network whose embeddings are 64 wide. Printed: the most memory that each process had
resident, in which stage, and the ratio of the largest to the smallest set. With `--audit`, an audit
of a real model at the default settings is measured the same way instead. Needs Linux.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

N_ERRORS = 64
SIDE = 32
CLASSES = ("blue", "red")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
BETWEEN = "between stages"
_FILES_PER_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 200_000])
    parser.add_argument("--audit", type=Path, nargs=2, metavar=("MODEL", "IMAGES"))
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.out:
        print(json.dumps(audit_here(*arguments.audit, arguments.out)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        if arguments.audit:
            measure(*arguments.audit, Path(folder) / "run")
            return
        model = save_model(Path(folder) / "colours.keras")
        peaks = []
        for size in sorted(arguments.sizes):
            images = draw_images(Path(folder) / f"images-{size}", size)
            peaks.append(measure(model, images, Path(folder) / f"run-{size}"))
        print(f"largest ÷ smallest: {peaks[-1] / peaks[0]:.3f}")


def measure(model: Path, images: Path, out: Path) -> float:
    """Audit in a process of its own, print what memory it took, and return the most, in MB."""
    command = [sys.executable, __file__, "--audit", model, images, "--out", out]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    found = json.loads(done.stdout.splitlines()[-1])
    stages = found["stages"]
    where = max(stages, key=lambda name: stages[name])
    peak = max(stages[where], found["children"])
    print(
        f"{found['n_images']:,} images, {found['n_errors']:,} errors, {found['seconds']:.0f} s:"
        f" {peak:.0f} MB at most, in {where}"
    )
    print("  " + ", ".join(f"{name} {mb:.0f}" for name, mb in stages.items()), flush=True)
    return peak


def audit_here(model: Path, images: Path, out: Path) -> dict[str, Any]:
    """Audit in this process; return the peak in each stage and of any process started, in MB."""
    from audit import pipeline

    peaks: dict[str, float] = {}

    def watched(name: str, do: Callable[[Any], None]) -> Callable[[Any], None]:
        def stage(context: Any) -> None:
            note_peak(BETWEEN)
            do(context)
            note_peak(name)

        return stage

    def note_peak(name: str) -> None:
        peaks[name] = max(peaks.get(name, 0.0), take_peak())

    pipeline.DO = {name: watched(name, do) for name, do in pipeline.DO.items()}
    begin = time.perf_counter()
    result = pipeline.run(model, images, out, progress=False)
    seconds = time.perf_counter() - begin
    note_peak(BETWEEN)
    summary = result.summary()
    peaks[BETWEEN] = peaks.pop(BETWEEN)  # Last, so that of equal peaks a stage is named.
    return {
        "stages": peaks,
        "children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
        "seconds": seconds,
        "n_images": summary["n_images"],
        "n_errors": summary["n_errors"],
    }


def take_peak() -> float:
    """Return the most MB (10⁶ bytes) this process has had resident since this was called last."""
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    _CLEAR.write_text(_FORGET_PEAK)
    return int(line.split()[1]) * 1024 / 1e6


def draw_images(folder: Path, n_images: int) -> Path:
    """Write so many pictures, half of them blue and half red; `N_ERRORS` lie in the wrong one."""
    rng = np.random.default_rng(0)
    for number in range(n_images):
        colour = number % 2
        filed = 1 - colour if number < N_ERRORS else colour
        picture = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
        picture[8:24, 8:24, 2 * colour] += 150  # OpenCV's order: blue, green, red.
        path = folder / CLASSES[filed] / f"{number // _FILES_PER_FOLDER:04d}" / f"{number:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def save_model(path: Path) -> Path:
    """Write a small network that tells red from blue."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="colours"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="mixed"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax", name="answer"),
        ]
    )
    for name, width in (("colours", 3), ("mixed", 16)):  # The first two channels are blue and red.
        kernel, bias = model.get_layer(name).get_weights()
        kernel[..., :2] = 0
        kernel[..., 0 if width == 16 else 2, 0] = kernel[..., 1 if width == 16 else 0, 1] = 1 / 9
        model.get_layer(name).set_weights([kernel, bias])
    kernel, bias = model.get_layer("answer").get_weights()
    kernel[:] = 0
    kernel[0], kernel[1] = (40, -40), (-40, 40)
    model.get_layer("answer").set_weights([kernel, bias])
    model.save(path)
    return path


if __name__ == "__main__":
    main()
