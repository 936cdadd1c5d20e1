"""What can be told of a model file without loading it, and without TensorFlow."""

import hashlib
import zipfile
from pathlib import Path

import h5py

from audit.errors import ModelError

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_LFS_HEADER = b"version https://git-lfs"


def fingerprint_model_file(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their relative paths."""
    if path.is_dir():
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*"))
        digest = hashlib.sha256()
        for name in files:
            if (path / name).is_file():
                digest.update(f"{name}\0{fingerprint_model_file(path / name)}\0".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_model_file(path: Path) -> None:
    """Refuse a file that cannot be a model, before TensorFlow is loaded.

    Raises:
        ModelError: if it is missing, a folder without a SavedModel, a Git LFS pointer, weights
            only, or something else.
    """
    if any((path / name).is_file() for name in _SAVED_MODEL_FILES):
        return
    if path.is_dir():
        raise ModelError(
            f"`{path}` is a folder without a model. Received: one that holds no saved_model.pb."
            " Give a .keras or .h5 file, as `model.save('model.keras')` writes it, or the folder of"
            " a SavedModel."
        )
    if not path.is_file():
        raise ModelError(
            f"There is no model at `{path}`. Received: a path that does not exist. Give a .keras or"
            " .h5 file."
        )
    with path.open("rb") as file:
        start = file.read(len(_LFS_HEADER))
    if start == _LFS_HEADER:
        raise ModelError(
            f"`{path}` is a Git LFS pointer, not the model itself. Received: a text file of"
            f" {path.stat().st_size} bytes. Fetch the model with `git lfs pull`."
        )
    if not (zipfile.is_zipfile(path) or h5py.is_hdf5(path)):
        raise ModelError(
            f"`{path}` is not a model. Received: a file that is neither a Keras archive nor HDF5."
            " Give a .keras or .h5 file, as `model.save('model.keras')` writes it."
        )
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            if "model_config" not in file.attrs:
                raise ModelError(
                    f"`{path}` holds weights only. Received: an HDF5 file without a model"
                    " configuration. Build the model in Python, load these weights into it, and"
                    " save it whole with `model.save('model.keras')`."
                )
