"""What the removal curves say: a row a criterion, and a sentence that claims no more than that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from scipy import stats

from ._removal_records import LEAST, MOST, RANDOM, Point, RemovalRecords

REFERENCE = 0.1  # the fraction that sentences are about, or the measured one that is nearest
_GUESSING = 5.0  # points above pure guessing, up to which nothing is left of a model


@dataclass(frozen=True)
class Row:
    """One criterion, in percent and percentage points of top-1 accuracy.

    Args:
        criterion: its name.
        groups: how many groups it was tested on.
        fraction: the fraction that the next five are about.
        least: accuracy with the least salient channels gone.
        most: with the most salient gone.
        random: mean over the random orders.
        gain: ``least - random``.
        chance: by how much, in 95 of 100 cases, one more random order on as many other images
            would differ from the mean of the random orders; None for a single one.
        area: the mean height of the first curve over the second, up to the largest fraction.
        area_chance: by how much two random orders would differ in it, in 95 of 100 cases.
        verdict: "better", "worse", "no difference", "nothing left", "unknown" or "control".
        sentence: the verdict in words.
    """

    criterion: str
    groups: int
    fraction: float
    least: float
    most: float
    random: float
    gain: float
    chance: float | None
    area: float
    area_chance: float | None
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Curves:
    """One criterion's curves as (share removed, accuracy), from the whole model on."""

    criterion: str
    groups: int
    least: tuple[tuple[float, float], ...]
    most: tuple[tuple[float, float], ...]
    random: tuple[tuple[float, float], ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


def finished(records: RemovalRecords) -> list[str]:
    """Return the criteria of which every point is measured, in the order of the record."""
    wanted = len(records.run["settings"]["fractions"])
    draws = range(records.run["settings"]["draws"])
    return [
        name
        for name, facts in records.criteria.items()
        if all(
            len(records.curve(*curve)) == wanted
            for curve in (
                (LEAST, name, facts["scope"], None),
                (MOST, name, facts["scope"], None),
                *((RANDOM, None, facts["scope"], draw) for draw in draws),
            )
        )
    ]


def curves(records: RemovalRecords, criterion: str) -> Curves:
    """Return a finished criterion's curves, and the range of the random orders."""
    scope = records.criteria[criterion]["scope"]
    draws = _draws(records, scope)
    start = (0.0, records.whole)
    values = list(zip(*([p.accuracy for p in draw] for draw in draws), strict=True))
    shares = [point.removed for point in draws[0]]
    means = [(share, fmean(found)) for share, found in zip(shares, values, strict=True)]
    least, most = (
        (start, *((p.removed, p.accuracy) for p in records.curve(order, criterion, scope, None)))
        for order in (LEAST, MOST)
    )
    return Curves(
        criterion=criterion,
        groups=len(records.scopes[scope]),
        least=least,
        most=most,
        random=(start, *means),
        lowest=(records.whole, *map(min, values)),
        highest=(records.whole, *map(max, values)),
    )


def summarise_removal(records: RemovalRecords) -> tuple[Row, ...]:
    """Return a row for each criterion that is finished."""
    return tuple(_row(records, criterion) for criterion in finished(records))


def _row(records: RemovalRecords, criterion: str) -> Row:
    scope = records.criteria[criterion]["scope"]
    fraction = min(records.run["settings"]["fractions"], key=lambda f: abs(f - REFERENCE))
    least, most = (
        _at(records.curve(order, criterion, scope, None), fraction) for order in (LEAST, MOST)
    )
    drawn = [_at(draw, fraction) for draw in _draws(records, scope)]
    random, chance = fmean(drawn), _chance(drawn, records.run["data"]["val"])
    found = curves(records, criterion)
    area = _mean_height(found.least) - _mean_height(found.most)
    guess = 100 / records.about["classes"] + _GUESSING
    verdict = (
        "control" if criterion == "random"
        else "nothing left" if max(least, random) <= guess
        else "unknown" if chance is None
        else "no difference" if abs(least - random) <= chance
        else "better" if least > random
        else "worse"
    )  # fmt: skip
    row = Row(
        criterion, len(records.scopes[scope]), fraction, least, most, random, least - random,
        chance, area, _area_chance(records, scope), verdict, "",
    )  # fmt: skip
    return Row(**{**vars(row), "sentence": _sentence(row)})


def _sentence(row: Row) -> str:
    at, points = f"at {row.fraction * 100:g} %", f"{abs(row.gain):.1f} points"
    keeps = (
        f"removing least-salient first keeps {points} {'more' if row.gain >= 0 else 'less'} than "
        f"random {at}"
    )
    area = f"over all fractions it keeps {signed(row.area)} points against most-salient first"
    chance = ""
    if row.chance is not None and row.area_chance is not None:
        chance = f" (chance alone gives up to {row.chance:.1f})"
        area += f" (by chance up to {row.area_chance:.1f})"
    text = {
        "better": f"{keeps}{chance}",
        "worse": f"{keeps}{chance}, so that its scores mislead here",
        "no difference": f"{keeps}, which chance can explain{chance}",
        "nothing left": f"{at} the model guesses in either order, and nothing can be told there",
        "unknown": f"{keeps}; with one random order nobody can say whether that is chance",
        "control": "it is the control, where chance alone can show",
    }[row.verdict]
    return f"{row.criterion}: {text}; {area}."


def signed(value: float) -> str:
    """Return a difference with its sign."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _draws(records: RemovalRecords, scope: int) -> list[list[Point]]:
    draws = range(records.run["settings"]["draws"])
    return [records.curve(RANDOM, None, scope, draw) for draw in draws]


def _at(points: Sequence[Point], fraction: float) -> float:
    return next(point.accuracy for point in points if point.fraction == fraction)


def _chance(values: Sequence[float], images: int) -> float | None:
    """Return half of the interval in which one more value of this kind lies, 95 times in 100.

    Two things vary: the order, by the t-interval for one more value; and the images, by the
    binomial deviation of a difference of two accuracies, as if they were not on the same images,
    which makes the interval rather too wide than too narrow.
    """
    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    orders = quantile * stdev(values) * math.sqrt(1 + 1 / len(values))
    p = fmean(values) / 100
    return math.hypot(orders, 1.96 * 100 * math.sqrt(2 * p * (1 - p) / images))


def _area_chance(records: RemovalRecords, scope: int) -> float | None:
    start = (0.0, records.whole)
    draws = _draws(records, scope)
    if len(draws) < 2:
        return None
    heights = [_mean_height([start, *((p.removed, p.accuracy) for p in draw)]) for draw in draws]
    return float(stats.t.ppf(0.975, len(draws) - 1)) * stdev(heights) * math.sqrt(2)


def _mean_height(curve: Sequence[tuple[float, float]]) -> float:
    """Return the area under a curve by trapezoids, over its length."""
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    length = curve[-1][0] - curve[0][0]
    return area / length if length else curve[0][1]


def unfinished(records: RemovalRecords) -> Mapping[str, str]:
    """Return what the rows do not show, and why."""
    done = finished(records)
    begun = {name: "not finished" for name in records.criteria if name not in done}
    return {**records.left_out, **begun}
