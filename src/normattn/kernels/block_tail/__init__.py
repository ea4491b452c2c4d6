"""``relu(x · σ(t) + residual)`` with x a batch norm's output: the tail of a residual block."""

from .op import block_tail, block_tail_fixed

__all__ = ["block_tail", "block_tail_fixed"]
