# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""The elementwise passes: each tile of the map is loaded once and written once.

Programs run from the end of the map to its beginning: the end is what the reduction before read
last, and what the device's cache may still hold.

Each value is computed from its own inputs alone, so the tile may be tuned: no choice of it changes
a bit of the result. (The reductions are not tuned, for that reason.)
"""

from ._parts import SIZES, branch, gate, tile_start, vector, within
from ._triton import tl, triton

#: What is tuned: the values in a tile, and the warps that share it. The first is taken untried
#: where nothing can be timed, as in Triton's interpreter.
CONFIGS = [
    triton.Config({"TILE": tile}, num_warps=warps)
    for tile, warps in ((2048, 4), (1024, 4), (4096, 8), (2048, 8), (4096, 4), (1024, 2))
]
if triton.knobs.runtime.interpret:
    CONFIGS = CONFIGS[:1]


def _timed(call, quantiles):
    """Return a candidate's time; briefer than the default, for there are many layers."""
    return triton.testing.do_bench(call, warmup=5, rep=20, quantiles=quantiles)


def _tuned(kernel):
    """Return a kernel that tries its configurations once for each kind of map.

    `out` is put back between trials, for it may be the input itself.
    """
    return triton.autotune(
        configs=CONFIGS,
        key=["LARGE", "COLUMNS", "UNIT", "WIDTH"],
        restore_value=["out"],
        do_bench=_timed,
        cache_results=True,
    )(kernel)


@triton.jit
def locate(
    outer,
    channels,
    inner,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Return this program's tile: its values' places, their mask, statistics and their mask."""
    k_blocks = tl.cdiv(channels, BLOCK_K)
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    if COLUMNS:
        extent, images = outer, 1
        r_blocks = tl.cdiv(extent, BLOCK_R)
        k_block, rest = program % k_blocks, program // k_blocks
        r_block, slab = rest % r_blocks, rest // r_blocks
    else:
        extent, images = inner, outer
        r_blocks = tl.cdiv(extent, BLOCK_R)
        r_block, rest = program % r_blocks, program // r_blocks
        k_block, slab = rest % k_blocks, rest // k_blocks
    group, image = slab // images, slab % images
    k0, r0 = k_block * BLOCK_K, r_block * BLOCK_R
    k = tl.arange(0, BLOCK_K)[:, None]
    r = tl.arange(0, BLOCK_R)[None, :]
    start = tile_start(group, image, k0, r0, outer, channels, inner, COLUMNS)
    inside = k0 + k < channels
    mask = (r0 + r < extent) & inside
    s = group * channels + k0 + k
    return start, within(k, r, channels, inner, COLUMNS), mask, s, inside


@_tuned
@triton.jit(do_not_specialize=SIZES)
def apply(
    z,
    residual,
    out,
    center,
    p,
    q,
    slope,
    offset,
    outer,
    channels,
    inner,
    RELU: tl.constexpr,
    LARGE: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write relu(x · σ(slope · (z − center) + offset) + residual), each part where it is there."""
    other: tl.constexpr = max(1, min(TILE // WIDTH, HEIGHT))
    BLOCK_K: tl.constexpr = WIDTH if COLUMNS else other
    BLOCK_R: tl.constexpr = other if COLUMNS else WIDTH
    if COLUMNS:
        channels = channels // UNIT * UNIT
    else:
        inner = inner // UNIT * UNIT
    start, offsets, mask, s, inside = locate(outer, channels, inner, COLUMNS, BLOCK_K, BLOCK_R)
    value = tl.load(z + start + offsets, mask=mask, other=0.0).to(tl.float32)
    centred = value - vector(center, s, inside)
    y = branch(centred, value, vector(p, s, inside), vector(q, s, inside))
    y = y * gate(centred, vector(slope, s, inside), vector(offset, s, inside))
    if residual is not None:
        y += tl.load(residual + start + offsets, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + start + offsets, y.to(out.dtype.element_ty), mask=mask)


@_tuned
@triton.jit(do_not_specialize=SIZES)
def apply_gradient(
    dy,
    z,
    out,
    center,
    p,
    q,
    slope,
    offset,
    rest,
    outer,
    channels,
    inner,
    statistics,
    RELU: tl.constexpr,
    LARGE: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write dz = p · dx + slope · dt − c − d · (z − center) to `out`; `rest` holds c and d.

    With a residual, `dy` is what the reduction wrote: the ReLU is behind it.
    """
    other: tl.constexpr = max(1, min(TILE // WIDTH, HEIGHT))
    BLOCK_K: tl.constexpr = WIDTH if COLUMNS else other
    BLOCK_R: tl.constexpr = other if COLUMNS else WIDTH
    if COLUMNS:
        channels = channels // UNIT * UNIT
    else:
        inner = inner // UNIT * UNIT
    start, offsets, mask, s, inside = locate(outer, channels, inner, COLUMNS, BLOCK_K, BLOCK_R)
    ps, slopes = vector(p, s, inside), vector(slope, s, inside)
    value = tl.load(z + start + offsets, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(dy + start + offsets, mask=mask, other=0.0).to(tl.float32)
    centred = value - vector(center, s, inside)
    x = branch(centred, value, ps, vector(q, s, inside))
    opened = gate(centred, slopes, vector(offset, s, inside))
    if RELU:
        grad = tl.where(x * opened <= 0.0, 0.0, grad)
    by_x = 1.0 if p is None else ps
    if slope is not None:
        by_x += slopes * (x * (1.0 - opened))
    common = vector(rest, s, inside) + vector(rest + statistics, s, inside) * centred
    result = grad * opened * by_x - common
    tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=mask)
