"""Focus features worked out on paper, and the table of them."""

import numpy as np
import pandas as pd
import pytest

from audit.explain.focus import FEATURES, describe_focus, describe_maps, focus_table

EVEN_SPREAD = 1 / np.sqrt(12)


def make_fused(rows):
    columns = ["image_id", "explained_class", "peak", "cam"]
    return pd.DataFrame(rows, columns=columns).astype({"peak": "float32"})


def make_explained(rows):
    return pd.DataFrame(rows, columns=["image_id", "role", "y_true", "y_pred"])


def random_maps(n, side=14, seed=0):
    maps = np.random.default_rng(seed).integers(0, 250, (n, side, side)).astype(np.uint8)
    maps[:, 3, 4] = 255
    return maps


def test_single_pixel():
    cam = np.zeros((8, 8), np.uint8)
    cam[2, 5] = 255
    focus = describe_focus(cam)
    assert list(focus) == list(FEATURES)
    assert focus["centre_x"] == pytest.approx(5.5 / 8)
    assert focus["centre_y"] == pytest.approx(2.5 / 8)
    assert focus["spread_x"] == pytest.approx(EVEN_SPREAD / 8)  # the pixel's own width
    assert focus["spread_y"] == pytest.approx(EVEN_SPREAD / 8)
    assert focus["area"] == 1 / 64
    assert focus["border_share"] == 0  # the frame is one pixel wide: 0.125 · 8
    assert focus["border_lift"] == 0
    assert focus["entropy"] == 0
    assert focus["concentration"] == 1
    assert focus["elongation"] == pytest.approx(1)
    assert np.isnan(focus["orientation"])
    assert focus["n_blobs"] == 1


@pytest.mark.parametrize("shape", [(8, 8), (56, 56), (7, 7), (5, 9), (4, 4)])
def test_even_map(shape):
    focus = describe_focus(np.full(shape, 200, np.uint8))
    assert focus["centre_x"] == pytest.approx(0.5)
    assert focus["centre_y"] == pytest.approx(0.5)
    assert focus["spread_x"] == pytest.approx(EVEN_SPREAD)
    assert focus["spread_y"] == pytest.approx(EVEN_SPREAD)
    assert focus["area"] == 1
    assert focus["border_share"] == pytest.approx(1 - 0.75**2)  # also where the frame cuts pixels
    assert focus["border_lift"] == pytest.approx(1)
    assert focus["entropy"] == pytest.approx(1)
    assert focus["concentration"] == pytest.approx(0.1)
    assert focus["n_blobs"] == 1
    if shape[0] == shape[1]:
        assert np.isnan(focus["orientation"])


def test_vertical_bar():
    cam = np.zeros((8, 8), np.float32)
    cam[:, 1] = 3.0
    focus = describe_focus(cam)
    assert focus["centre_x"] == pytest.approx(1.5 / 8)
    assert focus["centre_y"] == pytest.approx(0.5)
    assert focus["spread_x"] == pytest.approx(EVEN_SPREAD / 8)
    assert focus["spread_y"] == pytest.approx(EVEN_SPREAD)
    assert focus["area"] == 1 / 8
    assert focus["border_share"] == pytest.approx(2 / 8)  # its top and bottom pixels
    assert focus["border_lift"] == pytest.approx((2 / 8) / 0.4375)
    assert focus["entropy"] == pytest.approx(np.log(8) / np.log(64))
    assert focus["concentration"] == pytest.approx(6.4 / 8)  # a tenth of 64 pixels
    assert focus["elongation"] == pytest.approx(8)
    assert focus["orientation"] == pytest.approx(90)
    assert focus["n_blobs"] == 1


def test_flat_bar_of_two_rows():
    cam = np.zeros((12, 12), np.uint8)
    cam[4:6, 2:10] = 255
    focus = describe_focus(cam)
    assert focus["elongation"] == pytest.approx(8 / 2)
    assert focus["orientation"] == pytest.approx(0)


@pytest.mark.parametrize(("flip", "degrees"), [(True, 45), (False, 135)])
def test_orientation_is_counted_anticlockwise(flip, degrees):
    cam = np.eye(9, dtype=np.uint8) * 255  # falls to the right
    focus = describe_focus(cam[::-1] if flip else cam)
    assert focus["orientation"] == pytest.approx(degrees)
    assert focus["n_blobs"] == 1  # diagonal neighbours are connected


def test_two_blobs_and_a_speck():
    cam = np.zeros((16, 16), np.uint8)
    cam[1:5, 1:5] = 255
    cam[11:15, 11:15] = 255
    cam[1, 14] = 255  # 1 pixel of 16: under a tenth of a blob
    cam[8, 8] = 127  # under half the peak
    focus = describe_focus(cam)
    assert focus["n_blobs"] == 2
    assert focus["area"] == 33 / 256


def test_half_the_peak_counts():
    cam = np.array([[2.0, 1.0], [0.99, 0.0]])
    assert describe_focus(cam)["area"] == 2 / 4


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_empty_or_broken_map_gives_nan(bad):
    focus = describe_focus(np.full((6, 6), bad))
    assert all(np.isnan(value) for value in focus.values())


def test_scale_does_not_matter():
    cam = random_maps(1)[0]
    expected = describe_focus(cam)
    assert describe_focus(cam.astype(np.float64) * 1e-9) == pytest.approx(expected)


def test_resolution_does_not_matter():
    cam = random_maps(1, side=8)[0]
    coarse, fine = describe_focus(cam), describe_focus(np.kron(cam, np.ones((4, 4), np.uint8)))
    for name in ("centre_x", "centre_y", "area", "border_share", "orientation", "elongation"):
        assert fine[name] == pytest.approx(coarse[name]), name


def test_maps_do_not_touch_each_other():
    maps = random_maps(300)
    together = describe_maps(maps)
    for row in (0, 255, 256, 299):
        alone = describe_focus(maps[row])
        assert {name: values[row] for name, values in together.items()} == pytest.approx(alone)


def test_ranges():
    maps = np.concatenate([random_maps(50, seed=seed) // (seed + 1) ** 2 for seed in range(4)])
    described = describe_maps(maps)
    for name in ("centre_x", "centre_y", "area", "border_share", "entropy", "concentration"):
        assert (described[name] >= 0).all() and (described[name] <= 1).all(), name
    assert (described["elongation"] >= 1).all()
    turned = described["orientation"][np.isfinite(described["orientation"])]
    assert (turned >= 0).all() and (turned < 180).all()


def test_layers_agree_as_far_as_it_is_known_and_not_about_an_empty_map():
    maps = random_maps(3)
    fused = make_fused([(9, 1, 0.5, maps[0]), (4, 1, 0.0, maps[1]), (4, 0, 2.0, maps[2])])
    explained = make_explained([(9, "control", 1, 1), (4, "error", 0, 1)])
    # In the order of image and class: (4, 0), (4, 1), which is empty, and (9, 1).
    table = focus_table(fused, explained, np.array([0.5, 0.25, -1.0]))
    np.testing.assert_array_equal(table["layer_agreement"], np.float32([0.5, np.nan, -1]))
    assert table["layer_agreement"].dtype == np.float32
    assert focus_table(fused, explained)["layer_agreement"].isna().all()


def test_table_has_a_sorted_row_per_map():
    maps = random_maps(3)
    fused = make_fused([(9, 1, 0.5, maps[0]), (4, 1, 2.0, maps[1]), (4, 0, 2.0, maps[2])])
    explained = make_explained([(9, "control", 1, 1), (4, "error", 0, 1)])
    table = focus_table(fused, explained)
    assert list(table.columns) == [
        *["image_id", "explained_class", "role", "y_true", "y_pred", "is_predicted", "is_empty"],
        "empty_because",
        *FEATURES,
        "agreement",
        "layer_agreement",
    ]
    assert table["image_id"].tolist() == [4, 4, 9]
    assert table["explained_class"].tolist() == [0, 1, 1]
    assert table["role"].tolist() == ["error", "error", "control"]
    assert table["is_predicted"].tolist() == [False, True, True]
    assert not table["is_empty"].any()
    assert all(table[name].dtype == np.float32 for name in (*FEATURES, "agreement"))
    expected = describe_focus(maps[1])
    assert table.loc[1, list(FEATURES)].astype(float).to_dict() == pytest.approx(expected, rel=1e-6)


def test_order_of_rows_does_not_matter():
    maps = random_maps(40)
    fused = make_fused([(i // 2, i % 2, 1.0, maps[i]) for i in range(40)])
    explained = make_explained([(i, "error", 0, 1) for i in range(20)])
    shuffled = focus_table(fused.sample(frac=1, random_state=1), explained[::-1])
    pd.testing.assert_frame_equal(focus_table(fused, explained), shuffled)


def test_agreement_of_the_two_maps_of_an_error():
    left = np.array([[255, 0], [255, 0]], np.uint8)
    rows = [(0, 0, 1.0, left), (0, 1, 3.0, left), (1, 0, 1.0, left), (1, 1, 1.0, 255 - left)]
    rows += [(2, 0, 1.0, left), (2, 1, 1.0, left.T), (3, 0, 1.0, left)]
    errors = [(image_id, "error", 0, 1) for image_id in range(3)]
    table = focus_table(make_fused(rows), make_explained([*errors, (3, "control", 0, 0)]))
    expected = [1, 1, -1, -1, 0, 0, np.nan]
    np.testing.assert_allclose(table["agreement"], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("peak", "level", "because"),
    [
        (0.0, 0, "nothing speaks for the class"),
        (np.nan, 0, "not finite"),
        (np.inf, None, "not finite"),
        (-3.0, 0, "the same everywhere"),  # as they are stored
        (1.0, 255, "the same everywhere"),
    ],
)
def test_empty_maps_are_flagged_with_the_reason_and_hold_no_numbers(peak, level, because):
    good = random_maps(1)[0]
    cam = good if level is None else np.full_like(good, level)
    fused = make_fused([(0, 0, 1.0, good), (0, 1, peak, cam)])
    table = focus_table(fused, make_explained([(0, "error", 0, 1)]))
    assert table["is_empty"].tolist() == [False, True]
    assert table["empty_because"].tolist() == ["", because]
    assert table.loc[1, list(FEATURES)].isna().all()
    assert table.loc[0, "area"] > 0
    assert table["agreement"].isna().all()


def test_maps_of_different_sizes():
    small, large = random_maps(1, side=7)[0], random_maps(1, side=14)[0]
    fused = make_fused([(0, 0, 1.0, small), (1, 0, 1.0, large)])
    table = focus_table(fused, make_explained([(i, "control", 0, 0) for i in range(2)]))
    assert table["entropy"].tolist() == pytest.approx(
        [describe_focus(small)["entropy"], describe_focus(large)["entropy"]]
    )


def test_nothing_explained():
    table = focus_table(make_fused([]), make_explained([]))
    assert len(table) == 0
    assert table["centre_x"].dtype == np.float32
    assert table["is_predicted"].dtype == bool


def test_a_map_of_an_unknown_image_is_refused():
    fused = make_fused([(5, 0, 1.0, random_maps(1)[0])])
    with pytest.raises(ValueError, match="every image"):
        focus_table(fused, make_explained([(4, "error", 0, 1)]))
