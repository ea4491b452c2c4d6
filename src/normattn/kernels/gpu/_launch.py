"""A function a kernel: sizes to grids, tensors to arguments."""

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._layout import Over, layout
from . import _apply, _combine, _reduce
from ._tiles import Tiles, tiles

Maybe = Tensor | None
Vectors = tuple[Maybe, Maybe, Maybe, Maybe]

#: Maps that no cache holds are tuned apart from those that one may.
_LARGE_BYTES = 32 << 20
#: Partial results that a program of `_combine` holds at a time.
_COMBINE_TILE = 2048
#: A tuned kernel is one object, which keeps what it is tuning; each device has a thread that calls.
_TUNING = threading.Lock()
#: Multiplication and addition in one rounding: Triton's default, which later versions reverse.
_FUSED = {"enable_fp_fusion": True}


class Coefficients(NamedTuple):
    """What a map's values meet, one of each a statistic; see the reference's `forward_fixed`."""

    center: Tensor
    p: Maybe
    q: Maybe
    slope: Maybe
    offset: Maybe


class Norms(NamedTuple):
    """What a training forward was given: the vectors, and what is added to the variances."""

    weight: Maybe
    bias: Maybe
    scale: Maybe
    shift: Maybe
    eps: float
    gate_eps: float


def for_reduction(z: Tensor, over: Over) -> Tiles:
    """Return the tiles of the reductions: narrow, for each column is a partial result."""
    return tiles(layout(z, over), widest_columns=64)


def moments(z: Tensor, shape: Tiles) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, sum of squared deviations and count of each split."""
    blocks, splits, per_split = shape.splits()
    partial = _floats(z, 2, splits, shape.statistics)
    count = _floats(z, splits)
    _reduce.moments[(blocks, splits)](
        z,
        partial[0],
        partial[1],
        count,
        *shape.sizes,
        shape.statistics,
        per_split,
        **_reduction(shape),
    )
    return partial[0], partial[1], count


def coefficients(
    shape: Tiles,
    mean: Tensor,
    var: Tensor,
    norms: Norms,
    parts: tuple[Tensor, Tensor, Tensor] | None,
) -> Coefficients:
    """Return the coefficients; before that fill mean and var, where parts of them are given."""
    weight, bias, scale, shift, eps, gate_eps = norms
    splits = 1 if parts is None else len(parts[2])
    p = None if weight is None else torch.empty_like(mean)
    slope = None if scale is None else torch.empty_like(mean)
    grid, chunks = _combination(shape.statistics, splits)
    _combine.coefficients[grid](
        *(parts or (None, None, None)),
        mean,
        var,
        p,
        slope,
        weight,
        scale,
        eps,
        gate_eps,
        shape.statistics,
        shape.channels,
        splits,
        **chunks,
        **_FUSED,
    )
    return Coefficients(mean, p, _each(bias, shape), slope, _each(shift, shape))


def given(shape: Tiles, center: Tensor, vectors: Vectors) -> Coefficients:
    """Return fixed coefficients, one of each a statistic."""
    return Coefficients(*(_each(vector, shape) for vector in (center, *vectors)))


def apply(
    z: Tensor, over: Over, found: Coefficients, residual: Maybe, relu: bool, out: Tensor
) -> Tensor:
    """Fill ``out``, which may be ``z``, with the output."""
    shape = tiles(layout(z, over), widest_columns=256)
    added = None if residual is None else like(z, residual)
    with _TUNING:
        _apply.apply[_grid(shape)](
            z, added, out, *found, *shape.sizes, RELU=relu, **_elementwise(z, shape)
        )
    return out


def gradient_sums(
    dy: Tensor,
    z: Tensor,
    out: Maybe,
    shape: Tiles,
    found: Coefficients,
    dz: Maybe,
    dresidual: Maybe,
    relu: bool,
) -> Tensor:
    """Return the sums of each split; fill dresidual and dz, where they are given."""
    blocks, splits, per_split = shape.splits()
    rows = 2 * (found.p is not None) + 2 * (found.slope is not None)
    sums = _floats(z, rows, splits, shape.statistics)
    mask = like(z, out) if relu and dresidual is not None and out is not None else None
    _reduce.gradient_sums[(blocks, splits)](
        like(z, dy),
        z,
        mask,
        dz,
        dresidual,
        sums,
        *found,
        *shape.sizes,
        shape.statistics,
        splits,
        per_split,
        RELU=relu,
        **_reduction(shape),
    )
    return sums


def gradients(
    sums: Tensor, shape: Tiles, found: Coefficients, var: Maybe, norms: Norms | None
) -> tuple[Vectors, Maybe]:
    """Return the gradients of the four vectors, and the constants of dz.

    Of weight, bias, scale and shift with `norms`; without, of p, q, slope and offset, and no
    constants.
    """
    rows, splits, statistics = sums.shape
    affine, gated = found.p is not None, found.slope is not None
    results = _floats(sums, rows, statistics)
    rest = None if norms is None else _floats(sums, 2, statistics)
    grid, chunks = _combination(statistics, splits)
    _combine.gradients[grid](
        sums,
        results,
        rest,
        var,
        norms and norms.weight,
        norms and norms.scale,
        norms.eps if norms else 0.0,
        norms.gate_eps if norms else 0.0,
        statistics,
        shape.channels,
        splits,
        shape.outer * shape.inner,
        AFFINE=affine,
        GATE=gated,
        **chunks,
        **_FUSED,
    )
    if shape.groups > 1:
        results = results.view(rows, shape.groups, shape.channels).sum(1)
    found_rows = list(results.unbind())
    first = (found_rows.pop(0), found_rows.pop(0)) if affine else (None, None)
    second = (found_rows[0], found_rows[1]) if gated else (None, None)
    return (*first, *second), rest


def apply_gradient(
    dy: Tensor, z: Tensor, over: Over, found: Coefficients, rest: Tensor, relu: bool
) -> Tensor:
    """Return dz."""
    shape = tiles(layout(z, over), widest_columns=256)
    dz, dy = torch.empty_like(z), like(z, dy)
    sizes = (*shape.sizes, shape.statistics)
    with _TUNING:
        _apply.apply_gradient[_grid(shape)](
            dy, z, dz, *found, rest, *sizes, RELU=relu, **_elementwise(z, shape)
        )
    return dz


def like(z: Tensor, other: Tensor) -> Tensor:
    """Return a map in z's order in memory."""
    if other.stride() == z.stride():
        return other
    order = torch.contiguous_format if z.is_contiguous() else torch.channels_last
    return other.contiguous(memory_format=order)


def _reduction(shape: Tiles) -> dict[str, Any]:
    block_k, block_r = shape.reduction()
    direction = {"COLUMNS": shape.columns, "UNIT": shape.unit}
    return {"BLOCK_K": block_k, "BLOCK_R": block_r, "num_warps": 4, **direction, **_FUSED}


def _elementwise(z: Tensor, shape: Tiles) -> dict[str, Any]:
    direction = {"COLUMNS": shape.columns, "UNIT": shape.unit}
    extent = {"WIDTH": shape.width, "HEIGHT": shape.height}
    return {"LARGE": z.nbytes >= _LARGE_BYTES, **extent, **direction, **_FUSED}


def _combination(statistics: int, splits: int) -> tuple[tuple[int], dict[str, int]]:
    chunk = min(1 << (splits - 1).bit_length(), 256)
    block = min(_COMBINE_TILE // chunk, 128)
    return (-(-statistics // block),), {"SPLITS": chunk, "BLOCK": block}


def _grid(shape: Tiles) -> Any:
    return lambda meta: (shape.grid(meta["TILE"], meta["STEPS"]),)


def _each(vector: Any, shape: Tiles) -> Any:
    """Return a vector with one value a statistic, where it has one an index."""
    if vector is None or shape.groups == 1:
        return vector
    return vector.repeat(shape.statistics // vector.numel())


def _floats(like: Tensor, *sizes: int) -> Tensor:
    return like.new_empty(sizes, dtype=torch.float32)
