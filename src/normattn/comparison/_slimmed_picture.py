"""The width of every layer before and after a slimming, as a picture of its own."""

import io
import warnings
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .svg import _STYLE, ACCENT, FAINT, INK, MUTED, printable

# The report's colours on white paper: this picture stands alone, where no style sheet reaches.
_COLORS = {INK: "#1c1f23", MUTED: "#5b626b", FAINT: "#e2e4e7", ACCENT: "#1f5fa8"}
_BEFORE = "#b9bfc6"
_WIDTH, _ROW, _MARGIN = 6.4, 0.17, 1.1  # inches
_LABEL = 34  # characters of a layer's name


def draw_widths(widths: Mapping[str, Sequence[int]], kind: str) -> tuple[bytes, str]:
    """Return a file of this kind, ``png`` or ``svg``, and what it shows in words.

    Args:
        widths: by layer, from the input to the output: outputs before and after.
        kind: the format.
    """
    style = {key: _COLORS.get(value, value) for key, value in _STYLE.items()}
    style |= {"font.size": 8}
    buffer = io.BytesIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # About a glyph that the layout font lacks: the reader's may have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW * len(widths)), layout="constrained")
        _draw(figure.add_subplot(), widths)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, facecolor="white", metadata=metadata)
    return buffer.getvalue(), _said(widths)


def _draw(axes: Axes, widths: Mapping[str, Sequence[int]]) -> None:
    rows = range(len(widths))
    before, after = zip(*widths.values(), strict=True)
    axes.grid(visible=False, axis="y")
    axes.barh(rows, before, height=0.8, color=_BEFORE, label="before")
    axes.barh(rows, after, height=0.8, color=_COLORS[ACCENT], label="after")
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        text = f" {new}" if new == old else f" {new} of {old}"
        axes.text(old, row, text, va="center", fontsize=6.5, color=_COLORS[MUTED])
    axes.set_yticks(rows, [_shortened(name) for name in widths])
    axes.set_ylim(len(widths) - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * max(before))
    axes.tick_params(axis="y", length=0, labelcolor=_COLORS[INK])
    axes.set_xlabel("Outputs of the layer")
    axes.figure.legend(loc="outside upper right", ncols=2, frameon=False)


def _shortened(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 15]}…{text[-14:]}"


def _said(widths: Mapping[str, Sequence[int]]) -> str:
    before, after = (sum(side) for side in zip(*widths.values(), strict=True))
    narrower = sum(new < old for old, new in widths.values())
    return (
        f"Width of every layer before and after: {narrower} of {len(widths)} layers are narrower, "
        f"{after:,} outputs of {before:,} are left."
    )
