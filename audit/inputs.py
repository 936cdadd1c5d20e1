"""What an audit is made of: the images, the model and what is built on them, each on first use.

In: what the user gave. Out: a listing, a source of pixels, a model. TensorFlow is loaded only when
it is needed.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.explain.objects import Objects
from audit.gates import BINARY
from audit.places import Place, place
from audit.predict.devices import prepare_tensorflow
from audit.predict.listing import Listing, list_images

if TYPE_CHECKING:
    from audit.explain.consensus import Consensus
    from audit.explain.maps import Explainer
    from audit.explain.occlusion import OcclusionExplainer
    from audit.explain.sample import Sampler
    from audit.predict.dataset import ImageSource
    from audit.predict.inference import DecisionRule, Predictor
    from audit.predict.model import AuditedModel


class Inputs:
    """The model and the data of an audit.

    Args:
        model: a path or URL, a live Keras model, or a function from pixels to scores.
        data: a path or URL, or a batched `tf.data.Dataset`.
    """

    def __init__(self, model: Any, data: Any, config: AuditConfig) -> None:
        self.model_input = place(model) if isinstance(model, str | Place) else model
        self.data_input = place(data) if isinstance(data, str | Place) else data
        self.config = config

    @property
    def data_name(self) -> str:
        """The folder's or the file's name."""
        return self.data_input.name if isinstance(self.data_input, Place) else "dataset"

    @cached_property
    def listing(self) -> Listing:
        if isinstance(self.data_input, Place):
            return list_images(self.data_input, self.config.classes, self.config.label_regex)
        return self.source.listing

    @cached_property
    def objects(self) -> Objects | None:
        """Where the objects are, by image id; `None` without masks and boxes."""
        given = (self.config.masks, self.config.boxes)
        masks, boxes = (None if path is None else Path(path) for path in given)
        if masks is None and boxes is None:
            return None
        paths = self.listing.images["path"].tolist()
        return Objects(paths, masks, boxes, max_pixels=self.config.max_pixels)

    @cached_property
    def source(self) -> "ImageSource":
        prepare_tensorflow()
        from audit.predict.dataset import DatasetSource
        from audit.predict.fetched import open_files

        if not isinstance(self.data_input, Place):
            return DatasetSource(self.data_input, self.config.classes)
        model = self.model
        return open_files(
            self.listing,
            model.input_size,
            model.channels,
            aspect=self.config.aspect,
            interpolation=self.config.interpolation,
            max_pixels=self.config.max_pixels,
        )

    @cached_property
    def model(self) -> "AuditedModel":
        prepare_tensorflow()
        from audit.predict.dataset import DatasetSource
        from audit.predict.model import load_model, wrap_model

        config = self.config
        live = not isinstance(self.data_input, Place)
        shape = self.source.image_shape if live and isinstance(self.source, DatasetSource) else None
        if isinstance(self.model_input, Place):
            return load_model(
                self.model_input,
                head=config.head,
                output=config.output,
                trust_model_code=config.trust_model_code,
                input_shape=shape,
            )
        return wrap_model(
            self.model_input, head=config.head, output=config.output, input_shape=shape
        )

    @cached_property
    def predictor(self) -> "Predictor":
        from audit.predict.inference import Predictor

        return Predictor(self.model, self.config.scaling)

    def make_explainer(self, consensus: "Consensus | None") -> "Explainer | OcclusionExplainer":
        """Return what makes the heat-maps, by what a sample agrees on if layers are joined so."""
        from audit.explain.explainers import make_explainer

        config = self.config
        return make_explainer(
            self.model,
            scaling=config.scaling,
            method=config.method,
            layers=config.layers,
            fusion=config.fusion,
            consensus=consensus,
            keep_maps=config.keep_maps,
        )

    def make_sampler(self) -> "Sampler | None":
        """Return what a consensus is learnt with; `None` where layers are joined otherwise."""
        from audit.explain.explainers import make_sampler

        config = self.config
        if config.method != "gradcam" or config.fusion not in (None, "consensus"):
            return None
        return make_sampler(self.model, scaling=config.scaling, layers=config.layers)

    @property
    def rule(self) -> "DecisionRule":
        from audit.predict.inference import DecisionRule

        return DecisionRule(
            positive_index(self.listing.class_names, self.config.positive), self.config.threshold
        )

    def model_fingerprint(self) -> str:
        """Return a SHA-256 of the model; a file is not loaded for it."""
        if not isinstance(self.model_input, Place):
            return self.model.fingerprint
        from audit.predict.model_file import check_model_file, fingerprint_model_file, local_model

        path = local_model(self.model_input)
        check_model_file(path)
        return fingerprint_model_file(path)


def check_limits_fit(class_names: tuple[str, ...], limits: Mapping[str, float]) -> None:
    """Refuse limits of metrics that only a model of two classes has, if there are more."""
    binary = [name for name in limits if name in BINARY]
    if binary and len(class_names) != 2:
        raise ConfigError(
            f"`--fail-under {binary[0]}=…` needs two classes. Received: {len(class_names)} classes."
            " Give a metric of all classes, such as accuracy or macro_f1."
        )


def positive_index(class_names: tuple[str, ...], positive: str | None) -> int | None:
    """Return the index of the positive class of two, or `None` for more classes."""
    if positive is not None and (len(class_names) != 2 or positive not in class_names):
        raise ConfigError(
            f"`--positive {positive}` cannot be used. Received: classes"
            f" [{', '.join(class_names)}]. Name one of exactly two classes."
        )
    if len(class_names) != 2:
        return None
    return 1 if positive is None else class_names.index(positive)
