"""Cut channels out of single layers."""

import contextlib
import copy
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ..attention._narrow import narrow
from ._groups import Group
from ._insertion import MARK, mark
from ._slim_layers import GateStandIn, Keeps, PadStandIn, Squeezes, keeps
from .cifar_resnet import Subsample

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

#: What goes of each dimension of each layer.
Cuts = Mapping[tuple[str, str], frozenset[int]]


def cuts(removed: Iterable[tuple[Group, Iterable[int]]], root: nn.Module | None = None) -> Cuts:
    """Return what goes of each layer where these channels of these groups go.

    Args:
        removed: the channels of each group.
        root: the model, whose bottlenecks of attention are to get narrower with their channels.
            Where only dead channels go they stay, for without them the gates would be others. None
            leaves all as they are.
    """
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    narrowed: dict[str, None] = {}
    for group, channels in removed:
        gone = list(channels)
        for member in group.members if gone else ():
            found[member.layer, member.role].update(
                index for channel in gone for index in member.channels[channel]
            )
            if member.role == "gate" and not set(gone) <= set(group.dead):
                narrowed[member.layer] = None
    for name in narrowed if root is not None else ():
        assert root is not None
        found[name, "hidden"].update(_spare(root.get_submodule(name), found[name, "gate"]))
    return {key: frozenset(indices) for key, indices in found.items() if indices}


def _spare(attention: nn.Module, gone: set[int]) -> tuple[int, ...]:
    if not isinstance(attention, Squeezes):
        return ()
    return attention.spare_hidden([i for i in range(width(attention, "gate")) if i not in gone])


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy with the same tensors, for cutting, which replaces and never writes to them."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def apply(root: nn.Module, wanted: Cuts) -> None:
    """Cut all layers, or none if one cannot be cut."""
    with all_or_nothing(root, {name for name, _ in wanted}):
        for (name, role), gone in wanted.items():
            if role == "scale":
                _cut_scale(root, name, gone)
            else:
                cut(root.get_submodule(name), role, gone)


def cut(layer: nn.Module, role: str, gone: frozenset[int]) -> None:
    """Remove the indices ``gone`` from the dimension that ``role`` names."""
    if isinstance(layer, Subsample | PadStandIn):
        layer.added -= len(gone)
        return
    kept = [i for i in range(width(layer, role)) if i not in gone]
    if role == "gate" and not isinstance(layer, GateStandIn):
        _cut_gate(layer, kept)
    elif role == "hidden":
        assert isinstance(layer, Squeezes)
        layer.keep_hidden(kept)
    elif isinstance(layer, nn.Linear):
        _cut_linear(layer, role, kept)
    elif isinstance(layer, CONVOLUTIONS):
        _cut_convolution(layer, role, kept)
    else:
        cut_norm(layer, kept)


def width(layer: nn.Module, role: str) -> int:
    """Return the size of the dimension that ``role`` names."""
    if role == "gate" and not isinstance(layer, GateStandIn):
        record = mark(layer)
        return int(layer.channels if isinstance(layer, Keeps) else record.kept or record.channels)
    if role == "hidden":
        assert isinstance(layer, Squeezes)
        return layer.hidden
    if isinstance(layer, nn.Linear):
        return layer.in_features if role == "in" else layer.out_features
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels if role == "in" else layer.out_channels
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[-1])
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    assert isinstance(layer, nn.modules.batchnorm._NormBase)
    return layer.num_features


def width_of(root: nn.Module, name: str, role: str) -> int:
    """Return the size of what a plan names: a layer's dimension, or a parameter's.

    Raises:
        AttributeError, AssertionError: the model has no such thing.
    """
    if role != "scale":
        layer = root.get_submodule(name)
        added: int = layer.added if isinstance(layer, Subsample) else width(layer, role)
        return added
    owner, _, key = name.rpartition(".")
    parameter: Tensor = getattr(root.get_submodule(owner), key)
    return max(parameter.shape)


def _cut_gate(attention: nn.Module, kept: list[int]) -> None:
    if keeps(attention):
        assert isinstance(attention, Keeps)
        attention.keep_channels(kept)
    elif isinstance(attention, Keeps):  # one that runs at any width
        attention.channels = len(kept)
    record = mark(attention)
    if record is not None:
        setattr(attention, MARK, dataclasses.replace(record, kept=len(kept)))


def _cut_linear(layer: nn.Linear, role: str, kept: list[int]) -> None:
    if role == "in":
        narrow(layer, "weight", kept, 1)
        layer.in_features = len(kept)
    else:
        narrow(layer, "weight", kept, 0)
        narrow(layer, "bias", kept, 0)
        layer.out_features = len(kept)


def _cut_convolution(layer: Convolution, role: str, kept: list[int]) -> None:
    if role == "in":
        size = layer.in_channels // layer.groups
        narrow(layer, "weight", [i for i in kept if i < size], 1)  # the same of each group
        layer.in_channels = len(kept)
        return
    narrow(layer, "weight", kept, 0)
    narrow(layer, "bias", kept, 0)
    layer.out_channels = len(kept)
    if role == "depthwise":
        layer.in_channels = layer.groups = len(kept)


def cut_norm(layer: nn.Module, kept: list[int]) -> None:
    """Keep these channels of a norm."""
    if isinstance(layer, nn.GroupNorm):
        size = layer.num_channels // layer.num_groups
        layer.num_channels, layer.num_groups = len(kept), len(kept) // size
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (len(kept),)
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        layer.num_features = len(kept)
    for name in ("weight", "bias", "running_mean", "running_var"):
        narrow(layer, name, kept, 0)


def _cut_scale(root: nn.Module, name: str, gone: frozenset[int]) -> None:
    """Cut a parameter along its only dimension of more than one index."""
    owner, _, key = name.rpartition(".")
    module = root.get_submodule(owner)
    parameter = module._parameters[key]
    assert parameter is not None
    dimension = max(range(parameter.ndim), key=lambda d: parameter.shape[d])
    kept = [i for i in range(parameter.shape[dimension]) if i not in gone]
    narrow(module, key, kept, dimension)


@contextlib.contextmanager
def all_or_nothing(root: nn.Module, names: set[str]) -> Iterator[None]:
    """Put modules back as they were where changing one of them fails."""
    touched = [m for name in names for m in _owner(root, name).modules()]
    before = [(m, _contents(m)) for m in dict.fromkeys(touched)]
    try:
        yield
    except BaseException:
        for module, contents in before:
            module.__dict__.clear()
            module.__dict__.update(contents)
        raise


def _contents(module: nn.Module) -> dict[str, Any]:
    stores = ("_parameters", "_buffers", "_modules")
    return {k: dict(v) if k in stores else v for k, v in module.__dict__.items()}


def _owner(root: nn.Module, name: str) -> nn.Module:
    try:
        return root.get_submodule(name)
    except AttributeError:  # a parameter's name
        return root.get_submodule(name.rpartition(".")[0])
