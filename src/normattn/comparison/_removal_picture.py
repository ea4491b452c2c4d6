"""The charts of removal curves: a panel a criterion, and the areas between the curves."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from ._page_charts import printable
from ._page_look import ACCENT, INK, MUTED, WORSE
from ._removal_summary import Curves, Row

FIRST, CHANCE, LAST = "least salient first", "random (and its range)", "most salient first"
_ORDERS = alt.Scale(domain=[FIRST, CHANCE, LAST], range=[ACCENT, MUTED, WORSE])
_DASHES = alt.Scale(domain=[FIRST, CHANCE, LAST], range=[[1, 0], [1, 0], [5, 3]])
_ACROSS = 3


def curve_rows(found: Curves) -> list[dict[str, Any]]:
    """Return a row a point: the order, the share removed and the accuracy, both in percent."""
    rows: list[dict[str, Any]] = []
    for order, curve in ((FIRST, found.least), (CHANCE, found.random), (LAST, found.most)):
        for place, (share, accuracy) in enumerate(curve):
            row = {"order": order, "removed": 100 * share, "accuracy": accuracy}
            if order == CHANCE:
                row |= {"lowest": found.lowest[place], "highest": found.highest[place]}
            rows.append(row)
    return rows


def draw_curves(found: Curves, guess: float) -> Any:
    """Return one criterion's chart: accuracy against the share of channels removed.

    Args:
        found: its curves.
        guess: the accuracy of guessing, in percent.
    """
    x = alt.X("removed:Q", title="channels removed (%)", scale=alt.Scale(nice=False))
    y = alt.Y("accuracy:Q", title="top-1 accuracy (%)", scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(alt.InlineData(values=curve_rows(found)))
    chance = base.transform_filter(alt.datum.order == CHANCE)
    band = chance.mark_area(color=MUTED, opacity=0.3).encode(
        x, alt.Y("lowest:Q", title="top-1 accuracy (%)"), alt.Y2("highest:Q")
    )
    legend = alt.Legend(title=None, orient="top", columns=1, symbolType="stroke")
    lines = base.mark_line(point=alt.OverlayMarkDef(size=24)).encode(
        x,
        y,
        alt.Color("order:N", scale=_ORDERS, legend=legend),
        alt.StrokeDash("order:N", scale=_DASHES, legend=legend),
        tooltip=[
            "order:N",
            alt.Tooltip("removed:Q", format=".1f"),
            alt.Tooltip("accuracy:Q", format=".2f"),
        ],
    )
    floor = alt.Chart(alt.InlineData(values=[{"guess": guess}]))
    guessing = floor.mark_rule(color=MUTED, strokeDash=[1, 3]).encode(alt.Y("guess:Q"))
    return alt.layer(band, guessing, lines).properties(width="container", height=220)


def draw(found: Sequence[Curves], guess: float) -> Any:
    """Return all criteria's panels as one chart, for a file of its own.

    Args:
        found: the criteria's curves, at least one.
        guess: the accuracy of guessing, in percent.
    """
    panels = [
        draw_curves(curves, guess).properties(
            width=230, height=190, title=f"{printable(curves.criterion)} ({curves.groups} groups)"
        )
        for curves in found
    ]
    return alt.concat(*panels, columns=min(len(panels), _ACROSS)).resolve_scale(
        color="shared", strokeDash="shared"
    )


def area_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the areas, each with what two random orders differ by; none for a single one."""
    found = []
    for row in rows:
        chance = row.area_chance
        span = {} if chance is None else {"low": -chance, "high": chance}
        found.append({"criterion": printable(row.criterion), "area": row.area, **span})
    return sorted(found, key=lambda row: -float(row["area"]))


def draw_areas(rows: Sequence[Row]) -> Any:
    """Return the chart of the areas between the curves, over the range that chance explains."""
    found = area_rows(rows)
    order = [row["criterion"] for row in found]
    base = alt.Chart(alt.InlineData(values=found)).encode(
        alt.Y("criterion:N", sort=order, title=None)
    )
    within = base.mark_bar(color=MUTED, opacity=0.35, height=alt.RelativeBandSize(0.9)).encode(
        alt.X("low:Q", title="area between the curves (points)"), alt.X2("high:Q")
    )
    bars = base.mark_bar(color=ACCENT, height=alt.RelativeBandSize(0.45)).encode(
        alt.X("area:Q"),
        tooltip=["criterion:N", alt.Tooltip("area:Q", format=".2f"), "low:Q", "high:Q"],
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=INK)
    return alt.layer(within, bars, zero.encode(alt.X("zero:Q"))).properties(
        width="container", height=26 * max(1, len(found))
    )
