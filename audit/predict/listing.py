"""List the images of an audit in a fixed order, with every file accounted for.

In: a folder per class, a flat folder with a regular expression, or a CSV or Parquet manifest.
Out: a `Listing`: one row per image, the class names, and the files that were left out and why.
Nothing is decoded here, and TensorFlow is not needed.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from audit.errors import DatasetError
from audit.places import Place, Remote, is_url
from audit.predict.folders import Files, is_utf8, legible, look_into

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The file types that `keras.utils.image_dataset_from_directory` reads."""

_OUR_COLUMNS = ("image_id", "y_true")
_MOST_NAMES = 30
"""Classes that a message names."""


@dataclass(frozen=True)
class Listing:
    """The images of an audit.

    Attributes:
        kind: what the images were listed from.
        root: the folder that the paths are relative to, or `None` for a dataset in memory.
        images: columns image_id (position in the sorted paths), path (relative, posix), y_true,
            and the user's further columns.
        class_names: in the order of the model's outputs.
        left_out: columns path, kind ("skipped" | "unreadable"), reason.
        sizes: bytes of the files behind a URL, by path; `None` for files of this machine.
    """

    kind: Literal["folders", "flat", "manifest", "dataset"]
    root: Place | None
    images: pd.DataFrame
    class_names: tuple[str, ...]
    left_out: pd.DataFrame
    sizes: Mapping[str, int] | None = None

    def fingerprint(self) -> str:
        """Return a SHA-256 over paths, file sizes and labels: the same data gives the same text."""
        digest = hashlib.sha256()
        paths, labels = self.images["path"].tolist(), self.images["y_true"].tolist()
        for path, y_true in zip(paths, labels, strict=True):
            size = self._size(path)
            digest.update(f"{path}\0{size}\0{y_true}\n".encode())
        digest.update("\0".join(self.class_names).encode())
        return digest.hexdigest()

    def _size(self, path: str) -> int:
        if isinstance(self.root, Path):
            return _file_size(os.path.join(self.root, path))
        return self.sizes.get(path, -1) if self.sizes is not None else 0


def list_images(
    data: Place, classes: Sequence[str] | None = None, label_regex: str | None = None
) -> Listing:
    """List the images under a folder or in a manifest.

    Args:
        data: a folder, or a file ending in .csv or .parquet, here or behind a URL.
        classes: class names in the order of the model's outputs; default alphabetical, as Keras
            does. It may name classes that have no image, but not leave out one that has.
        label_regex: for a flat folder, a regular expression whose first group is the class.

    Raises:
        DatasetError: if nothing can be audited: no such path, no image, one class only, labels
            that `classes` does not name, a manifest without its columns.
    """
    if data.is_file():
        return _list_manifest(data, classes)
    if not data.is_dir():
        raise DatasetError(
            f"There is no data at `{data}`. Received: a path that does not exist. Give a folder"
            " with one folder per class, or a .csv or .parquet file with the columns path and"
            " label."
        )
    return _list_flat(data, classes, label_regex) if label_regex else _list_folders(data, classes)


def list_unlabelled(root: Place) -> Listing:
    """List all images below a folder; they have no class.

    Returns:
        A listing with the one class "", which every image is of.

    Raises:
        DatasetError: if there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise DatasetError(
            f"There is no folder of images at `{root}`. Received: a path that"
            f" {'is no folder' if root.exists() else 'does not exist'}. Give a folder; its images"
            " may lie in folders of their own, and need no labels."
        )
    files = look_into(root)
    found, left_out = _walk(files, "")
    if not found:
        raise DatasetError(
            f"No image in `{root}`. Received: 0 files ending in {', '.join(IMAGE_SUFFIXES)},"
            f" {len(left_out)} other files. Give a folder with images."
        )
    labelled = pd.DataFrame({"path": found, "label": ""})
    return make_listing("flat", root, labelled, ("",), left_out, files.sizes)


def make_listing(
    kind: Literal["folders", "flat", "manifest", "dataset"],
    root: Place | None,
    labelled: pd.DataFrame,
    classes: Sequence[str],
    left_out: Sequence[tuple[str, str, str]] = (),
    sizes: Mapping[str, int] | None = None,
) -> Listing:
    """Number the images in the order of their paths and turn labels into class indices.

    Args:
        labelled: columns path and label (a class name), and any further ones.
        left_out: (path, kind, reason) of the files that are not images.
        sizes: of the files behind a URL.
    """
    images = labelled.sort_values("path", ignore_index=True, kind="stable")
    index = {name: number for number, name in enumerate(classes)}
    images.insert(0, "image_id", range(len(images)))
    images.insert(2, "y_true", images.pop("label").map(index).astype("int32"))
    table = pd.DataFrame(sorted(left_out), columns=["path", "kind", "reason"], dtype=str)
    return Listing(kind, root, images, tuple(classes), table, sizes)


def check_class_count(class_names: Sequence[str], n_classes: int, model_name: str) -> None:
    """Refuse class names that do not fit the model's outputs.

    Raises:
        DatasetError: if the numbers differ; it shows both lists.
    """
    if len(class_names) != n_classes:
        raise DatasetError(
            f"The data has {len(class_names)} classes but `{model_name}` has outputs for"
            f" {n_classes}. Received: data classes {_listed(class_names)}; model outputs"
            f" {_listed([str(number) for number in range(n_classes)])}. Give every class in the"
            " order of the model's outputs with `--classes`, or the data it was trained for."
        )


def _list_folders(root: Place, classes: Sequence[str] | None) -> Listing:
    files = look_into(root)
    rows: list[tuple[str, str]] = []
    left_out: list[tuple[str, str, str]] = []
    folders: list[str] = []
    for name, is_folder in files.top():
        if not is_utf8(name):
            left_out.append((legible(name), "unreadable", "its name is not valid UTF-8"))
        elif not is_folder:
            left_out.append((name, "skipped", "not inside a class folder"))
        elif name.startswith("."):
            left_out.append((name, "skipped", "hidden folder"))
        else:
            folders.append(name)
            found, rest = _walk(files, name)
            rows += [(path, name) for path in found]
            left_out += rest
    labelled = pd.DataFrame(rows, columns=["path", "label"])
    if not rows:
        _refuse_no_images(root, left_out)
    names = _order_classes(folders, set(labelled["label"]), classes, f"folders of `{root}`")
    return make_listing("folders", root, labelled, names, left_out, files.sizes)


def _list_flat(root: Place, classes: Sequence[str] | None, label_regex: str) -> Listing:
    pattern = re.compile(label_regex)
    rows: list[tuple[str, str]] = []
    files = look_into(root)
    found, left_out = _walk(files, "")
    for path in found:
        match = pattern.search(PurePosixPath(path).name)
        label = match.group(1) if match else None
        if label:
            rows.append((path, label))
        else:
            left_out.append((path, "skipped", "its name does not match --label-regex"))
    if not rows:
        _refuse_no_images(root, left_out)
    labelled = pd.DataFrame(rows, columns=["path", "label"])
    found_names = sorted(set(labelled["label"]))
    source = f"file names in `{root}`, by `--label-regex {label_regex}`"
    names = _order_classes(found_names, set(found_names), classes, source)
    return make_listing("flat", root, labelled, names, left_out, files.sizes)


def _list_manifest(path: Place, classes: Sequence[str] | None) -> Listing:
    table = _read_manifest(path)
    missing = [column for column in ("path", "label") if column not in table]
    if missing:
        raise DatasetError(
            f"`{path}` lacks the column {' and '.join(missing)}. Received: the columns"
            f" {', '.join(map(str, table.columns))}. Name the columns `path` and `label`."
        )
    blank = (table[["path", "label"]].isna() | (table[["path", "label"]] == "")).any(axis=1)
    if blank.any():
        row = int(blank.to_numpy().argmax())
        raise DatasetError(
            f"`{path}` has a row without a path or a label. Received: row {row + 1} after the"
            " heading. Fill it in or remove it."
        )
    if table.empty:
        raise DatasetError(f"`{path}` lists no images. Received: 0 rows. Add rows: path, label.")
    root = path.parent
    table.columns = _free_names(table.columns)
    table["path"] = _inside(root, table["path"].astype(str).tolist(), path)
    table["label"] = table["label"].astype(str)
    doubled = table["path"][table["path"].duplicated()]
    if len(doubled):
        raise DatasetError(
            f"`{path}` lists an image twice. Received: {doubled.iloc[0]!r}. Keep one of the rows."
        )
    paths = table["path"].tolist()
    is_image = [_is_image(name) for name in paths]
    left_out = [
        (name, "skipped", _suffix_reason(name))
        for name, keep in zip(paths, is_image, strict=True)
        if not keep
    ]
    table = table[is_image]
    if table.empty:
        _refuse_no_images(path, left_out)
    found_names = _sort_labels(set(table["label"]))
    names = _order_classes(found_names, set(found_names), classes, f"labels in `{path}`")
    columns = ["path", "label", *(name for name in table if name not in ("path", "label"))]
    sizes = look_into(root).sizes
    return make_listing("manifest", root, table[columns], names, left_out, sizes)


def _read_manifest(path: Place) -> pd.DataFrame:
    def source() -> Any:
        return BytesIO(path.read_bytes()) if isinstance(path, Remote) else path

    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(source())
            # As they are written, so that a class may be called "None" or "01".
            texts = pd.read_csv(source(), dtype=str, keep_default_na=False)
            for name in {"path", "label"} & set(table.columns):
                table[name] = texts[name]
            return table
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(source())
    except (OSError, ValueError) as exc:
        raise DatasetError(
            f"`{path}` cannot be read as a table. Received: {str(exc).strip().rstrip('.')}. Give a"
            " UTF-8 text file with commas, ending in .csv, or a .parquet file."
        ) from exc
    raise DatasetError(
        f"`{path}` is neither a folder nor a manifest. Received: a file ending in"
        f" {path.suffix or 'nothing'!r}. Give a folder, or a .csv or .parquet file."
    )


def _walk(files: Files, folder: str) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return the relative paths of all images below a folder of `files`, and what was left out."""
    images: list[str] = []
    left_out: list[tuple[str, str, str]] = []
    for path in files.below(folder, left_out):
        if not is_utf8(path):
            left_out.append((legible(path), "unreadable", "its name is not valid UTF-8"))
        elif _is_image(path):
            images.append(path)
        else:
            left_out.append((path, "skipped", _suffix_reason(path)))
    return images, left_out


def _order_classes(
    found: Sequence[str], with_images: set[str], given: Sequence[str] | None, source: str
) -> tuple[str, ...]:
    names = tuple(given or found)
    known = set(names)
    unknown = [name for name in found if name not in known and name in with_images]
    if unknown:
        raise DatasetError(
            f"The {source} do not match `--classes`. Received: {_listed(found)}; --classes"
            f" {_listed(names)}. Add {_listed(unknown)[1:-1]} to --classes, or remove those images."
        )
    if len(names) < 2:
        raise DatasetError(
            f"The {source} give one class only. Received: {_listed(names)}. A classifier needs"
            " at least two: put each class in a folder of its own, or use `--label-regex`, or name"
            " all classes with `--classes`."
        )
    return names


def _listed(names: Sequence[str]) -> str:
    """Return names in brackets, the first of them where there are very many."""
    more = len(names) - _MOST_NAMES
    shown = [*names[:_MOST_NAMES], *([f"and {more:,} more"] if more > 0 else [])]
    return f"[{', '.join(shown)}]"


def _refuse_no_images(where: Place, left_out: Sequence[tuple[str, str, str]]) -> None:
    raise DatasetError(
        f"No image to audit in `{where}`. Received: 0 files ending in {', '.join(IMAGE_SUFFIXES)}"
        f" inside class folders, {len(left_out)} other files. Put each class in a folder of its"
        " own, or use `--label-regex` for a flat folder."
    )


def _free_names(columns: Iterable[object]) -> list[str]:
    """Append "_" to the user's columns that are called as one of ours."""
    names: list[str] = []
    for column in columns:
        name = str(column)
        while name in _OUR_COLUMNS or name in names:
            name += "_"
        names.append(name)
    return names


def _inside(root: Place, texts: Iterable[str], manifest: Place) -> list[str]:
    """Return a manifest's paths relative to its folder; refuse one that leaves it."""
    is_far = isinstance(root, Remote)
    folder = os.path.join(os.path.abspath("bucket" if is_far else str(root)), "")
    paths = []
    for text in texts:
        inner = text.removeprefix(f"{root}/") if is_far else text
        resolved = os.path.normpath(os.path.join(folder, inner.replace("\\", "/")))
        if is_far and is_url(inner):
            resolved = inner
        if not f"{resolved}{os.sep}".startswith(folder):
            raise DatasetError(
                f"`{manifest}` points outside its own folder. Received: {text!r}. Put the manifest"
                " in a folder that holds all its images, and give paths relative to it."
            )
        paths.append(resolved[len(folder) :].replace(os.sep, "/") or ".")
    return paths


def _sort_labels(labels: set[str]) -> list[str]:
    """Sort as numbers if all are whole numbers, so that class 10 comes after class 9."""
    return sorted(labels, key=int if all(label.isdecimal() for label in labels) else str)


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES) and not path.rpartition("/")[2].startswith(".")


def _suffix_reason(path: str) -> str:
    name = PurePosixPath(path)
    if name.name.startswith("."):
        return "hidden file"
    return f"{name.suffix or 'no suffix'} is not among {', '.join(IMAGE_SUFFIXES)}"


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # ValueError: a manifest's path with a NUL in it
        return -1
