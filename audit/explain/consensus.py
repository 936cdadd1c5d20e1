"""Learn from a sample which channels and which layers speak for a class, and join layers by it.

Grad-CAM's channel weights are gradients at one image, and one gradient is noisy: what the errors of
a class have in common stands out in the mean over many. And not every layer's map says something of
the decision. A layer is believed as far as the sum of its map, which to first order is the logit
it explains, follows the model's own logit from image to image. Neither needs to know
where the cause lies. Both choices were made by `benchmarks/localisation.py`.

In: for a sample of errors and correct images, logits, and the mean over all places of activations
and gradients. Out: a `Consensus`, and the fused maps that follow from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import tensorflow as tf

from audit.explain.capture import Layer
from audit.explain.gradcam import resize_maps
from audit.explain.guided_filter import follow_edges
from audit.schemas import SCHEMAS

SAMPLE_SIZE = 48
"""Errors that are learnt from, and as many correct images."""
_LEAST_ERRORS = 4
"""With fewer errors of a class, its correct images are averaged with them."""
OWN_WEIGHT = 4.0
"""An image's own gradient counts as much as that of so many sampled errors of its class."""
_LEAST_IMAGES = 8
_IGNORED, _BELIEVED = 0.15, 0.35
"""Reliabilities, relative to that of the best layer, up to which a layer has no say, and from which
it has its full say."""
_SAME = 1e-5
_MEAN_ACTIVATION = -1


@dataclass(frozen=True)
class SampleStatistics:
    """What a sample of n images shows of each layer, for k explained classes.

    Attributes:
        classes: int of shape (n, k).
        is_error: bool of shape (n,).
        logits: float32 of shape (n, n_classes).
        activations: for each layer, the mean over all places, float32 of shape (n, channels).
        gradients: for each layer, the mean over all places of the gradient of the logit of each
            explained class, float32 of shape (n, k, channels).
    """

    classes: np.ndarray
    is_error: np.ndarray
    logits: np.ndarray
    activations: tuple[np.ndarray, ...]
    gradients: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Consensus:
    """What the sample agrees on.

    Attributes:
        layers: keys of the layers, in the model's order.
        classes: class indices that some sampled image was taken for, or belongs to.
        n_images: how many images its mean gradient is taken over, int of shape (classes,).
        activations: for each layer, the mean activation, float32 of shape (channels,).
        gradients: for each layer, the mean gradient of the logit of each class over the errors that
            were taken for it or belong to it, float32 of shape (classes, channels). Where these are
            fewer than 4, its correct images count as well.
        reliability: in [-1, 1], float32 of shape (classes, layers): correlation over the sample of
            the logit with what follows from the layer's mean activation and mean gradient; 0 where
            one of them never changes; 1 where the sample is too small to tell.
        is_new: bool of shape (layers,): false where a layer's map is that of an earlier layer but
            for an offset, as after a batch normalisation.
    """

    layers: tuple[str, ...]
    classes: tuple[int, ...]
    n_images: np.ndarray
    activations: tuple[np.ndarray, ...]
    gradients: tuple[np.ndarray, ...]
    reliability: np.ndarray
    is_new: np.ndarray

    def shares(self) -> np.ndarray:
        """Return the say of each layer, in [0, 1], float32 of shape (classes + 1, layers).

        The last row is for classes that no sampled image has: the mean of the others.
        """
        best = self.reliability.max(axis=1, initial=0.0, keepdims=True)
        relative = np.divide(
            self.reliability, best, out=np.ones_like(self.reliability), where=best > 0
        )
        rows = np.clip((relative - _IGNORED) / (_BELIEVED - _IGNORED), 0, 1)
        if not len(rows):
            rows = np.ones((1, len(self.layers)))
        rows = np.concatenate([rows, rows.mean(axis=0, keepdims=True)])[-len(self.classes) - 1 :]
        return (rows * self.is_new).astype(np.float32)

    @property
    def speaking(self) -> list[int]:
        """Positions of the layers that have a say for some class."""
        return [int(i) for i in np.flatnonzero(self.shares().max(axis=0) > 0)]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer for its mean activation and one for each class."""
        rows = []
        for position, layer in enumerate(self.layers):
            mean, is_new = self.activations[position], bool(self.is_new[position])
            rows.append((layer, _MEAN_ACTIVATION, 0, 0.0, is_new, mean))
            for row, explained in enumerate(self.classes):
                reliability = float(self.reliability[row, position])
                gradient = self.gradients[position][row]
                n_images = int(self.n_images[row])
                rows.append((layer, explained, n_images, reliability, is_new, gradient))
        return pd.DataFrame(rows, columns=SCHEMAS["consensus"].names)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "Consensus":
        """Read what `to_frame` returned."""
        is_mean = (frame["explained_class"] == _MEAN_ACTIVATION).to_numpy()
        channels = [np.asarray(values, np.float32) for values in frame["channels"]]
        starts = np.flatnonzero(is_mean)
        classes = frame["explained_class"].to_numpy()[1 : starts[1] if len(starts) > 1 else None]
        blocks = [slice(start + 1, start + 1 + len(classes)) for start in starts]
        reliability = frame["reliability"].to_numpy(np.float32)
        return cls(
            layers=tuple(frame["layer"][is_mean]),
            classes=tuple(classes.tolist()),
            n_images=frame["n_images"].to_numpy(np.int64)[1 : 1 + len(classes)],
            activations=tuple(channels[start] for start in starts),
            gradients=tuple(
                np.array(channels[block]).reshape(len(classes), len(channels[start]))
                for start, block in zip(starts, blocks, strict=True)
            ),
            reliability=np.array([reliability[block] for block in blocks]).T,
            is_new=frame["is_new"].to_numpy(bool)[is_mean],
        )


def sample_for_consensus(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Choose the errors and the correct images that are learnt from.

    Args:
        predictions: columns image_id, y_true, y_pred.

    Returns:
        Columns image_id, y_true, y_pred, is_error, in the order of `predictions`.
    """
    generator = np.random.default_rng(seed)
    is_error = (predictions["y_true"] != predictions["y_pred"]).to_numpy()
    chosen = [
        generator.choice(rows, min(SAMPLE_SIZE, len(rows)), replace=False)
        for rows in (np.flatnonzero(is_error), np.flatnonzero(~is_error))
    ]
    sample = predictions.assign(is_error=is_error).iloc[np.sort(np.concatenate(chosen))]
    return sample[["image_id", "y_true", "y_pred", "is_error"]]


def learn_consensus(
    layers: Sequence[Layer], statistics: SampleStatistics, *, is_binary: bool
) -> Consensus:
    """Average the gradients of each class's errors; find out which layers follow the logit.

    Args:
        layers: the kept layers.
        is_binary: whether the model has one output, so that what speaks for one class speaks
            against the other.
    """
    usable = _usable(statistics)
    found = np.unique(statistics.classes[usable]).tolist()
    if is_binary and found:
        found = [0, 1]
    weights = [_weights_of_images(statistics, usable, c, is_binary) for c in found]
    gradients = tuple(
        np.array(
            [np.tensordot(w, g[usable], 2) / np.abs(w).sum() for w in weights], np.float32
        ).reshape(len(found), g.shape[2])
        for g in statistics.gradients
    )
    means = tuple(
        a[usable].mean(axis=0) if usable.any() else np.zeros(a.shape[1], np.float32)
        for a in statistics.activations
    )
    predicted = np.array(
        [
            a[usable].astype(np.float64) @ g.T
            for a, g in zip(statistics.activations, gradients, strict=True)
        ]
    )
    reliability = np.ones((len(found), len(layers)), np.float32)
    if usable.sum() >= _LEAST_IMAGES:
        for row, explained in enumerate(found):
            logit = statistics.logits[usable, explained].astype(np.float64)
            reliability[row] = [_correlation(values[:, row], logit) for values in predicted]
    return Consensus(
        layers=tuple(layer.layer for layer in layers),
        classes=tuple(found),
        n_images=np.array([int(np.abs(w).sum()) for w in weights], np.int64),
        activations=means,
        gradients=gradients,
        reliability=reliability,
        is_new=_new_layers(layers, predicted),
    )


def fuse_by_consensus(
    consensus: Consensus,
    layers: Sequence[Layer],
    maps: Sequence[Sequence[tf.Tensor | None]],
    classes: tf.Tensor,
    images: tf.Tensor,
    size: tuple[int, int],
    signs: tf.Tensor | None = None,
) -> tf.Tensor:
    """Join the maps of layers: by size, then over sizes, then along the edges of the image.

    Each map is divided by its largest absolute value. Layers of one stage are averaged by their
    share and cut at 0. Over stages it is the mean of square roots that counts, so that a place
    which only one of them points at weighs less than one which all do. At the end the map is
    squared: what is hot stands out, and the order of places stays.

    Args:
        layers: the kept layers.
        maps: for each of the k classes and each layer, float32 of shape (n, height, width), signed,
            0 at the mean activation; `None` for layers that have no say.
        classes: int of shape (n, k).
        images: float of shape (n, height, width, channels).
        size: (height, width) of the result.
        signs: float32 of shape (n, k), with maps of one class: for each of k classes they are these
            times its sign.

    Returns:
        float32 of shape (n, k, *size), >= 0.
    """
    shares = tf.gather(tf.constant(consensus.shares()), _rows_of(consensus, classes))
    signed_shares = shares if signs is None else shares * signs[..., None]
    stages: dict[int, dict[tuple[int, int], list[int]]] = {}
    for position, layer in enumerate(layers):
        if maps[0][position] is not None:
            by_size = stages.setdefault(layer.stage, {})
            by_size.setdefault((layer.height, layer.width), []).append(position)
    roots, n_stages = tf.zeros(()), tf.zeros(())
    for by_size in stages.values():
        stage_size = next(iter(by_size))
        total, weight = tf.zeros(()), tf.zeros(())
        for positions in by_size.values():
            of_classes = [tf.stack([one[i] for i in positions], axis=1) for one in maps]
            scaled, is_usable = _divide_by_extent(tf.stack(of_classes, axis=1))
            of_size = _weighted_sum(tf.gather(signed_shares, positions, axis=2), scaled)
            total = total + resize_maps(of_size, stage_size)
            shares_here = tf.gather(shares, positions, axis=2) * is_usable
            weight = weight + tf.reduce_sum(shares_here, axis=2)[..., None, None]
        of_stage, speaks = _divide_by_extent(tf.math.divide_no_nan(total, weight))
        roots = roots + tf.sqrt(resize_maps(tf.nn.relu(of_stage), size))
        n_stages = n_stages + speaks[..., None, None]
    fused = follow_edges(tf.math.divide_no_nan(roots, n_stages) ** 2, images)
    return tf.nn.relu(fused) ** 2


def consensus_weights(
    consensus: Consensus, classes: tf.Tensor, own: Sequence[Sequence[tf.Tensor]]
) -> list[list[tf.Tensor | None]]:
    """Return the channel weights: the mean over the class's errors, mixed with the image's own.

    Args:
        classes: int of shape (n, k).
        own: for each of the k classes and each layer, Grad-CAM's weights, shape (n, channels).

    Returns:
        The same, `None` for layers that have no say.
    """
    rows = _rows_of(consensus, classes)
    speaking = consensus.speaking
    counts = tf.constant([*consensus.n_images.tolist(), 0], tf.float32)
    table = np.concatenate([consensus.gradients[i] for i in speaking], axis=1)
    of_classes = tf.constant(np.pad(table, ((0, 1), (0, 0))))  # Unknown classes have no errors.
    mixed: list[list[tf.Tensor | None]] = []
    for column, one in enumerate(own):  # All layers at once: a few operations instead of hundreds.
        row = tf.gather(rows, column, axis=1)
        count = tf.gather(counts, row)[:, None]
        of_image = tf.concat([tf.cast(one[i], tf.float32) for i in speaking], axis=1)
        weights = count * tf.gather(of_classes, row) + OWN_WEIGHT * of_image
        parts = _by_layer(consensus, weights / (count + OWN_WEIGHT))
        mixed.append([parts.get(i) for i in range(len(consensus.layers))])
    return mixed


def measure_from_mean(
    consensus: Consensus,
    maps: Sequence[tf.Tensor | None],
    weights: Sequence[tf.Tensor | None],
) -> list[tf.Tensor | None]:
    """Shift the maps of layers so that 0 is what a layer's mean activation would give.

    Args:
        maps: of each layer, shape (n, height, width); `None` for layers that have no say.
        weights: the channel weights they were made with, shape (n, channels), as
            `consensus_weights` gives them.
    """
    speaking = consensus.speaking
    means = np.concatenate([consensus.activations[i] for i in speaking])
    products = tf.concat([weights[i] for i in speaking], axis=1) * tf.constant(means)
    shifted: list[tf.Tensor | None] = [None] * len(maps)
    for i, of_layer in _by_layer(consensus, products).items():
        at_mean = tf.reshape(tf.reduce_sum(of_layer, axis=1), (-1, 1, 1))
        shifted[i] = tf.cast(maps[i], tf.float32) - at_mean
    return shifted


def _by_layer(consensus: Consensus, values: tf.Tensor) -> dict[int, tf.Tensor]:
    """Cut (n, channels of all layers that have a say) into a tensor for each of them."""
    speaking = consensus.speaking
    widths = [len(consensus.activations[i]) for i in speaking]
    return dict(zip(speaking, tf.split(values, widths, axis=1), strict=True))


def _weighted_sum(factors: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """Sum maps of shape (n, k or 1, layers, height, width) by factors (n, k, layers)."""
    _, n_classes, n_layers, height, width = maps.shape
    flat = tf.reshape(maps, (-1, n_classes, n_layers, height * width))
    sums = tf.matmul(factors[:, :, None, :], flat)
    return tf.reshape(sums, (-1, factors.shape[1], height, width))


def _usable(statistics: SampleStatistics) -> np.ndarray:
    """Tell the images that have no value that is not finite."""
    values = (statistics.logits, *statistics.activations, *statistics.gradients)
    finite = [np.isfinite(v.reshape(len(v), -1)).all(axis=1) for v in values]
    return np.logical_and.reduce(finite)


def _weights_of_images(
    statistics: SampleStatistics, usable: np.ndarray, explained: int, is_binary: bool
) -> np.ndarray:
    """Return 1 where an image speaks for a class, -1 where against it, 0 where it does not count.

    Returns:
        Shape (usable images, k).
    """
    classes, is_error = statistics.classes[usable], statistics.is_error[usable]
    if is_binary:  # Both columns hold the same gradient, up to its sign.
        weights = np.zeros(classes.shape)
        weights[:, 0] = np.where(classes[:, 0] == explained, 1.0, -1.0)
    else:
        weights = (classes == explained) * 1.0
        weights[~is_error, 1:] = 0  # The second class of a correct image repeats the first.
    of_errors = weights * is_error[:, None]
    return of_errors if np.abs(of_errors).sum() >= _LEAST_ERRORS else weights


def _new_layers(layers: Sequence[Layer], predicted: np.ndarray) -> np.ndarray:
    """Tell the layers whose sums differ from those of all earlier layers of their size.

    Args:
        predicted: of shape (layers, n, classes).
    """
    is_new = np.ones(len(layers), bool)
    if not predicted.size:
        return is_new
    centred = predicted - predicted.mean(axis=1, keepdims=True)
    earlier: dict[tuple[int, int], list[np.ndarray]] = {}
    for position, layer in enumerate(layers):
        known = earlier.setdefault((layer.height, layer.width), [])
        extent = np.abs(centred[position]).max(initial=0.0)
        is_new[position] = extent == 0 or not any(
            np.abs(centred[position] - other).max() <= _SAME * extent for other in known
        )
        known.append(centred[position])
    return is_new


def _rows_of(consensus: Consensus, classes: tf.Tensor) -> tf.Tensor:
    """Return the row of each class in the tables of a consensus; the last for unknown classes."""
    rows = tf.fill(tf.shape(classes), len(consensus.classes))
    for row, explained in enumerate(consensus.classes):
        rows = tf.where(classes == explained, row, rows)
    return rows


def _divide_by_extent(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Divide maps of shape (…, height, width) by their largest absolute value.

    Returns:
        The maps, zeros where one is not finite; and, of shape (…), 1 where it is finite and not all
        0, else 0.
    """
    extent = tf.reduce_max(tf.abs(maps), axis=(-2, -1), keepdims=True)
    is_usable = tf.math.is_finite(extent) & (extent > 0)
    safe = tf.where(is_usable, extent, tf.ones_like(extent))
    scaled = tf.where(is_usable, maps / safe, tf.zeros_like(maps))
    return scaled, tf.cast(is_usable[..., 0, 0], tf.float32)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation, 0 where one of the two never changes."""
    first, second = (values - values.mean(dtype=np.float64) for values in (first, second))
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size > 0 else 0.0
