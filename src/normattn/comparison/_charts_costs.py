"""Error against a cost, and the Pareto front."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy.optimize import isotonic_regression

from ._charts_marks import TONES, Mark, domain, number
from ._page_look import ACCENT, FAINT

_PLOT = 280  # pixels, the height
_LABELS = 16  # names beside the points of one chart
_TOLD = [
    "mechanism:N", number("cost:Q", ",.6~g"), number("error:Q"), number("low:Q"),
    number("high:Q"), "front:N",
]  # fmt: skip


def tradeoff(points: Sequence[tuple[float, Mark]], axis: str, *, tick: str = "~s") -> Any:
    """Draw error against a cost; the stepped line is the Pareto front.

    Args:
        points: cost and error of each mechanism.
        axis: what the cost is, with its unit.
        tick: how the numbers of the cost's axis are written.
    """
    ends = domain([mark for _, mark in points], (), percent=True)
    base = alt.Chart(alt.InlineData(values=_rows(points, ends), name="points"))
    named = base.transform_filter("isValid(datum['label at'])")
    x = alt.X(
        "cost:Q", scale=alt.Scale(zero=False, padding=24), title=axis,
        axis=alt.Axis(format=tick, tickCount=4),
    )  # fmt: skip
    y, low, at = (
        alt.Y(f"{field}:Q", scale=alt.Scale(domain=ends, nice=False), title="Top-1 error (%)")
        for field in ("error", "low", "label at")
    )
    tone: Any = {"shorthand": "tone:N", "scale": TONES, "legend": None}
    front = base.transform_filter("datum.front").mark_line(
        interpolate="step-after", color=ACCENT, strokeWidth=1.5, strokeDash=[4, 3]
    )
    layers = [
        named.mark_rule(color=FAINT, strokeWidth=1).encode(
            x=x, x2=alt.value("width"), y=y, y2="label at:Q"
        ),
        front.encode(x=x, y=y, order="cost:Q"),
        base.mark_rule(strokeWidth=1.4, clip=True).encode(
            x=x, y=low, y2="high:Q", color=alt.Color(**tone)
        ),
        base.mark_point(size=60, opacity=1, strokeWidth=1.6).encode(
            x=x, y=y, stroke=alt.Stroke(**tone), fill=alt.Fill(**tone), tooltip=_TOLD,
            fillOpacity=alt.condition("datum.front", alt.value(1), alt.value(0)),
        ),
        named.mark_text(align="left", dx=5, limit=130).encode(
            x=alt.value("width"), y=at, text="mechanism:N", tooltip=_TOLD
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


def _rows(points: Sequence[tuple[float, Mark]], ends: Sequence[float]) -> list[dict[str, Any]]:
    low, high = ends
    shown = _labelled(points)
    heights = _spread([(points[i][1].mean - low) / (high - low) for i in shown])
    places = dict(zip(shown, (low + (high - low) * h for h in heights), strict=True))
    front = pareto([(cost, mark.mean) for cost, mark in points])
    return [
        {"mechanism": m.label, "cost": cost, "error": m.mean, "low": m.low, "high": m.high,
         "front": "on the front" if i in front else "", "tone": m.tone, "label at": places.get(i)}
        for i, (cost, m) in enumerate(points)
    ]  # fmt: skip


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
