import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from normattn import graft, grafts, host
from normattn.errors import UnsupportedModel
from normattn.model._widths import resize
from normattn.model.graft import regraft
from normattn.model.slim import plan_slim, slim

TINY_TIMM = {
    "resnet": ("resnet18", {"channels": (8, 16, 16, 24), "layers": (1, 1, 1, 1), "stem_width": 8}),
    "mobilenetv2": ("mobilenetv2_035", {}),
    "convnext": ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (16, 16, 24, 32)}),
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": (2, 2)}),
    "regnet": ("regnetx_002", {}),
    "group norm": ("resnetv2_50", {"layers": (1, 1, 1, 1), "norm_layer": "groupnorm"}),
}


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def kept(model):
    return {record.site: record.kept for record in grafts(model) if record.kept is not None}


def slimmed(model, example, criterion="random", **options):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape) * 0.1)
    return slim(model, plan_slim(model, example, {"channels": 0.5}, criterion, **options)).eval()


@pytest.mark.parametrize("family", list(TINY_TIMM))
def test_a_model_built_anew_takes_the_weights_of_a_slimmed_one(family):
    name, options = TINY_TIMM[family]
    options = dict(options)
    if family == "group norm":
        options["norm_layer"] = lambda channels, **_: timm.layers.GroupNormAct(channels, 8)
    x = torch.rand(2, 3, 64, 64)
    model = slimmed(timm.create_model(name, num_classes=5, **options), x)
    fresh = timm.create_model(name, num_classes=5, **options)
    assert resize(fresh, shapes(model), {}) is fresh
    fresh.load_state_dict(model.state_dict())
    assert_close(fresh.eval()(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "attention", ["none", "half", "nam", "nam-spatial", "ean", "se", "cbam", "triplet"]
)
def test_grafted_attention_is_narrowed_to_what_was_kept(attention):
    x = torch.rand(2, 3, 32, 32)
    model = slimmed(graft(host("resnet20", 10), attention, input_size=32), x)
    # As from a file: the record of each graft, with its original channels and what was kept.
    fresh = regraft(host("resnet20", 10), grafts(model))
    resize(fresh, shapes(model), kept(model))
    fresh.load_state_dict(model.state_dict())
    assert_close(fresh.eval()(x), model(x), rtol=0, atol=0)
    assert grafts(fresh) == grafts(model)


def test_ean_finds_back_to_places_of_all_groups_or_whole_groups():
    x = torch.rand(2, 3, 16, 16)

    class Net(nn.Module):
        def __init__(self, groups):
            super().__init__()
            self.conv = nn.Conv2d(3, 32, 1, bias=False)
            self.norm = nn.BatchNorm2d(32)
            self.last = nn.Conv2d(32, 4, 1)
            graft(self, "ean", sites="norm", input_size=16, groups=groups)

        def forward(self, x):
            return self.last(self.norm(self.conv(x)))

    for groups, left in ((2, (2, 8)), (16, (8, 2))):
        model = slimmed(Net(groups), x)
        fresh = resize(Net(groups), shapes(model), kept(model))
        fresh.load_state_dict(model.state_dict())
        assert_close(fresh.eval()(x), model(x), rtol=0, atol=0)
        gate = model.norm.attn
        assert (gate.groups, len(gate.weight)) == left


def test_a_model_slimmed_twice_is_found_back():
    x = torch.rand(2, 3, 32, 32)
    model = slimmed(graft(host("resnet20", 10), "nam", input_size=32), x)
    model = slim(model, plan_slim(model, x, {"channels": 0.5}, "random", round_to=1, seed=1))
    fresh = resize(regraft(host("resnet20", 10), grafts(model)), shapes(model), kept(model))
    fresh.load_state_dict(model.state_dict())
    assert_close(fresh.eval()(x), model.eval()(x), rtol=0, atol=0)
    assert {record.kept for record in grafts(fresh)} == {4, 8, 16}


def test_widths_that_no_slimming_leaves_are_refused():
    with pytest.raises(UnsupportedModel, match=r"conv1.weight to be of \(16, 3, 3, 3\)"):
        resize(host("resnet20", 10), {"conv1.weight": torch.Size((32, 3, 3, 3))}, {})


def test_attention_that_no_record_tells_of_is_refused():
    from normattn.attention import EAN

    model = nn.Sequential(nn.Conv2d(3, 32, 1), EAN(32, groups=2))
    with pytest.raises(UnsupportedModel, match="Graft it instead"):
        resize(model, {"1.weight": torch.Size((8,))}, {})
