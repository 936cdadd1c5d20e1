"""Numbers and foreign strings → text for a page. Pure functions, used as Jinja filters.

In: stored values, where `None` and NaN mean "not defined". Out: short text that never claims more
than the value holds: 99.98 % is not shown as 100 %, and 0.01 % is not shown as 0 %.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

NOTHING = "–"
"""Shown where a value is not defined."""

SPACE = "\u202f"
"""Narrow no-break space, between a number and its unit."""

JOINERS = "\u200c\u200d"
"""Invisible characters that scripts and emoji need; every other one is spelled out."""


def is_defined(value: float | None) -> bool:
    """Say whether there is a number to show."""
    return value is not None and math.isfinite(value)


def count(value: float | None) -> str:
    """Return a whole number with thousands set apart: 2000 becomes 2,000; 0.3 is "< 1"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if 0 < value < 0.5:
        return f"<{SPACE}1"
    return f"{round(value):,}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share of 0 to 1 in percent; 0 and 100 only if the share is exactly that."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return _bare_percent(value, digits) + SPACE + "%"


def percent_range(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval of shares: 0.942 and 0.961 become 94.2–96.1 %."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{_bare_percent(low, digits)}–{_bare_percent(high, digits)}{SPACE}%"


def percent_bounds(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval of shares as a sentence has it: [94.2, 96.1], in percent."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{_bare_percent(low, digits)}, {_bare_percent(high, digits)}]"


def count_range(low: float | None, high: float | None) -> str:
    """Return an interval of counts: 41–52."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{count(low)}–{count(high)}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of decimals; a tiny one as a bound, never as zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{digits}f}"
    if value != 0 and float(text.replace(",", "")) == 0:
        sign, least = ("<", "") if value > 0 else (">", "−")
        return f"{sign}{SPACE}{least}{10**-digits:.{digits}f}"
    return text.replace("-", "−")


def number_range(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return an interval of numbers: 1.87–2.75, or −0.30 to 0.34 across zero."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    join = "–" if low >= 0 else " to "
    return f"{number(low, digits)}{join}{number(high, digits)}"


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign: +0.012, −0.026; a tiny one as a bound, never as zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):,.{digits}f}"
    sign = "+" if value > 0 else "−" if value < 0 else ""
    if value != 0 and float(text.replace(",", "")) == 0:
        return f"{sign}<{SPACE}{10**-digits:.{digits}f}"
    return sign + text


def signed_range(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return an interval of differences: −0.038 to −0.012."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def points(value: float | None, digits: int = 1) -> str:
    """Return a difference of shares in percentage points: 0.0115 becomes +1.2."""
    return signed(None if value is None else 100 * value, digits)


def points_range(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval of differences of shares in percentage points: +0.4 to +1.9."""
    if low is None or high is None:
        return ""
    return signed_range(100 * low, 100 * high, digits)


def ratio(value: float | None) -> str:
    """Return how many times as often: 2.4×, 0.31×, 12×."""
    if value is None or not math.isfinite(value):
        return NOTHING
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return number(value, digits) + "×"


def ratio_range(low: float | None, high: float | None) -> str:
    """Return an interval of ratios: 1.9×–3.1×."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{ratio(low)}–{ratio(high)}"


def probability(value: float | None, name: str = "q") -> str:
    """Return a p- or q-value: q = 0.012, or q < 0.001; one below 0.05 is never shown as 0.050.

    Without a name only the number: 0.012, or < 0.001.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:.3f}"
    bound = "0.001" if value < 0.001 else "0.05" if value < 0.05 <= float(text) else ""
    if bound:
        return f"{name}{SPACE}<{SPACE}{bound}".lstrip()
    return f"{name}{SPACE}={SPACE}{text}" if name else text


def duration(seconds: float) -> str:
    """Return a time as a person would say it: 0.4 s, 19 s, 3 min 04 s, 2 h 05 min."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{SPACE}h {minutes % 60:02d}{SPACE}min"


def plural(value: float, singular: str, many: str | None = None) -> str:
    """Return the noun that goes with a count."""
    return singular if value == 1 else many or singular + "s"


def legible(text: Any) -> str:
    """Spell out characters that cannot be seen or that turn the text around.

    A file name may hold line breaks, escape codes or bidirectional controls. They come out as
    `\\u202e` and the like, so that the reader sees what is there and the page keeps its order.
    """
    whole = str(text)
    if whole.isprintable():  # most are; none of what is spelled out counts as printable
        return whole
    return "".join(_spell_out(character) for character in whole)


def legible_lines(text: Any) -> str:
    """Do the same with a text of several lines, which stay lines."""
    return "\n".join(legible(line) for line in str(text).split("\n"))


def shorten(text: Any, length: int = 60) -> str:
    """Return a long name without its middle, so that beginning and end still tell it apart."""
    whole = legible(text)
    if len(whole) <= length:
        return whole
    tail = length // 3
    return whole[: length - tail - 1].rstrip() + "…" + whole[-tail:].lstrip()


def compact(value: Any) -> str:
    """Return a value of an option or a metadata column as short text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={compact(item)}" for name, item in value.items()) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(compact(item) for item in value)
    return legible(value)


def _bare_percent(value: float, digits: int) -> str:
    least = 10**-digits
    scaled = value * 100
    text = f"{scaled:.{digits}f}"
    if float(text) == 0 and value > 0:
        return f"<{SPACE}{least:.{digits}f}"
    if float(text) >= 100 and value < 1:
        return f">{SPACE}{100 - least:.{digits}f}"
    return text.replace("-", "−")


def _spell_out(character: str) -> str:
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in JOINERS:
        code = ord(character)
        return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    return character


FILTERS: dict[str, Callable[..., Any]] = {
    "count": count,
    "count_range": count_range,
    "percent": percent,
    "percent_range": percent_range,
    "percent_bounds": percent_bounds,
    "number": number,
    "number_range": number_range,
    "signed": signed,
    "signed_range": signed_range,
    "points": points,
    "points_range": points_range,
    "ratio": ratio,
    "ratio_range": ratio_range,
    "plural": plural,
    "probability": probability,
    "legible": legible,
    "legible_lines": legible_lines,
    "shorten": shorten,
    "compact": compact,
}
"""What a template may call, by name."""
