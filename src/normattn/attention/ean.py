"""EAN: normalise each map by itself, and let the scale factors say how much of it to trust."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnsupportedModel
from ._gate import Gate, at_least_float32, sigmoid
from ._narrow import check_kept, denominator, keep_denominator, narrow
from ._options import check_choice, check_count, check_positive

SCALE_NORMS = ("l2", "l1")


class EAN(Gate):
    """Attention from instance statistics, weighted by normalised scale factors.

    ::

        gate = σ(α ⊙ s ⊙ X̂ + δ),    X̂ = γ ⊙ (x − mean) / √(var + ε) + β
        s = γ / √(mean γ² + 1e-5)    (scale_norm="l2")
        s = γ / (mean |γ| + 1e-5)    (scale_norm="l1")

    Mean and variance are those of one channel of one image. The channels form G groups; γ, β, α
    and δ have length C/G and are shared by all groups. α and δ start at 0, so the gate starts at ½.

    Args:
        channels: C, the number of input channels.
        groups: G; must divide C.
        scale_norm: "l2" or "l1", what γ is divided by.
        eps: ε, added to the variance.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: an option is out of its range, or ``groups`` does not divide ``channels``.
        InputError: the input's shape does not fit.

    Reference:
        Li, Li, Wen, "EAN: An Efficient Attention Module Guided by Normalization for Deep Neural
        Networks", AAAI 2024, 38(4):3100-3108.

    Fidelity:
        Against the authors' module (Lihahaah/EAN at 502bc79). Same formula and defaults, nothing
        detached. Different in arithmetic only: slope α·s·γ and offset α·s·β + δ are formed first,
        so that one normalization pass over x yields the logits, without regrouping x in memory;
        and the gate is computed in float32 inside half-precision models.

    Example:
        >>> EAN(64, groups=8)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    denominator: Tensor | None

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 16,
        scale_norm: str = "l2",
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        who = type(self).__name__
        check_count(who, "groups", groups)
        if channels % groups:
            fitting = [str(g) for g in range(1, min(channels, groups) + 1) if channels % g == 0]
            raise ConfigError(
                f"{who}: expected groups to divide channels ({channels}), got {groups}. "
                f"Choose groups from {', '.join(fitting)}, or leave this site out."
            )
        check_choice(who, "scale_norm", scale_norm, SCALE_NORMS)
        check_positive(who, "eps", eps)
        self.groups = groups
        self.scale_norm = scale_norm
        self.eps = eps
        denominator(self)
        width = channels // groups
        self.weight = nn.Parameter(torch.ones(width, device=device, dtype=dtype))  # γ
        self.bias = nn.Parameter(torch.zeros(width, device=device, dtype=dtype))  # β
        self.gain = nn.Parameter(torch.zeros(width, device=device, dtype=dtype))  # α
        self.offset = nn.Parameter(torch.zeros(width, device=device, dtype=dtype))  # δ

    def scales(self) -> tuple[nn.Parameter, ...]:
        # Not penalised: the paper has no sparsity term, and s ignores a common factor of all γ.
        return (self.weight,)

    def importance(self) -> Tensor:
        """Return s, of shape ``(C/G,)``, in float32 at least."""
        scale = at_least_float32(self.weight)
        return scale / self._size(scale)

    def _size(self, scale: Tensor) -> Tensor:
        if self.denominator is not None:
            return at_least_float32(self.denominator)
        if self.scale_norm == "l2":
            return (scale.square().mean() + 1e-5).sqrt()
        return scale.abs().mean() + 1e-5

    def gate(self, x: Tensor) -> Tensor:
        gain = self.gain * self.importance()  # (C/G,)
        slope = (gain * self.weight).repeat(self.groups)  # (C,)
        offset = (gain * self.bias + self.offset).repeat(self.groups)  # (C,)
        # One group a channel is instance normalization. nn.functional refuses a single value per
        # channel; here it has a meaning (its deviation is 0), so the operator is called directly.
        return sigmoid(
            torch.group_norm(at_least_float32(x), self.channels, slope, offset, self.eps)
        )

    def keep_channels(self, kept: Sequence[int]) -> None:
        """Keep whole groups, or the same places of every group, so that the groups stay alike.

        Where places go, what γ was divided by stays as it was (the buffer ``denominator``).
        """
        who = type(self).__name__
        kept = check_kept(who, kept, self.channels)
        width = self.channels // self.groups
        places = sorted({i % width for i in kept})
        groups = {i // width for i in kept}
        alike = len(places) * len(groups) == len(kept)
        if not alike or (len(places) < width and len(groups) < self.groups):
            raise UnsupportedModel(
                f"{who}: expected to keep whole groups of {width} channels, or the same places of "
                f"all {self.groups} groups, got {len(kept)} of {self.channels} channels otherwise. "
                "Remove channels in the sets that unit_choices() names."
            )
        if len(places) < width:
            keep_denominator(self, self._size(at_least_float32(self.weight)))
            for name in ("weight", "bias", "gain", "offset"):
                narrow(self, name, places)
        self.groups = len(groups)
        self.channels = len(kept)

    def unit_choices(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Return whole groups, and single places of all groups."""
        width = self.channels // self.groups
        whole = tuple(tuple(range(i, i + width)) for i in range(0, self.channels, width))
        places = tuple(tuple(range(i, self.channels, width)) for i in range(width))
        return (whole, places)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}, scale_norm={self.scale_norm}"
