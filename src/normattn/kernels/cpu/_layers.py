"""A norm, NAM's gate, or both, with the modules' own vectors: one call instead of a dozen.

The importance, its products with γ and β, the running statistics and the gradients through the
products are so many small operations of torch's; beside the map of one layer each is nothing, but
over a whole model they outlast what the kernels save. Here the library computes them as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .._layout import Over, layout
from . import _library
from ._maps import address, in_order

_WEIGHTINGS = {"sum": 0, "mean": 1, "rms": 2}
_NONE = _library.Norm()
#: Rows of what a call keeps for its backward: mean, variance, scale, shift, importance.
ROWS = 5
_GRADIENTS = ("dweight", "dbias", "dscale", "dshift")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Norms(NamedTuple):
    """What computes: a norm, NAM's gate, or a norm with the gate behind it.

    Args:
        norm: The block's norm, if any.
        gate: The gate's own norm, if there is a gate.
        weighting: What the gate's |γ| is divided by: "sum", "mean" or "rms".
        over: What shares a mean: "channel" or "pixel".
        relu: Whether a ReLU ends it.
        fixed: Whether the statistics are the running ones.
    """

    norm: _BatchNorm | None
    gate: _BatchNorm | None
    weighting: str
    over: Over
    relu: bool
    fixed: bool


Four = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def suitable(norms: Norms, length: int) -> Four | None:
    """Return weight and bias of the norm and of the gate's norm, if all is as the library takes it.

    That is: float32, plain, on the CPU, and of one length; else None.
    """
    norm, gate, weighting, _, _, fixed = norms
    if weighting not in _WEIGHTINGS:
        return None
    found: list[Tensor | None] = []
    for each in (norm, gate):
        if each is None:
            found += (None, None)
            continue
        parameters = each._parameters
        weight, bias = parameters.get("weight"), parameters.get("bias")
        if not (_fits(weight, length) and _fits(bias, length) and _keeps(each, length, fixed)):
            return None
        found += (weight, bias)
    return tuple(found)  # type: ignore[return-value]  # four


def _keeps(norm: _BatchNorm, length: int, fixed: bool) -> bool:
    if not fixed and not _moves(norm):
        return True  # what it keeps is not looked at
    if not fixed and type(norm.momentum) is not float:
        return False  # the plain average of all batches
    mean, var, batches = map(norm._buffers.get, _BUFFERS)
    if batches is not None and not (batches.dtype == torch.int64 and batches.is_cpu):
        return False
    if mean is None and var is None:
        return not fixed
    return _fits(mean, length) and _fits(var, length)


def _fits(vector: Tensor | None, length: int) -> bool:
    return (
        (type(vector) is Tensor or type(vector) is torch.nn.Parameter)
        and vector.dtype is torch.float32
        and vector.is_cpu
        and vector.shape == (length,)
        and vector.is_contiguous()
        and not vector.is_neg()
    )


def layer_forward(
    z: Tensor, residual: Tensor | None, parameters: Four, norms: Norms, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the output, and the rows that the backward needs; move running statistics on.

    Args:
        z: The map, dense and not empty.
        residual: What is added, if anything.
        parameters: What `suitable` gave.
        norms: What computes.
        out: Where the output goes: ``z`` itself, or None for a new map.
    """
    assert _library.LIBRARY is not None
    norm, gate, weighting, over, relu, fixed = norms
    task = _task(z, over, relu)
    vectors = torch.empty(ROWS * task.channels, dtype=torch.float32)
    out = torch.empty_like(z) if out is None else out
    task.z, task.out = address(z), address(out)
    if residual is not None:
        residual = in_order(residual, z)
        task.residual = address(residual)
    moved = [z] if out is z else []
    weight, bias, gamma, beta = parameters
    layer = _library.Layer(
        _vectors(norm, weight, bias, fixed, moved),
        _vectors(gate, gamma, beta, fixed, moved),
        _WEIGHTINGS[weighting],
        vectors.data_ptr(),
    )
    half = z.dtype is torch.bfloat16
    _library.LIBRARY.run_layer(task, layer, half=half, backward=False, fixed=fixed)
    if moved:
        torch._C._increment_version(moved)
    return out, vectors


def _vectors(
    norm: _BatchNorm | None,
    weight: Tensor | None,
    bias: Tensor | None,
    fixed: bool,
    moved: list[Tensor],
) -> _library.Norm:
    """Return where a norm's vectors lie, and add to ``moved`` what the call will write."""
    if norm is None or weight is None or bias is None:
        return _NONE
    momentum = 0.0
    statistics: tuple[int | None, ...] = (None, None, None)
    if fixed or _moves(norm):
        kept = [norm._buffers.get(name) for name in _BUFFERS]
        statistics = tuple(None if each is None else each.data_ptr() for each in kept)
        if not fixed:
            momentum = norm.momentum or 0.0
            moved += [each for each in kept if each is not None]
    return _library.Norm(weight.data_ptr(), bias.data_ptr(), *statistics, momentum, norm.eps)


def layer_backward(
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    vectors: Tensor,
    parameters: Sequence[Tensor | None],
    eps: Sequence[float],
    *,
    over: Over,
    relu: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of z, the residual, and both norms' weights and biases.

    Args:
        dy: The output's gradient.
        z: As in the forward.
        out: The forward's output, where there was a residual and a ReLU.
        vectors: The forward's rows.
        parameters: Weight and bias of the norm, and of the gate's norm.
        eps: Of the norm, and of the gate's norm.
        over: As in the forward.
        relu: As in the forward.
    """
    assert _library.LIBRARY is not None
    task = _task(z, over, relu)
    dz, dresidual, dy = torch.empty_like(z), None, in_order(dy, z)
    task.z, task.dy, task.dz = address(z), address(dy), address(dz)
    if out is not None:
        dresidual = torch.empty_like(z)
        task.result, task.dresidual = address(out), address(dresidual)
    weight, bias, gamma, beta = parameters
    made: list[Tensor | None] = [None] * 4
    norm = gate = _NONE
    if weight is not None and bias is not None:
        made[0], made[1] = dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
        task.dweight, task.dbias = dweight.data_ptr(), dbias.data_ptr()
        norm = _library.Norm(weight.data_ptr(), bias.data_ptr(), eps=eps[0])
    if gamma is not None and beta is not None:
        made[2], made[3] = dgamma, dbeta = torch.empty_like(gamma), torch.empty_like(beta)
        task.dscale, task.dshift = dgamma.data_ptr(), dbeta.data_ptr()
        gate = _library.Norm(gamma.data_ptr(), beta.data_ptr(), eps=eps[1])
    layer = _library.Layer(norm, gate, 0, vectors.data_ptr())
    half = z.dtype is torch.bfloat16
    _library.LIBRARY.run_layer(task, layer, half=half, backward=True, fixed=False)
    return dz, dresidual, *made


def _moves(norm: _BatchNorm) -> bool:
    """Return whether a training forward moves the running statistics on."""
    return norm.training and norm.track_running_stats


def _task(z: Tensor, over: Over, relu: bool) -> _library.Task:
    threads = 1 if _library.forked() else torch.get_num_threads()
    return _library.Task(*layout(z, over), threads, relu)
