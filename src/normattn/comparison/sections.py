"""What the report says first, in words, and its groups of figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .figures import Mark, Series, curves, intervals, tradeoff
from .records import RunRecords, TrialRecord
from .statistics import Estimate, Row, Summary
from .svg import BETTER, INK, MUTED, WORSE, Picture
from .table import spread

_COLORS = {"better": BETTER, "worse": WORSE}
_CURVES = (("top1_error", "Validation error (%)"), ("train_loss", "Training loss"))


@dataclass(frozen=True)
class Group:
    """A section of figures; ``nothing`` is said where there are none."""

    name: str
    title: str
    intro: str
    layout: str  # the style sheet's class: "figures" or "panels"
    pictures: tuple[Picture, ...]
    nothing: str


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


def groups(records: RunRecords, summary: Summary) -> tuple[Group, ...]:
    """Return every section of figures; a new one is one more line here."""
    return (
        _errors(records, summary),
        _costs(summary),
        *(_training(records, key, title) for key, title in _CURVES),
    )


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
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    if verdict in _COLORS or verdict.startswith("not distinguishable"):
        return f"{listed} {'is' if len(names) == 1 else 'are'} {verdict}"
    return f"{verdict} ({listed})"


def _errors(records: RunRecords, summary: Summary) -> Group:
    found = {row.mechanism: e for row in summary.rows if (e := row.metrics["top1_error"])}
    values = {name: errors_by_seed(records.of(name)) for name in found}
    marks = [
        _mark(name, estimate, tuple(values[name].values()), MUTED if name == "none" else None)
        for name, estimate in found.items()
    ]
    references = [(base, found[base].mean) for base in summary.baselines if base in found]
    pictures = []
    if marks:
        pictures = [
            intervals("errors", "Top-1 error", "Top-1 error (%)", marks, references, percent=True),
            *_differences(summary, values),
        ]
    return Group(
        "errors",
        "Error with intervals",
        "Every circle is a trial, a bar the mean, a line the 95 % t-interval; lower (left) is "
        "better. A difference is taken seed by seed: an interval that is clear of zero still has "
        "to pass the corrected test before the verdict says so, in colour.",
        "figures",
        tuple(pictures),
        "No trial has finished yet.",
    )


def _differences(summary: Summary, values: Mapping[str, Mapping[int, float]]) -> list[Picture]:
    pictures = []
    for baseline in summary.baselines:
        marks = [
            Mark(
                row.mechanism, d.mean, d.low, d.high,
                tuple(values[row.mechanism][seed] - values[baseline][seed] for seed in d.seeds),
                _COLORS.get(d.verdict, MUTED),
            )
            for row in summary.rows
            if (d := row.differences.get(baseline)) and d.mean is not None
        ]  # fmt: skip
        if marks:
            title = f"Difference to {baseline}, paired by seed"
            axis = "Difference (percentage points)"
            pictures.append(intervals(f"to-{baseline}", title, axis, marks, [(baseline, 0.0)]))
    return pictures


def _costs(summary: Summary) -> Group:
    rows = [(row, e) for row in summary.rows if (e := row.metrics["top1_error"])]
    axes = [
        (f"latency-{batch}", f"Latency at batch {batch}", "Latency (ms)",
         {row.mechanism: row.latency[batch] * 1e3 for row, _ in rows if batch in row.latency})
        for batch in sorted({batch for row, _ in rows for batch in row.latency})
    ]  # fmt: skip
    macs = {row.mechanism: row.paper_macs / 1e6 for row, _ in rows if row.paper_macs is not None}
    axes.append(("macs", "Multiply-adds", "Multiply-adds (millions)", macs))
    pictures = [
        tradeoff(name, f"Error against {title.lower()}", axis, [
            (row.mechanism, costs[row.mechanism], _mark(row.mechanism, e, ()))
            for row, e in rows if row.mechanism in costs
        ])
        for name, title, axis, costs in axes if costs
    ]  # fmt: skip
    return Group(
        "costs",
        "Accuracy against cost",
        "Lower left is better. A vertical line is the 95 % t-interval of the error. Latencies are "
        "medians, measured in turn over all mechanisms on one machine.",
        "figures",
        tuple(pictures),
        "Neither counts nor latencies have been measured yet.",
    )


def _training(records: RunRecords, key: str, title: str) -> Group:
    labels = records.protocol.mechanisms
    seeds = {name: [s for t in records.of(name) if (s := _series(t, key))] for name in labels}
    means = {name: _mean_curve(records.of(name), key) for name in labels}
    values = [v for name in labels for series in seeds[name] for v in series.values()]
    logarithmic = bool(values) and 0 < 3 * min(values) < max(values)
    limits = _limits(values, logarithmic)
    baseline = ("none", means["none"]) if means.get("none") else None
    pictures = [
        curves(f"{key}-{place}", name, title, seeds[name], means[name],
               None if name == "none" else baseline, limits, logarithmic)
        for place, name in enumerate(labels) if seeds[name]
    ]  # fmt: skip
    dashed = " The dashed line is the mean of none." if baseline else ""
    return Group(
        f"curves-{key}",
        title.removesuffix(" (%)") + " by epoch",
        f"A panel a mechanism, all on one {'logarithmic ' if logarithmic else ''}scale: "
        f"a thin line a seed, their mean thick.{dashed}",
        "panels" if len(pictures) != 1 else "figures",
        tuple(pictures),
        "No epoch has been recorded yet.",
    )


def errors_by_seed(trials: Sequence[TrialRecord]) -> dict[int, float]:
    """Return the finite top-1 errors of the finished trials."""
    found = {t.seed: t.metrics.get("top1_error") for t in trials if t.status == "done"}
    return {seed: v for seed, v in sorted(found.items()) if v is not None and math.isfinite(v)}


def _mark(label: str, e: Estimate, dots: tuple[float, ...], color: str | None = None) -> Mark:
    return Mark(label, e.mean, e.low, e.high, dots, color or (MUTED if label == "none" else INK))


def _series(trial: TrialRecord, key: str) -> Series:
    """A trial's finite values by epoch; a line ends or breaks where there is none."""
    return {
        epoch: float(value)
        for row in trial.history
        if isinstance(epoch := row.get("epoch"), int)
        and isinstance(value := row.get(key), int | float)
        and math.isfinite(value)
    }


def _mean_curve(trials: Sequence[TrialRecord], key: str) -> Series:
    """The mean over the finished trials (else all begun), where each of them has a value."""
    chosen = [t for t in trials if t.status == "done"] or list(trials)
    series = [s for trial in chosen if (s := _series(trial, key))]
    epochs = set.intersection(*(set(s) for s in series)) if series else set()
    return {e: math.fsum(s[e] for s in series) / len(series) for e in sorted(epochs)}


def _limits(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    if not values:
        return (0.0, 1.0)
    low, high = min(values), max(values)
    if logarithmic:
        return (low / 1.15, high * 1.15)
    margin = 0.06 * (high - low) or 0.5
    return (max(0.0, low - margin) if low >= 0 else low - margin, high + margin)
