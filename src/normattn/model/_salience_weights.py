"""Criteria that look at weights alone: scale factors, NAM's importance, magnitudes; and chance."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..attention import NAM
from ..attention.nam import NAMChannel
from ._salience_data import Batches, Found
from ._salience_layers import gathered, layers_of, scale_of, summed

if TYPE_CHECKING:
    from ._groups import Group


def bn_scale(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return mean |γ| over the host's norms behind each channel (Network Slimming, ICCV 2017)."""
    found: Found = {}
    for group in groups:
        scales = [
            (member, gathered(scale.detach().float().abs(), member).cpu())
            for member, norm in layers_of(model, group, "norm")
            if (scale := scale_of(norm)) is not None
        ]
        # Behind a concatenation, or on a stream that widens, channels differ in how many they have.
        counts = [torch.tensor([len(places) for places in m.channels]) for m, _ in scales]
        if not scales:
            found[group.name] = "no norm with scales follows it"
        else:
            many = torch.stack(counts).sum(0).clamp_min(1)
            found[group.name] = sum(sums for _, sums in scales) / many
    return found


def nam(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return Σ w over NAM's channel gates on each channel, w as the gate itself weights it.

    The gate's channels are those of the norm and the convolution that feed it, and of all that is
    added to them: w is carried to the whole group.
    """
    found: Found = {}
    for group in groups:
        each, others = [], []
        for member, layer in layers_of(model, group, "gate"):
            layer = layer.channel if isinstance(layer, NAM) else layer
            if isinstance(layer, NAMChannel):
                each.append(gathered(layer.importance().detach().float(), member))
            else:
                others.append(type(layer).__name__)
        reason = f"{others[0]} has no weight for each channel" if others else "no NAM gates it"
        found[group.name] = torch.stack(each).sum(0) if each else reason
    return found


def magnitude(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return the L2 norm over all weights of each channel: those that make, scale and read it."""
    found: Found = {}
    for group in groups:
        squares = summed(
            model, group, ("out", "norm", "depthwise", "in"), lambda w: w.detach().float().square()
        )
        found[group.name] = "it has no weights" if squares is None else squares.sqrt()
    return found


def random(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return uniform numbers that depend on the seed and the group's name alone: the control."""
    found: Found = {}
    for group in groups:
        digest = hashlib.blake2b(f"{seed}/{group.name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        found[group.name] = torch.rand(group.width, generator=generator)
    return found
