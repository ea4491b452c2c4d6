"""Where a comparison stands, told from its events and from what its folder held before."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Event = Mapping[str, Any]
Status = Literal["waiting", "running", "done", "failed"]


@dataclass
class Trial:
    """One trial; what is None is not known (yet)."""

    mechanism: str
    seed: int
    status: Status = "waiting"
    error: float | None = None  # top-1 error in percent: the result's, or the last epoch's so far
    step: Event = field(default_factory=dict)  # the last step's event
    evaluating: bool = False
    began: float | None = None  # when its process started, by the board's clock
    stepped: float | None = None  # when its first step was told
    share_before: float = 0.0  # of its steps, done when that process started
    share: float = 0.0  # of its steps, done now
    epochs_here: int = 0
    seconds: float | None = None  # what all its epochs took, once it is done


@dataclass(frozen=True)
class Standing:
    """A mechanism's trials so far; errors in percent, None before there are any."""

    mechanism: str
    done: int
    trials: int
    mean: float | None  # over the trials that are done
    best: float | None  # of these
    now: float | None  # after the last epoch of one that runs
    running: bool


class Board:
    """Counts, speeds and errors of a comparison under way.

    Args:
        trials: Every trial, in the order of the protocol, as the folder has it. Those that are not
            given are known only by their number until their first event.
        clock: Seconds, from anywhere.
    """

    def __init__(
        self, trials: Iterable[Trial] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trials = {(trial.mechanism, trial.seed): trial for trial in trials}
        self.total = len(self.trials)
        self.clock = clock
        self.started = clock()
        self._side_by_side = 1  # the most trials seen running at once

    def hear(self, event: Event) -> None:
        """Take an event of a trial; others change nothing."""
        if "mechanism" not in event or "seed" not in event:
            return
        self.total = max(self.total, event.get("trials", 0))
        key = (event["mechanism"], event["seed"])
        trial = self.trials.setdefault(key, Trial(*key))
        match event["event"]:
            case "trial" | "retry":
                trial.status, trial.step, trial.evaluating = "running", {}, False
                trial.began, trial.stepped, trial.epochs_here = self.clock(), None, 0
            case "step":
                self._step(trial, event)
            case "evaluate":
                trial.evaluating = True
            case "epoch":
                trial.evaluating = False
                trial.epochs_here += 1
                trial.error = event["top1_error"]
            case "done":
                self._done(trial, event)
            case "skipped":
                trial.status = "done"
            case "failed":
                trial.status = "failed"
        running = sum(each.status == "running" for each in self.trials.values())
        self._side_by_side = max(self._side_by_side, running)

    def _step(self, trial: Trial, event: Event) -> None:
        steps = event["epochs"] * event["batches"]
        done = (event["epoch"] - 1) * event["batches"] + event["batch"]
        if trial.stepped is None:
            trial.stepped, trial.share_before = self.clock(), done / steps
        trial.status, trial.evaluating = "running", False
        trial.step, trial.share = event, done / steps

    def _done(self, trial: Trial, event: Event) -> None:
        trial.error = event["metrics"]["top1_error"]
        if trial.status == "running" and trial.epochs_here:
            trial.share = 1.0
            trial.seconds = self._seconds(trial)
        trial.status = "done"

    @property
    def counts(self) -> Counter[str]:
        """How many trials are ``done``, ``running``, ``failed`` and ``waiting``."""
        found = Counter(trial.status for trial in self.trials.values())
        found["waiting"] += self.total - len(self.trials)
        return Counter({str(status): number for status, number in found.items()})

    @property
    def running(self) -> tuple[Trial, ...]:
        """The trials that run."""
        return tuple(trial for trial in self.trials.values() if trial.status == "running")

    @property
    def ended(self) -> bool:
        """Whether every trial is done or has failed."""
        return not self.counts["running"] + self.counts["waiting"]

    @property
    def share(self) -> float:
        """How much of all work is done or given up, from 0 to 1, each trial counting alike."""
        ended = self.counts["done"] + self.counts["failed"]
        return (ended + sum(t.share for t in self.running)) / max(self.total, 1)

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Return how the mechanisms stand, in the order of the protocol."""
        by_name: dict[str, list[Trial]] = {}
        for trial in self.trials.values():
            by_name.setdefault(trial.mechanism, []).append(trial)
        return tuple(_standing(name, trials) for name, trials in by_name.items())

    def left(self) -> float | None:
        """Return the seconds that are left, None before a speed has been measured.

        A speed counts from a trial's first whole epoch on; what starting a process takes counts
        apart, once a trial. A mechanism that has not been measured is taken for the mean of the
        others.
        """
        measured: dict[str, list[float]] = {}
        for trial in self.trials.values():
            seconds = self._seconds(trial)
            if seconds is not None:
                measured.setdefault(trial.mechanism, []).append(seconds)
        if not measured:
            return None
        means = {name: sum(found) / len(found) for name, found in measured.items()}
        usual = sum(means.values()) / len(means)
        start = self._start()
        total = (self.total - len(self.trials)) * (start + usual)
        for trial in self.trials.values():
            whole = means.get(trial.mechanism, usual)
            if trial.status == "waiting":
                total += start + whole
            elif trial.status == "running":
                total += (1 - trial.share) * whole + (start if trial.stepped is None else 0)
        return total / self._side_by_side

    def _seconds(self, trial: Trial) -> float | None:
        """Return what all epochs of a trial take, as far as it has been measured."""
        if trial.seconds is not None or not trial.epochs_here or trial.stepped is None:
            return trial.seconds
        passed = trial.share - trial.share_before
        return (self.clock() - trial.stepped) / passed if passed > 0 else None

    def _start(self) -> float:
        """Return how long a trial takes to its first step."""
        found = [
            trial.stepped - trial.began
            for trial in self.trials.values()
            if trial.stepped is not None and trial.began is not None
        ]
        return sum(found) / len(found) if found else 0.0


def _standing(mechanism: str, trials: list[Trial]) -> Standing:
    done = [trial for trial in trials if trial.status == "done"]
    running = [trial for trial in trials if trial.status == "running"]
    errors = [trial.error for trial in done if trial.error is not None]
    now = [trial.error for trial in running if trial.error is not None]
    return Standing(
        mechanism=mechanism,
        done=len(done),
        trials=len(trials),
        mean=sum(errors) / len(errors) if errors else None,
        best=min(errors, default=None),
        now=now[-1] if now else None,
        running=bool(running),
    )
