"""The charts of a comparison, as Altair charts with their data in them.

All values arrive ready: a function here says what is drawn, never what is true. Labels are data,
so that whatever a mechanism is called is shown as text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from ._charts_costs import pareto as pareto
from ._charts_costs import tradeoff as tradeoff
from ._charts_epochs import Curve as Curve
from ._charts_epochs import curves as curves
from ._charts_epochs import histograms as histograms
from ._charts_marks import TONES, domain, number
from ._charts_marks import Mark as Mark
from ._page_look import ACCENT, INK, MUTED

_ROW = 30  # pixels, of a mechanism


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
    y = alt.Y(
        "mechanism:N", sort=list(dict.fromkeys(m.label for m in marks)), title=None,
        axis=alt.Axis(labelColor=INK, ticks=False),
    )  # fmt: skip
    scale = alt.Scale(domain=domain(marks, references, percent), nice=False)
    color = alt.Color("tone:N", scale=TONES, legend=None)
    told = [
        alt.Tooltip("mechanism:N"), alt.Tooltip("n:Q"),
        *(number(f"{key}:Q") for key in ("mean", "low", "high")),
    ]  # fmt: skip
    mean = alt.Chart(alt.InlineData(values=_means(marks), name="means")).encode(y=y, color=color)
    at = alt.X("low:Q", scale=scale, title=axis)
    line = mean.mark_rule(yOffset=-4, strokeWidth=2, clip=True).encode(x=at, x2="high:Q")
    bar = mean.mark_tick(yOffset=-4, thickness=3, height=12).encode(
        x=alt.X("mean:Q", scale=scale, title=axis), tooltip=told
    )
    seeds = alt.Chart(alt.InlineData(values=_trials(marks), name="trials")).mark_point(
        yOffset=7, size=32, strokeWidth=1.2, filled=False, opacity=1
    )
    dots = seeds.encode(
        y=y, color=color, x=alt.X("value:Q", scale=scale, title=axis),
        tooltip=["mechanism:N", "seed:Q", number("value:Q")],
    )  # fmt: skip
    drawn = [*_references(references, scale, axis), line, bar, dots]
    return alt.layer(*drawn).properties(width="container", height=_ROW * len(marks))


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
    told = ["gate:N", *(number(f"{key}:Q", ".4f") for key in ("mean", "low", "high"))]
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


def _means(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    return [
        {"mechanism": m.label, "mean": m.mean, "low": m.low, "high": m.high,
         "n": len(m.seeds), "tone": m.tone}
        for m in marks
    ]  # fmt: skip


def _trials(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    return [
        {"mechanism": m.label, "seed": seed, "value": value, "tone": m.tone}
        for m in marks
        for seed, value in m.seeds.items()
    ]


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
