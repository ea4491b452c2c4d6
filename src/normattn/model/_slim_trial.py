"""Groups that were found, tried out: a wrong one would cut a model into another without a word.

With random weights, and no layer mixing channels but those that are cut, a model without certain
channels computes what the whole model does where nothing reads them. So this is compared, on one
image, for all groups at once; only where that fails are the groups at fault looked for.
"""

from collections.abc import Iterable

import torch
from torch import nn

from ._groups import Group, Groups
from ._slim_cut import CONVOLUTIONS, Cuts, apply, cuts, shared_copy
from ._slim_standins import StandingIn

_REASON = "the layers behind compute something else without a part of its channels"
_TOLERANCE = 1e-3  # of the outputs' size; float32 stays below 1e-5, a wrong group is around 1


def tried(copied: StandingIn, found: Groups) -> Groups:
    """Return the groups that hold what they promise; the others are refused by name."""
    sound = _admit(copied, [], list(found.groups))
    names = {group.name for group in sound}
    failing = [(g.name, _REASON) for g in found.groups if g.name not in names]
    return Groups(tuple(sound), (*found.refused, *failing))


def _admit(copied: StandingIn, sound: list[Group], more: list[Group]) -> list[Group]:
    if not more or _holds(copied, [*sound, *more]):
        return [*sound, *more]
    if len(more) == 1:
        return sound
    half = len(more) // 2
    return _admit(copied, _admit(copied, sound, more[:half]), more[half:])


def _holds(copied: StandingIn, groups: Iterable[Group]) -> bool:
    """Return whether a part of all these groups' channels can go as the groups say."""
    wanted = cuts((group, _part(group)) for group in groups)
    narrow = shared_copy(copied.module)
    try:
        apply(narrow, wanted)
        result = copied.run(narrow)
        whole = _run_unread(copied, wanted)
    except Exception:  # whatever a model raises that was cut in the wrong place
        return False
    if result.shape != whole.shape:
        return False
    return bool((result - whole).abs().max() <= _TOLERANCE * whole.abs().max())


def _part(group: Group) -> list[int]:
    """Return channels to remove: every other unit, so that none is where it was."""
    return [channel for unit in group.unit[::2] for channel in unit]


def _run_unread(copied: StandingIn, wanted: Cuts) -> torch.Tensor:
    """Run the whole copy with the weights at zero that would read removed channels."""
    changed: list[tuple[nn.Parameter, torch.Tensor]] = []
    with torch.no_grad():
        for (name, role), gone in wanted.items():
            if role == "in":
                layer = copied.module.get_submodule(name)
                weight = layer.weight
                assert isinstance(weight, nn.Parameter)
                changed.append((weight, weight.clone()))
                weight[:, _columns(layer, gone)] = 0
        try:
            return copied.run()
        finally:
            for parameter, before in changed:
                parameter.copy_(before)


def _columns(layer: nn.Module, gone: frozenset[int]) -> list[int]:
    if isinstance(layer, CONVOLUTIONS):
        return [i for i in gone if i < layer.in_channels // layer.groups]
    return list(gone)
