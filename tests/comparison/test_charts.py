"""The charts of a comparison: what they hold, and that Vega-Lite's schema has no objection."""

import itertools
import math
import re
from typing import Any

import pytest
import vl_convert

from normattn.comparison import charts
from normattn.comparison._page_charts import specification, still
from normattn.comparison.charts import Curve, Mark, curves, histograms, intervals, pareto, tradeoff

MARKS = [
    Mark("none", 8.0, 7.0, 9.0, {0: 7.5, 1: 8.5}, "baseline"),
    Mark("nam", 6.0, 5.5, 6.5, {0: 5.75, 1: 6.25}, "better"),
    Mark("odd $\\frac$ ' \" 😀", 9.0, None, None, {0: 9.0}),
]


def data(spec: Any, name: str) -> list[dict[str, Any]]:
    """The rows of the data of this name, wherever in a specification."""
    if isinstance(spec, list):
        return [row for item in spec for row in data(item, name)]
    if not isinstance(spec, dict):
        return []
    found = spec.get("data") or {}
    if found.get("name") == name:
        return list(found["values"])
    return [row for item in spec.values() for row in data(item, name)]


def words(chart: Any) -> list[str]:
    """The texts of a chart as it is drawn."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_chart_is_what_the_schema_asks_for_and_can_be_drawn() -> None:
    curve = Curve("none", "0", {1: 2.0, 2: 1.0})
    size = {"group": "g", "epoch": 1, "until": 2, "place": 0, "count": 1, "scales": 2, "size": "s"}
    gate = {"gate": "layer1", "mean": 0.5, "low": 0.4, "high": 0.6}
    for chart in (
        intervals(MARKS, "Error", [("none", 8.0), ("half", 8.2)], percent=True),
        tradeoff([(1.0, mark) for mark in MARKS], "Latency"),
        curves([curve], "Loss", baseline="none"),
        curves([Curve(f"m{i}", "0", {1: 1.0}) for i in range(40)], "Loss"),
        histograms([size], {0.5: "exactly 0", 3.0: "1e-08"}),
        charts.ranges([gate]),
    ):
        assert chart.to_dict(validate=True)["width"] == "container"
        assert still(specification("x", chart, "words"), wide=True).startswith("data:image/svg")


def test_intervals_hold_means_and_every_seed_and_none_where_there_is_no_interval() -> None:
    spec = specification("x", intervals(MARKS, "Error", [("none", 8.0)]), "")
    means = {row["mechanism"]: row for row in data(spec, "means")}
    assert [means["nam"][key] for key in ("mean", "low", "high", "n")] == [6.0, 5.5, 6.5, 2]
    odd = means[MARKS[2].label]
    assert (odd["low"], odd["high"], odd["n"]) == (None, None, 1)
    seeds = {(r["mechanism"], r["seed"]): r["value"] for r in data(spec, "trials")}
    assert seeds == {(m.label, s): v for m in MARKS for s, v in m.seeds.items()}


def test_labels_are_drawn_as_they_are() -> None:
    drawn = words(intervals(MARKS, "Error", [("none", 8.0)]))
    assert "nam" in drawn
    assert "odd $\\frac$ ' \" 😀" in [w.replace("&quot;", '"').replace("&#39;", "'") for w in drawn]


def test_an_axis_of_errors_ends_at_0_and_100_percent() -> None:
    wide = [Mark("none", 50.0, -400.0, 500.0, {0: 20.0, 1: 80.0})]
    drawn = words(intervals(wide, "x", [], percent=True))
    assert "0" in drawn
    assert "100" in drawn
    assert "200" not in words(tradeoff([(1.0, wide[0])], "x"))
    assert "200" in words(intervals(wide, "x", []))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], ()),
        ([(1, 9), (2, 8), (3, 8.5), (4, 7)], (0, 1, 3)),
        ([(1, 9), (1, 8), (2, 8)], (1,)),  # as cheap and worse; as good and dearer
        ([(1, 8), (1, 8)], (0, 1)),  # neither is worse
    ],
)
def test_the_front_is_who_nobody_beats_in_both(
    points: list[tuple[float, float]], front: tuple[int, ...]
) -> None:
    assert pareto(points) == front


def test_names_beside_points_keep_their_order_and_do_not_touch() -> None:
    marks = [Mark(f"m{i}", 5.0 + 0.01 * i, None, None, {0: 5.0}) for i in range(12)]
    rows = data(tradeoff([(i, m) for i, m in enumerate(marks)], "x").to_dict(), "points")
    heights = [row["label at"] for row in rows]
    low, high = charts.domain(marks, (), percent=True)
    gaps = [(b - a) / (high - low) for a, b in itertools.pairwise(heights)]
    assert min(gaps) > 0.05
    assert low <= min(heights) <= max(heights) <= high + 1e-9


def test_of_many_points_the_front_and_the_baseline_have_names() -> None:
    marks = [Mark(f"m{i}", 5.0 + i, None, None, {0: 5.0}) for i in range(40)]
    marks[30] = Mark("none", 35.0, None, None, {0: 5.0}, "baseline")
    rows = data(tradeoff([(i, m) for i, m in enumerate(marks)], "x").to_dict(), "points")
    assert [r["mechanism"] for r in rows if r["label at"] is not None] == ["m0", "none"]
    assert len(rows) == 40


def test_curves_are_smoothed_as_a_mean_of_neighbours() -> None:
    values = {epoch: float(epoch * epoch) for epoch in range(1, 10)}
    spec = curves([Curve("nam", "0", values)], "Loss").to_dict()
    windows = [t for t in spec["layer"][0]["transform"] if "window" in t]
    assert [window["frame"] for window in windows] == [[-k, k] for k in (1, 2, 4, 8)]
    assert all(window["groupby"] == ["mechanism", "seed"] for window in windows)
    for param in spec["params"]:
        param["value"] = {"smooth": 1, "logarithmic": True}.get(param["name"], param["value"])
    drawn = vl_convert.vegalite_to_scenegraph(spec)
    heights = sorted(item["y"] for item in items(drawn, "line"))
    expected = sorted(-math.log10(v) for v in smoothed(list(values.values())))
    slope = (heights[-1] - heights[0]) / (expected[-1] - expected[0])
    assert heights == pytest.approx([heights[0] + slope * (e - expected[0]) for e in expected])


def smoothed(values: list[float]) -> list[float]:
    near = [values[max(0, i - 1) : i + 2] for i in range(len(values))]
    return [sum(part) / len(part) for part in near]


def items(node: Any, kind: str) -> list[dict[str, Any]]:
    """The first mark of this kind that stands for data, wherever in a scene."""
    if isinstance(node, list):
        return next((found for part in node if (found := items(part, kind))), [])
    if not isinstance(node, dict):
        return []
    if node.get("marktype") == kind and node.get("role") == "mark":
        return list(node["items"])
    return next((found for part in node.values() if (found := items(part, kind))), [])


def test_a_legend_names_the_lines_only_where_colours_tell_them_apart() -> None:
    few = [Curve(f"m{i}", "0", {1: 1.0, 2: 2.0}) for i in range(3)]
    many = [Curve(f"m{i}", "0", {1: 1.0, 2: 2.0}) for i in range(30)]
    assert {"m0", "m1", "m2"} <= set(words(curves(few, "Loss")))
    assert "m0" not in words(curves(many, "Loss"))
