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
        first: how many channels each group had before it was first slimmed: fractions, ``least``
            and multiples count from these. By default, and where a group is not named, as now.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        scores: Mapping[str, Tensor],
        across: str,
        round_to: int,
        least: float,
        first: Mapping[str, int] | None = None,
    ) -> None:
        self.groups = groups
        self.across = across
        self.first = {g.name: max(g.width, (first or {}).get(g.name, g.width)) for g in groups}
        self.order: dict[str, list[tuple[int, ...]]] = {}
        self.levels: dict[str, list[float]] = {}
        self.allowed: dict[str, list[int]] = {}
        for group in groups:
            # What goes together is worth its mean: many channels are not worth more than one.
            means = torch.stack([scores[group.name][list(unit)].mean() for unit in group.unit])
            ranks = means.argsort(stable=True).tolist()
            self.order[group.name] = [group.unit[i] for i in ranks]
            self.levels[group.name] = [float(means[i]) for i in ranks]
            self.allowed[group.name] = _allowed(group, self._units_first(group), round_to, least)
        self._ranked = self._in_order() if across == "model" else []

    def removed(self, fraction: float) -> Chosen:
        """Return the channels of each group that go where this fraction of the first should."""
        if self.across == "group":
            wanted = {g.name: fraction * self._units_first(g) - self._gone(g) for g in self.groups}
        else:
            wanted = self._below(fraction)
        chosen = {}
        for group in self.groups:
            units = self.order[group.name][: self._units(group, wanted[group.name])]
            chosen[group.name] = tuple(sorted(channel for unit in units for channel in unit))
        return chosen

    @property
    def start(self) -> float:
        """The largest fraction at which nothing more goes than went before."""
        return min(1 - group.width / self.first[group.name] for group in self.groups)

    def share(self, removed: Chosen) -> float:
        """Return how large a part of all channels this is."""
        return sum(map(len, removed.values())) / sum(group.width for group in self.groups)

    def of_first(self, fraction: float) -> float:
        """Return the fraction of the first channels that is gone when this one of those now is."""
        now = sum(group.width for group in self.groups)
        return 1 - (1 - fraction) * now / sum(self.first.values())

    def _units_first(self, group: Group) -> float:
        return self.first[group.name] * len(group.unit) / group.width

    def _gone(self, group: Group) -> float:
        """Return how many of the group's units went before."""
        return self._units_first(group) - len(group.unit)

    def _units(self, group: Group, wanted: float) -> int:
        """Return the number of units nearest to ``wanted`` that may go, the smaller of two."""
        total = len(group.unit)
        # Rounded, for a fraction that was computed must not decide between two as near.
        kept = min(self.allowed[group.name], key=lambda k: (round(abs(total - k - wanted), 9), -k))
        return total - kept

    def _in_order(self) -> list[tuple[float, int, str]]:
        """Return all units that may go, the least salient first, as (level, number, group)."""
        return sorted(
            (level, i, name)
            for name, levels in self.levels.items()
            for i, level in enumerate(levels[: len(levels) - min(self.allowed[name])])
        )

    def _below(self, fraction: float) -> dict[str, float]:
        """Return how many units of each group are below one threshold for the whole model."""
        total = sum(self.first.values())
        wanted = dict.fromkeys(self.levels, 0.0)
        gone = total - sum(group.width for group in self.groups)
        for _, i, name in self._ranked:
            if gone >= fraction * total - 1e-9:
                break
            wanted[name] = i + 1
            gone += len(self.order[name][i])
        return wanted


def _allowed(group: Group, first: float, round_to: int, least: float) -> list[int]:
    """Return the numbers of units that a group of ``first`` units may be left with."""
    total = len(group.unit)
    size = group.width / total
    lowest = max(1, math.ceil(least * first - 1e-9))
    step = 1
    if size.is_integer():
        step = math.lcm(int(size), round_to) // int(size)
    if step >= first:  # no multiple below it
        step = 1
    return [k for k in range(1, total) if k >= lowest and k % step == 0] + [total]
