"""Shards are cut without loss, done once, and done again when torn."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.engines.local import cut_shards, run_shards
from audit.run_folder import Receipt, RunFolder, ShardSpec


def test_shards_by_hand():
    assert cut_shards("predictions", [3, 1, 4, 1, 5], 2) == [
        ShardSpec("predictions", 0, (3, 1)),
        ShardSpec("predictions", 1, (4, 1)),
        ShardSpec("predictions", 2, (5,)),
    ]
    assert cut_shards("predictions", [], 2) == []
    assert cut_shards("predictions", np.array([7]), 9) == [ShardSpec("predictions", 0, (7,))]


@given(st.lists(st.integers(0, 99)), st.integers(1, 30))
def test_no_image_is_lost_or_doubled(ids, size):
    shards = cut_shards("x", ids, size)
    assert [i for shard in shards for i in shard.image_ids] == ids
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert all(0 < len(shard.image_ids) <= size for shard in shards)


class Work:
    """Writes a shard that holds its image ids, and notes what it was asked for."""

    def __init__(self, folder, die_at=None):
        self.folder, self.die_at = folder, die_at
        self.workers, self.done, self.current = 0, [], []

    def make_worker(self):
        self.workers += 1
        return self

    def audit_shard(self, spec, worker):
        assert worker is self
        if spec.index == self.die_at:
            raise KeyboardInterrupt
        self.done.append(spec.index)
        receipt = Receipt(spec.stage, spec.index, len(spec.image_ids))
        table = pa.table({"image_id": list(spec.image_ids)})
        self.folder.write_shard(spec.stage, spec.index, table, receipt)
        return receipt

    def run(self, specs):
        return run_shards(
            self.folder, specs, self.audit_shard, self.make_worker, self.current.append
        )


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


SPECS = cut_shards("predictions", range(10), 3)


def test_every_shard_is_done_by_one_worker(folder):
    work = Work(folder)
    receipts = work.run(SPECS)
    assert work.done == [0, 1, 2, 3] and work.workers == 1 and work.current == []
    assert [(r.index, r.n_done) for r in receipts] == [(0, 3), (1, 3), (2, 3), (3, 1)]


def test_finished_shards_are_not_done_again(folder):
    before = Work(folder).run(SPECS)
    again = Work(folder)
    assert again.run(SPECS) == before
    assert again.done == [] and again.workers == 0 and again.current == [3, 3, 3, 1]


def test_an_interrupted_run_goes_on_where_it_stopped(folder):
    with pytest.raises(KeyboardInterrupt):
        Work(folder, die_at=2).run(SPECS)
    work = Work(folder)
    receipts = work.run(SPECS)
    assert work.done == [2, 3] and work.current == [3, 3]
    assert [r.index for r in receipts] == [0, 1, 2, 3]


def test_torn_short_and_missing_shards_are_done_again(folder):
    undisturbed = Work(folder).run(SPECS)
    paths = [folder.shard_path("predictions", index) for index in range(4)]
    contents = [path.read_bytes() for path in paths]
    paths[0].write_bytes(contents[0][:-9])
    paths[1].write_bytes(contents[3])  # whole, but with fewer images
    paths[3].unlink()
    work = Work(folder)
    assert work.run(SPECS) == undisturbed
    assert work.done == [0, 1, 3]
    assert [path.read_bytes() for path in paths] == contents


def test_nothing_to_do_makes_no_worker(folder):
    work = Work(folder)
    assert work.run([]) == [] and work.workers == 0
