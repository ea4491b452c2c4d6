"""The four functions of a provider of kernels.

Args and results are those of the reference, `kernels/block_tail/reference.py`, on dense maps of one
device. A training forward moves 3 accesses a value (4 with a residual), its backward 5 (7 with a
residual and a ReLU), fixed statistics 2 (3) and 3 (5).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .._layout import Over
from . import _launch
from ._launch import Maybe, Norms

Gradients = tuple[Tensor, Maybe, Maybe, Maybe, Maybe, Maybe]


def forward(
    z: Tensor,
    *,
    over: Over,
    eps: float,
    weight: Maybe = None,
    bias: Maybe = None,
    scale: Maybe = None,
    shift: Maybe = None,
    gate_eps: float = 0.0,
    residual: Maybe = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise, gate, add and rectify with the batch's statistics; return them too."""
    with _on(z):
        shape = _launch.for_reduction(z, over)
        mean = z.new_empty(shape.statistics, dtype=torch.float32)
        var = torch.empty_like(mean)
        norms = _norms(weight, bias, scale, shift, eps, gate_eps)
        found = _launch.coefficients(shape, mean, var, norms, _launch.moments(z, shape))
        out = _launch.apply(z, over, found, residual, relu, torch.empty_like(z))
    return out, mean, var


def forward_fixed(
    z: Tensor,
    *,
    over: Over,
    center: Tensor,
    p: Maybe = None,
    q: Maybe = None,
    slope: Maybe = None,
    offset: Maybe = None,
    residual: Maybe = None,
    relu: bool = False,
    out: Maybe = None,
) -> Tensor:
    """The same with given statistics; ``out`` may be ``z`` itself."""
    with _on(z):
        found = _fixed(z, over, center, p, q, slope, offset)
        target = torch.empty_like(z) if out is None else out
        return _launch.apply(z, over, found, residual, relu, target)


def backward(
    dy: Tensor,
    z: Tensor,
    out: Maybe,
    *,
    over: Over,
    mean: Tensor,
    var: Tensor,
    eps: float,
    weight: Maybe,
    bias: Maybe,
    scale: Maybe,
    shift: Maybe,
    gate_eps: float,
    residual: bool,
    relu: bool,
) -> Gradients:
    """Return the gradients of z, the residual, weight, bias, scale and shift."""
    with _on(z):
        shape = _launch.for_reduction(z, over)
        norms = _norms(weight, bias, scale, shift, eps, gate_eps)
        found = _launch.coefficients(shape, mean, var, norms, None)
        dresidual = torch.empty_like(z) if residual else None
        sums = _launch.gradient_sums(dy, z, out, shape, found, None, dresidual, relu)
        vectors, rest = _launch.gradients(sums, shape, found, var, norms)
        assert rest is not None
        behind = dy if dresidual is None else dresidual  # of the ReLU
        masked = relu and dresidual is None
        dz = _launch.apply_gradient(behind, z, over, found, rest, masked)
    return dz, dresidual, *vectors


def backward_fixed(
    dy: Tensor,
    z: Tensor,
    out: Maybe,
    *,
    over: Over,
    center: Tensor,
    p: Maybe,
    q: Maybe,
    slope: Maybe,
    offset: Maybe,
    residual: bool,
    relu: bool,
) -> Gradients:
    """Return the gradients of z, the residual, p, q, slope and offset."""
    with _on(z):
        shape = _launch.for_reduction(z, over)
        found = _fixed(z, over, center, p, q, slope, offset)
        dz, dresidual = torch.empty_like(z), torch.empty_like(z) if residual else None
        sums = _launch.gradient_sums(dy, z, out, shape, found, dz, dresidual, relu)
        vectors, _ = _launch.gradients(sums, shape, found, None, None)
    return dz, dresidual, *vectors


def _on(z: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which launches go to z's device, and not to the current one."""
    return torch.cuda.device(z.device) if z.is_cuda else nullcontext()


def _norms(
    weight: Maybe, bias: Maybe, scale: Maybe, shift: Maybe, eps: float, gate_eps: float
) -> Norms:
    return Norms(_float(weight), _float(bias), _float(scale), _float(shift), eps, gate_eps)


def _fixed(
    z: Tensor, over: Over, center: Tensor, p: Maybe, q: Maybe, slope: Maybe, offset: Maybe
) -> _launch.Coefficients:
    vectors = _float(p), _float(q), _float(slope), _float(offset)
    center = center.to(torch.float32).contiguous()
    return _launch.given(_launch.for_reduction(z, over), center, vectors)


def _float(vector: Maybe) -> Maybe:
    return None if vector is None else vector.detach().to(torch.float32).contiguous()
