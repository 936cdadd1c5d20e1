"""TensorFlow starts without a word on the terminal, and what it says when it fails is not lost.

Also what can be tried of the way to a GPU without one: a second logical device, and a GPU by name.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pytest
import soak_kill

from audit.predict.devices import _stderr_to_log, prepare_tensorflow


def test_tensorflow_is_loaded_without_a_word():
    code = "from audit.predict.devices import prepare_tensorflow as p; p(); p(); import sys;"
    code += "assert 'tensorflow' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("wanted", [None, "3"])
def test_without_a_gpu_an_operation_gets_half_of_the_cores_or_what_the_variable_says(wanted):
    code = "from audit.predict.devices import prepare_tensorflow as p; p(); import tensorflow as tf"
    code += "; print(tf.config.threading.get_intra_op_parallelism_threads())"
    kept = {key: value for key, value in os.environ.items() if key != "TF_NUM_INTRAOP_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=kept | ({"TF_NUM_INTRAOP_THREADS": wanted} if wanted else {}),
    )
    half = max(1, (os.cpu_count() or 1) // 2)
    assert int(done.stdout) == (0 if wanted else half)  # 0: nothing was set but the variable


def test_it_does_nothing_once_tensorflow_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it again would fail
    prepare_tensorflow()


def test_native_output_comes_back_when_the_block_fails(capfd):
    with pytest.raises(RuntimeError), _stderr_to_log():
        os.write(2, b"the reason\n")
        raise RuntimeError
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err.split() == ["the", "reason", "afterwards"]


def test_native_output_of_a_block_that_works_is_kept_off_the_terminal(capfd):
    with _stderr_to_log():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""


def test_native_output_is_shown_where_there_is_no_room_to_keep_it(capfd, monkeypatch):
    def full(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with _stderr_to_log():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == "noise\n"


TWO_GPUS = """
import logging

class config:
    @staticmethod
    def list_physical_devices(kind):
        return [f"{kind} {number}" for number in range(2)]

    class experimental:
        @staticmethod
        def set_memory_growth(device, enable):
            print(device, enable)

def get_logger():
    return logging.getLogger("tensorflow")
"""


def test_every_gpu_gives_memory_as_it_is_needed(tmp_path: Path):
    (tmp_path / "tensorflow.py").write_text(TWO_GPUS)
    code = "from audit.predict.devices import prepare_tensorflow as p; p()"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.stdout == "GPU 0 True\nGPU 1 True\n"


def test_with_a_gpu_weights_stay_variables(monkeypatch: pytest.MonkeyPatch):
    """They are not copied into the graph; the scores are the same."""
    import tensorflow as tf

    from audit.predict.inference import Predictor
    from audit.predict.model import wrap_model

    images = drawn_set.draw_set()[0].astype(np.float32)
    model = drawn_set.corner_model()
    audited = wrap_model(model)
    frozen = Predictor(audited, "none")
    logical = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config,
        "list_logical_devices",
        lambda kind=None: ["/GPU:0"] if kind == "GPU" else logical(kind),
    )
    on_gpu = Predictor(audited, "none")
    expected = frozen.predict(images)[0].numpy()
    np.testing.assert_allclose(on_gpu.predict(images)[0], expected, atol=1e-6)
    model.get_layer("answer").set_weights([np.zeros((2, 1)), np.zeros(1)])
    np.testing.assert_array_equal(on_gpu.predict(images)[0], np.full((len(images), 2), 0.5))
    np.testing.assert_array_equal(frozen.predict(images)[0], expected)


class Clock:
    """Time as it passes on a device that takes `overhead` a batch and 1 an image.

    The first batch of each size takes long: it warms up.
    """

    def __init__(self, overhead: float, capacity: int) -> None:
        self.now, self.overhead, self.capacity, self.sizes = 0.0, overhead, capacity, []

    def perf_counter(self) -> float:
        return self.now

    def run(self, pixels: Any, *how: Any) -> tuple[Any, ...]:
        import tensorflow as tf

        self.sizes.append(len(pixels))
        if len(pixels) > self.capacity:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")
        self.now += self.overhead + len(pixels) + (1000 if len(self.sizes) % 4 == 1 else 0)
        return (tf.zeros((len(pixels), 2)),)


@pytest.mark.parametrize(
    ("has_gpu", "overhead", "capacity", "expected", "sizes"),
    [
        (False, 100, 999, 32, []),
        (True, 0, 999, 32, [32] * 4 + [64] * 4),  # as fast an image as before
        (True, 1000, 999, 256, [32] * 4 + [64] * 4 + [128] * 4 + [256] * 4),
        (True, 8, 999, 128, [32] * 4 + [64] * 4 + [128] * 4 + [256] * 4),  # last by 3 % only
        (True, 1000, 100, 64, [32] * 4 + [64] * 4 + [128]),
    ],
)
def test_a_gpu_gets_the_batch_size_that_it_predicts_fastest(
    has_gpu, overhead, capacity, expected, sizes, monkeypatch
):
    import tensorflow as tf

    from audit.predict import inference
    from audit.predict.model import wrap_model

    predictor = inference.Predictor(wrap_model(drawn_set.corner_model()), "none")
    clock = Clock(overhead, capacity)
    monkeypatch.setattr(predictor, "_run", clock.run)
    monkeypatch.setattr(inference.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: ["/GPU:0"] if has_gpu else []
    )
    assert predictor.fastest_batch_size() == expected
    assert clock.sizes == sizes


ON_THE_SECOND_DEVICE = """
import sys, threading
from audit.predict.devices import prepare_tensorflow
prepare_tensorflow()
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import audit, drawn_set
from audit.predict.inference import Predictor
used = set()
def noting(method):
    def noted(*args, **how):
        found = method(*args, **how)
        if threading.current_thread() is threading.main_thread():  # `tf.device` is of one thread.
            used.add(found[0].device.rpartition("/")[2])
        return found
    return noted
Predictor._ask = noting(Predictor._ask)
with tf.device("CPU:1"):
    audit.run(*sys.argv[1:], progress=False, **drawn_set.SHARDS)
print(used)
"""


@pytest.mark.slow
def test_an_audit_on_the_second_of_two_devices_is_the_same_audit(
    drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    """Predictions and maps: nothing is tied to the first device."""
    command: list[Any] = [sys.executable, "-c", ON_THE_SECOND_DEVICE, drawn_model, drawn_data]
    here = Path(__file__).parent
    done = subprocess.run(
        [*command, tmp_path / "run"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'device:CPU:1'}\n"
    outcome = soak_kill.Outcome()
    soak_kill.compare(drawn_run, tmp_path / "run", outcome)
    assert (outcome.differing, outcome.n_lost) == ({}, 0)
