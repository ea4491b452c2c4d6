"""Which channels of which layers hang together: what slimming can remove, and what it cannot.

Torch-Pruning follows the channels through the model (`_slim_depgraph.py`, which alone imports it).
It reads a copy in which attention is a stand-in that treats each channel by itself
(`_slim_standins.py`); what is connected is a group (`_slim_graph.py`), and what was found is tried
before it is believed (`_slim_trial.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ._slim_checks import check_model

#: "out", "in": the dimensions of a convolution or linear layer; "depthwise": both at once; "norm";
#: "gate": attention; "hidden": its bottleneck, which is of no group but may get narrower with one;
#: "scale": a parameter of one number for each channel, named as such; "pad":
#: the shortcut of the CIFAR ResNets that appends zero channels.
Role = Literal["out", "in", "norm", "depthwise", "gate", "hidden", "scale", "pad"]


@dataclass(frozen=True)
class Member:
    """A layer that has a group's channels.

    Args:
        layer: its name in ``named_modules()`` of the plain model; for "scale" the parameter's in
            ``named_parameters()``.
        role: which of its dimensions.
        channels: ``channels[i]`` are the indices there that belong to the group's channel i:
            usually i alone, shifted behind a concatenation, many behind a flattening.
    """

    layer: str
    role: Role
    channels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """Channels that layers share, so that one leaves all of them or none.

    Args:
        name: the first layer that computes them.
        width: how many there are.
        unit: the sets of channels that can go only together; mostly of one channel each.
        members: the layers.
        closes: whether they are a residual stream, the result of an addition.
        dead: channels that can go without a trace, where they were looked for.
    """

    name: str
    width: int
    unit: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    closes: bool
    dead: tuple[int, ...] = ()


@dataclass(frozen=True)
class Groups:
    """All groups of a model, and the layers whose channels have to stay, with the reason."""

    groups: tuple[Group, ...]
    refused: tuple[tuple[str, str], ...]

    def __getitem__(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)


def find_groups(model: nn.Module, example_input: Tensor) -> Groups:
    """Return the groups of coupled channels of ``model``, which is left as it was.

    Args:
        model: any model that takes one batch of images.
        example_input: such a batch, ``(B, C, H, W)``; one image will do.

    Raises:
        UnsupportedModel: the model is compiled, wrapped, scripted, quantised or on the meta device,
            or cannot take the example.

    Example:
        >>> import torch
        >>> from normattn.model.hosts import host
        >>> found = find_groups(host("resnet20", 10), torch.zeros(1, 3, 32, 32))
        >>> found["layer1.0.conv1"].width
        16
    """
    from ._slim_graph import connect
    from ._slim_standins import standing_in
    from ._slim_trial import tried

    check_model("find_groups", model, example_input)
    copy = standing_in(model, example_input)
    return tried(copy, connect(copy))


def named(groups: Iterable[Group]) -> dict[str, Group]:
    """Return the groups by name."""
    return {group.name: group for group in groups}
