"""Three ways to pull at scales: two to the same bit, one to exact zeros, all to one minimum."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.data import to_float, train_batches
from normattn.model.sparsify import sparsity
from normattn.training import Recipe, fit
from normattn.training.optimize import make_optimizer
from normattn.training.penalty import Penalty

EXAMPLE = torch.zeros(1, 1, 8, 8)
PLAIN = {"momentum": 0.0, "schedule": "constant", "warmup_epochs": 0, "sparsity_on": "all"}


def penalty(model, batches=4, example=EXAMPLE, **changes):
    return Penalty(model, Recipe(name="r", **{"epochs": 4, **changes}), batches, example)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
def test_the_subgradient_is_the_loss_to_the_bit(
    tiny, data, short, assert_same_bits, untimed, parts, fused
):
    def train(by, p=0.05):
        model = normattn.fuse(tiny()) if fused else tiny()
        recipe = short(**PLAIN, sparsity=p, sparsity_by=by, accumulate=parts)
        return model, untimed(fit(model, data, recipe, seed=3))

    (loss, first), (subgradient, second), (free, _) = (
        train("loss"),
        train("subgradient"),
        train("loss", p=0.0),
    )
    assert_same_bits(loss, subgradient)
    assert first == second
    assert not torch.equal(loss[1].weight, free[1].weight)


def test_the_loss_is_the_one_written_out_by_hand(data, short):
    """A step of gradient descent on cross-entropy + p·Σ|scale|, from a batch made here."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight[:3] = torch.tensor([0.0, -1.0, 2.0])
    by_hand = copy.deepcopy(model)
    once = short(**PLAIN, epochs=1, batch_size=64, weight_decay=0.0, sparsity=0.1)
    fit(model, data, once, seed=3)
    chosen = {"batch_size": 64, "seed": 3, "epoch": 0, "augment": "pad-crop"}
    (batch,) = train_batches(data.train, **chosen)
    logits = by_hand(to_float(batch.images, data.mean, data.std))
    loss = nn.functional.cross_entropy(logits, batch.labels) + sparsity(by_hand, 0.1, on="norms")
    loss.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            parameter -= 0.05 * parameter.grad
    assert_close(model.state_dict(), by_hand.state_dict())


OPTIMIZERS = {
    "sgd": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adamw": {"optimizer": "adamw"},
}


@pytest.mark.parametrize("changes", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_proximal_steps_rest_at_the_minimum_of_loss_and_penalty(changes):
    """For ½(s - a)² + p·|s| that is a - p·sign(a), and zero where |a| <= p."""
    model, p = nn.Sequential(nn.BatchNorm2d(5)), 0.2
    scale, aim = model[0].weight, torch.tensor([1.0, -0.7, 0.3, 0.1, -0.19])
    recipe = Recipe(name="r", epochs=1, **changes)
    chosen = penalty(
        model, sparsity=p, sparsity_on="norms", sparsity_by="proximal", sparsity_closing=True
    )
    optimizer = make_optimizer(model, recipe)
    for step in range(3000):
        optimizer.param_groups[0]["lr"] = 0.03 * 0.997**step
        scale.grad = scale.detach() - aim
        optimizer.step()
        chosen.shrink(optimizer, step)
    assert_close(scale.detach(), torch.tensor([0.8, -0.5, 0.1, 0.0, 0.0]), atol=2e-3, rtol=0)
    assert scale.tolist()[3:] == [0.0, 0.0]


def test_the_threshold_is_the_step_times_p():
    model = nn.Sequential(nn.BatchNorm2d(4))
    model[0].weight.data = torch.tensor([1.0, -1.0, 0.05, -0.0499])
    chosen = penalty(
        model, sparsity=0.1, sparsity_on="norms", sparsity_by="proximal", sparsity_closing=True
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    chosen.shrink(optimizer, 0)
    assert_close(model[0].weight.detach(), torch.tensor([0.95, -0.95, 0.0, 0.0]))
    assert model[0].weight.tolist()[2:] == [0.0, 0.0]
    assert model[0].bias.tolist() == [0.0] * 4


def test_adamw_without_gradients_moves_by_the_learning_rate():
    model = nn.Sequential(nn.BatchNorm2d(2))
    chosen = penalty(
        model, sparsity=1e-4, sparsity_on="norms", sparsity_by="proximal", sparsity_closing=True
    )
    chosen.shrink(torch.optim.AdamW(model.parameters(), lr=0.25), 0)
    assert model[0].weight.tolist() == [0.75, 0.75]


def test_adamw_with_next_to_no_gradients_throws_nothing_to_zero():
    """Its steps are no longer than 7.3 learning rates whatever the gradients; nor is this one."""
    model = nn.Sequential(nn.BatchNorm2d(2))
    chosen = penalty(
        model, sparsity=1e-4, sparsity_on="norms", sparsity_by="proximal", sparsity_closing=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0)
    model[0].weight.grad = torch.tensor([1e-12, 1e-1])
    optimizer.step()
    before = model[0].weight.detach().clone()
    chosen.shrink(optimizer, 0)
    assert (before - model[0].weight.detach()).tolist() == pytest.approx([0.0727, 1e-5], rel=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_proximal_training_leaves_exact_zeros_and_the_others_none(tiny, data, short, optimizer):
    found = {}
    for by in ("loss", "subgradient", "proximal"):
        recipe = short(
            epochs=12, sparsity=0.3, sparsity_on="all", sparsity_by=by, optimizer=optimizer
        )
        record = fit(tiny(), data, recipe, seed=3).last
        found[by] = [record.histograms[kind]["zeros"] for kind in ("norms", "attention")]
    assert min(found["proximal"]) > 0
    assert found["loss"] == found["subgradient"] == [0, 0]


def test_p_rises_in_a_line_over_its_warm_up(tiny):
    warm = penalty(tiny(), sparsity=0.4, sparsity_warmup_epochs=1.25)
    assert [warm.weight(step) for step in range(6)] == pytest.approx(
        [0.08, 0.16, 0.24, 0.32, 0.4, 0.4]
    )
    assert penalty(tiny(), sparsity=0.4).weight(0) == 0.4


@pytest.mark.parametrize("by", ["loss", "subgradient", "proximal"])
def test_the_warm_up_reaches_every_way(tiny, by):
    pulled = []
    for step in (0, 3):
        model = tiny()
        chosen = penalty(model, sparsity=0.4, sparsity_by=by, sparsity_warmup_epochs=1)
        (scale,) = chosen.scales
        optimizer = torch.optim.SGD([scale], lr=1.0)
        chosen.add_gradients(step)
        optimizer.step()
        chosen.shrink(optimizer, step)
        pulled.append(1 - float(scale.detach()[0]))
        assert chosen.value(step) == pytest.approx(0.1 * (step + 1) * 8 * (1 - pulled[-1]))
    assert pulled == pytest.approx([0.1, 0.4])


def test_the_record_says_p_as_it_was(tiny, data, short):
    history = fit(tiny(), data, short(sparsity=0.4, sparsity_warmup_epochs=2), seed=3)
    assert [record.sparsity for record in history.epochs] == pytest.approx([0.2, 0.4])
    assert fit(tiny(), data, short(epochs=1), seed=3).last.sparsity == 0


@pytest.fixture
def resnet():
    """Return ResNet-20 for digits, with NAM behind the last norm of each branch."""
    return normattn.graft(normattn.host("resnet20", 10, in_chans=1), "nam-channel")


@pytest.mark.parametrize(
    ("on", "penalised", "closing"), [("norms", 10, 9), ("all", 19, 9), ("attention", 9, 0)]
)
def test_norms_that_close_a_branch_are_left_out_and_named(resnet, on, penalised, closing):
    """Of 19 norms the first, and the first of each of 9 blocks, stay."""
    chosen = penalty(resnet, sparsity=0.1, sparsity_on=on)
    assert (len(chosen.scales), len(chosen.closing)) == (penalised, closing)
    named, ours = resnet.state_dict(keep_vars=True), {id(scale) for scale in chosen.scales}
    assert not any(id(named[name]) in ours for name in chosen.closing)
    notes = " ".join(chosen.notes())
    assert ("9 norms in front of additions" in notes) == bool(closing)
    assert ("(layer1.0.bn2.weight, layer1.1.bn2.weight, " in notes) == bool(closing)


def test_they_are_penalised_when_asked(resnet):
    chosen = penalty(resnet, sparsity=0.1, sparsity_on="norms", sparsity_closing=True)
    assert (len(chosen.scales), chosen.closing, list(chosen.notes())) == (19, (), [])


def test_what_is_left_out_keeps_its_scales_and_is_said_once(resnet, data, short):
    events = []
    plain = copy.deepcopy(resnet)
    changes = {**PLAIN, "epochs": 1, "lr": 1e-12, "sparsity": 1e11, "sparsity_on": "norms"}
    pulled = short(**changes, sparsity_by="proximal")
    record = fit(resnet, data, pulled, seed=3, progress=events.append).last
    assert_close(resnet.layer1[0].bn2.base.weight, plain.layer1[0].bn2.base.weight)
    assert_close(resnet.layer1[0].bn1.weight.detach(), torch.full((16,), 0.6))  # four steps of 0.1
    assert sum("not penalised" in event.get("text", "") for event in events) == 1
    closing = record.histograms["closing"]
    assert closing["scales"] == 3 * (16 + 32 + 64)
    assert record.histograms["norms"]["scales"] == closing["scales"] + 16


def test_frozen_scales_are_left_alone_and_named(tiny):
    model = tiny()
    model[1].weight.requires_grad = False
    for by in ("loss", "subgradient", "proximal"):
        chosen = penalty(model, sparsity=0.4, sparsity_on="all", sparsity_by=by)
        assert [scale is model[1].weight for scale in chosen.scales] == [False]
        assert "1 frozen scales are not penalised (1.weight is one)" in " ".join(chosen.notes())


def test_a_penalty_with_nothing_left_says_so(tiny):
    model = tiny()
    model[1].weight.requires_grad = False
    chosen = penalty(model, sparsity=0.4, sparsity_on="norms")
    assert "the model has no other scales that sparsity_on='norms'" in " ".join(chosen.notes())
    chosen.add_gradients(0)
    assert chosen.value(0) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_penalty_the_model_is_not_even_run(tiny):
    ran = []
    model = tiny()
    model.register_forward_hook(lambda *args: ran.append(1))
    for changes in ({}, {"sparsity": 0.1}, {"sparsity": 0.1, "sparsity_closing": True}):
        penalty(model, **changes)
    assert not ran
    penalty(model, sparsity=0.1, sparsity_on="norms")
    assert ran


def test_an_epoch_of_resnet50_takes_less_than_two_kilobytes(short, data):
    from normattn.training.history import scale_histograms, scale_statistics

    model = normattn.graft(normattn.host("resnet50", 10, stem="cifar"), "nam-channel")
    closing = normattn.model.sparsify.closing_norms(model, torch.zeros(1, 3, 32, 32))
    found = {"scales": scale_statistics(model), "histograms": scale_histograms(model, closing)}
    assert len(json.dumps(found)) < 1600
