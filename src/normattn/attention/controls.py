"""Controls: what any claim about attention must be compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._gate import Gate
from ._narrow import check_kept


class Half(Gate):
    """A constant gate of one half, without parameters.

    ::

        gate = ½

    NAM's published gate is ½ with a standard deviation of about 0.25/C, so whatever it achieves
    beyond this control is what its attention achieves.

    Args:
        channels: C, the number of input channels.
        device: accepted as for every mechanism; there is nothing to place.
        dtype: accepted as for every mechanism; there is nothing to convert.

    Shape:
        x: ``(B, C, H, W)``. gate: ``()``.

    Raises:
        InputError: the input's shape does not fit.

    Reference:
        Ours; no public work on NAM has it.

    Fidelity:
        Exact in every floating-point type, since halving only lowers the exponent (numbers next to
        zero apart).

    Example:
        >>> Half(3)(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)

    def gate(self, x: Tensor) -> Tensor:
        return x.new_full((), 0.5)

    def keep_channels(self, kept: Sequence[int]) -> None:
        self.channels = len(check_kept(type(self).__name__, kept, self.channels))


class NoAttention(Gate):
    """The absence of attention: a gate of one.

    ::

        gate = 1,    y = x

    Args:
        channels: C, the number of input channels.
        device: accepted as for every mechanism; there is nothing to place.
        dtype: accepted as for every mechanism; there is nothing to convert.

    Shape:
        x: ``(B, C, H, W)``. gate: ``()``.

    Raises:
        InputError: the input's shape does not fit.

    Reference:
        Ours: the baseline.

    Fidelity:
        The output is x itself.

    Example:
        >>> NoAttention(3)(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)

    def gate(self, x: Tensor) -> Tensor:
        return x.new_ones(())

    def forward(self, x: Tensor) -> Tensor:
        # The one forward of its own: a product with 1 would charge the baseline for attention.
        self.check_input(x)
        return x

    def keep_channels(self, kept: Sequence[int]) -> None:
        self.channels = len(check_kept(type(self).__name__, kept, self.channels))
