"""What is in a folder: the same, whether it is here or in a store."""

from pathlib import Path

import pytest

from audit.places import Remote
from audit.predict.folders import is_utf8, legible, look_into

NAMES = (
    "b/2.jpg",
    "b/1.jpg",
    "a/deep/er/3.png",
    ".hidden/x.jpg",
    "list.csv",
    "zé <b>/4.jpg",
    "b.jpg",
)


@pytest.fixture
def both(bucket: Remote, tmp_path: Path) -> tuple[Path, Remote]:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        (bucket / name).write_bytes(name.encode())
    return tmp_path, bucket


def test_here_and_there_are_the_same_files(both: tuple[Path, Remote]):
    here, there = map(look_into, both)
    assert here.top() == there.top()
    assert [name for name, is_folder in there.top() if is_folder] == [".hidden", "a", "b", "zé <b>"]
    for folder in ("", "a", "b", "zé <b>"):
        left_out: list[tuple[str, str, str]] = []
        assert sorted(here.below(folder, left_out)) == sorted(there.below(folder, left_out))
        assert not left_out
    assert sorted(there.below("", [])) == sorted(NAMES)
    assert sorted(there.below("b", [])) == ["b/1.jpg", "b/2.jpg"]


def test_a_store_says_all_sizes_at_once(both: tuple[Path, Remote]):
    here, there = map(look_into, both)
    assert here.sizes is None
    assert there.sizes == {name: len(name.encode()) for name in NAMES}


def test_a_link_to_a_folder_is_left_out(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    left_out: list[tuple[str, str, str]] = []
    assert list(look_into(tmp_path).below("a", left_out)) == []
    assert left_out == [("a/up", "skipped", "a link to another folder")]


def test_a_name_that_is_no_text_can_be_written_down():
    assert is_utf8("é")
    assert not is_utf8("caf\udce9")
    assert legible("caf\udce9") == "caf\\xe9"
