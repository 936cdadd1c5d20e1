"""How much of the focus lies inside the object: of all errors, of a pattern's, of one error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.report.run_data import RunData
from audit.report.views.parts import Estimate, defined, estimate, plain_estimate


@dataclass(frozen=True)
class MapsInside:
    """Maps of many images. `lift` is the energy over that of an even map, `object_share`."""

    n: int
    n_left_out: int
    object_share: float | None
    energy: Estimate
    lift: Estimate
    pointing: Estimate


@dataclass(frozen=True)
class ObjectsView:
    """Errors against correct images of the classes that they were taken for.

    `words` says what the interval of `change` allows to say, "" where nothing was compared;
    `n_unknown` images have no object that is known, `n_unusable` of them a mask or boxes that
    cannot be used.
    """

    n_images: int
    n_known: int
    n_unknown: int
    n_unusable: int
    errors: MapsInside
    controls: MapsInside
    change: Estimate
    ratio: Estimate
    p_value: float | None
    words: str


@dataclass(frozen=True)
class PatternInside:
    """The maps of a pattern's errors; `n` of them have an object that is known."""

    n: int
    object_share: float | None
    energy: Estimate
    lift: Estimate
    pointing: float | None
    change: Estimate
    words: str


@dataclass(frozen=True)
class MapInside:
    """One map: `lift` is `energy` over `object_share`. `hits`: its hottest pixel is inside."""

    name: str
    role: str
    object_share: float
    energy: float
    lift: float
    hits: bool


def objects_view(data: RunData) -> ObjectsView | None:
    """Return what is known of all errors, `None` for a run without masks and boxes."""
    found = data.diagnosis.objects
    if found is None:
        return None
    change = estimate(found["change"])
    return ObjectsView(
        n_images=int(found["n_images"]),
        n_known=int(found["n_known"]),
        n_unknown=int(found["n_images"]) - int(found["n_known"]),
        n_unusable=int(found["n_unusable"]),
        errors=_maps_inside(found["errors"]),
        controls=_maps_inside(found["controls"]),
        change=change,
        ratio=estimate(found["ratio"]),
        p_value=defined(found["p_value"]),
        words=comparison(change),
    )


def pattern_inside(row: Mapping[str, Any]) -> PatternInside | None:
    """Return what is known of a pattern, from its row of `patterns.parquet`; `None` if nothing."""
    if not row.get("n_objects"):
        return None
    energy, lift, change = (
        plain_estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])
        for name in ("energy_inside", "energy_lift", "energy_change")
    )
    return PatternInside(
        n=int(row["n_objects"]),
        object_share=defined(row["object_share"]),
        energy=energy,
        lift=lift,
        pointing=defined(row["pointing"]),
        change=change,
        words=comparison(change),
    )


def maps_inside(data: RunData, image_id: int, y_true: int, y_pred: int) -> tuple[MapInside, ...]:
    """Return the maps of an error whose object is known, of the predicted class first."""
    found = []
    for role, explained in (("predicted", y_pred), ("true", y_true)):
        inside = data.inside.get((image_id, explained))
        if inside is not None:
            share, energy, hit = inside
            name = data.class_names[explained]
            found.append(MapInside(name, role, share, energy, energy / share, hit >= 0.5))
    return tuple(found)


def comparison(change: Estimate) -> str:
    """Say in words what the interval of a change allows to say."""
    if change.value is None:
        return ""
    if change.high is not None and change.high < 0:
        return "less than in correct images"
    if change.low is not None and change.low > 0:
        return "more than in correct images"
    return "no clear difference from correct images"


def _maps_inside(found: Mapping[str, Any]) -> MapsInside:
    return MapsInside(
        n=int(found["n"]),
        n_left_out=int(found["n_left_out"]),
        object_share=found["object_share"],
        energy=estimate(found["energy"]),
        lift=estimate(found["lift"]),
        pointing=estimate(found["pointing"]),
    )
