"""The kernels in C++, for float32 and bfloat16 on the CPU; see csrc/."""

import torch
from torch import Tensor

from .._layout import Over, is_dense, layout
from . import _library
from ._layers import ROWS as ROWS
from ._layers import Norms as Norms
from ._layers import layer_backward as layer_backward
from ._layers import layer_forward as layer_forward
from ._layers import suitable as suitable
from ._maps import address, in_order

#: None where the package was installed without a compiler.
LIBRARY, _STATUS = _library.LIBRARY, _library.STATUS
_READY = LIBRARY is not None
_DTYPES = (torch.float32, torch.bfloat16)
#: From how many elements on the kernels pay: `python benchmarks/run.py sizes`.
GATE_ELEMENTS = 1 << 15
NCHW_ELEMENTS = 1 << 18
CHANNELS_LAST_ELEMENTS = 1 << 20
CHANNELS_LAST_CHANNELS = 64
_GRADIENTS = ("dweight", "dbias", "dscale", "dshift")

Gradients = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def supports(x: Tensor) -> bool:
    """Return whether the kernels take ``x``."""
    return _READY and x.device.type == "cpu" and x.dtype in _DTYPES and is_dense(x)


def pays(x: Tensor, gate: bool) -> bool:
    """Return whether a map that the kernels take gains by them.

    Each call passes through Python, which on small maps outlasts what the kernel saves. Without a
    gate that is one pass of a few, and in channels_last PyTorch's own norm is as good, but for maps
    of few channels.
    """
    if gate:
        return x.numel() >= GATE_ELEMENTS
    if x.is_contiguous():
        return x.numel() >= NCHW_ELEMENTS
    return x.shape[1] <= CHANNELS_LAST_CHANNELS and x.numel() >= CHANNELS_LAST_ELEMENTS


def status() -> str:
    """Return what is loaded, or why nothing is."""
    return _STATUS + (", one thread after a fork" if _READY and _library.forked() else "")


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
    task = _task(z, over, relu, weight=weight, bias=bias, scale=scale, shift=shift)
    mean = _floats(z, task.groups * task.channels)
    var = torch.empty_like(mean)
    out = torch.empty_like(z)
    task.eps, task.gate_eps = eps, gate_eps
    task.mean, task.var = address(mean), address(var)
    _run(task, z, out=out, residual=in_order(residual, z))
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
    _refuse_instances(over)
    out = torch.empty_like(z) if out is None else out
    task = _task(z, over, relu, center=center, p=p, q=q, slope=slope, offset=offset)
    _run(task, z, out=out, residual=in_order(residual, z), fixed=True)
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
    vectors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
    task = _task(z, over, relu, **vectors, mean=mean, var=var)
    task.eps, task.gate_eps = eps, gate_eps
    return _gradients(task, dy, z, out, (weight, bias, scale, shift), residual, fixed=False)


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
    _refuse_instances(over)
    task = _task(z, over, relu, center=center, p=p, q=q, slope=slope, offset=offset)
    return _gradients(task, dy, z, out, (p, q, slope, offset), residual, fixed=True)


def _gradients(
    task: _library.Task,
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    vectors: tuple[Tensor | None, ...],
    residual: bool,
    *,
    fixed: bool,
) -> Gradients:
    dz = torch.empty_like(z)
    dresidual = torch.empty_like(z) if residual else None
    found: dict[str, Tensor] = {}
    for name, vector in zip(_GRADIENTS, vectors, strict=True):
        if vector is not None:
            found[name] = _floats(z, task.groups * task.channels)
            setattr(task, name, address(found[name]))
    _run(
        task,
        z,
        dy=in_order(dy, z),
        result=in_order(out, z) if residual and task.relu else None,
        dz=dz,
        dresidual=dresidual,
        backward=True,
        fixed=fixed,
    )
    for name, sums in found.items():
        if not z.numel():
            sums.zero_()
        if task.groups > 1:
            found[name] = sums.view(task.groups, -1).sum(0)
    return dz, dresidual, *map(found.get, _GRADIENTS)  # type: ignore[return-value]  # four


def _task(z: Tensor, over: Over, relu: bool, **vectors: Tensor | None) -> _library.Task:
    groups, outer, channels, inner = layout(z, over)
    threads = 1 if _library.forked() else torch.get_num_threads()
    task = _library.Task(groups, outer, channels, inner, threads, relu)
    task.kept = []
    for name, vector in vectors.items():
        if vector is not None:
            if vector.dtype != torch.float32 or not vector.is_contiguous():
                vector = vector.to(torch.float32).contiguous()
                task.kept.append(vector)  # until the task is done
            setattr(task, name, address(vector))
    assert task.weight or task.scale or task.p or task.slope or not z.numel(), (
        "cpu: expected a norm, a gate or both, got neither."
    )
    return task


def _floats(z: Tensor, count: int) -> Tensor:
    """Return room for ``count`` numbers as the library writes them, whatever torch's defaults."""
    return torch.empty(count, dtype=torch.float32, device=z.device)


def _refuse_instances(over: Over) -> None:
    assert over != "instance", "cpu: expected statistics that can be fixed, got those of instances."


def _run(
    task: _library.Task,
    z: Tensor,
    *,
    backward: bool = False,
    fixed: bool = False,
    **maps: Tensor | None,
) -> None:
    assert LIBRARY is not None
    if z.numel() == 0:
        return
    task.z = address(z)
    for name, each in maps.items():
        if each is not None:
            setattr(task, name, address(each))
    LIBRARY.run(task, half=z.dtype == torch.bfloat16, backward=backward, fixed=fixed)
