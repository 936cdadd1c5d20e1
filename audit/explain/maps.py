"""All-layer maps of a batch in one forward and one backward pass.

In: pixels and the classes to explain. Out: for every layer and class one small uint8 map with its
peak, and one fused map over all layers. Maps leave the device reduced: no activation is copied.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from audit.config import Fusion, KeepMaps, Method, Scaling
from audit.explain.capture import Layer
from audit.explain.consensus import (
    Consensus,
    consensus_weights,
    fuse_by_consensus,
    measure_from_mean,
)
from audit.explain.differentiate import Differentiated, differentiate
from audit.explain.fusion import FUSIONS, MapStack, default_fusion, stack_maps
from audit.explain.gradcam import (
    CHANNEL_WEIGHTS,
    PIXEL_WEIGHTS,
    divide_by_peak,
    resize_maps,
)
from audit.explain.linear import ChannelSums, MeanGradients, WeightProducts
from audit.explain.pooling import (
    FocusFeatures,
    agreement_of_layers,
    pool_under,
    pooled_positions,
)
from audit.predict.model import AuditedModel
from audit.predict.scaling import pixel_scaling
from audit.predict.side_by_side import arrays_in_halves, runs_python
from audit.run_folder import FUSED_LAYER

STORED_SIDE = 28
"""Longest side of a stored map, or less where there are many; see `choose_stored_side`."""
STORED_BYTES = 60_000
"""What the maps of all layers may take for one image and class, a byte per pixel."""
_LEAST_STORED_SIDE = 4
_BYTES_OF_OTHER_METHODS = 2
"""They keep products of whole activations and gradients: with VGG16, measured, `article` takes 1.8
times what `gradcam` does with a consensus, `gradcam++` 1.4 times, the others 1.1 times."""
FUSED_SIDE = 56
"""Longest side of a stored fused map; smaller for images that are smaller."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps of all layers of one size, for a batch.

    Attributes:
        layers: keys, in the model's order.
        cams: uint8 of shape (n, height, width, layers, k); 255 is the map's own peak.
        peaks: float32 of shape (n, layers, k); 0 where nothing speaks for the class; below 0 where
            the map is the same everywhere, its value negated; NaN where it is not finite. Only a
            map with a peak above 0 says where the model looks; the others are stored as zeros.
    """

    layers: tuple[str, ...]
    cams: np.ndarray
    peaks: np.ndarray


@dataclass(frozen=True)
class BatchMaps:
    """The maps of a batch of n images for k explained classes each.

    Attributes:
        scores: float32 of shape (n, n_classes), from the same forward pass.
        groups: one entry per size of maps; the last one is the fused map.
        focus: what is under the fused map; `None` where nothing is known of the model's layers.
    """

    scores: np.ndarray
    groups: tuple[LayerMaps, ...]
    focus: FocusFeatures | None = None

    def of_image(self, index: int, column: int) -> Iterator[tuple[str, float, np.ndarray]]:
        """Yield (layer, peak, uint8 map of shape (height, width)) of one image and class."""
        for group in self.groups:
            for position, layer in enumerate(group.layers):
                peak = float(group.peaks[index, position, column])
                yield layer, peak, group.cams[index, :, :, position, column]


ClassMaps = list[list[Any]]
"""For each explained class and layer a map of shape (n, height, width), or `None`."""


class Explainer:
    """A model traced once so that a call gives the maps of all its spatial layers.

    Attributes:
        layers: every spatial output of the model, kept or not.
        fusion: how layers are joined.
        stored_side: longest side of a stored map; 0 where only the fused map is.
        image_bytes: memory that explaining one more image at a time takes, about.
    """

    def __init__(
        self,
        model: AuditedModel,
        *,
        scaling: Scaling = "none",
        method: Method = "gradcam",
        layers: str = "all",
        fusion: Fusion | None = None,
        consensus: Consensus | None = None,
        keep_maps: KeepMaps = "compact",
    ) -> None:
        """Trace the model.

        Args:
            layers: "all", "conv", "stages" or a regular expression, as `ActivationRecorder.choose`.
            fusion: how layers are joined; by default by consensus if there is one, or else as it
                belongs to the method.
            consensus: what a sample agrees on, learnt with the same `scaling` and `layers`.
            keep_maps: which maps leave the device, as `choose_stored_side`.

        Raises:
            ModelError: if it has no spatial layer, or `layers` leaves none.
        """
        self.model = model
        self.method = method
        self._choice = layers
        self.consensus = consensus
        self.fusion = fusion or ("consensus" if consensus else default_fusion(method))
        self._keep_maps = keep_maps
        self.stored_side = 0
        self.image_bytes = 0
        self._scaling = pixel_scaling(scaling, model.channels)
        self.layers: tuple[Layer, ...] = ()
        self._groups: list[tuple[str, ...]] = []
        self._functions: dict[int, Any] = {}
        self._calls_python = runs_python(self._function(2))

    @property
    def fused_size(self) -> tuple[int, int]:
        """(height, width) of the fused map."""
        return fit_into(self.model.input_size, FUSED_SIDE)

    def explain(self, pixels: tf.Tensor, classes: np.ndarray) -> BatchMaps:
        """Explain two classes of each image on one scale.

        Args:
            pixels: float32 of shape (n, height, width, channels), not scaled.
            classes: int of shape (n, 2); both may be the same.
        """
        if not self.model.has_one_output and (classes[:, :1] == classes).all():
            classes = classes[:, :1]  # One backward pass is enough.
        pixels = tf.convert_to_tensor(pixels, tf.float32)
        scores, *pairs, embeddings, elsewhere, agreement = arrays_in_halves(
            self._function(classes.shape[1]),
            pixels,
            tf.constant(classes, tf.int32),
            calls_python=self._calls_python,
        )
        maps = tuple(
            LayerMaps(layers, np.transpose(cams, (0, 3, 4, 2, 1)), np.transpose(peaks, (0, 2, 1)))
            for layers, cams, peaks in zip(self._groups, pairs[::2], pairs[1::2], strict=True)
        )
        return BatchMaps(scores, maps, FocusFeatures(embeddings, elsewhere, agreement))

    def _function(self, n_classes: int) -> Any:
        """Return the model traced for so many explained classes, and any number of images."""
        if n_classes not in self._functions:
            explain = tf.function(self._trace, jit_compile=False, autograph=False)
            self._functions[n_classes] = explain.get_concrete_function(
                tf.TensorSpec((None, *self.model.input_size, self.model.channels), tf.float32),
                tf.TensorSpec((None, n_classes), tf.int32),
            )
        return self._functions[n_classes]

    def signed_maps(
        self, pixels: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tf.Tensor, list[Layer], list[tf.Tensor]]:
        """Run the model forward and backward once and weigh the channels of every layer.

        Args:
            pixels: shape (n, height, width, channels), not scaled.
            classes: int32 of shape (n, k).

        Returns:
            Scores of shape (n, n_classes); the kept layers; for each of them the signed maps of
            shape (n, height, width, k), at the layer's own size.
        """
        found = self._differentiate(pixels, classes)
        maps, _, signs = self._weigh(found, classes)
        columns = [tf.stack(of_layer, axis=-1) for of_layer in zip(*maps, strict=True)]
        if signs is not None:
            columns = [maps * tf.cast(signs, maps.dtype)[:, None, None] for maps in columns]
        return found.scores, found.kept, columns

    def _differentiate(self, pixels: tf.Tensor, classes: tf.Tensor) -> Differentiated:
        return differentiate(self.model, self._scaling, self._choice, pixels, classes)

    def _weigh(
        self, found: Differentiated, classes: tf.Tensor
    ) -> tuple[ClassMaps, ClassMaps, tf.Tensor | None]:
        """Return signed maps by class and layer: the method's, and those that are fused.

        The latter are the same, or, with a consensus, `None` for layers that have no say. Last come
        signs, float32 of shape (n, k), where a single output gives one column of maps: a map is
        linear in the gradient, so that those of each class are these times its sign.
        """
        activations, signs = found.activations, found.signs
        if self.method in PIXEL_WEIGHTS:
            rule = PIXEL_WEIGHTS[self.method]
            maps = [
                [rule(a, g, tf.cast(sign, a.dtype)) for a, g in zip(activations, one, strict=True)]
                for one, sign in zip(found.gradients, signs, strict=True)
            ]
            return maps, maps, None
        products = WeightProducts()
        sums = ChannelSums(activations, products)
        if self.method != "gradcam":
            rule = CHANNEL_WEIGHTS[self.method]
            maps = sums.maps(
                [
                    [
                        rule(a, g, tf.cast(sign, a.dtype))
                        for a, g in zip(activations, one, strict=True)
                    ]
                    for one, sign in zip(found.gradients, signs, strict=True)
                ]
            )
            return maps, maps, None
        single = self.model.has_one_output
        distinct = found.gradients[:1] if single else found.gradients
        by_column = tf.stack(signs, axis=1) if single else None
        own = [MeanGradients(one, products).means() for one in distinct]
        if self.consensus is None:
            maps = sums.maps(own)
            return maps, maps, by_column
        explained = tf.ones_like(classes[:, :1]) if single else classes
        shared = consensus_weights(self.consensus, explained, own)
        both = sums.maps([*own, *shared])
        from_mean = [
            measure_from_mean(self.consensus, of_class, weights)
            for of_class, weights in zip(both[len(own) :], shared, strict=True)
        ]
        return both[: len(own)], from_mean, by_column

    def _trace(
        self, pixels: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Tensor]], tuple[tf.Tensor, ...]]:
        found = self._differentiate(pixels, classes)
        self.layers, kept = found.layers, found.kept
        signed, fusible, signs = self._weigh(found, classes)
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, layer in enumerate(kept):
            by_size.setdefault((layer.height, layer.width), []).append(position)
        self.stored_side = choose_stored_side(self.layers, self._keep_maps)
        of_method = 1 if self.method == "gradcam" else _BYTES_OF_OTHER_METHODS
        self.image_bytes = max(self.image_bytes, of_method * found.image_bytes)
        stacks = [
            stack_maps(
                [kept[i] for i in positions],
                [[tf.cast(one[i], tf.float32) for i in positions] for one in signed],
                self.method,
                signs,
            )
            for positions in by_size.values()
        ]
        if self.consensus is None:
            fused = FUSIONS[self.fusion](stacks, self.model.input_size, self.fused_size)
        else:
            fused = fuse_by_consensus(
                self.consensus, kept, fusible, classes, pixels, self.fused_size, signs
            )
        is_even = tf.reduce_max(fused, axis=(2, 3)) == tf.reduce_min(fused, axis=(2, 3))
        strength = _strength(stacks)
        strength = tf.where(is_even, 0 - strength, strength)
        kept_stacks = stacks if self.stored_side else []
        self._groups = [tuple(x.layer for x in stack.layers) for stack in kept_stacks]
        self._groups.append((FUSED_LAYER,))
        groups = [
            _quantise(
                resize_maps(stack.positive, fit_into(stack.size, self.stored_side)), stack.peaks
            )
            for stack in kept_stacks
        ]
        fused_cams, _ = _quantise(fused[:, :, None], strength[..., None])
        pooled = [found.activations[position] for position in pooled_positions(kept)]
        focus = (*pool_under(pooled, fused), agreement_of_layers(stacks, fused))
        return found.scores, [*groups, (fused_cams, strength[..., None])], focus


def fit_into(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Shrink (height, width) in proportion so that neither side is longer than `longest`."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def choose_stored_side(layers: Sequence[Layer], keep_maps: KeepMaps) -> int:
    """Return the longest side that a stored map may have.

    Args:
        keep_maps: "full" keeps the layers' own sizes; "compact" caps them at 28 pixels, or at what
            keeps all maps of one image and class within `STORED_BYTES`, but not below 4; "fused"
            keeps only the fused map, and the side is 0.
    """
    sizes = [(layer.height, layer.width) for layer in layers if layer.kept]
    if keep_maps == "fused" or not sizes:
        return 0
    if keep_maps == "full":
        return max(max(size) for size in sizes)

    def n_bytes(side: int) -> int:
        return FUSED_SIDE**2 + sum(math.prod(fit_into(size, side)) for size in sizes)

    fitting = (side for side in range(STORED_SIDE, 0, -1) if n_bytes(side) <= STORED_BYTES)
    return max(next(fitting, 0), _LEAST_STORED_SIDE)


def _quantise(maps: tf.Tensor, peaks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale maps >= 0 of shape (n, k, layers, height, width) so that 255 is the peak.

    Returns:
        uint8 of the same shape, zeros where `peaks` is not above 0, and the peaks of the maps as
        they are here; those that are not above 0 as they were.
    """
    says_where = peaks > 0
    scaled, own_peaks = divide_by_peak(maps)
    levels = tf.round(scaled * 255) * tf.cast(says_where, tf.float32)[..., None, None]
    return tf.cast(levels, tf.uint8), tf.where(says_where, own_peaks, peaks)


def _strength(stacks: Sequence[MapStack]) -> tf.Tensor:
    """Say how strongly each class is spoken for, against the strongest of the explained classes.

    Returns:
        float32 of shape (n, k) in [0, 1]: mean over layers of peak ÷ largest peak of the k classes;
        NaN where no layer's map is finite.
    """
    peaks = tf.concat([stack.peaks for stack in stacks], axis=2)
    is_finite = tf.math.is_finite(peaks)
    speaking = tf.where(is_finite, tf.nn.relu(peaks), tf.zeros_like(peaks))
    share = tf.math.divide_no_nan(speaking, tf.reduce_max(speaking, axis=1, keepdims=True))
    n_layers = tf.math.count_nonzero(is_finite, axis=2, dtype=tf.float32)
    return tf.reduce_sum(share, axis=2) / n_layers  # 0 ÷ 0 is NaN.
