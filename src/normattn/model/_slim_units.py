"""Which channels of a group can go only together, and which cannot go at all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from ._groups import Group, Member
from ._slim_layers import Blocks, GateStandIn, PadStandIn


@dataclass(frozen=True)
class Linked:
    """Channels that have the same layers in common, before anything is asked of the layers.

    Args:
        first: the first layer that computes them, in the order in which they were found.
        members: the layers that can be cut.
        closes: as of a `Group`.
        obstacles: what stands in the way of removing any.
    """

    first: str
    members: tuple[Member, ...]
    closes: bool
    obstacles: tuple[str, ...]


def refine(linked: Linked, root: nn.Module) -> Group | str:
    """Return the group with the units that its layers allow, or why nothing can be removed."""
    if linked.obstacles:
        return f"these channels reach {linked.obstacles[0]}"
    reason = next(filter(None, (_obstacle(m, root) for m in linked.members)), None)
    if reason is not None:
        return f"these channels reach {reason}"
    width = len(linked.members[0].channels)
    choices = _choices(linked.members, root)
    units = [_joined(width, linked.members, blocks) for blocks in choices]
    possible = [unit for unit in units if unit is not None and len(unit) > 1]
    if not possible:
        together = "can only go together" if width > 1 else "cannot go"
        return f"its {width} channels {together}"
    unit = min(possible, key=lambda each: max(map(len, each)))
    return Group(linked.first, width, unit, linked.members, linked.closes)


def _obstacle(member: Member, root: nn.Module) -> str | None:
    if member.role == "scale":
        return None
    layer = root.get_submodule(member.layer)
    if isinstance(layer, GateStandIn):
        return layer.obstacle
    if isinstance(layer, PadStandIn):
        return None
    tensors = [*layer._parameters, *layer._buffers]
    if getattr(layer, "parametrizations", None) is not None or "weight" not in tensors:
        return f"a layer whose weight is computed ({type(layer).__name__} at {member.layer!r})"
    return None


def _choices(members: Iterable[Member], root: nn.Module) -> Iterator[list[tuple[Member, Blocks]]]:
    """Yield the ways in which the layers together may be cut; only attention leaves a choice."""
    fixed: list[tuple[Member, Blocks]] = []
    free: list[tuple[Member, tuple[Blocks, ...]]] = []
    for member in members:
        layer = None if member.role == "scale" else root.get_submodule(member.layer)
        if isinstance(layer, GateStandIn) and layer.choices:
            free.append((member, layer.choices))
        elif layer is not None and (blocks := _blocks(member, layer)):
            fixed.append((member, blocks))
    for i in range(max((len(choices) for _, choices in free), default=1)):
        chosen = [(member, choices[min(i, len(choices) - 1)]) for member, choices in free]
        yield [*fixed, *chosen]


def _blocks(member: Member, layer: nn.Module) -> Blocks | None:
    """Return the indices of a layer that go together: so many of each group of a convolution."""
    if isinstance(layer, nn.GroupNorm):
        size = layer.num_channels // layer.num_groups
        return tuple(tuple(range(i, i + size)) for i in range(0, layer.num_channels, size))
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or member.role == "depthwise":
        return None
    if layer.groups == 1:
        return None
    total = layer.in_channels if member.role == "in" else layer.out_channels
    size = total // layer.groups
    return tuple(tuple(range(i, total, size)) for i in range(size))


def _joined(
    width: int, members: Iterable[Member], chosen: Iterable[tuple[Member, Blocks]]
) -> tuple[tuple[int, ...], ...] | None:
    """Return the units in which all demands are met, None where one reaches beyond the group."""
    pairs: list[tuple[int, int]] = []
    for member, blocks in chosen:
        channel = {index: i for i, indices in enumerate(member.channels) for index in indices}
        for block in blocks:
            inside = [channel[index] for index in block if index in channel]
            if inside and len(inside) < len(block):
                return None
            pairs += [(inside[0], other) for other in inside[1:]]
    if not pairs:
        return tuple((i,) for i in range(width))
    rows, columns = np.array(pairs).T
    matrix = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(width, width))
    _, labels = connected_components(matrix, directed=False)
    units: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels.tolist()):
        units[label].append(i)
    return tuple(tuple(unit) for unit in units.values())
