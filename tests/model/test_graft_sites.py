"""The dry run: what counts as a branch, a stage or a match, and that looking changes nothing."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from normattn import find_sites, graft, grafts
from normattn.errors import ConfigError, UnsupportedModel
from normattn.model.hosts import host

COUNTS = {
    "timm": {
        "resnet18": 8,
        "resnet50": 16,
        "seresnet50": 16,
        "resnetv2_50": 16,
        "resnext50_32x4d": 16,
        "regnetx_002": 13,
        "regnety_002": 13,
        "mobilenetv2_100": 17,
        "mobilenetv3_small_100": 11,
        "efficientnet_b0": 16,
        "convnext_tiny": 18,
        "cspresnet50": 13,
        "fasternet_t0": 13,
    },
    "torchvision": {
        "resnet50": 16,
        "mobilenet_v2": 17,
        "mobilenet_v3_small": 11,
        "convnext_tiny": 18,
        "efficientnet_b0": 16,
        "regnet_y_400mf": 16,
    },
}


def build(library, name):
    if library == "timm":
        return timm.create_model(name)
    return getattr(torchvision.models, name)()


@pytest.mark.parametrize(
    ("library", "name", "count"),
    [(library, name, n) for library, names in COUNTS.items() for name, n in names.items()],
)
def test_the_number_of_branches_is_the_known_one(library, name, count):
    assert len(find_sites(build(library, name), input_size=64)) == count


def names(model, sites="blocks", **options):
    return [site.name for site in find_sites(model, sites, input_size=64, **options)]


@pytest.mark.parametrize(
    ("library", "name", "ends"),
    [
        ("timm", "resnet18", ["layer1", "layer2", "layer3"]),
        ("timm", "regnetx_002", ["s1.b1", "s2.b1", "s3.b4"]),
        ("timm", "convnext_atto", [f"stages.{n}.blocks" for n in range(3)]),
        ("timm", "mobilenetv2_100", [f"blocks.{n}" for n in range(1, 7)]),
        ("timm", "efficientnet_b0", [f"blocks.{n}" for n in range(1, 7)]),
        ("torchvision", "resnet50", ["layer1", "layer2", "layer3"]),
        ("torchvision", "mobilenet_v2", [f"features.{n}" for n in (3, 6, 10, 13, 16, 17)]),
        ("torchvision", "convnext_tiny", ["features.1", "features.3", "features.5"]),
    ],
)
def test_stages_end_where_the_papers_put_bam(library, name, ends):
    assert names(build(library, name), "stages") == ends


def test_a_sequential_stage_takes_bam_and_keeps_its_keys():
    model = host("resnet20", 10)
    keys = set(model.state_dict())
    graft(model, "bam")
    assert [(g.site, g.how) for g in grafts(model)] == [("layer1", "append"), ("layer2", "append")]
    added = set(model.state_dict()) - keys
    assert all(key.startswith(("layer1.attn.", "layer2.attn.")) for key in added)


def test_a_flat_network_takes_bam_behind_its_blocks():
    model = torchvision.models.mobilenet_v2(width_mult=0.25)
    keys = set(model.state_dict())
    graft(model, "bam", reduction=4, input_size=64)
    assert {g.how for g in grafts(model)} == {"after"}
    assert keys < set(model.state_dict())


def test_sites_say_what_was_seen_there():
    sites = {site.name: site for site in find_sites(timm.create_model("resnet18"), input_size=64)}
    first, projected = sites["layer1.0.bn2"], sites["layer2.0.bn2"]
    assert (first.channels, first.size, first.kind, first.how) == (
        64,
        (16, 16),
        "identity",
        "after",
    )
    assert (projected.channels, projected.size, projected.kind) == (128, (8, 8), "projection")
    assert first.fed_by == "layer1.0.bn2"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("layer1.*.bn2", ["layer1.0.bn2", "layer1.1.bn2", "layer1.2.bn2"]),
        (["layer3.2.bn1", "bn1"], ["bn1", "layer3.2.bn1"]),
        (("layer2", "layer[12]"), ["layer1", "layer2"]),
    ],
)
def test_patterns_choose_in_the_order_of_the_host(patterns, expected):
    assert names(host("resnet20", 10), patterns) == expected


def test_a_pattern_without_a_match_names_near_layers():
    with pytest.raises(ConfigError, match=r"got 'layer1\.0\.bn3'.*Did you mean 'layer1\.0\.bn2'"):
        find_sites(host("resnet20", 10), ["bn1", "layer1.0.bn3"])
    with pytest.raises(ConfigError, match="patterns of module names, got"):
        find_sites(host("resnet20", 10), [])
    with pytest.raises(ConfigError, match="got 3"):
        find_sites(host("resnet20", 10), 3)
    with pytest.raises(ConfigError, match=r"got 'block'\. Did you mean 'blocks'"):
        find_sites(host("resnet20", 10), "block")


class Adding(nn.Module):
    """Attention that looks like a residual block itself."""

    def __init__(self, channels):
        super().__init__()
        self.inside = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.inside(x)


def test_what_is_inside_attention_is_no_place_of_the_host():
    plain, grafted = host("resnet20", 10), graft(host("resnet20", 10), Adding)
    assert find_sites(grafted) == find_sites(plain)
    graft(grafted, Adding, sites="stages")
    with pytest.raises(ConfigError, match=r"got '\*inside'"):
        find_sites(grafted, "*inside")


def test_dropout_at_the_end_hides_no_norm():
    body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.5))
    (site,) = find_sites(Net(Residual(body)), input_size=8)
    assert (site.how, site.fed_by) == ("append", "blocks.0.body.1")


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_matched_layer_must_return_a_map():
    with pytest.raises(UnsupportedModel, match=r"shape \(1, 10\) from Linear at 'fc'"):
        find_sites(host("resnet20", 10), "fc")
    with pytest.raises(UnsupportedModel, match="no such output from ModuleList at 'blocks'"):
        find_sites(Net(nn.Conv2d(8, 8, 1)), "blocks*")
    with pytest.raises(UnsupportedModel, match="channels last, from LayerNorm"):
        find_sites(Net(ChannelsLast()), "blocks.0.norm", input_size=8)


def test_attention_follows_an_activation_that_was_chosen():
    model = host("resnet20", 10).eval()
    graft(model, "half", sites="act1")
    x = torch.randn(1, 3, 32, 32)
    seen = []
    model.layer1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
        expected = F.relu(model.bn1(model.conv1(x))) / 2
    assert_close(seen[0], expected)
    assert grafts(model)[0].how == "after"


class Net(nn.Module):
    """A stem, blocks in a list, a head."""

    def __init__(self, *blocks):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Squeeze(nn.Module):
    """Channel attention by linear layers, which must not look like features-last maps."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class Inline(nn.Module):
    """Blocks written out in one forward, a projection among them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.conv3, self.conv4 = nn.Conv2d(8, 16, 1, 2), nn.Conv2d(16, 16, 1)
        self.down = nn.Conv2d(8, 16, 1, 2)

    def forward(self, x):
        x = self.conv1(x)
        x = x.add(self.conv2(x))
        return self.conv4(self.conv3(x).relu()) + self.down(x)


def test_a_branch_that_squeezes_by_linear_layers_is_found():
    body = nn.Sequential(nn.Conv2d(8, 8, 1), Squeeze(8))
    assert names(Net(Residual(body))) == ["blocks.0.body"]


def test_blocks_written_out_in_one_forward_are_found():
    assert names(Inline()) == ["conv2", "conv4"]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(8, 8, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x + self.scale * self.conv(x)


def test_a_branch_that_no_module_ends_is_refused_by_name():
    with pytest.raises(UnsupportedModel, match=r"forward of Scaled at 'blocks\.1'"):
        find_sites(Net(Residual(nn.Conv2d(8, 8, 1)), Scaled()), input_size=8)


class TwoBranches(nn.Module):
    """Parallel branches of one depth, as in RepVGG: neither is a shortcut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.a(x) + self.b(x)


class Fuse(nn.Module):
    """A sum of two different inputs, as in a feature pyramid."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, pair):
        return pair[0] + self.conv(pair[1])


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.fuse = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), Fuse()

    def forward(self, x):
        return self.fuse([self.left(x), self.right(x)])


@pytest.mark.parametrize("model", [Net(TwoBranches()), Pyramid(), nn.Conv2d(3, 8, 1)])
def test_sums_that_join_no_shortcut_are_no_sites(model):
    with pytest.raises(UnsupportedModel, match="without any"):
        find_sites(model, input_size=8)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_maps_with_channels_last_in_shape_are_no_sites(library):
    if library == "timm":
        model = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 2, 2, 2))
    else:
        model = torchvision.models.swin_t()
    with pytest.raises(UnsupportedModel, match=r"branches of \(B, C, H, W\) maps"):
        find_sites(model)


def test_a_host_of_one_stage_has_no_stage_ends():
    with pytest.raises(UnsupportedModel, match="several stages, got Net with 1"):
        find_sites(Net(Residual(nn.Conv2d(8, 8, 1))), "stages", input_size=8)
    with pytest.raises(UnsupportedModel, match="several stages, got Inline with 0"):
        find_sites(Inline(), "stages", input_size=8)


class Twice(Residual):
    def forward(self, x):
        return x + self.body(self.body(x))


class Added(Residual):
    """A branch that joins two shortcuts and so ends twice."""

    def forward(self, x):
        y = self.body(x)
        return (x + y) * (2 * x + y)


def test_a_branch_that_is_added_twice_is_one_site():
    assert names(Net(Added(nn.Conv2d(8, 8, 1)))) == ["blocks.0.body"]


class Idle(nn.Module):
    """Does nothing at inference; perhaps with a weight."""

    def __init__(self, *sizes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*sizes)) if sizes else None

    def forward(self, x):
        return x + self.weight if self.training else x


@pytest.mark.parametrize(("slot", "how"), [(Idle(), "before"), (Idle(1), "after")])
def test_attention_goes_in_front_of_an_empty_slot_without_weights(slot, how):
    block = Residual(nn.Conv2d(8, 8, 1))
    block.slot = slot
    block.forward = lambda x: x + block.slot(block.body(x))
    (site,) = find_sites(Net(block), input_size=8)
    assert (site.name, site.how) == ("blocks.0.slot", how)


def test_a_layer_that_runs_twice_is_refused():
    conv, shared = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
    block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    with pytest.raises(UnsupportedModel, match=r"2 runs of Conv2d at 'blocks\.0\.body'"):
        find_sites(Net(Residual(conv), Residual(conv)), input_size=8)
    with pytest.raises(UnsupportedModel, match=r"2 runs of BatchNorm2d at 'blocks\.0'"):
        find_sites(Net(shared, block, shared), "blocks.0", input_size=8)
    with pytest.raises(UnsupportedModel, match=r"2 runs of Sequential at 'blocks\.0\.body'"):
        find_sites(Net(Twice(block)), input_size=8)


def test_a_second_name_for_a_stage_does_no_harm():
    model = Net(Residual(nn.Conv2d(8, 8, 1)), Residual(nn.Sequential(nn.Conv2d(8, 8, 1))))
    model.also = model.blocks
    model.first, model.last = model.blocks[0], model.blocks[1].body
    graft(model, "half", input_size=8)
    assert [g.site for g in grafts(model)] == ["blocks.0.body", "blocks.1.body"]
    with pytest.raises(UnsupportedModel, match=r"the names blocks\.0 and first of Residual"):
        find_sites(model, "first", input_size=8)


class Noisy(nn.Module):
    """Draws random numbers in evaluation, too."""

    def forward(self, x):
        return x * torch.rand_like(x)


def test_the_dry_run_leaves_no_trace():
    model = timm.create_model("resnet18", drop_rate=0.5, drop_path_rate=0.5).train()
    model.maxpool = Noisy()
    model.layer2.eval()
    flags = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    find_sites(model, input_size=64)
    assert_close(torch.rand(4), expected, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == flags
    assert_close(dict(model.named_buffers()), buffers, rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_failing_dry_run_leaves_no_trace_either():
    model = timm.create_model("resnet18").train()
    model.layer3 = nn.Linear(7, 7)
    with pytest.raises(
        UnsupportedModel, match=r"run on an input of shape \(1, 3, 64, 64\).*input_s"
    ):
        find_sites(model, input_size=64)
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_size_and_channels_of_the_images_come_from_the_host():
    sizes = {
        (host("resnet20", 10, in_chans=1), None): 32,
        (timm.create_model("resnet18"), None): 56,
        (timm.create_model("resnet18", in_chans=1), 64): 16,
    }
    for (model, size), side in sizes.items():
        assert find_sites(model, input_size=size)[0].size == (side, side)
    assert find_sites(host("resnet20", 10), input_size=(32, 48))[0].size == (32, 48)
    assert find_sites(Net(Residual(nn.Conv2d(8, 8, 1))))[0].size == (224, 224)


@pytest.mark.parametrize("size", [0, -1, 1.5, (3, 32, 32), (32, 0), True, "32"])
def test_an_input_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match="input_size to be a side or"):
        find_sites(host("resnet20", 10), input_size=size)


def test_a_model_on_the_meta_device_can_be_grafted():
    with torch.device("meta"):
        model = host("resnet20", 10)
    graft(model, "nam")
    assert len(grafts(model)) == 9
    assert all(parameter.is_meta for parameter in model.parameters())
