"""Choose what makes the heat-maps of a model: its layers, or occlusion where there are none to see.

In: a model and how maps are to be made. Out: an explainer, and what its consensus is learnt with.
"""

from audit.config import Fusion, KeepMaps, Method, Scaling
from audit.errors import NoSpatialLayerError
from audit.explain.consensus import Consensus
from audit.explain.maps import Explainer
from audit.explain.occlusion import OcclusionExplainer
from audit.explain.sample import Sampler
from audit.predict.model import AuditedModel
from audit.predict.opaque import OpaqueModel, holds_opaque_layer
from audit.run_folder import OCCLUSION


def make_explainer(
    model: AuditedModel,
    *,
    scaling: Scaling = "none",
    method: Method = "gradcam",
    layers: str = "all",
    fusion: Fusion | None = None,
    consensus: Consensus | None = None,
    keep_maps: KeepMaps = "compact",
) -> Explainer | OcclusionExplainer:
    """Return what explains a model by a method, or by occlusion if it cannot be looked into.

    Raises:
        ModelError: if a model that can be looked into has no spatial layer, or `layers` leaves
            none.
    """
    if method == OCCLUSION or isinstance(model.model, OpaqueModel):
        return OcclusionExplainer(model, scaling=scaling, keep_maps=keep_maps)
    try:
        return Explainer(
            model,
            scaling=scaling,
            method=method,
            layers=layers,
            fusion=fusion,
            consensus=consensus,
            keep_maps=keep_maps,
        )
    except NoSpatialLayerError:
        if not holds_opaque_layer(model.model):
            raise
        return OcclusionExplainer(model, scaling=scaling, keep_maps=keep_maps)


def make_sampler(
    model: AuditedModel, *, scaling: Scaling = "none", layers: str = "all"
) -> Sampler | None:
    """Return what a consensus is learnt with, or `None` if the model cannot be looked into.

    Raises:
        ModelError: as `make_explainer`.
    """
    if isinstance(model.model, OpaqueModel):
        return None
    try:
        return Sampler(model, scaling=scaling, layers=layers)
    except NoSpatialLayerError:
        if not holds_opaque_layer(model.model):
            raise
        return None
