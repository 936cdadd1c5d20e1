"""All-layer maps of a batch in one forward and one backward pass.

In: pixels and the classes to explain. Out: for every layer and class one small uint8 map with its
peak, and one fused map over all layers. Maps leave the device reduced: no activation is copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from audit.config import Method, Scaling
from audit.errors import ModelError
from audit.explain.capture import ActivationRecorder, Layer
from audit.explain.gradcam import (
    CHANNEL_WEIGHTS,
    PIXEL_WEIGHTS,
    article_mean_over_layers,
    divide_by_peak,
    mean_over_layers,
    positive_part,
    resize_maps,
    weigh_channels,
)
from audit.predict.inference import apply_scaling
from audit.predict.model import AuditedModel
from audit.predict.scaling import pixel_scaling
from audit.predict.tracing import observe_operations
from audit.run_folder import FUSED_LAYER

STORED_SIDE = 28
"""Longest side of a stored map; larger layers are reduced by area means."""
FUSED_SIDE = 56
"""Longest side of a stored fused map; smaller for images that are smaller."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps of all layers of one size, for a batch.

    Attributes:
        layers: keys, in the model's order.
        cams: uint8 of shape (n, height, width, layers, k); 255 is the map's own peak.
        peaks: float32 of shape (n, layers, k); 0 where nothing speaks for the class.
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
    """

    scores: np.ndarray
    groups: tuple[LayerMaps, ...]

    def of_image(self, index: int, column: int) -> Iterator[tuple[str, float, np.ndarray]]:
        """Yield (layer, peak, uint8 map of shape (height, width)) of one image and class."""
        for group in self.groups:
            for position, layer in enumerate(group.layers):
                peak = float(group.peaks[index, position, column])
                yield layer, peak, group.cams[index, :, :, position, column]


class Explainer:
    """A model traced once so that a call gives the maps of all its spatial layers.

    Attributes:
        layers: every spatial output of the model, kept or not.
    """

    def __init__(
        self,
        model: AuditedModel,
        *,
        scaling: Scaling = "none",
        method: Method = "gradcam",
        layers: str = "all",
    ) -> None:
        """Trace the model.

        Args:
            layers: "all", "conv", "stages" or a regular expression, as `ActivationRecorder.choose`.

        Raises:
            ModelError: if it has no spatial layer, or `layers` leaves none.
        """
        self.model = model
        self.method = method
        self._choice = layers
        self._scaling = pixel_scaling(scaling, model.channels)
        self.layers: tuple[Layer, ...] = ()
        self._groups: list[tuple[str, ...]] = []
        self._signature = (
            tf.TensorSpec((None, *model.input_size, model.channels), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        )
        explain = tf.function(self._trace, jit_compile=False, autograph=False)
        self._explain = explain.get_concrete_function(*self._signature)

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
        scores, groups = self._explain(pixels, tf.constant(classes, tf.int32))
        maps = tuple(
            LayerMaps(layers, cams.numpy(), peaks.numpy())
            for layers, (cams, peaks) in zip(self._groups, groups, strict=True)
        )
        return BatchMaps(scores.numpy(), maps)

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
        scores, recorder, gradients = self._differentiate(pixels, classes)
        kept = [layer for layer in recorder.layers if layer.kept]
        by_channel = self.method in CHANNEL_WEIGHTS
        rule = CHANNEL_WEIGHTS[self.method] if by_channel else PIXEL_WEIGHTS[self.method]
        maps = []
        for position, activations in enumerate(recorder.activations):
            columns = [
                rule(activations, per_layer[position], tf.cast(sign, activations.dtype))
                for per_layer, sign in gradients
            ]
            joined = tf.stack(columns, axis=-1)
            maps.append(weigh_channels(activations, joined) if by_channel else joined)
        return scores, kept, maps

    def _trace(
        self, pixels: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Tensor]]]:
        scores, kept, signed = self.signed_maps(pixels, classes)
        maps = [tf.cast(values, tf.float32) for values in signed]  # Layers may differ in precision.
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, layer in enumerate(kept):
            by_size.setdefault((layer.height, layer.width), []).append(position)
        groups, scaled, native_peaks = [], [], []
        for size, positions in by_size.items():
            stacked = positive_part(tf.concat([maps[i] for i in positions], -1), self.method)
            in_unit, peaks = divide_by_peak(stacked)
            scaled.append(_unstack(in_unit, len(positions)))
            native_peaks.append(_unstack(peaks, len(positions)))
            small = resize_maps(stacked, fit_into(size, STORED_SIDE))
            groups.append(_quantise(small, len(positions)))
        if self.method == "article":
            fused = article_mean_over_layers(maps, self.model.input_size)
            fused = resize_maps(fused, self.fused_size)
        else:
            fused = mean_over_layers(scaled, self.fused_size)
        cams, _ = _quantise(fused, 1)
        groups.append((cams, _shared_scale(native_peaks)[:, None, :]))
        self._groups = [tuple(kept[i].layer for i in p) for p in by_size.values()] + [
            (FUSED_LAYER,)
        ]
        return scores, groups

    def _differentiate(
        self, pixels: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tf.Tensor, ActivationRecorder, list[tuple[list[tf.Tensor], tf.Tensor]]]:
        """Return scores, activations, and for each explained class (gradients per layer, sign)."""
        single = self.model.head.kind in ("sigmoid", "logit")
        with tf.GradientTape(persistent=not single, watch_accessed_variables=False) as tape:
            recorder = ActivationRecorder(tape.watch)
            scaled = apply_scaling(pixels, self._scaling)
            with observe_operations(recorder):
                raw = self.model.model(scaled, training=False)
            outputs = self.model.interpret(raw, tf.zeros((0, 0)))
            if single:
                targets = [tf.reduce_sum(outputs.logits[:, 1])]
                signs = [
                    tf.cast(2 * classes[:, j] - 1, tf.float32) for j in range(classes.shape[1])
                ]
            else:
                chosen = tf.gather(outputs.logits, classes, axis=1, batch_dims=1)
                targets = [tf.reduce_sum(chosen[:, j]) for j in range(classes.shape[1])]
                signs = [tf.ones_like(classes[:, 0], tf.float32)] * classes.shape[1]
        n_spatial = len(recorder.activations)
        recorder.choose(self._choice)
        if n_spatial and not recorder.activations:
            raise ModelError(
                f"`--layers {self._choice}` leaves no layer of `{self.model.name}`. Received:"
                f" {n_spatial} spatial layers, none of which matches. `gradcam-audit inspect` lists"
                " their paths."
            )
        sources = recorder.activations
        per_class = [tape.gradient(target, sources) for target in targets] if sources else []
        gradients = recorder.drop_unreached(per_class)
        if not recorder.activations:
            raise ModelError(no_spatial_layer(self.model.name))
        self.layers = tuple(recorder.layers)
        columns = gradients * len(signs) if single else gradients
        return outputs.scores, recorder, list(zip(columns, signs, strict=True))


def no_spatial_layer(name: str) -> str:
    """Return why a model without any spatial layer is refused."""
    return (
        f"`{name}` has no spatial layer that could be shown as a heat-map. Received: a model whose"
        " inner outputs have no height and width. Give a convolutional classifier of images."
    )


def fit_into(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Shrink (height, width) in proportion so that neither side is longer than `longest`."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _unstack(values: tf.Tensor, n_layers: int) -> tf.Tensor:
    """Turn a last axis of layers · k into two axes (layers, k)."""
    return tf.reshape(values, (-1, *values.shape[1:-1], n_layers, values.shape[-1] // n_layers))


def _quantise(maps: tf.Tensor, n_layers: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return uint8 (n, height, width, layers, k), 255 at the peak, and peaks (n, layers, k)."""
    scaled, peaks = divide_by_peak(maps)
    cams = tf.cast(tf.round(scaled * 255), tf.uint8)
    return _unstack(cams, n_layers), _unstack(tf.cast(peaks, tf.float32), n_layers)


def _shared_scale(peaks_by_size: list[tf.Tensor]) -> tf.Tensor:
    """Say how strongly each class is spoken for, against the strongest of the explained classes.

    Args:
        peaks_by_size: for each size of maps, shape (n, layers, k).

    Returns:
        float32 of shape (n, k) in [0, 1]: mean over layers of peak ÷ largest peak of the k classes.
    """
    peaks = tf.concat([tf.cast(peaks, tf.float32) for peaks in peaks_by_size], axis=1)
    share = tf.math.divide_no_nan(peaks, tf.reduce_max(peaks, axis=2, keepdims=True))
    return tf.reduce_mean(share, axis=1)
