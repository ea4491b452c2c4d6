"""Several slimmings of one model as a section of a page, and as a page of their own."""

from ._slimmings_picture import slimmed_tradeoff
from .page import Cell, Chart, Column, Section, Table
from .slimmings import Outcome, Slimmings
from .table import _signed


def beside(found: Slimmings | None, least: int = 2) -> Section:
    """Return the section on slimmings of the same model, if there are at least so many."""
    intro = "" if found is None else (
        f"Slimmings of the same model on the same data. Timed by {found.timed}. One seed each: "
        "differences of less than about a point of accuracy say nothing."
    )  # fmt: skip
    items: tuple[Chart | Table, ...] = ()
    if found is not None and len(found.outcomes) >= least:
        chart = slimmed_tradeoff(found)
        items = (*([chart] if chart else []), outcomes_table(found))
    nothing = "No other finished slimming of the same model, on the same data, lies beside it."
    return Section("by-criterion", "Accuracy against latency", intro, items, nothing)


def outcomes_table(found: Slimmings) -> Table:
    """Return what every slimming came to, a row each."""
    columns = (
        Column("name", "Slimming", numeric=False),
        Column("criterion", "Criterion", numeric=False),
        Column("target", "Target", numeric=False),
        Column("accuracy", "Top-1 accuracy (%)"),
        Column("change", "Difference (points)"),
        Column("parameters", "Parameters, times fewer"),
        Column("macs", "Multiply-adds, times fewer"),
        Column("latency", "Latency (ms)"),
        Column("speedup", "Times as fast"),
    )
    rows = tuple(map(_row, found.outcomes))
    caption = f"The original: {found.original:.2f} %. {found.timed[0].upper()}{found.timed[1:]}."
    return Table("slimmings", "Slimmings", columns, rows, caption)


def _row(outcome: Outcome) -> dict[str, Cell]:
    drop = outcome.drop
    return {
        "name": Cell(outcome.name),
        "criterion": Cell(outcome.criterion),
        "target": Cell(outcome.target),
        "accuracy": _fixed(outcome.accuracy),
        "change": Cell(None if drop is None else -drop, "" if drop is None else _signed(-drop)),
        "parameters": _fixed(outcome.parameters),
        "macs": _fixed(outcome.multiply_adds),
        "latency": _fixed(outcome.latency),
        "speedup": _fixed(outcome.speedup),
    }


def _fixed(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{value:.2f}")
