"""The gate arithmetic, faster: one folder an op, each with its reference beside it."""

from ._direct import layer
from ._layout import Over
from ._providers import pays, runs_on, status, update_running
from .block_tail import block_tail, block_tail_fixed
from .cpu import Norms
from .norm_gate import norm_gate, norm_gate_fixed

__all__ = [
    "Norms",
    "Over",
    "block_tail",
    "block_tail_fixed",
    "layer",
    "norm_gate",
    "norm_gate_fixed",
    "pays",
    "runs_on",
    "status",
    "update_running",
]
