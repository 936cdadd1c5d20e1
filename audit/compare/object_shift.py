"""Did the focus move onto the object? Shares of maps inside it, before and after.

In: where the objects are, or what the runs noted of them, for maps that both runs have. Out: paired
changes. Maps whose object is not known in either run are counted and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from audit.compare.focus_shift import Maps
from audit.compare.matching import MatchedRuns
from audit.compare.paired import Change, resampled_change
from audit.explain.inside import energy_inside, pointing
from audit.explain.object_view import view_of
from audit.explain.objects import UNUSABLE, Objects
from audit.predict.intervals import affordable_resamples, resampled_means
from audit.schemas import INSIDE

Inside = Mapping[tuple[int, int], tuple[float, float, float]]
"""By (position among the matched images, class): the object's share of the pixels, the share of the
map inside it, and whether its hottest pixel is inside; see `audit.explain.inside`."""


@dataclass(frozen=True)
class ObjectShift:
    """How much of the focus lies inside the object, over maps that both runs have.

    Images that are explained for several classes count once, with their mean. Values are `None`
    without images.

    Attributes:
        n_images, n_maps: in both runs, with an object that is known.
        n_left_out: maps that both runs have, but whose object is not known in one of them.
        n_unusable: images whose mask or boxes could not be used; `first_reason`: of the first.
        object_share: mean share of the pixels, which an even map would have inside.
        energy_before, energy_after: mean share of the map inside, 0 to 1.
        pointing_before, pointing_after: share of the maps whose hottest pixel is inside.
        energy_change, pointing_change: after − before, with a paired bootstrap interval over
            images.
        energy_p, pointing_p: how likely that is by chance, two-sided.
    """

    n_images: int
    n_maps: int
    n_left_out: int
    n_unusable: int
    first_reason: str | None
    object_share: float | None
    energy_before: float | None
    energy_after: float | None
    energy_change: Change
    energy_p: float
    pointing_before: float | None
    pointing_after: float | None
    pointing_change: Change
    pointing_p: float


@dataclass(frozen=True)
class Measured:
    """What is known of the maps of one run; `unusable` has the reason for each such image."""

    inside: Inside
    unusable: Mapping[int, str]


def shift_in_object(
    before: Measured, after: Measured, keys: set[tuple[int, int]], *, seed: int = 0
) -> ObjectShift:
    """Compare how much of the focus lies inside the object.

    Args:
        before, after: of the two runs.
        keys: (position, class) of the maps that both runs have.
        seed: of the bootstrap.
    """
    known = sorted(keys & before.inside.keys() & after.inside.keys())
    unusable = {**after.unusable, **before.unusable}
    both = np.array([[before.inside[key], after.inside[key]] for key in known], np.float64).reshape(
        -1, 2, len(INSIDE)
    )
    _, row = np.unique([image for image, _ in known], return_inverse=True)
    sums = np.zeros((row.max(initial=-1) + 1, 2, len(INSIDE)))
    np.add.at(sums, row, both)
    means = sums / np.bincount(row)[:, None, None]  # Of the classes of an image.
    rng = np.random.default_rng([seed, 1])
    energy, hits = (_shift(means[:, :, INSIDE.index(name)], rng) for name in INSIDE[1:])
    return ObjectShift(
        n_images=len(means),
        n_maps=len(known),
        n_left_out=len(keys) - len(known),
        n_unusable=len(unusable),
        first_reason=unusable[min(unusable)] if unusable else None,
        object_share=float(means[:, :, 0].mean()) if len(means) else None,
        energy_before=energy.before,
        energy_after=energy.after,
        energy_change=energy.change,
        energy_p=energy.p_value,
        pointing_before=hits.before,
        pointing_after=hits.after,
        pointing_change=hits.change,
        pointing_p=hits.p_value,
    )


@dataclass(frozen=True)
class _Shift:
    before: float | None
    after: float | None
    change: Change
    p_value: float


def _shift(values: np.ndarray, rng: np.random.Generator) -> _Shift:
    """Compare values of shape (n_images, 2), before and after."""
    if not len(values):
        return _Shift(None, None, Change(None, None, None), 1.0)
    differences = values[:, 1] - values[:, 0]
    n_resamples = affordable_resamples(len(differences))
    resampled = resampled_means(differences[:, None], n_resamples, rng)[:, 0]
    before, after = (float(mean) for mean in values.mean(axis=0))
    return _Shift(before, after, *resampled_change(float(differences.mean()), resampled))


def noted_inside(images: MatchedRuns, run: int) -> Measured | None:
    """Return what a run noted of its own maps; `None` if it was made without masks and boxes."""
    source = images.runs[run]
    focus = source.table("focus", ("image_id", "explained_class"))
    if not set(INSIDE) <= set(focus.columns):
        return None
    position_of = dict(zip(images.image_ids[run].tolist(), range(len(images.y_true)), strict=True))
    order = images.class_order(run)
    known = focus[focus["energy_inside"].notna() & focus["image_id"].isin(position_of)]
    rows = known[["image_id", "explained_class", *INSIDE]].itertuples(index=False, name=None)
    objects = source.table("objects", ("image_id", "kind", "reason"))
    unusable = objects[(objects["kind"] == UNUSABLE) & objects["image_id"].isin(position_of)]
    return Measured(
        {
            (position_of[image_id], int(order[explained])): (share, energy, hit)
            for image_id, explained, share, energy, hit in rows
        },
        {
            position_of[image_id]: str(reason)
            for image_id, reason in zip(unusable["image_id"], unusable["reason"], strict=True)
        },
    )


def measure_maps(
    images: MatchedRuns, runs: tuple[int, int], maps: tuple[Maps, Maps], objects: Objects
) -> tuple[Measured, Measured]:
    """Measure the maps that two runs have in common.

    Args:
        runs: positions of the two runs.
        maps: of these runs.
        objects: by position among the matched images.
    """
    views = [view_of(images.runs[run].manifest["input"]) for run in runs]
    properties = images.runs[0].properties
    sizes = {}
    if properties is not None:
        known = properties.dropna(subset=["width", "height"]).set_index("image_id")
        sizes = dict(
            zip(known.index, known[["width", "height"]].itertuples(index=False), strict=True)
        )
    inside: tuple[dict[tuple[int, int], tuple[float, float, float]], ...] = ({}, {})
    unusable: dict[int, str] = {}
    classes_of: dict[int, list[int]] = {}
    for position, explained in sorted(maps[0].keys() & maps[1].keys()):
        classes_of.setdefault(position, []).append(explained)
    for position, classes in classes_of.items():
        own = sizes.get(images.image_ids[0, position])
        size = None if own is None else (int(own[0]), int(own[1]))
        seen = {view: objects.place(position, size, view) for view in dict.fromkeys(views)}
        for side, view in enumerate(views):
            placed = seen[view]
            if placed.kind == UNUSABLE:
                unusable[position] = placed.reason
            if placed.coverage is None:
                continue
            share = float(placed.coverage.mean())
            for explained in classes:
                cam = maps[side][position, explained]
                inside[side][position, explained] = (
                    share,
                    energy_inside(cam, placed.coverage),
                    pointing(cam, placed.coverage),
                )
    return Measured(inside[0], unusable), Measured(inside[1], {})
