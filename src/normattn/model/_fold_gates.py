"""What becomes of a gate when a model is folded: constants, a factor, or itself."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..attention import NAM, Half, NAMChannel, NAMSpatial, NoAttention
from ..attention._gate import Gate, at_least_float32
from ..errors import InputError
from ._fold_norms import has_line, norm_line, replace, untouched


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


@dataclass
class Range:
    """What a gate's values were over images, by channel, in float64 on the gate's device.

    Shape:
        lowest, highest, total: ``(C,)``.
    """

    lowest: Tensor
    highest: Tensor
    total: Tensor
    count: int  # values of each channel

    @property
    def mean(self) -> Tensor:
        """The mean of each channel."""
        return self.total / self.count

    @property
    def width(self) -> float:
        """The widest range of a channel."""
        return float((self.highest - self.lowest).max())


class Watch:
    """Hooks that follow the range of gates while a model runs."""

    def __init__(self, gates: Iterable[Gate]) -> None:
        self.ranges: dict[Gate, Range] = {}
        self._handles = [gate.register_forward_pre_hook(self._see) for gate in gates]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Gate)
        values = gate_values(module, args[0])
        lowest, highest = (f(values, dim=(0, 2, 3)).double() for f in (torch.amin, torch.amax))
        total = values.double().sum(dim=(0, 2, 3))
        count = values.numel() // values.shape[1]
        known = self.ranges.get(module)
        if known is not None:
            lowest = torch.minimum(lowest, known.lowest)
            highest = torch.maximum(highest, known.highest)
            total, count = total + known.total, count + known.count
        self.ranges[module] = Range(lowest, highest, total, count)


def gate_values(gate: Gate, x: Tensor) -> Tensor:
    """Return what a gate multiplies ``x`` by, in the shape of ``x``."""
    return at_least_float32(gate.gate(x.to(gate._dtype(x)))).expand_as(x)


def split(model: nn.Module) -> None:
    """Have NAM's two gates stand one behind the other, which is what NAM computes, in place."""
    for nam in [module for module in model.modules() if type(module) is NAM]:
        if untouched(nam):
            parts: OrderedDict[str, nn.Module] = OrderedDict(
                channel=nam.channel, spatial=nam.spatial
            )
            replace(model, nam, nn.Sequential(parts))


def gates(model: nn.Module) -> Iterator[tuple[str, Gate]]:
    """Yield the gates of a model by name, without those inside another one."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, Gate) and module not in inside:
            inside.update(module.modules())
            yield name, module


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
