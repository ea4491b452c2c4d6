"""With what a result was made: versions, commit, machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from ..model.fuse import fused, loaded, runs

_ROOT = Path(__file__).parents[3]  # of the checkout, where this is one


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("normattn", "torch", "timm", "torchvision", "numpy")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}


def commit() -> str | None:
    """Return the commit of the checkout this code runs from, ``-dirty`` if changed; else None."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine(device: torch.device) -> dict[str, str | int]:
    """Return the device's kind and name, and the threads that torch computes with."""
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
    }


def kernels(model: nn.Module) -> dict[str, str | int | float] | None:
    """Return which kernels have computed in the model; None if a fused one has not been called.

    ``name`` is "plain" where none did, though they may be loaded: whether they pay depends on the
    maps. ``blocks`` and ``mechanisms`` count those in which some did, and ``share`` is how much of
    what fused modules computed, in parts (a norm and what follows it, or a gate) of all calls.
    """
    blocks, mechanisms = runs(model)
    by_kernels = sum(each.by_kernels for each in (*blocks, *mechanisms))
    parts = by_kernels + sum(each.in_plain for each in (*blocks, *mechanisms))
    if not parts and (blocks or mechanisms):
        return None
    return {
        "name": _loaded(model) if by_kernels else "plain",
        "blocks": sum(each.by_kernels > 0 for each in blocks),
        "mechanisms": sum(each.by_kernels > 0 for each in mechanisms),
        "share": round(by_kernels / max(parts, 1), 3),
    }


def kernels_offered(model: nn.Module) -> str:
    """Return which kernels would take layers of the model, "plain" for none."""
    report = fused(model)
    return _loaded(model) if report.blocks or report.mechanisms else "plain"


def _loaded(model: nn.Module) -> str:
    return loaded(next((p.device for p in model.parameters()), torch.device("cpu")))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
