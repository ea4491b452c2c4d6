"""From a trained model to a smaller one: rounds of plan, remove, fine-tune, however often cut.

::

    FOLDER/slim.json                        the record: job, versions, rounds, what came out
           plan.json                        the plan to the whole target, before any training
           round-1/ ...                     a folder a round, see `_slimming_round`
           model.safetensors + model.json   the result
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import _files
from ..model._runtimes import TORCH, check_runtime, version_of
from ..model.artifact import ArtifactInfo, read_info
from ._slimming_job import TARGETS as TARGETS
from ._slimming_job import SlimJob as SlimJob
from ._slimming_job import fine_tuning as fine_tuning
from ._slimming_plans import Plans
from ._slimming_record import RECORD, claimed, now, open_record, verdict
from ._slimming_record import recorded_threads as recorded_threads
from ._slimming_round import Round, Setting
from ._slimming_start import open_for, require_alone, size_on_disk, widths
from .distributed import choose_device
from .loop import Progress
from .provenance import commit, machine, versions
from .signals import Interrupted

_ROUNDING = 1e-6  # points: errors are quotients of counts, in floating point


def run_slim(
    job: SlimJob,
    folder: Path | str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Slim the job's model, go on with it, or return what it gave: the content of ``slim.json``.

    Each round plans on what the last one left, removes the channels, and fine-tunes with the
    original as a teacher where the recipe says ``distill``. It ends at the target, or before the
    allowed drop in top-1 accuracy, which is judged on the validation images: the result is then the
    model of the last round that kept within it. A run that was killed ends with the bits of one
    that was not; what was planned on a measured latency is read again, never measured again. A
    folder that was made for a job which is refused is removed again.

    Args:
        job: What to slim, to which target, and how.
        folder: Where everything goes; an unfinished slimming in it goes on.
        device: ``auto``, ``cpu``, ``cuda``.
        progress: Takes the events of `fit`, ``plan`` and ``round``, marked with ``round`` and
            ``rounds``.

    Raises:
        InputError: the artifact, the data or the target do not allow it, or the runtime is not
            installed; nothing was trained. RunError if the folder is another job's, in use, or
            cannot be written.
        Fault: the training failed; ``slim.json`` says why.
        Interrupted: a signal came while training; the state is saved.
    """
    require_alone()
    folder, place = Path(folder), choose_device(device)
    info = read_info(job.artifact)
    with claimed(folder):
        record = open_record(job, info, folder)
        tell = progress or (lambda event: None)
        if record.get("status") == "done":
            tell({"event": "note", "text": f"{folder} is done; nothing was trained."})
            return record
        check_runtime("slim", job.runtime)
        return _Slimming(job, folder, info, place, tell, record).run()


class _Slimming:
    """A slimming under way, and its slim.json."""

    def __init__(
        self,
        job: SlimJob,
        folder: Path,
        info: ArtifactInfo,
        device: torch.device,
        tell: Progress,
        record: dict[str, Any],
    ) -> None:
        self.job, self.folder, self.info = job, folder, info
        self.device, self.progress = device, tell
        self.record: dict[str, Any] = {
            **{name: record[name] for name in ("original", "rounds") if name in record},
            "status": "running",
            "job": job.to_json(),
            "sha256": info.sha256,
            "started": record.get("started", now()),
            "resumed": record["resumed"] + 1 if record else 0,
            "notes": record.get("notes", []),
        }

    def run(self) -> dict[str, Any]:
        self._write()
        try:
            self._slim()
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            self._write(status="failed", reason=reason, finished=now())
            raise
        return self.record

    def _slim(self) -> None:
        job = self.job
        data = open_for(job, self.info)
        self.setting = Setting(job, self.folder, self.info, data, self.device, self._hear)
        runtime = {} if job.runtime == TORCH else {job.runtime: version_of(job.runtime)}
        self._write(
            data=data.describe(),
            versions=versions() | {"torch-pruning": version("torch-pruning")} | runtime,
            commit=commit(),
            machine=machine(self.device),
        )
        model = self.setting.load(job.artifact)
        self.plans = Plans(self.setting, model)
        if "original" not in self.record:
            found = {"metrics": self.setting.metrics(model), "cost": self.setting.cost(model)}
            self._write(original={**found, "bytes": size_on_disk(job.artifact)})
        self._finish(*self._rounds())

    def _rounds(self) -> tuple[str, int, Path | str]:
        """Go through the rounds; return how it ended, the last round kept, and its model."""
        job, kept, path = self.job, 0, Path(self.job.artifact)
        original = self.record["original"]["metrics"]["top1_error"]
        rounds: list[dict[str, Any]] = []
        reached = False
        for number in range(1, job.steps + 1):
            found = Round(self.setting, number, path).run(self.plans.maker(number, kept, path))
            if not found["skipped"]:
                found["drop"] = found["after"]["metrics"]["top1_error"] - original
            rounds.append(found)
            self._write(rounds=rounds)
            place = {"round": number, "rounds": job.steps}
            self._hear({**found, "event": "round", **place})
            if job.max_drop is not None and found.get("drop", 0) > job.max_drop + _ROUNDING:
                return "drop", kept, path
            reached = found["reached"]
            if not found["skipped"]:
                kept, path = number, self.folder / f"round-{number}"
        return ("target" if reached else "end"), kept, path

    def _finish(self, outcome: str, kept: int, path: Path | str) -> None:
        """Save the result and say what came out."""
        setting, before = self.setting, self.record["original"]
        model, original = setting.load(path), setting.load(self.job.artifact)
        if kept:
            after = self.record["rounds"][kept - 1]["after"]
            metrics, cost = after["metrics"], after["cost"]
        else:
            metrics, cost = before["metrics"], before["cost"]
        found = widths(original, model)
        slimming = {
            "target": dict(self.job.target),
            "criterion": self.job.criterion,
            "across": self.job.across,
            "runtime": self.job.runtime,
            "rounds": kept,
            "before": before["cost"],
            "after": cost,
            "widths": found,
        }
        setting.save(model, self.folder, metrics, **({"slimming": slimming} if kept else {}))
        drop = metrics["top1_error"] - before["metrics"]["top1_error"]
        result = {"metrics": metrics, "cost": cost, "bytes": size_on_disk(self.folder)}
        self._write(result=result, drop=drop, kept=kept, outcome=outcome, widths=found)
        self._write(status="done", summary=verdict(self.record), finished=now())
        self._hear({"event": "done", "metrics": metrics})

    def _hear(self, event: Mapping[str, Any]) -> None:
        """Keep notes in the record, and pass every event on."""
        if event["event"] == "note" and event["text"] not in self.record["notes"]:
            self.record["notes"].append(event["text"])
            self._write()
        self.progress(event)

    def _write(self, **values: Any) -> None:
        self.record |= values
        _files.write_json(self.folder / RECORD, self.record)
