"""`normattn doctor`: what this installation computes with, and what would make it faster."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from . import _common, _options

_UNSEEN = "Not seen: other busy processes on these cores. With any, fewer threads may be faster."
_OWN_GROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def doctor(json: _options.Json = False) -> None:
    """Show versions, machine, threads and kernels; say why kernels are missing and what to do.

    Nothing that it finds is an error: without kernels everything runs in its plain form.

    Example: normattn doctor
    """
    record = _examine()
    if json:
        _common.print_json({"event": "doctor", **record})
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for title, value in record.items():
        if title != "advice":
            for name, text in _rows(title, value):
                table.add_row(Text(name), Text(text))
    console = _common.out()
    console.print(table)
    console.print(Text(_UNSEEN, style="dim"), soft_wrap=True)
    for text in record["advice"]:
        console.print(Text(f"→ {text}", style="yellow"), soft_wrap=True)
    if not record["advice"]:
        console.print(Text("Nothing to mend.", style="green"))


def _examine() -> dict[str, Any]:
    import torch

    from ..model.fuse import kernel_status
    from ..training.provenance import commit, machine, versions

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    record = {
        "versions": versions(),
        "commit": commit(),
        "machine": {
            **machine(torch.device("cpu")),
            "usable_cores": _usable_cores(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "cuda": cuda,
        },
        "kernels": kernel_status(),
    }
    return {**record, "advice": list(_advice(record))}


def _advice(record: Mapping[str, Any]) -> Iterator[str]:
    for device, status in record["kernels"].items():
        found, _, remedy = status.partition(". ")
        missed = device == "cpu" or record["machine"]["cuda"]
        if found.startswith("none") and missed:
            yield f"No kernels for {device} ({found.removeprefix('none: ')}). {remedy}".rstrip()
    threads, cores = record["machine"]["threads"], record["machine"]["usable_cores"]
    if threads > cores:
        yield (
            f"torch computes with {threads} threads on {cores} usable cores, where they wait for "
            f"each other. Set OMP_NUM_THREADS={cores}."
        )


def _usable_cores() -> int:
    """Return the cores that this process may fill, which may be fewer than the machine has.

    Those that it may run on, or as many as a container's quota of time is worth if that is less.
    What other processes take of them is not seen.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the limits of time in cores, of this process's control group and those above it."""
    for group in _groups("cpu", _CGROUPS / "cpu"):  # version 1
        quota = _numbers(group / "cpu.cfs_quota_us")
        period = _numbers(group / "cpu.cfs_period_us")
        if quota and period and quota[0] > 0 and period[0] > 0:
            yield quota[0] / period[0]
    for group in _groups("", _CGROUPS):  # version 2
        limit = _numbers(group / "cpu.max")
        if len(limit) == 2 and limit[1] > 0:
            yield limit[0] / limit[1]


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folder of this process's group under a controller, and all above it."""
    lines = _text_of(_OWN_GROUPS).splitlines()
    fields = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    for _, controllers, path in fields:
        if controller in controllers.split(","):
            inside = Path(path.lstrip("/"))  # inside a container it may not be there: the root is
            yield from (root / each for each in (inside, *inside.parents))


def _numbers(path: Path) -> list[float]:
    """Return the numbers in a file; none if there is no such file, or "max" for no limit."""
    try:
        return [float(word) for word in _text_of(path).split()]
    except ValueError:
        return []


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _rows(title: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a line for each value; those of a group stand under its title."""
    if isinstance(value, Mapping):
        yield title, ""
        for name, inner in value.items():
            yield f"  {name.replace('_', ' ') if name.islower() else name}", _text(inner)
    else:
        yield title, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
