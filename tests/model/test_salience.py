"""Salience: each criterion by hand, what is silent and what ranks it then, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import normattn
from normattn.errors import ConfigError, InputError, UnsupportedModel
from normattn.model._groups import Group, Groups, Member, find_groups
from normattn.model._salience_layers import channels_first, per_channel
from normattn.model.salience import CRITERIA, Salience, salience


def filled(model):
    """Give a model weights of which no two are alike, and statistics of some images."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))
    return model.eval()


@pytest.fixture(scope="module")
def chain():
    """Two convolutions in a row, the first with a norm: one group, which every step shows."""
    return filled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 5, 1, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )


@pytest.fixture(scope="module")
def attended():
    """A residual network with NAM's channel attention at the end of each branch."""
    return filled(normattn.graft(normattn.host("resnet20", 10), "nam-channel"))


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 6, 3, 16, 16, generator=generator)
    return [(images[0], torch.tensor([0, 1, 2, 3, 4, 0])), (images[1, :2], torch.tensor([4, 3]))]


@pytest.fixture(scope="module")
def groups(attended):
    return find_groups(attended, torch.zeros(1, 3, 16, 16))


LAST = "layer3.0.conv2"  # the channels that the last stage adds to the residual stream
BRANCHES = ("layer3.0.bn2", "layer3.1.bn2", "layer3.2.bn2")


def added(values):
    """Return those of 64 values that belong to `LAST`: behind the 32 that the shortcut brings."""
    return values[32:]


def test_bn_scale_is_the_mean_scale_of_the_norms_behind_a_channel(attended, groups):
    scores = salience(attended, "bn-scale", groups=groups).scores
    state = attended.state_dict()
    assert_close(scores["layer1.0.conv1"], state["layer1.0.bn1.weight"].abs())
    assert_close(scores[LAST], added(sum(state[f"{n}.weight"].abs() for n in BRANCHES) / 3))


def test_where_channels_have_unequal_numbers_of_norms_each_counts_its_own(chain):
    wide, narrow = nn.BatchNorm2d(2), nn.BatchNorm2d(1)
    wide.weight.data, narrow.weight.data = torch.tensor([1.0, 2.0]), torch.tensor([5.0])
    members = (
        Member("0", "out", ((0,), (1,))),
        Member("1", "norm", ((0,), (1,))),
        Member("2", "norm", ((), (0,))),
    )
    group = Group("0", 2, ((0,), (1,)), members, closes=True)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), wide, narrow)
    found = salience(model, "bn-scale", groups=Groups((group,), ()))
    assert found.scores["0"].tolist() == [1.0, 3.5]


def test_nam_is_the_gates_own_weight_summed_over_its_sites_with_mean_one(attended, groups):
    scores = salience(attended, "nam", groups=groups).scores[LAST]
    state = attended.state_dict()
    scales = [state[f"{name}.attn.norm.weight"].abs() for name in BRANCHES]
    weights = added(sum(scale / scale.sum() for scale in scales))
    assert_close(scores, weights / weights.mean())


def test_nam_weights_sites_as_the_gates_themselves_do():
    model = filled(normattn.graft(normattn.host("resnet20", 10), "nam-channel", weighting="rms"))
    found = find_groups(model, torch.zeros(1, 3, 16, 16))
    state = model.state_dict()
    scales = [state[f"{name}.attn.norm.weight"].abs() for name in BRANCHES]
    weights = added(sum(scale / scale.square().mean().sqrt() for scale in scales))
    scores = salience(model, "nam", groups=found).scores[LAST]
    assert_close(scores, weights / weights.mean())


def test_nam_takes_the_channel_part_of_both_and_nothing_of_the_spatial_one():
    both = filled(normattn.graft(normattn.host("resnet20", 10), "nam", input_size=16))
    found = salience(both, "nam", example_input=torch.zeros(1, 3, 16, 16))
    ranked = set(found.scores) - {name for name, _ in found.silent}
    assert len(ranked) == 3
    spatial = filled(normattn.graft(normattn.host("resnet20", 10), "nam-spatial", input_size=16))
    with pytest.raises(ConfigError, match="NAMSpatial has no weight for each channel"):
        salience(spatial, "nam", example_input=torch.zeros(1, 3, 16, 16))


def test_groups_that_a_criterion_is_silent_about_are_named_and_ranked_by_the_norms(
    attended, groups
):
    found = salience(attended, "nam", groups=groups)
    silent = dict(found.silent)
    inner = {group.name for group in groups.groups if not group.closes}
    assert set(silent) == inner
    assert silent["layer1.0.conv1"] == "no NAM gates it; by bn-scale"
    scales = attended.state_dict()["layer1.0.bn1.weight"].abs()
    assert_close(found.scores["layer1.0.conv1"], scales / scales.mean())  # NAM's own mean is 1


def test_a_stand_in_has_the_mean_of_what_the_criterion_ranks_itself(chain):
    bare = copy.deepcopy(chain)
    group = Group("3", 5, tuple((i,) for i in range(5)), (outputs("3", 5),), closes=False)
    first = find_groups(bare, torch.zeros(1, 3, 16, 16)).groups[0]
    found = salience(bare, "bn-scale", groups=Groups((first, group), ()))
    assert dict(found.silent) == {"3": "no norm with scales follows it; by magnitude"}
    rows = bare[3].weight.detach().flatten(1).square().sum(1).sqrt()
    assert_close(found.scores["3"], rows / rows.mean() * bare[1].weight.detach().abs().mean())


def outputs(layer, width):
    return Member(layer, "out", tuple((i,) for i in range(width)))


def test_magnitude_is_the_norm_of_all_weights_that_make_scale_and_read_a_channel(chain):
    scores = salience(chain, "magnitude", example_input=torch.zeros(1, 3, 16, 16)).scores["0"]
    made = chain[0].weight.detach().flatten(1).square().sum(1)
    read = chain[3].weight.detach().flatten(2).square().sum((0, 2))
    norms = (made + read + chain[1].weight.detach().square()).sqrt()
    assert_close(scores, norms / norms.mean())


def test_taylor_is_the_slope_of_the_loss_along_the_channel(chain, batches):
    expected = torch.zeros(8)
    for images, labels in batches:
        factor = torch.ones(8, requires_grad=True)
        hidden = chain[:3](images) * factor[:, None, None]
        functional.cross_entropy(chain[3:](hidden), labels).backward()
        expected += factor.grad.abs() * len(labels) / 8
    found = salience(chain, "taylor", batches, example_input=torch.zeros(1, 3, 16, 16))
    assert_close(found.scores["0"], expected)


def test_taylor_adds_what_all_readers_do_before_it_looks_at_the_size(chain, batches):
    class Cancelling(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = copy.deepcopy(chain[:4])
            self.minus = nn.Conv2d(8, 5, 1, bias=False)
            self.minus.weight = nn.Parameter(-self.body[3].weight.detach())

        def forward(self, x):
            hidden = self.body[:3](x)
            return (self.body[3](hidden) + self.minus(hidden)).mean((2, 3))

    found = salience(Cancelling(), "taylor", batches, example_input=torch.zeros(1, 3, 16, 16))
    assert len(found.scores["body.0"]) == 8
    assert_close(found.scores["body.0"], torch.zeros(8), rtol=0, atol=1e-6)


def test_gate_is_the_mean_size_of_what_the_gates_let_by(attended, groups, batches):
    sums = torch.zeros(64)
    for name in BRANCHES:
        gate = attended.get_submodule(f"{name}.attn")
        seen = []
        handle = gate.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            for images, _ in batches:
                attended(images)
        handle.remove()
        x = torch.cat(seen)
        sums += (x * gate.gate(x)).detach().abs().mean((0, 2, 3))
    scores = salience(attended, "gate", batches, groups=groups).scores[LAST]
    assert_close(scores, added(sums) / added(sums).mean())


def test_random_depends_on_the_seed_and_the_groups_name_alone(chain, attended, groups):
    first = salience(attended, "random", groups=groups, seed=3).scores
    fewer = Groups(groups.groups[2:], ())
    again = salience(attended, "random", groups=fewer, seed=3).scores
    assert all(torch.equal(first[name], again[name]) for name in again)
    other = salience(attended, "random", groups=groups, seed=4).scores
    assert not torch.equal(first["layer1.0.conv1"], other["layer1.0.conv1"])
    assert not torch.equal(first["layer1.0.conv1"], first["layer1.1.conv1"])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_model_stays_as_it_was_and_every_score_can_be_compared(
    attended, groups, batches, criterion
):
    model = normattn.fuse(copy.deepcopy(attended)).train()
    model.layer1.eval()
    model.layer2.requires_grad_(False)
    before = copy.deepcopy(model)
    with torch.inference_mode():
        found = salience(model, criterion, iter(batches), groups=groups)
    assert set(found.scores) == {group.name for group in groups.groups}
    for scores in found.scores.values():
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()
        assert (scores >= 0).all()
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    flags = [[p.requires_grad for p in each.parameters()] for each in (model, before)]
    assert flags[0] == flags[1]
    assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)


def test_criteria_see_plain_layers_in_evaluation_mode(attended, groups, monkeypatch):
    seen = []

    def look(model, *_):
        seen.append((type(model.layer1[0]), model.layer1[0].training))
        return {group.name: torch.ones(group.width) for group in groups.groups}

    monkeypatch.setitem(CRITERIA, "random", replace(CRITERIA["random"], score=look))
    salience(normattn.fuse(copy.deepcopy(attended)).train(), "random", groups=groups)
    assert seen == [(type(attended.layer1[0]), False)]


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(6, 4, 3, groups=2, bias=False), 6),
        (nn.Conv2d(6, 4, 1, bias=False), 6),
        (nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False), 6),
        (nn.Linear(6, 4, bias=False), 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_weights_are_told_by_the_channel_that_they_read_and_by_the_one_they_make(layer, channels):
    shape = (1, channels) if isinstance(layer, nn.Linear) else (1, channels, 5, 5)
    for channel in range(channels):
        x = torch.zeros(shape)
        x[:, channel] = 1
        (slope,) = torch.autograd.grad(layer(x).sum(), layer.weight)
        sums = per_channel(layer, "in", slope)
        assert sums.nonzero().flatten().tolist() == [channel]
    for channel in range(4):
        (slope,) = torch.autograd.grad(layer(torch.ones(shape))[:, channel].sum(), layer.weight)
        assert per_channel(layer, "out", slope).nonzero().flatten().tolist() == [channel]
    view = channels_first(layer, "in", layer.weight.detach())
    assert view.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()


def test_the_least_salient_come_first_and_of_equals_the_lower_index():
    found = Salience("bn-scale", {"a": torch.tensor([0.3, 0.1, 0.3, 0.0])})
    assert found.order("a") == [3, 1, 0, 2]


def test_it_survives_a_trip_through_json_and_prints_every_group(attended, groups):
    found = salience(attended, "nam", groups=groups)
    again = Salience.from_json(found.to_json())
    assert again.criterion == "nam"
    assert again.silent == found.silent
    assert all(torch.equal(again.scores[name], found.scores[name]) for name in found.scores)
    shown = str(found)
    assert all(group.name in shown for group in groups.groups)
    assert "no NAM gates it; by bn-scale" in shown


def test_without_an_example_the_host_says_how_large_its_images_are():
    assert len(salience(normattn.host("resnet20", 10, in_chans=1), "magnitude").scores) == 12


def test_an_unknown_criterion_names_the_nearest(chain):
    with pytest.raises(ConfigError, match="Did you mean 'taylor'"):
        salience(chain, "tailor")


@pytest.mark.parametrize("criterion", ["taylor", "gate"])
def test_a_criterion_that_looks_at_images_asks_for_them(attended, groups, criterion):
    with pytest.raises(ConfigError, match=f"expected data for the criterion '{criterion}'"):
        salience(attended, criterion, groups=groups)


@pytest.mark.parametrize(
    ("data", "got"),
    [
        ([], "no batch at all"),
        ([torch.zeros(1, 3, 8, 8)], "a Tensor"),
        ([(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2).long())], "torch.uint8"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(3).long())], r"labels \(3,\)"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0, 10]))], "labels from 0 to 10"),
    ],
)
def test_data_that_are_no_batches_or_of_other_classes_are_refused(attended, groups, data, got):
    with pytest.raises(ConfigError, match=got):
        salience(attended, "taylor", data, groups=groups)


def test_nothing_to_rank_says_why():
    plain = normattn.host("resnet20", 10)
    with pytest.raises(ConfigError, match=r"'nam' can rank, got none in 12 groups \(no NAM gates"):
        salience(plain, "nam")
    with pytest.raises(ConfigError, match=r"got none in Sequential.*nothing to rank"):
        salience(nn.Sequential(nn.Conv2d(3, 4, 1)), "random", groups=Groups((), ()))


def test_groups_of_another_model_are_refused(chain, groups):
    with pytest.raises(UnsupportedModel, match="which it does not have"):
        salience(chain, "magnitude", groups=groups)
    narrow = Groups((Group("0", 9, (), (outputs("0", 9),), closes=False),), ())
    with pytest.raises(UnsupportedModel, match="got channel 8 of '0', which has 8"):
        salience(chain, "magnitude", groups=narrow)


def test_a_model_that_diverged_is_refused(chain):
    broken = copy.deepcopy(chain)
    broken[1].weight.data[3] = float("nan")
    with pytest.raises(InputError, match=r"expected finite scores.*for '0'"):
        salience(broken, "bn-scale", groups=find_groups(chain, torch.zeros(1, 3, 16, 16)))


def test_what_is_no_model_with_weights_is_refused(chain):
    with pytest.raises(UnsupportedModel, match=r"expected an nn\.Module, got str"):
        salience("resnet20", "random")
    with pytest.raises(UnsupportedModel, match="on the meta device"):
        salience(copy.deepcopy(chain).to("meta"), "random")
