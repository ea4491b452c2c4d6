"""How large a fraction of the channels has to go for a target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, unknown
from ._slim_choice import Choice, Chosen
from ._slim_cost import Costs
from ._slim_plan import Cost

Kind = Literal["channels", "speedup", "flops", "params", "latency_ms"]
TARGETS: tuple[Kind, ...] = ("channels", "speedup", "flops", "params", "latency_ms")

_COUNTED_STEPS = 12
_TIMED_STEPS = 6
_NUDGE = 0.02  # what more goes where the last, longer measurement falls short
_NUDGES = 4


@dataclass(frozen=True)
class Found:
    """What goes, what that brings, and whether it is enough."""

    fraction: float
    removed: Chosen
    before: Cost
    after: Cost
    reached: bool
    note: str


def read_target(target: object) -> tuple[Kind, float]:
    """Return a target's kind and value.

    Raises:
        ConfigError: it is not one known target with a number in its range.
    """
    if not isinstance(target, dict) and not hasattr(target, "items"):
        raise ConfigError(f"plan_slim: expected a target like {{'channels': 0.5}}, got {target!r}.")
    entries = list(target.items())
    if len(entries) != 1:
        raise ConfigError(
            f"plan_slim: expected one target, got {len(entries)}. Give one of {', '.join(TARGETS)}."
        )
    ((kind, value),) = entries
    if kind not in TARGETS:
        raise ConfigError(unknown("plan_slim", "target", str(kind), TARGETS))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("channels", "flops", "params"):
        fits, rule = number and 0 < value < 1, "a ratio between 0 and 1"
    elif kind == "speedup":
        fits, rule = number and 1 < value < float("inf"), "a finite number > 1"
    else:
        fits, rule = number and 0 < value < float("inf"), "a finite number of milliseconds > 0"
    if not fits:
        raise ConfigError(f"plan_slim: expected {kind} to be {rule}, got {value!r}.")
    return kind, float(value)


class Search:
    """Finds the least that has to go for a target."""

    def __init__(self, choice: Choice, costs: Costs) -> None:
        self.choice = choice
        self.costs = costs

    def run(self, kind: Kind, value: float) -> Found:
        """Return what to remove; the most that may go where the target is out of reach."""
        if kind == "channels":
            return self._channels(value)
        if kind in ("flops", "params"):
            return self._counted(kind, value)
        return self._timed(kind, value)

    def _channels(self, value: float) -> Found:
        removed = self.choice.removed(value)
        given = _share(self.choice, removed)
        most = _share(self.choice, self.choice.removed(1.0))
        note = ""
        if most < value - 1e-9:
            note = f"The most that may go is {most:.3g} of the channels (least, round_to)."
        elif abs(given - value) > 0.005:
            note = f"Of the channels {given:.3g} go: widths are rounded to what they may be."
        return self._found(value, removed, most >= value - 1e-9, note)

    def _counted(self, kind: Kind, value: float) -> Found:
        name = "multiply_adds" if kind == "flops" else "parameters"
        whole = self._count(kind, {})

        def enough(fraction: float) -> bool:
            return self._count(kind, self.choice.removed(fraction)) <= value * whole

        if not enough(1.0):
            removed = self.choice.removed(1.0)
            best = self._count(kind, removed) / whole
            words = name.replace("_", "-")
            note = f"The least that can be left of the {words} is {best:.3g} (least, round_to)."
            return self._found(1.0, removed, False, note)
        fraction = self._bisect(enough, _COUNTED_STEPS)
        return self._found(fraction, self.choice.removed(fraction), True, "")

    def _timed(self, kind: Kind, value: float) -> Found:
        def enough(fraction: float, *, final: bool = False) -> bool:
            before, after = self.costs.measure(self.choice.removed(fraction), final=final)
            return before / after >= value if kind == "speedup" else after <= value

        if kind == "latency_ms" and enough(0.0, final=True):
            return self._found(0.0, {}, True, "It is there already.")
        fraction = self._bisect(enough, _TIMED_STEPS) if enough(1.0) else 1.0
        # The clock is noisy: what a short measurement found has to stand a longer one.
        for _ in range(_NUDGES):
            removed = self.choice.removed(fraction)
            before, after = self.costs.measure(removed, final=True)
            reached = before / after >= value if kind == "speedup" else after <= value
            if reached or fraction >= 1:
                break
            fraction = min(1.0, fraction + _NUDGE)
        best = f"a speedup of {before / after:.4g}, {after:.4g} ms"
        note = "" if reached else f"The best that was measured is {best} (least, round_to)."
        counts = self.costs.count({}), self.costs.count(removed)
        costs = [
            Cost(count.parameters, count.multiply_adds, latency)
            for count, latency in zip(counts, (before, after), strict=True)
        ]
        return Found(fraction, removed, costs[0], costs[1], reached, note)

    def _count(self, kind: Kind, removed: Chosen) -> int:
        if kind == "params":
            return self.costs.parameters(removed)
        return self.costs.multiply_adds(removed)

    def _bisect(self, enough: Callable[[float], bool], steps: int) -> float:
        """Return the least fraction that is enough, where all is."""
        low, high = 0.0, 1.0
        for _ in range(steps):
            middle = (low + high) / 2
            removed = self.choice.removed(middle)
            if removed == self.choice.removed(high):
                high = middle
            elif removed == self.choice.removed(low):
                low = middle
            elif enough(middle):
                high = middle
            else:
                low = middle
        return high

    def _found(self, fraction: float, removed: Chosen, reached: bool, note: str) -> Found:
        before, after = self.costs.count({}), self.costs.count(removed)
        times = self.costs.measure(removed, final=True)
        costs = [
            Cost(count.parameters, count.multiply_adds, latency)
            for count, latency in zip((before, after), times, strict=True)
        ]
        return Found(fraction, removed, costs[0], costs[1], reached, note)


def _share(choice: Choice, removed: Chosen) -> float:
    return sum(map(len, removed.values())) / sum(group.width for group in choice.groups)
