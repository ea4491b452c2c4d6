"""The table, the page and the picture of removal curves, from the record alone."""

from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .. import _files
from ..model.salience import CRITERIA
from ._removal_picture import draw
from ._removal_records import RECORD, RemovalRecords, read_removal
from ._removal_summary import Curves, Row, curves, signed, summarise_removal, unfinished
from .report import _environment
from .table import NOTHING, Cell, Column

PAGE, PICTURE = "salience.md", "salience.svg"
CAPTION = (
    "Top-1 accuracy (%) without fine-tuning, and differences in percentage points. The area is the "
    "mean height of the least-first curve over the most-first one. ± is what chance alone stays "
    "within in 95 of 100 cases: one more random order on other images; two random orders."
)
_TONES = {"better": "green", "worse": "red"}
_SHOWN = 5


@dataclass(frozen=True)
class CurveTable:
    """One criterion's curves as text, a row a fraction."""

    criterion: str
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    sentences: tuple[str, ...]
    picture: str | None
    alt: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    curves: tuple[CurveTable, ...]
    missing: tuple[str, ...]
    facts: tuple[str, ...]


def write_removal(folder: Path | str) -> Path:
    """Write ``salience.md`` and ``salience.svg`` from the record of a run; return the page's path.

    Raises:
        RunError: ``folder`` holds no such record, or cannot be written.
    """
    folder = Path(folder)
    records = read_removal(folder)
    rows = summarise_removal(records)
    found = [curves(records, row.criterion) for row in rows]
    if rows:
        _files.write_text(folder / PICTURE, draw(found, 100 / records.about["classes"]))
    template = _environment("removal.md.j2").get_template("removal.md.j2")
    text = template.render(page=_page(records, rows, found))
    _files.write_bytes(folder / PAGE, text.encode(errors="replace"))
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
    return (
        *(f"{name}: {reason}" for name, reason in unfinished(records).items()),
        *_unranked(records),
        *records.inexact,
    )


def _columns(records: RemovalRecords, rows: tuple[Row, ...]) -> tuple[Column, ...]:
    at = f"{rows[0].fraction * 100:g} %" if rows else "30 %"
    total = len(records.groups)
    gains = (Cell(_within(r.gain, r.chance), tone=r.verdict) for r in rows)
    return (
        Column("Criterion", tuple(Cell(r.criterion) for r in rows), numeric=False),
        Column("Groups", tuple(Cell(f"{r.groups} of {total}") for r in rows)),
        Column(f"{at}: least first", tuple(Cell(f"{r.least:.1f}") for r in rows)),
        Column("random", tuple(Cell(f"{r.random:.1f}") for r in rows)),
        Column("most first", tuple(Cell(f"{r.most:.1f}") for r in rows)),
        Column("least − random", tuple(gains)),
        Column("Area", tuple(Cell(_within(r.area, r.area_chance)) for r in rows)),
    )


def _within(value: float, chance: float | None) -> str:
    return signed(value) + (f" ± {chance:.1f}" if chance is not None else "")


def _page(records: RemovalRecords, rows: tuple[Row, ...], found: list[Curves]) -> Page:
    columns = _columns(records, rows)
    attention = ", ".join(records.about["attention"]) or "no attention"
    alt = "Accuracy against the fraction of channels removed. " + " ".join(r.sentence for r in rows)
    return Page(
        title=f"{records.about['host']} with {attention} on {records.about['data']}",
        sentences=tuple(r.sentence for r in rows) or ("No criterion is finished.",),
        picture=PICTURE if rows else None,
        alt=alt,
        columns=columns,
        rows=tuple(zip(*(column.cells for column in columns), strict=True)),
        caption=CAPTION,
        curves=tuple(_table(each) for each in found),
        missing=missing(records),
        facts=_facts(records),
    )


def _table(found: Curves) -> CurveTable:
    rows = []
    for i, (share, random) in enumerate(found.random):
        spread = f"{random:.1f} ({found.lowest[i]:.1f} to {found.highest[i]:.1f})"
        least, most = found.least[i][1], found.most[i][1]
        rows.append((f"{share * 100:.1f}", f"{least:.1f}", spread, f"{most:.1f}"))
    return CurveTable(f"{found.criterion}: {CRITERIA[found.criterion].about}", tuple(rows))


def _unranked(records: RemovalRecords) -> tuple[str, ...]:
    lines = []
    for name, facts in records.criteria.items():
        groups: dict[str, list[str]] = {}
        for group, reason in facts["silent"]:
            groups.setdefault(reason.partition(";")[0], []).append(group)
        for reason, found in groups.items():
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            lines.append(
                f"{name} is not tested on {len(found)} of {len(records.groups)} groups, of which "
                f"it says nothing ({reason}): {', '.join(found[:_SHOWN])}{more}."
            )
    return tuple(lines)


def _facts(records: RemovalRecords) -> tuple[str, ...]:
    about, run = records.about, records.run
    settings = run["settings"]
    refused = "; ".join(f"{layer}: {reason}" for layer, reason in records.refused[:_SHOWN])
    channels = sum(records.groups.values())
    return (
        f"The whole model: {records.whole:.2f} % of {run['data']['val']} validation images.",
        f"{len(records.groups)} groups of coupled channels, {channels} channels; the same fraction "
        "goes from every group of a criterion's scope, in whole channels.",
        "Removed channels are zeros in what makes, scales and reads them; nothing is fine-tuned.",
        f"{settings['draws']} random orders, seed {settings['seed']}; taylor and gate look at "
        f"up to {settings['calibration']} training images.",
        f"One model and one data set. Records: {RECORD}, and scores/ for each channel's score.",
        *([f"Layers whose channels stay: {refused}."] if refused else []),
        f"Software: {', '.join(f'{n} {v}' for n, v in about['versions'].items())}; commit "
        f"{about['commit'] or NOTHING}; {about['machine']['name']}.",
    )
