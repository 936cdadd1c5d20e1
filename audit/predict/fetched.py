"""Images behind a URL: fetched by several threads ahead of the decoder, then as from files.

In: a `Listing` of files in an object store. Out: the same batches as of the same files here.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import tensorflow as tf

from audit.errors import PlaceError
from audit.places import Remote
from audit.predict.dataset import FileSource, SizedBatch, why_not_decoded
from audit.predict.headers import GONE, read_claim, why_not_decode_content, why_wrong_size
from audit.predict.listing import Listing

_AT_ONCE = 16
"""Images that are fetched at a time."""
_AHEAD = 64
"""Images that are fetched or wait for the decoder, at most."""


def open_files(
    listing: Listing, size: tuple[int, int], channels: int, **options: Any
) -> FileSource:
    """Return what reads the images of a listing, here or behind a URL; see `FileSource`."""
    kind = FetchedSource if isinstance(listing.root, Remote) else FileSource
    return kind(listing, size, channels, **options)


class FetchedSource(FileSource):
    """Images in an object store. An image that is gone, or may not be read, is unreadable.

    A store that cannot be reached is another matter: it ends the run, which can go on later.
    """

    def sized_batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[SizedBatch]:
        failures: list[PlaceError] = []

        def contents() -> Iterator[tuple[int, bytes]]:
            # An error in here would be taken for that of an image, so it is kept for the end.
            try:
                yield from self._contents(image_ids)
            except PlaceError as exc:
                failures.append(exc)

        signature = (tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.string))
        files = tf.data.Dataset.from_generator(contents, output_signature=signature)
        yield from self._decoded(files, self._decode, batch_size)
        if failures:
            raise failures[0]

    def why_unreadable(self, image_id: int) -> str | None:
        content, refused = self._fetch(image_id)
        if refused:
            return refused
        try:
            self._decode(tf.constant(image_id, tf.int64), tf.constant(content))
        except (tf.errors.OpError, ValueError) as exc:
            return why_not_decoded(exc, read_claim(BytesIO(content)).kind)
        return None

    def _contents(self, image_ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the images that may be decoded, in the order given."""
        waiting: deque[tuple[int, Future[tuple[bytes, str | None]]]] = deque()
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        try:
            for image_id in np.asarray(image_ids, np.int64).tolist():
                waiting.append((image_id, pool.submit(self._fetch, image_id)))
                if len(waiting) >= _AHEAD:
                    yield from _taken(*waiting.popleft())
            while waiting:
                yield from _taken(*waiting.popleft())
        finally:  # Also if no more images are wanted.
            pool.shutdown(cancel_futures=True)

    def _fetch(self, image_id: int) -> tuple[bytes, str | None]:
        """Return an image's file, and why it must not be decoded."""
        path = self._paths[image_id]
        n_bytes = (self.listing.sizes or {}).get(path)
        refused = None if n_bytes is None else why_wrong_size(n_bytes, self._max_pixels)
        if refused:
            return b"", refused
        assert isinstance(self.listing.root, Remote)
        try:
            content = (self.listing.root / path).fetch()
        except (FileNotFoundError, IsADirectoryError):
            return b"", GONE
        except PermissionError:
            return b"", "it may not be read with these credentials"
        return content, why_not_decode_content(content, self._max_pixels)


def _taken(
    image_id: int, fetched: "Future[tuple[bytes, str | None]]"
) -> Iterator[tuple[int, bytes]]:
    content, refused = fetched.result()
    if refused is None:
        yield image_id, content
