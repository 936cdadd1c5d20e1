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
SERIES = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
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
    x = _share_axis("threshold", "Threshold")
    y = _share_axis("value", y_title) if shares else _count_axis("value", y_title)
    legend = {"orient": "top", "title": None, "symbolType": "stroke", "symbolSize": 300}
    order = {"domain": names, "range": list(SERIES[: len(names)])}
    dash = {"domain": names, "range": [list(item) for item in DASHES[: len(names)]]}
    layers = [
        {
            "data": {"values": [{"threshold": threshold}]},
            "mark": {"type": "rule", "strokeDash": [4, 4], "strokeWidth": 1},
            "encoding": {"x": x, "color": {"value": "var(--muted)"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {
                "x": x,
                "y": y,
                "color": {"field": "name", "type": "nominal", "legend": legend, "scale": order},
                "strokeDash": {"field": "name", "type": "nominal", "legend": legend, "scale": dash},
            },
        },
    ]
    return _draw({"data": {"values": values}, "layer": layers}, label)


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


def _share_axis(field: str, title: str) -> Spec:
    axis = {"title": title, "format": "%", "values": [0, 0.25, 0.5, 0.75, 1]}
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


_CONFIG: Spec = {
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "titleFontWeight": 500,
        "titleFontSize": 12,
        "labelFontSize": 11,
        "titlePadding": 10,
        "labelPadding": 6,
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
    },
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "columnPadding": 14},
    "line": {"strokeCap": "round"},
}
