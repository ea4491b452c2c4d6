"""The page of removal curves: does a criterion know which channels matter?"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ._lenient import entries, mapping, text
from ._removal_left_out import left_out, unranked
from ._removal_records import RemovalRecords
from ._removal_sections import curve_charts, curve_tables, summary
from ._removal_summary import Row, curves, summarise_removal, unfinished
from .facts import _pairs
from .page import Document, Facts, Lines, Section
from .removal import FRACTIONS

SCALES = ("bn-scale", "nam")  # the criteria that are made of scale factors
_WORDS = {
    "better": "yes: {keeps} more than at random",
    "worse": "no, it misleads: {keeps} less than at random",
    "no difference": "no more than chance does: the difference to random is {points} points",
    "nothing left": "nothing can be told: the model guesses in either order",
    "unknown": "nobody can say, with one random order: {keeps} {more} than at random",
}


def removal_document(records: RemovalRecords, notes: Sequence[str] = ()) -> Document:
    """Return the page of a record; ``notes`` say what of it could not be read."""
    rows = summarise_removal(records)
    found = [curves(records, row.criterion) for row in rows]
    return Document(
        title=f"Which channels matter in {_model(records)} on {_data(records)}",
        kind="removal of channels, by criterion",
        verdict=_verdict(rows),
        about=_about(records),
        missing=(*notes, *(f"{name}: {why}" for name, why in unfinished(records).items())),
        sections=(
            summary(records, rows),
            curve_charts(records, found),
            left_out(records),
            curve_tables(found),
            _undone(records),
            _protocol(records),
        ),
        command=_command(records),
        again="MODEL stands for the folder of the model that was tested"
        + (f"; the SHA-256 of its weights is {digest}." if (digest := _weights(records)) else "."),
    )


def _model(records: RemovalRecords) -> str:
    attention = ", ".join(map(text, entries(records.about, "attention"))) or "no attention"
    return f"{text(records.about, 'host') or 'an unknown model'} with {attention}"


def _data(records: RemovalRecords) -> str:
    return text(records.about, "data") or "unknown data"


def _weights(records: RemovalRecords) -> str:
    return text(records.run, "weights")


def _verdict(rows: Sequence[Row]) -> tuple[str, ...]:
    """Answer for the scale factors, then say which criterion separates best."""
    if not rows:
        return ("No criterion is finished.",)
    answers = [_answer(row) for row in rows if row.criterion in SCALES]
    first = "Does the scale factor know which channels matter? " + " ".join(answers)
    if not answers:
        first = "No criterion that is made of scale factors was tested to the end."
    ranked = [row for row in rows if row.verdict != "control"]
    best = max(ranked, key=lambda row: row.area, default=None)
    if best is None:
        return (first,)
    area = f"least-salient first keeps {best.area:.1f} points more than most-salient first"
    if best.area <= (best.area_chance or 0):
        return (first, "Over all fractions no criterion separates channels better than chance.")
    where = "" if len({row.groups for row in ranked}) == 1 else ", each on the groups that it ranks"
    return (first, f"Over all fractions {best.criterion} separates them best{where}: {area}.")


def _answer(row: Row) -> str:
    points = f"{abs(row.gain):.1f}"
    keeps = f"removing least-salient first keeps {points} points"
    more = "more" if row.gain >= 0 else "less"
    said = _WORDS[row.verdict].format(keeps=keeps, points=points, more=more)
    return f"By {row.criterion}, {said}, with {row.fraction * 100:g} % of channels gone."


def _about(records: RemovalRecords) -> str:
    settings = mapping(records.run, "settings")
    parts = [
        f"{len(records.groups)} groups, {sum(records.groups.values())} channels",
        f"{text(records.run, 'data', 'val') or '?'} validation images",
        f"{text(settings, 'draws') or '?'} random orders",
        "nothing fine-tuned",
    ]
    return " · ".join(parts)


def _undone(records: RemovalRecords) -> Section:
    lines = (
        "Fine-tuning: what a criterion removes without loss may still be worth less, or more, "
        "after training goes on.",
        "Other models: one trained model on one data set; another seed may rank otherwise.",
        "Unequal shares: every group loses the same fraction, so that how criteria compare between "
        "layers is not shown.",
        *unranked(records)[1],
    )
    return Section("not-done", "What was not done", "", (Lines("What was not done", lines),))


def _protocol(records: RemovalRecords) -> Section:
    about, settings = records.about, mapping(records.run, "settings")
    whole = next((point.accuracy for point in records.points if not point.order), None)
    model = {
        "model": _model(records),
        "data": _data(records),
        "the whole model's accuracy": None if whole is None else f"{whole:.2f} %",
        "groups of coupled channels": len(records.groups),
        "channels": sum(records.groups.values()),
        "weights": _weights(records),
    }
    made: dict[str, Any] = {
        key: about[key] for key in ("versions", "commit", "machine") if key in about
    }
    groups: dict[str, Mapping[str, Any]] = {
        "Model and data": {**model, **mapping(records.run, "data")},
        "Settings": {**settings, "device": text(records.run, "device")},
        "Software and hardware": made,
    }
    items = tuple(Facts(title, tuple(_pairs(values))) for title, values in groups.items() if values)
    return Section("protocol", "Protocol", "", items)


def _command(records: RemovalRecords) -> str:
    settings = mapping(records.run, "settings")
    usual = tuple(entries(settings, "fractions"))
    options = {
        "--data": _data(records),
        "--criteria": ",".join(records.criteria) or "all",
        "--fractions": None if usual in ((), FRACTIONS) else ",".join(f"{f:g}" for f in usual),
        "--limit": settings.get("images"),
        "--scope": settings.get("scope"),
        "--draws": settings.get("draws"),
        "--calibration": settings.get("calibration"),
        "--seed": settings.get("seed"),
    }
    words = ["normattn", "salience", "MODEL"]
    for option, value in options.items():
        words += [] if value is None else [option, text(value)]
    return shlex.join([*words, "--out", "runs/again"])
