"""The supplement experiment: who learns, what the truth is, and what is said of it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import supplement_tables as tables
from planted_settings import Pictures
from supplement import Results, share_out
from supplement_loop import gains, layers_of, random_recipe, rank_by_cosine
from supplement_series import (
    about_artefact,
    claims,
    is_recovered,
    mean_difference,
    mean_share,
    true_verdict,
)
from supplement_sets import (
    CATS,
    DOGS,
    Drawn,
    Plan,
    base_features,
    first_carry,
    split,
    train_head,
    with_more,
    write_validation,
)

from audit.diagnose.recipes import write_recipe
from audit.diagnose.transformations import TRANSFORMATIONS

SMALL = Plan(n_base=4, n_supplement=2, n_val=3, n_more=2, n_test=1, n_maps=1)


class MeanColour:
    """Stands for the network: its features are the mean of each channel."""

    def __init__(self) -> None:
        self.n_asked = 0

    def features(self, pictures: list[np.ndarray]) -> np.ndarray:
        self.n_asked += len(pictures)
        return np.stack([picture.mean(axis=(0, 1)) for picture in pictures]).astype(np.float32)


def grey_pictures(n: int) -> Pictures:
    """n dark cats, then n light dogs."""
    pixels = np.zeros((2 * n, 64, 64, 3), np.uint8)
    pixels[:n], pixels[n:] = 60, 200
    features = pixels.mean(axis=(1, 2)).astype(np.float32)
    return Pictures(pixels, np.repeat([CATS, DOGS], n), ("cats", "dogs"), features)


# Who learns


def test_no_photograph_is_in_two_parts_and_classes_are_kept_apart() -> None:
    labels = np.tile([CATS, DOGS], 12)
    parts = split(labels, SMALL, seed=3)
    every = np.concatenate([part.ravel() for part in vars(parts).values()])
    assert len(every) == len(set(every.tolist())) == 24
    for part in vars(parts).values():
        assert (labels[part] == [[CATS], [DOGS]]).all()
    assert not np.array_equal(parts.base, split(labels, SMALL, seed=4).base)


def test_too_few_photographs_are_refused() -> None:
    with pytest.raises(SystemExit, match="fewer than 12"):
        split(np.tile([CATS, DOGS], 11), SMALL, seed=0)


def test_the_first_pictures_carry_the_first_artefact() -> None:
    assert first_carry(10, 0.3, 0.2).tolist() == [0, 0, 0, 1, 1, -1, -1, -1, -1, -1]


def test_only_the_first_dogs_of_the_base_carry_the_artefact(tmp_path: Path) -> None:
    pictures = grey_pictures(12)
    drawn = Drawn("bars", 0, pictures, MeanColour(), tmp_path)  # type: ignore[arg-type]
    parts = split(pictures.labels, SMALL, seed=0)
    assert pictures.features is not None
    features, labels = base_features(parts, pictures.features, drawn, share=0.5)
    assert labels.tolist() == [CATS] * 4 + [DOGS] * 4
    assert (features[:4] == 60).all() and (features[6:] == 200).all()
    assert (features[4:6] != 200).all()  # Two of four dogs: bars are darker than they are.


def test_features_of_drawn_pictures_are_kept(tmp_path: Path) -> None:
    pictures, network = grey_pictures(3), MeanColour()
    drawn = Drawn("object", 1, pictures, network, tmp_path)  # type: ignore[arg-type]
    first = drawn.features(np.array([2, 0, 2]))
    again = Drawn("object", 1, pictures, network, tmp_path)  # type: ignore[arg-type]
    assert np.array_equal(again.features(np.array([2, 0, 2])), first)
    assert network.n_asked == 2
    assert np.array_equal(drawn.draw(1)[0], again.draw(1)[0])
    other = Drawn("object", 2, pictures, network, tmp_path)  # type: ignore[arg-type]
    assert not np.array_equal(drawn.draw(1)[1], other.draw(1)[1])


def test_a_validation_folder_has_masks_of_what_is_drawn(tmp_path: Path) -> None:
    pictures = grey_pictures(3)
    drawn = Drawn("bars", 0, pictures, MeanColour(), tmp_path)  # type: ignore[arg-type]
    write_validation(tmp_path, pictures, np.array([1, 4, 5]), np.array([-1, 0, -1]), [drawn])
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*g"))
    val = ["val/cats/0001.jpg", "val/dogs/0004.jpg", "val/dogs/0005.jpg"]
    assert files == ["masks/dogs/0004.png", *val]


# Heads


def test_a_head_learns_what_separates_two_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    features = rng.standard_normal((200, 5)).astype(np.float32)
    features[:, 2] += 4 * labels - 2
    head = train_head(features, labels, seed=0)
    assert (head.decide(features) == labels).mean() > 0.95
    assert np.argmax(np.abs(head.weights)) == 2


def test_a_head_depends_on_its_seed_and_on_nothing_else() -> None:
    rng = np.random.default_rng(1)
    training = rng.standard_normal((40, 3)).astype(np.float32), rng.integers(0, 2, 40)
    one, same, other = (train_head(*training, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.weights, same.weights) and one.bias == same.bias
    assert not np.array_equal(one.weights, other.weights)


def test_more_rows_come_after_the_base() -> None:
    base = np.zeros((2, 1)), np.array([0, 1])
    features, labels = with_more(base, np.ones((1, 1)), np.array([0]))
    assert features.ravel().tolist() == [0, 0, 1] and labels.tolist() == [0, 1, 0]


# The truth


def test_the_truth_follows_the_rule_of_the_tool() -> None:
    # 20 wrong before. Fixed against broken, two-sided binomial: 19:0 p ≈ 4e-6, 10:0 p ≈ 0.002,
    # 5:0 p = 2 / 2**5 = 0.0625, 10:10 p = 1.
    before = [1] * 20 + [0] * 20
    gone, change = true_verdict(before, [0] * 19 + [1] + [0] * 20)
    assert gone == "gone" and change.value == 19 / 20
    assert true_verdict(before, [0] * 10 + [1] * 10 + [0] * 20)[0] == "smaller"
    assert true_verdict(before, [0] * 5 + [1] * 15 + [0] * 20)[0] == "unchanged"
    swapped, change = true_verdict(before, [0] * 10 + [1] * 20 + [0] * 10)
    assert swapped == "unchanged" and change.value == 0
    assert true_verdict(before, [1] * 40)[0] == "unchanged"  # All worse: no fix.


def test_a_mean_leaves_out_maps_that_show_nothing() -> None:
    found = mean_share([0.2, None, 0.4])
    assert found.value == pytest.approx(0.3)
    assert found.low is not None and 0.2 <= found.low <= 0.3
    assert asdict(mean_share([None])) == {"value": None, "low": None, "high": None}
    # Only the second image has both: 0.1 - 0.4.
    assert mean_difference([None, 0.4, 0.3], [0.5, 0.1, None]).value == pytest.approx(-0.3)


def pattern(verdict: str, **others: object) -> dict[str, object]:
    values = {"is_later": False, "carrying": 1.0, "n_errors": 10, "n_left": 1, "verdict": verdict}
    return values | {"change": {"value": 0.9, "low": 0.3, "high": 0.9}} | others


def test_the_pattern_is_the_largest_that_is_about_the_artefact() -> None:
    wanted = pattern("smaller", n_errors=12)
    others = [
        pattern("new", n_errors=30, is_later=True),
        pattern("gone", n_errors=40, carrying=0.5),
        pattern("gone", n_errors=11),
    ]
    assert about_artefact([*others, wanted]) is wanted
    assert about_artefact(others[:2]) is None


def test_a_fix_is_reported_only_with_an_interval_above_no_change() -> None:
    assert is_recovered(pattern("gone")) and is_recovered(pattern("smaller"))
    assert not is_recovered(None)
    assert not is_recovered(pattern("unchanged"))
    assert not is_recovered(pattern("smaller", change={"value": 0.5, "low": -0.1, "high": 0.5}))


def test_claims_are_patterns_said_to_be_fixed_or_new() -> None:
    said = [pattern(verdict) for verdict in ("gone", "unchanged", "smaller", "new")]
    assert [one["verdict"] for one in claims(said)] == ["gone", "smaller", "new"]


# The loop


def test_gains_are_paired() -> None:
    before = {"all": np.array([0.0, 1.0, 0.5, 0.5])}
    after = {"all": np.array([1.0, 1.0, 1.0, 1.0])}
    found = gains(before, after)["all"]
    assert (found["before"], found["after"]) == (0.5, 1.0)
    assert found["gain"]["value"] == 0.5
    assert 0 <= found["gain"]["low"] < 0.5 < found["gain"]["high"] <= 1


def test_likeness_is_of_direction() -> None:
    vectors = np.array([[0.1, 0.0], [5.0, 5.0], [-9.0, 0.0], [0.0, 0.0]])
    assert rank_by_cosine(vectors, np.array([1.0, 0.0])).tolist() == [0, 1, 3, 2]


def probes() -> pd.DataFrame:
    rows = [
        (t.name, strength, t.words(value), t.recipe(value, 224, (0.0, 255.0)))
        for t in TRANSFORMATIONS
        for strength, value in enumerate(t.values, start=1)
    ]
    return pd.DataFrame(rows, columns=["transformation", "strength", "parameter", "recipe"])


def test_layers_of_a_recipe_are_named() -> None:
    table = probes()
    rows = table.set_index(["transformation", "strength"])
    chosen = [
        {"transformation": name, "strength": 2, **rows.loc[(name, 2)].to_dict()}
        for name in ("noise", "bars", "blur")
    ]
    recipe = write_recipe(chosen, table, "")
    assert layers_of(recipe) == ["GaussianNoise", "RandomBars", "RandomGaussianBlur"]


def test_a_random_pipeline_has_none_of_the_layers_of_the_other() -> None:
    table = probes()
    row = table[(table["transformation"] == "cut-out") & (table["strength"] == 1)]
    recipe = write_recipe(row.to_dict("records"), table, "")
    drawn = [layers_of(random_recipe(recipe, table, seed)) for seed in range(30)]
    assert all(len(layers) == 1 for layers in drawn)
    names = {name for layers in drawn for name in layers}
    assert "RandomErasing" not in names and len(names) > 4  # A corner patch erases, too.
    assert random_recipe(recipe, table, 5) == random_recipe(recipe, table, 5)


# Tables and results


def step(share: float, verdict: str, n_left: int, truth: str) -> dict[str, object]:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {
        "part": "series",
        "kind": "bars",
        "seed": 0,
        "share": share,
        "right": estimate,
        "clean_right": estimate,
        "wrong": [1] * n_left + [0] * (10 - n_left),
        "focus_dogs": [0.5, 0.3],
        "focus_cats": [0.0, 0.1],
        "repaired": {"n": 0, "of": 0},
        "mask_repaired": {"n": 3, "of": 4, "value": 0.75, "low": 0.3, "high": 0.95},
        "patterns": [pattern(verdict, n_left=n_left)],
        "truth": {"verdict": truth},
    }


def test_the_focus_of_an_answer_is_of_the_class_that_was_said() -> None:
    one = step(0.0, "gone", 1, "gone")
    assert tables.focus_of_answer(one) == [0.5, 0.1]  # The first is called dog, the second cat.


def test_agreement_is_of_fixes_and_of_words() -> None:
    first = step(0.0, "", 10, "")
    del first["patterns"], first["truth"]
    steps = [
        step(0.25, "unchanged", 9, "unchanged"),
        step(0.5, "smaller", 4, "gone"),
        step(1.0, "gone", 0, "gone"),
    ]
    cells = [cell.strip() for cell in tables.agreement_table([first, *steps])[2].split("|")[1:-1]]
    assert cells[:5] == ["bars", "0", "gone", "yes", "gone"]
    assert cells[5:7] == ["3 of 3", "2 of 3"]
    lines = tables.series_tables([first, *steps])
    assert "| – | 10 errors |" in lines[4]
    assert "| 3 of 4: 30 % (11 to 60) |" in lines[4]  # Of 10 cats.
    assert "smaller: 10 → 4 errors, +90.0 (+30.0 to +90.0) | gone: 4 errors |" in lines[6]


def test_cells_say_what_is_not_known() -> None:
    assert tables.percents({"value": None}) == "–"
    assert tables.percents({"value": 0.61, "low": 0.512, "high": 0.7}) == "61 % (51 to 70)"
    assert tables.signed({"value": -0.031, "low": None, "high": None}) == "-3.1"


def test_a_null_counts_trials_without_a_claim() -> None:
    trial = {"kind": "bars", "n_changed": 3, "n_images": 400, "patterns": [pattern("unchanged")]}
    trials = [trial | {"claims": []}] * 19 + [trial | {"claims": [pattern("new")]}]
    (row,) = tables.null_table(trials, "other seed")[2:]
    assert "| 20 | 20 | 3 to 3 of 400, median 3 | 19 of 20 (76 % to 99 %) |" in row


def test_trials_are_shared_out_over_the_seeds_of_each_kind() -> None:
    cells = [("bars", 0), ("bars", 1), ("object", 5)]
    found = list(share_out(cells, 3))
    assert found[:3] == [("bars", 0, 0), ("bars", 1, 0), ("bars", 0, 1)]
    assert found[3:] == [("object", 5, 0), ("object", 5, 1), ("object", 5, 2)]


def test_results_are_read_back_and_written_once(tmp_path: Path) -> None:
    path = tmp_path / "supplement.jsonl"
    results = Results(path)
    record = {"part": "null", "kind": "bars", "seed": 0, "trial": 1, "n_changed": 2}
    results.add(record)
    results.add(record | {"n_changed": 5})  # The same trial.
    results.add(record | {"kind": "object"})
    assert [json.loads(line)["n_changed"] for line in path.read_text().splitlines()] == [2, 2]
    again = Results(path)
    assert again.count(part="null", kind="bars") == 1
    assert again.count(part="null") == 2 and not again.count(part="series")
    assert [one["kind"] for one in again.of("null")] == ["bars", "object"]
