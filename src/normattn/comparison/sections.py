"""What a comparison's page says first, in words, and its sections. A new one is one function."""

import math
from collections.abc import Iterable, Mapping, Sequence

from . import _sections_epochs, _sections_gates, charts, facts
from ._lenient import number
from .page import Cell, Chart, Column, Facts, Lines, Section, Table
from .records import RunRecords, TrialRecord
from .statistics import Estimate, Row, Summary
from .table import caption, columns, spread, tone

_NAMES = 12  # of a long list


def verdict(summary: Summary) -> tuple[str, ...]:
    """Say in a sentence for each baseline which mechanisms differ from it."""
    known = {row.mechanism: e for row in summary.rows if (e := row.metrics["top1_error"])}
    if not known:
        return ("No trial has finished yet: there is nothing to compare.",)
    sentences = tuple(s for base in summary.baselines if (s := _against(summary.rows, base)))
    if sentences and any(row.n > 1 for row in summary.rows):
        return sentences
    best = min(known, key=lambda name: known[name].mean)
    return (
        f"Lowest top-1 error: {best}, {spread(known[best])} %.",
        "That is no verdict: one needs two seeds or more, and none or half to compare with.",
    )


def sections(records: RunRecords, summary: Summary) -> tuple[Section, ...]:
    """Return every section of the page, in its order."""
    unequal = summary.unequal or ("Nothing that the records show.",)
    return (
        Section("table", "Table", "", (_table(summary),)),
        Section("unequal", "What was not equal", "", (Lines("", unequal, warning=True),)),
        _errors(records, summary),
        _costs(summary),
        _sections_epochs.training(records),
        _sections_epochs.scales(records),
        _sections_gates.gates(records),
        _trials(records),
        _protocol(records),
    )


def errors_by_seed(trials: Sequence[TrialRecord]) -> dict[int, float]:
    """Return the finite top-1 errors of the finished trials."""
    found = {t.seed: number(t.metrics, "top1_error") for t in trials if t.status == "done"}
    return {seed: v for seed, v in sorted(found.items()) if v is not None}


def _against(rows: Sequence[Row], baseline: str) -> str:
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        difference = row.differences.get(baseline)
        if difference is not None:
            by_verdict.setdefault(difference.verdict, []).append(row.mechanism)
    order = sorted(by_verdict, key=lambda v: (v != "better", v != "worse"))
    parts = [_judged(by_verdict[verdict], verdict) for verdict in order]
    return f"Against {baseline}: {'; '.join(parts)}." if parts else ""


def _judged(names: Sequence[str], verdict: str) -> str:
    many = len(names) > _NAMES
    shown = [*names[:_NAMES], f"{len(names) - _NAMES} more"] if many else names
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    if tone(verdict) or verdict.startswith("not distinguishable"):
        return f"{listed} {'is' if len(names) == 1 else 'are'} {verdict}"
    return f"{verdict} ({listed})"


def _table(summary: Summary) -> Table:
    found = columns(summary)
    rows = zip(*(column.cells for column in found), strict=True)
    return Table(
        "table",
        "Table",
        tuple(Column(column.key, column.title, column.numeric) for column in found),
        tuple(
            {
                column.key: Cell(cell.value, cell.text, cell.remark, cell.tone)
                for column, cell in zip(found, cells, strict=True)
            }
            for cells in rows
        ),
        caption(summary),
    )


def _errors(records: RunRecords, summary: Summary) -> Section:
    found = {row.mechanism: e for row in summary.rows if (e := row.metrics["top1_error"])}
    values = {name: errors_by_seed(records.of(name)) for name in found}
    marks = [_mark(name, estimate, values[name]) for name, estimate in found.items()]
    references = [(base, found[base].mean) for base in summary.baselines if base in found]
    items = []
    if marks:
        axis = "Top-1 error (%)"
        drawn = charts.intervals(marks, axis, references, percent=True)
        items = [Chart("errors", "Top-1 error", drawn, _said(axis, marks)),
                 *_differences(summary, values)]  # fmt: skip
    return Section(
        "errors-and-differences",
        "Error with intervals",
        "A circle is a trial, a bar the mean, a line the 95 % t-interval; further left is better. "
        "A difference is taken seed by seed: an interval that is clear of zero still has to pass "
        "the corrected test before the verdict says so, in colour.",
        tuple(items),
        "No trial has finished yet.",
    )


def _differences(summary: Summary, values: Mapping[str, Mapping[int, float]]) -> list[Chart]:
    found = []
    for baseline in summary.baselines:
        marks = [
            charts.Mark(
                row.mechanism, d.mean, d.low, d.high,
                {seed: values[row.mechanism][seed] - values[baseline][seed] for seed in d.seeds},
                tone(d.verdict),
            )
            for row in summary.rows
            if (d := row.differences.get(baseline)) and d.mean is not None
        ]  # fmt: skip
        if marks:
            axis = "Difference (percentage points)"
            title = f"Difference to {baseline}, paired by seed"
            drawn = charts.intervals(marks, axis, [(baseline, 0.0)])
            found.append(Chart(f"to-{baseline}", title, drawn, _said(title, marks)))
    return found


def _costs(summary: Summary) -> Section:
    rows = [(row, e) for row in summary.rows if (e := row.metrics["top1_error"])]
    axes = [
        (f"latency-{batch}", f"Error against latency at batch {batch}", "Latency (ms)",
         {row.mechanism: row.latency[batch] * 1e3 for row, _ in rows if batch in row.latency})
        for batch in sorted({batch for row, _ in rows for batch in row.latency})
    ]  # fmt: skip
    for name, axis in (("parameters", "Parameters"), ("paper_macs", "Multiply-adds")):
        counts = {row.mechanism: getattr(row, name) for row, _ in rows}
        known = {label: float(value) for label, value in counts.items() if value is not None}
        axes.append((name.replace("_", "-"), f"Error against {axis.lower()}", axis, known))
    found = []
    for name, title, axis, costs in axes:
        marks = [(cost, _mark(r.mechanism, e, {})) for r, e in rows
                 if math.isfinite(cost := costs.get(r.mechanism, math.nan))]  # fmt: skip
        if marks:
            chart = charts.tradeoff(marks, axis, tick=".4~g" if "(ms)" in axis else "~s")
            text = f"{title}: " + _each(
                f"{m.label} {cost:,.6g}, {m.mean:.2f} %" for cost, m in marks
            )
            found.append(Chart(name, title, chart, text))
    return Section(
        "costs",
        "Accuracy against cost",
        "Lower left is better. The dashed line joins the Pareto front: nothing is at once as cheap "
        "and as accurate as its filled points. A vertical line is the 95 % t-interval of the "
        "error. Latencies are medians, measured in turn over all mechanisms on one machine.",
        tuple(found),
        "Neither counts nor latencies have been measured yet, or no trial has finished.",
    )


def _trials(records: RunRecords) -> Section:
    """Every trial of the protocol, begun or not."""
    shown = (("Top-1 error (%)", "top1_error"), ("Top-5 error (%)", "top5_error"),
             ("Loss", "loss"), ("Lowest top-1 error (%)", "best_top1_error"),
             ("Images per second", "images_per_second"))  # fmt: skip
    heads = (Column("mechanism", "Mechanism", False), Column("seed", "Seed"),
             Column("status", "Status", False), Column("epochs", "Epochs"),
             *(Column(key, title) for title, key in shown),
             Column("attempts", "Ended early"))  # fmt: skip
    rows = []
    for trial in records.trials:
        good = {"done": "", "failed": "worse"}.get(trial.status, "")
        numbers = {key: trial.metrics.get(key) for _, key in shown}
        rows.append({
            "mechanism": Cell(trial.mechanism), "seed": Cell(trial.seed),
            "status": Cell(trial.status, note=trial.reason, verdict=good),
            "epochs": Cell(len(trial.history)), "attempts": Cell(trial.attempts),
            **{key: Cell(v, "" if v is None else f"{v:,.5g}") for key, v in numbers.items()},
        })  # fmt: skip
    text = "Metrics are those of the last epoch; the lowest error is chosen by the images it is of."
    table = Table("trials-and-seeds", "Trials", heads, tuple(rows), text)
    return Section("trials", "Trials", "", (table,))


def _protocol(records: RunRecords) -> Section:
    found = tuple(Facts(title, pairs) for title, pairs in facts.held_equal(records))
    notes = facts.notes(records)
    return Section(
        "protocol",
        "Protocol and data",
        "Everything here was held equal for all mechanisms, unless the box above says otherwise.",
        (*found, Lines("Notes of the trials", notes)) if notes else found,
    )


def _mark(label: str, e: Estimate, seeds: Mapping[int, float]) -> charts.Mark:
    kind = "baseline" if label == "none" else ""
    return charts.Mark(label, e.mean, e.low, e.high, seeds, kind)


def _said(title: str, marks: Sequence[charts.Mark]) -> str:
    def one(mark: charts.Mark) -> str:
        known = mark.low is not None and mark.high is not None
        return f"{mark.label} {mark.mean:.2f}" + (
            f" ({mark.low:.2f} to {mark.high:.2f})" if known else ""
        )

    return f"{title}: {_each(map(one, marks))}"


def _each(parts: Iterable[str]) -> str:
    found = list(parts)
    more = f"; and {len(found) - 2 * _NAMES} more" if len(found) > 2 * _NAMES else ""
    return "; ".join(found[: 2 * _NAMES]) + more + "."
