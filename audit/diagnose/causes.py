"""Is a pattern's focus the cause of its errors? Judge what painting it out and pasting it in did.

In: patterns, the focus table, the rows of the `causes` shards and of `pastes.parquet`. Out: the
patterns with what was found and a verdict; the same figures over all errors.

Three areas are painted out. All figures are for the largest, which is fixed beforehand: the best of
three would flatter. The others are listed beside it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import false_discovery_control, norm, rankdata

from audit.explain.painting import AREAS, BLUR, BLUR_ELSEWHERE, ELSEWHERE, FOCUS
from audit.predict.intervals import (
    RESAMPLES,
    bootstrap_estimate,
    mean_of_defined,
    percentile_interval,
    resampled_means,
    wilson_estimate,
    wilson_interval,
)
from audit.schemas import CAUSAL, NOT_SHOWN, NOT_TESTED, TOO_FEW, make_frame

FIELDS = (
    pa.field("n_tested", pa.int64()),
    pa.field("best_area", pa.float64()),
    *(pa.field(name, pa.float64()) for name in ("repaired", "repaired_low", "repaired_high")),
    pa.field("elsewhere", pa.float64()),
    *(pa.field(name, pa.float64()) for name in ("logit_fall", "logit_fall_low", "logit_fall_high")),
    *(pa.field(name, pa.float64()) for name in ("blur_repaired", "blur_elsewhere")),
    *(pa.field(name, pa.float64()) for name in ("causal_p", "causal_q")),
    pa.field(
        "areas",
        pa.list_(
            pa.struct(
                [(name, pa.float64()) for name in ("area", "repaired", "elsewhere", "logit_fall")]
            )
        ),
    ),
    pa.field("n_pasted", pa.int64()),
    *(pa.field(name, pa.float64()) for name in ("pasted_wrong", "pasted_elsewhere_wrong")),
    *(pa.field(name, pa.float64()) for name in ("necessity", "sufficiency")),
    pa.field("verdict", pa.string()),
)
"""The columns that `judge_patterns` adds to `patterns.parquet`. It says what each of them means."""

MIN_TESTED = 5
"""With fewer errors no outcome of the test gives p < 0.05: the least is one half to that power."""
SIGNIFICANT = 0.05
"""The share of false claims that is let pass among all."""
LEAST_EFFECT = 2 / 3
"""What necessity and sufficiency of a cause, each 1 at best, add up to at least.

A faithful map passes any test of significance, even where the cause is not in a place, as with
images that are blurred or tinted as a whole. Of 25 groups of errors by planted bars, stickers,
frames, textures and objects, 24 reach 1.1 to 2.0 (the other, where a paste of anything upsets the
model, 0.1); of four groups by blur or tint, none more than 0.5.
"""

_AREA = AREAS[-1]
_MOST_EXACT = 200


def judge_patterns(
    patterns: pd.DataFrame,
    focus: pd.DataFrame,
    causes: pd.DataFrame,
    pastes: pd.DataFrame,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Say of each pattern whether what its errors look at is their cause.

    A pattern is "causal" if all of this holds:

    - Painting its focus out lowers the logit of the predicted class against that of the true one
      more than painting out the same shape elsewhere: `causal_q` < `SIGNIFICANT`. This alone says
      that the map shows what the model uses, which any faithful map does.
    - Its focus is more common among errors than among correct images of the same predicted class:
      `q_value` < `SIGNIFICANT`. This alone says where errors look.
    - `necessity` and `sufficiency` add up to at least `LEAST_EFFECT`.

    It is "too few" with fewer than `MIN_TESTED` errors, "not tested" with none, else "not shown".

    Args:
        patterns: columns `pattern` and `q_value`; the others are kept.
        focus: columns image_id, role, is_predicted, y_true, y_pred and pattern.
        causes: columns of `audit.explain.causal.SCHEMA`; may be empty.
        pastes: columns of `audit.explain.pasting.SCHEMA`; may be empty.
        seed: of the bootstrap.

    Returns:
        `patterns` with these columns, NaN where nothing was tested:

        - `n_tested`: errors that were painted out, with finite logits.
        - `best_area`: the share of the pixels that all figures but `areas` are for, 0.3.
        - `repaired`: share of them that turn to the true class without their focus, with its 95 %
          Wilson interval; `elsewhere`: the same for the shape moved, the mean over moves.
        - `logit_fall`: mean over errors of the fall of the logit without the focus, less the mean
          fall without the shape elsewhere, with its 95 % bootstrap interval over errors.
        - `blur_repaired`, `blur_elsewhere`: as `repaired` and `elsewhere`, blurred instead.
        - `causal_p`: one-sided p-value of these falls; see `signed_rank_p`. `causal_q`: that with
          Benjamini and Hochberg's control over patterns with at least `MIN_TESTED` errors.
        - `areas`: `repaired`, `elsewhere` and `logit_fall` for each area.
        - `n_pasted`: correct images that an exemplar's focus was pasted into; `pasted_wrong`: share
          of them then taken for what the exemplar is taken for; `pasted_elsewhere_wrong`: the same
          with another part of the exemplar in that place.
        - `necessity`: `repaired` less `elsewhere`: how many of its errors need the focus.
          `sufficiency`: `pasted_wrong` less `pasted_elsewhere_wrong`: how many correct images it
          is enough to turn; 0 if there is none to paste into.
        - `verdict`: "causal", "not shown", "too few" or "not tested".

    Source: necessity and sufficiency after Pearl 2009, "Causality", ch. 9, where they are the
    probabilities of causation, each here against a change that is as large and says nothing.
    """
    shown = focus[(focus["role"] == "error") & focus["is_predicted"].astype(bool)]
    errors = shown.set_index("image_id")
    effects = _effects(causes, errors["y_true"])
    generator = np.random.default_rng(seed)
    rows = []
    for number in patterns["pattern"].tolist():
        members = errors.index[errors["pattern"] == number]
        own = effects.keep(np.isin(effects.image_ids, members))
        row = _judge_painting(own, generator)
        rows.append(row | _judge_pastes(pastes[pastes["pattern"] == number], errors["y_pred"]))
    _judge_together(rows, patterns["q_value"].to_numpy(np.float64))
    judged = make_frame(rows, pa.schema(FIELDS))
    kept = patterns.drop(columns=[field.name for field in FIELDS if field.name in patterns])
    return pd.concat([kept, judged.set_axis(patterns.index)], axis=1)


def overall_effect(
    causes: pd.DataFrame, y_true: "pd.Series[Any]", *, seed: int = 0
) -> dict[str, Any] | None:
    """Say what painting the focus out does to the errors of a run, whatever their pattern.

    Args:
        causes: columns of `audit.explain.causal.SCHEMA`.
        y_true: by image_id.
        seed: of the bootstrap.

    Returns:
        `None` if no error was tested, else `best_area`, `n_tested`, `n_not_tested`, `n_repaired`,
        estimates as in `metrics.json` of `repaired`, `elsewhere` and `logit_fall`, `p_value`, and
        `areas`. They mean what they do in `judge_patterns`.
    """
    effects = _effects(causes, y_true)
    if not len(effects.image_ids):
        return None
    values = np.stack([effects.elsewhere[:, -1], effects.falls[:, -1]], axis=1)
    resampled = resampled_means(values, RESAMPLES, np.random.default_rng(seed))
    n_repaired = int(effects.right[:, -1].sum())
    return {
        "best_area": _AREA,
        "n_tested": len(values),
        "n_not_tested": int(causes["image_id"].nunique()) - len(values),
        "n_repaired": n_repaired,
        "repaired": wilson_estimate(n_repaired, len(values)),
        "elsewhere": bootstrap_estimate(float(values[:, 0].mean()), resampled[:, 0]),
        "logit_fall": bootstrap_estimate(float(values[:, 1].mean()), resampled[:, 1]),
        "p_value": signed_rank_p(values[:, 1]),
        "areas": effects.by_area(),
    }


def signed_rank_p(differences: np.ndarray) -> float:
    """Return how likely paired differences are so far above 0 if their signs are chance.

    The one-sided signed-rank test: few errors, and falls of a logit that may be large for one of
    them, want ranks; the other side, that the focus keeps an error right, is no claim of ours. With
    up to 200 differences the p-value is exact, ties included; with more it is that of the normal
    distribution. Differences of 0 are left out, as Wilcoxon did. Flips to the true class could be
    tested (McNemar) but say less: of five errors near the threshold all flip at a touch.

    Args:
        differences: finite, of shape (n,).

    Returns:
        1 if nothing differs.

    Source: Wilcoxon 1945, doi:10.2307/3001968.
    """
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    doubled = np.round(2 * rankdata(np.abs(differences))).astype(np.int64)  # Ties have half ranks.
    statistic = int(doubled[differences > 0].sum())
    if len(doubled) > _MOST_EXACT:
        deviation = math.sqrt(float((doubled.astype(np.float64) ** 2).sum())) / 2
        return float(norm.sf((statistic - 1 - doubled.sum() / 2) / deviation))
    chances = np.zeros(int(doubled.sum()) + 1)  # Of each sum of the ranks with a positive sign.
    chances[0] = 1.0
    for rank in doubled.tolist():
        with_rank = np.zeros_like(chances)
        with_rank[rank:] = chances[:-rank]
        chances = (chances + with_rank) / 2
    return float(min(1.0, chances[statistic:].sum()))


@dataclass(frozen=True)
class _Effects:
    """What became of n errors at each of k areas.

    Attributes:
        image_ids: int64 of shape (n,), in order.
        right: of shape (n, k): 1 where an error turns right without its focus, else 0.
        elsewhere: of shape (n, k): share of the moves that turn it right.
        falls: of shape (n, k): fall of the logit, less the mean over moves.
        blurred: of shape (n, 2): `right` and `elsewhere` at the largest area, blurred; NaN where a
            logit was not finite.
    """

    image_ids: np.ndarray
    right: np.ndarray
    elsewhere: np.ndarray
    falls: np.ndarray
    blurred: np.ndarray

    def keep(self, chosen: np.ndarray) -> "_Effects":
        """Return the part of some errors; `chosen` is bool of shape (n,)."""
        return _Effects(
            self.image_ids[chosen],
            self.right[chosen],
            self.elsewhere[chosen],
            self.falls[chosen],
            self.blurred[chosen],
        )

    def by_area(self) -> list[dict[str, float]]:
        columns = (AREAS, *(v.mean(axis=0) for v in (self.right, self.elsewhere, self.falls)))
        names = ("area", "repaired", "elsewhere", "logit_fall")
        rows = zip(*columns, strict=True)
        return [dict(zip(names, map(float, row), strict=True)) for row in rows]


def _effects(causes: pd.DataFrame, y_true: "pd.Series[Any]") -> _Effects:
    """Set what became of the errors without their focus against what became of them elsewhere."""
    known = causes["image_id"].isin(y_true.index)  # An image may have vanished between two stages.
    finite = np.isfinite(causes["logit_fall"].to_numpy(np.float64))
    usable = causes.loc[known & finite, ["image_id", "treatment", "area", "y_pred", "logit_fall"]]
    usable["right"] = usable["y_pred"].to_numpy() == y_true.loc[usable["image_id"]].to_numpy()
    means = usable.astype({"right": np.float64, "logit_fall": np.float64}).pivot_table(
        index="image_id", columns=["treatment", "area"], values=["right", "logit_fall"]
    )

    def take(value: str, treatment: str) -> np.ndarray:
        columns = pd.MultiIndex.from_tuples([(value, treatment, area) for area in AREAS])
        return means.reindex(columns=columns).to_numpy(np.float64)

    falls = take("logit_fall", FOCUS) - take("logit_fall", ELSEWHERE)
    blurred = [take("right", treatment)[:, -1] for treatment in (BLUR, BLUR_ELSEWHERE)]
    effects = _Effects(
        image_ids=means.index.to_numpy(),
        right=take("right", FOCUS),
        elsewhere=take("right", ELSEWHERE),
        falls=falls,
        blurred=np.stack(blurred, axis=1),
    )
    return effects.keep(np.isfinite(falls).all(axis=1))


def _judge_painting(effects: _Effects, generator: np.random.Generator) -> dict[str, Any]:
    """Return the columns of a pattern that follow from painting its errors."""
    n_tested = len(effects.image_ids)
    if n_tested == 0:
        return {"n_tested": 0, "areas": []}
    right, elsewhere = effects.right[:, -1], effects.elsewhere[:, -1]
    falls = effects.falls[:, -1]
    low, high = wilson_interval(right.sum(), n_tested)
    fall_low, fall_high = percentile_interval(resampled_means(falls[:, None], RESAMPLES, generator))
    blur_repaired, blur_elsewhere = mean_of_defined(effects.blurred.T)
    return {
        "n_tested": n_tested,
        "best_area": _AREA,
        "repaired": float(right.mean()),
        "repaired_low": float(low),
        "repaired_high": float(high),
        "elsewhere": float(elsewhere.mean()),
        "logit_fall": float(falls.mean()),
        "logit_fall_low": float(fall_low[0]),
        "logit_fall_high": float(fall_high[0]),
        "blur_repaired": float(blur_repaired),
        "blur_elsewhere": float(blur_elsewhere),
        "causal_p": signed_rank_p(falls),
        "areas": effects.by_area(),
        "necessity": float(right.mean() - elsewhere.mean()),
    }


def _judge_pastes(pastes: pd.DataFrame, y_pred: "pd.Series[Any]") -> dict[str, Any]:
    if pastes.empty:
        return {"n_pasted": 0, "sufficiency": 0.0}
    turned = pastes["y_pred_after"].to_numpy() == y_pred.loc[pastes["source"]].to_numpy()
    is_focus = (pastes["kind"] == FOCUS).to_numpy()
    wrong, elsewhere_wrong = float(turned[is_focus].mean()), float(turned[~is_focus].mean())
    return {
        "n_pasted": int(is_focus.sum()),
        "pasted_wrong": wrong,
        "pasted_elsewhere_wrong": elsewhere_wrong,
        "sufficiency": wrong - elsewhere_wrong,
    }


def _judge_together(rows: list[dict[str, Any]], q_values: np.ndarray) -> None:
    """Add `causal_q` and `verdict` to the rows of all patterns."""
    enough = [row for row in rows if row["n_tested"] >= MIN_TESTED]
    if enough:
        adjusted = false_discovery_control([row["causal_p"] for row in enough])
        for row, q in zip(enough, adjusted.tolist(), strict=True):
            row["causal_q"] = q
    for row, q_value in zip(rows, q_values, strict=True):
        if row["n_tested"] < MIN_TESTED:
            row["verdict"] = TOO_FEW if row["n_tested"] else NOT_TESTED
            continue
        significant = row["causal_q"] < SIGNIFICANT and q_value < SIGNIFICANT
        large = row["necessity"] + row["sufficiency"] >= LEAST_EFFECT
        row["verdict"] = CAUSAL if significant and large else NOT_SHOWN
