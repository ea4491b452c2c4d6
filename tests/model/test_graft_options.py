"""Ways to name a mechanism, what is refused, all or nothing, and start="preserve"."""

import copy
import json
import warnings
from dataclasses import asdict, replace

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from normattn import graft, grafts, ungraft
from normattn.attention import SE, Gate, Mechanism, NAMChannel
from normattn.errors import ConfigError, InputError, UnsupportedModel
from normattn.model.graft import Grafted, regraft
from normattn.model.hosts import host


def resnet20(**options):
    """Build a small host whose norms are not all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = host("resnet20", 10, **options)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def outputs(model, channels=3):
    x = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(x)


def unchanged(model, action, error, match):
    """Expect a refusal that leaves the model as it was."""
    names = [name for name, _ in model.named_modules()]
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=match):
        action(model)
    assert [name for name, _ in model.named_modules()] == names
    assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def test_a_mechanism_is_a_name_a_record_or_a_callable():
    by_name = graft(resnet20(), "se", reduction=8)
    by_record = graft(resnet20(), Mechanism("se", {"reduction": 8}))
    by_class = graft(resnet20(), SE, reduction=8)
    assert grafts(by_name) == grafts(by_record)
    assert [g.options for g in grafts(by_name)] == [{"reduction": 8}] * 9
    assert by_name.state_dict().keys() == by_class.state_dict().keys()
    assert {g.mechanism for g in grafts(by_class)} == {"normattn.attention.se.SE"}
    assert {g.mechanism for g in grafts(graft(resnet20(), lambda c: SE(c)))} == {
        f"{__name__}.test_a_mechanism_is_a_name_a_record_or_a_callable.<locals>.<lambda>"
    }


def test_options_override_those_of_a_record():
    model = graft(resnet20(), Mechanism("se", {"reduction": 8}), reduction=4)
    assert grafts(model)[0].options == {"reduction": 4}


def test_none_leaves_the_host_alone():
    model = resnet20()
    modules = list(model.modules())
    assert graft(model, "none") is model
    assert list(model.modules()) == modules
    assert grafts(model) == ()


def test_the_default_sites_are_the_mechanisms():
    assert [g.site for g in grafts(graft(resnet20(), "bam"))] == ["layer1", "layer2"]
    assert len(grafts(graft(resnet20(), "cbam"))) == 9

    class Late(NAMChannel):
        default_sites = "stages"

    assert len(grafts(graft(resnet20(), Late))) == 2


def test_sizes_reach_mechanisms_that_need_them():
    sizes = [(g.size, g.channels) for g in grafts(graft(resnet20(), "nam-spatial", input_size=48))]
    assert sizes == [((48, 48), 16)] * 3 + [((24, 24), 32)] * 3 + [((12, 12), 64)] * 3

    class Sized(nn.Module):
        needs_size = True

        def __init__(self, channels, size):
            super().__init__()
            self.map = nn.Parameter(torch.ones(channels, *size))

        def forward(self, x):
            return x * self.map

    model = graft(resnet20(), Sized, sites="layer3.2.bn2")
    assert model.layer3[2].bn2.attn.map.shape == (64, 8, 8)


def test_new_modules_have_the_hosts_type_and_mode():
    model = graft(resnet20().double().train(), "se")
    added = [p for name, p in model.named_parameters() if ".attn." in name]
    assert {p.dtype for p in added} == {torch.float64}
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in graft(resnet20(), "se").modules())
    foreign = graft(resnet20().double(), lambda channels: SE(channels))
    assert {p.dtype for p in foreign.parameters()} == {torch.float64}


def test_two_mechanisms_can_live_at_different_sites():
    model = graft(graft(resnet20(), "bam"), "se")
    sites = [(g.mechanism, g.site) for g in grafts(model)]
    assert sites.count(("bam", "layer1")) == 1
    assert len(sites) == 11
    again = regraft(resnet20(), grafts(model))
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(outputs(again), outputs(model), rtol=0, atol=0)


@pytest.mark.parametrize("order", [("layer1.1", "layer1.1.bn2"), ("layer1.1.bn2", "layer1.1")])
def test_attention_inside_a_grafted_module_keeps_the_hosts_names(order):
    model = resnet20()
    keys, expected = list(model.state_dict()), outputs(model)
    for site in order:
        graft(model, "se", sites=site)
    assert [g.site for g in grafts(model)] == ["layer1.1", "layer1.1.bn2"]
    assert [k for k in model.state_dict() if ".attn." not in k] == keys
    assert {k.split(".attn.")[0] for k in model.state_dict() if ".attn." in k} == set(order)
    again = regraft(resnet20(), reversed(grafts(model)))
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(outputs(again), outputs(model), rtol=0, atol=0)
    assert_close(outputs(ungraft(model)), expected, rtol=0, atol=0)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("sites", ["blocks", "stages"])
def test_a_second_graft_at_a_site_is_refused(sites):
    model = graft(resnet20(), "se", sites=sites)
    expect = r"second graft at 'layer1" + (r"\.0\.bn2'" if sites == "blocks" else "'")
    unchanged(model, lambda m: graft(m, "cbam", sites=sites), UnsupportedModel, expect)


def test_a_second_graft_in_front_of_a_slot_is_refused():
    model = graft(timm.create_model("regnetx_002"), "half", input_size=64)
    expect = r"second graft at 's1\.b1\.drop_path'"
    unchanged(model, lambda m: graft(m, "half", input_size=64), UnsupportedModel, expect)


def test_a_layer_with_an_attn_of_its_own_is_refused():
    model = resnet20()
    model.layer2[1].attn = nn.Identity()
    expect = r"clash, got BasicBlock at 'layer2\.1'"
    unchanged(
        model, lambda m: graft(m, "se", sites=["layer1", "layer2.1"]), UnsupportedModel, expect
    )


def test_a_failure_at_a_late_site_changes_nothing_and_names_the_site():
    model = timm.create_model("mobilenetv2_050")
    match = r"EAN: expected .* \[at site 'blocks\.\d\.\d\.\w+'\]"
    unchanged(model, lambda m: graft(m, "ean", groups=16, input_size=64), InputError, match)

    def late(channels):
        if channels == 64:
            raise MemoryError("no more")
        return SE(channels)

    unchanged(resnet20(), lambda m: graft(m, late), MemoryError, "no more")


@pytest.mark.parametrize(
    ("mechanism", "options", "match"),
    [
        ("nam-chanel", {}, "Did you mean 'nam-channel'"),
        ("se", {"reductio": 4}, "Did you mean 'reduction'"),
        ("se", {"start": "preserved"}, "Did you mean 'preserve'"),
        (7, {}, "a mechanism's name or a callable that takes channels, got an object of int"),
        (SE(16), {}, "got an object of SE"),
        (lambda channels: channels, {}, "return an nn.Module, got int"),
        (lambda channels: nn.Conv2d(channels, 3, 1), {}, r"keep the shape .* got \(2, 3, 32, 32\)"),
    ],
)
def test_a_wrong_mechanism_is_refused(mechanism, options, match):
    unchanged(resnet20(), lambda m: graft(m, mechanism, **options), ConfigError, match)


def test_one_module_for_all_sites_is_refused():
    one = nn.Identity()
    unchanged(resnet20(), lambda m: graft(m, lambda channels: one), ConfigError, "new module for")


class Handed(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def deprecated(make):
    """Make a model by a way that torch has deprecated but that models still come from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def quantised():
    return deprecated(
        lambda: torch.ao.quantization.quantize_dynamic(resnet20(), {nn.Linear}, torch.qint8)
    )


def scripted():
    return deprecated(lambda: torch.jit.trace(resnet20(), torch.zeros(1, 3, 32, 32)))


def compiled_in_place():
    model = resnet20()
    model.layer1.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.compile(resnet20(), backend="eager"), r"compiled one \(OptimizedModule\)\."),
        (compiled_in_place, r"compiled one \(Sequential\) at 'layer1'"),
        (lambda: nn.DataParallel(resnet20()), r"wrapped for distribution \(DataParallel\)"),
        (lambda: Handed(nn.DataParallel(resnet20())), r"\(DataParallel\) at 'inner'"),
        (quantised, r"quantised one \(Linear\) at 'fc'"),
        (lambda: Handed(nn.LazyConv2d(8, 1)), r"not yet initialised \(LazyConv2d\) at 'inner'"),
        (scripted, r"a scripted one \(TopLevelTracedModule\)"),
        (lambda: "resnet20", "an nn.Module, got str"),
    ],
)
def test_a_model_that_cannot_be_changed_is_refused(make, what):
    model = make()
    for action in (lambda: graft(model, "se"), lambda: ungraft(model)):
        with pytest.raises(UnsupportedModel, match=what):
            action()


def test_a_distributed_wrapper_is_refused(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(resnet20())
        with pytest.raises(UnsupportedModel, match=r"distribution \(DistributedDataParallel\)"):
            graft(model, "se")
    finally:
        torch.distributed.destroy_process_group()


def test_a_graph_module_can_be_grafted():
    plain = torch.fx.symbolic_trace(resnet20())
    model = graft(plain, "nam-channel", input_size=32)
    assert [g.site for g in grafts(model)] == [
        f"layer{n}.{m}.bn2" for n in (1, 2, 3) for m in range(3)
    ]
    assert not torch.equal(outputs(model), outputs(resnet20()))


@pytest.mark.parametrize("mechanism", ["half", "nam-channel", "nam-spatial", "se", "ean"])
def test_preserve_keeps_the_outputs_near_and_paper_does_not(mechanism):
    trained = resnet20().train()
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it has seen, as training leaves them
    outputs(trained)
    trained.eval()
    expected = outputs(trained)

    def change(start):
        model = graft(copy.deepcopy(trained), mechanism, start=start)
        return float((outputs(model) - expected).norm() / expected.norm())

    assert change("preserve") < 0.5 * change("paper")


def test_preserve_is_exact_for_a_constant_gate_and_is_undone():
    model = resnet20()
    expected, weights = outputs(model), copy.deepcopy(model.state_dict())
    graft(model, "half", start="preserve")
    assert_close(outputs(model), expected)
    record = grafts(model)[4]
    assert (record.scaled, record.factor) == ("layer2.1.bn2", 2.0)
    norm = model.layer2[1].bn2.base
    assert_close(norm.weight, 2 * weights["layer2.1.bn2.weight"])
    assert_close(norm.bias, 2 * weights["layer2.1.bn2.bias"])
    ungraft(model)
    assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


def test_preserve_finds_the_norm_in_front_of_a_slot_and_in_a_sequential():
    regnet = graft(timm.create_model("regnetx_002"), "half", start="preserve", input_size=64)
    assert grafts(regnet)[0].scaled == "s1.b1.conv3.bn"
    ends = torchvision.models.mobilenet_v2(width_mult=0.25)
    graft(ends, "half", start="preserve", input_size=64)
    assert grafts(ends)[0].scaled == "features.1.conv.2"


@pytest.mark.parametrize(
    ("name", "sites", "at"),
    [
        ("convnext_atto", "blocks", r"stages\.0\.blocks\.0\.drop_path"),
        ("resnet18", "stages", "layer1"),
        ("efficientnet_b0", "blocks.1.0.bn1", r"blocks\.1\.0\.bn1"),  # ends in an activation
    ],
)
def test_preserve_needs_a_norm_right_in_front(name, sites, at):
    unchanged(
        timm.create_model(name),
        lambda m: graft(m, "half", sites=sites, start="preserve", input_size=64),
        UnsupportedModel,
        f"start='preserve', got none at '{at}'",
    )


class Shut(Gate):
    def gate(self, x):
        return x.new_zeros(())


def test_preserve_needs_a_gate_that_is_open():
    unchanged(
        resnet20(),
        lambda m: graft(m, Shut, start="preserve"),
        UnsupportedModel,
        r"initial gate between .* got 0\.0 at 'layer1\.0\.bn2'",
    )


def test_records_follow_a_model_into_another_and_out_again():
    inner = resnet20()
    expected = copy.deepcopy(inner.state_dict())
    outer = Handed(graft(inner, "half", start="preserve"))
    record = grafts(outer)[0]
    assert (record.site, record.scaled) == ("inner.layer1.0.bn2", "inner.layer1.0.bn2")
    part = grafts(inner.layer3)[-1]
    assert (part.site, part.scaled) == ("2.bn2", "2.bn2")
    ungraft(outer)
    assert_close(dict(inner.state_dict()), dict(expected), rtol=0, atol=0)


def test_missing_keys_are_named_as_in_the_host():
    model = graft(resnet20(), "se")
    weights = resnet20().state_dict()
    del weights["layer1.0.bn2.weight"]
    weights["layer1.0.bn2.extra"] = torch.zeros(1)
    answer = model.load_state_dict(weights, strict=False)
    assert "layer1.0.bn2.weight" in answer.missing_keys
    assert answer.unexpected_keys == ["layer1.0.bn2.extra"]


def records():
    return grafts(graft(resnet20(), "se"))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"site": "layer1.0.bn3"}, UnsupportedModel, r"Did you mean 'layer1\.0\.bn2'"),
        ({"site": ""}, UnsupportedModel, "got ''"),
        ({"mechanism": "os.system"}, ConfigError, "known mechanism, got 'os.system'"),
        ({"options": {"reductio": 1}}, ConfigError, "Did you mean 'reduction'"),
        ({"how": "append"}, UnsupportedModel, "Sequential to append to, got BatchNorm2d"),
        ({"how": "beside"}, ConfigError, "got 'beside'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change, error, match):
    last = replace(records()[-1], **change)
    unchanged(resnet20(), lambda m: regraft(m, [*records()[:-1], last]), error, match)


def test_a_record_survives_json():
    for record in records():
        assert Grafted(**json.loads(json.dumps(asdict(record)))) == record


def test_replaying_twice_at_one_site_is_refused():
    first = records()[0]
    unchanged(resnet20(), lambda m: regraft(m, [first, first]), UnsupportedModel, "site twice")
