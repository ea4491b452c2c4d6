"""The charts of a slimming: widths, accuracy over the rounds, training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ._chart_files import middle
from ._lenient import distinct, number
from ._page_look import ACCENT, BEFORE, FAINT, INK, MUTED, WORSE
from ._slimmed_records import Slimmed

_ROW = 15  # pixels, of a layer


def draw_widths(widths: Mapping[str, Sequence[float]]) -> Any:
    """Return the chart of every layer's outputs, before and after.

    Args:
        widths: by layer, from the input to the output: outputs before and after.
    """
    rows = width_rows(widths)
    most = max((row["outputs"] for row in rows), default=1)
    axis = alt.Axis(labelExpr=middle(28), labelLimit=0)  # measuring each takes seconds
    sides = alt.Scale(domain=["before", "after"], range=[BEFORE, ACCENT])
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        alt.Y("layer:N", sort=None, title=None, axis=axis),
        alt.X(
            "outputs:Q",
            stack=None,  # the slimmer bar lies on the other
            scale=alt.Scale(domain=[0, 1.18 * most], nice=False),
            title="outputs of the layer",
        ),
    )
    bars = base.mark_bar(height=alt.RelativeBandSize(0.8)).encode(
        alt.Color("side:N", scale=sides, legend=alt.Legend(title=None, orient="top")),
        tooltip=["layer:N", "side:N", "outputs:Q"],
    )
    words = base.mark_text(align="left", dx=4, fontSize=10, color=INK).encode(alt.Text("label:N"))
    return alt.layer(bars, words.transform_filter("datum.side === 'before'")).properties(
        width="container", height=_ROW * max(1, len({row["layer"] for row in rows}))
    )


def width_rows(widths: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return two rows a layer: its outputs before and after, and both in words."""
    rows = []
    for name, (before, after) in zip(distinct(list(widths)), widths.values(), strict=True):
        label = f"{after:g}" if before == after else f"{after:g} of {before:g}"
        for side, outputs in (("before", before), ("after", after)):
            rows.append({"layer": name, "side": side, "outputs": outputs, "label": label})
    return rows


def said_of_widths(widths: Mapping[str, Sequence[float]]) -> str:
    """Return what `draw_widths` shows, in words."""
    before, after = (sum(side) for side in zip(*widths.values(), strict=True))
    narrower = sum(new < old for old, new in widths.values())
    return (
        f"Width of every layer before and after: {narrower} of {len(widths)} layers are narrower, "
        f"{after:,} outputs of {before:,} are left."
    )


def draw_rounds(found: Slimmed) -> Any | None:
    """Return the chart of accuracy over the rounds with the allowed drop; None without figures."""
    rows = round_rows(found)
    if not rows:
        return None
    tuned = [row for row in rows if row["what"] != REMOVED]
    last = max(max(row["round"] for row in rows), 1)
    x = alt.X(
        "round:Q",
        scale=alt.Scale(domain=[0, last], nice=False, padding=12),
        axis=alt.Axis(values=list(range(last + 1)), format="d"),
        title="round (0: the original)",
    )
    y = alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="top-1 accuracy (%)")
    kinds = alt.Scale(domain=[TUNED, REMOVED], range=[ACCENT, WORSE])
    shapes = alt.Scale(domain=[TUNED, REMOVED], range=["circle", "triangle-down"])
    legend = alt.Legend(title=None, orient="top")
    line = alt.Chart(alt.InlineData(values=tuned)).mark_line(color=ACCENT).encode(x, y)
    points = alt.Chart(alt.InlineData(values=rows)).encode(x, y)
    marks = points.mark_point(filled=True, size=70, opacity=1).encode(
        color=alt.Color("what:N", scale=kinds, legend=legend),
        shape=alt.Shape("what:N", scale=shapes, legend=legend),
        tooltip=["round:Q", "what:N", alt.Tooltip("accuracy:Q", format=".2f")],
    )
    layers: list[Any] = [*_recoveries(rows, x), line, marks, *_allowed(found)]
    return alt.layer(*layers).properties(width="container", height=240)


TUNED, REMOVED = "fine-tuned", "channels removed"


def round_rows(found: Slimmed) -> list[dict[str, Any]]:
    """Return the accuracies over the rounds: a row a figure, the original's as round 0."""
    rows: list[dict[str, Any]] = []
    if found.accuracy is not None:
        rows.append({"round": 0, "what": TUNED, "accuracy": found.accuracy})
    for each in found.rounds:
        for side, what in (("before", REMOVED), ("after", TUNED)):
            accuracy = each.accuracy(side)
            if accuracy is not None:
                rows.append({"round": each.number, "what": what, "accuracy": accuracy})
    return rows


def _recoveries(rows: Sequence[Mapping[str, Any]], x: alt.X) -> list[Any]:
    """Return a line from each removal up to what fine-tuning made of it."""
    low = {row["round"]: row["accuracy"] for row in rows if row["what"] == REMOVED}
    pairs = [
        {"round": row["round"], "accuracy": low[row["round"]], "after": row["accuracy"]}
        for row in rows
        if row["what"] == TUNED and row["round"] in low
    ]
    chart = alt.Chart(alt.InlineData(values=pairs)).mark_rule(color=MUTED, strokeDash=[2, 3])
    return [chart.encode(x, alt.Y("accuracy:Q"), alt.Y2("after:Q"))] if pairs else []


def _allowed(found: Slimmed) -> list[Any]:
    """Return the line that accuracy may not fall below, where a drop was set."""
    drop = number(found.record, "job", "max_drop")
    if drop is None or found.accuracy is None:
        return []
    floor = found.accuracy - drop
    rows = [{"floor": floor, "label": f"allowed: {drop:g} points less, {floor:.2f} %"}]
    base = alt.Chart(alt.InlineData(values=rows)).encode(alt.Y("floor:Q"))
    words = base.mark_text(align="left", baseline="top", dx=4, dy=4, color=INK)
    return [
        base.mark_rule(color=WORSE, strokeDash=[6, 4]),
        words.encode(alt.Text("label:N"), x=alt.value(0)),
    ]


def curve_rows(found: Slimmed) -> list[dict[str, Any]]:
    """Return what every epoch of every round left: a row a figure; epochs count on over rounds."""
    rows, before = [], 0
    for each in found.rounds:
        for place, epoch in enumerate(each.history, start=1):
            at = {"round": each.number, "epoch": before + place}
            for key, (measure, split) in _CURVES.items():
                value = number(epoch, key)
                if value is not None:
                    rows.append({**at, "measure": measure, "split": split, "value": value})
        before += len(each.history)
    return rows


ERROR, LOSS = "top-1 error (%)", "loss"
_CURVES = {
    "train_top1_error": (ERROR, "training"),
    "top1_error": (ERROR, "validation"),
    "train_loss": (LOSS, "training"),
    "loss": (LOSS, "validation"),
}


def draw_curves(found: Slimmed, measure: str) -> Any | None:
    """Return the training curves of all rounds, one behind the other; None without any."""
    rows = [row for row in curve_rows(found) if row["measure"] == measure]
    if not rows:
        return None
    splits = alt.Scale(domain=["validation", "training"], range=[ACCENT, MUTED])
    last = max(row["epoch"] for row in rows)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        alt.X(
            "epoch:Q",
            scale=alt.Scale(domain=[0.5, last + 0.5], nice=False),
            axis=alt.Axis(tickMinStep=1, format="d"),
            title="epoch, over all rounds",
        ),
        alt.Y("value:Q", scale=alt.Scale(zero=False), title=measure),
        alt.Color("split:N", scale=splits, legend=alt.Legend(title=None, orient="top")),
        detail="round:N",
        tooltip=["round:Q", "epoch:Q", "split:N", alt.Tooltip("value:Q", format=".4g")],
    )
    starts = [{"start": e - 0.5, "label": f"round {n}"} for n, e in _starts(rows).items()]
    rules = alt.Chart(alt.InlineData(values=starts)).encode(alt.X("start:Q"))
    names = rules.mark_text(align="left", baseline="top", dx=4, color=MUTED, fontSize=10)
    return alt.layer(
        rules.mark_rule(color=FAINT),
        names.encode(alt.Text("label:N"), y=alt.value(2)),
        base.mark_line(point=True),
    ).properties(width="container", height=240)


def _starts(rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return the first epoch of each round."""
    first: dict[int, int] = {}
    for row in rows:
        first[row["round"]] = min(row["epoch"], first.get(row["round"], row["epoch"]))
    return first
