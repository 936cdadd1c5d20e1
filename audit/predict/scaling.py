"""How pixels of 0 to 255 are scaled before they enter a model.

Every scaling turns the channels around or not, multiplies and adds per channel, so one traced
function serves them all.
"""

from dataclasses import dataclass

import numpy as np

from audit.errors import ConfigError

_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68])
_TORCH_MEAN_RGB = np.array([0.485, 0.456, 0.406])
_TORCH_STD_RGB = np.array([0.229, 0.224, 0.225])
"""Means and deviations of ImageNet, as in `keras.applications.imagenet_utils.preprocess_input`."""


@dataclass(frozen=True)
class PixelScaling:
    """scaled = (reversed) pixels * multiply + add, with one entry per channel.

    Attributes:
        reverses: whether the channels are turned around, RGB to BGR, before the rest.
        multiply: float32 of shape (channels,).
        add: float32 of shape (channels,).
    """

    reverses: bool
    multiply: np.ndarray
    add: np.ndarray


def pixel_scaling(name: str, channels: int) -> PixelScaling:
    """Return a scaling by its name.

    Args:
        name: none, 0-1, -1-1, imagenet-caffe or imagenet-torch.
        channels: 1 or 3; the two of ImageNet need 3.

    Raises:
        ConfigError: if the scaling does not fit the channels.
    """
    ones = np.ones(channels)
    if name == "none":
        return _make(False, ones, 0 * ones)
    if name == "0-1":
        return _make(False, ones / 255, 0 * ones)
    if name == "-1-1":
        return _make(False, ones / 127.5, -ones)
    if channels != 3:
        raise ConfigError(
            f"`--scaling {name}` needs colour. Received: a model with {channels} input channel."
            " Use none, 0-1 or -1-1."
        )
    if name == "imagenet-caffe":
        return _make(True, ones, -_CAFFE_MEAN_BGR)
    return _make(False, 1 / (255 * _TORCH_STD_RGB), -_TORCH_MEAN_RGB / _TORCH_STD_RGB)


def scaling_names(channels: int) -> tuple[str, ...]:
    """Return the scalings that a model with so many input channels can be fed."""
    names = ("none", "0-1", "-1-1", "imagenet-caffe", "imagenet-torch")
    return names if channels == 3 else names[:3]


def _make(reverses: bool, multiply: np.ndarray, add: np.ndarray) -> PixelScaling:
    return PixelScaling(reverses, multiply.astype(np.float32), add.astype(np.float32))
