"""The files of each error, written shard by shard."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from report_fixture import SIDE, Sizes, write_run

from audit.report import images
from audit.report.error_files import write_errors
from audit.report.pages import PageWriter, make_environment
from audit.report.run_data import read_run, read_top_scores
from audit.report.views.patterns import pattern_views
from audit.report.views.thumbs import error_thumbs, heat_name, picture_name


@dataclass
class MemorySink:
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        assert name not in self.files, name
        self.files[name] = content


def write_all(folder, pictured=(), **options):
    """Return the files, the run's data and what was called as progress."""
    data, sink, seen = read_run(folder), MemorySink(), []
    write_errors(
        folder,
        data,
        pattern_views(data),
        set(pictured),
        PageWriter(sink, make_environment()),
        layer_detail=14,
        progress=lambda done, n_all: seen.append((done, n_all)),
        **options,
    )
    return sink.files, data, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), ("cats", "dogs"), Sizes(200, 60, 5))


@pytest.fixture(scope="module")
def written(folder):
    return write_all(folder, pictured={0})


def errors_of(data):
    return error_thumbs(data, range(len(data.errors)))


def test_every_error_has_its_page_its_picture_and_its_overlay(written):
    files, data, seen = written
    thumbs = errors_of(data)
    assert {name for name in files if name.startswith("errors/")} == {x.href for x in thumbs}
    assert all(x.photo in files and (x.heat is None or x.heat in files) for x in thumbs)
    assert [done for done, _ in seen] == list(range(1, 61)) and {n for _, n in seen} == {60}


def test_every_picture_on_the_pages_is_there(written):
    files, _, _ = written
    pages = [content.decode() for name, content in files.items() if name.endswith(".html")]
    shown = {name for page in pages for name in re.findall(r'src="\.\./(images/[^"]+)"', page)}
    assert len(shown) > 100 and shown <= files.keys()


def test_the_overlay_is_the_fused_map_on_the_scale_of_both_classes(folder, written):
    files, data, _ = written
    fused = folder.read_fused().set_index(["image_id", "explained_class"])
    for row in data.errors.itertuples():
        peaks = [data.peaks[row.image_id, c] for c in (row.y_pred, row.y_true)]
        name = heat_name(row.image_id)
        assert (name in files) == (peaks[0] > 0)
        if peaks[0] > 0:
            cam = fused.loc[(row.image_id, row.y_pred), "cam"]
            expected = images.heat_picture(cam, (SIDE, SIDE), peaks[0] / max(peaks))
            assert files[name] == expected


def test_other_images_get_their_picture_and_right_ones_near_an_error_their_overlay(written):
    files, data, _ = written
    errors = set(data.errors["image_id"].tolist())
    others = {n for n in data.pictures if n not in errors and picture_name(n) in files}
    assert 0 in others or 0 in errors
    for image_id in others - {0}:
        assert heat_name(image_id) in files


def test_crops_are_cut_for_the_pages_of_patterns(written):
    files, data, _ = written
    wanted = {crop.photo for pattern in pattern_views(data) for crop in pattern.crops}
    assert wanted and wanted == {name for name in files if "-crop" in name}
    for name in wanted:
        height, width = images.decode_picture(files[name]).shape[:2]
        assert height == width <= SIDE / 2


def test_pictures_are_made_smaller_on_request(folder):
    files, data, _ = write_all(folder, picture_side=40)
    for thumb in errors_of(data):
        assert images.decode_picture(files[thumb.photo]).shape == (40, 40, 3)


def test_an_error_without_maps_or_picture_still_has_its_page(tmp_path):
    folder = write_run(tmp_path / "run", ("cats", "dogs"), Sizes(200, 60, 3))
    folder.shard_path("explanations", 0).unlink()
    folder.shard_path("thumbnails", 1).unlink()
    files, data, seen = write_all(folder)
    thumbs = errors_of(data)
    assert {name for name in files if name.startswith("errors/")} == {x.href for x in thumbs}
    assert len(seen) == 60
    without_picture = [x for x in thumbs if x.photo is None]
    without_maps = [x for x in thumbs if x.photo and 'id="maps"' not in files[x.href].decode()]
    assert without_picture and without_maps
    assert all(x.heat is None for x in (*without_picture, *without_maps))


def test_top_scores_are_the_highest_in_order_and_ties_go_by_class(folder):
    found = read_top_scores(folder, {3, 9}, 8)
    predictions = folder.read_predictions(scores=True).set_index("image_id")
    assert sorted(found) == [3, 9]
    for image_id, pairs in found.items():
        scores = np.asarray(predictions.loc[image_id, "scores"])
        order = np.argsort(-scores, kind="stable")
        assert [index for index, _ in pairs] == order.tolist()
        assert [score for _, score in pairs] == scores[order].tolist()


def test_ties_among_many_classes_go_by_class():
    from audit.report.run_data import _highest

    # The three highest: 0.4, then two of the three 0.2, those that come first.
    scores = np.array([[0.2, 0.0, 0.4, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1, 0.1]], np.float32)
    assert _highest(scores, 3).tolist() == [[2, 0, 3], [0, 1, 2]]
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 9, (200, 50)).astype(np.float32)
    expected = np.argsort(-coarse, axis=1, kind="stable")[:, :8]
    assert (_highest(coarse, 8) == expected).all()
