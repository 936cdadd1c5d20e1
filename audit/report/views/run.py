"""The page on the run: model, data, options, times, what was left out, how to read it all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.config import option_name
from audit.report.maps import STEPS
from audit.report.run_data import RunData
from audit.report.views.overview import RunWarning, run_warnings
from audit.report.views.parts import Estimate, Site, defined, estimate, make_site, maps_method
from audit.report.views.times import Times, run_times
from audit.schemas import records

MAX_FILES = 500
"""So many left-out files are listed; `unreadable.parquet` has them all."""

DATA_KINDS = {
    "folders": "a folder per class",
    "manifest": "a table of paths and labels",
    "flat": "a flat folder, labels in the file names",
    "dataset": "a tf.data.Dataset",
}


@dataclass(frozen=True)
class MethodText:
    """How a method makes a map of a layer, in a sentence, and where it comes from."""

    rule: str
    source: str


METHODS = {
    "gradcam": MethodText(
        "Channels weighted by their mean gradient, summed, the positive part kept.",
        "Selvaraju et al. 2017, eq. 1 and 2",
    ),
    "gradcam++": MethodText(
        "Channels weighted by their positive gradients, each with a weight of its own, summed, the"
        " positive part kept.",
        "Chattopadhay et al. 2018, eq. 5 and 19",
    ),
    "hirescam": MethodText(
        "Each pixel of a channel weighted by its own gradient, channels summed, the positive part"
        " kept.",
        "Draelos and Carin 2020",
    ),
    "layercam": MethodText(
        "Each pixel of a channel weighted by its own gradient where that is positive, channels"
        " summed, the positive part kept.",
        "Jiang et al. 2021",
    ),
    "article": MethodText(
        "Channels weighted by their mean gradient where gradient and activation are positive,"
        " summed, scaled from the lowest value to the highest.",
        "Reiff 2021",
    ),
    "occlusion": MethodText(
        "Model-agnostic: 54 boxes of the image are painted out in turn, each from its surroundings,"
        " and the model is asked again. A pixel's value is how far the logit of the class falls on"
        " average over the boxes that hold it; the positive part is kept.",
        "after Zeiler and Fergus 2014",
    ),
}


FUSIONS = {
    "consensus": MethodText(
        "The fused map weighs channels by their mean gradient over up to 48 errors of the class,"
        " mixed with the image's own, and layers by how well they follow the logit over these and"
        " as many correct images. Sizes are joined as the square of the mean square root, along the"
        " edges of the image.",
        "Choice of this program; edges: He et al. 2013",
    ),
    "mean": MethodText(
        "The fused map is the mean of the maps of all layers, each divided by its own peak.", ""
    ),
    "article": MethodText(
        "The fused map is the mean of the maps of all layers, each scaled from its lowest value to"
        " its highest.",
        "Reiff 2021",
    ),
}


@dataclass(frozen=True)
class Fact:
    """A name and a value, shown side by side. `code` marks what a program reads."""

    label: str
    value: Any
    code: bool = False


@dataclass(frozen=True)
class ScalingRow:
    """The accuracy of a sample under one scaling of the pixels."""

    scaling: str
    accuracy: float | None
    in_use: bool
    is_suggested: bool


@dataclass(frozen=True)
class FileRow:
    """A file that was left out."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class LayerRow:
    """A layer that could be explained; `reason` says why it is not shown.

    `reliability`: how well what it says follows the logit, in [-1, 1], mean over the classes;
    `None` where it was not measured.
    """

    order: int
    path: str
    kind: str
    size: str
    stored: str
    channels: int
    stage: int
    is_kept: bool
    reason: str
    reliability: float | None


@dataclass(frozen=True)
class PaintedOut:
    """What painting out the focus did to all errors that were tested, in a pattern or not."""

    n_tested: int
    area: float
    repaired: Estimate
    elsewhere: Estimate


@dataclass(frozen=True)
class RunPage:
    """The page on the run."""

    site: Site
    warnings: tuple[RunWarning, ...]
    model: tuple[Fact, ...]
    data: tuple[Fact, ...]
    options: tuple[Fact, ...]
    versions: tuple[Fact, ...]
    n_scaling_images: int
    scalings: tuple[ScalingRow, ...]
    files: tuple[FileRow, ...]
    n_files: int
    layers: tuple[LayerRow, ...]
    n_kept: int
    notes: tuple[str, ...]
    level: float
    resamples: int
    method: MethodText
    fusion: MethodText | None
    layer_detail: int
    heat_steps: int
    painted_out: PaintedOut | None
    times: Times | None

    @property
    def measures_layers(self) -> bool:
        """Whether it was measured how well layers follow the logit."""
        return any(layer.reliability is not None for layer in self.layers)


def run_page(data: RunData, *, layer_detail: int, with_times: bool = False) -> RunPage:
    """Return the page on the run.

    Args:
        data: the run.
        layer_detail: pixels on the longer side of a layer's map on pages.
        with_times: whether the page itself says how long the run took. A report in its run folder
            does not, so that the same audit gives the same pages; it reads `logs/times.js`.
    """
    manifest, metrics = data.manifest, data.metrics
    reliability = data.diagnosis.reliability
    layers = tuple(
        _layer_row(row, reliability) for row in records(data.layers.sort_values("order"))
    )
    return RunPage(
        site=make_site(data),
        warnings=run_warnings(data),
        model=_model_facts(manifest),
        data=_data_facts(manifest),
        options=tuple(
            Fact(option_name(name), value, code=True) for name, value in _options(manifest).items()
        ),
        versions=tuple(Fact(name, value) for name, value in manifest["versions"].items()),
        n_scaling_images=int(manifest["scaling_check"]["n_images"]),
        scalings=_scaling_rows(manifest),
        files=_file_rows(data.unreadable.head(MAX_FILES)),
        n_files=len(data.unreadable),
        layers=layers,
        n_kept=sum(layer.is_kept for layer in layers),
        notes=tuple(str(note) for note in metrics["notes"]),
        level=float(metrics["level"]),
        resamples=int(metrics["bootstrap"]["resamples"]),
        method=METHODS[maps_method(manifest)],
        fusion=FUSIONS.get(manifest.get("fusion") or ""),
        layer_detail=layer_detail,
        heat_steps=STEPS,
        painted_out=_painted_out(data.diagnosis.overall_effect),
        times=run_times(manifest) if with_times else None,
    )


def _painted_out(found: Mapping[str, Any] | None) -> PaintedOut | None:
    if not found:
        return None
    return PaintedOut(
        n_tested=int(found["n_tested"]),
        area=float(found["best_area"]),
        repaired=estimate(found["repaired"]),
        elsewhere=estimate(found["elsewhere"]),
    )


def _options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run, with the batch size that was found where none was given."""
    options = dict(manifest["config"])
    if options.get("batch_size") is None:
        options["batch_size"] = manifest.get("batch_size")
    return options


def _model_facts(manifest: Mapping[str, Any]) -> tuple[Fact, ...]:
    model, size, head = manifest["model"], manifest["input"], manifest["head"]
    channels = "grey" if size["channels"] == 1 else "RGB"
    return (
        Fact("Model", model["name"]),
        Fact("Parameters", f"{model['n_parameters']:,}" if model["n_parameters"] else "unknown"),
        Fact("Input", f"{size['height']} × {size['width']} pixels, {channels}"),
        Fact("Scaling of pixels", size["scaling"], code=True),
        Fact(
            "Other shapes are",
            {"stretch": "stretched", "crop": "cropped", "pad": "padded"}.get(
                size["aspect"], size["aspect"]
            ),
        ),
        Fact("Output", head["kind"], code=True),
        Fact("Explained", head["explained"]),
        Fact("Fingerprint", manifest["fingerprints"]["model"], code=True),
    )


def _data_facts(manifest: Mapping[str, Any]) -> tuple[Fact, ...]:
    found = manifest["data"]
    facts = [
        Fact("Data", found["name"]),
        Fact("Form", DATA_KINDS.get(found["kind"], found["kind"])),
        Fact("Images", f"{found['n_images']:,}"),
        Fact("Classes", f"{len(manifest['class_names']):,}"),
        Fact("Skipped files", f"{found['n_skipped']:,}"),
        Fact("Unreadable files", f"{found['n_unreadable']:,}"),
        Fact("Fingerprint", manifest["fingerprints"]["data"], code=True),
    ]
    if manifest["positive_class"] is not None:
        facts.insert(4, Fact("Positive class", manifest["positive_class"]))
    return tuple(facts)


def _scaling_rows(manifest: Mapping[str, Any]) -> tuple[ScalingRow, ...]:
    check = manifest["scaling_check"]
    return tuple(
        ScalingRow(
            scaling=scaling,
            accuracy=defined(accuracy),
            in_use=scaling == manifest["input"]["scaling"],
            is_suggested=scaling == check["suggested"],
        )
        for scaling, accuracy in check["accuracies"].items()
    )


def _file_rows(unreadable: pd.DataFrame) -> tuple[FileRow, ...]:
    columns = unreadable[["path", "kind", "reason"]]
    return tuple(FileRow(*map(str, row)) for row in columns.itertuples(index=False, name=None))


def _layer_row(row: Mapping[str, Any], reliability: Mapping[str, float]) -> LayerRow:
    return LayerRow(
        order=int(row["order"]),
        path=str(row["path"]),
        kind=str(row["kind"]),
        size=f"{row['height']} × {row['width']}",
        stored=f"{row['stored_height']} × {row['stored_width']}" if row["stored_height"] else "",
        channels=int(row["channels"]),
        stage=int(row["stage"]),
        is_kept=bool(row["kept"]),
        reason=str(row["reason"] or ""),
        reliability=reliability.get(str(row["layer"])),
    )
