"""From trials to a table that can be defended: means, intervals, paired differences, verdicts.

Lower is better for every metric here (errors and loss). Trials are paired by seed: two mechanisms
with one seed saw the same host weights, batches and crops, so their difference is free of what
they share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from .fairness import inequalities
from .records import RunRecords, TrialRecord

METRICS = ("top1_error", "top5_error", "loss")
BASELINES = ("none", "half")
ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """The mean of ``n`` values; ``std``, ``low`` and ``high`` are None for a single one.

    ``std`` is the sample standard deviation; ``low`` and ``high`` are the 95 % t-interval.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Top-1 error of a mechanism minus that of a baseline, over the seeds that both finished.

    Negative is better. ``p`` is the paired t-test's, ``p_holm`` after Holm's correction over all
    comparisons to this baseline; both are None where the test is undefined.
    """

    baseline: str
    n: int
    seeds: tuple[int, ...]
    mean: float | None  # None without a common seed
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: str


@dataclass(frozen=True)
class Row:
    """One mechanism's line in the table; None where nothing is known."""

    mechanism: str
    planned: int  # seeds in the protocol
    seeds: tuple[int, ...]  # seeds finished, with a finite top-1 error
    metrics: Mapping[str, Estimate | None]  # METRICS
    differences: Mapping[str, PairedDifference]  # by baseline; not to itself
    parameters: int | None
    macs: float | None
    paper_macs: float | None
    latency: Mapping[int, float]  # median seconds by batch; {} if not measured
    failed: tuple[tuple[int, str], ...]  # (seed, reason)

    @property
    def n(self) -> int:
        """The number of trials in the mean."""
        return len(self.seeds)


@dataclass(frozen=True)
class Summary:
    """The table: a row a mechanism, in the protocol's order, and what was not equal."""

    rows: tuple[Row, ...]
    baselines: tuple[str, ...]  # those of BASELINES that the protocol has
    unequal: tuple[str, ...]  # sentences for the box "what was not equal"
    notes: tuple[str, ...]  # missing or unreadable files, excluded values


def summarise(records: RunRecords) -> Summary:
    """Return one row a mechanism with means, intervals, paired differences and a verdict each.

    Only finished trials count; a value that is not finite is left out and said in ``notes``.
    """
    mechanisms = records.protocol.mechanisms
    baselines = tuple(name for name in BASELINES if name in mechanisms)
    errors = {name: _values(records.of(name), "top1_error") for name in mechanisms}
    families = {base: _family(base, baselines, errors) for base in baselines}
    rows = tuple(_row(records, name, errors[name], families) for name in mechanisms)
    notes = (*records.notes, *_excluded(records))
    return Summary(rows, baselines, inequalities(records), notes)


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, sample standard deviation and 95 % t-interval, mean ± t(n - 1) · s / √n.

    The order of ``values`` does not matter, to the last bit; one value has no spread.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, None, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(special.stdtrit(n - 1, 1 - ALPHA / 2)) * std / math.sqrt(n)
    return Estimate(n, mean, std, mean - half, mean + half)


def paired_difference(
    baseline: str, errors: Mapping[int, float], base_errors: Mapping[int, float]
) -> PairedDifference:
    """Compare two mechanisms by their common seeds; errors are given by seed.

    The verdict is final only where the t-test is undefined; otherwise ``p_holm`` and the verdict
    wait for the other comparisons (``holm``).
    """
    seeds = tuple(sorted(errors.keys() & base_errors.keys()))
    if not seeds:
        return PairedDifference(
            baseline, 0, (), None, None, None, None, None, "no common seed: no verdict"
        )
    differences = [errors[seed] - base_errors[seed] for seed in seeds]
    center = estimate(differences)
    undefined = PairedDifference(baseline, center.n, seeds, center.mean, None, None, None, None, "")
    if center.std is None:
        return replace(undefined, verdict="one seed: no verdict")
    if not any(differences):
        return replace(undefined, verdict="identical results")
    scale = max(*map(abs, errors.values()), *map(abs, base_errors.values()))
    if center.std <= 1e-12 * scale:  # rounding alone: the differences do not vary
        verdict = "the same difference with every seed: the t-test is undefined, no verdict"
        return replace(undefined, verdict=verdict)
    t = center.mean / (center.std / math.sqrt(center.n))
    p = 2 * float(special.stdtr(center.n - 1, -abs(t)))
    return replace(undefined, low=center.low, high=center.high, p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given.

    The k-th smallest of m (k from 0) is multiplied by m - k, made monotone, and cut at 1.

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat., 1979.
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.take(p_values, order)))
    return [float(p) for p in adjusted]


def _family(
    baseline: str, baselines: Sequence[str], errors: Mapping[str, Mapping[int, float]]
) -> dict[str, PairedDifference]:
    """All comparisons to one baseline, corrected together.

    A baseline is not compared to a later one: half to none is in, its mirror image none to half
    would only weaken the correction.
    """
    earlier = baselines[: baselines.index(baseline) + 1]
    family = {
        name: paired_difference(baseline, values, errors[baseline])
        for name, values in errors.items()
        if name not in earlier
    }
    tested = {name: item for name, item in family.items() if item.p is not None}
    corrected = holm([item.p for item in tested.values() if item.p is not None])
    for (name, item), p_holm in zip(tested.items(), corrected, strict=True):
        family[name] = replace(item, p_holm=p_holm, verdict=_verdict(item, p_holm))
    return family


def _verdict(difference: PairedDifference, p_holm: float) -> str:
    if p_holm >= ALPHA or difference.mean is None:
        return f"not distinguishable with n={difference.n}"
    return "better" if difference.mean < 0 else "worse"


def _row(
    records: RunRecords,
    mechanism: str,
    errors: Mapping[int, float],
    families: Mapping[str, Mapping[str, PairedDifference]],
) -> Row:
    trials = records.of(mechanism)
    values = {metric: list(_values(trials, metric).values()) for metric in METRICS}
    profile = records.profile or {}
    counts = profile.get("mechanisms", {}).get(mechanism, {})
    timed = profile.get("latency", {}).items()
    trained = next((t.details["parameters"] for t in trials if "parameters" in t.details), None)
    return Row(
        mechanism=mechanism,
        planned=len(trials),
        seeds=tuple(errors),
        metrics={metric: estimate(found) if found else None for metric, found in values.items()},
        differences={b: family[mechanism] for b, family in families.items() if mechanism in family},
        parameters=counts.get("parameters") or trained,
        macs=counts.get("macs"),
        paper_macs=counts.get("paper_macs"),
        latency={int(batch): of[mechanism]["median"] for batch, of in timed if mechanism in of},
        failed=tuple((t.seed, t.reason) for t in trials if t.status == "failed"),
    )


def _values(trials: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """The finite values by seed; a trial that is not done has none."""
    found = {t.seed: t.metrics.get(metric) for t in trials}
    return {seed: v for seed, v in sorted(found.items()) if v is not None and math.isfinite(v)}


def _excluded(records: RunRecords) -> list[str]:
    """Say which values of finished trials are in no mean, so that none goes silently."""
    done = [trial for trial in records.trials if trial.status == "done"]
    has_top5 = any(trial.metrics.get("top5_error") is not None for trial in done)
    notes = []
    for trial in done:
        for metric in METRICS:
            value = trial.metrics.get(metric)
            if value is None and metric == "top5_error" and not has_top5:
                continue  # undefined with five classes or fewer: for all trials alike
            if value is None or not math.isfinite(value):
                notes.append(f"{trial.name}: {metric} is {value} and is left out of the means.")
    return notes
