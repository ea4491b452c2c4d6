"""What makes training on a CPU fast, beside the arithmetic: threads that run, memory that stays.

Two things that `python benchmarks/run.py processor neighbours` measures: memory that the C library
keeps need not be cleared by the system for every large map; and where other programs have the
cores, threads that wait for each other at every layer are slower than one that waits for nobody.
"""

import ctypes
import os
import sys
import time
from pathlib import Path

import torch

from .. import _files
from ..errors import InputError
from . import checkpoint

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_LOOK = 0.25  # seconds


def prepare(folder: Path) -> int:
    """Set up this process, a program of ours, for the job of a folder; return torch's threads."""
    keep_memory()
    return set_threads(_recorded(folder))


def keep_memory() -> bool:
    """Have this process keep the memory of freed tensors, and return whether that took.

    glibc gives maps above 32 MB back to the system when they are freed and has them cleared, page
    by page, when the next operation asks for as much. Only for programs of our own: it lets the
    process's memory stay at its highest point.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def free_cores() -> int:
    """Return how many of torch's threads would find a core to themselves right now, at least one.

    Looks for a quarter of a second at how busy others keep the cores that this process may use.
    What comes later is not foreseen.
    """
    threads = torch.get_num_threads()
    before = _busy_seconds()
    if before is None or threads == 1:
        return threads
    time.sleep(_LOOK)
    after = _busy_seconds()
    assert after is not None
    busy = sum(min(1.0, (after[core] - before[core]) / _LOOK) for core in before if core in after)
    return max(1, min(threads, round(len(before) - busy)))


def set_threads(recorded: int | None = None) -> int:
    """Set torch's threads to the cores that are free, and return their number.

    ``OMP_NUM_THREADS`` has the last word at the start of a job. A job that goes on computes with
    as many threads as it began with: another number adds in another order, to other bits.

    Args:
        recorded: The number that the job began with, if it goes on.
    """
    if recorded is not None:
        torch.set_num_threads(recorded)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(free_cores())
    return torch.get_num_threads()


def _recorded(folder: Path) -> int | None:
    """Return with how many threads the folder's job began, None where none goes on."""
    if not (folder / "trial.json").exists() or not checkpoint.exists(folder):
        return None
    try:
        threads = _files.read_json(folder / "trial.json")["machine"]["threads"]
    except (InputError, KeyError, TypeError):
        return None  # whoever opens the job says what is wrong with the folder
    return threads if type(threads) is int and threads >= 1 else None


def _busy_seconds() -> dict[str, float] | None:
    """Return by core for how long it has worked, of the cores that this process may use."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None  # not Linux: nothing is known of others
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for line in lines:
        core, *values = line.split()
        if core in usable:
            # user, nice, system, idle, iowait, irq, softirq, steal: all but the two that wait
            found[core] = sum(int(v) for i, v in enumerate(values[:8]) if i not in (3, 4)) / ticks
    return found or None
