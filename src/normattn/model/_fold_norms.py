"""Convolution and norm as one convolution; a factor per channel moved into what is in front."""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._fold_trace import FoldTrace

#: Exact classes: a subclass may do something else with its weight. (A parametrization makes one.)
_PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, Conv2dSame)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d)

Taken = dict[nn.Module, nn.Module]
Left = tuple[str, str]  # a norm's name, and why it stays


def fold_norms(model: nn.Module, trace: FoldTrace) -> tuple[Taken, list[Left]]:
    """Fold each norm into the convolution or linear layer that feeds it alone, in place.

    Returns:
        By norm, the layer that now does its work; and the batch norms that stay, with reasons.
    """
    names = {module: name for name, module in model.named_modules()}
    taken: Taken = {}
    left = []
    for norm in [m for m in names if isinstance(m, _BatchNorm)]:
        layer, reason = _foldable(norm, trace)
        if layer is None:
            left.append((names[norm], reason))
            continue
        factor, shift = norm_line(norm)
        _set(layer, _rows(layer.weight, factor), _bias(layer) * factor + shift)
        replace(model, norm, _rest(norm))
        taken[norm] = layer
    return taken, left


def norm_line(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the factor and the shift by which a norm with running statistics maps x, in float64.

    Shape:
        both: ``(C,)``.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach().double()


def has_line(norm: _BatchNorm) -> bool:
    """Return whether the norm, in eval mode, is a factor and a shift that no input changes."""
    return norm.running_mean is not None and norm.running_var is not None


def takes_factor(layer: nn.Module) -> bool:
    """Return whether a factor for each channel of the layer's output can go into its weights."""
    # (What timm's norm with an activation returns was made by the activation, not by the norm.)
    known = type(layer) in _PRODUCERS or (type(layer) in _NORMS and layer.weight is not None)
    return known and untouched(layer)


def scale(layer: Any, factor: Tensor) -> None:
    """Multiply a layer's output by a factor per channel ``(C,)``, in its weights."""
    bias = None if layer.bias is None else _bias(layer) * factor
    _set(layer, _rows(layer.weight, factor), bias)


def untouched(layer: nn.Module) -> bool:
    """Return whether calling the layer is no more than its class's forward."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` is registered."""
    new.training = old.training
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new


def _foldable(norm: _BatchNorm, trace: FoldTrace) -> tuple[Any, str]:
    """Return the layer that can take the norm, or None and the reason."""
    feed = trace.feed(norm)
    if type(norm) not in _NORMS:
        return None, f"{type(norm).__name__} is no norm that we know"
    if not untouched(norm):
        return None, "there are hooks on it"
    if not has_line(norm):
        return None, "it has no running statistics"
    if feed is None:
        return None, "it does not run exactly once"
    layer = feed.maker
    if layer is None or type(layer) not in _PRODUCERS:
        return None, "there is no convolution right in front of it"
    if not untouched(layer):
        return None, "there are hooks on the convolution in front of it"
    if not feed.alone:
        return None, "something else reads the convolution too"
    if isinstance(layer, nn.Linear) and len(feed.shape) != 2:
        return None, "the linear layer in front of it has its channels elsewhere"
    return layer, ""


def _rest(norm: nn.Module) -> nn.Module:
    """Return what a norm does beyond normalising: timm has one with an activation in it."""
    behind = _behind(norm)
    if len(behind) > 1:
        return nn.Sequential(*behind)
    return behind[0] if behind else nn.Identity()


def _behind(norm: nn.Module) -> list[nn.Module]:
    layers = [norm.drop, norm.act] if type(norm) is BatchNormAct2d else []
    return [layer for layer in layers if not isinstance(layer, nn.Identity)]


def _rows(weight: Tensor, factor: Tensor) -> Tensor:
    """Return a weight whose first dimension is multiplied by a factor each, in float64."""
    return weight.detach().double() * factor.view(-1, *[1] * (weight.ndim - 1))


def _bias(layer: Any) -> Tensor:
    if layer.bias is None:
        return torch.zeros((), dtype=torch.float64, device=layer.weight.device)
    bias: Tensor = layer.bias.detach().double()
    return bias


def _set(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    like = layer.weight
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            parameter = nn.Parameter(value.to(like.dtype), requires_grad=like.requires_grad)
            setattr(layer, name, parameter)
