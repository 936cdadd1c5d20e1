"""Choose what is explained: every error, and correct controls to hold them against."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

LEAST_CONTROLS = 100
"""So that a few errors, too, are held against enough correct images."""
MOST_CONTROLS = 1000


def select_explained(
    predictions: pd.DataFrame, *, n_controls: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return every error and a seeded sample of correct images, of two kinds, half of each.

    For "cats called dogs" the first half are cats called cats, and they are explained for *dogs*,
    too: what would have spoken for dogs in a cat that was not mistaken? Nothing else says whether
    a focus is special to the errors or common to cats. The other half are dogs called dogs: is the
    focus what makes up a dog?

    Args:
        predictions: columns image_id, y_true, y_pred.
        n_controls: how many controls; default as many as there are errors, but at least 100 and at
            most 1,000. Fewer are returned where a class has fewer correct images.
        seed: of the sample.

    Returns:
        Columns image_id, role ("error" | "control"), y_true, y_pred and other_class, ordered by
        image_id. `other_class` is the class that is explained beside the predicted one: of an error
        its true class, of a control of the same true class the one that the error was taken for,
        else the predicted class itself. In each half the classes have the shares that they have
        among the errors.
    """
    wrong = predictions["y_true"] != predictions["y_pred"]
    errors, correct = predictions[wrong], predictions[~wrong]
    default = min(max(len(errors), LEAST_CONTROLS), MOST_CONTROLS)
    wanted = default if n_controls is None else n_controls
    generator = np.random.default_rng(seed)
    explained = [errors.assign(role="error", other_class=errors["y_true"])]
    confusions = errors.groupby(["y_true", "y_pred"]).size()
    for (y_true, y_pred), quota in _share_out(confusions, wanted - wanted // 2).items():
        chosen = _draw(correct, y_true, quota, generator)
        explained.append(chosen.assign(role="control", other_class=y_pred))
        correct = correct.drop(chosen.index)
    for y_pred, quota in _share_out(errors.groupby("y_pred").size(), wanted // 2).items():
        chosen = _draw(correct, y_pred, quota, generator)
        explained.append(chosen.assign(role="control", other_class=y_pred))
        correct = correct.drop(chosen.index)
    columns = ["image_id", "role", "y_true", "y_pred", "other_class"]
    return pd.concat(explained)[columns].sort_values("image_id", ignore_index=True)


def _draw(
    correct: pd.DataFrame, label: Hashable, quota: int, generator: np.random.Generator
) -> pd.DataFrame:
    """Return up to `quota` correct images of a class."""
    candidates = correct[correct["y_true"] == label]
    rows = generator.choice(len(candidates), min(quota, len(candidates)), replace=False)
    return candidates.iloc[np.sort(rows)]


def _share_out(counts: "pd.Series[Any]", total: int) -> dict[Any, int]:
    """Share a total out in proportion to counts, largest remainders first."""
    if counts.empty or total == 0:
        return {}
    exact = counts.to_numpy() * total / counts.sum()
    quotas = np.floor(exact).astype(int)
    order = np.argsort(-(exact - quotas), kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return dict(zip(counts.index.tolist(), quotas.tolist(), strict=True))
