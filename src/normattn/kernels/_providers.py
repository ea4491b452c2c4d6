"""Who computes: the kernels of the tensor's device where they can, else the reference."""

from types import ModuleType

import torch
from torch import Tensor, nn

from . import cpu, gpu


def provider(x: Tensor) -> ModuleType | None:
    """Return the module with the kernels for ``x``, None where only the reference will do."""
    owner = {"cpu": cpu, "cuda": gpu}.get(x.device.type)
    if owner is None or x.numel() == 0:
        return None
    return owner if owner.supports(x) else None


def runs_on(x: Tensor) -> bool:
    """Return whether there are kernels for ``x``: its device, type and order in memory."""
    return provider(x) is not None


def pays(x: Tensor, *, gate: bool) -> bool:
    """Return whether ``x``, which kernels take, is large enough for them to be the faster way.

    Args:
        x: The map.
        gate: Whether there is a gate to compute, or only a norm and what follows it.
    """
    return x.device.type != "cpu" or cpu.pays(x, gate)


def status() -> dict[str, str]:
    """Return, by device, which kernels are loaded, or why there are none."""
    return {"cpu": cpu.status(), "cuda": gpu.status()}


def update_running(
    norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, count: int
) -> None:
    """Move a batch norm's running statistics on, as its own forward would.

    The same update to the same buffers: the moving average with ``momentum``, or the plain average
    of all batches where that is None; of the unbiased variance; and one more batch counted.

    Args:
        norm: The norm; one that keeps no statistics is left alone.
        mean: The batch's mean, of shape ``(K,)``.
        var: The batch's biased variance, of shape ``(K,)``.
        count: How many values each is of; the caller has refused fewer than 2.
    """
    if not norm.track_running_stats:
        return
    tracked, momentum = norm.num_batches_tracked, norm.momentum
    with torch.no_grad():
        if tracked is not None:
            tracked.add_(1)
        if momentum is None and tracked is None:
            return  # torch moves nothing then: its factor stays at 0
        _move(norm.running_mean, mean, momentum, tracked)
        _move(norm.running_var, var * (count / (count - 1)), momentum, tracked)


def _move(
    running: Tensor | None, value: Tensor, momentum: float | None, tracked: Tensor | None
) -> None:
    if running is None:
        return
    value = value.detach()
    if momentum is not None and value.dtype == running.dtype:
        running.lerp_(value, momentum)
        return
    # In the wider of the two types, and rounded once: a norm in half precision keeps its
    # statistics there, and a float64 one is given float32.
    dtype = torch.promote_types(running.dtype, value.dtype)
    value, start = value.to(dtype), running.to(dtype)
    if momentum is None:
        assert tracked is not None
        # Kept a tensor: as a Python number it would end the graph that torch.compile makes.
        value = start.lerp(value, tracked.to(dtype).reciprocal())
    else:
        value = start.lerp(value, momentum)
    running.copy_(value)
