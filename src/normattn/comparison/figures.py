"""The report's figures. All values arrive ready: nothing is computed here but where ink goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

from .svg import ACCENT, FAINT, INK, MUTED, Picture, picture, printable

_LABEL = 22  # characters of a mechanism's label; the table has it whole
Series = dict[int, float]  # a value by epoch


@dataclass(frozen=True)
class Mark:
    """One mechanism in a figure: its seeds as dots, its mean, its interval if there is one."""

    label: str
    mean: float
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    color: str = ACCENT


def intervals(
    name: str, title: str, axis: str, marks: Sequence[Mark],
    references: Sequence[tuple[str, float]], *, percent: bool = False,
) -> Picture:  # fmt: skip
    """Draw a row a mechanism: every seed a dot, the mean a bar, the 95 % interval a line.

    ``references`` are vertical lines, as (label, value). With ``percent`` the axis ends at 0 and
    100, whatever the intervals say.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="y")
        _references(axes, references)
        for row, mark in enumerate(marks):
            above, below = row - 0.13, row + 0.17  # the dots stay clear of the interval
            if mark.low is not None and mark.high is not None:
                axes.plot([mark.low, mark.high], [above, above], color=mark.color, linewidth=1.6)
            axes.plot([mark.mean], [above], "|", color=mark.color, markersize=9, markeredgewidth=2)
            axes.plot(
                mark.dots, [below] * len(mark.dots), "o", markersize=4, markeredgewidth=0.9,
                markerfacecolor="none", markeredgecolor=mark.color, gid=f"seeds-{row}",
            )  # fmt: skip
        axes.set_yticks(range(len(marks)), [shortened(mark.label) for mark in marks])
        axes.set_ylim(len(marks) - 0.5, -0.5)
        if percent:
            axes.set_xlim(*_percent(axes.get_xlim()))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel(axis)

    alt = f"{title}. {axis}: " + "; ".join(map(_said, marks)) + "."
    return picture(name, title, alt, draw, height=0.95 + 0.32 * len(marks))


def tradeoff(
    name: str, title: str, axis: str, points: Sequence[tuple[str, float, Mark]]
) -> Picture:
    """Draw error against a cost, as (label, cost, error); labels stand in a column at the right."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for _, cost, mark in points:
            if mark.low is not None and mark.high is not None:
                axes.plot([cost, cost], [mark.low, mark.high], color=mark.color, linewidth=1.2)
            axes.plot([cost], [mark.mean], "o", color=mark.color, markersize=6, zorder=3)
        axes.margins(x=0.12, y=0.1)
        axes.set_ylim(*_percent(axes.get_ylim()))
        axes.set_xlabel(axis)
        axes.set_ylabel("Top-1 error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _label_column(axes, [(label, cost, mark.mean) for label, cost, mark in points])

    alt = f"{title}. {axis} and top-1 error: " + "; ".join(
        f"{label}: {cost:.4g}, {mark.mean:.2f} %" for label, cost, mark in points
    )
    return picture(name, title, alt + ".", draw, height=max(2.9, 0.22 * len(points) + 0.8))


def curves(
    name: str, label: str, axis: str, seeds: Sequence[Series], mean: Series,
    baseline: tuple[str, Series] | None, limits: tuple[float, float], logarithmic: bool,
) -> Picture:  # fmt: skip
    """Draw one mechanism's values by epoch: a thin line a seed, their mean, a baseline's mean.

    All panels of one grid share ``limits``.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if baseline is not None:
            _line(axes, baseline[1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
        for series in seeds:
            _line(axes, series, color=ACCENT, linewidth=0.8, alpha=0.5)
        _line(axes, mean, color=ACCENT, linewidth=2)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(*limits)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))

    last = f", last mean {list(mean.values())[-1]:.4g}" if mean else ""
    count = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    alt = f"{axis} by epoch for {label}: {count}{last}."
    return picture(name, label, alt, draw, width=2.9, height=2.0)


def _percent(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis of errors: nothing is below 0 or above 100 %."""
    low, high = limits
    return (max(low, -1.0), min(high, 101.0))


def _line(axes: Axes, series: Series, **style: Any) -> None:
    """One epoch alone makes no line: show it as a dot."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 3} if len(series) == 1 else {}
    axes.plot(list(series), list(series.values()), **style, **dot)


def _references(axes: Axes, references: Sequence[tuple[str, float]]) -> None:
    """Draw the baselines' means; their names lean away from each other."""
    ordered = sorted(references, key=lambda reference: reference[1])
    for place, (label, value) in enumerate(ordered):
        lean = "center" if len(ordered) == 1 else "right" if place == 0 else "left"
        style = "-" if label == references[0][0] else (0, (4, 3))
        axes.axvline(value, color=MUTED, linewidth=0.9, linestyle=style, zorder=1)
        axes.annotate(
            shortened(label), (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha=lean, fontsize=9, color=MUTED,
        )  # fmt: skip


def shortened(label: str) -> str:
    """Return a label that fits a figure: printable, and cut in the middle where it is long."""
    text = printable(label)
    if len(text) <= _LABEL:
        return text
    return f"{text[: _LABEL - 7]}…{text[-6:]}"


def _said(mark: Mark) -> str:
    spread = "" if mark.low is None else f" ({mark.low:.2f} to {mark.high:.2f})"
    return f"{mark.label}: {mark.mean:.2f}{spread}"


def _label_column(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Name the points right of the axes, in their vertical order, a hairline to each."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[2])
    heights = _spread([(y - low) / (high - low) for _, _, y in ordered])
    axes.set_xlim(*axes.get_xlim())
    for (label, x, y), height in zip(ordered, heights, strict=True):
        axes.annotate(
            shortened(label), (x, y), xytext=(1.04, height), textcoords="axes fraction",
            va="center", fontsize=9, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkB": 4},
        )  # fmt: skip


def _spread(heights: Sequence[float]) -> list[float]:
    """Move ascending heights in 0..1 apart by the least squares that keep labels from touching."""
    steps = min(0.085, 1 / max(1, len(heights) - 1)) * np.arange(len(heights))
    free = isotonic_regression(np.asarray(heights) - steps).x
    return [float(y) for y in np.clip(free, 0, 1 - steps[-1]) + steps]
