"""What the model sees where it looks: features of its layers, pooled under a fused map.

In: activations and fused maps, on the device. Out: for each image and class a vector of the focus
and one of all the rest; and, for a search, the same features place by place.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf

from audit.config import Scaling
from audit.explain.capture import Layer
from audit.explain.differentiate import differentiate
from audit.explain.fusion import MapStack, sum_of_layers
from audit.explain.gradcam import divide_by_peak, resize_maps
from audit.predict.inference import with_constant_weights
from audit.predict.model import AuditedModel
from audit.predict.scaling import pixel_scaling
from audit.predict.side_by_side import in_halves
from audit.run_folder import fixed_list

WIDTH = 512
"""A layer with more channels is projected to so many."""
_N_LAYERS = 2
_PADDING = "Padding"


@dataclass(frozen=True)
class FocusFeatures:
    """What is under the fused maps of a batch of n images for k explained classes.

    Attributes:
        embeddings: float32 of shape (n, k, width), of length 1: the features of each pooled layer,
            averaged with the map as weights and scaled to one length, side by side. Zeros where the
            map is empty or a feature is not finite.
        elsewhere: the same with 1 − map ÷ peak as weights: what the model sees where it does not
            look.
        layer_agreement: float32 of shape (n, k), -1 to 1: correlation of the fused map with the
            mean map of the layers of each size, averaged over the sizes; NaN where no layer has a
            map.
    """

    embeddings: np.ndarray
    elsewhere: np.ndarray
    layer_agreement: np.ndarray


def pooled_positions(layers: Sequence[Layer]) -> list[int]:
    """Choose the layers whose features are pooled: the last of each of the last two stages.

    With MobileNetV2 these are the 14 × 14 and the 7 × 7 features before the head. On photographs
    with a planted bar, sticker, frame, texture or object, 99 % of the eight nearest neighbours of
    an error show the same artefact, by either of the two; by their mean over the whole image it is
    87 % and 95 %. Both together found 29 of 32 planted artefacts and gave 27 of them a q-value
    below 0.05; the first alone, or with a third layer before it, found fewer. Layers that only pad
    are passed over.

    Args:
        layers: the kept layers, in the model's order.

    Returns:
        Positions in `layers`, the last layer's last; one where the model has one stage.
    """
    last_of_stage: dict[int, int] = {}
    for position, layer in enumerate(layers):
        if _PADDING not in layer.kind or layer.stage not in last_of_stage:
            last_of_stage[layer.stage] = position
    return sorted(last_of_stage.values())[-_N_LAYERS:]


def pool_under(activations: Sequence[tf.Tensor], fused: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Average features with a map as weights, and with what the map leaves.

    Args:
        activations: of each pooled layer, shape (n, height, width, channels).
        fused: float32 of shape (n, k, height, width), >= 0, at any size.

    Returns:
        `embeddings` and `elsewhere` of `FocusFeatures`.
    """
    pooled = []
    for values in activations:
        height, width, channels = values.shape[1:]
        scaled, _ = divide_by_peak(resize_maps(fused, (height, width)))
        weights = tf.concat([scaled, 1 - scaled], axis=1)
        weights = tf.reshape(weights, (-1, weights.shape[1], height * width))
        total = tf.reduce_sum(weights, axis=2, keepdims=True)
        places = tf.reshape(tf.cast(values, tf.float32), (-1, height * width, channels))
        means = tf.matmul(tf.math.divide_no_nan(weights, total), places)
        pooled.append(_to_length_one(means, len(activations)))
    k = fused.shape[1]
    both = tf.concat(pooled, axis=2)
    is_finite = tf.reduce_all(tf.math.is_finite(both), axis=2, keepdims=True)
    both = tf.where(is_finite, both, tf.zeros_like(both))
    is_empty = tf.reduce_max(fused, axis=(2, 3))[..., None] <= 0
    return tf.where(is_empty, tf.zeros_like(both[:, :k]), both[:, :k]), both[:, k:]


def agreement_of_layers(stacks: Sequence[MapStack], fused: tf.Tensor) -> tf.Tensor:
    """Say how far the layers point at the same place: `layer_agreement` of `FocusFeatures`.

    Layers that are finer than the fused map have no part in it, unless all are: it would take
    longer than all the rest of this module, and they hardly say anything of a place.
    """
    total, n_stages = tf.zeros(()), tf.zeros(())
    finest = math.prod(fused.shape[2:])
    for stack in [s for s in stacks if math.prod(s.size) <= finest] or stacks:
        of_stage = sum_of_layers(stack)
        correlation, is_defined = _correlation(of_stage, resize_maps(fused, stack.size))
        total = total + correlation
        n_stages = n_stages + is_defined
    return total / n_stages  # 0 ÷ 0 is NaN.


def make_local_features(
    model: AuditedModel, scaling: Scaling = "none", layers: str = "all"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that gives the features of every place, as they are pooled under a map.

    The function takes pixels, float32 of shape (n, height, width, channels), not scaled, and
    returns float32 of shape (n, h, w, c): the features of the pooled layers, each scaled to one
    length at every place, side by side; a coarser layer is enlarged to the grid of the finest one.
    A vector is of length 1, or less by the enlargement, and its channels are those of the
    `embedding` in `focus_embeddings/`, so that the cosine of the two says how alike a place is to
    what an error's focus shows. Nothing is differentiated when it is called.

    Args:
        model: the model that was audited.
        scaling: as in the audit.
        layers: as in the audit, "all", "conv", "stages" or a regular expression.

    Raises:
        ModelError: if the model has no spatial layer, or `layers` leaves none.
    """
    pixel_rule = pixel_scaling(scaling, model.channels)

    @tf.function(jit_compile=False, autograph=False)
    def local_features(pixels: tf.Tensor) -> tuple[tf.Tensor]:
        # Only where gradients exist is it known which layers reach the score. They are traced, but
        # as nothing asks for their values, never computed.
        classes = tf.zeros((tf.shape(pixels)[0], 1), tf.int32)
        found = differentiate(model, pixel_rule, layers, pixels, classes)
        chosen = [found.activations[i] for i in pooled_positions(found.kept)]
        size = max((a.shape[1:3] for a in chosen), key=lambda sides: sides[0] * sides[1])
        parts = [_to_length_one(tf.cast(a, tf.float32), len(chosen)) for a in chosen]
        large = [p if p.shape[1:3] == size else tf.image.resize(p, size) for p in parts]
        return (tf.concat(large, axis=3),)

    shape = (None, *model.input_size, model.channels)
    traced = local_features.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    compute = in_halves(with_constant_weights(traced), traced)
    return lambda pixels: compute(tf.convert_to_tensor(pixels, tf.float32))[0]


Row = tuple[int, int, float, np.ndarray, np.ndarray]
"""`image_id`, `explained_class`, `layer_agreement`, `embedding`, `elsewhere`."""


def focus_rows(
    image_id: int, classes: Sequence[int], features: FocusFeatures, index: int
) -> list[Row]:
    """Return what is stored of one image of a batch, a row for each explained class."""
    return [
        (
            image_id,
            int(explained),
            float(features.layer_agreement[index, column]),
            features.embeddings[index, column],
            features.elsewhere[index, column],
        )
        for column, explained in enumerate(classes)
    ]


def focus_shard(rows: Iterable[Row], width: int) -> pa.Table:
    """Return a shard of `focus_embeddings/`: the columns of `Row`, vectors as fixed-size lists."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    vectors = [np.array(column, np.float32).reshape(-1, width) for column in columns[3:]]
    return pa.table(
        {
            "image_id": pa.array(columns[0], pa.int64()),
            "explained_class": pa.array(columns[1], pa.int32()),
            "layer_agreement": pa.array(columns[2], pa.float32()),
            "embedding": fixed_list(vectors[0]),
            "elsewhere": fixed_list(vectors[1]),
        }
    )


def _to_length_one(values: tf.Tensor, n_layers: int) -> tf.Tensor:
    """Project channels to `WIDTH` if there are more; scale so that n layers are of length 1."""
    channels = values.shape[-1]
    if channels > WIDTH:
        values = tf.tensordot(values, tf.constant(_projection(channels)), 1)
    return tf.math.l2_normalize(values, axis=-1, epsilon=1e-24) / np.float32(n_layers**0.5)


def _projection(channels: int) -> np.ndarray:
    """Return a fixed random matrix that about keeps angles.

    Source: Johnson and Lindenstrauss 1984; Dasgupta and Gupta 2003, doi:10.1002/rsa.10073.
    """
    generator = np.random.default_rng(channels)
    return generator.normal(0, WIDTH**-0.5, (channels, WIDTH)).astype(np.float32)


def _correlation(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Correlate maps of shape (n, k, height, width) over their places.

    Returns:
        The correlation, 0 where a map is the same everywhere, and 0 there, else 1; shape (n, k).
    """
    first = first - tf.reduce_mean(first, axis=(2, 3), keepdims=True)
    second = second - tf.reduce_mean(second, axis=(2, 3), keepdims=True)
    sizes = tf.reduce_sum(first**2, axis=(2, 3)) * tf.reduce_sum(second**2, axis=(2, 3))
    is_defined = tf.cast(tf.math.is_finite(sizes) & (sizes > 0), tf.float32)
    value = tf.math.divide_no_nan(tf.reduce_sum(first * second, axis=(2, 3)), tf.sqrt(sizes))
    return tf.where(is_defined > 0, value, tf.zeros_like(value)), is_defined
