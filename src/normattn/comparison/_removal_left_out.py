"""Which groups and layers the removal curves leave out, and why."""

from ._removal_records import RemovalRecords
from .page import Cell, Column, Item, Lines, Section, Table

_SHOWN = 5


def unranked(records: RemovalRecords) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say which groups each criterion is not tested on, and what zeros cannot show."""
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
    return tuple(lines), tuple(records.inexact)


def left_out(records: RemovalRecords) -> Section:
    """Return the section on groups that are not ranked and layers whose channels stay."""
    lines, _ = unranked(records)
    items: list[Item] = [Lines("In short", lines)] if lines else []
    silent = [
        {"criterion": Cell(name), "group": Cell(group), "why": Cell(reason)}
        for name, facts in records.criteria.items()
        for group, reason in facts["silent"]
    ]
    if silent:
        columns = (
            Column("criterion", "Criterion", numeric=False),
            Column("group", "Group", numeric=False),
            Column("why", "Why", numeric=False),
        )
        caption = "What ranks such a group in a slimming stands behind the semicolon."
        items.append(Table("silent", "Groups without a score", columns, tuple(silent), caption))
    if records.refused:
        rows = tuple({"layer": Cell(layer), "why": Cell(why)} for layer, why in records.refused)
        layers = (Column("layer", "Layer", numeric=False), Column("why", "Why", numeric=False))
        items.append(Table("refused", "Layers whose channels stay", layers, rows))
    intro = "A criterion is tested only on the groups that it ranks itself."
    nothing = "Every criterion was tested on every group, and no layer's channels had to stay."
    return Section("left-out", "What was left out, and why", intro, tuple(items), nothing)
