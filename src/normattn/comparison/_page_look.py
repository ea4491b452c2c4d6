"""The colours of the pages and of their charts, in light and in dark.

A chart names a colour of the light page by its constant here. In the dark, the page exchanges each
for its counterpart, in a chart's specification as in the style sheet; data is left as it is.
"""

from typing import Any

#: By name: on a light page, and on a dark one. Text has a contrast of 4.5 on every ground.
COLORS = {
    "paper": ("#fbfbfa", "#15171a"),
    "card": ("#ffffff", "#1c1f23"),
    "ink": ("#1c1f23", "#e6e8ea"),
    "muted": ("#5b626b", "#a2a9b2"),
    "line": ("#e2e4e7", "#33383f"),
    "accent": ("#1f5fa8", "#7db4f0"),
    "better": ("#00735a", "#4cc9a4"),
    "worse": ("#b24400", "#f39a5f"),
    "note": ("#fdf6e3", "#27241a"),
    "note-line": ("#c79a1e", "#c79a1f"),
    "before": ("#b9bfc6", "#5a626c"),
}
INK, MUTED, FAINT, ACCENT, BETTER, WORSE, BEFORE = (
    COLORS[name][0] for name in ("ink", "muted", "line", "accent", "better", "worse", "before")
)
#: For what has no order; the last ones are used again where there are more names than colours.
CATEGORIES = (
    ("#1f5fa9", "#7db4f1"), ("#c2571a", "#f5a067"), ("#00775e", "#4fcaa6"), ("#8a3b9e", "#d592e8"),
    ("#946800", "#e3b545"), ("#c0215c", "#ff86ae"), ("#127a96", "#63d0ea"), ("#6b5b2a", "#c9ba7c"),
    ("#5b5fc7", "#a9acff"), ("#7b4a2b", "#d9a782"),
)  # fmt: skip
#: For what grows, from none to much.
RAMP = (
    ("#e8eff8", "#232b35"), ("#8fb4dc", "#3c6a9c"), ("#1f5faa", "#7db4f2"), ("#0a2d58", "#e3f0ff"),
)  # fmt: skip
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def swaps() -> dict[str, str]:
    """Return the dark counterpart of every light colour that a chart may name."""
    return dict([*COLORS.values(), *CATEGORIES, *RAMP])


def variables(dark: bool) -> str:
    """Return the colours as variables of a style sheet."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLORS.items())


def config() -> dict[str, Any]:
    """Return Vega-Lite's configuration: quiet axes, the page's letters and colours, in light."""
    axis = {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": FAINT, "domainColor": FAINT,
        "tickColor": FAINT, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
        "labelLimit": 150, "titleLimit": 400, "labelPadding": 4, "titlePadding": 8,
        "labelSeparation": 8, "domain": False,
    }  # fmt: skip
    legend = {
        "labelColor": INK, "titleColor": MUTED, "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "labelLimit": 200, "symbolStrokeWidth": 2,
    }  # fmt: skip
    ramp = [light for light, _ in RAMP]
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None, "continuousHeight": 260},
        "axis": axis,
        "axisBand": {"grid": False},
        "axisQuantitative": {"tickCount": 6},
        "legend": legend,
        "header": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 11, "labelLimit": 200},
        "title": {"color": INK, "fontSize": 13, "anchor": "start"},
        "mark": {"color": ACCENT},
        "text": {"color": INK, "fontSize": 11},
        "rule": {"color": MUTED},
        "range": {
            "category": [light for light, _ in CATEGORIES],
            "ordinal": ramp,
            "ramp": ramp,
            "heatmap": ramp,
        },
    }
