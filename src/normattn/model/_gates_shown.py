"""What `gates` found, for people: sentences, a table as text, and a figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._gates_record import NARROW, Gates, GateSite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _FAINT, _ACCENT = "#1c1f23", "#5b626b", "#e2e4e7", "#1f5fa8"
_ROW, _MARGIN, _WIDTH = 0.24, 1.1, 8.6  # inches
_NAME = 40  # characters of a site's name


def wholes(gates: Gates) -> list[GateSite]:
    """Return what multiplies x: a record a gate."""
    return [site for site in gates.sites if not site.part]


def leaves(gates: Gates) -> list[GateSite]:
    """Return gates that have no parts, and parts: what lies between 0 and 1 around one number."""
    divided = {site.site for site in gates.sites if site.part}
    return [site for site in gates.sites if site.part or site.site not in divided]


def reach(site: GateSite) -> float:
    """Return how far from ½ the 1-99 % range reaches, to its farther side."""
    return max(abs(site.low - 0.5), abs(site.high - 0.5))


def sentences(gates: Gates) -> tuple[str, ...]:
    """Return what the gates do, without a word of theory."""
    whole = wholes(gates)
    if not whole:
        return ()
    fixed = [site for site in whole if site.lowest == site.highest]
    if len(fixed) == len(whole):
        values = ", ".join(dict.fromkeys(f"{site.mean:.4g}" for site in whole))
        return (f"Every gate multiplies by the same number everywhere: {values}.",)
    return (_narrowness(whole), _from_half(leaves(gates)), _steps(whole))


def _narrowness(whole: Sequence[GateSite]) -> str:
    narrow = [site for site in whole if site.width < NARROW]
    widest = max(whole, key=lambda site: site.width)
    span = f"between {figure(widest.low, widest.width)} and {figure(widest.high, widest.width)}"
    least = min(site.width for site in whole)
    if len(narrow) == len(whole):
        which = "The gate is" if len(whole) == 1 else f"All {len(whole)} gates are"
        where = f"{span} ({widest.site})" if len(whole) > 1 else span
        widest_one = " even of the widest" if len(whole) > 1 else ""
        return (
            f"{which} nearly constant: 98 % of the values{widest_one} lie {where}, "
            f"which is {percent(widest.width)} of the way from 0 to 1."
        )
    return (
        f"{len(narrow)} of {len(whole)} gates are nearly constant. The widest lies {span} "
        f"({widest.site}), {percent(widest.width)} of the way from 0 to 1; the narrowest covers "
        f"{percent(least)} of it (98 % of the values each)."
    )


def _from_half(sites: Sequence[GateSite]) -> str:
    near, far = (f(map(reach, sites)) for f in (min, max))
    each = "part of each gate" if any(site.part for site in sites) else "gate"
    if len(sites) == 1 or near == far:
        return f"98 % of its values are within {far:.2g} of ½."
    return (
        f"Measured from ½: 98 % of the values of every {each} are within {far:.2g} of it, at the "
        f"site that moves least within {near:.2g}."
    )


def _steps(whole: Sequence[GateSite]) -> str:
    def left(kind: str) -> str:
        counts = [site.distinct[kind] for site in whole]
        low, high = min(counts), max(counts)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    most = max(site.sampled for site in whole)
    return (
        f"Of {most:,} sampled values a gate, bfloat16 keeps {left('bfloat16')} different ones, "
        f"int8 {left('int8')}."
    )


def percent(share: float) -> str:
    """Return a share as a percentage of two digits at least."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def figure(value: float, width: float) -> str:
    """Return a value with as many digits as a range of this width needs to be seen."""
    digits = 2
    while digits < 7 and 0 < width < 2 * 10.0**-digits * 10:
        digits += 1
    return f"{value:.{digits}f}"


def table(gates: Gates) -> str:
    """Return the numbers as text."""
    heads = ("mean", "spread", "1 %", "99 %", "from ½", "", "bf16", "int8", "<0.05", ">0.95")
    rows = [("gate", *heads), *((site.name, *_cells(site)) for site in gates.sites)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    left = [f"{site}: {reason}." for site, reason in gates.left_out]
    head = f"{gates.mechanism} over {gates.images:,} image{'s' if gates.images != 1 else ''}"
    return "\n".join([head, *(line.rstrip() for line in lines), *gates.summary, *left])


def _cells(site: GateSite) -> tuple[str, ...]:
    return (
        figure(site.mean, site.width),
        f"{site.spread:.2g}",
        figure(site.low, site.width),
        figure(site.high, site.width),
        f"{site.low - 0.5:+.2g}",
        f"{site.high - 0.5:+.2g}",
        f"{site.distinct['bfloat16']:,}",
        f"{site.distinct['int8']:,}",
        percent(site.below),
        percent(site.above),
    )


def plot(gates: Gates) -> "Figure":
    """Return a figure: each gate's range on the scale from 0 to 1, and enlarged."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "text.parse_math": False, "font.size": 8, "axes.edgecolor": _FAINT, "text.color": _INK,
        "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _INK, "axes.grid": True,
        "grid.color": _FAINT, "axes.axisbelow": True, "axes.spines.top": False,
        "axes.spines.right": False, "axes.spines.left": False, "axes.grid.axis": "x",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        height = _MARGIN + _ROW * len(gates.sites)
        drawn = Figure(figsize=(_WIDTH, height), layout="constrained")
        scale, enlarged = drawn.subplots(1, 2, sharey=True)
        _draw(scale, gates.sites, [0.0] * len(gates.sites))
        scale.axvline(0.5, color=_MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        _draw(enlarged, gates.sites, [site.mean for site in gates.sites])
        top = max([1.0, *(site.highest for site in gates.sites)])
        scale.set_xlim(0, top)
        scale.set_xlabel("What the gate multiplies by, on the scale that it has")
        enlarged.set_xlabel("Enlarged: how far from its own mean")
        drawn.suptitle(f"{gates.mechanism}: 1-99 %, 25-75 % and the mean; the line is ½")
    return drawn


def _draw(axes: "Axes", sites: Sequence[GateSite], origins: Sequence[float]) -> None:
    """Draw each gate's range, as it lies from its origin."""
    rows = range(len(sites))
    for inner, (first, last) in ((False, (0, -1)), (True, (2, -3))):
        axes.hlines(
            rows,
            [site.quantiles[first] - at for site, at in zip(sites, origins, strict=True)],
            [site.quantiles[last] - at for site, at in zip(sites, origins, strict=True)],
            color=_ACCENT,
            linewidth=5 if inner else 2,
            alpha=1 if inner else 0.6,
        )
    means = [site.mean - at for site, at in zip(sites, origins, strict=True)]
    axes.plot(means, rows, "o", color=_ACCENT, markerfacecolor="white", markersize=4)
    axes.set_yticks(rows, [_shortened(site.name) for site in sites])
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-_NAME // 2 :]}"
