"""A matplotlib figure as a part of an HTML page that follows the page's colours.

A figure is drawn in placeholder colours, one a role; ``_embed`` turns each into the style sheet's
variable of that role, so that one drawing serves light, dark and print. Text stays text: it can be
selected, found and read aloud, and markup in a label is shown, never run.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

WIDTH = 3.9  # inches: near a column of the page, so that all figures have letters of one size
INK, MUTED, FAINT, ACCENT = "#010101", "#020202", "#030303", "#040404"
BETTER, WORSE = "#050505", "#060606"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--line)",
    ACCENT: "var(--accent)",
    BETTER: "var(--better)",
    WORSE: "var(--worse)",
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
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Picture:
    """One figure of the page; ``alt`` says in words what ``svg`` shows."""

    name: str
    title: str
    alt: str
    svg: str


def printable(text: str) -> str:
    """Return ``text`` without the characters that XML and fonts have no place for."""
    return _UNPRINTABLE.sub(" ", text)


@contextmanager
def _quiet_style() -> Iterator[None]:
    """Our style; no warning about a glyph that the layout font lacks, the reader's may have it."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def picture(
    name: str, title: str, alt: str, draw: Callable[[Figure], None], *,
    height: float, width: float = WIDTH,
) -> Picture:  # fmt: skip
    """Draw a figure of this size in inches and return it, ready for the page.

    ``name`` starts the ids inside, so it must be the only one on the page; ``alt`` is what a
    screen reader says.
    """
    buffer = io.BytesIO()
    with _quiet_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    alt = printable(alt)
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
    # Letters stay near the page's size: a figure shrinks with its card, and grows little.
    root.set("style", f"max-width: {1.1 * float(root.get('viewBox', '0 0 280').split()[2]):.0f}pt")
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _colored(style: str) -> str:
    return re.sub("#0[0-9]0[0-9]0[0-9]", lambda found: _VARIABLES.get(found[0], found[0]), style)
