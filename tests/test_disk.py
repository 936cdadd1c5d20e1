"""A write that fails is one clear sentence, whatever the system says."""

import errno
from pathlib import Path

import pytest

from audit.disk import readable, writing
from audit.errors import ResourceError, RunFolderError
from audit.places import Remote


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_says_what_is_free_and_what_is_needed(number: int, tmp_path: Path):
    path = tmp_path / "not" / "there" / "shard.parquet"
    with pytest.raises(ResourceError) as caught, writing(path, 1_500_000):
        raise OSError(number, "says the system")
    text = str(caught.value)
    assert text.startswith(f"There is no room for `{path}`. Received: ")
    assert " free, and it takes up to 1.5 MB. Nothing that is done is lost: " in text
    assert "unknown" not in text, "what is free is asked of the nearest folder that is there"
    assert isinstance(caught.value.__cause__, OSError)


def test_of_a_store_nobody_knows_what_is_free(bucket: Remote):
    with pytest.raises(ResourceError) as caught, writing(bucket / "x"):
        raise OSError(errno.ENOSPC, "full")
    assert str(caught.value).startswith(f"There is no room for `{bucket}/x`. Received: ")
    assert "; an unknown amount free. Nothing" in str(caught.value)


def test_how_much_is_needed_is_left_out_where_it_is_not_known(tmp_path: Path):
    with pytest.raises(ResourceError, match=r"[\d.]+ [kMGT]?B free\. Nothing"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (PermissionError(errno.EACCES, "no"), "Permission denied"),
        (OSError(errno.EROFS, "no"), "Read-only file system"),
        (OSError("no number"), "no number"),
    ],
)
def test_what_may_not_be_written_is_named_with_the_reason(
    exc: OSError, reason: str, tmp_path: Path
):
    with pytest.raises(RunFolderError) as caught, writing(tmp_path / "x"):
        raise exc
    assert str(caught.value).startswith(f"`{tmp_path / 'x'}` cannot be written. Received: {reason}")


def test_other_errors_pass(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(RunFolderError, match="mine"), writing(tmp_path):
        raise RunFolderError("mine")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (34_600_000, "34.6 MB"),
        (10**13, "10 TB"),
        (10**16, "1e+04 TB"),
    ],
)
def test_amounts_are_readable(n_bytes: int, text: str):
    assert readable(n_bytes) == text
