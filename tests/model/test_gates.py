"""What gates do to real images is measured once, in bounded memory, and said in plain numbers."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn import fold, fuse, graft, host, plan_slim, slim
from normattn.attention import Gate
from normattn.errors import ConfigError, DataError, InputError, UnsupportedModel
from normattn.kernels import cpu
from normattn.model import _gates_sketch
from normattn.model._gates_watch import gate_values
from normattn.model.gates import Gates, gates


class Given(Gate):
    """Multiplies by the values that it is given, whatever comes in."""

    def __init__(self, channels, values):
        super().__init__(channels)
        self.values = values

    def gate(self, x):
        return self.values


def of(values):
    """Return what is found of a model whose one gate takes these values."""
    values = torch.as_tensor(values, dtype=torch.float32).view(1, 1, -1, 1)
    return gates(nn.Sequential(Given(1, values)), [torch.ones(1, 1, values.numel(), 1)])


def only(values):
    return of(values).sites[0]


# What is measured


def test_numbers_are_those_of_all_values_of_all_batches(tiny):
    model = tiny("cifar projection", "nam-channel").eval()
    batches = torch.randn(5, 3, 8, 8), torch.randn(2, 3, 8, 8)
    attention = next(m for m in model.modules() if isinstance(m, Gate))
    values = []
    handle = attention.register_forward_hook(
        lambda gate, args, _: values.append(gate_values(gate, args[0]).flatten())
    )
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    values = torch.cat(values).double()
    found = gates(model, [(batches[0], torch.zeros(5)), batches[1]])
    site = found.sites[0]
    assert (found.images, site.values, site.sampled) == (7, len(values), len(values))
    assert_close(site.mean, float(values.mean()), rtol=1e-7, atol=0)
    assert_close(site.spread, float(values.std(correction=0)), rtol=1e-5, atol=0)
    assert (site.lowest, site.highest) == (float(values.min()), float(values.max()))
    shares = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], dtype=torch.float64)
    assert_close(list(site.quantiles), torch.quantile(values, shares).tolist(), rtol=1e-7, atol=0)
    assert site.below == float((values < 0.05).double().mean())
    assert site.above == float((values > 0.95).double().mean())
    assert sum(site.histogram) == len(values)
    assert site.scale == pytest.approx(attention.norm.weight.tolist())
    assert site.importance == pytest.approx(attention.importance().tolist())


def test_spread_of_a_gate_that_hardly_moves_keeps_its_digits():
    values = 0.5 + 1e-6 * torch.arange(-100, 101)
    expected = float(values.double().std(correction=0))
    assert_close(only(values).spread, expected, rtol=1e-4, atol=0)


def test_distinct_values_are_counted_in_each_type():
    # bfloat16 has steps of 1/256 from ½ on; int8 of 0.51/255 from 0 to the highest value.
    site = only(torch.linspace(0.5, 0.51, 1000))
    assert dict(site.distinct) == {"float32": 1000, "bfloat16": 4, "int8": 6}


def test_int8_takes_the_nearest_level():
    assert only([1.4 / 255, 1.6 / 255, 1.0]).distinct["int8"] == 3


def test_saturation_is_the_share_near_0_and_near_1():
    site = only([0.0, 0.049, 0.051, 0.5, 0.949, 0.951, 0.96, 1.0])
    assert (site.below, site.above) == (2 / 8, 3 / 8)


def test_a_constant_gate_has_no_spread_and_one_bin():
    site = only([0.3] * 1000)
    assert (site.spread, site.width, site.histogram) == (0.0, 0.0, (1000,))
    assert dict(site.distinct) == {"float32": 1, "bfloat16": 1, "int8": 1}


def test_nam_is_told_as_its_product_and_its_two_parts(tiny, images):
    whole, channel, spatial = gates(tiny(attention="nam"), [images]).sites[:3]
    assert [s.part for s in (whole, channel, spatial)] == ["", "channel", "spatial"]
    assert len({s.site for s in (whole, channel, spatial)}) == 1
    assert whole.lowest < channel.lowest * spatial.highest
    assert len(channel.scale) == whole.channels
    assert len(spatial.importance) == 64  # pixels
    assert whole.scale == whole.importance == ()


def test_memory_is_bounded_and_the_sample_seeded(monkeypatch):
    monkeypatch.setattr(_gates_sketch, "SAMPLE", 512)
    monkeypatch.setattr(_gates_sketch, "_AT_ONCE", 1000)
    values = torch.rand(1, 1, 9000, 1, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(Given(1, values))
    first, again, other = (
        gates(model, [torch.ones(4, 1, 9000, 1)], seed=seed).sites[0] for seed in (0, 0, 1)
    )
    assert (first.values, first.sampled, sum(first.histogram)) == (36000, 512, 512)
    assert first == again
    assert first.quantiles != other.quantiles
    assert first.mean == other.mean  # of all values
    assert first.quantiles[3] == pytest.approx(0.5, abs=0.1)


# Which models


def test_labels_and_sites_are_those_that_the_user_grafted():
    model = graft(host("resnet20", 10), "ean", groups=8)
    found = gates(model, [torch.randn(1, 3, 32, 32)])
    assert found.mechanism == "ean(groups=8)"
    assert found.sites[0].site == "layer1.0.bn2"


def test_a_fused_model_is_measured_in_its_plain_form_and_stays_fused(tiny, images, monkeypatch):
    monkeypatch.setattr(cpu, "GATE_ELEMENTS", 0)
    plain = gates(tiny(), [images])
    model = fuse(tiny())
    classes = [type(module) for module in model.modules()]
    assert gates(model, [images]) == plain
    assert [type(module) for module in model.modules()] == classes


def test_slimmed_and_folded_models_are_measured(tiny, images):
    model = tiny("timm basic", "nam-channel").eval()
    before = gates(fold(model), [images]).sites
    assert [s.mechanism for s in before] == ["FoldedGate"] * len(before)
    for folded, site in zip(before, gates(model, [images]).sites, strict=True):
        assert folded.mean == pytest.approx(site.mean, rel=1e-5)
    plan = plan_slim(model, images[:1], {"channels": 0.5}, "magnitude", round_to=1)
    slim(model, plan)
    assert sum(s.channels for s in gates(model, [images]).sites) < sum(s.channels for s in before)


def test_the_model_and_the_random_state_stay_as_they_were(tiny, images):
    model = tiny()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def loader():
        torch.rand(3)  # as a shuffling DataLoader does
        yield images

    before = torch.get_rng_state()
    gates(model, loader())
    with pytest.raises(DataError):
        gates(model, iter([images, "no images"]))
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_half_precision_model_is_measured_on_images_of_float32(tiny, images):
    expected = gates(tiny(), [images]).sites[0]
    found = gates(tiny().bfloat16(), [images]).sites[0]
    assert found.mean == pytest.approx(expected.mean, abs=0.01)


# What is refused, and what is left out in plain sight


@pytest.mark.parametrize("model", [host("resnet20", 10), graft(host("resnet20", 10), "none")])
def test_a_model_without_attention_is_refused(model):
    with pytest.raises(UnsupportedModel, match="expected a model with attention, got none"):
        gates(model, [torch.randn(1, 3, 32, 32)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "at least one batch"),
        ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], "normalised images"),
        ([torch.zeros(3, 8, 8)], "normalised images"),
    ],
)
def test_data_that_are_no_batches_of_images_are_refused(tiny, data, said):
    with pytest.raises(DataError, match=f"gates: expected .*{said}"):
        gates(tiny(), data)


def test_a_gate_that_is_no_number_is_refused_with_its_site(tiny, images):
    model = tiny()
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity at '1'"):
        gates(graft(model[:1].append(nn.Identity()), "se", sites="1", reduction=4), [images])


def test_attention_without_a_gate_is_named(images):
    strange = graft(host("resnet20", 10), nn.BatchNorm2d, sites="layer1.0.bn2")
    with pytest.raises(UnsupportedModel, match=r"layer1.0.bn2: BatchNorm2d has no gate\(x\)"):
        gates(strange, [images])
    mixed = graft(strange, "se", sites="layer1.1.bn2")
    found = gates(mixed, [images])
    assert [site.site for site in found.sites] == ["layer1.1.bn2"]
    assert [site for site, _ in found.left_out] == ["layer1.0.bn2"]
    assert "layer1.0.bn2: BatchNorm2d" in found.table()


def test_a_gate_that_never_runs_is_named(tiny, images):
    model = tiny()
    model.idle = Given(1, torch.ones(1))
    model.forward = lambda x: model[1](model[0](x))
    found = gates(model, [images])
    assert ("idle", "the model never called it") in found.left_out


# How it is shown


def test_the_published_nam_is_called_nearly_constant_and_its_range_said(images):
    torch.manual_seed(0)
    model = graft(host("resnet20", 10), "nam-channel")
    found = gates(model, [images])
    first, half, steps = found.summary
    assert first.startswith("All 9 gates are nearly constant")
    assert "of ½" in half or "from ½" in half.lower()
    assert "bfloat16 keeps" in steps


def test_a_gate_that_uses_its_range_is_not_called_constant():
    assert of(torch.linspace(0, 1, 101)).summary[0].startswith("0 of 1 gates")
    assert "98 % of the way" in of(torch.linspace(0, 1, 101)).summary[0]


def test_constants_are_told_as_the_number_that_they_are(images):
    model = graft(host("resnet20", 10), "half")
    assert gates(model, [images]).summary == (
        "Every gate multiplies by the same number everywhere: 0.5.",
    )


def test_the_table_has_a_line_a_gate_and_the_figure_a_row(tiny, images):
    found = gates(tiny(attention="nam"), [images])
    lines = found.table().splitlines()
    assert lines[0] == "nam(weighting=mean) over 4 images"
    assert [line.split("  ")[0] for line in lines[2 : 2 + len(found.sites)]] == [
        site.name for site in found.sites
    ]
    assert str(found) == found.table()
    scale, _ = found.plot().axes
    assert [label.get_text() for label in scale.get_yticklabels()] == [
        site.name for site in found.sites
    ]
    assert scale.get_xlim() == (0, 1)


def test_it_comes_back_from_json(tiny, images):
    found = gates(tiny(attention="nam"), [images])
    assert Gates.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(format=2),
        lambda content: content.pop("sites"),
        lambda content: content["sites"][0].update(mean="much"),
        lambda content: content["sites"][0].update(quantiles=[0.5]),
        lambda content: content["sites"][0].update(surprise=1),
    ],
)
def test_other_content_is_refused(spoil):
    content = json.loads(json.dumps(of([0.4, 0.6]).to_json()))
    spoil(content)
    with pytest.raises(ConfigError, match="expected what to_json gave, of format 1"):
        Gates.from_json(content)
