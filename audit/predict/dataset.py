"""Decode images exactly as Keras does, in batches, and keep account of every one.

In: a `Listing` of files, or a `tf.data.Dataset` in memory. Out: batches of image ids and pixels.
Pixels are bit-identical to `keras.utils.image_dataset_from_directory` (bilinear, no antialias), or
on request to `keras.utils.load_img`, whose default is the nearest pixel.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from audit.config import MAX_PIXELS
from audit.errors import DatasetError
from audit.predict.headers import KINDS, read_claim, why_not_decode
from audit.predict.listing import Listing, make_listing

Batch = tuple[np.ndarray, tf.Tensor]
"""Image ids, int64 of shape (n,), and pixels, float32 of shape (n, height, width, channels)."""

SizedBatch = tuple[np.ndarray, tf.Tensor, np.ndarray]
"""A `Batch`, and int64 of shape (n, 3): width and height as decoded, bytes; -1 without a file."""

_HEADERS_AT_ONCE = 8  # They wait for a disk or a network, not for a processor.
_GREY_WEIGHTS = (19595, 38470, 7471)
"""Of red, green and blue, in 1/65536: `L24` in Pillow's `Convert.c`."""


class ImageSource(Protocol):
    """Where pixels come from."""

    listing: Listing
    pixel_range: tuple[float, float]
    """The values that stand for black and white."""

    def batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Yield the images in the order given; those that cannot be read are missing."""

    def sized_batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[SizedBatch]:
        """Yield the same images with the sizes of their files."""

    def why_unreadable(self, image_id: int) -> str | None:
        """Try an image again on its own and return what is wrong with it, or `None`."""


class FileSource:
    """Images in files, decoded and resized on the way.

    A file is given to the decoder only if it is one, and claims no more pixels than `max_pixels`.
    """

    pixel_range = (0.0, 255.0)

    def __init__(
        self,
        listing: Listing,
        size: tuple[int, int],
        channels: int,
        *,
        aspect: str = "stretch",
        interpolation: str = "bilinear",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if listing.root is None:
            raise ValueError("a FileSource needs a listing of files")
        self.listing = listing
        self._root = str(listing.root)
        self._paths = listing.images["path"].to_numpy()
        self._size, self._channels = size, channels
        self._aspect, self._interpolation = aspect, interpolation
        self._max_pixels = max_pixels

    def batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[Batch]:
        for ids, pixels, _ in self.sized_batches(image_ids, batch_size):
            yield ids, pixels

    def sized_batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[SizedBatch]:
        ids = self._decodable(np.asarray(image_ids, np.int64))
        paths = tf.constant([self._path(image_id) for image_id in ids], tf.string)
        files = tf.data.Dataset.from_tensor_slices((ids, paths))
        yield from self._decoded(files, self._read, batch_size)

    def why_unreadable(self, image_id: int) -> str | None:
        path = self._path(image_id)
        refused = why_not_decode(path, self._max_pixels)
        if refused:
            return refused
        try:
            self._read(tf.constant(image_id, tf.int64), tf.constant(path))
        except (tf.errors.OpError, ValueError) as exc:
            try:
                with open(path, "rb") as file:
                    kind = read_claim(file).kind
            except OSError as gone:
                return f"it cannot be opened any more: {gone.strerror or type(gone).__name__}"
            return why_not_decoded(exc, kind, os.fsdecode(os.path.join(os.path.dirname(path), b"")))
        return None

    def _decoded(
        self, files: tf.data.Dataset, read: Callable[..., Any], batch_size: int
    ) -> Iterator[SizedBatch]:
        """Decode several files at a time, in order; those that cannot be decoded are missing."""
        images = files.map(read, num_parallel_calls=os.cpu_count(), deterministic=True)
        batches = images.ignore_errors().batch(batch_size).prefetch(2)
        for batch_ids, pixels, sizes in batches.with_options(_without_autotune()):
            yield batch_ids.numpy(), pixels, sizes.numpy()

    def _path(self, image_id: int) -> bytes:
        """Return the file as bytes: the folder's name need not be UTF-8."""
        return os.fsencode(os.path.join(self._root, self._paths[image_id]))

    def _decodable(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the images whose files may be decoded; several headers are read at a time."""

        def keep(some: np.ndarray) -> list[bool]:
            return [why_not_decode(self._path(i), self._max_pixels) is None for i in some]

        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            kept = pool.map(keep, np.array_split(image_ids, _HEADERS_AT_ONCE))
            return image_ids[np.concatenate([np.array(block, bool) for block in kept])]

    def _read(self, image_id: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._decode(image_id, tf.io.read_file(path))

    def _decode(
        self, image_id: tf.Tensor, content: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode_image(content, self._channels, self._interpolation)
        resized = resize_image(image, self._size, self._channels, self._aspect, self._interpolation)
        height, width = tf.unstack(tf.shape(image)[:2])
        size = tf.cast(tf.stack([width, height, tf.strings.length(content)]), tf.int64)
        return image_id, resized, size


class DatasetSource:
    """Images of a batched `tf.data.Dataset` of `(image, label)`, numbered in its own order.

    A stage reads image ids in ascending order, so one pass over the dataset serves all its shards.
    """

    def __init__(self, dataset: tf.data.Dataset, class_names: Sequence[str] | None) -> None:
        y_true = _read_labels(dataset)
        self._images = dataset.map(lambda images, *rest: images).unbatch()
        own_names = getattr(dataset, "class_names", None)
        if class_names and own_names and list(class_names) != list(own_names):
            raise DatasetError(
                "The dataset brings class names of its own. Received: classes"
                f" [{', '.join(class_names)}]; the dataset's [{', '.join(own_names)}]. Its labels"
                " are numbered in its own order: leave `classes` out, or pass the names to the"
                " loader."
            )
        names = class_names or own_names
        if not names:
            names = [str(number) for number in range(max(int(y_true.max()) + 1, 2))]
        self.listing = _dataset_listing(dataset, y_true, tuple(names))
        self.pixel_range = _pixel_range(next(iter(self._images.batch(32))).numpy())
        self._position = 0
        self._iterator: Iterator[tf.Tensor] | None = None

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """(height, width, channels), as far as the dataset says them."""
        return tuple(self._images.element_spec.shape)

    def batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(image_ids), batch_size):
            ids = np.asarray(image_ids[start : start + batch_size], np.int64)
            yield ids, tf.stack([self._image(image_id) for image_id in ids])

    def sized_batches(self, image_ids: Sequence[int], batch_size: int) -> Iterator[SizedBatch]:
        for ids, pixels in self.batches(image_ids, batch_size):
            yield ids, pixels, np.full((len(ids), 3), -1)

    def why_unreadable(self, image_id: int) -> str | None:
        return None  # An error in a dataset stops the run: there is no file to name.

    def _image(self, image_id: int) -> tf.Tensor:
        if self._iterator is None or image_id < self._position:
            self._iterator, self._position = iter(self._images), 0
        while True:
            image = next(self._iterator)
            self._position += 1
            if self._position == image_id + 1:
                return tf.cast(image, tf.float32)


def _without_autotune() -> tf.data.Options:
    """Turn off the tuning thread: the end of every shard would wait for it, up to two seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def decode_image(content: tf.Tensor, channels: int, interpolation: str) -> tf.Tensor:
    """Decode a file's content to uint8 of shape (height, width, channels), the first frame only.

    With "nearest", JPEGs are decoded with the slow, accurate DCT, and colour becomes grey by the
    integer weights of Pillow's `convert("L")`, as `load_img` does.
    """
    if interpolation == "nearest" and channels == 1:
        colour = tf.cast(decode_image(content, 3, interpolation), tf.int32)
        weighted = tf.reduce_sum(colour * _GREY_WEIGHTS, axis=-1, keepdims=True)
        return tf.cast(tf.bitwise.right_shift(weighted + (1 << 15), 16), tf.uint8)

    def as_keras() -> tf.Tensor:
        return tf.io.decode_image(content, channels=channels, expand_animations=False)

    if interpolation != "nearest":
        return as_keras()
    return tf.cond(
        tf.io.is_jpeg(content),
        lambda: tf.io.decode_jpeg(content, channels=channels, dct_method="INTEGER_ACCURATE"),
        as_keras,
    )


def resize_image(
    image: tf.Tensor,
    size: tuple[int, int],
    channels: int,
    aspect: str,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Bring a decoded image to the model's size as Keras does, without antialias.

    Args:
        image: uint8 of shape (height, width, channels).
        size: (height, width) in pixels.
        aspect: "stretch", "crop" (the largest centred window of the right shape) or "pad" (black).
        interpolation: "bilinear" or "nearest".

    Returns:
        float32 of shape (*size, channels), 0 to 255, not rounded.

    Source: `keras.utils.image_dataset_from_directory`, and `keras.utils.load_img` for "nearest".
    """
    if aspect == "crop":
        image = keras.preprocessing.image.smart_resize(image, size, interpolation=interpolation)
    elif aspect == "pad":
        image = tf.image.resize_with_pad(image, *size, method=interpolation)
    elif interpolation == "nearest":
        image = _nearest_pixels(_nearest_pixels(image, size[0], axis=0), size[1], axis=1)
    else:
        image = tf.image.resize(image, size, method="bilinear")
    image = tf.cast(image, tf.float32)
    image.set_shape((*size, channels))
    return image


def _nearest_pixels(image: tf.Tensor, length: int, axis: int) -> tf.Tensor:
    """Take every k-th pixel as Pillow does: it adds up the step in float64, which decides ties."""
    n_pixels = tf.shape(image)[axis]
    step = tf.cast(n_pixels, tf.float64) / length
    steps = tf.concat([[step / 2], tf.repeat(step, length - 1)], axis=0)
    positions = tf.cast(tf.floor(tf.cumsum(steps)), tf.int32)
    return tf.gather(image, tf.minimum(positions, n_pixels - 1), axis=axis)


def _read_labels(dataset: tf.data.Dataset) -> np.ndarray:
    """Return int32 of shape (n_images,) in one pass over the dataset."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise DatasetError(
            "The dataset has no labels. Received: elements that are not (image, label). Give a"
            " batched `tf.data.Dataset` of images and labels."
        )
    if not isinstance(spec[0], tf.TensorSpec):
        raise DatasetError(
            f"The dataset's elements do not hold one image. Received: {spec[0]!r}. Give a batched"
            " `tf.data.Dataset` of (image, label), both tensors."
        )
    if spec[0].shape.rank != 4:
        raise DatasetError(
            f"The dataset is not batched. Received: images of shape {spec[0].shape}. Call"
            " `.batch(32)` on it."
        )
    batches = []
    for element in dataset:
        labels = element[1].numpy()
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        batches.append(labels.reshape(-1).astype(np.int32))
    if not batches:
        raise DatasetError("The dataset is empty. Received: 0 batches. Give one with images.")
    return np.concatenate(batches)


def _pixel_range(pixels: np.ndarray) -> tuple[float, float]:
    """Guess from a first batch which values stand for black and white."""
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0:
        return (0.0, 1.0) if high <= 1 else (0.0, 255.0)
    return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)


def _dataset_listing(
    dataset: tf.data.Dataset, y_true: np.ndarray, class_names: tuple[str, ...]
) -> Listing:
    if int(y_true.min()) < 0 or int(y_true.max()) >= len(class_names):
        raise DatasetError(
            "The labels of the dataset do not match the classes. Received: labels from"
            f" {y_true.min()} to {y_true.max()}; classes [{', '.join(class_names)}]. Name all"
            " classes with `classes=`."
        )
    # Numbered names keep the dataset's own order; file paths are known for Keras's loader only.
    paths = [f"image-{number:08d}" for number in range(len(y_true))]
    labelled = pd.DataFrame({"path": paths, "label": [class_names[label] for label in y_true]})
    files = getattr(dataset, "file_paths", None)
    if files is not None and len(files) == len(y_true):
        labelled["file"] = [Path(file).name for file in files]
    return make_listing("dataset", None, labelled, class_names)


def why_not_decoded(exc: Exception, kind: str, folder: str = "") -> str:
    """Return what cannot be decoded, and the first line of TensorFlow's message without places.

    Args:
        exc: what TensorFlow raised.
        kind: of the picture, as its header says, or "".
        folder: what the message may name.
    """
    if not kind:
        return f"its content is no picture of a known kind ({', '.join(KINDS)})"
    message = getattr(exc, "message", None) or str(exc)
    text = re.sub(r"{{.*?}}", "", message).strip().splitlines()[0].split(" [Op:")[0]
    text = text.replace(folder, "").strip(" .")[:300]
    return f"its content is {kind}, but cannot be decoded: {text or type(exc).__name__}"
