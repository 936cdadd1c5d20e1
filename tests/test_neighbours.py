"""What an error is like: cosines worked out by hand, then held against scikit-learn's."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from report_fixture import Sizes, write_run
from sklearn.metrics.pairwise import cosine_similarity

from audit.report.neighbours import (
    N_EXEMPLARS,
    N_NEAREST,
    Neighbours,
    map_likeness,
    pick_nearest,
    read_neighbours,
    unit_rows,
)
from audit.report.run_data import read_run
from audit.report.views.patterns import pattern_views
from audit.schemas import FOCUS_STAGE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("like"), ("cats", "dogs", "owls"), Sizes(300, 60, 3))


@pytest.fixture(scope="module")
def data(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def exemplars(data):
    return {x.number: [thumb.image_id for thumb in x.exemplars] for x in pattern_views(data)}


@pytest.fixture(scope="module")
def found(folder, data, exemplars):
    return read_neighbours(folder, data, exemplars)


def test_rows_become_of_length_one_and_unknown_ones_zero():
    rows = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 0], [0, -2]], np.float32)
    expected = [[0.6, 0.8], [0, 0], [0, 0], [0, 0], [0, -1]]
    np.testing.assert_allclose(unit_rows(rows), expected, atol=1e-7)


def test_two_of_each_class_are_picked_by_falling_cosine():
    # Columns 0, 1, 2 are of class 5, columns 3, 4 of class 7; the error is a 5 taken for a 7.
    cosines = np.array([[0.1, 0.9, 0.5, 0.2, 0.8]], np.float32)
    picked = pick_nearest(cosines, np.array([5, 5, 5, 7, 7]), np.array([[5, 5, 7, 7]]))
    assert picked.tolist() == [[1, 2, 4, 3]]


def test_where_a_class_has_too_few_the_nearest_of_the_others_come_in():
    # Class 5 has one column, class 7 none; of what is left, column 3 is nearest, then column 0.
    cosines = np.array([[0.3, -0.5, 0.1, 0.6]], np.float32)
    picked = pick_nearest(cosines, np.array([9, 5, 9, 8]), np.array([[5, 5, 7, 7]]))
    assert picked.tolist() == [[1, 3, 0, 2]]
    few = pick_nearest(cosines[:, :2], np.array([9, 5]), np.array([[5, 5, 7, 7]]))
    assert few.tolist() == [[1, 0, -1, -1]]
    none = pick_nearest(np.empty((1, 0), np.float32), np.empty(0, int), np.array([[5, 5, 7, 7]]))
    assert none.tolist() == [[-1, -1, -1, -1]]


def test_equal_cosines_go_to_the_first_column_and_the_input_stays():
    cosines = np.full((2, 3), 0.5, np.float32)
    picked = pick_nearest(cosines, np.array([1, 1, 2]), np.array([[1, 1, 2, 2], [2, 2, 1, 1]]))
    assert picked.tolist() == [[0, 1, 2, -1], [2, -1, 0, 1]]
    assert (cosines == 0.5).all()


def test_two_maps_are_alike_by_their_cosine():
    # (3, 0, 0, 4) and (3, 0, 0, 0): 9 / (5 · 3) = 0.6. Nothing in common: 0. The same: 1.
    fused = np.array([[3, 0], [0, 4]], np.uint8)
    assert map_likeness(np.array([[3, 0], [0, 0]], np.uint8), fused) == pytest.approx(0.6)
    assert map_likeness(np.array([[0, 9], [7, 0]], np.uint8), fused) == 0
    assert map_likeness(fused * 9, fused) == pytest.approx(1)
    assert map_likeness(np.zeros((2, 2), np.uint8), fused) is None


def test_a_coarse_map_is_enlarged_to_the_grid_of_the_fused_one():
    # One pixel is spread evenly over four: (1, 1, 1, 1) · (1, 0, 0, 0) / 2 = 0.5.
    assert map_likeness(
        np.array([[200]], np.uint8), np.array([[9, 0], [0, 0]], np.uint8)
    ) == pytest.approx(0.5)


def test_likeness_of_place_is_that_of_the_exemplars_that_have_a_map():
    cams = {4: np.array([0.6, 0.8], np.float32), 5: np.array([0, 1], np.float32)}
    like = Neighbours(exemplars={1: (4, 9, 5)}, cams=cams)
    place = like.place_of(np.array([[40, 0]], np.uint8), 1)
    assert place == {4: pytest.approx(0.6), 5: 0}
    assert like.place_of(np.zeros((1, 2), np.uint8), 1) == {}
    assert like.place_of(np.array([[40, 0]], np.uint8), 2) == {}


def test_the_nearest_correct_images_are_those_scikit_learn_finds(folder, data, found):
    ids, vectors = folder.read_embeddings()
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    focus = folder.read_table("focus")
    right = focus[(focus["role"] == "control") & focus["is_predicted"]]
    right = right.sort_values("image_id")
    columns, labels = right["image_id"].to_numpy(), right["y_true"].to_numpy()
    cosines = cosine_similarity(centred[data.errors["image_id"]], centred[columns])
    assert (ids == np.arange(len(ids))).all()
    assert found.n_right == len(columns) == 60
    for row, (y_true, y_pred) in enumerate(data.errors[["y_true", "y_pred"]].to_numpy()):
        expected = []
        for index in (y_true, y_pred):
            own = np.flatnonzero(labels == index)
            expected += own[np.argsort(-cosines[row, own])][:2].tolist()
        shown = found.nearest_of(row)
        assert [image_id for image_id, _ in shown] == columns[expected].tolist()
        assert [value for _, value in shown] == pytest.approx(cosines[row, expected], abs=1e-5)


def test_likeness_of_look_is_scikit_learns(folder, data, exemplars, found):
    table = pd.concat(folder.iter_shards(FOCUS_STAGE), ignore_index=True)
    vectors = np.stack(table["embedding"].to_list()).astype(np.float64)
    known = vectors.any(axis=1)
    vectors -= vectors[known].mean(axis=0)
    keys = zip(table["image_id"], table["explained_class"], strict=True)
    rows = {key: n for n, key in enumerate(keys) if known[n]}
    predicted = dict(zip(data.errors["image_id"], data.errors["y_pred"], strict=True))
    n_checked = 0
    for row, error in enumerate(data.errors.itertuples()):
        look = found.look_of(row, error.pattern)
        chosen = list(exemplars.get(error.pattern, ())[: N_EXEMPLARS + 1])
        own = rows.get((error.image_id, error.y_pred))
        if own is None or not chosen:
            assert look == {}
            continue
        expected = cosine_similarity(
            vectors[[own]], vectors[[rows[i, predicted[i]] for i in chosen]]
        )
        assert list(look) == chosen
        assert list(look.values()) == pytest.approx(expected[0], abs=1e-5)
        n_checked += len(chosen)
    assert n_checked > 100


def test_likeness_of_place_is_scikit_learns(folder, data, exemplars, found):
    fused = folder.read_fused().set_index(["image_id", "explained_class"])["cam"]
    predicted = dict(zip(data.errors["image_id"], data.errors["y_pred"], strict=True))
    error = data.errors[data.errors["pattern"] == 1].iloc[-1]
    own = fused[error["image_id"], error["y_pred"]]
    others = [fused[i, predicted[i]].reshape(-1) for i in exemplars[1][: N_EXEMPLARS + 1]]
    expected = cosine_similarity(own.reshape(1, -1).astype(float), np.stack(others).astype(float))
    assert list(found.place_of(own, 1).values()) == pytest.approx(expected[0], abs=1e-5)


def test_an_error_that_is_an_exemplar_is_wholly_like_itself(data, exemplars, found):
    first = exemplars[1][0]
    row = data.error_rows[first]
    assert found.look_of(row, 1)[first] == pytest.approx(1, abs=1e-5)


def test_the_correct_images_on_pages_are_known_and_have_pictures(data, found):
    assert found.shown() == set(found.nearest[found.nearest >= 0].tolist())
    assert found.shown() <= set(data.pictures) - set(data.error_rows)
    assert found.nearest.shape == (len(data.errors), N_NEAREST)


def test_a_run_without_features_has_no_neighbours(tmp_path):
    folder = write_run(tmp_path / "run", ("cats", "dogs"), Sizes(60, 12, 2), explained=False)
    data = read_run(folder)
    found = read_neighbours(folder, data, {})
    assert (found.n_right, found.nearest_of(0), found.shown()) == (0, [], set())
    assert found.look_of(0, 1) == {}


def test_errors_whose_features_are_not_known_have_no_neighbours(folder, data, exemplars):
    some = dataclasses.replace(data, errors=data.errors.iloc[:0])
    found = read_neighbours(folder, some, exemplars)
    assert found.nearest.shape == (0, N_NEAREST)
    assert found.shown() == set()
