"""Hand out shards to a worker in this process, skipping those already on disk."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from audit.run_folder import Receipt, RunFolder, ShardSpec

Worker = TypeVar("Worker")


def run_shards(
    folder: RunFolder,
    specs: Iterable[ShardSpec],
    audit_shard: Callable[[ShardSpec, Worker], Receipt],
    make_worker: Callable[[], Worker],
    on_current: Callable[[int], None] = lambda n: None,
) -> list[Receipt]:
    """Do the shards that are missing or torn, in order.

    Args:
        make_worker: called once, and only if there is anything to do.
        on_current: called with the number of images of each shard that is already there.

    Returns:
        The receipts of all shards, in order.
    """
    worker: Worker | None = None
    receipts = []
    for spec in specs:
        receipt = folder.read_receipt(spec)
        if receipt is not None:
            on_current(len(spec.image_ids))
        else:
            if worker is None:
                worker = make_worker()
            receipt = audit_shard(spec, worker)
        receipts.append(receipt)
    return receipts


def cut_shards(stage: str, image_ids: Iterable[int], size: int) -> list[ShardSpec]:
    """Cut image ids into shards of at most `size`, numbered from 0."""
    ids = list(image_ids)
    return [
        ShardSpec(stage, index, tuple(ids[start : start + size]))
        for index, start in enumerate(range(0, len(ids), size))
    ]
