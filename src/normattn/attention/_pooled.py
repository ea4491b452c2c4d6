"""The gate that CBAM and triplet attention share: look at extremes and means, then convolve."""

import torch
from torch import Tensor, nn

from ._gate import sigmoid
from ._options import check_enough_values


class PooledConvGate(nn.Module):
    """Computes a one-channel gate ``σ(BN(conv([max; mean])))`` over one pooled dimension.

    Args:
        who: the mechanism that messages name.
        kernel_size: k, odd.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        largest, mean: ``(B, P, Q)``, the map's maximum and mean over the pooled dimension.
        gate: ``(B, P, Q)``.
    """

    def __init__(
        self,
        who: str,
        kernel_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.who = who
        self.conv = nn.Conv2d(
            2, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype
        )
        # The published code of both papers gives this one norm a long memory.
        self.norm = nn.BatchNorm2d(1, momentum=0.01, device=device, dtype=dtype)

    def forward(self, largest: Tensor, mean: Tensor) -> Tensor:
        response = self.conv(torch.stack((largest, mean), dim=1))  # (B, 1, P, Q)
        check_enough_values(self.who, self.norm, response)
        return sigmoid(self.norm(response)).squeeze(1)
