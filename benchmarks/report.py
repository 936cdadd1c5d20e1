"""How fast the report of a run of any size is rendered, how large it is, and how quick to look at.

    python benchmarks/report.py RUN [--errors 50000] [--classes 1000] [--no-browser]

RUN is a finished run with heat-maps; its real maps and pictures are repeated under new numbers in
a run folder of that size (see `report_run.py`), which is made in the system's temporary folder and
deleted at the end: about 0.35 MB on disk for each error, report included. Everything is rendered on
one core, once with a tenth of the errors and once with all, each in a process of its own. Printed
are errors a second, of the whole time and of the processor's; sizes; the peak of memory in use.
Then, in headless Chromium, from disk: when the overview and the gallery are painted first, and how
long the gallery takes from a change to the frame after it. Nothing is asserted.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report_browser import look
from report_run import write_synthetic_run

from audit.run_folder import RunFolder

_STATUS = Path("/proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run with heat-maps")
    parser.add_argument("--errors", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--no-browser", action="store_true", help="do not open the report")
    parser.add_argument("--render", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.render:
        print(json.dumps(render(arguments.run)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used")
    source = RunFolder.open(arguments.run)
    for n_errors in (max(1, arguments.errors // 10), arguments.errors):
        is_last = n_errors == arguments.errors
        with tempfile.TemporaryDirectory(prefix="report-") as folder:
            run = write_synthetic_run(source, Path(folder) / "run", n_errors, arguments.classes)
            print(f"\n{n_errors:,} errors, {arguments.classes:,} classes", flush=True)
            for line in describe(run_self(run.path, "--render"), n_errors):
                print(line, flush=True)
            if is_last and not arguments.no_browser:
                for line in look(run.report_path.parent):
                    print(line, flush=True)


def render(path: Path) -> dict[str, float]:
    """Render a run's report on one core; return seconds, of the processor too, and MB of memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from audit.report.render import render_report

    wall, busy = time.perf_counter(), time.process_time()
    render_report(RunFolder.open(path))
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - busy
    report = RunFolder.open(path).report_path.parent
    pages, sizes = 0, dict.fromkeys(("all", "errors", "pictures", "heats", "index", "gallery"), 0)
    for file in report.rglob("*"):
        if not file.is_file():
            continue
        pages += file.suffix == ".html"
        for kind in kinds_of(file.relative_to(report).as_posix()):
            sizes[kind] += file.stat().st_size
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak": peak_memory(),
        "pages": pages,
        **sizes,
    }


def kinds_of(name: str) -> list[str]:
    """Say what a file of the report counts for."""
    folder, _, rest = name.rpartition("/")
    kinds = {
        "errors": folder == "errors",
        "pictures": folder == "images" and rest.endswith(".jpg"),
        "heats": folder == "images" and rest.endswith(".png"),
        "index": name == "index.html",
        "gallery": name == "errors.html",
    }
    return ["all", *(kind for kind, fits in kinds.items() if fits)]


def peak_memory() -> float:
    """Return the most memory that this process has had in use, in MB."""
    if _STATUS.is_file():  # in /proc it starts anew with a new program, unlike in `resource`
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe(found: dict[str, float], n_errors: int) -> list[str]:
    per_error = (found["errors"] + found["pictures"] + found["heats"]) / n_errors / 1000
    return [
        f"  {n_errors / found['seconds']:.0f} errors/s in {found['seconds']:.0f} s;"
        f" {n_errors / found['cpu_seconds']:.0f} a second of the processor's time",
        f"  {found['pages']:,.0f} pages, {found['all'] / 1e6:,.0f} MB in all",
        f"  {per_error:.1f} KB an error: page {found['errors'] / n_errors / 1000:.1f},"
        f" pictures {found['pictures'] / n_errors / 1000:.1f},"
        f" heat-maps {found['heats'] / n_errors / 1000:.1f}",
        f"  first page {found['index'] / 1000:.0f} KB, gallery {found['gallery'] / 1000:.0f} KB",
        f"  {found['peak']:.0f} MB of memory at most",
    ]


def run_self(*arguments: object) -> Any:
    """Run this script in a process of its own and return what its last line of output holds."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
