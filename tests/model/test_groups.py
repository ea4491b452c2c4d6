import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from normattn import fuse, graft, host
from normattn.errors import ConfigError, UnsupportedModel
from normattn.model._groups import find_groups
from normattn.model.fuse import fused


def find(model, size=32):
    return find_groups(model, torch.zeros(1, 3, size, size))


def roles(group):
    return {(member.layer, member.role) for member in group.members}


class Net(nn.Module):
    """A convolution, something in between, and a convolution behind."""

    def __init__(self, between, channels=8, behind=8):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 1)
        self.between = between
        self.last = nn.Conv2d(behind, 4, 1)

    def forward(self, x):
        return self.last(self.between(self.first(x)))


def test_a_groups_members_are_all_layers_that_have_its_channels():
    found = find(host("resnet20", 10))
    inner = found["layer1.0.conv1"]
    assert roles(inner) == {
        ("layer1.0.conv1", "out"),
        ("layer1.0.bn1", "norm"),
        ("layer1.0.conv2", "in"),
    }
    assert inner.width == 16
    assert not inner.closes
    assert found.refused == (("fc", "these channels reach the model's output"),)


def test_zero_padded_shortcuts_couple_the_streams_of_stages():
    found = find(host("resnet20", 10))
    shared = {member.layer: member.channels for member in found["conv1"].members}
    assert found["conv1"].width == 16
    assert found["conv1"].closes
    assert {"conv1", "layer2.0.conv2", "layer3.0.conv2", "fc"} <= set(shared)
    appended = {member.layer: member for member in found["layer2.0.conv2"].members}
    assert appended["layer2.0.conv2"].channels[0] == (16,)
    assert appended["layer2.0.shortcut"].role == "pad"
    assert appended["layer2.0.shortcut"].channels[0] == (0,)


def test_concatenated_channels_are_followed_to_where_they_come_to_lie():
    model = timm.create_model("densenet121", growth_rate=8, block_config=(2, 2), num_classes=10)
    group = find(model)["features.denseblock1.denselayer1.conv2"]
    behind = {m.layer: m.channels for m in group.members}
    assert group.width == 8
    assert behind["features.denseblock1.denselayer1.conv2"][0] == (0,)
    assert behind["features.denseblock1.denselayer2.conv1"][0] == (16,)


def test_a_channel_is_as_many_features_behind_a_flattening():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.fc = nn.Linear(4 * 6, 5)

        def forward(self, x):
            return self.fc(self.conv(x).flatten(1))

    found = find_groups(Flat(), torch.zeros(1, 3, 2, 3))
    (member,) = [m for m in found["conv"].members if m.layer == "fc"]
    assert member.channels[1] == tuple(range(6, 12))


def test_depthwise_convolutions_belong_to_the_channels_that_they_filter():
    model = timm.create_model("mobilenetv2_035", num_classes=10)
    group = find(model)["conv_stem"]
    assert ("blocks.0.0.conv_dw", "depthwise") in roles(group)


def test_of_a_grouped_convolution_one_channel_of_each_group_goes():
    found = find(Net(nn.Conv2d(8, 8, 3, padding=1, groups=4)))
    assert set(found["first"].unit) == {(0, 2, 4, 6), (1, 3, 5, 7)}
    assert set(found["between"].unit) == {(0, 2, 4, 6), (1, 3, 5, 7)}


def test_of_a_group_norm_whole_groups_go():
    found = find(Net(nn.GroupNorm(4, 8)))
    assert found["first"].unit == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_layer_norms_and_layer_scales_belong_to_a_residual_stream():
    found = find(timm.create_model("convnext_atto", num_classes=10), 64)
    stream = found["stem.0"]
    assert stream.closes
    assert ("stages.0.blocks.0.norm", "norm") in roles(stream)
    model = timm.create_model("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    assert ("stages.0.blocks.0.gamma", "scale") in roles(find(model, 64)["stem.0"])


@pytest.mark.parametrize("attention", ["cbam", "triplet", "se", "nam", "nam-spatial", "ean", "bam"])
def test_attention_lets_every_channel_through(attention):
    model = graft(host("resnet20", 10), attention, input_size=32)
    found = find(model)
    assert len(found.groups) == 12
    gates = [m.layer for group in found.groups for m in group.members if m.role == "gate"]
    assert len(set(gates)) == len([1 for name, _ in model.named_modules() if name in gates]) > 0


def test_foreign_attention_of_any_width_lets_channels_through():
    from timm.layers import EcaModule

    model = graft(host("resnet20", 10), EcaModule, input_size=32)
    assert len(find(model).groups) == 12


@pytest.mark.parametrize("kind", ["EcaModule", "CecaModule"])
def test_a_hosts_own_eca_lets_channels_through(kind):
    found = find(Net(getattr(timm.layers, kind)(channels=8)))
    assert roles(found["first"]) == {("first", "out"), ("last", "in")}
    assert found["first"].unit == tuple((i,) for i in range(8))


def test_a_map_of_one_pixel_and_one_image_is_enough():
    model = graft(host("resnet20", 10), "cbam", input_size=4).train()
    assert len(find(model, 4).groups) == 12


def test_a_layer_that_cannot_be_cut_is_named_for_what_it_reads_and_what_it_makes():
    layers = (nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 2), nn.Conv2d(6, 5, 1))
    found = find(nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(5, 4, 1)))
    reason = "these channels reach a layer that cannot be cut (ConvTranspose2d at '1')"
    assert found.refused[:2] == (("0", reason), ("1", reason))
    assert [group.name for group in found.groups] == ["2"]


def test_foreign_attention_of_a_fixed_width_keeps_its_channels_and_no_others():
    model = graft(host("resnet20", 10), lambda channels: nn.BatchNorm2d(channels), input_size=32)
    found = find(model)
    assert [group.name for group in found.groups] == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    reasons = dict(found.refused)
    assert "keep_channels" in reasons["conv1"]
    assert "layer1.0.bn2.attn" in reasons["conv1"]


def test_what_mixes_channels_in_a_way_not_followed_is_refused_by_name_and_the_rest_goes_on():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.conv(x)
            return x.view(1, 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)

    found = find(nn.Sequential(Net(Shuffled(), behind=8), nn.ReLU(), Net(nn.ReLU(), 8, 8))[:1])
    assert "0.between.conv" in dict(found.refused)
    assert [group.name for group in found.groups] == ["0.first"]


def test_a_group_that_would_compute_something_else_is_refused_by_name():
    class Turned(nn.Module):  # the graph takes it for an operation that keeps channels in place
        def forward(self, x):
            return x.flip(1)

    found = find(nn.Sequential(Net(Turned()), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    assert dict(found.refused)["0.first"].startswith("the layers behind compute something else")
    assert [group.name for group in found.groups] == ["0.last"]


def test_a_network_that_the_graph_fails_on_is_slimmed_where_it_can_be():
    found = find(torchvision.models.shufflenet_v2_x0_5(num_classes=10))  # splits, and turns over
    assert "stage2.1.branch2.0" in {group.name for group in found.groups}
    assert any("compute something else" in reason for _, reason in found.refused)


def test_the_model_is_left_as_it_was():
    model = fuse(graft(host("resnet20", 10), "nam-channel"))
    model.train()
    before = copy.deepcopy(model.state_dict())
    find(model)
    assert model.training
    assert fused(model).mechanisms or fused(model).left
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_zero_scales_and_frozen_weights_do_not_blind_the_analysis():
    model = host("resnet20", 10).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "bn2" in name:
            parameter.zero_()
    with torch.no_grad():
        assert len(find(model).groups) == 12


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (torch.compile, "a compiled one"),
        (lambda m: m.to("meta"), "meta device"),
        (lambda m: 3, "nn.Module"),
    ],
)
def test_models_that_cannot_be_cut_are_refused(make, what):
    with pytest.raises(UnsupportedModel, match=what):
        find_groups(make(Net(nn.ReLU())), torch.zeros(1, 3, 8, 8))


def test_an_example_that_is_no_batch_of_images_is_refused():
    with pytest.raises(ConfigError, match="example_input to be a batch of images"):
        find_groups(Net(nn.ReLU()), torch.zeros(3, 8, 8))
    with pytest.raises(UnsupportedModel, match="Check example_input"):
        find_groups(Net(nn.ReLU()), torch.zeros(1, 4, 8, 8))
