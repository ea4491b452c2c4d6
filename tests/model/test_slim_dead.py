"""Channels of zero scale go without a trace: in every family of hosts, or refused by name."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from normattn import graft, host
from normattn.errors import UnsupportedModel
from normattn.model.slim import SlimPlan, dead_channels, plan_dead, plan_slim, slim

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def create(name, **options):
    return lambda: timm.create_model(name, num_classes=5, **options)


RESNET = {"channels": (8, 16, 16, 24), "stem_width": 8}
FAMILIES = {
    "cifar resnet": lambda: host("resnet20", 5),
    "cifar resnet, projections": lambda: host("resnet20", 5, shortcut="projection"),
    "resnet, basic": create("resnet18", layers=(1, 1, 2, 1), **RESNET),
    "resnet, bottleneck": create("resnet50", layers=(2, 1, 1, 1), **RESNET),
    "preact resnet": create("resnetv2_50", layers=(1, 1, 1, 1), preact=True),
    "mobilenetv2": create("mobilenetv2_035"),
    "efficientnet": create("test_efficientnet"),
    "regnet": create("regnetx_002"),
    "densenet": create("densenet121", growth_rate=8, block_config=(2, 2)),
    "vgg_bn": lambda: torchvision.models.vgg11_bn(num_classes=5).features[:12],
    "torchvision resnet": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5
    ),
}


def trained(model, dead=4, shift=None):
    """Give a model weights as of training, and every norm scales at zero: so many of each eight.

    A channel has them in all norms, as where a penalty brought it there.
    """
    generator = torch.Generator().manual_seed(0)
    gone = torch.arange(4096) % 8 < dead
    for module in model.modules():
        if isinstance(module, NORMS) and len(module.weight) > 1:  # not those within attention
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5, generator=generator)
                nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
            with torch.no_grad():
                where = gone[: len(module.weight)]
                module.weight[where] = 0
                if shift is not None:
                    module.bias[where] = shift
    return model.eval()


def images(size=32, channels=3):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def check_unchanged(model, plan, x):
    with torch.no_grad():
        before = model(x)
        after = slim(model, plan)(x)
    assert_close(after, before, rtol=0, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("shift", [None, 0.0], ids=["any shift", "no shift"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_dead_channels_go_and_the_output_stays(family, shift):
    model = trained(FAMILIES[family](), shift=shift)
    plan = plan_dead(model, images()[:1])
    removed = sum(len(group.removed) for group in plan.groups)
    total = sum(group.before for group in plan.groups)
    if shift is None:
        # Whatever constants there are: those that nothing can take over are refused by name.
        assert removed > 0 or plan.refused
    else:
        assert removed > 0.25 * total
    check_unchanged(model, plan, images())
    assert sum(p.numel() for p in model.parameters()) == plan.after.parameters


def test_a_layer_norm_sees_all_channels_so_its_group_is_refused_by_name():
    model = timm.create_model("convnext_atto", num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.zeros_(module.weight[:4].detach())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") or name == "stem.1.weight":
                parameter[:4] = 0
    plan = plan_dead(model, images(64)[:1])
    assert all(not group.removed for group in plan.groups)


def test_group_norms_lose_whole_groups():
    model = timm.create_model(
        "resnetv2_50",
        layers=(1, 1, 1, 1),
        num_classes=5,
        norm_layer=lambda channels, **_: timm.layers.GroupNormAct(channels, 8),
    )
    trained(model, dead=0)
    with torch.no_grad():
        norm = model.stages[0].blocks[0].norm2
        norm.weight[:16], norm.bias[:16] = 0, -1.0
    plan = plan_dead(model, images(64)[:1])
    (group,) = [group for group in plan.groups if group.removed]
    assert group.removed == tuple(range(16))
    check_unchanged(model, plan, images(64))


@pytest.mark.parametrize("attention", ["half", "nam-channel", "nam-spatial", "nam", "ean", "se"])
def test_attention_does_not_notice_channels_that_hold_zero(attention):
    options = {"weighting": "mean"} if attention.startswith("nam") else {}
    model = graft(host("resnet20", 5), attention, input_size=32, **options)
    trained(model, shift=0.0)
    for module in model.modules():
        if type(module).__name__ == "EAN":
            for parameter in module.parameters():
                nn.init.uniform_(parameter, 0.5, 1.5)
    plan = plan_dead(model, images()[:1])
    stream = next(group for group in plan.groups if group.name == "conv1")
    assert stream.removed
    check_unchanged(model, plan, images())


def test_a_bottleneck_gets_narrower_only_where_channels_go_that_did_something():
    model = graft(host("resnet20", 5), "se", input_size=32, reduction=4)
    trained(model, shift=0.0)
    hidden = [m.hidden for m in model.modules() if hasattr(m, "hidden")]
    nothing = plan_slim(model, images()[:1], {"channels": 0.5})  # half of each are at zero
    assert nothing.after.parameters < nothing.before.parameters / 2
    check_unchanged(copy.deepcopy(model), nothing, images())
    slim(model, plan_slim(model, images()[:1], {"channels": 0.75}, round_to=1))
    assert [m.hidden for m in model.modules() if hasattr(m, "hidden")] == [h // 4 for h in hidden]


@pytest.mark.parametrize("attention", ["cbam", "triplet"])
def test_attention_that_sees_all_channels_keeps_them_and_the_rest_goes_on(attention):
    model = trained(graft(host("resnet20", 5), attention, input_size=32), shift=-1.0)
    plan = plan_dead(model, images()[:1])
    removed = {group.name for group in plan.groups if group.removed}
    assert removed == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)}
    assert "sees all channels" in dict(plan.refused)["conv1"]
    check_unchanged(model, plan, images())


def test_constants_that_padding_would_break_stay_and_are_named():
    model = trained(host("resnet20", 5), shift=0.7)  # ReLU leaves it, and conv2 pads with zeros
    plan = plan_dead(model, images()[:1])
    assert not any(group.removed for group in plan.groups if group.name == "layer1.0.conv1")
    assert "conv2" in dict(plan.refused)["layer1.0.conv1"]


def test_constants_move_into_a_bias_or_a_running_mean():
    class Net(nn.Module):
        def __init__(self, bias):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.norm = nn.BatchNorm2d(8)
            self.last = nn.Conv2d(8, 16, 1, bias=bias)
            self.behind = nn.BatchNorm2d(16)

        def forward(self, x):
            return self.behind(self.last(self.norm(self.first(x))))

    for bias, into in ((True, "last.bias"), (False, "behind.running_mean")):
        model = trained(Net(bias))
        plan = plan_dead(model, images()[:1])
        assert [fold.into for fold in plan.folds] == [into]
        assert plan.groups[0].removed
        check_unchanged(model, plan, images())


def test_a_layer_of_nothing_but_dead_channels_keeps_one():
    model = trained(host("resnet20", 5), dead=0)
    with torch.no_grad():
        model.layer1[0].bn1.weight.zero_()
        model.layer1[0].bn1.bias.fill_(-1.0)
    assert dead_channels(model, images()[:1]) == {"layer1.0.conv1": tuple(range(1, 16))}
    check_unchanged(model, plan_dead(model, images()[:1]), images())


@pytest.mark.parametrize("family", ["resnet, basic", "torchvision resnet"])
def test_a_channel_that_is_dead_in_some_norms_of_a_stream_only_stays(family):
    model = trained(FAMILIES[family](), dead=0)
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, NORMS):
            where = torch.rand(len(module.weight), generator=generator) < 0.4
            module.weight.data[where], module.bias.data[where] = 0, -1.0
    plan = plan_dead(model, images()[:1])
    assert any(group.removed for group in plan.groups)
    check_unchanged(model, plan, images())


def test_a_branch_that_is_silent_on_noise_does_not_make_its_stream_dead():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU())
            self.left = nn.Sequential(nn.Conv2d(64, 32, 1), nn.BatchNorm2d(32))
            self.right = nn.Sequential(nn.Conv2d(64, 32, 1), nn.BatchNorm2d(32))
            self.last = nn.Conv2d(32, 4, 1)

        def forward(self, x):
            x = self.stem(x).mean((2, 3), keepdim=True)  # much alike, whatever the image
            return self.last(torch.relu(self.left(x) + self.right(x)))

    model = trained(Net(), dead=0)
    nn.init.zeros_(model.left[1].weight)
    nn.init.constant_(model.right[1].bias, -100.0)
    assert dead_channels(model, images()[:1]) == {}


def test_a_unit_without_a_scale_is_never_dead():
    model = trained(timm.create_model("regnety_002", num_classes=5), dead=0)
    with torch.no_grad():
        model.s1.b1.conv1.bn.weight[0] = 0  # so that there is something to look for
        for name, parameter in model.named_parameters():
            if name.endswith("se.fc1.bias"):
                parameter.fill_(-100.0)  # squeezed units that ReLU lets nothing out of
    assert not any("se.fc1" in name for name in dead_channels(model, images()[:1]))


def test_channels_that_only_happen_to_be_silent_are_not_dead():
    model = trained(host("resnet20", 5), dead=0)
    with torch.no_grad():
        model.layer1[0].bn1.bias.fill_(-100.0)  # ReLU lets nothing through, on images like these
        model.layer1[1].conv1.weight[:4] = 0
    assert dead_channels(model, images()[:1]) == {}


def test_a_plan_with_constants_is_for_these_weights_only():
    model = trained(FAMILIES["resnet, bottleneck"]())
    plan = plan_dead(model, images()[:1])
    plan = SlimPlan.from_json(plan.to_json())
    assert plan.folds
    other = copy.deepcopy(model)
    nn.init.ones_(other.bn1.weight)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(UnsupportedModel, match="expected the weights that the plan was made for"):
        slim(other, plan)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    check_unchanged(model, plan, images())
