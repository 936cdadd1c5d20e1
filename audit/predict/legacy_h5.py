"""Read HDF5 models of earlier Keras versions that Keras 3 refuses.

The file's configuration is brought to the form that Keras 3 writes, the model is rebuilt from it,
and the weights are loaded by Keras itself. Nothing but built-in layers is built, and no code in the
file runs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras

_NOT_IN_LAYER = {"DepthwiseConv2D": ("groups",)}
"""Settings that earlier versions wrote and Keras 3 does not take, by class of the layer."""
_CONTAINERS = ("Functional", "Model")


def load_legacy_h5(path: Path) -> keras.Model:
    """Rebuild a model from an HDF5 file and load its weights.

    Raises:
        ValueError: if it has a layer that runs code from the file.
        Exception: whatever Keras raises if the configuration still cannot be built.
    """
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    if _mentions(config, "Lambda"):
        raise ValueError("a Lambda layer is unsafe to build")
    model = _build(config)
    model.load_weights(path)
    return model


def _mentions(config: Any, class_name: str) -> bool:
    """Say whether a class occurs anywhere in a configuration."""
    if isinstance(config, dict):
        found = config.get("class_name") == class_name
        return found or any(_mentions(value, class_name) for value in config.values())
    return isinstance(config, list) and any(_mentions(value, class_name) for value in config)


def _build(entry: Mapping[str, Any]) -> keras.Layer:
    """Build a layer or a model, containers from the inside out."""
    if entry["class_name"] == "Sequential":
        return _build_sequential(entry["config"])
    if entry["class_name"] in _CONTAINERS:
        return _build_functional(entry["config"])
    config = _modern(entry["config"])
    for name in _NOT_IN_LAYER.get(entry["class_name"], ()):
        config.pop(name, None)
    return getattr(keras.layers, entry["class_name"]).from_config(config)


def _build_sequential(config: Any) -> keras.Sequential:
    """Build the layers one by one; the first one says the input's shape."""
    entries = config["layers"] if isinstance(config, dict) else config
    first = entries[0]["config"]
    shape = first.get("batch_input_shape") or first.get("batch_shape")
    layers = [_build(entry) for entry in entries if entry["class_name"] != "InputLayer"]
    inputs = [keras.Input(batch_shape=tuple(shape))] if shape else []
    name = config.get("name") if isinstance(config, dict) else None
    return keras.Sequential([*inputs, *layers], name=name)


def _build_functional(config: Mapping[str, Any]) -> keras.Model:
    """Let Keras wire the graph, after every layer's own configuration is brought up to date."""
    layers = []
    for entry in config["layers"]:
        settings = _modern(entry["config"])
        for name in _NOT_IN_LAYER.get(entry["class_name"], ()):
            settings.pop(name, None)
        layers.append({**entry, "config": settings})
    graph = keras.Model.from_config({**_modern(config), "layers": layers})
    if len(graph.inputs) > 1 or len(graph.outputs) > 1:
        return graph
    # A list of one tensor, as the old form has it, does not fit into a Sequential model.
    return keras.Model(graph.inputs[0], graph.outputs[0], name=graph.name)


def _modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's configuration without what Keras 3 does not know."""
    modern = {
        name: _modern_initializer(value) if name.endswith("_initializer") else value
        for name, value in config.items()
    }
    shape = modern.pop("batch_input_shape", None)
    if shape and "sparse" in modern:  # Only an InputLayer keeps it, under its new name.
        modern["batch_shape"] = shape
    for name in ("input_dtype", "ragged"):
        modern.pop(name, None)
    return modern


def _modern_initializer(value: Any) -> Any:
    """An initializer carried the data type; the layer has it now."""
    if isinstance(value, dict) and "dtype" in value.get("config", {}):
        settings = {name: item for name, item in value["config"].items() if name != "dtype"}
        return {**value, "config": settings}
    return value
