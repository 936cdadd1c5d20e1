"""Choose what is explained: every error, and correct controls to hold them against."""

import numpy as np
import pandas as pd

MOST_CONTROLS = 1000


def select_explained(
    predictions: pd.DataFrame, *, n_controls: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return every error and a seeded sample of correct images matched by predicted class.

    Args:
        predictions: columns image_id, y_true, y_pred.
        n_controls: how many controls; default as many as there are errors, at most 1,000. Fewer
            are returned where a predicted class has fewer correct images.
        seed: of the sample.

    Returns:
        Columns image_id, role ("error" | "control"), y_true, y_pred, ordered by image_id. Of the
        controls, each predicted class has the share that it has among the errors.
    """
    wrong = predictions["y_true"] != predictions["y_pred"]
    errors, correct = predictions[wrong], predictions[~wrong]
    wanted = min(len(errors), MOST_CONTROLS) if n_controls is None else n_controls
    quotas = _share_out(errors["y_pred"].value_counts().sort_index(), wanted)
    generator = np.random.default_rng(seed)
    controls = []
    for y_pred, quota in quotas.items():
        candidates = correct["image_id"].to_numpy()[correct["y_pred"] == y_pred]
        chosen = generator.choice(candidates, min(quota, len(candidates)), replace=False)
        controls.append(correct[correct["image_id"].isin(chosen)])
    explained = pd.concat(
        [
            part.assign(role=role)
            for part, role in [(errors, "error"), *((c, "control") for c in controls)]
        ]
    )
    columns = ["image_id", "role", "y_true", "y_pred"]
    return explained[columns].sort_values("image_id", ignore_index=True)


def _share_out(counts: pd.Series, total: int) -> dict[int, int]:
    """Share a total out in proportion to counts, largest remainders first."""
    if counts.empty or total == 0:
        return {}
    exact = counts.to_numpy() * total / counts.sum()
    quotas = np.floor(exact).astype(int)
    order = np.argsort(-(exact - quotas), kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return dict(zip(counts.index.tolist(), quotas.tolist(), strict=True))
