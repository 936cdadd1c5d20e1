"""From a run folder to its report: the stage report."""

from audit.stages.context import Context


def report(audit: Context) -> None:
    """Render the report."""
    from audit.report.render import render_report

    with audit.bar("report", 0, unit="pages") as bar:

        def on_page(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        render_report(audit.folder, progress=on_page)
