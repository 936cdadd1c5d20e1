"""Planted focus patterns are found again, by look and by place; noise is not called a pattern."""

import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_maps import (
    ANYWHERE,
    CENTRE,
    CLASS_NAMES,
    CORNER,
    LEFT,
    RIGHT,
    SIDE,
    draw_all,
    make_looks,
    make_run,
    planted,
)
from sklearn.metrics import adjusted_rand_score

from audit.diagnose import pattern_search
from audit.diagnose.pattern_clusters import sketch_maps
from audit.diagnose.patterns import SCHEMA, find_patterns, lift_interval
from audit.explain.focus import FEATURES
from audit.run_folder import RunFolder, to_arrow


@pytest.fixture(scope="module")
def three_kinds():
    truth = planted([40, 30, 26, 0])
    controls = draw_all(planted([4, 0, 36, 20]), seed=1)
    focus, fused = make_run(draw_all(truth), controls)
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    return truth, focus, fused, patterns, pattern


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_patterns_are_found(noise, seed):
    truth = planted([40, 30, 26, 0])
    focus, fused = make_run(draw_all(truth, noise=noise, seed=seed))
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    assert len(patterns) == 3
    assert adjusted_rand_score(truth, pattern) >= 0.9
    assert (patterns["stability"] >= 0.8).all()


def test_small_pattern_is_found_beside_large_ones():
    truth = planted([60, 6, 40, 0])
    focus, fused = make_run(draw_all(truth))
    _, pattern = find_patterns(focus, fused, CLASS_NAMES)
    assert adjusted_rand_score(truth, pattern) >= 0.9
    assert len(set(pattern[truth == CORNER])) == 1
    assert (pattern[truth == CORNER] > 0).all()


def test_planted_patterns_stand_out_from_scattered_maps():
    truth = planted([40, 0, 30, 30])
    focus, fused = make_run(draw_all(truth))
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    known = truth != ANYWHERE
    assert adjusted_rand_score(truth[known], pattern[known]) >= 0.9
    assert (pattern[~known] == -1).mean() >= 0.25
    for exemplars in patterns["exemplars"][:2]:  # the two planted ones are the largest
        kinds = truth[focus["image_id"].isin(exemplars)]
        assert (kinds == np.bincount(kinds).argmax()).mean() >= 0.8


def test_one_place_is_one_pattern():
    focus, fused = make_run(draw_all(planted([60, 0, 0, 0]), noise=0.6))
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    assert patterns["name"].tolist() == ["left edge, upright"]
    assert (pattern == 1).mean() >= 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_no_pattern(seed):
    maps = np.random.default_rng(seed).integers(0, 256, (100, SIDE, SIDE), np.uint8)
    patterns, pattern = find_patterns(*make_run(list(maps)), CLASS_NAMES)
    assert len(patterns) == 0
    assert (pattern == -1).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scattered_maps_give_no_strong_structure(seed):
    maps = draw_all(planted([0, 0, 0, 100]), noise=0.2, seed=seed)
    patterns, _ = find_patterns(*make_run(maps), CLASS_NAMES)
    assert len(patterns) <= 5
    assert (patterns["n_errors"] <= 60).all()


def test_columns_hold_what_they_say(three_kinds):
    _, focus, fused, patterns, pattern = three_kinds
    assert list(patterns.columns) == SCHEMA.names
    assert patterns["pattern"].tolist() == [1, 2, 3]
    assert patterns["n_errors"].tolist() == sorted(patterns["n_errors"], reverse=True)
    assert patterns["name"].tolist() == [
        "left edge, upright",
        "lower right corner, small and round",
        "centre, round",
    ]
    assert set(patterns["verdict"]) == {"not tested"}
    is_error = (focus["role"] == "error").to_numpy()
    for row in patterns.itertuples():
        members = focus[is_error & (pattern == row.pattern)]
        assert row.n_errors == len(members)
        assert row.share_of_errors == len(members) / 96
        assert row.n_controls == (~is_error & (pattern == row.pattern)).sum()
        assert row.control_share == row.n_controls / 60
        assert row.area == pytest.approx(np.median(members["area"]))
        assert list(row.confusions) == [{"y_true": 0, "y_pred": 1, "count": row.n_errors}]
        assert len(row.exemplars) == len(set(row.exemplars)) == 10
        assert set(row.exemplars) <= set(members["image_id"])
        maps = np.stack(fused.set_index("image_id").loc[members["image_id"], "cam"].tolist())
        mean_map = np.frombuffer(row.mean_map, np.uint8).reshape(row.mean_height, row.mean_width)
        mean = (maps / 255).mean(axis=0)  # every map has its peak at 255
        np.testing.assert_array_equal(mean_map, np.round(255 * mean / mean.max()))


@pytest.fixture(scope="module")
def bars():
    """Cats called dogs look at a bar, at the left or right; some right dogs and cats do, too."""
    errors = [LEFT] * 14 + [RIGHT] * 10 + [ANYWHERE] * 16
    own, rivals = [LEFT] * 4 + [ANYWHERE] * 36, [RIGHT] * 2 + [ANYWHERE] * 38
    focus, fused = make_run(draw_all(errors), draw_all(own, seed=1), draw_all(rivals, seed=2))
    rng = np.random.default_rng(0)
    is_bar = np.isin(errors + own + rivals, [LEFT, RIGHT])
    vectors = rng.normal(size=(120, 30))
    vectors[is_bar] = 0.5 * vectors[is_bar] + rng.normal(size=30)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    looks = make_looks(fused, vectors, rng.normal(size=(120, 30)))
    return focus, fused, looks, *find_patterns(focus, fused, CLASS_NAMES, looks=looks)


def test_a_thing_at_two_places_is_one_pattern(bars):
    focus, _, _, patterns, pattern = bars
    row = patterns.iloc[0]
    assert row["kind"] == "look"
    assert row["name"] == "similar spots, either side"
    assert row["n_errors"] == 24
    assert row["share_of_errors"] == 24 / 40
    assert (row["n_controls"], row["control_share"]) == (4, 4 / 40)
    assert (row["n_true_controls"], row["true_control_share"]) == (2, 2 / 40)
    assert row["lift"] == pytest.approx(6)
    assert row["lift_low"] < 6 < row["lift_high"]
    assert row["q_value"] < 1e-3
    # All maps are for dogs: of errors, of right dogs and, beside those for cats, of right cats.
    images = focus["image_id"][pattern == 1]
    assert set((images - 7) // 3) == {*range(24), *range(40, 44), *range(80, 82)}
    assert len(images) == 30
    assert (focus["explained_class"][pattern == 1] == 1).all()


def test_looks_do_not_depend_on_the_order_of_rows(bars):
    focus, fused, looks, patterns, pattern = bars
    shuffled = focus.sample(frac=1, random_state=3)
    mixed = fused.sample(frac=1, random_state=4)
    again, pattern_again = find_patterns(shuffled, mixed, CLASS_NAMES, looks=looks)
    pd.testing.assert_series_equal(pattern_again.sort_index(), pattern)
    assert to_arrow(again, None).equals(to_arrow(patterns, None))


def test_lift_compares_within_predicted_classes():
    """Of dogs called cats few look at it, and few right cats: no more and no less common."""
    left, other = [LEFT] * 12, [CENTRE] * 12
    errors = draw_all([*left, *other[:4], *[LEFT] * 4, *[CENTRE] * 20], noise=0.1)
    controls = draw_all([*[LEFT] * 6, *[CENTRE] * 10], seed=1, noise=0.1)
    focus, fused = make_run(errors, controls, y_true=[0] * 16 + [1] * 24)
    patterns, _ = find_patterns(focus, fused, CLASS_NAMES)
    row = patterns[patterns["name"].str.startswith("left")].iloc[0]
    # Only dogs have controls: 12 of 16 errors and 6 of 16 right dogs look there.
    assert row["n_errors"] == 16
    assert (row["n_controls"], row["control_share"]) == (6, 6 / 16)
    assert row["lift"] == pytest.approx(2)


def test_controls_are_placed_by_the_same_rule(three_kinds):
    _, _, _, patterns, pattern = three_kinds
    control = pattern.to_numpy()[96:]
    assert (control[:4] == 1).all()  # planted at the left
    assert (control[4:40] == 3).mean() >= 0.8  # planted in the centre
    left, corner, centre = patterns["lift"]
    assert left > 4 and corner > 4 and centre < 0.8
    assert (patterns["lift_low"] < patterns["lift"]).all()
    assert (patterns["lift"] < patterns["lift_high"]).all()


def test_first_exemplar_is_the_medoid(three_kinds):
    _, focus, fused, patterns, pattern = three_kinds
    members = ((focus["role"] == "error") & (pattern == 1)).to_numpy()
    sketches = sketch_maps(fused["cam"][members])
    medoid = np.argmax((sketches @ sketches.T).sum(axis=1))
    assert patterns["exemplars"][0][0] == focus["image_id"][members].iloc[medoid]


def test_order_of_rows_does_not_matter(three_kinds):
    _, focus, fused, patterns, pattern = three_kinds
    shuffled = focus.sample(frac=1, random_state=3)
    again, pattern_again = find_patterns(
        shuffled, fused.sample(frac=1, random_state=4), CLASS_NAMES
    )
    assert pattern_again.index.equals(shuffled.index)
    pd.testing.assert_series_equal(pattern_again.sort_index(), pattern)
    assert to_arrow(again, None).equals(to_arrow(patterns, None))


def test_same_input_gives_the_same_bytes(three_kinds, tmp_path):
    _, focus, fused, patterns, _ = three_kinds
    again, _ = find_patterns(focus, fused, CLASS_NAMES)
    for name, frame in (("a", patterns), ("b", again)):
        RunFolder(tmp_path).write_table(name, frame)
    first, second = (RunFolder(tmp_path).table_path(name).read_bytes() for name in "ab")
    assert first == second


def test_maps_of_the_true_class_do_not_matter(three_kinds):
    _, focus, fused, patterns, pattern = three_kinds
    errors = focus[focus["role"] == "error"]
    other = errors.assign(explained_class=0, is_predicted=False)
    other_maps = fused[: len(errors)].assign(explained_class=0)
    more_focus = pd.concat([other, focus], ignore_index=True)
    more_fused = pd.concat([other_maps, fused], ignore_index=True)
    again, pattern_again = find_patterns(more_focus, more_fused, CLASS_NAMES)
    assert (pattern_again[: len(other)] == -1).all()
    np.testing.assert_array_equal(pattern_again[len(other) :], pattern)
    assert to_arrow(again, None).equals(to_arrow(patterns, None))


def test_many_errors_are_searched_in_a_sample(monkeypatch):
    monkeypatch.setattr(pattern_search, "_SEARCH_AT_MOST", 60)
    truth = planted([200, 120, 80, 0])
    patterns, pattern = find_patterns(*make_run(draw_all(truth)), CLASS_NAMES)
    assert len(patterns) == 3
    assert adjusted_rand_score(truth, pattern) >= 0.85


def test_empty_maps_stay_outside():
    maps = draw_all(planted([20, 0, 0, 0]))
    maps += [np.zeros((SIDE, SIDE), np.uint8)] * 20
    patterns, pattern = find_patterns(*make_run(maps), CLASS_NAMES)
    assert (pattern[20:] == -1).all()
    assert patterns["n_errors"].sum() <= 20
    assert patterns["share_of_errors"].sum() <= 0.5


@pytest.mark.parametrize("n_errors", [0, 1, 4])
def test_too_few_errors_give_a_typed_empty_frame(n_errors, tmp_path):
    focus, fused = make_run(draw_all([LEFT] * n_errors), draw_all([LEFT] * 8))
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    assert (pattern == -1).all() and pattern.dtype == np.int32 and len(pattern) == n_errors + 8
    RunFolder(tmp_path).write_table("patterns", patterns)
    assert types_on_disk(tmp_path) == plain_types(SCHEMA)
    assert RunFolder(tmp_path).read_table("patterns").columns.tolist() == SCHEMA.names


def test_nothing_explained_at_all():
    focus, fused = make_run([])
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    assert len(patterns) == len(pattern) == 0


def test_round_trip_through_parquet(three_kinds, tmp_path):
    patterns = three_kinds[3]
    RunFolder(tmp_path).write_table("patterns", patterns)
    assert types_on_disk(tmp_path) == plain_types(SCHEMA)
    back = RunFolder(tmp_path).read_table("patterns")
    assert back["name"].tolist() == patterns["name"].tolist()
    assert [list(ids) for ids in back["exemplars"]] == [list(i) for i in patterns["exemplars"]]
    assert back["mean_map"].tolist() == patterns["mean_map"].tolist()
    assert dict(back["confusions"][0][0]) == patterns["confusions"][0][0]


def types_on_disk(path):
    return plain_types(pq.read_schema(RunFolder(path).table_path("patterns")))


def plain_types(schema):
    """List names and types; pandas may store a string as a large string, which reads the same."""
    names = {pa.large_string(): pa.string()}
    return [(field.name, names.get(field.type, field.type)) for field in schema]


@pytest.mark.parametrize("size", [7, 40])
def test_equal_maps_are_one_pattern_in_order_of_image_id(size):
    cam = draw_all([LEFT])[0]
    patterns, _ = find_patterns(*make_run([cam] * size), CLASS_NAMES)
    assert patterns["n_errors"].tolist() == [size]
    assert list(patterns["exemplars"][0]) == [7 + 3 * i for i in range(min(size, 10))]
    assert patterns["stability"][0] == 1


def test_without_controls_there_is_no_lift():
    patterns, _ = find_patterns(*make_run(draw_all([LEFT] * 20)), CLASS_NAMES)
    assert patterns["n_controls"].tolist() == [0]
    assert patterns[["control_share", "lift", "lift_low", "lift_high"]].isna().all(axis=None)


def test_confusions_are_counted_the_most_common_first():
    focus, fused = make_run(draw_all([LEFT] * 20, noise=0.1), y_true=[1] * 7 + [0] * 13)
    patterns, pattern = find_patterns(focus, fused, CLASS_NAMES)
    members = focus[pattern == 1]
    counts = members["y_true"].value_counts()
    assert [c["count"] for c in patterns["confusions"][0]] == [counts[0], counts[1]]
    assert [c["y_true"] for c in patterns["confusions"][0]] == [0, 1]


def test_orientation_of_a_pattern_is_a_direction():
    """Bars at 2 and at 178 degrees lie flat; their plain median, 90, would stand upright."""
    focus, fused = make_run(draw_all([LEFT] * 20, noise=0.05))
    focus["orientation"] = np.where(np.arange(20) % 2, 2, 178).astype(np.float32)
    patterns, _ = find_patterns(focus, fused, CLASS_NAMES)
    orientation = patterns["orientation"][0]
    assert min(orientation, 180 - orientation) < 2


def test_maps_of_different_sizes_share_a_pattern():
    maps = draw_all([LEFT] * 20)
    maps[::2] = [cv2.resize(cam, (28, 28), interpolation=cv2.INTER_AREA) for cam in maps[::2]]
    patterns, pattern = find_patterns(*make_run(maps), CLASS_NAMES)
    assert (pattern == 1).mean() >= 0.9
    assert patterns["mean_width"][0] in (28, 56)


def test_lift_interval_by_hand():
    # 20 of 100 errors, 10 of 100 controls: ratio 2, variance 1/20 - 1/100 + 1/10 - 1/100 = 0.13
    lift, low, high = lift_interval(20, 100, 10, 100)
    factor = np.exp(1.959964 * np.sqrt(0.13))
    assert (lift, low, high) == pytest.approx((2, 2 / factor, 2 * factor), rel=1e-6)


def test_lift_without_a_control_adds_half_to_each_cell():
    # 10.5 of 51 against 0.5 of 41
    lift, low, high = lift_interval(10, 50, 0, 40)
    assert lift == pytest.approx((10.5 / 51) / (0.5 / 41))
    assert 0 < low < lift < high < np.inf


def test_lift_when_everything_is_in_the_pattern():
    lift, low, high = lift_interval(50, 50, 50, 50)
    assert lift == pytest.approx(1)
    assert low < 1 < high


def test_lift_without_controls_is_nan():
    assert np.isnan(lift_interval(5, 10, 0, 0)).all()


def test_patterns_need_no_tensorflow():
    code = (
        "import sys, audit.diagnose.patterns;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_features_are_all_in_the_schema():
    assert set(FEATURES) <= set(SCHEMA.names)
