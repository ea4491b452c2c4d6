"""Learning rates against torch's own schedules, and who is exempt from weight decay."""

import itertools

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from normattn.attention import EAN
from normattn.training import recipe
from normattn.training.optimize import make_optimizer, make_schedule

STEPS = 5  # an epoch


def rates(chosen, steps=STEPS):
    optimizer = make_optimizer(nn.Linear(2, 2), chosen)
    schedule = make_schedule(optimizer, chosen, steps)
    found = []
    for step in range(chosen.epochs * steps):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def torchs_rates(chosen, make):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=chosen.lr)
    schedule, found = make(optimizer), []
    for _ in range(chosen.epochs * STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_steps_fall_where_torchs_do():
    chosen = recipe("nam-cifar")
    milestones = [60 * STEPS, 120 * STEPS, 160 * STEPS]
    assert rates(chosen) == pytest.approx(
        torchs_rates(chosen, lambda optimizer: MultiStepLR(optimizer, milestones, gamma=0.2))
    )


def test_cosine_is_torchs():
    chosen = recipe("quick", warmup_epochs=0)
    total = chosen.epochs * STEPS
    assert rates(chosen) == pytest.approx(
        torchs_rates(chosen, lambda optimizer: CosineAnnealingLR(optimizer, total))
    )


def test_a_warm_up_rises_in_a_line_and_wastes_no_step():
    found = rates(recipe("quick", schedule="constant", lr=1.0, warmup_epochs=1))
    assert found[0] == pytest.approx(1 / STEPS)
    assert found[STEPS:] == [1.0] * (len(found) - STEPS)
    jumps = [after - before for before, after in itertools.pairwise(found[: STEPS + 1])]
    assert jumps == pytest.approx([jumps[0]] * STEPS)
    assert jumps[0] > 0


def test_a_training_of_one_step_has_a_rate():
    assert rates(recipe("quick", epochs=1, lr=0.1), steps=1) == [0.1]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_scales_shifts_and_biases_decay_only_when_asked(optimizer):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), EAN(8, groups=4))
    for asked in (False, True):
        chosen = recipe("quick", optimizer=optimizer, decay_scales=asked)
        groups = make_optimizer(model, chosen).param_groups
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            decays = asked or name == "0.weight"
            assert decay[id(parameter)] == (chosen.weight_decay if decays else 0.0), name


def test_a_gates_scales_are_exempt_whatever_their_shape():
    gate = EAN(8, groups=4)
    square = nn.Parameter(torch.ones(2, 2))
    gate.square = square
    gate.scales = lambda: (square,)
    groups = make_optimizer(gate, recipe("quick")).param_groups
    assert [group["weight_decay"] for group in groups if square in set(group["params"])] == [0.0]


def test_frozen_weights_are_left_alone():
    model = nn.Linear(2, 2).requires_grad_(False)
    model.bias.requires_grad_(True)
    groups = make_optimizer(model, recipe("quick")).param_groups
    assert [p for group in groups for p in group["params"]] == [model.bias]
