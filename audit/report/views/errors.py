"""The page of each error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.report.maps import LAYER_DETAIL, MapLayer, ShardMaps, pack_layers
from audit.report.run_data import RunData
from audit.report.views.causes import TreatmentRow, Trials, treatment_rows
from audit.report.views.findings import number_of, target_href
from audit.report.views.parts import Site, make_site
from audit.report.views.slices import filtered_slices, slice_views
from audit.report.views.thumbs import (
    ErrorThumb,
    error_thumbs,
    picture_name,
    single,
)
from audit.schemas import records

N_TOP_SCORES = 8
N_SIBLINGS = 6


@dataclass(frozen=True)
class Link:
    """A page of the report by name."""

    name: str
    href: str


@dataclass(frozen=True)
class ExplainedClass:
    """A class whose map the page shows: the predicted or the true one.

    `share` is the fused map's peak as a share of the larger of the two, 0 if nothing speaks for it.
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
class ErrorPage:
    """One error. `maps` is the data of the viewer, `None` if the error was not explained."""

    site: Site
    thumb: ErrorThumb
    position: int
    p_true: float
    margin: float
    previous: ErrorThumb | None
    next: ErrorThumb | None
    explained: tuple[ExplainedClass, ...]
    last_heat: str | None
    last_layer: MapLayer | None
    n_layers: int
    maps: Mapping[str, Any] | None
    scores: tuple[ScoreRow, ...]
    n_classes: int
    metadata: tuple[tuple[str, Any], ...]
    pattern_href: str | None
    siblings: tuple[ErrorThumb, ...]
    treatments: tuple[TreatmentRow, ...]
    slices: tuple[Link, ...]
    targets: tuple[Link, ...]


@dataclass(frozen=True)
class ErrorPageMaker:
    """Makes pages of errors one at a time, from what all of them share."""

    data: RunData
    rows: Sequence[Mapping[str, Any]]
    layers: Sequence[MapLayer]
    scores: Mapping[int, tuple[tuple[int, float], ...]]
    thumbs: Sequence[ErrorThumb]
    positions: Mapping[int, int]
    siblings: Mapping[int, Sequence[ErrorThumb]]
    packed_layers: str
    metadata: Sequence[tuple[tuple[str, Any], ...]]
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
    ) -> "ErrorPageMaker":
        """Prepare what the pages share.

        Args:
            data: the run.
            layers: of the maps, fused last.
            scores: the highest scores by image id.
            siblings: the exemplars by pattern.
        """
        thumbs = error_thumbs(data, range(len(data.errors)))
        positions = {thumb.image_id: n for n, thumb in enumerate(thumbs)}
        metadata = [tuple(row.items()) for row in records(data.metadata)]
        return cls(
            data=data,
            rows=data.error_records,
            layers=layers,
            scores=scores,
            thumbs=thumbs,
            positions=positions,
            siblings=siblings,
            packed_layers=pack_layers(layers),
            metadata=metadata,
            trials=Trials.of(data.diagnosis.causes),
            slices=_slices_of_images(data),
            targets=_targets_of_images(data),
        )

    def page(self, image_id: int, maps: ShardMaps | None) -> ErrorPage:
        """Return the page of one error; `maps` holds its shard, or is `None` if it has no maps."""
        n = self.positions[image_id]
        row, thumb = self.rows[n], self.thumbs[n]
        explained = self._explained(image_id, int(row["y_true"]), int(row["y_pred"]))
        last = _last_layer(self.layers)
        siblings = [x for x in self.siblings.get(thumb.pattern, ()) if x.image_id != image_id]
        return ErrorPage(
            site=make_site(self.data),
            thumb=thumb,
            position=n + 1,
            p_true=single(row["p_true"]),
            margin=single(row["margin"]),
            previous=self.thumbs[n - 1] if n > 0 else None,
            next=self.thumbs[n + 1] if n + 1 < len(self.thumbs) else None,
            explained=explained,
            last_heat=self._last_heat(image_id, int(row["y_pred"]), maps),
            last_layer=self.layers[last] if last is not None else None,
            n_layers=len(self.layers),
            maps=self._map_data(image_id, explained, maps),
            scores=self._scores(image_id, int(row["y_true"]), int(row["y_pred"])),
            n_classes=len(self.data.class_names),
            metadata=self.metadata[n],
            pattern_href=f"pattern-{thumb.pattern}.html" if thumb.pattern else None,
            siblings=tuple(siblings[:N_SIBLINGS]),
            treatments=treatment_rows(
                self.trials.of_image(image_id), int(row["y_true"]), self.data.class_names
            ),
            slices=tuple(self.slices.get(image_id, ())),
            targets=tuple(self.targets.get(image_id, ())),
        )

    def _explained(self, image_id: int, y_true: int, y_pred: int) -> tuple[ExplainedClass, ...]:
        chosen = (("predicted", y_pred), ("true", y_true))
        peaks = {role: self.data.peaks.get((image_id, index), 0.0) for role, index in chosen}
        largest = max(peaks.values()) or 1.0
        has_picture = image_id in self.data.pictures
        return tuple(
            ExplainedClass(
                index=index,
                role=role,
                name=self.data.class_names[index],
                heat=picture_name(image_id, role) if peaks[role] > 0 and has_picture else None,
                share=peaks[role] / largest,
            )
            for role, index in chosen
        )

    def _last_heat(self, image_id: int, y_pred: int, maps: ShardMaps | None) -> str | None:
        row = maps.rows.get((image_id, y_pred)) if maps else None
        last = _last_layer(self.layers)
        if maps is None or row is None or last is None or image_id not in self.data.pictures:
            return None
        return picture_name(image_id, "last") if maps.peaks[row, last] > 0 else None

    def _map_data(
        self, image_id: int, explained: Sequence[ExplainedClass], maps: ShardMaps | None
    ) -> Mapping[str, Any] | None:
        if maps is None or image_id not in self.data.pictures:
            return None
        rows = [maps.rows.get((image_id, item.index)) for item in explained]
        if any(row is None for row in rows):
            return None
        return {
            "detail": LAYER_DETAIL,
            "roles": [item.role for item in explained],
            "layers": self.packed_layers,
            "maps": maps.pack([row for row in rows if row is not None]),
        }

    def _scores(self, image_id: int, y_true: int, y_pred: int) -> tuple[ScoreRow, ...]:
        names = self.data.class_names
        rows = list(self.scores.get(image_id, ()))
        if rows and y_true not in [index for index, _ in rows]:
            p_true = self.rows[self.positions[image_id]]["p_true"]
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
