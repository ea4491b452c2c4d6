"""Penalise scale factors while training, so that those that do not earn their keep go to zero."""

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..attention import Gate
from ..errors import ConfigError, unknown
from ._closing import closing_modules
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
    _require_amount("sparsity", "p", p)
    return p * l1_norm([scale for _, scale in _some_scales("sparsity", model, on)])


def soft_threshold(
    model: nn.Module, amount: float, on: Scales = "attention", *, skip: Iterable[str] = ()
) -> nn.Module:
    """Move every scale towards zero by ``amount``, in place, and return the model.

    ::

        scale ← sign(scale) · max(|scale| - amount, 0)

    This is the proximal step of ``amount``·Σ|scale|, to be taken after the optimizer's: unlike a
    gradient of the penalty, which steps to and fro over zero, it leaves exact zeros. For the
    minimum of loss + p·Σ|scale|, ``amount`` is p times the step that a gradient of 1 makes: lr·p
    for plain SGD, lr·p / (1 - momentum) with torch's momentum, whose buffer repeats each gradient
    but not this step. ``normattn.fit`` does it with ``sparsity_by="proximal"``, for AdamW too.

    Args:
        model: A model with grafted attention, or with norms.
        amount: How far; a finite number >= 0.
        on: Whose scales, see `scale_factors`.
        skip: Names or patterns of scales in the state dict to leave alone, for instance
            `closing_norms`.

    Raises:
        ConfigError: a senseless amount, no such scales, or a pattern without a match.

    Reference:
        Parikh and Boyd, "Proximal Algorithms", 2014, 6.5.2.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(2))
        >>> model[0].weight.data = torch.tensor([0.25, -1.0])
        >>> soft_threshold(model, 0.5, on="norms")[0].weight.tolist()
        [0.0, -0.5]
    """
    _require_amount("soft_threshold", "amount", amount)
    scales = _some_scales("soft_threshold", model, on)
    skipped = [skip] if isinstance(skip, str) else list(skip)
    for pattern in skipped:
        if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in scales):
            known = [name for name, _ in scales]
            raise ConfigError(unknown("soft_threshold", "scale (skip=)", pattern, known))
    for name, scale in scales:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in skipped):
            shrink(scale, amount)
    return model


@torch.no_grad()
def shrink(scale: Tensor, amount: float | Tensor) -> None:
    """Soft-threshold one tensor in place; ``amount`` is >= 0, for all of it or for each element."""
    bound: Any = amount
    scale.sub_(scale.clamp(-bound, bound))  # one within the amount loses itself: exactly zero


def closing_norms(model: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Return the names of those norms' scales whose zeros would shut a residual branch.

    They are the last norms in front of an addition, of the branch and of a shortcut with a norm of
    its own, with no convolution or linear layer between. A penalty that drives them to zero takes
    whole blocks out of the model, and removes no channel: those are the addition's, which other
    layers share. One forward in evaluation mode finds them; the model stays as it was.

    Args:
        model: Any model that runs eagerly, attention in it or not.
        example_input: One input, normalised or not: (1, C, H, W) on the model's device.

    Returns:
        Names in the state dict, those of ``scale_factors(model, "norms")``.

    Raises:
        UnsupportedModel: the model does not run on the example, or cannot be looked into.

    Example:
        >>> from normattn.model.hosts import host
        >>> closing_norms(host("resnet20", 10), torch.zeros(1, 3, 32, 32))[:2]
        ('layer1.0.bn2.weight', 'layer1.1.bn2.weight')
    """
    norms = {id(norm) for norm in _host_norms(model)}
    closing = closing_modules(model, example_input, lambda module: id(module) in norms)
    weights = {id(norm.weight) for norm in closing}
    return tuple(n for n, scale in scale_factors(model, "norms") if id(scale) in weights)


def l1_norm(scales: Sequence[Tensor]) -> Tensor:
    """Return Σ|scale| over all of them."""
    return torch.cat([scale.flatten() for scale in scales]).abs().sum()


def scale_factors(model: nn.Module, on: Scales) -> list[tuple[str, nn.Parameter]]:
    """Return the scale factors that a penalty acts on, with their names in the state dict.

    ``attention``: what the gates call their scales, where the paper penalises them. ``norms``: the
    weights of the host's normalization layers, none inside attention. They include the last norm of
    each residual branch; driven to zero it shuts the branch: see `closing_norms`.
    """
    if on not in get_args(Scales):
        raise ConfigError(unknown("sparsity", "place (on=)", str(on), get_args(Scales)))
    chosen: list[nn.Parameter] = []
    if on in ("attention", "all"):
        gates = [module for module in model.modules() if isinstance(module, Gate)]
        chosen += [scale for gate in gates if gate.scales_penalised for scale in gate.scales()]
    if on in ("norms", "all"):
        chosen += [norm.weight for norm in _host_norms(model)]
    wanted = {id(parameter) for parameter in chosen}
    # By the state dict, not by named_parameters(): a graft may stand between a layer and its name.
    named = [(name, p) for name, p in model.state_dict(keep_vars=True).items() if id(p) in wanted]
    return list({id(p): (name, p) for name, p in reversed(named)}.values())[::-1]


def _host_norms(module: nn.Module) -> list[Any]:
    """Return the norms with scales that are none of attention's."""
    if isinstance(module, Gate) or mark(module) is not None:  # attention, ours or another's
        return []
    if isinstance(module, _NORMS):
        return [] if module.weight is None else [module]
    return [norm for child in module.children() for norm in _host_norms(child)]


def _some_scales(who: str, model: nn.Module, on: Scales) -> list[tuple[str, nn.Parameter]]:
    scales = scale_factors(model, on)
    if not scales:
        raise ConfigError(
            f"{who}: expected a model with scale factors to penalise, got none with on={on!r}. "
            "Graft a mechanism that its paper penalises (nam, nam-channel, nam-spatial), use "
            "on='norms', or leave the penalty at 0."
        )
    return scales


def _require_amount(who: str, name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:  # type: ignore[operator]
        raise ConfigError(f"{who}: expected {name} to be a finite number >= 0, got {value!r}.")
