"""What a slimming planned: what goes of each group of channels, and what was refused, and why."""

from collections.abc import Mapping
from typing import Any

from ._lenient import entries, find, mapping, number, text
from ._slimmed_records import RoundRecord, Slimmed
from .page import Cell, Column, Item, Section, Table

_ROUNDS = 6  # that have a column of their own; of more, the last ones
_NAMED = 3


def plan_section(found: Slimmed) -> Section:
    """Return the section on the plan, from ``plan.json`` and those of the rounds."""
    planned = [each for each in found.rounds if each.plan]
    items: list[Item] = []
    groups = _groups(found, planned)
    if groups is not None:
        items.append(groups)
    refused = _refused(found, planned)
    if refused:
        rows = tuple({"layer": Cell(layer), "why": Cell(why)} for layer, why in refused.items())
        columns = (Column("layer", "Layer", numeric=False), Column("why", "Why", numeric=False))
        caption = "Channels of these layers stay, and so do those that hang together with them."
        items.append(Table("refused", "What was refused, and why", columns, rows, caption))
    job = mapping(found.record, "job")
    skip = ", ".join(map(text, entries(job, "skip")))
    by = text(job, "criterion")
    intro = (
        f"Channels of several layers that can go only together are a group. {by} ranked them, "
        f"across the {text(job, 'across')}; widths that are left are multiples of "
        f"{text(job, 'round_to')} where they can be."
        + (f" Left as they are by wish: {skip}." if skip else "")
        + ("" if refused or not items else " Nothing was refused.")
    )
    nothing = "There is no plan in the folder: plan.json and the rounds' own are not here."
    return Section("plan", "The plan", intro, tuple(items), nothing)


def _groups(found: Slimmed, planned: list[RoundRecord]) -> Table | None:
    """Return what goes per group: channels before, after each round, and the layers."""
    widths: dict[str, dict[str, float]] = {}
    layers: dict[str, list[str]] = {}
    plans = [(f"round-{each.number}", each.plan) for each in planned]
    for key, plan in (("at-once", found.plan), *plans):
        for group in entries(plan, "groups"):
            name, before, after = (
                text(group, "name"),
                number(group, "before"),
                number(group, "after"),
            )
            if before is None or after is None:
                continue
            widths.setdefault(name, {"before": before})[key] = after
            layers[name] = [text(layer, "layer") for layer in entries(group, "layers")]
    if not widths:
        return None
    shown = planned[-_ROUNDS:]
    columns = (
        Column("group", "Group", numeric=False),
        Column("before", "Channels before"),
        *([Column("at-once", "First plan")] if len(planned) != 1 else []),
        *(Column(f"round-{each.number}", f"Round {each.number}") for each in shown),
        Column("left", "Left (%)"),
        Column("layers", "Layers with it"),
    )
    rows = tuple(_group(name, known, layers[name]) for name, known in widths.items())
    caption = (
        "First plan: what a plan to the whole target would keep before any fine-tuning. Left: "
        "after the last round that planned."
    )
    if len(planned) > len(shown):
        caption += f" Of {len(planned)} rounds the last {len(shown)} are shown."
    return Table("plan", "What goes, by group", columns, rows, caption)


def _group(name: str, known: Mapping[str, float], layers: list[str]) -> dict[str, Cell]:
    rounds = [key for key in known if key.startswith("round-")]
    last = known[rounds[-1]] if rounds else known.get("at-once")
    left = None if last is None or not known["before"] else 100 * last / known["before"]
    more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
    cells = {key: Cell(value, f"{value:g}") for key, value in known.items()}
    return {
        "group": Cell(name),
        **cells,
        "left": Cell(left, "" if left is None else f"{left:.1f}"),
        "layers": Cell(len(layers), note=", ".join(layers[:_NAMED]) + more),
    }


def _refused(found: Slimmed, planned: list[RoundRecord]) -> dict[str, str]:
    refused: dict[str, str] = {}
    plans: list[Mapping[str, Any] | None] = [found.plan, *(each.plan for each in planned)]
    for plan in plans:
        for entry in entries(plan, "refused"):
            if len(pair := entries(entry)) == 2:
                refused[text(pair[0])] = text(pair[1])
    return refused


def foreign_plans(found: Slimmed, known: int) -> tuple[str, ...]:
    """Name the plans of another format than ``known``, which are shown as far as they are read."""
    plans = [("plan.json", found.plan)]
    plans += [(f"round-{each.number}/plan.json", each.plan) for each in found.rounds]
    return tuple(
        f"{name} is of format {text(plan, 'format') or 'unknown'}, and {known} is known here: what "
        "it shares with that is shown."
        for name, plan in plans
        if plan and find(plan, "format") != known
    )
