"""One round of a slimming: plan, remove, fine-tune; each step is on disk before the next begins.

::

    round-2/plan.json           what goes, written once: it may rest on a measured latency
            start/              the slimmed model before fine-tuning
            removed.json        its figures: the mark that ``start`` is whole
            state.pt, history.jsonl     the training under way, as in every job
            model.safetensors + model.json      the model after fine-tuning
            round.json          the figures: the mark that the round is done
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _files
from ..data import ImageData, keyed
from ..model._slim_plan import SlimPlan
from ..model.artifact import ArtifactInfo, load, save
from ..model.fuse import fuse
from ..model.profile import profile
from ..model.slim import plan_slim, slim
from . import checkpoint
from ._slimming_job import SlimJob
from ._slimming_start import example
from .evaluate import evaluate
from .exporting import Normalised
from .loop import fit

_IMAGES = 512  # of the training split, for criteria that look at images

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Setting:
    """What all rounds share; ``tell`` takes their events."""

    job: SlimJob
    folder: Path
    info: ArtifactInfo
    data: ImageData
    device: torch.device
    tell: Tell

    def load(self, path: Path | str) -> nn.Module:
        """Load a model; from the disk in every case, so that a resumed run has the same bits."""
        return load(path).to(self.device)

    def metrics(self, model: nn.Module, tell: Tell | None = None) -> dict[str, Any]:
        """Return what the model makes of the validation images, in float32."""
        found = evaluate(model, self.data, device=str(self.device), progress=tell or self.tell)
        values = found.to_json()
        del values["images_per_second"]  # not the same again: what is left goes into the artifact
        return values

    def cost(self, model: nn.Module) -> dict[str, int]:
        """Return what the model costs: ``parameters``, ``macs`` and ``paper_macs``."""
        found = profile(model, (self.data.channels, *self.data.size))
        return {name: getattr(found, name) for name in ("parameters", "macs", "paper_macs")}

    def save(self, model: nn.Module, path: Path, metrics: dict[str, Any], **more: Any) -> None:
        """Save a model with what the original's artifact says about its inputs and outputs."""
        preprocessing = self.info.preprocessing or {
            "input_size": [self.data.channels, *self.data.size],
            "mean": list(self.data.mean),
            "std": list(self.data.std),
        }
        classes = self.info.classes or self.data.classes
        save(model, path, classes=classes, preprocessing=preprocessing, metrics=metrics, **more)

    def plan(
        self,
        model: nn.Module,
        target: Mapping[str, float],
        number: int,
        first: SlimPlan | None = None,
    ) -> SlimPlan:
        """Plan to the target on the model as it is; widths count from those before ``first``."""
        job = self.job
        return plan_slim(
            model,
            example(self.data, job.batch, self.device),
            target,
            job.criterion,
            data=Normalised(self.data, "train", _IMAGES),
            across=job.across,
            round_to=job.round_to,
            skip=job.skip,
            seed=keyed.key(job.seed, "plan", number),
            runtime=job.runtime,
            first=first,
        )


class Round:
    """A round, from 1 on, that begins with the model saved in ``before``."""

    def __init__(self, setting: Setting, number: int, before: Path | str) -> None:
        self.setting, self.number, self.before = setting, number, before
        self.folder = _files.make_folder(setting.folder / f"round-{number}")

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass an event on, marked with the round."""
        place = {"round": self.number, "rounds": self.setting.job.steps}
        self.setting.tell({**event, **place})

    def run(self, plan: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do what is not done yet and return the content of ``round.json``.

        Args:
            plan: Makes the content of ``plan.json``: the plan, and for what it was asked.
        """
        done = self.folder / "round.json"
        if not done.exists():
            planned = self._once("plan.json", plan)
            costs = {side: (planned["plan"] or {}).get(side) for side in ("before", "after")}
            self.tell({"event": "plan", **_summary(planned), **costs})
            record = {"round": self.number, "skipped": planned["plan"] is None, **_summary(planned)}
            if not record["skipped"]:
                removed = self._once("removed.json", lambda: self._remove(planned))
                record |= {"before": removed, "after": self._tune()}
            _files.write_json(done, record)
        for name in (checkpoint.STATE, checkpoint.PREVIOUS):  # nothing goes on from them any more
            (self.folder / name).unlink(missing_ok=True)
        found: dict[str, Any] = _files.read_json(done)
        return found

    def _once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / name
        if not path.exists():
            _files.write_json(path, make())
        content: dict[str, Any] = _files.read_json(path)
        return content

    def _remove(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """Remove the plan's channels, save the model, and say what that alone cost."""
        setting = self.setting
        model = slim(setting.load(self.before), SlimPlan.from_json(planned["plan"]))
        metrics = setting.metrics(model, self.tell)
        setting.save(model, self.folder / "start", metrics)
        return {"metrics": metrics, "cost": setting.cost(model)}

    def _tune(self) -> dict[str, Any]:
        """Fine-tune, or go on with it, and save the model."""
        setting, job = self.setting, self.setting.job
        started = time.perf_counter()
        model, teacher = setting.load(self.folder / "start"), None
        more: dict[str, Any] = {}
        if job.recipe.distill:
            teacher = setting.load(job.artifact)
            more["teacher"] = fuse(teacher) if job.fuse else teacher
        history = fit(
            fuse(model) if job.fuse else model,
            setting.data,
            job.recipe,
            seed=keyed.key(job.seed, "round", self.number),
            folder=self.folder,
            device=str(setting.device),
            progress=self.tell,
            **more,
        )
        metrics = setting.metrics(model, self.tell)
        setting.save(model, self.folder, metrics)
        seconds = sum(e.seconds + e.seconds_evaluation for e in history.epochs)
        more = {"epochs": len(history.epochs), "seconds": seconds or time.perf_counter() - started}
        return {"metrics": metrics, "cost": setting.cost(model), **more}


def _summary(planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record tells of a plan; the whole of it stands in ``plan.json``."""
    return {name: planned[name] for name in ("target", "asked", "left", "reached", "note")}
