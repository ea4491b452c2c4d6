# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""The reductions: one pass over the map, a partial result for each split, no atomics.

A program takes a block of statistics and a contiguous share ("split") of its tiles. Each lane of a
tile keeps its own running values; lanes meet once, at the end. The kernels of `_combine` join the
splits. Every order of addition follows from the sizes alone.
"""

from ._parts import SIZES, branch, gate, tile_start, vector, within
from ._triton import tl, triton


@triton.jit
def share(
    outer,
    channels,
    inner,
    per_split,
    COLUMNS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Return what this program takes of the map: group, first statistic, first and last tile.

    After them what all tiles have in common: the places in one, the mask of its statistics, the
    values of a statistic in an image and the tiles that these are cut into, and the sizes again,
    with what divides them.
    """
    if COLUMNS:
        channels = channels // UNIT * UNIT
        extent, images = outer, 1
    else:
        inner = inner // UNIT * UNIT
        extent, images = inner, outer
    k_blocks, r_blocks = tl.cdiv(channels, BLOCK_K), tl.cdiv(extent, BLOCK_R)
    block, split = tl.program_id(0), tl.program_id(1)
    group, k0 = block // k_blocks, block % k_blocks * BLOCK_K
    first = split * per_split
    last = tl.minimum(first + per_split, images * r_blocks)
    k, r = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_R)[None, :]
    places, inside = within(k, r, channels, inner, COLUMNS), k0 + k < channels
    return group, k0, first, last, places, inside, extent, r_blocks, channels, inner


@triton.jit
def following(image, r_block, r_blocks):
    """Return the next tile: in the same image, or the first one in the next."""
    r_block += 1
    wrapped = (r_block == r_blocks).to(tl.int32)
    return image + wrapped, tl.where(r_block == r_blocks, 0, r_block)


@triton.jit(do_not_specialize=SIZES)
def moments(
    z,
    mean,
    m2,
    count,
    outer,
    channels,
    inner,
    statistics,
    per_split,
    COLUMNS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Write mean, sum of squared deviations and count of each split, shape (splits, statistics).

    Welford's update in each lane, Chan's rule between lanes, both on values less the first one of
    the statistic: exact where the mean is far larger than the deviation, and no worse elsewhere.
    """
    group, k0, first, last, places, inside, extent, r_blocks, channels, inner = share(
        outer, channels, inner, per_split, COLUMNS, UNIT, BLOCK_K, BLOCK_R
    )
    k, r = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_R)[None, :]
    image, r_block = first // r_blocks, first % r_blocks
    start = tile_start(group, image, k0, r_block * BLOCK_R, outer, channels, inner, COLUMNS)
    pivot = tl.load(z + start + within(k, 0, channels, inner, COLUMNS), mask=inside, other=0.0)
    pivot = pivot.to(tl.float32)
    lane_mean = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    lane_m2 = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    ragged = extent - (r_blocks - 1) * BLOCK_R  # lanes that the last tile of an image fills
    visited, cut = 0, 0  # tiles seen; those of them that were cut off
    for _ in range(first, last):
        start = tile_start(group, image, k0, r_block * BLOCK_R, outer, channels, inner, COLUMNS)
        valid = r_block * BLOCK_R + r < extent
        value = tl.load(z + start + places, mask=valid & inside, other=0.0).to(tl.float32) - pivot
        visited += 1
        cut += (r_block == r_blocks - 1).to(tl.int32)
        # Two counts for all lanes: a division a tile, where a count a lane would need one a value.
        share_of_one = tl.where(r < ragged, 1.0 / visited, 1.0 / tl.maximum(visited - cut, 1))
        delta = tl.where(valid, value - lane_mean, 0.0)
        lane_mean += delta * share_of_one
        lane_m2 += delta * (value - lane_mean)
        image, r_block = following(image, r_block, r_blocks)

    weight = tl.where(r < ragged, visited, visited - cut).to(tl.float32)
    total = (visited * BLOCK_R - cut * (BLOCK_R - ragged)).to(tl.float32)
    joined = tl.sum(lane_mean * weight, axis=1, keep_dims=True) / total
    apart = lane_mean - joined
    joined_m2 = tl.sum(lane_m2 + apart * apart * weight, axis=1, keep_dims=True)
    s = tl.program_id(1) * statistics + group * channels + k0 + k
    tl.store(mean + s, joined + pivot, mask=inside)
    tl.store(m2 + s, joined_m2, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(count + tl.program_id(1), total)


@triton.jit
def store_pair(place, step, first, second, inside):
    """Write the sums of two tiles over their values, and return the place after them."""
    tl.store(place, tl.sum(first, axis=1, keep_dims=True), mask=inside)
    tl.store(place + step, tl.sum(second, axis=1, keep_dims=True), mask=inside)
    return place + 2 * step


@triton.jit(do_not_specialize=SIZES)
def gradient_sums(
    dy,
    z,
    out,
    dz,
    dresidual,
    sums,
    center,
    p,
    q,
    slope,
    offset,
    outer,
    channels,
    inner,
    statistics,
    splits,
    per_split,
    RELU: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Write the sums that the gradients need, each of shape (splits, statistics).

    With p: Σ dx·(z − center), Σ dx. With a slope, after them: Σ dt·(z − center), Σ dt. Where there
    is a residual, its gradient is written on the way, and the pass that follows reads that and no
    output. With fixed statistics dz waits for no sum and is written here too: no pass follows.
    """
    group, k0, first, last, places, inside, extent, r_blocks, channels, inner = share(
        outer, channels, inner, per_split, COLUMNS, UNIT, BLOCK_K, BLOCK_R
    )
    k, r = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_R)[None, :]
    s = group * channels + k0 + k
    centers, ps, qs = vector(center, s, inside), vector(p, s, inside), vector(q, s, inside)
    slopes, terms = vector(slope, s, inside), vector(offset, s, inside)
    image, r_block = first // r_blocks, first % r_blocks
    dx_centred = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    dx_sum = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    dt_centred = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    dt_sum = tl.zeros((BLOCK_K, BLOCK_R), tl.float32)
    for _ in range(first, last):
        start = tile_start(group, image, k0, r_block * BLOCK_R, outer, channels, inner, COLUMNS)
        mask = (r_block * BLOCK_R + r < extent) & inside
        value = tl.load(z + start + places, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(dy + start + places, mask=mask, other=0.0).to(tl.float32)
        centred = value - centers
        x = branch(centred, value, ps, qs)
        opened = gate(centred, slopes, terms)
        if RELU:
            y = x * opened
            if out is not None:
                y = tl.load(out + start + places, mask=mask, other=0.0).to(tl.float32)
            grad = tl.where(y <= 0.0, 0.0, grad)  # a NaN went through the ReLU, and comes back
        if dresidual is not None:
            tl.store(dresidual + start + places, grad.to(dresidual.dtype.element_ty), mask=mask)
        dx = grad * opened
        result = dx
        if p is not None:
            dx_centred += dx * centred
            dx_sum += dx
            result = dx * ps
        if slope is not None:
            dt = dx * x * (1.0 - opened)
            dt_centred += dt * centred
            dt_sum += dt
            result += dt * slopes
        if dz is not None:
            tl.store(dz + start + places, result.to(dz.dtype.element_ty), mask=mask)
        image, r_block = following(image, r_block, r_blocks)

    place, step = sums + tl.program_id(1) * statistics + s, splits * statistics
    if p is not None:
        place = store_pair(place, step, dx_centred, dx_sum, inside)
    if slope is not None:
        store_pair(place, step, dt_centred, dt_sum, inside)
