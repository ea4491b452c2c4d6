"""What a run folder holds, read back: also from a run that is partial or damaged.

::

    RUN/protocol.json                           everything that the comparison holds equal
    RUN/profile.json                            counts and one interleaved latency run
    RUN/trials/<mechanism>/seed-<n>/trial.json  one trial: status, metrics, versions, counts
                                    history.jsonl    a line an epoch
                                    attempts.jsonl   a line a process that ended without finishing
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import _files
from ..errors import RunError
from .protocol import Protocol, read_protocol, trial_folder

Status = Literal["done", "failed", "partial", "missing"]


@dataclass(frozen=True)
class TrialRecord:
    """One mechanism with one seed, as far as its folder tells.

    ``partial`` is a trial that was begun and can be resumed; ``missing`` one that was not begun.
    """

    mechanism: str  # canonical label
    seed: int
    status: Status
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # {} unless done
    history: tuple[Mapping[str, Any], ...] = ()  # a mapping an epoch
    job: Mapping[str, Any] | None = None
    reason: str = ""  # why it failed; "" unless failed
    attempts: int = 0  # processes that ended without finishing it
    details: Mapping[str, Any] = field(default_factory=dict)  # trial.json as it stands

    @property
    def name(self) -> str:
        """How the trial is called in notes: ``ean(groups=8), seed 1``."""
        return f"{self.mechanism}, seed {self.seed}"


@dataclass(frozen=True)
class RunRecords:
    """A whole run: one record for every mechanism and seed of the protocol, in its order.

    ``profile`` is the content of ``profile.json`` (None until it is written)::

        {"input_size": [3, 32, 32], "device": "cpu", "threads": 2, "kernels": "plain",
         # kernels: what ran, "plain" for none; which for which batch or mechanism where they differ
         "mechanisms": {label: {"parameters", "macs", "paper_macs", "elementwise"}},
         "latency": {"1": {label: {"median", "p20", "p80"}}, "32": {...}},     seconds, by batch
         "notes": ["what could not be measured, and why"]}
    """

    folder: Path
    protocol: Protocol
    trials: tuple[TrialRecord, ...]
    profile: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()  # what was unreadable or not measured

    def of(self, mechanism: str) -> tuple[TrialRecord, ...]:
        """Return the trials of one mechanism, by seed."""
        return tuple(trial for trial in self.trials if trial.mechanism == mechanism)


def read_run(folder: Path | str) -> RunRecords:
    """Read a run folder, also while it runs and after a crash; ``notes`` say what was not there.

    Raises:
        RunError: there is no protocol in ``folder``, or it cannot be read.
    """
    folder = Path(folder)
    protocol = read_protocol(folder)
    notes: list[str] = []
    trials = tuple(
        read_trial(folder, mechanism, seed, notes)
        for mechanism in protocol.mechanisms
        for seed in protocol.seeds
    )
    profile = _read_mapping(folder / "profile.json", "the profile", notes)
    if profile is not None and not _is_profile(profile):
        notes.append("The profile: profile.json holds other things than costs and is left out.")
        profile = None
    if not (folder / "profile.json").exists() and any(trial.status == "done" for trial in trials):
        notes.append("No profile.json yet: costs are not shown.")
    notes.extend((profile or {}).get("notes", ()))
    return RunRecords(folder, protocol, trials, profile, tuple(notes))


def read_trial(folder: Path, mechanism: str, seed: int, notes: list[str]) -> TrialRecord:
    """Read one trial of the run in ``folder``; what is damaged goes to ``notes``."""
    place = trial_folder(folder, mechanism, seed)
    name = f"{mechanism}, seed {seed}"
    details = _read_mapping(place / "trial.json", name, notes) or {}
    if not _is_trial(details):
        notes.append(f"{name}: trial.json holds values of another kind and is left out.")
        details = {}
    status: Status = "partial" if place.is_dir() else "missing"
    metrics: Mapping[str, float | None] = {}
    if details.get("status") == "failed":
        status = "failed"
    elif details.get("status") == "done":
        if _are_metrics(details.get("metrics")):
            status, metrics = "done", details["metrics"]
        else:
            notes.append(f"{name}: trial.json says done but holds no metrics; not counted.")
    return TrialRecord(
        mechanism=mechanism,
        seed=seed,
        status=status,
        metrics=metrics,
        history=_read_lines(place / "history.jsonl", name, notes),
        job=details.get("job"),
        reason=str(details.get("reason") or "no reason recorded") if status == "failed" else "",
        attempts=len(_read_lines(place / "attempts.jsonl", name, notes)),
        details=details,
    )


def _are_metrics(content: object) -> bool:
    return isinstance(content, dict) and all(
        value is None or isinstance(value, int | float) for value in content.values()
    )


def _is_trial(details: Mapping[str, Any]) -> bool:
    """Whether what the table and the page read in a trial.json is of its kind, where it is."""
    mappings = ("job", "data", "versions", "machine", "kernels")
    kinds: dict[str, type] = {**dict.fromkeys(mappings, dict), "notes": list}
    if not all(isinstance(details.get(key) or kind(), kind) for key, kind in kinds.items()):
        return False
    data = details.get("data") or {}
    return all(
        isinstance(data.get(key) or [], list) for key in ("classes", "skipped", "notes")
    ) and isinstance(details.get("parameters", 0), int)


def _is_profile(content: Mapping[str, Any]) -> bool:
    """Whether the costs are numbers by mechanism, and the latencies by batch size before that."""
    latency = content.get("latency", {})
    return (
        isinstance(content.get("notes", []), list)
        and _are_costs(content.get("mechanisms", {}))
        and isinstance(latency, dict)
        and all(
            batch.isdecimal()
            and _are_costs(found)
            and all(value.get("median") is not None for value in found.values())
            for batch, found in latency.items()
        )
    )


def _are_costs(content: object) -> bool:
    return isinstance(content, dict) and all(map(_are_metrics, content.values()))


def _read_mapping(path: Path, what: str, notes: list[str]) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none, and None with a note if it is damaged."""
    if not path.exists():
        return None
    try:
        content = _files.read_json(path)
    except (RunError, OSError) as error:
        notes.append(f"{what}: {path.name} cannot be read and is left out ({error}).")
        return None
    if not isinstance(content, dict):
        notes.append(f"{what}: {path.name} holds no JSON object and is left out.")
        return None
    return content


def _read_lines(path: Path, what: str, notes: list[str]) -> tuple[dict[str, Any], ...]:
    """Read JSON lines; a line that a kill has torn is dropped, with a note."""
    if not path.exists():
        return ()
    kept = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if isinstance(entry, dict):
            kept.append(entry)
        else:
            notes.append(f"{what}: line {number} of {path.name} is damaged and was dropped.")
    return tuple(kept)
