"""Run a sample of images forward and backward, and keep of each layer what a consensus is made of.

In: pixels and classes of the sample, batch by batch. Out: `SampleStatistics`.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from audit.config import Scaling
from audit.explain.capture import Layer
from audit.explain.consensus import Consensus, SampleStatistics, learn_consensus
from audit.explain.differentiate import differentiate
from audit.explain.gradcam import spatial_mean
from audit.explain.linear import MeanGradients, WeightProducts
from audit.predict.dataset import ImageSource
from audit.predict.memory import halve_batch
from audit.predict.model import AuditedModel
from audit.predict.scaling import pixel_scaling
from audit.predict.side_by_side import arrays_in_halves, runs_python

Traced = tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]


class Sampler:
    """A model traced so that a call gives the means over all places of each kept layer.

    Attributes:
        model: the model.
        layers: every spatial output of the model, kept or not.
        image_bytes: memory that one more image at a time takes, about.
    """

    def __init__(
        self, model: AuditedModel, *, scaling: Scaling = "none", layers: str = "all"
    ) -> None:
        """Trace the model.

        Args:
            layers: "all", "conv", "stages" or a regular expression, as `ActivationRecorder.choose`.

        Raises:
            ModelError: if it has no spatial layer, or `layers` leaves none.
        """
        self.model = model
        self._choice = layers
        self._scaling = pixel_scaling(scaling, model.channels)
        self.layers: tuple[Layer, ...] = ()
        self.image_bytes = 0
        traced = tf.function(self._trace, jit_compile=False, autograph=False)
        self._call = traced.get_concrete_function(
            tf.TensorSpec((None, *model.input_size, model.channels), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        )
        self._calls_python = runs_python(self._call)

    def statistics(
        self, batches: Iterable[tuple[tf.Tensor, np.ndarray, np.ndarray]]
    ) -> SampleStatistics:
        """Run all batches.

        Args:
            batches: at least one, each of pixels, float32 of shape (n, height, width, channels),
                not scaled; classes to explain, int of shape (n, 2); and which are errors, bool of
                shape (n,).
        """
        blocks = []
        for pixels, classes, is_error in batches:
            asked = tf.constant(classes, tf.int32)
            values = arrays_in_halves(self._call, pixels, asked, calls_python=self._calls_python)
            blocks.append([classes, is_error, *values])
        classes, is_error, logits, *values = (np.concatenate(b) for b in zip(*blocks, strict=True))
        n_layers = len(values) // 2
        return SampleStatistics(
            classes, is_error, logits, tuple(values[:n_layers]), tuple(values[n_layers:])
        )

    def _trace(self, pixels: tf.Tensor, classes: tf.Tensor) -> Traced:
        found = differentiate(self.model, self._scaling, self._choice, pixels, classes)
        self.layers = found.layers
        self.image_bytes = found.image_bytes
        products = WeightProducts()
        distinct = found.gradients[:1] if self.model.has_one_output else found.gradients
        means = [MeanGradients(one, products).means() for one in distinct]
        signs = tf.stack(found.signs, axis=1)[..., None]
        by_layer = [  # With a single output there is one column, for all classes.
            tf.stack([tf.cast(mean, tf.float32) for mean in of_layer], axis=1) * signs
            for of_layer in zip(*means, strict=True)
        ]
        activations = [tf.cast(spatial_mean(a), tf.float32) for a in found.activations]
        return found.logits, activations, by_layer


def learn_from_images(
    sampler: Sampler,
    source: ImageSource,
    sample: pd.DataFrame,
    batch_size: int,
    on_halved: Callable[[int], None] = lambda n: None,
) -> Consensus:
    """Learn what a sample agrees on.

    Args:
        sample: as `sample_for_consensus` returns.
        batch_size: images at once; it is halved for as long as memory does not suffice.
        on_halved: called with each smaller batch size.

    Raises:
        ModelError: if memory does not suffice for one image.
    """
    rows = sample.set_index("image_id")

    def batches() -> Iterator[tuple[tf.Tensor, np.ndarray, np.ndarray]]:
        for ids, pixels in source.batches(sample["image_id"].tolist(), batch_size):
            found = rows.loc[ids]
            classes = found[["y_pred", "y_true"]].to_numpy()
            yield pixels, classes, found["is_error"].to_numpy()

    while True:
        try:
            statistics = sampler.statistics(batches())
            break
        except (tf.errors.ResourceExhaustedError, MemoryError) as exc:
            batch_size = halve_batch(batch_size, sampler.model, exc)
            on_halved(batch_size)
    kept = [layer for layer in sampler.layers if layer.kept]
    return learn_consensus(kept, statistics, is_binary=sampler.model.has_one_output)
