"""The gate's formulas: those of the block tail without a norm before the gate or a sum after it.

::

    y = x · σ(scale · x̂ + shift),    x̂ = (x − mean) / √(var + eps)        forward(x, scale=, shift=)
    y = x · σ(slope · (x − center) + offset)       forward_fixed(x, center=, slope=, offset=)
"""

from ..block_tail.reference import backward, backward_fixed, forward, forward_fixed

__all__ = ["backward", "backward_fixed", "forward", "forward_fixed"]
