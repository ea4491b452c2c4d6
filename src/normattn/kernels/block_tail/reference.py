"""The formulas of both ops in plain PyTorch: what every kernel must equal. README.md derives them.

Any floating type and any device; inside float32, or float64 where the map is. The functions take
the arguments of a provider of kernels, so each can stand in for the other.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._layout import Over, like
from .._precision import wide

_Maybe = Tensor | None
Gradients = tuple[Tensor, _Maybe, _Maybe, _Maybe, _Maybe, _Maybe]
#: What a mean is taken over, as dimensions of (B, C, H, W).
_REDUCED = {"channel": (0, 2, 3), "pixel": (0, 1), "instance": (2, 3)}


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
    """Return the output with the statistics of ``z``, and these.

    ::

        x̂ = (z − mean) / √(var + eps)
        x = weight · x̂ + bias                                             or z without a weight
        t = scale · weight / √(weight² · var / (var + eps) + gate_eps) · x̂ + shift
                                                         or scale · x̂ + shift without a weight
        out = relu(x · σ(t) + residual)                            each part where it is asked for

    Args:
        z: The map, of shape ``(B, C, H, W)``.
        over: What shares a mean and a variance; see `Over`.
        eps: Added to the variance of z.
        weight: The norm's γ, of length K (C, or H·W for pixels); None for a gate on z itself.
        bias: The norm's β, of length K.
        scale: The gate's γ times its importance, of length K; None for no gate.
        shift: The gate's β times its importance, of length K.
        gate_eps: Added to the variance of x, by which the gate divides where there is a weight.
        residual: What is added, of z's shape.
        relu: Whether a ReLU ends it.

    Returns:
        The output in z's type and memory format; mean and biased variance, one value a statistic.
    """
    values = wide(z)
    gamma, beta, scales, shifts = (_spread(v, z, over) for v in (weight, bias, scale, shift))
    var, mean = torch.var_mean(values, dim=_REDUCED[over], correction=0, keepdim=True)
    normalised = (values - mean) * (var + eps).rsqrt()
    x = values if gamma is None else gamma * normalised + beta
    if scales is not None:
        slope = _slope(scales, gamma, var, eps, gate_eps).value
        x = x * torch.sigmoid(slope * normalised + shifts)
    return _finish(x, z, residual, relu), mean.flatten(), var.flatten()


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
    """Return the gradients of z, residual, weight, bias, scale, shift; None where there was none.

    Args as `forward`, and:
        dy: The gradient of the output, of z's shape.
        out: The output, which tells where a ReLU over a residual was open; None otherwise.
        mean, var: The statistics that it returned.
        residual: Whether there was one.
    """
    values = wide(z)
    means, variances = _spread(mean, z, over), _spread(var, z, over)
    gamma, beta, scales, shifts = (_spread(v, z, over) for v in (weight, bias, scale, shift))
    rstd = (variances + eps).rsqrt()
    normalised = (values - means) * rstd
    x = values if gamma is None else gamma * normalised + beta
    gate, slope = torch.ones_like(rstd), None
    if scales is not None:
        slope = _slope(scales, gamma, variances, eps, gate_eps)
        gate = torch.sigmoid(slope.value * normalised + shifts)

    def total(gradient: Tensor) -> Tensor:
        return gradient.sum(_REDUCED[over], keepdim=True)

    dsum = _through_relu(dy, x * gate if out is None else out) if relu else wide(dy)
    dx, count = dsum * gate, max(values.numel() // max(mean.numel(), 1), 1)
    # dn: of x̂, as it stands in x and in t. dvar: of var, as it stands in the gate's slope.
    dn = dvar = torch.zeros_like(rstd)
    dweight = dbias = dscale = dshift = None
    if gamma is not None:
        dn, dweight, dbias = gamma * dx, total(dx * normalised), total(dx)
    if slope is not None:
        dt = dx * x * (1 - gate)
        dslope, dshift = total(dt * normalised), total(dt)
        dn, dscale, dvar = dn + slope.value * dt, dslope * slope.by_scale, dslope * slope.by_var
        dweight = None if dweight is None else dweight + dslope * slope.by_weight
    dz = rstd * (dn - total(dn) / count - normalised * (total(dn * normalised) / count))
    dz = dz + 2 / count * dvar * (values - means)
    if gamma is None:
        dz = dz + dx
    dvectors = _sum((0,), dweight, dbias, dscale, dshift)
    return _as(dz, z), _as(dsum, z) if residual else None, *dvectors


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
    """Return the output with statistics that z has no part in: running ones, or frozen.

    ::

        x = p · (z − center) + q                                              or z without p
        out = relu(x · σ(slope · (z − center) + offset) + residual)
                                                         each part where it is asked for

    Args as `forward`, and:
        center: The mean, of length K. It is taken from z first: where it is far larger than the
            deviation, p · z + q would be the small difference of large numbers.
        p, q: γ / √(var + eps) and β of the norm, of length K; None for a gate on z itself.
        slope, offset: The same of the gate, of length K; None for no gate.
        out: Where the output goes; may be z.
    """
    values = wide(z)
    vectors = (_spread(v, z, over) for v in (center, p, q, slope, offset))
    centers, factors, terms, slopes, offsets = vectors
    centred = values - centers
    x = values if factors is None else factors * centred + terms
    if slopes is not None:
        x = x * torch.sigmoid(slopes * centred + offsets)
    result = _finish(x, z, residual, relu)
    return result if out is None else out.copy_(result)


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
    """Return the gradients of z, residual, p, q, slope and offset; None where there was none.

    Args as `forward_fixed`; dy, out and residual as `backward`.
    """
    values = wide(z)
    vectors = (_spread(v, z, over) for v in (center, p, q, slope, offset))
    centers, factors, terms, slopes, offsets = vectors
    centred = values - centers
    x = values if factors is None else factors * centred + terms
    gate = torch.ones_like(centers)
    if slopes is not None:
        gate = torch.sigmoid(slopes * centred + offsets)
    dsum = _through_relu(dy, x * gate if out is None else out) if relu else wide(dy)
    dx = dsum * gate
    dz, dp, dq, dslope, doffset = dx, None, None, None, None
    if factors is not None:
        dz, dp, dq = factors * dx, dx * centred, dx
    if slopes is not None:
        doffset = dx * x * (1 - gate)
        dz, dslope = dz + slopes * doffset, doffset * centred
    dvectors = _sum((0, 1) if over == "pixel" else (0, 2, 3), dp, dq, dslope, doffset)
    return _as(dz, z), _as(dsum, z) if residual else None, *dvectors


class _Slope(NamedTuple):
    """The gate's slope a in t = a · x̂ + shift, and its derivatives."""

    value: Tensor
    by_scale: Tensor
    by_weight: Tensor
    by_var: Tensor


def _slope(scale: Tensor, gamma: Tensor | None, var: Tensor, eps: float, gate_eps: float) -> _Slope:
    """Return the slope of a gate that normalises x, whose variance is known in closed form."""
    if gamma is None:  # x is z itself, and x̂ is normalised already
        return _Slope(scale, torch.ones_like(scale), torch.zeros_like(scale), torch.zeros_like(var))
    rstd = (gamma.square() * var / (var + eps) + gate_eps).rsqrt()
    by_weight = scale * gate_eps * rstd**3
    by_var = -0.5 * scale * (gamma * rstd) ** 3 * eps / (var + eps).square()
    return _Slope(scale * gamma * rstd, gamma * rstd, by_weight, by_var)


def _through_relu(dy: Tensor, y: Tensor) -> Tensor:
    """Return ``dy`` where the ReLU was open: not only for y > 0, a NaN went through it too."""
    return wide(dy).masked_fill(y <= 0, 0.0)


def _finish(x: Tensor, z: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    y = x if residual is None else x + residual
    return _as(torch.relu(y) if relu else y, z)


def _spread(vector: Tensor | None, z: Tensor, over: Over) -> Any:
    """Return a vector of length K or groups · K in the shape that broadcasts over ``z``."""
    if vector is None:
        return None
    channels, height, width = z.shape[1:]
    if over == "pixel":
        return vector.view(1, 1, height, width)
    return vector.view(vector.numel() // max(channels, 1), channels, 1, 1)


def _sum(reduced: tuple[int, ...], *grads: _Maybe) -> tuple[_Maybe, _Maybe, _Maybe, _Maybe]:
    a, b, c, d = (grad if grad is None else grad.sum(reduced).flatten() for grad in grads)
    return a, b, c, d


def _as(x: Tensor, z: Tensor) -> Tensor:
    return like(x.to(z.dtype), z)
