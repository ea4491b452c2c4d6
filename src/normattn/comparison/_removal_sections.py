"""Removal curves on a page: a row a criterion, a chart a criterion, every point as a number."""

from collections.abc import Mapping, Sequence

from ..model.salience import CRITERIA
from ._lenient import number
from ._removal_picture import area_rows, draw_areas, draw_curves
from ._removal_records import RemovalRecords
from ._removal_summary import Curves, Row, signed
from .page import Cell, Chart, Column, Item, Lines, Section, Table

CAPTION = (
    "Top-1 accuracy (%) without fine-tuning, and differences in percentage points. The area is the "
    "mean height of the least-first curve over the most-first one. ± is what chance alone stays "
    "within in 95 of 100 cases: one more random order on other images; two random orders."
)


def summary(records: RemovalRecords, rows: Sequence[Row]) -> Section:
    """Return the table of criteria, a row each, and the areas between their curves."""
    items: list[Item] = []
    if rows:
        at = f"{rows[0].fraction * 100:g} %"
        columns = (
            Column("criterion", "Criterion", numeric=False),
            Column("groups", "Groups"),
            Column("least", f"{at}: least first"),
            Column("random", "random"),
            Column("most", "most first"),
            Column("gain", "least − random"),
            Column("area", "Area"),
        )
        cells = tuple(_cells(row, len(records.groups)) for row in rows)
        said = "; ".join(f"{row['criterion']}: {row['area']:.1f}" for row in area_rows(rows))
        items = [
            Table("criteria", "By criterion", columns, cells, CAPTION),
            Chart(
                "areas",
                "Area between the curves",
                draw_areas(rows),
                f"Area between the least-first and the most-first curve, in points: {said}.",
                "Grey: what two random orders differ by in 95 of 100 cases.",
            ),
            Lines("In sentences", tuple(row.sentence for row in rows)),
        ]
    return Section("criteria", "By criterion", "", tuple(items), "No criterion is finished.")


def _cells(row: Row, total: int) -> dict[str, Cell]:
    tone = row.verdict if row.verdict in ("better", "worse") else ""
    return {
        "criterion": Cell(row.criterion),
        "groups": Cell(row.groups, f"{row.groups} of {total}"),
        "least": Cell(row.least, f"{row.least:.1f}"),
        "random": Cell(row.random, f"{row.random:.1f}"),
        "most": Cell(row.most, f"{row.most:.1f}"),
        "gain": Cell(row.gain, within(row.gain, row.chance), row.verdict, tone),
        "area": Cell(row.area, within(row.area, row.area_chance)),
    }


def within(value: float, chance: float | None) -> str:
    """Return a difference with what chance alone stays within."""
    return signed(value) + (f" ± {chance:.1f}" if chance is not None else "")


def curve_charts(records: RemovalRecords, found: Sequence[Curves]) -> Section:
    """Return the curves as charts, one a criterion."""
    guess = 100 / (number(records.about, "classes") or 1)
    items = tuple(
        Chart(
            f"curves-{place}",
            f"{each.criterion} ({each.groups} groups)",
            draw_curves(each, guess),
            _said(each),
            _explained(each.criterion),
        )
        for place, each in enumerate(found, start=1)
    )
    intro = (
        "Channels become zeros, the same share of every group, and nothing is fine-tuned. If the "
        "scores mean something, the first curve lies above the random one, and that above the "
        "third. The band is the range of the random orders, the dotted line is guessing."
    )
    return Section(
        "curves", "Accuracy against channels removed", intro, items, "No curve is whole."
    )


def _said(found: Curves) -> str:
    ends = [f"{name} {curve[-1][1]:.1f} %" for name, curve in (
        ("least salient first", found.least),
        ("random", found.random),
        ("most salient first", found.most),
    )]  # fmt: skip
    return (
        f"Accuracy against channels removed, by {found.criterion}: from {found.least[0][1]:.1f} % "
        f"of the whole model, with {100 * found.least[-1][0]:.0f} % removed to {', '.join(ends)}."
    )


def _explained(criterion: str) -> str:
    known = CRITERIA.get(criterion)
    return known.about if known else ""


def curve_tables(found: Sequence[Curves]) -> Section:
    """Return the curves as tables, one a criterion."""
    columns = (
        Column("removed", "Removed (%)", numeric=False),
        Column("least", "Least salient first"),
        Column("random", "Random (range)"),
        Column("most", "Most salient first"),
    )
    items = tuple(
        Table(
            f"points-{place}",
            f"{each.criterion}: {_explained(each.criterion)}".removesuffix(": "),
            columns,
            tuple(_points(each)),
        )
        for place, each in enumerate(found, start=1)
    )
    return Section("numbers", "The curves in numbers", "", items, "No curve is whole.")


def _points(found: Curves) -> list[Mapping[str, Cell]]:
    rows: list[Mapping[str, Cell]] = []
    for i, (share, random) in enumerate(found.random):
        least, most = found.least[i][1], found.most[i][1]
        spread = f"{random:.1f} ({found.lowest[i]:.1f} to {found.highest[i]:.1f})"
        rows.append({
            "removed": Cell(100 * share, f"{share * 100:.1f}"),
            "least": Cell(least, f"{least:.1f}"),
            "random": Cell(random, spread),
            "most": Cell(most, f"{most:.1f}"),
        })  # fmt: skip
    return rows
