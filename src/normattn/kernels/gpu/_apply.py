# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""The elementwise passes: each tile of the map is loaded once and written once.

Programs run from the end of the map to its beginning: the end is what the reduction before read
last, and what the device's cache may still hold.

Each value is computed from its own inputs alone, so the tile may be tuned: no choice of it changes
a bit of the result. (The reductions are not tuned, for that reason.)
"""

from ._parts import SIZES, branch, gate, tile_start, vector, within
from ._triton import tl, triton

#: What is tuned: the values in a tile, the tiles that a program takes with one load of its
#: coefficients, and its warps. The first is taken untried where nothing can be timed, as in
#: Triton's interpreter.
CONFIGS = [
    triton.Config({"TILE": tile, "STEPS": steps}, num_warps=warps)
    for tile, steps, warps in (
        (1024, 2, 4),
        (1024, 1, 4),
        (2048, 1, 4),
        (4096, 1, 8),
        (1024, 8, 4),
        (2048, 4, 8),
    )
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
    STEPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Return where this program's tiles lie: it takes STEPS of them for the same statistics.

    One below the other in columns, in one image after the other in planes. Returned are the place
    of the first, the way from each to the next, the places in a tile, the statistics and their
    mask, a tile's mask, and how far the map goes on from the first tile, in rows or in images.
    """
    k_blocks = tl.cdiv(channels, BLOCK_K)
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    k = tl.arange(0, BLOCK_K)[:, None]
    r = tl.arange(0, BLOCK_R)[None, :]
    if COLUMNS:
        chunks = tl.cdiv(outer, BLOCK_R * STEPS)
        k_block, rest = program % k_blocks, program // k_blocks
        group, image, r0 = rest // chunks, 0, rest % chunks * (BLOCK_R * STEPS)
        stride = channels * BLOCK_R
        known = k_block * BLOCK_K + k < channels
        inside, left = known, outer - r0 - r
    else:
        chunks, r_blocks = tl.cdiv(outer, STEPS), tl.cdiv(inner, BLOCK_R)
        r0, rest = program % r_blocks * BLOCK_R, program // r_blocks
        k_block, slab = rest % k_blocks, rest // k_blocks
        group, image = slab // chunks, slab % chunks * STEPS
        stride = channels.to(tl.int64) * inner
        known = k_block * BLOCK_K + k < channels
        inside = known & (r0 + r < inner)
        left = tl.full((1, 1), outer - image, tl.int32)
    k0 = k_block * BLOCK_K
    start = tile_start(group, image, k0, r0, outer, channels, inner, COLUMNS)
    places = within(k, r, channels, inner, COLUMNS)
    return start, stride, places, group * channels + k0 + k, known, inside, left


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
    STEPS: tl.constexpr,
):
    """Write relu(x · σ(slope · (z − center) + offset) + residual), each part where it is there."""
    other: tl.constexpr = max(1, min(TILE // WIDTH, HEIGHT))
    BLOCK_K: tl.constexpr = WIDTH if COLUMNS else other
    BLOCK_R: tl.constexpr = other if COLUMNS else WIDTH
    if COLUMNS:
        channels = channels // UNIT * UNIT
    else:
        inner = inner // UNIT * UNIT
    at, stride, places, s, known, inside, left = locate(
        outer, channels, inner, COLUMNS, STEPS, BLOCK_K, BLOCK_R
    )
    centers, ps, qs = vector(center, s, known), vector(p, s, known), vector(q, s, known)
    slopes, terms = vector(slope, s, known), vector(offset, s, known)
    for step in tl.static_range(STEPS):
        mask = inside & (left > step * (BLOCK_R if COLUMNS else 1))
        value = tl.load(z + at + places, mask=mask, other=0.0).to(tl.float32)
        centred = value - centers
        y = branch(centred, value, ps, qs) * gate(centred, slopes, terms)
        if residual is not None:
            y += tl.load(residual + at + places, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out + at + places, y.to(out.dtype.element_ty), mask=mask)
        at += stride


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
    STEPS: tl.constexpr,
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
    at, stride, places, s, known, inside, left = locate(
        outer, channels, inner, COLUMNS, STEPS, BLOCK_K, BLOCK_R
    )
    centers, ps, qs = vector(center, s, known), vector(p, s, known), vector(q, s, known)
    slopes, terms = vector(slope, s, known), vector(offset, s, known)
    constants, linears = vector(rest, s, known), vector(rest + statistics, s, known)
    for step in tl.static_range(STEPS):
        mask = inside & (left > step * (BLOCK_R if COLUMNS else 1))
        value = tl.load(z + at + places, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(dy + at + places, mask=mask, other=0.0).to(tl.float32)
        centred = value - centers
        x = branch(centred, value, ps, qs)
        opened = gate(centred, slopes, terms)
        if RELU:
            grad = tl.where(x * opened <= 0.0, 0.0, grad)  # a NaN went through, and comes back
        by_x = 1.0 if p is None else ps
        if slope is not None:
            by_x += slopes * (x * (1.0 - opened))
        result = grad * opened * by_x - (constants + linears * centred)
        tl.store(out + at + places, result.to(out.dtype.element_ty), mask=mask)
        at += stride
