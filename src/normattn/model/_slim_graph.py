"""How channels are coupled, as Torch-Pruning's dependency graph has it.

Its graph says which dimension of which layer follows which, and how indices change on the way
(concatenation, flattening, splitting). We walk it for all channels at once, and call coupled what
is connected; so a walk ends whatever the graph looks like, and each channel's partners are exact.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from ._groups import Group, Groups, Member, Role
from ._slim_depgraph import dependency_graph, longest, mapped_by
from ._slim_layers import GateStandIn, PadBehind, PadStandIn
from ._slim_sets import WIDEST, Channels, Indices, alike, appended, by_rank, connected
from ._slim_standins import StandingIn
from ._slim_units import Linked, refine

_Key = tuple[Any, str]  # a node of Torch-Pruning's, and "in", "out" or "both"


def connect(copy: StandingIn) -> Groups:
    """Return the groups of coupled channels in a copy made by `standing_in`."""
    walk = _Walk(dependency_graph(copy), _names(copy.module))
    walk.run()
    groups, refused = [], []
    for linked in sorted(walk.linked(), key=lambda each: walk.order[each.first]):
        result = refine(linked, copy.module)
        if isinstance(result, str):
            refused.append((linked.first, result))
        else:
            groups.append(result)
    return Groups(tuple(_unique(groups)), tuple(dict.fromkeys(refused)))


def _names(root: nn.Module) -> dict[Any, str]:
    """Return the name of each layer and parameter; a stand-in's parts have the stand-in's."""
    names: dict[Any, str] = {}
    for name, module in root.named_modules():
        names.setdefault(module, name)
        if isinstance(module, PadStandIn):
            names[module.behind] = name
    for name, parameter in root.named_parameters():
        names.setdefault(parameter, name)
    return names


class _Walk:
    """The channels of all dimensions of all nodes, and which follow which."""

    def __init__(self, graph: Any, names: dict[Any, str]) -> None:
        self.graph = graph
        self.names = names
        self.order = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
        self.numbers: dict[_Key, int] = {}
        self.known: dict[_Key, Indices] = {}
        self.pairs: list[tuple[Indices, Indices]] = []

    def run(self) -> None:
        ahead: list[tuple[_Key, Indices]] = []
        for node in list(self.graph.module2node.values()):
            for side in self._sides(node):
                if width := self._width(node, side):
                    ahead.append(((node, side), np.arange(width)))
        while ahead:
            key, indices = ahead.pop()
            before = self.known.get(key, np.empty(0, np.int64))
            fresh = np.setdiff1d(indices, before)
            if fresh.size:
                self.known[key] = np.union1d(before, fresh)
                self.numbers.setdefault(key, len(self.numbers))
                ahead += self._follow(key, fresh)

    def _follow(self, key: _Key, indices: Indices) -> Iterator[tuple[_Key, Indices]]:
        node, side = key
        for dependency in node.dependencies:
            if side not in ("both", self._side(node, dependency.trigger)):
                continue
            target = (dependency.target, self._side(dependency.target, dependency.handler))
            source, mapped = mapped_by(dependency.index_mapping, indices)
            width = self._width(*target) or longest(target[0])
            fits = (mapped >= 0) & (mapped < width)
            source, mapped = source[fits], mapped[fits]
            if mapped.size:
                self.numbers.setdefault(target, len(self.numbers))
                offsets = (self.numbers[key] * WIDEST, self.numbers[target] * WIDEST)
                self.pairs.append((source + offsets[0], mapped + offsets[1]))
                yield target, mapped

    def _sides(self, node: Any) -> tuple[str, ...]:
        pruner = self.graph.get_pruner_of_module(node.module)
        same = pruner.prune_out_channels == pruner.prune_in_channels
        return ("both",) if same else ("in", "out")

    def _side(self, node: Any, function: Any) -> str:
        pruner = self.graph.get_pruner_of_module(node.module)
        if pruner.prune_out_channels == pruner.prune_in_channels:
            return "both"
        return "out" if function == pruner.prune_out_channels else "in"

    def _width(self, node: Any, side: str) -> int | None:
        module = node.module
        if isinstance(module, nn.Parameter):
            return int(module.shape[node.pruning_dim])
        if module not in self.names:
            return None
        if side == "in":
            width = self.graph.get_in_channels(node)
        else:
            width = self.graph.get_out_channels(node)
        return None if width is None else int(width)

    def linked(self) -> Iterator[Linked]:
        """Yield the sets of channels that have the same layers in common."""
        known = {self.numbers[key]: (key, indices) for key, indices in self.known.items()}
        elements = np.concatenate([known[n][1] + n * WIDEST for n in sorted(known)])
        labels = connected(elements, self.pairs)
        kinds, rank = alike(labels, elements // WIDEST)
        found: dict[int, list[tuple[_Key, Channels]]] = defaultdict(list)
        start = 0
        for number in sorted(known):
            key, indices = known[number]
            mine = labels[start : start + len(indices)]
            start += len(indices)
            for kind in np.unique(kinds[mine]).tolist():
                inside = kinds[mine] == kind
                found[kind].append((key, by_rank(rank[mine[inside]], indices[inside])))
        for parts in found.values():
            linked = self._linked(parts)
            if linked is not None:
                yield linked

    def _linked(self, parts: list[tuple[_Key, Channels]]) -> Linked | None:
        members: list[Member] = []
        makers: list[str] = []
        obstacles: list[str] = []
        closes = False
        for (node, side), channels in parts:
            closes = closes or _adds(node)
            name = self.names.get(node.module)
            role = _role(node.module, side)
            if side != "in" and not node.outputs:
                obstacles.append("the model's output")
            if name is None:
                continue  # an operation, not a layer
            if side == "out":
                makers.append(name)
            if role is None:
                obstacles.append(f"a layer that cannot be cut ({_kind(node.module)} at {name!r})")
            elif self._width(node, side):
                if isinstance(node.module, PadBehind):
                    channels = appended(channels, node.module.first)
                if any(channels):
                    members.append(Member(name, role, channels))
        if not makers:
            return None  # the image's own channels, and what only passes them on
        makers.sort(key=self.order.__getitem__)
        members.sort(key=lambda member: self.order[member.layer])
        return Linked(makers[0], _in_order(members), closes, tuple(obstacles))


def _in_order(members: list[Member]) -> tuple[Member, ...]:
    """Number a group's channels as the first layer that computes them does."""
    first = next((member.channels for member in members if member.role == "out"), None)
    if first is None:
        return tuple(members)  # a layer that cannot be cut computes them
    order = sorted(range(len(first)), key=first.__getitem__)
    return tuple(Member(m.layer, m.role, tuple(m.channels[i] for i in order)) for m in members)


def _role(module: Any, side: str) -> Role | None:
    """Return the role of a layer whose dimension can be cut, None of any other."""
    if isinstance(module, GateStandIn):
        return "gate"
    if isinstance(module, PadBehind):
        return "pad"
    if isinstance(module, Tensor):
        return "scale"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if side == "both":
            return "depthwise" if module.in_channels == module.out_channels else None
        return "out" if side == "out" else "in"
    if isinstance(module, nn.Linear):
        return "out" if side == "out" else "in"
    if isinstance(module, nn.LayerNorm):
        return "norm" if len(module.normalized_shape) == 1 else None
    if isinstance(module, nn.GroupNorm | nn.modules.batchnorm._NormBase):
        return "norm"
    return None


def _adds(node: Any) -> bool:
    """Return whether a node adds two maps, which closes a residual branch."""
    kind = str(getattr(node.module, "_grad_fn", ""))
    maps = [each for each in node.inputs if not isinstance(each.module, Tensor)]
    return kind.startswith("AddBackward") and len(maps) > 1


def _kind(module: Any) -> str:
    return type(module).__name__


def _unique(groups: list[Group]) -> Iterator[Group]:
    """Tell groups apart that begin in the same layer, as where a concatenation is split."""
    seen: dict[str, int] = defaultdict(int)
    for group in groups:
        seen[group.name] += 1
        count = seen[group.name]
        name = group.name if count == 1 else f"{group.name}#{count}"
        yield Group(name, group.width, group.unit, group.members, group.closes)
