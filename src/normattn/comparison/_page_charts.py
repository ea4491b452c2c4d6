"""Charts as parts of a page: specification, numbers and a still picture, all inside the file.

A chart is drawn in the reader's browser by Vega-Lite, whose libraries vl-convert ships as one
bundle. The still picture is for paper, and for readers whose mail program runs no script.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

import vl_convert

from ..errors import InputError
from . import _page_look

STILL_WIDTHS = (430, 720)  # pixels, of a chart in a column and of a wide one
_STILL_ROWS = 20_000  # of data: above, a still picture is as large as the page may be
_IDS = re.compile(r"(?<=[\"#])(clip|gradient_)\d+(?=[\")])")
# The fourth and fifth ranges turn the direction of all that follows them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Return ``text`` without the characters that a page cannot hold or that turn its direction."""
    return _UNPRINTABLE.sub(" ", text)


@cache
def bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that needs nothing else."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # A browser reads \r\n as \n before it compares the script's checksum.
    return script.replace("\r\n", "\n").replace("</script", "<\\/script")


def specification(name: str, chart: Any, text: str) -> dict[str, Any]:
    """Return a chart's Vega-Lite with its data in it, as plain JSON.

    Numbers that are not finite are null, as JSON has no others. A configuration of its own is
    dropped: the page's look is the same for all charts.

    Raises:
        InputError: data is named by an address, where the page must need nothing from outside.
    """
    # Altair would hold every row of the data against the schema, which takes seconds: tests do.
    spec: dict[str, Any] = _plain(chart.to_dict(validate=False))
    for key in ("$schema", "config", "usermeta"):
        spec.pop(key, None)
    for data in _sources(spec):
        if "url" in data:
            raise InputError(
                f"Page: expected a chart with its data inside, got the address {data['url']!r} "
                f"in {name!r}. Pass values."
            )
    return {"description": printable(text), **spec}


def embedded(value: object) -> str:
    """Return JSON that can stand in a script element of any page, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def compact(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification with data by columns, which takes a third of the room."""
    small: dict[str, Any] = json.loads(json.dumps(spec))
    for data in _sources(small):
        if isinstance(data.get("values"), list):
            data["values"] = _columns(data["values"])
    if "datasets" in small:
        small["datasets"] = {key: _columns(rows) for key, rows in small["datasets"].items()}
    return small


def still(spec: Mapping[str, Any], *, wide: bool) -> str:
    """Return the chart as a picture's address, ``data:`` and all; nothing where it is too large."""
    if sum(len(rows) for rows in _tables(spec)) > _STILL_ROWS:
        return ""
    # Nothing reads aloud what is inside an image; its words are the image's own.
    look = {**_page_look.config(), "background": "white", "aria": False}
    fixed = {**_fixed_width(spec, STILL_WIDTHS[wide]), "config": look}
    svg = numbered(vl_convert.vegalite_to_svg(fixed))
    return "data:image/svg+xml," + quote(svg, safe=" !$()*+,-./:;=?@[]^_`{|}~")


def numbered(svg: str) -> str:
    """Count the ids of a picture from 0: vl-convert counts on from one picture to the next."""
    places: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return places.setdefault(found[0], f"{found[1]}{len(places)}")

    return _IDS.sub(number, svg)


def _fixed_width(spec: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    """A picture has no container to fill: give it a width."""
    parts = {
        key: [_fixed_width(part, pixels) for part in spec[key]]
        for key in ("layer", "vconcat", "hconcat", "concat")
        if key in spec
    }
    width = {"width": pixels} if spec.get("width") == "container" else {}
    return {**spec, **parts, **width}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sources(node: Any) -> Iterator[dict[str, Any]]:
    """All data of a specification, wherever in it: each a mapping with values or an address."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key == "data" and isinstance(item, dict):
                yield item
            elif key != "datasets":
                yield from _sources(item)
    elif isinstance(node, list):
        for item in node:
            yield from _sources(item)


def _tables(spec: Mapping[str, Any]) -> list[list[Any]]:
    inline = [d["values"] for d in _sources(spec) if isinstance(d.get("values"), list)]
    return [*inline, *spec.get("datasets", {}).values()]


def _columns(rows: Sequence[Any]) -> dict[str, Any] | list[Any]:
    """Rows of one kind by column, names that come again as numbers; other data as it is."""
    if not all(isinstance(row, dict) for row in rows):
        return list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {
        "rows": len(rows),
        "columns": {key: _column([row.get(key) for row in rows]) for key in keys},
    }


def _column(values: list[Any]) -> Any:
    if not all(isinstance(value, str | None) for value in values):
        return values
    names = {name: place for place, name in enumerate(dict.fromkeys(values))}
    if 2 * len(names) > len(values):
        return values
    return {"of": list(names), "at": [names[value] for value in values]}
