"""Norms in front of additions: found in every family, behind attention, and nowhere else."""

import pytest
import timm
import torch
from torch import nn

import normattn
from normattn.errors import UnsupportedModel
from normattn.model.sparsify import closing_norms, scale_factors

IMAGE = torch.zeros(1, 3, 64, 64)


def short(names):
    return [name.removesuffix(".weight") for name in names]


def build(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=4, **options)


def test_both_sides_of_an_addition_count_and_the_first_layers_do_not():
    found = short(closing_norms(build("resnet26"), IMAGE))
    ends = [f"layer{s}.{b}.bn3" for s in range(1, 5) for b in range(2)]
    projections = [f"layer{s}.0.downsample.1" for s in range(1, 5)]
    assert sorted(found) == sorted(ends + projections)


def test_an_inverted_residual_counts_where_something_is_added():
    model = build("mobilenetv2_050")
    found = short(closing_norms(model, IMAGE))
    added = [name for name, m in model.named_modules() if getattr(m, "has_skip", False)]
    assert sorted(found) == sorted(f"{name}.bn3" for name in added)
    assert len(found) == 10


@pytest.mark.parametrize("name", ["resnetv2_18", "convnext_atto", "densenet121"])
def test_networks_without_such_norms_have_none(name):
    """Norms come first there, or a convolution or a linear layer stands before the addition."""
    model = build(name)
    assert closing_norms(model, IMAGE) == ()
    assert scale_factors(model, "norms")


@pytest.mark.parametrize("mechanism", ["nam", "se", "cbam", "bam", "triplet", "ean"])
def test_attention_in_front_of_the_addition_hides_nothing(mechanism):
    plain, image = normattn.host("resnet20", 4), torch.zeros(1, 3, 32, 32)
    grafted = normattn.graft(normattn.host("resnet20", 4), mechanism, sites="blocks", input_size=32)
    assert closing_norms(grafted, image) == closing_norms(plain, image)


def test_attention_of_the_host_hides_nothing():
    found = closing_norms(build("seresnet18"), IMAGE)
    assert found == closing_norms(build("resnet18"), IMAGE)


def test_fused_models_are_seen_as_plain_ones():
    model = normattn.host("resnet20", 4)
    expected = closing_norms(model, torch.zeros(1, 3, 32, 32))
    fused = normattn.fuse(model)
    before = str(normattn.fused(fused))
    assert closing_norms(fused, torch.zeros(1, 3, 32, 32)) == expected
    assert str(normattn.fused(fused)) == before  # what has run is counted, and this was no run
    assert type(fused.layer1[0]).__name__.startswith("Fused")


class Tokens(nn.Module):
    """A block of a network of tokens whose norm comes last, as in Swin V2."""

    def __init__(self):
        super().__init__()
        self.before = nn.LayerNorm(8)
        self.mlp = nn.Linear(8, 8)
        self.after = nn.LayerNorm(8)

    def forward(self, x):
        x = self.before(x)
        return x + self.after(self.mlp(x))


def test_tokens_are_seen_too():
    model = nn.Sequential(nn.Linear(3, 8), Tokens())
    assert closing_norms(model, torch.zeros(1, 5, 3)) == ("1.after.weight",)


class Joined(nn.Module):
    """A residual block in the forward of the whole model, with much between norm and addition."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.stem(x)
        branch = nn.functional.dropout(self.branch(x).clamp(min=0) * 0.5, 0.5, self.training)
        return self.head(torch.add(branch, x))


def test_what_is_not_learned_is_looked_through():
    assert closing_norms(Joined(), IMAGE) == ("branch.1.weight",)


class Pooled(nn.Module):
    """A block whose shortcut has no norm; what it is given may come straight from one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x) + nn.functional.avg_pool2d(x, 2)


def test_what_a_block_is_given_is_not_in_front_of_its_addition():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Pooled())
    assert closing_norms(model, IMAGE) == ()


def test_the_model_stays_as_it_was():
    model = build("resnet26").train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    closing_norms(model, IMAGE)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(UnsupportedModel, match=r"ResNet to run on .*\(1, 1, 8, 8\).*RuntimeError"):
        closing_norms(build("resnet18"), torch.zeros(1, 1, 8, 8))


def test_a_model_that_cannot_be_looked_into_is_refused():
    class Sealed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return x * self.norm.weight.view(1, -1, 1, 1)

    with pytest.raises(UnsupportedModel, match="of whose 1 norms none was seen"):
        closing_norms(Sealed(), IMAGE)
