"""From a run folder to its report: the stage report."""

from collections.abc import Mapping
from typing import Any

from audit.run_folder import RunFolder
from audit.stages.context import Context


def report(audit: Context) -> None:
    """Render the report."""
    from audit.report.render import render_report

    with audit.bar("report", 0, unit="pages") as bar:

        def on_page(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        render_report(audit.folder, progress=on_page)


def write_times(folder: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Write for its report how long a run took that is about to be finished."""
    from audit.report import render

    render.write_times(folder, manifest)
