"""Triplet attention: its formula, and the inputs that could break it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn.attention import Triplet
from normattn.errors import ConfigError, InputError


def product_by_hand(branch, x, training):
    """Gate ``x`` over its dimension 1, by a convolution written as a sum over shifted maps."""
    views = [x.max(dim=1).values, x.sum(dim=1) / x.shape[1]]
    kernel = branch.conv.weight[0]
    height, width, reach = *x.shape[2:], kernel.shape[-1] // 2
    response = torch.zeros_like(views[0])
    for view, weights in zip(views, kernel, strict=True):
        padded = nn.functional.pad(view, [reach] * 4)
        for i, row in enumerate(weights):
            for j, weight in enumerate(row):
                response = response + weight * padded[:, i : i + height, j : j + width]
    norm = branch.norm
    mean, var = norm.running_mean, norm.running_var
    if training:
        mean, var = response.mean(), response.var(unbiased=False)
    logits = norm.weight * (response - mean) / (var + 1e-5).sqrt() + norm.bias
    return x / (1 + torch.exp(-logits)).unsqueeze(1)


def output_by_hand(module, x):
    """Rotate, gate and rotate back, as the paper draws it, and average the three products."""
    plain = product_by_hand(module.hw, x, module.training)
    height = product_by_hand(module.cw, x.permute(0, 2, 1, 3), module.training)
    width = product_by_hand(module.hc, x.permute(0, 3, 2, 1), module.training)
    return (plain + height.permute(0, 2, 1, 3) + width.permute(0, 3, 2, 1)) / 3


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kernel_size", [7, 3])
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 3, 1, 2), (2, 3, 1, 1)], ids=str)
def test_output_follows_the_papers_formula(fill, shape, kernel_size, training):
    torch.manual_seed(0)
    module = fill(Triplet(shape[1], kernel_size=kernel_size, dtype=torch.float64)).train(training)
    x = torch.randn(shape, dtype=torch.float64)
    expected = output_by_hand(module, x)
    assert_close(module(x), expected)


def test_values_are_those_of_a_separate_program(wave, fill, check_frozen):
    module = fill(Triplet(4, kernel_size=3, dtype=torch.float64))
    picked = [0.6085497954, 0.997904618, 0.6035139159, 0.907183304]
    check_frozen(module(wave(2, 4, 2, 3)), picked, 27.68761973)


@pytest.mark.parametrize("channels", [1, 16, 2048])
def test_parameters_do_not_depend_on_the_channels(channels):
    assert sum(parameter.numel() for parameter in Triplet(channels).parameters()) == 300


def test_norms_have_the_long_memory_of_the_published_code():
    module = Triplet(16)
    assert [branch.norm.momentum for branch in (module.hw, module.cw, module.hc)] == [0.01] * 3


def test_a_kernel_without_a_centre_is_refused():
    with pytest.raises(ConfigError, match=r"^Triplet: expected kernel_size to be odd, got 4"):
        Triplet(16, kernel_size=4)


def test_one_pixel_of_one_image_is_refused_in_training():
    with pytest.raises(InputError, match=r"^Triplet: expected more than one value"):
        Triplet(16)(torch.zeros(1, 16, 1, 1))
