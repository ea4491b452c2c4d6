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
from .protocol import Protocol

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

        {"input_size": [3, 32, 32], "device": "cpu", "threads": 2,
         "mechanisms": {label: {"parameters", "macs", "paper_macs", "elementwise"}},
         "latency": {"1": {label: {"median", "p20", "p80"}}, "32": {...}},     seconds, by batch
         "notes": ["what could not be measured, and why"]}
    """

    folder: Path
    protocol: Protocol
    trials: tuple[TrialRecord, ...]
    profile: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()  # what was missing or unreadable

    def of(self, mechanism: str) -> tuple[TrialRecord, ...]:
        """Return the trials of one mechanism, by seed."""
        return tuple(trial for trial in self.trials if trial.mechanism == mechanism)
