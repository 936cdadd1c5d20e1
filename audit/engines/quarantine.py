"""Which images of a shard kill whoever reads them, and how to go on without these."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.predict.dataset import Batch, ImageSource, SizedBatch

KILLS = "every worker that it was given to died, alone as with others"
"""The reason for which an image is left out."""


class Quarantine:
    """The images of a shard, tried one by one.

    Attributes:
        killers: the images that kill, by image_id, with the reason; in the order of the shard once
            it is over.
    """

    def __init__(self, image_ids: Sequence[int]) -> None:
        self.killers: dict[int, str] = {}
        self._waiting = set(image_ids)

    def settle(self, image_id: int, killed: bool) -> None:
        """Note that an image was tried for the last time."""
        self._waiting.discard(image_id)
        if killed:
            self.killers[image_id] = KILLS

    @property
    def is_over(self) -> bool:
        return not self._waiting


class SourceWithout:
    """A source of images that never touches some of them."""

    def __init__(self, source: "ImageSource", without: Mapping[int, str]) -> None:
        self.listing = source.listing
        self.pixel_range = source.pixel_range
        self._source, self._without = source, without

    def batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator["Batch"]:
        """Yield the images in the order given, without those."""
        return self._source.batches(self._kept(image_ids), batch_size)

    def sized_batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator["SizedBatch"]:
        """Yield the same images with the sizes of their files."""
        return self._source.sized_batches(self._kept(image_ids), batch_size)

    def why_unreadable(self, image_id: int) -> str | None:
        """Return why an image is left out, or what is wrong with another one."""
        return self._without.get(image_id) or self._source.why_unreadable(image_id)

    def _kept(self, image_ids: Sequence[int]) -> list[int]:
        return [image_id for image_id in image_ids if image_id not in self._without]
