"""The page of each error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.report.columns import Rows
from audit.report.images import data_address, heat_picture
from audit.report.maps import MapLayer, ShardMaps
from audit.report.neighbours import N_EXEMPLARS, Neighbours, map_likeness
from audit.report.run_data import RunData
from audit.report.views.causes import Outcome, TreatmentRow, Trials, outcome, treatment_rows
from audit.report.views.findings import number_of, target_href
from audit.report.views.objects import MapInside, maps_inside
from audit.report.views.parts import Site, make_site
from audit.report.views.slices import filtered_slices, slice_views
from audit.report.views.thumbs import (
    ErrorThumb,
    ImageThumb,
    error_href,
    error_thumbs,
    heat_name,
    image_thumb,
    single,
)

N_TOP_SCORES = 8
LAST_SIDE = 28
"""Pixels on the longer side of the last layer's overlay, of which few layers have more."""


@dataclass(frozen=True)
class Link:
    """A page of the report by name."""

    name: str
    href: str


@dataclass(frozen=True)
class ExplainedClass:
    """A class whose map the page shows: the predicted or the true one.

    `heat` is the address of the overlay: of the predicted class a file of the report, of the true
    one a `data:` address. `share` is the fused map's peak as a share of the larger of the two, 0 if
    nothing speaks for it.
    """

    index: int
    role: str
    name: str
    heat: str | None
    share: float


@dataclass(frozen=True)
class ScoreRow:
    """A class with its score; `at` is the score in percent of the axis."""

    name: str
    score: float
    at: float
    is_true: bool
    is_predicted: bool


@dataclass(frozen=True)
class Exemplar:
    """An exemplar of the error's pattern and how alike the two are, -1..1, `None` if not known.

    `place` is the cosine of the fused maps of the predicted classes, `look` that of the features
    under them, less their mean over all maps.
    """

    thumb: ErrorThumb
    place: float | None
    look: float | None


@dataclass(frozen=True)
class RightImage:
    """A correct image that is near to the error; see `Neighbours.likeness`."""

    thumb: ImageThumb
    likeness: float


@dataclass(frozen=True)
class ErrorPage:
    """One error. `previous` and `next` are addresses of pages.

    `maps` are those of `explained`, packed; `None` if the error was not explained. `last_heat` is
    the overlay of the last layer as a `data:` address; `last_likeness` the cosine of that map and
    the fused one, both of the predicted class. `n_right` correct images were explained and compared
    with it, of which `nearest` are shown.
    """

    site: Site
    thumb: ErrorThumb
    position: int
    p_true: float
    margin: float
    previous: str | None
    next: str | None
    explained: tuple[ExplainedClass, ...]
    last_heat: str | None
    last_likeness: float | None
    last_layer: MapLayer | None
    n_layers: int
    maps: str | None
    scores: tuple[ScoreRow, ...]
    n_classes: int
    metadata: tuple[tuple[str, Any], ...]
    pattern_href: str | None
    siblings: tuple[Exemplar, ...]
    nearest: tuple[RightImage, ...]
    n_right: int
    treatments: tuple[TreatmentRow, ...]
    outcome: Outcome | None
    slices: tuple[Link, ...]
    targets: tuple[Link, ...]
    inside: tuple[MapInside, ...] = ()


@dataclass(frozen=True)
class ErrorPageMaker:
    """Makes pages of errors one at a time, from what all of them share.

    `ids` are those of the errors' images. `last` and `fused` are positions in `layers`: of the last
    layer, and of the fused map.
    """

    data: RunData
    site: Site
    ids: NDArray[np.int64]
    rows: Sequence[Mapping[str, Any]]
    layers: Sequence[MapLayer]
    last: int | None
    fused: int | None
    scores: Mapping[int, tuple[tuple[int, float], ...]]
    siblings: Mapping[int, Sequence[ErrorThumb]]
    neighbours: Neighbours
    right: Mapping[int, ImageThumb]
    metadata: Sequence[Mapping[str, Any]]
    trials: Trials
    slices: Mapping[int, Sequence[Link]]
    targets: Mapping[int, Sequence[Link]]

    @classmethod
    def build(
        cls,
        data: RunData,
        layers: Sequence[MapLayer],
        scores: Mapping[int, tuple[tuple[int, float], ...]],
        siblings: Mapping[int, Sequence[ErrorThumb]],
        neighbours: Neighbours,
    ) -> "ErrorPageMaker":
        """Prepare what the pages share.

        Args:
            data: the run.
            layers: of the maps, fused last.
            scores: the highest scores by image id.
            siblings: the exemplars by pattern.
            neighbours: what the errors are like.
        """
        return cls(
            data=data,
            site=make_site(data),
            ids=data.errors["image_id"].to_numpy(np.int64),
            rows=data.error_records,
            layers=layers,
            last=_last_layer(layers),
            fused=_fused_layer(layers),
            scores=scores,
            siblings=siblings,
            neighbours=neighbours,
            right={image_id: _right_thumb(data, image_id) for image_id in neighbours.shown()},
            metadata=Rows(data.metadata),
            trials=Trials.of(data.diagnosis.causes),
            slices=_slices_of_images(data),
            targets=_targets_of_images(data),
        )

    def page(self, image_id: int, maps: ShardMaps | None) -> ErrorPage:
        """Return the page of one error; `maps` holds its shard, or is `None` if it has no maps."""
        n = self.data.error_rows[image_id]
        row, (thumb,) = self.rows[n], error_thumbs(self.data, [n])
        y_true, y_pred = int(row["y_true"]), int(row["y_pred"])
        explained = self._explained(image_id, y_true, y_pred, maps)
        last_heat, last_likeness = self._last_heat(image_id, y_pred, maps)
        trials = self.trials.of_image(image_id)
        return ErrorPage(
            site=self.site,
            thumb=thumb,
            position=n + 1,
            p_true=single(row["p_true"]),
            margin=single(row["margin"]),
            previous=self._href(n - 1),
            next=self._href(n + 1),
            explained=explained,
            last_heat=last_heat,
            last_likeness=last_likeness,
            last_layer=self.layers[self.last] if self.last is not None else None,
            n_layers=len(self.layers),
            maps=self._packed_maps(image_id, explained, maps),
            scores=self._scores(image_id, y_true, y_pred),
            n_classes=len(self.data.class_names),
            metadata=tuple(self.metadata[n].items()),
            pattern_href=f"pattern-{thumb.pattern}.html" if thumb.pattern else None,
            siblings=self._siblings(n, thumb, y_pred, maps),
            nearest=tuple(
                RightImage(self.right[image_id], single(likeness))
                for image_id, likeness in self.neighbours.nearest_of(n)
            ),
            n_right=self.neighbours.n_right,
            treatments=treatment_rows(trials, y_true, self.data.class_names),
            outcome=outcome(trials, y_true, y_pred),
            slices=tuple(self.slices.get(image_id, ())),
            targets=tuple(self.targets.get(image_id, ())),
            inside=maps_inside(self.data, image_id, y_true, y_pred),
        )

    def _explained(
        self, image_id: int, y_true: int, y_pred: int, maps: ShardMaps | None
    ) -> tuple[ExplainedClass, ...]:
        chosen = (("predicted", y_pred), ("true", y_true))
        peaks = {role: self.data.peaks.get((image_id, index), 0.0) for role, index in chosen}
        largest = max(peaks.values()) or 1.0
        size = self.data.pictures.get(image_id)
        return tuple(
            ExplainedClass(
                index=index,
                role=role,
                name=self.data.class_names[index],
                heat=self._heat(image_id, role, index, peaks[role] / largest, maps)
                if size and peaks[role] > 0
                else None,
                share=peaks[role] / largest,
            )
            for role, index in chosen
        )

    def _heat(
        self, image_id: int, role: str, index: int, share: float, maps: ShardMaps | None
    ) -> str | None:
        """Return the address of the overlay of a fused map."""
        if role == "predicted":
            return heat_name(image_id)
        cam = self._cam(image_id, index, self.fused, maps)
        if cam is None:
            return None
        return data_address(heat_picture(cam, self.data.pictures[image_id], share))

    def _last_heat(
        self, image_id: int, y_pred: int, maps: ShardMaps | None
    ) -> tuple[str | None, float | None]:
        """Return the overlay of the last layer, and the cosine of that map and the fused one."""
        cam = self._cam(image_id, y_pred, self.last, maps)
        size = self.data.pictures.get(image_id)
        if cam is None or not size or not cam.any():
            return None, None
        fused = self._cam(image_id, y_pred, self.fused, maps)
        likeness = map_likeness(cam, fused) if fused is not None and fused.any() else None
        return data_address(heat_picture(cam, size, side=LAST_SIDE)), likeness

    def _cam(
        self, image_id: int, index: int, layer: int | None, maps: ShardMaps | None
    ) -> NDArray[np.uint8] | None:
        row = maps.rows.get((image_id, index)) if maps else None
        return maps.cam(row, layer) if maps and row is not None and layer is not None else None

    def _href(self, n: int) -> str | None:
        """Return the address of the page of the error in row `n`, if there is such a row."""
        return error_href(int(self.ids[n])) if 0 <= n < len(self.ids) else None

    def _siblings(
        self, n: int, thumb: ErrorThumb, y_pred: int, maps: ShardMaps | None
    ) -> tuple[Exemplar, ...]:
        cam = self._cam(thumb.image_id, y_pred, self.fused, maps)
        place = {} if cam is None else self.neighbours.place_of(cam, thumb.pattern)
        look = self.neighbours.look_of(n, thumb.pattern)
        others = [x for x in self.siblings.get(thumb.pattern, ()) if x.image_id != thumb.image_id]
        return tuple(
            Exemplar(x, place.get(x.image_id), look.get(x.image_id)) for x in others[:N_EXEMPLARS]
        )

    def _packed_maps(
        self, image_id: int, explained: Sequence[ExplainedClass], maps: ShardMaps | None
    ) -> str | None:
        if maps is None or image_id not in self.data.pictures:
            return None
        rows = [maps.rows.get((image_id, item.index)) for item in explained]
        if any(row is None for row in rows):
            return None
        return maps.pack([row for row in rows if row is not None])

    def _scores(self, image_id: int, y_true: int, y_pred: int) -> tuple[ScoreRow, ...]:
        names = self.data.class_names
        rows = list(self.scores.get(image_id, ()))
        if rows and y_true not in [index for index, _ in rows]:
            p_true = self.rows[self.data.error_rows[image_id]]["p_true"]
            rows.append((y_true, p_true))
        return tuple(
            ScoreRow(
                names[index], single(score), round(100 * score, 2), index == y_true, index == y_pred
            )
            for index, score in rows
        )


def _last_layer(layers: Sequence[MapLayer]) -> int | None:
    """Return the position of the last layer that is not the fused map."""
    own = [n for n, layer in enumerate(layers) if not layer.is_fused]
    return own[-1] if own else None


def _fused_layer(layers: Sequence[MapLayer]) -> int | None:
    """Return the position of the fused map, which comes last."""
    return len(layers) - 1 if layers and layers[-1].is_fused else None


def _right_thumb(data: RunData, image_id: int) -> ImageThumb:
    """Return the card of a correct image, with its overlay if anything speaks for its class."""
    thumb = image_thumb(data, image_id)
    speaks = data.peaks.get((image_id, int(data.images["y_true"][image_id])), 0) > 0
    return replace(thumb, heat=heat_name(image_id) if speaks else None)


def _slices_of_images(data: RunData) -> dict[int, list[Link]]:
    """Return the confirmed slices that each error is in."""
    result: dict[int, list[Link]] = {}
    pages = {view.number: Link(view.name, view.href) for view in slice_views(data)}
    for number, (_, rows) in filtered_slices(data).items():
        for image_id in data.errors["image_id"].iloc[rows]:
            result.setdefault(int(image_id), []).append(pages[number])
    return result


def _targets_of_images(data: RunData) -> dict[int, list[Link]]:
    """Return the targets that name each image."""
    found = data.diagnosis
    pages = {
        str(target["id"]): Link(str(target["title"]), target_href(number_of(target["id"])))
        for target in found.targets
    }
    result: dict[int, list[Link]] = {}
    rows = found.target_images[["image_id", "target"]].dropna().drop_duplicates()
    for image_id, target in rows.itertuples(index=False, name=None):
        result.setdefault(int(image_id), []).append(pages[target])
    return result
