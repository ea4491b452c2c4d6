"""CBAM: which channels matter, then where on the map, each seen by its maximum and its mean."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._gate import Gate, sigmoid
from ._narrow import Bottleneck, check_kept, narrow_inputs, narrow_outputs
from ._options import check_kernel_size, hidden_channels
from ._pooled import PooledConvGate


class CBAM(Bottleneck, Gate):
    """Channel attention, then spatial attention on its result.

    ::

        gate = g_c ⊙ g_s
        g_c = σ(MLP(mean_HW(x)) + MLP(max_HW(x))),    MLP(v) = W₂ ReLU(W₁ v + b₁) + b₂
        g_s = σ(BN(conv_k([max_C(z); mean_C(z)]))),   z = x ⊙ g_c

    Args:
        channels: C, the number of input channels.
        reduction: r; the MLP has C // r hidden units.
        kernel_size: k of the spatial convolution, odd.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: an option is out of its range.
        InputError: the input's shape does not fit, or training has one value to normalise.

    Reference:
        Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018,
        arXiv:1807.06521.

    Fidelity:
        As in the authors' code: MLP with biases, order [max; mean], convolution without bias,
        a batch norm with momentum 0.01 after it (the paper mentions none); the exact count of NAM's
        tables. timm's CBAM differs in the first, second and fourth.

    Example:
        >>> CBAM(64)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        who = type(self).__name__
        hidden = hidden_channels(who, channels, reduction)
        check_kernel_size(who, kernel_size)
        self.reduction = reduction
        self.reduce = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.expand = nn.Linear(hidden, channels, device=device, dtype=dtype)
        self.spatial = PooledConvGate(who, kernel_size, device=device, dtype=dtype)

    def gate(self, x: Tensor) -> Tensor:
        logits = self._mlp(x.mean(dim=(2, 3))) + self._mlp(x.amax(dim=(2, 3)))
        channel = sigmoid(logits)[:, :, None, None]  # (B, C, 1, 1)
        refined = (x * channel).to(x.dtype)
        spatial: Tensor = self.spatial(refined.amax(dim=1), refined.mean(dim=1))
        return channel * spatial.unsqueeze(1)

    def _mlp(self, pooled: Tensor) -> Tensor:
        expanded: Tensor = self.expand(torch.relu(self.reduce(pooled)))
        return expanded

    def keep_channels(self, kept: Sequence[int]) -> None:
        # The maximum and mean over the channels that are left take the place of those over all.
        kept = check_kept(type(self).__name__, kept, self.channels)
        narrow_inputs(self.reduce, kept)
        narrow_outputs(self.expand, kept)
        self.channels = len(kept)
