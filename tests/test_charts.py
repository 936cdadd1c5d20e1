"""Charts are static SVG that follows the page's colours."""

import re
from xml.etree import ElementTree

import pytest

from audit.report import charts

BINS = [
    {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None}
    | {"accuracy_low": None, "accuracy_high": None},
    {"low": 0.5, "high": 0.75, "n": 10, "confidence": 0.6, "accuracy": 0.5}
    | {"accuracy_low": 0.3, "accuracy_high": 0.7},
    {"low": 0.75, "high": 1.0, "n": 90, "confidence": 0.9, "accuracy": 0.8}
    | {"accuracy_low": 0.7, "accuracy_high": 0.9},
]
SWEEP = [
    {"threshold": n / 10, "precision": None if n == 9 else n / 10, "recall": 1 - n / 10}
    | {"fp": 10 - n, "fn": n}
    for n in range(1, 10)
]
SHARES = {"precision": "Precision", "recall": "Recall"}
FALLS = [
    {"transformation": name, "strength": strength, "fall": fall, "low": fall / 2, "high": 2 * fall}
    for name, fall in (("blur", 0.2), ("</svg><script>", 0.05))
    for strength in ("mild", "strong")
]

CURVES = [
    charts.Line("first", [0, 0, 0.4, 1], [0, 0.75, 0.75, 1], mark=(0.4, 0.75)),
    charts.Line("</svg><script>", [0, 0.5, 1], [0, 0.5, 1]),
]


@pytest.fixture(scope="module")
def drawings():
    return [
        charts.reliability_chart(BINS, "Reliability."),
        charts.threshold_chart(SWEEP, SHARES, 0.5, "Share", "Shares."),
        charts.threshold_chart(SWEEP, {"fp": "False positives"}, 0.5, "Images", "Errors."),
        charts.fall_chart(FALLS, ("mild", "strong"), "Falls."),
        charts.curve_chart(CURVES, "False positive rate", "Recall", "ROC.", diagonal=True),
    ]


def test_charts_are_well_formed_and_hold_nothing_that_the_policy_forbids(drawings):
    for drawing in drawings:
        for element in ElementTree.fromstring(drawing.svg).iter():
            assert "style" not in element.attrib
            assert "id" not in element.attrib
            assert not element.tag.endswith(("script", "image", "style", "foreignObject"))
            assert not any(name.startswith("on") for name in element.attrib)


def test_every_colour_is_a_variable_of_the_page(drawings):
    for drawing in drawings:
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing.svg))
        assert colours
        assert all(re.fullmatch(r"var\(--[a-z0-9-]+\)|none", colour) for colour in colours)


def test_reliability_leaves_out_empty_bins(drawings):
    marks = ElementTree.fromstring(drawings[0].svg)
    symbols = [g for g in marks.iter() if g.get("class", "").startswith("mark-symbol")]
    assert sum(len(list(group)) for group in symbols) == 2


def test_every_fall_is_a_dot_with_a_line_in_the_order_given(drawings):
    drawing = ElementTree.fromstring(drawings[3].svg)
    groups = [g for g in drawing.iter() if "layer_" in g.get("class", "")]
    lines, dots = ([*group] for group in groups)
    assert (len(lines), len(dots)) == (len(FALLS), len(FALLS))
    shapes = [dot.get("d") for dot in dots]
    assert shapes[0] == shapes[2] != shapes[1] == shapes[3]
    places = [float(re.search(r"translate\(([\d.]+)", dot.get("transform"))[1]) for dot in dots]
    assert places[0] == pytest.approx(places[1]) == pytest.approx(4 * places[2])
    words = [text.text for text in drawing.iter() if text.tag.endswith("text")]
    assert words.index("blur") < words.index("</svg><script>")


def corners(drawing, kind):
    """Return the points of the paths of a kind of mark, in plot shares, y upwards."""
    groups = [g for g in ElementTree.fromstring(drawing.svg).iter() if kind in g.get("class", "")]
    paths = [path.get("d") for group in groups for path in group]
    return [
        [
            (round(float(x) / charts.WIDTH, 3), round(1 - float(y) / charts.HEIGHT, 3))
            for x, y in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path)
        ]
        for path in paths
    ]


def test_a_curve_is_drawn_through_its_points_in_their_order(drawings):
    chance, *lines = corners(drawings[4], "mark-line")
    assert chance == [(0, 0), (1, 1)]
    assert lines == [
        [(0, 0), (0, 0.75), (0.4, 0.75), (1, 1)],
        [(0, 0), (0.5, 0.5), (1, 1)],
    ]
    dots = [
        g
        for g in ElementTree.fromstring(drawings[4].svg).iter()
        if "mark-symbol role-mark" in g.get("class", "")
    ]
    (dot,) = [path for group in dots for path in group]
    x, y = map(float, re.findall(r"[\d.]+", dot.get("transform"))[:2])
    assert (x / charts.WIDTH, 1 - y / charts.HEIGHT) == pytest.approx((0.4, 0.75))


def test_six_curves_differ_in_colour_and_in_dash():
    lines = [charts.Line(f"class {n}", [0, 1], [0, n / 6]) for n in range(6)]
    svg = ElementTree.fromstring(charts.curve_chart(lines, "x", "y", "Six.").svg)
    groups = [g for g in svg.iter() if "mark-line" in g.get("class", "")]
    paths = [path for group in groups for path in group]
    assert len({path.get("stroke") for path in paths}) == 6
    assert len({path.get("stroke-dasharray") for path in paths}) == 6
    alone = charts.curve_chart(lines[:1], "x", "y", "One.").svg
    assert "class 0" not in alone


def test_a_chart_says_in_words_what_it_shows(drawings):
    assert [drawing.label for drawing in drawings] == [
        "Reliability.",
        "Shares.",
        "Errors.",
        "Falls.",
        "ROC.",
    ]
    assert "Precision" in drawings[1].svg and "Recall" in drawings[1].svg


def test_the_same_numbers_give_the_same_drawing(drawings):
    assert charts.reliability_chart(BINS, "Reliability.").svg == drawings[0].svg


def test_a_chart_without_any_image_is_still_drawn():
    assert charts.reliability_chart(BINS[:1], "Empty.").svg.startswith("<svg")


MARKS = ("mark-symbol role-mark", "mark-rule role-mark")


def series(n_runs: int, lines: tuple[str, ...] = ("one",)) -> tuple[list[dict], list[str]]:
    runs = [f"run {n}" for n in range(n_runs)]
    rows = [
        {"run": run, "name": name, "value": 0.5 + n / 10, "low": 0.4 + n / 10, "high": 0.6 + n / 10}
        for name in lines
        for n, run in enumerate(runs)
    ]
    return rows, runs


def test_a_series_is_drawn_in_order_with_its_intervals():
    rows, runs = series(3)
    rows[1] = {**rows[1], "low": None, "high": None}
    svg = ElementTree.fromstring(
        charts.series_chart(rows, runs[::-1], ["one"], "Share", "Three runs.").svg
    )
    groups = {kind: [g for g in svg.iter() if kind in g.get("class", "")] for kind in MARKS}
    dots = [path for group in groups["mark-symbol role-mark"] for path in group]
    places = [tuple(map(float, re.findall(r"[\d.]+", dot.get("transform"))[:2])) for dot in dots]
    assert [x for x, _ in places] == sorted((x for x, _ in places), reverse=True)  # As asked for.
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)  # Larger: higher.
    rules = [line for group in groups["mark-rule role-mark"] for line in group]
    assert len(rules) == 2  # One run has no interval.
    lengths = [abs(float(line.get("y2"))) for line in rules]
    step = abs(places[0][1] - places[1][1])
    assert lengths == pytest.approx([2 * step] * 2)
    texts = [text.text for text in svg.iter() if text.tag.endswith("text")]
    assert [text for text in texts if text in runs] == runs[::-1]


def test_many_runs_keep_their_names():
    for n_runs in (2, 6, 7, 20):
        rows, runs = series(n_runs)
        rows = [{**row, "value": 0.5, "low": 0.4, "high": 0.6} for row in rows]
        svg = charts.series_chart(rows, runs, ["one"], "Share", "Runs.").svg
        assert all(f">{run}<" in svg or f">{run[:3]}" in svg for run in runs)


def test_two_lines_of_a_series_have_a_legend():
    rows, runs = series(2, ("before", "after"))
    assert "before" in charts.series_chart(rows, runs, ["before", "after"], "Share", "Two.").svg
    alone, runs = series(2, ("before",))
    assert "before" not in charts.series_chart(alone, runs, ["before"], "Share", "One.").svg


def test_hostile_names_of_runs_are_escaped():
    rows, runs = [{"run": "<b>&", "name": "a", "value": 0.5, "low": None, "high": None}], ["<b>&"]
    svg = charts.series_chart(rows, runs, ["a"], "Share", "One.").svg
    assert "&lt;b" in svg
    assert "<b>" not in svg
