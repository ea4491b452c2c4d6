"""With what a result was made: versions, commit, machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from ..model.fuse import fused

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


def kernels(model: nn.Module) -> dict[str, str | int]:
    """Return which kernels compute in the model, "plain" for none, and in how many of its parts."""
    report = fused(model)
    device = next((p.device.type for p in model.parameters()), "cpu")
    blocks, mechanisms = len(report.blocks), len(report.mechanisms)
    name = report.kernels[device] if blocks or mechanisms else "plain"
    return {"name": name, "blocks": blocks, "mechanisms": mechanisms}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
