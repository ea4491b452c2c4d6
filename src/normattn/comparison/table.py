"""The comparison's table, once: the terminal, the page and the Markdown all show these cells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .statistics import Estimate, PairedDifference, Row, Summary

NOTHING = "–"
_TONES = {"better": "green", "worse": "red", "": "dim"}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a remark below it, a tone (``better``, ``worse`` or none), its value."""

    text: str
    remark: str = ""
    tone: str = ""
    value: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column: its title and one cell for each row of the summary."""

    title: str
    cells: tuple[Cell, ...]
    numeric: bool = True

    @property
    def key(self) -> str:
        """The name of the column where its numbers are saved."""
        return re.sub(r"[^a-z0-9]+", "_", self.title.replace("Δ", "delta").lower()).strip("_")


def columns(summary: Summary) -> tuple[Column, ...]:
    """Return the papers' columns, then latency and the paired differences; none that is empty."""
    rows = summary.rows
    found = [
        Column(
            "Mechanism",
            tuple(Cell(row.mechanism, value=row.mechanism) for row in rows),
            numeric=False,
        ),
        _counts("Parameters", [row.parameters for row in rows], units=(("M", 1e6),)),
        _counts("Multiply-adds", [row.paper_macs for row in rows], units=(("G", 1e9), ("M", 1e6))),
        Column("Top-1 error (%)", tuple(_error(row, "top1_error") for row in rows)),
        Column("Top-5 error (%)", tuple(_error(row, "top5_error") for row in rows)),
        *_latencies(rows),
        *(_differences(rows, baseline) for baseline in summary.baselines),
    ]
    wanted = ("Mechanism", "Top-1 error (%)")
    return tuple(c for c in found if c.title in wanted or any(x.text != NOTHING for x in c.cells))


def table(summary: Summary) -> Table:
    """Return the table for a terminal: short titles, and the latency of the smallest batch only."""
    view = Table(
        caption=f"{caption(summary)} ≈ not distinguishable.",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    found = list(columns(summary))
    latencies = [column for column in found if column.title.startswith("Latency")]
    found = [column for column in found if column not in latencies[1:]]
    for column in found:
        longest = max((len(cell.text) for cell in column.cells), default=0)
        view.add_column(
            Text(_short(column.title)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=not column.numeric and longest <= 30,  # others give way first
        )
    for cells in zip(*(column.cells for column in found), strict=True):
        view.add_row(*(_styled(cell) for cell in cells))
    return view


def _short(title: str) -> str:
    """Break a title where its unit begins, so that a narrow column can have it."""
    words = (("Parameters", "Params"), ("Multiply-adds", "MACs"), (", ", "\n"), (" (", "\n("))
    for long, short in words:
        title = title.replace(long, short)
    return title


def caption(summary: Summary) -> str:
    """Say how to read the table."""
    most = max((row.n for row in summary.rows), default=0)
    text = "Lower is better. "
    if most < 2:
        return text + "No interval and no verdict: they need two seeds or more."
    exceptions = any(row.n < most for row in summary.rows)
    n = f"n = {most} seeds{' where nothing else is said' if exceptions else ''}"
    text += f"Mean ± half of the 95 % t-interval, {n}."
    if summary.baselines:
        text += (
            " Δ is the mean paired difference in top-1 error, in percentage points; verdicts are"
            " by paired t-tests at 5 %, corrected after Holm."
        )
    return text


def spread(estimate: Estimate | PairedDifference, *, signed: bool = False) -> str:
    """Return ``mean ± half-width``, without the ± where there is no interval."""
    if estimate.mean is None:
        return NOTHING
    text = _signed(estimate.mean) if signed else f"{estimate.mean:.2f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ± {(estimate.high - estimate.low) / 2:.2f}"


def tone(verdict: str) -> str:
    """Return ``better`` or ``worse`` for a verdict that says so, else nothing."""
    return verdict if verdict in ("better", "worse") else ""


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _error(row: Row, metric: str) -> Cell:
    estimate = row.metrics.get(metric)
    if estimate is None:
        remark = "no finished trial" if metric == "top1_error" else ""
        return Cell(NOTHING, remark)
    short = estimate.n < row.planned
    remark = f"n = {estimate.n} of {row.planned}" if short else ""
    return Cell(spread(estimate), remark, value=estimate.mean)


def _differences(rows: Sequence[Row], baseline: str) -> Column:
    cells = []
    for row in rows:
        difference = row.differences.get(baseline)
        if difference is None:
            cells.append(Cell(NOTHING))
        else:
            verdict = difference.verdict
            shown = spread(difference, signed=True)
            cells.append(Cell(shown, verdict, tone(verdict), difference.mean))
    return Column(f"Δ to {baseline}", tuple(cells))


def _latencies(rows: Sequence[Row]) -> list[Column]:
    batches = sorted({batch for row in rows for batch in row.latency})
    return [
        Column(
            f"Latency, batch {batch} (ms)",
            tuple(
                Cell(f"{row.latency[batch] * 1e3:.2f}", value=row.latency[batch] * 1e3)
                if batch in row.latency
                else Cell(NOTHING)
                for row in rows
            ),
        )
        for batch in batches
    ]


def _counts(
    title: str, values: Sequence[float | None], units: Sequence[tuple[str, float]]
) -> Column:
    """One unit for the whole column: the first that the largest value reaches, or the last."""
    largest = max((value for value in values if value is not None), default=0)
    unit, size = next((u for u in units if largest >= u[1]), units[-1])
    digits = 2 if largest >= 10 * size or unit == "G" else 4
    cells = (
        Cell(NOTHING) if v is None else Cell(f"{v / size:.{digits}f}", value=v / size)
        for v in values
    )
    return Column(f"{title} ({unit})", tuple(cells))


def _styled(cell: Cell) -> Text:
    text = Text(cell.text)
    remark = "≈" if cell.remark.startswith("not distinguishable") else cell.remark
    if remark:
        text.append(f"\n{remark}", style=_TONES[cell.tone])
    return text
