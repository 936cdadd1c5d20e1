"""Models that nobody can look into: a SavedModel, or a function in Python.

In: a folder with `saved_model.pb`, or anything that turns pixels into scores. Out: an
`OpaqueModel`, which stands where an audit otherwise has a Keras model. It has scores, but neither
layers nor gradients that could be shown.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from audit.errors import ModelError
from audit.predict.tracing import all_layers, observe_operations

_SIGNATURES = ("serving_default", "serve")
_NOISE_IMAGES = 2
_PRINTED_CLASSES = 16
_OPAQUE_LAYERS = (
    keras.layers.TFSMLayer,
    keras.layers.JaxLayer,
    keras.layers.FlaxLayer,
    keras.layers.Lambda,
)


class OpaqueModel:
    """A function from pixels to scores, with what an audit asks of a Keras model.

    Attributes:
        name: for the report.
        description: what it is, to follow "is": "a function in Python".
        input_shape: (batch, height, width, channels), `None` where not known; or `None`.
        weights: none that Keras knows of.
    """

    weights: tuple[Any, ...] = ()

    def __init__(
        self,
        score: Callable[[tf.Tensor], Any],
        name: str,
        description: str,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        n_parameters: int = 0,
    ) -> None:
        """Wrap a function.

        Args:
            score: from float32 of shape (n, height, width, channels) to scores of shape
                (n, n_classes), (n, 1) or (n,), or several of these by name. It is called with
                tensors, real ones first, then symbolic ones.
            n_parameters: 0 where not known.
        """
        self.name = name
        self.description = description
        self.input_shape = input_shape
        self._score = score
        self._n_parameters = n_parameters
        self._shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: tf.Tensor, training: bool = False) -> Any:
        """Return scores of shape (n, n_outputs), or several by name."""
        with observe_operations(_look_away):
            outputs = self._score(pixels)
        tensors = [_as_column(tensor) for tensor in tf.nest.flatten(outputs)]
        if tf.executing_eagerly():
            self._shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        else:  # A traced function does not always tell its shape.
            tensors = [
                tf.reshape(tensor, (-1, *shape))
                for tensor, shape in zip(tensors, self._shapes, strict=True)
            ]
        return tf.nest.pack_sequence_as(outputs, tensors)

    def count_params(self) -> int:
        return self._n_parameters


def fingerprint_scores(score: Callable[[tf.Tensor], tf.Tensor], size: tuple[int, int, int]) -> str:
    """Return a SHA-256 of the scores of fixed noise: what a function does, as far as that says.

    Two functions that agree on the noise to three digits are taken for the same one.

    Args:
        score: from float32 of shape (n, *size) to shape (n, outputs).
        size: (height, width, channels).
    """
    noise = np.random.default_rng(0).uniform(0, 255, (_NOISE_IMAGES, *size))
    scores = score(tf.constant(noise, tf.float32)).numpy()
    digits = [f"{value:.2e}" for value in scores[:, :_PRINTED_CLASSES].ravel()]
    return hashlib.sha256(" ".join([str(scores.shape), *digits]).encode()).hexdigest()


def wrap_function(
    function: Callable[[Any], Any], image_shape: tuple[int | None, ...] | None = None
) -> OpaqueModel:
    """Prepare a function in Python.

    It is called as it is, never traced, with float32 pixels of shape (n, height, width, channels):
    as a tensor if it belongs to TensorFlow or Keras, or else as a NumPy array.

    Args:
        function: returns scores of shape (n, n_classes), (n, 1) or (n,), or several by name.
        image_shape: (height, width, channels), where the data know it. Otherwise the function's own
            attribute `input_shape`, (None, height, width, channels), is asked.

    Raises:
        ModelError: if it cannot be called, or nothing says the size of its images.
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    if not callable(function):
        raise ModelError(
            f"`{name}` is not a model that can be called. Received: an object of this type. Give a"
            " file, a SavedModel folder, a Keras model, or a function from pixels to scores."
        )
    own_shape = getattr(function, "input_shape", None)
    if image_shape is None and not isinstance(own_shape, tuple):
        raise ModelError(
            f"`{name}` does not say how large its images are. Received: a function, and images in"
            " files. Give them as a batched `tf.data.Dataset`, as"
            " `keras.utils.image_dataset_from_directory` with `image_size` and `shuffle=False`"
            " makes it, or set the function's `input_shape` to (None, height, width, channels)."
        )
    takes_tensors = isinstance(
        function, tf.types.experimental.GenericFunction | tf.Module | keras.Layer
    )

    def on_array(pixels: np.ndarray) -> Any:
        outputs = function(tf.constant(pixels) if takes_tensors else pixels)
        if not isinstance(outputs, Mapping | tuple):
            return _rows_of_scores(outputs, len(pixels))
        return tf.nest.map_structure(lambda array: _rows_of_scores(array, len(pixels)), outputs)

    structure: list[Any] = []

    def score(pixels: tf.Tensor) -> Any:
        if tf.executing_eagerly():
            outputs = on_array(pixels.numpy())
            structure[:] = [outputs]
            return tf.nest.map_structure(tf.constant, outputs)
        types = [tf.float32] * len(tf.nest.flatten(structure[0]))
        flat = tf.numpy_function(lambda array: tf.nest.flatten(on_array(array)), [pixels], types)
        return tf.nest.pack_sequence_as(structure[0], flat)

    return OpaqueModel(
        score,
        name,
        "a function in Python",
        input_shape=own_shape if isinstance(own_shape, tuple) else None,
    )


def load_saved_model(path: Path) -> OpaqueModel:
    """Load a SavedModel and take its serving signature.

    This is `serving_default`, or else `serve`, or else the only one. TensorFlow runs what is in the
    folder, and a graph can read and write files: load only what is trusted.

    Raises:
        ModelError: if it cannot be loaded, or it is not clear which signature takes images.

    Source: https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md
    """
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as exc:  # TensorFlow raises of many kinds: all of it is "not loadable".
        cause = (str(exc).strip().splitlines() or ["no message"])[0][:300].rstrip(".")
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load `{path}`. Received: {type(exc).__name__}:"
            f" {cause}. Check that the folder is whole, with `variables/`, or save the model again."
        ) from exc
    name, signature = _serving_signature(path, loaded.signatures)
    key, given = _image_input(path, name, signature)

    def score(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        if given.dtype.is_integer:
            pixels = tf.round(pixels)
        outputs = loaded.signatures[name](**{key: tf.saturate_cast(pixels, given.dtype)})
        return {own: tensor for own, tensor in outputs.items() if tensor.dtype.is_floating}

    return OpaqueModel(
        score,
        path.name,
        f"a SavedModel, run through its signature `{name}`",
        input_shape=tuple(given.shape) if given.shape.rank is not None else None,
        n_parameters=sum(variable.shape.num_elements() for variable in signature.variables),
    )


def holds_opaque_layer(model: Any) -> bool:
    """Tell whether a Keras model has a layer whose inside Keras does not know.

    That is a `TFSMLayer`, a layer that wraps a function or another framework, or a layer of a class
    that is not Keras's own.
    """
    if not isinstance(model, keras.Model):
        return False
    return any(
        isinstance(layer, _OPAQUE_LAYERS) or not type(layer).__module__.startswith("keras.")
        for layer in all_layers(model)
    )


def _serving_signature(path: Path, signatures: Mapping[str, Any]) -> tuple[str, Any]:
    name = next((name for name in _SIGNATURES if name in signatures), None)
    if name is None and len(signatures) == 1:
        name = next(iter(signatures))
    if name is None:
        raise ModelError(
            f"It is not clear how to run `{path}`. Received: a SavedModel with the signatures"
            f" [{', '.join(sorted(signatures))}]. Save it with the right one called"
            " `serving_default`, or load it in Python and call `audit.run` with its function."
        )
    return name, signatures[name]


def _image_input(path: Path, name: str, signature: Any) -> tuple[str, tf.TensorSpec]:
    inputs: dict[str, tf.TensorSpec] = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise ModelError(
            f"`{path.name}` has several inputs. Received: signature `{name}` with inputs"
            f" [{_listed(inputs)}]. Only models with one image as input can be audited."
        )
    key, given = next(iter(inputs.items()))
    if not (given.dtype.is_floating or given.dtype.is_integer):
        raise ModelError(
            f"`{path.name}` is not a classifier of images. Received: an input"
            f" [{_listed(inputs)}], which is not pixels. Save it with a signature that takes"
            " decoded images."
        )
    if given.shape.rank and given.shape[0] is not None:
        raise ModelError(
            f"`{path.name}` takes a fixed number of images at a time. Received: an input"
            f" [{_listed(inputs)}]. Save it with a signature whose first side is open (None)."
        )
    return key, given


def _listed(specs: Mapping[str, tf.TensorSpec]) -> str:
    return ", ".join(f"{key}: {spec.dtype.name} {spec.shape}" for key, spec in specs.items())


def _rows_of_scores(outputs: Any, n_images: int) -> np.ndarray:
    scores = np.asarray(outputs, np.float32)
    if scores.shape[:1] != (n_images,):
        raise ValueError(f"scores of shape {scores.shape} for {n_images} images")
    return scores


def _as_column(tensor: tf.Tensor) -> tf.Tensor:
    return tensor[:, None] if tensor.shape.rank == 1 else tensor


def _look_away(*operation: Any) -> None:
    """Observe nothing: what a function calls inside is its own affair."""
