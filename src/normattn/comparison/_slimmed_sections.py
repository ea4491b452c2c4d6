"""The sections of a slimming's page: costs, rounds, widths, the plan, and what was not done."""

from ._lenient import entries, find, mapping, number, text
from ._slimmed_lines import CAPTION, lines
from ._slimmed_picture import (
    ERROR,
    LOSS,
    draw_curves,
    draw_rounds,
    draw_widths,
    round_rows,
    said_of_widths,
)
from ._slimmed_plan import plan_section
from ._slimmed_records import RoundRecord, Slimmed
from .page import Cell, Chart, Column, Item, Lines, Section, Table
from .slimmings import CONTROL, Slimmings
from .table import NOTHING, _signed


def sections(found: Slimmed) -> tuple[Section, ...]:
    """Return what the page shows of a slimming itself, in order."""
    return (
        _costs(found),
        _rounds(found),
        _training(found),
        _widths(found),
        plan_section(found),
    )


def _costs(found: Slimmed) -> Section:
    rows = []
    for line in lines(found.record, found.profile):
        had, has, ratio = line.values
        rows.append({
            "what": Cell(line.name),
            "before": Cell(had, line.before, line.spread.get("before", "")),
            "after": Cell(has, line.after, line.spread.get("after", "")),
            "ratio": Cell(ratio, line.ratio, line.tone, line.tone),
        })  # fmt: skip
    columns = (
        Column("what", "Quantity", numeric=False),
        Column("before", "Before"),
        Column("after", "After"),
        Column("ratio", "Ratio"),
    )
    table = Table("costs", "Before and after", columns, tuple(rows), CAPTION)
    return Section("before-and-after", "Before and after", "", (table,))


def _rounds(found: Slimmed) -> Section:
    columns = (
        Column("round", "Round", numeric=False),
        Column("target", "Target", numeric=False),
        Column("parameters", "Parameters"),
        Column("macs", "Multiply-adds"),
        Column("removed", "Top-1 accuracy after removal (%)"),
        Column("tuned", "after fine-tuning (%)"),
        Column("change", "Difference (points)"),
        Column("seconds", "Fine-tuning (s)"),
        Column("state", "State", numeric=False),
    )
    rows = tuple(_round(found, each) for each in found.rounds)
    drop = number(found.record, "job", "max_drop")
    allowed = "no limit was set to it" if drop is None else f"{drop:g} points are allowed"
    intro = (
        "A round plans, removes channels and fine-tunes. The difference is to the original's "
        f"accuracy on the validation images; {allowed}."
    )
    items: list[Item] = []
    chart = draw_rounds(found)
    if chart is not None:
        title = "Accuracy over the rounds"
        items.append(Chart("accuracy-over-rounds", title, chart, _said(found), wide=True))
    if rows:
        items.append(Table("rounds", "Rounds", columns, rows))
    nothing = "No round has begun, or nothing of one can be read."
    return Section("rounds", "Rounds", intro, tuple(items), nothing)


def _round(found: Slimmed, each: RoundRecord) -> dict[str, Cell]:
    record, after = each.record, mapping(each.record, "after", "cost")
    drop, limit = number(record, "drop"), number(found.record, "job", "max_drop")
    over = drop is not None and limit is not None and drop > limit
    wishes = mapping(record, "target").items()
    # A target is known to more digits than anybody reads.
    target = ", ".join(f"{text(k)} {v:.3g}" for k, v in wishes if number(v) is not None)
    return {
        "round": Cell(each.number),
        "target": Cell(target or NOTHING),
        "parameters": _count(number(after, "parameters")),
        "macs": _count(number(after, "paper_macs")),
        "removed": _fixed(each.accuracy("before")),
        "tuned": _fixed(each.accuracy("after")),
        "change": Cell(
            None if drop is None else -drop,
            "" if drop is None else _signed(-drop),
            "more than is allowed" if over else "",
            "worse" if over else "",
        ),
        "seconds": _fixed(number(record, "after", "seconds"), 0),
        "state": _state(found, each),
    }


def _state(found: Slimmed, each: RoundRecord) -> Cell:
    """Return how far a round got, and below what it noted."""
    said = text(each.record, "note")
    if not each.finished:
        epochs = f"{len(each.history)} epochs of fine-tuning"
        return Cell("not finished", note=". ".join(filter(None, (epochs, said))))
    if find(each.record, "skipped"):
        return Cell("skipped", note=said or "nothing to remove")
    kept = number(found.record, "kept") if found.done else None
    if kept is None:
        return Cell("done", note=said)
    return Cell("kept" if each.number <= kept else "not kept", note=said)


def _count(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{value:,}")


def _fixed(value: float | None, digits: int = 2) -> Cell:
    return Cell(value, "" if value is None else f"{value:.{digits}f}")


def _said(found: Slimmed) -> str:
    said = [f"round {r['round']}, {r['what']}: {r['accuracy']:.2f} %" for r in round_rows(found)]
    return f"Top-1 accuracy over the rounds; round 0 is the original. {'; '.join(said)}."


def _training(found: Slimmed) -> Section:
    items: list[Item] = []
    for name, measure in (("error-curves", ERROR), ("loss-curves", LOSS)):
        chart = draw_curves(found, measure)
        if chart is not None:
            epochs = ", ".join(f"round {r.number}: {len(r.history)}" for r in found.rounds)
            said = (
                f"{measure} by epoch, in training and on the validation images. Epochs: {epochs}."
            )
            items.append(Chart(name, f"{measure.capitalize()} while fine-tuning", chart, said))
    intro = "Every round begins with the channels gone; the removal itself is no epoch."
    nothing = "No epoch of fine-tuning is on record here."
    return Section("training", "Training curves", intro, tuple(items), nothing)


def _widths(found: Slimmed) -> Section:
    widths = found.widths
    items: list[Item] = []
    if widths:
        said = said_of_widths(widths)
        items.append(
            Chart("widths", "Outputs of every layer", draw_widths(widths), said, wide=True)
        )
    intro = "From the input to the output. Layers that add to each other keep the same width."
    nothing = "The widths are known when the slimming is finished."
    return Section("widths", "Width of every layer", intro, tuple(items), nothing)


def not_done(found: Slimmed, others: Slimmings | None) -> Section:
    """Return what was not done, and what the run noted."""
    record = found.record
    seed, drop = number(record, "job", "seed"), number(record, "job", "max_drop")
    said = [f"Other seeds: one slimming with seed {seed or 0:g} does not show what chance does."]
    if drop is not None:
        said.append(
            "Images that nobody had looked at: rounds were judged on the validation images, and "
            "the accuracies here are on the same."
        )
    if found.export is None:
        said.append("Export: the model is saved for PyTorch; `normattn export` makes other files.")
    tried = {text(record, "job", "criterion"), *(others.criteria if others else ())}
    if CONTROL not in tried:
        said.append("The control: with --criterion random the same target shows what ranking adds.")
    steps, begun = number(record, "job", "steps") or 0, len(found.rounds)
    if begun < steps:
        said.append(f"Rounds {begun + 1} to {steps:g} of {steps:g} were not begun.")
    skipped = [str(each.number) for each in found.rounds if find(each.record, "skipped")]
    if skipped:
        said.append(f"Nothing was removed in round {', '.join(skipped)}.")
    said += [text(note) for note in entries(found.profile, "notes")]
    notes = dict.fromkeys(
        text(note)
        for note in (*entries(record, "data", "notes"), *entries(record, "notes"))
    )  # fmt: skip
    items: list[Item] = [Lines("What was not done", tuple(said))]
    items += [Lines("Notes of the run", tuple(notes))] if notes else []
    items += [Lines("Exported", (text(found.export, "text"),))] if found.export else []
    return Section("not-done", "What was not done", "", tuple(items))
