"""Claims about the data: suspected labels, duplicates, files that cannot be read.

In: the tables of a run. Out: findings without a number.
"""

import pandas as pd
from scipy.stats import binom

from audit.diagnose.finding import (
    ASSOCIATED,
    COUNTED,
    SUSPECTED_LABEL,
    Estimate,
    Finding,
    score,
)
from audit.diagnose.tables import Tables
from audit.diagnose.wording import (
    count,
    count_interval,
    percent,
    percent_interval,
    plural,
    so_many_errors,
)
from audit.predict.intervals import LEVEL, wilson_interval
from audit.schemas import OTHER_LABEL, SAME_LABEL, SUSPECTED

MANY_DUPLICATES = 0.01
"""Near-duplicates with the same label are news from this share of the images on."""

CONFIRMED = "people confirmed 51 % of such flags in ten public test sets"


def claim_labels(tables: Tables, shown: frozenset[int]) -> list[Finding]:
    """Say how many labels are suspected, and how many of these may really be wrong.

    Args:
        shown: errors that a cause or a slice explains; they do not count for the score, because a
            model that is misled is as sure of itself as one that was given a wrong label.
    """
    issues = tables.issues(SUSPECTED)
    if issues.empty:
        return []
    flagged = tuple(int(image_id) for image_id in issues["image_id"])
    errors = tables.errors_among(flagged)
    n_unexplained = sum(image_id not in shown for image_id in errors)
    expected = expected_wrong_labels(
        len(flagged), "labels that are wrong, if as many are confirmed"
    )
    return [
        Finding(
            kind="label",
            text=f"{plural(len(flagged), 'image')}, {so_many_errors(len(errors))}, may have a"
            f" wrong label; {CONFIRMED}, so expect {count(expected.value)}"
            f" {count_interval(expected.low, expected.high)}.",
            n_errors=len(errors),
            share_of_errors=len(errors) / tables.n_errors if tables.n_errors else 0.0,
            estimate=expected,
            q_value=None,
            confirmed_by="only suspected, from the model's scores and the labels of similar images;"
            " 51 % is from Northcutt et al. 2021, the interval from counting alone",
            table="label_issues",
            key=SUSPECTED,
            images=flagged,
            score=score(SUSPECTED_LABEL * n_unexplained, None, ASSOCIATED),
        )
    ]


def expected_wrong_labels(n_flagged: int, what: str) -> Estimate:
    """Return how many of so many flags people would confirm, with the binomial 95 % interval."""
    low, high = binom.interval(LEVEL, n_flagged, SUSPECTED_LABEL)
    return Estimate(SUSPECTED_LABEL * n_flagged, float(low), float(high), what)


def claim_duplicates(tables: Tables) -> list[Finding]:
    """Say how many images are nearly the same, with different labels or often with the same one."""
    findings = []
    other, same = tables.issues(OTHER_LABEL), tables.issues(SAME_LABEL)
    if not other.empty:
        findings.append(_other_labels(tables, other))
    n_images = len(tables.images)
    low, high = wilson_interval(len(images_of_pairs(same)), n_images)
    if not same.empty and low >= MANY_DUPLICATES:
        findings.append(_same_labels(tables, same, float(low), float(high)))
    return findings


def claim_unreadable(tables: Tables) -> list[Finding]:
    """Say how many files could not be read."""
    if tables.unreadable.empty:
        return []
    n_bad = int((tables.unreadable["kind"] == "unreadable").sum())
    if n_bad == 0:
        return []
    n_files = n_bad + len(tables.images)
    low, high = (float(bound) for bound in wilson_interval(n_bad, n_files))
    return [
        Finding(
            kind="unreadable",
            text=f"{count(n_bad)} of {plural(n_files, 'image file')} could not be read"
            f" ({percent(n_bad / n_files)} {percent_interval(low, high)}) and count nowhere.",
            n_errors=0,
            share_of_errors=0.0,
            estimate=Estimate(n_bad / n_files, low, high, "share of the image files"),
            q_value=None,
            confirmed_by="a count; the table has the reasons",
            table="unreadable",
            key="unreadable",
            images=(),
            score=0.0,
        )
    ]


def images_of_pairs(issues: pd.DataFrame) -> list[int]:
    """Return the images of pairs, both of a pair together, the most suspicious pair first."""
    pairs = zip(issues["image_id"].tolist(), issues["other_id"].tolist(), strict=True)
    return list(dict.fromkeys(int(one) for pair in pairs for one in pair if one >= 0))


def _other_labels(tables: Tables, issues: pd.DataFrame) -> Finding:
    images = images_of_pairs(issues)
    errors = tables.errors_among(images)
    return Finding(
        kind="duplicates",
        text=f"{plural(len(images), 'image')}, {so_many_errors(len(errors))}, look almost the"
        " same as one with another label: one of the two labels is wrong, unless a detail decides.",
        n_errors=len(errors),
        share_of_errors=len(errors) / tables.n_errors if tables.n_errors else 0.0,
        estimate=Estimate(len(images), len(images), len(images), "images; a count"),
        q_value=None,
        confirmed_by="perceptual hashes of what the model saw are nearly equal; a count, to be"
        " looked at",
        table="label_issues",
        key=OTHER_LABEL,
        images=tuple(images),
        score=score(len(errors), None, COUNTED),
    )


def _same_labels(tables: Tables, issues: pd.DataFrame, low: float, high: float) -> Finding:
    images = images_of_pairs(issues)
    errors = tables.errors_among(images)
    share = len(images) / len(tables.images)
    return Finding(
        kind="duplicates",
        text=f"{count(len(images))} of {plural(len(tables.images), 'image')} ({percent(share)}"
        f" {percent_interval(low, high)}) have a near-duplicate with the same label: they count"
        " twice, and every interval is narrower than it should be.",
        n_errors=len(errors),
        share_of_errors=len(errors) / tables.n_errors if tables.n_errors else 0.0,
        estimate=Estimate(share, low, high, "share of the images"),
        q_value=None,
        confirmed_by="perceptual hashes of what the model saw are almost equal",
        table="label_issues",
        key=SAME_LABEL,
        images=tuple(images),
        score=0.0,
    )
