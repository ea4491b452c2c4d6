"""Charts as files of their own, for a README or a slide: the same charts as on the pages."""

from typing import Any

import vl_convert

from . import _page_charts, _page_look

WIDTH = 560  # pixels, of a chart that on a page fills its place


def as_file(chart: Any, kind: str, scale: float = 2) -> bytes:
    """Return an Altair chart as a file of this kind, ``svg`` or ``png``, on white.

    The same chart gives the same bytes, and letters of an SVG are text.

    Args:
        chart: with its data in it.
        kind: the format.
        scale: pixels of a PNG for one of the chart.
    """
    spec = _page_charts.specification("file", chart, "")
    if spec.get("width") == "container":
        spec["width"] = WIDTH
    spec["config"] = {**_page_look.config(), "background": "white"}
    if kind == "svg":
        return _page_charts.numbered(vl_convert.vegalite_to_svg(spec)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, scale=scale))


def middle(characters: int) -> str:
    """Return the Vega expression that cuts an axis label in its middle: names differ at the end."""
    return f"truncate(datum.label, {characters}, 'center')"
