"""Where maps lie in memory, for the library."""

from typing import overload

import torch
from torch import Tensor

from ...errors import InputError


def address(x: Tensor) -> int:
    """Return where the values of ``x`` lie, which a tensor that wraps others cannot say."""
    try:
        address = x.data_ptr()
    except RuntimeError:  # of torch.autograd.grad with is_grads_batched, for one
        address = 0
    if not address and x.numel():
        raise InputError(
            f"cpu: expected tensors with values in memory, got a {type(x).__name__} without. Take "
            "the plain form for it: normattn.unfuse(model)."
        )
    return address


@overload
def in_order(x: Tensor, z: Tensor) -> Tensor: ...
@overload
def in_order(x: None, z: Tensor) -> None: ...
def in_order(x: Tensor | None, z: Tensor) -> Tensor | None:
    """Return ``x`` in z's order in memory."""
    if x is None or x.stride() == z.stride():
        return x
    order = torch.contiguous_format if z.is_contiguous() else torch.channels_last
    return x.contiguous(memory_format=order)
