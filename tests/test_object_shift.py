"""Whether the focus moved onto the object, paired over images."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from compare_fixture import SIDE, binary_scores, write_run

from audit.cli import main
from audit.compare.comparison import compare_runs
from audit.compare.object_shift import Measured, shift_in_object
from audit.errors import DatasetError
from audit.explain.inside import energy_inside
from audit.run_folder import RunFolder

N = 12


def measured(
    values: dict[tuple[int, int], float], share: float = 0.25, **unusable: str
) -> Measured:
    inside = {key: (share, energy, float(energy > 0.5)) for key, energy in values.items()}
    return Measured(inside, {int(name[1:]): reason for name, reason in unusable.items()})


def test_by_hand():
    before = measured({(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.6, (2, 0): 0.9}, _5="torn", _4="gone")
    after = measured({(0, 0): 0.3, (0, 1): 0.7, (1, 0): 0.9})
    found = shift_in_object(before, after, {(0, 0), (0, 1), (1, 0), (2, 0), (3, 0)})
    assert (found.n_images, found.n_maps, found.n_left_out) == (2, 3, 2)
    assert (found.n_unusable, found.first_reason) == (2, "gone")
    # Image 0 has 0.2 → 0.5, the mean of its two classes; image 1 has 0.6 → 0.9.
    assert found.energy_before == pytest.approx(0.4)
    assert found.energy_after == pytest.approx(0.7)
    assert found.energy_change.value == pytest.approx(0.3)
    assert found.pointing_before == pytest.approx((0 + 1) / 2)
    assert found.pointing_after == pytest.approx((0.5 + 1) / 2)
    assert found.object_share == pytest.approx(0.25)


def test_what_is_not_asked_for_does_not_count():
    values = measured({(0, 0): 0.1, (1, 0): 0.9})
    assert shift_in_object(values, values, {(1, 0)}).energy_before == pytest.approx(0.9)


def test_nothing_known_is_nothing_claimed():
    found = shift_in_object(measured({}), measured({(0, 0): 1}), {(0, 0)})
    assert found.n_images == found.n_maps == 0
    assert found.n_left_out == 1
    assert found.energy_before is found.energy_change.value is found.object_share is None
    assert found.energy_p == 1


def test_the_interval_is_that_of_paired_differences():
    rng = np.random.default_rng(3)
    level, gain = rng.random(200) * 0.5, rng.normal(0.05, 0.1, 200)
    before = measured({(i, 0): x for i, x in enumerate(level)})
    after = measured({(i, 0): x for i, x in enumerate(level + gain)})
    change = shift_in_object(before, after, set(before.inside)).energy_change
    half = 1.96 * gain.std() / np.sqrt(200)
    assert change.value == pytest.approx(gain.mean())
    assert change.low == pytest.approx(gain.mean() - half, abs=0.003)
    assert change.high == pytest.approx(gain.mean() + half, abs=0.003)


def column(x: int) -> np.ndarray:
    cam = np.zeros((SIDE, SIDE), np.uint8)
    cam[:, x] = 255
    return cam


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """All images are wrong in both runs; before they look at the left, after at the right half."""
    scores = binary_scores([0.9] * N)
    return [
        write_run(
            tmp_path / name,
            [0] * N,
            scores,
            maps={(image, 1): column(x) for image in range(N)},
            input={"height": SIDE, "width": SIDE, "channels": 3, "aspect": "stretch"},
        )
        for name, x in (("before", 1), ("after", 6))
    ]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """The right half of 40 × 30 pixels, of all images but the first two."""
    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 20:] = 255
    for image in range(2, N):
        cv2.imwrite(str(folder / f"{image:04d}.png"), mask)
    (folder / "0001.png").write_text("no mask")
    return folder


def test_masks_given_to_the_comparison(runs: list[Path], masks: Path):
    found = compare_runs(runs, masks=masks).steps[0].focus.objects
    assert found is not None
    assert (found.n_images, found.n_left_out, found.n_unusable) == (N - 2, 2, 1)
    assert (found.energy_before, found.energy_after) == (0, 1)
    assert (found.pointing_before, found.pointing_after) == (0, 1)
    assert found.first_reason == "its mask is no PNG"
    assert found.object_share == pytest.approx(0.5)


def test_without_masks_nothing_is_said(runs: list[Path]):
    assert compare_runs(runs).steps[0].focus.objects is None


def test_masks_that_fit_nothing_are_refused(runs: list[Path], tmp_path: Path):
    cv2.imwrite(str(tmp_path / "other.png"), column(0))
    with pytest.raises(DatasetError, match="belongs to any image"):
        compare_runs(runs, masks=tmp_path)


def note(run: Path, energies: list[float]) -> None:
    """Write what a run with masks notes of its maps."""
    folder = RunFolder(run)
    ids = np.arange(len(energies))
    columns = {"explained_class": 1, "object_share": 0.5, "pointing": 1.0}
    focus = folder.read_table("focus").set_index("image_id").reindex(ids).reset_index()
    focus = focus.assign(**columns, energy_inside=energies)
    focus[["role", "is_predicted", "pattern"]] = ["error", True, -1]
    folder.write_table("focus", focus)
    table = pd.DataFrame({"image_id": ids, "kind": "mask", "reason": "", "object_share": 0.5})
    table.loc[3, ["kind", "reason"]] = ["unusable", "torn"]
    folder.write_table("objects", table)


def test_what_both_runs_noted_is_used(runs: list[Path], masks: Path):
    note(runs[0], [0.2] * N)
    assert compare_runs(runs).steps[0].focus.objects is None  # Only one of them knows.
    note(runs[1], [0.5] * (N - 1) + [float("nan")])
    found = compare_runs(runs).steps[0].focus.objects
    assert found is not None
    assert (found.n_images, found.n_left_out) == (N - 1, 1)
    assert (found.energy_before, found.energy_after) == pytest.approx((0.2, 0.5))
    assert (found.n_unusable, found.first_reason) == (1, "torn")
    given = compare_runs(runs, masks=masks).steps[0].focus.objects
    assert given is not None
    assert given.energy_before == 0  # The option goes first.


def test_runs_that_see_images_differently(runs: list[Path], masks: Path):
    """The later model sees the middle of each image, where the object is the same half."""
    manifest = RunFolder(runs[1]).read_manifest()
    view = {"height": 16, "width": 16, "channels": 3, "aspect": "crop"}
    RunFolder(runs[1]).write_manifest(manifest | {"input": view})
    found = compare_runs(runs, masks=masks).steps[0].focus.objects
    assert found is not None
    half = np.zeros((16, 16), np.float32)
    half[:, 8:] = 1
    assert found.energy_after == pytest.approx(energy_inside(column(6), half))


def test_the_command_says_it(runs: list[Path], masks: Path, tmp_path: Path):
    arguments = ["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--masks", str(masks)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("object ")]
    assert line == (
        "object      share of the focus inside the object 0 % → 100 %, +1.0000 (p = 0.002); hottest"
        " pixel inside 0 % → 100 %, +1.0000 (p = 0.002); 10 images, 2 maps left out, whose object"
        " is not known; an even map has 50 % inside"
    )
    assert "LEFT OUT    masks or boxes of 1 images, the first because its mask is no PNG" in lines
    (step,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["steps"]
    assert step["focus"]["objects"]["energy_change"] == {"value": 1, "low": None, "high": None}
