"""The sparsity penalty: eq. 4 by hand, its gradient, and whose scales it acts on."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.attention import CBAM, EAN, NAM, NAMChannel
from normattn.errors import ConfigError
from normattn.model.sparsify import closing_norms, scale_factors, soft_threshold, sparsity


@pytest.fixture
def model():
    """Return a host norm, a NAM with scales of its own, and an EAN, which is not penalised."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), NAM(4, size=(2, 3)), EAN(4, groups=2)
    )
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def names(model, on):
    return [name for name, _ in scale_factors(model, on)]


def test_it_is_eq_4(model):
    total = sum(
        abs(value) for gate in (model[2],) for scale in gate.scales() for value in scale.tolist()
    )
    assert float(sparsity(model, 0.3).detach()) == pytest.approx(0.3 * total)


def test_its_gradient_is_p_times_the_sign_and_zero_at_zero(model):
    scale = model[2].scales()[0]
    scale.data[0] = 0
    sparsity(model, 0.3).backward()
    assert_close(scale.grad, 0.3 * scale.detach().sign())
    assert float(scale.grad[0]) == 0
    assert model[1].weight.grad is None


def test_attention_takes_the_gates_that_the_paper_penalises(model):
    found = {id(p) for _, p in scale_factors(model, "attention")}
    assert found == {id(scale) for scale in model[2].scales()}
    assert len(found) == 2


def test_norms_takes_the_hosts_and_none_inside_a_gate(model):
    assert names(model, "norms") == ["1.weight"]
    assert names(nn.Sequential(CBAM(16)), "norms") == []
    plain = normattn.host("resnet20", 10)
    grafted = normattn.graft(normattn.host("resnet20", 10), nn.BatchNorm2d)  # another's attention
    assert names(grafted, "norms") == names(plain, "norms")


def test_all_is_both_in_the_order_of_the_model(model):
    assert names(model, "all") == ["1.weight", *names(model, "attention")]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.InstanceNorm2d(4, affine=True),
        timm.layers.BatchNormAct2d(4),
        timm.layers.LayerNorm2d(4),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_kind_of_norm_counts(norm):
    assert names(nn.Sequential(norm), "norms") == ["0.weight"]


def test_a_norm_without_scale_does_not(model):
    assert names(nn.Sequential(nn.BatchNorm2d(4, affine=False)), "norms") == []


def test_names_are_those_of_the_state_dict():
    model = normattn.graft(normattn.host("resnet20", 10), "nam-channel")
    assert set(names(model, "all")) <= set(model.state_dict())
    assert "layer1.0.bn2.weight" in names(model, "norms")
    assert names(model, "attention")[0] == "layer1.0.bn2.attn.norm.weight"


def test_a_scale_used_twice_counts_once():
    shared = nn.BatchNorm2d(4)
    assert float(sparsity(nn.Sequential(shared, shared), 1.0, on="norms").detach()) == 4


def test_a_gate_grafted_twice_under_one_name_counts_once():
    gate = NAMChannel(4)
    assert len(scale_factors(nn.Sequential(gate, gate), "attention")) == 1


def test_nothing_to_penalise_says_what_to_do():
    with pytest.raises(ConfigError, match=r"got none with on='attention'.*on='norms'"):
        sparsity(nn.Sequential(nn.BatchNorm2d(4)), 0.1)


@pytest.mark.parametrize("p", [-1, float("nan"), float("inf"), True, "0.1", None])
def test_a_senseless_weight_is_refused(model, p):
    with pytest.raises(ConfigError, match="expected p to be"):
        sparsity(model, p)


def test_an_unknown_place_names_the_nearest(model):
    with pytest.raises(ConfigError, match="Did you mean 'norms'"):
        sparsity(model, 0.1, on="norm")


def test_soft_threshold_by_hand(model):
    model[1].weight.data = torch.tensor([0.3, -0.3, 0.1, -2.0])
    before = [scale.detach().clone() for scale in model[2].scales()]
    assert soft_threshold(model, 0.2, on="norms") is model
    assert_close(model[1].weight.detach(), torch.tensor([0.1, -0.1, 0.0, -1.8]))
    assert model[1].weight.tolist()[2] == 0
    assert all(map(torch.equal, model[2].scales(), before))


def test_soft_threshold_is_the_proximal_point(model):
    """The minimum of ½(s - x)² + amount·|s|, found here by looking at many s."""
    model.double()
    x = model[2].scales()[0].detach().clone()
    candidates = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    cost = (candidates - x[:, None]) ** 2 / 2 + 0.4 * candidates.abs()
    soft_threshold(model, 0.4)
    assert_close(model[2].scales()[0].detach(), candidates[cost.argmin(1)], atol=1e-4, rtol=0)


def test_soft_threshold_skips_what_is_named(model):
    attention = names(model, "attention")
    before = model[1].weight.detach().clone(), model[2].scales()[1].detach().clone()
    soft_threshold(model, 9, on="all", skip=["1.*", attention[1]])
    assert torch.equal(model[1].weight, before[0])
    assert torch.equal(dict(scale_factors(model, "all"))[attention[1]], before[1])
    assert not dict(scale_factors(model, "all"))[attention[0]].any()


def test_soft_threshold_keeps_what_is_no_number(model):
    """A training looks for these before it saves; zeroed they would never be seen."""
    model[1].weight.data[:2] = torch.tensor([torch.nan, torch.inf])
    soft_threshold(model, 0.2, on="norms")
    assert model[1].weight[:2].tolist() == pytest.approx([torch.nan, torch.inf], nan_ok=True)


def test_soft_threshold_refuses_what_makes_no_sense(model):
    with pytest.raises(ConfigError, match="soft_threshold: expected amount to be"):
        soft_threshold(model, -0.1)
    with pytest.raises(ConfigError, match=r"soft_threshold: .* got none with on='attention'"):
        soft_threshold(nn.Sequential(nn.BatchNorm2d(4)), 0.1)
    with pytest.raises(ConfigError, match=r"got '2\.weigth'"):
        soft_threshold(model, 0.1, on="norms", skip="2.weigth")


def test_closing_norms_are_names_of_the_state_dict():
    model = normattn.graft(normattn.host("resnet20", 10), "nam-channel")
    found = closing_norms(model, torch.zeros(1, 3, 32, 32))
    assert found == tuple(f"layer{s}.{b}.bn2.weight" for s in (1, 2, 3) for b in range(3))
    assert set(found) < set(names(model, "norms"))
