"""NAM: let batch norm's own scale factors say which channels and which pixels matter."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ._gate import Gate, at_least_float32
from ._narrow import check_kept, denominator, keep_denominator, narrow_norm
from ._options import check_choice, check_enough_values, check_flag, check_positive

WEIGHTINGS = ("sum", "mean", "rms")


def importance(scale: Tensor, weighting: str, divisor: Tensor | None = None) -> Tensor:
    """Return |γ| divided by its sum, its mean or its root mean square; zero where all γ are zero.

    Computed in float32 at least: in float16 the sum of 2,048 scales has three digits. What a
    slimmed module divides by is given as ``divisor``.
    """
    magnitude = at_least_float32(scale).abs()
    if divisor is not None:
        return magnitude / at_least_float32(divisor)
    return magnitude / _size(magnitude, weighting)


def _size(magnitude: Tensor, weighting: str) -> Tensor:
    # Sparse training can push every γ to zero, and 0/0 would spread NaN through the model. The
    # bounds lie far below any scale that matters and far above where 1/bound could overflow.
    if weighting == "sum":
        return magnitude.sum().clamp_min(1e-12)
    if weighting == "mean":
        return magnitude.mean().clamp_min(1e-12)
    return magnitude.square().mean().clamp_min(1e-24).sqrt()


class NAMChannel(Gate):
    """Channel attention weighted by batch-norm scale factors.

    ::

        gate = σ(w ⊙ BN(x)),    w_c = |γ_c| / Σ_k |γ_k|          (weighting="sum", the paper's)
                                w_c = |γ_c| / mean_k |γ_k|       (weighting="mean")
                                w_c = |γ_c| / √(mean_k γ_k²)     (weighting="rms")

    With the paper's weights w ≈ 1/C, so the gate is ½ with a standard deviation of about 0.25/C;
    with the other two w ≈ 1, and the gate uses its range whatever the number of channels.

    Args:
        channels: C, the number of input channels.
        weighting: "sum", "mean" or "rms", what |γ| is divided by.
        detach_importance: whether to stop the gradient that would reach γ through w.
        eps: added to the variance inside the batch norm.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: an option is out of its range.
        InputError: the input's shape does not fit, or training has one value per channel.

    Reference:
        Liu, Shao, Teng, Hoffmann, "NAM: Normalization-based Attention Module", 2021,
        arXiv:2111.12419, eq. 2.

    Fidelity:
        Against ``MODELS/attention.py`` of the authors' code (Christian-lyc/NAM at 6e8d3e3).
        Same: |γ| (the paper's text has γ), and no gradient through w, since that file reads γ
        through ``.data``. Different: when every γ is zero it computes 0/0 and this returns a gate
        of ½; the gate is computed in float32 inside half-precision models; "mean" and "rms".

    Example:
        >>> NAMChannel(64)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    scales_penalised: ClassVar[bool] = True

    denominator: Tensor | None

    def __init__(
        self,
        channels: int,
        *,
        weighting: str = "sum",
        detach_importance: bool = True,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        _check_options(type(self).__name__, weighting, detach_importance, eps)
        self.weighting = weighting
        self.detach_importance = detach_importance
        self.norm = nn.BatchNorm2d(channels, eps=eps, device=device, dtype=dtype)
        denominator(self)

    def scales(self) -> tuple[nn.Parameter, ...]:
        return (self.norm.weight,)

    def importance(self) -> Tensor:
        """Return w, of shape ``(C,)``."""
        scale = self.norm.weight.detach() if self.detach_importance else self.norm.weight
        return importance(scale, self.weighting, self.denominator)

    def gate(self, x: Tensor) -> Tensor:
        check_enough_values(type(self).__name__, self.norm, x)
        weight = self.importance().view(1, -1, 1, 1)  # (1, C, 1, 1)
        logits: Tensor = weight * self.norm(x)
        return logits.sigmoid_()  # in place on our own product: fresh memory costs as much as math

    def keep_channels(self, kept: Sequence[int]) -> None:
        """Keep these channels; what γ was divided by stays, as the buffer ``denominator``."""
        kept = check_kept(type(self).__name__, kept, self.channels)
        if len(kept) < self.channels:
            magnitude = at_least_float32(self.norm.weight.detach()).abs()
            keep_denominator(self, _size(magnitude, self.weighting))
        narrow_norm(self.norm, kept)
        self.channels = len(kept)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weighting={self.weighting}"


class NAMSpatial(Gate):
    """Pixel attention weighted by the scale factors of a batch norm over pixel positions.

    ::

        gate = σ(w ⊙ BN(x)),    w_p = |λ_p| / Σ_q |λ_q|

    BN treats each of the H·W positions as its channel: the statistics of a position run over the
    batch and the channels, and λ, of length H·W, is its scale. So construction fixes the size.

    Args:
        channels: C, the number of input channels.
        size: (H, W) of the maps; `normattn.graft` finds it by a dry run.
        weighting: "sum", "mean" or "rms", as in `NAMChannel`.
        detach_importance: whether to stop the gradient that would reach λ through w.
        eps: added to the variance inside the batch norm.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: an option is out of its range, or ``size`` is missing.
        InputError: the map has another size, or training has one value per position.

    Reference:
        Liu, Shao, Teng, Hoffmann, "NAM: Normalization-based Attention Module", 2021,
        arXiv:2111.12419, eq. 3 ("pixel normalization").

    Fidelity:
        The head of the authors' code (Christian-lyc/NAM at 6e8d3e3) has no spatial module; it was
        in the history for four days, as a BatchNorm1d over H·W with statistics over batch and
        channels. Same here. Different as in `NAMChannel`: λ = 0, half precision, the weightings.

    Example:
        >>> NAMSpatial(64, size=(8, 6))(torch.randn(2, 64, 8, 6)).shape
        torch.Size([2, 64, 8, 6])
    """

    needs_size: ClassVar[bool] = True
    scales_penalised: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        *,
        size: Sequence[int] | None = None,
        weighting: str = "sum",
        detach_importance: bool = True,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        _check_options(type(self).__name__, weighting, detach_importance, eps)
        self.size = _check_size(type(self).__name__, size)
        self.weighting = weighting
        self.detach_importance = detach_importance
        pixels = self.size[0] * self.size[1]
        self.norm = nn.BatchNorm1d(pixels, eps=eps, device=device, dtype=dtype)

    def scales(self) -> tuple[nn.Parameter, ...]:
        return (self.norm.weight,)

    def importance(self) -> Tensor:
        """Return w, of shape ``(H·W,)``."""
        scale = self.norm.weight.detach() if self.detach_importance else self.norm.weight
        return importance(scale, self.weighting)

    def gate(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise InputError(
                f"{type(self).__name__}: expected maps of {self.size[0]}×{self.size[1]}, the size "
                f"it was built for, got {x.shape[2]}×{x.shape[3]}. Build it for that size: graft "
                "with that input size."
            )
        # Whichever memory order x has, one of the two views below costs no copy.
        if x.is_contiguous(memory_format=torch.channels_last):
            rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H·W, C)
            gate = self._gate_rows(rows, weight=self.importance()[:, None])
            return gate.view(-1, *self.size, self.channels).permute(0, 3, 1, 2)
        return self._gate_rows(x.flatten(2).flatten(0, 1), weight=self.importance()).view(x.shape)

    def keep_channels(self, kept: Sequence[int]) -> None:
        # Every weight belongs to a pixel: at inference a channel knows nothing of the others.
        self.channels = len(check_kept(type(self).__name__, kept, self.channels))

    def _gate_rows(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return the gate of ``rows``, of shape ``(B·C, H·W)`` or ``(B, H·W, C)``."""
        check_enough_values(type(self).__name__, self.norm, rows)
        logits: Tensor = weight * self.norm(rows)
        return logits.sigmoid_()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}, weighting={self.weighting}"


class NAM(Gate):
    """Channel attention, then pixel attention on its result.

    ::

        gate = g_c ⊙ g_s,    g_c = NAMChannel's gate of x,    g_s = NAMSpatial's gate of x ⊙ g_c

    Args:
        channels: C, the number of input channels.
        size: (H, W) of the maps; `normattn.graft` finds it by a dry run.
        weighting: "sum", "mean" or "rms", as in `NAMChannel`; of both parts.
        detach_importance: whether to stop the gradients that would reach γ and λ through w.
        eps: added to the variances inside the batch norms.
        device: where the parameters live.
        dtype: the parameters' type.

    Shape:
        x: ``(B, C, H, W)``. gate: ``(B, C, H, W)``, values in (0, 1).

    Raises:
        ConfigError: an option is out of its range, or ``size`` is missing.
        InputError: the map has another size, or training has one value to normalise.

    Reference:
        Liu, Shao, Teng, Hoffmann, "NAM: Normalization-based Attention Module", 2021,
        arXiv:2111.12419.

    Fidelity:
        The authors' code (Christian-lyc/NAM at 6e8d3e3) has no combined module. The order, as in
        CBAM, is the author's own answer in that repository's issues 1 and 2.

    Example:
        >>> NAM(64, size=(8, 8))(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    needs_size: ClassVar[bool] = True
    scales_penalised: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        *,
        size: Sequence[int] | None = None,
        weighting: str = "sum",
        detach_importance: bool = True,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        size = _check_size(type(self).__name__, size)
        _check_options(type(self).__name__, weighting, detach_importance, eps)
        self.channel = NAMChannel(
            channels,
            weighting=weighting,
            detach_importance=detach_importance,
            eps=eps,
            device=device,
            dtype=dtype,
        )
        self.spatial = NAMSpatial(
            channels,
            size=size,
            weighting=weighting,
            detach_importance=detach_importance,
            eps=eps,
            device=device,
            dtype=dtype,
        )

    def scales(self) -> tuple[nn.Parameter, ...]:
        return self.channel.scales() + self.spatial.scales()

    def gate(self, x: Tensor) -> Tensor:
        channel = self.channel.gate(x)
        return channel * self.spatial.gate((x * channel).to(x.dtype))

    def keep_channels(self, kept: Sequence[int]) -> None:
        kept = check_kept(type(self).__name__, kept, self.channels)
        self.channel.keep_channels(kept)
        self.spatial.keep_channels(kept)
        self.channels = len(kept)


def _check_options(who: str, weighting: str, detach_importance: bool, eps: float) -> None:
    check_choice(who, "weighting", weighting, WEIGHTINGS)
    check_flag(who, "detach_importance", detach_importance)
    check_positive(who, "eps", eps)


def _check_size(who: str, size: object) -> tuple[int, int]:
    # A list is welcome: that is what a size is after a round trip through JSON.
    if (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in size)
    ):
        return (size[0], size[1])
    raise ConfigError(
        f"{who}: expected size to be (H, W), two integers >= 1, got {size!r}. normattn.graft finds "
        "it by a dry run; by hand, give the size of the maps at this place."
    )
