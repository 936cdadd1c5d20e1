"""What maps of all layers cost against one bare forward and backward pass of the same batch.

    python benchmarks/explain.py [--models resnet50,vgg16] [--batch 8] [--repeats 7] [--peers]
    python benchmarks/explain.py --many 10000

For each model, all with random weights and in a process of its own, the batch is run in turn
through: the forward pass; forward and backward to the first convolution's output, as a plain
`tf.function` of the model; all maps for one class; all maps for two. Threads are as an audit sets
them; the bare pass is timed once more in a process with those that TensorFlow chooses by itself.
Printed are medians and their ratios to this last pass; the same of the processor's time, to the
bare pass beside it; bytes on disk for one image and class; and the article's loop (a sub-model
for each layer, one image at a time) as well as other libraries, extrapolated from a few layers.
Then, for each model and pass in a process of its own, by how much memory grows at most, against
what batches are planned by. `--many` explains tiny images and prints the memory in use on the way,
which must not grow.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
MODELS = {
    "mobilenetv2": "MobileNetV2 alpha 1.0, 160 px",
    "resnet50": "ResNet50",
    "efficientnetb0": "EfficientNetB0",
    "densenet121": "DenseNet121",
    "vgg16": "VGG16",
    "nested": "nested MobileNetV2 alpha 0.35",
}
PEERS = {
    "tf-keras-vis": ("deprecated", "imageio"),
    "xplique": (
        "deprecated",
        "einops",
        "matplotlib",
        "scikit-image",
        "tensorflow-probability",
        "tf-keras",
    ),
}
"""Other libraries and what they need. xplique asks for an older TensorFlow; it gets ours."""
PASSES = ("bare", "one", "two")
N_SAMPLED = 4
"""So many layers, evenly spread, stand for all of them where a method goes layer by layer."""
_STATUS, _PAGES = Path("/proc/self/status"), Path("/proc/self/statm")
_REFERENCES = Path("/proc/self/clear_refs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="install and time other libraries")
    parser.add_argument("--many", type=int, help="explain so many tiny images")
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=PASSES, help=argparse.SUPPRESS)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        print(json.dumps(time_peer(arguments.peer)))
    elif arguments.one and arguments.memory:
        print(json.dumps(measure_memory(arguments.one, arguments.memory, arguments.batch)))
    elif arguments.one:
        only_bare = arguments.bare
        print(json.dumps(measure(arguments.one, arguments.batch, arguments.repeats, only_bare)))
    elif arguments.many:
        explain_many(arguments.many)
    else:
        names = arguments.models.split(",")
        compare(names, arguments.batch, arguments.repeats)
        compare_memory(names, arguments.batch)
        if arguments.peers:
            compare_peers()


def compare(names: list[str], batch: int, repeats: int) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, batch {batch}")
    print("ratios to a bare forward and backward pass, medians of interleaved runs")
    heads = ("layers", "forward", "bare ms/img", "our threads", "1 class", "2 classes", "2 ÷ 1")
    heads += ("1 class, CPU", "loop ÷ 1 class", "KB on disk", "side", "start s", "busy cores")
    print(f"{'':32}" + "".join(f"{head:>15}" for head in heads))
    gpus = 0
    for name in names:
        found = run_self("--one", name, "--batch", batch, "--repeats", repeats)
        gpus = found["gpus"]
        bare = run_self(
            "--one",
            name,
            "--batch",
            batch,
            "--repeats",
            repeats,
            "--bare",
            TF_NUM_INTRAOP_THREADS="0",
        )["bare"]
        cells = (
            found["n_layers"],
            f"{found['forward'] / bare:.2f}",
            f"{1000 * bare / batch:.1f}",
            f"{found['bare'] / bare:.2f}",
            f"{found['one'] / bare:.2f}",
            f"{found['two'] / bare:.2f}",
            f"{found['two'] / found['one']:.2f}",
            f"{found['one cpu'] / found['bare cpu']:.2f}",
            f"{found['loop'] * batch / found['one']:.0f}",
            f"{found['disk'] / 1024:.1f}",
            found["side"],
            f"{found['start']:.0f}",
            f"{found['busy']:.1f}",
        )
        print(f"{MODELS[name]:32}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
    print(f"The loop is extrapolated from {N_SAMPLED} layers. Pixels and weights are random.")
    if not gpus:
        print("not measured on a GPU: there is none")


def compare_memory(names: list[str], batch: int) -> None:
    """Print by how much memory grows at most; on Linux only."""
    if not _STATUS.is_file():
        print("memory: not measured on this system")
        return
    print(f"\nby how much memory grows at most, MB for each image of a batch of {batch}")
    heads = ("bare", "1 class", "2 classes", "planned", "activations", "2 classes ÷ activations")
    print(f"{'':32}" + "".join(f"{head:>25}" for head in heads))
    for name in names:
        of_pass = {
            one: run_self("--one", name, "--memory", one, "--batch", batch) for one in PASSES
        }
        growth = [of_pass[one]["growth"] for one in PASSES]
        planned, activations = of_pass["two"]["planned"], of_pass["two"]["activations"]
        cells = [f"{n_bytes / 1e6:.1f}" for n_bytes in (*growth, planned, activations)]
        cells.append(f"{growth[-1] / activations:.2f}")
        print(f"{MODELS[name]:32}" + "".join(f"{cell:>25}" for cell in cells), flush=True)


def run_self(*arguments: object, **variables: str) -> Any:
    """Run this script in a process of its own."""
    return run_json([sys.executable, __file__, *map(str, arguments)], **variables)


def run_json(command: list[str], **variables: str) -> Any:
    """Run a command and return what its last line of output holds."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def build(name: str) -> Any:
    """Return a Keras model with random weights."""
    import keras

    keras.utils.set_random_seed(0)
    applications = keras.applications
    if name == "mobilenetv2":
        return applications.MobileNetV2((160, 160, 3), weights=None)
    if name == "nested":
        backbone = applications.MobileNetV2(
            (224, 224, 3), alpha=0.35, include_top=False, weights=None
        )
        layers = [
            keras.layers.Rescaling(1 / 127.5, -1),
            backbone,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
        return keras.Sequential([keras.Input((224, 224, 3)), *layers])
    makers = (applications.ResNet50, applications.EfficientNetB0, applications.DenseNet121)
    by_name = {maker.__name__.lower(): maker for maker in (*makers, applications.VGG16)}
    return by_name[name](weights=None)


def draw(n: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (n, *size, 3)).astype(np.float32)


def measure(name: str, batch: int, repeats: int, only_bare: bool = False) -> dict[str, float]:
    """Return the median seconds of each pass, and "… cpu": those of the processor."""
    from audit.predict.devices import prepare_tensorflow

    prepare_tensorflow()  # Threads as an audit has them, unless the variable says otherwise.
    import tensorflow as tf

    from audit.explain.maps import Explainer
    from audit.predict.model import wrap_model

    model = wrap_model(build(name))
    pixels = tf.constant(draw(batch, model.input_size))
    bare = bare_pass(model)
    if only_bare:
        return interleave({"bare": lambda: [tensor.numpy() for tensor in bare(pixels)]}, repeats)
    begin = time.perf_counter()
    explainer = Explainer(model)
    start = time.perf_counter() - begin
    one, two = np.array([[1, 1]] * batch), np.array([[0, 1]] * batch)
    forward = tf.function(lambda x: model.model(x, training=False), autograph=False)
    seconds = interleave(
        {
            "forward": lambda: forward(pixels).numpy(),
            "bare": lambda: [tensor.numpy() for tensor in bare(pixels)],
            "one": lambda: explainer.explain(pixels, one),
            "two": lambda: explainer.explain(pixels, two),
        },
        repeats,
    )
    maps = explainer.explain(pixels, two)
    n_layers = sum(layer.kept for layer in explainer.layers)
    return seconds | {
        "n_layers": n_layers,
        "loop": n_layers * article_seconds_per_layer(model.model),
        "start": start,
        "busy": os.getloadavg()[0],
        "disk": bytes_on_disk(maps, batch),
        "side": explainer.stored_side,
        "gpus": len(tf.config.list_physical_devices("GPU")),
    }


def bare_pass(model: Any) -> Callable[[Any], Any]:
    """Return one forward and backward pass, down to the output of the first convolution."""
    import keras
    import tensorflow as tf

    from audit.predict.tracing import observe_operations

    @tf.function(jit_compile=False, autograph=False)
    def run(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first: list[tf.Tensor] = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def watch(path: object, operation: object, first_input: object, output: Any) -> None:
                if not first and isinstance(operation, keras.layers.Conv2D):
                    tape.watch(output)
                    first.append(output)

            with observe_operations(watch):
                raw = model.model(pixels, training=False)
            outputs = model.interpret(raw, tf.zeros((0, 0)))
            score = tf.reduce_sum(outputs.logits[:, 1])
        return outputs.scores, tape.gradient(score, first[0])

    return run


def interleave(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time calls in turn; return the median seconds of each. The first round is not counted."""
    seconds: dict[str, list[float]] = {}
    for number in range(repeats + 1):
        for name, call in calls.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call()
            if number:
                seconds.setdefault(name, []).append(time.perf_counter() - begin)
                seconds.setdefault(f"{name} cpu", []).append(time.process_time() - begin_cpu)
    return {name: statistics.median(values) for name, values in seconds.items()}


def article_seconds_per_layer(model: Any) -> float:
    """Time the article's code, a sub-model for each layer and one image, on a few layers."""
    import keras
    import tensorflow as tf

    backbone = next((layer for layer in model.layers if isinstance(layer, keras.Model)), model)
    pixels = draw(1, model.input_shape[1:3])
    seconds = []
    for number, layer in enumerate(sampled_layers(backbone)):
        begin = time.perf_counter()
        sub_model = keras.Model(backbone.inputs, [layer.output, backbone.output])
        with tf.GradientTape() as tape:
            activations, scores = sub_model(tf.cast(pixels, tf.float32))
            loss = tf.reduce_sum(scores[:, ..., 0])
        gradients = tape.gradient(loss, activations)
        guided = tf.cast(activations > 0, tf.float32) * tf.cast(gradients > 0, tf.float32)
        weights = tf.reduce_mean((guided * gradients)[0], axis=(0, 1))
        tf.reduce_sum(tf.multiply(weights, activations[0]), axis=-1).numpy()
        if number:  # The first one warms up.
            seconds.append(time.perf_counter() - begin)
    return statistics.mean(seconds)


def sampled_layers(model: Any) -> list[Any]:
    """Return the first convolution once more to warm up, then a few evenly spread layers."""
    import keras

    spatial = [
        layer
        for layer in model.layers[1:]
        if len(layer.output.shape) == 4 and layer.output.shape[1] > 1
    ]
    first = next(n for n, layer in enumerate(spatial) if isinstance(layer, keras.layers.Conv2D))
    chosen = np.linspace(first, len(spatial) - 1, N_SAMPLED).round().astype(int)
    return [spatial[first], *(spatial[position] for position in chosen)]


def memory_in_use() -> int:
    """Return the resident bytes of this process, without what it has freed; 0 if unknown."""
    if not _STATUS.is_file():
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hold_free_memory() -> list[Any]:
    """Take what TensorFlow has freed but keeps for later, so that whatever comes next is seen."""
    import tensorflow as tf

    blocks: list[Any] = []
    rows, row_bytes, before, growth = 64, 1 << 19, memory_in_use(), 0
    while growth < 0.9 * rows * row_bytes:
        blocks += [tf.fill((row_bytes // 4,), 1.0) for _ in range(rows)]
        now = memory_in_use()
        before, growth = now, now - before
    return blocks


def measure_memory(name: str, one_pass: str, batch: int) -> dict[str, float]:
    """Return by how many bytes for each image memory grows at most, in this fresh process."""
    import tensorflow as tf

    from audit.explain.differentiate import BYTES_PER_BYTE
    from audit.explain.maps import Explainer
    from audit.predict.model import wrap_model

    model = wrap_model(build(name))
    explainer = Explainer(model)
    bare = bare_pass(model)
    pixels = tf.constant(draw(batch, model.input_size))

    def run(n: int) -> None:
        if one_pass == "bare":
            bare(pixels[:n])
        else:
            explainer.explain(pixels[:n], np.array([[int(one_pass == "one"), 1]] * n))

    run(1)  # What is set up once does not count.
    held = hold_free_memory()
    before = memory_in_use()
    _REFERENCES.write_text("5")  # The highest use is counted from here on; see `man 5 proc`.
    run(batch)
    highest = next(
        1024 * int(line.split()[1])
        for line in _STATUS.read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    del held
    return {
        "growth": (highest - before) / batch,
        "planned": explainer.image_bytes,
        "activations": explainer.image_bytes / BYTES_PER_BYTE,
    }


def bytes_on_disk(maps: Any, n_images: int) -> float:
    """Return what a shard of these maps takes on disk, for one image and class."""
    import pyarrow as pa

    from audit.files import write_parquet
    from audit.schemas import SCHEMAS

    rows = [
        (index, column, layer, *cam.shape, peak, cam.tobytes())
        for index in range(n_images)
        for column in range(2)
        for layer, peak, cam in maps.of_image(index, column)
    ]
    schema = SCHEMAS["explanations"]
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.parquet"
        write_parquet(path, pa.table(columns, schema=schema))
        return path.stat().st_size / (2 * n_images)


def explain_many(n_images: int) -> None:
    """Explain tiny images in batches of changing size; print the memory in use on the way."""
    import keras
    import tensorflow as tf

    from audit.explain.maps import Explainer
    from audit.predict.model import wrap_model

    layers = [keras.layers.Conv2D(8, 3, activation="relu") for _ in range(3)]
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            *layers,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    explainer = Explainer(wrap_model(model))
    rng = np.random.default_rng(0)
    done, next_mark = 0, max(1, n_images // 10)
    while done < n_images:
        n = min(int(rng.integers(1, 17)), n_images - done)
        pixels = tf.constant(rng.uniform(0, 255, (n, 24, 24, 3)).astype(np.float32))
        explainer.explain(pixels, rng.integers(0, 3, (n, 2)))
        done += n
        if done >= next_mark:
            print(f"{done:>8} images: {memory_in_use() / 1e6:.1f} MB", flush=True)
            next_mark += max(1, n_images // 10)


def compare_peers() -> None:
    """Time other libraries in an environment of their own, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "gradcam-audit" / "peers"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    site = run_json(
        [str(python), "-c", "import json, sysconfig; print(json.dumps(sysconfig.get_paths()))"]
    )["purelib"]
    # TensorFlow is taken from here, so that both sides run the same one.
    Path(site, "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet"]
    for peer, needs in PEERS.items():
        run = [str(python), __file__, "--peer", peer]
        for command in ([*install, "--no-deps", peer], [*install, *needs], run):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                print(f"{peer}: does not run: {lines[-1] if lines else 'no message'}", flush=True)
                break
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{peer}: {found['seconds']:.1f} s for all {found['n_layers']} layers of one image"
                f" of {MODELS['mobilenetv2']}, one by one, extrapolated from {N_SAMPLED}",
                flush=True,
            )


def time_peer(peer: str) -> dict[str, float]:
    model = build("mobilenetv2")
    pixels = draw(1, model.input_shape[1:3])
    seconds = []
    for number, layer in enumerate(sampled_layers(model)):
        begin = time.perf_counter()
        if peer == "tf-keras-vis":
            from tf_keras_vis.gradcam import Gradcam
            from tf_keras_vis.utils.scores import CategoricalScore

            Gradcam(model, clone=False)(CategoricalScore([1]), pixels, penultimate_layer=layer.name)
        else:
            from xplique.attributions import GradCAM

            GradCAM(model, conv_layer=layer.name)(pixels, np.eye(1000, dtype=np.float32)[[1]])
        if number:
            seconds.append(time.perf_counter() - begin)
    n_layers = sum(len(layer.output.shape) == 4 for layer in model.layers[1:])
    return {"n_layers": n_layers, "seconds": n_layers * statistics.mean(seconds)}


if __name__ == "__main__":
    main()
