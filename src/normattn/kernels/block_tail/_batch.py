"""The op over the batch's own statistics, and its derivative."""

from typing import Any

import torch
from torch import Tensor

from .._checks import check, check_count, check_pair
from .._layout import dense, like, statistics
from .._library import define, differentiate
from .._providers import provider
from . import reference

_Maybe = Tensor | None


def _check(
    z: Tensor, weight: Tensor, bias: Tensor, scale: _Maybe, shift: _Maybe, residual: _Maybe
) -> None:
    check_pair("block_tail", scale=scale, shift=shift)
    vectors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
    check("block_tail", z, "channel", residual, **vectors)
    check_count("block_tail", z, "channel")


def _run(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: _Maybe,
    shift: _Maybe,
    residual: _Maybe,
    eps: float,
    gate_eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(z, weight, bias, scale, shift, residual)
    z = dense(z)
    out, mean, var = (provider(z) or reference).forward(
        z,
        over="channel",
        eps=eps,
        weight=weight,
        bias=bias,
        scale=scale,
        shift=shift,
        gate_eps=gate_eps,
        residual=residual if residual is None else like(residual, z),
        relu=relu,
    )
    return out, mean, var


def _fake(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: _Maybe,
    shift: _Maybe,
    residual: _Maybe,
    *options: object,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(z, weight, bias, scale, shift, residual)
    return torch.empty_like(dense(z)), statistics(z, "channel"), statistics(z, "channel")


batch_op = define(
    "block_tail(Tensor z, Tensor weight, Tensor bias, Tensor? scale, Tensor? shift,"
    " Tensor? residual, float eps, float gate_eps, bool relu)"
    " -> (Tensor out, Tensor mean, Tensor var)",
    _run,
    _fake,
)


def _run_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: _Maybe,
    shift: _Maybe,
    residual: bool,
    eps: float,
    gate_eps: float,
    relu: bool,
) -> list[Tensor]:
    _check_backward(dy, z, out, mean, var, weight, bias, scale, shift)
    z = dense(z)
    grads = (provider(z) or reference).backward(
        like(dy, z),
        z,
        out if out is None else like(out, z),
        over="channel",
        mean=mean,
        var=var,
        eps=eps,
        weight=weight,
        bias=bias,
        scale=scale,
        shift=shift,
        gate_eps=gate_eps,
        residual=residual,
        relu=relu,
    )
    return [grad for grad in grads if grad is not None]


def _fake_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: _Maybe,
    shift: _Maybe,
    residual: bool,
    *options: object,
) -> list[Tensor]:
    _check_backward(dy, z, out, mean, var, weight, bias, scale, shift)
    maps = [torch.empty_like(dense(z)) for _ in range(2 if residual else 1)]
    vectors = (weight, bias, scale, shift)
    return maps + [torch.empty_like(v) for v in vectors if v is not None]


def _check_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: _Maybe,
    shift: _Maybe,
) -> None:
    statistics = {"mean": mean, "var": var}
    vectors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
    check("block_tail_backward", z, "channel", dy, out, **statistics, **vectors)


batch_backward_op = define(
    "block_tail_backward(Tensor dy, Tensor z, Tensor? out, Tensor mean, Tensor var, Tensor weight,"
    " Tensor bias, Tensor? scale, Tensor? shift, bool residual, float eps, float gate_eps,"
    " bool relu) -> Tensor[]",
    _run_backward,
    _fake_backward,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    z, weight, bias, scale, shift, residual, *ctx.options = inputs
    out, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.residual, ctx.gated = residual is not None, scale is not None
    ctx.masked = ctx.residual and ctx.options[-1]
    vectors = (weight, bias, scale, shift)
    ctx.save_for_backward(z, out if ctx.masked else None, mean, var, *vectors)


def _differentiate(ctx: Any, dy: Tensor, *_: object) -> tuple[_Maybe, ...]:
    grads = iter(batch_backward_op(dy, *ctx.saved_tensors, ctx.masked, *ctx.options))
    dz = next(grads)
    # Without a ReLU the residual's gradient is dy itself, which no kernel need copy.
    dresidual = next(grads) if ctx.masked else dy if ctx.residual else None
    dweight, dbias = next(grads), next(grads)
    dscale, dshift = (next(grads), next(grads)) if ctx.gated else (None, None)
    return dz, dweight, dbias, dscale, dshift, dresidual, None, None, None


differentiate("block_tail", _save, _differentiate)
