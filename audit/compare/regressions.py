"""What a later run does worse than the first, for pipelines: `--fail-on regression`.

In: a step of a comparison. Out: a sentence for each thing that got worse beyond chance.
"""

from audit.compare.changes import WORSE
from audit.compare.comparison import Comparison, Step
from audit.compare.paired import ALPHA
from audit.compare.patterns_change import NEW
from audit.diagnose.wording import phrase, printable, probability


def find_regressions(comparison: Comparison, step: Step) -> dict[str, list[str]]:
    """Return what got worse, by kind: "accuracy", "class" and "pattern".

    The accuracy is worse if more images broke than were fixed, with McNemar's p < 0.05, as one test
    of its own. A class is if its verdict is "worse"; a pattern is a regression if it is "new".
    """
    outcomes = step.outcomes
    n_fixed, n_broken = len(outcomes.fixed), len(outcomes.broken)
    n_images = f"{comparison.n_images:,} images"
    is_worse = n_broken > n_fixed and outcomes.p_value < ALPHA
    return {
        "accuracy": [
            f"{n_broken:,} of {n_images} broke and {n_fixed:,} were fixed"
            f" ({probability(outcomes.p_value, 'p')})"
        ]
        if is_worse
        else [],
        "class": [
            f"class {printable(group.name)}: {group.n_broken:,} of {group.n_images:,} images broke"
            f" and {group.n_fixed:,} were fixed ({probability(group.q_value)})"
            for group in step.classes
            if group.verdict == WORSE
        ],
        "pattern": [
            f"new pattern {pattern.number}: {phrase(pattern.name)}; {pattern.n_right:,} of its"
            f" {pattern.n_matched:,} errors were right before ({probability(pattern.q_value)})"
            for pattern in step.patterns
            if pattern.verdict == NEW
        ],
    }
