"""Families whose forward holds a trap: sums that are no residual, places that do not last."""

import pytest
import timm
import torch
from torch import nn

from normattn import find_sites, graft, grafts
from normattn.errors import UnsupportedModel


def build(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("convnextv2_atto", 12),  # each block's response normalization adds its input, too
        ("hrnet_w18_small", 23),  # the head adds what came from different resolutions
        ("fastvit_t8", 10),  # blocks that merge their branches for inference, in blocks that stay
    ],
)
def test_only_ends_of_residual_branches_count(name, count):
    assert len(find_sites(build(name), input_size=64)) == count


def test_a_block_that_is_another_ones_branch_gets_one_attention():
    sites = find_sites(build("efficientvit_b0"), input_size=64)
    names = [site.name for site in sites]
    inside = [name for name in names if any(name.startswith(f"{other}.") for other in names)]
    assert inside == []


def test_stages_of_convnextv2_are_its_stages():
    sites = find_sites(build("convnextv2_atto"), "stages", input_size=64)
    assert [site.name for site in sites] == [
        "stages.0.blocks",
        "stages.1.blocks",
        "stages.2.blocks",
    ]


def test_attention_inside_a_block_that_will_be_merged_is_refused():
    with pytest.raises(UnsupportedModel, match="without any"):
        find_sites(build("repvgg_a0"), input_size=64)
    with pytest.raises(UnsupportedModel, match=r"inside RepVggBlock, whose reparameterize\(\)"):
        find_sites(build("repvgg_a0"), "stages.0.1.drop_path", input_size=64)


def test_attention_around_merged_blocks_outlives_the_merge():
    model = timm.create_model("repvgg_a0", num_classes=3).eval()
    graft(model, "se", sites=["stages.0", "stages.1"], input_size=32)
    x = torch.randn(1, 3, 32, 32)
    merged = timm.utils.model.reparameterize_model(model)
    assert [record.site for record in grafts(merged)] == ["stages.0", "stages.1"]
    torch.testing.assert_close(merged(x), model(x), rtol=1e-3, atol=1e-5)


def test_a_layer_with_several_inputs_is_refused_and_not_broken():
    with pytest.raises(UnsupportedModel, match=r"one input, got DlaBasic at 'level2\.tree1'"):
        graft(build("dla34"), "se", sites="level2.tree1", input_size=64)


class Blurred(nn.Module):
    """The first convolution that is registered sees a map, and not the image."""

    def __init__(self):
        super().__init__()
        self.body, self.stem = nn.Conv2d(8, 8, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        x = self.stem(x)
        return x + self.body(x)


def test_the_first_convolution_need_not_see_the_image():
    assert [site.name for site in find_sites(Blurred(), input_size=8)] == ["body"]
