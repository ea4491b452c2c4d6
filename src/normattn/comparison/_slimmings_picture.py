"""The chart of several slimmings: accuracy against the time that a pass takes, by criterion."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from ._page_charts import printable
from ._page_look import CATEGORIES, INK, MUTED
from .page import Chart
from .slimmings import CONTROL, Slimmings

_COLORS = tuple(light for light, _ in CATEGORIES)
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def tradeoff_rows(found: Slimmings) -> list[dict[str, Any]]:
    """Return a row a point: each criterion's line begins at the original."""
    rows: list[dict[str, Any]] = []
    for criterion in found.criteria:
        points = [o for o in found.outcomes if o.criterion == criterion and o.speedup]
        if not points:
            continue
        name = printable(criterion)
        start = {"speedup": 1.0, "accuracy": found.original, "latency": found.latency}
        rows.append({"criterion": name, "target": "the original", "fewer": 1.0, **start})
        rows += [
            {
                "criterion": name, "target": o.target, "fewer": o.multiply_adds,
                "speedup": o.speedup, "accuracy": o.accuracy, "latency": o.latency,
            }
            for o in points
        ]  # fmt: skip
    return rows


def draw_tradeoff(found: Slimmings) -> Any | None:
    """Return accuracy against measured speedup, a line a criterion; None where nothing was timed.

    The control, which removes channels at random, is grey and dashed.
    """
    rows = tradeoff_rows(found)
    if not rows:
        return None
    names = list(dict.fromkeys(row["criterion"] for row in rows))
    colors, shapes = _styles(names)
    legend = alt.Legend(title="criterion", orient="top", columns=3)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        alt.X(
            "speedup:Q",
            scale=alt.Scale(zero=False, padding=14),
            title="measured speedup (times as fast as the original)",
        ),
        alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="top-1 accuracy (%)"),
        alt.Color(
            "criterion:N",
            scale=alt.Scale(domain=names, range=colors),
            legend=legend,
        ),
    )
    dashed = alt.condition(alt.datum.criterion == CONTROL, alt.value([5, 4]), alt.value([1, 0]))
    start = [{"speedup": 1.0, "accuracy": found.original, "label": "original"}]
    word = alt.Chart(alt.InlineData(values=start)).mark_text(align="left", dx=8, dy=-8, color=INK)
    return alt.layer(
        # From the widest model to the slimmest: a narrower one can be slower than the one before.
        base.mark_line().encode(alt.Order("fewer:Q"), strokeDash=dashed),
        _points(base, alt.Scale(domain=names, range=shapes), legend),
        word.encode(alt.X("speedup:Q"), alt.Y("accuracy:Q"), alt.Text("label:N")),
    ).properties(width="container", height=300)


def _points(base: alt.Chart, shapes: alt.Scale, legend: alt.Legend) -> Any:
    return base.mark_point(filled=True, size=70, opacity=1).encode(
        alt.Shape("criterion:N", scale=shapes, legend=legend),
        tooltip=[
            "criterion:N",
            "target:N",
            alt.Tooltip("speedup:Q", format=".2f"),
            alt.Tooltip("latency:Q", format=".2f", title="milliseconds"),
            alt.Tooltip("accuracy:Q", format=".2f"),
        ],
    )


def _styles(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a colour and a shape for each criterion: grey and round for the control."""
    others = [name for name in names if name != CONTROL]
    colors = {n: _COLORS[i % len(_COLORS)] for i, n in enumerate(others)} | {CONTROL: MUTED}
    shapes = {n: _SHAPES[i % len(_SHAPES)] for i, n in enumerate(others)} | {CONTROL: "circle"}
    return [colors[name] for name in names], [shapes[name] for name in names]


def slimmed_tradeoff(found: Slimmings) -> Chart | None:
    """Return `draw_tradeoff` as a chart of a page, with what it shows in words."""
    drawn = draw_tradeoff(found)
    if drawn is None:
        return None
    said = "; ".join(
        f"{o.criterion}, {o.target}: {o.speedup:.2f} times as fast, {o.accuracy:.2f} %"
        for o in found.outcomes
        if o.speedup
    )
    return Chart(
        "tradeoff",
        "Accuracy against measured speedup",
        drawn,
        f"Top-1 accuracy against measured speedup. The original: {found.original:.2f} %; {said}.",
        f"Measured in {found.timed}.",
        wide=True,
    )
