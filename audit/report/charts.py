"""Charts as static SVG, drawn by Vega-Lite through vl-convert, without a browser.

In: rows of `metrics.json` and `probes.parquet`. Out: SVG text for `render` to place in a page.
Colours are CSS variables of `static/report.css`, so a chart follows light, dark and print.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Spec = dict[str, Any]

WIDTH, HEIGHT = 300, 260
MOST_LEVEL = 6
"""Names of runs that lie level below a chart; of more each is tilted."""
SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 2, 1, 2])
SHAPES = ("circle", "diamond", "square", "triangle-up")
"""Lines differ in dash and dots in shape as well, so that colour never carries a meaning alone."""


@dataclass(frozen=True)
class Chart:
    """A finished drawing and what it says in words, for those who cannot see it."""

    svg: str
    label: str


def reliability_chart(rows: Sequence[Row], label: str) -> Chart:
    """Draw accuracy against confidence per bin, with intervals, beside the perfect diagonal.

    Args:
        rows: `confidence`, `accuracy`, `accuracy_low`, `accuracy_high`, `n` per bin; empty bins
            have n = 0 and are left out.
        label: what the chart shows, in words.
    """
    filled = [dict(row) for row in rows if row["n"]]
    diagonal = [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]
    x = _share_axis("confidence", "Mean confidence of the bin")
    y = _share_axis("accuracy", "Share that is right")
    colour = {"value": SERIES[0]}
    layers = [
        {
            "data": {"values": diagonal},
            "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1},
            "encoding": {"x": x, "y": y, "color": {"value": "var(--muted)"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.55},
            "encoding": {
                "x": x,
                "y": {**y, "field": "accuracy_low"},
                "y2": {"field": "accuracy_high"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1, "stroke": "var(--surface)"},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "size": {
                    "field": "n",
                    "type": "quantitative",
                    "legend": None,
                    "scale": {"type": "sqrt", "rangeMin": 30, "rangeMax": 260, "zero": True},
                },
            },
        },
    ]
    return _draw({"data": {"values": filled}, "layer": layers}, label)


def threshold_chart(
    rows: Sequence[Row], fields: Mapping[str, str], threshold: float, y_title: str, label: str
) -> Chart:
    """Draw quantities of the threshold sweep as lines, with a rule at the threshold in use.

    Args:
        rows: the sweep, each with `threshold` and every field drawn; undefined values leave a gap.
        fields: names of the quantities, field → what the reader calls it. Shares if the title says
            "Share", else counts.
        threshold: the one in use.
        y_title: title of the vertical axis.
        label: what the chart shows, in words.
    """
    shares = y_title.startswith("Share")
    names = list(fields.values())
    values = [
        {"threshold": row["threshold"], "value": row[field], "name": name}
        for field, name in fields.items()
        for row in rows
        if row[field] is not None
    ]
    x = _share_axis("threshold", "Threshold", ".2f")
    y = _share_axis("value", y_title) if shares else _count_axis("value", y_title)
    layers = [
        {
            "data": {"values": [{"threshold": threshold}]},
            "mark": {"type": "rule", "strokeDash": [4, 4], "strokeWidth": 1},
            "encoding": {"x": x, "color": {"value": "var(--muted)"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, **_told_apart(names, _LINE_LEGEND)},
        },
    ]
    return _draw({"data": {"values": values}, "layer": layers}, label)


@dataclass(frozen=True)
class Line:
    """A line of a chart. `x` and `y` are shares in order of drawing, `name` what readers call it.

    `mark` is a point on it that stands out.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None = None


def curve_chart(
    lines: Sequence[Line], x_title: str, y_title: str, label: str, *, diagonal: bool = False
) -> Chart:
    """Draw up to six curves of shares against shares, with a legend if there is more than one.

    Args:
        lines: each with a name of its own.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        label: what the chart shows, in words.
        diagonal: whether to draw what chance would give, from (0, 0) to (1, 1).
    """
    names = [line.name for line in lines]
    values = [
        {"x": x, "y": y, "name": line.name, "step": step}
        for line in lines
        for step, (x, y) in enumerate(zip(line.x, line.y, strict=True))
    ]
    ends = [{"x": 0, "y": 0, "step": 0}, {"x": 1, "y": 1, "step": 1}]
    marks = [{"x": line.mark[0], "y": line.mark[1]} for line in lines if line.mark is not None]
    at = {"x": _share_axis("x", x_title), "y": _share_axis("y", y_title)}
    order = {"order": {"field": "step", "type": "quantitative"}}
    legend = {**_LINE_LEGEND, "columns": 2, "labelLimit": 140} if len(lines) > 1 else None
    chance = {
        "data": {"values": ends},
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": {**at, **order, "color": {"value": "var(--muted)"}},
    }
    curves = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {**at, **order, **_told_apart(names, legend)},
    }
    in_use = {
        "data": {"values": marks},
        "mark": {
            "type": "point",
            "filled": True,
            "opacity": 1,
            "size": 90,
            "stroke": "var(--surface)",
            "strokeWidth": 2,
        },
        "encoding": {**at, "color": {"value": SERIES[0]}},
    }
    layers = [*([chance] if diagonal else []), curves, *([in_use] if marks else [])]
    return _draw({"data": {"values": values}, "layer": layers}, label)


def _told_apart(names: Sequence[str], legend: Spec | None) -> Spec:
    """Return the encoding by which lines of the field `name` differ: colour and dash."""
    n = len(names)
    return {
        "color": {
            "field": "name",
            "type": "nominal",
            "legend": legend,
            "scale": {"domain": list(names), "range": list(SERIES[:n])},
        },
        "strokeDash": {
            "field": "name",
            "type": "nominal",
            "legend": legend,
            "scale": {"domain": list(names), "range": [list(item) for item in DASHES[:n]]},
        },
    }


def fall_chart(rows: Sequence[Row], strengths: Sequence[str], label: str) -> Chart:
    """Draw falls of accuracy with their intervals, a line of dots for each transformation.

    Args:
        rows: `transformation`, `strength`, `fall`, `low`, `high`, in the order of the lines.
        strengths: names of the strengths, the mildest first; they differ in colour and in shape.
        label: what the chart shows, in words.
    """
    names = list(dict.fromkeys(row["transformation"] for row in rows))
    order = {"domain": list(strengths), "range": list(SERIES[: len(strengths)])}
    shapes = {"domain": list(strengths), "range": list(SHAPES[: len(strengths)])}
    legend = {"orient": "top", "title": None, "symbolOpacity": 1}
    most = max((row["high"] for row in rows if row["high"] is not None), default=1.0)
    x = {
        "field": "fall",
        "type": "quantitative",
        "axis": {"title": "Share that turns wrong", "format": "%", "tickCount": 4},
        "scale": {"domain": [0, min(1.0, max(0.1, most))], "nice": True},
    }
    y = {
        "field": "transformation",
        "type": "nominal",
        "sort": names,
        "axis": {"title": None, "labelLimit": 110, "labelFontSize": 12, "grid": True},
    }
    shared = {
        "y": y,
        "yOffset": {"field": "strength", "type": "nominal", "sort": list(strengths)},
        "color": {"field": "strength", "type": "nominal", "legend": legend, "scale": order},
    }
    layers = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.55},
            "encoding": {**shared, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 42},
            "encoding": {
                **shared,
                "x": x,
                "shape": {
                    "field": "strength",
                    "type": "nominal",
                    "legend": legend,
                    "scale": shapes,
                },
            },
        },
    ]
    size = {"width": 230, "height": {"step": 30, "for": "position"}}
    return _draw({**size, "data": {"values": list(rows)}, "layer": layers}, label)


def series_chart(
    rows: Sequence[Row], runs: Sequence[str], lines: Sequence[str], y_title: str, label: str
) -> Chart:
    """Draw shares over a series of runs, which are as far from each other, with their intervals.

    Args:
        rows: `run`, `name` of the line, `value`, `low`, `high`; bounds may be `None`.
        runs: their names in order, all different.
        lines: up to six names; with one there is no legend.
        y_title: title of the vertical axis, which shows what the values need of 0 to 1.
        label: what the chart shows, in words.
    """
    is_long = len(runs) > MOST_LEVEL
    x = {
        "field": "run",
        "type": "ordinal",
        "sort": list(runs),
        "scale": {"domain": list(runs), "padding": 0.4},
        "axis": {
            "title": None,
            "labelAngle": -40 if is_long else 0,
            "labelLimit": 84 if is_long else WIDTH // max(1, len(runs)) - 6,
            "labelOverlap": False,
        },
    }
    ends = [row[key] for row in rows for key in ("value", "low", "high") if row[key] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = max(0.005, 0.08 * (high - low))
    scale = {"domain": [max(0.0, low - room), min(1.0, high + room)], "nice": True, "zero": False}
    y = {
        "field": "value",
        "type": "quantitative",
        "axis": {"title": y_title, "format": ".1%" if high - low < 0.1 else "%", "tickCount": 5},
        "scale": scale,
    }
    encoding = _told_apart(lines, _LINE_LEGEND if len(lines) > 1 else None)
    ranges = [row for row in rows if row["low"] is not None and row["high"] is not None]
    layers = [
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, **encoding},
        },
        {
            "data": {"values": list(ranges)},
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55},
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": encoding["color"],
            },
        },
        {
            "mark": {
                "type": "point",
                "filled": True,
                "opacity": 1,
                "size": 80,
                "stroke": "var(--surface)",
                "strokeWidth": 1.5,
            },
            "encoding": {"x": x, "y": y, "color": encoding["color"]},
        },
    ]
    return _draw({"data": {"values": list(rows)}, "layer": layers, "height": 220}, label)


def _share_axis(field: str, title: str, number_format: str = "%") -> Spec:
    axis = {"title": title, "format": number_format, "values": [0, 0.25, 0.5, 0.75, 1]}
    scale = {"domain": [0, 1], "nice": False}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def _count_axis(field: str, title: str) -> Spec:
    axis = {"title": title, "format": ",d", "tickCount": 5, "tickMinStep": 1}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": {"nice": True}}


def _draw(spec: Spec, label: str) -> Chart:
    import vl_convert  # loads a JavaScript engine: only when there is something to draw

    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH,
        "height": HEIGHT,
        "background": None,
        "config": _CONFIG,
        **spec,
    }
    return Chart(svg=vl_convert.vegalite_to_svg(whole), label=label)


_LINE_LEGEND: Spec = {"orient": "top", "title": None, "symbolType": "stroke", "symbolSize": 300}

_CONFIG: Spec = {
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "titleFontWeight": 500,
        "titleFontSize": 13,
        "labelFontSize": 12,
        "titlePadding": 10,
        "labelPadding": 6,
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
    },
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "columnPadding": 14},
    "line": {"strokeCap": "round"},
}
