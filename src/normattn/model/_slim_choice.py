"""Which channels go, given how salient each is and how large a fraction should."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ._groups import Group

Chosen = Mapping[str, tuple[int, ...]]


class Choice:
    """The order in which channels go, and the widths that may be left.

    Args:
        groups: those that are ranked.
        scores: of each group's channels; the larger, the later they go.
        across: "group" or "model".
        round_to: what widths should be multiples of.
        least: the share of its channels that each group keeps at least.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        scores: Mapping[str, Tensor],
        across: str,
        round_to: int,
        least: float,
    ) -> None:
        self.groups = groups
        self.across = across
        self.order: dict[str, list[tuple[int, ...]]] = {}
        self.levels: dict[str, list[float]] = {}
        self.allowed: dict[str, list[int]] = {}
        for group in groups:
            # What goes together is worth its mean: many channels are not worth more than one.
            means = torch.stack([scores[group.name][list(unit)].mean() for unit in group.unit])
            ranks = means.argsort(stable=True).tolist()
            self.order[group.name] = [group.unit[i] for i in ranks]
            self.levels[group.name] = [float(means[i]) for i in ranks]
            self.allowed[group.name] = _allowed(group, round_to, least)

    def removed(self, fraction: float) -> Chosen:
        """Return the channels of each group that go where this fraction should."""
        if self.across == "group":
            wanted = {g.name: fraction * len(g.unit) for g in self.groups}
        else:
            wanted = self._below(fraction)
        chosen = {}
        for group in self.groups:
            units = self.order[group.name][: self._units(group, wanted[group.name])]
            chosen[group.name] = tuple(sorted(channel for unit in units for channel in unit))
        return chosen

    def _units(self, group: Group, wanted: float) -> int:
        """Return the number of units nearest to ``wanted`` that may go, the smaller of two."""
        total = len(group.unit)
        kept = min(self.allowed[group.name], key=lambda k: (abs(total - k - wanted), -k))
        return total - kept

    def _below(self, fraction: float) -> dict[str, float]:
        """Return how many units of each group are below one threshold for the whole model."""
        total = sum(group.width for group in self.groups)
        ranked = sorted(
            (level, i, name)
            for name, levels in self.levels.items()
            for i, level in enumerate(levels[: len(levels) - min(self.allowed[name])])
        )
        wanted = dict.fromkeys(self.levels, 0.0)
        gone = 0
        for _, i, name in ranked:
            if gone >= fraction * total:
                break
            wanted[name] = i + 1
            gone += len(self.order[name][i])
        return wanted


def _allowed(group: Group, round_to: int, least: float) -> list[int]:
    """Return the numbers of units that a group may be left with."""
    total = len(group.unit)
    size = group.width / total
    lowest = max(1, math.ceil(least * total - 1e-9))
    step = 1
    if size.is_integer():
        step = math.lcm(int(size), round_to) // int(size)
    if step >= total:  # no multiple below it
        step = 1
    return [k for k in range(1, total) if k >= lowest and k % step == 0] + [total]
