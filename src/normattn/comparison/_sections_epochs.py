"""The sections over epochs: training curves, and how large the scale factors are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import charts
from ._charts_epochs import MEAN
from ._lenient import entries, find, mapping, number
from .page import Chart, Section
from .records import RunRecords, TrialRecord

_VALUES = 10_000  # numbers of one chart: more would make the page slow
_CURVES = (
    ("top1_error", "Validation error", "Validation error (%)"),
    ("train_loss", "Training loss", "Training loss"),
)
_GROUPS = {
    "attention": "scales of the gates",
    "norms": "scales of the host's norms",
    "closing": "scales of norms that close a branch",
}


def training(records: RunRecords) -> Section:
    """Return the training curves: every seed and their mean."""
    drawn = (_curves(records, key, title, axis) for key, title, axis in _CURVES)
    return Section(
        "curves",
        "Training curves",
        "A thin line is a trial, a thick one the mean over the finished trials of a mechanism, "
        "where each of them has a value. Each place of the slider smooths more: the mean over 3, "
        "5, 9, 17 neighbouring points.",
        tuple(chart for chart in drawn if chart),
        "No epoch has been recorded yet.",
    )


def scales(records: RunRecords) -> Section:
    """Return how the sizes of the scale factors move over the epochs."""
    counted = [found for trial in records.trials for found in _counted(trial)]
    intro = (
        "How many scale factors are of which size, over all seeds of a mechanism. Those that go "
        "towards zero are what slimming lives of."
    )
    nothing = (
        "The records hold no counts of scale factors by size: no epoch has been recorded yet, "
        "or an earlier version of normattn recorded them."
    )
    return Section("scales", "Scale factors by epoch", intro, _histograms(counted), nothing)


def _curves(records: RunRecords, key: str, title: str, axis: str) -> Chart | None:
    labels = records.protocol.mechanisms
    found = []
    for name in labels:
        trials = records.of(name)
        alone = [(trial.seed, s) for trial in trials if (s := _series(trial, key))]
        found += [charts.Curve(name, str(seed), series) for seed, series in alone]
        if mean := _mean(trials, key):
            found.append(charts.Curve(name, MEAN, mean))
    if not found:
        return None
    step = math.ceil(sum(len(curve.values) for curve in found) / _VALUES)
    thin = [charts.Curve(c.mechanism, c.seed, _every(c.values, step)) for c in found]
    begun = {curve.mechanism for curve in found}
    text = f"{axis} by epoch, {len(found)} lines, for {_listed(begun, labels)}."
    baseline = "none" if "none" in begun else ""
    chart = charts.curves(thin, axis, baseline=baseline)
    grey = " Grey is none, the host without attention." if baseline else ""
    dropped = " On the log scale, values of 0 are not drawn."
    return Chart(f"curves-{key.replace('_', '-')}", title, chart, text,
                 f"{_thinned(step, 'curves')}{grey}{dropped}".strip(), wide=True)  # fmt: skip


def _listed(begun: set[str], labels: Sequence[str]) -> str:
    names = [name for name in labels if name in begun]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _thinned(step: int, what: str) -> str:
    """Say what a chart leaves out; nothing goes silently."""
    if step == 1:
        return ""
    return (
        f"The {what} are thinned out: one epoch in {step} and the last are drawn and saved here, "
        "values with six digits; history.jsonl of each trial has them all."
    )


def _every(values: Mapping[int, float], step: int) -> dict[int, float]:
    last = max(values)
    if step == 1:
        return dict(values)
    return {e: float(f"{v:.6g}") for e, v in values.items() if (e - 1) % step == 0 or e == last}


def _series(trial: TrialRecord, key: str) -> dict[int, float]:
    """A trial's finite values by epoch; a line ends or breaks where there is none."""
    return {
        epoch: float(value)
        for row in trial.history
        if (epoch := _epoch(row)) and (value := number(row, key)) is not None
    }


def _epoch(row: Mapping[str, Any]) -> int:
    epoch = row.get("epoch")
    return epoch if isinstance(epoch, int) and not isinstance(epoch, bool) and epoch > 0 else 0


def _mean(trials: Sequence[TrialRecord], key: str) -> dict[int, float]:
    """The mean over the finished trials (else all begun), where each of them has a value."""
    chosen = [t for t in trials if t.status == "done"] or list(trials)
    series = [s for trial in chosen if (s := _series(trial, key))]
    epochs = set.intersection(*(set(s) for s in series)) if series else set()
    return {e: math.fsum(s[e] for s in series) / len(series) for e in sorted(epochs)}


Counted = tuple[str, int, tuple[float, ...], tuple[int, ...]]  # group, epoch, edges, by place


def _counted(trial: TrialRecord) -> Iterator[Counted]:
    """A trial's counts by size, the zeros first; what is of another form is left out."""
    for row in trial.history:
        if not (epoch := _epoch(row)):
            continue
        edges = _edges(mapping(row, "histograms", "edges"))
        for group, title in _GROUPS.items():
            counts = entries(row, "histograms", group, "counts")
            zeros = find(row, "histograms", group, "zeros")
            whole = [c for c in (zeros, *counts) if isinstance(c, int) and c >= 0]
            if edges and len(whole) == len(edges) + 2 and any(whole):
                yield (f"{trial.mechanism}: {title}", epoch, edges, tuple(whole))


def _edges(described: Mapping[str, Any]) -> tuple[float, ...]:
    first, last = number(described, "first"), number(described, "last")
    count = number(described, "count")
    if not (first and last and count) or not 0 < first < last or not 1 < count <= 1000:
        return ()
    start, end = math.log10(first), math.log10(last)
    step = (end - start) / (int(count) - 1)
    return tuple(10 ** (start + step * place) for place in range(int(count)))


def _histograms(counted: Sequence[Counted]) -> tuple[Chart, ...]:
    if not counted:
        return ()
    edges = counted[0][2]
    sums: dict[str, dict[int, list[int]]] = {}
    for group, epoch, found, counts in counted:
        if found == edges:
            before = sums.setdefault(group, {}).get(epoch, [0] * len(counts))
            sums[group][epoch] = [a + b for a, b in zip(before, counts, strict=True)]
    cells = sum(bool(c) for epochs in sums.values() for of in epochs.values() for c in of)
    step = math.ceil(cells / _VALUES)
    rows = [row for group, epochs in sums.items() for row in _rows(group, epochs, edges, step)]
    places = [row["place"] for row in rows]
    chart = charts.histograms(rows, _labels(edges, min(places), max(places) + 1))
    text = f"How many scale factors are of which size by epoch, for {'; '.join(list(sums)[:12])}."
    note = _thinned(step, "epochs")
    if any(found != edges for _, _, found, _ in counted):
        note = f"{note} Trials counted by other sizes than the first one's are left out.".strip()
    return (Chart("scales-by-epoch", "Sizes of the scale factors", chart, text, note, wide=True),)


def _rows(
    group: str, epochs: Mapping[int, list[int]], edges: Sequence[float], step: int
) -> Iterator[dict[str, Any]]:
    kept = sorted(_every(dict.fromkeys(epochs, 0.0), step))
    for epoch, following in zip(kept, [*kept[1:], kept[-1] + 1], strict=True):
        counts = epochs[epoch]
        for place, count in enumerate(counts):
            if count:
                yield {
                    "group": group, "epoch": epoch, "until": following, "place": place,
                    "size": _size(place, edges), "count": count, "scales": sum(counts),
                }  # fmt: skip


def _size(place: int, edges: Sequence[float]) -> str:
    if place == 0:
        return "exactly 0"
    if place == 1:
        return f"below {edges[0]:.3g}"
    if place == len(edges) + 1:
        return f"{edges[-1]:.3g} or more"
    return f"{edges[place - 2]:.3g} to {edges[place - 1]:.3g}"


def _labels(edges: Sequence[float], low: int, high: int) -> dict[float, str]:
    """Name the powers of ten among the edges that are in sight, and the place of the zeros."""
    found = {0.5: "exactly 0"} if low == 0 else {}
    for place, edge in enumerate(edges, start=2):
        power = math.log10(edge)
        if math.isclose(power, round(power), abs_tol=1e-6) and low <= place <= high:
            found[place] = f"{edge:g}"
    return found
