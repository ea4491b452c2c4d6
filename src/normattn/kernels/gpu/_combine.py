# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""From the splits' partial results to statistics, coefficients and the vectors' gradients.

All in float64: a few thousand values, on which every value of the map depends. The formulas are
derived in the README of `kernels/block_tail`.
"""

from ._parts import SIZES
from ._triton import tl, triton


@triton.jit
def gate_deviation(weight, var, variance, gate_eps):
    """Return the deviation that the gate divides by; variance is var + eps."""
    return tl.sqrt(weight * weight * (var / variance) + gate_eps)


@triton.jit
def joined(
    mean,
    m2,
    count,
    s,
    inside,
    statistics,
    splits,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return mean and biased variance over all splits, by Chan's rule: first all means, then M2."""
    rows = tl.arange(0, SPLITS)[:, None]
    total = tl.zeros((SPLITS, 1), tl.float64)
    weighted = tl.zeros((SPLITS, BLOCK), tl.float64)
    for row in range(0, splits, SPLITS):
        some = row + rows < splits
        at = (row + rows) * statistics + s[None, :]
        n = tl.load(count + row + rows, mask=some, other=0.0).to(tl.float64)
        part = tl.load(mean + at, mask=some & inside[None, :], other=0.0)
        total += n
        weighted += n * part.to(tl.float64)
    n_all = tl.sum(total, axis=0)
    center = tl.sum(weighted, axis=0) / n_all
    spread = tl.zeros((SPLITS, BLOCK), tl.float64)
    for row in range(0, splits, SPLITS):
        some = row + rows < splits
        at = (row + rows) * statistics + s[None, :]
        n = tl.load(count + row + rows, mask=some, other=0.0).to(tl.float64)
        part = tl.load(mean + at, mask=some & inside[None, :], other=0.0)
        part_m2 = tl.load(m2 + at, mask=some & inside[None, :], other=0.0)
        apart = part.to(tl.float64) - center[None, :]
        spread += part_m2.to(tl.float64) + n * apart * apart
    return center, tl.sum(spread, axis=0) / n_all


@triton.jit(do_not_specialize=SIZES)
def coefficients(
    partial_mean,
    partial_m2,
    count,
    mean,
    var,
    p,
    slope,
    weight,
    scale,
    eps,
    gate_eps,
    statistics,
    channels,
    splits,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write p and slope of every statistic; before that mean and var, where partial ones come."""
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = s < statistics
    if partial_mean is None:
        variance = tl.load(var + s, mask=inside, other=1.0).to(tl.float64)
    else:
        center, variance = joined(
            partial_mean, partial_m2, count, s, inside, statistics, splits, SPLITS, BLOCK
        )
        tl.store(mean + s, center.to(tl.float32), mask=inside)
        tl.store(var + s, variance.to(tl.float32), mask=inside)
    k = s % channels
    factor = 1.0 / tl.sqrt(variance + eps)
    if weight is not None:
        gamma = tl.load(weight + k, mask=inside, other=1.0).to(tl.float64)
        factor *= gamma
        tl.store(p + s, factor.to(tl.float32), mask=inside)
        if scale is not None:
            factor /= gate_deviation(gamma, variance, variance + eps, gate_eps)
    if scale is not None:
        factor *= tl.load(scale + k, mask=inside, other=0.0).to(tl.float64)
        tl.store(slope + s, factor.to(tl.float32), mask=inside)


@triton.jit
def total_of(sums, row, s, inside, statistics, splits, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Return a sum over all splits, in float64."""
    rows = tl.arange(0, SPLITS)[:, None]
    total = tl.zeros((SPLITS, BLOCK), tl.float64)
    for start in range(0, splits, SPLITS):
        at = (row * splits + start + rows) * statistics + s[None, :]
        mask = (start + rows < splits) & inside[None, :]
        total += tl.load(sums + at, mask=mask, other=0.0).to(tl.float64)
    return tl.sum(total, axis=0)


@triton.jit(do_not_specialize=SIZES)
def gradients(
    sums,
    results,
    rest,
    var,
    weight,
    scale,
    eps,
    gate_eps,
    statistics,
    channels,
    splits,
    count,
    AFFINE: tl.constexpr,
    GATE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the vectors' gradients, and what every dz has taken from it.

    `results`, of shape (2 or 4, statistics), takes the gradients of p, q, slope and offset where
    `rest` is None, else of weight, bias, scale and shift; `rest`, of shape (2, statistics), takes c
    and d of ``dz = p · dx + slope · dt − c − d · (z − mean)``.
    """
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = s < statistics
    row = 0
    if AFFINE:
        dx_centred = total_of(sums, 0, s, inside, statistics, splits, SPLITS, BLOCK)
        dx_sum = total_of(sums, 1, s, inside, statistics, splits, SPLITS, BLOCK)
        row = 2
    if GATE:
        dt_centred = total_of(sums, row, s, inside, statistics, splits, SPLITS, BLOCK)
        dt_sum = total_of(sums, row + 1, s, inside, statistics, splits, SPLITS, BLOCK)
    if rest is not None:
        k = s % channels
        spread = tl.load(var + s, mask=inside, other=1.0).to(tl.float64)
        variance = spread + eps
        rstd = 1.0 / tl.sqrt(variance)
        constant, linear = tl.zeros_like(rstd), tl.zeros_like(rstd)
        if AFFINE:
            dx_centred *= rstd  # now Σ dx·x̂
            gamma = tl.load(weight + k, mask=inside, other=1.0).to(tl.float64)
            constant += gamma * rstd * dx_sum
            linear += gamma * rstd * rstd * dx_centred
        if GATE:
            dt_centred *= rstd  # now Σ dt·x̂, the gradient of the slope by x̂
            alpha = tl.load(scale + k, mask=inside, other=0.0).to(tl.float64)
            share = tl.zeros_like(rstd) + 1.0  # of x̂ in what the gate's norm makes of x
            if AFFINE:
                deviation = gate_deviation(gamma, spread, variance, gate_eps)
                share = gamma / deviation
                cubed = alpha / (deviation * deviation * deviation)
                dx_centred += dt_centred * cubed * gate_eps
                by_var = -0.5 * cubed * gamma * gamma * gamma * eps / (variance * variance)
                linear -= 2.0 * dt_centred * by_var
            constant += alpha * share * rstd * dt_sum
            linear += alpha * share * rstd * rstd * dt_centred
            dt_centred *= share
        tl.store(rest + s, (constant / count).to(tl.float32), mask=inside)
        tl.store(rest + statistics + s, (linear / count).to(tl.float32), mask=inside)
    if AFFINE:
        tl.store(results + s, dx_centred.to(tl.float32), mask=inside)
        tl.store(results + statistics + s, dx_sum.to(tl.float32), mask=inside)
    if GATE:
        place = results + row * statistics + s
        tl.store(place, dt_centred.to(tl.float32), mask=inside)
        tl.store(place + statistics, dt_sum.to(tl.float32), mask=inside)
