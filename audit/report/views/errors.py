"""The gallery of all errors and the page of each error."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.formats import legible
from audit.report.maps import LAYER_DETAIL, MapLayer, ShardMaps, pack_layers
from audit.report.run_data import RunData, records
from audit.report.views.parts import (
    ErrorThumb,
    Site,
    error_thumbs,
    make_site,
    pattern_names,
    picture_name,
    single,
)

PAGE_SIZE = 200
N_TOP_SCORES = 8
N_SIBLINGS = 6


@dataclass(frozen=True)
class Choice:
    """One entry of a filter."""

    value: int
    name: str
    count: int


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery. The first carries `data`, all errors in columns, to filter."""

    site: Site
    number: int
    n_pages: int
    thumbs: tuple[ErrorThumb, ...]
    first: int
    true_classes: tuple[Choice, ...]
    predicted_classes: tuple[Choice, ...]
    patterns: tuple[Choice, ...]
    n_outside_patterns: int
    data: Mapping[str, Any] | None

    @property
    def last(self) -> int:
        return self.first + len(self.thumbs) - 1


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


def gallery_pages(data: RunData) -> Iterator[GalleryPage]:
    """Yield the pages of the gallery in order; there is one even when there is no error."""
    n_pages = max(1, math.ceil(len(data.errors) / PAGE_SIZE))
    site, names = make_site(data), pattern_names(data)
    true_classes = _choices(data.errors["y_true"], data.class_names)
    predicted_classes = _choices(data.errors["y_pred"], data.class_names)
    in_pattern = data.errors.loc[data.errors["pattern"] > 0, "pattern"]
    for number in range(1, n_pages + 1):
        first = (number - 1) * PAGE_SIZE
        yield GalleryPage(
            site=site,
            number=number,
            n_pages=n_pages,
            thumbs=tuple(error_thumbs(data, data.errors.iloc[first : first + PAGE_SIZE])),
            first=first + 1,
            true_classes=true_classes,
            predicted_classes=predicted_classes,
            patterns=_choices(in_pattern, names),
            n_outside_patterns=len(data.errors) - len(in_pattern),
            data=_gallery_data(data) if number == 1 else None,
        )


def gallery_file(number: int) -> str:
    return "errors.html" if number == 1 else f"errors-{number}.html"


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
        thumbs = error_thumbs(data, data.errors)
        positions = {thumb.image_id: n for n, thumb in enumerate(thumbs)}
        rows = records(data.errors)
        metadata = [tuple(row.items()) for row in records(data.metadata)]
        return cls(
            data, rows, layers, scores, thumbs, positions, siblings, pack_layers(layers), metadata
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


def _choices(values: pd.Series, names: Mapping[int, str] | Sequence[str]) -> tuple[Choice, ...]:
    counts = values.value_counts().sort_index()
    pairs = zip(counts.index.tolist(), counts.tolist(), strict=True)
    return tuple(Choice(value, names[value], count) for value, count in pairs)


def _gallery_data(data: RunData) -> dict[str, Any]:
    """Return every error in columns, names once; `pictures` is 0 none, 1 picture, 2 overlay too."""
    errors = data.errors
    pictures = [
        int(image_id in data.pictures) + int(data.peaks.get((image_id, y_pred), 0) > 0)
        for image_id, y_pred in zip(errors["image_id"], errors["y_pred"], strict=True)
    ]
    return {
        "classes": [legible(name) for name in data.class_names],
        "patterns": {number: legible(name) for number, name in pattern_names(data).items()},
        "id": errors["image_id"].tolist(),
        "true": errors["y_true"].tolist(),
        "predicted": errors["y_pred"].tolist(),
        "confidence": [single(value) for value in errors["p_pred"]],
        "pattern": errors["pattern"].tolist(),
        "pictures": pictures,
        "path": [legible(path) for path in errors["path"]],
    }
