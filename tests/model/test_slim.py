"""Plans and what they do to a model; latency is made up, as no test may depend on a clock."""

import copy
import json

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from normattn import fuse, graft, grafts, host, ungraft
from normattn.errors import ConfigError, UnsupportedModel
from normattn.model import _slim_cost
from normattn.model.profile import Latency, profile
from normattn.model.salience import Salience
from normattn.model.slim import SlimPlan, plan_slim, slim

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Let a model take a microsecond for each parameter, and count the measurements."""
    calls = []

    def latency(models, size, **options):
        calls.append(options)
        seconds = {k: sum(p.numel() for p in m.parameters()) * 1e-6 for k, m in models.items()}
        first = next(iter(seconds.values()))
        return {k: Latency(s, s, s, s / first) for k, s in seconds.items()}

    monkeypatch.setattr(_slim_cost, "latency", latency)
    return calls


def resnet(attention="none", **options):
    torch.manual_seed(0)
    model = graft(host("resnet20", 10), attention, input_size=32, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def plan(model, target, criterion="magnitude", **options):
    return plan_slim(model, X[:1], target, criterion, **options)


def widths(made):
    return {group.name: group.after for group in made.groups}


def test_a_fraction_of_the_channels_goes_in_every_group():
    made = plan(resnet(), {"channels": 0.5})
    assert all(group.after == group.before // 2 for group in made.groups)
    assert all(len(group.removed) == group.before - group.after for group in made.groups)
    assert made.reached
    assert made.fraction == 0.5


def test_the_costs_are_those_of_the_models_before_and_after():
    model = resnet("nam")
    made = plan(model, {"channels": 0.5})
    for cost, now in ((made.before, model), (made.after, slim(copy.deepcopy(model), made))):
        counted = profile(now, 32)
        assert cost.parameters == counted.parameters
        assert cost.multiply_adds == counted.paper_macs
        assert cost.latency_ms == pytest.approx(counted.parameters * 1e-3)


def test_the_least_salient_channels_go():
    model = resnet()
    scores = {"layer1.0.conv1": torch.arange(16.0).flip(0)}
    made = plan(model, {"channels": 0.5}, Salience("by hand", scores))
    (group,) = made.groups
    assert group.removed == tuple(range(8, 16))
    assert ("conv1", "by hand does not rank it") in made.refused
    before = copy.deepcopy(model)
    slim(model, made)
    assert torch.equal(model.layer1[0].conv1.weight, before.layer1[0].conv1.weight[:8])
    assert torch.equal(model.layer1[0].bn1.running_var, before.layer1[0].bn1.running_var[:8])
    assert torch.equal(model.layer1[0].conv2.weight, before.layer1[0].conv2.weight[:, :8])


def test_a_slimmed_model_computes_what_the_whole_one_does_where_nothing_reads_the_channels():
    model = resnet("nam")
    made = plan(model, {"channels": 0.5})
    whole = copy.deepcopy(model)
    with torch.no_grad():
        for group in made.groups:
            for layer in group.layers:
                if layer.role == "in":
                    whole.get_submodule(layer.layer).weight[:, list(layer.removed)] = 0
        assert_close(slim(model, made)(X), whole(X), rtol=1e-4, atol=1e-5)


def test_across_the_model_one_threshold_decides():
    model = resnet()
    scores = {"layer1.0.conv1": torch.ones(16), "layer2.0.conv1": torch.arange(32.0) / 31}
    made = plan(model, {"channels": 0.25}, Salience("by hand", scores), across="model")
    assert widths(made) == {"layer1.0.conv1": 16, "layer2.0.conv1": 24}
    made = plan(
        model, {"channels": 10 / 48}, Salience("by hand", scores), across="model", round_to=1
    )
    assert widths(made) == {"layer1.0.conv1": 16, "layer2.0.conv1": 22}
    # All of the second group is below the threshold, but it keeps what it must.
    scores["layer2.0.conv1"] = torch.zeros(32)
    made = plan(model, {"channels": 0.9}, Salience("by hand", scores), across="model", least=0.25)
    assert widths(made)["layer2.0.conv1"] == 8


@pytest.mark.parametrize(
    ("target", "share"),
    [({"flops": 0.5}, "multiply_adds"), ({"params": 0.3}, "parameters")],
    ids=["flops", "params"],
)
def test_counted_targets_are_just_met(target, share):
    made = plan(resnet(), target, round_to=1)
    ratio = getattr(made.after, share) / getattr(made.before, share)
    (value,) = target.values()
    assert value - 0.03 < ratio <= value
    assert made.reached


def test_latency_targets_are_measured_on_the_batch_in_turns_with_the_original(timed):
    made = plan_slim(resnet(), X, {"speedup": 2}, "magnitude", round_to=1)
    assert made.reached
    assert 2 <= made.before.latency_ms / made.after.latency_ms < 2.2
    assert all(call["batch"] == 2 for call in timed)
    wanted = made.before.latency_ms / 3
    made = plan(resnet(), {"latency_ms": wanted}, round_to=1)
    assert made.reached
    assert 0.85 * wanted < made.after.latency_ms <= wanted


def test_a_latency_that_is_there_already_costs_nothing():
    made = plan(resnet(), {"latency_ms": 1e6})
    assert made.reached
    assert not any(group.removed for group in made.groups)
    assert "already" in made.note


@pytest.mark.parametrize(
    ("target", "best"),
    [
        ({"channels": 0.95}, "The most that may go is 0.875"),
        ({"params": 0.001}, "The least that can be left of the parameters is 0.0"),
        ({"flops": 0.001}, "The least that can be left of the multiply-adds is 0.0"),
        ({"speedup": 500}, "The best that was measured is a speedup of"),
        ({"latency_ms": 1e-3}, "The best that was measured is"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_target_out_of_reach_is_not_reached_and_the_best_possible_is_said(target, best):
    made = plan(resnet(), target, round_to=2)
    assert not made.reached
    assert best in made.note
    assert "NOT reached" in str(made)
    assert best in str(made)


def test_widths_are_rounded_and_no_group_falls_below_its_least():
    made = plan(resnet(), {"channels": 0.6})
    assert all(group.after % 8 == 0 for group in made.groups)
    made = plan(resnet(), {"channels": 0.99}, round_to=1, least=0.25)
    assert all(group.after == group.before // 4 for group in made.groups)


def test_skipped_layers_keep_their_channels():
    made = plan(resnet(), {"channels": 0.5}, skip=["layer1.*.conv1", "conv1"])
    assert "layer2.0.conv1" in widths(made)
    assert not {"layer1.0.conv1", "conv1"} & set(widths(made))
    assert dict(made.refused)["conv1"] == "it was asked for by skip ('conv1')"


def test_a_plan_comes_back_from_json_and_prints_a_table():
    made = plan(resnet("nam"), {"channels": 0.5})
    text = json.dumps(made.to_json())
    assert SlimPlan.from_json(json.loads(text)) == made
    assert len(text) < 200_000
    lines = str(made).splitlines()
    assert lines[0].startswith("plan to channels 0.5 (reached), channels ranked by magnitude")
    assert lines[2].split()[0] == "parameters"
    assert any(line.split() == ["layer1.0.conv1", "16", "8"] for line in lines)


@pytest.mark.parametrize("content", [{}, {"format": 99}, {"format": 1}, []])
def test_what_is_no_plan_is_refused(content):
    with pytest.raises(ConfigError, match="SlimPlan: expected"):
        SlimPlan.from_json(content)


def test_planning_leaves_the_model_as_it_was():
    model = resnet("nam").train()
    before = copy.deepcopy(model.state_dict())
    plan(model, {"channels": 0.5})
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model(X).shape == (2, 10)


def test_grafts_say_what_is_left_and_everything_goes_on_working():
    model = resnet("nam-channel", weighting="mean")
    slim(model, plan(model, {"channels": 0.5}))
    assert {(record.channels, record.kept) for record in grafts(model)} == {
        (16, 8),
        (32, 16),
        (64, 32),
    }
    expected = model(X)
    assert_close(copy.deepcopy(model)(X), expected)
    assert_close(fuse(model)(X), expected, rtol=1e-4, atol=1e-5)
    again = plan(model, {"channels": 0.5}, round_to=1)  # of what is fused, and slim already
    assert slim(model, again)(X).shape == (2, 10)
    assert all(record.kept == record.channels // 4 for record in grafts(model))
    ungraft(model)
    assert grafts(model) == ()
    graft(model, "se", reduction=2, input_size=32)
    assert model(X).shape == (2, 10)


@pytest.mark.parametrize("attention", ["se", "cbam", "bam"])
def test_bottlenecks_become_what_the_mechanism_builds_for_the_channels_that_stay(attention):
    model = resnet(attention, reduction=4)
    made = plan(model, {"channels": 0.5})
    assert SlimPlan.from_json(json.loads(json.dumps(made.to_json()))) == made
    slim(model, made)
    assert sum(p.numel() for p in model.parameters()) == made.after.parameters
    gates = [m for m in model.modules() if type(m).__name__.lower() == attention]
    for gate in gates:
        assert repr(gate) == repr(type(gate)(gate.channels, reduction=4))
    hidden = [layer for g in made.groups for layer in g.layers if layer.role == "hidden"]
    assert len(hidden) == len(gates)
    with pytest.raises(UnsupportedModel, match="that the plan was made for"):
        slim(model, made)


def test_gradients_and_frozen_weights_survive():
    model = resnet()
    model.conv1.requires_grad_(False)
    slim(model, plan(model, {"channels": 0.5}))
    model(X).sum().backward()
    assert model.conv1.weight.grad is None
    assert model.layer1[0].conv1.weight.grad.shape == model.layer1[0].conv1.weight.shape


def test_memory_order_survives():
    model = resnet().to(memory_format=torch.channels_last)
    slim(model, plan(model, {"channels": 0.5}))
    weight = model.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_plan_for_another_model_is_refused_and_changes_nothing():
    made = plan(resnet(), {"channels": 0.5})
    slimmed = slim(resnet(), made)
    before = copy.deepcopy(slimmed.state_dict())
    with pytest.raises(UnsupportedModel, match="expected the model that the plan was made for"):
        slim(slimmed, made)
    assert all(torch.equal(before[name], t) for name, t in slimmed.state_dict().items())
    with pytest.raises(UnsupportedModel, match="got none such"):
        slim(nn.Sequential(nn.Conv2d(3, 8, 1)), made)


def test_a_failure_half_way_leaves_the_model_as_it_was(monkeypatch):
    model = resnet("nam")
    made = plan(model, {"channels": 0.5})
    before, records, y = copy.deepcopy(model.state_dict()), grafts(model), model(X)

    def fail(self, kept):
        raise UnsupportedModel("not this one")

    monkeypatch.setattr(type(model.layer3[2].bn2.attn), "keep_channels", fail)
    with pytest.raises(UnsupportedModel, match="not this one"):
        slim(model, made)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert grafts(model) == records
    assert torch.equal(model(X), y)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"channels": 1.5}, "a ratio between 0 and 1, got 1.5"),
        ({"channels": 0}, "a ratio between 0 and 1, got 0"),
        ({"flops": -1}, "a ratio between 0 and 1, got -1"),
        ({"params": True}, "a ratio between 0 and 1, got True"),
        ({"speedup": 0.5}, "a finite number > 1, got 0.5"),
        ({"speedup": float("nan")}, "a finite number > 1, got nan"),
        ({"latency_ms": 0}, "milliseconds > 0, got 0"),
        ({"latency_ms": "5"}, "milliseconds > 0, got '5'"),
        ({"chanels": 0.5}, "Did you mean 'channels'"),
        ({"channels": 0.5, "flops": 0.5}, "one target, got 2"),
        ({}, "one target, got 0"),
        (0.5, "a target like"),
    ],
    ids=str,
)
def test_targets_that_mean_nothing_are_refused(target, message):
    with pytest.raises(ConfigError, match=message):
        plan(resnet(), target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "bn_scale"}, "Did you mean 'bn-scale'"),
        ({"criterion": "taylor"}, "expected data for the criterion 'taylor'"),
        ({"across": "groups"}, "Did you mean 'group'"),
        ({"round_to": 0}, "round_to to be an integer >= 1, got 0"),
        ({"least": 2}, "least to be a ratio from 0 to 1, got 2"),
        ({"skip": ["layer9.*"]}, "layer to skip"),
        ({"criterion": Salience("x", {"elsewhere": torch.ones(3)})}, "salience of this model"),
        ({"criterion": Salience("x", {"conv1": torch.ones(3)})}, "with 16 channels of 'conv1'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        plan(resnet(), {"channels": 0.5}, **options)


def test_a_model_with_nothing_to_remove_is_refused():
    with pytest.raises(ConfigError, match="There is nothing to rank"):
        plan(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), {"channels": 0.5})


@pytest.mark.parametrize(
    ("change", "what"),
    [(lambda m: torch.compile(m), "a compiled one"), (lambda m: m.to("meta"), "the meta device")],
    ids=["compiled", "meta"],
)
def test_models_that_cannot_be_cut_are_refused(change, what):
    model = change(resnet())
    with pytest.raises(UnsupportedModel, match=f"plan_slim: .*{what}"):
        plan(model, {"channels": 0.5})
    with pytest.raises(UnsupportedModel, match=f"slim: .*{what}"):
        slim(model, plan(resnet(), {"channels": 0.5}))


def test_a_quantised_model_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    model[0].weight = nn.Parameter(model[0].weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match="a quantised one"):
        plan(model, {"channels": 0.5})


def test_a_model_that_looks_at_values_is_counted_all_the_same():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))

        def forward(self, x):
            return self.body(x) if float(x.abs().sum()) >= 0 else x

    made = plan(Choosy(), {"channels": 0.5})
    assert made.before.multiply_adds == profile(Choosy(), (3, 32, 32)).paper_macs


def test_grouped_convolutions_and_scales_are_cut_with_their_groups():
    model = timm.create_model("regnetx_002", num_classes=5)
    made = plan(model, {"channels": 0.5})
    assert slim(model.eval(), made)(X).shape == (2, 5)
    assert model.s2.b1.conv2.conv.groups == 7
    model = timm.create_model("convnext_tiny", depths=(1, 1, 1, 1), dims=(16, 16, 32, 32))
    slim(model.eval(), plan(model, {"channels": 0.5}))
    assert model.stages[0].blocks[0].gamma.shape == (8,)
    assert model(X).shape == (2, 1000)
