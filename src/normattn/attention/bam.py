"""BAM: a bottleneck on the channels and one on the map, joined in a gate at a stage's end."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ._gate import Gate, sigmoid
from ._narrow import check_kept, narrow_inputs, narrow_norm, narrow_outputs, weakest
from ._options import check_choice, check_count, hidden_channels, lacks_variance

COMBINATIONS = ("product", "sum")


class BAM(Gate):
    """Channel and spatial attention side by side, for the ends of stages.

    ::

        gate = 1 + σ(M_c · M_s)    (combine="product")
        gate = 1 + σ(M_c + M_s)    (combine="sum")
        M_c = FC(ReLU(BN(FC(mean_HW(x)))))                                        # (B, C, 1, 1)
        M_s = conv1×1(h₃(h₃(h₁(x)))),    h_k(z) = ReLU(BN(conv_k×k(z)))           # (B, 1, H, W)

    The 3×3 convolutions are dilated, and all hidden layers have m = C // r channels. The gate lies
    in (1, 2): BAM never weakens a feature.

    Args:
        channels: C, the number of input channels.
        reduction: r, which sets m.
        dilation: of the two 3×3 convolutions.
        combine: "product" or "sum", how the branches meet.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (1, 2).

    Raises:
        ConfigError: an option is out of its range.
        InputError: the input's shape does not fit, or training has a batch of one image.

    Reference:
        Park, Woo, Lee, Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514.

    Fidelity:
        As in the authors' code, all layers with biases and no norm behind the last ones: the exact
        count of NAM's table, 3Cm + 18m² + 13m + C + 1. The paper adds the branches and the released
        code multiplies them; counts cannot tell which one the published numbers used, so the
        default follows the code that was released with them. That code takes square maps only;
        this one any.

    Example:
        >>> BAM(64)(torch.randn(2, 64, 8, 6)).shape
        torch.Size([2, 64, 8, 6])
    """

    default_sites: ClassVar[str] = "stages"

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        dilation: int = 4,
        combine: str = "product",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        who = type(self).__name__
        hidden = hidden_channels(who, channels, reduction)
        check_count(who, "dilation", dilation)
        check_choice(who, "combine", combine, COMBINATIONS)
        self.reduction = reduction
        self.combine = combine
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden, device=device, dtype=dtype),
            nn.BatchNorm1d(hidden, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, channels, device=device, dtype=dtype),
        )
        self.spatial = nn.Sequential(
            *_conv_norm_relu(channels, hidden, 1, 1, device, dtype),
            *_conv_norm_relu(hidden, hidden, 3, dilation, device, dtype),
            *_conv_norm_relu(hidden, hidden, 3, dilation, device, dtype),
            nn.Conv2d(hidden, 1, 1, device=device, dtype=dtype),
        )

    def gate(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3))  # (B, C)
        if lacks_variance(self.channel[1], pooled):
            raise InputError(
                f"{type(self).__name__}: expected at least 2 images in a training batch, since its "
                f"channel branch normalises over the batch alone, got {len(x)}. Drop the last "
                "incomplete batch, or call eval()."
            )
        channel = self.channel(pooled)[:, :, None, None]  # (B, C, 1, 1)
        spatial = self.spatial(x)  # (B, 1, H, W)
        return 1 + sigmoid(channel * spatial if self.combine == "product" else channel + spatial)

    def keep_channels(self, kept: Sequence[int]) -> None:
        kept = check_kept(type(self).__name__, kept, self.channels)
        parts: Any = (self.channel[0], self.spatial[0], self.channel[3])
        narrow_inputs(parts[0], kept)
        narrow_inputs(parts[1], kept)
        narrow_outputs(parts[2], kept)
        self.channels = len(kept)

    @property
    def hidden(self) -> int:
        """How many units the hidden layers have together, numbered one layer after the other."""
        return sum(norm.num_features for _, norm, _ in self._hidden_layers())

    def spare_hidden(self, kept: Sequence[int]) -> tuple[int, ...]:
        """Return the units that one built for these channels would not have: each layer's weakest.

        A norm is behind each unit, so how it is computed says nothing of its strength.
        """
        left = max(1, len(kept) // self.reduction)
        spare: list[int] = []
        start = 0
        for _, norm, behind in self._hidden_layers():
            strength = norm.weight.detach().abs() * behind.weight.detach().transpose(0, 1).flatten(
                1
            ).norm(dim=1)
            spare += [start + i for i in weakest(strength, norm.num_features - left)]
            start += norm.num_features
        return tuple(spare)

    def keep_hidden(self, kept: Sequence[int]) -> None:
        """Leave only these units, as many of each hidden layer, in place."""
        kept = check_kept(type(self).__name__, kept, self.hidden, "hidden units")
        layers = self._hidden_layers()
        width = self.hidden // len(layers)
        parts = [[i % width for i in kept if i // width == n] for n in range(len(layers))]
        if len({len(part) for part in parts}) > 1:
            raise ConfigError(
                f"{type(self).__name__}: expected kept to be as many units of each hidden layer, "
                f"got {[len(part) for part in parts]}."
            )
        for part, (before, norm, behind) in zip(parts, layers, strict=True):
            narrow_outputs(before, part)
            narrow_norm(norm, part)
            narrow_inputs(behind, part)

    def _hidden_layers(self) -> list[tuple[Any, Any, Any]]:
        """Return what computes each hidden layer, its norm, and what reads it."""
        channel: Any = self.channel
        spatial: Any = self.spatial
        return [
            (channel[0], channel[1], channel[3]),
            *((spatial[i], spatial[i + 1], spatial[i + 3]) for i in (0, 3, 6)),
        ]


def _conv_norm_relu(
    channels: int,
    hidden: int,
    kernel_size: int,
    dilation: int,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[nn.Module, ...]:
    padding = dilation * (kernel_size // 2)  # keeps the map's size
    return (
        nn.Conv2d(
            channels,
            hidden,
            kernel_size,
            padding=padding,
            dilation=dilation,
            device=device,
            dtype=dtype,
        ),
        nn.BatchNorm2d(hidden, device=device, dtype=dtype),
        nn.ReLU(),
    )
