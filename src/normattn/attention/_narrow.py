"""What mechanisms share when slimming takes channels from them."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError


def check_kept(who: str, kept: Sequence[int], count: int, what: str = "channels") -> list[int]:
    """Return what is kept as a list, refusing any but rising indices of the ``count`` there are."""
    indices = [int(i) for i in kept]
    rising = all(a < b for a, b in itertools.pairwise(indices))
    if not indices or not rising or indices[0] < 0 or indices[-1] >= count:
        raise ConfigError(
            f"{who}: expected kept to be rising indices of its {count} {what}, at least one, "
            f"got {indices[:8]}{'...' if len(indices) > 8 else ''}."
        )
    return indices


def narrow(module: nn.Module, name: str, kept: Sequence[int], dimension: int = 0) -> None:
    """Keep these indices of a module's parameter or buffer, if it has that."""
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    less = tensor.detach().index_select(dimension, torch.tensor(kept, device=tensor.device))
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        less = less.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(less, requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, less)


def narrow_inputs(layer: nn.Linear | nn.Conv2d, kept: Sequence[int]) -> None:
    """Keep these inputs of an undivided layer."""
    narrow(layer, "weight", kept, 1)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(kept)
    else:
        layer.in_channels = len(kept)


def narrow_outputs(layer: nn.Linear | nn.Conv2d, kept: Sequence[int]) -> None:
    """Keep these outputs of an undivided layer."""
    narrow(layer, "weight", kept)
    narrow(layer, "bias", kept)
    if isinstance(layer, nn.Linear):
        layer.out_features = len(kept)
    else:
        layer.out_channels = len(kept)


def weakest(strength: Tensor, count: int) -> tuple[int, ...]:
    """Return the indices of the ``count`` smallest numbers, rising."""
    if strength.is_meta:  # where only the count matters
        return tuple(range(count))
    return tuple(sorted(strength.argsort(stable=True)[: max(count, 0)].tolist()))


class Bottleneck(nn.Module):
    """Two linear layers, ``reduce`` and ``expand``, with fewer units between them: SE's and CBAM's.

    ``keep_channels`` leaves the hidden units alone, and so the gates of the other channels. Whether
    some of them go as well, slimming asks apart from that.
    """

    reduction: int
    reduce: nn.Linear
    expand: nn.Linear

    @property
    def hidden(self) -> int:
        """How many units the bottleneck has."""
        return self.reduce.out_features

    def spare_hidden(self, kept: Sequence[int]) -> tuple[int, ...]:
        """Return the units that one built for these channels would not have: the weakest."""
        read = self.reduce.weight.detach()[:, list(kept)].norm(dim=1)
        written = self.expand.weight.detach()[list(kept)].norm(dim=0)
        return weakest(read * written, self.hidden - max(1, len(kept) // self.reduction))

    def keep_hidden(self, kept: Sequence[int]) -> None:
        """Leave only these units, in place."""
        kept = check_kept(type(self).__name__, kept, self.hidden, "hidden units")
        narrow_outputs(self.reduce, kept)
        narrow_inputs(self.expand, kept)


def narrow_norm(norm: nn.Module, kept: Sequence[int]) -> None:
    """Keep these channels of a batch norm, or of what took its place."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        narrow(norm, name, kept)
    if isinstance(norm, nn.modules.batchnorm._NormBase):
        norm.num_features = len(kept)


def denominator(gate: nn.Module) -> None:
    """Give a mechanism a buffer for what its scale factors are divided by, empty to begin with.

    A divisor taken over all scale factors gets smaller as slimming takes some away, and every gate
    would change for a channel that did nothing. So from then on the divisor is the number that it
    was. It is in the state dict only once there is one; a state dict that has it brings it along.
    """
    gate.register_buffer("denominator", None)
    gate.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]


def keep_denominator(gate: nn.Module, value: Tensor) -> None:
    """Divide by ``value`` from now on, unless an earlier slimming has settled it."""
    if gate.denominator is None:
        gate.denominator = value.detach().clone()


def _make_room(gate: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    saved = state.get(f"{prefix}denominator")
    if saved is not None and gate.denominator is None:
        device = next(gate.parameters()).device
        gate.denominator = torch.empty_like(saved, device=device)
