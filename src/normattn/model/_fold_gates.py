"""What becomes of a gate when a model is folded: constants, a factor, or itself."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..attention import NAM, Half, NAMChannel, NAMSpatial, NoAttention
from ..attention._gate import Gate, at_least_float32
from ..errors import InputError
from ._fold_norms import has_line, norm_line, replace, untouched
from ._gates_watch import Range as Range
from ._gates_watch import Watch as Watch
from ._gates_watch import gates as gates


class FoldedGate(Gate):
    """NAM at inference: ``y = x · σ(slope · x + offset)``, with constants for a channel or a pixel.

    ::

        slope = w γ / √(var + ε),    offset = w (β − γ mean / √(var + ε))

    Args:
        channels: C, the number of input channels.
        slope: what multiplies x.
        offset: what is added to it.

    Shape:
        x: ``(B, C, H, W)``. slope, offset: ``(1, C, 1, 1)`` or ``(1, 1, H, W)``.

    Raises:
        InputError: the input's shape does not fit.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, channels: int, slope: Tensor, offset: Tensor) -> None:
        super().__init__(channels)
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)
        #: Whether to write the line as a batch norm, which runtimes keep in their own layouts.
        self.as_norm = False

    def gate(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if self.as_norm and self.per_channel:
            slope, offset = self.slope.flatten(), self.offset.flatten()
            zero, one = torch.zeros_like(slope), torch.ones_like(slope)
            line = nn.functional.batch_norm(wide, zero, one, slope, offset, eps=0.0)
            return line.sigmoid()
        return torch.addcmul(self.offset, wide, self.slope).sigmoid_()

    def forward(self, x: Tensor) -> Tensor:
        # Without the guard against autocast, which has no say in these operations and would put a
        # graph within the graph of every exported program.
        self.check_input(x)
        return (x * self.gate(x)).to(x.dtype)

    @property
    def per_channel(self) -> bool:
        """Whether the constants are a channel's; else they are a pixel's."""
        return self.slope.shape[2:] == (1, 1) and self.slope.shape[1] == self.channels

    def check_input(self, x: Tensor) -> None:
        super().check_input(x)
        if not self.per_channel and x.shape[2:] != self.slope.shape[2:]:
            raise InputError(
                f"{type(self).__name__}: expected maps of {self.slope.shape[2]}×"
                f"{self.slope.shape[3]}, the size it was folded for, got {x.shape[2]}×{x.shape[3]}."
                " Graft and fold for that size."
            )


class FactorGate(Gate):
    """A gate that has become its mean where no layer in front can take it: ``y = x · factor``.

    Args:
        channels: C, the number of input channels.
        factor: of each channel.

    Shape:
        x: ``(B, C, H, W)``. factor: ``(C,)``.
    """

    factor: Tensor

    def __init__(self, channels: int, factor: Tensor) -> None:
        super().__init__(channels)
        self.register_buffer("factor", factor.view(1, -1, 1, 1))

    def gate(self, x: Tensor) -> Tensor:
        return self.factor


def split(model: nn.Module) -> None:
    """Have NAM's two gates stand one behind the other, which is what NAM computes, in place."""
    for nam in [module for module in model.modules() if type(module) is NAM]:
        if untouched(nam):
            parts: OrderedDict[str, nn.Module] = OrderedDict(
                channel=nam.channel, spatial=nam.spatial
            )
            replace(model, nam, nn.Sequential(parts))


def constant(gate: Gate) -> float | None:
    """Return the value of a gate that depends on nothing; None for any other."""
    return {NoAttention: 1.0, Half: 0.5}.get(type(gate))


def as_line(gate: Gate) -> FoldedGate | None:
    """Return a NAM gate with its slope and offset as constants; None where it has none."""
    if type(gate) not in (NAMChannel, NAMSpatial):
        return None
    assert isinstance(gate, NAMChannel | NAMSpatial)
    norm: _BatchNorm = gate.norm
    if not (untouched(norm) and has_line(norm)):
        return None
    factor, shift = norm_line(norm)
    weight = gate.importance().detach().double()
    shape = (1, 1, *gate.size) if isinstance(gate, NAMSpatial) else (1, -1, 1, 1)
    wide = torch.promote_types(norm.weight.dtype, torch.float32)
    slope, offset = ((weight * v).view(shape).to(wide) for v in (factor, shift))
    return FoldedGate(gate.channels, slope, offset)
