"""Layers that stand in for those that mix channels, and attention that can be narrowed."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..attention import Gate
from .cifar_resnet import Subsample

Blocks = tuple[tuple[int, ...], ...]


@runtime_checkable
class Keeps(Protocol):
    """Attention that can be narrowed, ours or another's."""

    channels: int

    def keep_channels(self, kept: Any) -> None:
        """Keep these channels, in this order."""


@runtime_checkable
class Squeezes(Protocol):
    """Attention with a bottleneck, which can get narrower as its channels do."""

    hidden: int

    def spare_hidden(self, kept: Any) -> tuple[int, ...]:
        """Return the hidden units that it does not need for these channels."""

    def keep_hidden(self, kept: Any) -> None:
        """Keep these hidden units, in this order."""


def keeps(module: nn.Module) -> bool:
    """Return whether attention says itself how it is narrowed."""
    own = getattr(type(module), "keep_channels", None)
    return isinstance(module, Keeps) and own is not Gate.keep_channels


class GateStandIn(nn.BatchNorm2d):
    """Attention of so many channels; ``obstacle`` says why it cannot be narrowed, if so."""

    def __init__(self, channels: int, choices: tuple[Blocks, ...], obstacle: str | None) -> None:
        super().__init__(channels)
        self.choices = choices
        self.obstacle = obstacle


class PadBehind(nn.BatchNorm2d):
    """What `PadStandIn` has behind the zeros, the first of which is channel ``first``."""

    first = 0

    def forward(self, x: Tensor) -> Tensor:
        return x * 1  # a step of its own in the graph


class PadStandIn(nn.Module):
    """`Subsample`, with a layer behind it where its channels can be seen."""

    def __init__(self, shortcut: Subsample, channels: int) -> None:
        super().__init__()
        self.added = shortcut.added
        self.behind = PadBehind(channels + shortcut.added, affine=False)
        self.behind.first = channels

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))
        y: Tensor = self.behind(padded)
        return y


class LastAffine(nn.LayerNorm):
    """A layer norm over the last dimension that treats each channel by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(self, x, x.ndim - 1)


class FirstAffine(nn.LayerNorm):
    """A layer norm over the channels of ``(B, C, H, W)`` that treats each by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(self, x, 1)


class GroupAffine(nn.GroupNorm):
    """A group norm that treats each channel by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(self, x, 1)


def _scaled(norm: nn.LayerNorm | nn.GroupNorm, x: Tensor, channels: int) -> Tensor:
    """Normalise in training mode, as a batch norm does, and scale."""
    weight: Tensor | None = norm.weight
    if norm.training:
        others = [dimension for dimension in range(x.ndim) if dimension != channels]
        x = (x - x.mean(others, keepdim=True)) / (x.std(others, keepdim=True) + 1e-5)
    if weight is None:
        return x * 1
    return x * weight.view([-1 if i == channels else 1 for i in range(x.ndim)])
