"""What can be told of a model file without loading it, and without TensorFlow."""

import atexit
import hashlib
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path, PureWindowsPath

import h5py

from audit.disk import writing
from audit.errors import ModelError
from audit.places import Place, Remote

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_MOST_EXPANSION = 100
_MOST_UNPACKED_BYTES = 1 << 26  # A member may unpack to so many, however little was stored.
_LONGEST_NAME = 60
_LFS_HEADER = b"version https://git-lfs"


def local_model(path: Place) -> Path:
    """Return where a model is on this machine; one behind a URL is fetched, once in a process.

    Raises:
        ModelError: if there is none behind the URL.
    """
    return _fetch(path) if isinstance(path, Remote) else path


@lru_cache
def _fetch(path: Remote) -> Path:
    if not path.exists():
        raise ModelError(
            f"There is no model at `{path}`. Received: a URL of nothing. Give a .keras or .h5 file."
        )
    folder = Path(tempfile.mkdtemp(prefix="gradcam-audit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with writing(folder):
        path.download(folder / path.name)
    return folder / path.name


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
            only, damaged, an archive that Keras did not write, or something else.
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
    try:
        is_archive, is_hdf5 = zipfile.is_zipfile(path), h5py.is_hdf5(path)
        if is_archive:
            _check_archive(path)
        if is_hdf5:
            _check_hdf5(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as exc:
        raise ModelError(
            f"`{path}` is damaged. Received: a file that begins as a model but cannot be read"
            f" ({_first_words(exc)}). Copy it again from where it was made."
        ) from exc
    if not (is_archive or is_hdf5):
        raise ModelError(
            f"`{path}` is not a model. Received: a file that is neither a Keras archive nor HDF5."
            " Give a .keras or .h5 file, as `model.save('model.keras')` writes it."
        )


def _check_archive(path: Path) -> None:
    """Refuse members that lead out of a folder or unpack to far more than was stored.

    Keras guards itself against both; but it stores its members as they are, so an archive with such
    a member was made by somebody else, and nothing of it need be read.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = PureWindowsPath(member.filename)  # It knows both kinds of slashes.
            strange = f"a member called {_short(member.filename)}"
            if name.is_absolute() or name.drive or name.root or ".." in name.parts:
                raise ModelError(_not_keras(path, f"{strange}, which leads out of its folder"))
            if (
                member.file_size > _MOST_UNPACKED_BYTES
                and member.file_size > _MOST_EXPANSION * member.compress_size
            ):
                sizes = f"{member.compress_size:,} bytes unpack to {member.file_size:,}"
                raise ModelError(_not_keras(path, f"{strange}, of which {sizes}"))


def _check_hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise ModelError(
                f"`{path}` holds weights only. Received: an HDF5 file without a model"
                " configuration. Build the model in Python, load these weights into it, and"
                " save it whole with `model.save('model.keras')`."
            )


def _not_keras(path: Path, received: str) -> str:
    return (
        f"`{path}` is not an archive as Keras writes it, and was not opened. Received: {received}."
        " Take the file from somebody you trust, as `model.save('model.keras')` wrote it."
    )


def _short(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…")


def _first_words(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]
