"""The kernels in C++, for float32 and bfloat16 on the CPU; see csrc/."""

from typing import Any

import torch
from torch import Tensor

from .._layout import Over, is_dense, layout
from . import _library

#: None where the package was installed without a compiler.
LIBRARY, _STATUS = _library.find()
_READY = LIBRARY is not None
_DTYPES = (torch.float32, torch.bfloat16)

Gradients = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def supports(x: Tensor) -> bool:
    """Return whether the kernels take ``x``."""
    return _READY and x.device.type == "cpu" and x.dtype in _DTYPES and is_dense(x)


def status() -> str:
    """Return what is loaded, or why nothing is."""
    return _STATUS


def forward(
    z: Tensor,
    *,
    over: Over,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    gate_eps: float = 0.0,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise, gate, add and rectify with the batch's statistics; return them too."""
    sizes = layout(z, over)
    mean = z.new_empty(sizes.statistics, dtype=torch.float32)
    var = torch.empty_like(mean)
    out = torch.empty_like(z)
    maps = _like(z, residual=residual)
    vectors = _vectors(weight=weight, bias=bias, scale=scale, shift=shift)
    numbers = {"eps": eps, "gate_eps": gate_eps, "relu": relu}
    results = {"out": out, "mean": mean, "var": var}
    _run(z, over, {"z": z} | maps | vectors | results, numbers)
    return out, mean, var


def forward_fixed(
    z: Tensor,
    *,
    over: Over,
    center: Tensor,
    p: Tensor | None = None,
    q: Tensor | None = None,
    slope: Tensor | None = None,
    offset: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The same with given statistics; ``out`` may be ``z`` itself."""
    out = torch.empty_like(z) if out is None else out
    maps = _like(z, residual=residual)
    vectors = _vectors(center=center, p=p, q=q, slope=slope, offset=offset)
    _run(z, over, {"z": z, "out": out} | maps | vectors, {"relu": relu}, fixed=True)
    return out


def backward(
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    *,
    over: Over,
    mean: Tensor,
    var: Tensor,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    gate_eps: float,
    residual: bool,
    relu: bool,
) -> Gradients:
    """Return the gradients of z, the residual, weight, bias, scale and shift."""
    vectors = _vectors(weight=weight, bias=bias, scale=scale, shift=shift, mean=mean, var=var)
    numbers = {"eps": eps, "gate_eps": gate_eps, "relu": relu}
    present = (weight, bias, scale, shift)
    return _gradients(dy, z, out, over, vectors, numbers, present, residual, fixed=False)


def backward_fixed(
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    *,
    over: Over,
    center: Tensor,
    p: Tensor | None,
    q: Tensor | None,
    slope: Tensor | None,
    offset: Tensor | None,
    residual: bool,
    relu: bool,
) -> Gradients:
    """Return the gradients of z, the residual, p, q, slope and offset."""
    vectors = _vectors(center=center, p=p, q=q, slope=slope, offset=offset)
    present = (p, q, slope, offset)
    return _gradients(dy, z, out, over, vectors, {"relu": relu}, present, residual, fixed=True)


def _gradients(
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    over: Over,
    vectors: dict[str, Tensor],
    numbers: dict[str, Any],
    present: tuple[Tensor | None, ...],
    residual: bool,
    *,
    fixed: bool,
) -> Gradients:
    sizes = layout(z, over)
    maps = _like(z, dy=dy, result=out if residual and numbers["relu"] else None)
    maps |= {"z": z, "dz": torch.empty_like(z)}
    if residual:
        maps["dresidual"] = torch.empty_like(z)
    names = ("dweight", "dbias", "dscale", "dshift")
    found = {
        name: torch.empty(sizes.statistics, dtype=torch.float32)
        for name, vector in zip(names, present, strict=True)
        if vector is not None
    }
    _run(z, over, maps | vectors | found, numbers, backward=True, fixed=fixed)
    if sizes.groups > 1:
        found = {name: g.view(sizes.groups, -1).sum(0) for name, g in found.items()}
    dweight, dbias, dscale, dshift = (found.get(name) for name in names)
    return maps["dz"], maps.get("dresidual"), dweight, dbias, dscale, dshift


def _run(
    z: Tensor,
    over: Over,
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
    *,
    backward: bool = False,
    fixed: bool = False,
) -> None:
    assert LIBRARY is not None
    if z.numel() == 0:
        for name in tensors.keys() & {"dweight", "dbias", "dscale", "dshift"}:
            tensors[name].zero_()
        return
    groups, outer, channels, inner = layout(z, over)
    task = _library.Task(groups, outer, channels, inner, **numbers)
    task.threads = 1 if _library.forked() else torch.get_num_threads()
    for name, tensor in tensors.items():
        setattr(task, name, tensor.data_ptr())
    LIBRARY.run(task, half=z.dtype == torch.bfloat16, backward=backward, fixed=fixed)


def _like(z: Tensor, **maps: Tensor | None) -> dict[str, Tensor]:
    """Return the maps there are, in z's order in memory."""
    strides = z.stride()
    order = torch.contiguous_format if z.is_contiguous() else torch.channels_last
    return {
        name: m if m.stride() == strides else m.contiguous(memory_format=order)
        for name, m in maps.items()
        if m is not None
    }


def _vectors(**vectors: Tensor | None) -> dict[str, Tensor]:
    return {
        name: v.detach().to(torch.float32).contiguous()
        for name, v in vectors.items()
        if v is not None
    }
