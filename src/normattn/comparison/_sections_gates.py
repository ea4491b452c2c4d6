"""The section of the gates: what `normattn inspect` has measured and left beside the records."""

from pathlib import Path

from ..errors import ConfigError
from . import charts
from ._lenient import read_mapping
from ._page_charts import printable
from .page import Cell, Chart, Column, Lines, Section, Table
from .protocol import trial_folder
from .records import RunRecords

NAME = "gates.json"  # what `Gates.to_json` gave, in a trial's folder or in the run's
_SHOWN = 12  # charts; the table has them all
_COLUMNS = (
    Column("trial", "Trial", False), Column("gate", "Gate", False), Column("mean", "Mean"),
    Column("spread", "Spread"), Column("low", "1 %"), Column("high", "99 %"),
    Column("bfloat16", "Values left in bfloat16"), Column("int8", "Values left in int8"),
)  # fmt: skip


def gates(records: RunRecords) -> Section:
    """Return what each gate multiplies by, where it was measured."""
    from ..model.gates import Gates

    found: dict[str, Gates] = {}
    notes: list[str] = []
    for name, folder in _places(records):
        damaged: list[str] = []
        content = read_mapping(folder / NAME, damaged)
        notes += [f"{name}: {line}" for line in damaged]
        try:
            found |= {name: Gates.from_json(content)} if content else {}
        except ConfigError as error:
            notes.append(f"{name}: {NAME} is left out ({error})")
    drawn = [
        Chart(f"gates-{place}", name, charts.ranges(_ranges(of)), " ".join(of.summary))
        for place, (name, of) in enumerate(list(found.items())[:_SHOWN])
    ]
    rows = tuple(
        {"trial": Cell(name), "gate": Cell(site.name), "mean": Cell(site.mean),
         "spread": Cell(site.spread), "low": Cell(site.low), "high": Cell(site.high),
         **{kind: Cell(site.distinct.get(kind)) for kind in ("bfloat16", "int8")}}
        for name, of in found.items()
        for site in of.sites
    )  # fmt: skip
    table = (Table("gates-by-site", "Gates by site", _COLUMNS, rows),) if rows else ()
    left_out = (Lines("What could not be read", tuple(notes)),) if notes else ()
    return Section(
        "gates",
        "What the gates multiply by",
        "Over real images: a line holds 98 of 100 values of a gate, the bar is its mean. A gate "
        "that is nearly one number wherever the image changes does little more than a constant.",
        (*drawn, *table, *left_out),
        f"No gates have been measured: there is no {NAME} in this run or its trials. "
        "The command normattn inspect shows what the gates of a trained model do over real images.",
    )


def _places(records: RunRecords) -> list[tuple[str, Path]]:
    trials = [
        (trial.name, trial_folder(records.folder, trial.mechanism, trial.seed))
        for trial in records.trials
        # A label that no file system can hold has no folder.
        if trial.status != "missing" and printable(trial.mechanism) == trial.mechanism
    ]
    return [("this run", records.folder), *trials]


def _ranges(found: object) -> list[dict[str, float | str]]:
    return [
        {"gate": s.name, "mean": s.mean, "low": s.low, "high": s.high}
        for s in getattr(found, "sites", ())
    ]
