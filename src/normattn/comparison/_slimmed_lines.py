"""The lines of a slimming's table: what it had, what it has, and how many times less that is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model._runtimes import RUNTIMES, TORCH, label
from ._lenient import mapping, number, text
from .costs import BATCHES
from .table import NOTHING, _signed

CAPTION = (
    "Ratio: how many times less; of accuracy, the difference in points. Latencies are medians of "
    "one interleaved run of both models, in PyTorch as they are loaded where no runtime is named, "
    "with as many threads as the plan had; below them where 60 of 100 passes were."
)


@dataclass(frozen=True)
class Line:
    """A line of the table, in words; ``tone`` is ``better``, ``worse`` or nothing.

    ``values`` are the three numbers behind the words, None where there is none; ``spread`` says in
    which range most measurements of a latency were, ``before`` and ``after``.
    """

    name: str
    before: str
    after: str
    ratio: str
    tone: str = ""
    values: tuple[float | None, float | None, float | None] = (None, None, None)
    spread: Mapping[str, str] = field(default_factory=dict)


def lines(record: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[Line, ...]:
    """Return the table: accuracy, parameters, multiply-adds, latencies, size of the file.

    What a record does not hold, or is no number there, is shown as nothing.
    """
    sides = ("original", "result")
    errors = [number(record, side, "metrics", "top1_error") for side in sides]
    had, has = (None if error is None else 100 - error for error in errors)
    drop = number(record, "drop")
    gain = None if drop is None else -drop
    tone = "" if gain is None or abs(gain) < 0.005 else "better" if gain > 0 else "worse"
    shown = (_fixed(had), _fixed(has), NOTHING if gain is None else _signed(gain))
    found = [Line("Top-1 accuracy (%)", *shown, tone, (had, has, gain))]
    for name, key in {"Parameters": "parameters", "Multiply-adds": "paper_macs"}.items():
        found.append(_counts(name, *(number(record, side, "cost", key) for side in sides)))
    found += [_latency(profile, batch) for batch in batches(record)]
    found += _in_runtime(record, profile)
    return (*found, _counts("File (bytes)", *(number(record, side, "bytes") for side in sides)))


def batches(record: Mapping[str, Any]) -> list[int]:
    """Return the batch sizes that latency is measured at."""
    return sorted({*BATCHES, int(number(record, "job", "batch") or BATCHES[0])})


def runtime(record: Mapping[str, Any]) -> str:
    """Return the runtime that latency counted in; jobs from before there was a choice: PyTorch."""
    name = text(record, "job", "runtime")
    return name if name in RUNTIMES else TORCH


def _in_runtime(record: Mapping[str, Any], profile: Mapping[str, Any]) -> list[Line]:
    """Return the latencies where they counted, if that was not PyTorch."""
    where = runtime(record)
    if where == TORCH:
        return []
    there = mapping(profile, "runtime")
    name = f" in {label(where)} {text(there, 'version')}".rstrip()
    return [_latency(there, batch, name) for batch in batches(record)]


def _latency(profile: Mapping[str, Any], batch: int, where: str = "") -> Line:
    times = mapping(profile, "latency", str(batch))
    medians = [number(times, side, "median") for side in ("before", "after")]
    had, has = (None if median is None else 1e3 * median for median in medians)
    less, ratio = None, number(times, "after", "ratio")
    if ratio:
        less = 1 / ratio
    spread = {side: _spread(times, side) for side in ("before", "after")}
    name = f"Latency{where}, batch {batch} (ms)"
    return Line(name, _fixed(had), _fixed(has), *_times_less(less), (had, has, less), spread)


def _spread(times: Mapping[str, Any], side: str) -> str:
    """Return the range of the middle 60 of 100 passes, in words."""
    low, high = number(times, side, "p20"), number(times, side, "p80")
    return "" if low is None or high is None else f"{1e3 * low:.2f} to {1e3 * high:.2f}"


def _counts(name: str, before: float | None, after: float | None) -> Line:
    ratio = before / after if before and after else None
    had, has = (NOTHING if value is None else f"{value:,}" for value in (before, after))
    return Line(name, had, has, *_times_less(ratio), (before, after, ratio))


def _fixed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _times_less(ratio: float | None) -> tuple[str, str]:
    if ratio is None:
        return NOTHING, ""
    tone = "" if math.isclose(ratio, 1, abs_tol=0.005) else "better" if ratio > 1 else "worse"
    return f"{ratio:.2f}×", tone
