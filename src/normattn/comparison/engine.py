"""Runs a comparison: a process a trial, retried once, resumable, and stopped gently."""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _files
from ..training import Job
from .child import Child, Progress
from .costs import check, measure
from .protocol import Protocol, trial_folder, write_protocol
from .records import RunRecords, TrialRecord, read_run, read_trial

ATTEMPTS = 2  # a process that dies is started once more
_TAIL = 20  # lines of the standard error that a failure keeps

Command = Callable[[Path, Job, str], Sequence[str]]


def trial_command(run: Path, job: Job, device: str) -> list[str]:
    """Return the command line of one trial's process."""
    module = "normattn.comparison.trial"
    trial = [str(run), job.mechanism, str(job.seed)]
    return [sys.executable, "-m", module, "--device", device, "--", *trial]


def compare(
    protocol: Protocol,
    folder: Path | str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    command: Command = trial_command,
) -> RunRecords:
    """Run every trial of ``protocol`` that ``folder`` does not hold yet, then measure the costs.

    What bad input can break is tried before the first trial. A trial that fails is recorded with
    its reason and the others go on; a later call tries it again.

    Args:
        protocol: What is held equal, and the mechanisms and seeds.
        folder: The run folder; made, or continued if it has the same protocol.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: Called with each event of each trial, marked with ``mechanism``, ``seed``,
            ``trial`` (from 1) and ``trials``. Beside the events of training there are ``trial``
            (it begins), ``skipped`` (it was done before), ``retry`` and ``failed`` (with their
            ``reason``).
        command: Gives the command line of a trial's process.

    Raises:
        InputError: bad input; nothing has been trained.
        RunError: the folder is in use, cannot be written, or has another protocol.
        Interrupted: SIGINT or SIGTERM came; the running trial has saved its state.
    """
    folder = Path(folder)
    tell = progress or (lambda event: None)
    with _files.folder_lock(folder), Child() as child:
        if (folder / "protocol.json").exists():
            write_protocol(protocol, folder)  # refuses another one before any work
        if not all(_read(folder, job).status == "done" for job in protocol.jobs()):
            check(protocol, device)
        write_protocol(protocol, folder)
        jobs = list(protocol.jobs())
        for number, job in enumerate(jobs, start=1):
            identity = {"mechanism": job.mechanism, "seed": job.seed}
            place = {"trial": number, "trials": len(jobs)}
            _run_trial(job, folder, device, _marked(tell, identity | place), command, child)
        if read_run(folder).profile is None:
            _files.write_json(folder / "profile.json", measure(protocol, device))
        return read_run(folder)


def _run_trial(
    job: Job, folder: Path, device: str, tell: Progress, command: Command, child: Child
) -> None:
    """Run one trial's process, once more if it dies, and record it if it has failed."""
    if _read(folder, job).status == "done":
        tell({"event": "skipped"})
        return
    tell({"event": "trial"})
    place = _files.make_folder(trial_folder(folder, job.mechanism, job.seed))
    for attempt in range(1, ATTEMPTS + 1):
        code = child.run(command(folder, job, device), place / "stderr.log", tell)
        if code == 0 and _read(folder, job).status == "done":
            return
        failure = _failure(code, place / "stderr.log")
        with (place / "attempts.jsonl").open("a") as file:
            file.write(json.dumps(failure) + "\n")
        if code == 2 or attempt == ATTEMPTS:  # 2: bad input, which would fail the same way again
            break
        tell({"event": "retry", "reason": failure["reason"]})
    known = {"resumed": 0, **_read(folder, job).details}  # what it had written of itself
    record = known | {"status": "failed", "job": job.to_json()} | failure
    _files.write_json(place / "trial.json", record)
    tell({"event": "failed", "reason": failure["reason"]})


def _failure(code: int, log: Path) -> dict[str, Any]:
    """Return what is to be known of a process that ended without a result."""
    stderr = log.read_text(errors="replace").splitlines()[-_TAIL:]
    last = next((line.strip() for line in reversed(stderr) if line.strip()), "")
    if code < 0:
        reason = f"The process was ended by {signal.Signals(-code).name}."
        if -code == signal.SIGKILL:
            reason += " Systems do that when memory runs out."
    elif code == 0:
        reason = "The process ended without a result."
    else:
        reason = last or f"The process ended with exit code {code} and no message."
    return {"reason": reason, "exit": code, "stderr": stderr}


def _read(folder: Path, job: Job) -> TrialRecord:
    return read_trial(folder, job.mechanism, job.seed, [])


def _marked(tell: Progress, identity: Mapping[str, Any]) -> Progress:
    return lambda event: tell({**event, **identity})
