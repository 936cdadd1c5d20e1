"""Slices are found on one half and confirmed on the other, and only where there is something."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from audit.diagnose import slices
from audit.diagnose.conditions import make_table
from audit.diagnose.slices import SCHEMA, find_slices, slice_members
from audit.predict.intervals import wilson_interval
from audit.predict.properties import MEASURES
from audit.run_folder import to_arrow

CLASSES = ("cats", "dogs", "<b>birds</b>")
NO_DUPLICATES = pd.DataFrame(columns=["image_id", "group", "other_id", "bits"], dtype=np.int64)


class Case:
    """A data set: 600 images of three classes with properties, a camera, an age; no errors yet."""

    def __init__(self, n: int = 600, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n, self.rng = n, rng
        ids = np.arange(n) * 2 + 5
        self.y_true = np.arange(n) % 3
        self.is_error = np.zeros(n, bool)
        self.properties = pd.DataFrame(
            {"image_id": ids, "width": 640, "height": rng.integers(300, 640, n)}
            | {"file_size": rng.integers(1000, 90_000, n)}
            | {name: rng.random(n).astype(np.float32) for name in MEASURES}
            | {"hash": rng.integers(0, 2**63, n, dtype=np.uint64)}
        )
        self.images = pd.DataFrame({"image_id": ids, "path": "x.jpg", "y_true": self.y_true})
        self.images["camera"] = rng.choice(["A", "B"], n, p=[0.7, 0.3])
        self.images["age"] = rng.normal(40, 10, n)
        self.duplicates = NO_DUPLICATES

    def spoil(self, chosen: np.ndarray, rate: float) -> "Case":
        self.is_error |= np.asarray(chosen) & (self.rng.random(self.n) < rate)
        return self

    @property
    def predictions(self) -> pd.DataFrame:
        y_pred = np.where(self.is_error, (self.y_true + 1) % 3, self.y_true)
        columns = {"image_id": self.images["image_id"], "path": "x.jpg", "p_true": 0.5}
        return pd.DataFrame(columns | {"y_true": self.y_true, "y_pred": y_pred})

    def find(self, seed: int = 0, order: np.ndarray | None = None) -> pd.DataFrame:
        order = np.arange(self.n) if order is None else order
        frames = [f.iloc[order] for f in (self.predictions, self.properties, self.images)]
        return find_slices(*frames, self.duplicates, CLASSES, seed=seed)

    def table(self) -> pd.DataFrame:
        return make_table(self.predictions, self.properties, self.images, self.duplicates, CLASSES)


def blurred_case(seed: int = 0) -> Case:
    case = Case(seed=seed)
    sharpness = case.properties["sharpness"]
    blurred = (sharpness < sharpness.quantile(0.2)).to_numpy()
    return case.spoil(blurred, 0.6).spoil(np.ones(case.n, bool), 0.04)


# What is planted is found


def test_blur_is_found_and_confirmed():
    found = blurred_case().find()
    first = found.iloc[0]
    assert first["slice"] == 1
    assert first["name"] == "blurred (sharpness in the lowest 20 %)"
    assert (first["kind"], bool(first["confirmed"])) == ("property", True)
    assert first["n_images"] == 120
    (condition,) = first["conditions"]
    assert (condition["column"], condition["low"], condition["value"]) == ("sharpness", None, None)
    assert found["confirmed"].sum() == 1


def test_a_camera_of_one_class_is_found():
    case = Case()
    chosen = (case.images["camera"] == "B").to_numpy() & (case.y_true == 2)
    first = case.spoil(chosen, 0.5).spoil(np.ones(case.n, bool), 0.04).find().iloc[0]
    assert first["name"] == "camera: B and class <b>birds</b>"
    assert first["kind"] == "pair" and first["confirmed"]
    assert [dict(c) for c in first["conditions"]] == [
        {"column": "metadata.camera", "low": None, "high": None, "value": "B"},
        {"column": "y_true", "low": None, "high": None, "value": "<b>birds</b>"},
    ]


def test_numbers_of_the_user_and_near_duplicates_are_tried():
    case = Case()
    case.spoil((case.images["age"] > case.images["age"].quantile(0.9)).to_numpy(), 0.7)
    twins = case.images["image_id"].to_numpy()[:80]
    case.duplicates = pd.DataFrame(
        {"image_id": twins, "group": np.arange(80) // 2, "other_id": twins[::-1], "bits": 0}
    )
    case.spoil(np.arange(case.n) < 80, 0.5).spoil(np.ones(case.n, bool), 0.04)
    found = case.find()
    kinds = dict(zip(found["kind"], found["name"], strict=True))
    assert set(found.loc[found["confirmed"], "kind"]) == {"duplicates", "metadata"}
    assert kinds["duplicates"] == "with a near-duplicate"
    assert kinds["metadata"] == "age in the highest 10 %"


def test_a_column_that_only_repeats_the_class_is_not_confirmed():
    case = Case()
    case.images["species"] = np.array(["felis", "canis", "aves"])[case.y_true]
    found = case.spoil(case.y_true == 1, 0.4).spoil(np.ones(case.n, bool), 0.05).find()
    assert found.loc[found["confirmed"], "kind"].tolist() == ["class"]
    assert found.loc[found["confirmed"], "name"].tolist() == ["class dogs"]


def test_classes_come_last_and_do_not_crowd_out_the_rest():
    case = blurred_case().spoil(Case().y_true == 0, 0.9)
    found = case.find()
    confirmed = found[found["confirmed"]]
    assert confirmed["kind"].iloc[0] == "property"
    assert set(confirmed["kind"].iloc[1:]) == {"class"}
    assert confirmed["excess_errors"].iloc[1] > confirmed["excess_errors"].iloc[0]


# The numbers


def test_the_numbers_of_a_slice_are_those_of_its_images():
    case = blurred_case()
    found, table = case.find(), case.table()
    halves = slices.split_images(table, NO_DUPLICATES, 0)
    for row in found.to_dict("records"):
        inside = slice_members(row["conditions"], table)
        errors = inside & table["is_error"].to_numpy()
        assert list(row["error_ids"]) == table.loc[errors, "image_id"].tolist()
        assert (row["n_images"], row["n_errors"]) == (inside.sum(), errors.sum())
        low, high = wilson_interval(errors.sum(), inside.sum())
        assert (row["error_rate_low"], row["error_rate_high"]) == (low, high)
        assert row["error_rate"] == errors.sum() / inside.sum()
        # Tested without what was found before; the first confirmed one is the first found.
        kept_back = (inside & ~halves).sum(), (errors & ~halves).sum()
        tested = row["n_images_confirm"], row["n_errors_confirm"]
        assert (
            tested == kept_back if row["slice"] == 1 else np.all(np.less_equal(tested, kept_back))
        )
        assert row["lift_low"] <= row["lift"] <= row["lift_high"]
        want = row["n_errors"] - row["n_images"] * row["other_error_rate"]
        assert row["excess_errors"] == pytest.approx(want)


def test_a_slice_of_one_class_is_tested_as_fisher_does():
    case = Case()
    chosen = (case.images["camera"] == "B").to_numpy() & (case.y_true == 2)
    case.spoil(chosen, 0.5).spoil(np.ones(case.n, bool), 0.04)
    row, table = case.find().iloc[0], case.table()
    kept = (
        ~slices.split_images(table, NO_DUPLICATES, 0) & (table["y_true"] == CLASSES[2]).to_numpy()
    )
    inside, wrong = slice_members(row["conditions"], table)[kept], table["is_error"][kept]
    cells = [
        [(inside & wrong).sum(), (inside & ~wrong).sum()],
        [(~inside & wrong).sum(), (~inside & ~wrong).sum()],
    ]
    assert row["p_value"] == pytest.approx(fisher_exact(cells, alternative="greater").pvalue)
    assert row["other_error_rate"] == pytest.approx(0.04, abs=0.05)


def test_false_discoveries_are_controlled_over_classes_and_the_rest_apart():
    found = blurred_case(3).spoil(Case().y_true == 0, 0.3).find()
    for _, family in found.groupby(found["kind"] == "class"):
        p_values = family["p_value"].sort_values().to_numpy()
        q_values = p_values * len(p_values) / np.arange(1, len(p_values) + 1)
        want = np.minimum.accumulate(q_values[::-1])[::-1]
        np.testing.assert_allclose(family["q_value"].sort_values(), want)
    assert (found["confirmed"] == (found["q_value"] < 0.05)).all()


def test_the_frame_goes_into_parquet_and_comes_back_a_slice():
    case = blurred_case()
    found = case.find()
    arrow = to_arrow(found, SCHEMA)
    assert arrow.schema == SCHEMA
    row = arrow.to_pylist()[0]
    inside = slice_members(row["conditions"], case.table())
    assert inside.sum() == row["n_images"]


# Nothing is confirmed where there is nothing


def test_errors_drawn_at_random_confirm_a_slice_in_one_of_twenty_cases_at_most():
    confirmed = []
    for seed in range(60):
        case = Case(n=300, seed=seed)
        rates = np.array([0.3, 0.1, 0.2])[case.y_true]  # classes differ; nothing else does
        case.is_error = case.rng.random(case.n) < rates
        found = case.find(seed)
        confirmed.append(found.loc[found["kind"] != "class", "confirmed"].any())
    assert np.mean(confirmed) <= 0.05


def test_properties_that_differ_between_classes_are_not_confirmed():
    confirmed = []
    for seed in range(20):
        case = Case(seed=seed)
        case.properties["brightness"] += case.y_true / 2
        case.properties["sharpness"] -= case.y_true / 3
        case.is_error = case.rng.random(case.n) < np.array([0.4, 0.05, 0.15])[case.y_true]
        found = case.find(seed)
        confirmed.append(found.loc[found["kind"] != "class", "confirmed"].any())
    assert np.mean(confirmed) <= 0.1


def test_near_duplicates_are_on_one_side():
    case = Case()
    ids = case.images["image_id"].to_numpy()
    groups = case.rng.permutation(np.repeat(np.arange(60), 3))
    rows = case.rng.choice(case.n, 180, replace=False)
    pairs = pd.DataFrame({"image_id": ids[rows], "group": groups, "other_id": 0, "bits": 0})
    halves = slices.split_images(case.table(), pairs, 0)
    for group in range(60):
        assert len(set(halves[rows[groups == group]])) == 1


def test_halves_hold_as_many_right_and_wrong_images_of_each_class():
    table = blurred_case().table()
    halves = slices.split_images(table, NO_DUPLICATES, 1)
    counts = table.assign(half=halves).groupby(["y_true", "is_error", "half"]).size().unstack()
    assert (abs(counts[True] - counts[False]) <= 1).all()
    assert abs(halves.sum() - 300) <= 1


# What must not matter, and what there may be none of


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(seed):
    case = blurred_case()
    order = np.random.default_rng(seed).permutation(case.n)
    pd.testing.assert_frame_equal(case.find(order=order), case.find())


def test_the_same_seed_gives_the_same_slices_and_another_seed_another_half():
    case = blurred_case()
    pd.testing.assert_frame_equal(case.find(4), case.find(4))
    assert case.find(4)["n_errors_confirm"].iloc[0] != case.find(5)["n_errors_confirm"].iloc[0]


def test_a_large_set_is_searched_in_part_and_tested_whole(monkeypatch):
    whole = blurred_case().find()
    monkeypatch.setattr(slices, "MOST_SEARCHED", 150)
    part = blurred_case().find()
    assert part["name"].iloc[0] == whole["name"].iloc[0]
    columns = ["n_images_confirm", "n_errors_confirm", "p_value"]
    assert part[columns].iloc[0].tolist() == whole[columns].iloc[0].tolist()


def check_empty(found: pd.DataFrame) -> None:
    assert found.empty
    assert to_arrow(found, SCHEMA).schema == SCHEMA


def test_without_errors_or_without_images_there_is_no_slice():
    check_empty(Case().find())
    case = Case()
    case.is_error[:] = True
    check_empty(case.find())
    check_empty(Case(n=0).find())
    check_empty(Case(n=4).spoil(np.ones(4, bool), 0.5).find())


def test_images_of_a_dataset_in_memory_have_no_files():
    case = blurred_case()
    case.properties[["width", "height", "file_size"]] = None
    case.images = case.images[["image_id", "path", "y_true"]]
    assert case.find()["name"].iloc[0] == "blurred (sharpness in the lowest 20 %)"


def test_a_thousand_classes_are_searched():
    rng = np.random.default_rng(0)
    case = Case(n=3000)
    case.y_true = rng.integers(0, 1000, 3000)
    sharpness = case.properties["sharpness"]
    is_error = (rng.random(3000) < 0.1) | ((sharpness < 0.1) & (rng.random(3000) < 0.7))
    y_pred = np.where(is_error, (case.y_true + 1) % 1000, case.y_true)
    predictions = pd.DataFrame(
        {"image_id": case.images["image_id"], "y_true": case.y_true, "y_pred": y_pred}
    )
    names = [f"class {number}" for number in range(1000)]
    found = find_slices(predictions, case.properties, case.images, NO_DUPLICATES, names)
    first = found.iloc[0]
    assert first["confirmed"] and "sharpness in the lowest 10 %" in first["name"]


def test_the_schema_says_all_columns():
    assert list(blurred_case().find().columns) == SCHEMA.names
    assert pa.types.is_struct(SCHEMA.field("conditions").type.value_type)
