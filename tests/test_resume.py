"""A real audit that is killed, stopped or out of disk space ends as if nothing had happened.

`make soak` does the same more than a hundred times.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soak
import soak_kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return soak_kill.draw_images(tmp_path_factory.mktemp("soak") / "val")


@pytest.fixture(scope="module")
def undisturbed(data: Path, drawn_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("soak") / "undisturbed"
    soak_kill.run_undisturbed(soak_kill.command(drawn_model, data, run))
    return run


def show(run: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "audit", "show", str(run), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_a_run_killed_at_five_moments_ends_like_an_undisturbed_one(
    data: Path, drawn_model: Path, undisturbed: Path, tmp_path: Path
):
    run = tmp_path / "killed"
    aims = ["predict", "explain", "causes", "findings", "report"]
    outcome = soak_kill.kill_again_and_again(
        soak_kill.command(drawn_model, data, run), run, aims, seed=1
    )
    soak_kill.compare(undisturbed, run, outcome)
    assert outcome.kills.total() == len(aims)
    assert len(outcome.kills) >= 3, "they lie in several stages"
    assert (outcome.crashes, outcome.differing, outcome.n_lost) == ([], {}, 0)
    shown, expected = show(run), show(undisturbed)
    assert shown.pop("report") != expected.pop("report")
    assert shown == expected
    assert shown["n_errors"] == soak_kill.N_ERRORS


def test_a_run_stopped_by_signals_ends_itself_and_goes_on(
    data: Path, drawn_model: Path, undisturbed: Path, tmp_path: Path
):
    run = tmp_path / "stopped"
    outcome = soak_kill.kill_again_and_again(
        soak_kill.command(drawn_model, data, run), run, ["predict", "causes"], 2, signal.SIGTERM
    )
    soak_kill.compare(undisturbed, run, outcome)
    assert (outcome.crashes, outcome.differing, outcome.n_lost) == ([], {}, 0)
    assert (
        "Stopped by SIGTERM. Nothing that is done is lost"
        in (tmp_path / "stopped.stderr").read_text()
    )


def test_a_run_into_a_full_disk_goes_on_when_there_is_room(
    data: Path, drawn_model: Path, undisturbed: Path, tmp_path: Path
):
    outcome = soak.full_disks(drawn_model, data, undisturbed, tmp_path / "disk", sizes=(200, 2000))
    if outcome is None:
        pytest.skip("only root may mount a small disk")
    assert outcome.kills.total() >= 1
    assert (outcome.crashes, outcome.differing, outcome.n_lost) == ([], {}, 0)
