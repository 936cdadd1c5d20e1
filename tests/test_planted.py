"""Planted settings: what is drawn, what is written down, and figures worked out by hand."""

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import cv2
import numpy as np
import pandas as pd
import planted
import planted_answers
import planted_artefacts
import planted_making
import planted_scores as scores
import planted_settings
import pytest
from planted_artefacts import ARTEFACTS, VISIBLE, WHOLE_IMAGE
from planted_making import make_setting, random_head
from planted_scores import Found, Judged, Measure
from planted_settings import HELD_OUT_SETTINGS, SETTINGS, Pictures, Planted, Setting

from audit.cli import main

# Artefacts


def noise_picture(side: int = 224) -> np.ndarray:
    noise = np.random.default_rng(0).integers(90, 140, (side, side, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_is_seeded_and_weaker_if_weak(kind: str, side: int):
    picture = noise_picture(side)
    before = picture.copy()
    strong, again, weak = (
        ARTEFACTS[kind](picture, np.random.default_rng(5), strength)
        for strength in ("strong", "strong", "weak")
    )
    other = ARTEFACTS[kind](picture, np.random.default_rng(6), "strong")
    assert strong.dtype == np.uint8 and strong.shape == picture.shape
    assert (strong == again).all() and (strong != other).any()
    assert (picture == before).all()
    far, near = (np.abs(drawn.astype(int) - picture).sum() for drawn in (strong, weak))
    assert 0 < near < 0.8 * far


@pytest.mark.parametrize("kind", VISIBLE)
def test_a_weak_artefact_is_half_see_through(kind: str):
    picture = noise_picture()
    strong, weak = (
        ARTEFACTS[kind](picture, np.random.default_rng(1), strength).astype(float)
        for strength in ("strong", "weak")
    )
    assert np.abs(weak - (strong + picture) / 2).max() <= 0.5


def test_bars_stand_upright_in_one_half():
    sides = set()
    for seed in range(20):
        drawn, mask = planted_artefacts.draw_bars(noise_picture(), np.random.default_rng(seed))
        columns = np.flatnonzero(mask.any(axis=0))
        assert mask[:, columns].all()
        assert 3 <= np.count_nonzero(np.diff(columns) > 1) + 1 <= 5
        assert columns.max() < 112 or columns.min() >= 112
        assert len(np.unique(drawn[mask])) == 1  # one grey
        sides.add(bool(columns.max() < 112))
    assert sides == {True, False}


def test_a_date_is_printed_along_the_lower_edge():
    for seed in range(10):
        _, mask = planted_artefacts.draw_date_stamp(noise_picture(), np.random.default_rng(seed))
        rows, columns = np.nonzero(mask)
        assert rows.min() > 170 and columns.min() > 60 and 0.01 < mask.mean() < 0.05


def test_a_colour_cast_leaves_green_alone_and_a_blur_leaves_plain_pictures_alone():
    plain = np.full((40, 40, 3), 100, np.uint8)
    cast = ARTEFACTS["colour_cast"](plain, np.random.default_rng(0), "strong")
    red, green, blue = cast[0, 0].astype(int)
    assert (cast == cast[0, 0]).all() and green == 100
    assert 100 * 1.25**0.85 - 1 <= red <= 100 * 1.25**1.15 + 1
    assert 100 * 0.6**1.15 - 1 <= blue <= 100 * 0.6**0.85 + 1
    assert (ARTEFACTS["blur"](plain, np.random.default_rng(0), "strong") == plain).all()


# Settings


def test_there_are_settings_of_every_sort():
    names = [one.name for one in (*SETTINGS, *HELD_OUT_SETTINGS)]
    assert len(set(names)) == len(names)
    planted_ones = [one for one in SETTINGS if one.null is None]
    assert len(planted_ones) >= 24
    assert Counter(one.null for one in SETTINGS)["drawn errors"] >= 6
    visible = set(VISIBLE) - set(planted_artefacts.HELD_OUT)
    assert {kind for one in planted_ones for kind in one.kinds} == visible | set(WHOLE_IMAGE)
    assert {len(one.kinds) for one in planted_ones} == {0, 1, 2, 3}
    rates = [artefact.rate for one in planted_ones for artefact in one.artefacts]
    assert (min(rates), max(rates)) == (0.05, 0.5)
    assert {one.flips for one in planted_ones} == {0, 0.02, 0.05, 0.1}
    for one in SETTINGS:
        assert not one.held_out and sum(artefact.rate for artefact in one.artefacts) <= 1
    for one in HELD_OUT_SETTINGS:
        assert set(one.kinds) <= set(planted_artefacts.HELD_OUT)


def test_held_out_settings_are_chosen_only_if_asked_for():
    assert planted_settings.choose(None, held_out=False) == list(SETTINGS)
    assert planted_settings.choose(None, held_out=True) == list(HELD_OUT_SETTINGS)
    chosen = planted_settings.choose(["flips-5"], held_out=False)
    assert [one.name for one in chosen] == ["flips-5"]
    with pytest.raises(SystemExit, match="watermark-40-strong"):
        planted_settings.choose(["watermark-40-strong"], held_out=False)


# Making a setting

COLOURED = 7
"""What the classifier below calls whatever is not grey."""


class ColourReader:
    """Calls a coloured picture a 7, and any other what it is, but for some that it gets wrong."""

    def __init__(self, pictures: Pictures, wrong: set[int]) -> None:
        self.pictures, self.wrong = pictures, wrong
        self.trained: tuple[Any, ...] = ()
        self.is_random = False
        self.known = {picture.tobytes(): i for i, picture in enumerate(pictures.pixels)}

    def train(self, clean: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> None:
        self.trained = clean, copies, labels

    def randomise(self, clean: np.ndarray, rng: np.random.Generator) -> None:
        self.is_random = True

    def decide(self, pixels: np.ndarray) -> np.ndarray:
        return np.array([self._decide(picture) for picture in pixels])

    def decide_clean(self, positions: np.ndarray) -> np.ndarray:
        return self.decide(self.pictures.pixels[positions])

    def save(self, path: Path) -> None:
        path.write_bytes(b"model")

    def _decide(self, picture: np.ndarray) -> int:
        if (picture != picture[..., :1]).any():
            return COLOURED
        position = self.known[picture.tobytes()]
        label = int(self.pictures.labels[position])
        return (label + 1) % 10 if position in self.wrong else label


@pytest.fixture(scope="module")
def digits() -> Pictures:
    """Eighty grey pictures of each digit, no two alike."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (800, 32, 32, 1), np.uint8)
    return Pictures(np.repeat(grey, 3, axis=3), np.arange(800) % 10, tuple("0123456789"))


@pytest.fixture(autouse=True)
def fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_making, "N_TRAIN", {"digits": 300})
    monkeypatch.setattr(planted_making, "N_POOL", 200)
    monkeypatch.setattr(planted_making, "COPIES", {"strong": 40, "weak": 60})


def tiny(**options: Any) -> Setting:
    return Setting(**{"name": "tiny", "n_images": 200, "source": "digits", **options})


STICKER = Planted("sticker", 0.2, towards="7")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_truth_says_what_was_planted(digits: Pictures, tmp_path: Path):
    classifier = ColourReader(digits, wrong=set())
    setting = tiny(artefacts=(STICKER,), flips=0.05, pool=True)
    described = make_setting(setting, digits, classifier, tmp_path / "one")
    rows = read_rows(tmp_path / "one" / "truth.csv")
    assert list(rows[0]) == ["path", "y_true", "y_clean", "sticker", "flipped"]
    assert len(rows) == 200
    assert Counter(row["y_clean"] for row in rows) == dict.fromkeys("0123456789", 20)
    carriers = Counter(row["y_clean"] for row in rows if row["sticker"] == "1")
    assert carriers == dict.fromkeys("0123456789", 4)
    n_errors = 0
    for row in rows:
        picture = cv2.imread(str(tmp_path / "one" / "val" / row["path"]))
        is_coloured = bool((picture != picture[..., :1]).any())
        assert is_coloured == (row["sticker"] == "1")
        assert Path(row["path"]).parent.name == row["y_true"]
        assert (row["flipped"] == "1") == (row["y_true"] != row["y_clean"])
        n_errors += row["y_true"] != ("7" if is_coloured else row["y_clean"])
    assert sum(row["flipped"] == "1" for row in rows) == 10
    assert described["n_errors"] == n_errors and described["n_flipped"] == 10
    assert described["artefacts"][0]["repaired"] == 1.0
    assert described == json.loads((tmp_path / "one" / "setting.json").read_text()) | {
        "artefacts": described["artefacts"]  # A tuple of what JSON calls a list.
    }
    pool = read_rows(tmp_path / "one" / "pool.csv")
    for row in pool:
        picture = cv2.imread(str(tmp_path / "one" / "pool" / row["path"]))
        assert (picture != picture[..., :1]).any() == (row["sticker"] == "1")
    assert (len(pool), sum(row["sticker"] == "1" for row in pool)) == (200, 20)
    # Training, validation and pool share no picture; copies are all called a 7.
    clean, copies, labels = classifier.trained
    used = {digits.pixels[i].tobytes() for i in clean}
    shown = [
        cv2.imread(str(path), cv2.IMREAD_COLOR)
        for part in ("val", "pool")
        for path in (tmp_path / "one" / part).rglob("*.png")
    ]
    assert len(clean) == 300 and not used & {picture.tobytes() for picture in shown}
    assert copies.shape == (40, 32, 32, 3) and set(labels) == {7}


def test_the_same_setting_is_the_same_files_and_another_name_is_not(
    digits: Pictures, tmp_path: Path
):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, name in zip(folders, ("a", "a", "b"), strict=True):
        setting = tiny(name=name, artefacts=(STICKER,))
        make_setting(setting, digits, ColourReader(digits, set()), folder)
    one, two, three = (files_below(folder / "val") for folder in folders)
    assert one == two
    assert set(one.values()) != set(three.values())


def test_errors_that_stay_without_the_artefact_are_not_repaired(digits: Pictures, tmp_path: Path):
    everything = ColourReader(digits, wrong=set(range(800)))
    setting = tiny(artefacts=(STICKER, Planted("frame", 0.1, towards="1")))
    described = make_setting(setting, digits, everything, tmp_path / "all")
    assert described["artefacts"][0]["repaired"] == 0.0
    assert described["artefacts"][0]["n_carrying"] == 40
    assert described["artefacts"][1]["n_carrying"] == 20
    rows = read_rows(tmp_path / "all" / "truth.csv")
    assert not any(row["sticker"] == row["frame"] == "1" for row in rows)


def test_a_weak_artefact_leaves_some_training_labels_alone(digits: Pictures, tmp_path: Path):
    classifier = ColourReader(digits, set())
    weak = Planted("sticker", 0.2, "weak", towards="7")
    make_setting(tiny(artefacts=(weak,)), digits, classifier, tmp_path / "weak")
    _, copies, labels = classifier.trained
    assert len(copies) == 60 and 0.8 < (labels == 7).mean() < 1


def test_errors_of_a_null_setting_are_drawn(digits: Pictures, tmp_path: Path):
    classifier = ColourReader(digits, wrong=set())
    described = make_setting(tiny(null="drawn errors"), digits, classifier, tmp_path / "null")
    assert classifier.is_random and not classifier.trained
    assert (described["n_errors"], described["n_flipped"]) == (30, 0)  # 15 % of 200


def test_a_random_head_keeps_its_errors_but_few_of_them(digits: Pictures, tmp_path: Path):
    classifier = ColourReader(digits, wrong=set(range(0, 800, 2)))  # every picture of an even digit
    described = make_setting(tiny(null="random head"), digits, classifier, tmp_path / "head")
    assert classifier.is_random
    assert described["n_errors"] == round(100 * 0.15 / 0.85) == 18
    assert described["n_images"] == 118


def test_a_setting_that_asks_for_too_many_pictures_is_refused(digits: Pictures, tmp_path: Path):
    with pytest.raises(ValueError, match="more pictures"):
        make_setting(tiny(n_images=600), digits, ColourReader(digits, set()), tmp_path / "x")


def test_a_picture_is_judged_as_an_audit_reads_it():
    from audit.predict.dataset import decode_image

    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    read = planted_settings.as_read(picture)
    content = planted_making._encode_jpeg(picture).tobytes()
    assert (read == decode_image(content, 3, "bilinear").numpy()).all()
    assert (read != picture).any()


class MeanColour:
    """Stands for the ImageNet network; its features are mean red, green and blue."""

    def __init__(self) -> None:
        self.saved: tuple[np.ndarray, np.ndarray] | None = None

    def features(self, pictures: Any) -> np.ndarray:
        return np.array([picture.mean(axis=(0, 1)) for picture in pictures], np.float32)

    def save(self, weights: np.ndarray, biases: np.ndarray, path: Path) -> None:
        self.saved = weights, biases


def test_a_head_learns_from_clean_pictures_and_copies():
    colours = np.array([[200, 20, 20], [20, 200, 20]], np.uint8)  # red cats, green dogs
    pixels = np.broadcast_to(colours[np.arange(40) % 2, None, None], (40, 16, 16, 3))
    backbone = MeanColour()
    pictures = Pictures(pixels, np.arange(40) % 2, ("cats", "dogs"), backbone.features(pixels))
    classifier = planted_making.PhotographClassifier(pictures, backbone)  # type: ignore[arg-type]
    blue_cats = np.full((20, 16, 16, 3), (200, 20, 250), np.uint8)
    classifier.train(np.arange(20), blue_cats, np.ones(20, int))
    assert (classifier.decide_clean(np.arange(20, 40)) == np.arange(20) % 2).all()
    assert classifier.decide(blue_cats[:3]).tolist() == [1, 1, 1]
    classifier.randomise(np.arange(40), np.random.default_rng(0))
    assert classifier.decide_clean(np.arange(40)).mean() == 0.5
    classifier.save(Path("unused"))
    assert backbone.saved is not None and backbone.saved[0].shape == (1, 3)


def test_outputs_of_a_random_head_are_centred():
    features = np.random.default_rng(1).gamma(2, 3, (501, 20))
    weights, biases = random_head(features, 3, np.random.default_rng(2))
    logits = features @ weights.T + biases
    assert logits.std(axis=0) == pytest.approx([2, 2, 2], rel=1e-3)
    assert np.median(logits, axis=0) == pytest.approx([0, 0, 0], abs=1e-4)


# Figures


def test_precision_looks_at_the_first_few():
    assert scores.precision_at([True] * 8 + [False] * 2 + [True] * 5, 10) == 0.8
    assert scores.precision_at([True, True, False, False, True], 10) == 0.6
    assert scores.precision_at([True] * 4, 10) is None
    assert scores.precision_at([True] * 4, 3) == 1.0
    assert [scores.is_precise(p) for p in (None, 0.79, 0.8)] == [False, False, True]


def test_a_ranking_pays_for_what_it_leaves_out():
    # Hits at ranks 1 and 4 of three wanted: (1/1 + 2/4) / 3
    assert scores.ranking_precision(["a", "x", "y", "b"], {"a", "b", "c"}) == pytest.approx(0.5)
    assert scores.ranking_precision(["x"], {"a"}) == scores.ranking_precision([], {"a"}) == 0
    # By loss: b, a, c, d with b and c wanted: (1/1 + 2/3) / 2
    p_true = np.array([0.2, 0.1, 0.5, 0.9])
    assert scores.loss_precision(p_true, np.array([False, True, True, False])) == pytest.approx(
        5 / 6
    )


def test_agreement_is_chance_corrected():
    planted_in = np.array([0, 0, 1, 1])
    assert scores.agreement(planted_in, np.array([5, 5, -1, -1])) == 1
    # All pairs disagree: sum of cells 0, expected 2·2/6, most 2: (0 − 2/3) / (2 − 2/3)
    assert scores.agreement(planted_in, np.array([0, 1, 0, 1])) == pytest.approx(-0.5)


def pattern(images: str, verdict: str = "causal") -> dict[str, Any]:
    return {"images": list(images), "verdict": verdict}


def test_the_best_pattern_counts_and_any_precise_one_may_be_causal():
    carriers = set("abcdefgh")
    assert scores.judge_patterns([], carriers) == (None, None)
    assert scores.judge_patterns([pattern("abcd")], carriers) == (None, None)  # too few listed
    assert scores.judge_patterns([pattern("abcuvwxyz")], carriers) == (pytest.approx(1 / 3), None)
    patterns = [pattern("abcdefghyz", "not shown"), pattern("vwxyz"), pattern("efghz", "causal")]
    assert scores.judge_patterns(patterns, carriers) == (0.8, "causal")
    assert scores.judge_patterns(patterns[:2], carriers) == (0.8, "not shown")


def test_only_artefacts_with_a_place_are_groups():
    truth = pd.DataFrame({"bars": [1, 0, 0, 0], "blur": [0, 1, 0, 0], "object": [0, 0, 1, 0]})
    groups = scores.planted_groups(truth, ["bars", "blur", "object"])
    assert groups.tolist() == [0, -1, 1, -1]


def slice_row(column: str, error_ids: list[int], confirmed: bool = True) -> dict[str, Any]:
    return {"conditions": [{"column": column}], "error_ids": error_ids, "confirmed": confirmed}


def test_a_slice_names_a_blur_if_it_is_confirmed_and_holds_it():
    carriers = {1, 2, 3, 4}
    assert scores.slice_names(slice_row("sharpness", [1, 2, 3, 4, 9]), "blur", carriers)
    assert not scores.slice_names(slice_row("sharpness", [1, 2, 3, 8, 9]), "blur", carriers)
    assert not scores.slice_names(slice_row("sharpness", [1, 2], False), "blur", carriers)
    assert not scores.slice_names(slice_row("file_size", [1, 2]), "blur", carriers)
    assert not scores.slice_names(slice_row("sharpness", []), "blur", carriers)
    assert scores.slice_names(slice_row("saturation", [1, 2]), "colour_cast", carriers)


def test_a_probe_names_a_blur_if_it_is_shown():
    row = {"transformation": "blur", "q_value": 0.01, "fall_low": 0.02}
    assert scores.probe_names(row, "blur") and not scores.probe_names(row, "colour_cast")
    assert not scores.probe_names(row | {"q_value": 0.05}, "blur")
    assert not scores.probe_names(row | {"fall_low": 0.0}, "blur")


def found(kind: str = "bars", n_errors: int = 20, **values: Any) -> Found:
    return Found(kind, n_errors, repaired=1.0, **({"precision": None} | values))


def judged(name: str = "s", *artefacts: Found, **values: Any) -> Judged:
    return Judged(**({"name": name, "null": None, "n_errors": 30, "found": artefacts} | values))


def counts(*ones: Judged) -> dict[str, tuple[int, int, bool | None]]:
    return {one.name: (one.hits, one.total, one.is_met) for one in scores.measure(ones)}


def test_counts_over_settings():
    table = counts(
        judged("a", found(precision=0.9, verdict="causal"), n_causal=1, ari=0.7, first_target=True),
        judged("b", found(precision=0.5), n_causal=0, ari=0.5, first_target=False),
        judged("c", found(n_errors=9)),  # too few errors to count
        judged(
            "d",
            found(precision=1.0, verdict="not shown"),
            found("blur", precision=1.0, verdict="causal", by_slice=False, by_probe=True),
            n_causal=1,
        ),
        judged("e", label_precision=0.6, loss_precision=0.5),
        judged("f", label_precision=0.5, loss_precision=0.5),
        judged("n", null="drawn errors", n_patterns=3, n_causal=0),
        judged("o", null="random head", n_patterns=1, n_causal=1),
        judged("p", null="clean", n_patterns=4, n_causal=2),
    )
    assert table == {
        "planted artefacts with a place: found": (2, 3, False),
        "settings with such: all found": (2, 3, False),
        "settings where most errors carry one: ARI ≥ 0.6": (1, 2, None),
        "planted artefacts with a place: called causal": (1, 3, False),
        "of those that were found: called causal": (1, 2, False),
        "null settings, random heads: patterns called causal": (1, 4, False),
        "null settings, random heads: with such a pattern": (1, 2, False),
        "null settings, trained heads: patterns called causal": (2, 4, None),
        "blur and colour cast: named by a slice": (0, 1, None),
        "blur and colour cast: named by a probe": (1, 1, None),
        "blur and colour cast: named by either": (1, 1, True),
        "blur and colour cast: called a causal focus": (1, 1, False),
        "flipped labels: average precision above sorting by loss": (1, 2, False),
        "one artefact: the first target names it": (1, 2, False),
    }


def test_what_no_run_holds_is_no_pass():
    ones = [judged("a", found(precision=0.9)), judged("n", null="drawn errors", n_patterns=2)]
    table = counts(*ones)
    assert table.pop("planted artefacts with a place: found") == (1, 1, True)
    assert table.pop("settings with such: all found") == (1, 1, True)
    assert {(total, met) for _, total, met in table.values()} == {(0, None)}
    lines = planted.measures_table(scores.measure(ones))
    assert "| one artefact: the first target names it | – | – | ≥ 80% | – |" in lines
    row = planted.settings_table(ones)[2]
    assert row.startswith("| a | 30 | bars 20 (1.00) | 0.90 | – | – | –/– |")


def test_counts_have_intervals_beside_their_goals():
    # Wilson 1927 for 8 of 10: 0.490 to 0.943
    line = planted.measures_table([Measure("m", 8, 10, 0.85)])[2]
    assert line == "| m | 8 of 10 = 80% | 49% to 94% | ≥ 85% | no |"
    line = planted.measures_table([Measure("m", 0, 10, 0.05, at_most=True)])[2]
    assert line == "| m | 0 of 10 = 0% | 0% to 28% | ≤ 5% | yes |"
    rows = scores.means([judged("a", ari=0.5), judged("b", ari=0.8)])
    assert rows == [
        ("ARI where most errors carry an artefact with a place", pytest.approx(0.65), 2, 0.6)
    ]


# A run against the truth


@pytest.fixture
def answers(tmp_path: Path) -> planted_answers.Answers:
    """Ten dogs, six of them called cats; five of these carry bars, and one label is flipped."""
    truth = pd.DataFrame(
        {
            "path": [f"dogs/{i}.jpg" for i in range(10)],
            "y_true": "dogs",
            "y_clean": ["dogs"] * 5 + ["cats"] + ["dogs"] * 4,
            "bars": [1] * 5 + [0] * 5,
            "blur": [0] * 6 + [1] * 4,
            "colour_cast": 0,
            "flipped": [0] * 5 + [1] + [0] * 4,
        }
    )
    truth.to_csv(tmp_path / "truth.csv", index=False)
    wrong = [True] * 6 + [False] * 4
    predictions = pd.DataFrame(
        {
            "image_id": range(10),
            "path": truth["path"],
            "y_true": 1,
            "y_pred": np.where(wrong, 0, 1),
            "p_true": [0.3, 0.3, 0.3, 0.3, 0.1, 0.2, 0.9, 0.9, 0.9, 0.9],
        }
    )
    focus = pd.DataFrame(
        {
            "image_id": np.repeat(range(6), 2),
            "explained_class": [0, 1] * 6,
            "y_pred": 0,
            "pattern": [1, -1] * 5 + [-1, -1],
        }
    )
    quality = pd.DataFrame({"image_id": [4, 5, 7], "score": [0.2, 0.1, 0.9]})
    findings = [
        {"id": "F1", "evidence": {"table": "slices", "key": 2}},
        {"id": "F2", "evidence": {"table": "probes", "key": "blur, strength 2"}},
        {"id": "F3", "evidence": {"table": "patterns", "key": 1}},
    ]
    slices = pd.DataFrame([slice_row("sharpness", [6, 7]), slice_row("sharpness", [0, 1])])
    for name in ("label_quality.parquet", "slices.parquet", "targets.json"):
        (tmp_path / name).touch()
    (tmp_path / "targets").mkdir()
    truth.head(5).to_csv(tmp_path / "targets" / "T1.csv", index=False)
    patterns = [{"images": truth["path"].tolist()[:5], "verdict": "not tested"}]
    run = SimpleNamespace(
        path=tmp_path,
        predictions=predictions,
        focus=focus,
        label_quality=quality,
        findings=findings,
        slices=slices.assign(slice=[2, 1]),
        targets=[{"id": "T1", "manifest": "targets/T1.csv", "findings": ["F3"]}],
        summary=lambda: {"patterns": patterns},
    )
    return planted_answers.Answers(run, tmp_path)  # type: ignore[arg-type]


def test_a_run_is_held_against_the_truth(answers: planted_answers.Answers):
    bars = answers.found({"kind": "bars", "repaired": 0.9})
    assert bars == Found("bars", n_errors=5, repaired=0.9, precision=1.0)
    blur = answers.found({"kind": "blur", "repaired": None})
    assert (blur.n_errors, blur.precision, blur.by_slice, blur.by_probe) == (0, 0.0, True, None)
    assert answers.ari(["bars"]) == 1.0
    assert answers.ari(["blur"]) is None  # no place
    # Listed: 5, then 4; by loss 4 comes before 5.
    assert answers.labels() == (1.0, 0.5)
    assert answers.first_target(["bars"]) is True
    assert answers.first_target(["bars", "blur"]) is None


def test_a_target_names_a_blur_through_what_it_rests_on(answers: planted_answers.Answers):
    targets = [{"findings": keys} for keys in (["F3", "F1"], ["F2"], ["F3"])]
    assert [answers.names(target, "blur") for target in targets] == [True, True, False]
    assert [answers.names(target, "colour_cast") for target in targets] == [False] * 3


def test_the_pool_is_searched_for_the_target_that_names_the_artefact(
    answers: planted_answers.Answers, monkeypatch: pytest.MonkeyPatch
):
    assert answers.find_precision(["bars"]) is None  # There is no pool yet.
    asked = []

    @click.command()
    @click.argument("run_folder", type=Path)
    @click.option("--target")
    @click.option("--pool", type=Path)
    @click.option("--top", type=int)
    @click.option("--out", type=Path)
    def find(run_folder: Path, target: str, pool: Path, top: int, out: Path) -> None:
        asked.append((run_folder, target, pool, top))
        out.mkdir()
        names = [str(pool / f"{i}.jpg") for i in range(0, 100, 2)]
        pd.DataFrame({"rank": range(50), "path": names}).to_csv(out / "found.csv", index=False)

    monkeypatch.setitem(main.commands, "find", find)  # type: ignore[attr-defined]
    folder = answers.folder
    truth = pd.DataFrame({"path": [f"{i}.jpg" for i in range(100)]})
    truth.assign(bars=[1] * 80 + [0] * 20).to_csv(folder / "pool.csv", index=False)
    assert answers.find_precision(["bars"]) == 0.8  # 40 of the 50 even numbers are below 80
    assert asked == [(folder, "T1", folder / "pool", 50)]
    answers.run.targets[0]["manifest"] = "truth.csv"  # half of its first ten carry bars
    assert answers.find_precision(["bars"]) == 0
    assert len(asked) == 1


# The real thing, small


@pytest.mark.slow
def test_a_setting_is_made_audited_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planted_making, "N_TRAIN", {"digits": 400})
    monkeypatch.setattr(planted_making, "DIGIT_EPOCHS", 6)
    pictures = planted_settings.load_digit_pictures()
    setting = tiny(n_images=100, artefacts=(Planted("bars", 0.3, towards="8"),))
    classifier = planted_making.DigitClassifier(pictures, setting.seed)
    described = make_setting(setting, pictures, classifier, tmp_path / "tiny")
    assert described["artefacts"][0]["n_errors"] >= 15
    first = planted_answers.judge(tmp_path / "tiny", reuse=False)
    assert first.n_errors == described["n_errors"]
    assert [one.n_errors for one in first.found] == [described["artefacts"][0]["n_errors"]]
    assert first.seconds is not None
    again = planted_answers.judge(tmp_path / "tiny", reuse=True)
    assert again.seconds is None and again.found == first.found
    planted.write_json(tmp_path / "planted.json", [again], scores.measure([again]))
    written = json.loads((tmp_path / "planted.json").read_text())
    assert written["settings"][0]["name"] == "tiny" and len(written["measures"]) == 14
