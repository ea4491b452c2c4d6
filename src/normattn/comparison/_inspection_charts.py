"""The charts of an inspection: where gates lie, enlarged; scale factors and importance, sorted."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from ..model.gates import GateSite
from ._chart_files import middle
from ._page_look import ACCENT, INK

_STEP = 18  # pixels of a row
_HEIGHT = 260
#: Of a site's sorted weights, so many are drawn at most; gates.json has them all.
POINTS = 128


def range_rows(sites: Sequence[GateSite]) -> list[dict[str, float | str]]:
    """Return what `charts.ranges` draws."""
    return [
        {"gate": site.name, "mean": site.mean, "low": site.low, "high": site.high} for site in sites
    ]


def enlarged(sites: Sequence[GateSite]) -> Any:
    """Draw how far each gate's values are from their mean: 98 % a line, the middle half a bar."""
    rows = [
        {"gate": site.name, "low": site.low - site.mean, "high": site.high - site.mean,
         "from": site.quantiles[2] - site.mean, "to": site.quantiles[-3] - site.mean}
        for site in sites
    ]  # fmt: skip
    names = [site.name for site in sites]
    told = [
        alt.Tooltip("gate:N"),
        *(alt.Tooltip(f"{key}:Q", format="+.3~g") for key in ("low", "high")),
    ]
    label = alt.Axis(ticks=False, labelColor=INK, labelExpr=middle(24))
    base = alt.Chart(alt.InlineData(values=rows, name="enlarged")).encode(
        y=alt.Y("gate:N", sort=names, title=None, axis=label), tooltip=told
    )
    # A gate that is one number is a line of no length, which would leave the axis without a range.
    still = all(site.low == site.high for site in sites)
    domain = alt.Scale(domain=[-0.5, 0.5]) if still else alt.Scale()
    title = "Distance from the gate's own mean"
    return alt.layer(
        base.mark_rule(strokeWidth=2, color=ACCENT, opacity=0.7).encode(
            x=alt.X("low:Q", title=title, scale=domain), x2="high:Q"
        ),
        base.mark_bar(height=9, color=ACCENT).encode(
            x=alt.X("from:Q", title=title, scale=domain), x2="to:Q"
        ),
    ).properties(width="container", height=_STEP * len(sites))


def sorted_weights(sites: Sequence[GateSite], which: str, title: str) -> Any:
    """Draw the scale factors (``scale``) or the ``importance`` of each site, largest first.

    Args:
        sites: those that have some.
        which: the field.
        title: of the vertical axis.
    """
    rows = [
        {"gate": site.name, "rank": 100 * rank / max(1, len(values) - 1), "value": value}
        for site in sites
        for values in [sorted(getattr(site, which), reverse=True)]
        for rank, value in _thinned(values)
    ]
    names = [site.name for site in sites]
    return (
        alt.Chart(alt.InlineData(values=rows, name=which))
        .mark_line(strokeWidth=1.6, interpolate="monotone")
        .encode(
            x=alt.X("rank:Q", title="Channels or pixels, largest first (%)"),
            y=alt.Y("value:Q", title=title),
            color=alt.Color(
                "gate:N",
                sort=names,
                title=None,
                legend=alt.Legend(orient="bottom", columns=2, labelExpr=middle(24)),
            ),
            tooltip=["gate:N", alt.Tooltip("value:Q", format=".4~g")],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return evenly spaced ranks, the first and the last among them, each with its value."""
    last = len(values) - 1
    steps = min(last, POINTS - 1)
    ranks = [0] if not steps else [round(i * last / steps) for i in range(steps + 1)]
    return [(rank, values[rank]) for rank in ranks]
