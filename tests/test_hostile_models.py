"""Model files that were made to do harm: no code of theirs runs, nothing is written or filled.

Each file is tried as `run` and `inspect` load it, without `--trust-model-code`, and HDF5 files by
the reader of earlier versions as well.
"""

import base64
import io
import json
import marshal
import pickle
import resource
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_set
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from audit.errors import ModelError
from audit.predict.legacy_h5 import load_legacy_h5
from audit.predict.model import load_model

CONV = "colours"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same model as m.keras and m.h5."""
    folder = tmp_path_factory.mktemp("honest")
    drawn_set.save_model(folder / "m.keras")
    drawn_set.corner_model().save(folder / "m.h5")
    return folder


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that hostile code would write."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "planted.txt"


def rewrite(
    honest: Path,
    target: Path,
    change: Callable[[Any], object] | None = None,
    *,
    members: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a .keras archive with another configuration, and with members added or replaced."""
    with zipfile.ZipFile(honest / "m.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if change is not None:
        config = json.loads(content["config.json"])
        change(config)
        content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in (content | (members or {})).items():
            archive.writestr(name, data)
    return target


def rewrite_h5(honest: Path, target: Path, change: Callable[[Any], object]) -> Path:
    shutil.copy(honest / "m.h5", target)
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    text = str(caught.value)
    assert f"`{path}`" in text and " Received: " in text and "\n" not in text
    return text


# Code in the configuration


def bytecode(target: Path) -> str:
    """Return the code of a function that writes a file, as Keras 2 and 3 store it."""
    source = f"def evil(x):\n    with open({str(target)!r}, 'w') as file:\n"
    source += "        file.write('run')\n    return x\n"
    made: dict[str, Any] = {}
    exec(compile(source, "evil", "exec"), made)
    return base64.b64encode(marshal.dumps(made["evil"].__code__)).decode()


def insert(entry: dict[str, Any]) -> Callable[[Any], object]:
    """Put a layer behind the input."""
    return lambda config: config["config"]["layers"].insert(1, entry)


def set_activation(value: Any) -> Callable[[Any], object]:
    def change(config: Any) -> None:
        for layer in config["config"]["layers"]:
            if layer["config"].get("name") == CONV:
                layer["config"]["activation"] = value

    return change


def entry(module: str, class_name: str, registered: str | None = None, **config: Any) -> Any:
    named = {"module": module, "class_name": class_name, "registered_name": registered}
    return named | {"config": config}


def function(module: str, name: str) -> dict[str, Any]:
    named = {"module": module, "class_name": "function", "registered_name": name}
    return named | {"config": name}


def attacks(target: Path) -> dict[str, Callable[[Any], object]]:
    code, touch = bytecode(target), f"touch {target}"
    parts = {"code": code, "defaults": None, "closure": None}
    packed = {"class_name": "__lambda__", "config": parts}
    anywhere = {"class_name": "__lambda__", "config": {"value": [code, None, None]}}
    old_lambda = {"name": "l", "function": [code, None, None], "function_type": "lambda"}
    return {
        "a Lambda": insert(entry("keras.layers", "Lambda", name="l", function=packed)),
        "an old Lambda": insert({"class_name": "Lambda", "config": old_lambda}),
        "a Lambda under another name": insert(
            entry("keras.layers", "Lambda", "Dense", name="l", function=packed)
        ),
        "a Lambda inside a layer": insert(
            entry(
                "keras.layers",
                "TimeDistributed",
                layer=entry("keras.layers", "Lambda", name="l", function=packed),
            )
        ),
        "a Lambda for an activation": set_activation(anywhere),
        "os.system for a layer": insert(entry("os", "system", command=touch)),
        "os.system for an activation": set_activation(function("os", "system")),
        "subprocess.Popen": insert(entry("subprocess", "Popen", "Popen", args=touch.split())),
        "eval": insert(entry("builtins", "eval", "eval", source=f"open({str(target)!r}, 'w')")),
        "eval for an activation": set_activation(function("builtins", "eval")),
        "a download": set_activation(function("keras.utils", "get_file")),
        "Keras's own loader of code": insert(entry("keras.src.utils.python_utils", "func_load")),
        "the switch for unsafe code": insert(
            function("keras.config", "enable_unsafe_deserialization")
        ),
        "a SavedModel": insert(entry("keras.layers", "TFSMLayer", filepath=str(target.parent))),
    }  # fmt: skip


ATTACKS = list(attacks(Path("/planted")))


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_of_a_configuration_runs(honest: Path, planted: Path, attack: str):
    change = attacks(planted)[attack]
    text = refusal(rewrite(honest, planted.with_name("m.keras"), change))
    old = rewrite_h5(honest, planted.with_name("m.h5"), change)
    refusal(old)
    with pytest.raises(Exception, match=r".+"):  # Whatever Keras raises; `load_model` wraps it.
        load_legacy_h5(old)
    assert not planted.exists() and not list(Path().iterdir())
    is_code = attack == "a SavedModel" or ("Lambda" in attack and "another name" not in attack)
    assert ("brings code of its own, which has not been run" in text) == is_code


@pytest.mark.parametrize("attack", ["a Lambda", "a Lambda for an activation"])
def test_the_crafted_code_is_real(honest: Path, planted: Path, attack: str):
    """With the user's trust it does run: the tests above would notice."""
    path = rewrite(honest, planted.with_name("m.keras"), attacks(planted)[attack])
    assert not planted.exists()
    load_model(path, trust_model_code=True)
    assert planted.read_text() == "run"


class Planted:
    """An object whose unpickling writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "run")


def test_weights_are_not_unpickled(honest: Path, planted: Path):
    file = io.BytesIO()
    np.savez(file, x=np.array([Planted(planted)], object))
    pickle.loads(pickle.dumps(Planted(planted)))
    assert planted.exists(), "the crafted pickle does nothing"
    planted.unlink()
    with zipfile.ZipFile(honest / "m.keras") as archive:
        kept = {name: archive.read(name) for name in ("config.json", "metadata.json")}
    path = planted.with_name("m.keras")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | {"model.weights.npz": file.getvalue()}).items():
            archive.writestr(name, data)
    refusal(path)
    assert not planted.exists()


# Archives


@pytest.mark.parametrize(
    "name", ["../../evil", "assets/../../evil", "/tmp/evil-of-a-test", "..\\evil", "C:\\evil"]
)
def test_a_member_that_leads_out_of_its_folder_is_refused(honest: Path, planted: Path, name: str):
    path = rewrite(honest, planted.with_name("m.keras"), members={name: b"x", "assets/y": b""})
    text = refusal(path)
    assert "is not an archive as Keras writes it, and was not opened. Received: a member" in text
    assert f"called {name!r}, which leads out of its folder" in text
    assert not list(Path().iterdir())
    assert {child.name for child in planted.parent.iterdir()} == {"here", "m.keras"}


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "assets/x"])
def test_a_member_that_unpacks_to_gigabytes_is_refused_unopened(
    honest: Path, planted: Path, name: str
):
    path = planted.with_name("m.keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        with archive.open(name, "w") as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
    assert path.stat().st_size < 200_000
    before, begin = peak_memory(), time.perf_counter()
    text = refusal(path)
    assert f"called {name!r}, of which 101," in text and "unpack to 104,857,600" in text
    assert peak_memory() - before < 20e6 and time.perf_counter() - begin < 1


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_name_of_a_member_cannot_drive_the_terminal(honest: Path, planted: Path):
    name = "../\x1b[2J" + "x" * 500
    text = refusal(rewrite(honest, planted.with_name("m.keras"), members={name: b""}))
    assert "\x1b" not in text and "\\x1b[2J" in text and len(text) < 400


def test_an_archive_that_was_packed_again_is_read(honest: Path, tmp_path: Path):
    path = rewrite(honest, tmp_path / "m.keras", compression=zipfile.ZIP_DEFLATED)
    assert load_model(path).head.kind == "logit"


@pytest.mark.parametrize("config", [b"", b"[" * 100_000, b"[]", b"7", b'{"a": 1}', b"\xff"])
def test_a_configuration_without_sense_is_refused(honest: Path, planted: Path, config: bytes):
    refusal(rewrite(honest, planted.with_name("m.keras"), members={"config.json": config}))


# HDF5


def external_link(group: Any, path: str) -> None:
    group[path] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(group: Any, path: str) -> None:
    group[path] = h5py.SoftLink("/etc/passwd")


def external_data(group: Any, path: str) -> None:
    outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    group.create_dataset(path, (2,), "float32", external=outside)


def endless_shape(group: Any, path: str) -> None:
    side = 1_000_000
    group.create_dataset(path, (side, side), "float32", chunks=(1000, 1000), compression="gzip")


@pytest.mark.parametrize("replace", [external_link, soft_link, external_data, endless_shape])
def test_weights_that_are_elsewhere_or_endless_are_refused(
    honest: Path, planted: Path, replace: Callable[[Any, str], None]
):
    before = peak_memory()
    old = planted.with_name("m.h5")
    shutil.copy(honest / "m.h5", old)
    with h5py.File(old, "r+") as file:
        replace_first(file["model_weights"], replace)
    assert "cannot load" in refusal(old)
    with pytest.raises(ValueError, match="Not allowed"):
        load_legacy_h5(old)
    with zipfile.ZipFile(honest / "m.keras") as archive:
        weights = Path(archive.extract("model.weights.h5", planted.parent))
    with h5py.File(weights, "r+") as file:
        replace_first(file, replace)
    members = {"model.weights.h5": weights.read_bytes()}
    assert "cannot load" in refusal(rewrite(honest, planted.with_name("m.keras"), members=members))
    assert peak_memory() - before < 500e6


def replace_first(group: Any, replace: Callable[[Any, str], None]) -> None:
    """Put something else in the place of a model's first weight."""
    paths: list[str] = []
    group.visititems(
        lambda name, item: paths.append(name) if isinstance(item, h5py.Dataset) else None
    )
    del group[paths[0]]
    replace(group, paths[0])


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_file_that_is_damaged_anywhere_is_refused_or_read(
    honest: Path, tmp_path: Path, suffix: str
):
    content = (honest / f"m.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"m.{suffix}"
    n_refused = 0
    for number in range(40):
        damaged = bytearray(content)
        if number % 2:
            del damaged[int(rng.integers(len(content))) :]
        else:
            for position in rng.integers(len(content), size=1 + number):
                damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load_model(path)
        except ModelError as exc:
            assert " Received: " in str(exc)
            n_refused += 1
    assert n_refused >= 20


# SavedModels


def test_a_graph_that_writes_a_file_is_not_even_loaded(planted: Path):
    class Writer(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
        def serve(self, pixels: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([tf.io.write_file(str(planted), "run")]):
                return tf.reduce_mean(pixels, axis=(1, 2))

    module = Writer()
    folder = planted.with_name("saved")
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    assert "a SavedModel, whose graph is a program" in refusal(folder)
    assert not planted.exists()
    keras_file = planted.with_name("wrapped.keras")
    inputs = keras.Input((8, 8, 3))
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serving_default")
    keras.Model(inputs, layer(inputs)).save(keras_file)
    planted.unlink(missing_ok=True)  # Keras ran it to save it.
    assert "TFSMLayer, which runs a SavedModel" in refusal(keras_file)
    assert not planted.exists()
    load_model(folder, trust_model_code=True)
    assert planted.exists(), "the crafted graph does nothing"
