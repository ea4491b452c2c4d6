"""What layers read of channels that hold a constant, and where their part of it can move."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._discovery import _tensors
from ._groups import Groups
from ._slim_cut import CONVOLUTIONS
from ._slim_plan import Fold
from ._slim_standins import look_on


class Reads:
    """What the layers of a model read on two images, and what comes out.

    Args:
        model: a copy, in evaluation mode, which nobody else changes.
        example: a batch of the shape that it takes.
        found: its groups.
    """

    def __init__(self, model: nn.Module, example: Tensor, found: Groups) -> None:
        self.model = model
        self.images = images_like(example)
        self.inputs = given(model, self.images, found)
        self.outputs = self.output(model)
        self.norms = _norms_behind(model, self.images)

    def output(self, model: nn.Module) -> Tensor:
        """Return the first output of a model on the images."""
        with torch.no_grad():
            return next(_tensors(model(self.images)))


def into(reads: Reads, name: str) -> str | None:
    """Return what can take over a layer's part of a constant, None where nothing can."""
    layer = reads.model.get_submodule(name)
    if type(layer) in CONVOLUTIONS:
        layer_any: Any = layer
        padded = isinstance(layer_any.padding, str) or any(layer_any.padding)
        if padded and layer_any.padding_mode == "zeros":
            return None
    elif type(layer) is not nn.Linear:
        return None  # another class may pad, or compute with its weight
    if layer.bias is not None:
        return f"{name}.bias"
    norm = reads.norms.get(name)
    return None if norm is None else f"{norm}.running_mean"


def fingerprint(model: nn.Module) -> str:
    """Return what tells a model's scales and shifts from all others'."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.ndim == 1:
            digest.update(name.encode() + tensor.detach().double().cpu().numpy().tobytes())
    return digest.hexdigest()


def fold(model: nn.Module, folds: Iterable[Fold]) -> None:
    """Move constants on, before the channels that hold them are cut."""
    for each in folds:
        owner, _, name = each.into.rpartition(".")
        module = model.get_submodule(owner)
        before: Tensor = getattr(module, name)
        shift = _shift(model.get_submodule(each.layer), each)
        moved = before.detach().double() + (-shift if name == "running_mean" else shift)
        after: Tensor = moved.to(before.dtype)
        if isinstance(before, nn.Parameter):
            after = nn.Parameter(after, requires_grad=before.requires_grad)
        setattr(module, name, after)


def _shift(layer: nn.Module, each: Fold) -> Tensor:
    """Return what a layer makes of the constants, ``(outputs,)`` in float64."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    summed = weight.detach().double()
    if summed.ndim > 2:
        summed = summed.flatten(2).sum(2)
    groups = layer.groups if isinstance(layer, CONVOLUTIONS) else 1
    rows, size = summed.shape[0] // groups, summed.shape[1]
    shift = summed.new_zeros(summed.shape[0])
    for channel, value in zip(each.channels, each.values, strict=True):
        first = channel // size * rows
        shift[first : first + rows] += summed[first : first + rows, channel % size] * value
    return shift


def images_like(example: Tensor) -> Tensor:
    """Return four images of noise."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, *example.shape[1:], generator=generator)
    return noise.to(example.device, example.dtype)


def given(model: nn.Module, x: Tensor, found: Groups) -> dict[str, Tensor]:
    """Return what layers that read groups' channels are given, channels first: ``(C, rest)``."""
    seen: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            dimension = 1 if isinstance(layer, CONVOLUTIONS) else -1
            seen[name] = args[0].detach().movedim(dimension, 0).flatten(1).float().cpu()

        return note

    names = {m.layer for group in found.groups for m in group.members if m.role == "in"}
    look_on(model, x, (model.get_submodule(n).register_forward_pre_hook(noting(n)) for n in names))
    return seen


def _norms_behind(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Return, for layers whose output a batch norm is given, the norm."""
    made: dict[int, tuple[str, Tensor]] = {}  # with the tensor, so that no other gets its id
    found: dict[str, str] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, _BatchNorm):
                if id(args[0]) in made and layer.running_mean is not None:
                    found[made[id(args[0])][0]] = name
            else:
                made[id(output)] = (name, output)

        return note

    wanted = (*CONVOLUTIONS, nn.Linear, _BatchNorm)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, wanted)]
    look_on(model, x, (layer.register_forward_hook(noting(name)) for name, layer in layers))
    return found
