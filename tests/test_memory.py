"""What is free, by hand-written system files; how many images fit."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from audit.errors import ModelError
from audit.predict.memory import choose_batch_size, free_memory, halve_batch

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "free", "image_bytes", "largest", "expected"),
    [
        ("4GB", None, GB, 16, 4),
        ("4GB", 1 * GB, GB, 16, 4),  # an amount is taken at its word
        ("50%", 10 * GB, GB, 16, 5),
        ("100%", 10 * GB, 3 * GB, 16, 3),
        ("50%", 100 * GB, GB, 16, 16),  # the upper limit
        ("50%", GB, 2 * GB, 16, 1),  # never none
        ("50%", None, GB, 16, 16),  # not known
        ("1GiB", None, 1 << 29, 16, 2),
        ("50%", GB, 0, 8, 8),
    ],
)
def test_a_batch_is_as_large_as_memory_allows(
    memory: str, free: int | None, image_bytes: int, largest: int, expected: int
):
    assert choose_batch_size(memory, free, image_bytes, largest) == expected


def test_a_batch_is_halved_until_it_is_one_image():
    model, exc = SimpleNamespace(name="m.keras", input_size=(20, 30)), MemoryError()
    assert halve_batch(16, model, exc) == 8
    assert halve_batch(3, model, exc) == 1
    with pytest.raises(ModelError, match=r"one image of `m.keras`. Received: .* 20 × 30") as caught:
        halve_batch(1, model, exc)
    with pytest.raises(ModelError, match=r"to predict one image of .*Free some memory\.$"):
        halve_batch(1, model, exc, doing="predict")
    assert caught.value.__cause__ is exc


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 8000 kB available, and no control groups."""
    write(tmp_path / "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    return tmp_path


def free(machine: Path) -> int | None:
    return free_memory(machine / "proc", machine / "cgroup")


def test_without_control_groups_it_is_what_the_machine_has_left(machine: Path):
    assert free(machine) == 8000 * 1024


def test_a_containers_limit_counts_less_what_is_in_use_and_cannot_be_dropped(machine: Path):
    write(machine / "proc/self/cgroup", "0::/\n")
    write(machine / "cgroup/memory.max", "1000000\n")
    write(machine / "cgroup/memory.current", "700000\n")
    assert free(machine) == 300_000
    write(machine / "cgroup/memory.stat", "anon 5\ninactive_file 50000\nactive_file 7\n")
    assert free(machine) == 350_000
    write(machine / "cgroup/memory.max", "max\n")
    assert free(machine) == 8000 * 1024


def test_the_tightest_of_a_group_and_its_parents_counts(machine: Path):
    write(machine / "proc/self/cgroup", "0::/batch/job\n")
    for group, limit, use in (
        ("", 900_000, 0),
        ("batch/", 500_000, 400_000),
        ("batch/job/", 10**6, 9),
    ):
        write(machine / f"cgroup/{group}memory.max", str(limit))
        write(machine / f"cgroup/{group}memory.current", str(use))
    assert free(machine) == 100_000


def test_version_1_of_control_groups_is_read_too(machine: Path):
    write(machine / "proc/self/cgroup", "5:cpu:/other\n4:memory:/job\n0::/\n")
    write(machine / "cgroup/memory/job/memory.limit_in_bytes", "600000")
    write(machine / "cgroup/memory/job/memory.usage_in_bytes", "200000")
    write(machine / "cgroup/memory/job/memory.stat", "total_inactive_file 100000\n")
    assert free(machine) == 500_000


def test_a_group_that_is_over_its_limit_has_nothing_left(machine: Path):
    write(machine / "cgroup/memory.max", "100")
    write(machine / "cgroup/memory.current", "300")
    assert free(machine) == 0


def test_this_machine_has_some_memory():
    found = free_memory()
    assert found is None or found > 0
