"""Records of the supplement experiment as Markdown tables.

In: records as `supplement_series` and `supplement_loop` yield them. Out: lines. No arithmetic but
means, sums and intervals of what is in the records.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from supplement_series import (
    Record,
    about_artefact,
    is_recovered,
    mean_difference,
    mean_share,
)

from audit.compare.patterns_change import UNCHANGED
from audit.predict.intervals import wilson_estimate, wilson_interval

DASH = "–"
ARMS = ("find", "random", "other errors", "find, cats", "random, cats")
WORDS = {"bars": "bars", "object": "toy bone"}


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table whose first row is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


# The series


def series_tables(records: Sequence[Record]) -> list[str]:
    """Return for each kind a table with a row for each seed and share, and what is said of it."""
    lines: list[str] = []
    for kind in _kinds(records):
        rows: list[Sequence[str]] = [
            (
                *("seed", "supplement", f"cats with {WORDS[kind]} right", "others right"),
                *("focus on it, for dog", "for its answer"),
                *("errors right without their focus, and as a share of these cats",),
                *("errors right without it", "the tool on the pattern", "the truth"),
            )
        ]
        rows += [_series_row(one) for one in records if one["kind"] == kind]
        lines += [f"**{WORDS[kind].capitalize()}**", "", *markdown(rows), ""]
    return lines


def _series_row(one: Record) -> tuple[str, ...]:
    return (
        str(one["seed"]),
        percent(one["share"]),
        percents(one["right"]),
        percents(one["clean_right"]),
        percents(vars(mean_share(one["focus_dogs"]))),
        percents(vars(mean_share(focus_of_answer(one)))),
        _caused(one["repaired"], len(one["wrong"])),
        _caused(one["mask_repaired"], len(one["wrong"])),
        _said(one),
        _true(one),
    )


def _caused(share: dict[str, Any], n_cats: int) -> str:
    """Return "25 of 28: 33 % (24 to 45)": of the errors, and as a share of all these cats."""
    of_all = percents(wilson_estimate(share["n"], n_cats))
    return f"{share['n']} of {share['of']}: {of_all}"


def focus_of_answer(one: Record) -> list[float | None]:
    """Return for each cat the share that lies on the artefact, of the map for what it is called."""
    maps = zip(one["wrong"], one["focus_dogs"], one["focus_cats"], strict=False)  # Not all have.
    return [dogs if wrong else cats for wrong, dogs, cats in maps]


def _said(one: Record) -> str:
    if "patterns" not in one:
        return DASH
    pattern = about_artefact(one["patterns"])
    if pattern is None:
        return "no such pattern"
    said = f"{pattern['verdict']}: {pattern['n_errors']} → {pattern['n_left']} errors, "
    return said + signed(pattern["change"])


def _true(one: Record) -> str:
    if "truth" not in one:
        return f"{sum(one['wrong'])} errors"
    return f"{one['truth']['verdict']}: {sum(one['wrong'])} errors"


def agreement_table(records: Sequence[Record]) -> list[str]:
    """Return for each kind and seed whether the tool says of the whole supplement what is true."""
    rows: list[Sequence[str]] = [
        (
            *("artefact", "seed", "the tool: whole supplement", "interval excludes no change"),
            *("the truth", "steps that agree", "the same word", "change of focus on it, for dog"),
            "for its answer",
            "the tool: focus in the pattern's place",
        )
    ]
    for kind in _kinds(records):
        for seed in sorted({one["seed"] for one in records if one["kind"] == kind}):
            own = [one for one in records if (one["kind"], one["seed"]) == (kind, seed)]
            steps = [one for one in own if "truth" in one]
            if not steps:
                continue
            last = steps[-1]
            pattern = about_artefact(last["patterns"])
            agreeing = [_agrees(one) for one in steps]
            same = [_verdict(one) == one["truth"]["verdict"] for one in steps]
            moved = (
                mean_difference(own[0]["focus_dogs"], last["focus_dogs"]),
                mean_difference(focus_of_answer(own[0]), focus_of_answer(last)),
            )
            rows.append(
                (
                    WORDS[kind],
                    str(seed),
                    pattern["verdict"] if pattern else "no such pattern",
                    "yes" if is_recovered(pattern) else "no",
                    last["truth"]["verdict"],
                    f"{sum(agreeing)} of {len(agreeing)}",
                    f"{sum(same)} of {len(same)}",
                    *(signed(vars(change)) for change in moved),
                    _moved(pattern),
                )
            )
    return markdown(rows)


def _moved(pattern: Record | None) -> str:
    """Return how much less of the focus is where the pattern looked, and on how many images."""
    if pattern is None or "place" not in pattern:
        return DASH
    place = pattern["place"]
    return f"{signed(place['change'])}, {place['n_images']} images"


def _verdict(one: Record) -> str | None:
    pattern = about_artefact(one["patterns"])
    return pattern["verdict"] if pattern else None


def _agrees(one: Record) -> bool:
    """Say whether the tool and the truth both see a fix, or both see none."""
    is_fixed = one["truth"]["verdict"] != UNCHANGED
    return is_recovered(about_artefact(one["patterns"])) == is_fixed


# The null


def null_table(records: Sequence[Record], name: str) -> list[str]:
    """Return in how many trials a pattern was said to be fixed or new though nothing changed."""
    rows: list[Sequence[str]] = [
        (
            name,
            "trials",
            "patterns looked at",
            "images answered otherwise",
            "trials without a claim",
        )
    ]
    for kind in _kinds(records):
        rows.append(_null_row(WORDS[kind], [one for one in records if one["kind"] == kind]))
    if len(rows) > 2:
        rows.append(_null_row("all", records))
    return markdown(rows)


def _null_row(name: str, records: Sequence[Record]) -> tuple[str, ...]:
    silent = sum(not one["claims"] for one in records)
    changed = [one["n_changed"] for one in records]
    low, high = wilson_interval(silent, len(records))
    return (
        name,
        str(len(records)),
        str(sum(len(one["patterns"]) for one in records)),
        f"{min(changed)} to {max(changed)} of {records[0]['n_images']},"
        f" median {np.median(changed):.0f}",
        f"{silent} of {len(records)} ({percent(float(low))} to {percent(float(high))})",
    )


# The loop


def loop_tables(records: Sequence[Record]) -> list[str]:
    """Return for each kind a table of what added images are worth: each seed, and their mean."""
    lines: list[str] = []
    for kind in _kinds(records):
        what = WORDS[kind]
        rows: list[Sequence[str]] = [
            (
                *(
                    "added",
                    "chosen by",
                    "seed",
                    f"with {what}",
                    "of them cats",
                    "cats with it right",
                ),
                *("gain, points", "points per image", "gain overall", "points per image"),
            )
        ]
        of_kind = [one for one in records if one["kind"] == kind]
        for n in sorted({one["n"] for one in of_kind}):
            for arm in ARMS:
                own = [one for one in of_kind if (one["n"], one["arm"]) == (n, arm)]
                rows += [_loop_row(one) for one in own]
                if len(own) > 1:
                    rows.append(_loop_mean(n, arm, own))
        lines += [f"**{what.capitalize()}**", "", *markdown(rows), ""]
    return lines


def _loop_row(one: Record) -> tuple[str, ...]:
    n, carriers, overall = one["n"], one["carriers"], one["all"]
    return (
        str(n),
        one["arm"],
        str(one["seed"]),
        f"{one['n_carrying']:.3g}",
        f"{one['n_breaking']:.3g}",
        f"{carriers['before'] * 100:.1f} → {carriers['after'] * 100:.1f} %",
        signed(carriers["gain"]),
        f"{carriers['gain']['value'] / n * 100:+.2f}",
        signed(overall["gain"]),
        f"{overall['gain']['value'] / n * 100:+.3f}",
    )


def _loop_mean(n: int, arm: str, own: Sequence[Record]) -> tuple[str, ...]:
    def mean(part: str, of: str) -> float:
        return float(np.mean([_of(one[part], of) for one in own]))

    gain, overall = mean("carriers", "gain"), mean("all", "gain")
    return (
        str(n),
        f"**{arm}**",
        "mean",
        f"{np.mean([one['n_carrying'] for one in own]):.3g}",
        f"{np.mean([one['n_breaking'] for one in own]):.3g}",
        f"{mean('carriers', 'before') * 100:.1f} → {mean('carriers', 'after') * 100:.1f} %",
        f"**{gain * 100:+.1f}**",
        f"**{gain / n * 100:+.2f}**",
        f"**{overall * 100:+.1f}**",
        f"**{overall / n * 100:+.3f}**",
    )


def _of(part: dict[str, Any], name: str) -> float:
    return float(part[name]["value"] if name == "gain" else part[name])


def augment_table(records: Sequence[Record]) -> list[str]:
    """Return for each artefact and seed what a pipeline is worth against no augmentation."""
    rows: list[Sequence[str]] = [
        ("artefact", "seed", "pipeline", "layers", "cats with it right", "gain", "gain overall")
    ]
    for one in records:
        if one["target"] is None:
            none = ("the run proposes no augmentation", *(DASH,) * 4)
            rows.append((WORDS[one["kind"]], str(one["seed"]), *none))
            continue
        carriers = one["carriers"]
        rows.append(
            (
                WORDS[one["kind"]],
                str(one["seed"]),
                "the target's" if one["arm"] == "target" else one["arm"],
                ", ".join(one["layers"]),
                f"{carriers['before'] * 100:.1f} → {carriers['after'] * 100:.1f} %",
                signed(carriers["gain"]),
                signed(one["all"]["gain"]),
            )
        )
    return markdown(rows)


# Cells


def percent(share: float) -> str:
    """Return "61 %" of a share of 1."""
    return f"{share * 100:.0f} %"


def percents(estimate: dict[str, Any]) -> str:
    """Return "61 % (51 to 70)" of shares of 1."""
    if estimate.get("value") is None:
        return DASH
    value = percent(estimate["value"])
    if estimate["low"] is None:
        return value
    return f"{value} ({estimate['low'] * 100:.0f} to {estimate['high'] * 100:.0f})"


def signed(change: dict[str, Any]) -> str:
    """Return a difference in points, with its interval: "+12.0 (+3.1 to +20.5)"."""
    if change["value"] is None:
        return DASH
    value = f"{change['value'] * 100:+.1f}"
    if change["low"] is None:
        return value
    return f"{value} ({change['low'] * 100:+.1f} to {change['high'] * 100:+.1f})"


def _kinds(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(one["kind"] for one in records))
