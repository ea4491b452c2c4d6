"""The gate as ops of torch: what compiles, and takes kernels where there are any."""

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from .._checks import check, check_count
from .._layout import Over, dense, like, statistics
from .._library import define, differentiate
from .._precision import vector
from .._providers import provider
from . import reference

Three = tuple[Tensor, Tensor, Tensor]


def norm_gate(x: Tensor, scale: Tensor, shift: Tensor, *, over: Over, eps: float) -> Three:
    """Return ``x`` times the gate of its own statistics, and these.

    ::

        y = x · σ(scale · x̂ + shift),    x̂ = (x − mean) / √(var + eps)

    Differentiable once, in x, scale and shift; nothing but x and vectors is kept for that.

    Args:
        x: The map. One that is dense in neither usual order is copied first.
        scale: What multiplies x̂: γ and the importance together.
        shift: What is added: β and the importance together.
        over: What shares a mean and a variance: "channel" (NAM), "pixel" (spatial NAM) or
            "instance" (EAN).
        eps: Added to the variance.

    Shape:
        x and y: ``(B, C, H, W)``. scale and shift: ``(K,)``, K = C, or H·W over pixels. mean and
        var (biased; both without gradient): ``(K,)``, or ``(B·C,)`` over instances.

    Raises:
        InputError: Shapes, types or devices do not fit, or a batch's mean would be of one value.

    Source:
        Liu et al., "NAM", 2021, arXiv:2111.12419; Li et al., "EAN", AAAI 2024. README.md derives
        the backward.
    """
    y, mean, var = _norm_gate(x, vector(scale, x), vector(shift, x), eps, over)
    return y, mean, var


def norm_gate_fixed(
    x: Tensor, center: Tensor, slope: Tensor, offset: Tensor, *, over: Over
) -> Tensor:
    """Return ``x`` times a gate whose statistics are fixed: running ones, or frozen.

    ::

        y = x · σ(slope · (x − center) + offset)

    Differentiable once, in x, slope and offset.

    Args:
        x: The map, which may be empty. One that is dense in neither usual order is copied first.
        center: The mean.
        slope: The scale over √(var + eps).
        offset: The shift.
        over: "channel" or "pixel"; the statistics of instances are never fixed.

    Shape:
        x and y: ``(B, C, H, W)``. center, slope, offset: ``(K,)``, K = C, or H·W over pixels.

    Raises:
        InputError: Shapes, types or devices do not fit.
    """
    vectors = (vector(center, x), vector(slope, x), vector(offset, x))
    y: Tensor = _norm_gate_fixed(x, *vectors, over)
    return y


def _run(x: Tensor, scale: Tensor, shift: Tensor, eps: float, over: Over) -> Three:
    _check(x, scale, shift, over)
    x = dense(x)
    if x.numel() == 0:
        return torch.empty_like(x), statistics(x, over).zero_(), statistics(x, over).zero_()
    y, mean, var = _kernels(x).forward(x, over=over, eps=eps, scale=scale, shift=shift)
    return y, mean, var


def _fake(x: Tensor, scale: Tensor, shift: Tensor, eps: float, over: Over) -> Three:
    _check(x, scale, shift, over)
    return torch.empty_like(dense(x)), statistics(x, over), statistics(x, over)


def _check(x: Tensor, scale: Tensor, shift: Tensor, over: Over) -> None:
    check("norm_gate", x, over, scale=scale, shift=shift)
    check_count("norm_gate", x, over)


def _kernels(x: Tensor) -> Any:
    return provider(x) or reference


def _run_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    over: Over,
) -> Three:
    check("norm_gate_backward", x, over, dy, mean=mean, var=var, scale=scale, shift=shift)
    x = dense(x)
    dx, _, _, _, dscale, dshift = _kernels(x).backward(
        like(dy, x),
        x,
        None,
        over=over,
        mean=mean,
        var=var,
        eps=eps,
        weight=None,
        bias=None,
        scale=scale,
        shift=shift,
        gate_eps=0.0,
        residual=False,
        relu=False,
    )
    return dx, dscale, dshift


def _fake_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    over: Over,
) -> Three:
    check("norm_gate_backward", x, over, dy, mean=mean, var=var, scale=scale, shift=shift)
    return torch.empty_like(dense(x)), torch.empty_like(scale), torch.empty_like(shift)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    x, scale, shift, ctx.eps, ctx.over = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.save_for_backward(x, mean, var, scale, shift)


def _differentiate(ctx: Any, dy: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    return *norm_gate_backward(dy, *ctx.saved_tensors, ctx.eps, ctx.over), None, None


def _run_fixed(x: Tensor, center: Tensor, slope: Tensor, offset: Tensor, over: Over) -> Tensor:
    _check_fixed("norm_gate_fixed", x, over, center=center, slope=slope, offset=offset)
    x = dense(x)
    y: Tensor = _kernels(x).forward_fixed(x, over=over, center=center, slope=slope, offset=offset)
    return y


def _fake_fixed(x: Tensor, center: Tensor, slope: Tensor, offset: Tensor, over: Over) -> Tensor:
    _check_fixed("norm_gate_fixed", x, over, center=center, slope=slope, offset=offset)
    return torch.empty_like(dense(x))


def _check_fixed(who: str, x: Tensor, over: Over, *maps: Tensor, **vectors: Tensor) -> None:
    if over == "instance":
        raise InputError(
            f"{who}: expected over to be 'channel' or 'pixel', got 'instance'. Take norm_gate, in "
            "eval mode too: an image's statistics are its own."
        )
    check(who, x, over, *maps, **vectors)


def _run_fixed_backward(
    dy: Tensor, x: Tensor, center: Tensor, slope: Tensor, offset: Tensor, over: Over
) -> Three:
    vectors = {"center": center, "slope": slope, "offset": offset}
    _check_fixed("norm_gate_fixed_backward", x, over, dy, **vectors)
    x = dense(x)
    dx, _, _, _, dslope, doffset = _kernels(x).backward_fixed(
        like(dy, x), x, None, over=over, p=None, q=None, residual=False, relu=False, **vectors
    )
    return dx, dslope, doffset


def _fake_fixed_backward(
    dy: Tensor, x: Tensor, center: Tensor, slope: Tensor, offset: Tensor, over: Over
) -> Three:
    vectors = {"center": center, "slope": slope, "offset": offset}
    _check_fixed("norm_gate_fixed_backward", x, over, dy, **vectors)
    return torch.empty_like(dense(x)), torch.empty_like(slope), torch.empty_like(offset)


def _save_fixed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.over = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_fixed(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    dx, dslope, doffset = _norm_gate_fixed_backward(dy, *ctx.saved_tensors, ctx.over)
    return dx, None, dslope, doffset, None


_norm_gate = define(
    "norm_gate(Tensor x, Tensor scale, Tensor shift, float eps, str over)"
    " -> (Tensor y, Tensor mean, Tensor var)",
    _run,
    _fake,
)
norm_gate_backward = define(
    "norm_gate_backward(Tensor dy, Tensor x, Tensor mean, Tensor var, Tensor scale, Tensor shift,"
    " float eps, str over) -> (Tensor dx, Tensor dscale, Tensor dshift)",
    _run_backward,
    _fake_backward,
)
_norm_gate_fixed = define(
    "norm_gate_fixed(Tensor x, Tensor center, Tensor slope, Tensor offset, str over) -> Tensor",
    _run_fixed,
    _fake_fixed,
)
_norm_gate_fixed_backward = define(
    "norm_gate_fixed_backward(Tensor dy, Tensor x, Tensor center, Tensor slope, Tensor offset,"
    " str over) -> (Tensor dx, Tensor dslope, Tensor doffset)",
    _run_fixed_backward,
    _fake_fixed_backward,
)
differentiate("norm_gate", _save, _differentiate)
differentiate("norm_gate_fixed", _save_fixed, _differentiate_fixed)
