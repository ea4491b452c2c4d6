"""What a plan says of each layer, and whether a model is the one that it says it of."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import UnsupportedModel
from ._groups import Group
from ._slim_cut import cuts, width_of
from ._slim_fold import fingerprint
from ._slim_plan import GroupPlan, LayerPlan, SlimPlan


def group_plans(
    model: nn.Module, groups: Sequence[Group], removed: Mapping[str, tuple[int, ...]]
) -> tuple[GroupPlan, ...]:
    """Return what goes of each group's layers, and of bottlenecks inside attention."""
    gone = [(group, removed.get(group.name, ())) for group in groups]
    wanted = cuts(gone, model)
    hidden = {name: units for (name, role), units in wanted.items() if role == "hidden"}
    return tuple(_group_plan(model, *each, hidden) for each in gone)


def _group_plan(
    model: nn.Module,
    group: Group,
    removed: tuple[int, ...],
    hidden: dict[str, frozenset[int]],
) -> GroupPlan:
    """Return the plan of a group, with the bottlenecks of its gates: those of ``hidden``."""
    layers = [
        LayerPlan(
            member.layer,
            member.role,
            width_of(model, member.layer, member.role),
            tuple(index for channel in removed for index in member.channels[channel]),
        )
        for member in group.members
    ]
    gates = [m.layer for m in group.members if removed and m.role == "gate" and m.layer in hidden]
    for name in gates:
        units = tuple(sorted(hidden.pop(name)))
        layers.append(LayerPlan(name, "hidden", width_of(model, name, "hidden"), units))
    return GroupPlan(group.name, group.width, group.width - len(removed), removed, tuple(layers))


def check_planned(model: nn.Module, plan: SlimPlan) -> None:
    """Refuse a model that a plan was not made for.

    Raises:
        UnsupportedModel: names the layer that is another.
    """
    for group in plan.groups:
        for layer in group.layers:
            try:
                now: Any = width_of(model, layer.layer, layer.role)
            except (AttributeError, KeyError, AssertionError, TypeError):
                now = "none such"
            if now != layer.width:
                raise UnsupportedModel(
                    f"slim: expected the model that the plan was made for, with {layer.width} "
                    f"channels ({layer.role}) at {layer.layer!r}, got {now}. Plan again for this "
                    "model."
                )
    if plan.weights is not None and fingerprint(model) != plan.weights:
        raise UnsupportedModel(
            "slim: expected the weights that the plan was made for, since it moves constants that "
            "channels of zero scale hold, got others. Plan again for this model."
        )
