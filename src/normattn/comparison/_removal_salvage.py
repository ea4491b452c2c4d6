"""A record of removal curves for a page: what can be used, and what is wrong with the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError
from ._lenient import entries, find, mapping, number, read_mapping, text
from ._removal_records import FORMAT, LEAST, MOST, RANDOM, RECORD, Point, RemovalRecords


def salvage(folder: Path | str) -> tuple[RemovalRecords, tuple[str, ...]]:
    """Return what a folder's record holds that can be shown, and what is left out, in sentences.

    Where `read_removal` refuses whatever it does not know to the letter, as a run goes on from it,
    a page shows what is there.

    Raises:
        RunError: there is no record.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise RunError(
            f"{folder}: expected a folder with {RECORD}, got none in it. "
            "Give a folder that `normattn salience` made."
        )
    notes: list[str] = []
    found = read_mapping(path, notes)
    content = found or {}
    if found is not None and content.get("format") != FORMAT:
        notes.append(
            f"{RECORD} is of format {text(content, 'format') or 'unknown'}, and {FORMAT} is known "
            "here: what it shares with that is shown."
        )
    records = RemovalRecords(
        run={"settings": _settings(content), "data": dict(mapping(content, "run", "data"))},
        about=dict(mapping(content, "about")),
        groups=_groups(content),
        refused=_pairs(content, "refused"),
        inexact=[text(line) for line in entries(content, "inexact")],
        scopes=[[text(name) for name in entries(scope)] for scope in entries(content, "scopes")],
        left_out={text(k): text(why) for k, why in mapping(content, "left_out").items()},
        points=_points(content, notes),
    )
    records.criteria = _criteria(content, len(records.scopes), notes)
    if (lacking := _lacking(records)) and found is not None:
        notes.append(f"The record does not say {' or '.join(lacking)}: no curve can be drawn.")
    if lacking:
        records.criteria = {}
    return records, tuple(notes)


def _lacking(records: RemovalRecords) -> list[str]:
    """Return what every row and curve rests on, and the record has not."""
    settings = records.run["settings"]
    wanted = {
        "what the whole model's accuracy is": any(not point.order for point in records.points),
        "which fractions were removed": settings["fractions"],
        "how many random orders there were": settings["draws"] > 0,
        "how many images were evaluated": (number(records.run, "data", "val") or 0) > 0,
        "how many classes there are": (number(records.about, "classes") or 0) > 0,
    }
    return [what for what, known in wanted.items() if not known]


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(mapping(content, "run", "settings"))
    fractions = [f for f in entries(settings, "fractions") if number(f) is not None]
    return {**settings, "fractions": fractions, "draws": int(number(settings, "draws") or 0)}


def _groups(content: Mapping[str, Any]) -> dict[str, int]:
    widths = mapping(content, "groups").items()
    return {text(name): int(number(width) or 0) for name, width in widths}


def _pairs(content: object, key: str) -> list[list[str]]:
    found = [entries(entry) for entry in entries(content, key)]
    return [[text(pair[0]), text(pair[1])] for pair in found if len(pair) == 2]


def _criteria(
    content: Mapping[str, Any], scopes: int, notes: list[str]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, facts in mapping(content, "criteria").items():
        scope = number(facts, "scope")
        if scope is None or not 0 <= scope < scopes:
            notes.append(f"{text(name)}: the record does not say which groups it was tested on.")
        else:
            found[text(name)] = {"scope": int(scope), "silent": _pairs(facts, "silent")}
    return found


def _points(content: Mapping[str, Any], notes: list[str]) -> list[Point]:
    given = entries(content, "points")
    points = [point for point in map(_point, given) if point is not None]
    if bad := len(given) - len(points):
        holds = "1 point holds" if bad == 1 else f"{bad} points hold"
        notes.append(f"{holds} no accuracy, or nothing that is known here, and were left out.")
    return points


def _point(entry: object) -> Point | None:
    order, accuracy = find(entry, "order"), number(entry, "accuracy")
    fraction, removed = number(entry, "fraction"), number(entry, "removed")
    if order not in ("", LEAST, MOST, RANDOM) or accuracy is None:
        return None
    if fraction is None or removed is None:
        return None
    scope, draw = number(entry, "scope"), number(entry, "draw")
    return Point(
        order=order,
        criterion=text(entry, "criterion") or None,
        scope=None if scope is None else int(scope),
        draw=None if draw is None else int(draw),
        fraction=fraction,
        removed=removed,
        accuracy=accuracy,
        loss=number(entry, "loss"),
    )
