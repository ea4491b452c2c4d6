"""Charts over the epochs of a training: curves of every seed, sizes of the scale factors."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from ._page_charts import printable
from ._page_look import ACCENT, CATEGORIES, MUTED

MEAN = "mean"  # stands where a seed does
_HALVES = (1, 2, 4, 8)  # epochs on each side that a place of the slider takes in
_NAMED = len(CATEGORIES)  # lines that colours can tell apart
_LOOSE = alt.Scale(nice=False, zero=False)
#: Of a legend: by the container's width, as the chart's own moves while it is laid out.
_COLUMNS = "isFinite(containerSize()[0]) ? max(1, floor(containerSize()[0] / 165)) : 4"
#: Where a logarithmic axis has its ticks.
_TICKS = [round(math.log10(m * 10.0**power), 6) for power in range(-6, 4) for m in (1, 2, 5)]


@dataclass(frozen=True)
class Curve:
    """A value by epoch, of one seed or (``seed=MEAN``) the mean over a mechanism's seeds."""

    mechanism: str
    seed: str
    values: Mapping[int, float]


def curves(found: Sequence[Curve], axis: str, *, baseline: str = "") -> Any:
    """Draw every seed thin and every mean thick, with a slider to smooth and a logarithmic scale.

    Smoothing is the mean over 1, 3, 5, 9 or 17 points around each, fewer at the ends.

    Args:
        found: the curves, in the order of the legend.
        axis: what the values are, with their unit.
        baseline: the mechanism that is grey, and stays when another one is chosen.
    """
    names = list(dict.fromkeys(curve.mechanism for curve in found))
    rows = [
        {"mechanism": c.mechanism, "seed": c.seed, "epoch": epoch, "value": value}
        for c in found
        for epoch, value in c.values.items()
    ]
    few = max((len(c.values) for c in found), default=0) <= 3  # a line of one point shows nothing
    base = _smoothed(baseline).encode(
        x=alt.X("epoch:Q", title="Epoch", axis=_epochs(rows), scale=_LOOSE),
        y=alt.Y("height:Q", title=axis, scale=alt.Scale(zero=False, padding=8), axis=_height()),
        color=_colors(names, baseline),
        detail=["mechanism:N", "seed:N"],
        tooltip=["mechanism:N", "seed:N"],
    )  # fmt: skip
    dots = alt.OverlayMarkDef(size=18) if few else False
    many = len(names) > _NAMED  # they lie on each other, until one is chosen
    seeds = base.transform_filter(f"datum.seed != '{MEAN}'").mark_line(
        strokeWidth=1, opacity=alt.ExprRef("shown == '' ? 0.1 : 0.4") if many else 0.4, point=dots
    )
    means = base.transform_filter(f"datum.seed == '{MEAN}'").mark_line(
        strokeWidth=1.2 if many else 2.4,
        opacity=alt.ExprRef("shown == '' ? 0.3 : 1") if many else 1, point=dots,
    )  # fmt: skip
    layered = alt.layer(seeds, means).add_params(*_controls(names))
    return _with_data(layered.properties(width="container", height=340), rows, "curves")


def histograms(rows: Sequence[Mapping[str, Any]], labels: Mapping[float, str]) -> Any:
    """Draw how many scale factors are of which size, epoch by epoch; one group at a time.

    Args:
        rows: ``group``, ``epoch``, ``until`` (where the next one begins), ``place`` (of the size,
            from the smallest on), ``count`` of ``scales``, ``size`` in words.
        labels: the axis's labels, by place.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    chosen = alt.param(
        name="group", value=groups[0], bind=alt.binding_select(options=groups, name="Show")
    )
    named = ", ".join(f"'{place:g}': {_quoted(text)}" for place, text in labels.items())
    axis = alt.Axis(values=list(labels), labelExpr=f"({{{named}}})[datum.value]", grid=False)
    share = alt.Tooltip("share:Q", format=".2f")
    chart = (
        alt.Chart().mark_rect().transform_filter("datum.group == group")
        .transform_calculate(
            top="datum.place + 1", share="100 * datum.count / datum.scales"
        )
        .encode(
            x=alt.X("epoch:Q", title="Epoch", axis=_epochs(rows), scale=_LOOSE),
            x2="until:Q",
            y=alt.Y("place:Q", title="|scale|", axis=axis, scale=_LOOSE),
            y2="top:Q",
            color=alt.Color(
                "share:Q", title="% of the scales", scale=alt.Scale(type="sqrt"),
                legend=alt.Legend(orient="top", gradientLength=180, tickCount=4),
            ),
            tooltip=["group:N", "epoch:Q", "size:N", "count:Q", share],
        )
        .add_params(chosen)
        .properties(width="container", height=320)
    )  # fmt: skip
    return _with_data(chart, rows, "histograms")


def _with_data(chart: Any, rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Give a chart its data last: Altair copies and checks what is in it at every step before."""
    chart.data = alt.InlineData(values=rows, name=name)
    return chart


def _controls(names: Sequence[str]) -> tuple[alt.Parameter, ...]:
    """What a reader can set; Vega shows each as a control above the chart."""
    smooth = alt.binding_range(min=0, max=len(_HALVES), step=1, name="Smoothing")
    shown = alt.binding_select(options=["", *names], labels=["all", *names], name="Mechanism")
    return (
        alt.param(name="smooth", value=0, bind=smooth),
        alt.param(name="logarithmic", value=False, bind=alt.binding_checkbox(name="Log scale")),
        alt.param(name="shown", value="", bind=shown),
    )


def _smoothed(baseline: str) -> alt.Chart:
    """A chart without its data yet, with ``height``, which the controls decide.

    A window's size cannot be set in Vega-Lite, so each that the slider has is computed.
    """
    chart = alt.Chart()
    for place, half in enumerate(_HALVES, start=1):
        smoothed: Any = {"as": f"smooth {place}"}  # a word of Python's own
        chart = chart.transform_window(
            [alt.WindowFieldDef(op="mean", field="value", **smoothed)],
            frame=[-half, half], groupby=["mechanism", "seed"], sort=[{"field": "epoch"}],
        )  # fmt: skip
    chart = chart.transform_filter(
        f"shown == '' || datum.mechanism == shown || datum.mechanism == {_quoted(baseline)}"
    )
    return chart.transform_calculate(
        shown="smooth == 0 ? datum.value : datum['smooth ' + smooth]"
    ).transform_calculate(height="logarithmic ? log(datum.shown) / LN10 : datum.shown")


def _epochs(rows: Sequence[Mapping[str, Any]]) -> alt.Axis:
    """Ticks at whole epochs only."""
    last = max((row["epoch"] for row in rows), default=1)
    few = {"values": list(range(1, last + 1))} if last <= 10 else {"tickCount": 8}
    return alt.Axis(format="d", tickMinStep=1, **few)


def _height() -> alt.Axis:
    """On the logarithmic scale the data is the logarithm; the labels say what it stands for."""
    return alt.Axis(
        values=alt.ExprRef(f"logarithmic ? {_TICKS} : null"),
        labelExpr="logarithmic ? format(pow(10, datum.value), '.3~g') : datum.label",
        labelOverlap=True,
    )


def _colors(names: Sequence[str], baseline: str) -> Any:
    """A colour a mechanism, grey for the baseline; one for all where colours tell nothing."""
    if len(names) > _NAMED:
        return alt.condition(
            f"datum.mechanism == {_quoted(baseline)}", alt.value(MUTED), alt.value(ACCENT)
        )
    others = iter(light for light, _ in CATEGORIES)
    scale = alt.Scale(
        domain=list(names), range=[MUTED if name == baseline else next(others) for name in names]
    )
    legend = alt.Legend(
        orient="top",
        title=None,
        columns=alt.ExprRef(_COLUMNS),
        labelLimit=125,
        symbolOpacity=1,
    )
    return alt.Color("mechanism:N", scale=scale, legend=legend, sort=list(names))


def _quoted(text: str) -> str:
    """Return text as a literal of Vega's expressions."""
    return json.dumps(printable(text))
