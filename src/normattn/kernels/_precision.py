"""In which type the ops compute: float32 for maps in half precision, else the map's own."""

import torch
from torch import Tensor


def wide_type(x: Tensor) -> torch.dtype:
    """Return the type of all that is computed from ``x``, and of the vectors that go with it."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def wide(x: Tensor) -> Tensor:
    """Return ``x`` as it is computed with."""
    return x.to(wide_type(x))


def vector(v: Tensor | None, x: Tensor) -> Tensor | None:
    """Return ``v`` as an op on ``x`` takes it; integers are left as they are, for it to refuse."""
    if v is None or v.dtype == wide_type(x) or not v.is_floating_point():
        return v
    return v.to(wide_type(x))
