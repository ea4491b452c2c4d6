"""SE: squeeze each channel to its mean, and let a small network excite or calm it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._gate import Gate, sigmoid
from ._narrow import Bottleneck, check_kept, narrow_inputs, narrow_outputs
from ._options import hidden_channels


class SE(Bottleneck, Gate):
    """Channel attention by a bottleneck on the channels' means.

    ::

        gate = σ(W₂ ReLU(W₁ mean_HW(x)))

    Args:
        channels: C, the number of input channels.
        reduction: r; the bottleneck has C // r units.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, 1, 1)``, values in (0, 1).

    Raises:
        ConfigError: ``reduction`` is no integer from 1 to ``channels``.
        InputError: the input's shape does not fit.

    Reference:
        Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.

    Fidelity:
        No biases, 2·C·(C//r) parameters: the variant that NAM's tables compare with, to the exact
        count. timm's SE has biases and rounds the bottleneck to a multiple of 8.

    Example:
        >>> SE(64)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        hidden = hidden_channels(type(self).__name__, channels, reduction)
        self.reduction = reduction
        self.reduce = nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype)
        self.expand = nn.Linear(hidden, channels, bias=False, device=device, dtype=dtype)

    def gate(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3))  # (B, C)
        logits = self.expand(torch.relu(self.reduce(pooled)))
        return sigmoid(logits)[:, :, None, None]

    def keep_channels(self, kept: Sequence[int]) -> None:
        kept = check_kept(type(self).__name__, kept, self.channels)
        narrow_inputs(self.reduce, kept)
        narrow_outputs(self.expand, kept)
        self.channels = len(kept)
