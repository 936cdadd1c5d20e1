"""What is not a model is refused before TensorFlow is loaded, each with its own message."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import pytest

from audit.errors import ModelError
from audit.places import Remote, place
from audit.predict.model_file import check_model_file, fingerprint_model_file, local_model


def refusal(path):
    with pytest.raises(ModelError) as caught:
        check_model_file(path)
    text = str(caught.value)
    assert f"`{path}`" in text and " Received: " in text
    return text


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "m.keras").startswith("There is no model at `")


def test_a_folder_is_refused(tmp_path):
    assert "is a folder without a model. Received: one that holds no saved_model.pb" in refusal(
        tmp_path
    )


def test_a_folder_with_a_saved_model_is_let_through(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    check_model_file(tmp_path)


def test_a_folder_is_known_by_its_files_and_their_names(tmp_path):
    def folder(name, **files):
        for path, content in files.items():
            target = tmp_path / name / path.replace("__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return fingerprint_model_file(tmp_path / name)

    first = folder("a", saved_model=b"1", variables__index=b"2")
    parts = [("saved_model", b"1"), ("variables/index", b"2")]
    known = "".join(f"{name}\0{hashlib.sha256(content).hexdigest()}\0" for name, content in parts)
    assert first == hashlib.sha256(known.encode()).hexdigest()
    assert first == folder("b", variables__index=b"2", saved_model=b"1")
    assert first != folder("c", saved_model=b"1", variables__index=b"3")
    assert first != folder("d", saved_model=b"1", variables__indez=b"2")
    assert first != folder("e", saved_model=b"1", variables__index=b"2", more=b"")


def test_a_git_lfs_pointer_is_refused(tmp_path):
    path = tmp_path / "m.h5"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    text = refusal(path)
    assert f"a text file of {path.stat().st_size} bytes. Fetch the model with `git lfs" in text


@pytest.mark.parametrize("content", [b"", b"x", b"I am no model at all\n" * 99, b"PK\3\4torn"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    assert "is not a model. Received: a file that is neither a Keras archive nor" in refusal(path)


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5"])
def test_a_file_of_weights_only_is_refused(tmp_path, name):
    with h5py.File(tmp_path / name, "w") as file:
        file["layer/kernel"] = [1.0]
    text = refusal(tmp_path / name)
    assert "holds weights only. Received: an HDF5 file without a model configuration." in text
    assert "load these weights into it" in text


def test_archives_and_hdf5_with_a_configuration_pass(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    check_model_file(tmp_path / "m.keras")
    check_model_file(tmp_path / "m.h5")


def test_the_fingerprint_is_the_sha256_of_the_content(tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(b"abc" * 100_000)
    assert fingerprint_model_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_the_real_files_of_strangers(shared_data):
    folder = shared_data / "legacy_models"
    assert "Git LFS pointer" in refusal(folder / "lfs_pointer_anriabb.h5")
    assert "134 bytes" in refusal(folder / "lfs_pointer_anriabb.h5")
    assert "weights only" in refusal(folder / "MaksMshn.h5")
    for name in ("JeanXL.h5", "MaksMshn_small.h5", "tm_11Maximus11_converted.keras"):
        check_model_file(folder / name)


def test_a_model_behind_a_url_is_fetched_once(bucket: Remote, tmp_path: Path):
    (bucket / "m.keras").write_bytes(b"content")
    fetched = local_model(bucket / "m.keras")
    assert (fetched.name, fetched.read_bytes()) == ("m.keras", b"content")
    assert local_model(place(f"{bucket}/m.keras")) == fetched
    assert local_model(tmp_path) is tmp_path
    (bucket / "saved/variables/v.index").write_bytes(b"v")
    (bucket / "saved/saved_model.pb").write_bytes(b"graph")
    folder = local_model(bucket / "saved")
    assert (folder / "variables" / "v.index").read_bytes() == b"v"
    check_model_file(folder)


def test_no_model_behind_a_url(bucket: Remote):
    with pytest.raises(ModelError, match=r"There is no model at `memory://.*/m.keras`"):
        local_model(bucket / "m.keras")


def test_checking_needs_no_tensorflow():
    code = "import sys, audit.predict.model_file; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
