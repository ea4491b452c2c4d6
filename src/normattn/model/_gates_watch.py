"""Gates while a model runs: which there are, what they multiply by, and what is left in int8."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention._gate import Gate, _no_autocast, at_least_float32

#: Steps that int8 divides a range into.
STEPS = 255


def gates(model: nn.Module) -> Iterator[tuple[str, Gate]]:
    """Yield the gates of a model by name, without those inside another one."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, Gate) and module not in inside:
            inside.update(module.modules())
            yield name, module


def gate_values(gate: Gate, x: Tensor) -> Tensor:
    """Return what a gate multiplies ``x`` by, in the shape of ``x``."""
    with _no_autocast(x.device.type):
        return at_least_float32(gate.gate(x.to(gate._dtype(x)))).expand_as(x)


class Onlooker:
    """Hooks that show a function each input of these gates while a model runs."""

    def __init__(self, gates: Iterable[Gate], look: Callable[[Gate, Tensor], None]) -> None:
        self._look = look
        self._handles = [gate.register_forward_pre_hook(self._see) for gate in gates]

    def __enter__(self) -> "Onlooker":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Gate)
        self._look(module, args[0])


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

    @classmethod
    def of(cls, values: Tensor) -> "Range":
        """Return the range of one batch of values, of shape ``(B, C, H, W)``."""
        lowest, highest = (f(values, dim=(0, 2, 3)).double() for f in (torch.amin, torch.amax))
        total = values.double().sum(dim=(0, 2, 3))
        return cls(lowest, highest, total, values.numel() // values.shape[1])

    def joined(self, other: "Range | None") -> "Range":
        """Return the range of both."""
        if other is None:
            return self
        lowest = torch.minimum(self.lowest, other.lowest)
        highest = torch.maximum(self.highest, other.highest)
        return Range(lowest, highest, self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """The mean of each channel."""
        return self.total / self.count

    @property
    def width(self) -> float:
        """The widest range of a channel."""
        return float((self.highest - self.lowest).max())

    @property
    def step(self) -> float:
        """One step of int8, by the runtimes' rule: 255 over the range, stretched to hold zero."""
        lowest, highest = float(self.lowest.min()), float(self.highest.max())
        return (max(highest, 0.0) - min(lowest, 0.0)) / STEPS


class Watch(Onlooker):
    """Hooks that follow the range of gates while a model runs."""

    def __init__(self, gates: Iterable[Gate]) -> None:
        super().__init__(gates, self._add)
        self.ranges: dict[Gate, Range] = {}

    def __enter__(self) -> "Watch":
        return self

    def _add(self, gate: Gate, x: Tensor) -> None:
        self.ranges[gate] = Range.of(gate_values(gate, x)).joined(self.ranges.get(gate))


def int8_levels(values: Tensor, step: float) -> Tensor:
    """Return the different levels that values fall on, counted from zero, in rising order."""
    # Unique before they are integers: of many equal ones torch finds those 60 times slower.
    levels: Tensor = torch.unique((values / (step or 1.0)).round())
    return levels.long()
