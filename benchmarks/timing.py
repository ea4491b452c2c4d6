"""How we time: everything interleaved in one run, medians with 20/80 quantiles, ratios only.

One noisy moment then touches every provider alike. Inputs are built outside the clock and every
provider is warmed up on its own shape first.
"""

import platform
import random
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import torch

from normattn.training.provenance import machine


def interleave(providers: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each call: every round runs all providers once, in random order."""
    order = random.Random(0)
    names = list(providers)
    for name in names:
        for _ in range(2):
            providers[name]()
    _finish()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            providers[name]()
            _finish()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _finish() -> None:
    """Wait for a GPU, which works on after a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows(seconds: dict[str, list[float]], baseline: str, **labels: Any) -> list[dict[str, Any]]:
    """Return a row a provider: its median, 20/80 quantiles and its ratio to ``baseline``."""
    middle = median(seconds[baseline])
    return [
        {
            **labels,
            "provider": name,
            "median_ms": round(1e3 * median(times), 3),
            "p20_ms": round(1e3 * quantiles(times, n=5)[0], 3),
            "p80_ms": round(1e3 * quantiles(times, n=5)[-1], 3),
            "ratio": round(median(times) / middle, 3),
            "baseline": baseline,
            "n": len(times),
        }
        for name, times in seconds.items()
    ]


def header() -> dict[str, Any]:
    """Return what a figure must name: device, threads, versions, commit, date."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "device": machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))["name"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
    }
