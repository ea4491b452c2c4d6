"""The gate kernels for CUDA devices, in Triton; see the README beside this.

Not yet run on a GPU: the arithmetic was checked in Triton's interpreter, and the machine code that
the compiler makes of it for sm_80 and sm_90 was read. Nothing was timed.
"""

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from .._layout import is_dense

#: Smaller maps are the reference's: launching our kernels takes longer than theirs run.
MINIMUM_BYTES = 1 << 20
#: Ampere, the first with bfloat16 arithmetic.
_CAPABILITY = (8, 0)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def supports(x: Tensor) -> bool:
    """Return whether there are kernels for ``x`` that pay: its device, type, order and size."""
    return (
        x.device.type == "cuda"
        and x.dtype in _DTYPES
        and x.numel() * x.element_size() >= MINIMUM_BYTES
        and is_dense(x)
        and _ready(x.device.index)
    )


def status() -> str:
    """Return which Triton and which device compute, or why there are no kernels."""
    if not torch.cuda.is_available():
        return "none: no CUDA device"
    return _status(torch.cuda.current_device())


def __getattr__(name: str) -> Any:
    """Load the four functions, and Triton with them, when the first map asks for one."""
    if name in ("forward", "forward_fixed", "backward", "backward_fixed"):
        return getattr(importlib.import_module("._provider", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _ready(device: int) -> bool:
    return not _status(device).startswith("none")


# A compiler takes the answer as it is, and does not look into how it was found. This is all that
# `torch.compiler.assume_constant_result` does, after importing the compiler and Triton.
_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _status(device: int) -> str:
    """Return what computes on a device; find out by compiling and running a kernel there."""
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if torch.version.hip is not None:
        return f"none: {name} is not an NVIDIA device"
    if capability < _CAPABILITY:
        return f"none: {name} has compute capability {capability[0]}.{capability[1]}, not 8.0"
    from ._triton import failure, triton

    if failure is not None:
        return f"none: Triton cannot be imported: {failure}"
    try:
        importlib.import_module("._probe", __name__).run(device)
    except Exception as error:  # no C compiler, no room for its cache, a driver too old, ...
        return f"none: Triton {triton.__version__} cannot run: {type(error).__name__}: {error}"
    return f"triton {triton.__version__}, {name}"
