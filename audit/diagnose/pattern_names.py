"""Plain words for a focus pattern: "left edge, upright", "bright orange spot, in the corners".

In: its mean map, the maps of its errors, and colours and edges under them and under all others.
Out: a name; names that are the same are told apart by the most common confusion.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from audit.diagnose.looks import COLOURS, EDGES, MEASURES
from audit.diagnose.pattern_search import LOOK, PLACE
from audit.diagnose.wording import printable
from audit.explain.focus import describe_focus

_SIDE = 0.36
_EDGE = 0.24
_SMALL = 0.05
_WIDE = 0.2
_LONG = 1.8
_AROUND = 1.7
_EVEN = 1 / np.sqrt(12)  # the spread of an even map
_APART = 1.2 * _EVEN
_AROUND_BORDER = "all around the border"


_MOST_MAPS = 200
_MOST_OF = 0.6
_PLACES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("in the corners", lambda p: p.endswith("corner")),
    ("either side", lambda p: p.startswith(("left", "right"))),
    ("top or bottom", lambda p: p.startswith(("top", "bottom", "upper half", "lower half"))),
    ("in the middle", lambda p: p == "centre"),
    ("near the border", lambda p: p.endswith(("edge", "corner")) or p == _AROUND_BORDER),
)
"""What most errors of a pattern have in common whose places differ; the first that fits."""

_LEAST_COLOUR = 0.12
_LEAST_DIRECTION = 0.4
_VIVID = 35
_TOP, _BOTTOM = 90, 10
_STRIPES = {
    "flat": "horizontal",
    "upright": "vertical",
    "rising": "slanting",
    "falling": "slanting",
}


def tell_apart(names: Sequence[str], confusions: Sequence[str]) -> list[str]:
    """Make names different: equal ones get the confusion, then a number.

    Args:
        confusions: the most common confusion of each pattern in words, such as "cats → dogs".
    """
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


def name_pattern(
    kind: str,
    mean_map: np.ndarray,
    cams: Sequence[np.ndarray],
    measures: np.ndarray,
    others: np.ndarray,
) -> str:
    """Say in words what the errors of a pattern look at, and where.

    Args:
        kind: "place", "look" or "both".
        mean_map: uint8 or floating of shape (height, width).
        cams: the maps of its errors.
        measures: float32 of shape (n, len(MEASURES)), what is under these maps; see
            `audit.diagnose.looks.measure_look`.
        others: the same of all maps that are not in the pattern.
    """
    if kind == PLACE:
        return name_focus(mean_map)
    place = name_places(cams) if kind == LOOK else name_focus(mean_map)
    return f"{name_look(measures, others, _typical_area(cams))}, {place}"


def name_look(measures: np.ndarray, others: np.ndarray, area: float) -> str:
    """Name what is under maps by what sets it apart: a direction of edges, a colour, a texture.

    Args:
        area: the share of the pixels at or above half of the peak.
    """
    known, rest = (m[np.isfinite(m).all(axis=1)] for m in (measures, others))
    noun = "spot" if area < _WIDE / 2 else "area"
    if not len(known) or not len(rest):
        return f"similar {noun}s"
    colour = _colour(known, rest)
    stripes = _stripes(known, rest)
    if stripes:
        return f"{colour} {stripes}".strip()
    return f"{colour} {noun}" if colour else f"{_texture(known, rest)} {noun}s"


def name_places(cams: Sequence[np.ndarray]) -> str:
    """Say where most of some maps look whose places differ."""
    step = -(-len(cams) // _MOST_MAPS)
    places = [name_focus(cam).split(",")[0] for cam in cams[::step]]
    for words, fits in _PLACES:
        if sum(fits(place) for place in places) >= _MOST_OF * len(places):
            return words
    return "at various places"


def name_focus(mean_map: np.ndarray) -> str:
    """Say in words where a map looks and in which shape.

    Only what rises at least half-way from the map's median to its peak is looked at: the maps of
    many networks have a level of their own everywhere.
    """
    focus = _describe_relief(mean_map)
    if focus is None:
        return "everywhere"
    place = _split_place(focus)
    words = [place, _size(focus)] if place else [_place(focus), _size(focus), _form(focus)]
    first, *rest = [word for word in words if word]
    return f"{first}, {' and '.join(rest)}" if rest else first


def name_beside(name: str) -> str:
    """Add to a pattern's name that it looks beside the object."""
    return f"{name}, beside the object"


def name_confusion(y_true: int, y_pred: int, class_names: Sequence[str]) -> str:
    """Return "true → predicted" in words that are safe to print and to store."""
    return f"{printable(class_names[y_true])} → {printable(class_names[y_pred])}"


def _describe_relief(cam: np.ndarray) -> dict[str, float] | None:
    relief = np.maximum(cam.astype(np.float64) - np.median(cam), 0)
    if not relief.any():
        return None
    return describe_focus(np.where(relief >= relief.max() / 2, relief, 0))


def _typical_area(cams: Sequence[np.ndarray]) -> float:
    step = -(-len(cams) // _MOST_MAPS)
    found = [_describe_relief(cam) for cam in cams[::step]]
    return float(np.median([1.0 if focus is None else focus["area"] for focus in found]))


def _colour(known: np.ndarray, rest: np.ndarray) -> str:
    """Return the colour that is much more common under the maps than under others, or ""."""
    shares, usual = known[:, : len(COLOURS)], rest[:, : len(COLOURS)]
    middle = np.median(shares, axis=0)
    surplus = middle - np.percentile(usual, _TOP, axis=0)
    best = int(surplus.argmax())
    if surplus[best] <= 0 or middle[best] < _LEAST_COLOUR:
        return ""
    colourfulness = np.median(known[:, MEASURES.index("colourfulness")])
    is_vivid = COLOURS[best] not in ("black", "grey", "white") and colourfulness >= _VIVID
    return f"bright {COLOURS[best]}" if is_vivid else COLOURS[best]


def _stripes(known: np.ndarray, rest: np.ndarray) -> str:
    """Name the direction in which edges run that are strong and mostly run so, or return ""."""
    first = len(COLOURS)
    edges, usual = known[:, first : first + len(EDGES)], rest[:, first : first + len(EDGES)]
    strength = np.median(edges.sum(axis=1))
    share = np.median(edges / np.maximum(edges.sum(axis=1, keepdims=True), 1e-9), axis=0)
    usual_share = usual / np.maximum(usual.sum(axis=1, keepdims=True), 1e-9)
    best = int(share.argmax())
    is_strong = strength > np.median(usual.sum(axis=1))
    is_directed = share[best] >= _LEAST_DIRECTION
    if is_strong and is_directed and share[best] > np.percentile(usual_share[:, best], _TOP):
        return f"{_STRIPES[EDGES[best]]} stripes"
    return ""


def _texture(known: np.ndarray, rest: np.ndarray) -> str:
    """Return an adjective for what is rougher or smoother, lighter or darker than elsewhere."""
    for name, high, low in (
        ("sharpness", "rough", "smooth"),
        ("lightness", "light", "dark"),
        ("colourfulness", "colourful", "colourless"),
    ):
        column = MEASURES.index(name)
        middle = np.median(known[:, column])
        if middle > np.percentile(rest[:, column], _TOP):
            return high
        if middle < np.percentile(rest[:, column], _BOTTOM):
            return low
    return "similar"


def _split_place(focus: dict[str, float]) -> str:
    """Name a focus on opposite sides, whose centre of mass says nothing; else ""."""
    off_centre = max(abs(focus["centre_x"] - 0.5), abs(focus["centre_y"] - 0.5))
    if off_centre > 0.5 - _SIDE:
        return ""
    sideways, upwards = focus["spread_x"] > _APART, focus["spread_y"] > _APART
    if focus["border_lift"] > _AROUND and focus["spread_x"] > _EVEN and focus["spread_y"] > _EVEN:
        return _AROUND_BORDER
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
