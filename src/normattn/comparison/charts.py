"""The charts of a comparison, as Altair charts with their data in them.

All values arrive ready: a function here says what is drawn, never what is true. Labels are data,
so that whatever a mechanism is called is shown as text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
from scipy.optimize import isotonic_regression

from ._charts_epochs import Curve as Curve
from ._charts_epochs import curves as curves
from ._charts_epochs import histograms as histograms
from ._page_look import ACCENT, BETTER, FAINT, INK, MUTED, WORSE

_ROW = 30  # pixels, of a mechanism
_PLOT = 280  # pixels, the height of a chart with two axes
_LABELS = 16  # names beside the points of one chart
_TONES = alt.Scale(domain=["better", "worse", "baseline", ""], range=[BETTER, WORSE, MUTED, INK])


@dataclass(frozen=True)
class Mark:
    """One mechanism in a chart: its mean, the interval if there is one, a value for each seed.

    ``tone`` colours it: ``better``, ``worse``, ``baseline`` or nothing.
    """

    label: str
    mean: float
    low: float | None
    high: float | None
    seeds: Mapping[int, float]
    tone: str = ""


def intervals(
    marks: Sequence[Mark],
    axis: str,
    references: Sequence[tuple[str, float]],
    *,
    percent: bool = False,
) -> Any:
    """Draw a row a mechanism: every seed a circle, the mean a bar, the interval a line.

    Args:
        marks: in the order of the rows.
        axis: what the values are, with their unit.
        references: vertical lines, as (label, value).
        percent: nothing is below 0 or above 100, whatever an interval says.
    """
    means = [
        {"mechanism": m.label, "mean": m.mean, "low": m.low, "high": m.high,
         "n": len(m.seeds), "tone": m.tone}
        for m in marks
    ]  # fmt: skip
    trials = [
        {"mechanism": m.label, "seed": seed, "value": value, "tone": m.tone}
        for m in marks
        for seed, value in m.seeds.items()
    ]
    y = alt.Y(
        "mechanism:N", sort=list(dict.fromkeys(m.label for m in marks)), title=None,
        axis=alt.Axis(labelColor=INK, ticks=False),
    )  # fmt: skip
    scale = alt.Scale(domain=_domain(marks, references, percent), nice=False)
    color = alt.Color("tone:N", scale=_TONES, legend=None)
    told = [
        alt.Tooltip("mechanism:N"), alt.Tooltip("n:Q"),
        *(_number(f"{key}:Q", ".3f") for key in ("mean", "low", "high")),
    ]  # fmt: skip
    mean = alt.Chart(alt.InlineData(values=means, name="means")).encode(y=y, color=color)
    at = alt.X("low:Q", scale=scale, title=axis)
    line = mean.mark_rule(yOffset=-4, strokeWidth=2, clip=True).encode(x=at, x2="high:Q")
    bar = mean.mark_tick(yOffset=-4, thickness=3, height=12).encode(
        x=alt.X("mean:Q", scale=scale, title=axis), tooltip=told
    )
    seeds = alt.Chart(alt.InlineData(values=trials, name="trials")).mark_point(
        yOffset=7, size=32, strokeWidth=1.2, filled=False, opacity=1
    )
    dots = seeds.encode(
        y=y, color=color, x=alt.X("value:Q", scale=scale, title=axis),
        tooltip=["mechanism:N", "seed:Q", _number("value:Q", ".3f")],
    )  # fmt: skip
    drawn = [*_references(references, scale, axis), line, bar, dots]
    return alt.layer(*drawn).properties(width="container", height=_ROW * len(marks))


def tradeoff(points: Sequence[tuple[float, Mark]], axis: str, *, tick: str = "~s") -> Any:
    """Draw error against a cost; the stepped line is the Pareto front.

    Args:
        points: cost and error of each mechanism.
        axis: what the cost is, with its unit.
        tick: how the numbers of the cost's axis are written.
    """
    shown = _labelled(points)
    low, high = _domain([mark for _, mark in points], (), percent=True)
    heights = _spread([(points[i][1].mean - low) / (high - low) for i in shown])
    places = dict(zip(shown, (low + (high - low) * h for h in heights), strict=True))
    front = pareto([(cost, mark.mean) for cost, mark in points])
    rows = [
        {"mechanism": m.label, "cost": cost, "error": m.mean, "low": m.low, "high": m.high,
         "n": len(m.seeds), "front": "on the front" if i in front else "",
         "tone": m.tone, "label at": places.get(i)}
        for i, (cost, m) in enumerate(points)
    ]  # fmt: skip
    x = alt.X(
        "cost:Q", scale=alt.Scale(zero=False, padding=24), title=axis,
        axis=alt.Axis(format=tick, tickCount=4),
    )  # fmt: skip
    scale = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("error:Q", scale=scale, title="Top-1 error (%)")
    base = alt.Chart(alt.InlineData(values=rows, name="points"))
    named = base.transform_filter("isValid(datum['label at'])")
    at = alt.Y("label at:Q", scale=scale, title="Top-1 error (%)")
    color = alt.Color("tone:N", scale=_TONES, legend=None)
    told = ["mechanism:N", _number("cost:Q", ",.6~g"), _number("error:Q", ".3f"),
            _number("low:Q", ".3f"), _number("high:Q", ".3f"), "front:N"]  # fmt: skip
    layers = [
        named.mark_rule(color=FAINT, strokeWidth=1).encode(
            x=x, x2=alt.value("width"), y=y, y2="label at:Q"
        ),
        base.transform_filter("datum.front").mark_line(
            interpolate="step-after", color=ACCENT, strokeWidth=1.5, strokeDash=[4, 3]
        ).encode(x=x, y=y, order="cost:Q"),
        base.mark_rule(strokeWidth=1.4, clip=True).encode(
            x=x, y=alt.Y("low:Q", scale=scale, title="Top-1 error (%)"), y2="high:Q", color=color
        ),
        base.mark_point(size=60, opacity=1, strokeWidth=1.6).encode(
            x=x, y=y, stroke=alt.Stroke("tone:N", scale=_TONES, legend=None),
            fill=alt.Fill("tone:N", scale=_TONES, legend=None), tooltip=told,
            fillOpacity=alt.condition("datum.front", alt.value(1), alt.value(0)),
        ),
        named.mark_text(align="left", dx=5, limit=130).encode(
            x=alt.value("width"), y=at, text="mechanism:N", tooltip=told
        ),
    ]  # fmt: skip
    return alt.layer(*layers).properties(width="container", height=_PLOT)


def pareto(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Return who is on the front, by place: nobody else is as good in both and better in one."""

    def beaten(one: tuple[float, float]) -> bool:
        return any(
            other[0] <= one[0] and other[1] <= one[1] and tuple(other) != tuple(one)
            for other in points
        )

    return tuple(place for place, point in enumerate(points) if not beaten(point))


def _number(field: str, form: str) -> alt.Tooltip:
    return alt.Tooltip(field, format=form)


def _references(
    references: Sequence[tuple[str, float]], scale: alt.Scale, axis: str
) -> list[alt.Chart]:
    """Vertical lines with their names above, which lean away from each other."""
    drawn = []
    ordered = sorted(references, key=lambda reference: reference[1])
    for place, (label, value) in enumerate(ordered):
        data = alt.InlineData(values=[{"baseline": label, "value": value}], name=f"base {place}")
        base = alt.Chart(data).encode(x=alt.X("value:Q", scale=scale, title=axis))
        dash = [1, 0] if label == references[0][0] else [4, 3]
        align: Literal["center", "left", "right"] = "right" if place == 0 else "left"
        align = "center" if len(ordered) == 1 else align
        drawn += [
            base.mark_rule(color=MUTED, strokeWidth=1, strokeDash=dash),
            base.mark_text(color=MUTED, align=align, dy=-7, limit=120).encode(
                y=alt.value(0), text="baseline:N"
            ),
        ]
    return drawn


def _domain(
    marks: Sequence[Mark], references: Sequence[tuple[str, float]], percent: bool
) -> list[float]:
    ends = [(m.mean if end is None else end) for m in marks for end in (m.low, m.high)]
    values = [*ends, *(v for m in marks for v in m.seeds.values()), *(v for _, v in references)]
    low, high = min(values), max(values)
    if percent:
        low, high = max(low, 0.0), min(high, 100.0)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    return [max(low, 0.0), min(high, 100.0)] if percent else [low, high]


def _labelled(points: Sequence[tuple[float, Mark]]) -> list[int]:
    """Who has its name beside the chart: all if they fit, else the front and the baselines."""
    found = list(range(len(points)))
    if len(points) > _LABELS:
        front = pareto([(cost, mark.mean) for cost, mark in points])
        found = [i for i in found if i in front or points[i][1].tone == "baseline"][:_LABELS]
    return sorted(found, key=lambda i: points[i][1].mean)


def _spread(heights: Sequence[float]) -> list[float]:
    """Move ascending heights in 0..1 apart by the least squares that keep labels from touching."""
    steps = min(15 / _PLOT, 1 / max(1, len(heights) - 1)) * np.arange(len(heights))
    free = isotonic_regression(np.asarray(heights) - steps).x
    return [float(y) for y in np.clip(free, 0, 1 - steps[-1]) + steps]


def ranges(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw where the values of each gate lie on the scale from 0 to 1, with a line at ½.

    Args:
        rows: ``gate``, ``mean``, ``low`` and ``high``, in the order of the model.
    """
    names = [row["gate"] for row in rows]
    ends = [value for row in rows for value in (row["low"], row["high"])]
    scale = alt.Scale(domain=[min([0.0, *ends]), max([1.0, *ends])], nice=False)
    base = alt.Chart(alt.InlineData(values=rows, name="gates")).encode(
        y=alt.Y("gate:N", sort=names, title=None, axis=alt.Axis(ticks=False, labelColor=INK))
    )
    title = "What x is multiplied by"
    told = ["gate:N", *(_number(f"{key}:Q", ".4f") for key in ("mean", "low", "high"))]
    half = alt.Chart(alt.InlineData(values=[{"half": 0.5}], name="half"))
    return alt.layer(
        half.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(
            x=alt.X("half:Q", scale=scale, title=title)
        ),
        base.mark_rule(strokeWidth=5, color=ACCENT, opacity=0.55).encode(
            x=alt.X("low:Q", scale=scale, title=title), x2="high:Q", tooltip=told
        ),
        base.mark_tick(thickness=2, height=12, color=INK).encode(
            x=alt.X("mean:Q", scale=scale, title=title), tooltip=told
        ),
    ).properties(width="container", height=18 * len(rows))
