"""Grafting into every family: nothing of the host is lost, and the attention is really there."""

import copy
import json
import pickle
from dataclasses import asdict

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close
from torchvision.models import convnext

from normattn import create, graft, grafts, ungraft
from normattn.model.graft import Grafted, find_sites, regraft
from normattn.model.hosts import host


class Block(nn.Module):
    def __init__(self, channels, out_channels, stride=1):
        super().__init__()
        self.body = nn.ModuleList(
            [
                nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False),
                nn.ReLU(inplace=True),
                nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            ]
        )
        self.shortcut = None
        if stride != 1:
            self.shortcut = nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x):
        y = x
        for layer in self.body:
            y = layer(y)
        y += x if self.shortcut is None else self.shortcut(x)
        return y.relu_()


class Own(nn.Module):
    """What a user might write: a list of layers, an in-place sum, an operation at the end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Block(8, 8), Block(8, 16, 2), Block(16, 16)])
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


# Per family: how to build it, how many branches it has, where the first and the last one end.
FAMILIES = {
    "own": (Own, 3, "blocks.0.body.3", "blocks.2.body.3"),
    "resnet20": (lambda: host("resnet20", 10), 9, "layer1.0.bn2", "layer3.2.bn2"),
    "timm resnet18": (
        lambda: timm.create_model("resnet18", zero_init_last=False),
        8,
        "layer1.0.bn2",
        "layer4.1.bn2",
    ),
    "timm resnet18 with drop path": (
        lambda: timm.create_model("resnet18", zero_init_last=False, drop_path_rate=0.1),
        8,
        "layer1.0.bn2",  # the rate grows from 0, and the first block gets no slot at all
        "layer4.1.drop_path",
    ),
    "timm resnext26ts": (
        lambda: timm.create_model("resnext26ts"),
        8,
        "stages.0.0.drop_path",
        "stages.3.1.drop_path",
    ),
    "timm regnetx": (
        lambda: timm.create_model("regnetx_002"),
        13,
        "s1.b1.drop_path",
        "s4.b7.drop_path",
    ),
    "timm mobilenetv2": (
        lambda: timm.create_model("mobilenetv2_050"),
        17,
        "blocks.0.0.bn2",
        "blocks.6.0.bn3",
    ),
    "timm efficientnet": (
        lambda: timm.create_model("efficientnet_b0"),
        16,
        "blocks.0.0.bn2",
        "blocks.6.0.bn3",
    ),
    "timm convnext": (
        lambda: timm.create_model("convnext_atto"),
        12,
        "stages.0.blocks.0.drop_path",
        "stages.3.blocks.1.drop_path",
    ),
    "torchvision resnet18": (torchvision.models.resnet18, 8, "layer1.0.bn2", "layer4.1.bn2"),
    "torchvision mobilenet_v2": (
        torchvision.models.mobilenet_v2,
        17,
        "features.1.conv",
        "features.17.conv",
    ),
    "torchvision convnext": (
        lambda: convnext.ConvNeXt(
            [convnext.CNBlockConfig(*widths) for widths in ((8, 16, 2), (16, 24, 1), (24, None, 2))]
        ),
        5,
        "features.1.0.stochastic_depth",
        "features.5.1.stochastic_depth",
    ),
    "torchvision regnet": (
        torchvision.models.regnet_y_400mf,
        16,
        "trunk_output.block1.block1-0.f",
        "trunk_output.block4.block4-5.f",
    ),
}
each_family = pytest.mark.parametrize("family", FAMILIES)


def build(family):
    """Build a host whose norms have seen data, so that eval mode means something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[family][0]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.ones_(module.weight)  # timm starts some at 0: nothing behind them learns
                nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def images(batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def outputs(model):
    with torch.no_grad():
        return model(images())


@each_family
def test_every_branch_gets_its_module_and_every_module_runs(family):
    _, count, first, last = FAMILIES[family]
    model = graft(build(family), "nam-channel", input_size=64)
    records = grafts(model)
    assert [len(records), records[0].site, records[-1].site] == [count, first, last]
    runs = []
    for record in records:
        attention = find_attention(model, record.site)
        assert attention.channels == record.channels
        attention.register_forward_hook(
            lambda module, args, y, size=record.size: runs.append((tuple(y.shape[2:]), size))
        )
    outputs(model)
    assert len(runs) == count
    assert all(actual == recorded for actual, recorded in runs)


def find_attention(model, site):
    """Find a grafted module by the name that its keys have in the state dict."""
    names = {name.replace(".base", ""): module for name, module in model.named_modules()}
    return names[f"{site}.attn"]


@each_family
def test_no_key_of_the_host_is_renamed_and_its_weights_still_load(family):
    plain = build(family)
    weights = copy.deepcopy(plain.state_dict())
    model = graft(build(family), "nam-channel", input_size=64)
    state = model.state_dict()
    kept = [key for key in state if ".attn." not in key]
    assert kept == list(weights)
    prefixes = tuple(f"{record.site}.attn." for record in grafts(model))
    added = [key for key in state if ".attn." in key]
    assert all(key.startswith(prefixes) for key in added)

    for tensor in model.state_dict().values():
        tensor.zero_()
    answer = model.load_state_dict(weights, strict=False)
    # torch does not miss the count of batches in weights that have no version of the layer.
    counted = {key for key in added if not key.endswith("num_batches_tracked")}
    assert set(answer.missing_keys) == counted
    assert answer.unexpected_keys == []
    for key, value in weights.items():
        assert_close(model.state_dict()[key], value, rtol=0, atol=0)


@each_family
def test_half_gates_are_the_same_as_halved_branches(family):
    model = graft(build(family), "half", input_size=64)
    plain = build(family)
    halves = 0
    for site in find_sites(plain, input_size=64):
        if site.fed_by is not None:
            norm = plain.get_submodule(site.fed_by)
            norm.weight.data /= 2
            norm.bias.data /= 2
            halves += 1
    if halves == 0:  # ConvNeXt scales its branches itself
        for name, parameter in plain.named_parameters():
            if name.endswith(("gamma", "layer_scale")):
                parameter.data /= 2
                halves += 1
    assert halves == FAMILIES[family][1]
    assert_close(outputs(model), outputs(plain))


@each_family
def test_all_attention_learns(family):
    model = graft(build(family), "nam-channel", input_size=64).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of which drop path drops no branch for both images
        model(images()).square().sum().backward()
    parameters = [p for name, p in model.named_parameters() if ".attn." in name]
    assert parameters
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert all(p.grad.any() for p in parameters)


@each_family
def test_copies_pickles_and_loaded_weights_give_the_same_outputs_and_records(family):
    model = graft(build(family), "nam-channel", input_size=64)
    expected, records = outputs(model), grafts(model)
    assert records

    loaded = graft(build(family), "nam-channel", input_size=64)
    for parameter in loaded.parameters():
        parameter.data.zero_()
    answer = loaded.load_state_dict(model.state_dict(), strict=True)
    assert (answer.missing_keys, answer.unexpected_keys) == ([], [])

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert_close(outputs(twin), expected, rtol=0, atol=0)
        assert grafts(twin) == records
        for parameter in twin.parameters():
            parameter.data.zero_()
    assert_close(outputs(model), expected, rtol=0, atol=0)


@each_family
def test_ungraft_gives_the_host_back(family):
    model = build(family)
    modules, keys, expected = dict(model.named_modules()), list(model.state_dict()), outputs(model)
    graft(model, "nam-channel", input_size=64)
    assert not torch.equal(outputs(model), expected)
    assert ungraft(model) is model
    assert grafts(model) == ()
    assert list(model.state_dict()) == keys
    assert dict(model.named_modules()) == modules
    assert_close(outputs(model), expected, rtol=0, atol=0)


@each_family
def test_records_replay_on_a_plain_host_through_json(family):
    model = graft(build(family), "nam", sites="blocks", input_size=64, weighting="mean")
    text = json.dumps([asdict(record) for record in grafts(model)])
    records = [Grafted(**record) for record in json.loads(text)]
    again = regraft(build(family), records)
    assert grafts(again) == grafts(model)
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(outputs(again), outputs(model), rtol=0, atol=0)


@each_family
def test_converting_norms_to_syncbn_loses_nothing(family):
    model = graft(build(family), "nam-channel", input_size=64)
    expected, records, keys = outputs(model), grafts(model), list(model.state_dict())
    if family.startswith("timm"):  # its norms contain activations, which torch's would drop
        model = timm.layers.convert_sync_batchnorm(model)
    else:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert grafts(model) == records
    assert list(model.state_dict()) == keys
    assert_close(outputs(model), expected)


@each_family
def test_channels_last_works(family):
    model = graft(build(family), "nam-channel", input_size=64)
    expected = outputs(model)
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        actual = model(images().to(memory_format=torch.channels_last))
    assert_close(actual, expected, rtol=1e-3, atol=1e-4)  # other convolution kernels run


@each_family
def test_compiles_without_a_graph_break(family):
    model = graft(build(family), "nam-channel", input_size=64)
    expected = outputs(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(outputs(compiled), expected)


@each_family
def test_exports(family):
    model = graft(build(family), "nam-channel", input_size=64)
    program = torch.export.export(model, (images(),))
    assert_close(program.module()(images()), outputs(model))
    assert set(program.state_dict) <= set(model.state_dict()) | {
        name for name, _ in model.named_parameters()
    } | {name for name, _ in model.named_buffers()}


@each_family
def test_bfloat16_autocast_trains(family):
    model = graft(build(family), "nam-channel", input_size=64).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(images()).float().square().mean()
    loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if ".attn." in name)


def test_graft_does_what_timms_own_slot_does():
    slot = build("timm resnet18")
    for block in slot.modules():
        if type(block).__name__ == "BasicBlock":
            block.se = seeded_se(block.bn2.num_features)
    model = graft(build("timm resnet18"), seeded_se, input_size=64)
    assert_close(outputs(model), outputs(slot), rtol=0, atol=0)


def seeded_se(channels):
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        return create("se", channels)
