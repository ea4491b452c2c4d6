"""The ops with given statistics, one of them in place, and their derivative."""

from typing import Any

import torch
from torch import Tensor

from .._checks import check, check_pair
from .._layout import dense, like
from .._library import define, differentiate
from .._providers import provider
from . import reference

_Maybe = Tensor | None
_ARGUMENTS = (
    "Tensor center, Tensor p, Tensor q, Tensor? slope, Tensor? offset, Tensor? residual, bool relu"
)


def _check(
    z: Tensor,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: _Maybe,
) -> None:
    check_pair("block_tail_fixed", slope=slope, offset=offset)
    vectors = {"center": center, "p": p, "q": q, "slope": slope, "offset": offset}
    check("block_tail_fixed", z, "channel", residual, **vectors)


def _run(
    z: Tensor,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: _Maybe,
    relu: bool,
    target: _Maybe = None,
) -> Tensor:
    _check(z, center, p, q, slope, offset, residual)
    z = dense(z)
    out: Tensor = (provider(z) or reference).forward_fixed(
        z,
        over="channel",
        center=center,
        p=p,
        q=q,
        slope=slope,
        offset=offset,
        residual=residual if residual is None else like(residual, z),
        relu=relu,
        out=target,
    )
    return out


def _fake(
    z: Tensor,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: _Maybe,
    relu: bool,
) -> Tensor:
    _check(z, center, p, q, slope, offset, residual)
    return torch.empty_like(dense(z))


def _run_inplace(
    z: Tensor,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: _Maybe,
    relu: bool,
) -> None:
    place = dense(z)
    _run(place, center, p, q, slope, offset, residual, relu, target=place)
    if place is not z:
        z.copy_(place)
    elif not z.is_inference():
        # A kernel writes behind autograd's back; whoever kept z for its backward must hear of it.
        torch.autograd.graph.increment_version(z)


def _fake_inplace(z: Tensor, *arguments: Any) -> None:
    _fake(z, *arguments)


fixed_op = define(f"block_tail_fixed(Tensor z, {_ARGUMENTS}) -> Tensor", _run, _fake)
fixed_op_ = define(
    f"block_tail_fixed_(Tensor(a!) z, {_ARGUMENTS}) -> ()", _run_inplace, _fake_inplace
)


def _run_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: bool,
    relu: bool,
) -> list[Tensor]:
    _check_backward(dy, z, out, center, p, q, slope, offset)
    z = dense(z)
    grads = (provider(z) or reference).backward_fixed(
        like(dy, z),
        z,
        out if out is None else like(out, z),
        over="channel",
        center=center,
        p=p,
        q=q,
        slope=slope,
        offset=offset,
        residual=residual,
        relu=relu,
    )
    return [grad for grad in grads if grad is not None]


def _fake_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
    residual: bool,
    relu: bool,
) -> list[Tensor]:
    _check_backward(dy, z, out, center, p, q, slope, offset)
    maps = [torch.empty_like(dense(z)) for _ in range(2 if residual else 1)]
    return maps + [torch.empty_like(v) for v in (p, q, slope, offset) if v is not None]


def _check_backward(
    dy: Tensor,
    z: Tensor,
    out: _Maybe,
    center: Tensor,
    p: Tensor,
    q: Tensor,
    slope: _Maybe,
    offset: _Maybe,
) -> None:
    vectors = {"center": center, "p": p, "q": q, "slope": slope, "offset": offset}
    check("block_tail_fixed_backward", z, "channel", dy, out, **vectors)


_backward_op = define(
    "block_tail_fixed_backward(Tensor dy, Tensor z, Tensor? out, Tensor center, Tensor p, Tensor q,"
    " Tensor? slope, Tensor? offset, bool residual, bool relu) -> Tensor[]",
    _run_backward,
    _fake_backward,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, center, p, q, slope, offset, residual, ctx.relu = inputs
    ctx.residual, ctx.gated = residual is not None, slope is not None
    ctx.masked = ctx.residual and ctx.relu
    ctx.save_for_backward(z, output if ctx.masked else None, center, p, q, slope, offset)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[_Maybe, ...]:
    grads = iter(_backward_op(dy, *ctx.saved_tensors, ctx.masked, ctx.relu))
    dz = next(grads)
    dresidual = next(grads) if ctx.masked else dy if ctx.residual else None
    dp, dq = next(grads), next(grads)
    dslope, doffset = (next(grads), next(grads)) if ctx.gated else (None, None)
    return dz, None, dp, dq, dslope, doffset, dresidual, None


differentiate("block_tail_fixed", _save, _differentiate)
