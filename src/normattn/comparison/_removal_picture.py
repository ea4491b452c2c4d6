"""The picture of removal curves: a panel a criterion, readable on light and dark pages."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._removal_summary import Curves

INK, MUTED, ACCENT = "#6e7781", "#8c959f", "#3b6fd4"
_ACROSS = 3
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "normattn",  # the same numbers give the same bytes
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
}


def draw(found: Sequence[Curves], guess: float) -> str:
    """Return an SVG file: accuracy against the share removed, a panel for each criterion.

    Args:
        found: the criteria's curves, at least one.
        guess: the accuracy of guessing, in percent.
    """
    across = min(len(found), _ACROSS)
    down = -(-len(found) // across)
    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.0 * across + 0.4, 2.5 * down + 0.6), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flatten()
        for axes in grid[len(found) :]:
            axes.set_axis_off()
        for axes, curves in zip(grid, found, strict=False):
            _panel(axes, curves, guess)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.supxlabel("channels removed (%)", color=INK, fontsize=10)
        figure.supylabel("top-1 accuracy (%)", color=INK, fontsize=10)
        metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue().decode()


def _panel(axes: Axes, curves: Curves, guess: float) -> None:
    shares = [100 * share for share, _ in curves.random]
    axes.axhline(guess, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
    axes.fill_between(shares, curves.lowest, curves.highest, color=MUTED, alpha=0.3, linewidth=0)
    for curve, label, style in (
        (curves.least, "least salient first", {"color": ACCENT, "linewidth": 2.0}),
        (curves.random, "random (and its range)", {"color": INK, "linewidth": 1.0}),
        (curves.most, "most salient first", {"color": ACCENT, "linestyle": (0, (4, 2))}),
    ):
        xs, ys = zip(*curve, strict=True)
        line: dict[str, Any] = {"linewidth": 1.4, **style}
        axes.plot([100 * x for x in xs], ys, label=label, **line)
    axes.set_title(f"{curves.criterion} ({curves.groups} groups)", fontsize=10)
    axes.set_ylim(0, 101)
