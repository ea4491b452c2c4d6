"""The search for a latency: few measurements, for each is noisy and of a runtime takes seconds.

The multiply-adds say where to look first. What is measured there says how time follows them, and
the next candidate is where a line through the nearest two puts the wanted time.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass

from ._slim_choice import Choice, Chosen
from ._slim_cost import Costs, Widths, widths

_GRID = 64  # fractions, equally spaced up to all that may go
_MEASURED = 6  # candidates at most, in the search
_NEAR = 0.96  # of the time that may be left: what lies nearer is hardly told from noise
_OUTSIDE = 2  # guesses beyond what was measured, before the most that may go is looked at
_STRIDES = (1, 1, 2, 4)  # candidates further where the last, longer measurement falls short

Enough = Callable[[float, float], bool]


@dataclass(frozen=True)
class Finding:
    """What goes, the milliseconds before and after, and whether these are few enough."""

    fraction: float
    removed: Chosen
    before: float
    after: float
    reached: bool


class Timed:
    """Finds the least that has to go for a latency.

    Args:
        choice: which channels go for a fraction.
        costs: counts and measures.
    """

    def __init__(self, choice: Choice, costs: Costs) -> None:
        self.costs = costs
        start = choice.start
        fractions = [start + (1 - start) * step / _GRID for step in range(_GRID + 1)]
        # Widths are rounded: many fractions are one candidate, of which the first is kept.
        candidates: dict[Widths, tuple[float, Chosen]] = {}
        for fraction in fractions:
            removed = choice.removed(fraction)
            candidates.setdefault(widths(removed), (fraction, removed))
        self.candidates = list(candidates.values())
        self._sizes: dict[int, int] = {}
        self._known: dict[tuple[Widths, bool], tuple[float, float]] = {}

    def measure(self, removed: Chosen, *, final: bool = False) -> tuple[float, float]:
        """Return the milliseconds before and after; the same widths are measured once."""
        key = widths(removed), final
        if key not in self._known:
            self._known[key] = self.costs.measure(removed, final=final)
        return self._known[key]

    def run(self, share: float, enough: Enough) -> Finding:
        """Return the least that is enough; the most that may go where nothing is.

        Args:
            share: of the time, that may be left: where to look.
            enough: whether milliseconds before and after are what was asked for.
        """
        at, last = self._search(share, enough), len(self.candidates) - 1
        for stride in (*_STRIDES, 0):
            # The clock is noisy: what a short measurement found has to stand a longer one.
            fraction, removed = self.candidates[at]
            before, after = self.measure(removed, final=True)
            reached = enough(before, after)
            if reached or at == last:
                break
            at = min(last, at + stride)
        return Finding(fraction, removed, before, after, reached)

    def _search(self, share: float, enough: Enough) -> int:
        """Return the least candidate that was enough, the last where none was."""
        low, high = 0, len(self.candidates) - 1
        ratios = {0: 1.0}
        for count in range(_MEASURED):
            if high - low <= 1 and high in ratios:
                break
            outside = high not in ratios and count >= _OUTSIDE
            at = high if outside else self._guess(low, high, share, ratios)
            before, after = self.measure(self.candidates[at][1])
            ratios[at] = after / before
            if not enough(before, after):
                if at == high:
                    break
                low = at
            else:
                high = at
                if ratios[at] >= _NEAR * share:
                    break
        return high

    def _guess(self, low: int, high: int, share: float, ratios: dict[int, float]) -> int:
        """Return the candidate at which a line through two says that the share is left."""
        wanted = share * self._size(0)  # nothing is known yet: time follows multiply-adds
        if len(ratios) > 1:
            other = high if high in ratios else 0
            run = self._size(low) - self._size(other)
            slope = (ratios[low] - ratios[other]) / run if run else 0.0
            if slope <= 0:  # noise, or a runtime that likes other widths better
                return (low + high + 1) // 2
            wanted = self._size(low) + (share - ratios[low]) / slope
        between = range(low + 1, high)
        place = bisect.bisect_left(between, -wanted, key=lambda at: -self._size(at))
        return min(low + 1 + place, high - 1 if high in ratios else high)

    def _size(self, at: int) -> int:
        """Return a candidate's multiply-adds."""
        if at not in self._sizes:
            self._sizes[at] = self.costs.multiply_adds(self.candidates[at][1])
        return self._sizes[at]
