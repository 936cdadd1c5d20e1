"""Where the errors of a pattern look on average, in each run: the picture of "before and after".

In: the patterns of all runs, and maps as they come. Out: mean maps and how many are in them. Only
sums are kept, so that memory does not grow with the errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from audit.compare.patterns_change import FoundPattern
from audit.report.comparison.compared_pictures import ComparedPictures
from audit.report.images import Pixels


@dataclass(frozen=True)
class MeanMap:
    """A mean map, uint8 with 255 at its peak, `None` without any; `n` maps are in it, `of` errors.

    Each map counts in shares of its own peak.
    """

    cam: Pixels | None
    n: int
    of: int


class MeanMaps:
    """Sums of the maps of each pattern's errors, for the class they were taken for, by run.

    Args:
        patterns: of each run.
        y_pred: int64 of shape (n_runs, n).
    """

    def __init__(self, patterns: Sequence[Sequence[FoundPattern]], y_pred: np.ndarray) -> None:
        self._y_pred = y_pred
        self._patterns = patterns
        self._members: dict[int, list[tuple[int, int]]] = {}
        for run, found in enumerate(patterns):
            for pattern in found:
                for position in pattern.errors.tolist():
                    self._members.setdefault(position, []).append((run, pattern.number))
        self._sums: dict[tuple[int, int, int], tuple[np.ndarray, int]] = {}

    def add(self, position: int, pictures: ComparedPictures) -> None:
        """Take the maps of an image, if it is in a pattern."""
        for run, number in self._members.get(position, ()):
            taken_for = int(self._y_pred[run, position])
            for shown in range(len(pictures)):
                found = pictures.map(position, shown, taken_for)
                if found is not None:
                    self._add((run, number, shown), found.cam)

    def mean(self, run: int, number: int, shown: int) -> MeanMap:
        """Return the mean in one run of the errors of a pattern that another or the same found."""
        (of,) = (len(x.errors) for x in self._patterns[run] if x.number == number)
        if (run, number, shown) not in self._sums:
            return MeanMap(None, 0, of)
        total, n = self._sums[run, number, shown]
        peak = total.max()
        return MeanMap(np.rint(total * (255 / peak)).astype(np.uint8), n, of)

    def _add(self, key: tuple[int, int, int], cam: Pixels) -> None:
        values = cam.astype(np.float64)
        if key not in self._sums:
            self._sums[key] = (values, 1)
            return
        total, n = self._sums[key]
        if values.shape != total.shape:
            height, width = total.shape
            values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
        self._sums[key] = (total + values, n + 1)
