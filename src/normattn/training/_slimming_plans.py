"""The plans of a slimming: each is made once, for it may rest on a latency measured just then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _files
from ..errors import ConfigError
from ..model._runtimes import TORCH, in_runtime
from ..model._slim_plan import SlimPlan
from ..model.profile import latency
from ._slimming_record import PLAN
from ._slimming_round import Setting
from ._slimming_targets import interim, missing


class Plans:
    """What is planned for each round, on the way to the whole target.

    Every round goes on along the way of the plan to the whole target, on which widths count from
    the original's: in the last one it ends where that plan does.

    Args:
        setting: Of the slimming.
        model: The original.

    Raises:
        ConfigError: the whole target cannot be met; the best possible is said.
    """

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        self.setting, self.job = setting, setting.job
        path = setting.folder / PLAN
        if not path.exists():
            plan = setting.plan(model, self.job.target, 0)
            if not plan.reached:
                raise ConfigError(
                    f"slim: expected a target that can be met, got {self.job.kind} "
                    f"{self.job.value:g}. {plan.note}"
                )
            _files.write_json(path, plan.to_json())
        self.whole = SlimPlan.from_json(_files.read_json(path))

    def maker(self, number: int, kept: int, path: Path) -> Callable[[], dict[str, Any]]:
        """Return what makes the content of a round's ``plan.json``.

        Args:
            number: Of the round, from 1.
            kept: The last round that removed something, 0 for none.
            path: The model that it left.
        """

        def plan() -> dict[str, Any]:
            model = self.setting.load(path)
            wanted = interim(self.job, number, self._start())
            left = self._left(model, kept)
            asked = missing(wanted, left)
            about: dict[str, Any] = {"target": wanted, "asked": asked, "left": left}
            if asked is None:
                return {**about, "plan": None, "reached": True, "note": "It is there already."}
            made = self.setting.plan(model, asked, number, self.whole)
            about |= {"reached": made.reached, "note": made.note}
            removes = any(group.removed for group in made.groups)
            return {**about, "plan": made.to_json() if removes else None}

        return plan

    def _start(self) -> float:
        """Where the way to the target begins: at the whole of it, or at a latency."""
        if self.job.kind != "latency_ms":
            return 1.0
        start = self.whole.before.latency_ms
        assert start is not None
        return start

    def _left(self, model: nn.Module, kept: int) -> float:
        """Return the share of the original that the model has of what the target is about."""
        setting, kind = self.setting, self.job.kind
        if not kept or kind == "latency_ms":
            return 1.0
        if kind == "speedup":
            return self._time_left(model)
        plan = _files.read_json(setting.folder / f"round-{kept}" / PLAN)["plan"]
        if kind == "channels":
            before = sum(group.before for group in self.whole.groups)
            return float(sum(group["after"] for group in plan["groups"]) / before)
        count = {"flops": "multiply_adds", "params": "parameters"}[kind]
        return float(plan["after"][count] / getattr(self.whole.before, count))

    def _time_left(self, model: nn.Module) -> float:
        """Return the model's latency by the original's, measured as plan_slim does."""
        setting, job = self.setting, self.job
        both = {"original": setting.load(job.artifact), "now": model}
        size = (setting.data.channels, *setting.data.size)
        device, threads = setting.device, torch.get_num_threads()
        if job.runtime != TORCH:
            device = torch.device("cpu")
            both = {k: in_runtime(m, size, job.runtime, threads=threads) for k, m in both.items()}
        found = latency(both, size, batch=job.batch, threads=threads, device=device)
        return found["now"].ratio
