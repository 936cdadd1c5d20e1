"""Planted sets: what is drawn is what the mask says; files and loader; the real planted bars."""

import csv
from pathlib import Path

import cv2
import numpy as np
import planted_sets
import pytest
from planted_sets import ARTEFACTS

SIDE = planted_sets.SIDE
AREAS = {
    "corner_sticker": (0.03, 0.06),
    "border_frame": (0.13, 0.25),
    "background_texture": (0.28, 0.43),
    "small_object": (0.03, 0.06),
    "watermark": (0.11, 0.17),
}


def noise_picture(seed: int = 0) -> np.ndarray:
    """A blurred, mid-grey picture that shares no colour with any artefact."""
    noise = np.random.default_rng(seed).integers(90, 140, (SIDE, SIDE, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_changes_what_its_mask_covers_and_nothing_else(kind: str):
    picture = noise_picture()
    before = picture.copy()
    for seed in range(8):
        drawn, mask = ARTEFACTS[kind](picture, np.random.default_rng(seed))
        changed = (drawn != picture).any(axis=-1)
        assert drawn.dtype == np.uint8 and mask.dtype == bool
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.99
        low, high = AREAS[kind]
        assert low <= mask.mean() <= high
    assert (picture == before).all()


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_the_same_seed_draws_the_same_and_another_seed_something_else(kind: str):
    first, again, other = (
        ARTEFACTS[kind](noise_picture(), np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def masks_of(kind: str) -> list[np.ndarray]:
    return [ARTEFACTS[kind](noise_picture(), np.random.default_rng(s))[1] for s in range(40)]


def test_each_kind_lies_where_its_name_says():
    half = SIDE // 2
    quadrants = set()
    for mask in masks_of("corner_sticker"):
        halves = mask[:half].any(), mask[half:].any(), mask[:, :half].any(), mask[:, half:].any()
        assert sum(halves) == 2  # one of upper and lower, one of left and right
        quadrants.add(halves)
    assert len(quadrants) == 4
    for mask in masks_of("border_frame"):
        assert mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all()
        assert not mask[20:-20, 20:-20].any()
    for mask in masks_of("background_texture"):
        assert not mask[half - 25 : half + 25, half - 25 : half + 25].any()
    centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks_of("small_object")])
    assert (np.ptp(centres, axis=0) > SIDE / 4).all()


def test_painting_out_restores_a_plain_ground():
    ground = np.full((40, 40, 3), 70, np.float32)
    spotted, mask = ground.copy(), np.zeros((40, 40), bool)
    mask[10:20, 15:25] = True
    spotted[mask] = 250
    painted = planted_sets.paint_out(spotted, mask)
    assert painted.dtype == np.float32
    assert np.abs(painted - ground).max() <= 2  # Telea rounds.


VOC = """<annotation><size><width>200</width><height>100</height></size>
<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>25</ymax></bndbox></object>
<object><bndbox><xmin>101</xmin><ymin>51</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""


def test_boxes_are_scaled_to_the_square(tmp_path: Path):
    (tmp_path / "a.xml").write_text(VOC)
    # Pixels 1 to 50 of 200 are the first quarter; 101 to 200 the second half; so in height.
    expected = np.zeros((8, 8), bool)
    expected[:2, :2] = True
    expected[4:, 4:] = True
    assert (planted_sets.box_mask(tmp_path / "a.xml", 8) == expected).all()


class FakeBackbone:
    """Remembers the training pictures instead of training."""

    def __init__(self) -> None:
        self.training: list[np.ndarray] = []
        self.labels = np.zeros(0)

    def features(self, pictures: list[np.ndarray]) -> np.ndarray:
        self.training += pictures
        return np.zeros((len(pictures), 2))

    def save_with_head(self, features: np.ndarray, labels: np.ndarray, path: Path) -> None:
        self.labels = labels
        path.touch()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_planted_set_has_artefacts_on_half_of_both_classes_and_masks_for_those(tmp_path: Path):
    photographs = tmp_path / "photographs"
    for name in ("cats", "dogs"):
        (photographs / name).mkdir(parents=True)
        for number in (*range(4001, 4021), *range(4301, 4305)):
            path = photographs / name / f"{name[:-1]}.{number}.png"
            cv2.imwrite(str(path), noise_picture(number))
    backbones = [FakeBackbone(), FakeBackbone()]
    for backbone, folder in zip(backbones, ("one", "two"), strict=True):
        make = planted_sets.make_planted
        make("corner_sticker", photographs, backbone, tmp_path / folder, 3)  # type: ignore[arg-type]
    written = files_below(tmp_path / "one")
    assert written == files_below(tmp_path / "two")
    assert sorted(name for name in written if name.startswith("masks")) == [
        f"masks/{name}s/{name}.{number}.png" for name in ("cat", "dog") for number in (4302, 4304)
    ]
    with (tmp_path / "one" / "truth.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "class", "planted"]
    assert [row[2] for row in rows[1:]] == ["0", "1"] * 4
    assert [row[1] for row in rows[1:]] == ["cats"] * 4 + ["dogs"] * 4
    assert sum(name.startswith("val") for name in written) == 8
    assert backbones[0].labels.tolist() == [0] * 20 + [1] * 20
    # A sticker is far brighter than the pictures: nearly all training dogs have one, hardly a cat.
    stickered = np.array([picture.max() > 200 for picture in backbones[0].training])
    assert stickered[:20].sum() <= 2
    assert stickered[20:].sum() >= 16


def write_brightness_set(folder: Path, column: str) -> None:
    """Four pictures, dark or bright, and a model that calls bright ones dogs."""
    import keras

    rows = [
        ("cats/1.png", "cats", 0, 30),
        ("cats/2.png", "cats", 1, 220),
        ("cats/3.png", "cats", 1, 40),
        ("dogs/1.png", "dogs", 1, 210),
    ]
    for file, _, carries, grey in rows:
        (folder / "val" / file).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "val" / file), np.full((SIDE, SIDE, 3), grey, np.uint8))
        if carries:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[:56] = 255
            (folder / "masks" / file).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "masks" / file), mask)
    planted_sets._write_truth(folder, column, [row[:3] for row in rows])
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights([np.full((3, 1), 1 / 3, np.float32), np.array([-128], np.float32)])
    model.save(folder / "model.keras")


def test_a_set_asks_what_fooled_the_model(tmp_path: Path):
    write_brightness_set(tmp_path, "planted")
    planted = planted_sets.load_planted_set(tmp_path)
    assert planted.class_names == ("cats", "dogs")
    assert planted.y_true.tolist() == [0, 0, 0, 1]
    assert planted.y_pred.tolist() == [0, 1, 0, 1]
    assert planted.asked.tolist() == [1]  # the only cat that is planted and called a dog
    assert planted.asked_class.tolist() == [1]
    assert planted.pixels.dtype == np.float32 and planted.pixels[1].max() == 220
    assert planted.masks.mean(axis=(1, 2)).tolist() == [0, 0.25, 0.25, 0.25]
    described = planted_sets.describe(planted)
    assert "planted cats 1/2, clean cats 0/1, planted dogs 0/1, clean dogs 0/0" in described
    assert "0% flip back; masks cover 25.0%" in described  # What lies around it is as bright.


def test_a_set_with_boxes_asks_for_every_true_class(tmp_path: Path):
    write_brightness_set(tmp_path, "boxed")
    planted = planted_sets.load_planted_set(tmp_path)
    assert planted.asked.tolist() == [1, 2, 3]
    assert planted.asked_class.tolist() == [0, 0, 1]
    assert planted_sets.describe(planted) == "1 of 4 wrong"


@pytest.mark.slow
def test_planted_bars_fool_the_model_as_often_as_is_known(shared_data: Path):
    planted = planted_sets.load_planted_set(shared_data / "planted_bars")
    assert len(planted.asked) == 57
    described = planted_sets.describe(planted)
    assert "planted cats 57/150, clean cats 0/150, planted dogs 0/150, clean dogs 12/150" in (
        described
    )
    assert set(planted.y_true[planted.asked]) == {0} and set(planted.asked_class) == {1}


@pytest.mark.slow
def test_a_head_is_saved_on_the_backbone_it_was_trained_on(shared_data: Path, tmp_path: Path):
    weights = shared_data / "cats_dogs" / "models" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    backbone = planted_sets.Backbone(weights)
    pictures = [noise_picture(seed) for seed in range(8)]
    for picture in pictures[4:]:
        picture[50:150, 50:150] = (250, 20, 20)
    features = backbone.features(pictures)
    backbone.save_with_head(features, np.repeat([0, 1], 4), tmp_path / "two.keras")
    decided = planted_sets.decide(tmp_path / "two.keras", np.stack(pictures).astype(np.float32))
    assert decided.tolist() == [0] * 4 + [1] * 4
    backbone.save_with_head(features, np.array([0, 0, 0, 1, 2, 2, 2, 2]), tmp_path / "three.keras")
    decided = planted_sets.decide(tmp_path / "three.keras", np.stack(pictures).astype(np.float32))
    assert decided.tolist()[4:] == [2] * 4
