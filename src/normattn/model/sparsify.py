"""Penalise scale factors while training, so that those that do not earn their keep go to zero."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..attention import Gate
from ..errors import ConfigError, unknown
from ._insertion import mark

Scales = Literal["attention", "norms", "all"]

_NORMS = (
    nn.modules.batchnorm._BatchNorm,  # timm's BatchNormAct2d and SyncBatchNorm among them
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def sparsity(model: nn.Module, p: float, on: Scales = "attention") -> Tensor:
    """Return the sparsity penalty of NAM's eq. 4, to be added to the loss.

    ::

        p · Σ |scale|,    over γ of channel attention, λ of spatial attention, γ of the norms

    Its gradient is p·sign(scale), and zero at zero. With ``on="norms"`` it is Network Slimming's
    penalty (Liu et al., ICCV 2017). A NAM scale at zero makes a gate of σ(w·β) ≈ ½, not a channel
    of zeros: only the scales of the norms behind convolutions tell which channels can be removed.

    Args:
        model: A model with grafted attention, or with norms.
        p: The weight; the paper takes 1e-4 on CIFAR-100 and 1e-3 on ImageNet.
        on: Whose scales, see `scale_factors`.

    Raises:
        ConfigError: p is negative or not finite, or ``model`` has no such scales.

    Reference:
        Liu et al., "NAM: Normalization-based Attention Module", 2021, arXiv:2111.12419.

    Example:
        >>> loss = sparsity(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), 0.5, on="norms")
        >>> loss.item()
        4.0
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < math.inf:
        raise ConfigError(f"sparsity: expected p to be a finite number >= 0, got {p!r}.")
    scales = scale_factors(model, on)
    if not scales:
        raise ConfigError(
            f"sparsity: expected a model with scale factors to penalise, got none with on={on!r}. "
            "Graft a mechanism that its paper penalises (nam, nam-channel, nam-spatial), use "
            "on='norms', or leave the penalty at 0."
        )
    return p * l1_norm([scale for _, scale in scales])


def l1_norm(scales: Sequence[Tensor]) -> Tensor:
    """Return Σ|scale| over all of them."""
    return torch.cat([scale.flatten() for scale in scales]).abs().sum()


def scale_factors(model: nn.Module, on: Scales) -> list[tuple[str, nn.Parameter]]:
    """Return the scale factors that a penalty acts on, with their names in the state dict.

    ``attention``: what the gates call their scales, where the paper penalises them. ``norms``: the
    weights of the host's normalization layers, none inside attention. They include the last norm of
    each residual branch; driven to zero it shuts the branch, so what slims a model must look
    before it cuts.
    """
    if on not in get_args(Scales):
        raise ConfigError(unknown("sparsity", "place (on=)", str(on), get_args(Scales)))
    chosen: list[nn.Parameter] = []
    if on in ("attention", "all"):
        gates = [module for module in model.modules() if isinstance(module, Gate)]
        chosen += [scale for gate in gates if gate.scales_penalised for scale in gate.scales()]
    if on in ("norms", "all"):
        chosen += _host_norms(model)
    wanted = {id(parameter) for parameter in chosen}
    # By the state dict, not by named_parameters(): a graft may stand between a layer and its name.
    named = [(name, p) for name, p in model.state_dict(keep_vars=True).items() if id(p) in wanted]
    return list({id(p): (name, p) for name, p in reversed(named)}.values())[::-1]


def _host_norms(module: nn.Module) -> list[nn.Parameter]:
    if isinstance(module, Gate) or mark(module) is not None:  # attention, ours or another's
        return []
    if isinstance(module, _NORMS):
        return [] if module.weight is None else [module.weight]
    return [scale for child in module.children() for scale in _host_norms(child)]
