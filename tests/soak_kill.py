"""Kill a real audit again and again, and see that its run folder ends as if nothing had happened.

The audit runs in a process group of its own, and the group gets SIGKILL. A kill is aimed at a
stage: as soon as the manifest says that the stage is running, it waits for some files of the stage,
then for a moment, both drawn at random, and kills. A stage that is over by then is missed, and the
kill falls into a later one: it is counted where it falls.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

import drawn_set
import numpy as np
import pandas as pd

from audit.manifest import STAGES
from audit.run_folder import RunFolder

N_IMAGES = 320
N_ERRORS = 96
OPTIONS = [
    "--batch-size=8",
    "--shard-size=16",
    "--explain-batch-size=4",
    "--explain-shard-size=8",
    "--controls=32",
]
"""20 shards of predictions, 16 of explanations, 12 of causes."""
_TIMES = {"started", "finished", "seconds"}
_MOST_FILES = 4
_MOST_SECONDS = 0.4
_SECONDS_TO_STOP = 8.0
"""What is promised is 5, of which a busy machine may make more."""
_A_MOMENT = 0.002
_PATIENCE = 600.0
"""Seconds that a run may take; far more than it does."""


@dataclass
class Outcome:
    """What came of a run that was killed.

    Attributes:
        kills: how often, by the stage in which it was.
        crashes: the ends of runs that ended by themselves, but not well: exit code and stderr.
        n_lost: images that are neither among the predictions nor among the unreadable, or twice.
        differing: files that are missing, left over or not the same, and by how many bytes.
        peak: bytes of memory that one process held at most.
    """

    kills: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    n_lost: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    peak: int = 0


Process: TypeAlias = "subprocess.Popen[bytes] | ForkedAudit"


def draw_images(folder: Path) -> Path:
    """Write 320 different images, 96 of which fool the model of `drawn_set`."""
    for label, name in enumerate(drawn_set.CLASS_NAMES):
        for number in range(N_IMAGES // 2):
            fooled = number < N_ERRORS // 2
            image = drawn_set.draw_image(name, fooled=fooled, number=number % 40)
            grain = np.random.default_rng([label, number]).integers(0, 12, image.shape)
            path = folder / name / f"{'fooled' if fooled else 'plain'}-{number:03d}.png"
            drawn_set.save_image(path, np.minimum(image + grain, 255).astype(np.uint8))
    return folder


def command(model: Path, data: Path, out: Path) -> list[str]:
    run = [sys.executable, "-m", "audit", "run", str(model), str(data), "--out", str(out)]
    return [*run, *OPTIONS]


def run_undisturbed(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def kill_again_and_again(
    command: list[str],
    run: Path,
    aims: list[str],
    seed: int,
    number: signal.Signals = signal.SIGKILL,
    fork: bool = False,
) -> Outcome:
    """Start an audit as often as it takes, and kill it once for each aim.

    Args:
        command: starts the audit.
        run: its run folder.
        aims: the stages to hit, in the order of stages.
        seed: of the moments.
        number: the signal; of one other than SIGKILL the audit must end by itself, in time.
        fork: whether audits are copies of this process, as `ForkedAudit` says.
    """
    outcome, rng = Outcome(), random.Random(seed)
    for aim in aims:
        if not kill_once(command, run, aim, rng, outcome, number, fork):
            break
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode != 0:
        outcome.crashes.append(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    outcome.peak = peak_memory()
    return outcome


def peak_memory() -> int:
    """Return the bytes of memory that any process started here and ended so far held at most."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def kill_once(
    command: list[str],
    run: Path,
    aim: str,
    rng: random.Random,
    outcome: Outcome,
    number: signal.Signals,
    fork: bool,
) -> bool:
    """Kill an audit near a moment of a stage; return whether there is anything left to kill."""
    n_files, pause = rng.randint(0, _MOST_FILES), rng.random() * _MOST_SECONDS
    log = run.parent / f"{run.name}.stderr"
    process = ForkedAudit(command, log) if fork else start(command, log)
    try:
        wait_for_stage(process, run, aim)
        wait_for_files(process, run, n_files)
        time.sleep(pause)
    finally:
        stage = stage_now(run)
        if process.poll() is None:
            os.killpg(process.pid, number)
            end_in_time(process, outcome)
    if process.returncode == 0:
        return False
    outcome.kills[stage] += 1
    expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
    if process.returncode not in (expected, -number):
        outcome.crashes.append(f"exit code {process.returncode}: {log.read_text()[-2000:]}")
    return True


def end_in_time(process: Process, outcome: Outcome) -> None:
    """Wait for a process that got a signal; if it does not end in time, kill it and say so."""
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        outcome.crashes.append(f"still there after {_SECONDS_TO_STOP} s")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start an audit in a process group of its own."""
    with log.open("w") as stderr:
        return subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr
        )


class ForkedAudit:
    """An audit in a copy of this process, which must have loaded TensorFlow, but not used it.

    So kills hit the work of an audit, not the loading of libraries that takes most of a short one.
    It has what is used here of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._audit(command[command.index("audit") + 1 :], log)
        with suppress(PermissionError, ProcessLookupError):  # Whoever is first makes the group.
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> None:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("audit", timeout)
            time.sleep(_A_MOMENT)

    @staticmethod
    def _audit(arguments: list[str], log: Path) -> NoReturn:
        """Be an audit, from here to the end."""
        code: object = 1
        try:
            os.setpgid(0, 0)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(descriptor, 2)
            from audit.cli import main

            main(arguments)
        except SystemExit as exc:
            code = exc.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else int(code is not None))


def wait_for_stage(process: Process, run: Path, aim: str) -> None:
    """Wait until a stage is running, or a later one is."""
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and STAGES_TO_HIT.index(stage_now(run)) < STAGES_TO_HIT.index(aim):
        assert time.monotonic() < deadline, f"the stage {aim} never came"
        time.sleep(_A_MOMENT)


def wait_for_files(process: Process, run: Path, n_files: int) -> None:
    """Wait until so many files have been written, but at most until the stage is another."""
    stage, before = stage_now(run), changes(run)
    while process.poll() is None and stage_now(run) == stage and changes(run) < before + n_files:
        time.sleep(_A_MOMENT)


STAGES_TO_HIT = ("before", *STAGES, "end")
"""The stages, and the moments before the first and after the last."""


def stage_now(run: Path) -> str:
    """Return the stage that a run is in."""
    try:
        stages = json.loads((run / "manifest.json").read_text())["stages"]
    except FileNotFoundError:
        return "before"
    return next((name for name in STAGES if stages[name]["state"] != "done"), "end")


def changes(run: Path) -> int:
    """Return how many files were put into a run folder, its shards and its new report so far."""
    folders = (run, *run.glob("*/"), *run.glob("report.tmp/*/"))
    names = [name for folder in folders if folder.is_dir() for name in os.listdir(folder)]
    return len(names)


def compare(undisturbed: Path, disturbed: Path, outcome: Outcome) -> None:
    """Note what differs between two finished runs, but for times and the log."""
    wanted, found = contents(undisturbed), contents(disturbed)
    for name in sorted(wanted.keys() | found.keys()):
        first, second = wanted.get(name, b""), found.get(name, b"")
        if first != second or (name in wanted) != (name in found):
            n_same = sum(a == b for a, b in zip(first, second, strict=False))
            outcome.differing[name] = max(len(first), len(second), 1) - n_same
    outcome.n_lost = count_lost(disturbed)


def contents(run: Path) -> dict[str, bytes]:
    """Return every file of a run but the log's folder; the manifest without its times."""
    files = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.relative_to(run).parts[0] != "logs"
    }
    manifest = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps(without_times(manifest)).encode()
    return files


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in _TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def count_lost(run: Path) -> int:
    """Count images that are not exactly once among the predictions and the unreadable."""
    folder = RunFolder.open(run)
    images = folder.read_table("images")
    predicted = pd.concat(folder.iter_shards("predictions", ["image_id"]))["image_id"]
    left_out = folder.read_table("unreadable")
    unreadable = images.loc[images["path"].isin(left_out["path"]), "image_id"]
    counts = pd.concat([predicted, unreadable]).value_counts()
    return int((counts.reindex(images["image_id"], fill_value=0) != 1).sum())
