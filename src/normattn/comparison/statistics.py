"""From trials to a table that can be defended: means, intervals, paired differences, verdicts.

Lower is better for every metric here (errors and loss). Trials are paired by seed: two mechanisms
with one seed saw the same host weights, batches and crops, so their difference is free of what
they share.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
