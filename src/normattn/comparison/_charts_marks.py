"""What a comparison's charts draw: a mean with its interval and its seeds, in the colour it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from ._page_look import BETTER, INK, MUTED, WORSE

TONES = alt.Scale(domain=["better", "worse", "baseline", ""], range=[BETTER, WORSE, MUTED, INK])


@dataclass(frozen=True)
class Mark:
    """One mechanism in a chart: its mean, the interval if there is one, a value for each seed.

    ``tone`` colours it: ``better``, ``worse``, ``baseline`` or nothing.
    """

    label: str
    mean: float
    low: float | None
    high: float | None
    seeds: Mapping[int, float]
    tone: str = ""


def domain(
    marks: Sequence[Mark], references: Sequence[tuple[str, float]], percent: bool
) -> list[float]:
    """Return the ends of an axis that holds every mark; of percents, none below 0 or above 100."""
    ends = [(m.mean if end is None else end) for m in marks for end in (m.low, m.high)]
    values = [*ends, *(v for m in marks for v in m.seeds.values()), *(v for _, v in references)]
    low, high = min(values), max(values)
    if percent:
        low, high = max(low, 0.0), min(high, 100.0)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    return [max(low, 0.0), min(high, 100.0)] if percent else [low, high]


def number(field: str, form: str = ".3f") -> alt.Tooltip:
    """Return a number as a tooltip says it."""
    return alt.Tooltip(field, format=form)
