"""What `plan_slim` is told, checked and applied to the groups that were found."""

import fnmatch
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import ConfigError, unknown
from ._groups import Group, Groups
from ._runtimes import check_runtime
from ._slim_plan import SlimPlan
from .salience import Salience

ACROSS = ("group", "model")


def check_options(across: str, round_to: int, least: float, runtime: str) -> None:
    """Refuse options of `plan_slim` that are out of their range, or a runtime that is not there."""
    if across not in ACROSS:
        raise ConfigError(unknown("plan_slim", "way to rank (across=)", str(across), ACROSS))
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise ConfigError(
            f"plan_slim: expected round_to to be an integer >= 1, got {round_to!r}. Use 1 for any "
            "width."
        )
    number = isinstance(least, int | float) and not isinstance(least, bool)
    if not number or not 0 <= least <= 1:
        raise ConfigError(f"plan_slim: expected least to be a ratio from 0 to 1, got {least!r}.")
    check_runtime("plan_slim", runtime)


def widths_at_first(groups: Groups, first: SlimPlan | None) -> Mapping[str, int]:
    """Return how many channels groups had before the first of several plans.

    Raises:
        ConfigError: it is no plan, or it is one of a model that was narrower.
    """
    if first is None:
        return {}
    if not isinstance(first, SlimPlan):
        raise ConfigError(
            f"plan_slim: expected first to be a plan, got {type(first).__name__}. Give what "
            "plan_slim returned for the model before it was slimmed."
        )
    before = {group.name: group.before for group in first.groups}
    for group in groups.groups:
        if before.get(group.name, group.width) < group.width:
            raise ConfigError(
                "plan_slim: expected first to be a plan of this model before it was slimmed, got "
                f"one with {before[group.name]} channels of {group.name!r}, which has "
                f"{group.width}. Give the first plan, or leave it out."
            )
    return before


def like(model: nn.Module, example: Tensor) -> Tensor:
    """Return the example, on the model's device and of its type."""
    floats = (p for p in model.parameters() if p.is_floating_point())
    first = next(floats, torch.empty(0))
    return example.to(first.device, first.dtype)


def without(groups: Groups, skip: Iterable[str]) -> Groups:
    """Move groups in which a layer matches a pattern to what is refused."""
    patterns = [skip] if isinstance(skip, str) else list(skip)
    outputs = {
        group.name: [m.layer for m in group.members if m.role in ("out", "depthwise")]
        for group in groups.groups
    }
    names = [*dict.fromkeys(name for layers in outputs.values() for name in layers)]
    for pattern in patterns:
        if not fnmatch.filter([*names, *(name for name, _ in groups.refused)], pattern):
            raise ConfigError(unknown("plan_slim", "layer to skip", pattern, names))
    skipped = {
        name: f"it was asked for by skip ({pattern!r})"
        for name, layers in outputs.items()
        for pattern in patterns
        if fnmatch.filter(layers, pattern)
    }
    kept = tuple(group for group in groups.groups if group.name not in skipped)
    return Groups(kept, (*groups.refused, *skipped.items()))


def require_some(model: nn.Module, groups: Groups) -> None:
    """Refuse a model of which nothing can be removed."""
    if not groups.groups:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in groups.refused[:3])
        raise ConfigError(
            f"plan_slim: expected a model with channels that can be removed, got none in "
            f"{type(model).__name__} ({reasons or 'it has no layers'}). There is nothing to rank."
        )


def scored_by(groups: Groups, ranked: Salience) -> list[Group]:
    """Return the groups that are ranked."""
    scored = [group for group in groups.groups if group.name in ranked.scores]
    for group in scored:
        if len(ranked.scores[group.name]) != group.width:
            raise ConfigError(
                f"plan_slim: expected the salience of this model, with {group.width} channels of "
                f"{group.name!r}, got {len(ranked.scores[group.name])}. Compute it again."
            )
    if not scored:
        raise ConfigError(
            "plan_slim: expected the salience of this model, got that of groups which it does not "
            "have. Compute it again."
        )
    return scored
