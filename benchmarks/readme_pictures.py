"""The README's pictures: thin lines that read on light and dark pages alike."""

import io
import re
from itertools import pairwise

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from readme_kernels import PEERS, multiple
from readme_rows import Group

INK, MUTED, ACCENT = "#6e7781", "#8c959f", "#3b6fd4"
#: Whose marks must fit into the kernels' picture whole.
NEAR = ("normattn", "plain", "floor")


def draw_mechanism() -> Figure:
    """Draw what every mechanism does at the end of a residual branch."""
    figure = Figure(figsize=(8.2, 1.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 82), ylim=(0, 19))
    axes.set_axis_off()

    def box(x: float, text: str, width: float, color: str = INK, y: float = 4) -> None:
        shape = FancyBboxPatch(
            (x, y), width, 5, boxstyle="round,pad=0,rounding_size=1", fill=False, ec=color, lw=1.4
        )
        axes.add_patch(shape)
        axes.text(x + width / 2, y + 2.4, text, ha="center", va="center", color=color, fontsize=10)

    def arrow(*points: tuple[float, float], color: str = INK) -> None:
        for start, end in pairwise(points[:-1]):
            axes.plot(*zip(start, end, strict=True), color=color, lw=1.4)
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", points[-1], points[-2], arrowprops=style)

    def node(x: float, text: str, color: str = INK) -> None:
        axes.text(x, 6.4, text, ha="center", va="center", color=color, fontsize=17)

    arrow((1, 6.5), (6, 6.5))
    box(6, "convolutions, norm", 19)
    arrow((25, 6.5), (49.4, 6.5))
    axes.text(28, 7.8, "x", color=INK, fontsize=11, style="italic")
    box(32, "gate(x)", 11, ACCENT, y=11)
    arrow((30.5, 6.5), (30.5, 13.5), (32, 13.5), color=ACCENT)
    arrow((43, 13.5), (50.8, 13.5), (50.8, 8), color=ACCENT)
    node(50.8, "×", ACCENT)
    arrow((52.4, 6.5), (59.3, 6.5))
    node(60.8, "+")
    arrow((3.5, 6.5), (3.5, 1.5), (60.8, 1.5), (60.8, 5))
    axes.text(32, 2.1, "shortcut", ha="center", va="bottom", color=MUTED, fontsize=9)
    arrow((62.4, 6.5), (68, 6.5))
    box(68, "ReLU", 8)
    arrow((76, 6.5), (81, 6.5))
    axes.text(52.6, 13, "y = x · gate(x)", color=ACCENT, fontsize=10, va="center")
    return figure


def pictured(groups: list[Group]) -> list[Group]:
    """Return what is shown of the kernels: the gate and the tail, on the first shape."""
    found = [group for group in groups if group.op in ("gate", "tail")]
    return [group for group in found if group.shape == found[0].shape]


def draw_kernels(groups: list[Group]) -> Figure:
    """Draw the times of what is `pictured`.

    Bars far beyond the marks of no attention are cut: they would make specks of all the others.
    """
    shown = pictured(groups)
    needed = [row["ratio"] for g in shown for n, row in g.rows.items() if n in NEAR]
    longest = max(row["ratio"] for g in shown for n, row in g.rows.items() if n in PEERS + NEAR)
    end = min(2.5 * max(needed, default=longest), longest)
    lines = (len(shown) + 1) // 2
    figure = Figure(figsize=(8.2, 1.9 * lines + 0.6), layout="constrained")
    grid = figure.subplots(lines, 2, squeeze=False, sharex=True).flatten()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, group in zip(grid, shown, strict=False):
        draw_group(axes, group, end)
    figure.supxlabel(
        f"multiples of a clone of x ({shown[0].size}), forward + backward; →: longer than drawn;\n"
        "dotted: the floor, the bytes that must move at the speed of a copy",
        color=INK,
        fontsize=9,
    )
    return figure


def draw_group(axes: Axes, group: Group, end: float) -> None:
    """Draw one operation on one layout, with bars no longer than ``end``."""
    names = [name for name in (*PEERS, "normattn", "plain") if name in group.rows]
    for place, name in enumerate(names):
        ratio = group.rows[name]["ratio"]
        color = ACCENT if name == "normattn" else INK
        style = {"fc": "none", "ec": INK, "lw": 1.2} if name == "plain" else {"color": MUTED}
        style = {"color": ACCENT} if name == "normattn" else style
        axes.barh(place, min(ratio, end), height=0.64, **style)
        text = multiple(ratio) + (" →" if ratio > end else "")
        weight = "bold" if name == "normattn" else "normal"
        where = min(ratio, end) + 0.015 * end
        axes.text(where, place, text, va="center", fontsize=9, color=color, weight=weight)
    if "floor" in group.rows:
        axes.axvline(group.rows["floor"]["ratio"], color=INK, lw=1.4, ls=(0, (1, 1.5)))
    alone = "BatchNorm alone" if group.op == "gate" else "no attention"
    axes.set_title(f"{group.op}, {group.layout}", color=INK, fontsize=10, loc="left")
    axes.set_yticks(range(len(names)), [alone if name == "plain" else name for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * end)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def svg(figure: Figure) -> str:
    """Return the figure as SVG that is the same on every run; lines have no trailing blanks."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "normattn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())
