"""An audit that is killed again and again ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drawn_set
import pytest

ONE_BY_ONE = [
    "--batch-size=1",
    "--shard-size=6",
    "--explain-batch-size=1",
    "--explain-shard-size=3",
]
"""Ten shards of predictions and ten of explanations, slow enough to be hit in between."""
KILL_POINTS = (
    "images.parquet",
    "predictions/shard-000002.parquet",
    "metrics.json",
    "explanations/shard-000004.parquet",
    "report.tmp",
)
"""The run is killed as soon as one of these appears; they lie in five different stages."""
TIMED = {"manifest.json", "logs/run.log"}
PATIENCE = 120
"""Seconds to wait for a file; far more than a run takes."""


def command(model: Path, data: Path, out: Path) -> list[str]:
    run = [sys.executable, "-m", "audit", "run", str(model), str(data), "--out", str(out)]
    return [*run, *ONE_BY_ONE]


def kill_when_there(command: list[str], path: Path) -> None:
    """Start a run in a process group of its own, and kill the group when a path appears."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE
    try:
        while not path.exists():
            assert process.poll() is None, f"the run ended before {path.name} was there"
            assert time.monotonic() < deadline, f"{path.name} never came"
            time.sleep(0.001)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"


def show(run: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "audit", "show", str(run), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def files(run: Path) -> dict[str, bytes]:
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_killed_at_five_points_ends_like_an_undisturbed_one(
    drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    subprocess.run(command(drawn_model, drawn_data, undisturbed), check=True, capture_output=True)

    again = command(drawn_model, drawn_data, disturbed)
    for name in KILL_POINTS:
        kill_when_there(again, disturbed / name)
        manifest = disturbed / "manifest.json"
        assert json.loads(manifest.read_text())["status"] == "running"
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(disturbed / "report" / "index.html")

    shown, expected = show(disturbed), show(undisturbed)
    assert shown.pop("report") != expected.pop("report")
    assert shown == expected
    assert shown["n_errors"] == drawn_set.N_ERRORS
    found, wanted = files(disturbed), files(undisturbed)
    assert found.keys() == wanted.keys(), "nothing is missing, and no temporary file is left"
    assert {name for name in wanted if found[name] != wanted[name]} <= TIMED
