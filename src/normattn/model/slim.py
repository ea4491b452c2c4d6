"""Make a trained model narrower: plan which channels go, then remove them."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ._runtimes import TORCH
from ._slim_checks import check_model
from ._slim_choice import Choice
from ._slim_cost import Costs
from ._slim_cut import all_or_nothing, apply
from ._slim_dead import find_dead
from ._slim_fold import fingerprint, fold
from ._slim_graph import connect
from ._slim_of_layers import check_planned, group_plans
from ._slim_options import (
    check_options,
    like,
    require_some,
    scored_by,
    widths_at_first,
    without,
)
from ._slim_plan import Cost as Cost
from ._slim_plan import Fold as Fold
from ._slim_plan import SlimPlan
from ._slim_search import Search, read_target
from ._slim_standins import standing_in
from ._slim_trial import tried
from .fuse import plain
from .salience import Salience, salience


def plan_slim(
    model: nn.Module,
    example_input: Tensor,
    target: Mapping[str, float],
    criterion: str | Salience = "bn-scale",
    *,
    data: Iterable[tuple[Tensor, Tensor]] | None = None,
    across: str = "group",
    round_to: int = 8,
    least: float = 1 / 8,
    skip: Iterable[str] = (),
    seed: int = 0,
    runtime: str = TORCH,
    first: SlimPlan | None = None,
) -> SlimPlan:
    """Plan which channels of a model go; the model is left as it is.

    The channels that go are the least salient of each group of coupled channels, each group giving
    the same fraction; or the least salient of the whole model, below one threshold. Which fraction
    is enough for the target is searched for: multiply-adds and parameters are counted, latency is
    measured on the example's batch, in turns with the model as it is. Measured time is noisy: a
    search for it comes out a little differently each time. Bottlenecks inside attention become as
    narrow as the mechanism would build them for the channels that stay. Layers whose channels have
    to stay are named in the plan, and the rest goes on.

    Args:
        model: the model, plain or fused, on any device.
        example_input: a batch of images ``(B, C, H, W)``, for latency as large as will be used.
        target: one of ``{"channels": f}``, the fraction that goes of every group; ``{"speedup":
            s}``, the latency before divided by that after; ``{"flops": r}`` or ``{"params": r}``,
            the part of the multiply-adds or parameters that may be left; ``{"latency_ms": t}``.
        criterion: a name of `normattn.salience`'s, or what that returned for this model.
        data: what the criterion looks at: (inputs, labels) batches.
        across: rank channels in each "group", or in the whole "model".
        round_to: what the widths that are left are multiples of: hardware is no faster in between.
            A group that could not get narrower then, as it is too narrow already or goes in sets of
            another size, is left out of this. ONNX Runtime's kernels work in blocks of 8 or 16
            channels.
        least: the share of its channels that each group keeps at least.
        skip: patterns of layers whose output channels stay.
        seed: of the criterion "random".
        runtime: where latency is measured: "torch", the model as it is; or "onnxruntime" or
            "openvino", the model folded and exported to a temporary file, on the CPU with as many
            threads. Writing one takes seconds, so a search looks at few.
        first: of several plans, each for what the last one left, the first: ``least``, ``round_to``
            and the fraction that each group gives count from the widths before it. A target is of
            the model as it is.

    Returns:
        The plan. One that cannot reach its target has ``reached`` False, removes as much as may go
        and says in ``note`` what that gives.

    Raises:
        ConfigError: an unknown target, criterion or pattern, a number out of its range, nothing to
            rank, or a runtime that is not installed (with the line that installs it).
        UnsupportedModel: the model is compiled, wrapped, scripted, quantised or on the meta device,
            or cannot take the example or be exported to the runtime.

    Example:
        >>> import torch
        >>> from normattn.model.hosts import host
        >>> plan = plan_slim(host("resnet20", 10), torch.zeros(1, 3, 32, 32), {"channels": 0.5})
        >>> plan.before.parameters, plan.after.parameters
        (269722, 68050)
    """
    kind, value = read_target(target)
    check_options(across, round_to, least, runtime)
    check_model("plan_slim", model, example_input)
    example = like(model, example_input)
    copied = standing_in(model, example)
    groups = without(tried(copied, connect(copied)), skip)
    require_some(model, groups)
    dead = find_dead(model, copied, groups, example)
    groups = dead.marked(groups)
    before = widths_at_first(groups, first)
    costs = Costs(model, example, groups.groups, copied.seconds, runtime)
    ranked = criterion
    if not isinstance(ranked, Salience):
        ranked = salience(model, ranked, data, example_input=example, groups=groups, seed=seed)
    scored = scored_by(groups, ranked)
    choice = Choice(scored, ranked.scores, across, round_to, least, before)
    found = Search(choice, costs).run(kind, value)
    folds = dead.folds_of(found.removed, groups)
    unranked = [group.name for group in groups.groups if group not in scored]
    return SlimPlan(
        target={kind: value},
        criterion=ranked.criterion,
        across=across,
        round_to=round_to,
        fraction=found.fraction,
        groups=group_plans(model, scored, found.removed),
        refused=(
            *groups.refused,
            *((name, f"{ranked.criterion} does not rank it") for name in unranked),
        ),
        before=found.before,
        after=found.after,
        reached=found.reached,
        note=found.note,
        folds=folds,
        weights=fingerprint(model) if folds else None,
        runtime=runtime,
    )


def plan_dead(model: nn.Module, example_input: Tensor) -> SlimPlan:
    """Plan to remove what does nothing: channels whose scale is exactly zero.

    What they hold, a constant, moves on into the layers behind, so the outputs stay as they are (up
    to rounding). Where that is not possible the channels stay, and the plan names their groups.

    Raises:
        ConfigError, UnsupportedModel: as for `plan_slim`.
    """
    check_model("plan_dead", model, example_input)
    example_input = like(model, example_input)
    copied = standing_in(model, example_input)
    groups = tried(copied, connect(copied))
    dead = find_dead(model, copied, groups, example_input)
    groups = dead.marked(groups)
    costs = Costs(model, example_input, groups.groups)
    return SlimPlan(
        target={"dead": 1.0},
        criterion="scale of exactly zero",
        across="group",
        round_to=1,
        fraction=0.0,
        groups=group_plans(model, groups.groups, dead.channels),
        refused=(*groups.refused, *dead.left),
        before=costs.count({}),
        after=costs.count(dead.channels),
        reached=True,
        note="",
        folds=dead.folds,
        weights=fingerprint(model) if dead.folds else None,
    )


def dead_channels(model: nn.Module, example_input: Tensor) -> Mapping[str, tuple[int, ...]]:
    """Return the channels, by group, that can go without a trace: their scale is exactly zero.

    Raises:
        ConfigError, UnsupportedModel: as for `plan_slim`.
    """
    plan = plan_dead(model, example_input)
    return {group.name: group.removed for group in plan.groups if group.removed}


def slim(model: nn.Module, plan: SlimPlan) -> nn.Module:
    """Remove what a plan says, in place, and return the model.

    Either all of it goes or the model stays as it is. What channels of zero scale held is moved on
    into the layers behind. An optimizer that knew the parameters has to be made again.

    Raises:
        UnsupportedModel: the model is not the one that was planned for, or cannot be changed.
    """
    check_model("slim", model)
    layers = [layer for group in plan.groups for layer in group.layers if layer.removed]
    check_planned(model, plan)
    wanted: dict[tuple[str, str], set[int]] = {}
    for layer in layers:
        wanted.setdefault((layer.layer, layer.role), set()).update(layer.removed)
    touched = {name for name, _ in wanted} | {each.into.rpartition(".")[0] for each in plan.folds}
    with plain(model), all_or_nothing(model, touched):
        fold(model, plan.folds)
        apply(model, {key: frozenset(gone) for key, gone in wanted.items()})
    return model
