"""The gate kernels for CUDA devices, written in Triton."""

from torch import Tensor


def supports(x: Tensor) -> bool:
    """Return whether there are kernels for ``x`` that pay: its device, type, order and size."""
    return False


def status() -> str:
    """Return which Triton and which device compute, or why there are no kernels."""
    return "none: not written yet"
