"""Whole comparisons of runs written by hand, and of real runs with themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_fixture import SIDE, binary_scores, condition, write_run

from audit.compare.changes import NOT_SHOWN
from audit.compare.comparison import MOST_IMAGES, compare_runs
from audit.compare.patterns_change import GONE, UNCHANGED
from audit.errors import AuditError, ConfigError

N_CATS, N_DOGS, N_BARRED = 40, 30, 12


def left() -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[:, :2] = 200
    return cam


def middle() -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[2:6, 3:6] = 200
    return cam


def write_before(path: Path) -> Path:
    """Write a run in which twelve barred cats are called dogs."""
    y_true = [0] * N_CATS + [1] * N_DOGS
    p_dogs = [0.8] * N_BARRED + [0.2] * (N_CATS - N_BARRED) + [0.9] * N_DOGS
    barred = list(range(N_BARRED))
    return write_run(
        path,
        y_true,
        binary_scores(p_dogs),
        metadata={"bars": ["yes"] * N_BARRED + ["no"] * (len(y_true) - N_BARRED)},
        patterns={1: barred},
        maps={(image, 1): left() for image in barred},
        repaired=dict.fromkeys(barred, True),
        slices=[
            {
                "name": "bars: yes",
                "kind": "metadata",
                "conditions": [condition("metadata.bars", value="yes")],
                "confirmed": True,
            }
        ],
    )


def write_after(path: Path, n_left: int = 1) -> Path:
    """Write the run after, in which the bars fool the model `n_left` times, and one dog is lost."""
    y_true = [0] * N_CATS + [1] * N_DOGS
    p_dogs = [0.6] * n_left + [0.1] * (N_CATS - n_left) + [0.95] * (N_DOGS - 1) + [0.3]
    return write_run(
        path,
        y_true,
        binary_scores(p_dogs),
        maps={(0, 1): middle(), (1, 1): middle(), (69, 0): middle()},
        repaired={0: False},
    )


def test_a_fix_by_hand(tmp_path: Path):
    before, after = write_before(tmp_path / "before"), write_after(tmp_path / "after")
    comparison = compare_runs([before, after])
    assert comparison.labels == ("before", "after")
    assert comparison.n_images == 70
    assert [run.n_errors for run in comparison.runs] == [12, 2]
    assert comparison.runs[0].accuracy["value"] == 58 / 70
    (step,) = comparison.steps
    assert step.outcomes.fixed.tolist() == list(range(1, 12))
    assert step.outcomes.broken.tolist() == [69]
    assert step.outcomes.still_wrong.tolist() == [0]
    assert step.outcomes.p_value == pytest.approx(2 * 13 / 2**12)  # One of twelve, two tails.
    cats, dogs = step.classes
    assert (cats.name, cats.n_fixed, cats.n_broken) == ("cats", 11, 0)
    assert (dogs.n_fixed, dogs.n_broken, dogs.verdict) == (0, 1, NOT_SHOWN)
    (bars,) = step.slices
    # Half of the twelve, those that the slice was not searched on.
    assert (bars.name, bars.found_in, bars.n_images) == ("bars: yes", "before", 6)
    assert bars.n_wrong_before == 6
    assert bars.n_fixed == 6 - bars.n_wrong_after >= 5
    (pattern,) = step.patterns
    assert pattern.verdict == GONE
    assert (pattern.n_right, pattern.n_same_way, pattern.n_against) == (11, 1, 0)
    assert (pattern.causal_before.n, pattern.causal_before.of) == (12, 12)
    assert (pattern.causal_after.n, pattern.causal_after.of) == (0, 1)
    assert (step.focus.n_maps, step.focus.n_before_only, step.focus.n_after_only) == (2, 10, 1)
    assert step.focus.overlap.mean == 0
    (place,) = step.focus.places
    # The hottest fifth is 13 pixels of the 16 in the left quarter; of the middle, none is left.
    assert (place.is_shared, place.n_images, place.n_left_out) == (True, 2, 10)
    assert place.before == pytest.approx(13 / 16)
    assert place.after == 0


def test_the_summary_is_plain_and_names_images(tmp_path: Path):
    comparison = compare_runs([write_before(tmp_path / "a"), write_after(tmp_path / "b")])
    summary = comparison.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    (step,) = summary["steps"]
    assert (step["before"], step["after"]) == ("a", "b")
    assert step["outcomes"]["n_fixed"] == 11
    first = step["outcomes"]["fixed"][0]
    assert first["path"] == "0001.png"
    assert (first["true_class"], first["before"], first["after"]) == ("cats", "dogs", "cats")
    assert first["p_true_before"] == pytest.approx(0.2)
    assert first["p_true_after"] == pytest.approx(0.9)
    assert step["patterns"][0]["same_way"] == ["0000.png"]
    assert step["patterns"][0]["right"] == [f"{i:04d}.png" for i in range(1, 12)]
    assert {metric["name"] for metric in step["metrics"]} >= {"accuracy", "brier", "ece"}


def test_long_lists_are_cut_in_json_only(tmp_path: Path):
    n = MOST_IMAGES + 5
    a = write_run(tmp_path / "a", [0] * n, binary_scores([0.9] * n))
    b = write_run(tmp_path / "b", [0] * n, binary_scores([0.1] * n))
    comparison = compare_runs([a, b])
    outcomes = comparison.summary()["steps"][0]["outcomes"]
    assert outcomes["n_fixed"] == n
    assert len(outcomes["fixed"]) == MOST_IMAGES
    step = comparison.steps[0]
    assert len(comparison.changed_images(step, step.outcomes.fixed)) == n


def test_a_series_is_held_against_its_first_run(tmp_path: Path):
    runs = [write_before(tmp_path / "0")]
    runs += [write_after(tmp_path / f"{n}", n_left=n) for n in (6, 2)]
    comparison = compare_runs(runs, ["0%", "50%", "100%"])
    assert comparison.labels == ("0%", "50%", "100%")
    assert [len(step.outcomes.fixed) for step in comparison.steps] == [6, 10]
    assert [step.position for step in comparison.steps] == [1, 2]
    alone = compare_runs([runs[0], runs[2]], ["0%", "100%"])
    summaries = [comparison.summary()["steps"][1], alone.summary()["steps"][0]]
    assert summaries[0] == summaries[1]


def assert_nothing_changed(comparison: Any) -> None:
    (step,) = comparison.steps
    assert all(metric.p_value == 1 for metric in step.metrics)
    assert all(metric.change.value in (0.0, None) for metric in step.metrics)
    assert len(step.outcomes.fixed) == len(step.outcomes.broken) == 0
    assert step.calibration.change.value == 0
    assert all(group.verdict == NOT_SHOWN for group in (*step.classes, *step.slices))
    assert all(pattern.verdict == UNCHANGED for pattern in step.patterns)
    assert all(pattern.causal_before == pattern.causal_after for pattern in step.patterns)
    if step.focus.n_maps:
        assert step.focus.overlap.mean == 1
        assert step.focus.correlation.mean == pytest.approx(1)
        assert step.focus.distance.mean == pytest.approx(0, abs=1e-9)
    assert step.focus.n_before_only == step.focus.n_after_only == 0


def test_a_run_against_itself_changes_nothing(tmp_path: Path):
    run = write_before(tmp_path / "run")
    comparison = compare_runs([run, run])
    assert comparison.labels == ("run (1)", "run (2)")
    assert_nothing_changed(comparison)


def test_a_real_run_against_itself_changes_nothing(drawn_run: Path):
    comparison = compare_runs([drawn_run, drawn_run], ["a", "b"])
    assert comparison.steps[0].focus.n_maps > 0
    assert_nothing_changed(comparison)


def test_metrics_are_those_of_the_run(drawn_run: Path):
    stored = json.loads((drawn_run / "metrics.json").read_text())
    for metric in compare_runs([drawn_run, drawn_run], ["a", "b"]).steps[0].metrics:
        assert metric.before == pytest.approx(stored[metric.name]["value"], abs=1e-12), metric.name


def test_the_same_runs_give_the_same_comparison(tmp_path: Path):
    runs = [write_before(tmp_path / "a"), write_after(tmp_path / "b")]
    assert compare_runs(runs).summary() == compare_runs(runs).summary()


@pytest.mark.parametrize(
    ("n_runs", "labels", "message"),
    [
        (1, None, "needs two runs or more. Received: 1."),
        (2, ["a"], "each of the 2 runs, with commas between them. Received: 'a'."),
        (2, ["a", "a"], "Received: 'a', 'a'."),
        (2, ["a", ""], "Received: 'a', ''."),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, n_runs: int, labels: list[str] | None, message: str
):
    with pytest.raises(ConfigError, match=message):
        compare_runs([write_before(tmp_path / "a")] * n_runs, labels)


def test_what_is_no_run_is_refused(tmp_path: Path):
    run = write_before(tmp_path / "a")
    with pytest.raises(AuditError, match="is not a run folder"):
        compare_runs([run, tmp_path])
