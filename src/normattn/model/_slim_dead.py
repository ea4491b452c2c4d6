"""Channels that do nothing: their scale is exactly zero, so they hold a constant, whatever comes.

Such a channel can go without a trace once its constant has moved on: what the layers behind made of
it becomes part of their bias, or of the running mean of the norm behind them. Where zeros are
padded around the map, a constant other than zero is none at the border, and the channel stays.
"""

import copy
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ._groups import Group, Groups
from ._slim_cut import apply, cuts, shared_copy
from ._slim_fold import Reads, fold, given, images_like, into
from ._slim_plan import Fold
from ._slim_standins import StandingIn
from .fuse import plain

_STILL = 1e-6  # how far rounding may spread a constant, of its size
_EXACT = 3e-6  # how far it may move the outputs, of their size: other images may triple it


@dataclass(frozen=True)
class Dead:
    """Channels that can go without a trace, and those of zero scale that cannot.

    Args:
        channels: by the group's name.
        folds: what has to move on when they go.
        left: groups of which such channels stay, with the reason.
    """

    channels: Mapping[str, tuple[int, ...]]
    folds: tuple[Fold, ...]
    left: tuple[tuple[str, str], ...]

    def marked(self, groups: Groups) -> Groups:
        """Return the groups with their dead channels."""
        known = (replace(g, dead=self.channels.get(g.name, ())) for g in groups.groups)
        return Groups(tuple(known), groups.refused)

    def folds_of(self, removed: Mapping[str, tuple[int, ...]], groups: Groups) -> tuple[Fold, ...]:
        """Return what has to move on when only these channels go."""
        gone: dict[str, set[int]] = {}
        for group in groups.groups:
            for member in group.members:
                if member.role == "in":
                    places = (j for i in removed.get(group.name, ()) for j in member.channels[i])
                    gone.setdefault(member.layer, set()).update(places)
        narrowed = []
        for each in self.folds:
            held = zip(each.channels, each.values, strict=True)
            kept = [(c, v) for c, v in held if c in gone.get(each.layer, ())]
            if kept:
                channels, values = zip(*kept, strict=True)
                narrowed.append(Fold(each.layer, channels, values, each.into))
        return tuple(narrowed)


@dataclass(frozen=True)
class _Part:
    """Channels of a group that stand or fall together: those that hold zero, and the others."""

    group: Group
    channels: tuple[int, ...]
    folds: tuple[Fold, ...]


def find_dead(model: nn.Module, copied: StandingIn, found: Groups, example: Tensor) -> Dead:
    """Return the dead channels of a model, which is left as it was.

    That a channel is constant is seen in the copy, where all weights are random but the scales that
    are zero, so that no other cause can hide; what it holds, in the model itself.
    """
    still = _still(copied, found) if copied.zeros else {}
    if not any(still.values()):
        return Dead({}, (), ())
    with plain(model):
        reads = Reads(copy.deepcopy(model).eval(), example, found)
    left: list[tuple[str, str]] = []
    parts = [p for g in found.groups for p in _parts(g, still[g.name], reads, left) if p.channels]
    gone = _admit(reads, [], parts)
    failed = dict.fromkeys(part.group.name for part in parts if part not in gone)
    left += [(name, "attention, or a norm, sees all channels at once") for name in failed]
    channels: dict[str, tuple[int, ...]] = {}
    for part in gone:
        channels[part.group.name] = (*channels.get(part.group.name, ()), *part.channels)
    folds = tuple(each for part in gone for each in part.folds)
    return Dead(channels, folds, tuple(dict.fromkeys(left)))


def _still(copied: StandingIn, found: Groups) -> dict[str, list[int]]:
    """Return the channels of zero scale that are constant wherever they are read, in the copy.

    Norms use the statistics of the images there, so that no ReLU is always shut by chance.
    """
    still = {group.name: set(range(group.width)) for group in found.groups}
    copied.normalise(True)
    for seed in (1, 2):
        copied.draw(seed, zeros=True)
        inputs = given(copied.module, images_like(copied.example), found)
        for group in found.groups:
            still[group.name] &= set(_constant(group, inputs))
    copied.normalise(False)
    copied.draw()
    at_zero = {name: where for name, (where, _) in copied.zeros.items()}
    for group in found.groups:
        still[group.name] = {i for i in still[group.name] if _has_zero(group, i, at_zero)}
    return {g.name: _whole_units(g, still[g.name]) for g in found.groups}


def _whole_units(group: Group, channels: Container[int]) -> list[int]:
    return [i for unit in group.unit if all(j in channels for j in unit) for i in unit]


def _has_zero(group: Group, channel: int, zeros: Mapping[str, Tensor]) -> bool:
    """Return whether a norm, or a layer's scale, is exactly zero for a channel."""
    for member in group.members:
        name = f"{member.layer}.weight" if member.role == "norm" else member.layer
        if member.role in ("norm", "scale") and name in zeros:
            where = zeros[name].flatten()
            if any(bool(where[place]) for place in member.channels[channel]):
                return True
    return False


def _constant(group: Group, inputs: Mapping[str, Tensor]) -> list[int]:
    """Return the channels that hold a constant for all that reads them, whole units of them."""
    moves = torch.zeros(group.width, dtype=torch.bool)
    for member in group.members:
        if member.role == "in":
            values = inputs[member.layer]
            spread = values.amax(1) - values.amin(1) > _STILL * values.abs().amax(1).clamp_min(1)
            for i, places in enumerate(member.channels):
                moves[i] |= bool(spread[list(places)].any())
    return _whole_units(group, (~moves).nonzero().flatten().tolist())


def _parts(
    group: Group, still: list[int], reads: Reads, left: list[tuple[str, str]]
) -> Iterator[_Part]:
    """Yield what may go of the channels that are ``still``; note in ``left`` what may not."""
    mixing = [m.layer for m in group.members if isinstance(_layer(reads, m.layer), nn.LayerNorm)]
    if still and mixing:
        left.append((group.name, f"the layer norm {mixing[0]!r} sees all channels at once"))
        return
    constant = set(_constant(group, reads.inputs))
    if set(still) - constant:
        left.append((group.name, "its constant is none behind padded zeros or attention"))
    still = [channel for channel in still if channel in constant]
    if len(still) == group.width:
        still = [channel for unit in group.unit[1:] for channel in unit]  # one has to stay
    readers = [member for member in group.members if member.role == "in"]
    values = {m.layer: reads.inputs[m.layer].double().mean(1) for m in readers}
    empty = [
        unit
        for unit in group.unit
        if all(i in still for i in unit)
        and not any(values[m.layer][list(m.channels[i])].any() for m in readers for i in unit)
    ]
    nothing = tuple(channel for unit in empty for channel in unit)
    yield _Part(group, nothing, ())
    rest = tuple(channel for channel in still if channel not in nothing)
    folds = []
    for member in readers if rest else ():
        places = [j for i in rest for j in member.channels[i] if values[member.layer][j]]
        target = into(reads, member.layer)
        if places and target is None:
            left.append((group.name, f"nothing at {member.layer!r} can take over its constant"))
            return
        if places and target is not None:
            held = tuple(values[member.layer][places].tolist())
            folds.append(Fold(member.layer, tuple(places), held, target))
    yield _Part(group, rest, tuple(folds))


def _layer(reads: Reads, name: str) -> nn.Module | None:
    return dict(reads.model.named_modules()).get(name)


def _admit(reads: Reads, sound: list[_Part], more: list[_Part]) -> list[_Part]:
    """Return the parts that can go with the outputs staying as they are."""
    if not more or _exact(reads, [*sound, *more]):
        return [*sound, *more]
    if len(more) == 1:
        return sound
    half = len(more) // 2
    return _admit(reads, _admit(reads, sound, more[:half]), more[half:])


def _exact(reads: Reads, parts: Iterable[_Part]) -> bool:
    narrow = shared_copy(reads.model)
    fold(narrow, (each for part in parts for each in part.folds))
    gone: dict[str, tuple[Group, list[int]]] = {}
    for part in parts:
        gone.setdefault(part.group.name, (part.group, []))[1].extend(part.channels)
    apply(narrow, cuts(gone.values()))
    difference = (reads.output(narrow) - reads.outputs).abs().max()
    return bool(difference <= _EXACT * reads.outputs.abs().max().clamp_min(1e-12))
