"""A recipe's optimizer and learning rates, made of torch's and timm's parts."""

import math
from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from torch import nn

from ..attention import Gate
from .recipes import Recipe

Schedule = CosineLRScheduler | MultiStepLRScheduler


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer; scales, shifts and biases decay only with ``recipe.decay_scales``."""
    scales = {id(scale) for m in model.modules() if isinstance(m, Gate) for scale in m.scales()}
    decaying: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        small = parameter.ndim <= 1 or id(parameter) in scales
        (exempt if small and not recipe.decay_scales else decaying).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": recipe.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Schedule:
    """Return the schedule for ``steps`` steps an epoch; ``step_update(n)`` sets step n's rate.

    timm's schedules are functions of the step alone, so a resumed training needs no state of
    theirs.
    """
    total, warmup = recipe.epochs * steps, math.ceil(recipe.warmup_epochs * steps)
    common: dict[str, Any] = {
        "warmup_t": warmup,
        # Not from 0: a step that changes nothing would be a batch thrown away.
        "warmup_lr_init": recipe.lr / max(warmup, 1),
        "warmup_prefix": False,
        "t_in_epochs": False,
    }
    if recipe.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=total, **common)
    milestones = recipe.milestones if recipe.schedule == "step" else ()
    # timm applies a milestone one step before it (its documented habit), torch at it; so do we.
    decay_t = [round(milestone * total) + 1 for milestone in milestones]
    return MultiStepLRScheduler(optimizer, decay_t=decay_t, decay_rate=recipe.gamma, **common)
