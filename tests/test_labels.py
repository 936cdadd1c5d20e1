"""Suspected labels: neighbours and scores weighed by how well they foretell labels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from audit.diagnose import labels
from audit.diagnose.labels import (
    QUALITY_SCHEMA,
    SCHEMA,
    find_label_issues,
    fit_weights,
    label_quality,
)
from audit.run_folder import to_arrow
from audit.schemas import OTHER_LABEL, SAME_LABEL, SUSPECTED

NO_DUPLICATES = pd.DataFrame(columns=["image_id", "group", "other_id", "bits"], dtype=np.int64)


class Case:
    """Images in clusters, one per class, of which some carry another class's label.

    Attributes:
        truth, y_true: classes before and after labels were flipped.
        scores: of a model that sees the truth, with noise, and is `sure` times too sure of itself.
    """

    def __init__(
        self, n: int = 300, n_classes: int = 3, flips: float = 0.05, sure: float = 1, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.ids = np.arange(n) * 3 + 1
        self.truth = rng.integers(0, n_classes, n)
        self.is_flipped = rng.random(n) < flips
        self.y_true = (self.truth + self.is_flipped * rng.integers(1, n_classes, n)) % n_classes
        centres = rng.normal(size=(n_classes, 16)) * 2 + 5
        self.embeddings = (centres[self.truth] + rng.normal(size=(n, 16))).astype(np.float32)
        logits = rng.normal(size=(n, n_classes)) + 4 * np.eye(n_classes)[self.truth]
        self.scores = softmax(sure * logits, axis=1).astype(np.float32)

    @property
    def predictions(self) -> pd.DataFrame:
        rows = np.arange(len(self.ids))
        return pd.DataFrame(
            {
                "image_id": self.ids,
                "y_true": self.y_true.astype(np.int32),
                "y_pred": self.scores.argmax(axis=1).astype(np.int32),
                "p_true": self.scores[rows, self.y_true],
            }
        )

    def read_scores(self, ids: np.ndarray) -> np.ndarray:
        return self.scores[np.searchsorted(self.ids, ids)]

    def read_embeddings(self, ids: np.ndarray) -> np.ndarray:
        return self.embeddings[np.searchsorted(self.ids, ids)]

    def quality(self) -> pd.DataFrame:
        return label_quality(self.predictions, self.read_scores, self.read_embeddings)

    def issues(self, duplicates: pd.DataFrame = NO_DUPLICATES) -> pd.DataFrame:
        return find_label_issues(self.quality(), self.predictions, duplicates)

    def precision(self) -> float:
        """Return the average precision of the flipped labels, the lowest quality first."""
        return average_precision_score(self.is_flipped, -self.quality()["score"])

    def loss_precision(self) -> float:
        return average_precision_score(self.is_flipped, -self.predictions["p_true"])


# On paper


def test_votes_by_hand():
    # Weights of 1, 1, 2 for classes 0, 2, 2, and one vote split among four classes.
    got = labels._count_votes(np.array([[0, 2, 2]]), np.array([[0.75, 0.75, 1.5]]), 4)
    np.testing.assert_allclose(got, np.array([[0.75, 0, 2.25, 0]]) / 4 + 1 / 16)


def test_neighbours_by_hand():
    # On a circle: each image's nearest are beside it; image 5 points away from all others.
    angles = np.radians([0, 5, 15, 30, 200, 20])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    embeddings = np.concatenate([points, -points])  # so that the mean is 0
    everything = np.arange(12)
    nearest, weights = labels._find_neighbours(embeddings, everything)
    assert nearest.shape == (12, 1)  # a tenth of the images
    assert nearest[:3, 0].tolist() == [1, 0, 5]
    np.testing.assert_allclose(weights, 1)


def test_weights_fall_with_the_square_of_the_cosine(monkeypatch):
    angles = np.radians([0, 0, 60, 180])  # and the same again, turned round
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    embeddings = np.concatenate([points, -points, *[points[:1], -points[:1]] * 8])
    monkeypatch.setattr(labels, "_NEIGHBOURS", 12)
    nearest, weights = labels._find_neighbours(embeddings, np.arange(len(embeddings)))
    assert weights.shape == (24, 2)
    assert np.all(weights.sum(axis=1) == pytest.approx(2))
    # Of image 2 at 60 degrees both nearest are at 0 or 180 + ... degrees: equal weights.
    cosines = embeddings[2] @ embeddings[nearest[2]].T
    np.testing.assert_allclose(weights[2], cosines**2 / (cosines**2).mean())


def test_an_image_does_not_vote_for_itself():
    case = Case()
    nearest, _ = labels._find_neighbours(case.embeddings, np.arange(300))
    assert not (nearest == np.arange(300)[:, None]).any()
    copies = np.repeat(case.embeddings[:10], 30, axis=0)  # 29 others have the very same embedding
    nearest, _ = labels._find_neighbours(copies, np.arange(300))
    assert not (nearest == np.arange(300)[:, None]).any()


def test_the_score_is_the_probability_of_the_label_under_the_joint_evidence():
    case = Case(flips=0.1)
    got = case.quality()
    everything = np.arange(300)
    nearest, weights = labels._find_neighbours(case.embeddings, everything)
    votes = labels._count_votes(case.y_true[nearest], weights, 3)
    scores = np.maximum(case.scores, 1e-6, dtype=np.float64)
    a, b, _ = fit_weights(case.y_true, np.log(scores), np.log(votes))
    joint = scores**a * votes**b
    joint /= joint.sum(axis=1, keepdims=True)
    of_label = joint[everything, case.y_true]
    np.testing.assert_allclose(got["score"], of_label, atol=1e-5)
    np.testing.assert_allclose(got["lead"], joint.max(axis=1) - of_label, atol=1e-5)
    assert got["suggested"].tolist() == joint.argmax(axis=1).tolist()
    assert got["image_id"].tolist() == case.ids.tolist()
    assert got["y_true"].tolist() == case.y_true.tolist()


# The weights


def evidence_of(n: int, sure: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and log-probabilities that, but for `sure`, are right about their chance."""
    rng = np.random.default_rng(seed)
    log_p = np.log(softmax(rng.normal(size=(n, 3)) * 2, axis=1))
    y = np.array([rng.choice(3, p=p) for p in np.exp(log_p)])
    return y, sure * log_p


def test_overconfidence_is_toned_down():
    y, log_p = evidence_of(4000, 1, 0)
    nothing = np.zeros_like(log_p)
    for sure in (0.5, 1, 4):
        a, _, noise = fit_weights(y, sure * log_p, nothing)
        assert a * sure == pytest.approx(1, abs=0.1)
        assert noise < 0.05


def test_what_says_nothing_gets_no_weight_and_what_tells_gets_it():
    y, log_p = evidence_of(4000, 1, 1)
    _, other = evidence_of(4000, 1, 2)
    a, b, _ = fit_weights(y, log_p, other)
    assert a > 0.9 and b < 0.1
    a, b, _ = fit_weights(y, other, log_p)
    assert a < 0.1 and b > 0.9


@pytest.mark.parametrize("flips", [0.05, 0.2])
def test_blindly_drawn_labels_are_noise_and_do_not_tone_down_the_model(flips):
    y, log_p = evidence_of(6000, 3, 3)
    y = log_p.argmax(axis=1)  # so sure of itself, and right
    rng = np.random.default_rng(0)
    drawn = np.where(rng.random(6000) < flips, rng.integers(0, 3, 6000), y)
    a, _, noise = fit_weights(drawn, log_p, np.zeros_like(log_p))
    assert noise == pytest.approx(flips, abs=0.02)
    assert a > 1


def test_the_slopes_are_those_of_the_loss(monkeypatch):
    y, log_p = evidence_of(50, 2, 4)
    _, other = evidence_of(50, 1, 5)
    seen = {}
    monkeypatch.setattr(labels, "minimize", lambda loss, start, **_: _keep(seen, loss, start))
    fit_weights(y, log_p, other)
    for point in ([0.5, 0.5, -3.0], [1.3, 0.1, 0.7], [0.0, 2.0, 4.0]):
        at = np.array(point)
        _, slopes = seen["loss"](at)
        steps = np.eye(3) * 1e-6
        want = [(seen["loss"](at + s)[0] - seen["loss"](at - s)[0]) / 2e-6 for s in steps]
        np.testing.assert_allclose(slopes, want, atol=1e-7)


def _keep(seen: dict, loss, start):
    seen["loss"] = loss

    class Result:
        x = start

    return Result


# What is planted is found


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_come_first(seed):
    case = Case(flips=0.05, seed=seed)
    issues = case.issues()
    flipped = set(case.ids[case.is_flipped].tolist())
    assert set(issues["image_id"].head(len(flipped)).tolist()) == flipped
    assert set(issues["kind"]) == {SUSPECTED}
    truth = dict(zip(case.ids.tolist(), case.truth.tolist(), strict=True))
    first = issues.head(len(flipped))
    assert first["suggested"].tolist() == [truth[image_id] for image_id in first["image_id"]]
    assert issues["rank"].tolist() == list(range(1, len(issues) + 1))
    assert issues["score"].is_monotonic_increasing and issues["score"].max() < 0.2


def test_neighbours_help_where_the_model_is_wrong_in_a_systematic_way():
    case = Case(n=600, n_classes=2, flips=0.05, sure=3)
    # A tenth of class 0 carries an artefact that makes the model certain of class 1.
    carries = (case.truth == 0) & (np.random.default_rng(1).random(600) < 0.2)
    case.scores[carries] = [1e-9, 1 - 1e-9]
    case.embeddings[carries] += np.linspace(3, 5, 16, dtype=np.float32)
    assert case.precision() > 0.95
    assert case.loss_precision() < 0.6


def test_useless_neighbours_do_no_harm():
    for seed in range(3):
        case = Case(flips=0.05, sure=2, seed=seed)
        case.embeddings = np.random.default_rng(9).normal(size=(300, 16)).astype(np.float32)
        assert case.precision() >= case.loss_precision() - 0.02


def test_a_useless_model_does_no_harm():
    case = Case(flips=0.05)
    rng = np.random.default_rng(3)
    case.scores = softmax(rng.normal(size=case.scores.shape) * 3, axis=1).astype(np.float32)
    assert case.loss_precision() < 0.4
    assert case.precision() > 0.9


def test_the_threshold_of_a_decision_plays_no_part():
    case = Case(n_classes=2, flips=0.05)
    want = case.issues()
    predictions = case.predictions.assign(y_pred=1)
    quality = label_quality(predictions, case.read_scores, case.read_embeddings)
    got = find_label_issues(quality, predictions, NO_DUPLICATES)
    pd.testing.assert_frame_equal(got.drop(columns="is_error"), want.drop(columns="is_error"))
    assert got["is_error"].tolist() == (got["y_true"] == 0).tolist()
    assert want["is_error"].all()


def test_clean_labels_are_hardly_suspected():
    assert len(Case(n=1000, flips=0).issues()) <= 5


# Classes, sizes, order


def test_classes_without_images_are_never_in_the_way():
    case = Case(n_classes=3, flips=0.05)
    wide = np.full((300, 7), 1e-7, np.float32)
    wide[:, [1, 2, 5]] = case.scores
    case.scores, case.y_true = wide, np.array([1, 2, 5])[case.y_true]
    issues = case.issues()
    assert set(case.ids[case.is_flipped]) <= set(issues["image_id"])
    assert set(issues["suggested"]) <= {1, 2, 5}


def test_a_thousand_classes_of_few_images():
    case = Case(n=3000, n_classes=1000, flips=0.02)
    case.embeddings += 0  # some three images of a class: neighbours are few
    assert case.precision() > 0.9
    assert len(case.issues()) < 4 * case.is_flipped.sum()


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_images_give_an_empty_table(n):
    for table in (Case(n=n).issues(), Case(n=n).quality()):
        assert table.empty
    assert to_arrow(Case(n=n).issues(), SCHEMA).schema == SCHEMA
    assert to_arrow(Case(n=n).quality(), QUALITY_SCHEMA).schema == QUALITY_SCHEMA


def test_images_of_one_class_give_an_empty_table():
    case = Case()
    case.y_true[:] = 1
    assert case.issues().empty


def test_thirty_images_are_enough_to_run():
    assert len(Case(n=30).quality()) == 30
    assert len(Case(n=30, n_classes=2, sure=100).quality()) == 30


def test_certain_scores_and_dead_embeddings_are_survived():
    case = Case()
    case.scores = np.eye(3, dtype=np.float32)[case.truth]
    case.embeddings[:] = 0
    got = case.quality()
    assert np.isfinite(got["score"]).all() and got["score"].between(0, 1).all()
    assert case.precision() > 0.95


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(seed):
    case = Case(flips=0.1)
    order = np.random.default_rng(seed).permutation(300)
    predictions = case.predictions.iloc[order]
    quality = label_quality(predictions, case.read_scores, case.read_embeddings)
    got = find_label_issues(quality, predictions, NO_DUPLICATES)
    pd.testing.assert_frame_equal(got, case.issues())


def test_of_a_large_set_the_least_likely_labels_are_checked(monkeypatch):
    case = Case(n=3000, flips=0.02)
    monkeypatch.setattr(labels, "MOST_CHECKED", 400)
    monkeypatch.setattr(labels, "_MOST_FITTED", 600)
    read: list[int] = []

    def read_scores(ids: np.ndarray) -> np.ndarray:
        read.append(len(ids))
        assert (np.diff(ids) > 0).all()
        return case.read_scores(ids)

    got = label_quality(case.predictions, read_scores, case.read_embeddings)
    assert len(got) == 400 and len(read) == 1 and read[0] <= 800
    least = case.predictions.nsmallest(400, "p_true")["image_id"]
    assert set(got["image_id"]) == set(least)
    flipped = set(case.ids[case.is_flipped])
    suspected = set(got.nsmallest(len(flipped), "score")["image_id"])
    assert len(suspected & flipped) >= 0.9 * len(flipped)


def test_blocks_do_not_matter(monkeypatch):
    want = Case().quality()
    monkeypatch.setattr(labels, "_BLOCK", 70)
    pd.testing.assert_frame_equal(Case().quality(), want)


# Real photographs

LOOKED_AT = {"cat.4085": 1, "dog.4334": 0}
"""Photographs with a wrong label, and the class that they show."""


@pytest.mark.slow
def test_wrong_labels_of_real_photographs_are_suspected(shared_data, tmp_path):
    from pathlib import Path

    from audit.config import AuditConfig
    from audit.inputs import Inputs

    data = shared_data / "cats_dogs"
    for path in sorted((data / "val").glob("*/*.jpg")):
        if int(path.stem[4:]) % 4 == 0 or path.stem in LOOKED_AT:
            target = tmp_path / path.parent.name / path.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(path)
    model = data / "models" / "article_style_mobilenetv2_035_n400.keras"
    inputs = Inputs(model, tmp_path, AuditConfig())
    images = inputs.listing.images
    outputs = [
        [part.numpy() for part in inputs.predictor.predict(pixels)]
        for _, pixels in inputs.source.batches(images["image_id"], 32)
    ]
    case = Case()
    case.ids, case.truth = images["image_id"].to_numpy(), images["y_true"].to_numpy()
    case.scores, case.embeddings = (np.concatenate(part) for part in zip(*outputs, strict=True))

    case.y_true = case.truth
    issues = case.issues()
    suspected = dict(zip(issues["image_id"], issues["suggested"], strict=True))
    stems = [Path(path).stem for path in images["path"]]
    for stem, shown in LOOKED_AT.items():
        assert suspected.get(stems.index(stem)) == shown, stem
    assert len(issues) < 0.03 * len(images)

    gains = []
    for seed in range(8):
        case.is_flipped = np.random.default_rng(seed).random(len(images)) < 0.05
        case.y_true = np.where(case.is_flipped, 1 - case.truth, case.truth)
        gains.append(case.precision() - case.loss_precision())
    assert np.mean(gains) > 0.005


# Near-duplicates


def pairs(*rows: tuple[int, int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "group", "other_id", "bits"])


def test_near_duplicates_by_hand():
    case = Case(n=20, n_classes=3, flips=0)  # too few for the rest
    case.y_true = np.array([0, 0, 1, 2, 2, *[0] * 15])
    a, b, c, d, e = case.ids[:5].tolist()
    duplicates = pairs(
        # a and b are cats, c beside b is labelled otherwise
        (a, 1, b, 0),
        (b, 1, a, 0),
        (b, 1, c, 4),
        (c, 1, b, 4),
        (d, 2, e, 8),
        (e, 2, d, 8),
    )
    issues = case.issues(duplicates)
    columns = ["image_id", "kind", "y_true", "suggested", "score", "other_id", "rank"]
    assert [tuple(row) for row in issues[columns].itertuples(index=False)] == [
        (b, OTHER_LABEL, 0, -1, 4 / 64, c, 1),
        (c, OTHER_LABEL, 1, 0, 4 / 64, b, 2),
        (a, SAME_LABEL, 0, -1, 0.0, b, 3),
        (d, SAME_LABEL, 2, -1, 8 / 64, e, 4),
        (e, SAME_LABEL, 2, -1, 8 / 64, d, 5),
    ]


def test_two_labels_for_one_image_suggest_neither():
    case = Case(n=20, flips=0)
    case.y_true = np.arange(20) % 3
    first, second = case.ids[:2].tolist()
    issues = case.issues(pairs((first, 1, second, 0), (second, 1, first, 0)))
    assert issues["suggested"].tolist() == [-1, -1]
    assert issues["kind"].tolist() == [OTHER_LABEL] * 2


def test_an_image_may_be_suspected_and_a_duplicate():
    case = Case(flips=0.05)
    image_id, other_id = case.ids[case.is_flipped][:2].tolist()
    duplicates = pairs((image_id, 1, other_id, 1), (other_id, 1, image_id, 1))
    issues = case.issues(duplicates)
    assert (issues["image_id"] == image_id).sum() == 2
    assert issues["kind"].iloc[0] == SUSPECTED and issues["kind"].iloc[-1] != SUSPECTED
    assert to_arrow(issues, SCHEMA).schema == SCHEMA
