"""What a finding is, and how much weight its kind of confirmation has.

Scores order findings: errors explained × (1 − q) × weight. They are no probabilities.
"""

from dataclasses import asdict, dataclass
from typing import Any

INTERVENED = 1.0
"""The suspected cause was taken out of the very images, against as much taken out elsewhere."""

REPRODUCED = 0.75
"""Confirmed on images kept back, and correct images turn wrong when they are changed likewise."""

HELD_BACK = 0.5
"""An association, found on one half of the images and confirmed on the other."""

COUNTED = 0.5
"""A count that needs no inference, but a look."""

ASSOCIATED = 0.25
"""An association with a test but without a trial, or a suspicion that nobody has looked into."""

SHIFTED = 0.1
"""A remedy that leaves the cause where it is, or a fact that names none, such as a hard class."""

SUSPECTED_LABEL = 0.51
"""The share of labels flagged by confident learning that people found wrong, in ten test sets.

Source: Northcutt et al. 2021, https://arxiv.org/abs/2103.14749
"""

MOST_IMAGES = 100
"""Images that a finding lists in JSON; the tables have them all."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `what` says what it is. A count has no width."""

    value: float
    low: float
    high: float
    what: str


@dataclass(frozen=True)
class Finding:
    """A claim with its evidence.

    Attributes:
        id: "F1" is the first in order of `score`.
        kind: pattern, slice, label, probe, threshold, imbalance, duplicates or unreadable.
        text: one sentence with its numbers.
        n_errors: errors that it covers; 0 if it is about no error of this set.
        share_of_errors: of all errors of the run.
        estimate: the number that carries it.
        q_value: after false-discovery control over its kind, or the p-value of a single test;
            `None` where an interval or a count stands for the test.
        confirmed_by: how, in words.
        table, key: where the evidence is, a table's name and the row's number or name.
        images: every image it is about, most typical first.
        score: errors explained × (1 − q) × weight of the confirmation.
    """

    kind: str
    text: str
    n_errors: int
    share_of_errors: float
    estimate: Estimate
    q_value: float | None
    confirmed_by: str
    table: str
    key: int | str
    images: tuple[int, ...]
    score: float
    id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `findings.json`, with the first hundred images."""
        return {
            "id": self.id,
            "kind": self.kind,
            "text": self.text,
            "n_errors": self.n_errors,
            "share_of_errors": self.share_of_errors,
            "estimate": asdict(self.estimate),
            "q_value": self.q_value,
            "confirmed_by": self.confirmed_by,
            "evidence": {"table": self.table, "key": self.key},
            "images": list(self.images[:MOST_IMAGES]),
            "score": self.score,
        }


def score(explained: float, q_value: float | None, weight: float) -> float:
    """Return errors explained × (1 − q) × weight, rounded so that equal ones tie."""
    return round(max(0.0, explained) * (1 - (q_value or 0.0)) * weight, 6)
