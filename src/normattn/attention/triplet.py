"""Triplet attention: look at the feature map from its three sides, and average what they say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._gate import Gate
from ._narrow import check_kept
from ._options import check_kernel_size
from ._pooled import PooledConvGate


class Triplet(Gate):
    """Attention on the three pairs of dimensions; called TAM in NAM's tables.

    ::

        gate = (g_HW + g_CW + g_HC) / 3,    g = σ(BN(conv_k([max_d(x); mean_d(x)])))

    where d is the dimension that the pair leaves out: C for g_HW, H for g_CW, W for g_HC.

    Args:
        channels: C, the number of input channels; no parameter depends on it.
        kernel_size: k of the three convolutions, odd.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: ``kernel_size`` is even or no positive integer.
        InputError: the input's shape does not fit, or training has one value to normalise.

    Reference:
        Misra, Nalamada, Arasanipalai, Hou, "Rotate to Attend: Convolutional Triplet Attention
        Module", WACV 2021, arXiv:2010.03045.

    Fidelity:
        As in the authors' code: order [max; mean], convolutions without bias, batch norms with
        momentum 0.01; 300 parameters, the exact count of NAM's table. That code rotates x, gates
        three products and averages them; here the gates are averaged and x is never rotated.

    Example:
        >>> Triplet(64)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        who = type(self).__name__
        check_kernel_size(who, kernel_size)
        self.hw = PooledConvGate(who, kernel_size, device=device, dtype=dtype)
        self.cw = PooledConvGate(who, kernel_size, device=device, dtype=dtype)
        self.hc = PooledConvGate(who, kernel_size, device=device, dtype=dtype)

    def gate(self, x: Tensor) -> Tensor:
        hw = self.hw(x.amax(dim=1), x.mean(dim=1))  # (B, H, W)
        cw = self.cw(x.amax(dim=2), x.mean(dim=2))  # (B, C, W)
        hc = self.hc(x.amax(dim=3).mT, x.mean(dim=3).mT)  # (B, H, C)
        total: Tensor = hw.unsqueeze(1) + cw.unsqueeze(2) + hc.mT.unsqueeze(3)
        return total / 3

    def keep_channels(self, kept: Sequence[int]) -> None:
        # Neighbours among the channels change, and with them what the convolutions over C see.
        self.channels = len(check_kept(type(self).__name__, kept, self.channels))
