"""The block tail, as a model calls it; `_batch` and `_fixed` make it ops of torch."""

import torch
from torch import Tensor

from ...errors import InputError
from .._precision import vector
from ._batch import batch_op
from ._fixed import fixed_op, fixed_op_


def block_tail(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    gate_eps: float = 0.0,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tail of a residual block over z's own statistics, and these.

    ::

        x̂ = (z − mean) / √(var + eps)
        x = weight · x̂ + bias                                                   the block's norm
        t = scale · weight · x̂ / √(weight² · var / (var + eps) + gate_eps) + shift     NAM's norm
        out = relu(x · σ(t) + residual)            gate, sum and ReLU only where they are asked for

    Differentiable once, in z, the vectors and residual. For that z and vectors are kept, and out
    for a ReLU over a residual.

    Args:
        z: The map that the last convolution gives. One that is dense in neither usual order is
            copied first; a residual in another order is copied into z's.
        weight: γ of the block's norm.
        bias: β of the block's norm.
        eps: ε of the block's norm.
        scale: γ of NAM's norm times the importance; None for a block without a gate.
        shift: β of NAM's norm times the importance.
        gate_eps: ε of NAM's norm.
        residual: The shortcut, of z's type.
        relu: Whether a ReLU ends the block.

    Shape:
        z, residual, out: ``(B, C, H, W)``. Vectors, mean, var (biased; both without gradient):
        ``(C,)``.

    Raises:
        InputError: Shapes, types or devices do not fit, or a mean would be of one value.

    Source:
        Liu et al., "NAM", 2021, arXiv:2111.12419. README.md derives t and the backward.
    """
    vectors = (vector(v, z) for v in (weight, bias, scale, shift))
    out, mean, var = batch_op(z, *vectors, residual, eps, gate_eps, relu)
    return out, mean, var


def block_tail_fixed(
    z: Tensor,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    *,
    slope: Tensor | None = None,
    offset: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Return the tail of a residual block with fixed statistics: running ones, or frozen.

    ::

        x = p · (z − center) + q
        out = relu(x · σ(slope · (z − center) + offset) + residual)

    Differentiable once, in z, p, q, slope, offset and residual.

    Args:
        z: The map that the last convolution gives, which may be empty. One that is dense in
            neither usual order is copied first.
        center: The norm's mean, a buffer.
        p: γ / √(var + eps) of the block's norm.
        q: β of the block's norm.
        slope: What the gate multiplies z − center with; None for a block without a gate.
        offset: What the gate adds.
        residual: The shortcut, of z's type.
        relu: Whether a ReLU ends the block.
        inplace: Whether the output takes the place of z, which nobody else may need then. For
            inference: it cannot be differentiated.

    Shape:
        z, residual, out: ``(B, C, H, W)``. Vectors: ``(C,)``.

    Raises:
        InputError: Shapes, types or devices do not fit, or a gradient is wanted in place.
    """
    vectors = tuple(vector(v, z) for v in (center, p, q, slope, offset))
    if not inplace:
        out: Tensor = fixed_op(z, *vectors, residual, relu)
        return out
    wanted = (z, p, q, slope, offset, residual)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in wanted):
        raise InputError(
            "block_tail_fixed: expected nothing that requires a gradient where the output takes "
            "z's place, got some. Call it under torch.no_grad(), or with inplace=False."
        )
    fixed_op_(z, *vectors, residual, relu)
    return z
