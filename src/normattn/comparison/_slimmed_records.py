"""What the folder of a slimming holds, read back: also while it runs, and after a crash."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ._lenient import entries, find, mapping, number, read_lines, read_mapping, text

RECORD, PROFILE = "slim.json", "profile.json"
_ROUND = re.compile(r"round-([0-9]{1,4})")


@dataclass(frozen=True)
class RoundRecord:
    """A round, as far as it went.

    Args:
        number: from 1 on.
        record: the content of ``round.json`` or what there is of it (``before`` alone, after the
            removal); {} where only the plan is made.
        plan: what went, None where nothing did or nobody kept it.
        history: a mapping an epoch.
        finished: whether it was fine-tuned to the end, or had nothing to do.
    """

    number: int
    record: Mapping[str, Any]
    plan: Mapping[str, Any] | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    finished: bool = True

    def accuracy(self, side: str) -> float | None:
        """Return the top-1 accuracy, in percent, ``before`` or ``after`` fine-tuning."""
        error = number(self.record, side, "metrics", "top1_error")
        return None if error is None else 100 - error


@dataclass(frozen=True)
class Slimmed:
    """A slimming, finished or not: all that its page and its pictures know.

    Args:
        folder: where it is.
        record: the content of ``slim.json``.
        profile: of ``profile.json``; {} where there is none.
        plan: of ``plan.json``, to the whole target at once.
        rounds: those that were begun, in order.
        export: of ``export.json``.
        missing: what could not be read or is not there, in sentences.
    """

    folder: Path
    record: Mapping[str, Any]
    profile: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    rounds: tuple[RoundRecord, ...]
    export: Mapping[str, Any] | None
    missing: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether it ended as it should."""
        return bool(find(self.record, "status") == "done")

    @property
    def accuracy(self) -> float | None:
        """The original's top-1 accuracy, in percent."""
        error = number(self.record, "original", "metrics", "top1_error")
        return None if error is None else 100 - error

    @property
    def target(self) -> str:
        """What was asked for: ``flops 0.5``."""
        wishes = mapping(self.record, "job", "target").items()
        return ", ".join(f"{text(kind)} {_short(value)}" for kind, value in wishes)

    @property
    def widths(self) -> dict[str, tuple[float, float]]:
        """Outputs of every layer before and after, from the input to the output."""
        found = {}
        for name, pair in mapping(self.record, "widths").items():
            values = [
                number({"value": value}, "value") for value in entries({"pair": pair}, "pair")
            ]
            if len(values) == 2 and values[0] is not None and values[1] is not None:
                found[name] = (values[0], values[1])
        return found


def read_slimmed(folder: Path | str, profile: Mapping[str, Any] | None = None) -> Slimmed:
    """Read the folder of a slimming, whatever state it is in; ``missing`` says what is not there.

    Args:
        folder: that ``normattn slim --out`` made.
        profile: the content of ``profile.json``, if it is known.

    Raises:
        RunError: nothing of a slimming is in ``folder``.
    """
    folder = Path(folder)
    places = _round_folders(folder)
    if not (folder / RECORD).is_file() and not places:
        raise RunError(
            f"{folder}: expected a folder with {RECORD}, got none. "
            "Give the folder that `normattn slim --out` made."
        )
    notes: list[str] = []
    record = read_mapping(folder / RECORD, notes, f"{RECORD} is not here.") or {}
    if profile is None:
        said = "No profile.json: latencies are not shown." if record.get("status") == "done" else ""
        profile = read_mapping(folder / PROFILE, notes, said) or {}
    rounds = _rounds(record, places, notes)
    plan = read_mapping(folder / "plan.json", notes)
    export = read_mapping(folder / "export.json", notes)
    if not plan and not any(each.plan for each in rounds):
        notes.append("No plan.json: which channels went of which group is not shown.")
    without = [each for each in rounds if each.record.get("after") and not each.history]
    notes += [f"Round {each.number}: no history.jsonl, so no training curves." for each in without]
    return Slimmed(folder, record, profile, plan, rounds, export, (*notes, *_gaps(record)))


def read_outline(folder: Path) -> Slimmed:
    """Read a slimming's record and latencies alone, for a line among others."""
    notes: list[str] = []
    record = read_mapping(folder / RECORD, notes) or {}
    profile = read_mapping(folder / PROFILE, notes) or {}
    return Slimmed(folder, record, profile, None, (), None, tuple(notes))


def _round_folders(folder: Path) -> dict[int, Path]:
    found = ((_ROUND.fullmatch(path.name), path) for path in folder.glob("round-*"))
    return {int(match[1]): path for match, path in found if match and path.is_dir()}


def _rounds(
    record: Mapping[str, Any], places: Mapping[int, Path], notes: list[str]
) -> tuple[RoundRecord, ...]:
    told = {}
    for place, entry in enumerate(entries(record, "rounds"), start=1):
        if isinstance(entry, Mapping):
            told[int(number(entry, "round") or place)] = entry
        else:
            notes.append(f"Round {place}: {RECORD} holds no figures of it.")
    return tuple(
        _round(count, told.get(count), places.get(count), notes)
        for count in sorted({*told, *places})
    )


def _round(
    count: int, told: Mapping[str, Any] | None, place: Path | None, notes: list[str]
) -> RoundRecord:
    if place is None:
        return RoundRecord(count, told or {})
    planned = read_mapping(place / "plan.json", notes) or {}
    history = read_lines(place / "history.jsonl", f"Round {count}", notes)
    found = told or read_mapping(place / "round.json", notes)
    plan = mapping(planned, "plan") or None
    if found is not None:
        return RoundRecord(count, found, plan, history)
    removed = read_mapping(place / "removed.json", notes)
    so_far: dict[str, Any] = {
        key: planned[key] for key in ("target", "asked", "left", "note") if key in planned
    }
    so_far |= {"round": count, **({"before": removed} if removed else {})}
    return RoundRecord(count, so_far, plan, history, finished=False)


def _gaps(record: Mapping[str, Any]) -> list[str]:
    """Say which of the figures that a finished slimming has are none."""
    if record.get("status") != "done":
        return []
    wanted = {
        "the original's accuracy": ("original", "metrics", "top1_error"),
        "the result's accuracy": ("result", "metrics", "top1_error"),
        "the original's parameters": ("original", "cost", "parameters"),
        "the result's parameters": ("result", "cost", "parameters"),
    }
    lines = [
        f"{RECORD} holds no number for {what}: {text(record, *keys) or 'nothing there'}."
        for what, keys in wanted.items()
        if number(record, *keys) is None
    ]
    if not mapping(record, "widths"):
        lines.append(f"{RECORD} holds no widths of layers.")
    return lines


def _short(value: object) -> str:
    known = number(value)
    return text(value) if known is None else f"{known:.4g}"
