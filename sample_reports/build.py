"""Rebuild the sample reports and the picture in the README.

The demo and the drawn parts are audited in a temporary folder and their reports copied here. With
Chromium on the machine, the picture of an overview page is taken too.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from parts import audit_parts

from audit.demo import run_demo
from audit.report.pages import FolderSink
from audit.report.render import ReportOptions, write_pages
from audit.results import Run
from audit.run_folder import RunFolder

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "images" / "report.png"
MOST_BYTES = 8_000_000
SAMPLES: dict[str, Callable[[Path], Run]] = {"demo": run_demo, "parts": audit_parts}


def main() -> None:
    for name, make_run in SAMPLES.items():
        build(make_run, HERE / name)
    take_picture(HERE / "demo" / "index.html")


def build(make_run: Callable[[Path], Run], target: Path) -> None:
    """Audit in a temporary folder, and put a report to share in the place of the one here."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / target.name)
        shutil.rmtree(target, ignore_errors=True)
        write_pages(RunFolder(run.path), FolderSink(target), options=ReportOptions(with_times=True))
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    sys.stdout.write(f"{target}: {size / 1e6:.1f} MB\n")
    if size > MOST_BYTES:
        raise SystemExit(f"The sample report is larger than {MOST_BYTES / 1e6:.0f} MB.")


def take_picture(page: Path) -> None:
    """Photograph the top of a page at 1280 pixels, if there is a browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stdout.write("No Chromium on this machine: the picture stays as it is.\n")
        return
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1480}, device_scale_factor=1)
        tab.goto(page.as_uri())
        tab.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
