"""Writes what is there for each error: its page and its pictures, shard by shard.

In: shards of `thumbnails` and `explanations`, side by side. Out: a page per error; what the model
saw, of errors and of the other images that pages show; overlays; crops for the pages of patterns.
No more than a shard is in memory at a time, so that memory does not grow with the errors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from audit.report import images
from audit.report.maps import MapLayer, ShardMaps, map_layers, pack_layers, shard_maps
from audit.report.neighbours import read_neighbours
from audit.report.pages import PageWriter
from audit.report.run_data import RunData, read_top_scores
from audit.report.views.errors import N_TOP_SCORES, ErrorPage, ErrorPageMaker
from audit.report.views.patterns import PatternView
from audit.report.views.thumbs import heat_name, picture_name
from audit.run_folder import RunFolder

Progress = Callable[[int, int], None]

_MAP_COLUMNS = ("image_id", "explained_class", "layer", "peak", "cam")


@dataclass(frozen=True)
class Shard:
    """A shard of explained images: JPEG without metadata by image id, and their maps, if any."""

    pictures: Mapping[int, bytes]
    maps: ShardMaps | None

    def fused(self, image_id: int, explained_class: int) -> images.Pixels | None:
        """Return a fused map, uint8 of shape (height, width), or `None` if there is none."""
        row = self.maps.rows.get((image_id, explained_class)) if self.maps else None
        if self.maps is None or row is None or not self.maps.layers[-1].is_fused:
            return None
        return self.maps.cam(row, len(self.maps.layers) - 1)


def write_errors(
    folder: RunFolder,
    data: RunData,
    found: Sequence[PatternView],
    pictured: set[int],
    writer: PageWriter,
    *,
    layer_detail: int,
    picture_side: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of every error, and all pictures of images.

    Args:
        folder: the run.
        data: what was read of it.
        found: the patterns.
        pictured: ids of images that other pages show.
        writer: takes pages and pictures.
        layer_detail: pixels on the longer side of a layer's map on a page.
        picture_side: pixels of the longer side that pictures are made smaller to, if not `None`.
        progress: called with (errors done, errors in all) after every page of an error.
    """
    left = set(data.errors["image_id"].tolist())
    n_all = len(left)
    layers = map_layers(data.layers, layer_detail) if data.is_explained else ()
    exemplars = {pattern.number: pattern.exemplars for pattern in found}
    crops = {crop.thumb.image_id: crop.photo for pattern in found for crop in pattern.crops}
    neighbours = read_neighbours(
        folder,
        data,
        {number: [thumb.image_id for thumb in thumbs] for number, thumbs in exemplars.items()},
    )
    scores = read_top_scores(folder, left, N_TOP_SCORES)
    maker = ErrorPageMaker.build(data, layers, scores, exemplars, neighbours)
    writer.write_script("layers.js", layers=pack_layers(layers))
    right = neighbours.shown()

    def write(image_id: int, maps: ShardMaps | None) -> ErrorPage:
        page = maker.page(image_id, maps)
        writer.write(page.thumb.href, "error.html", page)
        left.discard(image_id)
        if progress is not None:
            progress(n_all - len(left), n_all)
        return page

    for shard in _iter_shards(folder, layers, left | right, pictured, picture_side):
        for image_id, jpeg in shard.pictures.items():
            writer.sink.write(picture_name(image_id), jpeg)
        for image_id in sorted({image_id for image_id, _ in shard.maps.rows} if shard.maps else ()):
            if image_id in left:
                page = write(image_id, shard.maps)
                _write_heat(page, shard, writer, crops.get(image_id))
            elif image_id in right:
                _write_right_heat(data, image_id, shard, writer)
    for image_id in sorted(left):
        write(image_id, None)


def _iter_shards(
    folder: RunFolder,
    layers: Sequence[MapLayer],
    explained: set[int],
    pictured: set[int],
    picture_side: int | None,
) -> Iterator[Shard]:
    """Yield what the shards hold of the images that pages show."""
    with_pictures = set(folder.shard_indices("thumbnails"))
    with_maps = set(folder.shard_indices("explanations")) if layers else set()
    shown = explained | pictured
    for index in sorted(with_pictures | with_maps):
        pictures, maps = {}, None
        if index in with_pictures:
            table = folder.read_shard_table("thumbnails", index, ("image_id", "jpeg"))
            jpegs = table["jpeg"]
            for row, image_id in enumerate(table["image_id"].to_pylist()):
                if image_id in shown:
                    pictures[image_id] = _shown_picture(jpegs[row].as_py(), picture_side)
        if index in with_maps:
            table = folder.read_shard_table("explanations", index, _MAP_COLUMNS)
            maps = shard_maps(table, layers, explained)
        yield Shard(pictures, maps)


def _shown_picture(jpeg: bytes, side: int | None) -> bytes:
    """Return a stored picture as reports show it: without metadata, no larger than asked for."""
    return images.strip_metadata(jpeg) if side is None else images.fit_picture(jpeg, side)


def _write_heat(page: ErrorPage, shard: Shard, writer: PageWriter, crop: str | None) -> None:
    """Write the overlay of the predicted class and, with `crop` as a name, what lies under it."""
    thumb, predicted = page.thumb, page.explained[0]
    cam = shard.fused(thumb.image_id, predicted.index)
    if thumb.heat is None or cam is None:
        return
    size = (thumb.height, thumb.width)
    writer.sink.write(thumb.heat, images.heat_picture(cam, size, predicted.share))
    if crop is not None:
        picture = images.decode_picture(shard.pictures[thumb.image_id])
        writer.sink.write(crop, images.focus_crop(picture, cam))


def _write_right_heat(data: RunData, image_id: int, shard: Shard, writer: PageWriter) -> None:
    """Write the overlay of a correct image, for its own class, if anything speaks for it."""
    own = int(data.images["y_true"][image_id])
    cam, size = shard.fused(image_id, own), data.pictures.get(image_id)
    if cam is not None and size and data.peaks.get((image_id, own), 0) > 0:
        writer.sink.write(heat_name(image_id), images.heat_picture(cam, size))
