"""The folder of a search: whose it is, and what it keeps beside the shards.

In: what is searched for and where. Out: `search.json`, `found.csv`, `unreadable.csv`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from audit.errors import RunFolderError
from audit.places import Place, lies_in
from audit.predict.listing import Listing
from audit.run_folder import Receipt, RunFolder
from audit.search.query import Query

FORMAT_VERSION = 1
_SEARCH = "search"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def open_search(
    path: Place, pool: Place, manifest: dict[str, Any], query: Query, listing: Listing
) -> RunFolder:
    """Open the folder of a search that may go on, or begin one.

    Raises:
        RunFolderError: if it lies in the pool, holds something else or cannot be written.
    """
    folder = RunFolder(path)
    if lies_in(path, pool):
        raise RunFolderError(
            f"The search would be kept in the pool that it searches. Received: `{path}` in"
            f" `{pool}`. Give another folder with `--out`."
        )
    identity = {
        "format_version": FORMAT_VERSION,
        "target": query.target["id"],
        "the run": manifest["fingerprints"],
        "the target": query.fingerprint(),
        "the pool": listing.fingerprint(),
    }
    if (path / f"{_SEARCH}.json").is_file():
        before = folder.read_json(_SEARCH)
        changed = [name for name, value in identity.items() if before.get(name) != value]
        if changed:
            raise RunFolderError(
                f"`{path}` holds a search of something else. Received: another value of"
                f" {', '.join(changed)}. Give another folder with `--out`, or remove this one."
            )
        return folder
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunFolderError(
            f"`{path}` is not the folder of a search. Received: a"
            f" {'folder with other files' if path.is_dir() else 'file'}. Give a new folder with"
            " `--out`."
        )
    folder.write_json(_SEARCH, identity)
    return folder


def write_left_out(
    folder: RunFolder, listing: Listing, receipts: Sequence[Receipt]
) -> pd.DataFrame:
    """Write which files were left out, and why, and return it: columns path, kind, reason."""
    paths = listing.images["path"]
    unreadable = [
        (paths[image_id], "unreadable", reason)
        for receipt in receipts
        for image_id, reason in receipt.left_out
    ]
    table = pd.concat(
        [listing.left_out, pd.DataFrame(unreadable, columns=["path", "kind", "reason"])]
    ).sort_values(["path", "kind"], ignore_index=True)
    safe = table.assign(path=[harmless(path, "./") for path in table["path"]])
    folder.write_file("unreadable.csv", _csv(safe))
    return table


def write_found(folder: RunFolder, table: pd.DataFrame) -> Place:
    """Write what was found, for a spreadsheet or a script.

    A cell that a spreadsheet would take for a formula is made harmless: a path by `./` in front,
    which leaves it the same path, a class name by an apostrophe.
    """
    safe = table.assign(
        path=[harmless(path, "./") for path in table["path"]],
        predicted_class=[harmless(name, "'") for name in table["predicted_class"]],
    )
    folder.write_file("found.csv", _csv(safe))
    return folder.path / "found.csv"


def harmless(cell: str, prefix: str) -> str:
    """Put something in front of a text that a spreadsheet would take for a formula."""
    return prefix + cell if cell.startswith(_FORMULA) else cell


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()
