"""The drawn parts of a sample report: their flaws are where the report should find them."""

import cv2
import numpy as np
import parts
import pytest

from audit.predict.listing import list_images


@pytest.fixture
def sets(monkeypatch):
    """A small training and a small validation set."""
    monkeypatch.setattr(parts, "N_TRAINING", 12)
    monkeypatch.setattr(parts, "N_VALIDATION", 40)
    return parts.draw_parts(5, training=True), parts.draw_parts(5, training=False)


def test_in_training_a_flaw_goes_with_one_class_and_no_label_is_wrong(sets):
    table = sets[0].table
    assert len(table) == 12 * len(parts.CLASS_NAMES)
    assert (table["label"] == table["drawn"]).all()
    assert set(table.loc[table["on_mat"], "drawn"]) == {"gear"}
    assert set(table.loc[table["has_lamp"], "drawn"]) == {"wrench"}
    assert table["on_mat"].sum() > 5 and table["has_lamp"].sum() > 5


def test_in_validation_flaws_go_with_any_class_and_a_few_labels_are_wrong(sets):
    table = sets[1].table
    for flaw in ("on_mat", "has_lamp"):
        assert table.loc[table[flaw], "drawn"].nunique() > 4
    assert not (table["on_mat"] & table["has_lamp"]).any()
    wrong = table[table["label"] != table["drawn"]]
    assert len(wrong) == parts.N_WRONG_LABELS
    assert not (wrong["on_mat"] | wrong["has_lamp"]).any()
    assert parts.OUT_OF_FOCUS not in set(wrong["station"])


def test_pixels_show_the_flaws(sets):
    pictures, table = sets[1].pictures.astype(int), sets[1].table
    assert pictures.shape == (len(table), parts.SIDE, parts.SIDE, 3)
    sharp = (table["station"] != parts.OUT_OF_FOCUS).to_numpy()
    red, green, blue = np.moveaxis(pictures, 3, 0)
    orange = ((red - blue > 120) & (green - blue > 20)).sum(axis=(1, 2))
    np.testing.assert_array_equal((orange > 40)[sharp], table["has_lamp"].to_numpy()[sharp])
    is_green = np.median(green - red, axis=(1, 2)) > 40
    np.testing.assert_array_equal(is_green[sharp], table["on_mat"].to_numpy()[sharp])


def test_the_same_seed_draws_the_same_parts(sets):
    again = parts.draw_parts(5, training=False)
    np.testing.assert_array_equal(again.pictures, sets[1].pictures)
    assert again.table.equals(sets[1].table)
    assert not np.array_equal(sets[0].pictures[:9], sets[1].pictures[:9])


def test_the_manifest_lists_every_picture_with_its_station(sets, tmp_path):
    manifest = parts.save_parts(sets[1], tmp_path / "images")
    listing = list_images(manifest)
    assert listing.class_names == parts.CLASS_NAMES
    assert listing.images["station"].tolist() == sets[1].table["station"].tolist()
    named = [parts.CLASS_NAMES[label] for label in listing.images["y_true"]]
    assert named == sets[1].table["label"].tolist()
    first = cv2.imread(str(tmp_path / "images" / listing.images["path"].iloc[0]))
    np.testing.assert_array_equal(first[..., ::-1], sets[1].pictures[0])
