"""Plain words for a focus pattern, from its mean map: "left edge, upright".

In: mean maps and the most common confusion of each pattern. Out: one name each, all different.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from audit.explain.focus import describe_focus

_SIDE = 0.36
_EDGE = 0.24
_SMALL = 0.05
_WIDE = 0.2
_LONG = 1.8
_AROUND = 1.7
_EVEN = 1 / np.sqrt(12)  # the spread of an even map
_APART = 1.2 * _EVEN
_LONGEST_CLASS_NAME = 40


def name_patterns(mean_maps: Sequence[np.ndarray], confusions: Sequence[str]) -> list[str]:
    """Name patterns, the largest first; equal names get the confusion, then a number.

    Args:
        mean_maps: uint8 or floating of shape (height, width), one per pattern.
        confusions: the most common confusion of each pattern in words, such as "cats → dogs".
    """
    names = [name_focus(mean_map) for mean_map in mean_maps]
    counts = Counter(names)
    names = [
        f"{name}, {confusion}" if counts[name] > 1 else name
        for name, confusion in zip(names, confusions, strict=True)
    ]
    counts, used = Counter(names), set(names)
    seen: Counter[str] = Counter()
    for position, name in enumerate(names):
        if counts[name] > 1:
            unique = name
            while unique in used:  # a class may itself be called "dogs (1)"
                seen[name] += 1
                unique = f"{name} ({seen[name]})"
            used.add(unique)
            names[position] = unique
    return names


def name_focus(mean_map: np.ndarray) -> str:
    """Say in words where a map looks and in which shape.

    Only what rises at least half-way from the map's median to its peak is looked at: the maps of
    many networks have a level of their own everywhere.
    """
    relief = np.maximum(mean_map.astype(np.float64) - np.median(mean_map), 0)
    if not relief.any():
        return "everywhere"
    focus = describe_focus(np.where(relief >= relief.max() / 2, relief, 0))
    place = _split_place(focus)
    words = [place, _size(focus)] if place else [_place(focus), _size(focus), _form(focus)]
    first, *rest = [word for word in words if word]
    return f"{first}, {' and '.join(rest)}" if rest else first


def name_confusion(y_true: int, y_pred: int, class_names: Sequence[str]) -> str:
    """Return "true → predicted" in words that are safe to print and to store."""
    return f"{_printable(class_names[y_true])} → {_printable(class_names[y_pred])}"


def _split_place(focus: dict[str, float]) -> str:
    """Name a focus on opposite sides, whose centre of mass says nothing; else ""."""
    off_centre = max(abs(focus["centre_x"] - 0.5), abs(focus["centre_y"] - 0.5))
    if off_centre > 0.5 - _SIDE:
        return ""
    sideways, upwards = focus["spread_x"] > _APART, focus["spread_y"] > _APART
    if focus["border_lift"] > _AROUND and focus["spread_x"] > _EVEN and focus["spread_y"] > _EVEN:
        return "all around the border"
    if sideways and not upwards:
        return "left and right"
    if upwards and not sideways:
        return "top and bottom"
    return ""


def _place(focus: dict[str, float]) -> str:
    x, y = focus["centre_x"], focus["centre_y"]
    across = "left" if x < _SIDE else "right" if x > 1 - _SIDE else ""
    down = "upper" if y < _SIDE else "lower" if y > 1 - _SIDE else ""
    beside, above = min(x, 1 - x) < _EDGE, min(y, 1 - y) < _EDGE
    if across and down:
        return f"{down} {across} {'corner' if beside and above else 'part'}"
    if across:
        return f"{across} {'edge' if beside else 'half'}"
    if down:
        edge = "top" if down == "upper" else "bottom"
        return f"{edge} edge" if above else f"{down} half"
    return "centre"


def _size(focus: dict[str, float]) -> str:
    if focus["area"] > _WIDE:
        return "wide"
    is_long = focus["elongation"] >= _LONG  # a thin bar is not small
    return "small" if focus["area"] < _SMALL and not is_long else ""


def _form(focus: dict[str, float]) -> str:
    if focus["elongation"] >= _LONG:
        angle = focus["orientation"]
        if 60 <= angle <= 120:
            return "upright"
        return "slanting" if 30 <= angle <= 150 else "flat"
    if focus["n_blobs"] > 1:
        return "in several places"
    return "" if focus["area"] > _WIDE else "round"


def _printable(name: str) -> str:
    """Replace control, direction and undecodable characters, and shorten."""
    clean = "".join(sign if sign.isprintable() else " " for sign in name)
    clean = " ".join(clean.split()) or "?"
    if len(clean) > _LONGEST_CLASS_NAME:
        clean = clean[: _LONGEST_CLASS_NAME - 1] + "…"
    return clean
