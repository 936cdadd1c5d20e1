"""The beginning of a run: may it start or go on in this folder, and what is written down of it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any

from audit import __version__
from audit.config import OBJECTS, AuditConfig, option_name
from audit.disk import writing
from audit.errors import PlaceError, RunFolderError
from audit.places import Place, Remote
from audit.predict.listing import Listing
from audit.run_folder import FORMAT_VERSION, RunFolder
from audit.run_lock import locked

if TYPE_CHECKING:
    from audit.predict.model import AuditedModel

STAGES = (
    "list",
    "predict",
    "metrics",
    "explain",
    "causes",
    "patterns",
    "labels",
    "slices",
    "probes",
    "findings",
    "report",
)
_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "opencv-python",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
)

_LOG_EVERY = 10.0
"""Seconds between two writes of a log in a store."""
_FREE_OPTIONS = ("max_unreadable", "fail_under", "memory", *OBJECTS)
"""Options that change no result, so that a run may go on with another value.

Masks and boxes may lie elsewhere: what they are is in the fingerprints.
"""

logger = logging.getLogger("audit")


def open_manifest(
    folder: RunFolder,
    listing: Listing,
    data_name: str,
    fingerprints: dict[str, str],
    config: dict[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a run that may go on, or begin a new one, and save it.

    A run that stopped before its first prediction, say at a model that needs another option, has
    nothing to keep: it starts afresh with what is given now.

    Raises:
        RunFolderError: if the folder holds a run of something else.
    """
    if folder.manifest_path.is_file():
        manifest = RunFolder.open(folder.path).read_manifest()
        if folder.shard_indices("predictions"):
            _refuse_changes(folder.path, manifest, fingerprints, config)
            if manifest["status"] != "done":
                logger.info("resumed")
            if manifest["config"] != config:
                manifest["config"] = config
                folder.write_manifest(manifest)
            return manifest
    manifest = _new_manifest(listing, data_name, fingerprints, config)
    folder.write_manifest(manifest)
    return manifest


def _new_manifest(
    listing: Listing, data_name: str, fingerprints: dict[str, str], config: dict[str, Any]
) -> dict[str, Any]:
    """Return what is known before the model is loaded; the rest is None until then."""
    return {
        "format_version": FORMAT_VERSION,
        "program": {"name": "gradcam-audit", "version": __version__},
        "status": "running",
        "started": now(),
        "finished": None,
        "config": config,
        "class_names": list(listing.class_names),
        "positive_class": None,
        "model": None,
        "data": {
            "name": data_name,
            "kind": listing.kind,
            "n_images": len(listing.images),
            "n_skipped": int((listing.left_out["kind"] == "skipped").sum()),
            "n_unreadable": int((listing.left_out["kind"] == "unreadable").sum()),
            "n_undefined": 0,
        },
        "input": None,
        "head": None,
        "method": None,
        "fusion": None,
        "batch_size": None,
        "explain_batch_size": None,
        "fingerprints": fingerprints,
        "versions": installed_versions(),
        "scaling_check": None,
        "warnings": [],
        "stages": {name: {"state": "waiting", "seconds": None} for name in STAGES},
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that make results."""
    return {"python": python_version()} | {name: version(name) for name in _PACKAGES}


def _refuse_changes(
    path: Place, manifest: dict[str, Any], fingerprints: dict[str, str], config: dict[str, Any]
) -> None:
    """Refuse to go on with a run that was started with something else."""
    changed = [
        "the masks or boxes" if name == "objects" else f"the {name}"
        for name in dict.fromkeys([*manifest["fingerprints"], *fingerprints])
        if manifest["fingerprints"].get(name) != fingerprints.get(name)
    ]
    changed += [
        f"{option_name(name)} ({manifest['config'].get(name)!r} before, {value!r} now)"
        for name, value in config.items()
        if name not in _FREE_OPTIONS and manifest["config"].get(name) != value
    ]
    if changed:
        raise RunFolderError(
            f"`{path}` holds a run of something else. Received: another value of"
            f" {', '.join(changed)}. Give the same as before to go on with it, or another --out."
        )


@contextmanager
def open_log(folder: RunFolder) -> Iterator[None]:
    """Create the run folder, refuse one that cannot be used, hold it and log to it in the block."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise RunFolderError(
            f"`{path}` is a file, not a folder. Received: --out {path}. Give a new folder."
        )
    if path.is_dir() and not folder.manifest_path.is_file() and _holds_foreign_files(folder):
        raise RunFolderError(
            f"`{path}` is not empty and not a run folder. Received: a folder without a"
            " manifest.json. Give a new folder, so that nothing of yours is overwritten."
        )
    with locked(folder):
        with writing(folder.log_path):
            handler = _open_log_file(folder.log_path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        except BaseException as exc:
            logger.error("stopped: %s: %s", type(exc).__name__, exc)
            raise
        finally:
            logger.removeHandler(handler)
            handler.close()
            logger.level, logger.propagate = level, propagate


def _open_log_file(path: Place) -> logging.Handler:
    return _LogObject(path) if isinstance(path, Remote) else _LogFile(path, encoding="utf-8")


class _LogFile(logging.FileHandler):
    """A log that is silent where it cannot be written: the full disk is said by what needs it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's own name)
        pass

    def close(self) -> None:
        with suppress(OSError):  # What could not be written is tried once more.
            super().close()


class _LogObject(logging.Handler):
    """A log in a store, where nothing can be appended: it is written whole, every few seconds."""

    def __init__(self, path: Remote) -> None:
        super().__init__()
        self._path = path
        self._text = path.read_bytes() if path.is_file() else b""
        self._written = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self._text += f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        if time.monotonic() - self._written > _LOG_EVERY:
            self._write()

    def close(self) -> None:
        self._write()
        super().close()

    def _write(self) -> None:
        self._written = time.monotonic()
        with suppress(OSError, PlaceError):  # What needs the store says that it is gone.
            self._path.write_bytes(self._text, patient=False)


def _holds_foreign_files(folder: RunFolder) -> bool:
    """Tell whether a folder without a manifest holds more than a run stopped at once leaves."""
    own = {folder.log_path.parent.name, f".{folder.manifest_path.name}.tmp"}
    return any(entry.name not in own for entry in folder.path.iterdir())


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_model(
    model: "AuditedModel", path: Place | None, config: AuditConfig
) -> dict[str, Any]:
    """Return the entries that are known only once the model is loaded: model, input, head.

    Args:
        path: the model's file or folder, where `find` looks for it; `None` for a live model.
    """
    height, width = model.input_size
    head = model.head
    return {
        "model": {
            "name": model.name,
            "n_parameters": model.n_parameters,
            "path": None if path is None else path.resolve().as_posix(),
        },
        "input": {
            "height": height,
            "width": width,
            "channels": model.channels,
            "scaling": config.scaling,
            "aspect": config.aspect,
            "interpolation": config.interpolation,
        },
        "head": {
            "kind": head.kind,
            "logits_from": head.logits_from,
            "forced": head.forced,
            "explained": head.explained,
        },
    }
