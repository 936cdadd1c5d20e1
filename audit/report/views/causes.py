"""What painting out did: to a pattern as a whole, and to one error."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from audit.explain.painting import BLUR, BLUR_ELSEWHERE, ELSEWHERE, FOCUS
from audit.report.evidence import COLUMNS
from audit.report.run_data import as_records
from audit.report.views.parts import Estimate, defined, plain_estimate
from audit.report.views.thumbs import class_name, single
from audit.schemas import CAUSAL, NOT_TESTED, TOO_FEW

TREATMENTS = {
    FOCUS: "Focus painted out",
    ELSEWHERE: "Same shape elsewhere",
    BLUR: "Focus blurred",
    BLUR_ELSEWHERE: "Same shape elsewhere, blurred",
}
"""What was done to an image, in the order of the tables."""


SIGNIFICANT = 0.05
"""The false-discovery rate below which a verdict takes a difference for shown."""


@dataclass(frozen=True)
class AreaRow:
    """A pattern's tested errors at one size of the painted area, a share of the image.

    `repaired` is the share that turns right without the focus, `elsewhere` the same with the shape
    moved, `fall` how much more the logit falls without the focus.
    """

    area: float
    repaired: float | None
    elsewhere: float | None
    fall: float | None
    is_decisive: bool


@dataclass(frozen=True)
class CauseView:
    """Whether a pattern's focus causes its errors. Counts are of tested errors.

    `pasted_wrong` is the share of correct images that are taken for what an exemplar is taken for
    once its focus is pasted into them, `pasted_elsewhere_wrong` that with another part of it.
    """

    verdict: str
    reason: str
    n_tested: int
    n_repaired: int
    repaired: Estimate
    elsewhere: float | None
    blur_repaired: float | None
    blur_elsewhere: float | None
    area: float | None
    fall: Estimate
    q_value: float | None
    areas: tuple[AreaRow, ...]
    n_pasted: int
    pasted_wrong: float | None
    pasted_elsewhere_wrong: float | None


@dataclass(frozen=True)
class TreatmentRow:
    """What one treatment of one size did to one error, all places together.

    `fall` and `p_true` are means over the `n_trials` places; `becomes` is the prediction after it,
    "" where places differ; `n_right` of them turn right.
    """

    label: str
    is_focus: bool
    area: float
    n_trials: int
    n_right: int
    fall: float | None
    p_true: float | None
    becomes: str


@dataclass(frozen=True)
class Outcome:
    """What came of painting one error's focus out, and the same shape elsewhere. Without blurring.

    Attributes:
        repaired_at: the smallest tested share of the image with which, the focus painted out, it
            turns right; `None` if it never does.
        elsewhere_at: the same of the shape elsewhere, in any of its places.
        largest: the largest share of the image that was painted out.
        stays: whether without the focus, at every size, the prediction is what it was.
        elsewhere_stays: the same of the shape elsewhere, at the size of `repaired_at`, in all of
            its places; `None` if there were none.
    """

    repaired_at: float | None
    elsewhere_at: float | None
    largest: float
    stays: bool
    elsewhere_stays: bool | None


class Trial(NamedTuple):
    """A row of a causes shard."""

    image_id: int
    treatment: str
    area: float
    trial: int
    logit_fall: float
    p_true: float
    y_pred: int


def cause_view(row: Mapping[str, Any]) -> CauseView:
    """Return what the tests say of a pattern.

    Args:
        row: of `patterns.parquet`, with undefined values where nothing was painted out.
    """
    n_tested = int(defined(row["n_tested"]) or 0)
    repaired = plain_estimate(row["repaired"], row["repaired_low"], row["repaired_high"])
    verdict, area = str(row["verdict"]), defined(row["best_area"])
    return CauseView(
        verdict=verdict,
        reason=_reason(verdict, defined(row["causal_q"]), defined(row["q_value"])),
        n_tested=n_tested,
        n_repaired=round(n_tested * (repaired.value or 0)),
        repaired=repaired,
        elsewhere=defined(row["elsewhere"]),
        blur_repaired=defined(row["blur_repaired"]),
        blur_elsewhere=defined(row["blur_elsewhere"]),
        area=area,
        fall=plain_estimate(row["logit_fall"], row["logit_fall_low"], row["logit_fall_high"]),
        q_value=defined(row["causal_q"]),
        areas=tuple(_area_row(item, area) for item in as_records(row["areas"])) if n_tested else (),
        n_pasted=int(defined(row["n_pasted"]) or 0),
        pasted_wrong=defined(row["pasted_wrong"]),
        pasted_elsewhere_wrong=defined(row["pasted_elsewhere_wrong"]),
    )


@dataclass(frozen=True)
class Trials:
    """The rows of all causes shards by column, to be looked up by image.

    `columns` are those of `Trial`, ordered by image; treatments are numbers of `treatments`.
    """

    columns: tuple[np.ndarray, ...]
    treatments: tuple[str, ...]

    @classmethod
    def of(cls, causes: pd.DataFrame) -> "Trials":
        rows = causes[list(COLUMNS["causes"])].sort_values("image_id", kind="stable")
        numbers, names = pd.factorize(rows["treatment"])
        columns = rows.assign(treatment=numbers.astype(np.int16)).items()
        return cls(tuple(column.to_numpy() for _, column in columns), tuple(map(str, names)))

    def of_image(self, image_id: int) -> list[Trial]:
        first, last = np.searchsorted(self.columns[0], [image_id, image_id + 1]).tolist()
        ids, treatments, *others = (column[first:last].tolist() for column in self.columns)
        names = [self.treatments[number] for number in treatments]
        return [Trial(*row) for row in zip(ids, names, *others, strict=True)]


def treatment_rows(
    trials: Iterable[Trial], y_true: int, class_names: tuple[str, ...]
) -> tuple[TreatmentRow, ...]:
    """Return what each treatment did to one error, in the order of `TREATMENTS`, by size."""
    groups: dict[tuple[int, float], list[Trial]] = {}
    order = list(TREATMENTS)
    for trial in trials:
        if trial.treatment in order:
            groups.setdefault((order.index(trial.treatment), trial.area), []).append(trial)
    return tuple(_treatment_row(groups[key], y_true, class_names) for key in sorted(groups))


def outcome(trials: Sequence[Trial], y_true: int, y_pred: int) -> Outcome | None:
    """Return what came of painting an error's focus out, `None` if that was not done."""
    focus = [trial for trial in trials if trial.treatment == FOCUS]
    elsewhere = [trial for trial in trials if trial.treatment == ELSEWHERE]
    if not focus:
        return None
    repaired_at = min((trial.area for trial in focus if trial.y_pred == y_true), default=None)
    beside = [trial for trial in elsewhere if trial.area == repaired_at]
    return Outcome(
        repaired_at=repaired_at,
        elsewhere_at=min((x.area for x in elsewhere if x.y_pred == y_true), default=None),
        largest=max(trial.area for trial in focus),
        stays=all(trial.y_pred == y_pred for trial in focus),
        elsewhere_stays=all(trial.y_pred == y_pred for trial in beside) if beside else None,
    )


def _treatment_row(trials: list[Trial], y_true: int, class_names: tuple[str, ...]) -> TreatmentRow:
    after = {trial.y_pred for trial in trials}
    return TreatmentRow(
        label=TREATMENTS[trials[0].treatment],
        is_focus=trials[0].treatment == FOCUS,
        area=trials[0].area,
        n_trials=len(trials),
        n_right=sum(trial.y_pred == y_true for trial in trials),
        fall=_mean([trial.logit_fall for trial in trials]),
        p_true=_mean([trial.p_true for trial in trials]),
        becomes=class_name(class_names, after.pop()) if len(after) == 1 else "",
    )


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean as a float32, `None` for NaN; that of one value is what is stored."""
    mean = defined(sum(values) / len(values))
    return None if mean is None else single(mean)


def _area_row(item: Mapping[str, Any], decisive: float | None) -> AreaRow:
    return AreaRow(
        area=float(item["area"]),
        repaired=defined(item["repaired"]),
        elsewhere=defined(item["elsewhere"]),
        fall=defined(item["logit_fall"]),
        is_decisive=item["area"] == decisive,
    )


def _reason(verdict: str, causal_q: float | None, enriched_q: float | None) -> str:
    """Say which of the conditions for a cause hold."""
    if verdict == TOO_FEW:
        return "Fewer than five of its errors were painted out: too few to tell."
    if verdict == NOT_TESTED:
        return "Whether it is the cause was not tested in this run."
    acts = causal_q is not None and causal_q < SIGNIFICANT
    special = enriched_q is not None and enriched_q < SIGNIFICANT
    if acts and special and verdict != CAUSAL:
        return (
            "Painting it out acts, and errors look there more often than comparable correct images,"
            " but the effect is small: too few errors turn right without it, and too few correct"
            " images turn wrong with it."
        )
    if acts and special:
        return (
            "Painting it out acts more than painting elsewhere, and errors look there more often"
            " than correct images of the same predicted class and of the same true class."
        )
    if acts:
        return (
            "Painting it out acts more than painting elsewhere, but comparable correct images look"
            " there about as often: the model uses it, and it is not shown to mislead."
        )
    if special:
        return (
            "Errors look there more often than comparable correct images, but painting it out is"
            " not shown to act more than painting elsewhere."
        )
    return (
        "Painting it out is not shown to act more than painting elsewhere, and comparable correct"
        " images look there about as often."
    )
