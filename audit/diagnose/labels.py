"""Labels in doubt: images that look like another class, and near-duplicates that disagree.

In: predictions, scores and embeddings. Out: the tables `label_quality` and `label_issues`. A label
is suspected, never more: people confirm about half of what such methods flag. Scores alone cannot
tell a wrong label from a wrong model; the labels of images that look alike to the model often can.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn import config_context
from sklearn.neighbors import NearestNeighbors

from audit.diagnose.duplicates import ReadRows
from audit.schemas import OTHER_LABEL, SAME_LABEL, SUSPECTED

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("kind", pa.string()),
        ("y_true", pa.int32()),
        ("suggested", pa.int32()),
        ("score", pa.float64()),
        ("other_id", pa.int64()),
        ("is_error", pa.bool_()),
        ("rank", pa.int64()),
    ]
)
"""Columns of `label_issues.parquet`. `find_label_issues` says what each of them means."""

QUALITY_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("y_true", pa.int32()),
        ("suggested", pa.int32()),
        ("score", pa.float64()),
        ("lead", pa.float64()),
    ]
)
"""Columns of `label_quality.parquet`. `label_quality` says what each of them means."""


SUSPICIOUS = 0.6
"""A label is suspected if the probability of another is higher by more than this."""

MOST_CHECKED = 20_000
"""Images whose labels are checked, and images that they are held against."""

FEWEST_IMAGES = 30
"""Below this nothing is said about labels."""

_NEIGHBOURS = 20
_BLOCK = 5000
_SEARCH_MEGABYTES = 32  # Of distances at once; that many again several times while they are sorted.
_MOST_FITTED = 2_000_000  # Elements of an array in the fit: 16 MB.
_FLOOR = 1e-6
_MOST_NOISE = 0.5
_RIDGE = 1e-4


def find_label_issues(
    quality: pd.DataFrame, predictions: pd.DataFrame, duplicates: pd.DataFrame
) -> pd.DataFrame:
    """List suspected labels and near-duplicates, the most suspicious first.

    Args:
        quality: see `label_quality`.
        predictions: `image_id`, `y_true` and `y_pred`; the order of rows does not matter.
        duplicates: see `audit.diagnose.duplicates.find_duplicates`.

    Returns:
        A frame with the columns of `SCHEMA`, numbered by `rank` from 1:

        - `kind`: first all "suspected label" (another class leads by more than `SUSPICIOUS`), the
          lowest score first; then "duplicate with another label" (an image with a near-duplicate of
          another label); then "duplicate". An image may be in two rows.
        - `suggested`: the class that the evidence, or most of the group, speaks for; -1 if none.
        - `score`: 0, most suspicious, to 1: that of `quality`; of duplicates, the share of bits in
          which the hashes of the two differ.
        - `other_id`: of duplicates, the closest one, with another label if the kind says so; or -1.
        - `is_error`: whether the model's prediction differs from the label.
    """
    suspected = quality[quality["lead"] > SUSPICIOUS].sort_values(["score", "image_id"])
    labels = predictions.set_index("image_id")[["y_true", "y_pred"]]
    issues = pd.concat(
        [
            suspected.assign(kind=SUSPECTED, other_id=-1),
            _duplicate_rows(duplicates, labels["y_true"]),
        ]
    )
    y_pred = labels["y_pred"].reindex(issues["image_id"]).to_numpy()
    issues["is_error"] = y_pred != issues["y_true"].to_numpy()
    issues["rank"] = np.arange(1, len(issues) + 1)
    return _frame({name: issues[name].to_numpy() for name in SCHEMA.names}, SCHEMA)


def label_quality(
    predictions: pd.DataFrame, read_scores: ReadRows, read_embeddings: ReadRows, *, seed: int = 0
) -> pd.DataFrame:
    """Return how likely each label is, by the model's scores and the labels of like images.

    The probabilities of an image are proportional to p^a · q^b, where p are the model's scores and
    q the labels of the 20 images whose embeddings, less the mean, have the highest cosine, weighted
    by its square. a and b are those under which the labels of the data set are most likely, if a
    share of them was drawn blindly. So an overconfident model is toned down, one that errs in a
    systematic way is overruled by images of the same kind that are labelled otherwise, and the
    threshold of a decision plays no part.

    Of more than `MOST_CHECKED` images, those with the lowest `p_true` are checked, held against as
    many drawn at random, so that neither time nor memory grow with the data set.

    Args:
        predictions: `image_id`, `y_true` and `p_true`; the order of rows does not matter.
        read_scores: gives probabilities, float32 of shape (n, n_classes).
        read_embeddings: gives embeddings, float32 of shape (n, width).
        seed: of the random draw.

    Returns:
        A frame with the columns of `QUALITY_SCHEMA`, ordered by image_id: `suggested`, the most
        likely class; `score`, the probability of the label (cleanlab's "self confidence"); `lead`,
        by how much the suggested class is more likely, 0 if it is the label. No rows if there are
        fewer than `FEWEST_IMAGES` or all are of one class.

    Source: Northcutt et al. 2021, arXiv:1911.00068; the blindly drawn share after Sukhbaatar et al.
    2014, arXiv:1406.2080.
    """
    predictions = predictions.sort_values("image_id", ignore_index=True)
    if len(predictions) < FEWEST_IMAGES or predictions["y_true"].nunique() < 2:
        return _frame({name: [] for name in QUALITY_SCHEMA.names}, QUALITY_SCHEMA)
    from cleanlab.rank import get_label_quality_scores  # A tenth of a second.

    p_true, everything = predictions["p_true"].to_numpy(), np.arange(len(predictions))
    checked = np.sort(np.argsort(p_true, kind="stable")[:MOST_CHECKED])
    reference = _sample(everything, MOST_CHECKED, seed)
    rows = np.union1d(checked, reference)  # Nothing is read of the other images.
    image_ids, y_true = (predictions[name].to_numpy()[rows] for name in ("image_id", "y_true"))
    scores, embeddings = read_scores(image_ids), read_embeddings(image_ids)
    checked, reference = np.searchsorted(rows, checked), np.searchsorted(rows, reference)
    neighbours, weights = _find_neighbours(embeddings, reference)

    def logarithms(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        votes = _count_votes(y_true[neighbours[chosen]], weights[chosen], scores.shape[1])
        return np.log(np.maximum(scores[chosen], _FLOOR, dtype=np.float64)), np.log(votes)

    fitted = _sample(reference, _MOST_FITTED // scores.shape[1], seed)
    a, b, _ = fit_weights(y_true[fitted], *logarithms(fitted))
    blocks = []
    for block in np.array_split(checked, len(checked) // _BLOCK + 1):
        log_scores, log_votes = logarithms(block)
        likely = softmax(a * log_scores + b * log_votes, axis=1)
        score = get_label_quality_scores(y_true[block], likely, method="self_confidence")
        lead = likely.max(axis=1) - score
        columns = (image_ids[block], y_true[block], likely.argmax(axis=1), score, lead)
        named = dict(zip(QUALITY_SCHEMA.names, columns, strict=True))
        blocks.append(_frame(named, QUALITY_SCHEMA))
    return pd.concat(blocks, ignore_index=True)


def fit_weights(
    y_true: np.ndarray, log_scores: np.ndarray, log_votes: np.ndarray
) -> tuple[float, float, float]:
    """Find the weights of scores and votes under which the labels are most likely.

    The likelihood of a label is `(1 − noise) · p + noise / n_classes`, with p the softmax of
    `a · log_scores + b · log_votes`. Without the noise, a few wrong labels would tone down a model
    that is rightly sure of itself.

    Args:
        y_true: int of shape (n,).
        log_scores, log_votes: float64 of shape (n, n_classes).

    Returns:
        a >= 0, b >= 0, and the noise, 0 to `_MOST_NOISE`.
    """
    rows, n_classes = np.arange(len(y_true)), log_scores.shape[1]
    inputs = (log_scores, log_votes)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, noisiness = parameters
        noise = _MOST_NOISE * expit(noisiness)
        p = softmax(a * log_scores + b * log_votes, axis=1)
        of_label = p[rows, y_true]
        likelihood = (1 - noise) * of_label + noise / n_classes
        share = (1 - noise) * of_label / likelihood
        slopes = [-(share * (x[rows, y_true] - (p * x).sum(axis=1))).mean() for x in inputs]
        by_noise = ((1 / n_classes - of_label) / likelihood).mean()
        slopes.append(-by_noise * noise * (1 - noise / _MOST_NOISE))
        ridge = _RIDGE * (a**2 + b**2)
        pull = 2 * _RIDGE * np.array([a, b, 0])
        return float(ridge - np.log(likelihood).mean()), np.array(slopes) + pull

    start = np.array([0.5, 0.5, -3.0])
    bounds = [(0, None), (0, None), (-6, 6)]
    a, b, noisiness = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(a), float(b), float(_MOST_NOISE * expit(noisiness))


def _find_neighbours(
    embeddings: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest of the reference to each image, itself left out, and their weights.

    Both have the shape (n, n_neighbours); a row of weights adds up to n_neighbours.
    """
    n_neighbours = min(_NEIGHBOURS, max(1, len(reference) // 10))
    centred = embeddings - embeddings[reference].mean(axis=0)
    search = NearestNeighbors(n_neighbors=n_neighbours + 1, algorithm="brute", metric="cosine")
    with config_context(working_memory=_SEARCH_MEGABYTES):  # A gigabyte by default.
        distances, found = search.fit(centred[reference]).kneighbors(centred)
    nearest = reference[found]
    left_out = nearest == np.arange(len(embeddings))[:, None]
    left_out[~left_out.any(axis=1), -1] = True  # The farthest, where the image is not among them.
    shape = (len(embeddings), n_neighbours)
    weights = np.maximum(1 - distances[~left_out].reshape(shape), _FLOOR) ** 2
    return nearest[~left_out].reshape(shape), weights * n_neighbours / weights.sum(1, keepdims=True)


def _count_votes(labels: np.ndarray, weights: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the share of each class in the votes, float64 of shape (n, n_classes), none of it 0.

    One vote is split among all classes.
    """
    n, n_votes = labels.shape
    cells = np.arange(n)[:, None] * n_classes + labels
    votes = np.bincount(cells.ravel(), weights.ravel(), n * n_classes).reshape(n, n_classes)
    return (votes + 1 / n_classes) / (n_votes + 1)


def _sample(rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return the rows, or as many of them as asked for, drawn at random and in order."""
    if len(rows) <= size:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))


def _duplicate_rows(duplicates: pd.DataFrame, y_true: "pd.Series[int]") -> pd.DataFrame:
    """Return a row per near-duplicate, those with another label first."""
    pairs = duplicates.assign(
        y_true=y_true.reindex(duplicates["image_id"]).to_numpy(),
        other_label=y_true.reindex(duplicates["other_id"]).to_numpy(),
    )
    differs = pairs["y_true"] != pairs["other_label"]
    pairs = pairs.assign(kind=np.where(differs, OTHER_LABEL, SAME_LABEL), score=pairs["bits"] / 64)
    # OTHER_LABEL > SAME_LABEL, so that a pair of two labels is kept before a closer one of one.
    pairs = pairs.sort_values(
        ["kind", "group", "image_id", "bits"], ascending=[False, True, True, True]
    ).drop_duplicates("image_id")
    by_group = pairs.groupby("group")["y_true"].agg(_majority)
    suggested = by_group.reindex(pairs["group"]).to_numpy()
    return pairs.assign(suggested=np.where(suggested == pairs["y_true"], -1, suggested))


def _majority(labels: "pd.Series[int]") -> int:
    """Return the most common label, or -1 if there are two of them."""
    most_common = labels.mode()
    return int(most_common.iloc[0]) if len(most_common) == 1 else -1


def _frame(columns: Mapping[str, Any], schema: pa.Schema) -> pd.DataFrame:
    """Return a frame whose columns have the types of a schema, even without rows."""
    frame: pd.DataFrame = pa.table(columns, schema=schema).to_pandas()
    return frame
