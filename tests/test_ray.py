"""Shards on a real Ray cluster: the same bytes as locally, whatever dies meanwhile.

Two raylets run on this machine with a processor each. Most tests use toy shards, so that actors
start in no time; the last ones audit for real.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import drawn_set
import pyarrow.parquet as pq
import pytest
import soak_kill
from toy_shards import Toy, broken_shard, refusing_shard, toy_shard

import audit
from audit.engines import local, quarantine
from audit.engines import ray as engine
from audit.errors import ConfigError, ModelError, ResourceError, RunFolderError
from audit.run_folder import Receipt, RunFolder, ShardSpec

REQUIRED = os.environ.get("AUDIT_REQUIRE_RAY") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None and not REQUIRED, reason="Ray is not installed"
    ),
    # Ray leaves files open, and says what a later version will do about GPUs.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]
SPECS = local.cut_shards("predictions", range(100, 124), 4)
TWO = engine.Cluster(workers=2)
SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}
"""What a raylet of these tests has."""
_PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two raylets, and this process connected to them."""
    engine.check_installed()
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep
        )  # For `toy_shards`.
        two = Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
        two.second = two.add_node(**SMALL)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(address=two.address, log_to_driver=False, logging_level="ERROR")
        signal.signal(signal.SIGTERM, on_sigterm)
        yield two
        ray.shutdown()
        two.shutdown()


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Toy]:
    def make(**how: Any) -> Toy:
        for name in ("run", "notes"):
            (tmp_path / name).mkdir(exist_ok=True)
        return Toy(tmp_path / "run", tmp_path / "notes", **how)

    return make


def run(toy: Toy, audit_shard: Any = toy_shard, specs: Any = SPECS, **how: Any) -> list[Receipt]:
    return engine.run_shards(RunFolder(toy.run), specs, audit_shard, toy, **{"cluster": TWO} | how)


def files(run: Path) -> dict[str, bytes]:
    """Return everything in a run folder, hidden and temporary files too."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
    }


def locally(tmp_path: Path) -> tuple[list[Receipt], dict[str, bytes]]:
    """Return the receipts and the files that the local engine makes of the same shards."""
    plain = Toy(tmp_path / "local", tmp_path / "local-notes")
    plain.notes.mkdir()
    receipts = local.run_shards(RunFolder(plain.run), SPECS, toy_shard, plain.here)
    return receipts, files(plain.run)


def image_ids(run: Path) -> list[int]:
    """Return the images of all shards, in order."""
    tables = [pq.read_table(path) for path in sorted(run.glob("predictions/*.parquet"))]
    return [image_id for table in tables for image_id in table["image_id"].to_pylist()]


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_background(do: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=do)
    thread.start()
    return thread


def test_two_workers_write_what_the_local_engine_writes(
    cluster: Any, toy: Callable[..., Toy], tmp_path: Path
):
    made, done, said = toy(seconds=0.05), [], []
    receipts = run(made, on_current=done.append, on_warning=lambda *warning: said.append(warning))
    expected = locally(tmp_path)
    assert (receipts, files(made.run)) == expected
    assert done == [4] * 6
    assert len(made.pids()) == 2, "both actors began"
    assert said == [("memory", "It is tight.")] * 2

    again = []
    assert run(made, on_current=again.append) == receipts
    assert again == [4] * 6 and len(made.pids()) == 2, "nothing is left to do, so no actor begins"


def test_torn_and_missing_shards_alone_are_done_again(
    cluster: Any, toy: Callable[..., Toy], tmp_path: Path
):
    made = toy()
    before = run(made), files(made.run)
    path = made.run / "predictions" / "shard-000002.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    path.with_name("shard-000005.parquet").unlink()
    for note in made.notes.iterdir():
        note.unlink()
    assert (run(made), files(made.run)) == before == locally(tmp_path)
    read = {int(path.name.split("-")[1]) for path in made.notes.glob("read-*")}
    assert read == set(SPECS[2].image_ids + SPECS[5].image_ids)


def test_a_worker_that_is_killed_is_replaced(cluster: Any, toy: Callable[..., Toy], tmp_path: Path):
    made = toy(seconds=0.1)

    def kill_two() -> None:
        killed: set[int] = set()
        for _ in range(2):
            soon(lambda: set(made.pids()) > killed)
            time.sleep(0.25)
            (pid,) = set(made.pids()) - killed
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    thread = in_background(kill_two)
    receipts = run(made, cluster=engine.Cluster(workers=1))
    thread.join()
    assert (receipts, files(made.run)) == locally(tmp_path)
    assert len(made.pids()) == 3


def test_an_image_that_kills_twice_is_only_tried_again(
    cluster: Any, toy: Callable[..., Toy], tmp_path: Path
):
    made = toy(deadly=((109, 2),))
    assert (run(made), files(made.run)) == locally(tmp_path)


def test_a_poison_image_costs_one_image(cluster: Any, toy: Callable[..., Toy], tmp_path: Path):
    made = toy(deadly=((105, 999),))
    receipts = run(made)
    expected, undisturbed = locally(tmp_path)
    expected[1] = Receipt("predictions", 1, 3, ((105, quarantine.KILLS),))
    assert receipts == expected
    assert image_ids(made.run) == [i for i in range(100, 124) if i != 105]
    found = files(made.run)
    assert found.keys() == undisturbed.keys()
    assert [name for name in found if found[name] != undisturbed[name]] == [
        "predictions/shard-000001.parquet"
    ]
    attempts = {i: len(list(made.notes.glob(f"read-{i}-*"))) for i in (104, 105, 106)}
    # 104: three times before its neighbour dies, once alone, once in the end.
    # 105: three times with its shard, three times alone. 106: once alone, once in the end.
    assert attempts == {104: 5, 105: 6, 106: 2}
    assert run(made) == receipts, "it is left out for good"


def test_a_shard_that_kills_only_as_a_whole_is_an_error(cluster: Any, toy: Callable[..., Toy]):
    with pytest.raises(ResourceError, match="shard 1 of `predictions`, although each image"):
        run(toy(deadly_together=106), specs=SPECS[:2])


def test_an_error_of_the_user_comes_as_it_is(cluster: Any, toy: Callable[..., Toy]):
    specs = [ShardSpec("predictions", 0, (13, 14))]
    with pytest.raises(ModelError) as caught:
        run(toy(), refusing_shard, specs)
    assert str(caught.value) == "The toy refuses. Received: 13. Take another number."


def test_a_fault_of_the_program_is_not_tried_again(cluster: Any, toy: Callable[..., Toy]):
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        run(toy(), broken_shard)


def test_workers_that_cannot_begin_are_an_error(cluster: Any, toy: Callable[..., Toy]):
    with pytest.raises(ResourceError, match="die before they begin"):
        run(toy(dies_at_start=True))


def test_nobody_starts_without_room_and_that_is_said(
    cluster: Any, toy: Callable[..., Toy], monkeypatch: pytest.MonkeyPatch
):
    def say(text: str) -> None:
        assert text == engine.NO_ROOM
        raise TimeoutError

    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    monkeypatch.setattr(engine, "_TICK", 0.2)
    with pytest.raises(TimeoutError):
        run(toy(), cluster=engine.Cluster(gpus_per_worker=1), on_wait=say)


def test_files_that_are_not_seen_here_are_an_error(
    cluster: Any, toy: Callable[..., Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "PATIENCE", 0.6)
    elsewhere = RunFolder(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"not seen on this machine.*storage that all"):
        engine.run_shards(elsewhere, SPECS, toy_shard, toy(), cluster=TWO)


def test_by_default_there_is_one_worker_on_each_machine_or_gpu():
    def node(alive: bool = True, **resources: float) -> dict[str, Any]:
        return {"Alive": alive, "Resources": resources}

    nodes = [node(CPU=8.0), node(CPU=8.0, GPU=2.0), node(False, CPU=8.0, GPU=9.0), node(GPU=1.0)]
    assert engine._one_each(nodes, 0) == 2
    assert engine._one_each(nodes, 1) == 3
    assert engine._one_each(nodes, 0.5) == 6
    assert engine._one_each([node()], 1) == 1


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'gradcam-audit\[ray\]'"):
        engine.check_installed()


@contextmanager
def losing_a_machine(cluster: Any, when: Callable[[], bool]) -> Iterator[None]:
    """Take the second machine away as soon as something holds; put another in its place after."""

    def remove() -> None:
        soon(when)
        cluster.remove_node(cluster.second, allow_graceful=False)

    thread = in_background(remove)
    yield
    thread.join()
    cluster.second = cluster.add_node(**SMALL)


def test_a_machine_that_goes_away_costs_nothing(
    cluster: Any, toy: Callable[..., Toy], tmp_path: Path
):
    made = toy(seconds=0.15)
    with losing_a_machine(
        cluster, lambda: len(made.pids()) == 2 and len(list(made.notes.glob("read-*"))) >= 4
    ):
        receipts = run(made)
    assert (receipts, files(made.run)) == locally(tmp_path)


def real_audit(model: Path, data: Path, out: Path) -> str:
    """Audit the drawn images with a worker on each raylet, and return the log."""
    audit.run(model, data, out, progress=False, engine="ray", workers=2, **drawn_set.SHARDS)
    return (out / "logs" / "run.log").read_text()


def differences(undisturbed: Path, run: Path) -> tuple[dict[str, int], int]:
    """Return how many bytes differ by file, and how many images are not there exactly once."""
    outcome = soak_kill.Outcome()
    soak_kill.compare(undisturbed, run, outcome)
    return outcome.differing, outcome.n_lost


def test_a_real_audit_by_two_workers_is_that_of_the_local_engine(
    cluster: Any, drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    log = real_audit(drawn_model, drawn_data, tmp_path / "run")
    assert differences(drawn_run, tmp_path / "run") == ({}, 0)
    parts = re.split(r"stage \d+ of \d+: ", log)
    ready = {part.split()[0]: part.count("a worker is ready") for part in parts[1:]}
    assert {name for name, n in ready.items() if n} == {"predict", "explain", "causes"}
    assert max(ready.values()) == 2, "two began at once"
    assert "died" not in log


def test_a_real_audit_outlives_a_machine(
    cluster: Any, drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    out = tmp_path / "run"
    # Whether a worker is at work there at that moment is left to chance.
    with losing_a_machine(cluster, lambda: any(out.glob("explanations/shard-*"))):
        real_audit(drawn_model, drawn_data, out)
    assert differences(drawn_run, out) == ({}, 0)


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    sizes = [f"--{name.replace('_', '-')}={size}" for name, size in drawn_set.SHARDS.items()]
    start = [sys.executable, "-m", "audit", "run", str(model), str(data), "--out", str(out)]
    return [*start, *sizes, *more]


def test_a_real_audit_whose_driver_is_killed_ends_like_a_local_one(
    drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path
):
    out = tmp_path / "run"
    on_ray = command(drawn_model, drawn_data, out, "--engine=ray", "--workers=1")
    driver = soak_kill.start(on_ray, tmp_path / "stderr")
    try:
        soon(lambda: driver.poll() is not None or any(out.glob("predictions/shard-*")))
    finally:
        driver.kill()  # Only the driver: what it started has to notice by itself.
    assert driver.wait() == -signal.SIGKILL, (tmp_path / "stderr").read_text()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("predictions/*.parquet")}
    done = subprocess.run(on_ray, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "report" / "index.html")
    assert "raylet" not in done.stdout + done.stderr
    assert "explain (stage 4 of 11): 100%" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was done stays"
    assert "a worker is ready" in (out / "logs" / "run.log").read_text()
    assert differences(drawn_run, out) == ({}, 0)

    # The engine may change: the finished run is the same for the local one.
    again = subprocess.run(command(drawn_model, drawn_data, out), capture_output=True, timeout=300)
    assert again.returncode == 0
    assert differences(drawn_run, out) == ({}, 0)


def test_sigterm_stops_the_driver_as_it_does_locally(
    drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    out = tmp_path / "run"
    driver = soak_kill.start(
        command(drawn_model, drawn_data, out, "--engine=ray", "--workers=1"), tmp_path / "stderr"
    )
    try:
        soon(lambda: driver.poll() is not None or any(out.glob("predictions/shard-*")))
        driver.terminate()
        assert driver.wait(10) == 128 + signal.SIGTERM
    finally:
        driver.kill()
    assert "Nothing that is done is lost" in (tmp_path / "stderr").read_text()
