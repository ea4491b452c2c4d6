"""Give a freshly built model the widths that a slimmed one had, so that it can take its weights.

No dependencies are followed and nothing is run: the shapes of the saved tensors say what the widths
are. What has no tensors follows from what is beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..attention import EAN, Gate
from ..errors import UnsupportedModel
from ._insertion import MARK, Place, attention_at, base, layers, mark
from ._slim_cut import CONVOLUTIONS, Convolution
from ._slim_layers import Keeps, Squeezes, keeps
from .cifar_resnet import BasicBlock, Subsample

Shapes = Mapping[str, torch.Size]


def resize(model: nn.Module, shapes: Shapes, channels: Mapping[str, int]) -> nn.Module:
    """Narrow a model in place to the widths that a slimmed state dict has, and return it.

    The weights are left without values where they change; they are to be loaded.

    Args:
        model: the host as it was built, grafts at their original channels.
        shapes: of the tensors in the slimmed state dict, by name.
        channels: by site, the channels that the attention there was left with (`Grafted.kept`).

    Raises:
        UnsupportedModel: a tensor is wider than the model has it, or of another kind.
    """
    for place in layers(model):
        host = base(place.module)
        attention = attention_at(place.module)
        if attention is not None and place.name in channels:
            _resize_attention(attention, place, channels[place.name], shapes)
        _resize_layer(host, place.name, shapes)
    for place in layers(model):
        host = base(place.module)
        if isinstance(host, BasicBlock) and isinstance(base(host.shortcut), Subsample):
            # The zeros that the shortcut appends have no tensor; what it is added to has.
            shortcut = base(host.shortcut)
            assert isinstance(shortcut, Subsample)
            first, last = base(host.conv1), base(host.conv2)
            assert isinstance(first, nn.Conv2d)
            assert isinstance(last, nn.Conv2d)
            shortcut.added = last.out_channels - first.in_channels
    return model


def _resize_layer(layer: nn.Module, name: str, shapes: Shapes) -> None:
    changed = False
    stores: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
    for store in stores:
        for key, tensor in store.items():
            shape = shapes.get(f"{name}.{key}" if name else key)
            if tensor is None or shape is None or tensor.shape == shape:
                continue
            _check(f"{name}.{key}", tensor.shape, shape)
            empty = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
            if isinstance(tensor, nn.Parameter):
                store[key] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
            else:
                store[key] = empty
            changed = True
    if changed and isinstance(layer, Gate):
        raise UnsupportedModel(
            f"resize: expected attention that was grafted, got {type(layer).__name__} as a part of "
            f"the host at {name!r}, of which no record says how it was narrowed. Graft it instead."
        )
    if changed:
        _adopt(layer)


def _adopt(layer: nn.Module) -> None:
    """Set what a layer says of its widths to what its tensors have."""
    weight = layer._parameters.get("weight")
    if isinstance(layer, CONVOLUTIONS):
        assert weight is not None
        _adopt_convolution(layer, weight.shape)
    elif isinstance(layer, nn.Linear):
        assert weight is not None
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.LayerNorm):
        assert weight is not None
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, nn.GroupNorm):
        assert weight is not None
        size = layer.num_channels // layer.num_groups
        layer.num_channels, layer.num_groups = len(weight), len(weight) // size
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        width = weight if weight is not None else layer.running_mean
        assert width is not None
        layer.num_features = len(width)


def _adopt_convolution(layer: Convolution, shape: torch.Size) -> None:
    if layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels:
        layer.groups = shape[0]
    layer.out_channels = shape[0]
    layer.in_channels = shape[1] * layer.groups


def _resize_attention(attention: nn.Module, place: Place, count: int, shapes: Shapes) -> None:
    if isinstance(attention, EAN):
        _resize_ean(attention, count, shapes[f"{place.name}.attn.weight"])
    elif keeps(attention):
        assert isinstance(attention, Keeps)
        _first(attention, count)
    elif isinstance(attention, Keeps):
        attention.channels = count
    if isinstance(attention, Squeezes):  # which may have got narrower inside as well
        for name, layer in attention.named_modules(prefix=f"{place.name}.attn"):
            if layer is not attention:
                _resize_layer(layer, name, shapes)
    record = mark(attention)
    setattr(attention, MARK, type(record)(**{**vars(record), "kept": count}))


def _resize_ean(gate: EAN, count: int, shape: Sequence[int]) -> None:
    width = gate.channels // gate.groups
    left = shape[0]
    if left < width:
        places = [i for i in range(gate.channels) if i % width < left]
        gate.keep_channels(places)
    _first(gate, count)


def _first(gate: Keeps, count: int) -> None:
    """Keep as many channels; which ones does not matter, as the weights are loaded anyway."""
    if count < gate.channels:
        gate.keep_channels(list(range(count)))


def _check(name: str, ours: torch.Size, saved: torch.Size) -> None:
    fits = len(ours) == len(saved) and all(0 < b <= a for a, b in zip(ours, saved, strict=True))
    if not fits:
        raise UnsupportedModel(
            f"resize: expected {name} to be of {tuple(ours)} or narrower, got {tuple(saved)}. "
            "Build the model that was slimmed."
        )
