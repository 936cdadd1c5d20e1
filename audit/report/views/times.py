"""How long each stage of a run took, as rows of text.

In: the manifest. Out: rows for the page on the run. A report in its run folder reads them from
`logs/times.js`, because the same audit must give the same pages, however long it takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit.report.formats import duration, percent


@dataclass(frozen=True)
class TimeRow:
    """A stage: how long it took, over all attempts, and the share of the whole."""

    stage: str
    time: str
    share: str


@dataclass(frozen=True)
class Times:
    """When a run began and ended, as text, and its stages in order; `ended` is "" while it runs."""

    began: str
    ended: str
    total: str
    rows: tuple[TimeRow, ...]


def run_times(manifest: Mapping[str, Any]) -> Times:
    """Return the times of a run, as far as it came."""
    stages = {
        name: float(entry["seconds"])
        for name, entry in manifest["stages"].items()
        if entry["seconds"] is not None
    }
    total = sum(stages.values())
    return Times(
        began=_moment(manifest["started"]),
        ended=_moment(manifest["finished"]) if manifest["finished"] else "",
        total=duration(total),
        rows=tuple(
            TimeRow(name, duration(seconds), percent(seconds / total if total else None, 0))
            for name, seconds in stages.items()
        ),
    )


def _moment(stored: str) -> str:
    """Return an ISO 8601 time to the minute, in UTC: 2026-01-02 22:05 UTC."""
    return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
