"""A layer of a model in one call, past all that makes the ops visible to torch.

The ops (`norm_gate`, `block_tail`) are what a compiler, an exporter or a mode of torch sees. In
plain eager code nobody looks, and on the small maps of a deep model what stands around a kernel
takes longer than the kernel. So here the modules' own vectors go to the library as they are, and
one node of autograd stands for the layer. Where anything is not plain, there is no direct way.
"""

from typing import Any

import torch
from torch import Tensor

from . import cpu
from ._library import alone
from .block_tail._batch import batch_backward_op
from .cpu import ROWS, Norms
from .norm_gate.op import norm_gate_backward


def layer(z: Tensor, norms: Norms, *, residual: Tensor | None, own: bool) -> Tensor | None:
    """Return ``ReLU(gate(norm(z)) + residual)``, None where there is no direct way to it.

    Running statistics move on, as the norms' own forwards would move them.

    Args:
        z: The map, of shape ``(B, C, H, W)``, which the norms take.
        norms: What computes.
        residual: What is added, if anything; of z's shape, type and device.
        own: Whether nobody else holds ``z``, so that the output may take its place.
    """
    if not (cpu.supports(z) and alone((z, residual))):
        return None
    vectors = cpu.suitable(norms, z.shape[2] * z.shape[3] if norms.over == "pixel" else z.shape[1])
    if vectors is None:
        return None
    if torch.is_grad_enabled() and (
        z.requires_grad
        or (residual is not None and residual.requires_grad)
        or any(v is not None and v.requires_grad for v in vectors)
    ):
        if norms.fixed:
            return None
        out: Tensor = _Layer.apply(z, residual, *vectors, norms)
        return out
    return cpu.layer_forward(z, residual, vectors, norms, z if own else None)[0]


class _Layer(torch.autograd.Function):
    """The layer with the batch's statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        norms: Norms,
    ) -> Tensor:
        parameters = (weight, bias, gamma, beta)
        out, vectors = cpu.layer_forward(z, residual, parameters, norms, None)
        ctx.over, ctx.relu, ctx.residual = norms.over, norms.relu, residual is not None
        ctx.eps = [0.0 if norm is None else norm.eps for norm in norms[:2]]
        masked = ctx.residual and norms.relu
        ctx.save_for_backward(z, out if masked else None, vectors, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        z, out, vectors, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled() or not alone((dy,)):
            dz, dresidual, *others = _by_ops(ctx, dy, z, out, vectors, *parameters)
        else:
            dz, dresidual, *others = cpu.layer_backward(
                dy, z, out, vectors, parameters, ctx.eps, over=ctx.over, relu=ctx.relu
            )
        if ctx.residual and out is None:
            dresidual = dy  # without a ReLU the residual's gradient is dy itself
        return dz, dresidual, *others, None


def _by_ops(
    ctx: Any,
    dy: Tensor,
    z: Tensor,
    out: Tensor | None,
    vectors: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """The same by the ops, which can be watched and transformed, and refuse a second derivative."""
    mean, var, scale, shift, importance = vectors.view(ROWS, -1)
    eps, gate_eps = ctx.eps
    if weight is None:
        dz, dscale, dshift = norm_gate_backward(dy, z, mean, var, scale, shift, gate_eps, ctx.over)
        return dz, None, None, None, dscale * importance, dshift * importance
    of_gate = (None, None) if gamma is None else (scale, shift)
    statistics = (mean, var, weight, bias, *of_gate)
    options = (out is not None, eps, gate_eps, ctx.relu)
    found = iter(batch_backward_op(dy, z, out, *statistics, *options))
    dz, dresidual = next(found), None if out is None else next(found)
    dweight, dbias = next(found), next(found)
    if gamma is None:
        return dz, dresidual, dweight, dbias, None, None
    return dz, dresidual, dweight, dbias, next(found) * importance, next(found) * importance
