"""Numbers and foreign strings in a sentence.

In: values of the tables. Out: short text that never claims more than the value holds: a share of
0.998 is not shown as 100 %, and a class called "\\u202egnp" cannot turn the sentence around.
"""

import math
from collections.abc import Sequence

LONGEST_NAME = 40
"""Characters of a class, and LONGEST_PHRASE those of a pattern's or a slice's name."""
LONGEST_PHRASE = 120

ALPHA = 0.05
"""False-discovery rate from which on nothing is claimed."""


def printable(text: object, length: int = LONGEST_NAME) -> str:
    """Replace control, direction and undecodable characters by spaces, and shorten."""
    clean = one_line(text) or "?"
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def one_line(text: object) -> str:
    """Replace what does not print, line breaks among it, by spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def phrase(text: object) -> str:
    """Return a name made of several words, printable and not too long."""
    return printable(text, LONGEST_PHRASE)


def percent(share: float) -> str:
    """Return a share of 0 to 1 in whole percent: 84 %. 0 % and 100 % only if it is exactly that."""
    return f"{_whole_percent(share)} %"


def percent_interval(low: float, high: float) -> str:
    """Return the bounds of a share in whole percent: [72, 91]."""
    return f"[{_whole_percent(low)}, {_whole_percent(high)}]"


def count(value: float) -> str:
    """Return a whole number with thousands set apart; below a half but above nothing is "<1"."""
    return "<1" if 0 < value < 0.5 else f"{round(value):,}"


def count_interval(low: float, high: float) -> str:
    """Return the bounds of a count: [41, 52]."""
    return f"[{count(low)}, {count(high)}]"


def times(ratio: float) -> str:
    """Return how many times as often: 3.1, 12, 0.46."""
    digits = 2 if ratio < 1 else 1 if ratio < 9.95 else 0
    return f"{ratio:,.{digits}f}"


def times_interval(low: float, high: float) -> str:
    """Return the bounds of a ratio: [2.2, 4.4]."""
    return f"[{times(low)}, {times(high)}]"


def probability(value: float, name: str = "q") -> str:
    """Return a p- or q-value: "q < 0.001", "q = 0.012"; never one that rounds up to `ALPHA`."""
    if value < 0.001:
        return f"{name} < 0.001"
    if value < ALPHA <= round(value, 3):
        return f"{name} < {ALPHA}"
    return f"{name} = {value:.3f}"


def significant(value: float) -> str:
    """Return a number with three significant digits, more where it would become 0 or 1."""
    digits = 3
    while digits < 9 and float(f"{value:.{digits}g}") in {0, 1} and value not in {0, 1}:
        digits += 1
    return f"{value:.{digits}g}"


def plural(number: float, singular: str, many: str | None = None) -> str:
    """Return a count with its noun: "1 error", "57 errors"."""
    shown = count(number)
    return f"{shown} {singular if shown == '1' else many or singular + 's'}"


def so_many_errors(number: int) -> str:
    """Return how many of some images are errors: "19 of them errors"."""
    return f"{count(number) if number else 'none'} of them {'errors' if number > 1 else 'an error'}"


def listed(words: Sequence[str], most: int = 3) -> str:
    """Join words: "a", "a and b", "a, b, c and 4 more"."""
    shown = list(words[:most])
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def capitalised(text: str) -> str:
    """Begin a sentence with a name."""
    return text[:1].upper() + text[1:]


def is_number(value: object) -> bool:
    """Say whether a cell holds a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _whole_percent(share: float) -> str:
    rounded = round(share * 100)
    if rounded == 0 and share > 0:
        return "<1"
    if rounded == 100 and share < 1:
        return ">99"
    return f"{rounded:,}"
