"""One forward and one backward pass of a model: activations and gradients of all its layers.

In: pixels and the classes to explain, inside a `tf.function` that is being traced. Out: scores,
logits, and for each spatial layer its activations and its gradients.
"""

import math
from dataclasses import dataclass

import tensorflow as tf

from audit.errors import ModelError, NoSpatialLayerError
from audit.explain.capture import ActivationRecorder, Layer, unfit_layers
from audit.predict.inference import apply_scaling
from audit.predict.model import AuditedModel
from audit.predict.scaling import PixelScaling
from audit.predict.tracing import in_float32, observe_operations

BYTES_PER_BYTE = 2.0
"""Memory that a batch takes over the bytes of all explained activations.

By how much memory grew at most, as `benchmarks/explain.py` measures it for two classes, was between
0.44 (ResNet50) and 1.84 (VGG16, batch of 16) of them: the latter, rounded up. For `gradcam`; other
methods take more, see `Explainer`.
"""


@dataclass(frozen=True)
class Differentiated:
    """A batch of n images run forward and backward for k explained classes.

    Attributes:
        scores, logits: float32 of shape (n, n_classes).
        layers: every spatial output of the model, kept or not.
        activations: of each kept layer, shape (n, height, width, channels).
        gradients: for each of the k classes, the gradients of the kept layers. A model with one
            output gives the same list for all of them: that of its second class.
        signs: for each of the k classes, shape (n,): 1 where the gradients are those of the class,
            -1 where they are those of its opposite.
    """

    scores: tf.Tensor
    logits: tf.Tensor
    layers: tuple[Layer, ...]
    activations: list[tf.Tensor]
    gradients: list[list[tf.Tensor]]
    signs: list[tf.Tensor]

    @property
    def image_bytes(self) -> int:
        """Memory that one more image at a time takes, about."""
        n_bytes = sum(math.prod(a.shape[1:]) * a.dtype.size for a in self.activations)
        return int(n_bytes * BYTES_PER_BYTE)

    @property
    def kept(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.kept]


def differentiate(
    model: AuditedModel, scaling: PixelScaling, choice: str, pixels: tf.Tensor, classes: tf.Tensor
) -> Differentiated:
    """Run a model forward, and backward from the logit of each explained class.

    Args:
        choice: which layers are kept, as `ActivationRecorder.choose`.
        pixels: shape (n, height, width, channels), not scaled.
        classes: int32 of shape (n, k).

    Raises:
        NoSpatialLayerError: if the model has no spatial layer.
        ModelError: if `choice` leaves none.
    """
    single = model.has_one_output
    with tf.GradientTape(persistent=not single, watch_accessed_variables=False) as tape:
        recorder = ActivationRecorder(tape.watch)
        scaled = apply_scaling(pixels, scaling)
        with in_float32(model.model), observe_operations(recorder):
            raw = model.forward(scaled)
        outputs = model.interpret(raw, tf.zeros((0, 0)))
        if single:
            targets = [tf.reduce_sum(outputs.logits[:, 1])]
            signs = [tf.cast(2 * classes[:, j] - 1, tf.float32) for j in range(classes.shape[1])]
        else:
            chosen = tf.gather(outputs.logits, classes, axis=1, batch_dims=1)
            targets = [tf.reduce_sum(chosen[:, j]) for j in range(classes.shape[1])]
            signs = [tf.ones_like(classes[:, 0], tf.float32)] * classes.shape[1]
    recorder.finish()
    if recorder.has_tokens:
        recorder.skip(unfit_layers(model))
    n_spatial = len(recorder.sources)
    recorder.choose(choice)
    if n_spatial and not recorder.sources:
        raise ModelError(
            f"`--layers {choice}` leaves no layer of `{model.name}`. Received: {n_spatial} spatial"
            " layers, none of which matches. `gradcam-audit inspect` lists their paths."
        )
    sources = recorder.sources
    per_class = [tape.gradient(target, sources) for target in targets] if sources else []
    gradients = recorder.drop_unreached(per_class)
    if not recorder.activations:
        raise NoSpatialLayerError(
            f"`{model.name}` has no spatial layer that could be shown as a heat-map. Received: a"
            " model whose inner outputs have no height and width. Give a convolutional classifier,"
            " or use `--method occlusion`."
        )
    for one in gradients:
        for activations, gradient in zip(recorder.activations, one, strict=True):
            gradient.set_shape(activations.shape)  # Some operations leave it open.
    return Differentiated(
        scores=outputs.scores,
        logits=outputs.logits,
        layers=tuple(recorder.layers),
        activations=recorder.activations,
        gradients=gradients * len(signs) if single else gradients,
        signs=signs,
    )
