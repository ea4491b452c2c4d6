"""The one contract that every attention mechanism in this package obeys."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, UnsupportedModel


class Gate(nn.Module, ABC):
    """Multiplies a feature map by a gate computed from it: ``y = x · gate(x)``.

    A mechanism writes ``__init__`` and ``gate``; the rest is shared and is not overridden.

    Inside a half-precision model the gate is computed, and multiplied, in float32: near ½ the
    steps of bfloat16 are 0.002 to 0.004 wide, and the published NAM's whole range at 256 channels
    is smaller than three of them. Only the product is rounded to the input's type.

    Shape:
        x: ``(B, C, H, W)`` with ``C == channels``. y: the same, in x's dtype.
    """

    #: Where the mechanism's paper puts it: "blocks" or "stages" (see `normattn.graft`).
    default_sites: ClassVar[str] = "blocks"
    #: Whether the constructor needs ``size=(H, W)``; `normattn.graft` finds it by a dry run.
    needs_size: ClassVar[bool] = False
    #: Whether the paper's sparsity penalty (NAM, eq. 4) applies to `scales()`.
    scales_penalised: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise InputError(
                f"{type(self).__name__}: expected channels to be an integer >= 1, got {channels!r}."
            )
        self.channels = channels

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """Return the gate, of any shape that broadcasts to ``x``."""

    def scales(self) -> tuple[nn.Parameter, ...]:
        """Return the learned scale factors (γ, λ) of the mechanism's own normalization."""
        return ()

    def keep_channels(self, kept: Sequence[int]) -> None:
        """Leave only these channels, in place: what slimming does to attention.

        Args:
            kept: rising indices of the channels that stay; the input has only these from then on.

        Raises:
            ConfigError: ``kept`` is something else.
            UnsupportedModel: the mechanism does not define this, or cannot keep just these.
        """
        raise UnsupportedModel(
            f"{type(self).__name__}: expected a mechanism that defines keep_channels(kept), got "
            "one that does not. Define it, or keep all channels at its sites."
        )

    def unit_choices(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Return the ways to divide the channels into sets that can go only together.

        By default each channel can go by itself.
        """
        return (tuple((i,) for i in range(self.channels)),)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        with _no_autocast(x.device.type):
            # A float32 module sees float32, whatever autocast made of x; a module that was itself
            # converted to half precision computes its convolutions there and its gate in float32.
            return (x * self.gate(x.to(self._dtype(x)))).to(x.dtype)

    def check_input(self, x: Tensor) -> None:
        """Refuse anything but a floating-point map of this module's channels."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"{type(self).__name__}: expected an input of shape (B, {self.channels}, H, W), "
                f"got {tuple(x.shape)}."
            )
        if x.shape[2] * x.shape[3] == 0:
            raise InputError(
                f"{type(self).__name__}: expected a map of at least 1×1, got {tuple(x.shape)}."
            )
        if not x.is_floating_point():
            raise InputError(
                f"{type(self).__name__}: expected a floating-point input, got {x.dtype}."
            )

    def _dtype(self, x: Tensor) -> torch.dtype:
        """Return the parameters' type, which ``x`` can be widened to but not narrowed."""
        parameter = next(self.parameters(), None)
        if parameter is None or parameter.dtype == x.dtype:
            return x.dtype
        if torch.promote_types(x.dtype, parameter.dtype) != parameter.dtype:
            raise InputError(
                f"{type(self).__name__}: expected an input that its parameters' type "
                f"({parameter.dtype}) can hold, got {x.dtype}. Convert either with .to(dtype=...)."
            )
        return parameter.dtype

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _no_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    # Devices without autocast, such as "meta" in a dry run, refuse even to have it disabled.
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def sigmoid(logits: Tensor) -> Tensor:
    """Return σ(logits), in float32 where the logits are of half precision."""
    return torch.sigmoid(at_least_float32(logits))


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x``, widened to float32 where it is of half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
