"""Every family of `keras.applications` gets maps of all its spatial layers, as it is and nested."""

import keras
import numpy as np
import pytest

from audit.explain.maps import Explainer
from audit.predict.model import wrap_model

A = keras.applications
FAMILIES = {  # constructor and side of the images
    "ConvNeXtTiny": (A.ConvNeXtTiny, 64),
    "DenseNet121": (A.DenseNet121, 64),
    "EfficientNetB0": (A.EfficientNetB0, 64),
    "EfficientNetV2B0": (A.EfficientNetV2B0, 64),
    "InceptionResNetV2": (A.InceptionResNetV2, 96),
    "InceptionV3": (A.InceptionV3, 96),
    "MobileNet": (A.MobileNet, 96),
    "MobileNetV2": (A.MobileNetV2, 96),
    "MobileNetV3Small": (A.MobileNetV3Small, 96),
    "NASNetMobile": (A.NASNetMobile, 64),
    "ResNet50": (A.ResNet50, 64),
    "ResNet50V2": (A.ResNet50V2, 64),
    "VGG16": (A.VGG16, 64),
    "Xception": (A.Xception, 96),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_explained_over_all_its_layers(name):
    family, side = FAMILIES[name]
    keras.utils.set_random_seed(0)
    model = family(weights=None, input_shape=(side, side, 3), classes=3)
    audited = wrap_model(model)
    assert (audited.head.kind, audited.head.logits_from) == ("softmax", "before the activation")
    explainer = Explainer(audited)
    kept = [layer for layer in explainer.layers if layer.kept]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    wide = [layer for layer in convolutions if np.prod(layer.output.shape[1:3]) > 1]
    assert {layer.name for layer in wide} <= {layer.layer for layer in kept}
    assert len({layer.layer for layer in explainer.layers}) == len(explainer.layers)

    pixels = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype(np.float32)
    maps = explainer.explain(pixels, np.array([[0, 1], [2, 2]]))
    np.testing.assert_allclose(maps.scores, model(pixels), atol=1e-4)
    peaks = np.concatenate([group.peaks for group in maps.groups], axis=1)
    assert peaks.shape == (2, len(kept) + 1, 2)
    assert np.isfinite(peaks).all() and (peaks >= 0).all()
    assert (peaks > 0).mean() > 0.3
    np.testing.assert_array_equal(peaks[1, :, 0], peaks[1, :, 1])  # the same class twice
    keras.backend.clear_session()
