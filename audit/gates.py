"""Limits that a model must keep, for pipelines: `--fail-under accuracy=0.9`.

In: what the user wrote, and the content of `metrics.json`. Out: for each limit whether it is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HIGHER_IS_BETTER = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_f1",
    "macro_roc_auc",
    "macro_average_precision",
)
"""Metrics of any model, by their names in `metrics.json`: below its limit, one fails."""
LOWER_IS_BETTER = ("log_loss", "brier", "ece", "ece_equal_mass", "false_positive_rate")
"""Metrics of which more is worse: above its limit, one fails."""
_OF_TWO_CLASSES = ("precision", "recall", "specificity", "f1", "roc_auc", "average_precision")
"""Metrics of the positive class, of which more is better."""
BINARY = (*_OF_TWO_CLASSES, "false_positive_rate")
"""Metrics that only a model of two classes has."""
NAMES = (*HIGHER_IS_BETTER, *_OF_TWO_CLASSES, *LOWER_IS_BETTER)


@dataclass(frozen=True)
class Gate:
    """A limit and what became of it.

    Attributes:
        metric: its name.
        limit: the value that must be reached, or, of `LOWER_IS_BETTER`, not be exceeded.
        value, low, high: what was measured, with its interval; `None` where it is not defined.
        passed: whether the value keeps to the limit; what is not defined does not.
    """

    metric: str
    limit: float
    value: float | None
    low: float | None
    high: float | None
    passed: bool

    def __str__(self) -> str:
        """Say it in words: accuracy is 0.8812 [0.8701, 0.8917], below 0.9."""
        if self.value is None:
            return f"{self.metric} is not defined here, and must be {self._wanted} {self.limit:g}"
        interval = "" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]"
        side = self._wanted if self.passed else self._missed
        return f"{self.metric} is {self.value:.4f}{interval}, {side} {self.limit:g}"

    @property
    def _wanted(self) -> str:
        return "at most" if self.metric in LOWER_IS_BETTER else "at least"

    @property
    def _missed(self) -> str:
        return "above" if self.metric in LOWER_IS_BETTER else "below"


def read_limits(given: Any) -> dict[str, float]:
    """Read limits: "accuracy=0.9", several of them, or {"accuracy": 0.9}; in order of names.

    Raises:
        ValueError: if a name is unknown or a limit is no number from 0 on.
    """
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Mapping | list | tuple):
        raise ValueError("give a metric and its limit, such as accuracy=0.9")
    pairs = given.items() if isinstance(given, Mapping) else (_split(text) for text in given)
    limits = {str(name): _limit(value) for name, value in pairs}
    for name, limit in limits.items():
        if name not in NAMES:
            raise ValueError(f"there is no metric {name!r}; there are {', '.join(NAMES)}")
        if limit > 1 and name != "log_loss":
            raise ValueError(f"{name} is a number from 0 to 1, as in {name}=0.9, not {limit:g}")
    return {name: limits[name] for name in NAMES if name in limits}


def check_limits(limits: Mapping[str, float], metrics: Mapping[str, Any]) -> list[Gate]:
    """Hold a run's metrics against limits.

    Args:
        limits: by metric, as `read_limits` returns them.
        metrics: the content of `metrics.json`.
    """
    return [_check(name, limit, metrics) for name, limit in limits.items()]


def _check(name: str, limit: float, metrics: Mapping[str, Any]) -> Gate:
    holder = (metrics["binary"] or {}) if name in BINARY else metrics
    estimate = holder.get(name) or {}
    value = estimate.get("value")
    if value is None:
        return Gate(name, limit, None, None, None, passed=False)
    passed = value <= limit if name in LOWER_IS_BETTER else value >= limit
    return Gate(name, limit, value, estimate.get("low"), estimate.get("high"), passed)


def _split(text: Any) -> tuple[str, str]:
    name, sign, limit = str(text).partition("=")
    if not sign:
        raise ValueError("give a metric and its limit, such as accuracy=0.9")
    return name.strip(), limit.strip()


def _limit(value: Any) -> float:
    try:
        limit = float(value)
    except (TypeError, ValueError):
        limit = float("nan")
    if isinstance(value, bool) or not 0 <= limit < float("inf"):
        raise ValueError(f"a limit is a number from 0 on, as in accuracy=0.9, not {value!r}")
    return limit
