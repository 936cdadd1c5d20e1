"""The folder of a comparison: `comparison.json`, `fixed.csv`, `broken.csv`, beside its report.

In: a `Comparison`. Out: files that people and scripts read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from audit.diagnose.manifests import harmless
from audit.errors import RunFolderError
from audit.places import Place
from audit.run_folder import RunFolder, check_format

if TYPE_CHECKING:
    from audit.compare.comparison import Comparison

FORMAT_VERSION = 1
"""Rises when the meaning of a value in `comparison.json` changes."""

COLUMNS = (
    "from_run",
    "to_run",
    "path",
    "true_class",
    "before",
    "after",
    "p_true_before",
    "p_true_after",
)
"""Columns of the two tables: the labels of the runs, the image, its classes, and its true class's
score in both runs. A series has the images of each step, one step after the other."""

MAPS = "maps"
"""The folder in it that holds the maps that were computed for the comparison; they come first."""

_NAME = "comparison"


def check_out(path: Path) -> None:
    """Refuse a place where a comparison would be mixed with something else.

    Raises:
        RunFolderError: if it is a file, or a folder that holds something but a comparison.
    """
    if (path / f"{_NAME}.json").is_file() or not path.exists():
        return
    if not path.is_dir() or any(entry.name != MAPS for entry in path.iterdir()):
        raise RunFolderError(
            f"`{path}` is not the folder of a comparison. Received: a"
            f" {'folder with other files' if path.is_dir() else 'file'}. Give a new folder with"
            " `--out`."
        )


def write_comparison(comparison: "Comparison", path: Path) -> Path:
    """Write a comparison, over an earlier one if there is one, and return the JSON's path.

    A cell of the tables that a spreadsheet would take for a formula is made harmless: a path by
    `./` in front, another text by an apostrophe.

    Raises:
        RunFolderError: if something else is there.
        ResourceError: if it cannot be written.
    """
    check_out(path)
    folder = RunFolder(path)
    for name in ("fixed", "broken"):
        folder.write_file(f"{name}.csv", _table(comparison, name))
    folder.write_json(_NAME, comparison.summary())
    return path / f"{_NAME}.json"


def read_comparison(path: Place) -> dict[str, Any] | None:
    """Return what `write_comparison` wrote into a folder; `None` if it did not write there.

    Raises:
        RunFolderError: if it has another format, or is damaged.
    """
    if not (path / f"{_NAME}.json").is_file():
        return None
    found = RunFolder(path).read_json(_NAME)
    check_format(path, found, FORMAT_VERSION)
    return found


def _table(comparison: "Comparison", outcome: str) -> bytes:
    labels = comparison.labels
    rows = [
        {"from_run": labels[0], "to_run": labels[step.position], **image}
        for step in comparison.steps
        for image in comparison.changed_images(step, getattr(step.outcomes, outcome))
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("from_run", "to_run", "true_class", "before", "after"):
        table[name] = [harmless(cell, "'") for cell in table[name]]
    table["path"] = [harmless(path, "./") for path in table["path"]]
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()
