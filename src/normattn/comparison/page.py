"""One page for every report: a file that needs nothing from outside, and its Markdown.

A report is a `Document`: sections of tables, charts, pictures and facts. `render_page` makes of it
one HTML file that opens from disk or from a mail, offline, in light, in dark, on a phone, on paper.
Every number on it can be saved from it, as CSV or JSON. A chart is an Altair chart: Vega-Lite is
data, so that one description serves the browser, the still picture and the download.

Nothing on the page runs but the two scripts whose checksums its policy names; whatever a record
holds is shown as text.
"""

import base64
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import InputError
from . import _page_charts, _page_look
from ._page_text import environment

NOTHING = "–"
_SLUG = re.compile(r"(section )?[a-z0-9][a-z0-9-]*")
STILLS = 500_000  # characters of still pictures in a page: with the bundle it stays below 3 MB


@dataclass(frozen=True)
class Cell:
    """A cell: its value to sort by and to save, and what is shown instead, where it is not that.

    ``note`` stands below in small letters, coloured where ``verdict`` is ``better`` or ``worse``.
    """

    value: float | str | None
    text: str = ""
    note: str = ""
    verdict: str = ""

    @property
    def shown(self) -> str:
        """What a reader sees."""
        if self.text or self.value is None:
            return self.text or NOTHING
        if isinstance(self.value, float) and math.isfinite(self.value):
            return f"{self.value:.6g}"
        return str(self.value)

    @property
    def exact(self) -> str:
        """The number in full, or nothing where there is none."""
        number = isinstance(self.value, int | float) and math.isfinite(self.value)
        return repr(self.value) if number else ""


@dataclass(frozen=True)
class Column:
    """A column of a table: where its cells are found, and its title."""

    key: str
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort by any column and save; ``name`` is its only one on a page."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]  # by a column's key; a cell may be missing
    caption: str = ""

    def cells(self, row: Mapping[str, Cell]) -> list[tuple[Column, Cell]]:
        """Return a row's cells in the order of the columns."""
        return [(column, row.get(column.key, Cell(None))) for column in self.columns]


@dataclass(frozen=True)
class Chart:
    """An Altair chart with its data in it; ``text`` says in words what it shows.

    ``name`` is a slug, the only one on a page. With ``width="container"`` the chart is as wide as
    its place. ``wide`` gives it the whole width of the page.
    """

    name: str
    title: str
    chart: Any  # altair's classes share no base that is public
    text: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """A raster image, kept inside the page; ``text`` says in words what it shows."""

    title: str
    png: bytes
    text: str
    caption: str = ""

    @property
    def address(self) -> str:
        """The image as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Facts:
    """Names and values, both text."""

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Lines:
    """Sentences, one below the other; in a box of its own colour where they are a ``warning``."""

    title: str
    lines: tuple[str, ...]
    warning: bool = False


Item = Chart | Table | Picture | Facts | Lines


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; ``nothing`` is said where it has no items."""

    name: str
    title: str
    intro: str
    items: tuple[Item, ...]
    nothing: str = ""

    def groups(self) -> Iterator[tuple[str, list[Item]]]:
        """Yield neighbours of one kind together, as they share a grid."""
        for kind, items in groupby(self.items, _kind):
            yield kind, list(items)


@dataclass(frozen=True)
class Document:
    """What a page shows. ``missing`` are sentences about what failed or is not there (yet)."""

    title: str
    kind: str  # "comparison of attention mechanisms"
    verdict: tuple[str, ...]
    about: str
    missing: tuple[str, ...]
    sections: tuple[Section, ...]
    command: str  # the command line that does it again
    again: str = ""  # what is to be known about the command


def render_page(document: Document) -> str:
    """Return the page as HTML: one file, nothing from outside, at most two scripts.

    Raises:
        InputError: a name stands twice, or a chart's data is not inside it.
    """
    _check_names(document)
    charts = [i for section in document.sections for i in section.items if isinstance(i, Chart)]
    specs = {i.name: _page_charts.specification(i.name, i.chart, i.text) for i in charts}
    stills = {i.name: _page_charts.still(specs[i.name], wide=i.wide) for i in charts}
    style = _source("page.css").replace("LIGHT;", _page_look.variables(dark=False))
    return environment("page.html.j2").get_template("page.html.j2").render(
        page=document,
        style=Markup(style.replace("DARK;", _page_look.variables(dark=True))),
        bundle=Markup(_page_charts.bundle()) if specs else "",
        script=Markup(_source("_page_script.html.j2")),
        look={"config": _page_look.config(), "swap": _page_look.swaps()},
        specs={name: _page_charts.compact(spec) for name, spec in specs.items()},
        stills=_kept(stills),
    )  # fmt: skip


def render_markdown(document: Document) -> str:
    """Return the page as Markdown: words and tables, and of a chart what it shows."""
    return environment("page.md.j2").get_template("page.md.j2").render(page=document)


def _check_names(document: Document) -> None:
    """Names become ids and names of files, so each is a slug and stands once."""
    found: list[str] = []
    for section in document.sections:
        items = [item.name for item in section.items if isinstance(item, Chart | Table)]
        for name in (f"section {section.name}", *items):
            if not _SLUG.fullmatch(name) or name in (*found, "section again", "section missing"):
                raise InputError(
                    f"Page: expected names of small letters, digits and -, each of one section, "
                    f"chart or table only, got {name!r}. Give it another name."
                )
            found.append(name)


def _kept(stills: Mapping[str, str]) -> dict[str, str]:
    """Return still pictures, the small ones first to stay, as long as the page has room."""
    room, kept = STILLS, {}
    for name in sorted(stills, key=lambda name: len(stills[name])):
        room -= len(stills[name])
        kept[name] = stills[name] if room >= 0 else ""
    return kept


def _kind(item: Item) -> str:
    if isinstance(item, Chart):
        return "wide" if item.wide else "figures"
    return {Picture: "figures", Table: "table", Facts: "facts", Lines: "lines"}[type(item)]


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
