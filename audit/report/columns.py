"""Tables that are looked up by row or by key, and kept as arrays rather than as objects.

In: a frame, or sorted keys. Out: what behaves as a sequence of records, or as a mapping, whose
items are made when they are asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Key = TypeVar("Key")
Value = TypeVar("Value")


class Rows(Sequence[Mapping[str, Any]]):
    """The rows of a frame by column name, with values of Python's own types."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._columns = {str(name): column.array for name, column in frame.items()}
        self._length = len(frame)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...

    def __getitem__(self, row: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(row, slice):
            return [self[n] for n in range(*row.indices(self._length))]
        return {name: _plain(column[row]) for name, column in self._columns.items()}


class ByKey(Mapping[Key, Value]):
    """A mapping over sorted numbers; `value` makes the value of a row.

    Keys are those numbers themselves, unless `number` turns a key into its number, negative for one
    that cannot be there, and `key` turns it back.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        value: Callable[[int], Value],
        number: Callable[[Any], int] = int,
        key: Callable[[int], Any] = int,
    ) -> None:
        self._numbers, self._value, self._number, self._key = numbers, value, number, key

    def __getitem__(self, key: Key) -> Value:
        number = self._number(key)
        row = int(self._numbers.searchsorted(number))
        if row == len(self._numbers) or self._numbers[row] != number:
            raise KeyError(key)
        return self._value(row)

    def __iter__(self) -> Iterator[Key]:
        return map(self._key, self._numbers.tolist())

    def __len__(self) -> int:
        return len(self._numbers)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
