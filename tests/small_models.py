"""Small classifiers with any head, and noise to feed them, for the tests of models and heads."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SIZE = 8


def features(channels=3):
    """Return an input and two-layer features; weights are small so that nothing saturates."""
    inputs = keras.Input((SIZE, SIZE, channels))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    return inputs, layers.GlobalAveragePooling2D(name="pool")(x)


def model_of(*heads, channels=3):
    inputs, x = features(channels)
    for head in heads:
        x = head(x)
    return keras.Model(inputs, x, name="small")


def images(n=6, channels=3, size=SIZE):
    rng = np.random.default_rng(1)
    return tf.constant(rng.uniform(0, 255, (n, size, size, channels)), tf.float32)
