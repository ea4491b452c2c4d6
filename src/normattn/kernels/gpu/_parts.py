# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""What several kernels do alike: find a tile in memory, gate a value."""

from ._triton import tl, triton

MINUS_LOG2_E = tl.constexpr(-1.4426950408889634)
#: Triton's interpreter runs kernels in NumPy, where there are no instructions to choose.
ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)

#: Sizes change from layer to layer; a kernel compiled for each would be compiled all the time.
#: What a size must tell the compiler is what divides it, and `unit` does.
SIZES = ["outer", "channels", "inner", "statistics", "splits", "per_split", "count"]


@triton.jit
def tile_start(group, image, k0, r0, outer, channels, inner, COLUMNS: tl.constexpr):
    """Return where a tile's first value lies, in int64: a map may be larger than int32 counts."""
    if COLUMNS:
        start = (group.to(tl.int64) * outer + r0) * channels + k0
    else:
        start = ((group.to(tl.int64) * outer + image) * channels + k0) * inner + r0
    return start


@triton.jit
def within(k, r, channels, inner, COLUMNS: tl.constexpr):
    """Return where a tile's values lie from its first one, of shape (block_k, block_r)."""
    return r * channels + k if COLUMNS else k * inner + r


@triton.jit
def vector(pointer, index, mask):
    """Return a value for each statistic; None of what there is not."""
    return None if pointer is None else tl.load(pointer + index, mask=mask, other=0.0)


@triton.jit
def branch(centred, z, p, q):
    """Return what the gate multiplies: the normalised map, or the map itself."""
    return z if p is None else p * centred + q


@triton.jit
def gate(centred, slope, offset):
    """Return the gate of each value, 1 where there is none.

    ``1 / (1 + 2^u)``, with ``u = −log₂e · t`` formed from coefficients that have the factor in them
    already. In half precision the passes are as near the device's rate of instructions as its
    memory's: the compiler's own exp and division take 11 a value, most for subnormal numbers, which
    make no difference to 1 + 2^u; these take 3, each right to 2 units in the last place.
    """
    if slope is None:
        value = 1.0
    else:
        power = slope * MINUS_LOG2_E * centred + offset * MINUS_LOG2_E
        if ASSEMBLY:
            value = tl.inline_asm_elementwise(
                "{ .reg .f32 u; ex2.approx.ftz.f32 u, $1; add.f32 u, u, 0f3F800000;"
                " rcp.approx.ftz.f32 $0, u; }",
                "=r,r",
                [power],
                dtype=tl.float32,
                is_pure=True,
                pack=1,
            )
        else:
            value = 1.0 / (1.0 + tl.exp2(power))
    return value
