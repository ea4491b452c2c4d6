"""The report's figures: drawn by matplotlib, embedded as SVG that follows the page's colours.

A figure is drawn in placeholder colours, one a role; ``_embed`` turns each into the style sheet's
variable of that role, so that one drawing serves light, dark and print. Text stays text: it can be
selected, found and read aloud, and markup in a label is shown, never run.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

INK, MUTED, FAINT, ACCENT = "#010101", "#020202", "#030303", "#040404"
BETTER, WORSE, PAPER = "#050505", "#060606", "#070707"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--line)",
    ACCENT: "var(--accent)",
    BETTER: "var(--better)",
    WORSE: "var(--worse)",
    PAPER: "var(--card)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "normattn",  # the same numbers give the same bytes
    "text.parse_math": False,  # a label is not a formula, whatever signs it holds
    "font.family": "DejaVu Sans",  # ships with matplotlib: the layout is the same everywhere
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
}
_WIDTH = 3.9  # inches: near a column of the page, so that all figures have letters of one size
_LABEL = 22  # characters of a mechanism's label; the table has it whole
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Series = dict[int, float]  # a value by epoch


@dataclass(frozen=True)
class Picture:
    """One figure of the page; ``alt`` says in words what ``svg`` shows."""

    name: str
    title: str
    alt: str
    svg: str


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
    name: str, title: str, axis: str, marks: Sequence[Mark], references: Sequence[tuple[str, float]]
) -> Picture:
    """Draw a row a mechanism: every seed a dot, the mean a bar, the 95 % interval a line.

    ``references`` are vertical lines, as (label, value).
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
                markerfacecolor="none", markeredgecolor=mark.color,
            )  # fmt: skip
        axes.set_yticks(range(len(marks)), [shortened(mark.label) for mark in marks])
        axes.set_ylim(len(marks) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel(axis)

    alt = f"{title}. {axis}: " + "; ".join(map(_said, marks)) + "."
    return _picture(name, title, alt, draw, height=0.95 + 0.32 * len(marks))


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
        axes.set_xlabel(axis)
        axes.set_ylabel("Top-1 error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _label_column(axes, [(label, cost, mark.mean) for label, cost, mark in points])

    alt = f"{title}. {axis} and top-1 error: " + "; ".join(
        f"{label}: {cost:.4g}, {mark.mean:.2f} %" for label, cost, mark in points
    )
    return _picture(name, title, alt + ".", draw, height=max(2.9, 0.22 * len(points) + 0.8))


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
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    last = f", last mean {list(mean.values())[-1]:.4g}" if mean else ""
    count = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    alt = f"{axis} by epoch for {label}: {count}{last}."
    return _picture(name, label, alt, draw, width=2.9, height=2.0)


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
            label, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha=lean, fontsize=9, color=MUTED,
        )  # fmt: skip


def shortened(label: str) -> str:
    """Return a label that fits a figure: printable, and cut in the middle where it is long."""
    text = _UNPRINTABLE.sub(" ", label)
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


@contextmanager
def _quiet_style() -> Iterator[None]:
    """Our style; no warning about a glyph that the layout font lacks, the reader's may have it."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _picture(
    name: str, title: str, alt: str, draw: Callable[[Figure], None], *,
    height: float, width: float = _WIDTH,
) -> Picture:  # fmt: skip
    buffer = io.BytesIO()
    with _quiet_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    alt = _UNPRINTABLE.sub(" ", alt)
    return Picture(name, title, alt, _embed(buffer.getvalue(), name, alt))


def _embed(svg: bytes, name: str, alt: str) -> str:
    """Make matplotlib's file a part of a page: no metadata, own ids, the page's colours."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            key = key.rpartition("}")[2]
            if key == "id":
                value = f"{name}-{value}"
            elif key in ("href", "clip-path"):
                value = value.replace("#", f"#{name}-")
            elif key == "style":
                value = _colored(value)
            element.set(key, value)
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _colored(style: str) -> str:
    return re.sub("#0[0-9]0[0-9]0[0-9]", lambda found: _VARIABLES.get(found[0], found[0]), style)
