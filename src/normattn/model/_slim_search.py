"""How large a fraction of the channels has to go for a target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, unknown
from ._slim_choice import Choice, Chosen
from ._slim_cost import Costs
from ._slim_plan import Cost
from ._slim_timed import Timed

Kind = Literal["channels", "speedup", "flops", "params", "latency_ms"]
TARGETS: tuple[Kind, ...] = ("channels", "speedup", "flops", "params", "latency_ms")

_COUNTED_STEPS = 12


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
        fraction = self.choice.of_first(value)
        removed = self.choice.removed(fraction)
        given = self.choice.share(removed)
        most = self.choice.share(self.choice.removed(1.0))
        note = ""
        if most < value - 1e-9:
            note = f"The most that may go is {most:.3g} of the channels (least, round_to)."
        elif abs(given - value) > 0.005:
            note = f"Of the channels {given:.3g} go: widths are rounded to what they may be."
        return self._found(fraction, removed, most >= value - 1e-9, note)

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
        timed = Timed(self.choice, self.costs)
        if kind == "latency_ms":
            whole = timed.measure({}, final=True)[1]
            if whole <= value:
                return self._found(0.0, {}, True, "It is there already.")
            found = timed.run(value / whole, lambda before, after: after <= value)
        else:
            found = timed.run(1 / value, lambda before, after: before / after >= value)
        note = ""
        if not found.reached:
            best = f"a speedup of {found.before / found.after:.4g}, {found.after:.4g} ms"
            note = f"The best that was measured is {best} (least, round_to)."
        times = (found.before, found.after)
        return self._found(found.fraction, found.removed, found.reached, note, times)

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

    def _found(
        self,
        fraction: float,
        removed: Chosen,
        reached: bool,
        note: str,
        times: tuple[float, float] | None = None,
    ) -> Found:
        counts = self.costs.count({}), self.costs.count(removed)
        times = times or self.costs.measure(removed, final=True)
        before, after = (
            Cost(count.parameters, count.multiply_adds, milliseconds)
            for count, milliseconds in zip(counts, times, strict=True)
        )
        return Found(fraction, removed, before, after, reached, note)
