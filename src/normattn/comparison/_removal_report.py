"""The table, the page and the picture of removal curves, from the record alone."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .. import _files
from ._chart_files import as_file
from ._removal_left_out import unranked
from ._removal_page import removal_document
from ._removal_picture import draw
from ._removal_records import RemovalRecords
from ._removal_salvage import salvage
from ._removal_sections import CAPTION, within
from ._removal_summary import Row, curves, summarise_removal, unfinished
from .page import render_markdown, render_page
from .table import Cell, Column

PAGE, MARKDOWN, PICTURE = "report.html", "salience.md", "salience.svg"
_TONES = {"better": "green", "worse": "red"}


def write_removal(folder: Path | str) -> Path:
    """Write ``report.html``, ``salience.md`` and ``salience.svg``; return the page's path.

    A record that is torn, or of another version, has a page too: it says what is missing.

    Raises:
        RunError: ``folder`` holds no such record, or cannot be written.
    """
    folder = Path(folder)
    records, notes = salvage(folder)
    document = removal_document(records, notes)
    picture = ""
    if rows := summarise_removal(records):
        found = [curves(records, row.criterion) for row in rows]
        chart = draw(found, 100 / records.about["classes"])
        _files.write_bytes(folder / PICTURE, as_file(chart, "svg"))
        picture = f"\n![Accuracy against the fraction of channels removed]({PICTURE})\n"
    markdown = render_markdown(document) + picture
    _files.write_bytes(folder / MARKDOWN, markdown.encode(errors="replace"))
    _files.write_bytes(folder / PAGE, render_page(document).encode(errors="replace"))
    return folder / PAGE


def removal_table(records: RemovalRecords) -> Table:
    """Return the table for a terminal."""
    view = Table(caption=CAPTION, caption_justify="left", box=SIMPLE_HEAD, show_edge=False)
    found = _columns(records, summarise_removal(records))
    for column in found:
        view.add_column(Text(column.title), justify="right" if column.numeric else "left")
    for cells in zip(*(column.cells for column in found), strict=True):
        view.add_row(*(Text(cell.text, style=_TONES.get(cell.tone, "")) for cell in cells))
    return view


def missing(records: RemovalRecords) -> tuple[str, ...]:
    """Say what is not in the table, what is not ranked, and what zeros cannot show."""
    silent, inexact = unranked(records)
    return (
        *(f"{name}: {reason}" for name, reason in unfinished(records).items()),
        *silent,
        *inexact,
    )


def _columns(records: RemovalRecords, rows: tuple[Row, ...]) -> tuple[Column, ...]:
    at = f"{rows[0].fraction * 100:g} %" if rows else "30 %"
    total = len(records.groups)
    gains = (Cell(within(r.gain, r.chance), tone=r.verdict) for r in rows)
    return (
        Column("Criterion", tuple(Cell(r.criterion) for r in rows), numeric=False),
        Column("Groups", tuple(Cell(f"{r.groups} of {total}") for r in rows)),
        Column(f"{at}: least first", tuple(Cell(f"{r.least:.1f}") for r in rows)),
        Column("random", tuple(Cell(f"{r.random:.1f}") for r in rows)),
        Column("most first", tuple(Cell(f"{r.most:.1f}") for r in rows)),
        Column("least − random", tuple(gains)),
        Column("Area", tuple(Cell(within(r.area, r.area_chance)) for r in rows)),
    )
