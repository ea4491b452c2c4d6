"""``y = x · σ(scale · x̂ + shift)``: the gates of NAM, of spatial NAM and of EAN."""

from .op import norm_gate, norm_gate_fixed

__all__ = ["norm_gate", "norm_gate_fixed"]
