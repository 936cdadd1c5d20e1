"""Tables that are looked up by row or by key."""

import numpy as np
import pandas as pd
import pytest

from audit.report.columns import ByKey, Rows
from audit.schemas import records


def test_rows_are_the_records_of_the_frame():
    frame = pd.DataFrame(
        {
            "image_id": np.array([4, 7], np.int64),
            "share": np.array([0.5, 0.25], np.float32),
            "path": ["a/ü.png", "</script>"],
            "right": [True, False],
            "seen": pd.to_datetime(["2020-01-01", "2021-01-01"]),
            "ids": [[1, 2], []],
        }
    )
    rows = Rows(frame)
    assert len(rows) == 2
    assert list(rows) == records(frame) == rows[0:2]
    assert rows[-1]["path"] == "</script>"
    assert [type(value) for value in rows[0].values()][:4] == [int, float, str, bool]
    with pytest.raises(IndexError):
        rows[2]


def test_a_mapping_over_sorted_numbers_behaves_like_a_dictionary():
    values = ["two", "five", "nine"]
    found = ByKey(np.array([2, 5, 9]), values.__getitem__)
    assert dict(found) == {2: "two", 5: "five", 9: "nine"}
    assert found[5] == "five" and found.get(np.int64(9)) == "nine"
    assert [key in found for key in (1, 2, 3, 9, 10, -1)] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    with pytest.raises(KeyError, match="6"):
        found[6]
    assert len(found) == 3 and len(ByKey(np.zeros(0, np.int64), values.__getitem__)) == 0


def test_keys_of_two_numbers_are_told_apart():
    # Image and class, at most ten classes: (1, 2) is 12, (3, 0) is 30. No key is 10 × 0 + 12.
    found = ByKey(
        np.array([12, 30]),
        "ab".__getitem__,
        lambda key: 10 * key[0] + key[1] if key[1] < 10 else -1,
        lambda number: divmod(number, 10),
    )
    assert dict(found) == {(1, 2): "a", (3, 0): "b"}
    assert (0, 12) not in found and (1, 3) not in found
