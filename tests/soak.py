"""The long versions of the tests of what an audit survives, and one table of what came of them.

    python tests/soak.py [--kills 100] [--folder DIR]

Each row is a kind of fault: how many were tried and survived, how many images were lost, how many
bytes of the finished run differ from an undisturbed one, how many processes ended otherwise than
they should, and the most memory that one of them held.
"""

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soak_kill
from soak_kill import Outcome

from audit.manifest import STAGES

KILLS_A_RUN = 28
"""Kills of one audit from its first stage to its last."""
AIMS = ("before", *STAGES, "predict", "explain", "causes", "report")
"""Where one aims, in turn; at the long stages twice as often."""
FULL_AT = (60, 150, 260, 330, 400, 500, 700, 1000, 1500)
"""Sizes in KB of a disk that grows each time it is full."""
ENOUGH = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=112)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; it is kept")
    parser.add_argument("--fork", action="store_true", help="spare loading TensorFlow each time")
    arguments = parser.parse_args()
    if arguments.fork:
        importlib.import_module("tensorflow")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        soak(folder, arguments.kills, arguments.seed, arguments.fork)


def soak(folder: Path, n_kills: int, seed: int, fork: bool) -> None:
    begin = time.monotonic()
    model = save_model(folder / "model.keras")
    data = soak_kill.draw_images(folder / "val")
    undisturbed = folder / "undisturbed"
    soak_kill.run_undisturbed(soak_kill.command(model, data, undisturbed))
    killed = kills(model, data, undisturbed, n_kills, seed, fork)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{soak_kill.N_IMAGES} images, {soak_kill.N_ERRORS} errors\n")
    print(
        f"{'fault':<14}{'tried':>6}{'survived':>9}{'lost images':>12}{'differing bytes':>16}",
        end="",
    )
    print(f"{'crashes':>8}{'peak memory':>13}")
    row("kill -9", killed)
    row("SIGTERM", stops(model, data, undisturbed, seed, fork))
    full = full_disks(model, data, undisturbed, folder / "disk")
    if full is not None:
        row("disk full", full)
    row("damaged file", damaged_pictures(folder / "damaged"))
    by_stage = ", ".join(f"{name} {killed.kills[name]}" for name in soak_kill.STAGES_TO_HIT)
    print(f"\nkill -9 by stage: {by_stage}")
    print(f"{(time.monotonic() - begin) / 60:.0f} minutes")


def save_model(path: Path) -> Path:
    """Write the model from another process, so that TensorFlow is loaded here but never used."""
    code = "import drawn_set, sys, pathlib; drawn_set.save_model(pathlib.Path(sys.argv[1]))"
    folder = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=folder)
    return path


def damaged_pictures(folder: Path, n_files: int = 20_000) -> Outcome:
    """Read damaged pictures; each is decoded as Keras does, or named with a reason."""
    script = Path(__file__).with_name("soak_pictures.py")
    command = [sys.executable, str(script), str(folder), f"--files={n_files}"]
    done = subprocess.run(command, capture_output=True, text=True)
    outcome = Outcome()
    outcome.kills["predict"] = n_files
    if done.returncode:
        outcome.crashes.append(f"exit code {done.returncode}: {done.stderr[-1000:]}")
        return outcome
    result = json.loads(done.stdout)
    outcome.n_lost, outcome.peak = result["n_lost"], result["peak"]
    return outcome


def row(name: str, outcome: Outcome) -> None:
    tried = outcome.kills.total()
    survived = tried - len(outcome.crashes)
    print(f"{name:<14}{tried:>6}{survived:>9}{outcome.n_lost:>12}", end="")
    print(f"{sum(outcome.differing.values()):>16}{len(outcome.crashes):>8}", end="")
    print(f"{outcome.peak / 1e6:>10.0f} MB")
    for name, n_bytes in outcome.differing.items():
        print(f"    differs: {name}, {n_bytes} bytes")
    for crash in outcome.crashes:
        print(f"    crash: {crash}")


def kills(
    model: Path, data: Path, undisturbed: Path, n_kills: int, seed: int, fork: bool
) -> Outcome:
    """Kill audits, one after the other, until so many kills are done."""
    total = Outcome()
    number = 0
    while total.kills.total() < n_kills:
        run = undisturbed.with_name(f"killed-{number}")
        count = min(KILLS_A_RUN, n_kills - total.kills.total())
        aims = sorted(
            [AIMS[(number * KILLS_A_RUN + k) % len(AIMS)] for k in range(count)],
            key=soak_kill.STAGES_TO_HIT.index,
        )
        outcome = soak_kill.kill_again_and_again(
            soak_kill.command(model, data, run), run, aims, seed + number, fork=fork
        )
        soak_kill.compare(undisturbed, run, outcome)
        add(total, outcome)
        print(f"{total.kills.total()} kills", file=sys.stderr)
        number += 1
    return total


def add(total: Outcome, outcome: Outcome) -> None:
    total.kills += outcome.kills
    total.crashes += outcome.crashes
    total.n_lost += outcome.n_lost
    total.differing |= outcome.differing
    total.peak = max(total.peak, outcome.peak)


def stops(model: Path, data: Path, undisturbed: Path, seed: int, fork: bool) -> Outcome:
    """Stop an audit by SIGTERM once in each stage; it ends within seconds, with exit code 143."""
    run = undisturbed.with_name("stopped")
    outcome = soak_kill.kill_again_and_again(
        soak_kill.command(model, data, run), run, list(STAGES), seed, signal.SIGTERM, fork
    )
    soak_kill.compare(undisturbed, run, outcome)
    return outcome


def full_disks(
    model: Path, data: Path, undisturbed: Path, disk: Path, sizes: tuple[int, ...] = FULL_AT
) -> Outcome | None:
    """Audit into a disk that is full again and again; `None` where none can be mounted.

    Args:
        disk: where it is mounted.
        sizes: in KB; it grows to the next one each time that it is full.
    """
    outcome = Outcome()
    run = disk / "run"
    command = soak_kill.command(model, data, run)
    with mounted(disk, sizes[0]) as is_mounted:
        if not is_mounted:
            return None
        for size in (*sizes, ENOUGH):
            mount("-o", f"remount,size={size}k", str(disk))
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
            outcome.kills["disk full"] += 1
            lines = done.stderr.strip().splitlines()
            if done.returncode != 1 or "There is no room for" not in lines[-1]:
                outcome.crashes.append(f"exit code {done.returncode}: {done.stderr[-2000:]}")
        soak_kill.compare(undisturbed, run, outcome)
    outcome.peak = soak_kill.peak_memory()
    return outcome


@contextmanager
def mounted(folder: Path, n_kilobytes: int) -> Iterator[bool]:
    """Mount a small disk in memory; tell whether that could be done."""
    folder.mkdir()
    is_mounted = mount("-t", "tmpfs", "-o", f"size={n_kilobytes}k", "tmpfs", str(folder))
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


def mount(*arguments: str) -> bool:
    """Call `mount`, which only root may."""
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    main()
