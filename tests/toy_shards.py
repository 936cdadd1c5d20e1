"""Workers that write toy shards, and die at some images: for the tests of engines.

Actors import this module, so it loads nothing heavy.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from audit.errors import ModelError
from audit.run_folder import Receipt, RunFolder, ShardSpec

REFUSED = 13
"""The number of an image that the toy model cannot take, if a worker is to `refuse`."""


@dataclass(frozen=True)
class ToySource:
    """Images that are their own numbers. Reading some of them kills, or takes a while.

    Attributes:
        notes: a folder outside the run, in which each reading of an image leaves a file.
        deadly: how often an image kills who reads it, by image_id.
        deadly_together: an image that kills when it is read with others.
        seconds: that each image takes.
    """

    notes: Path
    deadly: dict[int, int]
    deadly_together: int | None
    seconds: float
    listing: object = None
    pixel_range: tuple[float, float] = (0.0, 255.0)

    def batches(
        self, image_ids: Sequence[int], batch_size: int
    ) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        if self.deadly_together in image_ids and len(image_ids) > 1:
            os._exit(1)
        for image_id in image_ids:
            (self.notes / f"read-{image_id}-{os.getpid()}-{time.monotonic_ns()}").touch()
            if len(list(self.notes.glob(f"read-{image_id}-*"))) <= self.deadly.get(image_id, 0):
                os._exit(1)  # As a decoder that crashes does: no exception, no clean-up.
            time.sleep(self.seconds)
            yield [image_id], [image_id * image_id]

    def why_unreadable(self, image_id: int) -> str | None:
        return None


@dataclass(frozen=True)
class ToyWorker:
    folder: RunFolder
    source: ToySource


def toy_shard(spec: ShardSpec, worker: ToyWorker) -> Receipt:
    """Write the squares of a shard's image ids."""
    found = {ids[0]: values[0] for ids, values in worker.source.batches(spec.image_ids, 1)}
    missing = [i for i in spec.image_ids if i not in found]
    left_out = tuple((i, worker.source.why_unreadable(i) or "unknown") for i in missing)
    receipt = Receipt(spec.stage, spec.index, len(found), left_out)
    table = pa.table({"image_id": list(found), "square": list(found.values())})
    worker.folder.write_shard(spec.stage, spec.index, table, receipt)
    return receipt


def refusing_shard(spec: ShardSpec, worker: ToyWorker) -> Receipt:
    if REFUSED in spec.image_ids:
        raise ModelError("The toy refuses. Received: 13. Take another number.")
    return toy_shard(spec, worker)


def broken_shard(spec: ShardSpec, worker: ToyWorker) -> Receipt:
    raise ZeroDivisionError("a fault of the program")


@dataclass(frozen=True)
class Toy:
    """Makes toy workers; each leaves a file with its process id.

    Attributes:
        dies_at_start: whether a worker dies instead.
    """

    run: Path
    notes: Path
    deadly: tuple[tuple[int, int], ...] = ()
    deadly_together: int | None = None
    seconds: float = 0.0
    dies_at_start: bool = False

    def __call__(self, warn: Callable[[str, str], None]) -> ToyWorker:
        if self.dies_at_start:
            os._exit(1)
        (self.notes / f"worker-{os.getpid()}").touch()
        warn("memory", "It is tight.")
        source = ToySource(self.notes, dict(self.deadly), self.deadly_together, self.seconds)
        return ToyWorker(RunFolder(self.run), source)

    def pids(self) -> list[int]:
        """Return the processes of the workers that began."""
        return [int(path.name.removeprefix("worker-")) for path in self.notes.glob("worker-*")]

    def here(self) -> ToyWorker:
        return self(lambda kind, text: None)
