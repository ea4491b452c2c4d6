"""A model without some of its channels, while every tensor keeps its shape."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..attention import BAM, EAN, NAM, SE, Half, NAMChannel, NAMSpatial, NoAttention
from ..model._salience_layers import layers_of, touched

if TYPE_CHECKING:
    from ..model._groups import Group

#: Attention for which a channel of zeros is as good as none: each channel for itself, sums over
#: channels, or a bottleneck that reads them.
_EXACT = (NAM, NAMChannel, NAMSpatial, EAN, SE, BAM, Half, NoAttention)
_MIXING = (nn.LayerNorm, nn.GroupNorm)


@contextlib.contextmanager
def without(
    model: nn.Module,
    groups: Sequence["Group"],
    removed: Mapping[str, Sequence[int]],
    dead: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[nn.Module]:
    """Have the model compute without channels while inside; afterwards it is what it was.

    The channels' convolutions, scales and shifts become zero, so that gates and additions see
    zeros, and so do the weights that read them. This equals the removal of the channels, apart from
    what `inexact` lists; bottlenecks of attention, which `slim` narrows too, keep their width.

    Args:
        model: the model, in its plain form (see `normattn.model.fuse.plain`).
        groups: its groups.
        removed: by a group's name, which of its channels.
        dead: those whose scale is exactly zero (see `normattn.model.slim.dead_channels`). They stay
            as they are: slimming moves the constants that they hold on, and no output changes.
    """
    dead = dead or {}
    removed = {name: sorted(set(gone) - set(dead.get(name, ()))) for name, gone in removed.items()}
    changed = []
    try:
        with torch.no_grad():
            for view, gone in touched(model, groups, removed):
                changed.append((view, view.clone()))
                view.masked_fill_(gone, 0)
        yield model
    finally:
        with torch.no_grad():
            for view, before in reversed(changed):  # a layer can be in two groups
                view.copy_(before)


def inexact(model: nn.Module, groups: Sequence["Group"]) -> tuple[str, ...]:
    """Say where a channel of zeros is not the same as no channel, a line a kind of layer."""
    found: dict[str, int] = {}
    for group in groups:
        for member, layer in layers_of(model, group, "norm", "gate"):
            kinds = isinstance(layer, _MIXING), isinstance(layer, _EXACT)
            if kinds[0] if member.role == "norm" else not kinds[1]:
                found[type(layer).__name__] = found.get(type(layer).__name__, 0) + 1
    return tuple(
        f"{kind} ({count} ×) mixes channels: it counts those of zeros, which slimming takes out."
        for kind, count in found.items()
    )
