"""Whether kernels run on a device at all: the smallest one, compiled and launched."""

import torch

from .._layout import Layout
from . import _launch
from ._tiles import tiles


def run(device: int) -> None:
    """Compile and launch a kernel on a device; raises whatever is in the way."""
    with torch.cuda.device(device):
        one = torch.ones(1, device=f"cuda:{device}")
        norms = _launch.Norms(one, one, one, one, 1e-5, 0.0)
        _launch.coefficients(tiles(Layout(1, 1, 1, 1), widest_columns=64), one, one, norms, None)
