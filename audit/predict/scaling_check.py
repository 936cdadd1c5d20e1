"""Whether another scaling of the pixels would suit the model better.

In: a predictor and a sample of the images. Out: how often it is right under every scaling.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from audit.predict.dataset import ImageSource
from audit.predict.inference import DecisionRule, Predictor
from audit.predict.scaling import scaling_names

_FIRST_IMAGES = 48
_CLEAR_LEAD = 0.05


@dataclass(frozen=True)
class ScalingCheck:
    """Accuracy on a sample under every scaling.

    Attributes:
        n_images: size of the sample.
        accuracies: share right in [0, 1], by name of the scaling.
        suggested: a scaling that is better beyond chance than the one in use, or `None`.
    """

    n_images: int
    accuracies: dict[str, float]
    suggested: str | None


def check_scaling(
    predictor: Predictor, source: ImageSource, rule: DecisionRule, *, n_images: int, seed: int
) -> ScalingCheck:
    """Ask on a sample whether another scaling of the pixels gives clearly better predictions.

    A scaling leads by its balanced accuracy, so that one that gives every image the same class
    never does. The first 48 images are enough where every other scaling is worse on them, as it is
    for most models. To be suggested, a scaling must lead by five points, and the paired exact sign
    test (McNemar) on the images on which the two disagree must give p < 0.001.
    """
    n_listed = len(source.listing.images)
    sample = np.random.default_rng(seed).choice(n_listed, min(n_images, n_listed), replace=False)
    first, rest = np.split(sample, [_FIRST_IMAGES])
    used = predictor.scaling
    answers = _answers_by_scaling(predictor, source, rule, first)
    rivals = [name for name in scaling_names(predictor.model.channels) if name != used]
    if len(rest) and any(_lead(answers, name, used) >= 0 for name in rivals):
        answers = pd.concat([answers, _answers_by_scaling(predictor, source, rule, rest)])
    best = max(rivals, key=lambda name: _lead(answers, name, used))
    gained = int((answers[best] & ~answers[used]).sum())
    lost = int((answers[used] & ~answers[best]).sum())
    better = (
        _lead(answers, best, used) >= _CLEAR_LEAD
        and binomtest(gained, gained + lost, alternative="greater").pvalue < 0.001
    )
    names = scaling_names(predictor.model.channels) if len(answers) else ()
    accuracies = {name: float(answers[name].mean()) for name in names}
    return ScalingCheck(len(answers), accuracies, best if better else None)


def _answers_by_scaling(
    predictor: Predictor, source: ImageSource, rule: DecisionRule, image_ids: np.ndarray
) -> pd.DataFrame:
    """Return a row per readable image: y_true, and for each scaling whether it is right."""
    names = scaling_names(predictor.model.channels)
    labels = source.listing.images["y_true"].to_numpy()
    y_true = np.empty(0, labels.dtype)
    right = {name: np.empty(0, bool) for name in names}
    for ids, pixels in source.batches(np.sort(image_ids).tolist(), batch_size=32):
        y_true = np.append(y_true, labels[ids])
        for name in names:
            y_pred = rule.decide(predictor.predict(pixels, name)[0].numpy())
            right[name] = np.append(right[name], y_pred == labels[ids])
    return pd.DataFrame({"y_true": y_true} | right)


def _lead(answers: pd.DataFrame, name: str, used: str) -> float:
    """Return by how much the balanced accuracy is above that of the scaling in use."""
    if answers["y_true"].nunique() < 2:  # Of one class, a model that knows only that one is right.
        return 0.0
    recalls = answers.groupby("y_true")[[name, used]].mean()
    return float(recalls[name].mean() - recalls[used].mean())
