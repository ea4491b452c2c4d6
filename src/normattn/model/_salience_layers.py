"""What coupled layers hold of each channel of a group: views of their weights, sums, zeros."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from ..errors import UnsupportedModel

if TYPE_CHECKING:
    from ._groups import Group, Member


def layers_of(
    model: nn.Module, group: "Group", *roles: str
) -> Iterator[tuple["Member", nn.Module]]:
    """Yield the members of ``group`` that have one of these roles, each with its layer.

    Raises:
        UnsupportedModel: the model has no such layer: the group is another model's.
    """
    for member in group.members:
        if member.role in roles:
            try:
                yield member, model.get_submodule(member.layer)
            except AttributeError as error:
                raise UnsupportedModel(
                    f"salience: expected groups of this {type(model).__name__}, got one with the "
                    f"layer {member.layer!r}, which it does not have. Find the groups again."
                ) from error


def scale_of(layer: nn.Module) -> Tensor | None:
    """Return γ of a norm, one for each channel, or None where it has none."""
    scale = getattr(layer, "weight", None)
    return scale if isinstance(scale, Tensor) and scale.ndim == 1 else None


def channels_first(layer: nn.Module, role: str, values: Tensor) -> Tensor:
    """Return a view of a weight whose first two axes, flattened, are the layer's channels.

    The first is the convolution's groups: 1 where the channels are not divided among them. Shape:
    ``(G, C/G, ...)``, of input channels for the role "in", of output channels for all others.
    """
    if values.ndim == 1:
        return values[None, :, None]
    # A weight has its outputs first and a group's inputs second; a transposed one the reverse.
    direct = (role == "in") == isinstance(layer, _ConvTransposeNd)
    if direct:
        return values[None]
    groups = layer.groups if hasattr(layer, "groups") else 1
    return values.unflatten(0, (groups, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]


def per_channel(layer: nn.Module, role: str, values: Tensor) -> Tensor:
    """Return the sums of ``values``, shaped as the layer's weight, over all but the channels."""
    return channels_first(layer, role, values).flatten(2).sum(2).flatten()


def gathered(values: Tensor, member: "Member") -> Tensor:
    """Return, for each channel of the member's group, the sum of a layer's values.

    Args:
        values: one for each channel of the layer.
        member: says which of them belong to each channel of the group.
    """
    device = values.device
    counts = torch.tensor([len(places) for places in member.channels], device=device)
    places = torch.tensor(
        [p for ps in member.channels for p in ps], dtype=torch.long, device=device
    )
    if len(places) and int(places.max()) >= len(values):
        raise UnsupportedModel(
            f"salience: expected groups of this model, got channel {int(places.max())} of "
            f"{member.layer!r}, which has {len(values)}. Find the groups again."
        )
    owners = torch.arange(len(counts), device=device).repeat_interleave(counts)
    return values.new_zeros(len(counts)).index_add(0, owners, values[places])


def summed(
    model: nn.Module, group: "Group", roles: Sequence[str], of: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """Return Σ of ``of(weight)`` over the weights of each channel in the layers of these roles.

    None where no such layer has weights.
    """
    found = [
        gathered(per_channel(layer, member.role, of(weight)), member)
        for member, layer in layers_of(model, group, *roles)
        if isinstance(weight := getattr(layer, "weight", None), Tensor)
    ]
    return torch.stack(found).sum(0) if found else None


def touched(
    model: nn.Module, groups: Sequence["Group"], removed: Mapping[str, Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all that is zero once channels are gone: a view ``(G, C/G, ...)``, and which of C.

    What makes and scales a channel, so that gates and norms see zeros; and what reads it, so that
    it does not matter what they made of them.
    """
    for group in groups:
        chosen = removed.get(group.name, ())
        for member, layer in layers_of(model, group, "out", "norm", "depthwise", "in"):
            places = [place for channel in chosen for place in member.channels[channel]]
            names = ("weight",) if member.role == "in" else ("weight", "bias")
            for tensor in (getattr(layer, name, None) for name in names):
                if not places or not isinstance(tensor, Tensor):
                    continue
                view = channels_first(layer, member.role, tensor.detach())
                gone = torch.zeros(view.shape[0] * view.shape[1], dtype=torch.bool)
                gone[places] = True
                yield view, gone.view(*view.shape[:2], *[1] * (view.ndim - 2)).to(view.device)
