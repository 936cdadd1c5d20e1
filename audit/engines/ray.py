"""Hand out shards to the actors of a Ray cluster, which write them to storage that all can reach.

What travels is a recipe for a worker, shard specs and receipts; never pixels. The driver, which is
this process, owns every retry: a shard whose actor dies is handed to another one, three times in
all. Then its images are tried one by one, without keeping the results, to find those that kill, and
the shard is done without them. Disk is the truth: what is there is not done again.
"""

import logging
import os
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from io import TextIOBase
from typing import Any, TypeVar

from audit.engines.quarantine import Quarantine, SourceWithout
from audit.errors import AuditError, ConfigError, ResourceError, RunFolderError
from audit.run_folder import Receipt, RunFolder, ShardSpec

Worker = TypeVar("Worker")
Warn = Callable[[str, str], None]
"""Takes the kind and the text of a warning."""

ATTEMPTS = 3
"""How often a shard, and in quarantine an image, may be in the hands of an actor that dies."""
PATIENCE = 60.0
"""Seconds until it is said that no worker has started, and that files of a worker must be seen."""
NO_ROOM = (
    "No worker has started yet: the cluster has no free processor, or too few GPUs for"
    " `--gpus-per-worker`. The audit goes on as soon as there is room."
)
_TICK = 5.0
_OBJECT_STORE = 80 << 20  # The least that Ray takes; nothing large goes through it.

logger = logging.getLogger("audit")


@dataclass(frozen=True)
class Cluster:
    """Which Ray cluster, and what to ask of it.

    Attributes:
        address: "local" starts one on this machine; "auto" finds the one that this machine is a
            part of; "ray://HOST:PORT" is one elsewhere. If the program has connected to a cluster
            already, that one is used.
        workers: actors at once; `None` for one on each GPU, or else on each machine.
        gpus_per_worker: of each actor.
    """

    address: str = "local"
    workers: int | None = None
    gpus_per_worker: float = 0


@dataclass(frozen=True)
class Answer:
    """What an actor says: a receipt, or the error that the user must be told."""

    receipt: Receipt | None = None
    error: AuditError | None = None
    warnings: tuple[tuple[str, str], ...] = ()
    where: str = ""


def run_shards(
    folder: RunFolder,
    specs: Iterable[ShardSpec],
    audit_shard: Callable[[ShardSpec, Worker], Receipt],
    make_worker: Callable[[Warn], Worker],
    on_current: Callable[[int], None] = lambda n: None,
    *,
    cluster: Cluster,
    on_warning: Warn = lambda kind, text: None,
    on_wait: Callable[[str], None] = lambda text: None,
) -> list[Receipt]:
    """Do the shards that are missing or torn, on a cluster. Files are those of the local engine.

    Args:
        audit_shard: a function of a module that the actors can import.
        make_worker: called once in each actor, with a function that takes warnings. It is sent, so
            it must be small and stand for itself. A worker is a dataclass with the attributes
            `folder` and `source`.
        on_current: called with the number of images of each shard that is there, or is done.
        on_warning: called with each warning of a worker.
        on_wait: called with a sentence if the cluster has no room for a worker.

    Returns:
        The receipts of all shards, in order.

    Raises:
        AuditError: what a worker raised; or no cluster answers, workers die before they begin, or a
            shard cannot be done although each of its images can.
    """
    specs = list(specs)
    receipts: dict[int, Receipt] = {}
    for spec in specs:
        receipt = folder.read_receipt(spec)
        if receipt is not None:
            receipts[spec.index] = receipt
            on_current(len(spec.image_ids))
    missing = [spec for spec in specs if spec.index not in receipts]
    if missing:
        with redirect_stdout(_Log()):  # Ray prints remarks on workers that died.
            connect(cluster)
            driver = _Driver(audit_shard, make_worker, cluster, on_warning, on_wait)
            for receipt in driver.run(missing):
                receipts[receipt.index] = receipt
                on_current(receipt.n_done + len(receipt.left_out))
        _wait_for_files(folder, missing)
        for left in folder.path.glob("*/.shard-*.tmp"):  # A store has none.
            left.unlink(missing_ok=True)  # Of workers that died; none is at work any more.
    return [receipts[spec.index] for spec in specs]


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        ConfigError: if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"`--engine ray` needs Ray, which is not installed. Received: {exc}. Install it with"
            " `pip install 'gradcam-audit[ray]'`."
        ) from exc


@contextmanager
def session() -> Iterator[None]:
    """Leave the cluster, at the end of the block, that was connected to inside it."""
    check_installed()
    import ray

    connected = ray.is_initialized()
    try:
        yield
    finally:
        if not connected and ray.is_initialized():
            ray.shutdown()


def connect(cluster: Cluster) -> None:
    """Connect to a cluster, or start one on this machine, unless this process is connected.

    Raises:
        ConfigError: if Ray is not installed, or no cluster answers.
    """
    check_installed()
    import ray

    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    in_main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    logger.info("connecting to Ray, address %s", cluster.address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The error that is raised as well says the same.
            ray.init(address=cluster.address, **options)
    except (ConnectionError, RuntimeError, OSError, ValueError) as exc:
        why = " ".join(str(exc).split())[:300].rstrip(".: ")
        raise ConfigError(
            f"No Ray cluster can be used at `{cluster.address}`. Received:"
            f" {why or type(exc).__name__}. Start one with `ray start --head`, or leave"
            " `--address` out to start one on this machine."
        ) from exc
    finally:
        if in_main:  # Ray puts a handler of its own there, which is not ours to keep.
            signal.signal(signal.SIGTERM, on_sigterm)


@dataclass(eq=False)
class _Task:
    """A shard, or in quarantine one image of it, that waits for an actor or is with one."""

    spec: ShardSpec
    alone: int | None = None
    without: Mapping[int, str] = field(default_factory=dict)
    deaths: int = 0


class _Actor:
    """Lives in a process of the cluster: makes a worker, then does one shard at a time."""

    def prepare(self, make_worker: Callable[[Warn], Any]) -> Answer:
        self.warnings: list[tuple[str, str]] = []
        where = f"{socket.gethostname()}, process {os.getpid()}"
        try:
            worker = make_worker(lambda kind, text: self.warnings.append((kind, text)))
        except AuditError as exc:
            return Answer(error=exc, where=where)
        folder = RunFolder(worker.folder.path, f"{socket.gethostname()}-{os.getpid()}")
        self.worker = replace(worker, folder=folder)
        return Answer(where=where)

    def audit(self, audit_shard: Callable[[ShardSpec, Any], Receipt], task: _Task) -> Answer:
        try:
            receipt = self._audit(audit_shard, task)
        except AuditError as exc:
            return Answer(error=exc)
        said, self.warnings[:] = tuple(self.warnings), []
        return Answer(receipt, warnings=said)

    def _audit(self, audit_shard: Callable[[ShardSpec, Any], Receipt], task: _Task) -> Receipt:
        spec = task.spec
        if task.alone is not None:
            spec = replace(spec, image_ids=(task.alone,))
            with tempfile.TemporaryDirectory() as unused:
                return audit_shard(spec, replace(self.worker, folder=RunFolder(unused)))
        if task.without:
            source = SourceWithout(self.worker.source, task.without)
            return audit_shard(spec, replace(self.worker, source=source))
        return audit_shard(spec, self.worker)


class _Driver:
    """Keeps actors alive and busy until all shards are done."""

    def __init__(
        self,
        audit_shard: Callable[[ShardSpec, Any], Receipt],
        make_worker: Callable[[Warn], Any],
        cluster: Cluster,
        on_warning: Warn,
        on_wait: Callable[[str], None],
    ) -> None:
        import ray

        self._ray = ray
        self._audit_shard, self._make_worker = audit_shard, make_worker
        self._on_warning, self._on_wait = on_warning, on_wait
        self._most = cluster.workers or _one_each(ray.nodes(), cluster.gpus_per_worker)
        self._new_actor = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._queue: deque[_Task] = deque()
        self._starting: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        self._quarantines: dict[int, Quarantine] = {}
        self._failed_starts = 0

    def run(self, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Yield the receipts as they come."""
        self._queue.extend(map(_Task, specs))
        begin, has_waited = time.monotonic(), False
        try:
            while self._queue or self._busy:
                self._keep_staffed()
                self._hand_out()
                waiting = [*self._busy, *self._starting]
                for ref in self._ray.wait(waiting, num_returns=1, timeout=_TICK)[0]:
                    yield from self._hear(ref)
                if not has_waited and not (self._ready or self._busy or self._failed_starts):
                    has_waited = time.monotonic() - begin > PATIENCE
                    if has_waited:
                        self._on_wait(NO_ROOM)
        finally:
            actors = [*self._ready, *self._starting.values(), *(a for a, _ in self._busy.values())]
            for actor in actors:
                self._ray.kill(actor)

    def _keep_staffed(self) -> None:
        """Start actors for those that died, but no more than there is work for."""
        n_actors = len(self._starting) + len(self._ready) + len(self._busy)
        n_tasks = len(self._queue) + len(self._busy)
        for _ in range(min(self._most, n_tasks) - n_actors):
            actor = self._new_actor.remote()
            self._starting[actor.prepare.remote(self._make_worker)] = actor

    def _hand_out(self) -> None:
        """Give one task to each actor that is ready; one that is still starting gets none."""
        while self._queue and self._ready:
            actor, task = self._ready.pop(), self._queue.popleft()
            self._busy[actor.audit.remote(self._audit_shard, task)] = actor, task

    def _hear(self, ref: Any) -> Iterator[Receipt]:
        actor, task = self._busy.pop(ref) if ref in self._busy else (self._starting.pop(ref), None)
        try:
            answer: Answer = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:  # An error in the program: not to be tried again.
            self._ray.kill(actor)
            raise
        except self._ray.exceptions.RayError as exc:
            self._ray.kill(actor)  # It may be out of reach only.
            self._bury(task, exc)
            return
        if answer.error is not None:
            self._ray.kill(actor)
            raise answer.error
        for kind, text in answer.warnings:
            self._on_warning(kind, text)
        self._ready.append(actor)
        if task is None:
            self._failed_starts = 0
            logger.info("a worker is ready: %s", answer.where)
        elif task.alone is not None:
            self._settle(task, killed=False)
        elif answer.receipt is not None:
            yield answer.receipt

    def _bury(self, task: _Task | None, exc: Exception) -> None:
        """Decide what becomes of the task of an actor that died."""
        why = " ".join(str(exc).split())
        if task is None:
            self._failed_starts += 1
            logger.info("a worker died before its first shard: %s", why)
            if self._failed_starts == ATTEMPTS:
                raise ResourceError(
                    f"The workers of Ray die before they begin. Received: {ATTEMPTS} of them in a"
                    f" row, the last with: {why[:300].rstrip('.')}. See to it that each machine has"
                    " gradcam-audit, and the memory to load the model; Ray keeps the logs of"
                    " workers in `/tmp/ray/session_latest/logs`."
                ) from exc
            return
        task.deaths += 1
        image = "" if task.alone is None else f", image {task.alone}"
        where = f"{task.spec.stage} shard {task.spec.index}{image}"
        logger.info("a worker died at %s, attempt %d of %d: %s", where, task.deaths, ATTEMPTS, why)
        if task.deaths < ATTEMPTS:
            self._queue.append(task)
        elif task.alone is not None:
            self._settle(task, killed=True)
        elif task.spec.index in self._quarantines:
            raise ResourceError(
                f"The workers of Ray die at shard {task.spec.index} of `{task.spec.stage}`,"
                " although each image that is left in it passes alone. Received:"
                f" {ATTEMPTS} dead workers, the last with: {why[:300].rstrip('.')}. If they run out"
                " of memory, audit into a new folder with a smaller `--batch-size` or"
                " `--explain-batch-size`."
            ) from exc
        else:
            logger.info("%s is in quarantine: its images are tried one by one", where)
            self._quarantines[task.spec.index] = Quarantine(task.spec.image_ids)
            self._queue.extend(_Task(task.spec, alone=i) for i in task.spec.image_ids)

    def _settle(self, task: _Task, killed: bool) -> None:
        """Note what became of an image in quarantine; after the last one the shard is due again."""
        quarantine = self._quarantines[task.spec.index]
        quarantine.settle(int(task.alone or 0), killed)
        if quarantine.is_over:
            self._queue.append(_Task(task.spec, without=quarantine.killers))


def _one_each(nodes: Sequence[Mapping[str, Any]], gpus_per_worker: float) -> int:
    """Return how many actors there are by default: one on each GPU share, or on each machine."""
    offers = [node["Resources"] for node in nodes if node["Alive"]]
    if gpus_per_worker > 0:
        return max(1, sum(int(offer.get("GPU", 0) / gpus_per_worker) for offer in offers))
    return max(1, sum(offer.get("CPU", 0) >= 1 for offer in offers))


def _wait_for_files(folder: RunFolder, specs: Sequence[ShardSpec]) -> None:
    """Wait until this machine sees what the workers wrote: network file systems may take a while.

    Raises:
        RunFolderError: if it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    unseen = list(specs)
    while True:
        listed = set(folder.shard_indices(specs[0].stage))
        unseen = [s for s in unseen if s.index not in listed or folder.read_receipt(s) is None]
        if not unseen:
            return
        if time.monotonic() > deadline:
            raise RunFolderError(
                f"What the workers wrote is not seen on this machine. Received: no"
                f" `{folder.shard_path(unseen[0].stage, unseen[0].index)}`, {PATIENCE:.0f} s after"
                " it was written. Give an --out on storage that all machines share."
            )
        time.sleep(0.5)


class _Log(TextIOBase):
    """Takes what is printed and puts it into the log."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.info("Ray: %s", text.strip())
        return len(text)
