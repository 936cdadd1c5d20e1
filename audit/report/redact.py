"""A report that does not tell whose images these are: no path, no file name, no metadata.

In: `RunData`, and the lists of images of targets. Out: the same, in which images and files are
called by number. Names of classes and of layers, and the pictures, stay.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from audit.diagnose.wording import capitalised, phrase, printable
from audit.report.evidence import Diagnosis
from audit.report.run_data import RunData, as_records
from audit.report.views.slices import COLUMN_NAMES, USERS

REDACTED = "[redacted]"
A_COLUMN = "a column of the data"
"""What is said of a slice instead of the user's column and its value."""

LIST_COLUMNS = (
    *("target", "kind", "image_id", "path", "y_true", "y_pred", "role", "true_class"),
    *("predicted_class", "suggested_class", "suspected_label"),
)
"""Columns of a target's list that come along; of `path`, only a number is left."""

PRIVATE_OPTIONS = ("label_regex", "output", "address", "masks", "boxes")
"""Options whose text is of file names, of the inside of the model, or of a machine."""

LONGEST_SPAN = 40
"""Words of a foreign name that are compared with a text."""

_KEPT_ENTRIES = (
    *("format_version", "status", "program", "started", "finished", "class_names"),
    *("positive_class", "input", "method", "fusion", "batch_size", "explain_batch_size"),
    *("versions", "scaling_check", "stages"),
)
_KEPT_OF_DATA = ("kind", "n_images", "n_skipped", "n_unreadable")
_PLAIN_WORDS = """
all and any bad big blue bottom bright class classes clear color colour dark data dataset
demo edge edges error errors eval evaluation false file files focus good green grey image
images img label labels large layer layers left light local lower map maps mid middle
missing model models nan network new none not old other photo photos picture pictures pred
predicted red right run runs same sample set shape size small test testing the top train
training true upper val valid validation value with yes
"""
"""Words that say nothing about anybody; a file may be called one of them."""

_READ_BY_US = frozenset({"id", "kind", "findings", "evidence", "images", "manifest"})
"""Entries of findings and targets that no user has written."""

_WORD = re.compile(r"\w+")
_ABSOLUTE = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\"`]+[\\/])+[^\s'\"`,;]*")

Scrub = Callable[[str], str]


def redact(data: RunData) -> RunData:
    """Return what pages may tell when paths, file names and metadata must not be told.

    Images become "image 12", files that could not be read "file 3", the model "the model", the data
    "the data". A slice by a column of the user's keeps its numbers and says neither column nor
    value. In what else was written of the run, such as warnings and findings, each known path, file
    name, folder or column, and each value of an error or a slice, is replaced by `REDACTED`.

    Returns:
        Frames with the same rows; `metadata` has no column.
    """
    files = {str(path): f"file {n}" for n, path in enumerate(data.unreadable["path"], start=1)}
    scrub = _scrubber(data)
    return replace(
        data,
        manifest=_manifest(data.manifest, scrub),
        metrics={**data.metrics, "notes": [scrub(str(note)) for note in data.metrics["notes"]]},
        images=data.images.assign(path=[_image(i) for i in data.images.index]),
        errors=data.errors.assign(path=[_image(i) for i in data.errors["image_id"]]),
        metadata=data.metadata[[]],
        unreadable=data.unreadable.assign(
            path=[files[str(path)] for path in data.unreadable["path"]],
            reason=[scrub(str(reason)) for reason in data.unreadable["reason"]],
        ),
        diagnosis=_diagnosis(data.diagnosis, files, scrub),
    )


def redact_list(name: str, content: bytes, data: RunData) -> bytes:
    """Return the list of images of a target with numbers instead of paths.

    Args:
        name: such as `targets/T1.csv` or `targets/T1.json`.
        content: the list as the run has it.
        data: of which `redact` has taken the paths.
    """
    path = PurePosixPath(name)
    rows = data.diagnosis.target_images
    names = rows.loc[rows["target"] == path.stem, "path"].tolist()
    if path.suffix == ".json":
        found = json.loads(content)
        target = next(one for one in data.diagnosis.targets if one["id"] == path.stem)
        told = {"target": path.stem, "kind": target["kind"], "title": target["title"]}
        told["images"] = [
            _list_row(row, told_path) for row, told_path in zip(found["images"], names, strict=True)
        ]
        return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
    table = list(csv.DictReader(io.StringIO(content.decode("utf-8", "replace"), newline="")))
    text = io.StringIO(newline="")
    columns = [column for column in LIST_COLUMNS if not table or column in table[0]]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_list_row(row, told) for row, told in zip(table, names, strict=True))
    return text.getvalue().encode()


def _list_row(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = {column: row[column] for column in LIST_COLUMNS if column in row}
    return kept | {"path": name}


def _image(image_id: int) -> str:
    return f"image {image_id}"


def _manifest(manifest: Mapping[str, Any], scrub: Scrub) -> dict[str, Any]:
    """Return the entries that pages read; what is not known to be harmless is left out."""
    config = {
        name: scrub(value) if isinstance(value, str) else value
        for name, value in manifest["config"].items()
    }
    config |= {name: REDACTED for name in PRIVATE_OPTIONS if config.get(name) is not None}
    kept = {name: manifest[name] for name in _KEPT_ENTRIES if name in manifest}
    return kept | {
        "model": {"name": "the model", "n_parameters": manifest["model"]["n_parameters"]},
        "data": {
            "name": "the data",
            **{name: manifest["data"][name] for name in _KEPT_OF_DATA},
        },
        "config": config,
        "head": {
            "kind": manifest["head"]["kind"],
            "explained": scrub(str(manifest["head"]["explained"])),
        },
        "fingerprints": dict.fromkeys(manifest["fingerprints"], REDACTED),
        "warnings": [
            {"kind": item["kind"], "text": scrub(str(item["text"]))}
            for item in manifest["warnings"]
        ],
    }


def _diagnosis(found: Diagnosis, files: Mapping[str, str], scrub: Scrub) -> Diagnosis:
    rows = found.target_images
    paths = [
        _file(str(path), files) if pd.isna(image_id) else _image(int(image_id))
        for path, image_id in zip(rows["path"], rows["image_id"], strict=True)
    ]
    slices = found.slices
    return replace(
        found,
        findings=tuple(_scrubbed(finding, scrub) for finding in found.findings),
        targets=tuple(_scrubbed(target, scrub) for target in found.targets),
        target_images=rows.assign(path=paths),
        slices=slices.assign(
            name=[scrub(str(name)) for name in slices["name"]],
            conditions=pd.Series(
                [[_condition(item) for item in as_records(each)] for each in slices["conditions"]],
                slices.index,
                dtype=object,
            ),
        ),
    )


def _file(path: str, files: Mapping[str, str]) -> str:
    """Return the number of a file; in a table, a path may have got `./` in front."""
    return files.get(path) or files.get(path.removeprefix("./")) or "a file"


def _scrubbed(value: Any, scrub: Scrub) -> Any:
    """Return plain values with every text in them scrubbed, but for what the program reads."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {
            name: each if name in _READ_BY_US else _scrubbed(each, scrub)
            for name, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_scrubbed(each, scrub) for each in value]
    return value


def _condition(item: Mapping[str, Any]) -> dict[str, Any]:
    if not _is_users(item):
        return dict(item)
    return {"column": USERS + A_COLUMN, "low": None, "high": None, "value": REDACTED}


def _is_users(condition: Mapping[str, Any]) -> bool:
    return str(condition["column"]).startswith(USERS)


def _scrubber(data: RunData) -> Scrub:
    """Return what takes foreign names out of a text."""
    slices = _slice_names(data.diagnosis.slices)
    wanted = {span for text in _texts(data) for span in _spans(text)}
    plain = _plain_words(data)
    known = {
        key
        for name in _foreign_names(data)
        if (key := " ".join(_WORD.findall(name))) in wanted and _tells(key, plain)
    }
    known -= {" ".join(_WORD.findall(name)) for name in data.class_names}
    # Longest first, so that a path goes as a whole. Between words anything may stand: control
    # characters of a name were turned into spaces when the text was written.
    patterns = [
        r"\W+".join(map(re.escape, key.split()))
        for key in sorted(known, key=lambda key: (-len(key), key))
    ]
    names = re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)") if patterns else None

    def scrub(text: str) -> str:
        for before, after in slices:
            text = text.replace(before, after)
        # Known names first: one may have spaces, at which a path would seem to end.
        text = names.sub(REDACTED, text) if names else text
        return _ABSOLUTE.sub(REDACTED, text)

    return scrub


def _slice_names(slices: pd.DataFrame) -> list[tuple[str, str]]:
    """Return how texts call slices by a column of the user's, and what to say instead."""
    pairs: dict[str, str] = {}
    for name, conditions in zip(slices["name"], slices["conditions"], strict=True):
        items = as_records(conditions)
        if not any(_is_users(item) for item in items):
            continue
        told = " and ".join(_condition_in_words(item) for item in items)
        for before in (str(name), phrase(name)):
            pairs[before] = told
            pairs[capitalised(before)] = capitalised(told)
    return sorted(pairs.items(), key=lambda pair: -len(pair[0]))


def _condition_in_words(item: Mapping[str, Any]) -> str:
    if _is_users(item):
        return A_COLUMN
    column, value = str(item["column"]), item["value"]
    name = COLUMN_NAMES.get(column, column)
    return name if value is None else f"{name} {printable(value)}"


def _texts(data: RunData) -> Iterator[str]:
    """Yield every text of a run in which a foreign name may stand."""
    manifest, found = data.manifest, data.diagnosis
    yield from (str(item["text"]) for item in manifest["warnings"])
    yield from (str(note) for note in data.metrics["notes"])
    yield str(manifest["head"]["explained"])
    yield from (value for value in manifest["config"].values() if isinstance(value, str))
    yield from map(str, data.unreadable["reason"])
    yield from map(str, found.slices["name"])
    yield from _strings([*found.findings, *found.targets])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _strings(each)


def _spans(text: str) -> Iterator[str]:
    """Yield all runs of words of a text, joined by a space."""
    words = _WORD.findall(text)
    for first in range(len(words)):
        for end in range(first + 1, min(first + LONGEST_SPAN, len(words)) + 1):
            yield " ".join(words[first:end])


def _foreign_names(data: RunData) -> Iterator[str]:
    """Yield what must not be told: paths and their parts, columns and values, model and data."""
    manifest, found = data.manifest, data.diagnosis
    paths = chain(data.images["path"], data.unreadable["path"], found.target_images["path"])
    names = (manifest["model"]["name"], manifest["data"]["name"])
    for path in chain(paths, names, [manifest["model"].get("path")]):
        if path is not None:
            yield from _parts_of_path(str(path))
    for column in data.metadata:
        yield from _as_printed(str(column))
        for value in data.metadata[column].astype(str).unique():
            yield from _as_printed(value)
    for conditions in found.slices["conditions"]:
        for item in filter(_is_users, as_records(conditions)):
            yield from _as_printed(str(item["column"]).removeprefix(USERS))
            yield from _as_printed(str(item["value"]))


def _parts_of_path(path: str) -> Iterator[str]:
    yield path
    for part in re.split(r"[\\/]", path):
        yield part
        yield part.rpartition(".")[0]


def _as_printed(text: str) -> Sequence[str]:
    """Return a name whole and as texts shorten it."""
    return text, printable(text).removesuffix("…")


def _plain_words(data: RunData) -> frozenset[str]:
    """Return words that stay wherever they are: our own, those of classes and of patterns."""
    names: Iterable[str] = chain(data.class_names, data.pattern_names.values())
    return frozenset(_PLAIN_WORDS.split()).union(
        word.lower() for name in names for word in _WORD.findall(name)
    )


def _tells(key: str, plain: frozenset[str]) -> bool:
    """Say whether a name tells anything: a word of three letters or more, or four digits."""
    return any(
        word.lower() not in plain and len(word) >= (4 if word.isdigit() else 3)
        for word in key.split()
    )
