"""Runs a job in a folder of its own, to its end, however often it is cut."""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from .. import _files
from ..errors import RunError
from ..model.artifact import save
from ..model.graft import grafts
from . import checkpoint
from .distributed import Ranks, joined
from .history import History
from .identity import differences
from .jobs import Job, build, open_job_data
from .loop import Progress, fit
from .provenance import commit, kernels, machine, versions
from .signals import Interrupted

_TRIAL = "trial.json"


def run_job(
    job: Job,
    folder: Path | str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the job, go on with it, or return what it gave: the content of its ``trial.json``.

    The reported figures are the last epoch's. The lowest error of any epoch, which the papers'
    scripts report, stands beside them as ``best_top1_error``.

    Raises:
        InputError: what the job asks for cannot be done; RunError if the folder is another job's,
            in use, or cannot be written.
        Fault: the training failed; ``trial.json`` says why.
        Interrupted: a signal came; the state is saved, and the same call goes on from it.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined(device))
        if ranks.first:
            stack.enter_context(_files.folder_lock(folder))
        ranks.wait()
        trial = _open_trial(job, folder)
        ranks.wait()
        if trial.get("status") == "done":
            if progress and ranks.first:
                progress({"event": "note", "text": f"{folder} is done; nothing was trained."})
            return trial
        return _Run(job, folder, ranks, device, progress, trial).run()


class _Run:
    """A job under way, and its trial.json."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        ranks: Ranks,
        device: str,
        progress: Progress | None,
        trial: dict[str, Any],
    ) -> None:
        self.job, self.folder, self.ranks, self.device = job, folder, ranks, device
        self.progress = progress
        self.trial = {
            "status": "running",
            "job": job.to_json(),
            "started": trial.get("started", _now()),
            "resumed": trial["resumed"] + 1 if trial else 0,
            "notes": trial.get("notes", []),
        }
        if "kernels" in trial:
            self.trial["kernels"] = trial["kernels"]
        self.model: nn.Module | None = None

    def run(self) -> dict[str, Any]:
        self._write()
        try:
            self._train()
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            self._write(status="failed", reason=reason, finished=_now())
            raise
        return self.trial

    def _train(self) -> None:
        job = self.job
        data = open_job_data(job)
        self.model = model = build(job, data).to(self.ranks.device)
        self._write(
            data=data.describe(),
            parameters=sum(p.numel() for p in model.parameters()),
            sites=[site.site for site in grafts(model)],
            versions=versions(),
            commit=commit(),
            machine=machine(self.ranks.device),
            processes=self.ranks.world,
        )
        history = fit(
            model,
            data,
            job.recipe,
            seed=job.seed,
            folder=self.folder,
            device=self.device,
            progress=self._hear,
        )
        self._note_kernels()
        metrics = summary(history)
        if self.ranks.first:
            preprocessing = {
                "input_size": [data.channels, *data.size],
                "mean": list(data.mean),
                "std": list(data.std),
            }
            save(
                model,
                self.folder,
                classes=data.classes,
                preprocessing=preprocessing,
                metrics=metrics,
            )
            (self.folder / checkpoint.PREVIOUS).unlink(missing_ok=True)
        self._write(status="done", metrics=metrics, finished=_now())
        self._hear({"event": "done", "metrics": metrics})

    def _hear(self, event: Mapping[str, Any]) -> None:
        """Keep notes in the record, and pass every event on."""
        if event["event"] == "note" and event["text"] not in self.trial["notes"]:
            self.trial["notes"].append(event["text"])
            self._write()
        if event["event"] == "epoch":
            self._note_kernels()
        if self.progress and self.ranks.first:
            self.progress(event)

    def _note_kernels(self) -> None:
        """Record what ran, which is known only afterwards; a resumed end may have run nothing."""
        if self.model is not None and (found := kernels(self.model)):
            self._write(kernels=found)

    def _write(self, **values: Any) -> None:
        self.trial |= values
        if self.ranks.first:
            _files.write_json(self.folder / _TRIAL, self.trial)


def summary(history: History) -> dict[str, float | int | None]:
    """Return the figures that are reported: the last epoch's, and the best one beside them."""
    last, best = history.last, history.best
    return {
        "top1_error": last.top1_error,
        "top5_error": last.top5_error,
        "loss": last.loss,
        "best_top1_error": best.top1_error,
        "best_epoch": best.epoch,
        "epoch": last.epoch,
        "images_per_second": last.images_per_second,
    }


def _open_trial(job: Job, folder: Path) -> dict[str, Any]:
    """Return the folder's trial.json, {} if there is nothing in it to go on with.

    A folder belongs to a job from its first saved state on. Before that there is nothing to lose,
    so that a job refused for a wrong name can be corrected and started again in the same folder.

    Raises:
        RunError: the folder holds another job, which has begun, or something else altogether.
    """
    path = folder / _TRIAL
    if not path.exists():
        return {}
    trial = _files.read_json(path)
    if not isinstance(trial, dict) or not isinstance(trial.get("job"), dict):
        raise RunError(
            f"{path}: expected the record of a job, got something else. Choose another folder."
        )
    # Kernels change how the same is computed: `fit` says so, where it resumes with others.
    saved, wanted = ({**j, "fuse": None} for j in (trial["job"], job.to_json()))
    lines = list(differences(saved, wanted))
    if not lines:
        return trial
    if trial.get("status") != "done" and not checkpoint.exists(folder):
        return {}
    raise RunError(
        f"{folder}: expected the job that the folder was made for, got another one "
        f"({'; '.join(lines)}). Choose another folder, or repeat the first settings."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
