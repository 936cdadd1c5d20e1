"""The benchmark of maps: its metrics on paper, its maps on drawn images, known figures."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import get_args

import drawn_set
import localisation
import map_scores
import numpy as np
import planted_sets
import pytest
from planted_sets import PlantedSet

from audit.config import AuditConfig, Method
from audit.explain.maps import Explainer
from audit.predict.model import AuditedModel, load_model

CORNER = np.zeros((4, 4), bool)
CORNER[:2, :2] = True


def test_pixel_ap_worked_out_by_hand():
    heat = np.array([[0.9, 0.8], [0.1, 0.2]])
    mask = np.array([[True, False], [False, True]])
    # Hottest first: hit, miss, hit, miss. Precision at the hits is 1/1 and 2/3; each is half.
    assert map_scores.pixel_ap(heat, mask) == pytest.approx((1 + 2 / 3) / 2)
    assert map_scores.pixel_ap(mask.astype(float), mask) == 1


def test_energy_ratio_worked_out_by_hand():
    heat = np.array([[3.0, 1.0], [0.0, -9.0]])
    mask = np.array([[True, False], [False, False]])
    assert map_scores.energy_ratio(heat, mask) == pytest.approx((3 / 4) / (1 / 4))


def test_pointing_worked_out_by_hand():
    heat = np.array([[0.0, 5.0], [5.0, 1.0]])
    assert map_scores.pointing(heat, np.array([[False, True], [True, False]])) == 1
    assert map_scores.pointing(heat, np.array([[False, True], [False, True]])) == 0.5
    assert map_scores.pointing(heat, np.array([[True, False], [False, True]])) == 0


def test_a_map_that_says_nothing_scores_as_chance():
    for heat in (np.zeros((4, 4)), np.full((4, 4), 2.0)):
        assert map_scores.pixel_ap(heat, CORNER) == 0.25
        assert map_scores.energy_ratio(heat, CORNER) == 1
        assert map_scores.pointing(heat, CORNER) == 0.25


def test_the_hottest_pixel_is_removed_first_and_ties_follow_no_row():
    heat = np.array([[0.1, 0.9], [0.5, 0.2]])
    assert map_scores.removal_rank(heat).tolist() == [[3, 0], [1, 2]]
    tied = map_scores.removal_rank(np.zeros((20, 20)))
    assert sorted(tied.ravel()) == list(range(400))
    assert 100 < tied[:10].mean() < 300  # In order of rows this would be 99.5.
    assert (tied == map_scores.removal_rank(np.zeros((20, 20)))).all()


def spotted_picture() -> tuple[np.ndarray, np.ndarray]:
    """A grey picture with a bright spot on a sixteenth of it, and a map that is hot there."""
    picture = np.full((64, 64, 3), 60, np.float32)
    picture[16:32, 32:48] = 240
    heat = np.zeros((64, 64), np.float32)
    heat[16:32, 32:48] = 1
    return picture, heat


def test_deletion_starts_with_the_picture_and_paints_out_the_hottest():
    picture, heat = spotted_picture()
    series = map_scores.deletion_series(picture, heat, 10)
    assert series.shape == (10, 64, 64, 3) and series.dtype == np.float32
    assert (series[0] == picture).all()
    assert np.abs(series[1] - 60).max() <= 10  # A tenth hides all of the spot; Telea ripples.


def test_insertion_starts_with_the_hottest_and_ends_with_the_picture():
    picture, heat = spotted_picture()
    series = map_scores.insertion_series(picture, heat, 10)
    assert (series[-1] == picture).all()
    assert (series[0][heat > 0] == 240).all()
    hidden_spot = map_scores.insertion_series(picture, -heat, 10)
    assert np.abs(hidden_spot[0] - 60).max() <= 10
    larger = np.repeat(np.repeat(picture, 4, 0), 4, 1)  # Painted at half its size, then enlarged.
    series = map_scores.insertion_series(larger, heat, 10)
    assert series.shape == (10, 256, 256, 3)
    assert (series[-1] == larger).all()


def test_bootstrap_means_worked_out_by_hand():
    sure = map_scores.bootstrap_mean([np.full(5, 2.0), np.full(9, 4.0)], seed=0)
    assert (sure.mean, sure.low, sure.high) == (3, 3, 3)  # Sets weigh the same.
    values = np.arange(100.0)
    unsure = map_scores.bootstrap_mean([values], seed=0)
    half_width = 1.96 * values.std() / 10  # The normal interval of a mean of 100.
    assert unsure.mean == 49.5
    assert unsure.low == pytest.approx(49.5 - half_width, abs=0.7)
    assert unsure.high == pytest.approx(49.5 + half_width, abs=0.7)
    assert map_scores.bootstrap_mean([values], seed=0) == unsure


def test_a_ratio_is_taken_over_the_same_images():
    values = np.random.default_rng(0).uniform(1, 2, 50)
    ratio = map_scores.bootstrap_ratio([3 * values, 3 * values], [values, values], seed=0)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((3, 3, 3))


def drawn_planted_set(model_path: Path) -> PlantedSet:
    """Drawn images of "left" with a second, brighter square of "right", which is the artefact."""
    pixels = np.stack(
        [drawn_set.draw_image("left", fooled=True, number=number) for number in range(6)]
    ).astype(np.float32)
    masks = np.zeros(pixels.shape[:3], bool)
    masks[:, 20:, 20:] = True
    return PlantedSet(
        name="drawn",
        model_path=model_path,
        class_names=drawn_set.CLASS_NAMES,
        files=tuple(f"left/{number}.png" for number in range(6)),
        pixels=pixels,
        masks=masks,
        y_true=np.zeros(6, int),
        y_pred=np.ones(6, int),
        planted=np.ones(6, bool),
        asks="fooled",
    )


class Oracle:
    """A map that knows where the artefact is."""

    name = "oracle"

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        heat = np.zeros(pixels.shape[:3], np.float32)
        heat[:, 20:, 20:] = 1
        return heat


def test_an_oracle_scores_best_and_what_it_shows_is_what_decides(drawn_model: Path):
    planted = drawn_planted_set(drawn_model)
    model = load_model(drawn_model)
    makers = [localisation.RandomMap(0), localisation.CentreMap(), Oracle()]
    scores = localisation.judge_all(planted, makers, model, [5, 0, 3], curve_images=2)
    oracle = scores["oracle"]
    assert oracle["ap"].tolist() == [1, 1, 1]
    assert oracle["pointing"].tolist() == [1, 1, 1]
    assert oracle["energy"] == pytest.approx(np.full(3, 32 * 32 / (12 * 12)))
    assert {metric: len(values) for metric, values in oracle.items()} == {
        "ap": 3,
        "energy": 3,
        "pointing": 3,
        "insertion": 2,
        "deletion": 2,
    }
    for other in ("random", "centre"):
        assert (scores[other]["deletion"] > oracle["deletion"]).all()
        assert scores[other]["insertion"].mean() < oracle["insertion"].mean()
        assert scores[other]["ap"].max() < 0.5


@pytest.mark.parametrize("asked", [0, 1])
def test_the_last_layer_is_grad_cam_of_the_last_spatial_output(drawn_model: Path, asked: int):
    model = load_model(drawn_model)
    planted = drawn_planted_set(drawn_model)
    classes = np.full(6, asked)
    made = localisation.LastLayer(model).maps(planted.pixels, classes)
    explained = Explainer(model, method="gradcam").explain(
        planted.pixels, np.stack([classes, classes], axis=1)
    )
    *_, (_, peak, cam), _ = explained.of_image(2, 0)
    assert made[2].max() == pytest.approx(peak, rel=1e-5)
    assert np.abs(made[2] / made[2].max() * 255 - cam).max() <= 0.51


def test_every_map_is_made_for_every_image(drawn_model: Path):
    model: AuditedModel = load_model(drawn_model)
    planted = drawn_planted_set(drawn_model)
    makers = localisation.make_maps(model, planted, get_args(Method), 0)
    names = [maker.name for maker in makers]
    assert len(set(names)) == len(names)
    assert localisation.REFERENCE in names
    assert sum("(default)" in name for name in names) == 1
    assert localisation.shipped_name(*localisation.PLAIN) in names
    for maker in makers:
        maps = maker.maps(planted.pixels, planted.asked_class)
        assert maps.shape[0] == 6 and maps.ndim == 3
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all() and maps.max() > 0, maker.name


def test_chosen_methods_come_with_every_fusion_and_the_unit_of_cost():
    everything = localisation.shipped_pairs(get_args(Method))
    assert {method for method, _ in everything} == set(get_args(Method))
    assert {("article", "article"), ("article", "mean"), ("occlusion", "")} < set(everything)
    assert ("gradcam", "article") not in everything
    chosen = localisation.shipped_pairs(["occlusion"])
    assert chosen == [localisation.DEFAULT, localisation.PLAIN, ("occlusion", "")]


def test_the_default_is_what_an_audit_does():
    config = AuditConfig()
    assert (config.method, config.fusion) == ("gradcam", None)
    assert localisation.DEFAULT == ("gradcam", "consensus")


class Ticking:
    """A map that takes a given number of ticks of a clock."""

    def __init__(self, name: str, ticks: int, clock: Callable[[], float]) -> None:
        self.name, self.ticks, self._clock = name, ticks, clock

    def maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        for _ in range(self.ticks):
            self._clock()
        return np.zeros((1, 1, 1), np.float32)


def test_costs_are_ratios_to_the_unit():
    ticks = count()

    def clock() -> float:
        return float(next(ticks))

    makers = [Ticking("unit", 3, clock), Ticking("twice", 7, clock), Ticking("quarter", 0, clock)]
    costs = localisation.measure_costs(makers, "unit", np.zeros(1), np.zeros(1), clock)
    # Each reading of the clock is a tick too: 4, 8 and 1.
    assert costs == {"unit": 1, "twice": 2, "quarter": 0.25}


def test_tables_hold_the_means_and_one_row_per_map():
    metrics = {metric: np.array([0.5, 0.5]) for metric in localisation.METRICS}
    better = {**metrics, "ap": np.array([0.75, 0.75])}
    scores = {localisation.REFERENCE: metrics, "ours": better}
    by_set = localisation.ap_table({"one": scores, "two": scores}, seed=0)
    assert by_set[0] == "| pixel AP | one | two |"
    assert by_set[3] == "| ours | 0.750 (0.750–0.750) | 0.750 (0.750–0.750) |"
    costs = {localisation.REFERENCE: 0.5, "ours": 1.25}
    table = localisation.metrics_table([scores], costs, seed=0)
    assert len(table) == 4
    cells = [cell.strip() for cell in table[3].split("|")[1:-1]]
    assert cells[:3] == ["ours", "0.750 (0.750–0.750)", "1.50 (1.50–1.50)"]
    assert cells[-1] == "1.25"
    assert all(line.count("|") == table[0].count("|") for line in table)


@pytest.mark.slow
def test_known_figures_on_planted_bars(shared_data: Path):
    planted = planted_sets.load_planted_set(shared_data / "planted_bars")
    model = load_model(planted.model_path)
    makers = [localisation.RandomMap(0), localisation.LastLayer(model)]
    chosen = range(len(planted.asked))
    scores = localisation.judge_all(planted, makers, model, chosen, curve_images=0)
    assert scores["random"]["ap"].mean() == pytest.approx(0.126, abs=0.01)
    assert scores[localisation.REFERENCE]["ap"].mean() == pytest.approx(0.235, abs=0.01)
    upside_down = replace(planted, masks=planted.masks[:, ::-1, ::-1])
    turned = localisation.judge_all(upside_down, makers[1:], model, chosen, curve_images=0)
    assert turned[localisation.REFERENCE]["ap"].mean() < 0.2
